"""The matchers in a comparison: each trained on the same batches, scored by what it ranks first."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import load_file
from torch import Tensor

from evaluation.fusion import System
from evaluation.fusion_config import FusionConfig, matcher_runs
from evaluation.fusion_pairs import PairScorer
from evaluation.fusion_ranking import Ranking, hits, hits_with_embedder, load_rankings
from evaluation.fusion_runs import WEIGHTS, first_photos, save_weights, short_run
from evaluation.fusion_times import interleaved_medians
from models.matcher import Matcher
from models.weights import load_weights
from retrieval.embedder import EmbedderConfig
from retrieval.errors import InvalidRequestError
from training.checkpoint import CHECKPOINT, logged_losses
from training.matcher import (
    MatcherMaterial,
    MatcherRun,
    new_matcher,
    prepare_matcher,
    recipe_config,
    train_matcher_on,
)

_TOKEN_TYPES = {"none": "none", "before": "before", "after": "after", "after_scaled": "after, scaled"}

LoadMaterial = Callable[[MatcherRun], MatcherMaterial]
LoadRankings = Callable[[MatcherRun, Sequence[str], Sequence[str], int], Mapping[str, Ranking]]


class MatcherFamily:
    """The matchers of a comparison's settings.

    Args:
        load: gives what a recipe names.
        rank: gives what the embedder finds for some photos in some languages, so many captions each.

    Raises:
        InvalidRequestError: a recipe cannot be read, or its matcher does not fit.
    """

    name = "matchers"
    measure = "recall@1 in percent"
    modes: Mapping[str, str] = {"alone": "matcher alone", "with": "with the embedder"}
    reference = "the embedder alone"

    def __init__(
        self, config: FusionConfig, load: LoadMaterial = prepare_matcher, rank: LoadRankings = load_rankings
    ) -> None:
        self._config = config
        self._load, self._rank = load, rank
        self._runs = matcher_runs(config)
        self.systems = [self._describe(name, run) for name, run in self._runs.items()]
        if len({recipe_config(run, EmbedderConfig.d_text).text_layers for run in self._runs.values()}) > 1:
            raise InvalidRequestError(
                "all matchers of a comparison read the same states: give them one text_layers"
            )

    @property
    def facts(self) -> Sequence[str]:
        config, run = self._config, self._base
        return [
            f"training: {run.steps:,} steps of {run.photos} photos, {run.candidates} captions held against"
            f" each, {run.visual_tokens} visual tokens; towers begin at the embedder's space, all else at"
            f" random weights; data, frozen parts and optimiser of `{config.matcher_base}`, with one"
            f" learning rate ({run.learning_rate:g}) for all",
            f"score: share of photos whose first caption is their own, mean over"
            f" {', '.join(config.languages)}, on {config.ranked_photos} photos of split {config.split};"
            f" ranked are the {config.ranked_captions} captions by people that the embedder finds for a photo"
            " among those of all these photos",
            "alone: by the matcher's logit; with the embedder: by cosine plus weighted logit, the weight"
            " chosen on half of the photos for the other half. These are the matchers without and with"
            " retrieval's own score",
        ]

    @property
    def timing(self) -> str:
        config = self._config
        return (
            f"time: {config.ranked_captions} captions in {config.languages[0]} held against one photo,"
            " features and the text encoder's states given; adding the cosine takes no time that shows, so"
            " both ways have the same; median over"
            f" {min(config.timed_photos, config.ranked_photos)} photos, {config.timed_rounds} times each, all"
            f" systems in turn; {torch.get_num_threads()} threads, float32"
        )

    def prepare(self) -> None:
        """See `Family.prepare`.

        Raises:
            InvalidRequestError: as `prepare_matcher` and `load_rankings`.
        """
        _ = self._scorer

    def run(self, system: str, seed: int, folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
        """See `Family.run`. Weights (bfloat16) and the loss's curve stay in the folder.

        Raises:
            InvalidRequestError: as `train_matcher_on`.
        """
        run = short_run(self._runs[system], seed, folder)
        finished = (folder / CHECKPOINT).exists()
        trained = train_matcher_on(self._material, run, resume=finished)
        save_weights(trained, folder)
        logits = self._scorer.logits(self._open(system, folder))
        found, chosen = hits_with_embedder(self._rankings, logits)
        alone = {language: hits(logits[language], own.own) for language, own in self._rankings.items()}
        languages = {"alone": _percent(alone), "with": _percent(found)}
        (folder / CHECKPOINT).unlink()  # several times as large as the weights
        return (
            {mode: mean(scores.values()) for mode, scores in languages.items()},
            {"loss": logged_losses(run)[-1], "weights": chosen, "languages": languages},
        )

    def score_reference(self) -> dict[str, float]:
        """See `Family.score_reference`."""
        found = {language: hits(own.cosines, own.own) for language, own in self._rankings.items()}
        return dict.fromkeys(self.modes, mean(_percent(found).values()))

    def milliseconds(self, trained: Mapping[str, Path]) -> dict[str, dict[str, float]]:
        """See `Family.milliseconds`."""
        tasks = {
            system: partial(self._scorer.score_one, self._open(system, folder))
            for system, folder in trained.items()
        }
        language, rounds = self._config.languages[0], self._config.timed_rounds
        count = min(self._config.timed_photos, len(self._rankings[language].photos))
        photos = [self._scorer.one_photo(language, row) for row in range(count)]
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("timing", total=(rounds + 1) * len(photos))
            medians = interleaved_medians(tasks, photos, rounds, advance=lambda: progress.advance(task))
        return {system: dict.fromkeys(self.modes, round(taken, 2)) for system, taken in medians.items()}

    @cached_property
    def _photos(self) -> list[str]:
        return first_photos(self._base.data.index, self._config.split, self._config.ranked_photos)

    @cached_property
    def _rankings(self) -> Mapping[str, Ranking]:
        config = self._config
        return self._rank(self._base, self._photos, config.languages, config.ranked_captions)

    @cached_property
    def _material(self) -> MatcherMaterial:
        return self._load(self._base)

    @cached_property
    def _scorer(self) -> PairScorer:
        rankings = self._rankings  # first: what is wrong with the photos shows sooner than the rest is loaded
        return PairScorer(self._material, self._photos, rankings)

    @property
    def _base(self) -> MatcherRun:
        """Any of the recipes: they differ in shape alone."""
        return next(iter(self._runs.values()))

    def _describe(self, name: str, run: MatcherRun) -> System:
        matcher = new_matcher(run, EmbedderConfig.d_text)
        reported = {"output", "seed", "log_every", "checkpoint_every"}
        scored = self._config.model_dump(
            mode="json", include={"split", "languages", "ranked_photos", "ranked_captions"}
        )
        return System(
            name,
            matcher.num_parameters,
            {**run.model_dump(mode="json", exclude=reported), **scored},
            {"token types": _TOKEN_TYPES[matcher.config.token_types]},
        )

    def _open(self, system: str, folder: Path) -> Matcher:
        matcher = new_matcher(self._runs[system], self._material.d_text)
        load_weights(matcher, load_file(folder / WEIGHTS), "matcher")
        return matcher.eval().requires_grad_(False)


def _percent(found: Mapping[str, Tensor]) -> dict[str, float]:
    return {language: 100 * float(own.double().mean()) for language, own in found.items()}

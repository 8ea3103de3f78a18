"""The bridges in a comparison: each trained into the same frozen language model, scored by its captions."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import load_file

from evaluation.fusion import System
from evaluation.fusion_captions import Captions, FeatureCaptioner
from evaluation.fusion_config import FusionConfig, bridge_runs
from evaluation.fusion_runs import WEIGHTS, first_photos, save_weights, short_run
from evaluation.fusion_times import interleaved_medians
from evaluation.references import References, read_references
from evaluation.scores import CaptionScores, cider_signature, score_captions
from evaluation.tokenisation import tokeniser_for
from models.weights import load_weights
from retrieval.errors import InvalidRequestError
from retrieval.files import replacing
from retrieval.precision import fast_cpu_dtype
from training.bridge import BridgeMaterial, BridgeRun, new_bridge, prepare_bridge, train_bridge_on
from training.checkpoint import CHECKPOINT, logged_losses
from training.config import read_config
from training.language import LanguageRun

_CAPTIONS = "captions.json"

LoadMaterial = Callable[[BridgeRun, Sequence[str]], BridgeMaterial]


class BridgeFamily:
    """The bridges of a comparison's settings.

    Args:
        load: gives what a recipe names, with neighbours for some further photos.

    Raises:
        InvalidRequestError: a recipe cannot be read, or its bridge does not fit the language model.
    """

    name = "bridges"
    measure = "CIDEr-D × 100"
    modes: Mapping[str, str] = {"with": "with retrieval", "without": "without retrieval"}
    reference = "the language model without a bridge"

    def __init__(self, config: FusionConfig, load: LoadMaterial = prepare_bridge) -> None:
        self._config = config
        self._load = load
        self._runs = bridge_runs(config)
        self.systems = [self._describe(name, run) for name, run in self._runs.items()]

    @property
    def facts(self) -> Sequence[str]:
        config, run = self._config, self._base
        search = "greedy" if config.beams == 1 else f"{config.beams} beams"
        signatures = {cider_signature(tokeniser_for(language)) for language in config.languages}
        return [
            f"training: {run.steps:,} steps of at most {run.batch_tokens:,} tokens, from random weights;"
            f" data, frozen parts and optimiser of `{config.base.name}`, with one learning rate"
            f" ({run.learning_rate:g}) for all",
            f"score: mean over {', '.join(config.languages)} on {config.photos} photos of split"
            f" {config.split}, {search}; " + ", ".join(f"`{signature}`" for signature in sorted(signatures)),
            f"retrieval: a caption of each of the {config.neighbours} training photos whose captions are"
            " nearest to the photo, the same for all",
        ]

    @property
    def timing(self) -> str:
        config = self._config
        dtype = str(fast_cpu_dtype()).removeprefix("torch.")
        return (
            f"time: one caption in {config.languages[0]} of one photo, features and neighbours given,"
            f" {config.timed_beams} beams; median over {min(config.timed_photos, config.photos)} photos,"
            f" {config.timed_rounds} times each, all systems in turn; {torch.get_num_threads()} threads,"
            f" {dtype}"
        )

    def prepare(self) -> None:
        _ = self._references, self._captioner

    def run(self, system: str, seed: int, folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
        """See `Family.run`. Weights (bfloat16), captions and the loss's curve stay in the folder.

        Raises:
            InvalidRequestError: as `train_bridge_on`.
        """
        run = short_run(self._runs[system], seed, folder)
        finished = (folder / CHECKPOINT).exists()
        trained = train_bridge_on(self._material, run, resume=finished)
        save_weights(trained, folder)
        bridge = self._open(system, folder)
        captions = self._caption_all(bridge, folder.name)
        with replacing(folder / _CAPTIONS) as temporary:
            temporary.write_text(json.dumps(captions, ensure_ascii=False, indent=1), encoding="utf-8")
        scores = {mode: self._score(written) for mode, written in captions.items()}
        (folder / CHECKPOINT).unlink()  # several times as large as the weights
        return (
            {mode: mean(found.cider_d for found in languages.values()) for mode, languages in scores.items()},
            {
                "loss": logged_losses(run)[-1],
                "languages": {
                    mode: {language: _document(found) for language, found in languages.items()}
                    for mode, languages in scores.items()
                },
            },
        )

    def score_reference(self) -> dict[str, float]:
        """See `Family.score_reference`."""
        captions = self._caption_all(None, self.reference)
        return {
            mode: mean(found.cider_d for found in self._score(written).values())
            for mode, written in captions.items()
        }

    def milliseconds(self, trained: Mapping[str, Path]) -> dict[str, dict[str, float]]:
        """See `Family.milliseconds`."""
        bridges = {system: self._open(system, folder) for system, folder in trained.items()}
        tasks = {
            (system, mode): self._caption_one(bridge, retrieval=mode == "with")
            for system, bridge in bridges.items()
            for mode in self.modes
        }
        photos, rounds = self._photos[: self._config.timed_photos], self._config.timed_rounds
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("timing", total=(rounds + 1) * len(photos))
            medians = interleaved_medians(tasks, photos, rounds, advance=lambda: progress.advance(task))
        return {system: {mode: round(medians[system, mode], 2) for mode in self.modes} for system in bridges}

    @cached_property
    def _photos(self) -> list[str]:
        return first_photos(self._base.data.index, self._config.split, self._config.photos)

    @cached_property
    def _references(self) -> dict[str, References]:
        found = read_references(self._base.data.captions, self._photos)
        missing = [language for language in self._config.languages if language not in found]
        if missing:
            raise InvalidRequestError(
                f"{self._base.data.captions} has no captions of these photos in {', '.join(missing)}"
            )
        return {language: found[language] for language in self._config.languages}

    @cached_property
    def _material(self) -> BridgeMaterial:
        return self._load(self._base, self._photos)

    @cached_property
    def _captioner(self) -> FeatureCaptioner:
        unknown = sorted(set(self._config.languages) - set(self._material.prompts.languages))
        if unknown:
            raise InvalidRequestError(f"there is no prompt in {', '.join(unknown)}")
        return FeatureCaptioner(self._material, neighbours=self._config.neighbours, dtype=fast_cpu_dtype())

    @property
    def _base(self) -> BridgeRun:
        """Any of the recipes: they name the same data."""
        return next(iter(self._runs.values()))

    def _describe(self, name: str, run: BridgeRun) -> System:
        bridge = new_bridge(run, read_config(run.language, LanguageRun).shape)
        reported = {"output", "seed", "log_every", "checkpoint_every"}
        scored = self._config.model_dump(
            mode="json", include={"split", "photos", "languages", "neighbours", "beams"}
        )
        parameters = sum(parameter.numel() for parameter in bridge.parameters())
        return System(name, parameters, {**run.model_dump(mode="json", exclude=reported), **scored})

    def _open(self, system: str, folder: Path) -> Any:
        bridge = new_bridge(self._runs[system], self._material.language_model.config)
        load_weights(bridge, load_file(folder / WEIGHTS), "bridge")
        return bridge.to(self._captioner.dtype).eval().requires_grad_(False)

    def _caption_all(self, bridge: Any, name: str) -> dict[str, Captions]:
        """Captions of all photos by mode."""
        captions: dict[str, Captions] = {}
        with Progress(console=Console(stderr=True)) as progress:
            for mode in progress.track(self.modes, description=f"{name}, captions"):
                captions[mode] = self._captioner.caption(
                    bridge,
                    self._photos,
                    self._config.languages,
                    retrieval=mode == "with",
                    beams=self._config.beams,
                )
        return captions

    def _caption_one(self, bridge: Any, *, retrieval: bool) -> Callable[[str], Captions]:
        languages, beams = self._config.languages[:1], self._config.timed_beams
        return lambda photo: self._captioner.caption(
            bridge, [photo], languages, retrieval=retrieval, beams=beams
        )

    def _score(self, captions: Captions) -> dict[str, CaptionScores]:
        return {
            language: score_captions(written, self._references[language].texts, language)
            for language, written in captions.items()
        }


def _document(scores: CaptionScores) -> dict[str, float | str]:
    return {
        "cider_d": scores.cider_d,
        "distinct_2": scores.distinct_2,
        "mean_length": scores.mean_length,
        "loops": scores.loops,
        "signature": scores.signature,
    }

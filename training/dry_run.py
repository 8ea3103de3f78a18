"""Tries a recipe out: a few real steps on tiny data, then a caption by a bundle with the result in it.

It needs the repository alone: what a recipe says of data is not looked at, and the frozen parts are those of
the default bundle. It shows that what the recipe describes can be trained, saved, loaded and used.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from pydantic import BaseModel
from torch import nn

from models.bundle import Bundle, default_bundle
from models.captions import Caption, CaptionSettings
from models.manifest import require_empty
from training.bridge import BridgeMaterial, BridgeRun, train_bridge_on
from training.checkpoint import load_trained, logged_losses
from training.export import bridge_part, matcher_part, replace_part
from training.matcher import MatcherMaterial, MatcherRun, reader_on, train_matcher_on
from training.prompt_examples import TokenisedCorpus
from training.run_config import RunConfig
from training.tiny_data import TinyData, make_tiny_data
from training.tower_start import mean_states, mean_vectors, tower_start

STEPS = 3
_BATCH_TOKENS = 512
_LANGUAGE = "en"  # of the caption, if the bundle writes it

C = TypeVar("C", bound=RunConfig)


@dataclass(frozen=True)
class DryRun:
    """What was done."""

    recipe: str
    part: str  # what was trained
    parameters: int
    losses: Sequence[float]  # of each step
    photos: int
    caption: Caption  # of the first photo
    bundle: Path | None  # the bundle with the trained part; None if it was not kept

    def lines(self) -> list[str]:
        """The same for people."""
        losses = " → ".join(f"{loss:.3f}" for loss in self.losses)
        kept = f"the bundle is in {self.bundle}: paellera caption PHOTO --bundle {self.bundle}"
        return [
            f"{self.recipe}: {self.part}, {self.parameters:,} parameters trained, the rest frozen",
            f"{len(self.losses)} steps on {self.photos} drawn photos, loss {losses}",
            f"the first of them, captioned with it ({self.caption.language}): {self.caption.text}",
            kept if self.bundle else "nothing was kept (--output DIR keeps the bundle)",
        ]


def dry_run_bridge(config: BridgeRun, output: Path | None = None) -> DryRun:
    """Try out a bridge's recipe.

    Args:
        output: a new folder for the bundle with the trained bridge; by default nothing is kept.

    Raises:
        InvalidRequestError: the recipe's bridge does not fit, or there is something in `output`.
        BundleError, DatastoreError: the default bundle is missing or damaged.
    """
    with _attempt(output) as attempt:
        material = bridge_material(attempt.bundle, attempt.data, config.dropout)
        run = shortened(config, attempt.folder, batch_tokens=_BATCH_TOKENS)
        bridge = train_bridge_on(material, run, resume=False)
        part = f"{config.shape.kind} bridge"
        return attempt.use("bridge", bridge_part(config, bridge), run, bridge, part)


def dry_run_matcher(config: MatcherRun, output: Path | None = None) -> DryRun:
    """Try out a matcher's recipe; its logits are not calibrated.

    Args:
        output: a new folder for the bundle with the trained matcher; by default nothing is kept.

    Raises:
        InvalidRequestError: the recipe's matcher does not fit, or there is something in `output`.
        BundleError, DatastoreError: the default bundle is missing or damaged.
    """
    with _attempt(output) as attempt:
        run = shortened(config, attempt.folder, photos=len(attempt.data.images))
        material = matcher_material(attempt.bundle, attempt.data, run)
        matcher = train_matcher_on(material, run, resume=False)
        part = f"matcher with {matcher.config.encoder} fusion"
        return attempt.use("matcher", matcher_part(matcher), run, matcher, part)


def matcher_material(bundle: Bundle, data: TinyData, config: MatcherRun) -> MatcherMaterial:
    """Tiny data as a recipe's matcher is trained on it, with the bundle's text encoder."""
    embedder = bundle.load_embedder()
    reader = reader_on(embedder.encoder, config)
    owners = {photo: i for i, photo in enumerate(data.images)}
    captions = [
        (owners[photo], text)
        for photos in data.captions.texts.values()
        for photo, texts in photos.items()
        for text in texts
    ]
    texts = [text for _, text in captions]
    vectors = torch.from_numpy(embedder.embed_texts(texts))
    owner = torch.tensor([photo for photo, _ in captions])
    names = list(data.images)
    start = tower_start(
        data.features.pooled(names),
        data.features.tokens(names),
        mean_vectors(vectors, owner),
        mean_states(reader, reader.tokenise(texts)),
        vectors,
    )
    return MatcherMaterial(
        reader,
        reader.width,
        data.features,
        TokenisedCorpus(data.captions, reader.tokenise),
        TokenisedCorpus(data.neighbours, reader.tokenise),
        data.retrieved,
        start,
    )


def bridge_material(bundle: Bundle, data: TinyData, dropout: float = 0.0) -> BridgeMaterial:
    """Tiny data as bridges are trained on it, into the bundle's language model."""
    prompts = bundle.load_prompts()
    return BridgeMaterial(
        bundle.load_language_model(dropout),
        prompts,
        data.features,
        TokenisedCorpus(data.captions, prompts.tokenizer.encode),
        TokenisedCorpus(data.neighbours, prompts.tokenizer.encode),
        data.retrieved,
    )


def shortened(config: C, folder: Path, **changes: int) -> C:
    """The same recipe for a few steps, each of them logged, as a run inside `folder`."""
    few = {"steps": STEPS, "warmup_steps": 1, "log_every": 1, "checkpoint_every": STEPS}
    return config.model_copy(update={**few, **changes, "output": folder / config.output.name})


@dataclass(frozen=True)
class _Attempt:
    """What a dry run starts from, and where its results go."""

    bundle: Bundle
    data: TinyData
    folder: Path  # temporary
    output: Path | None  # of the bundle, if it is to be kept

    def use(self, name: str, record: BaseModel, run: RunConfig, trained: nn.Module, part: str) -> DryRun:
        """Put what was trained into a copy of the bundle, and caption the first photo with that.

        Args:
            name: of the part, as the manifest calls it; `record` is what it says of it.
            part: the same for people.
        """
        place = self.output or self.folder / "bundle"
        provenance = (
            f"The {name} took {STEPS} steps on drawings, to try out its recipe: it has learnt nothing."
        )
        replace_part(self.bundle, place, name, record, load_trained(run), provenance)
        return DryRun(
            recipe=run.output.name,
            part=part,
            parameters=sum(parameter.numel() for parameter in trained.parameters()),
            losses=logged_losses(run),
            photos=len(self.data.images),
            caption=_caption_first(place, self.data),
            bundle=self.output,
        )


@contextmanager
def _attempt(output: Path | None) -> Iterator[_Attempt]:
    if output is not None:
        require_empty(output)
    with TemporaryDirectory(prefix="paellera-") as folder:
        bundle = Bundle.open(default_bundle())
        yield _Attempt(bundle, make_tiny_data(bundle, Path(folder, "photos")), Path(folder), output)


def _caption_first(bundle: Path, data: TinyData) -> Caption:
    """What the bundle says of the first photo."""
    captioner = Bundle.open(bundle).load_captioner()
    language = _LANGUAGE if _LANGUAGE in captioner.languages else captioner.languages[0]
    image = next(iter(data.images.values()))
    return captioner.caption([image], CaptionSettings((language,))).images[0].captions[0]

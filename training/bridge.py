"""Recipe: the bridge from photo to language model. Language model, vision encoder and embedder stay frozen.

What it learns from is in training/bridge_examples.py. Loading that takes far longer than a step of training,
so it is apart from the training itself: several bridges can be trained on one `BridgeMaterial`.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn

from models.bridges import build_bridge
from models.language.decoding import LanguageModelShape
from models.language.xglm import XGLM
from models.manifest import BridgeKind
from models.prompts.builder import PromptBuilder, load_templates
from retrieval.embedder import SharedSpace
from retrieval.errors import InvalidRequestError
from training.bridge_examples import BorrowedExamples, BridgeExamples, RetrievedExamples
from training.config import read_config
from training.corpus import CaptionCorpus, CaptionRow, read_captions
from training.embedder import EmbedderRun, caption_texts, load_space
from training.example_stream import ExampleStream
from training.features import FeatureCache
from training.language import LanguageRun, load_language_model, load_tokenizer
from training.loop import train
from training.loss import linear_cross_entropy
from training.near import nearest, read_near
from training.photo_index import read_splits
from training.prompt_examples import PromptExamples, TokenisedCorpus
from training.run_config import RunConfig
from training.sequences import IGNORE, Batch
from training.text_vectors import read_text_vectors

_POOL = 1024  # examples drawn at a time


class BridgeData(BaseModel):
    model_config = ConfigDict(extra="forbid")

    captions: Path
    index: Path
    features: Path  # made by `python -m training.features`, plain and mirrored
    text_vectors: Path  # made by `python -m training.text_vectors`
    text: Path | None = None  # captions of other photos, for examples with a borrowed one
    near: Path | None = None  # made by `python -m training.near` over `captions` and `text`
    language_weights: dict[str, float]  # share of each language among the examples
    max_captions: PositiveInt = 5  # learnt after one prompt


class BridgeShape(BaseModel):
    """Which bridge, and the settings of its config that do not follow from the language model."""

    model_config = ConfigDict(extra="allow")  # they are checked when it is built

    kind: BridgeKind = "cross_attention"
    d_memory: PositiveInt = 1280  # width of a visual token

    @property
    def settings(self) -> dict[str, Any]:
        defaults = {"reduction": 2} if self.kind == "cross_attention" else {}
        return {"d_memory": self.d_memory, **defaults, **(self.model_extra or {})}


class BridgeRun(RunConfig):
    """`training/configs/bridge.toml`."""

    data: BridgeData
    language: Path  # recipe of the language model that is bridged
    embedder: Path  # recipe of the space that retrieves
    shape: BridgeShape = BridgeShape()
    batch_tokens: PositiveInt = 8192
    # At first most prompts hold no neighbours: the photo is then the only source, and is learnt sooner.
    bare_pools: int = Field(default=0, ge=0)  # pools of 1,024 examples for which that lasts
    bare_share: float = Field(default=0.7, ge=0, le=1)
    # After that this share of the examples has a borrowed photo.
    borrowed_share: float = Field(default=0.2, ge=0, le=1)
    substituted_share: float = Field(default=0.0, ge=0, le=1)  # of those: with shared words replaced
    visual_tokens: PositiveInt = 64  # kept of each photo's grid in a step, a random subset
    dropout: float = Field(default=0.1, ge=0, lt=1)  # of the language model's block outputs


class BridgeRecipe:
    """Loss on the captions alone; photos mirrored half of the time."""

    def __init__(
        self,
        bridge: nn.Module,
        language_model: XGLM,
        features: FeatureCache,
        stream: ExampleStream,
        visual_tokens: int,
    ) -> None:
        self.trained: Any = bridge
        self.stream = stream
        self._model = language_model
        self._features = features
        self._visual_tokens = visual_tokens

    def loss(self, batch: Batch) -> Tensor:
        mirror = bool(torch.rand(()) < 0.5)
        tokens = self._features.tokens(batch.image_ids, mirror=mirror)
        kept = torch.rand(tokens.shape[:2]).argsort(dim=1)[:, : self._visual_tokens]
        memory = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2])).float()  # as the weights
        state = self.trained.prepare(memory)
        hidden = self._model(
            batch.input_ids, batch.positions, batch.mask, bridge=self.trained, bridge_state=state
        )
        learnt = batch.labels != IGNORE
        labels = batch.labels[learnt]
        return linear_cross_entropy(hidden[learnt], self._model.embed_tokens.weight, labels) / len(labels)


def retrieved_photos(
    rows: Sequence[CaptionRow],
    vectors: Tensor,
    splits: Mapping[str, str],
    space: SharedSpace,
    features: FeatureCache,
    depth: int = 24,
    others: Sequence[str] = (),
) -> dict[str, list[str]]:
    """For every training photo the other training photos whose captions the embedder finds, best first.

    Args:
        others: photos that are not for training, and get the same.
    """
    photos = sorted({row.image_id for row in rows if splits.get(row.image_id) == "train"})
    number = {photo: i for i, photo in enumerate(photos)}
    kept = [i for i, row in enumerate(rows) if row.image_id in number]
    owner = torch.tensor([number[rows[i].image_id] for i in kept])
    with torch.inference_mode():
        captions = caption_texts(space, [rows[i] for i in kept], vectors[torch.tensor(kept)].float())
        texts = space.entry_vectors(captions)
        entries = torch.zeros(len(photos), texts.shape[1]).index_add_(0, owner, texts)
        entries = F.normalize(entries, dim=1)
        images, _ = space.query_vectors(features.pooled(photos), features.class_logits(photos))
        found = nearest(images, depth, among=entries).tolist()
        if others:
            images, _ = space.query_vectors(features.pooled(others), features.class_logits(others))
            found += (images @ entries.t()).topk(min(depth, len(photos)), dim=1).indices.tolist()
    return {photo: [photos[i] for i in row] for photo, row in zip([*photos, *others], found, strict=True)}


def human_first(rows: Sequence[CaptionRow]) -> CaptionCorpus:
    """Captions to be learnt: those that people wrote, machine translations where a photo has no others."""
    human = {(row.image_id, row.language) for row in rows if row.kind.startswith("human")}
    return CaptionCorpus(
        row for row in rows if row.kind.startswith("human") or (row.image_id, row.language) not in human
    )


def _borrowed_examples(
    config: BridgeRun, prompts: PromptBuilder, photos: Set[str]
) -> BorrowedExamples | None:
    if config.data.text is None or config.data.near is None:
        return None
    near = read_near(config.data.near)
    corpus = TokenisedCorpus(CaptionCorpus(read_captions(config.data.text)), prompts.tokenizer.encode)
    texts = PromptExamples(
        corpus,
        prompts,
        near,
        config.data.language_weights,
        config.data.max_captions,
        config.substituted_share,
    )
    return BorrowedExamples(texts, near, photos)


@dataclass(frozen=True)
class BridgeMaterial:
    """What bridges are trained on, and into."""

    language_model: XGLM  # frozen
    prompts: PromptBuilder
    features: FeatureCache
    learnt: TokenisedCorpus  # captions of the training photos
    neighbours: TokenisedCorpus  # captions for the prompts
    retrieved: Mapping[str, Sequence[str]]  # photo → what of `neighbours` is found for it, best first
    borrowed: BorrowedExamples | None = None


def prepare_bridge(config: BridgeRun, others: Sequence[str] = ()) -> BridgeMaterial:
    """Load what a recipe names.

    Args:
        others: photos that are not for training, but for which neighbours are wanted too.

    Raises:
        InvalidRequestError: a file is missing, or a run of another part is not finished.
    """
    splits = read_splits(config.data.index)
    rows, vectors = read_text_vectors(config.data.captions, config.data.text_vectors)
    features = FeatureCache(config.data.features)
    space = load_space(read_config(config.embedder, EmbedderRun))
    retrieved = retrieved_photos(rows, vectors, splits, space, features, others=others)
    rows = [row for row in rows if splits.get(row.image_id) == "train"]
    language = read_config(config.language, LanguageRun)
    prompts = PromptBuilder(load_tokenizer(language), load_templates())
    return BridgeMaterial(
        load_language_model(language, config.dropout),
        prompts,
        features,
        TokenisedCorpus(human_first(rows), prompts.tokenizer.encode),
        TokenisedCorpus(CaptionCorpus(rows), prompts.tokenizer.encode),
        retrieved,
        _borrowed_examples(config, prompts, {row.image_id for row in rows}),
    )


def train_bridge_on(material: BridgeMaterial, config: BridgeRun, *, resume: bool) -> Any:
    """Train a recipe's bridge into `config.output`.

    Returns:
        The bridge, in evaluation mode.

    Raises:
        InvalidRequestError: the recipe's settings do not fit the material, or as `train` does.
    """
    torch.manual_seed(config.seed)
    bridge = new_bridge(config, material.language_model.config)
    width = material.features.tokens(material.features.image_ids()[:1]).shape[2]
    if config.shape.d_memory != width:
        raise InvalidRequestError(
            f"the visual tokens of {material.features.directory} are {width} wide: set d_memory = {width}"
        )
    examples = RetrievedExamples(
        material.learnt,
        material.neighbours,
        material.prompts,
        material.retrieved,
        config.data.language_weights,
        config.data.max_captions,
    )
    stream = ExampleStream(
        BridgeExamples(examples, material.borrowed, config).draw,
        size=_POOL,
        seed=config.seed,
        batch_tokens=config.batch_tokens,
    )
    model = material.language_model.train()
    train(BridgeRecipe(bridge, model, material.features, stream, config.visual_tokens), config, resume=resume)
    return bridge


def train_bridge(config: BridgeRun, *, resume: bool) -> None:
    """Train the bridge into `config.output`."""
    train_bridge_on(prepare_bridge(config), config, resume=resume)


def new_bridge(config: BridgeRun, language: LanguageModelShape) -> Any:
    """The bridge of a recipe with fresh weights, for the language model it is trained into.

    Raises:
        InvalidRequestError: its settings do not fit.
    """
    try:
        return build_bridge(config.shape.kind, config.shape.settings, language)
    except ValueError as error:
        raise InvalidRequestError(str(error)) from error

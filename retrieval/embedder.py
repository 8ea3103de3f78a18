"""One space for photos and captions: what makes "captions near this image" a nearest-neighbour search.

Two frozen encoders and a small trained projection on each side. Knows nothing of datastores or files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

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
_BLOCK = 4096  # captions compared with the bank at once, which bounds the memory


@dataclass(frozen=True)
class EmbedderConfig:
    """Shape of the projections."""

    d_image: int = 1280  # pooled vector of the vision encoder
    num_classes: int = 1000  # of the vision encoder's classifier
    d_text: int = 384  # sentence vector of the text encoder
    d_hidden: int = 768  # of the image side's perceptron
    dimension: int = 384  # of the shared space
    text_languages: int = 10  # languages whose texts have a map of their own
    bank: int = 0  # photos that tell which captions are near to everything


class SharedSpace(nn.Module):
    """The trained part: image and text vectors into one space.

    The text side is a linear map of centred sentence vectors, and beside it one for each language: people
    describe the same photo differently in each, and one map for all of them finds less in all. Which
    language a text is in shows in its sentence vector; a linear classifier reads it off. The image side is a
    linear map, a perceptron, and one vector for each ImageNet class, mixed by the classifier's probabilities
    (as ConSE does, Norouzi et al., ICLR 2014). The class vectors begin as the class names' own, so that
    things which no training photo shows, but ImageNet does, are found by name.

    `embed_image` and `embed_text` are what is trained. `query_vectors` and `entry_vectors` are what a search
    compares: they have one more coordinate, which takes from a caption's score how near it is to photos at
    large. Without it a few captions that are near to everything ("hubs") stand before the right ones
    (QB-Norm: Bogolin et al., CVPR 2022).
    """

    image_mean: Tensor
    image_scale: Tensor
    text_mean: Tensor
    bank: Tensor
    bank_mean: Tensor

    def __init__(self, config: EmbedderConfig, dropout: float = 0.0, text_dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
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

    def embed_image(self, pooled: Tensor, class_logits: Tensor) -> Tensor:
        """L2-normalised (B, E) of pooled vectors (B, d_image) and class scores (B, num_classes)."""
        x = self.dropout((pooled - self.image_mean) / self.image_scale)
        seen = self.image_linear(x) + self.image_down(self.dropout(F.gelu(self.image_up(x))))
        # At unit length, or its twentyfold length would drown a class that the classifier is sure of.
        return F.normalize(F.normalize(seen, dim=-1) + class_logits.softmax(dim=-1) @ self.classes, dim=-1)

    def embed_text(self, sentences: Tensor, language: int | None = None) -> Tensor:
        """L2-normalised (..., E) of sentence vectors (..., d_text).

        Args:
            language: index of the language all of them are in; read off each vector by default.
        """
        centred = self.centred(sentences)
        x = self.text_dropout(centred)
        mapped = self.text_linear(x)
        if language is not None:
            mapped = mapped + self._map_language(x, language)
        else:
            gate = self.language_gate(centred).softmax(dim=-1)
            for index in range(self.config.text_languages):
                mapped = mapped + gate[..., index : index + 1] * self._map_language(x, index)
        return F.normalize(mapped, dim=-1)

    @property
    def vector_dimension(self) -> int:
        """Of the vectors that a search compares."""
        return self.config.dimension + bool(self.config.bank)

    def query_vectors(self, pooled: Tensor, class_logits: Tensor) -> Tensor:
        """L2-normalised (B, vector_dimension) of images, from what `embed_image` takes."""
        image = self.embed_image(pooled, class_logits)
        if not self.config.bank:
            return image
        hub = image.new_full((len(image), 1), _HUB_AXIS)
        return torch.cat([image * (1 - _HUB_AXIS**2) ** 0.5, hub], dim=1)

    def entry_vectors(self, sentences: Tensor) -> Tensor:
        """L2-normalised (N, vector_dimension) of captions, from sentence vectors (N, d_text)."""
        text = self.embed_text(sentences)
        if not self.config.bank:
            return text
        nearness = self.bank_nearness(text) - self.bank_mean
        hub = (-_HUB_WEIGHT / _HUB_AXIS * nearness).clamp(-0.9, 0.9)[:, None]
        return torch.cat([text * (1 - hub.square()).sqrt(), hub], dim=1)

    def bank_nearness(self, text: Tensor) -> Tensor:
        """How near vectors (N, E) are to the photos of the bank: a soft maximum of cosines, (N,)."""
        blocks = [text[start : start + _BLOCK] for start in range(0, len(text), _BLOCK)]
        nearness = [(block @ self.bank.t() * _HUB_SCALE).logsumexp(dim=1) for block in blocks]
        return torch.cat(nearness) / _HUB_SCALE

    def centred(self, sentences: Tensor) -> Tensor:
        """Sentence vectors (..., d_text) without what all have in common, at about unit length."""
        # e5's vectors crowd around one direction; without it they have about a quarter of their length.
        return (sentences - self.text_mean) * 4

    def _map_language(self, x: Tensor, language: int) -> Tensor:
        return x @ self.language_weight[language] + self.language_bias[language]


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
    def _encoder(self) -> E5Encoder:
        return self._load_encoder()

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
        vectors = self._encoder.encode(texts, prefix=TEXT_PREFIX, progress=progress)
        embedded: NDArray[np.float32] = self._space.entry_vectors(vectors).numpy()
        return embedded

    @torch.inference_mode()
    def embed_pooled(self, pooled: Tensor, class_logits: Tensor) -> NDArray[np.float32]:
        """L2-normalised vectors (B, E) of the vision encoder's pooled vectors and class scores."""
        embedded: NDArray[np.float32] = self._space.query_vectors(
            pooled.float().cpu(), class_logits.float().cpu()
        ).numpy()
        return embedded

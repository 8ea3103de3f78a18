"""The matcher: does this caption fit this photo?

Visual tokens of the frozen vision encoder and states of the frozen text encoder, each brought into one
space by a small tower, then joined by one of the fusion encoders. What comes out is compared word by word
with the places of the photo. It ranks neighbours and gives captions their confidence. Knows no files and no
languages.

A pair's logit is a similarity in [-1, 1] times a learned scale. Half of it is the cosine of the two means;
half is each word's cosine with the places it is most like (Lee et al., SCAN, ECCV 2018; Yao et al., FILIP,
ICLR 2022), weighted by how much the word says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fusion.bimodal import BimodalEncoder, dual_stream_inter, dual_stream_intra, single_stream
from models.fusion.blocks import TransformerLayer, init_weights
from models.fusion.bottleneck_encoder import BottleneckEncoder, Update
from models.fusion.token_types import TokenTypes
from models.shapes import build_config

EncoderKind = Literal[
    "late", "early", "single_stream", "dual_stream_intra", "dual_stream_inter", "bottleneck"
]
TokenTypePlace = Literal["none", "before", "after", "after_scaled"]

_STREAMS = {
    "single_stream": single_stream,
    "dual_stream_intra": dual_stream_intra,
    "dual_stream_inter": dual_stream_inter,
}
_MAY_BE_ZERO = {"text_layers", "tower_layers", "fusion_layer", "dropout"}
_FOCUS = 10.0  # of a word's softmax over the places: the initial factor of their cosines


@dataclass(frozen=True)
class MatcherConfig:
    """Shape of the matcher."""

    d_memory: int  # width of a visual token
    d_text: int  # width of the text encoder's states
    text_layers: int = 4  # of the text encoder that the captions go through
    places: int = 81  # visual tokens of a photo
    d_model: int = 256
    num_heads: int = 4
    tower_layers: int = 0  # of each modality alone, before they meet
    encoder: EncoderKind = "late"  # late: they never meet; early: from the first layer on, as one sequence
    fusion_layers: int = 2
    fusion_layer: int = 0  # of `bottleneck`: the first of them that sees the bottlenecks
    num_bottlenecks: int = 4
    update: Update = "symmetric"
    token_types: TokenTypePlace = "none"  # before or after the towers; scaled: through a LayerScale
    by_word: bool = True  # also compare words with places, not only means with means
    dropout: float = 0.0  # of both inputs, while training

    def __post_init__(self) -> None:
        if self.d_model % self.num_heads:
            raise ValueError(f"{self.num_heads} heads do not divide {self.d_model}")
        if self.encoder == "early" and self.tower_layers:
            raise ValueError("early fusion has no towers: tower_layers must be 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {self.dropout}")
        # Whoever updates the bottlenecks is first heard by those that look at them afterwards: in the next
        # layer, or with sequential updates the second modality in the same one.
        needed = 1 if self.update == "sequential" else 2
        if self.encoder == "bottleneck" and self.fusion_layers - self.fusion_layer < needed:
            raise ValueError(
                f"photo and text would not meet: with {self.update} updates fusion_layer must be at least"
                f" {needed} below fusion_layers"
            )


@dataclass(frozen=True)
class EncodedTexts:
    """C captions behind their tower."""

    states: Tensor  # (C, T, D)
    weights: Tensor  # (C, T), how much each word says; a caption's sum to 1, and padding has 0
    mask: Tensor  # (C, T) bool, True at real tokens

    def __getitem__(self, rows: Tensor) -> "EncodedTexts":
        return EncodedTexts(self.states[rows], self.weights[rows], self.mask[rows])


class Matcher(nn.Module):
    """Towers, fusion encoder and comparison."""

    vision_mean: Tensor
    vision_scale: Tensor
    text_mean: Tensor
    text_scale: Tensor

    def __init__(self, config: MatcherConfig) -> None:
        super().__init__()
        self.config = config
        width = config.d_model
        self.register_buffer("vision_mean", torch.zeros(config.d_memory))
        self.register_buffer("vision_scale", torch.ones(()))
        self.register_buffer("text_mean", torch.zeros(config.d_text))
        self.register_buffer("text_scale", torch.ones(()))
        self.vision_proj = nn.Linear(config.d_memory, width)
        self.text_proj = nn.Linear(config.d_text, width)
        self.place_embedding = nn.Parameter(torch.empty(config.places, width).normal_(std=0.02))
        self.word_weight = nn.Linear(config.d_text, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.vision_tower = _tower(config)
        self.text_tower = _tower(config)
        self.types = (
            None
            if config.token_types == "none"
            else TokenTypes(2, width, scaled=config.token_types == "after_scaled")
        )
        init_weights(self)
        nn.init.zeros_(self.word_weight.weight)
        self.encoder = _fusion_encoder(config)
        self.log_scale = nn.Parameter(torch.tensor(20.0).log())
        self.log_focus = nn.Parameter(torch.tensor(_FOCUS).log())
        self.bias = nn.Parameter(torch.tensor(-5.0))

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def encode_images(self, memory: Tensor, places: Tensor | None = None) -> Tensor:
        """Visual tokens (B, N, d_memory) → (B, N, D).

        Args:
            places: (N,) int64, which of the photo's places these are; all by default.
        """
        centred = self.dropout((memory - self.vision_mean) / self.vision_scale)
        position = self.place_embedding if places is None else self.place_embedding[places]
        images: Tensor = self.vision_proj(centred) + position
        images = self._with_type(images, 0, "before")
        for layer in self.vision_tower:
            images = layer(images)
        return self._with_type(images, 0, "after")

    def encode_texts(self, states: Tensor, mask: Tensor) -> EncodedTexts:
        """C captions behind their tower, from the text encoder's states (C, T, d_text).

        Args:
            mask: (C, T) bool, True at real tokens.
        """
        centred = (states - self.text_mean) / self.text_scale
        weights = self.word_weight(centred)[..., 0].float().masked_fill(~mask, float("-inf")).softmax(dim=-1)
        texts: Tensor = self.text_proj(self.dropout(centred))
        texts = self._with_type(texts, 1, "before")
        for layer in self.text_tower:
            texts = layer(texts, mask)
        return EncodedTexts(self._with_type(texts, 1, "after"), weights.to(texts.dtype), mask)

    def forward(self, images: Tensor, texts: EncodedTexts) -> Tensor:
        """Logits (B,) of B pairs, images (B, N, D) and as many texts: above 0, rather a match."""
        images, states = self._fuse(images, texts)
        return self._logit(self._compare(images, replace(texts, states=states)))

    def tower_logits(self, images: Tensor, texts: EncodedTexts) -> Tensor:
        """Logits (B, C) of every image with every text before the two are fused."""
        by_mean = _mean_image(images) @ _mean_text(texts).t()
        if not self.config.by_word:
            return self._logit(by_mean)
        cosines = torch.einsum(
            "bnd,ctd->bctn", F.normalize(images, dim=-1), F.normalize(texts.states, dim=-1)
        )
        by_word = (self._nearest(cosines) * texts.weights).float().sum(dim=-1)
        return self._logit((by_mean + by_word) / 2)

    def attention(self, images: Tensor, texts: EncodedTexts) -> tuple[list[Tensor], Tensor | None]:
        """Where B pairs, as `forward` takes them, look.

        Returns:
            What `rollout` takes: weights (B, H, L, L) of the fusion encoder in fp32, first layer first, over
            N places, T words and then the bottlenecks, if it has any; an empty list of two towers. And the
            weights (B, T, N) with which words are compared with places; None unless `by_word`.
        """
        layers: list[Tensor] = []
        images, states = self._fuse(images, texts, layers)
        if not self.config.by_word:
            return layers, None
        return layers, self._focus(_cosines(images, states))

    def _fuse(
        self, images: Tensor, texts: EncodedTexts, collected: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both sides behind the encoder; its weights are added to the list, if there is one."""
        count, need_weights = images.shape[1], collected is not None
        mask = torch.cat([texts.mask.new_ones(len(images), count), texts.mask], dim=1)
        weights: list[Tensor] = []
        match self.encoder:
            case None:
                states = texts.states
            case BottleneckEncoder():
                (images, states), _, *own = self.encoder(
                    [images, texts.states], [None, texts.mask], need_weights=need_weights
                )
                weights = self.encoder.joint_weights(own[0]) if need_weights else []
            case BimodalEncoder():
                images, states, weights = self.encoder(images, texts.states, mask, need_weights=need_weights)
            case _:  # early: one sequence
                joined = torch.cat([images, texts.states], dim=1)
                assert isinstance(self.encoder, nn.ModuleList)
                for layer in self.encoder:
                    if need_weights:
                        joined, seen = layer(joined, mask, need_weights=True)
                        weights.append(seen)
                    else:
                        joined = layer(joined, mask)
                images, states = joined[:, :count], joined[:, count:]
        if collected is not None:
            collected += weights
        return images, states

    def _compare(self, images: Tensor, texts: EncodedTexts) -> Tensor:
        """Similarities (B,) of B pairs."""
        by_mean = (_mean_image(images) * _mean_text(texts)).sum(dim=-1)
        if not self.config.by_word:
            return by_mean
        nearest = self._nearest(_cosines(images, texts.states))
        by_word = (nearest * texts.weights).float().sum(dim=-1)
        return (by_mean + by_word) / 2

    def _nearest(self, cosines: Tensor) -> Tensor:
        """A soft maximum over the last dimension, the places."""
        return (self._focus(cosines) * cosines).sum(dim=-1)

    def _focus(self, cosines: Tensor) -> Tensor:
        return (cosines * self.log_focus.exp()).softmax(dim=-1)

    def _logit(self, similarity: Tensor) -> Tensor:
        return similarity.float() * self.log_scale.exp() + self.bias

    def _with_type(self, x: Tensor, modality: int, where: Literal["before", "after"]) -> Tensor:
        if self.types is None or not self.config.token_types.startswith(where):
            return x
        return self.types.add(x, modality)


def matcher_config(settings: Mapping[str, Any], d_text: int) -> MatcherConfig:
    """The config of a matcher for a text encoder of that width.

    Args:
        settings: its fields other than `d_text`.

    Raises:
        ValueError: a setting is missing, unknown, of another type, too small, or does not fit.
    """
    return build_config(MatcherConfig, settings, {"d_text": d_text}, part="matcher", may_be_zero=_MAY_BE_ZERO)


def build_matcher(settings: Mapping[str, Any], d_text: int) -> Matcher:
    """A matcher with fresh weights; arguments and errors as of `matcher_config`."""
    return Matcher(matcher_config(settings, d_text))


def matcher_settings(matcher: Matcher) -> dict[str, Any]:
    """The settings that `build_matcher` makes such a matcher from."""
    return {name: value for name, value in vars(matcher.config).items() if name != "d_text"}


# Means in float32: cosines in bfloat16 have three digits, and of twenty captions two would often be alike.
def _mean_image(images: Tensor) -> Tensor:
    return F.normalize(images.float().mean(dim=1), dim=-1)


def _mean_text(texts: EncodedTexts) -> Tensor:
    return F.normalize((texts.states * texts.weights[..., None]).float().sum(dim=1), dim=-1)


def _cosines(images: Tensor, states: Tensor) -> Tensor:
    """Of each word with each place of its photo: (B, T, N)."""
    return F.normalize(states, dim=-1) @ F.normalize(images, dim=-1).transpose(1, 2)


def _tower(config: MatcherConfig) -> nn.ModuleList:
    return nn.ModuleList(
        TransformerLayer(config.d_model, config.num_heads) for _ in range(config.tower_layers)
    )


def _fusion_encoder(config: MatcherConfig) -> nn.Module | None:
    width, heads, layers = config.d_model, config.num_heads, config.fusion_layers
    if config.encoder == "late":
        return None
    if config.encoder == "early":
        joined = nn.ModuleList(TransformerLayer(width, heads) for _ in range(layers))
        init_weights(joined)
        return joined
    if config.encoder == "bottleneck":
        return BottleneckEncoder(
            2,
            width,
            heads,
            layers,
            fusion_layer=config.fusion_layer,
            num_bottlenecks=config.num_bottlenecks,
            update=config.update,
        )
    # Single-stream models share their weights between the modalities, dual-stream ones do not.
    gates = _STREAMS[config.encoder](layers)
    return BimodalEncoder(width, heads, gates, tied=config.encoder == "single_stream")

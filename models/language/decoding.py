"""What generation needs of a language model, whatever it is built of.

`start` reads the prompts, and what it returns goes on from there token by token; how the past is kept is each
model's own affair: XGLM's beams share one cache (models/language/tree.py), models of the Hub reorder theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from models.fusion.bridge import Bridge, BridgeState


class LanguageModelShape(Protocol):
    """What a bridge has to fit to."""

    @property
    def num_layers(self) -> int: ...
    @property
    def d_model(self) -> int: ...
    @property
    def num_heads(self) -> int: ...


class DecoderShape(LanguageModelShape, Protocol):
    """What prompts have to fit to, too."""

    @property
    def max_positions(self) -> int: ...


@dataclass(frozen=True)
class LayerAttention:
    """What one layer looked at, in fp32; T counts the positions of a bridge's prefix, too.

    Attributes:
        own: (B, H, T, K), the layer's self-attention.
        image: (B, H, T, S), over what the bridge offers to this layer; None if that is nothing.
    """

    own: Tensor
    image: Tensor | None


class Continuation(Protocol):
    """B prompts that were read, and the W sequences that grow behind each of them.

    Attributes:
        hidden_states: (B, P, D) of the prompts, padded on the right.
        lengths: (B,) tokens of each prompt.
    """

    @property
    def hidden_states(self) -> Tensor: ...

    @property
    def lengths(self) -> Tensor: ...

    def extend(self, parents: Tensor, tokens: Tensor) -> Tensor:
        """Make sequence w of each row what `parents[w]` was, followed by `tokens[w]`: both (B, W).

        At the first call all parents are 0: the prompt. Returns the hidden states (B, W, D) of the tokens.
        """
        ...

    def keep(self, rows: Tensor) -> None:
        """Keep some of the prompts: those of index `rows` (N,) int64. `hidden_states` stays as it is."""
        ...


class LanguageModel(Protocol):
    """A frozen causal language model with a place in every layer for a bridge from the image."""

    @property
    def config(self) -> DecoderShape: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Scores over the vocabulary (..., V) of hidden states (..., D)."""
        ...

    def start(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        width: int,
        max_new_tokens: int,
        bridge: Bridge[Any] | None = None,
        bridge_state: BridgeState | None = None,
    ) -> Continuation:
        """Read prompts (token ids, none empty), to be continued by `width` sequences each.

        Args:
            bridge, bridge_state: the image, prepared, one row a prompt.
        """
        ...

    def watch(
        self, input_ids: Tensor, *, bridge: Bridge[Any], bridge_state: BridgeState
    ) -> list[LayerAttention]:
        """Read sequences (B, T), padded on the right if at all, and tell what each layer looked at."""
        ...

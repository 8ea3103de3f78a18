"""The protocol by which visual memory enters a causal language model.

`prepare` runs once per image, `layer` once per decoder layer and step. A decoder that takes a bridge puts its
`prefix`, if it has one, in front of the text and calls `layer` in each of its layers, between self-attention
and the feed-forward block; it knows no more than that.

`prepare_with_weights` and `layer_with_weights` do the same work and also show who looked at what, in terms
that are the same for all bridges: what text attends to, and how much of each visual token is in that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar

from torch import Tensor


class BridgeState(Protocol):
    """What a bridge keeps of a batch of images between decoding steps."""

    def select(self, rows: Tensor) -> Self:
        """Take images by index (N,) int64: the state of a batch in which row i shows image `rows[i]`."""
        ...


@dataclass(frozen=True)
class Origins:
    """How much of each of N visual tokens is in what a bridge offers to text: rows that sum to 1, in fp32.

    Attributes:
        prefix: (B, P, N) of the soft prompt; None if there is none.
        layers: by decoder layer, (B, S, N) of the S things that its text attends to: the visual tokens
            themselves, latents, or bottlenecks. Layers that do not look at the image are not in it.
    """

    prefix: Tensor | None = None
    layers: Mapping[int, Tensor] = field(default_factory=dict)


StateT = TypeVar("StateT", bound=BridgeState)


class Bridge(Protocol[StateT]):
    """A trained path from image to language model."""

    def prepare(self, memory: Tensor, mask: Tensor | None = None) -> StateT:
        """Compute all that depends on the image alone.

        Args:
            memory: (B, N, Dv) visual tokens.
            mask: (B, N) bool, True at real tokens; None if all are.
        """
        ...

    def prepare_with_weights(self, memory: Tensor, mask: Tensor | None = None) -> tuple[StateT, Origins]:
        """As `prepare`, and where what the state offers comes from."""
        ...

    def prefix(self, state: StateT) -> Tensor | None:
        """A soft prompt (B, P, D) for in front of the text; None if the image enters in the layers."""
        ...

    def layer(self, index: int, hidden_states: Tensor, state: StateT) -> Tensor:
        """Return the hidden states (B, T, D) of decoder layer `index` with the image mixed in."""
        ...

    def layer_with_weights(
        self, index: int, hidden_states: Tensor, state: StateT
    ) -> tuple[Tensor, Tensor | None]:
        """As `layer`, and the attention (B, H, T, S) in fp32 to the S things the state offers to this layer.

        None where the layer does not look at the image; then `Origins.layers` lacks it, too.
        """
        ...

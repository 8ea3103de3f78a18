"""The protocol by which visual memory enters a causal language model.

`prepare` runs once per image, `layer` once per decoder layer and step. A decoder that takes a bridge puts its
`prefix`, if it has one, in front of the text and calls `layer` in each of its layers, between self-attention
and the feed-forward block; it knows no more than that.
"""

from typing import Protocol, Self, TypeVar

from torch import Tensor


class BridgeState(Protocol):
    """What a bridge keeps of a batch of images between decoding steps."""

    def select(self, rows: Tensor) -> Self:
        """Take images by index (N,) int64: the state of a batch in which row i shows image `rows[i]`."""
        ...


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

    def prefix(self, state: StateT) -> Tensor | None:
        """A soft prompt (B, P, D) for in front of the text; None if the image enters in the layers."""
        ...

    def layer(self, index: int, hidden_states: Tensor, state: StateT) -> Tensor:
        """Return the hidden states (B, T, D) of decoder layer `index` with the image mixed in."""
        ...

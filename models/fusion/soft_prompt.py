"""What bridges have in common that put the image in front of the text and leave the layers alone."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class PrefixState:
    """A soft prompt (B, P, D)."""

    embeddings: Tensor

    def select(self, rows: Tensor) -> "PrefixState":
        return PrefixState(self.embeddings[rows])


class SoftPromptBridge(nn.Module):
    """The half of the bridge protocol that follows from the state being a soft prompt."""

    def prefix(self, state: PrefixState) -> Tensor:
        return state.embeddings

    def layer(self, index: int, hidden_states: Tensor, state: PrefixState) -> Tensor:
        return hidden_states

    def layer_with_weights(
        self, index: int, hidden_states: Tensor, state: PrefixState
    ) -> tuple[Tensor, None]:
        return hidden_states, None

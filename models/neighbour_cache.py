"""Words taken over from the neighbours in a prompt: a continuous cache over the decoder's hidden states.

A bridge says of a photo what the training photos taught it; of a photo unlike all of them, something wrong.
There the neighbours know better. Wherever the decoder stands in its caption, it has stood in a similar place
inside the neighbours, and what followed there is a candidate here: its weight is how alike the two hidden
states are, so what several neighbours agree on adds up. Nothing is trained for it.

Paper: Grave, Joulin, Usunier, "Improving neural language models with a continuous cache", ICLR 2017.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.language.special_tokens import NO_TOKEN

_TEMPERATURE = 0.1  # of cosines


@dataclass(frozen=True)
class Copying:
    """What each prompt of a batch offers to copy, and how readily.

    Attributes:
        continuations: for each prompt, for each of its tokens: the token that follows it in a neighbour,
            NO_TOKEN where none does (`PromptBuilder.continuations`).
        weights: for each prompt the share of the neighbours' words in the probabilities, in [0, 1).
    """

    continuations: Sequence[Sequence[int]]
    weights: Sequence[float]


class NeighbourCache:
    """Hidden states inside the neighbours, and what followed them.

    Args:
        copying: B prompts.
        hidden: (B, P, D) of the prompts, padded on the right.
    """

    def __init__(self, copying: Copying, hidden: Tensor) -> None:
        width = hidden.shape[1]
        self._tokens = torch.tensor(
            [[*row, *[NO_TOKEN] * (width - len(row))] for row in copying.continuations], device=hidden.device
        )
        self._keys = F.normalize(hidden.float(), dim=-1)
        weights = torch.tensor(copying.weights, device=hidden.device)
        self._weights = weights.where((self._tokens != NO_TOKEN).any(dim=1), 0.0)

    def keep(self, kept: Tensor) -> None:
        """Keep some of the prompts."""
        self._tokens, self._keys, self._weights = self._tokens[kept], self._keys[kept], self._weights[kept]

    def mix(self, hidden: Tensor, log_probabilities: Tensor) -> Tensor:
        """Log-probabilities (B, W, V) of the next token with the neighbours' words mixed in.

        Args:
            hidden: (B, W, D) that the language model's own log-probabilities (B, W, V) come from.
        """
        used = self._weights.nonzero()[:, 0]
        if not len(used):
            return log_probabilities
        tokens, weights = self._tokens[used, None], self._weights[used, None, None]
        cosines = F.normalize(hidden[used].float(), dim=-1) @ self._keys[used].transpose(1, 2)  # (B, W, P)
        attention = (cosines / _TEMPERATURE).masked_fill(tokens == NO_TOKEN, float("-inf")).softmax(dim=-1)
        own = log_probabilities[used]
        copied = torch.zeros_like(own).scatter_add_(2, tokens.clamp(min=0).expand_as(attention), attention)
        mixed = torch.logaddexp(own + (1 - weights).log(), copied.log() + weights.log())
        return log_probabilities.index_copy(0, used, mixed)

"""Dropout of what a bridge adds to the language model's hidden states, as XGLM drops its cross-attention."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from models.fusion.bridge import BridgeState


class DroppedBridge:
    """A bridge for training, of which a share of what it adds is left out; without a place in any bundle."""

    def __init__(self, bridge: Any, share: float) -> None:
        self._bridge = bridge
        self._share = share

    def prefix(self, state: BridgeState) -> Tensor | None:
        prefix: Tensor | None = self._bridge.prefix(state)
        return prefix

    def layer(self, index: int, hidden_states: Tensor, state: BridgeState) -> Tensor:
        mixed: Tensor = self._bridge.layer(index, hidden_states, state)
        if mixed is hidden_states:
            return mixed
        return hidden_states + F.dropout(mixed - hidden_states, self._share, self._bridge.training)

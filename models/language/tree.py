"""What beams add to a prompt, as a tree in XGLM's cache.

Each prompt is read once, whatever the number of beams. The tokens that beams add afterwards are nodes of
a tree: every node's keys and values are written once behind the prompt's, and a boolean mask says which nodes
are a beam's own past. Reordering beams therefore permutes a small mask and never the cache, and all beams
share the keys and values of prompt and image.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from models.fusion.bridge import Bridge, BridgeState
from models.language.tokenizer import PAD

if TYPE_CHECKING:
    from models.language.xglm import XGLM


class TokenTree:
    """B prompts and the sequences behind them: a `Continuation` (models/language/decoding.py)."""

    def __init__(
        self,
        model: "XGLM",
        prompts: Sequence[Sequence[int]],
        *,
        width: int,
        max_new_tokens: int,
        bridge: Bridge[Any] | None,
        bridge_state: BridgeState | None,
    ) -> None:
        self._model, self._bridge, self._bridge_state = model, bridge, bridge_state
        device, batch = model.device, len(prompts)
        self.lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        longest = max(map(len, prompts))
        # Padding on the right: it comes after every real token, so the causal mask already hides it.
        ids = torch.tensor([[*prompt, *[PAD] * (longest - len(prompt))] for prompt in prompts], device=device)
        prefix = None if bridge is None or bridge_state is None else bridge.prefix(bridge_state)
        self._prefix = 0 if prefix is None else prefix.shape[1]
        self._cache = model.new_cache(batch, self._prefix + longest + width * max_new_tokens)
        causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()[None, None]
        self.hidden_states: Tensor = model(
            ids, mask=causal, bridge=bridge, bridge_state=bridge_state, cache=self._cache
        )
        self._cache.advance(self._prefix + longest)
        self._prompt_width = self._cache.length
        self._past = torch.empty(batch, 1, 0, dtype=torch.bool, device=device)  # (B, W, nodes): who is whose
        self._steps = 0

    def extend(self, parents: Tensor, tokens: Tensor) -> Tensor:
        batch, width = tokens.shape
        past = self._past.gather(1, parents[:, :, None].expand(-1, -1, self._past.shape[2]))
        own = torch.eye(width, dtype=torch.bool, device=tokens.device).expand(batch, -1, -1)
        self._past = torch.cat([past, own], dim=2)
        positions = (self.lengths + self._steps)[:, None].expand(-1, width)
        real = torch.arange(self._prompt_width, device=tokens.device) < self._prefix + self.lengths[:, None]
        mask = torch.cat([real[:, None].expand(-1, width, -1), self._past], dim=2)
        hidden: Tensor = self._model(
            tokens,
            positions,
            mask[:, None],  # (B, 1, W, P + nodes)
            bridge=self._bridge,
            bridge_state=self._bridge_state,
            cache=self._cache,
        )
        self._cache.advance(width)
        self._steps += 1
        return hidden

    def keep(self, rows: Tensor) -> None:
        self._past, self.lengths = self._past[rows], self.lengths[rows]
        self._cache.keep_rows(rows)
        if self._bridge_state is not None:
            self._bridge_state = self._bridge_state.select(rows)

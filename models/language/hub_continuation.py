"""What generation keeps of a Hub model's past: transformers' own cache, reordered as beams are.

Prompts are padded on the left. Only so is a token's distance to every earlier one the distance in the cache,
which sliding windows (Gemma 3) and ALiBi (BLOOM) go by.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from models.fusion.bridge import Bridge, BridgeState

if TYPE_CHECKING:
    from models.language.hub import HubLanguageModel


class HubContinuation:
    """B prompts and the sequences behind them: a `Continuation` (models/language/decoding.py)."""

    def __init__(
        self,
        model: "HubLanguageModel",
        prompts: Sequence[Sequence[int]],
        *,
        bridge: Bridge[Any] | None,
        bridge_state: BridgeState | None,
    ) -> None:
        self._model, self._bridge, self._bridge_state = model, bridge, bridge_state
        device = model.device
        self.lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        longest = max(map(len, prompts))
        ids = torch.tensor([[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts], device=device)
        prefix = None if bridge is None or bridge_state is None else bridge.prefix(bridge_state)
        self._prefix = 0 if prefix is None else prefix.shape[1]
        total = self._prefix + longest
        padding = longest - self.lengths  # (B,)
        # Where each place of the left-padded row comes from in the right-padded one.
        places = (torch.arange(total, device=device) - padding[:, None]) % total
        self._mask = (torch.arange(total, device=device) >= padding[:, None]).long()  # (B, P)
        positions = (torch.arange(total, device=device) - padding[:, None]).clamp(min=0)
        self._cache = model.new_cache()
        if prefix is None:
            text: dict[str, Tensor] = {"input_ids": ids.gather(1, places)}
        else:
            embedded = torch.cat([prefix.to(model.dtype), model.embed(ids)], dim=1)
            text = {"inputs_embeds": _take(embedded, places)}
        hidden = model.run(
            text,
            self._mask,
            positions,
            cache=self._cache,
            bridge=bridge,
            state=bridge_state,
            rows=len(prompts),
        )
        back = (torch.arange(total, device=device) + padding[:, None]) % total
        self.hidden_states = _take(hidden, back)[:, self._prefix :]
        self._width, self._steps = 1, 0

    def extend(self, parents: Tensor, tokens: Tensor) -> Tensor:
        batch, width = tokens.shape
        origin = (
            torch.arange(batch, device=tokens.device)[:, None] * self._width + parents
        )  # rows of the cache
        if self._width != width or bool((parents != torch.arange(width, device=parents.device)).any()):
            self._cache.batch_select_indices(origin.flatten())
        self._width = width
        self._mask = torch.cat([self._mask, self._mask.new_ones(batch, 1)], dim=1)
        positions = self._prefix + self.lengths + self._steps
        hidden = self._model.run(
            {"input_ids": tokens.reshape(-1, 1)},
            self._mask.repeat_interleave(width, dim=0),
            positions.repeat_interleave(width)[:, None],
            cache=self._cache,
            bridge=self._bridge,
            state=self._bridge_state,
            rows=batch,
        )
        self._steps += 1
        return hidden.view(batch, width, -1)

    def keep(self, rows: Tensor) -> None:
        kept = rows[:, None] * self._width + torch.arange(self._width, device=rows.device)
        self._cache.batch_select_indices(kept.flatten())
        self._mask, self.lengths = self._mask[rows], self.lengths[rows]
        if self._bridge_state is not None:
            self._bridge_state = self._bridge_state.select(rows)


def _take(rows: Tensor, places: Tensor) -> Tensor:
    """(B, T, D) with its positions in the order of `places` (B, T)."""
    return rows.gather(1, places[:, :, None].expand(-1, -1, rows.shape[2]))

"""Keys and values of past tokens, in buffers that beams share and never reorder."""

import torch
from torch import Tensor


class KeyValueCache:
    """Self-attention keys and values of all layers: two buffers (L, B, H, capacity, D).

    A decoder calls `append` in each layer and the caller `advance` once per forward pass. Beams are not rows
    of the cache: they are further positions of it, told apart by the attention mask (models/generation.py).
    """

    def __init__(
        self,
        *,
        num_layers: int,
        batch: int,
        num_heads: int,
        capacity: int,
        head_width: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (num_layers, batch, num_heads, capacity, head_width)
        # Zeros, not empty: masked positions still enter `weights @ values` as 0 * value, and 0 * NaN is NaN.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.length = 0

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write (B, H, T, D) behind what is there; return all keys and values so far, as views.

        Raises:
            ValueError: the buffer is full.
        """
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} positions, {end} are needed")
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, steps: int) -> None:
        """Make the last `steps` positions part of the past, once all layers have appended them."""
        self.length += steps

    def keep_rows(self, rows: Tensor) -> None:
        """Drop finished rows of the batch: keep those of index `rows` (N,) int64."""
        self.keys = self.keys[:, rows]
        self.values = self.values[:, rows]

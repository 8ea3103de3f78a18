"""Matrices as 8-bit integers on disk: half the size of bfloat16, turned back into floats when loaded.

Symmetric, one scale for each row: weight ≈ scale * int8, with an error of at most half a scale.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

_SCALE = ".scale"


def quantise(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every matrix becomes an int8 tensor and a fp32 `<name>.scale` (rows, 1); the rest stays, in fp32."""
    quantised: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.ndim != 2:
            quantised[name] = weight.float().contiguous()
            continue
        scale = weight.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
        quantised[name] = (weight.float() / scale).round().to(torch.int8)
        quantised[name + _SCALE] = scale
    return quantised


def dequantise(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `quantise`, in fp32; tensors that are not int8 pass through."""
    scales = {name + _SCALE for name, weight in weights.items() if weight.dtype == torch.int8}
    return {
        name: weight.float() * weights[name + _SCALE] if weight.dtype == torch.int8 else weight
        for name, weight in weights.items()
        if name not in scales
    }

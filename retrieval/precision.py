"""Which number format this machine computes in fastest. Detected, never assumed."""

import torch


def fast_cpu_dtype() -> torch.dtype:
    """bfloat16 where this machine's CPU multiplies it in hardware (AVX512-BF16 or AMX), else float32."""
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32

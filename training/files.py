"""Tensors on disk."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from retrieval.files import replacing


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, whole or not at all; `metadata` goes into its header."""
    with replacing(path) as temporary:
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
            temporary,
            metadata=dict(metadata) if metadata else None,
        )
        temporary.chmod(0o644)  # safetensors makes files that only their owner can read

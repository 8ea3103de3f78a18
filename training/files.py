"""Files that training leaves behind: whole or not at all."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to. Its bytes then take the place of `path` in one step, once on the disk."""
    temporary = path.with_name(f"{path.name}.partial")
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with temporary.open("rb") as written:
        os.fsync(written.fileno())
    temporary.replace(path)


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file; `metadata` goes into its header."""
    with replacing(path) as temporary:
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
            temporary,
            metadata=dict(metadata) if metadata else None,
        )
        temporary.chmod(0o644)  # safetensors makes files that only their owner can read

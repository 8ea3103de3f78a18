"""Pairs of numbers on disk, parted so that each part can be sorted in memory."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

Pairs = npt.NDArray[np.uint64]  # (N, 2)


class SpilledPairs:
    """Files in a folder, one a part. Every method may raise OSError."""

    def __init__(self, folder: Path, parts: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.parts = range(parts)
        self._paths = [folder / f"{part:04d}.pairs" for part in self.parts]
        self._files: list[BinaryIO] = [path.open("wb") for path in self._paths]

    def add(self, parts: npt.NDArray[np.int64], pairs: Pairs) -> None:
        """`parts` (N,) says where each of the `pairs` (N, 2) goes."""
        order = np.argsort(parts, kind="stable")
        bounds = np.searchsorted(parts[order], np.arange(len(self.parts) + 1))
        for part in np.flatnonzero(np.diff(bounds)):
            self._files[part].write(np.ascontiguousarray(pairs[order[bounds[part] : bounds[part + 1]]]).data)

    def take(self, part: int) -> Pairs:
        """The pairs of a part, each once, sorted by the first number and then the second. The file goes."""
        self._files[part].close()
        pairs = np.fromfile(self._paths[part], np.uint64).reshape(-1, 2)
        self._paths[part].unlink()
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        fresh = np.ones(len(pairs), np.bool_)
        fresh[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
        return pairs[fresh]

    def close(self) -> None:
        for file in self._files:
            file.close()

"""Where training batches come from: streams without end, from a place that can be saved."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol


class Stream(Protocol):
    """Training batches without end, from a place that can be saved."""

    def __next__(self) -> Any: ...

    def place(self) -> dict[str, int]:
        """Where the next batch is, as plain numbers."""
        ...

    def seek(self, place: Mapping[str, int]) -> None:
        """Go to a place that `place` returned."""
        ...


class PooledStream:
    """A stream over pools of batches: pool number n depends on the seed and on n alone."""

    def __init__(self) -> None:
        self._pool = 0
        self._index = 0
        self._batches: list[Any] | None = None

    def pool(self, number: int) -> list[Any]:
        """The batches of a pool, at least one."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._batches is None:
            self._batches = self.pool(self._pool)
        if self._index >= len(self._batches):
            self._pool, self._index = self._pool + 1, 0
            self._batches = self.pool(self._pool)
        self._index += 1
        return self._batches[self._index - 1]

    def place(self) -> dict[str, int]:
        return {"pool": self._pool, "index": self._index}

    def seek(self, place: Mapping[str, int]) -> None:
        self._pool, self._index, self._batches = place["pool"], place["index"], None

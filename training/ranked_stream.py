"""One stream of batches shared out among several processes.

Of n processes, the one of rank r takes the batches r, r + n, r + 2n, … of the stream that one process alone
would take all of; together they take exactly that stream, each batch once. So n processes whose gradients are
averaged learn from the same data, in the same order, as one process that accumulates n batches a step.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from training.loop import Stream


class RankedStream:
    """The part of one process, itself a `Stream`.

    Args:
        stream: the whole stream, made alike in every process and not used otherwise.
        rank: of this process, from 0.
        world_size: how many there are.

    Raises:
        ValueError: `rank` is none of `world_size` processes.
    """

    def __init__(self, stream: Stream, rank: int, world_size: int) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size} processes")
        self._stream = stream
        self._rank = rank
        self._world_size = world_size

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        # All of a round is passed over, so that after it every process is at the same place: a checkpoint of
        # one is good for all, and for another number of processes too.
        batches = [next(self._stream) for _ in range(self._world_size)]
        return batches[self._rank]

    def place(self) -> dict[str, int]:
        """Where the next round begins: the same in every process."""
        return self._stream.place()

    def seek(self, place: Mapping[str, int]) -> None:
        """Go to a place that `place` returned, here or in another process."""
        self._stream.seek(place)

"""Examples drawn at random, so many a step."""

import random
from collections.abc import Callable

from training.sequences import Batch, Example, collate
from training.streams import PooledStream


class StepStream(PooledStream):
    """Steps of a fixed number of examples, each cut into batches of examples that are alike in length.

    Args:
        draw: one example, from the random state and the number of the step alone.
        size: examples of a step.
        batches: that a step is cut into; they divide it evenly.
        end: the token behind each caption.
    """

    def __init__(
        self, draw: Callable[[random.Random, int], Example], *, size: int, batches: int, seed: int, end: int
    ) -> None:
        super().__init__()
        self._draw = draw
        self._size = size
        self._rows = size // batches
        self._seed = seed
        self._end = end

    def pool(self, number: int) -> list[Batch]:
        rng = random.Random(f"{self._seed}-{number}")
        drawn = sorted((self._draw(rng, number) for _ in range(self._size)), key=lambda row: row.length)
        parts = [drawn[start : start + self._rows] for start in range(0, self._size, self._rows)]
        return [collate(rows, end=self._end, padding_token=self._end) for rows in parts]

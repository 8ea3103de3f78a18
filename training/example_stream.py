"""Examples drawn at random, as a stream of batches of similar length."""

import random
from collections.abc import Callable

from training.sequences import Batch, Example, collate, pack_by_length
from training.streams import PooledStream


class ExampleStream(PooledStream):
    """Batches out of pools of drawn examples.

    Args:
        draw: one example, from the random state and the number of the pool alone.
        size: examples of a pool.
        batch_tokens: padded tokens of a batch, at most.
    """

    def __init__(
        self, draw: Callable[[random.Random, int], Example], *, size: int, seed: int, batch_tokens: int
    ) -> None:
        super().__init__()
        self._draw = draw
        self._size = size
        self._seed = seed
        self._batch_tokens = batch_tokens

    def pool(self, number: int) -> list[Batch]:
        rng = random.Random(f"{self._seed}-{number}")
        drawn = [self._draw(rng, number) for _ in range(self._size)]
        batches = [collate(rows) for rows in pack_by_length(drawn, self._batch_tokens)]
        rng.shuffle(batches)
        return batches

"""How long several things take, side by side: in turn on the same inputs, so that all meet the same load."""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import median
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def interleaved_medians(
    tasks: Mapping[K, Callable[[T], object]],
    inputs: Sequence[T],
    rounds: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    advance: Callable[[], object] = lambda: None,
) -> dict[K, float]:
    """Median milliseconds of each task over all inputs and rounds, after one round that does not count.

    All tasks get an input before the next one comes, so that none is measured at a better time than another.
    The first round compiles kernels for shapes not met before.

    Args:
        advance: called after each input, `(rounds + 1) * len(inputs)` times.
    """
    seconds: dict[K, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for item in inputs:
            for name, task in tasks.items():
                began = clock()
                task(item)
                if number:
                    seconds[name].append(clock() - began)
            advance()
    return {name: 1000 * median(taken) for name, taken in seconds.items()}

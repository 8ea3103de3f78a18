"""Where the work of a build is done: what every engine promises, and the one that needs nothing.

A task is small, can be done in any order, again, and anywhere the datastore's folder is seen; its result is
smaller still, for what is made goes into that folder. An engine knows nothing of vectors.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

OnStep = Callable[[int, int], None]  # told by a worker how far it is with its task, as the task counts


class Engine(Protocol):
    """Spreads tasks over workers."""

    def run(
        self,
        open_worker: Callable[[], Callable[[Task, OnStep], Result]],
        tasks: Sequence[Task],
        *,
        folder: Path,
        on_step: OnStep,
        task_name: str = "task",
        gpu: bool = False,
    ) -> Iterator[Result]:
        """The results as they come, in any order.

        open_worker: makes a worker, once for each; what it makes does one task after the other. folder: what
        the workers read and write is in it. on_step: told of steps inside a task, if the engine hears of
        them. task_name: what a user reads of a task. gpu: a worker takes one to itself, where there are any.
        Raises what open_worker and workers raise, and DatastoreError if no worker can be had.
        """


class LocalEngine:
    """One worker in this process, one task after the other, in order."""

    def run(
        self,
        open_worker: Callable[[], Callable[[Task, OnStep], Result]],
        tasks: Sequence[Task],
        *,
        folder: Path,
        on_step: OnStep,
        task_name: str = "task",
        gpu: bool = False,
    ) -> Iterator[Result]:
        worker = open_worker()
        for task in tasks:
            yield worker(task, on_step)

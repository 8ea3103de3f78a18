"""Dynamic batching: work of many requests, done together, on one worker thread.

A batch is taken whenever the worker is free: a lone request never waits for company, and under load those
that came while the last batch ran are the next one. The oldest request decides what kind of work is done;
whatever else of that kind waits joins in, in the order it came, up to a number of rows. A large request is
done in parts, between those of others, and holds nobody up for longer than a batch.

Waiting is bounded in number and in time. Whoever is let in is started before the deadline or told that it was
not; whoever goes away is not started any more; what was started is finished. Nothing here knows of captions
or of HTTP.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from app.errors import NotReadyError, QueueFullError, QueueTimeoutError

K = TypeVar("K")  # a kind of work: only parts of one kind are done together
T = TypeVar("T")  # a part of a request's work
R = TypeVar("R")  # its result
A = TypeVar("A")

_LONGEST_RETRY = 60  # seconds
_LATEST = 0.2  # weight of the latest batch in the mean pace


@dataclass(frozen=True)
class BatchLimits:
    """How much may wait, for how long, and how much is done at once."""

    max_waiting: int = 32  # requests let in and not started
    max_seconds: float = 20.0  # from being let in to being started
    max_rows: int = 16  # of a batch; a part that has more is done alone


@dataclass(eq=False)
class Place:
    """A place in the queue. The deadline runs while the request is being prepared, too."""

    since: float  # by time.monotonic
    rows: int


@dataclass(frozen=True)
class Part(Generic[T]):
    """What is done in one piece. `rows` is how much that is, in any unit."""

    work: T
    rows: int = 1


@dataclass(eq=False)
class _Job(Generic[K, T, R]):
    """A request's work."""

    place: Place
    kind: K
    waiting: list[tuple[int, Part[T]]]  # parts that are not started, with their numbers, the last one first
    started: "asyncio.Future[None]"
    done: "asyncio.Future[None]"
    results: dict[int, R] = field(default_factory=dict)
    parts: int = 0


@dataclass(frozen=True)
class _Batch(Generic[K, T, R]):
    """Parts of some jobs, all of one kind."""

    kind: K
    parts: list[tuple[_Job[K, T, R], int, Part[T]]]

    @property
    def rows(self) -> int:
        return sum(part.rows for _, _, part in self.parts)

    def by_job(self) -> "list[_Batch[K, T, R]]":
        jobs = dict.fromkeys(job for job, _, _ in self.parts)
        return [_Batch(self.kind, [part for part in self.parts if part[0] is job]) for job in jobs]


class Batcher(Generic[K, T, R]):
    """Create it inside the event loop that will use it.

    Args:
        run: does parts of one kind and returns a result for each, on the worker thread.
        limits: how much may wait and be done at once.
        on_batch: told the number of parts and the seconds of every batch, on the event loop.
    """

    def __init__(
        self,
        run: Callable[[K, Sequence[T]], Sequence[R]],
        limits: BatchLimits,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self._run = run
        self._limits = limits
        self._on_batch = on_batch
        self._places: dict[Place, None] = {}  # of requests not started, the oldest first
        self._jobs: dict[_Job[K, T, R], None] = {}  # with parts that wait, the next one first
        self._running: _Batch[K, T, R] | None = None
        self._seconds_per_row = 0.0  # running mean; 0 before the first batch
        # One thread for good: torch keeps a pool of its own for each thread that calls it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._worker: asyncio.Task[None] | None = None

    @property
    def depth(self) -> int:
        """Requests that are let in and not started."""
        return len(self._places)

    @property
    def oldest_age(self) -> float:
        """Seconds for which the first of them has waited; 0 if there is none."""
        return max((time.monotonic() - place.since for place in self._places), default=0.0)

    async def call(self, work: Callable[[], A]) -> A:
        """Something else on the worker thread, such as loading what `run` needs."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def check_room(self) -> None:
        """Raises QueueFullError if a request would not be let in now."""
        wait = self._expected_wait()
        if len(self._places) >= self._limits.max_waiting:
            raise QueueFullError(
                f"{self._limits.max_waiting} requests are waiting already; try again later", _whole(wait)
            )
        if wait > self._limits.max_seconds:
            over = wait - self._limits.max_seconds
            raise QueueFullError(
                f"those that wait already will take about {wait:.0f} s; try again later", _whole(over)
            )

    @contextmanager
    def place(self, rows: int = 1) -> Iterator[Place]:
        """Let a request in, to be prepared and then submitted.

        Raises:
            QueueFullError: as `check_room`.
        """
        self.check_room()
        place = Place(time.monotonic(), rows)
        self._places[place] = None
        try:
            yield place
        finally:
            self._places.pop(place, None)

    async def submit(self, place: Place, kind: K, parts: Sequence[Part[T]]) -> list[R]:
        """Results of the parts of a request, in order. If cancelled, what is not started never will be.

        Raises:
            QueueTimeoutError: nothing of it was started within the time that a request may wait.
            Exception: what `run` raised for this request. Where it raises for several requests together, each
                of them is tried again alone.
        """
        if not parts:
            return []
        loop = asyncio.get_running_loop()
        waiting = list(enumerate(parts))[::-1]
        job: _Job[K, T, R] = _Job(place, kind, waiting, loop.create_future(), loop.create_future())
        job.parts = len(parts)
        self._jobs[job] = None
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        try:
            left = place.since + self._limits.max_seconds - time.monotonic()
            await asyncio.wait([job.started], timeout=max(left, 0.0))
            if not job.started.done():
                raise QueueTimeoutError(
                    f"the request was not started within {self._limits.max_seconds:g} s; try again later",
                    _whole(self._expected_wait()),
                )
            await job.done
        finally:
            self._jobs.pop(job, None)
            job.done.cancel()
        return [job.results[number] for number in range(job.parts)]

    async def close(self) -> None:
        """Wait for the batch that runs; whoever has something left to be done gets NotReadyError."""
        for job in list(self._jobs):
            if not job.started.done():
                job.started.set_result(None)
            self._fail(job, NotReadyError("the service is shutting down", 5))
        if self._worker is not None:
            await self._worker
        await asyncio.to_thread(self._thread.shutdown)

    async def _work(self) -> None:
        try:
            while self._jobs:
                self._running = self._take()
                await self._do(self._running)
        finally:
            self._worker = self._running = None

    def _take(self) -> _Batch[K, T, R]:
        """The next batch; its jobs are started."""
        kind = next(iter(self._jobs)).kind
        batch: _Batch[K, T, R] = _Batch(kind, [])
        rows = 0
        for job in [job for job in self._jobs if job.kind == kind]:
            before = len(job.waiting)
            while job.waiting:
                number, part = job.waiting[-1]
                if batch.parts and rows + part.rows > self._limits.max_rows:
                    break
                job.waiting.pop()
                batch.parts.append((job, number, part))
                rows += part.rows
            if len(job.waiting) == before:
                continue
            if not job.started.done():
                job.started.set_result(None)
                self._places.pop(job.place, None)
            del self._jobs[job]
            if job.waiting:  # behind the others, whose turn it is now
                self._jobs[job] = None
        return batch

    async def _do(self, batch: _Batch[K, T, R]) -> None:
        began = time.perf_counter()
        try:
            works = [part.work for _, _, part in batch.parts]
            results = await self.call(lambda: self._run(batch.kind, works))
        except Exception as error:  # whatever it is, it belongs to the requests and must not stop the worker
            alone = batch.by_job()
            for one in alone:
                job = one.parts[0][0]
                if len(alone) == 1:
                    self._fail(job, error)
                elif not job.done.done():  # nobody waits for it any more
                    await self._do(one)
            return
        seconds = time.perf_counter() - began
        pace = seconds / max(batch.rows, 1)
        known = self._seconds_per_row > 0
        self._seconds_per_row += (_LATEST if known else 1.0) * (pace - self._seconds_per_row)
        if self._on_batch is not None:
            self._on_batch(len(batch.parts), seconds)
        for (job, number, _), result in zip(batch.parts, results, strict=True):
            job.results[number] = result
            if len(job.results) == job.parts and not job.done.done():
                job.done.set_result(None)

    def _fail(self, job: _Job[K, T, R], error: Exception) -> None:
        self._jobs.pop(job, None)  # its other parts are not wanted any more
        if not job.done.done():
            job.done.set_exception(error)

    def _expected_wait(self) -> float:
        """Seconds until a request that came now would be started, at the pace of late."""
        rows = 0 if self._running is None else self._running.rows
        rows += sum(place.rows for place in self._places)
        started = (job for job in self._jobs if job.started.done())
        rows += sum(part.rows for job in started for _, part in job.waiting)
        return rows * self._seconds_per_row


def _whole(seconds: float) -> int:
    """For Retry-After."""
    return max(1, min(math.ceil(seconds), _LONGEST_RETRY))

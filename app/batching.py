"""Dynamic batching: work of many requests, done together, on one worker thread.

A batch is taken whenever the worker is free: a lone request never waits for company, and under load those
that came while the last batch ran are the next one. The oldest request decides what kind of work is done;
whatever else of that kind waits joins in, in the order it came, up to a number of rows. A large request is
done in parts, between those of others, and holds nobody up for longer than a batch. Nobody joins a batch that
runs: that was found not to pay (benchmarks/admission.md).

Waiting is bounded in number and in time. Whoever is let in is started before the deadline or told that it was
not; whoever goes away is not started any more; what was started is finished. Nothing here knows of captions
or of HTTP.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
    done: "asyncio.Future[None]"
    started: bool = False
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
        self._alone: deque[_Batch[K, T, R]] = deque()  # parts of a batch that failed, to be tried again
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._seconds_per_row = 0.0  # running mean; 0 before the first batch
        # One thread for good: torch keeps a pool of its own for each thread that calls it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

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
            NotReadyError: the batcher is closed.
            QueueTimeoutError: nothing of it was started within the time that a request may wait.
            Exception: what `run` raised for this request. Where it raises for several requests together, each
                of them is tried again alone.
        """
        if not parts:
            return []
        if self._closed:
            raise _shutting_down()
        loop = asyncio.get_running_loop()
        job: _Job[K, T, R] = _Job(place, kind, list(enumerate(parts))[::-1], loop.create_future())
        job.parts = len(parts)
        self._jobs[job] = None
        if self._running is None:
            self._start_next()
        left = place.since + self._limits.max_seconds - time.monotonic()
        expiry = loop.call_later(max(left, 0.0), self._expire, job)
        try:
            await job.done
        finally:
            expiry.cancel()
            self._jobs.pop(job, None)
            job.done.cancel()
        return [job.results[number] for number in range(job.parts)]

    async def close(self) -> None:
        """Wait for the batch that runs; whoever has something left to be done gets NotReadyError."""
        self._closed = True
        for job in list(self._jobs):
            self._fail(job, _shutting_down())
        await self._idle.wait()
        await asyncio.to_thread(self._thread.shutdown)

    # What follows are callbacks and no task: a lone request waits for fewer turns of the event loop.

    def _start_next(self) -> None:
        """Give the worker thread what is next, if anything is."""
        while self._alone and self._alone[0].parts[0][0].done.done():  # nobody waits for it any more
            self._alone.popleft()
        if not self._alone and not self._jobs:
            self._running = None
            self._idle.set()
            return
        batch = self._running = self._alone.popleft() if self._alone else self._take()
        self._idle.clear()
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        running = self._thread.submit(self._run, batch.kind, [part.work for _, _, part in batch.parts])
        running.add_done_callback(lambda done: loop.call_soon_threadsafe(self._finish, batch, began, done))

    def _finish(self, batch: _Batch[K, T, R], began: float, done: "Future[Sequence[R]]") -> None:
        try:
            error = done.exception()
            if error is None:
                self._deliver(batch, done.result(), time.perf_counter() - began)
            else:  # whatever it is, it belongs to the requests and must not stop the others
                alone = batch.by_job()
                if len(alone) == 1:
                    self._fail(batch.parts[0][0], error)
                else:
                    self._alone += alone
        except Exception as error:  # such as too few results: nobody waits for ever, and the next have a turn
            for one in batch.by_job():
                self._fail(one.parts[0][0], error)
        finally:
            self._start_next()

    def _deliver(self, batch: _Batch[K, T, R], results: Sequence[R], seconds: float) -> None:
        for (job, number, _), result in zip(batch.parts, results, strict=True):
            job.results[number] = result
            if len(job.results) == job.parts and not job.done.done():
                job.done.set_result(None)
        pace = seconds / max(batch.rows, 1)
        known = self._seconds_per_row > 0
        self._seconds_per_row += (_LATEST if known else 1.0) * (pace - self._seconds_per_row)
        if self._on_batch is not None:
            self._on_batch(len(batch.parts), seconds)

    def _expire(self, job: _Job[K, T, R]) -> None:
        if not job.started:
            wait = _whole(self._expected_wait())
            message = f"the request was not started within {self._limits.max_seconds:g} s; try again later"
            self._fail(job, QueueTimeoutError(message, wait))

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
            if not job.started:
                job.started = True
                self._places.pop(job.place, None)
            del self._jobs[job]
            if job.waiting:  # behind the others, whose turn it is now
                self._jobs[job] = None
        return batch

    def _fail(self, job: _Job[K, T, R], error: BaseException) -> None:
        self._jobs.pop(job, None)  # its other parts are not wanted any more
        if not job.done.done():
            job.done.set_exception(error)

    def _expected_wait(self) -> float:
        """Seconds until a request that came now would be started, at the pace of late."""
        rows = 0 if self._running is None else self._running.rows
        rows += sum(place.rows for place in self._places)
        started = (job for job in self._jobs if job.started)
        rows += sum(part.rows for job in started for _, part in job.waiting)
        return rows * self._seconds_per_row


def _shutting_down() -> NotReadyError:
    return NotReadyError("the service is shutting down", 5)


def _whole(seconds: float) -> int:
    """For Retry-After."""
    return max(1, min(math.ceil(seconds), _LONGEST_RETRY))

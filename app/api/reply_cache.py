"""Replies that are given more than once: kept for later, and made once for all who ask at the same time.

A store knows keys and bytes, not what makes two requests the same (app/api/answers.py does). Kept replies are
bounded by their bytes, the least recently used go first, and can have an age at which they go too. While a
reply is being made, those who ask for it wait for that one run; it goes on as long as anybody waits. Errors
are passed on to all who wait and are not kept. Everything happens in one event loop, so there are no locks.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.errors import IdempotencyConflictError
from app.schemas import CaptionReply

_OVERHEAD = 1000  # bytes of a kept reply beside its body: key, headers, the places that hold it


@dataclass(frozen=True)
class StoredReply:
    """A reply as it is sent, so that it can be sent again byte for byte."""

    body: bytes  # a CaptionReply as JSON
    created: int  # Unix time
    model: str  # bundle@revision
    datastore: str  # its version

    @cached_property
    def etag(self) -> str:
        """A strong validator: equal for equal bytes only (RFC 9110, 8.8.3)."""
        return f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'

    @property  # not kept: a parsed reply takes many times the memory of its bytes
    def document(self) -> CaptionReply:
        return CaptionReply.model_validate_json(self.body)


@dataclass(frozen=True)
class Answer:
    """A reply and whether somebody else's run has made it."""

    reply: StoredReply
    hit: bool


Run = Callable[[], Coroutine[Any, Any, Answer]]


@dataclass(frozen=True)
class _Kept:
    answer: Answer
    fingerprint: bytes
    since: float


class _Flight:
    """A run under way and how many wait for it."""

    def __init__(self, run: Run, fingerprint: bytes) -> None:
        self.fingerprint = fingerprint
        self.waiting = 0
        self.task = asyncio.create_task(run())
        # Marks an error as seen: if all who waited have gone, nobody else looks at it.
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())


class SharedReply:
    """A reply that is there or is being made. `joined`: somebody else has made it or is making it."""

    def __init__(self, source: Answer | _Flight, joined: bool, forget: Callable[[_Flight], None]) -> None:
        self.joined = joined
        self._source = source
        self._forget = forget

    async def result(self) -> Answer:
        """The answer; await it once. Raises what the run raises.

        To be cancelled here takes nothing from the others. The run is cancelled with the last who waits.
        """
        if isinstance(self._source, Answer):
            return Answer(self._source.reply, hit=True)
        flight = self._source
        try:
            answer = await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._forget(flight)  # at once: who asks now needs a run that lives
                flight.task.cancel()
        return Answer(answer.reply, answer.hit or self.joined)


class ReplyStore:
    """Replies by key, up to `max_bytes` of them and, if `max_age` is given, that many seconds old."""

    def __init__(
        self, max_bytes: int, max_age: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.bytes = 0
        self._max_bytes, self._max_age, self._clock = max_bytes, max_age, clock
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._flights: dict[Hashable, _Flight] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Hashable) -> bool:
        """Whether there is a reply of this key, or one is being made."""
        self._drop_old()
        return key in self._kept or key in self._flights

    @property
    def is_empty(self) -> bool:
        """Whether there is no reply, and none is being made."""
        return not self._kept and not self._flights

    def open(
        self,
        key: Hashable,
        run: Run,
        fingerprint: bytes = b"",
        keep_as: Callable[[StoredReply], Hashable] | None = None,
    ) -> SharedReply:
        """The kept reply of this key, else the run under way, else a new one; call `result` on it.

        A new reply is kept as `key`, or as what `keep_as` makes of it: what it is may only be known then.

        Raises IdempotencyConflictError if the key is in use for another fingerprint.
        """
        self._drop_old()
        found = self._kept.get(key) or self._flights.get(key)
        if found is not None and found.fingerprint != fingerprint:
            raise IdempotencyConflictError(
                "this Idempotency-Key was used for another request: take a new key for each new request"
            )
        if isinstance(found, _Kept):
            self._kept.move_to_end(key)
            return SharedReply(found.answer, True, lambda _: None)
        flight = found or self._start(key, run, fingerprint, keep_as or (lambda _: key))
        flight.waiting += 1
        return SharedReply(flight, found is not None, lambda gone: self._forget(key, gone))

    def _start(
        self, key: Hashable, run: Run, fingerprint: bytes, keep_as: Callable[[StoredReply], Hashable]
    ) -> _Flight:
        flight = self._flights[key] = _Flight(run, fingerprint)

        def landed(task: asyncio.Task[Answer]) -> None:
            self._forget(key, flight)
            if not task.cancelled() and task.exception() is None:
                answer = task.result()
                self._keep(keep_as(answer.reply), _Kept(answer, fingerprint, self._clock()))

        flight.task.add_done_callback(landed)
        return flight

    def _forget(self, key: Hashable, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _keep(self, key: Hashable, kept: _Kept) -> None:
        size = _size(kept)
        if size > self._max_bytes:
            return
        if before := self._kept.pop(key, None):
            self.bytes -= _size(before)
        self._kept[key] = kept
        self.bytes += size
        while self.bytes > self._max_bytes:
            self._drop_first()

    def _drop_old(self) -> None:
        if self._max_age is None:
            return
        oldest = self._clock() - self._max_age
        for key in [key for key, kept in self._kept.items() if kept.since < oldest]:
            self.bytes -= _size(self._kept.pop(key))

    def _drop_first(self) -> None:
        _, kept = self._kept.popitem(last=False)
        self.bytes -= _size(kept)


def _size(kept: _Kept) -> int:
    return len(kept.answer.reply.body) + _OVERHEAD

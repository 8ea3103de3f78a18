"""The batcher: what is done together, in which order, who is turned away, and that nothing is lost."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.batching import Batcher, BatchLimits, Part
from app.errors import NotReadyError, QueueFullError, QueueTimeoutError


class Recorder:
    """Doubles numbers. Remembers its batches; waits at the gate, if it is closed."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.poison: set[int] = set()

    def __call__(self, kind: str, works: Sequence[int]) -> list[int]:
        self.batches.append((kind, list(works)))
        assert self.gate.wait(60)
        if bad := self.poison & set(works):
            raise ValueError(f"poison {min(bad)}")
        return [2 * work for work in works]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def ask(batcher: Batcher[str, int, int], kind: str, *works: int, rows: int = 1) -> list[int]:
    with batcher.place(rows * len(works)) as place:
        return await batcher.submit(place, kind, [Part(work, rows) for work in works])


async def held(recorder: Recorder, batcher: Batcher[str, int, int]) -> "asyncio.Task[list[int]]":
    """A first request that runs and stays at the gate."""
    recorder.gate.clear()
    before = len(recorder.batches)
    first = asyncio.create_task(ask(batcher, "first", 0))
    await until(lambda: len(recorder.batches) > before and batcher.depth == 0)
    return first


def with_batcher(test: Callable[[Recorder, Any], Any], **limits: Any) -> None:
    async def run() -> None:
        recorder = Recorder()
        batcher: Batcher[str, int, int] = Batcher(recorder, BatchLimits(**limits))
        try:
            await test(recorder, batcher)
        finally:
            recorder.gate.set()
            await batcher.close()

    asyncio.run(run())


def test_a_lone_request_is_done_at_once() -> None:
    async def test(recorder: Recorder, batcher: Any) -> None:
        assert await ask(batcher, "a", 3, 1, 2) == [6, 2, 4]
        assert await ask(batcher, "a") == []
        assert recorder.batches == [("a", [3, 1, 2])]
        assert batcher.depth == 0
        assert batcher.oldest_age == 0

    with_batcher(test)


def test_those_that_come_while_a_batch_runs_are_the_next_by_kind() -> None:
    async def test(recorder: Recorder, batcher: Any) -> None:
        first = await held(recorder, batcher)
        asked = [asyncio.create_task(ask(batcher, kind, work)) for work, kind in enumerate("babba", start=1)]
        await until(lambda: batcher.depth == 5)
        assert batcher.oldest_age > 0
        recorder.gate.set()
        assert await asyncio.gather(first, *asked) == [[0], [2], [4], [6], [8], [10]]
        assert recorder.batches[1:] == [("b", [1, 3, 4]), ("a", [2, 5])]

    with_batcher(test)


def test_a_large_request_is_done_in_parts_between_others() -> None:
    async def test(recorder: Recorder, batcher: Any) -> None:
        first = await held(recorder, batcher)
        large = asyncio.create_task(ask(batcher, "a", *range(10)))
        await until(lambda: batcher.depth == 1)
        small = [asyncio.create_task(ask(batcher, "a", 100 + number)) for number in range(2)]
        wide = asyncio.create_task(ask(batcher, "a", 200, rows=9))
        await until(lambda: batcher.depth == 4)
        recorder.gate.set()
        await asyncio.gather(first, large, *small, wide)
        assert await large == [2 * number for number in range(10)]
        assert [works for _, works in recorder.batches[1:]] == [
            [0, 1, 2, 3],
            [100, 101, 4, 5],
            [200],  # more rows than a batch may have: alone
            [6, 7, 8, 9],
        ]

    with_batcher(test, max_rows=4)


def test_a_full_queue_lets_nobody_in_until_it_drains() -> None:
    async def test(recorder: Recorder, batcher: Any) -> None:
        first = await held(recorder, batcher)
        waiting = [asyncio.create_task(ask(batcher, "a", number)) for number in range(2)]
        await until(lambda: batcher.depth == 2)
        for refused in (batcher.check_room, lambda: batcher.place().__enter__()):
            with pytest.raises(QueueFullError, match="2 requests are waiting") as caught:
                refused()
            assert 1 <= caught.value.retry_after <= 60
        recorder.gate.set()
        await asyncio.gather(first, *waiting)
        batcher.check_room()

    with_batcher(test, max_waiting=2)


def test_who_would_wait_too_long_is_told_when_to_come_back() -> None:
    async def test(recorder: Recorder, batcher: Any) -> None:
        await ask(batcher, "a", 1)
        batcher._seconds_per_row = 2.0
        first = await held(recorder, batcher)
        batcher.check_room()  # one row runs: 2 s
        with batcher.place(7):
            with pytest.raises(QueueFullError, match="about 16 s") as caught:
                batcher.check_room()
            assert caught.value.retry_after == 6
        batcher.check_room()
        recorder.gate.set()
        await first
        batcher.check_room()
        assert batcher._seconds_per_row < 2.0  # the pace follows what is measured

    with_batcher(test, max_seconds=10)


def test_what_is_not_started_in_time_never_is() -> None:
    async def test(recorder: Recorder, batcher: Any) -> None:
        first = await held(recorder, batcher)
        with pytest.raises(QueueTimeoutError, match=r"within 0.05 s") as caught:
            await ask(batcher, "a", 1)
        assert caught.value.retry_after >= 1
        assert batcher.depth == 0
        recorder.gate.set()
        assert await first == [0]  # it took longer, but it was started
        assert await ask(batcher, "a", 2) == [4]
        assert [works for _, works in recorder.batches] == [[0], [2]]

    with_batcher(test, max_seconds=0.05)


def test_who_goes_away_is_not_started_and_holds_up_nobody() -> None:
    async def test(recorder: Recorder, batcher: Any) -> None:
        first = await held(recorder, batcher)
        gone, stays = (asyncio.create_task(ask(batcher, "a", number)) for number in (1, 2))
        await until(lambda: batcher.depth == 2)
        gone.cancel()
        first.cancel()  # this one runs: what was started is finished, for nobody
        await asyncio.wait([gone, first])
        recorder.gate.set()
        assert await stays == [4]
        assert [works for _, works in recorder.batches] == [[0], [2]]

    with_batcher(test)


def test_of_a_batch_that_fails_only_the_culprit_is_told() -> None:
    async def test(recorder: Recorder, batcher: Any) -> None:
        recorder.poison = {3}
        first = await held(recorder, batcher)
        good, bad, late = (
            asyncio.create_task(ask(batcher, "a", *works)) for works in ((1, 2), (3, 4, 5), (6,))
        )
        await until(lambda: batcher.depth == 3)
        recorder.gate.set()
        assert await good == [2, 4]
        with pytest.raises(ValueError, match="poison 3"):
            await bad
        assert await late == [12]
        assert await first == [0]
        assert [5] not in [works for _, works in recorder.batches]  # the rest of a failed request is left out

    with_batcher(test, max_rows=4)


def test_closing_finishes_what_runs_and_says_so_to_the_rest() -> None:
    async def test(recorder: Recorder, batcher: Any) -> None:
        first = await held(recorder, batcher)
        waiting = asyncio.create_task(ask(batcher, "a", 1))
        await until(lambda: batcher.depth == 1)
        closing = asyncio.create_task(batcher.close())
        with pytest.raises(NotReadyError, match="shutting down"):
            await waiting
        assert not closing.done()
        recorder.gate.set()
        await closing
        assert await first == [0]

    with_batcher(test)


request_strategy = st.tuples(
    st.sampled_from("abc"),
    st.lists(st.integers(1, 6), min_size=1, max_size=5),  # rows of each part
    st.sampled_from(["stays", "stays", "stays", "leaves", "poison"]),
    st.integers(0, 3),  # turns of the event loop before it is sent
)


@settings(max_examples=40, deadline=None)
@given(st.lists(request_strategy, max_size=12), st.integers(1, 8))
def test_every_part_is_done_once_for_whoever_stays(requests: list[Any], max_rows: int) -> None:
    async def test(recorder: Recorder, batcher: Any) -> None:
        rows_of: dict[int, int] = {}

        async def one(number: int, kind: str, rows: list[int], turns: int) -> list[int]:
            for _ in range(turns):
                await asyncio.sleep(0)
            works = [100 * number + part for part in range(len(rows))]
            rows_of.update(zip(works, rows, strict=True))
            with batcher.place(sum(rows)) as place:
                parts = [Part(work, own) for work, own in zip(works, rows, strict=True)]
                found: list[int] = await batcher.submit(place, kind, parts)
                return found

        recorder.poison = {
            100 * number for number, (_, _, fate, _) in enumerate(requests) if fate == "poison"
        }
        tasks = [
            asyncio.create_task(one(number, kind, rows, turns))
            for number, (kind, rows, _, turns) in enumerate(requests)
        ]
        for _ in range(2):
            await asyncio.sleep(0)
        for task, (_, _, fate, _) in zip(tasks, requests, strict=True):
            if fate == "leaves":
                task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for number, ((_, rows, fate, _), outcome) in enumerate(zip(requests, outcomes, strict=True)):
            if fate == "poison":
                assert isinstance(outcome, ValueError)
            elif fate == "stays":
                assert outcome == [2 * (100 * number + part) for part in range(len(rows))]
        for kind, works in recorder.batches:
            assert len(works) == 1 or sum(rows_of[work] for work in works) <= max_rows
            assert {requests[work // 100][0] for work in works} == {kind}
        if not recorder.poison:
            done = [work for _, works in recorder.batches for work in works]
            assert len(done) == len(set(done))
        assert batcher.depth == 0

    with_batcher(test, max_rows=max_rows, max_waiting=100)

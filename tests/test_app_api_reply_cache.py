import asyncio
from collections.abc import Coroutine

import pytest

from app.api.reply_cache import Answer, ReplyStore, Run, StoredReply
from app.errors import IdempotencyConflictError


def reply(text: str) -> StoredReply:
    return StoredReply(text.encode(), 0, "m@1", "v1")


def making(text: str, runs: list[str]) -> Run:
    async def run() -> Answer:
        runs.append(text)
        return Answer(reply(text), hit=False)

    return run


async def ask(store: ReplyStore, key: str, run: Run, fingerprint: bytes = b"") -> tuple[str, bool]:
    answer = await store.open(key, run, fingerprint).result()
    return answer.reply.body.decode(), answer.hit


def run_in_loop(work: Coroutine[object, object, None]) -> None:
    asyncio.run(work)


def test_the_second_time_nothing_runs() -> None:
    async def work() -> None:
        store, runs = ReplyStore(10_000), list[str]()
        assert await ask(store, "a", making("1", runs)) == ("1", False)
        assert await ask(store, "a", making("2", runs)) == ("1", True)
        assert await ask(store, "b", making("3", runs)) == ("3", False)
        assert runs == ["1", "3"]

    run_in_loop(work())


def test_the_least_recently_used_goes_when_bytes_run_out() -> None:
    async def work() -> None:
        store, runs = ReplyStore(3500), list[str]()
        for key in "abc":
            await ask(store, key, making(key, runs))
        await ask(store, "a", making("never", runs))
        await ask(store, "d", making("d", runs))  # b has to go
        assert len(store) == 3
        assert store.bytes <= 3500
        assert [await ask(store, key, making("new", runs)) for key in "acd"] == [(key, True) for key in "acd"]
        assert await ask(store, "b", making("new", runs)) == ("new", False)
        await ask(store, "huge", making("x" * 4000, runs))
        assert len(store) == 3  # what is larger than all of it does not push the others out

    run_in_loop(work())


def test_what_is_too_old_is_made_anew() -> None:
    async def work() -> None:
        now, runs = [0.0], list[str]()
        store = ReplyStore(10_000, max_age=600, clock=lambda: now[0])
        await ask(store, "a", making("1", runs))
        now[0] = 599
        assert await ask(store, "a", making("2", runs)) == ("1", True)
        now[0] = 601
        assert await ask(store, "a", making("2", runs)) == ("2", False)

    run_in_loop(work())


def test_those_who_ask_at_the_same_time_share_one_run() -> None:
    async def work() -> None:
        store, gate, runs = ReplyStore(10_000), asyncio.Event(), 0

        async def run() -> Answer:
            nonlocal runs
            runs += 1
            await gate.wait()
            return Answer(reply("shared"), hit=False)

        tasks = [asyncio.create_task(ask(store, "a", run)) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks[0].cancel()  # the one that began it
        await asyncio.sleep(0)
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert [await task for task in tasks[1:]] == [("shared", True)] * 4
        assert runs == 1

    run_in_loop(work())


def test_a_run_ends_when_nobody_waits_any_more_and_the_next_one_is_new() -> None:
    async def work() -> None:
        store, cancelled, runs = ReplyStore(10_000), asyncio.Event(), list[str]()

        async def run() -> Answer:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            raise AssertionError

        tasks = [asyncio.create_task(ask(store, "a", run)) for _ in range(2)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await ask(store, "a", making("new", runs)) == ("new", False)
        await asyncio.wait_for(cancelled.wait(), 10)

    run_in_loop(work())


def test_errors_reach_all_who_wait_and_are_not_kept() -> None:
    async def work() -> None:
        store, gate, runs = ReplyStore(10_000), asyncio.Event(), list[str]()

        async def fail() -> Answer:
            await gate.wait()
            raise ValueError("no")

        tasks = [asyncio.create_task(ask(store, "a", fail)) for _ in range(3)]
        await asyncio.sleep(0.01)
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(result) for result in results] == ["no"] * 3
        assert await ask(store, "a", making("2", runs)) == ("2", False)

    run_in_loop(work())


def test_a_key_belongs_to_one_fingerprint() -> None:
    async def work() -> None:
        store, runs = ReplyStore(10_000), list[str]()
        await ask(store, "a", making("1", runs), b"body")
        assert await ask(store, "a", making("2", runs), b"body") == ("1", True)
        with pytest.raises(IdempotencyConflictError):
            store.open("a", making("2", runs), b"other body")

    run_in_loop(work())

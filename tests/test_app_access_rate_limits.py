import asyncio
import socket
import uuid

import pytest
from echo_captioner import EchoCaptioner
from fakeredis import FakeAsyncRedis
from structlog.testing import capture_logs

from app.access.rate_limits import Allowance, RateLimits, Window, rate_limit_headers
from app.errors import InvalidSettingsError, LimitsUnavailableError
from app.server import create_app
from app.settings import Settings


class Clock:
    """Stands for time.time, which the library `limits` counts by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_800_000_000.0  # the beginning of a minute
        monkeypatch.setattr("time.time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_minutes_limit_and_when_it_ends(clock: Clock) -> None:
    async def run() -> None:
        limits = RateLimits()
        allowance = Allowance(per_minute=3)
        for remaining in (2, 1, 0):
            (window,) = await limits.take("a", allowance)
            assert (window.name, window.limit, window.seconds) == ("minute", 3, 60)
            assert (window.remaining, window.exceeded) == (remaining, False)
        (window,) = await limits.take("a", allowance)
        assert (window.remaining, window.exceeded) == (0, True)
        assert 1 <= window.resets_in <= 60
        assert not (await limits.take("b", allowance))[0].exceeded
        clock.now += 120
        assert [window.remaining for window in await limits.take("a", allowance)] == [2]

    asyncio.run(run())


def test_the_turn_of_a_minute_does_not_double_the_limit(clock: Clock) -> None:
    async def run() -> None:
        limits = RateLimits()
        clock.now += 59
        for _ in range(10):
            assert not (await limits.take("a", Allowance(per_minute=10)))[0].exceeded
        clock.now += 2
        taken = [not (await limits.take("a", Allowance(per_minute=10)))[0].exceeded for _ in range(10)]
        assert sum(taken) <= 1

    asyncio.run(run())


def test_waiting_as_long_as_told_is_enough_for_a_minute(clock: Clock) -> None:
    async def run() -> None:
        limits = RateLimits()
        clock.now += 10.5
        for _ in range(7):
            assert not (await limits.take("a", Allowance(per_minute=7)))[0].exceeded
        (window,) = await limits.take("a", Allowance(per_minute=7))
        assert (window.exceeded, window.resets_in) == (True, 50)
        clock.now += window.resets_in
        assert not (await limits.take("a", Allowance(per_minute=7)))[0].exceeded

    asyncio.run(run())


def test_waiting_as_long_as_told_is_enough_for_a_day(clock: Clock) -> None:
    async def run() -> None:
        limits = RateLimits()
        clock.now += 12_345
        assert not (await limits.take("a", Allowance(per_day=1)))[0].exceeded
        clock.now += 1000
        (window,) = await limits.take("a", Allowance(per_day=1))
        assert (window.exceeded, window.resets_in) == (True, 85_400)
        clock.now += window.resets_in
        assert not (await limits.take("a", Allowance(per_day=1)))[0].exceeded

    asyncio.run(run())


def test_what_the_minute_refuses_does_not_cost_the_day(clock: Clock) -> None:
    async def run() -> None:
        limits = RateLimits()
        allowance = Allowance(per_minute=1, per_day=2)
        await limits.take("a", allowance)
        for _ in range(5):
            assert [window.name for window in await limits.take("a", allowance)] == ["minute"]
        clock.now += 120
        windows = await limits.take("a", allowance)
        assert [(window.name, window.remaining) for window in windows] == [("minute", 0), ("day", 0)]
        assert not windows[-1].exceeded

    asyncio.run(run())


def test_no_limit_costs_nothing() -> None:
    # Not even a connection: nobody listens there.
    async def run() -> None:
        limits = RateLimits("redis://127.0.0.1:1/0")
        assert await limits.take("a", Allowance()) == []
        await limits.close()

    asyncio.run(run())
    assert rate_limit_headers([]) == {}


def test_the_headers_name_each_limit() -> None:
    windows = [Window("minute", 60, 60, 59, 31), Window("day", 1000, 86400, 0, 4000, exceeded=True)]
    assert rate_limit_headers(windows) == {
        "RateLimit-Policy": '"minute";q=60;w=60, "day";q=1000;w=86400',
        "RateLimit": '"minute";r=59;t=31, "day";r=0;t=4000',
    }


# --- in Redis ---------------------------------------------------------------------------------------------


@pytest.fixture
def redis_url(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a Redis in this process, which runs the scripts that the library sends."""
    monkeypatch.setattr("redis.asyncio.Redis", FakeAsyncRedis)
    return f"redis://{uuid.uuid4().hex}:6379/0"


def test_several_processes_can_count_together(redis_url: str) -> None:
    async def run() -> None:
        one, other = RateLimits(redis_url), RateLimits(redis_url)
        allowance = Allowance(per_minute=1000, per_day=3)
        remaining = []
        for limits in (one, other, one):
            windows = await limits.take("a", allowance)
            assert [window.name for window in windows] == ["minute", "day"]
            remaining.append(windows[-1].remaining)
        assert remaining == [2, 1, 0]
        assert (await other.take("a", allowance))[-1].exceeded
        assert not (await other.take("b", allowance))[-1].exceeded
        for limits in (one, other):
            await limits.close()

    asyncio.run(run())


def test_a_minutes_limit_in_redis(redis_url: str) -> None:
    async def run() -> None:
        limits = RateLimits(redis_url)
        taken = [not (await limits.take("a", Allowance(per_minute=5)))[0].exceeded for _ in range(8)]
        assert taken[:5] == [True] * 5
        assert not taken[-1]
        await limits.close()

    asyncio.run(run())


def test_without_redis_nobody_with_a_limit_is_served() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    async def run() -> None:
        limits = RateLimits(f"redis://:hunter2@127.0.0.1:{port}/0")
        with capture_logs() as logs, pytest.raises(LimitsUnavailableError) as error:
            await limits.take("a", Allowance(per_minute=1))
        assert error.value.retry_after >= 1
        assert [line["event"] for line in logs] == ["limits_storage_failed"]
        assert "hunter2" not in str(error.value) + repr(logs)
        await limits.close()

    asyncio.run(run())


def test_a_redis_that_does_not_answer_holds_nobody_up_for_long() -> None:
    async def run(port: int) -> None:
        limits = RateLimits(f"redis://127.0.0.1:{port}/0")
        async with asyncio.timeout(60):
            with pytest.raises(LimitsUnavailableError):
                await limits.take("a", Allowance(per_minute=1))
        await limits.close()

    with socket.create_server(("127.0.0.1", 0)) as silent:
        asyncio.run(run(silent.getsockname()[1]))


@pytest.mark.parametrize("url", ["http://127.0.0.1/0", "redis", "async+redis://x", "mongodb://u:hunter2@h/"])
def test_a_storage_that_is_not_redis(url: str) -> None:
    with pytest.raises(InvalidSettingsError, match="PAELLERA_LIMITS_STORAGE") as error:
        create_app(EchoCaptioner, Settings.model_validate({"limits_storage": url}))
    assert "hunter2" not in str(error.value)
    assert "hunter2" not in repr(Settings.model_validate({"limits_storage": url}))

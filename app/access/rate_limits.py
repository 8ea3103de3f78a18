"""How many requests a caller may make in a minute and in a day; counting is done by the library `limits`.

Minutes are a sliding window, so that nobody gets two minutes' worth at the turn of one; a day begins with a
caller's first request. Counters are in this process, or in Redis, which several processes can share and which
outlives them. Without counters nobody with a limit is served: to bring Redis down must gain nobody anything.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import structlog
from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter, RateLimiter, SlidingWindowCounterRateLimiter
from limits.errors import ConfigurationError, StorageError

from app.errors import InvalidSettingsError, LimitsUnavailableError

_REDIS_SCHEMES = ("redis://", "rediss://", "redis+unix://")
_REDIS_SECONDS = 1.0  # for connecting and for each answer
_log = structlog.get_logger("paellera.limits")


@dataclass(frozen=True)
class Allowance:
    """None: as many as they like."""

    per_minute: int | None = None
    per_day: int | None = None


@dataclass(frozen=True)
class Window:
    """Where a caller stands with one of its limits."""

    name: str
    limit: int
    seconds: int  # its length
    remaining: int
    resets_in: int  # seconds until there is more
    exceeded: bool = False


class RateLimits:
    """Raises InvalidSettingsError for a storage that is not there or not supported."""

    def __init__(self, storage_url: str | None = None) -> None:
        self._storage = _open_storage(storage_url)
        self._minutes = SlidingWindowCounterRateLimiter(self._storage)
        self._days = FixedWindowRateLimiter(self._storage)

    async def take(self, caller: str, allowance: Allowance) -> list[Window]:
        """Counts one request; of the windows returned, the last is `exceeded` if it was one too many.

        A request that a minute's limit refuses is not counted against the day. Raises LimitsUnavailableError.
        """
        windows = []
        try:
            for strategy, item in self._limits(allowance):
                taken = await strategy.hit(item, caller)
                stats = await strategy.get_window_stats(item, caller)
                resets_in = max(1, math.ceil(stats.reset_time - time.time()))
                remaining = max(0, stats.remaining) if taken else 0
                name = item.GRANULARITY.name
                windows.append(Window(name, item.amount, item.get_expiry(), remaining, resets_in, not taken))
                if not taken:
                    break
        except (StorageError, OSError) as error:
            # Not str(error): it may hold the address with its password.
            _log.error("limits_storage_failed", error=type(error.__cause__ or error).__name__)
            raise LimitsUnavailableError(
                "requests cannot be counted at the moment; try again later", 5
            ) from None
        return windows

    def _limits(self, allowance: Allowance) -> list[tuple[RateLimiter, RateLimitItem]]:
        limits: list[tuple[RateLimiter, RateLimitItem]] = []
        if allowance.per_minute is not None:
            limits.append((self._minutes, RateLimitItemPerMinute(allowance.per_minute)))
        if allowance.per_day is not None:
            limits.append((self._days, RateLimitItemPerDay(allowance.per_day)))
        return limits

    async def close(self) -> None:
        if isinstance(self._storage, RedisStorage):
            await cast(Any, self._storage.bridge).storage.aclose()


def rate_limit_headers(windows: Sequence[Window]) -> dict[str, str]:
    """The two headers of the IETF's draft `ratelimit-headers`, for all limits that were looked at."""
    if not windows:
        return {}
    return {
        "RateLimit-Policy": ", ".join(f'"{each.name}";q={each.limit};w={each.seconds}' for each in windows),
        "RateLimit": ", ".join(f'"{each.name}";r={each.remaining};t={each.resets_in}' for each in windows),
    }


def _open_storage(url: str | None) -> Storage:
    if url is None or url == "memory://":
        return MemoryStorage()
    if not url.startswith(_REDIS_SCHEMES):  # the address itself may hold a password, so it is not repeated
        raise InvalidSettingsError(
            f"PAELLERA_LIMITS_STORAGE must begin with one of {', '.join(_REDIS_SCHEMES)}"
        )
    try:
        return RedisStorage(
            f"async+{url}",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix="paellera",
            socket_connect_timeout=_REDIS_SECONDS,
            socket_timeout=_REDIS_SECONDS,
        )
    except ConfigurationError:
        raise InvalidSettingsError(
            "PAELLERA_LIMITS_STORAGE names Redis, which needs a package: pip install 'paellera[redis]'"
        ) from None
    except ValueError:
        raise InvalidSettingsError("PAELLERA_LIMITS_STORAGE is not an address of Redis") from None

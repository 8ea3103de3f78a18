"""What the tests share. Imports nothing heavy by itself: most tests know nothing of the service."""

import asyncio
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from echo_captioner import EchoCaptioner
    from starlette.testclient import TestClient


@pytest.fixture(scope="session", autouse=True)
def shared_decode_workers() -> Iterator[None]:
    """Services in the tests' own process share processes that decode, one pool for each set of limits.

    To start such processes takes most of the time of a test that sends one photo.
    """
    if "app.service" not in sys.modules:  # no test of this session has a service
        yield
        return
    from app.decoding import DecodePool

    class LastingPool(DecodePool):
        async def close(self) -> None:
            """It is used by others."""

    pools: dict[object, DecodePool] = {}

    def pool_of(*limits: Any, **options: Any) -> DecodePool:
        key = limits, tuple(options.items())
        if key not in pools:
            pools[key] = LastingPool(*limits, **options)
        return pools[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.service.DecodePool", pool_of)
        yield
    for pool in pools.values():
        asyncio.run(DecodePool.close(pool))


@pytest.fixture
def captioner() -> "EchoCaptioner":
    from echo_captioner import EchoCaptioner

    return EchoCaptioner()


@pytest.fixture
def client(captioner: "EchoCaptioner") -> "Iterator[TestClient]":
    """Of a service with that captioner."""
    from service_client import service_client

    with service_client(captioner) as client:
        yield client

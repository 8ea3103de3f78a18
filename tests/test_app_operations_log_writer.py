"""A log that is slow, held or broken, and what comes out of it when it goes on."""

import fcntl
import os
import threading
import time
from collections.abc import Iterator

import pytest

from app.operations.log_writer import LineWriter


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The reading and the writing end; 4096 bytes fit."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    yield reading, writing
    os.close(writing)
    os.close(reading)


def read(reading: int, lines: int) -> list[str]:
    data = b""
    while data.count(b"\n") < lines:
        data += os.read(reading, 100_000)
    return data.decode().splitlines()


def test_lines_come_in_order_and_are_there_after_a_flush(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    expected = [f"line {number}" for number in range(200)]
    for line in expected:
        writer.write(line)
    assert writer.flush(60)
    assert os.read(pipe[0], 4096).decode().splitlines() == expected


def test_nobody_waits_for_a_pipe_that_is_not_read(pipe: tuple[int, int]) -> None:
    lost: list[int] = []
    writer = LineWriter(pipe[1], on_lost=lambda: lost.append(1), most=10)
    began = time.monotonic()
    for number in range(100):
        writer.write(f"{number:>999}")
        if number == 3:
            assert writer.flush(60)  # so many fit into the pipe
    assert time.monotonic() - began < 30  # they would wait for ever
    assert not writer.flush(0.01)
    assert len(lost) == 86  # ten wait
    assert writer.take_dropped() == 0  # as long as there is no room to say it
    assert [int(line) for line in read(pipe[0], 14)] == list(range(14))
    assert writer.flush(60)
    assert writer.take_dropped() == 86
    assert writer.take_dropped() == 0
    writer.write("it goes on")
    assert read(pipe[0], 1) == ["it goes on"]


def test_lines_of_several_threads_stay_whole(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])

    def write(name: str) -> None:
        for _ in range(50):
            writer.write(name * 500)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    lines = read(pipe[0], 150)
    assert sorted(lines) == sorted(name * 500 for name in "abc" for _ in range(50))
    for thread in threads:
        thread.join()

"""Servers that host the same captioner: Paellera's own, LitServe and Ray Serve, each started as a command."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.target import Target

_STARTUP_SECONDS = 180


@dataclass(frozen=True)
class Host:
    """How to start a server, and what to ask it."""

    name: str
    command: Sequence[str]  # {port} is filled in
    path: str
    ready: str  # a path that answers 200 when it can caption
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Running:
    target: Target
    process: psutil.Process

    def memory(self) -> int:
        """Bytes of this server and what it has started; pages they share count once."""
        total = 0
        for process in [self.process, *self.process.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:  # it has ended meanwhile
                continue
        return total


def paellera(rows: int) -> Host:
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "{port}"]
    # Without a cache of replies: the same photos are sent again and again.
    settings = {"PAELLERA_BATCH_ROWS": str(rows), "PAELLERA_CACHE_BYTES": "0", "PAELLERA_LOG_LEVEL": "error"}
    return Host("Paellera", command, "/v1/captions", "/readyz", settings)


def litserve(rows: int) -> Host:
    command = [sys.executable, "-m", "benchmarks.litserve_host", "{port}", str(rows)]
    return Host("LitServe", command, "/predict", "/health", {})


def ray_serve(rows: int) -> Host:
    command = [sys.executable, "-m", "benchmarks.ray_host", "{port}", str(rows)]
    return Host("Ray Serve", command, "/captions", "/ready", {"RAY_USAGE_STATS_ENABLED": "0"})


@contextmanager
def running(host: Host) -> Iterator[Running]:
    """The server, ready; it is stopped at the end."""
    port = _free_port()
    command = [part.format(port=port) for part in host.command]
    environment = {**os.environ, **host.environment, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            _wait(f"http://127.0.0.1:{port}{host.ready}", process)
            target = Target(f"http://127.0.0.1:{port}{host.path}", [("language", "en")])
            yield Running(target, psutil.Process(process.pid))
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            with suppress(ProcessLookupError):  # what it has started may outlive it
                os.killpg(process.pid, signal.SIGKILL)


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + _STARTUP_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"{url} is not ready after {_STARTUP_SECONDS} s")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port

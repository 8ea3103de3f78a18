"""`paellera serve` in a process of its own, with an echo captioner that takes as long as it is told."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from sample_pictures import encode, plain

ROOT = Path(__file__).parent.parent
PHOTO = encode(plain(), "PNG")
_CODE = """
import sys, time
import app.server
from app.cli import main
from echo_captioner import EchoCaptioner

class Slow(EchoCaptioner):
    def caption_each(self, images, languages, settings):
        if settings.seed:  # not the warm-up image
            print("captioning", file=sys.stderr, flush=True)
            time.sleep(settings.seed / 1000)
        return super().caption_each(images, languages, settings)

app.server.load_model = lambda *_: Slow()
sys.exit(main(["serve"]))
"""
COMMAND = [sys.executable, "-c", _CODE]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes


class Served:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        self.process = process
        self.lines: list[bytes] = []
        self._stderr = process.stderr
        self.address = self.wait_for(b"listens on").split()[3].decode()

    def wait_for(self, text: bytes) -> bytes:
        """The next line of the log that has `text`; the process is killed if it does not come."""
        patience = threading.Timer(120, self.process.kill)
        patience.start()
        try:
            for line in self._stderr:
                self.lines.append(line)
                if text in line:
                    return line
        finally:
            patience.cancel()
        raise AssertionError(f"{text!r} never came: {self.lines}")

    def get(self, path: str) -> Answer:
        return _answer(urllib.request.Request(f"{self.address}{path}"))

    def caption(self, milliseconds: int = 0) -> Answer:
        address = f"{self.address}/v1/captions?seed={milliseconds}"
        return _answer(urllib.request.Request(address, PHOTO, {"Content-Type": "image/png"}))

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """The exit code."""
        self.lines += self._stderr.readlines()
        return self.process.wait(timeout=120)


@contextmanager
def served(**settings: object) -> Iterator[Served]:
    """Ready to caption; every setting as of app/settings.py. Killed at the end if it still runs."""
    with subprocess.Popen(
        COMMAND, cwd=ROOT, env=environment({"port": 0} | settings), stderr=subprocess.PIPE
    ) as process:
        try:
            service = Served(process)
            service.wait_for(b"model_ready")
            deadline = time.monotonic() + 120
            while service.get("/readyz").status != 200:
                assert time.monotonic() < deadline
            yield service
        finally:
            process.kill()


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    return (
        os.environ
        | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "PYTHONWARNINGS": "error"}
        | {f"PAELLERA_{name.upper()}": str(value) for name, value in settings.items()}
    )


def _answer(request: urllib.request.Request) -> Answer:
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return Answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())

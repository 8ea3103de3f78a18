"""The whole corpus against the service with its real decode processes: every input has a clear answer, soon.

Between two classes a good photo is captioned, so nothing hostile stays behind.
"""

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from echo_captioner import EchoCaptioner
from service_client import service_client
from starlette.testclient import TestClient

from app.problems import MEDIA_TYPE
from hostile.asking import Answer, ask
from hostile.corpus import CLASSES
from hostile.error_codes import status_of
from hostile.inputs import CAPTIONED, CAPTIONS, CHAT, HostileClass, HostileInput
from hostile.photos import photo

SECONDS = 20  # for an answer; the slowest took two on a busy machine
MEMORY = 500_000_000  # bytes that images may take in a decode process
MEMORY_WITHOUT_IMAGES = 150_000_000  # what Python and its libraries take there
MEMORY_AT_REST = 400_000_000  # when it has no picture to decode
SETTINGS = {  # docs/errors.md names them
    "max_image_bytes": 4_000_000,
    "max_image_pixels": 30_000_000,
    "max_body_bytes": 12_000_000,
    "decode_memory_bytes": MEMORY,
    "decode_seconds": 2 * SECONDS,  # slow is a failure of the test here, not an answer
}
GOOD = HostileInput("good", photo(), b"image/jpeg")
MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with service_client(EchoCaptioner(), **SETTINGS) as client:
        ask(client, GOOD)  # the first image starts a decode process, which takes a while
        yield client


@pytest.mark.parametrize("declared", CLASSES, ids=lambda declared: declared.name.replace(" ", "-"))
def test_hostile(client: TestClient, declared: HostileClass) -> None:
    given, seen = set(), set()
    for request in declared.make():
        same = hash(replace(request, name=""))
        assert same not in seen, f"{request.name} is there twice"
        seen.add(same)
        answer = ask(client, request)
        given.add(check(request, answer))
        assert answer.seconds < SECONDS, request.name
    assert given == declared.answers
    assert ask(client, GOOD).document["images"][0]["captions"][0]["text"].startswith("picture ")
    assert most_memory("VmHWM") < MEMORY + MEMORY_WITHOUT_IMAGES
    assert most_memory("VmRSS") < MEMORY_AT_REST


def check(request: HostileInput, answer: Answer) -> str:
    """CAPTIONED, or the code of a problem document that is as the contract says."""
    said = f"{request.name}: {answer.status} {answer.body[:300]!r}"
    if answer.status == 200:
        if request.path == CAPTIONS:
            assert answer.document["images"], said
        return CAPTIONED
    assert answer.headers["content-type"] == MEDIA_TYPE, said
    problem = answer.document
    in_chat = request.path == CHAT and "error" in problem
    assert set(problem) == MEMBERS | ({"error"} if in_chat else set()), said
    code, detail = problem["code"], problem["detail"]
    expected = status_of(code)
    assert answer.status == problem["status"] == (400 if in_chat and expected == 422 else expected), said
    assert answer.status < 500, said
    if in_chat:
        assert (problem["error"]["code"], problem["error"]["message"]) == (code, detail), said
    assert problem["type"] == f"urn:paellera:problem:{code}", said
    assert problem["request_id"] == answer.headers["x-request-id"], said
    assert 0 < len(detail) < 600, said
    assert detail.isprintable(), said
    assert "Traceback" not in detail, said
    assert "site-packages" not in detail, said
    return str(code)


def most_memory(kind: str) -> int:
    """Bytes of the decode process that has most; VmRSS is what it has now, VmHWM the most it ever had."""
    found = [0]
    for process in multiprocessing.active_children():
        for line in Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(kind):
                found.append(1024 * int(line.split()[1]))
    return max(found)

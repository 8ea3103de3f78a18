import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from sample_pictures import encode, plain
from service_client import service_client
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from app.access.gate import Caller
from app.operations.access_log import AccessLogMiddleware
from app.operations.metrics import Metrics

PHOTO = encode(plain(), "PNG")
ROOT = Path(__file__).parent.parent


def test_every_request_is_one_line_without_its_content() -> None:
    with service_client() as client, capture_logs() as logs:
        response = client.post(
            "/v1/captions", files={"image": ("holiday.png", PHOTO)}, headers={"x-request-id": "r1"}
        )
        client.post(
            "/v1/captions?key=hunter2&language=xx", content=PHOTO, headers={"content-type": "image/png"}
        )
        client.get("/wp-admin/hunter2")
    lines = [line for line in logs if line["event"] == "request"]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("POST", "/v1/captions", 200),
        ("POST", "/v1/captions", 422),
        ("GET", None, 404),
    ]
    assert lines[0]["request_id"] == "r1"
    assert lines[0]["ms"] > 0
    assert lines[0]["bytes_in"] > len(PHOTO)
    assert lines[0]["bytes_out"] == len(response.content)
    assert lines[1]["bytes_in"] == 0  # refused before its body was read
    assert lines[1]["problem_code"] == "invalid_request"
    assert all(line["log_level"] == "info" for line in lines)
    for secret in ("holiday", "picture", "hunter2"):
        assert secret not in json.dumps(logs)


def test_probes_and_metrics_are_not_worth_a_line() -> None:
    with service_client() as client, capture_logs() as logs:
        for path in ("/livez", "/readyz", "/metrics"):
            client.get(path)
    assert {line["log_level"] for line in logs if line["event"] == "request"} == {"debug"}


@pytest.mark.parametrize("name", [None, "phone app"])
def test_the_name_of_the_key_is_there_if_there_is_one(name: str | None) -> None:
    async def answers(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["caller"] = Caller(name)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None: ...

    scope: Scope = {"type": "http", "headers": [], "method": "POST", "path": "/v1/captions"}
    with capture_logs() as logs:
        anyio.run(AccessLogMiddleware(answers, Metrics()), scope, receive, send)
    assert logs[0].get("key") == name


@pytest.mark.parametrize(("sink", "style"), [("full", "text"), ("closed", "json"), ("unread", "text")])
def test_a_log_that_cannot_be_written_fails_no_request(sink: str, style: str) -> None:
    code = (
        "import functools\n"
        "from app.operations import log_writer, logs\n"
        "from service_client import service_client\n"
        "logs.LineWriter = functools.partial(log_writer.LineWriter, most=20)\n"
        "with service_client() as client:\n"
        f"    logs.configure_logging('info', {style!r}, client.app.state.metrics.count_lost_line)\n"
        "    seen = {client.get(p).status_code for p in ['/v1/languages'] + 99 * ['/nowhere']}\n"
        "    metrics = client.get('/metrics').text.splitlines()\n"
        "    lost = [x for x in metrics if x.startswith('paellera_log_lines_lost_total')]\n"
        "    print(sorted(seen), float(lost[0].split()[1]) > 30)"
    )
    reading = None
    if sink == "full":
        full = Path("/dev/full")
        if not full.exists():
            pytest.skip("this system has no /dev/full")
        descriptor = os.open(full, os.O_WRONLY)
    else:
        reading, descriptor = os.pipe()
        if sink == "closed":
            os.close(reading)
            reading = None
        else:
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 4096)  # some thirty lines
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
            stdout=subprocess.PIPE,
            stderr=descriptor,
            timeout=300,
        )
    finally:
        os.close(descriptor)
        if reading is not None:
            os.close(reading)
    assert done.stdout.splitlines()[-1] == b"[200, 404] True"
    assert done.returncode == 0


def test_lines_are_json_when_set() -> None:
    code = (
        "import logging\n"
        "from app.operations.logs import configure_logging\n"
        "from service_client import service_client\n"
        "configure_logging('info', 'json')\n"
        "with service_client() as client:\n"
        "    client.get('/v1/languages'); client.get('/livez')\n"
        "logging.getLogger('uvicorn').error('Größe \\ud800')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        timeout=300,
        check=True,
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines if line["logger"].startswith("paellera")] == [
        "model_ready",
        "request",
    ]
    request = next(line for line in lines if line["event"] == "request")
    assert (request["route"], request["status"], request["level"]) == ("/v1/languages", 200, "info")
    assert lines[-1]["event"].startswith("Größe")

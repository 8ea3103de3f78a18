"""The client that measures a lone request asks and reads as any other does."""

import io

import pytest
from echo_captioner import EchoCaptioner
from live_service import live_service
from PIL import Image

from benchmarks.lone_client import one_after_the_other
from benchmarks.target import Target


def _photo() -> bytes:
    with io.BytesIO() as file:
        Image.linear_gradient("L").convert("RGB").save(file, "PNG")
        return file.getvalue()


def test_it_asks_for_captions_on_one_connection() -> None:
    captioner = EchoCaptioner()
    with live_service(captioner) as address:
        target = Target(f"{address}/v1/captions", [("language", "de")])
        one_after_the_other(target, [_photo()], seconds=0.01)  # starts a process that decodes
        captioner.calls.clear()
        answers = one_after_the_other(target, [_photo(), _photo()], seconds=1)
    assert len(answers) > 1
    assert {answer.status for answer in answers} == {200}
    assert len(captioner.calls) == len(answers)
    assert all(answer.model_ms > 0 and answer.seconds > 0 for answer in answers)


def test_a_refusal_is_an_answer() -> None:
    with live_service(EchoCaptioner()) as address:
        answers = one_after_the_other(Target(f"{address}/v1/captions"), [b"no photo"], seconds=0.05)
    assert {answer.status for answer in answers} == {422}


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(OSError, match="refused"):
        one_after_the_other(Target("http://127.0.0.1:9/v1/captions"), [_photo()], seconds=0.05)

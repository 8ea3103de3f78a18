"""The soak's own judgement: what it takes for a leak, for a right answer and for a refusal."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from echo_captioner import WORDS, EchoCaptioner
from live_service import live_service
from PIL import Image
from sample_pictures import encode, noisy, plain

from benchmarks.soak import is_told_to_wait
from benchmarks.soak_report import draw, markdown
from benchmarks.soak_service import Sample
from benchmarks.soak_traffic import Traffic, captions_in, is_refused
from benchmarks.soak_verdicts import Verdict, at_most, back, flat, growth, percentile
from benchmarks.wire import Response, ask

TIMES = [5.0 * number for number in range(240)]  # 20 minutes


def memory(per_hour: float, noise: float, rise: float = 0.0) -> Sequence[float]:
    """800 MB that grow and move about, and rise at the beginning."""
    drawn = random.Random(7)
    return [
        800 + rise * min(1.0, time / 200) + per_hour * time / 3600 + drawn.gauss(0, noise) for time in TIMES
    ]


@pytest.mark.parametrize("per_hour", [-100.0, 0.0, 20.0])
@pytest.mark.parametrize("rise", [0.0, 150.0])
def test_memory_that_stays_is_flat_whatever_it_took_to_warm_up(per_hour: float, rise: float) -> None:
    found = growth(TIMES, memory(per_hour, noise=4, rise=rise))
    assert found.is_flat
    assert found.per_hour == pytest.approx(per_hour, abs=8)
    assert flat("memory", TIMES, memory(per_hour, noise=4, rise=rise)).passed


@pytest.mark.parametrize("per_hour", [60.0, 200.0, 1000.0])
def test_a_leak_is_none(per_hour: float) -> None:
    verdict = flat("memory", TIMES, memory(per_hour, noise=4))
    assert not verdict.passed
    assert "MB an hour" in verdict.finding


def test_a_few_outliers_are_no_leak() -> None:
    values = list(memory(0, noise=3))
    values[-10] = values[-40] = values[100] = 1500.0
    assert growth(TIMES, values).is_flat


def test_too_few_measurements_are_no_verdict_of_good_health() -> None:
    assert not flat("memory", TIMES[:6], [800.0] * 6).passed
    assert not flat("memory", [], []).passed


def test_counts_are_compared_with_what_is_allowed() -> None:
    assert back("descriptors", 16, 18, slack=2).passed
    assert not back("descriptors", 16, 19, slack=2).passed
    assert at_most("refused", 2, 100, 0.02).passed
    assert not at_most("refused", 3, 100, 0.02).passed
    assert not at_most("wrong", 1, 100_000).passed
    assert percentile([0.1] * 99 + [9.0], 0.99) == 9.0
    assert percentile([], 0.5) == 0.0


def test_a_service_that_works_answers_all_good_requests_rightly_and_refuses_the_bad() -> None:
    photos = [encode(noisy((60, 40)), "JPEG"), encode(plain(), "PNG")]
    traffic = Traffic(photos, list(WORDS), "echo", random.Random(3))

    async def run(host: str, port: int) -> None:
        seen = set()
        for _ in range(120):
            asked = traffic.good()
            response = await ask(host, port, asked.request)
            assert response.status == 200, (asked.name, response)
            assert asked.is_right(response), (asked.name, response)
            seen.add(asked.name)
        assert seen == {"raw image", "form", "JSON", "events", "chat", "chat stream", "search", "look"}
        refused = set()
        for _ in range(100):
            asked = traffic.bad()
            response = await ask(host, port, asked.request)
            assert asked.is_right(response), (asked.name, response)
            refused.add(asked.name)
        assert len(refused) == 17

    with live_service(EchoCaptioner()) as address:
        parts = urlsplit(address)
        assert parts.hostname is not None
        assert parts.port is not None
        asyncio.run(run(parts.hostname, parts.port))


def test_answers_that_are_not_right_are_seen() -> None:
    def answer(body: bytes, status: int = 200, kind: str = "application/problem+json") -> Response:
        return Response(status, {"content-type": kind}, body)

    right = b'{"images": [{"captions": [{"language": "es", "text": "gato"}]}]}'
    assert captions_in(["es"], 1)(answer(right))
    assert not captions_in(["en"], 1)(answer(right))
    assert not captions_in(["es"], 2)(answer(right))
    assert not captions_in(["es"], 1)(answer(right.replace(b"gato", b"")))
    assert is_refused(answer(b'{"status": 422}', 422))
    assert not is_refused(answer(b'{"status": 500}', 500))
    assert not is_refused(answer(b'{"status": 422}', 422, "text/plain"))
    assert not is_refused(answer(b'{"status": 400}', 422))


def test_who_is_told_to_wait() -> None:
    assert is_told_to_wait(Response(429, {"retry-after": "3"}, b""))
    assert not is_told_to_wait(Response(429, {}, b""))
    assert not is_told_to_wait(Response(500, {"retry-after": "3"}, b""))
    late = b'event: error\ndata: {"type": "urn:paellera:problem:queue_timeout", "status": 503}\n\n'
    assert is_told_to_wait(Response(200, {}, late))
    assert not is_told_to_wait(Response(200, {}, late.replace(b"queue_timeout", b"internal_error")))


def test_the_report_says_what_was_bad_and_has_its_picture(tmp_path: Path) -> None:
    found = [Verdict("memory", True, "flat"), Verdict("answers of 500", False, "3 of 100")]
    text = markdown(["seed 0"], found, {"form": [0.1, 0.3]}, {"By status": {"200": 2}}, "images/soak.png")
    assert "1 of 2 verdicts are good." in text
    assert "| answers of 500 | **bad** | 3 of 100 |" in text
    assert "| form | 2 | 300 | 300 |" in text
    assert "![" in text
    samples = [Sample(time, 800, 810, 150, 3, 16, 17, 0, 1, 9) for time in TIMES]
    draw(samples, tmp_path / "images" / "soak.png")
    with Image.open(tmp_path / "images" / "soak.png") as picture:
        assert picture.size[0] > 400

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from echo_captioner import EchoCaptioner
from sample_pictures import encode, plain
from service_client import service_client
from starlette.testclient import TestClient
from waiting import wait_until

from app.decoding import DecodeStatistics
from app.operations.metrics import Metrics
from app.operations.process_memory import resident_bytes

PHOTO = encode(plain(), "PNG")


def samples(client: TestClient) -> dict[str, float]:
    """Every sample of /metrics by its name with labels, as Prometheus would read it."""
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    lines = [line for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def ask(client: TestClient, **data: Any) -> Any:
    return client.post("/v1/captions", files={"image": PHOTO}, data=data)


def test_requests_are_counted_by_template_and_status() -> None:
    with service_client() as client:
        for _ in range(3):
            assert ask(client).status_code == 200
        assert ask(client, language="xx").status_code == 422
        for number in range(5):
            client.get(f"/secret/{number}")
        client.delete("/v1/captions")
        found = samples(client)
    assert found['paellera_requests_total{route="/v1/captions",status="200"}'] == 3
    assert found['paellera_requests_total{route="/v1/captions",status="422"}'] == 1
    assert found['paellera_requests_total{route="/v1/captions",status="405"}'] == 1
    assert found['paellera_requests_total{route="(none)",status="404"}'] == 5
    assert found['paellera_request_seconds_count{route="/v1/captions"}'] == 5
    assert found['paellera_rejected_total{code="unknown_language"}'] == 1
    assert found['paellera_rejected_total{code="not_found"}'] == 5
    assert not any("secret" in name for name in found)


def test_a_body_refused_before_any_route_is_a_reject_too() -> None:
    with service_client(max_body_bytes=50) as client:
        assert ask(client).status_code == 413
        assert samples(client)['paellera_rejected_total{code="body_too_large"}'] == 1


def test_what_was_captioned() -> None:
    with service_client() as client:
        ask(client, language=["es", "de"], num_captions="2")
        client.post("/v1/captions", files=[("image", PHOTO)] * 3)
        found = samples(client)
    assert found["paellera_captions_total"] == 2 * 2 + 3
    assert found["paellera_caption_tokens_total"] == 2 * 2 * 5 + 3 * 5  # the echo says five a caption
    assert found["paellera_batch_images_count"] == 2
    assert found["paellera_batch_images_sum"] == 4
    for stage, seconds in (("encode", 0.002), ("retrieve", 0.004), ("generate", 0.006)):
        assert found[f'paellera_stage_seconds_count{{stage="{stage}"}}'] == 2
        assert found[f'paellera_stage_seconds_sum{{stage="{stage}"}}'] == pytest.approx(seconds)
    assert found['paellera_stage_seconds_count{stage="queue"}'] == 2
    assert found['paellera_stage_seconds_sum{stage="decode"}'] > 0


def test_the_queue_and_its_oldest_request() -> None:
    captioner = EchoCaptioner()
    with service_client(captioner) as client, ThreadPoolExecutor(3) as pool:
        before = samples(client)
        assert (before["paellera_queue_depth"], before["paellera_queue_oldest_seconds"]) == (0, 0)
        captioner.gate = threading.Event()
        on_model = captioner.entered + 1
        asked = [pool.submit(ask, client)]
        wait_until(lambda: captioner.entered == on_model)
        asked += [pool.submit(ask, client) for _ in range(2)]
        wait_until(lambda: samples(client)["paellera_queue_depth"] == 2)
        found = samples(client)
        assert samples(client)["paellera_queue_oldest_seconds"] > found["paellera_queue_oldest_seconds"] > 0
        captioner.gate.set()
        assert [future.result(timeout=120).status_code for future in asked] == [200] * 3
        assert samples(client)["paellera_queue_depth"] == 0


def test_the_model_and_the_process() -> None:
    with service_client() as client:
        found = samples(client)
    assert found['paellera_model_info{bundle="echo",datastore="v-test",revision="r1"}'] == 1
    assert found["paellera_model_loaded"] == 1
    assert found["process_resident_memory_bytes"] > 10_000_000
    assert found["process_cpu_seconds_total"] > 0


def test_the_processes_that_decode() -> None:
    metrics = Metrics()
    statistics = DecodeStatistics((os.getpid(), os.getppid()), starts=5, timeouts=2, crashes=1)
    metrics.watch_decoding(lambda: statistics)
    samples_of = {
        line.split()[0]: float(line.split()[1])
        for line in metrics.exposition().decode().splitlines()
        if line.startswith("paellera_decode")
    }
    assert samples_of.pop("paellera_decode_resident_memory_bytes") > 20_000_000
    assert samples_of == {
        "paellera_decode_processes": 2,
        "paellera_decode_process_starts_total": 5,
        'paellera_decode_process_failures_total{reason="timeout"}': 2,
        'paellera_decode_process_failures_total{reason="crash"}': 1,
    }
    with service_client() as client:
        ask(client)
        found = samples(client)
    assert 1 <= found["paellera_decode_processes"] <= found["paellera_decode_process_starts_total"]
    assert found["paellera_decode_resident_memory_bytes"] > 10_000_000


def test_a_process_that_is_gone_has_no_memory() -> None:
    assert resident_bytes([]) == resident_bytes([2**22 + 1]) == 0  # above the highest id that there is


def test_a_new_datastore_replaces_the_old_one() -> None:
    metrics = Metrics()
    for version in ("v1", "v2"):
        metrics.describe_model("compact", "r", version)
    lines = [
        line for line in metrics.exposition().decode().splitlines() if line.startswith("paellera_model_info")
    ]
    assert lines == ['paellera_model_info{bundle="compact",datastore="v2",revision="r"} 1.0']


def test_two_applications_count_for_themselves() -> None:
    with service_client() as first, service_client() as second:
        ask(first)
        assert samples(first)["paellera_captions_total"] == 1
        assert samples(second)["paellera_captions_total"] == 0


def test_the_documentation_lists_every_metric() -> None:
    page = (Path(__file__).parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")
    documented = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `paellera_")}
    exported = set()
    for family in Metrics().registry.collect():
        if family.name.startswith("paellera_"):
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            exported.add(family.name + suffix)
    assert documented == exported

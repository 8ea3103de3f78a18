import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from echo_captioner import EchoCaptioner
from sample_pictures import encode, plain
from service_client import service_client
from starlette.testclient import TestClient
from structlog.testing import capture_logs
from waiting import wait_until

from app.server import create_app
from app.settings import Settings
from models.captions import CaptionResult, CaptionSettings
from retrieval.errors import BundleError, DatastoreError

PHOTO = encode(plain(), "PNG")


def ask(client: TestClient) -> Any:
    return client.post("/v1/captions", files={"image": PHOTO})


def test_not_ready_until_the_warm_up_image_is_captioned() -> None:
    captioner = EchoCaptioner(gate=threading.Event())
    with TestClient(create_app(lambda: captioner, Settings())) as client:
        assert client.get("/livez").status_code == 200
        for response in (client.get("/readyz"), client.get("/v1/languages"), ask(client)):
            assert response.status_code == 503
            assert response.json()["code"] == "not_ready"
            assert int(response.headers["retry-after"]) >= 1
        assert captioner.gate is not None
        captioner.gate.set()
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert len(captioner.calls) == 1
        assert ask(client).status_code == 200


def test_a_model_that_cannot_be_loaded() -> None:
    def load() -> EchoCaptioner:
        raise BundleError("/srv/bundle is missing bridge.safetensors")

    failures: list[Exception] = []
    with (
        capture_logs() as logs,
        TestClient(create_app(load, Settings(), on_failure=failures.append)) as client,
    ):
        wait_until(lambda: bool(failures))
        assert client.get("/livez").status_code == 503  # so that it is restarted
        response = ask(client)
        assert response.status_code == 503
        assert "/srv" not in response.text
    assert isinstance(failures[0], BundleError)
    assert any("bridge.safetensors" in line.get("detail", "") for line in logs)
    with pytest.raises(BundleError), TestClient(create_app(load, Settings(), wait_for_model=True)):
        pass


def test_a_full_queue_is_refused_at_once_and_drains() -> None:
    captioner = EchoCaptioner()
    with service_client(captioner, max_waiting=2) as client, ThreadPoolExecutor(4) as pool:
        captioner.gate = threading.Event()
        begun = captioner.entered
        waiting = [pool.submit(ask, client)]
        wait_until(lambda: captioner.entered > begun)
        waiting += [pool.submit(ask, client) for _ in range(2)]
        service = client.app.state.service  # type: ignore[attr-defined]
        wait_until(lambda: service.depth == 2)
        refused = ask(client)
        assert refused.status_code == 429
        assert refused.json()["code"] == "queue_full"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert client.get("/readyz").status_code == 200
        captioner.gate.set()
        assert [future.result(timeout=120).status_code for future in waiting] == [200] * 3
        assert ask(client).status_code == 200


def test_one_batch_at_a_time_on_the_model() -> None:
    class Watched(EchoCaptioner):
        inside = most = 0

        def caption_each(self, images: Any, languages: Any, settings: CaptionSettings) -> CaptionResult:
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(0.01)
            self.inside -= 1
            return super().caption_each(images, languages, settings)

    captioner = Watched()
    with service_client(captioner) as client, ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: ask(client).json(), range(8)))
    assert captioner.most == 1
    assert sum(count for count, _ in captioner.calls) == 8
    assert len({reply["id"] for reply in replies}) == 8


def test_the_model_is_loaded_and_used_on_one_thread() -> None:
    """OpenMP has a pool for each thread that computes; two of them get in each other's way."""
    threads = set()

    class Watched(EchoCaptioner):
        def caption_each(self, images: Any, languages: Any, settings: CaptionSettings) -> CaptionResult:
            threads.add(threading.get_ident())
            return super().caption_each(images, languages, settings)

    def load() -> EchoCaptioner:
        threads.add(threading.get_ident())
        return Watched()

    with TestClient(create_app(load, Settings(cache_bytes=0), wait_for_model=True)) as client:
        for _ in range(3):
            assert ask(client).status_code == 200
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_those_that_wait_are_captioned_together_each_in_its_languages() -> None:
    captioner = EchoCaptioner()
    with service_client(captioner) as client, ThreadPoolExecutor(6) as pool:
        captioner.gate = threading.Event()
        begun = captioner.entered
        first = pool.submit(ask, client)
        wait_until(lambda: captioner.entered > begun)
        spoken = [["de"], ["zh", "en"], ["ar"]]
        waiting = [
            pool.submit(client.post, "/v1/captions", files={"image": PHOTO}, data={"language": languages})
            for languages in spoken
        ]
        other = pool.submit(client.post, "/v1/captions", files={"image": PHOTO}, data={"beams": "1"})
        service = client.app.state.service  # type: ignore[attr-defined]
        wait_until(lambda: len(service._batcher._jobs) == 4)  # all are decoded
        captioner.gate.set()
        for languages, future in zip(spoken, waiting, strict=True):
            (image,) = future.result(timeout=120).json()["images"]
            assert [caption["language"] for caption in image["captions"]] == languages
        assert first.result(timeout=120).json()["timings_ms"]["queue"] >= 0
        assert other.result(timeout=120).status_code == 200
    counts = [count for count, _ in captioner.calls]
    assert sorted(counts) == [1, 1, 3]  # other settings are another batch


def test_a_refused_request_frees_its_place() -> None:
    with service_client(max_waiting=1) as client:
        for _ in range(5):
            assert client.post("/v1/captions", files={"image": b"text"}).status_code == 422
        assert ask(client).status_code == 200


def test_errors_of_our_own_inside_the_model_do_not_leak_paths() -> None:
    captioner = EchoCaptioner()
    with service_client(captioner) as client:
        captioner.fail = DatastoreError("/srv/datastore/index.faiss is damaged")
        response = ask(client)
    assert (response.status_code, response.json()["code"]) == (500, "invalid_datastore")
    assert "/srv" not in response.text

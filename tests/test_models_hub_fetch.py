"""Fetching from a Hub that runs in the test itself, on the loopback interface."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_cache import COMMIT
from huggingface_hub import constants

from app.cli import main
from models.hub_fetch import fetch, pin
from models.hub_files import verified_folder
from retrieval.errors import BundleError

FILES = {
    "config.json": b'{"model_type": "xglm"}',
    "model.safetensors": bytes(range(256)) * 4000,
    "pytorch_model.bin": b"a pickle",
    "modeling.py": b"code",
    "onnx/model.safetensors": b"another format",
    "README.md": b"a card",
}


class FakeHub(http.server.ThreadingHTTPServer):
    """`tiny/model`, whose weights break off in the middle as often as `broken` says."""

    broken = 0
    commit = COMMIT
    asked: list[str]


class _Answer(http.server.BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        path = path.replace("/resolve/main/", f"/resolve/{hub.commit}/")
        place = f"/tiny/model/resolve/{hub.commit}/"
        if path == f"/api/models/tiny/model/revision/{hub.commit}":
            siblings = [{"rfilename": name} for name in FILES]
            self._send(json.dumps({"id": "tiny/model", "sha": hub.commit, "siblings": siblings}).encode(), {})
        elif path.startswith(place) and path.removeprefix(place) in FILES:
            name = path.removeprefix(place)
            digest = hashlib.sha256(FILES[name]).hexdigest()
            if self.command == "GET":
                hub.asked.append(f"{name} {self.headers.get('Range', '')}".strip())
            self._send(FILES[name], {"ETag": f'"{digest}"', "X-Repo-Commit": hub.commit})
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, body: bytes, headers: dict[str, str]) -> None:
        start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        self.send_response(206 if start else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        if len(body) > 100_000 and self.server.broken > 0:
            self.server.broken -= 1
            self.wfile.write(body[start : start + 300_000])
            self.close_connection = True
            return
        self.wfile.write(body[start:])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    server = FakeHub(("127.0.0.1", 0), _Answer)
    server.asked = []
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setattr("models.hub_fetch.recipes", lambda: {"tiny": {"language": "tiny/model"}})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_name_becomes_a_commit_and_works_offline(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundle", "pull", "tiny", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["models"]
    assert row["revision"] == COMMIT
    assert sorted(hub.asked) == ["config.json", "model.safetensors"]  # no code, no pickle, no other format
    hub.asked.clear()
    reference = pin("tiny/model")
    assert hub.asked == []  # nothing is fetched twice
    assert {path.name for path in verified_folder(reference).iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    assert (verified_folder(reference) / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pin("tiny/model") == pin(f"tiny/model@{COMMIT}") == reference


def test_modules_of_sentence_transformers_come_along(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {"modules.json": b"[]", "2_Dense/config.json": b"{}", "2_Dense/model.safetensors": b"map"}
    others = {"2_Dense/pytorch_model.bin": b"a pickle", "1_Pooling/../config.json": b"{}"}
    for name, content in {**modules, **others}.items():
        monkeypatch.setitem(FILES, name, content)
    reference = pin("tiny/model")
    assert set(reference.files) == {"config.json", "model.safetensors", *modules}
    assert (verified_folder(reference) / "2_Dense" / "model.safetensors").read_bytes() == b"map"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pin("tiny/model") == reference


def test_without_a_connection_the_cache_is_used(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = pin("tiny/model")
    nobody = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    template = nobody + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert pin("tiny/model") == reference
    with pytest.raises(BundleError, match="tiny/other cannot be reached, and is not in the cache"):
        pin("tiny/other")


def test_a_download_that_broke_off_goes_on(hub: FakeHub) -> None:
    hub.broken = 2
    reference = pin("tiny/model")
    assert (verified_folder(reference) / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert hub.asked[-2:] == ["model.safetensors bytes=300000-", "model.safetensors bytes=600000-"]


def test_a_bundles_commit_is_fetched_though_the_branch_moved_on(hub: FakeHub, tmp_path: Path) -> None:
    reference = pin("tiny/model")
    for path in sorted((tmp_path / "cache").rglob("*"), reverse=True):
        path.unlink() if path.is_symlink() or path.is_file() else path.rmdir()
    with pytest.raises(BundleError, match="is not in the cache"):
        verified_folder(reference)
    fetch(reference)
    assert verified_folder(reference).name == COMMIT


def test_what_is_not_there_is_named(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="tiny/none@main"):
        pin("tiny/none")
    with pytest.raises(BundleError, match=r"\.\./etc"):
        pin("../etc")
    monkeypatch.delitem(FILES, "model.safetensors")
    with pytest.raises(BundleError, match="tiny/model has no weights in safetensors"):
        pin("tiny/model")

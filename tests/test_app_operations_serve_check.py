from pathlib import Path

import pytest
from echo_captioner import EchoCaptioner

from app.cli import main
from retrieval.errors import DatastoreError


def test_what_was_found_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[tuple[Path | None, Path | None, str]] = []

    def load(bundle: Path | None, datastore: Path | None, precision: str, index_device: str) -> EchoCaptioner:
        loaded.append((bundle, datastore, precision))
        return EchoCaptioner()

    monkeypatch.setattr("app.model.load_model", load)
    monkeypatch.setenv("PAELLERA_DEFAULT_LANGUAGE", "es")
    monkeypatch.setenv("PAELLERA_PRECISION", "float32")
    assert main(["serve", "--check", "--bundle", "b", "--datastore", "d"]) == 0
    output, errors = capsys.readouterr()
    assert loaded == [(Path("b"), Path("d"), "float32")]
    assert errors == ""
    for found in ("echo, revision r1", "version v-test", "ar de en es pt zh", "'imagen 128,128,128'"):
        assert found in output


def test_a_bundle_that_is_not_there_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve", "--check", "--bundle", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: no bundle at {tmp_path}: bundle.json is not there\n"


def test_a_model_that_cannot_caption_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = EchoCaptioner(fail=DatastoreError("index.faiss is damaged"))
    monkeypatch.setattr("app.model.load_model", lambda *_: broken)
    assert main(["serve", "--check"]) == 1
    assert capsys.readouterr().err == "error: index.faiss is damaged\n"


def test_bad_settings_are_bad_usage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAELLERA_MAX_WAITING", "lots")
    assert main(["serve", "--check"]) == 2
    assert capsys.readouterr().err.startswith("error: PAELLERA_MAX_WAITING: ")
    monkeypatch.delenv("PAELLERA_MAX_WAITING")
    assert main(["serve", "--check", "--print-settings"]) == 2


def test_an_endpoint_for_traces_is_part_of_the_check(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.model.load_model", lambda *_: EchoCaptioner())
    monkeypatch.setitem(__import__("sys").modules, "app.operations.trace_export", None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert main(["serve", "--check"]) == 1
    assert "paellera[otel]" in capsys.readouterr().err

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from hashing_embedder import HashingEmbedder
from pydantic import BaseModel

from app.cli import main
from datastore_build.build import build_datastore
from retrieval.errors import BundleError
from retrieval.languages import XM3600_LANGUAGES


class Part(BaseModel):
    kind: str
    layers: int | None = None


class Manifest(BaseModel):
    name: str = "small"
    languages: tuple[str, ...] = ("ar", "es")
    vision: Part = Part(kind="efficientnet", layers=3)
    language: Part = Part(kind="xglm")

    @property
    def hub_references(self) -> tuple[()]:
        return ()


@dataclass
class Bundle:
    """Stands where models.bundle.Bundle would: opening verifies."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> "Bundle":
        if path.name == "broken":
            raise BundleError(f"{path}: bridge.safetensors is damaged; get the bundle again")
        return cls(path, Manifest())


@pytest.fixture(autouse=True)
def small_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(Bundle=Bundle, default_bundle=lambda: Path("built-in"), DATASTORE="datastore")
    monkeypatch.setitem(sys.modules, "models.bundle", module)


def test_languages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["languages"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["ar", "Arabic", "العربية"] in rows
    assert ["es", "Spanish", "español"] in rows
    assert main(["languages", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "languages": [
            {"code": "ar", "name": "Arabic", "autonym": "العربية"},
            {"code": "es", "name": "Spanish", "autonym": "español"},
        ]
    }


def test_all_languages_with_a_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["languages", "--all"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["es", "Spanish", "yes", "español"] in rows
    assert ["th", "Thai", "no", "ไทย"] in rows
    assert main(["languages", "--all", "--json"]) == 0
    items = json.loads(capsys.readouterr().out)["languages"]
    assert [item["code"] for item in items] == list(XM3600_LANGUAGES)
    assert [item["code"] for item in items if item["in_bundle"]] == ["ar", "es"]
    assert {"code": "quz", "name": "Cusco Quechua", "autonym": "Runasimi", "in_bundle": False} in items


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "info", "mine"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["path", "mine"] in rows
    assert ["languages", "ar,", "es"] in rows
    assert ["vision.layers", "3"] in rows
    assert not any(row[0] == "language.layers" for row in rows)
    assert main(["bundle", "info", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["path"] == "built-in"
    assert document["vision"] == {"kind": "efficientnet", "layers": 3}


def test_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "captions.jsonl"
    source.write_text('{"text": "a cat"}\n')
    build_datastore([source], tmp_path / "datastore", HashingEmbedder())
    assert main(["bundle", "verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: complete and unchanged\n"
    captions = next((tmp_path / "datastore").glob("versions/*/captions.arrow"))
    captions.write_bytes(captions.read_bytes() + b"x")
    assert main(["bundle", "verify", str(tmp_path)]) == 1
    assert "captions.arrow" in capsys.readouterr().err
    assert main(["bundle", "verify", "broken"]) == 1
    assert capsys.readouterr().err == "error: broken: bridge.safetensors is damaged; get the bundle again\n"
    monkeypatch.setenv("PAELLERA_BUNDLE", "broken")
    assert main(["bundle", "verify"]) == 1
    assert main(["languages"]) == 1

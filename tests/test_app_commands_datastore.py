import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hashing_embedder import HashingEmbedder
from PIL import Image
from typer.testing import CliRunner

from app.commands.datastore import datastore_app
from datastore_build.build import build_datastore


class _ColourEmbedder(HashingEmbedder):
    """Sees only whether a photo is more red than blue, and says so in words."""

    def embed_images(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        colours = [image.resize((1, 1)).getpixel((0, 0)) for image in images]
        words = [
            "red" if isinstance(colour, tuple) and colour[0] > colour[2] else "blue" for colour in colours
        ]
        return self.embed_texts(words)


@pytest.fixture
def datastore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source = tmp_path / "captions.jsonl"
    rows = [
        {"id": "bus", "texts": {"en": "a red bus", "de": "ein roter Bus"}},
        {"id": "sea", "texts": {"en": "the blue sea", "de": "das blaue Meer"}},
        {"id": "sky", "text": "a blue sky"},
    ]
    source.write_text("\n".join(map(json.dumps, rows)))
    build_datastore([source], tmp_path / "datastore", HashingEmbedder())
    monkeypatch.setattr("app.commands.datastore.open_embedder", lambda bundle: HashingEmbedder())
    monkeypatch.setattr("app.commands.datastore.open_photo_embedder", lambda bundle: _ColourEmbedder())
    return tmp_path / "datastore"


def _run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(datastore_app, ["search", *(str(argument) for argument in arguments)])
    return result.exit_code, result.stdout, result.stderr


def _photo(path: Path, colour: str) -> Path:
    content = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(content, "PNG")
    path.write_bytes(content.getvalue())
    return path


def test_search_by_text(datastore: Path) -> None:
    code, output, _ = _run(datastore, "--text", "a red bus", "-k", "2", "--json")
    assert code == 0
    found = json.loads(output)
    assert list(found) == ["neighbours"]
    assert [list(item) for item in found["neighbours"]] == [["id", "text", "language", "score"]] * 2
    assert found["neighbours"][0] == {
        "id": "bus",
        "text": "a red bus",
        "language": "en",
        "score": pytest.approx(0.77, abs=0.2),
    }


def test_search_by_photo_in_a_language_with_fallback(tmp_path: Path, datastore: Path) -> None:
    photo = _photo(tmp_path / "photo.jpg", "blue")  # a PNG, whatever its name says
    code, output, _ = _run(datastore, "--image", photo, "--language", "de-AT", "-k", "2", "--json")
    assert code == 0
    assert sorted(
        (item["id"], item["text"], item["language"]) for item in json.loads(output)["neighbours"]
    ) == [
        ("sea", "das blaue Meer", "de"),
        ("sky", "a blue sky", "en"),
    ]


def test_search_prints_one_line_a_neighbour(datastore: Path) -> None:
    code, output, _ = _run(datastore, "--text", "red")
    assert code == 0
    assert len(output.splitlines()) == 3
    assert output.splitlines()[0].split()[1:] == ["en", "bus", "a", "red", "bus"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["DIR"], 2, "give either --text or --image"),
        (["DIR", "--text", " "], 2, "give either --text or --image"),
        (["DIR", "--text", "a", "--image", "b"], 2, "give either --text or --image"),
        (["DIR", "--text", "a", "-k", "0"], 2, "-k"),
        (["DIR", "--text", "a", "--language", "klingonese"], 2, "not a language tag"),
        (["DIR", "--image", "none.png"], 1, "error: cannot read none.png: No such file"),
        (["nowhere", "--text", "a"], 1, "error: there is no datastore at nowhere"),
    ],
)
def test_errors(datastore: Path, arguments: list[str], code: int, message: str) -> None:
    exit_code, output, messages = _run(*(argument.replace("DIR", str(datastore)) for argument in arguments))
    assert (exit_code, output) == (code, "")
    assert message in messages


def test_a_file_that_is_no_photo(tmp_path: Path, datastore: Path) -> None:
    (tmp_path / "photo.jpg").write_text("hello")
    code, output, messages = _run(datastore, "--image", tmp_path / "photo.jpg")
    assert (code, output) == (1, "")
    assert messages.startswith("error: ")
    assert len(messages.splitlines()) == 1


def test_another_embedder_is_refused(datastore: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.commands.datastore.open_embedder", lambda bundle: HashingEmbedder("other-1"))
    code, _, messages = _run(datastore, "--text", "a")
    assert code == 1
    assert "built with the embedder hashing-256, this bundle has other-1" in messages


def test_build_and_info_are_there() -> None:
    result = CliRunner().invoke(datastore_app, ["--help"])
    assert all(f"\n  {command} " in result.stdout for command in ("build", "info", "search"))

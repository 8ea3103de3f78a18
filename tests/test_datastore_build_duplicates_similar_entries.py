import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from app.commands.datastore import datastore_app
from datastore_build.build import build_datastore
from datastore_build.deletion import delete_entries
from datastore_build.duplicates.similar_entries import find_similar_entries
from retrieval.datastore import Datastore

_CAPTIONS = [
    ("dog", "en", "a dog runs on the beach"),
    ("bus", "en", "a red bus at a corner"),
    ("hound", "en", "some hound races along the shore"),  # means the same as "dog"
    ("hund", "de", "ein Hund rennt am Strand"),  # a translation is no duplicate
    ("hounds", "en", "the hound is racing by the sea"),
    ("coach", "en", "at the corner stands a scarlet coach"),  # as "bus"
]


class MeaningEmbedder:
    """Captions of dogs are one direction, of buses another; none is quite the same as another."""

    id, dimension = "meaning-32", 32

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = np.zeros((len(texts), 32), np.float32)
        for row, text in enumerate(texts):
            vectors[row, int("corner" in text)] = 1.0
            vectors[row, 2 + len(text) % 30] = 0.15
        normalised: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return normalised


@pytest.fixture
def datastore(tmp_path: Path) -> Path:
    rows = [json.dumps({"id": name, "text": text, "lang": language}) for name, language, text in _CAPTIONS]
    (tmp_path / "captions.jsonl").write_text("\n".join(rows))
    build_datastore([tmp_path / "captions.jsonl"], tmp_path / "datastore", MeaningEmbedder())
    return tmp_path / "datastore"


def test_other_words_of_one_language_are_found_and_the_first_is_kept(datastore: Path) -> None:
    found = list(find_similar_entries(Datastore.open(datastore), 0.95))
    assert [(one.id, one.earlier_id, one.language) for one in found] == [
        ("hound", "dog", "en"),
        ("hounds", "dog", "en"),
        ("coach", "bus", "en"),
    ]
    assert all(0.95 <= one.similarity < 1.0 for one in found)
    assert list(find_similar_entries(Datastore.open(datastore), 0.999)) == []


def test_deleted_entries_are_neither_found_nor_a_reason(datastore: Path) -> None:
    delete_entries(datastore, ["dog", "coach"])
    found = list(find_similar_entries(Datastore.open(datastore), 0.95))
    assert [(one.id, one.earlier_id) for one in found] == [("hounds", "hound")]


@pytest.mark.parametrize("group", [4, 60])
def test_the_same_as_comparing_all_with_all(
    tmp_path: Path, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datastore_build.duplicates.earlier_entries._COMPARED", 64)
    monkeypatch.setattr("datastore_build.duplicates.earlier_entries._EARLIER", 100)

    class Drawn:
        id, dimension = "drawn-8", 8

        def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            draws = [np.random.default_rng(int(text.split()[1]) // group) for text in texts]
            vectors = np.stack([draw.standard_normal(8, np.float32) for draw in draws])
            jitter = np.array([[int(text.split()[1]) % group] for text in texts], np.float32) * (0.04 / group)
            vectors += jitter
            normalised: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            return normalised

    lines = [json.dumps({"text": f"number {number} {number**5:x}"}) for number in range(700)]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    build_datastore([tmp_path / "captions.jsonl"], tmp_path / "datastore", Drawn(), near_duplicates="keep")
    store = Datastore.open(tmp_path / "datastore")
    vectors = store.vectors(np.arange(700))
    alike = np.tril(vectors @ vectors.T >= 0.995, -1)
    expected: list[int] = []
    for entry in range(700):
        if any(other not in expected for other in np.flatnonzero(alike[entry]).tolist()):
            expected.append(entry)
    assert len(expected) > 400
    assert [one.entry for one in find_similar_entries(store, 0.995)] == expected


def test_the_command_writes_ids_that_delete_takes(datastore: Path, tmp_path: Path) -> None:
    ids = tmp_path / "alike.txt"
    done = CliRunner().invoke(datastore_app, ["duplicates", str(datastore), "--ids-to", str(ids)])
    assert done.exit_code == 0
    assert done.stdout.startswith("3 of 6 entries have a cosine of 0.95 or more with an earlier one (en 3)\n")
    assert "hound: some hound races along the shore ~ dog: a dog runs on the beach" in done.stdout
    assert ids.read_text() == "hound\nhounds\ncoach\n"
    deleted = CliRunner().invoke(datastore_app, ["delete", str(datastore), "--ids-from", str(ids)])
    assert deleted.exit_code == 0
    done = CliRunner().invoke(datastore_app, ["duplicates", str(datastore), "--json"])
    document = json.loads(done.stdout)
    assert (document["entries"], document["found"], document["first"]) == (3, 0, [])


def test_a_file_that_cannot_be_written_is_one_line(datastore: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        datastore_app, ["duplicates", str(datastore), "--ids-to", str(tmp_path / "no" / "x")]
    )
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: cannot write ")
    assert done.stderr.count("\n") == 1

import json
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hashing_embedder import HashingEmbedder

from datastore_build.build import build_datastore
from datastore_build.embedding import windows
from datastore_build.report import BuildProgress, RejectedRowsError
from datastore_build.sources.entries import Entry, EntryText
from retrieval.activation import version_folders
from retrieval.datastore import Datastore
from retrieval.errors import DatastoreError
from retrieval.manifest import CURRENT, REJECTS, read_manifest

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def rows(*rows: dict[str, Any] | str, name: str = "captions.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path

    return rows


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_three_broken_rows_of_twenty(tmp_path: Path, write: Write) -> None:
    rows: list[dict[str, Any] | str] = [{"text": f"a photo of number {number}"} for number in range(20)]
    rows[3] = '{"text": "never closed'
    rows[8] = {"caption": "  "}
    rows[15] = {"text": "ok", "language": "xx"}
    source = write(*rows)
    report = build_datastore([source], tmp_path / "out", HashingEmbedder())

    assert (report.rows, report.published, report.rejected, report.entries) == (20, 17, 3, 17)
    assert [(row.file, row.line) for row in report.rejects] == [(str(source), line) for line in (4, 9, 16)]
    assert [row.reason.split(":")[0] for row in report.rejects[:2]] == ["not JSON", "caption is empty"]
    assert report.rejects_file is not None
    lines = Path(report.rejects_file).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [vars(row) for row in report.rejects]
    assert len(Datastore.open(tmp_path / "out")) == 17
    (record,) = read_manifest(Path(report.path)).sources
    assert record.model_dump() == {"name": "captions.jsonl", "rows": 20, "published": 17, "rejected": 3}


def test_entries_and_texts_arrive_as_they_were(tmp_path: Path, write: Write) -> None:
    scene = {"id": "s", "texts": {"en": "a cat", "de": "eine Katze", "zh": "一只猫", "hi": "एक बिल्ली"}}
    sources = [
        write(scene, {"id": "t", "text": "a dog"}, {"id": "t", "text": "un perro", "lang": "es"}),
        write({"text": "a dog"}, name="more.jsonl"),
    ]
    report = build_datastore(sources, tmp_path / "out", HashingEmbedder())
    store = Datastore.open(tmp_path / "out")
    texts = [{text.language: text.text for text in store.texts(entry)} for entry in range(len(store))]
    assert texts == [scene["texts"], {"en": "a dog", "es": "un perro"}, {"en": "a dog"}]
    assert [store.texts(entry)[0].source for entry in range(3)] == ["captions.jsonl"] * 2 + ["more.jsonl"]
    query = HashingEmbedder().embed_texts(["a dog"])
    assert [hit.id for hit in store.search(query, 2)[0]] == ["more.jsonl:1", "t"]
    assert report.languages == {"de": 1, "en": 3, "es": 1, "hi": 1, "zh": 1}
    assert (report.texts, report.repeated_texts) == (7, 1)


def test_rows_without_a_language_have_the_default(tmp_path: Path, write: Write) -> None:
    source = write({"text": "um gato"}, {"text": "a dog", "lang": "en"})
    assert build_datastore([source], tmp_path / "out", HashingEmbedder(), language="pt-BR").languages == {
        "en": 1,
        "pt": 1,
    }


def test_many_windows_and_batches_give_what_one_gives(tmp_path: Path, write: Write) -> None:
    texts = [f"number {number} with {'many ' * (number % 5)}words" for number in range(9000)]
    source = write(*({"text": text} for text in texts))
    progress: list[BuildProgress] = []
    build_datastore([source], tmp_path / "out", HashingEmbedder(dimension=16), on_progress=progress.append)
    store = Datastore.open(tmp_path / "out")
    assert [store.texts(entry)[0].text for entry in range(9000)] == texts
    for entry in (0, 511, 512, 8191, 8192, 8999):
        vector = HashingEmbedder(dimension=16).embed_texts([texts[entry]])
        assert store.search(vector, 1)[0][0].score == pytest.approx(1.0)
    assert [state.texts for state in progress] == sorted(state.texts for state in progress)
    assert list(dict.fromkeys(state.stage for state in progress)) == [
        "reading",
        "comparing",
        "embedding",
        "indexing",
    ]
    for name in ("reading", "comparing", "embedding", "indexing"):
        fractions = [state.fraction or 0.0 for state in progress if state.stage == name]
        assert fractions == sorted(fractions)
        assert fractions[-1] == pytest.approx(1.0)
    assert progress[-1] == BuildProgress(1.0, 9000, 9000, 0, "indexing")
    assert len(progress) > 10


def test_windows_hold_about_512_texts() -> None:
    entries = [Entry(str(number), (EntryText("en", "a", 0),) * 10) for number in range(120)]
    assert [len(window) for window in windows(entries)] == [52, 52, 16]
    assert list(windows([])) == []


def test_the_same_content_is_made_live_again_and_not_stored_twice(tmp_path: Path, write: Write) -> None:
    out = tmp_path / "out"
    first = build_datastore([write({"text": "a cat"})], out, HashingEmbedder())
    second = build_datastore([write({"text": "a dog"})], out, HashingEmbedder())
    assert Datastore.open(out).version == second.version
    again = build_datastore([write({"text": "a cat"})], out, HashingEmbedder())
    assert (again.version, again.reused, first.reused) == (first.version, True, False)
    assert Datastore.open(out).version == first.version
    assert [folder.name for folder in version_folders(out)] == [first.version, second.version]
    assert build_datastore([write({"text": "a cat"})], out, HashingEmbedder("other")).version != first.version


def test_a_damaged_version_is_not_used_again(tmp_path: Path, write: Write) -> None:
    source = write({"text": "a cat"})
    first = build_datastore([source], tmp_path / "out", HashingEmbedder())
    (Path(first.path) / "index.faiss").write_bytes(b"")
    second = build_datastore([source], tmp_path / "out", HashingEmbedder())
    assert not second.reused
    assert Datastore.open(tmp_path / "out").version == second.version != first.version


def test_strict_publishes_nothing_and_names_every_bad_row(tmp_path: Path, write: Write) -> None:
    embedder = HashingEmbedder()
    source = write({"text": "a"}, {"text": ""}, {"text": "b"}, {}, {"text": "c"})
    with pytest.raises(RejectedRowsError, match="2 of 5 rows cannot be used; with --strict") as error:
        build_datastore([source], tmp_path / "out", embedder, strict=True)
    assert [row.line for row in error.value.rejects] == [2, 4]
    assert not (tmp_path / "out").exists()
    good = write({"text": "a"})
    assert build_datastore([good], tmp_path / "out", embedder, strict=True).published == 1


def test_no_usable_row(tmp_path: Path, write: Write) -> None:
    with pytest.raises(RejectedRowsError, match="none of 2 rows can be used"):
        build_datastore([write({}, "nonsense")], tmp_path / "out", HashingEmbedder())
    with pytest.raises(DatastoreError, match="none of 0 rows can be used"):
        build_datastore([write()], tmp_path / "out", HashingEmbedder())
    assert not (tmp_path / "out").exists()


class _FailingEmbedder(HashingEmbedder):
    """Fails at its second batch."""

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if self.batches:
            raise KeyboardInterrupt
        return super().embed_texts(texts)


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """Writing beyond `size` bytes fails, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def _assert_only_live(out: Path, before: dict[str, bytes]) -> None:
    assert _files(out) == before
    assert [path.name for path in (out / "versions").iterdir()] == [Datastore.open(out).version]


@pytest.mark.parametrize("failure", ["embedder", "source", "strict", "no rows"])
def test_a_build_that_fails_leaves_the_live_version_and_nothing_else(
    tmp_path: Path, write: Write, failure: str
) -> None:
    out = tmp_path / "out"
    build_datastore([write({"text": "live"})], out, HashingEmbedder())
    before = _files(out)
    many = [{"id": str(number), "text": f"number {number}"} for number in range(2000)]
    if failure == "embedder":
        with pytest.raises(KeyboardInterrupt):
            build_datastore([write(*many)], out, _FailingEmbedder())
    elif failure == "source":
        (tmp_path / "cut.jsonl.gz").write_bytes(b"\x1f\x8b")
        with pytest.raises(DatastoreError, match="cannot read"):
            build_datastore([write(*many), tmp_path / "cut.jsonl.gz"], out, HashingEmbedder())
    else:
        rows = [{}] if failure == "no rows" else [*many, {}]
        with pytest.raises(DatastoreError, match="nothing"):
            build_datastore([write(*rows)], out, HashingEmbedder(), strict=failure == "strict")
    _assert_only_live(out, before)


@pytest.mark.parametrize(
    ("too_large", "rows", "sources", "dimension"),
    [
        ("captions.arrow", 2000, 1, 2),
        ("index.faiss", 1, 1, 4096),
        ("manifest.json", 1, 40, 2),  # it names every source
        ("rejects.jsonl", 1, 1, 2),
    ],
)
def test_a_full_disk_at_any_file_leaves_the_live_version_and_nothing_else(
    tmp_path: Path, write: Write, too_large: str, rows: int, sources: int, dimension: int
) -> None:
    out = tmp_path / "out"
    build_datastore([write({"text": "live"})], out, HashingEmbedder())
    before = _files(out)
    broken: list[dict[str, Any]] = [{}] * (200 if too_large == "rejects.jsonl" else 0)
    lines = [*({"id": str(number), "text": f"number {number}"} for number in range(rows)), *broken]
    paths = [write(*lines), *(write(name=f"{number}.jsonl") for number in range(1, sources))]

    report = build_datastore(paths, tmp_path / "roomy", HashingEmbedder(dimension=dimension))
    large = [path.name for path in Path(report.path).iterdir() if path.stat().st_size > 4000]
    assert too_large in large
    assert len(large) == 1 or too_large == "captions.arrow"  # which is written before the index
    with _largest_file(4000), pytest.raises(DatastoreError, match=r"cannot write .*Nothing was published"):
        build_datastore(paths, out, HashingEmbedder(dimension=dimension))
    _assert_only_live(out, before)


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path, write: Write) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatastoreError, match=r"cannot write the datastore .*file/out.*Nothing was published"):
        build_datastore([write({"text": "a"})], tmp_path / "file" / "out", HashingEmbedder())


def test_published_files_are_readable_by_the_service_and_complete(tmp_path: Path, write: Write) -> None:
    report = build_datastore([write({"text": "a"})], tmp_path / "out", HashingEmbedder())
    version = Path(report.path)
    assert sorted(path.name for path in version.iterdir()) == [
        "captions.arrow",
        "index.faiss",
        "manifest.json",
    ]
    assert (tmp_path / "out" / CURRENT).read_text() == report.version + "\n"
    # No folder mode of a temporary file: a container's other user must be able to read it.
    assert version.stat().st_mode == version.parent.stat().st_mode
    assert not (version / REJECTS).exists()
    assert str(tmp_path) not in (version / "manifest.json").read_text()


def test_versions_sort_by_time(tmp_path: Path, write: Write) -> None:
    versions = [
        build_datastore([write({"text": str(n)})], tmp_path / "out", HashingEmbedder()).version
        for n in range(5)
    ]
    assert versions == sorted(versions)

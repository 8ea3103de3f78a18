import errno
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hashing_embedder import HashingEmbedder
from killed_builds import BLOCK_BYTES, OF_GRAPHS, OF_LISTS, OPTIONS, SHARD_ENTRIES, SOME_OF_LISTS, names
from small_datastores import published_files

from datastore_build.build import add_to_datastore, build_datastore
from datastore_build.draft import open_draft
from datastore_build.shards import EmbeddingShards
from retrieval.activation import version_folders
from retrieval.datastore import Datastore
from retrieval.errors import DatastoreError
from retrieval.manifest import CURRENT, IndexChoice, IndexRequest, live_version, read_manifest

ADDING = ("staged-and-noted", "shard-noted", "renamed", "live")
ENTRIES = 560  # four shards; some are near duplicates


def _write_source(path: Path) -> Path:
    rows: list[dict[str, object]] = []
    for number in range(ENTRIES):
        words = hashlib.sha256(str(number).encode()).hexdigest()
        texts = {"en": f"a photo of {words[:9]} beside {words[9:20]}"}
        if number % 3 == 0:
            texts["de"] = f"ein Foto von {words[20:40]}"
        rows.append({"id": f"e{number}", "texts": texts})
        if number % 100 == 50:
            rows.append({"id": f"d{number}", "text": texts["en"].upper()})
    lines = [json.dumps(row) for row in rows]
    lines[70] = "nonsense"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_source(tmp_path_factory.mktemp("source") / "captions.jsonl")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datastore with one version that is live."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "old.jsonl").write_text('{"id": "old", "text": "an old caption"}\n{"text": "another"}\n')
    build_datastore([folder / "old.jsonl"], folder / "datastore", HashingEmbedder())
    return folder / "datastore"


def _kill(source: Path, folder: Path, command: str, moments: Sequence[str]) -> None:
    program = Path(__file__).with_name("killed_builds.py")
    paths = [str(program.parent), str(program.parent.parent)]
    code = f"import sys; sys.path[:0] = {paths!r}; import killed_builds; killed_builds.main()"
    arguments = [sys.executable, "-c", code, str(source), str(folder), command, *moments]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, source: Path, base: Path) -> Path:
    """A folder of datastores in each of which a build was killed, over a live version."""
    folder = tmp_path_factory.mktemp("killed")
    for name in names():
        shutil.copytree(base, folder / name)
    _kill(source, folder, "build", names())
    return folder


@pytest.fixture(scope="module")
def killed_adding(tmp_path_factory: pytest.TempPathFactory, source: Path, base: Path) -> Path:
    folder = tmp_path_factory.mktemp("killed-adding")
    for name in ADDING:
        shutil.copytree(base, folder / name)
    _kill(source, folder, "add", ADDING)
    return folder


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, source: Path) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("expected")
    report = build_datastore([source], output, HashingEmbedder(), **OPTIONS)
    assert report.near_duplicates is not None
    assert report.near_duplicates.entries == 6
    assert report.entries == ENTRIES - 1
    return published_files(output)


@pytest.mark.parametrize("moment", names())
def test_a_build_that_was_killed_goes_on_to_the_same_version(
    moment: str, killed: Path, source: Path, base: Path, expected: dict[str, bytes]
) -> None:
    output = killed / moment
    live = (base / CURRENT).read_text()
    if moment != "live":  # the version before is live and whole, whenever the build died
        assert (output / CURRENT).read_text() == live
    Datastore.open(output)
    embedder = HashingEmbedder()
    report = build_datastore([source], output, embedder, resume=True, **OPTIONS)
    assert published_files(output) == expected
    assert report.entries == ENTRIES - 1
    assert report.rows == report.published + report.rejected == 566
    versions = sorted(path.name for path in (output / "versions").iterdir())
    assert versions == sorted([live.strip(), report.version])  # nothing is left behind
    whole = {"shard-noted": 2, "all-embedded": 4, "indexed": 4, "renamed": 4}
    if moment in whole:
        assert report.embedded == max(ENTRIES - 1 - SHARD_ENTRIES * whole[moment], 0)
        assert report.resumed


@pytest.mark.parametrize("moment", ADDING)
def test_adding_that_was_killed_goes_on(moment: str, killed_adding: Path, source: Path, base: Path) -> None:
    whole = killed_adding / f"{moment}-whole"
    shutil.copytree(base, whole)
    add_to_datastore([source], whole, HashingEmbedder(), **OPTIONS)
    if moment == "live":  # done: the same again finds its ids taken
        assert published_files(killed_adding / moment) == published_files(whole)
        return
    add_to_datastore([source], killed_adding / moment, HashingEmbedder(), resume=True, **OPTIONS)
    assert published_files(killed_adding / moment) == published_files(whole)


OF_APPROXIMATE = ("shard-noted", "hashed", "renamed")
MOMENTS: dict[IndexChoice, tuple[str, ...]] = {
    "hnsw": OF_APPROXIMATE + OF_GRAPHS,
    "ivf-flat": OF_APPROXIMATE + OF_LISTS,
    "ivf-pq": SOME_OF_LISTS,
}


@pytest.mark.parametrize("kind", MOMENTS)
def test_an_approximate_index_that_was_killed_goes_on_to_the_same_version(
    kind: IndexChoice, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes, settings and so the hash of the whole are the same; what was measured is not."""
    monkeypatch.setattr("datastore_build.indexes.indexing._BLOCK_BYTES", BLOCK_BYTES)
    options = OPTIONS | {"index": IndexRequest(kind=kind)}
    _kill(source, tmp_path, kind, MOMENTS[kind])
    build_datastore([source], tmp_path / "whole", HashingEmbedder(), **options)
    expected = read_manifest(live_version(tmp_path / "whole"))
    assert expected.index.kind == kind
    for moment in MOMENTS[kind]:
        report = build_datastore([source], tmp_path / moment, HashingEmbedder(), resume=True, **options)
        found = read_manifest(Path(report.path))
        assert found.content_sha256 == expected.content_sha256, moment
        assert found.files == expected.files
        assert report.embedded == (ENTRIES - 1 - 2 * SHARD_ENTRIES if moment == "shard-noted" else 0)
        assert [path.name for path in (tmp_path / moment / "versions").iterdir()] == [report.version]


def _die(source: Path, output: Path) -> Path:
    """A build that fails after its second shard; its draft."""

    class Failing(HashingEmbedder):
        def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            if len(self.batches) == 3:
                raise KeyboardInterrupt
            return super().embed_texts(texts)

    with pytest.raises(KeyboardInterrupt):
        build_datastore([source], output, Failing(), **OPTIONS)
    (draft,) = (output / "versions").glob(".tmp-*")
    return draft


def test_resuming_embeds_nothing_twice(tmp_path: Path, source: Path, expected: dict[str, bytes]) -> None:
    _die(source, tmp_path / "out")
    embedder = HashingEmbedder()
    report = build_datastore([source], tmp_path / "out", embedder, resume=True, **OPTIONS)
    done = ENTRIES - 1 - report.embedded
    assert done > 0
    assert done % SHARD_ENTRIES == 0
    assert published_files(tmp_path / "out") == expected


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("source", "sources"),
        ("embedder", "embedder"),
        ("language", "language"),
        ("filters", "near-duplicates"),
        ("index", "options of the index"),
    ],
)
def test_resuming_another_build_is_refused_on_one_line(
    tmp_path: Path, source: Path, change: str, named: str
) -> None:
    own = tmp_path / "captions.jsonl"
    shutil.copyfile(source, own)
    draft = _die(own, tmp_path / "out")
    options, embedder = dict(OPTIONS), HashingEmbedder()
    if change == "source":
        own.write_text(own.read_text() + '\n{"text": "one more"}')
    elif change == "embedder":
        embedder = HashingEmbedder("another")
    elif change == "language":
        options["language"] = "de"
    elif change == "index":
        options["index"] = IndexRequest(kind="flat", target_recall=0.9)
    else:
        options["near_duplicates"] = "keep"
    with pytest.raises(DatastoreError, match=rf"cannot resume .*other .*{named}") as error:
        build_datastore([own], tmp_path / "out", embedder, resume=True, **options)
    assert "\n" not in str(error.value)
    assert draft.exists()  # what it holds is still there for who gives the right options


def test_without_resume_what_is_left_is_removed_and_told(tmp_path: Path, source: Path) -> None:
    draft = _die(source, tmp_path / "out")
    report = build_datastore([source], tmp_path / "out", HashingEmbedder(), **OPTIONS)
    assert (report.embedded, report.resumed) == (ENTRIES - 1, False)
    (removed,) = report.removed
    assert removed.startswith(f"{draft} (")
    assert [path.name for path in (tmp_path / "out" / "versions").iterdir()] == [report.version]


def test_a_damaged_shard_is_embedded_again(tmp_path: Path, source: Path, expected: dict[str, bytes]) -> None:
    draft = _die(source, tmp_path / "out")
    shard = sorted((draft / "shards").glob("*.f32"))[0]
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    build_datastore([source], tmp_path / "out", HashingEmbedder(), resume=True, **OPTIONS)
    assert published_files(tmp_path / "out") == expected


def test_the_draft_of_a_build_that_runs_is_left_alone(tmp_path: Path, source: Path) -> None:
    with open_draft(tmp_path, None, resume=False) as (running, _):
        report = build_datastore([source], tmp_path, HashingEmbedder(), **OPTIONS)
        assert report.removed == ()
        assert running.folder.is_dir()
        assert [folder.name for folder in version_folders(tmp_path)] == [report.version]
        assert read_manifest(Path(report.path)).counts.entries == ENTRIES - 1


def test_a_disk_that_fills_up_is_one_clear_error_and_what_is_embedded_is_kept(
    tmp_path: Path, source: Path, base: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    shutil.copytree(base, output)
    store = EmbeddingShards.store

    def full(shards: EmbeddingShards, number: int, vectors: npt.NDArray[np.float32]) -> str:
        if number == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return store(shards, number, vectors)

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingShards, "store", full)
        with pytest.raises(
            DatastoreError, match=r"No space left on device\. Nothing was published, and .*--resume"
        ):
            build_datastore([source], output, HashingEmbedder(), **OPTIONS)
    assert (output / CURRENT).read_text() == (base / CURRENT).read_text()
    Datastore.open(output)
    report = build_datastore([source], output, HashingEmbedder(), resume=True, **OPTIONS)
    assert report.embedded == ENTRIES - 1 - 2 * SHARD_ENTRIES
    assert published_files(output) == expected


def test_a_source_that_breaks_off_is_one_clear_error(tmp_path: Path, source: Path, base: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(base, output)
    whole = gzip.compress(source.read_bytes())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    embedder = HashingEmbedder()
    with pytest.raises(DatastoreError, match=r"cannot read .*cut\.jsonl\.gz after line \d+"):
        build_datastore([source, tmp_path / "cut.jsonl.gz"], output, embedder, **OPTIONS)
    assert embedder.batches == []  # it is found before anything is embedded
    assert sorted(path.name for path in (output / "versions").iterdir()) == [Datastore.open(output).version]


def test_an_embedder_out_of_memory_is_one_clear_error(
    tmp_path: Path, source: Path, expected: dict[str, bytes]
) -> None:
    class Failing(HashingEmbedder):
        def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            if len(self.batches) == 2:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nand much more")
            return super().embed_texts(texts)

    with pytest.raises(DatastoreError, match=r"^embedding failed: .*memory\. Nothing .*--resume goes on$"):
        build_datastore([source], tmp_path / "out", Failing(), **OPTIONS)
    build_datastore([source], tmp_path / "out", HashingEmbedder(), resume=True, **OPTIONS)
    assert published_files(tmp_path / "out") == expected

import json
from pathlib import Path
from typing import Any

import pytest
from hashing_embedder import HashingEmbedder

from datastore_build.build import build_datastore
from retrieval.errors import DatastoreError
from retrieval.manifest import (
    CURRENT,
    MANIFEST,
    IndexSettings,
    Measurement,
    SearchSettings,
    content_hash,
    live_version,
    read_manifest,
    verify_files,
)


@pytest.fixture
def datastore(tmp_path: Path) -> Path:
    source = tmp_path / "captions.jsonl"
    source.write_text('{"text": "a cat"}\n{"text": "a dog"}\n')
    build_datastore([source], tmp_path / "datastore", HashingEmbedder())
    return tmp_path / "datastore"


def _changed(version: Path, **changes: Any) -> Path:
    path = version / MANIFEST
    manifest = json.loads(path.read_text())
    for name, value in changes.items():
        if value is None:
            del manifest[name]
        else:
            manifest[name] = value
    path.write_text(json.dumps(manifest))
    return version


def test_a_published_version_reads_and_verifies(datastore: Path) -> None:
    version = live_version(datastore)
    manifest = read_manifest(version)
    verify_files(version, manifest)
    assert manifest.version == version.name
    assert manifest.complete
    assert manifest.counts.languages == {"en": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"embedder": "another"},
        {"dimension": 0},
        {"dimension": 128},
        {"dimension": "many"},
        {"complete": False},
        {"complete": None},
        {"counts": {}},
        {"index": {"kind": "hnsw"}},
        {"metric": "l2"},
        {"files": {}},
        {"files": {"../../secret": {"bytes": 0, "sha256": "0" * 64}}},
        {"files": {"captions.arrow": {"bytes": -1, "sha256": "0" * 64}}},
        {"unknown": 1},
    ],
)
def test_a_changed_manifest_is_refused_on_one_line(datastore: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(DatastoreError) as error:
        read_manifest(_changed(live_version(datastore), **changes))
    assert "\n" not in str(error.value)


def test_what_was_measured_or_why_a_kind_was_taken_does_not_make_another_version() -> None:
    plain = IndexSettings(kind="flat")
    measured = Measurement(queries=1, k=1, recall=1.0, median_ms=0.5, p99_ms=0.7)
    told = IndexSettings(kind="flat", reason="few", measured=measured)
    searched = IndexSettings(kind="flat", search=SearchSettings(nprobe=3))
    hashes = [content_hash("e", 8, settings, {}) for settings in (plain, told, searched)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_datastore_of_the_bundle_keeps_its_name() -> None:
    manifest = read_manifest(live_version(Path(__file__).parent.parent / "bundles" / "compact" / "datastore"))
    assert manifest.version.endswith(manifest.content_sha256[:12])
    assert manifest.index.content() == {"kind": "flat"}


def test_a_newer_format_is_named(datastore: Path) -> None:
    with pytest.raises(DatastoreError, match="format version 2; this Paellera reads 1"):
        read_manifest(_changed(live_version(datastore), format_version=2))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b" " * (17 * 2**20)]
)
def test_what_is_no_manifest_is_refused(datastore: Path, content: bytes) -> None:
    version = live_version(datastore)
    (version / MANIFEST).write_bytes(content)
    with pytest.raises(DatastoreError):
        read_manifest(version)


@pytest.mark.parametrize("content", ["", "..", "../..", "/etc", ".tmp-1", "a" * 300, "nothing-here", "\0"])
def test_current_must_name_a_version(datastore: Path, content: str) -> None:
    (datastore / CURRENT).write_text(content)
    with pytest.raises(DatastoreError, match="CURRENT"):
        live_version(datastore)


def test_a_folder_without_current_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DatastoreError, match="is not a datastore"):
        live_version(tmp_path)
    with pytest.raises(DatastoreError, match=r"there is no datastore at .*paellera datastore build"):
        live_version(tmp_path / "none")


@pytest.mark.parametrize("name", ["captions.arrow", "index.faiss"])
def test_damaged_files_are_named(datastore: Path, name: str) -> None:
    version = live_version(datastore)
    manifest = read_manifest(version)
    whole = (version / name).read_bytes()
    (version / name).write_bytes(whole[:-1])
    with pytest.raises(DatastoreError, match=rf"{name} is damaged: [\d,]+ bytes instead of"):
        verify_files(version, manifest)
    (version / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DatastoreError, match=rf"{name} is damaged: its SHA-256"):
        verify_files(version, manifest)
    (version / name).unlink()
    with pytest.raises(DatastoreError, match=rf"{name} cannot be read"):
        verify_files(version, manifest)

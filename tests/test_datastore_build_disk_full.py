"""A real file system that is full, at whatever byte of a build that happens."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hashing_embedder import HashingEmbedder
from small_datastores import published_files

from datastore_build.build import build_datastore
from datastore_build.merging import merge_datastores
from retrieval.datastore import Datastore
from retrieval.errors import DatastoreError
from retrieval.manifest import CURRENT

_OPTIONS: dict[str, Any] = {"near_duplicates": "drop", "shard_entries": 100}
_ENTRIES = 300
_PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path_factory.mktemp("disk")
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here, so that a full disk is not tried: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "captions.jsonl"
    lines = [f'{{"id": "e{number}", "text": "{number:x} of {number**3:b}"}}' for number in range(_ENTRIES)]
    lines[50:50] = ["nonsense", lines[0].replace("e0", "again")]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datastore with one version."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "old.jsonl").write_text('{"id": "old", "text": "an old caption"}\n')
    build_datastore([folder / "old.jsonl"], folder / "datastore", HashingEmbedder())
    return folder / "datastore"


def _fill(disk: Path, free: int) -> Path:
    """A file that leaves `free` bytes."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        space = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - free)
    return ballast


def test_wherever_a_build_fills_the_disk_it_says_so_and_goes_on_later(
    disk: Path, source: Path, live: Path, tmp_path: Path
) -> None:
    build_datastore([source], tmp_path / "whole", HashingEmbedder(), **_OPTIONS)
    expected, before = published_files(tmp_path / "whole"), (live / CURRENT).read_text()
    kept_vectors = []
    free, output = 0, disk / "datastore"
    while True:
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(live, output)
        ballast = _fill(disk, free)
        try:
            build_datastore([source], output, HashingEmbedder(), **_OPTIONS)
            break
        except DatastoreError as error:
            message = str(error)
        assert "No space left on device. Nothing was published" in message
        assert "\n" not in message
        assert (output / CURRENT).read_text() == before
        assert Datastore.open(output).entry_id(0) == "old"
        assert {path.name for path in output.iterdir()} == {CURRENT, "versions"}
        drafts = [path for path in (output / "versions").iterdir() if path.name != before.strip()]
        assert all(path.name.startswith(".tmp-") for path in drafts)
        assert len(drafts) == ("--resume goes on" in message)
        kept_vectors.append(bool(drafts))
        ballast.unlink()
        build_datastore([source], output, HashingEmbedder(), resume=True, **_OPTIONS)
        assert published_files(output) == expected
        assert len(list((output / "versions").iterdir())) == 2
        # By the page where little is written at a time, by the shard in between.
        free += _PAGE if free < 6 * _PAGE else 11 * _PAGE
    ballast.unlink()
    assert kept_vectors == sorted(kept_vectors)
    assert {False, True} == set(kept_vectors)
    assert len(kept_vectors) >= 15


def test_when_only_the_last_step_has_no_space_the_version_before_stays(
    disk: Path, source: Path, live: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = disk / "last-step"
    shutil.copytree(live, output)
    rename = Path.rename

    def rename_and_fill(path: Path, target: Path) -> Path:
        renamed = rename(path, target)
        if path.name == "version":
            _fill(disk, 0)
        return renamed

    monkeypatch.setattr(Path, "rename", rename_and_fill)
    with pytest.raises(
        DatastoreError, match=r"No space left .*Nothing was published, and .*--resume goes on"
    ):
        build_datastore([source], output, HashingEmbedder(), **_OPTIONS)
    monkeypatch.undo()
    (disk / "ballast").unlink()
    assert (output / CURRENT).read_text() == (live / CURRENT).read_text()
    assert len(list((output / "versions").glob("[!.]*"))) == 1
    report = build_datastore([source], output, HashingEmbedder(), resume=True, **_OPTIONS)
    assert report.embedded == 0
    assert Datastore.open(output).version == report.version


def test_a_merge_that_fills_the_disk_leaves_nothing(disk: Path, source: Path, live: Path) -> None:
    output, more = disk / "merged", disk / "more"
    added = build_datastore([source], more, HashingEmbedder(), **_OPTIONS)
    shutil.copytree(live, output)
    for free in (0, 40_000, 300_000):
        ballast = _fill(disk, free)
        with pytest.raises(DatastoreError, match="No space left on device"):
            merge_datastores([output, more], output)
        ballast.unlink()
        assert (output / CURRENT).read_text() == (live / CURRENT).read_text()
        assert len(list((output / "versions").iterdir())) == 1
    assert merge_datastores([output, more], output).entries == added.entries + 1

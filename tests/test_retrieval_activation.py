import json
import os
from pathlib import Path

import pytest
from small_datastores import publish

from retrieval.activation import HISTORY, activate, read_history, rollback, versions_before
from retrieval.datastore import Datastore
from retrieval.errors import DatastoreError
from retrieval.manifest import CURRENT, live_version


@pytest.fixture
def datastore(tmp_path: Path) -> Path:
    return tmp_path / "datastore"


def live(datastore: Path) -> str:
    return live_version(datastore).name


def test_rollback_goes_back_step_by_step(datastore: Path) -> None:
    first, second, third = (publish(datastore, [text]) for text in ("a cat", "a dog", "a cup"))
    assert rollback(datastore) == (third, second)
    assert live(datastore) == second
    assert rollback(datastore) == (second, first)
    with pytest.raises(DatastoreError, match=f"no version was live before {first}"):
        rollback(datastore)
    assert live(datastore) == first
    assert Datastore.open(datastore).version == first


def test_what_was_rolled_back_is_not_gone_back_to(datastore: Path) -> None:
    first, _, third = (publish(datastore, [text]) for text in ("a cat", "a dog", "a cup"))
    activate(datastore, first)
    assert rollback(datastore) == (first, third)  # the order in which they were live, not that of their names
    fourth = publish(datastore, ["a bus"])
    assert rollback(datastore) == (fourth, third)


def test_activating_tells_what_was_live_and_keeps_a_history(datastore: Path) -> None:
    first, second = publish(datastore, ["a cat"]), publish(datastore, ["a dog"])
    assert activate(datastore, first) == second
    assert activate(datastore, first) == first  # changes nothing
    events = read_history(datastore)
    assert [(event.version, event.how) for event in events] == [
        (first, "activate"),
        (second, "activate"),
        (first, "activate"),
    ]
    assert [event.at for event in events] == sorted(event.at for event in events)
    rollback(datastore)
    assert read_history(datastore)[-1].how == "rollback"


def test_a_datastore_without_history_goes_back_by_the_time_of_publication(datastore: Path) -> None:
    first, second, _ = (publish(datastore, [text]) for text in ("a cat", "a dog", "a cup"))
    (datastore / HISTORY).unlink()
    assert rollback(datastore)[1] == second
    (datastore / HISTORY).unlink()
    assert versions_before(datastore, second) == [first]


@pytest.mark.parametrize(
    "damage", [b"", b"\xff\xfe\n[]\n{}\nnull\n", b'{"version": 5, "at": "", "how": "activate"}\n']
)
def test_a_damaged_history_does_not_stop_anybody(datastore: Path, damage: bytes) -> None:
    first, second = publish(datastore, ["a cat"]), publish(datastore, ["a dog"])
    (datastore / HISTORY).write_bytes(damage)
    assert rollback(datastore) == (second, first)


def test_a_version_that_is_gone_is_skipped(datastore: Path) -> None:
    first, second, third = (publish(datastore, [text]) for text in ("a cat", "a dog", "a cup"))
    (datastore / "versions" / second).rename(datastore / "versions" / ".gone")
    assert rollback(datastore) == (third, first)


@pytest.mark.parametrize(
    "name", ["", "..", "../versions", "no-such-version", ".tmp-1", "a/b", "x" * 200, "\0"]
)
def test_only_what_is_there_is_activated(datastore: Path, name: str) -> None:
    version = publish(datastore, ["a cat"])
    with pytest.raises(DatastoreError, match="there is no version"):
        activate(datastore, name)
    assert live(datastore) == version


def test_activate_mends_a_damaged_current(datastore: Path) -> None:
    version = publish(datastore, ["a cat"])
    (datastore / CURRENT).write_text("nonsense that is no version\n")
    assert activate(datastore, version) is None
    assert live(datastore) == version


@pytest.mark.parametrize("failing", [HISTORY, CURRENT])
def test_when_the_disk_is_full_the_old_version_stays(
    datastore: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = publish(datastore, ["a cat"]), publish(datastore, ["a dog"])
    replace = Path.replace

    def full(path: Path, target: Path) -> Path:
        if target.name == failing:
            raise OSError(28, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        activate(datastore, first)
    monkeypatch.undo()
    assert live(datastore) == second
    assert rollback(datastore) == (second, first)
    assert not list(datastore.glob(".*"))  # no temporary files


def test_the_history_does_not_grow_for_ever(datastore: Path) -> None:
    first, second = publish(datastore, ["a cat"]), publish(datastore, ["a dog"])
    event = {"version": first, "at": "2026-01-01T00:00:00.000+00:00", "how": "activate"}
    (datastore / HISTORY).write_text(f"{json.dumps(event)}\n" * 5000)
    activate(datastore, first)
    assert len(read_history(datastore)) == 1000
    assert rollback(datastore) == (first, second)


def test_a_pipe_in_place_of_a_file_hangs_nobody(datastore: Path) -> None:
    publish(datastore, ["a cat"])
    (datastore / CURRENT).unlink()
    os.mkfifo(datastore / CURRENT)
    with pytest.raises(DatastoreError, match="not a regular file"):
        Datastore.open(datastore)

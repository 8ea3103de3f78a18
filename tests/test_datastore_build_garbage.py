from pathlib import Path

import pytest
from small_datastores import EMBEDDER, publish

from datastore_build.garbage import collect_garbage
from retrieval.activation import activate, rollback
from retrieval.datastore import Datastore
from retrieval.errors import DatastoreError
from retrieval.version_lock import while_opening

TEXTS = ["a cat sleeps", "a dog runs", "a cup of tea", "a red bus", "a green tram"]


@pytest.fixture
def datastore(tmp_path: Path) -> Path:
    return tmp_path / "datastore"


@pytest.fixture
def versions(datastore: Path) -> list[str]:
    """The names of five versions; the last one is live."""
    return [publish(datastore, [text]) for text in TEXTS]


def left(datastore: Path) -> list[str]:
    return sorted(path.name for path in (datastore / "versions").iterdir())


@pytest.mark.parametrize("keep", [0, 1, 3, 10])
def test_the_live_version_and_those_before_it_stay(datastore: Path, versions: list[str], keep: int) -> None:
    sizes = {
        name: sum(path.stat().st_size for path in (datastore / "versions" / name).iterdir())
        for name in versions
    }
    collection = collect_garbage(datastore, keep=keep)
    stay = versions[-1 - keep :] if keep < 5 else versions
    assert left(datastore) == stay
    assert collection.freed == sum(sizes[name] for name in versions if name not in stay)
    assert {item.version: item.state for item in collection.versions} == {
        name: "live" if name == versions[-1] else "kept" if name in stay else "removed" for name in versions
    }
    assert Datastore.open(datastore).version == versions[-1]


def test_a_dry_run_removes_nothing_and_says_the_same(datastore: Path, versions: list[str]) -> None:
    said = collect_garbage(datastore, dry_run=True)
    assert left(datastore) == versions
    done = collect_garbage(datastore)
    assert said.freed == done.freed > 0
    assert [item.version for item in said.versions if item.state == "would be removed"] == [
        item.version for item in done.versions if item.state == "removed"
    ]


def test_rollback_works_after_it_and_what_was_given_up_goes(datastore: Path, versions: list[str]) -> None:
    rollback(datastore)
    rollback(datastore)  # the third is live
    collect_garbage(datastore)
    assert left(datastore) == versions[1:3]
    assert rollback(datastore) == (versions[2], versions[1])


def test_kept_is_what_was_live_before_not_what_is_older(datastore: Path, versions: list[str]) -> None:
    activate(datastore, versions[0])
    collect_garbage(datastore)
    assert left(datastore) == [versions[0], versions[4]]
    assert rollback(datastore) == (versions[0], versions[4])


def test_a_version_about_to_be_activated_stays(datastore: Path, versions: list[str]) -> None:
    """It is published, and its maker has not come to replacing CURRENT yet."""
    rollback(datastore)
    new = datastore / "versions" / "99991231T000000.000Z-0123456789ab"
    new.mkdir()
    (new / "manifest.json").write_text("{}")
    collect_garbage(datastore, keep=0)
    assert left(datastore) == [versions[3], new.name]


def test_drafts_stay(datastore: Path, versions: list[str]) -> None:
    draft = datastore / "versions" / ".tmp-1-0123abcd"
    (draft / "version").mkdir(parents=True)
    (draft / "version" / "captions.arrow").write_bytes(b"half of it")
    collect_garbage(datastore, keep=0)
    assert left(datastore) == [draft.name, versions[-1]]


def test_a_version_that_is_being_opened_stays(datastore: Path, versions: list[str]) -> None:
    with while_opening(datastore / "versions" / versions[0]):
        collection = collect_garbage(datastore, keep=0)
        assert collection.versions[0].state == "being opened"
        assert left(datastore) == [versions[0], versions[4]]
    collect_garbage(datastore, keep=0)
    assert left(datastore) == versions[-1:]


def test_a_reader_keeps_what_it_has_open(datastore: Path, versions: list[str]) -> None:
    store = Datastore.open(datastore, version=versions[0])
    collect_garbage(datastore, keep=0)
    assert left(datastore) == versions[-1:]
    (found,) = store.neighbours(EMBEDDER.embed_texts(["a cat"]), [["en"]], 1)[0]
    assert [item.text for item in found] == ["a cat sleeps"]


def test_an_opening_that_is_overtaken_opens_the_next_version(
    datastore: Path, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CURRENT was read; then another version is published and the one that was live is removed."""
    published: list[str] = []

    def overtaken(version: Path) -> object:
        if not published:
            published.append(publish(datastore, ["something new"]))
            collect_garbage(datastore, keep=0)
        return while_opening(version)

    monkeypatch.setattr("retrieval.datastore.while_opening", overtaken)
    assert Datastore.open(datastore).version == published[0]
    assert left(datastore) == published


def test_what_an_earlier_run_has_left_half_removed_goes(datastore: Path, versions: list[str]) -> None:
    half = datastore / "versions" / f".gc-0123-{versions[0]}"
    (datastore / "versions" / versions[0]).rename(half)
    (half / "manifest.json").unlink()
    size = sum(path.stat().st_size for path in half.iterdir())
    assert collect_garbage(datastore, keep=9, dry_run=True).freed == size
    assert half.exists()
    assert collect_garbage(datastore, keep=9).freed == size
    assert left(datastore) == versions[1:]


def test_what_is_no_datastore(tmp_path: Path) -> None:
    with pytest.raises(DatastoreError, match="is not a datastore"):
        collect_garbage(tmp_path)

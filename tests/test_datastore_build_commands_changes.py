import json
from pathlib import Path

import pytest
from datastore_cli import run
from hashing_embedder import HashingEmbedder

import datastore_build.commands.changes  # noqa: F401  (its commands)


@pytest.fixture(autouse=True)
def _small_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("cli", "commands.changes"):
        monkeypatch.setattr(f"datastore_build.{module}.open_embedder", lambda bundle: HashingEmbedder())


@pytest.fixture
def datastore(tmp_path: Path) -> Path:
    source = tmp_path / "captions.jsonl"
    source.write_text("".join(f'{{"id": "{n}", "text": "picture number {n}"}}\n' for n in range(5)))
    assert run("build", source, "--output", tmp_path / "datastore")[0] == 0
    return tmp_path / "datastore"


def test_a_datastore_grows_shrinks_and_is_compacted(tmp_path: Path, datastore: Path) -> None:
    (tmp_path / "new.jsonl").write_text(
        '{"id": "new", "text": "something new"}\n{"id": "0", "text": "taken"}\n'
    )
    code, output, messages = run("add", datastore, tmp_path / "new.jsonl")
    assert code == 0
    assert "1 of 2 rows published: 6 entries, 6 texts" in output
    assert "new.jsonl:2: the id '0' was used by an earlier row" in messages

    (tmp_path / "ids.txt").write_text("1\n\n2\nnobody\n")
    code, output, messages = run("delete", datastore, "new", "--ids-from", tmp_path / "ids.txt")
    assert (code, output.splitlines()[0]) == (0, "3 entries deleted: 3 entries, 3 texts")
    assert messages == "1 ids are not in the datastore: nobody\n"
    assert "3 more entries, still in the files" in run("info", datastore)[1]

    code, output, _ = run("compact", datastore)
    assert (code, output.splitlines()[0]) == (0, "3 deleted entries removed: 3 entries, 3 texts")
    assert "deleted" not in run("info", datastore)[1]


def test_json_is_one_document(tmp_path: Path, datastore: Path) -> None:
    deleted = json.loads(run("delete", datastore, "1", "--json")[1])
    assert (deleted["deleted"], deleted["entries"], deleted["languages"]) == (1, 4, {"en": 4})
    merged = json.loads(run("merge", datastore, datastore, "--output", tmp_path / "merged", "--json")[1])
    assert (merged["entries"], merged["collision_count"], merged["collisions"]) == (
        4,
        4,
        ["0", "2", "3", "4"],
    )
    assert json.loads(run("compact", datastore, "--json")[1])["deleted"] == 1


def test_what_the_filters_leave_out_is_counted_by_reason_and_kept_with_its_row(tmp_path: Path) -> None:
    rows = ["pizza", "a dog runs on the beach", "A dog runs on the beach!", "a dog " + "very " * 30 + "big"]
    source = tmp_path / "captions.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    options = ["--min-words", "2", "--max-words", "20", "--near-duplicates", "drop"]
    code, output, messages = run(
        "build", source, "--output", tmp_path / "out", "--strict", "--json", *options
    )
    report = json.loads(output)
    assert code == 0
    assert report["dropped"] == {"near_duplicate": 1, "too_long": 1, "too_short": 1}
    assert (report["rows"], report["published"], report["rejected"], report["entries"]) == (4, 1, 3, 1)
    rejects = [json.loads(line) for line in Path(report["rejects_file"]).read_text().splitlines()]
    assert [(reject["line"], reject["reason"]) for reject in rejects] == [
        (1, "the text in en has 1 words, fewer than 2"),
        (4, "the text in en has 33 words, more than 20"),
        (3, "nearly the same as the entry 'captions.jsonl:2'"),
    ]
    assert "3 of 4 rows rejected" in messages
    _, output, _ = run("build", source, "--output", tmp_path / "out")
    assert "1 texts nearly equal an earlier one (en 1); 1 entries have no other text and were kept" in output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["delete", "DIR"], 2, "give ids or --ids-from"),
        (["delete", "DIR", "nobody"], 1, "has none of the entries to delete ('nobody'); nothing was changed"),
        (["delete", "DIR", "--ids-from", "nowhere.txt"], 1, "cannot read nowhere.txt"),
        (["delete", "nowhere", "1"], 1, "there is no datastore at nowhere"),
        (["add", "nowhere", "SOURCE"], 1, "there is no datastore at nowhere"),
        (["add", "DIR", "none.jsonl"], 1, "cannot read none.jsonl"),
        (["compact", "nowhere"], 1, "there is no datastore at nowhere"),
        (["merge", "DIR", "nowhere", "--output", "out"], 1, "there is no datastore at nowhere"),
        (["merge", "DIR"], 2, "--output"),
    ],
)
def test_errors(datastore: Path, arguments: list[str], code: int, message: str) -> None:
    places = {"DIR": str(datastore), "SOURCE": str(datastore.parent / "captions.jsonl")}
    exit_code, output, messages = run(*(places.get(argument, argument) for argument in arguments))
    assert (exit_code, output) == (code, "")
    assert message in messages
    if code == 1:
        assert len(messages.splitlines()) == 1


@pytest.mark.parametrize("kind", ["hnsw", "ivf-flat", "ivf-pq"])
def test_an_approximate_index_stays_until_another_is_asked_for(tmp_path: Path, kind: str) -> None:
    for name, numbers in {"old": range(400), "new": range(400, 500)}.items():
        rows = [{"id": f"{n}", "text": f"picture {n} of {n % 19} by {n % 23}"} for n in numbers]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    store, merged = tmp_path / "datastore", tmp_path / "merged"
    options = ("--index", kind, "--target-recall", "0.9", "--near-duplicates", "keep")
    assert run("build", tmp_path / "old.jsonl", "--output", store, *options)[0] == 0
    commands = (
        ("add", store, tmp_path / "new.jsonl", "--near-duplicates", "keep"),
        ("delete", store, "7", "450"),
        ("compact", store),
        ("merge", store, store, "--output", merged),
    )
    for command in commands:
        assert run(*command)[0] == 0
        index = json.loads(run("info", merged if command[0] == "merge" else store, "--json")[1])["index"]
        assert index["kind"] == kind
        assert index["asked"]["target_recall"] == 0.9
        assert index["measured"]["recall"] >= 0.85
    assert json.loads(run("info", merged, "--json")[1])["counts"]["entries"] == 498
    code, output, _ = run("compact", store, "--index", "auto", "--json")
    index = json.loads(run("info", store, "--json")[1])["index"]
    assert (code, json.loads(output)["deleted"], index["kind"]) == (0, 0, "flat")
    assert index["asked"] == {
        "kind": "auto",
        "memory_budget": None,
        "target_ms": None,
        "target_recall": 0.9,
    }

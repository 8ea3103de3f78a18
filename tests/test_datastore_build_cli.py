import json
import subprocess
import sys
from pathlib import Path

import pytest
from datastore_cli import run
from hashing_embedder import HashingEmbedder

from datastore_build import __main__ as module
from retrieval.datastore import Datastore


@pytest.fixture(autouse=True)
def _small_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datastore_build.cli.open_embedder", lambda bundle: HashingEmbedder())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "captions.jsonl"
    rows = [f'{{"text": "a photo of number {number}"}}' for number in range(20)]
    rows[3], rows[8], rows[15] = "nonsense", '{"text": ""}', '{"text": 5}'
    path.write_text("\n".join(rows))
    return path


def test_build_names_the_rows_it_rejects(tmp_path: Path, source: Path) -> None:
    code, output, messages = run("build", source, "--output", tmp_path / "out")
    assert code == 0
    assert "17 of 20 rows published: 17 entries, 17 texts (en 17)" in output
    assert f"{source}:4: not JSON" in messages
    assert f"{source}:9: text is empty" in messages
    assert f"{source}:16: text is not a string but a number" in messages
    assert "rejects.jsonl" in messages


def test_build_json_is_one_document(tmp_path: Path, source: Path) -> None:
    code, output, _ = run("build", source, "--output", tmp_path / "out", "--json", "--language", "pt-BR")
    report = json.loads(output)
    assert code == 0
    assert (report["rows"], report["published"], report["rejected"]) == (20, 17, 3)
    assert [row["line"] for row in report["rejects"]] == [4, 9, 16]
    assert report["languages"] == {"pt": 17}
    assert len(Path(report["rejects_file"]).read_text().splitlines()) == 3


def test_strict_ends_with_1_and_keeps_the_live_version(tmp_path: Path, source: Path) -> None:
    run("build", source, "--output", tmp_path / "out")
    live = (tmp_path / "out" / "CURRENT").read_text()
    source.write_text('{"text": "new"}\nnonsense\n')
    code, output, messages = run("build", source, "--output", tmp_path / "out", "--strict", "--json")
    assert (code, output) == (1, "")
    assert f"{source}:2: not JSON" in messages
    assert (
        messages.splitlines()[-1] == "error: 1 of 2 rows cannot be used; with --strict nothing is published"
    )
    assert (tmp_path / "out" / "CURRENT").read_text() == live


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["build", "none.jsonl", "--output", "out"], 1, "error: cannot read none.jsonl"),
        (["build", "none.txt", "--output", "out"], 1, "error: none.txt is not of a kind that can be read"),
        (["build", "SOURCE", "--output", "SOURCE/out"], 1, "error: cannot write the datastore"),
        (["info", "nowhere"], 1, "error: there is no datastore at nowhere"),
        (["build", "SOURCE"], 2, "--output"),
        (["build", "--output", "out"], 2, "SOURCE"),
        (["build", "SOURCE", "--output", "out", "--index", "annoy"], 2, "--index"),
        (["build", "SOURCE", "--output", "out", "--memory-budget", "much"], 2, "such as 800M or 2G"),
        (["build", "SOURCE", "--output", "out", "--target-recall", "1.5"], 2, "--target-recall"),
        (
            ["build", "SOURCE", "--output", "out", "--memory-budget", "1K"],
            1,
            "error: an index of kind ivf-pq",
        ),
        (["build", "SOURCE", "--output", "out", "--language", "klingonese"], 2, "not a language tag"),
        (["info"], 2, "DIR"),
        (["nothing"], 2, "nothing"),
    ],
)
def test_errors(source: Path, arguments: list[str], code: int, message: str) -> None:
    given = [argument.replace("SOURCE", str(source)) for argument in arguments]
    exit_code, output, messages = run(*given)
    assert (exit_code, output) == (code, "")
    assert message in messages
    assert "Traceback" not in messages
    if code == 1:
        assert len(messages.splitlines()) == 1


def test_info(tmp_path: Path) -> None:
    source = tmp_path / "scenes.jsonl"
    source.write_text('{"texts": {"en": "a cat", "uk": "кіт"}}\n{"text": "a dog"}\n{}\n')
    run("build", source, "--output", tmp_path / "out")
    code, output, _ = run("info", tmp_path / "out")
    assert code == 0
    for part in ("hashing-256, 256 dimensions", "scenes.jsonl: 2 of 3 rows, 1 rejected", "uk   Ukrainian"):
        assert part in output
    code, output, _ = run("info", tmp_path / "out", "--json")
    document = json.loads(output)
    assert document["counts"] == {
        "entries": 2,
        "texts": 3,
        "repeated_texts": 0,
        "languages": {"en": 2, "uk": 1},
    }
    assert document["versions"] == [document["version"]]
    assert document["bytes"] == sum(file["bytes"] for file in document["files"].values())


@pytest.mark.parametrize("kind", ["hnsw", "ivf-flat", "ivf-pq"])
def test_an_approximate_index_is_explained_and_answers(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "captions.jsonl"
    source.write_text("".join(f'{{"text": "number {number} by {number % 37}"}}\n' for number in range(300)))
    arguments = ("--index", kind, "--target-ms", "0.01", "--target-recall", "0.9")
    code, output, _ = run("build", source, "--output", tmp_path / "out", *arguments)
    assert code == 0
    assert f"index {kind} (" in output
    assert "as asked for; measured recall@4 " in output
    assert "note: a query takes " in output  # nothing searches in a hundredth of a millisecond
    code, output, _ = run("info", tmp_path / "out")
    assert f"index      {kind} (" in output
    assert "measured recall@4 " in output
    store = Datastore.open(tmp_path / "out")
    query = HashingEmbedder().embed_texts(["number 5 by 5"])
    assert store.search(query, 1)[0][0].score == pytest.approx(1.0, abs=0.01)
    assert "number 5 by 5" in [found.text for found in store.neighbours(query, [["en", "de"]], 4)[0][0]]


def test_build_json_has_the_choice_of_index(tmp_path: Path, source: Path) -> None:
    _, output, _ = run("build", source, "--output", tmp_path / "out", "--json")
    index = json.loads(output)["index"]
    assert index["kind"] == "flat"
    assert "few enough for exact search" in index["reason"]


def test_info_finds_a_truncated_file(tmp_path: Path, source: Path) -> None:
    run("build", source, "--output", tmp_path / "out")
    (index,) = tmp_path.glob("out/versions/*/index.faiss")
    index.write_bytes(b"")
    code, output, messages = run("info", tmp_path / "out")
    assert (code, output) == (1, "")
    assert "index.faiss is damaged" in messages


@pytest.mark.parametrize("prefix", [[], ["build"]])
def test_the_module_runs_build(
    tmp_path: Path, source: Path, prefix: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*prefix, str(source), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["datastore_build", *arguments])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 0
    assert (tmp_path / "out" / "CURRENT").exists()


def test_help_does_not_wait_for_torch() -> None:
    program = "import sys, datastore_build.cli; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_help_shows_examples() -> None:
    for command in ("build", "info"):
        code, output, _ = run(command, "--help")
        assert code == 0
        assert f"paellera datastore {command} " in output

import json
from pathlib import Path

import pytest
from datastore_cli import run
from small_datastores import publish


@pytest.fixture
def datastore(tmp_path: Path) -> Path:
    return tmp_path / "datastore"


@pytest.fixture
def versions(datastore: Path) -> list[str]:
    return [publish(datastore, [text]) for text in ("a cat", "a dog", "a cup")]


def test_activate_and_rollback(datastore: Path, versions: list[str]) -> None:
    first, _, third = versions
    assert run("activate", datastore, first) == (
        0,
        f"version {first} is live, before it {third} was\n",
        "",
    )
    assert run("activate", datastore, first) == (0, f"version {first} is live already\n", "")
    code, output, _ = run("rollback", datastore, "--json")
    assert (code, json.loads(output)) == (0, {"version": third, "previous": first})
    assert (datastore / "CURRENT").read_text() == f"{third}\n"


@pytest.mark.parametrize("command", ["activate", "rollback"])
def test_a_damaged_version_does_not_become_live(datastore: Path, versions: list[str], command: str) -> None:
    (datastore / "versions" / versions[1] / "index.faiss").write_bytes(b"IxFI")
    code, output, messages = run(command, datastore, *([versions[1]] if command == "activate" else []))
    assert (code, output) == (1, "")
    assert messages.startswith("error: ")
    assert "index.faiss is damaged" in messages
    assert len(messages.splitlines()) == 1
    assert (datastore / "CURRENT").read_text() == f"{versions[2]}\n"


def test_gc(datastore: Path, versions: list[str]) -> None:
    code, output, _ = run("gc", datastore, "--dry-run")
    assert code == 0
    *listed, freed = output.splitlines()
    assert [line.split()[0] for line in listed] == versions
    assert [line.split(None, 3)[3] for line in listed] == ["would be removed", "kept", "live"]
    assert freed.endswith("bytes would be freed")
    code, output, _ = run("gc", datastore, "--keep", "0", "--json")
    document = json.loads(output)
    assert [item["state"] for item in document["versions"]] == ["removed", "removed", "live"]
    assert document["freed"] == sum(item["bytes"] for item in document["versions"][:2])
    assert [path.name for path in (datastore / "versions").iterdir()] == versions[2:]


def test_verify(datastore: Path, versions: list[str]) -> None:
    code, output, _ = run("verify", datastore)
    assert code == 0
    assert versions[2] in output
    code, output, _ = run("verify", datastore, "--deep", "--json", "--version", versions[0])
    document = json.loads(output)
    assert (code, document["version"], document["deep"], document["self_search"]) == (
        0,
        versions[0],
        True,
        1.0,
    )
    assert "100.0% of a sample" in run("verify", datastore, "--deep")[1]
    (datastore / "versions" / versions[2] / "captions.arrow").write_bytes(b"")
    code, output, messages = run("verify", datastore, "--deep")
    assert (code, output) == (1, "")
    assert "captions.arrow is damaged" in messages
    assert len(messages.splitlines()) == 1


def test_info_draws_the_languages(datastore: Path) -> None:
    rows = [
        {"texts": {"en": f"a cat {number}"} | ({"uk": f"кіт {number}"} if number < 5 else {})}
        for number in range(20)
    ]
    publish(datastore, rows)
    lines = run("info", datastore)[1].splitlines()
    english, ukrainian = (
        next(line for line in lines if f"  {name} " in line) for name in ("English", "Ukrainian")
    )
    assert english.count("█") == 32
    assert ukrainian.count("█") == 8


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["activate", "DIR", "none"], 1, "error: there is no version 'none'"),
        (["activate", "nowhere", "none"], 1, "error: there is no version 'none'"),
        (["rollback", "nowhere"], 1, "error: there is no datastore at nowhere"),
        (["gc", "nowhere"], 1, "error: there is no datastore at nowhere"),
        (["verify", "nowhere"], 1, "error: there is no datastore at nowhere"),
        (["map", "nowhere", "--output", "map.html"], 1, "error: there is no datastore at nowhere"),
        (["map", "DIR", "--output", "DIR/none/map.html"], 1, "error: cannot write"),
        (["activate", "DIR"], 2, "VERSION"),
        (["gc", "DIR", "--keep", "-1"], 2, "--keep"),
        (["map", "DIR"], 2, "--output"),
        (["map", "DIR", "--output", "x", "--texts", "0"], 2, "--texts"),
    ],
)
def test_errors(datastore: Path, versions: list[str], arguments: list[str], code: int, message: str) -> None:
    exit_code, output, messages = run(*(argument.replace("DIR", str(datastore)) for argument in arguments))
    assert (exit_code, output) == (code, "")
    assert message in messages
    if code == 1:
        assert len(messages.splitlines()) == 1


def test_without_an_earlier_version_there_is_no_rollback(datastore: Path) -> None:
    version = publish(datastore, ["a cat"])
    code, output, messages = run("rollback", datastore)
    assert (code, output) == (1, "")
    assert f"no version was live before {version}" in messages


@pytest.mark.parametrize("command", ["activate", "rollback", "gc", "verify", "map", "info"])
def test_help_shows_examples(command: str) -> None:
    code, output, _ = run(command, "--help")
    assert code == 0
    assert f"paellera datastore {command} " in output

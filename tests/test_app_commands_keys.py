import json
from pathlib import Path

import pytest

from app.access.keys import KeyRing
from app.cli import main

Outcome = tuple[int, str, str]


class Command:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Outcome:
        exit_code = main(["keys", *(str(argument) for argument in arguments)])
        output, errors = self._capsys.readouterr()
        return exit_code, output, errors


@pytest.fixture
def keys(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_is_shown_once_and_then_works_until_it_is_revoked(keys: Command, path: Path) -> None:
    exit_code, token, errors = keys("add", "shop", "--file", path, "--per-minute", "60", "--per-day", "5000")
    assert exit_code == 0
    assert "only time" in errors
    assert token.strip() not in errors
    key = KeyRing(path).find(token.strip())
    assert key is not None
    assert (key.name, key.admin, key.per_minute, key.per_day) == ("shop", False, 60, 5000)

    assert keys("add", "operator", "--file", path, "--admin")[0] == 0
    exit_code, listed, _ = keys("list", "--file", path)
    assert exit_code == 0
    assert [line.split("  ")[:3] for line in listed.splitlines()] == [
        ["shop", "captions", "60 a minute, 5000 a day"],
        ["operator", "admin", "no limit"],
    ]
    assert token.strip() not in listed

    assert keys("revoke", "shop", "--file", path)[0] == 0
    assert KeyRing(path).find(token.strip()) is None
    assert [line.split()[0] for line in keys("list", "--file", path)[1].splitlines()] == ["operator"]


def test_the_list_as_json_has_no_hashes(keys: Command, path: Path) -> None:
    keys("add", "shop", "--file", path)
    exit_code, output, _ = keys("list", "--file", path, "--json")
    (key,) = json.loads(output)["keys"]
    assert exit_code == 0
    assert set(key) == {"name", "admin", "per_minute", "per_day", "created"}


def test_the_setting_names_the_file(keys: Command, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAELLERA_KEYS_FILE", str(path))
    assert keys("add", "shop")[0] == 0
    assert keys("list")[1].startswith("shop")
    monkeypatch.delenv("PAELLERA_KEYS_FILE")
    exit_code, _, errors = keys("list")
    assert exit_code == 2
    assert "--file" in errors


def test_a_name_is_given_once(keys: Command, path: Path) -> None:
    keys("add", "shop", "--file", path)
    before = path.read_bytes()
    exit_code, output, errors = keys("add", "shop", "--file", path)
    assert (exit_code, output) == (2, "")
    assert "revoke it first" in errors
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "exit_code", "hint"),
    [
        (["add", "a b"], 2, "name"),
        (["add", "shop", "--per-minute", "0"], 2, "--per-minute"),
        (["add", "shop", "--per-day", "9999999999"], 2, "per_day"),
        (["revoke", "nobody"], 1, "cannot be read"),
        (["list"], 1, "cannot be read"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    keys: Command, path: Path, arguments: list[str], exit_code: int, hint: str
) -> None:
    outcome = keys(*arguments, "--file", path)
    assert outcome[:2] == (exit_code, "")
    assert hint in outcome[2]
    assert outcome[2].count("\n") == 1
    assert not path.exists()


def test_a_damaged_file_is_not_written_over(keys: Command, path: Path) -> None:
    path.write_text("{")
    exit_code, output, errors = keys("add", "shop", "--file", path)
    assert (exit_code, output) == (1, "")
    assert "damaged" in errors
    assert path.read_text() == "{"


def test_revoking_who_is_not_there(keys: Command, path: Path) -> None:
    keys("add", "shop", "--file", path)
    exit_code, _, errors = keys("revoke", "shopp", "--file", path)
    assert exit_code == 1
    assert "no key named shopp" in errors

import hmac
import json
import os
import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.access.keys import KeyRing, find_key, new_key, read_keys, write_keys
from app.errors import KeysFileError
from retrieval.errors import InvalidRequestError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_is_found_by_its_token_and_by_nothing_else(path: Path) -> None:
    made = [new_key(name) for name in ("one", "two", "three")]
    write_keys(path, [key for _, key in made])
    ring = KeyRing(path)
    for token, key in made:
        assert ring.find(token) == key
        for other in (token[:-1], token + "0", token.upper(), key.sha256, key.name, "", "\udcff"):
            assert ring.find(other) is None


def test_tokens_are_long_recognisable_and_never_the_same() -> None:
    tokens = {new_key("a")[0] for _ in range(100)}
    assert len(tokens) == 100
    for token in tokens:
        assert token.startswith("paellera_")
        assert len(bytes.fromhex(token.removeprefix("paellera_"))) == 32


def test_the_file_does_not_hold_the_token(path: Path) -> None:
    token, key = new_key("shop", per_minute=5)
    write_keys(path, [key])
    text = path.read_text()
    assert token not in text
    assert token.removeprefix("paellera_") not in text
    assert json.loads(text)["keys"][0]["per_minute"] == 5


def test_all_keys_are_compared_wherever_the_right_one_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [new_key(f"k{number}") for number in range(5)]
    keys = [key for _, key in made]
    compared: list[str] = []

    def counted(left: str, right: str) -> bool:
        compared.append(right)
        return hmac.compare_digest(left, right)

    monkeypatch.setattr("app.access.keys.compare_digest", counted)
    for token in (made[0][0], made[2][0], made[4][0], "paellera_unknown"):
        compared.clear()
        find_key(token, keys)
        assert compared == [key.sha256 for key in keys]


def test_only_the_owner_can_read_the_file_also_after_a_crash(path: Path) -> None:
    left_behind = path.with_name("keys.json.partial")
    left_behind.write_text("half a file")
    left_behind.chmod(0o666)
    write_keys(path, [])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    write_keys(path, [new_key("a")[1]])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_owner_stays_who_it_was(path: Path) -> None:
    write_keys(path, [])
    os.chown(path, 10001, 10001)
    write_keys(path, [new_key("a")[1]])
    assert (path.stat().st_uid, path.stat().st_gid) == (10001, 10001)


def test_a_changed_file_counts_at_once(path: Path) -> None:
    first_token, first = new_key("first")
    second_token, second = new_key("second")
    write_keys(path, [first])
    ring = KeyRing(path)
    assert ring.find(second_token) is None
    write_keys(path, [first, second])
    assert ring.find(second_token) == second
    write_keys(path, [second])
    assert ring.find(first_token) is None
    write_keys(path, [])
    assert ring.find(second_token) is None


DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"version": 2, "keys": []}',
    b'{"keys": [{"name": "a"}]}',
    b'{"keys": [], "more": 1}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("content", [*DAMAGED, None])
def test_a_damaged_file_changes_nothing_and_is_logged_once(path: Path, content: bytes | None) -> None:
    token, key = new_key("a")
    write_keys(path, [key])
    ring = KeyRing(path)
    with capture_logs() as logs:
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        for _ in range(3):
            assert ring.find(token) == key
            assert ring.find("paellera_unknown") is None
    assert [(line["event"], line["log_level"]) for line in logs] == [("keys_not_reloaded", "error")]
    write_keys(path, [])
    assert ring.find(token) is None


@pytest.mark.parametrize("content", [*DAMAGED, None])
def test_a_service_does_not_start_with_a_damaged_file(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KeysFileError, match=r"keys\.json"):
        KeyRing(path)


def test_an_error_quotes_nothing_of_the_file(path: Path) -> None:
    document = {"keys": [{"name": "a", "sha256": "secret-hash", "created": "2026-11-22T00:00:00Z"}]}
    path.write_text(json.dumps(document))
    with pytest.raises(KeysFileError, match=r"keys\.0\.sha256") as error:
        read_keys(path)
    assert "secret" not in str(error.value)


def test_a_name_or_a_hash_stands_there_once(path: Path) -> None:
    _, key = new_key("a")
    for other in (new_key("a")[1], key.model_copy(update={"name": "b"})):
        path.write_text(json.dumps({"keys": [json.loads(each.model_dump_json()) for each in (key, other)]}))
        with pytest.raises(KeysFileError, match="twice"):
            read_keys(path)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a\n", "é", "a" * 65, "a/b"])
def test_names_that_no_log_should_have(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="name"):
        new_key(name)

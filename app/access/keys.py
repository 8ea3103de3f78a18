"""API keys: how they are made, kept and told apart.

A key is 256 random bits, so one SHA-256 without salt is enough to keep it by: nobody can try out 2²⁵⁶ values,
and slow hashes are there for passwords, which have far fewer. The file never holds a key itself.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hmac import compare_digest
from pathlib import Path
from typing import Annotated, Literal, Self

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.errors import KeysFileError
from retrieval.errors import InvalidRequestError
from retrieval.files import replacing

TOKEN_PREFIX = "paellera_"  # what a scanner for leaked secrets can look for
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"
_log = structlog.get_logger("paellera.keys")

Limit = Annotated[int, Field(ge=1, le=10**9, strict=True)]


class ApiKey(BaseModel):
    """A key as it is kept: who has it, what it may do, and what recognises it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=_NAME)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    admin: Annotated[bool, Field(strict=True)] = False
    per_minute: Limit | None = None
    per_day: Limit | None = None
    created: datetime


class KeysFile(BaseModel):
    """The whole file, as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    keys: tuple[ApiKey, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for values in ([key.name for key in self.keys], [key.sha256 for key in self.keys]):
            if len(set(values)) < len(values):
                raise ValueError("a name or a hash stands there twice")
        return self


def new_key(
    name: str, *, admin: bool = False, per_minute: int | None = None, per_day: int | None = None
) -> tuple[str, ApiKey]:
    """A token, to be shown once, and the key to keep. Raises InvalidRequestError for a name or limit."""
    if not re.fullmatch(_NAME, name):
        raise InvalidRequestError(
            "a key's name is 1 to 64 of A-Z a-z 0-9 . _ @ - and begins with a letter or digit"
        )
    token = TOKEN_PREFIX + secrets.token_hex(32)
    try:
        key = ApiKey(
            name=name,
            sha256=hash_token(token),
            admin=admin,
            per_minute=per_minute,
            per_day=per_day,
            created=datetime.now(UTC).replace(microsecond=0),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidRequestError(f"{first['loc'][0]}: {first['msg'].lower()}") from None
    return token, key


def hash_token(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def find_key(token: str, keys: Sequence[ApiKey]) -> ApiKey | None:
    """The key that this token is. Looks at all of them, and alike, so that the time taken tells nothing."""
    hashed = hash_token(token)
    found = None
    for key in keys:
        if compare_digest(hashed, key.sha256):
            found = key
    return found


def read_keys(path: Path) -> KeysFile:
    """Raises KeysFileError, which quotes nothing of the file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise KeysFileError(f"the keys file {path} cannot be read: {error.strerror or error}") from None
    try:
        return KeysFile.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise KeysFileError(f"the keys file {path} is damaged: {where}: {first['msg']}") from None


def write_keys(path: Path, keys: Sequence[ApiKey]) -> None:
    """Replaces the file in one step, readable by its owner only, who stays the same."""
    content = KeysFile(keys=tuple(keys)).model_dump_json(indent=2) + "\n"
    with replacing(path) as temporary:
        temporary.unlink(missing_ok=True)  # what a crash left behind may be readable by others
        temporary.touch(mode=0o600, exist_ok=False)
        temporary.write_text(content, encoding="utf-8")
        with suppress(FileNotFoundError, PermissionError):
            before = path.stat()  # root may add keys for a service that runs as somebody else
            os.chown(temporary, before.st_uid, before.st_gid)


class KeyRing:
    """The keys of a file, read anew when it changes.

    A file that is damaged or gone opens nothing and locks nobody out: the last good keys stay, and the log
    has an error. Creating the ring raises KeysFileError, because then there are no last good keys.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._stamp_now()
        self._keys = read_keys(path).keys

    def find(self, token: str) -> ApiKey | None:
        self._refresh()
        return find_key(token, self._keys)

    def _refresh(self) -> None:
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp  # also of a damaged file: one error in the log is enough for each change
        try:
            self._keys = read_keys(self._path).keys
        except KeysFileError as error:
            _log.error("keys_not_reloaded", detail=str(error), keys_kept=len(self._keys))
        else:
            _log.info("keys_reloaded", keys=len(self._keys))

    def _stamp_now(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

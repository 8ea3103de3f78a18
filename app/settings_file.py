"""The settings file: TOML, read with complaints that help, and written with every value's origin and meaning.

What is written can be read again. Secrets are never written.
"""

import difflib
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import tomli_w

from app.errors import InvalidSettingsError

_LARGEST = 1_000_000  # bytes
_WIDTH = 100


def read_settings_file(path: Path, known: Iterable[str]) -> dict[str, object]:
    """The values by name. Raises InvalidSettingsError: no such file, not TOML, a name that is not `known`."""
    try:
        if path.stat().st_size > _LARGEST:
            raise InvalidSettingsError(f"{path} is too large to be a settings file")
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise InvalidSettingsError(f"{path} is not TOML: {error}") from None
    names = list(known)
    for name in values:
        if name not in names:
            close = difflib.get_close_matches(name.lower().removeprefix("paellera_"), names, n=1)
            hint = f"did you mean {close[0]}?" if close else "`paellera serve --print-settings` lists them"
            raise InvalidSettingsError(f"{path}: {name!r} is not a setting; {hint}")
    return values


def format_settings(
    values: Mapping[str, object],
    origins: Mapping[str, str],
    meanings: Mapping[str, str],
    secret: Iterable[str],
) -> str:
    """A settings file with these values. One that is None, or secret, is a comment: TOML has no null."""
    return "".join(_lines(values, origins, meanings, frozenset(secret)))


def _lines(
    values: Mapping[str, object],
    origins: Mapping[str, str],
    meanings: Mapping[str, str],
    secret: frozenset[str],
) -> Iterator[str]:
    yield "# Paellera's settings: a file for `paellera serve --config FILE` or PAELLERA_CONFIG.\n"
    for name, value in values.items():
        yield "\n" + textwrap.fill(meanings[name], _WIDTH, initial_indent="# ", subsequent_indent="# ") + "\n"
        origin = "".join(char if char.isprintable() else "?" for char in origins[name])  # a path may hold any
        if value is None:
            yield f"# {name} is not set ({origin})\n"
        elif name in secret:
            yield f"# {name} is set ({origin}) and secret: not shown\n"
        else:
            yield f"{tomli_w.dumps({name: value}).rstrip()}  # {origin}\n"

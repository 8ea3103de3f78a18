"""Recipes on disk: TOML files, each read into a typed model.

A recipe may build on another: `extends` names a file beside it. What a recipe does not say is then taken from
there; a table that it has replaces the other's as a whole.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from retrieval.errors import InvalidRequestError

C = TypeVar("C", bound=BaseModel)


def read_config(path: Path, model: type[C]) -> C:
    """Read a recipe.

    Raises:
        InvalidRequestError: no such file, not TOML, or settings that do not fit; the message names them.
    """
    return check_settings(read_settings(path), model, str(path))


def read_settings(path: Path) -> dict[str, Any]:
    """What a recipe says, together with what it builds on.

    Raises:
        InvalidRequestError: no such file, or not TOML.
    """
    settings = _read(path)
    if "extends" in settings:
        base = _read(path.parent / str(settings.pop("extends")))
        if "extends" in base:
            raise InvalidRequestError(f"{path} extends a recipe that itself extends another")
        settings = {**base, **settings}
    return settings


def check_settings(settings: Mapping[str, Any], model: type[C], where: str) -> C:
    """Settings as a typed model.

    Raises:
        InvalidRequestError: they do not fit; the message says `where` and names them.
    """
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_url=False)
        )
        raise InvalidRequestError(f"{where}: {problems}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequestError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path} is not TOML: {error}") from error

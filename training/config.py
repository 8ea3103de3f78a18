"""Recipes on disk: TOML files, each read into a typed model."""

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from retrieval.errors import InvalidRequestError

C = TypeVar("C", bound=BaseModel)


def read_config(path: Path, model: type[C]) -> C:
    """Read a recipe.

    Raises:
        InvalidRequestError: no such file, not TOML, or settings that do not fit; the message names them.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequestError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path} is not TOML: {error}") from error
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_url=False)
        )
        raise InvalidRequestError(f"{path}: {problems}") from error

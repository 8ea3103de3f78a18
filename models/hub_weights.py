"""Weights and configurations in a folder of the Hub's format, read without a model."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from retrieval.errors import BundleError

CONFIG = "config.json"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


def read_config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """`config.json` of a model, or another of its files of settings.

    Raises:
        BundleError: it is not there or not a JSON object.
    """
    return _read_object(folder / name)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of a model, from one file or several.

    Raises:
        BundleError: there are none in safetensors, or a file is missing or damaged.
    """
    if not (folder / _WEIGHTS).is_file() and (folder / _INDEX).is_file():
        names = _read_object(folder / _INDEX).get("weight_map")
        if not isinstance(names, dict):
            raise BundleError(f"{folder / _INDEX} has no weight_map")
        files = sorted({str(name) for name in names.values()})
    else:
        files = [_WEIGHTS]
    weights: dict[str, Tensor] = {}
    for file in files:
        if Path(file).name != file:
            raise BundleError(f"{folder / _INDEX} names a file elsewhere: {file}")
        try:
            weights |= load_file(folder / file)
        except (OSError, SafetensorError) as error:
            raise BundleError(f"{folder / file} cannot be read: {error}") from error
    return weights


def _read_object(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise BundleError(f"{path} is not a JSON object")
    return document

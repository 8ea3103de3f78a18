"""transformers, which only bundles with parts from the Hub need."""

import importlib
from typing import Any

from retrieval.errors import BundleError


def transformers_library() -> Any:
    """The module `transformers`.

    Raises:
        BundleError: it is not installed.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise BundleError(
            f"models in the Hub's format need transformers ({error}): pip install 'paellera[hub]'"
        ) from error

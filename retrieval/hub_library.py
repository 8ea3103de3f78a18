"""transformers, which only bundles with parts from the Hub need."""

import importlib
import os
from typing import Any

from retrieval.errors import BundleError


def transformers_library() -> Any:
    """The module `transformers`, which does not report on its own what it loads.

    It would list the halves of a CLIP that were not asked for; what is missing of a model we say ourselves.
    $TRANSFORMERS_VERBOSITY brings its reports back.

    Raises:
        BundleError: it is not installed.
    """
    try:
        library: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise BundleError(
            f"models in the Hub's format need transformers ({error}): pip install 'paellera[hub]'"
        ) from error
    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()
    return library

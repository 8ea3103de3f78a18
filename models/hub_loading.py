"""What transformers loads from a folder of the Hub's format, all of it by one rule.

Weights are safetensors, nothing is fetched, code of a repository is never run, and a weight that is not there
is an error: transformers would draw it. What goes wrong is one line that names the folder.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from retrieval.errors import BundleError
from retrieval.hub_library import transformers_library


def load_pretrained(classes: Sequence[str], folder: Path, what: str, **settings: Any) -> Any:
    """A model, frozen, in evaluation mode.

    Args:
        classes: names in transformers; the first of them whose weights are all there is taken.
        what: it is, for messages: "image encoder".
        settings: others of `from_pretrained`, such as the dtype.

    Raises:
        BundleError: transformers is missing, it finds no such model, or weights are missing.
    """
    library = transformers_library()
    missing: list[str] = []
    for name in classes:
        load = partial(
            getattr(library, name).from_pretrained,
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **settings,
        )
        model, found = _explained(load, folder, what)
        missing = sorted(found["missing_keys"])
        if not missing:
            return model.eval().requires_grad_(False)
    raise BundleError(f"{folder}: the {what}'s weights lack {', '.join(missing[:3])}")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model.

    Raises:
        BundleError: transformers is missing, or it finds none.
    """
    auto = transformers_library().AutoTokenizer
    return _explained(
        lambda: auto.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
        folder,
        "tokenizer",
    )


def load_image_processor(folder: Path) -> Any:
    """What prepares a model's images, with Pillow.

    Raises:
        BundleError: transformers is missing, or it finds none.
    """
    auto = transformers_library().AutoImageProcessor
    return _explained(
        lambda: auto.from_pretrained(folder, local_files_only=True, trust_remote_code=False, backend="pil"),
        folder,
        "preparation of images",
    )


def _explained(load: Callable[[], Any], folder: Path, what: str) -> Any:
    try:
        return load()
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise BundleError(f"{folder} holds no {what}: {' '.join(str(error).split())}") from error

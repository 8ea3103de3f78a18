"""The names of the 1000 ImageNet-1k classes, in the order of every ImageNet classifier's outputs.

Read from two text files inside the `timm` distribution (Apache-2.0; the names are WordNet's). timm itself is
never imported: that needs torchvision, which this project does without. Knows no model.
"""

import importlib.metadata

from retrieval.errors import InvalidRequestError

DISTRIBUTION = "timm"
NUM_CLASSES = 1000
_SYNSETS = "timm/data/_info/imagenet_synsets.txt"  # class index -> WordNet id, one a line
_LEMMAS = "timm/data/_info/imagenet_synset_to_lemma.txt"  # WordNet id, tab, synonyms joined by ", "
_INSTALL = "install it with: pip install --no-deps timm"


def imagenet_class_names() -> list[tuple[str, ...]]:
    """English names of the 1000 classes: of each, all synonyms, the most usual first.

    Two classes can share a name (134 and 517 are both "crane", the bird and the machine).

    Raises:
        InvalidRequestError: timm is not installed, or its files are not as expected.
    """
    synsets = _read(_SYNSETS).split()
    lemmas = dict(line.split("\t", 1) for line in _read(_LEMMAS).splitlines() if "\t" in line)
    unnamed = [synset for synset in synsets if not lemmas.get(synset, "").strip()]
    if len(synsets) != NUM_CLASSES or unnamed:
        raise InvalidRequestError(
            f"the installed {DISTRIBUTION} lists {len(synsets)} ImageNet classes, {len(unnamed)} of them "
            f"without a name, instead of {NUM_CLASSES} named ones; {_INSTALL}"
        )
    return [tuple(name.strip() for name in lemmas[synset].split(",")) for synset in synsets]


def _read(name: str) -> str:
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
        return next(file for file in files if file.as_posix() == name).read_text(encoding="utf-8")
    except (importlib.metadata.PackageNotFoundError, StopIteration, OSError) as error:
        raise InvalidRequestError(
            f"the ImageNet class names come from the package {DISTRIBUTION}, which is missing or has no "
            f"{name}; {_INSTALL}"
        ) from error

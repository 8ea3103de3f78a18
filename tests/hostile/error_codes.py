"""Every error of the service that a program can meet, as the classes themselves declare it."""

from collections.abc import Iterator

import app.errors  # noqa: F401 - the classes exist once their module is imported
from retrieval.errors import PaelleraError


def error_classes(base: type[PaelleraError] = PaelleraError) -> Iterator[type[PaelleraError]]:
    """The class and all below it that have a code of their own."""
    if "code" in vars(base):
        yield base
    for below in base.__subclasses__():
        yield from error_classes(below)


def status_of(code: str) -> int:
    """Raises KeyError for a code that no class has."""
    return {error.code: error.status for error in error_classes()}[code]

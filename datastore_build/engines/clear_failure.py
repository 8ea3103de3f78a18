"""What torch and faiss raise, as one line that a user can read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from retrieval.errors import DatastoreError


@contextmanager
def clear_failure(what: str, kept: Callable[[], str] = str) -> Iterator[None]:
    """Raises DatastoreError for a lack of memory, on a GPU too, and the like. kept: says what is not lost."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatastoreError(f"{what} failed: {reason}. Nothing was published{kept()}") from error

"""All classes of hostile input, in the order in which docs/errors.md lists them."""

from collections.abc import Iterator
from types import ModuleType

from hostile import bombs, damaged, dialects, documents, forms, lying, other_files, requests
from hostile.inputs import HostileClass


def _classes(module: ModuleType) -> Iterator[HostileClass]:
    """Those that a module declares, as they stand in it."""
    for value in vars(module).values():
        for declared in value if isinstance(value, tuple) else (value,):
            if isinstance(declared, HostileClass):
                yield declared


GROUPS: dict[str, tuple[HostileClass, ...]] = {
    "What is not a photo": tuple(_classes(other_files)),
    "Damaged photos": tuple(_classes(damaged)),
    "Photos that lie": tuple(_classes(lying)),
    "Photos that grow": tuple(_classes(bombs)),
    "Forms": tuple(_classes(forms)),
    "JSON": tuple(_classes(documents)),
    "Queries, headers, addresses": tuple(_classes(requests)),
    "Chats and searches": tuple(_classes(dialects)),
}
CLASSES = tuple(declared for group in GROUPS.values() for declared in group)

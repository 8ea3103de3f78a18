"""Settings of a part, as recipes and manifests write them down → its frozen config."""

from collections.abc import Mapping, Set
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

C = TypeVar("C")


def build_config(
    config_class: type[C],
    settings: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    part: str,
    may_be_zero: Set[str] = frozenset(),
) -> C:
    """Check settings and make the config of them.

    Args:
        settings: what somebody wrote: fields of the config other than those in `given`.
        given: fields that follow from something else, such as the language model's width.
        part: what the config is of, for messages.
        may_be_zero: the whole numbers among the fields that may be 0.

    Raises:
        ValueError: a setting is missing, unknown, of another type, too small, or does not fit.
    """
    names = {field.name for field in fields(config_class)}  # type: ignore[arg-type]  # a dataclass
    if unknown := sorted(settings.keys() - (names - given.keys())):
        raise ValueError(f"a {part} has no setting {', '.join(unknown)}")
    for name, value in settings.items():
        if isinstance(value, int) and not isinstance(value, bool) and value < (name not in may_be_zero):
            raise ValueError(f"{part}: {name} must not be {value}")
    try:
        return TypeAdapter(config_class).validate_python({**given, **settings})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")  # what pydantic puts before a config's own
        raise ValueError(f"{part}: {place + ': ' if place else ''}{message}") from error

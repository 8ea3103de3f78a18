"""Parameters from anywhere (form fields, JSON, flags) checked against the schema, with one-line errors.

The messages name the parameter and what is accepted; they never repeat the value that was sent.
"""

import difflib
from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from app.schemas import CaptionParameters
from retrieval.errors import InvalidRequestError

# Forms, query strings and flags repeat `language`; in JSON it is one list, `languages`.
_FIELD_NAMES = ("language", *(name for name in CaptionParameters.model_fields if name != "languages"))


def parse_parameters(pairs: Iterable[tuple[str, str]]) -> CaptionParameters:
    """Form fields or query parameters; `language` may repeat. Raises InvalidRequestError.

    An empty value counts as left out, as browsers send it for an empty form field.
    """
    values: dict[str, str] = {}
    languages: list[str] = []
    for name, value in pairs:
        if name not in _FIELD_NAMES:
            raise InvalidRequestError(unknown_name(name, _FIELD_NAMES))
        if not value.strip():
            continue
        if name == "language":
            languages.append(value)
        elif name in values:
            raise InvalidRequestError(f"{name} is given twice")
        else:
            values[name] = value.strip()
    try:
        numbers = CaptionParameters.model_validate_strings(values)  # this mode knows no lists
    except ValidationError as error:
        raise InvalidRequestError(describe_invalid(error, _FIELD_NAMES)) from None
    return validate_parameters({**numbers.model_dump(), "languages": tuple(languages)})


def validate_parameters(values: Mapping[str, object]) -> CaptionParameters:
    """Values that already have their types. Raises InvalidRequestError."""
    try:
        return CaptionParameters.model_validate(values)
    except ValidationError as error:
        raise InvalidRequestError(describe_invalid(error, _FIELD_NAMES)) from None


def describe_invalid(error: ValidationError, known: Iterable[str]) -> str:
    """The first three problems on one line. `known`: the names that a misspelt one could have meant."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    lines = []
    for problem in problems[:3]:
        path = [shown(str(part)) if isinstance(part, str) else str(part) for part in problem["loc"]]
        if problem["type"] == "extra_forbidden":
            lines.append(unknown_name(str(problem["loc"][-1]), known if len(path) == 1 else ("base64",)))
            continue
        message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
        where = ".".join(path)
        lines.append(f"{where}: {message}" if where else message)
    if len(problems) > len(lines):
        lines.append(f"and {len(problems) - len(lines)} more")
    return "; ".join(lines)


def unknown_name(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name[:40], list(known), n=1)
    return f"{shown(name)!r} is not a parameter" + (f"; did you mean {close[0]}?" if close else "")


def shown(text: str, longest: int = 40) -> str:
    """What a caller sent, short enough for a message."""
    return text if len(text) <= longest else text[: longest - 1] + "…"

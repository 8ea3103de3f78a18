"""What keys and limits add to the OpenAPI document: two ways to send a key, and how requests are refused."""

from typing import Any

from fastapi import FastAPI

from app.access.gate import OPEN_PATHS
from app.api.openapi import problem_responses

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def describe_access(app: FastAPI, *, keys: bool) -> None:
    """Makes `app.openapi()` say that requests are limited, and with `keys` where a key is needed."""
    describe_routes = app.openapi
    described: dict[str, Any] = {}

    def describe() -> dict[str, Any]:
        if not described:
            described.update(_with_access(describe_routes(), keys))
        return described

    app.openapi = describe  # type: ignore[method-assign]  # how FastAPI wants it to be extended


def _with_access(document: dict[str, Any], keys: bool) -> dict[str, Any]:
    answers = problem_responses(
        (429, "Too many requests; see Retry-After"), (503, "Not now; see Retry-After")
    )
    if keys:
        document.setdefault("components", {})["securitySchemes"] = _SCHEMES
        answers |= problem_responses(
            (401, "The API key is missing or not known"), (403, "The API key is not for this")
        )
    for path, operations in document["paths"].items():
        if path in OPEN_PATHS:
            continue
        for operation in operations.values():
            if keys:
                operation["security"] = [{"bearer": []}, {"api_key": []}]
            for status, answer in answers.items():
                operation["responses"].setdefault(str(status), answer)
    return document

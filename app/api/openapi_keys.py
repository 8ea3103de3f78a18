"""What API keys add to the OpenAPI document: two ways to send one, and the answers to a bad one."""

from typing import Any

from fastapi import FastAPI

from app.access.gate import OPEN_PATHS
from app.api.openapi import problem_responses

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def describe_keys(app: FastAPI) -> None:
    """Makes `app.openapi()` say that a key is needed, and where not."""
    describe_routes = app.openapi
    described: dict[str, Any] = {}

    def describe() -> dict[str, Any]:
        if not described:
            described.update(_with_keys(describe_routes()))
        return described

    app.openapi = describe  # type: ignore[method-assign]  # how FastAPI wants it to be extended


def _with_keys(document: dict[str, Any]) -> dict[str, Any]:
    document.setdefault("components", {})["securitySchemes"] = _SCHEMES
    answers = problem_responses(
        (401, "The API key is missing or not known"),
        (403, "The API key is not for this"),
        (429, "Too many requests; see Retry-After"),
        (503, "Not now; see Retry-After"),
    )
    for path, operations in document["paths"].items():
        if path in OPEN_PATHS:
            continue
        for operation in operations.values():
            operation["security"] = [{"bearer": []}, {"api_key": []}]
            for status, answer in answers.items():
                operation["responses"].setdefault(str(status), answer)
    return document

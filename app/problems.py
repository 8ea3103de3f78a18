"""Errors as problem documents (RFC 9457): every response that is not a success has this one shape.

`code` is stable and what a program should look at; `detail` is one line for a person. Internal errors say
nothing of what went wrong inside; the log does, under the same request id.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from app.errors import (
    BodiesFullError,
    MethodNotAllowedError,
    NotFoundError,
    RefusedByFrameworkError,
    RetryLaterError,
)
from retrieval.errors import InvalidRequestError, PaelleraError

MEDIA_TYPE = "application/problem+json"
_ACRONYMS = frozenset({"cors", "http", "url"})
_BODY_LEFT = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_TIMEOUT)
_log = structlog.get_logger("paellera.http")


class Problem(BaseModel):
    """An error, as RFC 9457 writes it."""

    type: str = Field(description="urn:paellera:problem:<code>")
    title: str = Field(description="the kind of problem, for people")
    status: int
    detail: str = Field(description="what is wrong with this request and what to do")
    code: str = Field(description="stable, for programs")
    request_id: str = Field(description="as in the X-Request-Id header and in the log")


class _ProblemResponse(Response):
    """Leaves its code in the request's state, where the log and the metrics find it."""

    def __init__(self, code: str, content: bytes, status: int, headers: Mapping[str, str] | None) -> None:
        super().__init__(content, status, headers, MEDIA_TYPE)
        self._code = code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["problem_code"] = self._code
        await super().__call__(scope, receive, send)


def title_of(code: str) -> str:
    """The title of all problems with this code."""
    words = [word.upper() if word in _ACRONYMS else word for word in code.split("_")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


def problem_response(
    code: str, status: int, detail: str, request_id: str, headers: Mapping[str, str] | None = None
) -> Response:
    problem = Problem(
        type=f"urn:paellera:problem:{code}",
        title=title_of(code),
        status=status,
        detail=detail,
        code=code,
        request_id=request_id,
    )
    # A detail may quote what the caller sent, which need not be valid Unicode.
    content = json.dumps(problem.model_dump(), ensure_ascii=False).encode("utf-8", "replace")
    return _ProblemResponse(code, content, status, headers)


def response_of(error: PaelleraError, request_id: str) -> Response:
    """The problem document of one of our errors."""
    if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:  # names paths and files: for the operator only
        _log.error("request_failed", code=error.code, detail=str(error))
        return internal_error(request_id, error.code)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, RetryLaterError) else None
    if isinstance(error, BodiesFullError) or error.status in _BODY_LEFT:
        headers = {**(headers or {}), "Connection": "close"}  # what is left of the body is not read
    return problem_response(error.code, error.status, str(error), request_id, headers)


def internal_error(request_id: str, code: str = "internal_error") -> Response:
    detail = "something went wrong on the server; its log has the details under this request id"
    return problem_response(code, HTTPStatus.INTERNAL_SERVER_ERROR, detail, request_id)


def install_problem_handlers(app: FastAPI) -> None:
    """Our errors, the router's (404, 405) and FastAPI's validation all answer with a problem document."""

    @app.exception_handler(PaelleraError)
    async def on_paellera_error(request: Request, error: PaelleraError) -> Response:
        return response_of(error, request_id_of(request))

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == NotFoundError.status:
            code, detail = NotFoundError.code, "there is nothing at this address; /docs lists what there is"
        elif error.status_code == MethodNotAllowedError.status:
            code, detail = MethodNotAllowedError.code, f"{request.method[:20]} is not possible here"
        else:
            code, detail = RefusedByFrameworkError.code, str(error.detail)
        return problem_response(code, error.status_code, detail, request_id_of(request), error.headers)

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return response_of(InvalidRequestError(f"{where}: {first['msg']}"), request_id_of(request))


def request_id_of(request: Request) -> str:
    """Set by app/api/body_limit.py for every request."""
    return str(request.scope["state"]["request_id"])

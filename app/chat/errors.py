"""Errors that OpenAI's clients understand: the problem document with the member `error` that they read.

422 becomes 400 on these routes, which is what programs written for OpenAI expect of a request they got wrong.
"""

import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from app.errors import UnsupportedParameterError
from app.problems import MEDIA_TYPE, Problem, request_id_of, response_of
from retrieval.errors import PaelleraError

_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class OpenAIError(BaseModel):
    message: str
    type: str = Field(description="invalid_request_error, rate_limit_error, server_error or the like")
    param: str | None = Field(description="the parameter that is not possible")
    code: str = Field(description="as in the problem document")


class OpenAIProblem(Problem):
    """A problem document that is also an error of OpenAI's API."""

    error: OpenAIError


class OpenAIRoute(APIRoute):
    """A route whose errors have both shapes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except PaelleraError as error:
                return openai_response(error, request_id_of(request))

        return answer


def openai_response(error: PaelleraError, request_id: str) -> Response:
    """The problem document of an error, extended."""
    response = response_of(error, request_id)
    problem = json.loads(bytes(response.body))
    response.status_code = problem["status"] = openai_status(response.status_code)
    param = error.param if isinstance(error, UnsupportedParameterError) else None
    problem["error"] = openai_error(problem, param)
    headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
    return Response(
        json.dumps(problem, ensure_ascii=False).encode(), response.status_code, headers, MEDIA_TYPE
    )


def openai_status(status: int) -> int:
    """The status on these routes of what has another elsewhere."""
    return 400 if status == 422 else status


def openai_type(status: int) -> str:
    """What OpenAI calls errors of this status."""
    return _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")


def openai_error(problem: dict[str, Any], param: str | None = None) -> dict[str, Any]:
    """The member `error` for a problem document."""
    kind = openai_type(int(problem["status"]))
    error = OpenAIError(message=problem["detail"], type=kind, param=param, code=problem["code"])
    return error.model_dump()

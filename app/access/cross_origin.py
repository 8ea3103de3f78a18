"""CORS: which web pages of other origins may call the service from a browser. Without a list, none.

Keys travel in headers and there are no cookies, so credentials in the sense of CORS are never allowed.
"""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import CrossOriginRefusedError
from app.problems import response_of

_REQUEST_HEADERS = ("Authorization", "Idempotency-Key", "If-None-Match", "X-API-Key", "X-Request-Id")
_RESPONSE_HEADERS = (
    "ETag",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Cache",
    "X-Paellera-Datastore",
    "X-Paellera-Model",
    "X-Request-Id",
)


class CrossOriginMiddleware(CORSMiddleware):
    """Starlette's, with the refusal of a preflight as a problem document."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=tuple(origins),
            allow_methods=("GET", "POST"),
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_RESPONSE_HEADERS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            headers = Headers(scope=scope)
            if "origin" in headers and "access-control-request-method" in headers:
                response = self.preflight_response(headers)
                if response.status_code >= 400:
                    vary = response.headers["vary"]
                    refused = CrossOriginRefusedError(
                        "a page of this origin may not send this request: see PAELLERA_CORS_ORIGINS"
                    )
                    response = response_of(refused, scope["state"]["request_id"])
                    response.headers["Vary"] = vary
                await response(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

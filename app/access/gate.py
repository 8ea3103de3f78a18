"""Who may come in, and how often: the API key first, then the limits of the key or of the address.

In front of the routes and not a dependency of them: a body is read before dependencies run, and a route that
somebody adds is closed until it is named here. A failed login costs no place in the queue and no reading.
"""

from dataclasses import dataclass
from typing import cast

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access.client_address import ClientAddresses
from app.access.keys import KeyRing
from app.access.rate_limits import Allowance, RateLimits, Window, rate_limit_headers
from app.errors import InvalidKeyError, MissingKeyError, NotPermittedError, RateLimitedError
from app.problems import response_of
from app.request_path import request_path
from retrieval.errors import PaelleraError

# Without a key and without a limit. /metrics is not among them: it tells how much is asked for, and when.
OPEN_PATHS = frozenset(
    {"/", "/livez", "/readyz", "/openapi.json"}
    | {"/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"}
)
_CHALLENGE = 'Bearer realm="paellera"'


@dataclass(frozen=True)
class Caller:
    """Who asks, in `request.state.caller`."""

    key: str | None  # its name; None: the service is open
    admin: bool = False


class AccessMiddleware:
    """Answers 401, 429 and 503 by itself; everybody else goes on, with a `Caller` in the request's state.

    Without `keys` the service is open, and `address_allowance` holds for each client's address.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: RateLimits,
        keys: KeyRing | None = None,
        address_allowance: Allowance | None = None,
        addresses: ClientAddresses | None = None,
    ) -> None:
        self.app = app
        self._keys = keys
        self._limits = limits
        self._address_allowance = address_allowance or Allowance()
        self._addresses = addresses or ClientAddresses()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            try:
                await self.app(scope, receive, send)
            finally:
                await self._limits.close()
            return
        if scope["type"] != "http" or request_path(scope) in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        windows: list[Window] = []

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(rate_limit_headers(windows))
            await send(message)

        try:
            caller, counted_as, allowance = self._admit(scope)
            scope["state"]["caller"] = caller
            windows += await self._limits.take(counted_as, allowance)
            if windows and windows[-1].exceeded:
                raise _too_many(windows[-1])
        except PaelleraError as error:
            await _refuse(error, scope, receive, send_with_limits)
            return
        await self.app(scope, receive, send_with_limits)

    def _admit(self, scope: Scope) -> tuple[Caller, str, Allowance]:
        """The caller, what its requests are counted under, and its limits."""
        if self._keys is None:
            return Caller(None), f"address:{self._addresses.identity(scope)}", self._address_allowance
        key = self._keys.find(_token(scope))
        if key is None:
            raise InvalidKeyError("this API key is not known here")
        return Caller(key.name, key.admin), f"key:{key.name}", Allowance(key.per_minute, key.per_day)


def caller_of(request: Request) -> Caller:
    """Who asks. On an open path nobody was asked for a key."""
    return cast(Caller, getattr(request.state, "caller", None) or Caller(None))


def admin_only(request: Request) -> None:
    """A dependency for what changes the service. An open service has no admins, so nobody may.

    Raises NotPermittedError.
    """
    caller = caller_of(request)
    if caller.admin:
        return
    if caller.key is None:
        raise NotPermittedError(
            "this needs an admin key, and the service has no keys: set PAELLERA_KEYS_FILE"
        )
    raise NotPermittedError(f"this needs an admin key; {caller.key} is for captions")


def admin_or_open(request: Request) -> None:
    """A dependency for what an operator looks at, such as metrics: free to all where there are no keys.

    Raises NotPermittedError.
    """
    if caller_of(request).key is not None:
        admin_only(request)


def _token(scope: Scope) -> str:
    """The one token of a request. Raises MissingKeyError, or InvalidKeyError for several that differ."""
    headers = Headers(scope=scope)
    tokens = {value.strip() for value in headers.getlist("x-api-key")}
    for value in headers.getlist("authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer":
            tokens.add(token.strip())
    tokens.discard("")
    if not tokens:
        raise MissingKeyError("an API key is needed: send it as `Authorization: Bearer …` or as `X-API-Key`")
    if len(tokens) > 1:
        raise InvalidKeyError("the request holds several API keys that differ: send one")
    return tokens.pop()


def _too_many(window: Window) -> RateLimitedError:
    return RateLimitedError(
        f"{window.limit} requests a {window.name} are allowed here; try again in {window.resets_in} seconds",
        window.resets_in,
    )


async def _refuse(error: PaelleraError, scope: Scope, receive: Receive, send: Send) -> None:
    response = response_of(error, scope["state"]["request_id"])
    if isinstance(error, MissingKeyError):
        response.headers["WWW-Authenticate"] = _CHALLENGE
    elif isinstance(error, InvalidKeyError):
        response.headers["WWW-Authenticate"] = f'{_CHALLENGE}, error="invalid_token"'
    # A body of known length is thrown away by the server as it arrives, so that a client that only looks for
    # an answer after sending gets to see this one. One without a length could go on for ever.
    if "transfer-encoding" in Headers(scope=scope):
        response.headers["Connection"] = "close"
    await response(scope, receive, send)

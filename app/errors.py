"""Errors that only the service and the command line can meet, beside those of retrieval/errors.py."""

from retrieval.errors import InvalidImageError, InvalidRequestError, PaelleraError

COMMAND_LINE = "the command line"  # where an error is met that no request gets as an answer
_WITH_A_BODY = "captions, chats, searches"
_ASKED_FOR_A_KEY = "every request but `/livez`, `/readyz`, `/docs` and `/openapi.json`"


class NotFoundError(PaelleraError):
    """There is nothing at this address."""

    code = "not_found"
    status = 404
    advice = "Look at `/docs`, which lists all addresses."


class MethodNotAllowedError(PaelleraError):
    """The address exists, but not with this method."""

    code = "method_not_allowed"
    status = 405
    advice = "Use a method that the header `Allow` names."


class RefusedByFrameworkError(PaelleraError):
    """The HTTP framework refused the request for a reason without its own code; the status may differ."""

    code = "http_error"
    status = 400
    advice = "Read the detail."


class CrossOriginRefusedError(PaelleraError):
    """A web page of this origin may not send this request."""

    code = "cors_refused"
    status = 400
    advice = "The operator has to list the page's origin in `PAELLERA_CORS_ORIGINS`."
    where = "a browser's question before a request (`OPTIONS`)"


class MissingImageError(InvalidRequestError):
    """The request holds no image."""

    code = "no_image"
    advice = "Send one or more as `image` (JSON: `images`; in a chat: a part of type `image_url`)."
    where = "captions, chats"


class ImageTimeoutError(InvalidImageError):
    """An image takes longer to decode than is allowed."""

    code = "image_timeout"
    advice = "Send the photo smaller, or save it anew as a plain JPEG or PNG."


class UrlNotAllowedError(InvalidRequestError):
    """An image is given by an address that may not be fetched; the detail says why."""

    code = "url_not_allowed"
    advice = "Send the bytes, or a `data:` URL; which hosts are fetched from is the operator's choice."


class InvalidBodyError(InvalidRequestError):
    """The body is not the JSON or the multipart form that its Content-Type promises, or ends too early."""

    code = "invalid_body"
    status = 400
    advice = "Let a library write the body, and send all of it."


class UnsupportedBodyError(InvalidRequestError):
    """The Content-Type is none of the three of a caption request, or for a chat or a search not JSON."""

    code = "unsupported_media_type"
    status = 415
    advice = "Name the type that the body has: the detail says which are accepted."


class BodyTooLargeError(InvalidRequestError):
    """The whole request has more bytes than are read, those fetched for it included."""

    code = "body_too_large"
    status = 413
    advice = "Send fewer or smaller images at a time."
    where = "every request with a body"


class RequestTimeoutError(InvalidRequestError):
    """A request comes so slowly that the service does not wait for the rest of it."""

    code = "request_timeout"
    status = 408
    advice = "Send it again over a better connection, or with smaller images."
    where = "every request"


class MalformedRequestError(InvalidRequestError):
    """What came is not HTTP."""

    code = "malformed_request"
    status = 400
    advice = "Let a library speak HTTP."
    where = "every connection"


class IdempotencyConflictError(InvalidRequestError):
    """The Idempotency-Key has come with another request within the last ten minutes."""

    code = "idempotency_conflict"
    advice = "Use a new key for a new request."
    where = "captions, chats"


class UnknownModelError(InvalidRequestError):
    """The model named is not the one that this server has."""

    code = "model_not_found"
    status = 404
    advice = "Take the one that `GET /v1/models` lists."
    where = "chats, `/v1/models/{model}`"


class UnsupportedParameterError(InvalidRequestError):
    """A member of a chat that a captioner cannot honour; `error.param` is its name."""

    code = "unsupported_parameter"
    advice = "Leave it out."
    where = "chats"

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class DatastoreRefusedError(InvalidRequestError):
    """The version of the datastore cannot be served; the detail says why. The one before goes on serving."""

    code = "datastore_refused"
    status = 409
    advice = "Look at it with `paellera datastore verify --deep`; build it again if it is damaged."
    where = "`POST /v1/datastore/activate`"


class InvalidSettingsError(InvalidRequestError):
    """A setting from the environment or a flag is malformed or out of range."""

    code = "invalid_settings"
    where = COMMAND_LINE


class RetryLaterError(PaelleraError):
    """Not now: `retry_after` is in whole seconds and goes into the Retry-After header."""

    code = "retry_later"
    status = 503
    advice = "Send the request again after the seconds in `Retry-After`."

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFullError(RetryLaterError):
    """Too many requests wait for the model already, or they will take too long."""

    code = "queue_full"
    status = 429
    where = _WITH_A_BODY


class QueueTimeoutError(RetryLaterError):
    """The request was let in and not started in time: the model is slower than expected."""

    code = "queue_timeout"
    status = 503
    where = _WITH_A_BODY


class NotReadyError(RetryLaterError):
    """The model is still being loaded, or could not be loaded; the detail says which."""

    code = "not_ready"
    status = 503
    where = (
        "captions, chats, searches, `/v1/models`, `/v1/languages`, `/v1/datastore`, `/readyz`; `/livez` if "
        "the model could not be loaded"
    )


class MissingKeyError(PaelleraError):
    """The service wants an API key and the request has none."""

    code = "missing_key"
    status = 401
    advice = "Send the key as `Authorization: Bearer …` or as `X-API-Key`."
    where = _ASKED_FOR_A_KEY


class InvalidKeyError(PaelleraError):
    """The API key is not known here or was revoked, or the request holds several that differ."""

    code = "invalid_key"
    status = 401
    advice = "Check the key, or ask the operator for another."
    where = _ASKED_FOR_A_KEY


class NotPermittedError(PaelleraError):
    """The key is good, but not for this: it needs an admin key."""

    code = "not_permitted"
    status = 403
    advice = "Use an admin key (`paellera keys add --admin`)."
    where = "`/metrics`, and what changes the service"


class KeysFileError(PaelleraError):
    """The keys file is missing, damaged, or has no such key."""

    code = "invalid_keys_file"
    where = COMMAND_LINE


class RateLimitedError(RetryLaterError):
    """The key or the address has used up what it may ask for in this minute or day."""

    code = "rate_limited"
    status = 429
    where = _ASKED_FOR_A_KEY


class LimitsUnavailableError(RetryLaterError):
    """Requests cannot be counted because Redis does not answer, so a caller with a limit is not served."""

    code = "limits_unavailable"
    status = 503
    where = _ASKED_FOR_A_KEY


class FetchFailedError(InvalidRequestError):
    """An image given by its address could not be had; the detail says why."""

    code = "fetch_failed"
    advice = "Check that the address gives the file itself without asking for anything, or send the bytes."


class FetchTimeoutError(InvalidRequestError):
    """The images given by their addresses did not arrive in time."""

    code = "fetch_timeout"
    advice = "Send it again, or send the bytes."


class DrainingError(RetryLaterError):
    """The service is about to stop: it still answers, but requests are better sent elsewhere."""

    code = "draining"
    status = 503
    where = "`/readyz`"


class ShuttingDownError(RetryLaterError):
    """The service is stopping and accepts nothing new; it closes the connection."""

    code = "shutting_down"
    status = 503
    advice = "Send the request again, on a new connection, after the seconds in `Retry-After`."
    where = "every request but `/livez`, `/readyz` and `/metrics`"


class BodiesFullError(RetryLaterError):
    """The bodies of the requests under way have as many bytes together as the service holds."""

    code = "bodies_full"
    status = 503
    where = "every request with a body"


class TooManyConnectionsError(RetryLaterError):
    """As many connections as are allowed are open, and all of them are at work."""

    code = "too_many_connections"
    status = 503
    where = "every request but `/livez`, `/readyz` and `/metrics`"


class MissingPackageError(PaelleraError):
    """A setting needs an optional package that is not installed."""

    code = "missing_package"
    where = COMMAND_LINE

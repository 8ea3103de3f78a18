"""Errors that only the service and the command line can meet, beside those of retrieval/errors.py."""

from retrieval.errors import InvalidImageError, InvalidRequestError, PaelleraError


class MissingImageError(InvalidRequestError):
    """The request holds no image."""

    code = "no_image"


class ImageTimeoutError(InvalidImageError):
    """An image that is not decoded within the time allowed."""

    code = "image_timeout"


class UrlNotAllowedError(InvalidRequestError):
    """An image was given by an address that this service does not fetch from."""

    code = "url_not_allowed"


class InvalidBodyError(InvalidRequestError):
    """The body is not the JSON or the multipart form that its Content-Type promises."""

    code = "invalid_body"
    status = 400


class UnsupportedBodyError(InvalidRequestError):
    """The Content-Type is none of those a caption request can have."""

    code = "unsupported_media_type"
    status = 415


class BodyTooLargeError(InvalidRequestError):
    """The body has more bytes than the service reads."""

    code = "body_too_large"
    status = 413


class RequestTimeoutError(InvalidRequestError):
    """A request comes so slowly that the service does not wait for the rest of it."""

    code = "request_timeout"
    status = 408


class MalformedRequestError(InvalidRequestError):
    """What came is not HTTP."""

    code = "malformed_request"
    status = 400


class IdempotencyConflictError(InvalidRequestError):
    """The Idempotency-Key of this request has come with another request before."""

    code = "idempotency_conflict"


class UnknownModelError(InvalidRequestError):
    """The model named is not the one this server has."""

    code = "model_not_found"
    status = 404


class UnsupportedParameterError(InvalidRequestError):
    """A parameter of the chat dialect that a captioner cannot honour; `param` is its name."""

    code = "unsupported_parameter"

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class NoDatastoreError(InvalidRequestError):
    """The server captions without a datastore, so there is nothing to search."""

    code = "no_datastore"
    status = 404


class InvalidSettingsError(InvalidRequestError):
    """A setting from the environment or a flag is malformed or out of range."""

    code = "invalid_settings"


class RetryLaterError(PaelleraError):
    """Not now: `retry_after` is in whole seconds and goes into the Retry-After header."""

    code = "retry_later"
    status = 503

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFullError(RetryLaterError):
    """As many requests as are allowed are already waiting for the model."""

    code = "queue_full"
    status = 429


class QueueTimeoutError(RetryLaterError):
    """A request was let in and not started in time: the model is slower than expected."""

    code = "queue_timeout"
    status = 503


class NotReadyError(RetryLaterError):
    """The model is still being loaded, or could not be loaded."""

    code = "not_ready"
    status = 503


class MissingKeyError(PaelleraError):
    """The service wants an API key and the request has none."""

    code = "missing_key"
    status = 401


class InvalidKeyError(PaelleraError):
    """The API key is none of those in the keys file."""

    code = "invalid_key"
    status = 401


class NotPermittedError(PaelleraError):
    """The key is good, but not for this."""

    code = "not_permitted"
    status = 403


class KeysFileError(PaelleraError):
    """The keys file is missing, damaged, or has no such key."""

    code = "invalid_keys_file"


class RateLimitedError(RetryLaterError):
    """The key or the address has used up what it may ask for in this minute or day."""

    code = "rate_limited"
    status = 429


class LimitsUnavailableError(RetryLaterError):
    """Requests cannot be counted, so a caller with a limit is not served."""

    code = "limits_unavailable"
    status = 503


class FetchFailedError(InvalidRequestError):
    """An image given by its address could not be had."""

    code = "fetch_failed"


class FetchTimeoutError(InvalidRequestError):
    """The images given by their addresses did not arrive in time."""

    code = "fetch_timeout"


class DrainingError(RetryLaterError):
    """The service is about to stop: it still accepts requests, but they are better sent elsewhere."""

    code = "draining"
    status = 503


class ShuttingDownError(RetryLaterError):
    """The service is stopping and accepts nothing new."""

    code = "shutting_down"
    status = 503


class BodiesFullError(RetryLaterError):
    """The bodies of the requests under way have as many bytes together as the service holds."""

    code = "bodies_full"
    status = 503


class TooManyConnectionsError(RetryLaterError):
    """As many connections as are allowed are open, and all of them are at work."""

    code = "too_many_connections"
    status = 503


class MissingPackageError(PaelleraError):
    """A setting needs an optional package that is not installed."""

    code = "missing_package"

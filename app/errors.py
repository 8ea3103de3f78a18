"""Errors that only the service and the command line can meet, beside those of retrieval/errors.py."""

from retrieval.errors import InvalidRequestError, PaelleraError


class MissingImageError(InvalidRequestError):
    """The request holds no image."""

    code = "no_image"


class UrlNotAllowedError(InvalidRequestError):
    """An image was given by its address; this service fetches nothing."""

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


class NotReadyError(RetryLaterError):
    """The model is still being loaded, or could not be loaded."""

    code = "not_ready"
    status = 503


class DrainingError(RetryLaterError):
    """The service is about to stop: it still accepts requests, but they are better sent elsewhere."""

    code = "draining"
    status = 503


class ShuttingDownError(RetryLaterError):
    """The service is stopping and accepts nothing new."""

    code = "shutting_down"
    status = 503


class MissingPackageError(PaelleraError):
    """A setting needs an optional package that is not installed."""

    code = "missing_package"

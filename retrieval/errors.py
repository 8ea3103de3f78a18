"""The errors a user can meet. Each carries a stable `code`; the command line prints the message on one
line and the HTTP service turns it into a problem document, so neither ever shows a traceback.

This is the lowest module of the project: every package may import it and it imports nothing.
"""


class PaelleraError(Exception):
    """Something failed in a way the user can understand and act on. The message says what to do."""

    code = "internal_error"
    status = 500


class InvalidRequestError(PaelleraError):
    """A parameter is missing, unknown or out of range."""

    code = "invalid_request"
    status = 422


class UnknownLanguageError(InvalidRequestError):
    """The language asked for is not one the bundle can write."""

    code = "unknown_language"


class InvalidImageError(InvalidRequestError):
    """The bytes are not an image we can decode: wrong format, truncated, empty."""

    code = "invalid_image"


class ImageTooLargeError(InvalidImageError):
    """The image's header announces more pixels, or the body more bytes, than the limit."""

    code = "image_too_large"
    status = 413


class BundleError(PaelleraError):
    """A bundle is missing, damaged, or its parts do not fit together."""

    code = "invalid_bundle"


class DatastoreError(PaelleraError):
    """A datastore is missing, damaged, or was built with another embedder."""

    code = "invalid_datastore"

"""The errors a user can meet. Each carries a stable `code`; the command line prints the message on one
line and the HTTP service turns it into a problem document, so neither ever shows a traceback.

docs/errors.md is made of these classes and those of app/errors.py: the docstring says what has happened,
`advice` what to do, `where` which requests meet it. This is the lowest module of the project: every package
may import it and it imports nothing.
"""


class PaelleraError(Exception):
    """Something failed on the server; its log has the details under the `request_id`."""

    code = "internal_error"
    status = 500
    advice = "Try again later; if it happens again, give the operator the `request_id`."
    where = "any request"


class InvalidRequestError(PaelleraError):
    """A parameter is missing, unknown, malformed or out of range; or there is too much of something."""

    code = "invalid_request"
    status = 422
    advice = "Read the detail: it names the parameter and what is accepted."
    where = "captions, chats, searches"


class UnknownLanguageError(InvalidRequestError):
    """The language asked for is not one that the bundle can write, or not the name of a language."""

    code = "unknown_language"
    advice = "Take one of `GET /v1/languages`; the detail names them, and what may have been meant."


class InvalidImageError(InvalidRequestError):
    """The bytes are not a picture that can be decoded: another format, empty, truncated or damaged.

    Of several images the detail says which one.
    """

    code = "invalid_image"
    advice = "Send the whole file, in one of the formats that the detail names, or save the photo anew."


class ImageTooLargeError(InvalidImageError):
    """An image has more bytes, or by its header more pixels, than are accepted, or needs too much memory."""

    code = "image_too_large"
    status = 413
    advice = "Send the photo smaller: no model here looks at more than 1024 pixels."


class BundleError(PaelleraError):
    """The server's bundle is missing, damaged, or its parts do not fit together."""

    code = "invalid_bundle"
    advice = "Nothing a caller can do; the operator finds the reason in the log (`paellera bundle verify`)."
    where = "captions, chats, searches"


class DatastoreError(PaelleraError):
    """The server's datastore is missing, damaged, or was built with another embedder."""

    code = "invalid_datastore"
    advice = "Nothing a caller can do; the operator finds the reason in the log (`paellera datastore info`)."
    where = "captions, chats, searches"

"""The three bodies a caption request can have, read into one form: multipart, a raw image, JSON.

Bodies come from anyone: what is malformed raises an InvalidRequestError whose message never repeats the body.
Images are not decoded here; the total size is bounded by app/api/body_limit.py.
"""

from dataclasses import dataclass
from typing import TypeVar

from anyio import to_thread
from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from app.access.fetching import ImageFetcher
from app.api.form_parser import read_form
from app.api.image_inputs import read_image_inputs
from app.errors import InvalidBodyError, MissingImageError, UnsupportedBodyError
from app.schemas import CaptionBody, CaptionParameters
from app.settings import Settings
from app.validation import describe_invalid, parse_parameters, shown
from retrieval.errors import ImageTooLargeError, InvalidRequestError

Document = TypeVar("Document", bound=BaseModel)
_MAX_FIELDS = 100
_MAX_FIELD_BYTES = 1000
_MAX_COMMAS = 20_000
_ACCEPTED = "multipart/form-data, image/* (the file's bytes) or application/json"


@dataclass(frozen=True)
class CaptionRequest:
    images: list[bytes]  # one or more
    parameters: CaptionParameters


async def read_caption_request(
    request: Request, settings: Settings, fetcher: ImageFetcher | None = None
) -> CaptionRequest:
    """Reads the body by its Content-Type, and with `fetcher` what it names by url.

    Raises InvalidRequestError.
    """
    content_type = _content_type(request)
    if content_type == "multipart/form-data":
        _refuse_query(request, "form fields")
        images, parameters = await _read_form(request, settings)
    elif content_type == "application/json":
        _refuse_query(request, "members of the JSON document")
        body = await read_all(request)
        document = await to_thread.run_sync(parse_document, CaptionBody, body)
        images = await read_image_inputs(document.images, settings, fetcher)
        parameters = CaptionParameters.model_validate(document.model_dump(exclude={"images"}))
    elif content_type.startswith("image/") or content_type == "application/octet-stream":
        parameters = parse_parameters(request.query_params.multi_items())
        images = [await read_all(request)]
    else:
        sent = f"not {shown(content_type)!r}" if content_type else "and there is none"
        raise UnsupportedBodyError(f"the Content-Type must be {_ACCEPTED}, {sent}")
    if not images:
        raise MissingImageError("the request holds no image: send one or more as `image` (JSON: `images`)")
    if len(images) > settings.max_images:
        raise InvalidRequestError(f"at most {settings.max_images} images in one request")
    return CaptionRequest(images, parameters)


async def read_document(request: Request, model: type[Document]) -> Document:
    """The body of a request that can only be JSON.

    Raises UnsupportedBodyError, and as `parse_document`.
    """
    _check_is_json(request)
    return await to_thread.run_sync(parse_document, model, await read_all(request))


async def read_optional_document(request: Request, model: type[Document]) -> Document:
    """As `read_document`; where there is no body, the model with its defaults."""
    body = await read_all(request)
    if not body:
        return model()
    _check_is_json(request)
    return await to_thread.run_sync(parse_document, model, body)


def _check_is_json(request: Request) -> None:
    if _content_type(request) != "application/json":
        raise UnsupportedBodyError("the Content-Type must be application/json")


def parse_document(model: type[Document], body: bytes) -> Document:
    """A JSON body as its model. Raises InvalidBodyError or InvalidRequestError."""
    # Pydantic makes an error of 1 kB for each wrong item, however many: megabytes would become gigabytes.
    if body.count(b",") > _MAX_COMMAS:
        raise InvalidRequestError(f"the document has more than {_MAX_COMMAS:,} members, items and commas")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
            raise InvalidBodyError("the body is not valid JSON") from None
        raise InvalidRequestError(describe_invalid(error, model.model_fields)) from None


async def _read_form(request: Request, settings: Settings) -> tuple[list[bytes], CaptionParameters]:
    images: list[bytes] = []
    fields: list[tuple[str, str]] = []
    try:
        form = await read_form(
            request, max_files=settings.max_images, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
        )
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise InvalidRequestError(f"at most {settings.max_images} images in one request") from None
        raise InvalidBodyError(f"the form cannot be read: {error.message}") from None
    except (ValueError, LookupError):  # such as a charset that Python knows and cannot decode with
        raise InvalidBodyError("the form cannot be read") from None
    try:
        for name, value in form.multi_items():
            if not isinstance(value, UploadFile):
                if name == "image":
                    raise MissingImageError("image must be a file: with curl, -F image=@photo.jpg")
                fields.append((name, value))
            elif name != "image":
                raise InvalidRequestError(f"files are sent as `image`, not as {shown(name)!r}")
            else:
                if value.size is not None and value.size > settings.max_image_bytes:
                    raise ImageTooLargeError(
                        f"image {len(images) + 1} has {value.size:,} bytes; "
                        f"at most {settings.max_image_bytes:,} are accepted"
                    )
                images.append(await value.read())
    finally:
        await form.close()
    return images, parse_parameters(fields)


async def read_all(request: Request) -> bytes:
    """The whole body, which app/api/body_limit.py bounds."""
    # Not request.body(): it keeps a copy for as long as the request lives.
    return b"".join([chunk async for chunk in request.stream()])


def _refuse_query(request: Request, instead: str) -> None:
    if request.query_params:
        raise InvalidRequestError(f"query parameters go with a raw image body only; here send {instead}")


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()

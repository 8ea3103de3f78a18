"""The three bodies a caption request can have, read into one form: multipart, a raw image, JSON.

Bodies come from anyone: what is malformed raises an InvalidRequestError whose message never repeats the body.
Images are not decoded here; the total size is bounded by app/middleware.py.
"""

import base64
import binascii
from collections.abc import Sequence, Sized
from dataclasses import dataclass

from anyio import to_thread
from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from app.errors import InvalidBodyError, MissingImageError, UnsupportedBodyError, UrlNotAllowedError
from app.fetching import ImageFetcher
from app.schemas import CaptionBody, CaptionParameters
from app.settings import Settings
from app.validation import describe_invalid, parse_parameters, shown
from retrieval.errors import ImageTooLargeError, InvalidImageError, InvalidRequestError

_MAX_FIELDS = 100
_MAX_FIELD_BYTES = 1000
_ACCEPTED = "multipart/form-data, image/* (the file's bytes) or application/json"


@dataclass(frozen=True)
class CaptionRequest:
    images: list[bytes]  # one or more
    parameters: CaptionParameters


async def read_caption_request(
    request: Request, settings: Settings, fetcher: ImageFetcher | None = None
) -> CaptionRequest:
    """Reads the body by its Content-Type; images given by address are fetched. Raises InvalidRequestError."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        _refuse_query(request, "form fields")
        images, parameters = await _read_form(request, settings)
    elif content_type == "application/json":
        _refuse_query(request, "members of the JSON document")
        body = await _read_all(request)
        given, parameters = await to_thread.run_sync(_parse_json, body)
        _check_count(given, settings)
        images = await _with_fetched(given, fetcher)
    elif content_type.startswith("image/") or content_type == "application/octet-stream":
        parameters = parse_parameters(request.query_params.multi_items())
        images = [await _read_all(request)]
    else:
        sent = f"not {shown(content_type)!r}" if content_type else "and there is none"
        raise UnsupportedBodyError(f"the Content-Type must be {_ACCEPTED}, {sent}")
    _check_count(images, settings)
    return CaptionRequest(images, parameters)


def _check_count(images: Sized, settings: Settings) -> None:
    if not images:
        raise MissingImageError("the request holds no image: send one or more as `image` (JSON: `images`)")
    if len(images) > settings.max_images:
        raise InvalidRequestError(f"at most {settings.max_images} images in one request")


async def _with_fetched(given: Sequence[bytes | str], fetcher: ImageFetcher | None) -> list[bytes]:
    """The images, those given as addresses (str) fetched."""
    urls = {place: image for place, image in enumerate(given) if isinstance(image, str)}
    if urls and fetcher is None:
        raise UrlNotAllowedError("images by url are not fetched here: send the bytes as base64")
    fetched = await fetcher.fetch(urls, len(given)) if urls and fetcher is not None else {}
    return [fetched[place] if isinstance(image, str) else image for place, image in enumerate(given)]


def _parse_json(body: bytes) -> tuple[list[bytes | str], CaptionParameters]:
    """The images as bytes, or as the address they are at."""
    try:
        document = CaptionBody.model_validate_json(body)
    except ValidationError as error:
        if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
            raise InvalidBodyError("the body is not valid JSON") from None
        raise InvalidRequestError(describe_invalid(error, CaptionBody.model_fields)) from None
    images: list[bytes | str] = []
    for number, image in enumerate(document.images, start=1):
        if image.base64 is None:
            images.append(image.url or "")
            continue
        text = image.base64
        if text.startswith("data:"):
            text = text.partition(",")[2]
        try:
            images.append(base64.b64decode("".join(text.split()), validate=True))
        except (binascii.Error, ValueError):
            raise InvalidImageError(f"image {number} of {len(document.images)}: not valid base64") from None
    parameters = CaptionParameters.model_validate(document.model_dump(exclude={"images"}))
    return images, parameters


async def _read_form(request: Request, settings: Settings) -> tuple[list[bytes], CaptionParameters]:
    images: list[bytes] = []
    fields: list[tuple[str, str]] = []
    form = request.form(max_files=settings.max_images, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES)
    try:
        parts = (await form).multi_items()
    except HTTPException as error:
        if str(error.detail).startswith("Too many files"):
            raise InvalidRequestError(f"at most {settings.max_images} images in one request") from None
        raise InvalidBodyError(f"the form cannot be read: {error.detail}") from None
    except (ValueError, LookupError):  # such as a charset that Python knows and cannot decode with
        raise InvalidBodyError("the form cannot be read") from None
    try:
        for name, value in parts:
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
        await request.close()
    return images, parse_parameters(fields)


async def _read_all(request: Request) -> bytes:
    # Not request.body(): it keeps a copy for as long as the request lives.
    return b"".join([chunk async for chunk in request.stream()])


def _refuse_query(request: Request, instead: str) -> None:
    if request.query_params:
        raise InvalidRequestError(f"query parameters go with a raw image body only; here send {instead}")

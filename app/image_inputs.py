"""An image named in a JSON document → its bytes; what captions, chats and searches have in common."""

import base64
import binascii
from collections.abc import Sequence

from anyio import to_thread

from app.errors import UrlNotAllowedError
from app.schemas import ImageInput
from app.settings import Settings
from retrieval.errors import ImageTooLargeError, InvalidImageError, InvalidRequestError


async def read_image_inputs(images: Sequence[ImageInput], settings: Settings) -> list[bytes]:
    """All images of a request. Raises InvalidRequestError for too many, and as `read_image_input`."""
    if len(images) > settings.max_images:
        raise InvalidRequestError(f"at most {settings.max_images} images in one request")
    return [
        await read_image_input(image, f"image {number} of {len(images)}", settings)
        for number, image in enumerate(images, start=1)
    ]


async def read_image_input(image: ImageInput, place: str, settings: Settings) -> bytes:
    """The bytes of an image that is given as base64, as a data: URL or by its address.

    Raises UrlNotAllowedError for an address, InvalidImageError for what is not base64 and ImageTooLargeError;
    their messages begin with `place`.
    """
    if image.base64 is not None:
        text = image.base64
    elif image.url is not None and image.url[:5].lower() == "data:":
        text = image.url
    else:
        raise UrlNotAllowedError(
            f"{place}: images are not fetched by their address here: send the bytes as base64"
        )
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise InvalidImageError(f"{place}: the data: URL is not in base64")
    try:
        data = await to_thread.run_sync(_decode, text)
    except (binascii.Error, ValueError):
        raise InvalidImageError(f"{place}: not valid base64") from None
    if len(data) > settings.max_image_bytes:
        raise ImageTooLargeError(
            f"{place} has {len(data):,} bytes; at most {settings.max_image_bytes:,} are accepted"
        )
    return data


def _decode(text: str) -> bytes:
    return base64.b64decode("".join(text.split()), validate=True)

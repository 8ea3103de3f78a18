"""An image named in a JSON document → its bytes; what captions, chats and searches have in common."""

import base64
import binascii
from collections.abc import Sequence

from anyio import to_thread

from app.access.fetching import ImageFetcher
from app.errors import UrlNotAllowedError
from app.schemas import ImageInput
from app.settings import Settings
from retrieval.errors import ImageTooLargeError, InvalidImageError, InvalidRequestError


async def read_image_inputs(
    images: Sequence[ImageInput], settings: Settings, fetcher: ImageFetcher | None
) -> list[bytes]:
    """The bytes of all images of a request: given as base64, as data: URLs, or by their address.

    Raises:
        InvalidRequestError: too many images.
        UrlNotAllowedError: an address, and there is no `fetcher`; otherwise as `ImageFetcher.fetch`.
        InvalidImageError: what is not base64.
        ImageTooLargeError: more bytes than an image may have.
    """
    if len(images) > settings.max_images:
        raise InvalidRequestError(f"at most {settings.max_images} images in one request")
    addresses = {
        place: image.url
        for place, image in enumerate(images)
        if image.url is not None and not _is_data(image.url)
    }
    if addresses and fetcher is None:
        raise UrlNotAllowedError(
            f"image {min(addresses) + 1} of {len(images)}: images are not fetched by their address here: send"
            " the bytes as base64"
        )
    read = {
        place: await _read_base64(
            image.base64 or image.url or "", f"image {place + 1} of {len(images)}", settings
        )
        for place, image in enumerate(images)
        if place not in addresses
    }
    if addresses and fetcher is not None:  # last: nothing is fetched for a request that is refused
        read |= await fetcher.fetch(addresses, len(images))
    return [read[place] for place in range(len(images))]


async def _read_base64(text: str, place: str, settings: Settings) -> bytes:
    if _is_data(text):
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


def _is_data(text: str) -> bool:
    return text[:5].lower() == "data:"


def _decode(text: str) -> bytes:
    return base64.b64decode("".join(text.split()), validate=True)

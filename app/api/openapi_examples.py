"""Examples in the OpenAPI document: what a request and its reply look like."""

from typing import Any

CAPTION_BODY: dict[str, Any] = {
    "images": [{"base64": "/9j/4AAQSkZJRg…"}],
    "languages": ["es", "ar"],
    "max_length": 125,
}

_SPANISH: dict[str, Any] = {
    "language": "es",
    "text": "Un gato duerme en una silla.",
    "confidence": 0.81,
    "alternatives": [],
    "neighbours": [
        {"id": "cat-chair", "text": "Un gato en una silla.", "language": "es", "score": 0.4213},
    ],
}
_IMAGE: dict[str, Any] = {"width": 451, "height": 300, "format": "PNG"}
_REST: dict[str, Any] = {
    "id": "cap-5f0c7a1d9be24c6f8a3e1b7d",
    "model": {"bundle": "compact", "revision": "2a0e1d8e9f25"},
    "datastore": {"version": "20261120T101500Z-1f0c7a1d9be2"},
}
_TIMINGS = {"queue": 0.1, "decode": 6.2, "encode": 31.0, "retrieve": 1.4, "generate": 120.7}

CAPTION_REPLY: dict[str, Any] = {
    **_REST,
    "images": [{**_IMAGE, "captions": [_SPANISH]}],
    "timings_ms": _TIMINGS,
}

CAPTION_EVENTS = (
    'event: caption\ndata: {"image": 0, "language": "es", "text": "Un gato duerme en una silla.", …}\n\n'
    'event: reply\ndata: {"id": "cap-5f0c7a1d9be24c6f8a3e1b7d", "images": [{"width": 451, …}], …}\n\n'
)

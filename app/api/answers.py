"""From a request that was read to the reply that is sent: what is asked for twice is captioned once.

Two requests are the same if their images have the same bytes, their settings and languages are the same, and
bundle and datastore are. Callers with different API keys share nothing, so nobody can find out what
another caller has asked. An Idempotency-Key does the same for retries, whatever happens to bundle, datastore
and cache between them.
"""

import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import quote

from anyio import to_thread
from fastapi import Request, Response

from app.access.gate import caller_of
from app.api.bodies import CaptionRequest
from app.api.reply_cache import Answer, ReplyStore, StoredReply
from app.errors import QueueFullError
from app.model_holder import ModelFacts
from app.schemas import CaptionParameters
from app.service import CaptionService
from app.settings import Settings
from retrieval.errors import InvalidRequestError

_RETRY_SECONDS = 600
_RETRY_BYTES = 4_000_000
_BODIES_READ_WHILE_FULL = 8
_IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Answers:
    """What this application has answered lately."""

    def __init__(self, settings: Settings) -> None:
        self._caching = settings.cache_bytes > 0
        self._cache = ReplyStore(settings.cache_bytes)
        self._retries = ReplyStore(_RETRY_BYTES, _RETRY_SECONDS)
        self._read_while_full = 0

    @contextmanager
    def reading(self, request: Request, service: CaptionService) -> Iterator[None]:
        """While the body of a request for captions is read: one that can only be refused is not.

        When too many wait, a reply that is there or being made can still be given. So a few bodies at a time
        are read to see whether they ask for one; the others are refused by `service.caption`.

        Raises NotReadyError or QueueFullError.
        """
        full = False
        try:
            service.check_room()
        except QueueFullError:
            if self._read_while_full >= _BODIES_READ_WHILE_FULL or not self._may_have(request):
                raise
            full = True
        self._read_while_full += full
        try:
            yield
        finally:
            self._read_while_full -= full

    async def caption(
        self, request: Request, service: CaptionService, asked: CaptionRequest, languages: tuple[str, ...]
    ) -> Answer:
        """The reply for these images, made now or before. Empties `asked.images`.

        Raises IdempotencyConflictError, and what `service.caption` raises.
        """
        retry_key = _idempotency_key(request)
        if not self._caching and retry_key is None:
            return await _run(service, asked.images, asked.parameters, languages)
        owner = caller_of(request).key
        content = await to_thread.run_sync(_fingerprint, asked.images, asked.parameters, languages)

        async def through_cache() -> Answer:
            if not self._caching:
                return await _run(service, asked.images, asked.parameters, languages)
            # The model may be exchanged while the reply is made: it is kept under the versions that it names.
            shared = self._cache.open(
                (owner, content, *_versions(service.model)),
                lambda: _run(service, asked.images, asked.parameters, languages),
                keep_as=lambda reply: (owner, content, reply.model, reply.datastore),
            )
            if shared.joined:
                asked.images.clear()  # those who wait hold no files
            return await shared.result()

        if retry_key is None:
            return await through_cache()
        fingerprint = request.url.path.encode() + content
        retry = self._retries.open((owner, retry_key), through_cache, fingerprint)
        if retry.joined:
            asked.images.clear()
        return await retry.result()

    def _may_have(self, request: Request) -> bool:
        """Whether there may be a reply for this request, as far as its headers tell."""
        retry_key = request.headers.get("idempotency-key")
        known = retry_key is not None and (caller_of(request).key, retry_key) in self._retries
        return known or not self._cache.is_empty


def caption_headers(answer: Answer | None) -> dict[str, str]:
    """What a reply with captions carries beside them; of an answer that is not there yet nothing is known."""
    headers = {"Vary": "Accept, Accept-Language"}
    if answer is not None:
        headers["X-Paellera-Model"] = answer.reply.model
        headers["X-Paellera-Datastore"] = answer.reply.datastore
        headers["X-Cache"] = "hit" if answer.hit else "miss"
    return headers


def caption_response(answer: Answer, request_headers: Mapping[str, str]) -> Response:
    """The reply with its ETag, or 304 if the caller has it already."""
    headers = caption_headers(answer) | {"ETag": answer.reply.etag}
    if _has(request_headers.get("if-none-match", ""), answer.reply.etag):
        return Response(status_code=304, headers=headers)
    return Response(answer.reply.body, headers=headers, media_type="application/json")


async def _run(
    service: CaptionService, images: list[bytes], parameters: CaptionParameters, languages: tuple[str, ...]
) -> Answer:
    reply = await service.caption(images, parameters, languages)
    stored = StoredReply(
        reply.model_dump_json().encode(),
        int(time.time()),
        _model_name(reply.model.bundle, reply.model.revision),
        _header_text(reply.datastore.version),
    )
    return Answer(stored, hit=False)


def _fingerprint(images: Sequence[bytes], parameters: CaptionParameters, languages: tuple[str, ...]) -> bytes:
    """SHA-256 of what was asked for. `languages` are the resolved ones."""
    if parameters.temperature is None:  # a search has no use for it
        parameters = parameters.model_copy(update={"seed": 0})
    digest = hashlib.sha256(parameters.model_dump_json(exclude={"languages"}).encode())
    digest.update(",".join(languages).encode())
    for image in images:
        digest.update(hashlib.sha256(image).digest())
    return digest.digest()


def _versions(model: ModelFacts) -> tuple[str, str]:
    """As a reply of this model names them."""
    return _model_name(model.bundle_name, model.revision), _header_text(model.datastore.version)


def _model_name(bundle: str, revision: str) -> str:
    return _header_text(f"{bundle}@{revision}")


def _idempotency_key(request: Request) -> str | None:
    given = request.headers.get("idempotency-key")
    if given is not None and not _IDEMPOTENCY_KEY.fullmatch(given):
        raise InvalidRequestError("Idempotency-Key must be 1 to 64 of A–Z a–z 0–9 . _ -")
    return given


def _has(if_none_match: str, etag: str) -> bool:
    """Weak comparison, as If-None-Match wants it (RFC 9110, 13.1.2)."""
    return etag in (candidate.strip().removeprefix("W/") for candidate in if_none_match.split(","))


def _header_text(text: str) -> str:
    """Percent-encoded where it is not plain ASCII: a header holds no other."""
    return quote(text, safe="@ !#$&'()*+,-./:;=?[]^_`{|}~")

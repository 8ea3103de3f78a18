"""One captioner behind many requests: loaded once, warmed up, used by one thread at a time.

A request is admitted or refused before it costs anything, its images are decoded in a bounded pool, and then
it waits its turn. Knows nothing of HTTP; errors are PaelleraErrors. Requests are not merged into batches.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeVar

import structlog
from anyio import CapacityLimiter, to_thread
from PIL import Image

from app.errors import NoDatastoreError, NotReadyError, QueueFullError
from app.images import DecodedImage, decode_image
from app.model import CaptionModel
from app.negotiation import default_language
from app.reply import describe_reply, to_settings
from app.schemas import CaptionParameters, CaptionReply
from app.settings import Settings
from retrieval.errors import InvalidImageError

if TYPE_CHECKING:
    from models.captioner import CaptionResult
    from retrieval.datastore import Neighbour
    from retrieval.manifest import Manifest

T = TypeVar("T")
_LONGEST_RETRY = 60  # seconds
_log = structlog.get_logger("paellera.service")


class CaptionService:
    """Create it inside the event loop that will use it."""

    def __init__(self, load: Callable[[], CaptionModel], settings: Settings) -> None:
        self.status: Literal["loading", "ready", "failed"] = "loading"
        self.settings = settings
        self._load = load
        self._model: CaptionModel | None = None
        self._model_limiter = CapacityLimiter(1)  # one batch on the model at a time
        self._decode_limiter = CapacityLimiter(settings.decode_workers)
        self._admitted = 0
        self._seconds_per_request = 0.5  # running mean, for Retry-After

    async def start(self) -> None:
        """Loads the model and captions a warm-up image with it; then the status is `ready`.

        Raises what loading raises; the status is `failed` then.
        """
        started = time.perf_counter()
        try:
            model = await to_thread.run_sync(self._load, limiter=self._model_limiter)
            picture = Image.linear_gradient("L").convert("RGB")
            settings = to_settings(CaptionParameters(), (self._default_of(model),), 1)
            await to_thread.run_sync(model.caption, [picture], settings, limiter=self._model_limiter)
        except Exception:
            self.status = "failed"
            raise
        self._model = model
        self.status = "ready"
        _log.info(
            "model_ready",
            bundle=model.bundle_name,
            revision=model.revision,
            languages=len(model.languages),
            seconds=round(time.perf_counter() - started, 1),
        )

    @property
    def model(self) -> CaptionModel:
        """Raises NotReadyError while there is none."""
        if self._model is None:
            if self.status == "failed":
                raise NotReadyError("the model could not be loaded; the service's log says why", 30)
            raise NotReadyError("the model is being loaded", 2)
        return self._model

    @property
    def default_language(self) -> str:
        return self._default_of(self.model)

    def check_room(self) -> None:
        """Raises NotReadyError or QueueFullError: asked before a body is read, to refuse cheaply."""
        _ = self.model
        if self._admitted >= self.settings.max_waiting + 1:  # one is running
            seconds = math.ceil(self._admitted * self._seconds_per_request)
            raise QueueFullError(
                f"{self.settings.max_waiting} requests are waiting already; try again later",
                max(1, min(seconds, _LONGEST_RETRY)),
            )

    async def caption(
        self, images: list[bytes], parameters: CaptionParameters, languages: tuple[str, ...]
    ) -> CaptionReply:
        """Captions every image in every language, in one batch.

        `images` is emptied once decoded: a waiting request holds small pictures, not the files sent.
        Raises InvalidImageError (naming which image), InvalidRequestError, QueueFullError or NotReadyError.
        """
        model = self.model
        settings = to_settings(parameters, languages, len(images))
        with self._admission():
            arrived = time.perf_counter()
            decoded, decode_seconds = await to_thread.run_sync(
                _timed, lambda: self._decode(images), limiter=self._decode_limiter
            )
            images.clear()

            def run() -> "CaptionResult":
                return model.caption([item.image for item in decoded], settings)

            result, model_seconds = await to_thread.run_sync(_timed, run, limiter=self._model_limiter)
            queue_seconds = time.perf_counter() - arrived - decode_seconds - model_seconds
        self._seconds_per_request += 0.1 * (model_seconds - self._seconds_per_request)
        timings_ms = {"queue": 1000 * max(queue_seconds, 0.0), "decode": 1000 * decode_seconds}
        return describe_reply(model, decoded, result, timings_ms)

    async def search(self, query: str | bytes, language: str, k: int) -> "list[Neighbour]":
        """Up to k captions of the datastore near a text or a photo, best first.

        Waits for the model as captions do. Raises InvalidImageError, NoDatastoreError, QueueFullError or
        NotReadyError.
        """
        model = self.model
        store = model.datastore
        if store is None:
            raise NoDatastoreError("this server has no datastore")
        with self._admission():
            decoded: list[DecodedImage] = []
            if isinstance(query, bytes):
                decoded = await to_thread.run_sync(self._decode, [query], limiter=self._decode_limiter)

            def run() -> "list[Neighbour]":
                if isinstance(query, str):
                    vectors = model.embed_texts([query])
                else:
                    vectors = model.embed_images([item.image for item in decoded])
                return store.neighbours(vectors, [[language]], k)[0][0]

            return await to_thread.run_sync(run, limiter=self._model_limiter)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has in the model's vocabulary. Raises NotReadyError."""
        return await to_thread.run_sync(self.model.count_tokens, texts)

    @property
    def datastore(self) -> "Manifest":
        """What is known of the datastore. Raises NoDatastoreError or NotReadyError."""
        if self.model.datastore is None:
            raise NoDatastoreError("this server has no datastore")
        return self.model.datastore.manifest

    @contextmanager
    def _admission(self) -> Iterator[None]:
        self.check_room()
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    def _decode(self, images: Sequence[bytes]) -> list[DecodedImage]:
        decoded = []
        for number, data in enumerate(images, start=1):
            try:
                decoded.append(decode_image(data, self.settings.image_limits))
            except InvalidImageError as error:
                if len(images) == 1:
                    raise
                raise type(error)(f"image {number} of {len(images)}: {error}") from error
        return decoded

    def _default_of(self, model: CaptionModel) -> str:
        return default_language(self.settings.default_language, model.languages)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started

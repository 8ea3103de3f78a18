"""One captioner behind many requests: loaded once, warmed up, used by one thread at a time.

A request is admitted or refused before it costs anything, its images are decoded in a bounded pool, and then
it waits its turn. Knows nothing of HTTP; errors are PaelleraErrors. Requests are not merged into batches.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeVar

from anyio import CapacityLimiter, to_thread
from PIL import Image

from app.errors import NotReadyError, QueueFullError
from app.images import DecodedImage, decode_image
from app.metrics import Metrics
from app.model import CaptionModel
from app.model_holder import ModelFacts, ModelHolder
from app.negotiation import default_language
from app.reply import describe_reply, to_settings
from app.schemas import CaptionParameters, CaptionReply
from app.settings import Settings
from app.tracing import Tracing
from retrieval.errors import InvalidImageError

if TYPE_CHECKING:
    from models.captioner import CaptionResult

T = TypeVar("T")
_LONGEST_RETRY = 60  # seconds


class CaptionService:
    """Create it inside the event loop that will use it."""

    def __init__(
        self,
        load: Callable[[], CaptionModel],
        settings: Settings,
        metrics: Metrics | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics or Metrics()
        self._tracing = tracing or Tracing(None)
        self._load = load
        self.holder = ModelHolder(self._load_warm, settings.unload_after_seconds)
        self._model_limiter = CapacityLimiter(1)  # one batch on the model at a time
        self._decode_limiter = CapacityLimiter(settings.decode_workers)
        self._admitted = 0
        self._number = 0  # of the latest request
        self._waiting: dict[int, float] = {}  # since when, oldest first
        self._seconds_per_request = 0.5  # running mean, for Retry-After
        self.metrics.watch_queue(lambda: len(self._waiting), self._oldest_wait)
        self.metrics.watch_model(lambda: self.holder.loaded)

    async def start(self) -> None:
        """Loads the model and captions a warm-up image with it; then the status is `ready`.

        Raises what loading raises; the status is `failed` then.
        """
        async with self.holder.model():
            pass

    @property
    def status(self) -> Literal["loading", "ready", "failed"]:
        if self.holder.failed:
            return "failed"
        return "loading" if self.holder.facts is None else "ready"

    @property
    def model(self) -> ModelFacts:
        """What is known of the model, which may be away. Raises NotReadyError if it was never loaded."""
        if self.holder.facts is None:
            self.check_ready()
        assert self.holder.facts is not None
        return self.holder.facts

    def check_ready(self) -> None:
        """Raises NotReadyError if the model was not loaded yet, or if the last attempt at it failed."""
        if self.holder.failed:
            raise NotReadyError("the model could not be loaded; the service's log says why", 30)
        if self.holder.facts is None:
            raise NotReadyError("the model is being loaded", 2)

    @property
    def default_language(self) -> str:
        return self._default_of(self.model.languages)

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
        settings = to_settings(parameters, languages, len(images))
        with self._admission() as number:
            arrived = time.perf_counter()
            decoded, decode_seconds = await to_thread.run_sync(
                _timed, lambda: self._decode(images), limiter=self._decode_limiter
            )
            images.clear()

            async with self.holder.model() as model:

                def run() -> "CaptionResult":
                    return model.caption([item.image for item in decoded], settings)

                async with self._model_limiter:
                    self._waiting.pop(number, None)
                    result, model_seconds = await to_thread.run_sync(_timed, run)
            queue_seconds = time.perf_counter() - arrived - decode_seconds - model_seconds
        self._seconds_per_request += 0.1 * (model_seconds - self._seconds_per_request)
        timings_ms = {"queue": 1000 * max(queue_seconds, 0.0), "decode": 1000 * decode_seconds}
        self._measure(len(decoded), result, {**timings_ms, **result.timings_ms})
        return describe_reply(model, decoded, result, timings_ms)

    def _load_warm(self) -> CaptionModel:
        """Loads the model and captions a warm-up image, so that a request finds everything in place."""
        model = self._load()
        picture = Image.linear_gradient("L").convert("RGB")
        model.caption([picture], to_settings(CaptionParameters(), (self._default_of(model.languages),), 1))
        datastore = model.datastore
        self.metrics.describe_model(
            model.bundle_name, model.revision, None if datastore is None else datastore.version
        )
        return model

    def _measure(self, images: int, result: "CaptionResult", timings_ms: Mapping[str, float]) -> None:
        captions = [caption for image in result.images for caption in image.captions]
        self.metrics.observe_batch(images)
        self.metrics.observe_stages(timings_ms)
        self.metrics.count_captions(
            sum(1 + len(caption.alternatives) for caption in captions),
            sum(caption.tokens for caption in captions),
        )
        self._tracing.record_stages(timings_ms)

    def _oldest_wait(self) -> float:
        now = time.perf_counter()
        return now - next(iter(self._waiting.values()), now)

    @contextmanager
    def _admission(self) -> Iterator[int]:
        """A place, and its number."""
        self.check_room()
        self._admitted += 1
        self._number += 1
        number = self._number
        self._waiting[number] = time.perf_counter()
        try:
            yield number
        finally:
            self._admitted -= 1
            self._waiting.pop(number, None)

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

    def _default_of(self, languages: Sequence[str]) -> str:
        return default_language(self.settings.default_language, languages)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started

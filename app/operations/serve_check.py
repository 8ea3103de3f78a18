"""`paellera serve --check`: everything a start would do, up to one caption, and what was found."""

import time
from collections.abc import Callable, Iterator

from app.model import CaptionModel
from app.negotiation import default_language
from app.operations.tracing import configured_provider
from app.service import warm_up
from app.settings import Settings


def check_service(settings: Settings, load: Callable[[], CaptionModel]) -> Iterator[str]:
    """Loads the model, captions the warm-up image, and yields a line for each thing that is in order.

    Raises what loading and captioning raise: BundleError, DatastoreError, MissingPackageError.
    """
    tracing = configured_provider()
    yield _line("tracing", "off" if tracing is None else "to the OTLP endpoint of the environment")
    started = time.perf_counter()
    model = load()
    seconds = time.perf_counter() - started
    yield _line("bundle", f"{model.bundle_name}, revision {model.revision}, loaded in {seconds:.1f} s")
    yield _line("languages", " ".join(model.languages))
    language = default_language(settings.default_language, model.languages)
    replaced = "" if language == settings.default_language else f"; not {settings.default_language}"
    yield _line("default", f"{language}{replaced}")
    yield _line("datastore", f"version {model.datastore.version}")
    started = time.perf_counter()
    text = warm_up(model, language)
    seconds = time.perf_counter() - started
    yield _line("caption", f"{text!r} in {seconds:.1f} s")


def _line(what: str, found: str) -> str:
    return f"{what:<10} {found}"

"""What the service and the command line need of a captioner, and how one is loaded.

The heavy imports (torch, faiss) happen inside `load_model`, so that `paellera --help` and the tests with a
small captioner of their own do not pay for them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from PIL import Image

if TYPE_CHECKING:
    from models.captioner import CaptionResult, CaptionSettings


class DatastoreVersion(Protocol):
    @property
    def version(self) -> str: ...


class CaptionModel(Protocol):
    """The part of models.captioner.Captioner that is used here."""

    @property
    def languages(self) -> tuple[str, ...]: ...
    @property
    def bundle_name(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def datastore(self) -> DatastoreVersion | None: ...
    def caption(self, images: Sequence[Image.Image], settings: "CaptionSettings") -> "CaptionResult": ...
    def caption_each(
        self,
        images: Sequence[Image.Image],
        languages: Sequence[Sequence[str]],
        settings: "CaptionSettings",
    ) -> "CaptionResult": ...


def load_model(bundle: Path | None, datastore: Path | None) -> CaptionModel:
    """The captioner of a bundle (None: the embedded default) with a datastore (None: the bundle's own).

    Raises BundleError or DatastoreError.
    """
    from models.bundle import Bundle, default_bundle

    return Bundle.open(bundle or default_bundle()).load_captioner(datastore)

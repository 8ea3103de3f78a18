"""What the service and the command line need of a captioner, and how one is loaded.

The heavy imports (torch, faiss) happen inside `load_model`, so that `paellera --help` and the tests with a
small captioner of their own do not pay for them.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from PIL import Image

from models.captions import CaptionResult, CaptionSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from retrieval.datastore import Neighbour
    from retrieval.manifest import Manifest


# Of the computation; auto: bfloat16 where the machine is faster in it.
Precision = Literal["auto", "bfloat16", "float32"]
# What the datastore's index is searched on; auto: a graphics card where faiss finds one for this kind.
IndexDevice = Literal["cpu", "gpu", "auto"]


class CaptionDatastore(Protocol):
    """The part of retrieval.datastore.Datastore that is used here."""

    @property
    def version(self) -> str: ...
    @property
    def manifest(self) -> "Manifest": ...
    @property
    def root(self) -> Path | None: ...  # where its other versions are; None: there is only this one
    def check(self) -> None: ...  # raises DatastoreError if it does not find its own entries
    def neighbours(
        self, queries: "NDArray[np.float32]", languages: Sequence[Sequence[str]], k: int
    ) -> "list[list[list[Neighbour]]]": ...


# How many tokens each text has. It must not hold the model, which may be dropped before.
TokenCounter = Callable[[Sequence[str]], list[int]]


class CaptionModel(Protocol):
    """The part of models.captioner.Captioner that is used here.

    It stays what it is: another bundle, revision or datastore is another model.
    """

    @property
    def languages(self) -> tuple[str, ...]: ...
    @property
    def bundle_name(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def datastore(self) -> CaptionDatastore: ...
    @property
    def count_tokens(self) -> TokenCounter: ...
    def on_version(self, version: str) -> "CaptionModel": ...  # shares all but the datastore
    def caption(self, images: Sequence[Image.Image], settings: CaptionSettings) -> CaptionResult: ...
    def caption_each(
        self,
        images: Sequence[Image.Image],
        languages: Sequence[Sequence[str]],
        settings: CaptionSettings,
    ) -> CaptionResult: ...
    def embed_images(self, images: Sequence[Image.Image]) -> "NDArray[np.float32]": ...
    def embed_texts(self, texts: Sequence[str]) -> "NDArray[np.float32]": ...


def load_model(
    bundle: Path | None,
    datastore: Path | None,
    precision: Precision = "auto",
    index_device: IndexDevice = "cpu",
) -> CaptionModel:
    """The captioner of a bundle (None: the embedded default) with a datastore (None: the bundle's own).

    Raises BundleError or DatastoreError.
    """
    # oneDNN keeps what it has compiled for the last 1,024 shapes: with batches of all sizes and lengths that
    # takes hundreds of megabytes. It reads this at its first use.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
    import torch

    from models.bundle import Bundle, default_bundle

    dtype = {"auto": None, "bfloat16": torch.bfloat16, "float32": torch.float32}[precision]
    return Bundle.open(bundle or default_bundle()).load_captioner(
        datastore, dtype=dtype, index_device=index_device
    )

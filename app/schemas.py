"""What a caption request may hold and what the reply looks like, for HTTP and `--json` alike.

Only shapes and ranges; reading bodies is app/api/bodies.py's work and filling a reply app/reply.py's.
"""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_LANGUAGES = 40  # names in one request; the bundles to come write up to 36 languages
MAX_CAPTIONS = 256  # images × languages × num_captions of one request

LanguageName = Annotated[str, Field(max_length=64)]


class CaptionParameters(BaseModel):
    """How to caption. What is left out takes the bundle's default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    languages: Annotated[tuple[LanguageName, ...], Field(max_length=MAX_LANGUAGES)] = Field(
        (), description="BCP-47 tags or English names; `all` for every language of the bundle"
    )
    num_captions: Annotated[int, Field(ge=1, le=8, strict=True)] = Field(
        1, description="captions per image and language; the best comes first, the rest as alternatives"
    )
    max_tokens: Annotated[int, Field(ge=1, le=64, strict=True)] | None = Field(
        None, description="length limit of a caption"
    )
    max_length: Annotated[int, Field(ge=1, le=1000, strict=True)] | None = Field(
        None, description="characters a caption may have; a longer one is cut where it makes sense"
    )
    neighbours: Annotated[int, Field(ge=0, le=8, strict=True)] | None = Field(
        None, description="retrieved captions shown to the model; 0 turns retrieval off"
    )
    beams: Annotated[int, Field(ge=1, le=8, strict=True)] | None = Field(
        None, description="width of the beam search; 1 is greedy"
    )
    temperature: Annotated[float, Field(gt=0, le=2, strict=True, allow_inf_nan=False)] | None = Field(
        None, description="samples instead of searching; higher is more varied"
    )
    top_p: Annotated[float, Field(gt=0, le=1, strict=True, allow_inf_nan=False)] | None = Field(
        None, description="with temperature: sample from the likeliest tokens that hold this probability"
    )
    seed: Annotated[int, Field(ge=0, le=2**32 - 1, strict=True)] = Field(
        0, description="with temperature: the same seed gives the same captions"
    )
    rerank: Annotated[bool, Field(strict=True)] = Field(
        False, description="of all captions found, prefer those of most confidence to the likeliest words"
    )
    neutral: Annotated[bool, Field(strict=True)] = Field(
        False, description="prefer words for anybody (person, child) to gendered ones (man, girl)"
    )
    explain: Annotated[bool, Field(strict=True)] = Field(
        False, description="also say where in the photo each word of a caption comes from"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.temperature is not None and self.beams is not None:
            raise ValueError("beams and temperature exclude each other: search or sample")
        if self.temperature is None and self.top_p is not None:
            raise ValueError("top_p needs a temperature")
        if self.beams is not None and self.num_captions > self.beams:
            raise ValueError("num_captions cannot be more than beams")
        return self


class ImageInput(BaseModel):
    """An image in a JSON request: its bytes in base64, or its address if the operator allows its host."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base64: str | None = Field(None, description="the file's bytes; a data: URL is accepted too")
    url: str | None = Field(
        None, description="a data: URL, or https and only from hosts that this server fetches from"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.base64 is None) == (self.url is None):
            raise ValueError("give the image as base64")
        return self


class CaptionBody(CaptionParameters):
    """A caption request as JSON."""

    images: tuple[ImageInput, ...] = Field((), description="one or more images")


class NeighbourItem(BaseModel):
    """A retrieved caption; `language` differs from the caption's where the entry has no text in it."""

    id: str
    text: str
    language: str
    score: float = Field(description="cosine similarity of photo and entry")


class AlternativeItem(BaseModel):
    text: str
    confidence: float


class WordItem(BaseModel):
    text: str = Field(description="as in the caption, punctuation included; in Chinese a piece of text")
    weights: list[list[float]] = Field(
        description="rows of the grid from the top of the photo; their sum is 1"
    )


class AttentionItem(BaseModel):
    """Where in the photo a caption's words come from, on a grid laid over it."""

    rows: int
    columns: int
    words: list[WordItem] = Field(description="in the order of the caption")


class CaptionItem(BaseModel):
    language: str
    text: str
    confidence: float = Field(
        description="probability that the caption fits the photo; 0.5 where it cannot be told"
    )
    alternatives: list[AlternativeItem] = Field(
        description="further captions, when more than one is asked for"
    )
    neighbours: list[NeighbourItem] = Field(description="the captions that were retrieved, best first")
    attention: AttentionItem | None = Field(
        None, exclude_if=lambda value: value is None, description="with `explain` only"
    )


class ImageItem(BaseModel):
    width: int = Field(description="pixels, after the EXIF orientation")
    height: int
    format: str = Field(description="JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF or HEIF")
    captions: list[CaptionItem] = Field(description="in the order the languages were asked for")


class ModelItem(BaseModel):
    bundle: str
    revision: str


class DatastoreItem(BaseModel):
    version: str


class TimingsItem(BaseModel):
    """Milliseconds. `queue` is the time spent waiting for other requests."""

    queue: float
    decode: float
    encode: float
    retrieve: float
    generate: float


class CaptionReply(BaseModel):
    """The captions of all images of a request, in its order."""

    id: str
    model: ModelItem
    datastore: DatastoreItem
    images: list[ImageItem]
    timings_ms: TimingsItem


class ErrorItem(BaseModel):
    code: str
    detail: str


class SourcedImage(ImageItem):
    """On the command line an image carries the path it came from."""

    source: str


class FailedImage(BaseModel):
    """On the command line a photo that cannot be read does not stop the others."""

    source: str
    error: ErrorItem


class SourcedReply(BaseModel):
    """`paellera caption --json`: the reply of the service with a source for each image."""

    id: str
    model: ModelItem
    datastore: DatastoreItem
    images: list[SourcedImage | FailedImage]
    timings_ms: TimingsItem


class LanguageItem(BaseModel):
    code: str
    name: str = Field(description="in English")
    autonym: str = Field(description="in itself")


class LanguagesReply(BaseModel):
    default: str = Field(description="when a request names none and Accept-Language matches none")
    languages: list[LanguageItem]


class StatusReply(BaseModel):
    status: str

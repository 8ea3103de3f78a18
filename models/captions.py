"""What a captioner is asked for and what it answers: plain data, which needs neither torch nor faiss."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval.datastore import Neighbour


@dataclass(frozen=True)
class CaptionSettings:
    """How to caption. `None` takes the bundle's default."""

    languages: tuple[str, ...]
    num_captions: int = 1
    max_tokens: int | None = None
    min_tokens: int | None = None
    max_length: int | None = None  # characters of a caption; None: any number
    neighbours: int | None = None  # retrieved captions in the prompt, 0 = no retrieval
    beams: int | None = None
    temperature: float | None = None  # None: beam search; a number: nucleus sampling
    top_p: float | None = None
    seed: int = 0
    rerank: bool = False  # captions stand by the matcher's confidence, not by their probability
    neutral: bool = False  # words for anybody instead of gendered ones
    explain: bool = False  # where in the photo each word comes from: `Caption.attention`


@dataclass(frozen=True)
class WordAttention:
    """A word as the caption has it, and its weights: rows from the top of the photo, which all sum to 1."""

    text: str
    weights: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Alternative:
    text: str
    confidence: float


@dataclass(frozen=True)
class Caption:
    language: str
    text: str
    confidence: float
    alternatives: tuple[Alternative, ...] = ()
    neighbours: "tuple[Neighbour, ...]" = ()
    attention: tuple[WordAttention, ...] = ()  # of the words of `text`, if it was asked for
    tokens: int = 0  # that were generated for it and its alternatives


@dataclass(frozen=True)
class ImageCaptions:
    """Captions of one image, in the order the languages were asked for."""

    captions: tuple[Caption, ...]


@dataclass(frozen=True)
class CaptionResult:
    images: tuple[ImageCaptions, ...]
    timings_ms: dict[str, float] = field(default_factory=dict)  # encode, retrieve, generate with explain

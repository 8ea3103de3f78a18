"""What the datastore's endpoints take and give."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.schemas import ImageInput, LanguageName, NeighbourItem

_VERSION = "20261120T101500.042Z-1f0c7a1d9be2"
_NEIGHBOUR: dict[str, Any] = {
    "id": "beach-dog",
    "text": "A dog runs along the beach.",
    "language": "en",
    "score": 0.61,
}


class IndexItem(BaseModel):
    kind: str


class DatastoreDescription(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "version": _VERSION,
                    "entries": 312,
                    "texts": {"en": 312, "es": 312},
                    "embedder": "e5-shared-space-32e6b1de48e8",
                    "dimension": 385,
                    "index": {"kind": "flat"},
                }
            ]
        }
    )

    version: str
    entries: int = Field(description="scenes, each with one text or one in each of several languages")
    texts: dict[str, int] = Field(description="by language")
    embedder: str = Field(description="what made the vectors; queries need the same")
    dimension: int = Field(description="of the vectors")
    index: IndexItem


class SearchBody(BaseModel):
    """What to look for: a text or an image."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {"text": "a dog on a beach", "language": "es", "k": 3},
                {"image": {"base64": "/9j/4AAQSkZJRg…"}, "k": 5},
            ]
        },
    )

    text: Annotated[str, Field(max_length=1000)] | None = Field(None, description="in any language")
    image: ImageInput | None = None
    language: LanguageName | None = Field(
        None, description="of the texts shown: a tag or a name; none: Accept-Language, then the default"
    )
    k: Annotated[int, Field(ge=1, le=100, strict=True)] = Field(5, description="how many neighbours")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (self.image is None):
            raise ValueError("give either text or image")
        if self.text is not None and not self.text.strip():
            raise ValueError("text is empty")
        return self


class SearchReply(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"neighbours": [_NEIGHBOUR]}]})

    neighbours: list[NeighbourItem] = Field(description="best first, without near duplicates")


class ActivateBody(BaseModel):
    """Which version is to be served."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"version": _VERSION}, {}]},
    )

    version: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        None, description="becomes the live one; none: the one that is live on the disk"
    )


class ActivateReply(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"previous": "20261118T091500.120Z-77c0ab1d4e02", "version": _VERSION}]
        }
    )

    previous: str = Field(description="the version that was served until now")
    version: str = Field(description="the version that is served from now on; it may be the same")

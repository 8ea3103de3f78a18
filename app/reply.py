"""From what was asked to what is answered: the functions that HTTP and the command line share.

`to_settings` turns validated parameters into the captioner's settings, `describe_*` turn its result into the
reply document of the contract. Nothing here waits, reads files or speaks HTTP.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from app.images import DecodedImage
from app.model import CaptionModel
from app.schemas import (
    MAX_CAPTIONS,
    AlternativeItem,
    AttentionItem,
    CaptionItem,
    CaptionParameters,
    CaptionReply,
    DatastoreItem,
    ImageItem,
    LanguageItem,
    ModelItem,
    NeighbourItem,
    TimingsItem,
    WordItem,
)
from models.captions import CaptionSettings, ImageCaptions, WordAttention
from retrieval.errors import InvalidRequestError
from retrieval.languages import autonym, display_name

if TYPE_CHECKING:
    from retrieval.datastore import Neighbour


def to_settings(parameters: CaptionParameters, languages: tuple[str, ...], images: int) -> CaptionSettings:
    """The captioner's settings, for resolved codes. Raises InvalidRequestError for too much at once."""
    captions = images * len(languages) * parameters.num_captions
    if captions > MAX_CAPTIONS:
        raise InvalidRequestError(
            f"{images} images × {len(languages)} languages × {parameters.num_captions} captions are "
            f"{captions} captions; at most {MAX_CAPTIONS} at once"
        )
    return CaptionSettings(
        languages=languages,
        num_captions=parameters.num_captions,
        max_tokens=parameters.max_tokens,
        max_length=parameters.max_length,
        neighbours=parameters.neighbours,
        beams=parameters.beams,
        temperature=parameters.temperature,
        top_p=parameters.top_p,
        seed=parameters.seed,
        rerank=parameters.rerank,
        neutral=parameters.neutral,
        explain=parameters.explain,
    )


def describe_reply(
    model: CaptionModel,
    decoded: Sequence[DecodedImage],
    captions: Sequence[ImageCaptions],
    timings_ms: Mapping[str, float],
) -> CaptionReply:
    """The reply document of some images, each with its captions."""
    return CaptionReply(
        id=new_id(),
        model=describe_model(model),
        datastore=describe_datastore(model),
        images=[describe_image(image, captioned) for image, captioned in zip(decoded, captions, strict=True)],
        timings_ms=describe_timings(timings_ms),
    )


def new_id() -> str:
    return f"cap-{secrets.token_hex(12)}"


def describe_model(model: CaptionModel) -> ModelItem:
    return ModelItem(bundle=model.bundle_name, revision=model.revision)


def describe_datastore(model: CaptionModel) -> DatastoreItem:
    return DatastoreItem(version=model.datastore.version)


def describe_image(decoded: DecodedImage, captions: ImageCaptions) -> ImageItem:
    return ImageItem(
        width=decoded.width,
        height=decoded.height,
        format=decoded.format,
        captions=[
            CaptionItem(
                language=caption.language,
                text=caption.text,
                confidence=round(caption.confidence, 4),
                alternatives=[
                    AlternativeItem(text=other.text, confidence=round(other.confidence, 4))
                    for other in caption.alternatives
                ],
                neighbours=[describe_neighbour(neighbour) for neighbour in caption.neighbours],
                attention=describe_attention(caption.attention),
            )
            for caption in captions.captions
        ],
    )


def describe_neighbour(neighbour: "Neighbour") -> NeighbourItem:
    return NeighbourItem(
        id=neighbour.id,
        text=neighbour.text,
        language=neighbour.language,
        score=round(neighbour.score, 4),
    )


def describe_attention(words: Sequence[WordAttention]) -> AttentionItem | None:
    """None where nothing was asked for. Weights have five digits: ten thousandths of an equal share of 1."""
    if not words:
        return None
    grids = [[[round(weight, 5) for weight in row] for row in word.weights] for word in words]
    return AttentionItem(
        rows=len(grids[0]),
        columns=len(grids[0][0]),
        words=[WordItem(text=word.text, weights=grid) for word, grid in zip(words, grids, strict=True)],
    )


def describe_timings(timings_ms: Mapping[str, float]) -> TimingsItem:
    """A stage that did not run, such as retrieval with `neighbours` 0, took no time."""
    return TimingsItem(**{stage: round(timings_ms.get(stage, 0.0), 2) for stage in TimingsItem.model_fields})


def describe_languages(codes: Sequence[str]) -> list[LanguageItem]:
    return [LanguageItem(code=code, name=display_name(code), autonym=autonym(code)) for code in codes]

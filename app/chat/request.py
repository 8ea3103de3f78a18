"""What a chat asks a captioner for: which images, in which language, with which settings.

A captioner follows no instructions. Of the text in the messages only the name of a language counts; what a
parameter would promise and a captioner cannot keep is refused.
"""

from collections.abc import Mapping, Sequence

from app.chat.schemas import MAX_TEXT, ChatMessage, ChatRequest, ImagePart, TextPart
from app.errors import MissingImageError, UnknownModelError, UnsupportedParameterError
from app.model_holder import ModelFacts
from app.schemas import CaptionParameters, ImageInput
from app.validation import shown, unknown_name, validate_parameters
from retrieval.errors import InvalidRequestError

MOST_TOKENS = 64  # of a caption
# Members of OpenAI's API that change nothing about a caption, whatever their value.
WITHOUT_EFFECT = frozenset(
    {"metadata", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"}
    | {"service_tier", "store"}
)
# Members that would change something, and their values that ask for nothing; null is always one.
NEUTRAL: Mapping[str, Sequence[object]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "stop": ([], ""),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("low", "medium", "high"),
    "web_search_options": (),
}


def check_members(chat: ChatRequest) -> None:
    """Raises UnsupportedParameterError for what cannot be honoured, also for what OpenAI does not know."""
    for name, value in (chat.model_extra or {}).items():
        if name in WITHOUT_EFFECT or value is None:
            continue
        if name not in NEUTRAL:
            known = (*ChatRequest.model_fields, *NEUTRAL, *WITHOUT_EFFECT)
            raise UnsupportedParameterError(unknown_name(name, known), shown(name))
        if value not in NEUTRAL[name]:
            raise UnsupportedParameterError(f"{name} is not possible: the model here captions images", name)


def check_model(named: str, model: ModelFacts) -> None:
    """Raises UnknownModelError unless it is the bundle's name, with or without its revision."""
    if named not in (model.bundle_name, f"{model.bundle_name}@{model.revision}"):
        raise UnknownModelError(
            f"there is no model {shown(named)!r} here; this server has {model.bundle_name!r}"
        )


def images_of(messages: Sequence[ChatMessage]) -> tuple[ImageInput, ...]:
    """The images of the last message that has any, so that a later one can be about the same images.

    Raises MissingImageError.
    """
    for message in reversed(messages):
        parts = message.content if isinstance(message.content, tuple) else ()
        images = tuple(ImageInput(url=part.image_url.url) for part in parts if isinstance(part, ImagePart))
        if images and message.role == "user":
            return images
    raise MissingImageError("no message of the user has an image: send one as a part of type image_url")


def texts_of(messages: Sequence[ChatMessage]) -> list[str]:
    """What users, developer and system say, in order. Raises InvalidRequestError if it is very long."""
    texts = []
    for message in messages:
        if message.role == "assistant" or message.content is None:
            continue
        if isinstance(message.content, str):
            texts.append(message.content)
        else:
            texts.append(" ".join(part.text for part in message.content if isinstance(part, TextPart)))
    if sum(map(len, texts)) > MAX_TEXT:
        raise InvalidRequestError(f"the messages have more than {MAX_TEXT:,} characters of text")
    return texts


def caption_parameters(chat: ChatRequest) -> CaptionParameters:
    """The settings of /v1/captions that do what the chat asks for. Raises InvalidRequestError."""
    temperature, top_p = chat.temperature, chat.top_p
    if temperature is None and top_p not in (None, 0, 1):
        temperature = 1.0  # OpenAI's default, which top_p is about
    samples = bool(temperature) and top_p != 0
    limits = [limit for limit in (chat.max_tokens, chat.max_completion_tokens) if limit is not None]
    return validate_parameters(
        {
            "num_captions": chat.n or 1,
            "max_tokens": min(*limits, MOST_TOKENS) if limits else None,
            "temperature": float(temperature) if temperature and samples else None,
            "top_p": float(top_p) if top_p and samples else None,
            "seed": (chat.seed or 0) % 2**32,
            "neighbours": chat.neighbours,
            "beams": chat.beams,
            "max_length": chat.max_length,
            "rerank": bool(chat.rerank),
            "neutral": bool(chat.neutral),
        }
    )

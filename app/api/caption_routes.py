"""The endpoints. Each reads its request, asks the service, and returns a model of app/schemas.py."""

from collections.abc import Sequence
from enum import Enum
from typing import cast

from fastapi import APIRouter, Request, Response

from app.api.answers import Answers, caption_headers, caption_response
from app.api.bodies import read_caption_request
from app.api.caption_events import caption_error_events, caption_events
from app.api.disconnect import while_connected
from app.api.event_streams import event_stream
from app.api.openapi import caption_operation, caption_responses, problem_responses
from app.errors import NotReadyError
from app.negotiation import named_languages, preferred_language, wants_events
from app.operations.draining import Drain
from app.problems import request_id_of
from app.reply import describe_languages
from app.schemas import CaptionReply, LanguagesReply, StatusReply
from app.service import CaptionService

router = APIRouter()
# Headings of the reference at /docs.
_CAPTIONS: list[str | Enum] = ["captions"]
_PROBES: list[str | Enum] = ["operation"]


@router.post(
    "/v1/captions",
    tags=_CAPTIONS,
    summary="Caption one or more photos in one or more languages",
    response_model=CaptionReply,
    openapi_extra=caption_operation(),
    responses=caption_responses()
    | problem_responses(
        (400, "The body is not what its Content-Type says"),
        (408, "The body comes too slowly"),
        (413, "The body or an image is too large"),
        (415, "The Content-Type is none of the three"),
        (422, "An image, a language or a parameter is not acceptable"),
        (429, "Too many requests are waiting; see Retry-After"),
        (503, "The model is being loaded, or too slow for all that wait; see Retry-After"),
    ),
)
async def create_captions(request: Request) -> Response:
    service = service_of(request)
    answers = answers_of(request)
    with answers.reading(request, service):
        asked = await read_caption_request(request, service.settings, request.app.state.fetcher)
    supported = service.model.languages
    languages = named_languages(asked.parameters.languages, supported) or (
        accepted_language(request, supported),
    )
    work = answers.caption(request, service, asked, languages)
    if wants_events(request.headers.get("accept")):
        return await event_stream(
            work, caption_events, caption_error_events, caption_headers, request_id_of(request)
        )
    return caption_response(await while_connected(request, work), request.headers)


@router.get(
    "/v1/languages",
    tags=_CAPTIONS,
    summary="The languages this server captions in",
    responses=problem_responses((503, "The model is being loaded")),
)
async def list_languages(request: Request) -> LanguagesReply:
    service = service_of(request)
    return LanguagesReply(
        default=service.default_language, languages=describe_languages(service.model.languages)
    )


@router.get(
    "/livez",
    tags=_PROBES,
    summary="Is the process alive?",
    responses=problem_responses((503, "The model could not be loaded; restart the process")),
)
async def livez(request: Request) -> StatusReply:
    service = service_of(request)
    if service.status == "failed":
        service.check_ready()  # raises
    return StatusReply(status="alive")


@router.get(
    "/readyz",
    tags=_PROBES,
    summary="Can it caption? 503 until the model has captioned a warm-up image, and again before it stops",
    responses=problem_responses((503, "Not yet, or not for long")),
)
async def readyz(request: Request) -> StatusReply:
    cast(Drain, request.app.state.drain).check_ready()
    service_of(request).check_ready()
    return StatusReply(status="ready")


def accepted_language(request: Request, languages: Sequence[str]) -> str:
    """What Accept-Language chooses of these, or the default."""
    header = ",".join(request.headers.getlist("accept-language"))
    return preferred_language(header, languages, service_of(request).default_language)


def answers_of(request: Request) -> Answers:
    return cast(Answers, request.app.state.answers)


def service_of(request: Request) -> CaptionService:
    """The service of this application; none exists before the lifespan has started."""
    service = getattr(request.app.state, "service", None)
    if service is None:
        raise NotReadyError("the service has not started", 1)
    return cast(CaptionService, service)

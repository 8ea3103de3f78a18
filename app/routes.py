"""The endpoints. Each reads its request, asks the service, and returns a model of app/schemas.py."""

from typing import cast

from fastapi import APIRouter, Request

from app.bodies import read_caption_request
from app.disconnect import while_connected
from app.draining import Drain
from app.errors import NotReadyError
from app.negotiation import named_languages, preferred_language
from app.openapi import caption_operation, problem_responses
from app.reply import describe_languages
from app.schemas import CaptionReply, LanguagesReply, StatusReply
from app.service import CaptionService

router = APIRouter()


@router.post(
    "/v1/captions",
    summary="Caption one or more photos in one or more languages",
    response_model=CaptionReply,
    openapi_extra=caption_operation(),
    responses=problem_responses(
        (400, "The body is not what its Content-Type says"),
        (413, "The body or an image is too large"),
        (415, "The Content-Type is none of the three"),
        (422, "An image, a language or a parameter is not acceptable"),
        (429, "Too many requests are waiting; see Retry-After"),
        (503, "The model is being loaded, or too slow for all that wait; see Retry-After"),
    ),
)
async def create_captions(request: Request) -> CaptionReply:
    service = service_of(request)
    service.check_room()
    asked = await read_caption_request(request, service.settings, request.app.state.fetcher)
    supported = service.model.languages
    languages = named_languages(asked.parameters.languages, supported)
    if not languages:
        header = ",".join(request.headers.getlist("accept-language"))
        languages = (preferred_language(header, supported, service.default_language),)
    return await while_connected(request, service.caption(asked.images, asked.parameters, languages))


@router.get(
    "/v1/languages",
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
    summary="Can it caption? 503 until the model has captioned a warm-up image, and again before it stops",
    responses=problem_responses((503, "Not yet, or not for long")),
)
async def readyz(request: Request) -> StatusReply:
    cast(Drain, request.app.state.drain).check_ready()
    service_of(request).check_ready()
    return StatusReply(status="ready")


def service_of(request: Request) -> CaptionService:
    """The service of this application; none exists before the lifespan has started."""
    service = getattr(request.app.state, "service", None)
    if service is None:
        raise NotReadyError("the service has not started", 1)
    return cast(CaptionService, service)

"""What is in the datastore, which of its captions are near a text or a photo, and which version is served."""

from collections.abc import Sequence

from fastapi import APIRouter, Depends, Request

from app.access.gate import admin_only
from app.api.bodies import read_document, read_optional_document
from app.api.caption_routes import accepted_language, service_of
from app.api.datastore_schemas import (
    ActivateBody,
    ActivateReply,
    DatastoreDescription,
    IndexItem,
    SearchBody,
    SearchReply,
)
from app.api.disconnect import while_connected
from app.api.image_inputs import read_image_inputs
from app.api.openapi import json_body, problem_responses
from app.reply import describe_neighbour
from retrieval.errors import UnknownLanguageError
from retrieval.languages import match, normalise

router = APIRouter(tags=["datastore"])


@router.get(
    "/v1/datastore",
    summary="What is in the datastore",
    responses=problem_responses((503, "The model is being loaded")),
)
async def describe_datastore(request: Request) -> DatastoreDescription:
    manifest = service_of(request).datastore
    return DatastoreDescription(
        version=manifest.version,
        entries=manifest.counts.entries,
        texts=manifest.counts.languages,
        embedder=manifest.embedder,
        dimension=manifest.dimension,
        index=IndexItem(kind=manifest.index.kind),
    )


@router.post(
    "/v1/datastore/activate",
    summary="Serve another version of the datastore",
    dependencies=[Depends(admin_only)],
    openapi_extra=json_body(ActivateBody, required=False, headers=()),
    responses=problem_responses(
        (400, "The body is not JSON"),
        (403, "This needs an admin key"),
        (408, "The body comes too slowly"),
        (409, "The version cannot be served; the one before goes on"),
        (413, "The body is too large"),
        (415, "The Content-Type is not application/json"),
        (422, "The body is not acceptable"),
        (503, "The model is being loaded; see Retry-After"),
    ),
)
async def activate_version(request: Request) -> ActivateReply:
    service = service_of(request)
    _ = service.model
    body = await read_optional_document(request, ActivateBody)
    swap = await service.swap.activate(body.version)
    return ActivateReply(previous=swap.previous, version=swap.version)


@router.post(
    "/v1/datastore/search",
    summary="The captions nearest to a text or to a photo",
    openapi_extra=json_body(SearchBody),
    responses=problem_responses(
        (400, "The body is not JSON"),
        (408, "The body comes too slowly"),
        (413, "The body or the image is too large"),
        (415, "The Content-Type is not application/json"),
        (422, "The image, the language or a parameter is not acceptable"),
        (429, "Too many requests are waiting; see Retry-After"),
        (503, "The model is being loaded; see Retry-After"),
    ),
)
async def search_datastore(request: Request) -> SearchReply:
    service = service_of(request)
    languages = tuple(service.datastore.counts.languages)
    service.check_room()
    body = await read_document(request, SearchBody)
    if body.language is not None:
        language = _code(body.language, languages)
    else:
        language = accepted_language(request, languages)
    query: str | bytes = body.text or ""
    if body.image is not None:
        (query,) = await read_image_inputs([body.image], service.settings, request.app.state.fetcher)
    neighbours = await while_connected(request, service.search(query, language, body.k))
    return SearchReply(neighbours=[describe_neighbour(neighbour) for neighbour in neighbours])


def _code(named: str, languages: Sequence[str]) -> str:
    """The code of a language; entries without a text in it are shown in another of theirs."""
    try:
        return match(named, languages)
    except UnknownLanguageError:
        return normalise(named)

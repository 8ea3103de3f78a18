"""POST /v1/chat/completions: captions for programs that speak OpenAI's vision dialect."""

import itertools

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from app.api.answers import caption_headers
from app.api.bodies import CaptionRequest, read_document
from app.api.caption_routes import accepted_language, answers_of, service_of
from app.api.disconnect import while_connected
from app.api.event_streams import event_stream
from app.api.image_inputs import read_image_inputs
from app.api.openapi import (
    CAPTION_HEADERS,
    JsonSchema,
    event_schema,
    inline_schema,
    json_data,
    problem_responses,
)
from app.api.reply_cache import Answer
from app.chat.errors import OpenAIProblem, OpenAIRoute
from app.chat.language_mentions import mentioned_language
from app.chat.openapi import chat_operation
from app.chat.reply import (
    Completion,
    captions_of,
    completion_error_events,
    completion_events,
    make_completion,
    whole_completion,
)
from app.chat.request import caption_parameters, check_members, check_model, images_of, texts_of
from app.chat.schemas import ChatChunk, ChatCompletion, ChatRequest
from app.negotiation import EVENT_STREAM
from app.problems import request_id_of
from retrieval.languages import match

router = APIRouter(route_class=OpenAIRoute, tags=["OpenAI's dialect"])


def _stream_responses() -> dict[int | str, JsonSchema]:
    chunk, problem = inline_schema(ChatChunk), inline_schema(OpenAIProblem)
    data = {"anyOf": [json_data(chunk), json_data(problem), {"const": "[DONE]"}]}
    content = {EVENT_STREAM: event_schema(message=data)}
    return {200: {"headers": CAPTION_HEADERS, "content": content}}


@router.post(
    "/v1/chat/completions",
    summary="Caption photos in OpenAI's vision dialect, with or without streaming",
    response_model=ChatCompletion,
    openapi_extra=chat_operation(),
    responses=_stream_responses()
    | problem_responses(
        (400, "The body, an image, a language or a parameter is not acceptable"),
        (404, "There is no such model"),
        (408, "The body comes too slowly"),
        (413, "The body or an image is too large"),
        (415, "The Content-Type is not application/json"),
        (429, "Too many requests are waiting; see Retry-After"),
        (503, "The model is being loaded; see Retry-After"),
        model=OpenAIProblem,
    ),
)
async def create_chat_completion(request: Request) -> Response:
    service = service_of(request)
    answers = answers_of(request)
    with answers.reading(request, service):
        chat = await read_document(request, ChatRequest)
        model = service.model
        check_members(chat)
        check_model(chat.model, model)
        texts = texts_of(chat.messages)
        parameters = caption_parameters(chat)
        # Takes a moment the first time: languages' names are looked up in all languages of the bundle.
        named = chat.language or await to_thread.run_sync(mentioned_language, texts, model.languages)
        language = match(named, model.languages) if named else accepted_language(request, model.languages)
        images = await read_image_inputs(
            images_of(chat.messages), service.settings, request.app.state.fetcher
        )
    asked = CaptionRequest(images, parameters)
    choices, streams = chat.n or 1, bool(chat.stream)
    include_usage = chat.stream_options is not None and bool(chat.stream_options.include_usage)
    del chat  # the images in base64: not to be held while waiting

    async def complete() -> tuple[Answer, Completion]:
        answer = await answers.caption(request, service, asked, (language,))
        captions = captions_of(answer.reply.document, choices)
        counts = await service.count_tokens([*texts, *itertools.chain.from_iterable(captions)])
        return answer, make_completion(answer, captions, counts, len(texts), parameters.max_tokens)

    if streams:
        return await event_stream(
            complete(),
            lambda done: completion_events(done[1], include_usage),
            completion_error_events,
            lambda done: caption_headers(None if done is None else done[0]),
            request_id_of(request),
        )
    answer, completion = await while_connected(request, complete())
    return Response(
        whole_completion(completion).model_dump_json(),
        headers=caption_headers(answer),
        media_type="application/json",
    )

"""The parts of the OpenAPI document that FastAPI cannot derive: three kinds of body, problem documents."""

from typing import Any

from pydantic import BaseModel

from app.api.openapi_examples import CAPTION_BODY, CAPTION_EVENTS, CAPTION_REPLY
from app.problems import MEDIA_TYPE, Problem
from app.schemas import CaptionBody, CaptionItem, CaptionParameters, CaptionReply

JsonSchema = dict[str, Any]

_TEXT: JsonSchema = {"schema": {"type": "string"}}
CAPTION_HEADERS: JsonSchema = {
    "X-Paellera-Model": {**_TEXT, "description": "bundle@revision, percent-encoded"},
    "X-Paellera-Datastore": {**_TEXT, "description": "the datastore's version"},
    "X-Cache": {"schema": {"enum": ["hit", "miss"]}, "description": "`hit`: captioned for another request"},
}
_REQUEST_HEADERS = {
    "Accept-Language": "Chooses the language when the request names none.",
    "Idempotency-Key": "1 to 64 of A–Z a–z 0–9 . _ -; a retry with the same key gets the first reply.",
}


def problem_responses(
    *statuses: tuple[int, str], model: type[Problem] = Problem
) -> dict[int | str, JsonSchema]:
    """For a route's `responses`: each status, with its description, answers with a problem document."""
    content = {MEDIA_TYPE: {"schema": inline_schema(model)}}
    return {status: {"description": text, "content": content} for status, text in statuses}


def inline_schema(model: type[BaseModel]) -> JsonSchema:
    """A schema without references, which inside an operation would have to point elsewhere."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, list):
            return [resolve(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            siblings = {name: value for name, value in node.items() if name != "$ref"}
            return resolve({**definitions[node["$ref"].rpartition("/")[2]], **siblings})
        return {name: resolve(value) for name, value in node.items() if name != "discriminator"}

    resolved: JsonSchema = resolve(schema)
    return resolved


def event_schema(**events: JsonSchema) -> JsonSchema:
    """The content of a stream, by the schemas of its events' data; `message` is an event without a name.

    `itemSchema` is of OpenAPI 3.2; FastAPI writes it for its own streams, too.
    """
    named = [
        {"properties": {"event": {"const": name}, "data": data}, "required": ["data"]}
        for name, data in events.items()
    ]
    return {"itemSchema": {"type": "object", "anyOf": named}}


def json_data(schema: JsonSchema) -> JsonSchema:
    """For the `data` of an event."""
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}


def json_body(
    model: type[BaseModel],
    *,
    required: bool = True,
    headers: tuple[str, ...] = ("Accept-Language", "Idempotency-Key"),
) -> JsonSchema:
    """The `requestBody` of a route that reads its JSON itself, with the headers it looks at."""
    return {
        "requestBody": {
            "required": required,
            "content": {"application/json": {"schema": inline_schema(model)}},
        },
        "parameters": request_headers(*headers),
    }


def request_headers(*names: str) -> list[JsonSchema]:
    return [
        {"name": name, "in": "header", "required": False, "description": _REQUEST_HEADERS[name], **_TEXT}
        for name in names
    ]


def caption_responses() -> dict[int | str, JsonSchema]:
    """The replies of POST /v1/captions that are no problem."""
    etag = {**_TEXT, "description": "a strong validator; send it as If-None-Match"}
    return {
        200: {
            "description": "The captions",
            "headers": {**CAPTION_HEADERS, "ETag": etag},
            "content": {
                "application/json": {"example": CAPTION_REPLY},
                "text/event-stream": {
                    **event_schema(
                        caption=json_data(_captioned_image()),
                        reply=json_data(_rest_of_reply()),
                        error=json_data(inline_schema(Problem)),
                    ),
                    "example": CAPTION_EVENTS,
                },
            },
        },
        304: {"description": "The reply is the one that If-None-Match names"},
    }


def _captioned_image() -> JsonSchema:
    """One caption as an event: with the number of its image."""
    schema = inline_schema(CaptionItem)
    schema["properties"] = {"image": {"type": "integer", "minimum": 0}, **schema["properties"]}
    schema["required"] = ["image", *schema["required"]]
    return schema


def _rest_of_reply() -> JsonSchema:
    """The last event: the reply without its captions."""
    schema = inline_schema(CaptionReply)
    image = schema["properties"]["images"]["items"]
    del image["properties"]["captions"]
    image["required"].remove("captions")
    return schema


def caption_operation() -> JsonSchema:
    """The `requestBody` and query `parameters` of POST /v1/captions."""
    fields = dict(CaptionParameters.model_json_schema()["properties"])
    form_fields = {"language": fields.pop("languages"), **fields}
    image_file: JsonSchema = {"type": "string", "format": "binary"}
    form: JsonSchema = {
        "type": "object",
        "properties": {
            "image": {
                "type": "array",
                "items": image_file,
                "minItems": 1,
                "description": "one or more files",
            },
            **form_fields,
        },
        "required": ["image"],
        "additionalProperties": False,
    }
    document = inline_schema(CaptionBody)
    document["properties"]["images"]["minItems"] = 1
    document["properties"]["images"].pop("default")
    document["required"] = ["images"]
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "image/*": {"schema": image_file},
                "application/json": {"schema": document, "example": CAPTION_BODY},
            },
        },
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": f"With a raw image body only: {schema.get('description', '')}",
                # Swagger UI sends defaults, and with a form there must be no query.
                "schema": {member: value for member, value in schema.items() if member != "default"},
            }
            for name, schema in form_fields.items()
        ]
        + request_headers("Accept-Language", "Idempotency-Key")
        + [
            {
                "name": "If-None-Match",
                "in": "header",
                "required": False,
                "description": "The ETag of a reply; 304 if it would be sent again.",
                **_TEXT,
            }
        ],
    }

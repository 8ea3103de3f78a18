"""What the OpenAPI document says of a chat beyond its model: which members of OpenAI's API it may have."""

from app.api.openapi import JsonSchema, json_body
from app.chat.request import NEUTRAL, WITHOUT_EFFECT
from app.chat.schemas import ChatRequest


def chat_operation() -> JsonSchema:
    """The `requestBody` and the headers of POST /v1/chat/completions."""
    operation = json_body(ChatRequest)
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    schema["properties"] |= {name: {"description": "has no effect"} for name in sorted(WITHOUT_EFFECT)}
    schema["properties"] |= {
        name: {"enum": [None, *values], "description": "other values are refused"}
        for name, values in NEUTRAL.items()
    }
    schema["additionalProperties"] = {"type": "null"}  # what is null asks for nothing
    return operation

"""The parts of the OpenAPI document that FastAPI cannot derive: three kinds of body, problem documents."""

from typing import Any

from app.problems import MEDIA_TYPE, Problem
from app.schemas import CaptionBody, CaptionParameters, ImageInput

JsonSchema = dict[str, Any]


def problem_responses(*statuses: tuple[int, str]) -> dict[int | str, JsonSchema]:
    """For a route's `responses`: each status, with its description, answers with a problem document."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {status: {"description": text, "content": content} for status, text in statuses}


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
    document = CaptionBody.model_json_schema()
    document.pop("$defs")  # references inside an operation would have to point elsewhere
    document["properties"]["images"] |= {"items": ImageInput.model_json_schema(), "minItems": 1}
    document["properties"]["images"].pop("default")
    document["required"] = ["images"]
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "image/*": {"schema": image_file},
                "application/json": {"schema": document},
            },
        },
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": f"With a raw image body only: {schema.get('description', '')}",
                "schema": schema,
            }
            for name, schema in form_fields.items()
        ]
        + [
            {
                "name": "Accept-Language",
                "in": "header",
                "required": False,
                "description": "Chooses the language when the request names none.",
                "schema": {"type": "string"},
            }
        ],
    }

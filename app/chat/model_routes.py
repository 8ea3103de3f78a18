"""GET /v1/models: what can be named as `model`, in OpenAI's shape with what else is worth knowing."""

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.caption_routes import service_of
from app.api.openapi import problem_responses
from app.chat.errors import OpenAIProblem, OpenAIRoute
from app.chat.request import check_model

router = APIRouter(route_class=OpenAIRoute, tags=["OpenAI's dialect"])


class ModelEntry(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "compact",
                    "object": "model",
                    "created": 1795348800,
                    "owned_by": "paellera",
                    "revision": "2a0e1d8e9f25",
                    "languages": ["ar", "cs", "de", "en", "es", "fr", "hi", "pt", "uk", "zh"],
                }
            ]
        }
    )

    id: str = Field(description="the bundle's name")
    object: Literal["model"] = "model"
    created: int = Field(description="Unix time at which this server started")
    owned_by: Literal["paellera"] = "paellera"
    revision: str = Field(description="of the bundle; `id@revision` names exactly this one")
    languages: list[str] = Field(description="codes of the languages it captions in")


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelEntry]


@router.get(
    "/v1/models",
    summary="The model this server has, in OpenAI's shape",
    responses=problem_responses((503, "The model is being loaded"), model=OpenAIProblem),
)
async def list_models(request: Request) -> ModelList:
    return ModelList(data=[_entry(request)])


@router.get(
    "/v1/models/{model}",
    summary="One model of that list",
    responses=problem_responses(
        (404, "There is no such model"), (503, "The model is being loaded"), model=OpenAIProblem
    ),
)
async def get_model(request: Request, model: str) -> ModelEntry:
    check_model(model, service_of(request).model)
    return _entry(request)


def _entry(request: Request) -> ModelEntry:
    model = service_of(request).model
    return ModelEntry(
        id=model.bundle_name,
        created=request.app.state.created,
        revision=model.revision,
        languages=list(model.languages),
    )

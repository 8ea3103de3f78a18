"""The settings of the service and the command line: environment variables, overridden by flags.

Every field can be set as PAELLERA_<NAME>, for example PAELLERA_PORT=8080. What a caption request may ask for
is not a setting: those limits are part of the API (app/schemas.py).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import InvalidSettingsError
from app.images import ImageLimits

_PILLOW_PIXELS = 178_000_000  # above it Pillow refuses by itself


class Settings(BaseSettings):
    """Everything the operator can choose. Sizes are in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="PAELLERA_", env_ignore_empty=True, frozen=True)

    bundle: Path | None = Field(None, description="the bundle's folder; none: the embedded default")
    datastore: Path | None = Field(None, description="a datastore instead of the bundle's own")
    default_language: str = Field("en", description="when the caller names none")

    host: str = Field("127.0.0.1", description="the address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="the port to listen on; 0: any free one")
    max_waiting: int = Field(32, ge=1, le=10_000, description="requests that may wait for the model")
    decode_workers: int = Field(2, ge=1, le=64, description="images decoded at the same time")
    max_body_bytes: int = Field(64_000_000, ge=1, description="of one request")
    shutdown_seconds: int = Field(30, ge=0, description="for requests under way when the service stops")

    # Of replies that were given before (app/reply_cache.py).
    cache_bytes: int = Field(
        16_000_000, ge=0, description="of replies kept for identical requests; 0: caption every request anew"
    )

    max_images: int = Field(16, ge=1, le=256, description="in one request, and in one batch")
    max_image_bytes: int = Field(20_000_000, ge=1, description="of one image file")
    max_image_pixels: int = Field(50_000_000, ge=1, le=_PILLOW_PIXELS, description="width × height")

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what is logged")
    log_format: Literal["text", "json"] = Field("text", description="how it is logged, to standard error")

    @property
    def image_limits(self) -> ImageLimits:
        return ImageLimits(max_bytes=self.max_image_bytes, max_pixels=self.max_image_pixels)


def load_settings(flags: Mapping[str, object] | None = None) -> Settings:
    """The environment, overridden by those flags that are not None. Raises InvalidSettingsError."""
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        shown = f"--{name}" if name in given else f"PAELLERA_{name.upper()}"
        raise InvalidSettingsError(f"{shown}: {first['msg'].lower()}, not {first['input']!r}") from None

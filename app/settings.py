"""The settings of the service and the command line: a flag, else the environment, a file, or the default.

Every field can be set as PAELLERA_<NAME>, for example PAELLERA_PORT=8080, or as `port` in the file. What a
caption request may ask for is not a setting: those limits are part of the API (app/schemas.py).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from app.errors import InvalidSettingsError
from app.images import ImageLimits
from app.model import IndexDevice, Precision
from app.setting_lists import HostPatterns, Networks, Origins
from app.settings_file import read_settings_file

CONFIG_VARIABLE = "PAELLERA_CONFIG"
DEFAULT = "default"
_PILLOW_PIXELS = 178_000_000  # above it Pillow refuses by itself


class Settings(BaseSettings):
    """Everything the operator can choose. Sizes are in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="PAELLERA_", env_ignore_empty=True, frozen=True)

    bundle: Path | None = Field(None, description="the bundle's folder; none: the embedded default")
    datastore: Path | None = Field(None, description="a datastore instead of the bundle's own")
    datastore_poll_seconds: float = Field(
        5.0, ge=0, le=86_400, description="between looks for a new live version of the datastore; 0: never"
    )
    default_language: str = Field("en", description="when the caller names none")
    precision: Precision = Field(
        "auto", description="of the computation; auto: bfloat16 where that is faster"
    )

    index_device: IndexDevice = Field(
        "cpu", description="searches the index: cpu, gpu, or auto: a GPU where faiss finds one for its kind"
    )

    host: str = Field("127.0.0.1", description="the address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="the port to listen on; 0: any free one")
    max_waiting: int = Field(32, ge=1, le=10_000, description="requests that may wait for the model")
    queue_seconds: float = Field(20.0, gt=0, le=3600, description="that a request may wait for the model")
    batch_rows: int = Field(16, ge=1, le=256, description="captions that are written together")
    max_body_bytes: int = Field(64_000_000, ge=1, description="of one request")
    max_bodies_bytes: int = Field(
        512_000_000, ge=1, description="of all requests under way together; one alone may have more"
    )
    max_connections: int = Field(500, ge=1, le=100_000, description="open at the same time")
    header_seconds: float = Field(
        10.0, gt=0, le=3600, description="for a request's head, and until its body must be at its pace"
    )
    body_seconds: float = Field(300.0, gt=0, le=86_400, description="for a request's body altogether")
    body_bytes_per_second: float = Field(
        1000.0, gt=0, le=1e9, description="that a body must come with, in the mean"
    )
    send_seconds: float = Field(30.0, gt=0, le=3600, description="that an answer may wait for its client")
    shutdown_seconds: int = Field(30, ge=0, description="for requests under way when the service stops")
    drain_seconds: int = Field(5, ge=0, description="on SIGTERM: still accepting, /readyz says 503")
    unload_after_seconds: int = Field(0, ge=0, description="without requests the model is dropped; 0: never")

    # Of replies that were given before (app/api/reply_cache.py).
    cache_bytes: int = Field(
        16_000_000, ge=0, description="of replies kept for identical requests; 0: caption every request anew"
    )

    max_images: int = Field(16, ge=1, le=256, description="in one request, and in one batch")
    max_image_bytes: int = Field(20_000_000, ge=1, description="of one image file")
    max_image_pixels: int = Field(50_000_000, ge=1, le=_PILLOW_PIXELS, description="width × height")
    decode_workers: int = Field(2, ge=1, le=64, description="processes, one image each at a time")
    decode_seconds: float = Field(10.0, gt=0, le=600, description="that decoding an image may take")
    decode_memory_bytes: int = Field(
        2_000_000_000, ge=500_000_000, description="that images may take in each of these processes"
    )

    # Who may use the service, how much of it, and from which web pages (app/access/).
    keys_file: Path | None = Field(None, description="API keys, as `paellera keys` writes them")
    limits_storage: SecretStr | None = Field(
        None, description="redis://… where requests are counted; none: in memory"
    )
    address_per_minute: int | None = Field(None, ge=1, description="requests of one address, without keys")
    address_per_day: int | None = Field(None, ge=1, description="requests of one address, without keys")
    trusted_proxies: Networks = Field((), description="networks whose X-Forwarded-For is believed")
    cors_origins: Origins = Field((), description="web pages that may call")

    # Images given by their address (app/access/fetching.py).
    url_hosts: HostPatterns = Field((), description="hosts to fetch from: names, or *. and a domain")
    url_seconds: float = Field(10.0, gt=0, le=300, description="for all images of a request together")

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what is logged")
    log_format: Literal["text", "json"] = Field("text", description="how it is logged, to standard error")

    @property
    def image_limits(self) -> ImageLimits:
        return ImageLimits(max_bytes=self.max_image_bytes, max_pixels=self.max_image_pixels)


@dataclass(frozen=True)
class ResolvedSettings:
    """Settings, and for each of them where its value came from."""

    settings: Settings
    origins: Mapping[str, str]  # "default", the file, the variable or the flag


def load_settings(flags: Mapping[str, object] | None = None, file: Path | None = None) -> Settings:
    """Flags that are not None, then the environment, then the file, then the defaults.

    `file` is by default the one that PAELLERA_CONFIG names, if any. Raises InvalidSettingsError.
    """
    return resolve_settings(flags, file).settings


def resolve_settings(
    flags: Mapping[str, object] | None = None, file: Path | None = None, kind: type[Settings] = Settings
) -> ResolvedSettings:
    """As `load_settings`, with where every value came from. `kind` may have further fields."""
    file = file or (Path(named) if (named := os.environ.get(CONFIG_VARIABLE)) else None)
    from_file = {} if file is None else read_settings_file(file, kind.model_fields)
    try:
        from_environment = EnvSettingsSource(kind)()
    except SettingsError as error:  # a list that is not JSON
        raise InvalidSettingsError(str(error)) from None
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    origins = dict.fromkeys(kind.model_fields, DEFAULT)
    origins |= dict.fromkeys(from_file, str(file))
    origins |= {name: f"PAELLERA_{name.upper()}" for name in from_environment}
    origins |= {name: f"--{name.replace('_', '-')}" for name in given}
    try:
        settings = kind.model_validate({**from_file, **from_environment, **given})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        origin = origins.get(name, "")
        shown = f"{origin}: {name}" if name in from_file and origin == str(file) else origin or "settings"
        value = "" if is_secret(kind, name) or not name else f", not {first['input']!r}"
        raise InvalidSettingsError(f"{shown}: {first['msg'].lower()}{value}") from None
    return ResolvedSettings(settings, origins)


def is_secret(kind: type[Settings], name: str) -> bool:
    """Whether a setting's value must not be shown: its type says so (SecretStr, SecretBytes)."""
    field = kind.model_fields.get(name)
    return field is not None and "Secret" in str(field.annotation)

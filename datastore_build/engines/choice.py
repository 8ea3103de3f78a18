"""Which engine a command was asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import typer

from datastore_build.engines.engine import Engine, LocalEngine

EngineChoice = Literal["local", "ray"]


@contextmanager
def open_engine(choice: EngineChoice, ray_address: str | None, workers: int | None) -> Iterator[Engine]:
    """The engine, ready before anything is read. Raises DatastoreError, and BadParameter for options of the
    other engine."""
    if choice == "ray":
        from datastore_build.engines.ray import ray_engine  # here: nobody else waits for it

        with ray_engine(ray_address, workers, lambda message: typer.echo(message, err=True)) as engine:
            yield engine
        return
    for value, option in ((ray_address, "--ray-address"), (workers, "--workers")):
        if value is not None:
            raise typer.BadParameter("needs --engine ray", param_hint=option)
    yield LocalEngine()

"""`paellera datastore …` as a test calls it."""

from pathlib import Path

from typer.testing import CliRunner

from app.commands.datastore import datastore_app


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    result = CliRunner().invoke(datastore_app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr

"""The `paellera` command: puts the sub-commands together, turns every error into one line and an exit code.

Exit codes: 0 done, 1 the work failed, 2 bad usage, 130 interrupted. The commands themselves are in
app/commands/ and in the packages they belong to; they import what is heavy (torch) when they run, so that
--help is quick.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from app.commands.bundle import bundle_app, languages
from app.commands.caption import caption
from app.commands.datastore import datastore_app
from app.commands.keys import keys_app
from app.commands.serve import serve
from app.version import paellera_version
from evaluation.cli import evaluate_app
from retrieval.errors import InvalidImageError, InvalidRequestError, PaelleraError
from training.cli import train_app

DEBUG_VARIABLE = "PAELLERA_DEBUG"

cli = typer.Typer(
    name="paellera",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"paellera {paellera_version()}")
        raise typer.Exit


@cli.callback()
def paellera(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """Captions for photos, in the languages you ask for.

    \b
    Examples:
      paellera caption holiday.jpg
      paellera caption *.jpg --language es --language ar --json
      paellera serve --port 8080
      paellera datastore build captions.jsonl --output my-datastore
      paellera caption holiday.jpg --datastore my-datastore
    """


cli.command()(caption)
cli.command()(serve)
cli.command()(languages)
cli.add_typer(keys_app, name="keys")
cli.add_typer(datastore_app, name="datastore")
cli.add_typer(bundle_app, name="bundle")
cli.add_typer(train_app, name="train")
cli.add_typer(evaluate_app, name="evaluate")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code. Shows a traceback only where PAELLERA_DEBUG is set."""
    try:
        result = cli(arguments, prog_name="paellera", standalone_mode=False)
    except typer.TyperException as error:
        return _usage_error(error)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except PaelleraError as error:
        bad_usage = isinstance(error, InvalidRequestError) and not isinstance(error, InvalidImageError)
        return _failed(str(error), 2 if bad_usage else 1)
    except OSError as error:  # a file that cannot be written, a disk that is full
        if os.environ.get(DEBUG_VARIABLE):
            raise
        return _failed(f"{error.filename}: {error.strerror}" if error.filename else str(error), 1)
    except Exception as error:  # a bug, but its traceback is of use only to whoever asks for it
        if os.environ.get(DEBUG_VARIABLE):
            raise
        return _failed(
            f"this should not happen: {type(error).__name__}: {error} "
            f"(run again with {DEBUG_VARIABLE}=1 to see where)",
            1,
        )
    return result if isinstance(result, int) else 0


def _usage_error(error: typer.TyperException) -> int:
    message = error.format_message()
    if message.startswith("Usage:"):  # a group that was called without a command shows its help
        print(message, file=sys.stderr)
        return error.exit_code
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "paellera"
    message = f"{message} See" if message.endswith("?") else f"{message.rstrip('.')}; see"
    return _failed(f"{message} `{command} --help`", error.exit_code)


def _failed(message: str, exit_code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())

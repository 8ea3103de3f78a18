"""docs/cli.md, made from the commands themselves: `python -m app.commands.reference > docs/cli.md`.

A test compares the file with what this module makes, so the page cannot fall behind the program.
"""

import sys
from collections.abc import Iterator
from typing import Any

import typer.main

from app.cli import cli

_WIDTH = 100
_HEAD = """\
# The command line

This page is made from the program: `python -m app.commands.reference > docs/cli.md`.

`paellera COMMAND --help` shows the same text. `--json` prints one JSON document on standard output and
nothing else; messages and progress go to standard error. An error is one line that begins with `error:`.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | the work failed, or a photo among several could not be read |
| 2 | bad usage: an unknown option, a value out of range, an unknown language |
| 130 | interrupted |

The settings of `paellera serve` that are not options, and what the environment can set for every command,
are in [http.md](http.md#settings). `PAELLERA_DEBUG=1` shows the traceback of an error.
"""


def command_line_page() -> str:
    """The whole page as Markdown."""
    return _HEAD + "".join(_sections(typer.main.get_command(cli), "paellera", None))


def _sections(command: Any, path: str, parent: Any) -> Iterator[str]:
    """A section for the command and each one below it. Typer has no public type for a command."""
    context = command.make_context(
        path.rsplit(" ", 1)[-1], [], parent=parent, resilient_parsing=True, terminal_width=_WIDTH
    )
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield f"\n## {path}\n\n```text\n{text}\n```\n"
    for name, below in getattr(command, "commands", {}).items():
        yield from _sections(below, f"{path} {name}", context)


if __name__ == "__main__":
    sys.stdout.write(command_line_page())

"""docs/errors.md, made of the error classes and the hostile corpus.

    PYTHONPATH=tests python -m hostile.errors_page > docs/errors.md

A test compares the file with what this module makes, so the page cannot fall behind the program.
"""

import inspect
import sys
from collections.abc import Iterator
from functools import cache

from app.chat.errors import openai_status, openai_type
from app.errors import COMMAND_LINE, RetryLaterError
from app.problems import title_of
from hostile.corpus import CLASSES, GROUPS
from hostile.error_codes import error_classes, status_of
from hostile.inputs import CAPTIONED, HostileClass
from retrieval.errors import PaelleraError

_HEAD = """\
# Errors

This page is made from the program: `make format` writes it anew.

Every error is a problem document, as [http.md](http.md#errors) shows it. `code` and `title` belong together
and stay as they are; programs look at `code`. `detail` is for people and may change. Where a chat is named
below, it answers with that status and with a member `error` of that type, as OpenAI's clients expect it.
Errors that stop a request before it gets there (its key, its limit, its size, its address) are the same
everywhere and have no such member.

## Codes

"""
_HOSTILE = """\

## Hostile input

The tests send the service what nobody sends by mistake: {inputs:,} inputs in {classes} classes, each with
the answers that its inputs get. They check that there are these answers and no others, never a 5xx, that
each comes within seconds, that decode processes stay within their memory, and that after each class a good
photo is captioned. 200 means that there is a picture, which is captioned. 422 is 400 in a chat. The limits
are those of the tests: 4 MB and 30 megapixels an image, 12 MB a body, 500 MB for images in a decode process;
the others are the defaults.
"""


def errors_page() -> str:
    """The whole page as Markdown."""
    parts = [_HEAD, *_overview(), *_codes()]
    parts.append(_HOSTILE.format(inputs=sum(map(number_of_inputs, CLASSES)), classes=len(CLASSES)))
    for title, classes in GROUPS.items():
        parts += [f"\n### {title}\n\n", *_table_of(classes)]
    return "".join(parts)


def documented() -> list[type[PaelleraError]]:
    """The errors that a request can be answered with, by status and code."""
    met = [error for error in error_classes() if error.where != COMMAND_LINE and error is not RetryLaterError]
    return sorted(met, key=lambda error: (error.status, error.code))


@cache
def number_of_inputs(declared: HostileClass) -> int:
    return sum(1 for _ in declared.make())


def _overview() -> Iterator[str]:
    yield "| status | codes |\n| --- | --- |\n"
    for status in sorted({error.status for error in documented()}):
        codes = ", ".join(f"[`{e.code}`](#{e.code})" for e in documented() if e.status == status)
        yield f"| {status} | {codes} |\n"


def _codes() -> Iterator[str]:
    for error in documented():
        meaning = " ".join((inspect.getdoc(error) or "").split())
        status = openai_status(error.status)
        in_chats = f" · in a chat {status} `{openai_type(status)}`" if "chats" in error.where else ""
        yield f"\n### {error.code}\n\n{error.status} · *{title_of(error.code)}*{in_chats}\n\n"
        yield f"{meaning}\n\n"
        yield f"- What to do: {error.advice}\n"
        yield f"- Where: {error.where}\n"


def _table_of(classes: tuple[HostileClass, ...]) -> Iterator[str]:
    yield "| class | what is sent | inputs | answers |\n| --- | --- | --- | --- |\n"
    for declared in classes:
        answers = ", ".join(_shown(answer) for answer in sorted(declared.answers))
        yield f"| {declared.name} | {declared.description} | {number_of_inputs(declared)} | {answers} |\n"


def _shown(answer: str) -> str:
    return answer if answer == CAPTIONED else f"{status_of(answer)} [`{answer}`](#{answer})"


if __name__ == "__main__":
    sys.stdout.write(errors_page())

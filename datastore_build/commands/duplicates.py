"""`paellera datastore duplicates`: options in, a report and a file of ids out."""

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from datastore_build.cli import one_line_errors
from datastore_build.commands.options import DatastoreArgument, JsonOption
from datastore_build.commands.report import describe_languages, progress_bar
from datastore_build.duplicates.similar_entries import SimilarEntry, SimilarSummary, summarise
from datastore_build.report import BuildProgress
from retrieval.datastore import Datastore
from retrieval.errors import DatastoreError
from retrieval.files import replacing

_SHOWN = 10


def duplicates(
    datastore: DatastoreArgument,
    similarity: Annotated[
        float,
        typer.Option(
            "--similarity",
            metavar="COSINE",
            min=0.5,
            max=1.0,
            help="Of the vectors, from which on two count.",
        ),
    ] = 0.95,
    ids_to: Annotated[
        Path | None,
        typer.Option(
            "--ids-to",
            metavar="FILE",
            help="Write the ids of the later ones, one a line.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find entries that say the same in other words.

    Nothing is changed. `build` and `add` compare texts by their letters; this compares entries that have a
    language in common with earlier ones, by what they mean. Look at the pairs it prints before you delete
    what it finds. With an exact index it takes the square of the number of entries.

    \b
    Examples:
      paellera datastore duplicates my-datastore
      paellera datastore duplicates my-datastore --similarity 0.98 --ids-to alike.txt
      paellera datastore delete my-datastore --ids-from alike.txt
    """
    with one_line_errors():
        store = Datastore.open(datastore)
        try:
            with ExitStack() as stack:
                on_progress = stack.enter_context(progress_bar())
                file = None
                if ids_to is not None:
                    temporary = stack.enter_context(replacing(ids_to))
                    file = stack.enter_context(temporary.open("w", encoding="utf-8"))

                def on_found(similar: SimilarEntry) -> None:
                    if file is not None:
                        file.write(f"{similar.id}\n")

                summary = summarise(
                    store,
                    similarity,
                    _SHOWN,
                    on_found,
                    lambda done: on_progress(BuildProgress(done, len(store), 0, 0, "comparing")),
                )
        except OSError as error:
            raise DatastoreError(f"cannot write {ids_to}: {error.strerror or error}") from None
    if as_json:
        typer.echo(json.dumps(asdict(summary), ensure_ascii=False, indent=2))
    else:
        typer.echo(_describe(summary))


def _describe(summary: SimilarSummary) -> str:
    counts = f" ({describe_languages(summary.languages)})" if summary.found else ""
    head = (
        f"{summary.found:,} of {summary.entries:,} entries have a cosine of {summary.similarity:g} or more "
        f"with an earlier one{counts}"
    )
    pairs = [
        f"  {pair.similarity:.3f}  {pair.id}: {pair.text} ~ {pair.earlier_id}: {pair.earlier_text}"
        for pair in summary.first
    ]
    return "\n".join([head, *pairs])

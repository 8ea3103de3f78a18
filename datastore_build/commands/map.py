"""`paellera datastore map`: options in, an HTML file out."""

from pathlib import Path
from typing import Annotated

import typer

from datastore_build.cli import one_line_errors
from datastore_build.map.page import map_page
from datastore_build.map.projection import project
from retrieval.datastore import Datastore
from retrieval.errors import DatastoreError
from retrieval.files import replacing

_MOST_TEXTS = 100_000  # that a browser draws while one drags


def draw_map(
    datastore: Annotated[
        Path, typer.Argument(metavar="DIR", help="The datastore's folder.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The page to write.", show_default=False)
    ],
    texts: Annotated[
        int,
        typer.Option("--texts", metavar="N", min=1, max=1_000_000, help="Of more texts, a part is drawn."),
    ] = _MOST_TEXTS,
    title: Annotated[
        str | None, typer.Option("--title", metavar="TEXT", help="Default: the folder's name.")
    ] = None,
) -> None:
    """Draw a datastore as an HTML page.

    Captions that are alike lie near each other, coloured by language. Point at a dot to read it, search, and
    switch languages on and off; the arrow keys do what the mouse does.

    \b
    Examples:
      paellera datastore map my-datastore --output map.html
      paellera datastore map my-datastore --output map.html --texts 20000 --title "Our photos"
    """
    with one_line_errors():
        store = Datastore.open(datastore)
        projection = project(store, texts)
        page = map_page(store, projection, title or datastore.resolve().name)
        try:
            with replacing(output) as temporary:
                # A caption may hold half of a character; it is shown as a question mark.
                temporary.write_text(page, encoding="utf-8", errors="replace")
        except OSError as error:
            raise DatastoreError(f"cannot write {output}: {error.strerror or error}") from None
    drawn, entries = len(projection.entries), len(store)
    part = f"{drawn:,} of {entries:,} entries, drawn at random" if drawn < entries else f"{entries:,} entries"
    typer.echo(f"{output}: {part}")

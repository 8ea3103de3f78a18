"""Options that several commands have, written once."""

from pathlib import Path
from typing import Annotated

import typer

BundleOption = Annotated[
    Path | None,
    typer.Option("--bundle", metavar="DIR", help="The model to use. Default: the built-in one."),
]
DatastoreOption = Annotated[
    Path | None,
    typer.Option("--datastore", metavar="DIR", help="Captions to retrieve from. Default: the bundle's own."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]

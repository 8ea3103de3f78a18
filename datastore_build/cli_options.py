"""The options that several commands of `paellera datastore` share."""

from pathlib import Path
from typing import Annotated

import typer

from datastore_build.build_state import NearDuplicateChoice
from retrieval.errors import UnknownLanguageError
from retrieval.languages import normalise


def language_tag(value: str) -> str:
    """Option callback: the code of a language tag; anything else is bad usage."""
    try:
        return normalise(value)
    except UnknownLanguageError as error:
        raise typer.BadParameter(str(error)) from None


DatastoreArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The datastore's folder.", show_default=False)
]
BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle", metavar="DIR", help="The bundle whose embedder is used. Default: the built-in one."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Publish nothing if any row cannot be used.")]
LanguageOption = Annotated[
    str, typer.Option("--language", callback=language_tag, help="Language of the rows that name none.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on where a build of the same sources and options died.")
]
NearDuplicatesOption = Annotated[
    NearDuplicateChoice,
    typer.Option(
        "--near-duplicates",
        help="Texts that nearly equal an earlier one: report counts them, drop leaves out entries that have "
        "no other text, keep does not look for them.",
    ),
]
MinWordsOption = Annotated[
    int | None, typer.Option("--min-words", min=0, help="Leave out texts with fewer words.")
]
MaxWordsOption = Annotated[
    int | None, typer.Option("--max-words", min=1, help="Leave out texts with more words.")
]
MinCharactersOption = Annotated[
    int | None, typer.Option("--min-characters", min=0, help="Leave out shorter texts.")
]
MaxCharactersOption = Annotated[
    int | None, typer.Option("--max-characters", min=1, help="Leave out longer texts.")
]
MinMatchOption = Annotated[
    float | None,
    typer.Option(
        "--min-match",
        metavar="CONFIDENCE",
        min=0.0,
        max=1.0,
        help="Leave out texts that fit the photo their row names (image) less than that, as the bundle's "
        "matcher tells.",
    ),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="DIR",
        help="Where the photos for --min-match are. Default: beside the file that names them.",
    ),
]
CheckLanguageOption = Annotated[
    bool,
    typer.Option(
        "--check-language", help="Leave out texts plainly in another language than labelled (py3langid)."
    ),
]

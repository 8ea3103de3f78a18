"""The options that several commands of `paellera datastore` share."""

from pathlib import Path
from typing import Annotated

import typer

from datastore_build.build_state import NearDuplicateChoice
from datastore_build.engines.choice import EngineChoice
from datastore_build.indexes.plan import parse_bytes
from retrieval.errors import UnknownLanguageError
from retrieval.languages import normalise
from retrieval.manifest import IndexChoice, IndexRequest


def language_tag(value: str) -> str:
    """Option callback: the code of a language tag; anything else is bad usage."""
    try:
        return normalise(value)
    except UnknownLanguageError as error:
        raise typer.BadParameter(str(error)) from None


def memory_size(value: str) -> int:
    """Option parser: a number of bytes with a suffix; anything else is bad usage."""
    try:
        return parse_bytes(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def index_request(
    asked: IndexRequest,
    kind: IndexChoice | None,
    memory_budget: int | None,
    target_ms: float | None,
    target_recall: float | None,
) -> IndexRequest:
    """The request with what the options say otherwise; None says nothing."""
    options = {
        "kind": kind,
        "memory_budget": memory_budget,
        "target_ms": target_ms,
        "target_recall": target_recall,
    }
    return asked.model_copy(update={name: value for name, value in options.items() if value is not None})


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
    str,
    typer.Option(
        "--language", metavar="LANGUAGE", callback=language_tag, help="Language of the rows that name none."
    ),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on where a build of the same sources and options died.")
]
EngineOption = Annotated[
    EngineChoice,
    typer.Option(
        "--engine",
        help="What embeds and fills lists: local is this process, ray the machines of a Ray cluster.",
    ),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="The cluster. Default: the one in RAY_ADDRESS or the one this machine belongs to, else one is "
        "started here for the time.",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="With --engine ray: how many. Default: one a processor; to embed, one a GPU if there is any.",
    ),
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
    int | None, typer.Option("--min-words", metavar="N", min=0, help="Leave out texts with fewer words.")
]
MaxWordsOption = Annotated[
    int | None, typer.Option("--max-words", metavar="N", min=1, help="Leave out texts with more words.")
]
MinCharactersOption = Annotated[
    int | None, typer.Option("--min-characters", metavar="N", min=0, help="Leave out shorter texts.")
]
MaxCharactersOption = Annotated[
    int | None, typer.Option("--max-characters", metavar="N", min=1, help="Leave out longer texts.")
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
IndexOption = Annotated[
    IndexChoice | None,
    typer.Option("--index", help="auto decides by size, memory and time. Default: auto, or as before."),
]
MemoryBudgetOption = Annotated[
    int | None,
    typer.Option(
        "--memory-budget",
        metavar="SIZE",
        parser=memory_size,
        help="What the index may take in memory, such as 800M or 2G. auto: 1G.",
    ),
]
TargetMsOption = Annotated[
    float | None,
    typer.Option(
        "--target-ms",
        metavar="MS",
        min=0.01,
        help="What a query may take on one core, in milliseconds. auto: 10.",
    ),
]
TargetRecallOption = Annotated[
    float | None,
    typer.Option(
        "--target-recall",
        metavar="SHARE",
        min=0.1,
        max=0.999,
        help="Share of the true neighbours that an approximate index shall find. Default: 0.95.",
    ),
]

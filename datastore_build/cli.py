"""`paellera datastore build` and `info`: options in, a report out.

The work is build.py's. `search` needs images and is in app/.
"""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.bar import Bar
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from datastore_build.activation import version_folders
from datastore_build.build import IndexChoice, build_datastore
from datastore_build.readers import SUPPORTED, open_sources
from datastore_build.report import BuildProgress, BuildReport, RejectedRow, RejectedRowsError
from datastore_build.worker import TextEmbedder
from retrieval.errors import PaelleraError, UnknownLanguageError
from retrieval.languages import display_name, normalise
from retrieval.manifest import Manifest, live_version, read_manifest, verify_sizes

_BAR_WIDTH = 32  # characters

datastore_app = typer.Typer(
    name="datastore",
    help="Build and inspect datastores: the captions that are retrieved for an image.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle", metavar="DIR", help="The bundle whose embedder is used. Default: the built-in one."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def open_embedder(bundle: Path | None) -> TextEmbedder:
    """The embedder of a bundle, of the default one if None."""
    # Here, because it imports torch, which takes seconds: `info` and `--help` must not wait for it.
    from models.bundle import Bundle, default_bundle

    return Bundle.open(bundle or default_bundle()).load_embedder()


def language_tag(value: str) -> str:
    """Option callback: the code of a language tag; anything else is bad usage."""
    try:
        return normalise(value)
    except UnknownLanguageError as error:
        raise typer.BadParameter(str(error)) from None


@datastore_app.command()
def build(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE",
            help=f"Files of captions: {SUPPORTED}.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="The datastore's folder.", show_default=False),
    ],
    bundle: BundleOption = None,
    index: Annotated[IndexChoice, typer.Option("--index", help="auto takes flat: exact search.")] = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="Publish nothing if any row cannot be used.")
    ] = False,
    language: Annotated[
        str, typer.Option("--language", callback=language_tag, help="Language of the rows that name none.")
    ] = "en",
    as_json: JsonOption = False,
) -> None:
    """Build a datastore from files of captions and make it live.

    A row that cannot be used is counted and kept, with file, line and reason, in rejects.jsonl. The live
    version is replaced at once when the new one is complete, and stays if the build fails.

    \b
    Examples:
      paellera datastore build captions.jsonl --output my-datastore
      paellera datastore build captions_train2017.json more.csv.gz --output my-datastore --strict
      paellera datastore build legendas.tsv --language pt --output my-datastore --json
    """
    with one_line_errors():
        open_sources(sources)  # a misspelt name is told before the embedder is loaded
        embedder = open_embedder(bundle)
        with _progress_bar() as on_progress:
            report = build_datastore(
                sources,
                output,
                embedder,
                language=language,
                index=index,
                strict=strict,
                on_progress=on_progress,
            )
    if report.rejected:
        typer.echo(
            f"{report.rejected:,} of {report.rows:,} rows rejected, see {report.rejects_file}", err=True
        )
        _print_rejects(report.rejects, report.rejected)
    typer.echo(
        json.dumps(asdict(report), ensure_ascii=False, indent=2) if as_json else _describe_report(report)
    )


@datastore_app.command()
def info(
    datastore: Annotated[
        Path, typer.Argument(metavar="DIR", help="The datastore's folder.", show_default=False)
    ],
    as_json: JsonOption = False,
) -> None:
    """Show what is in a datastore: its live version, with a histogram of its languages.

    \b
    Examples:
      paellera datastore info my-datastore
      paellera datastore info my-datastore --json
    """
    with one_line_errors():
        folder = live_version(datastore)
        manifest = read_manifest(folder)
        verify_sizes(folder, manifest)
    versions = [path.name for path in version_folders(datastore)]
    size = sum(record.bytes for record in manifest.files.values())
    if as_json:
        document = manifest.model_dump(mode="json") | {
            "path": str(folder),
            "bytes": size,
            "versions": versions,
        }
        typer.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        typer.echo(_describe_manifest(manifest, size, versions))


@contextmanager
def one_line_errors() -> Iterator[None]:
    """An error the user can act on is printed on one line and ends the program with 1."""
    try:
        yield
    except PaelleraError as error:
        if isinstance(error, RejectedRowsError):
            _print_rejects(error.rejects, error.rejected)
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@contextmanager
def _progress_bar() -> Iterator[Callable[[BuildProgress], None]]:
    """A progress bar on standard error, if that is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("embedding", total=1.0, counts="")

        def show(state: BuildProgress) -> None:
            rate = state.texts / max(progress.tasks[0].elapsed or 0.0, 1e-9)
            counts = f"{state.texts:,} texts, {rate:,.0f}/s, {state.rejected:,} rejected"
            progress.update(task, completed=state.fraction, counts=counts)

        yield show


def _print_rejects(rejects: tuple[RejectedRow, ...], total: int) -> None:
    for reject in rejects:
        typer.echo(f"  {reject}", err=True)
    if total > len(rejects):
        typer.echo(f"  and {total - len(rejects):,} more", err=True)


def _describe_report(report: BuildReport) -> str:
    repeated = f", {report.repeated_texts:,} of them repeated" if report.repeated_texts else ""
    state = "was there already and is live again" if report.reused else "is live"
    return (
        f"{report.published:,} of {report.rows:,} rows published: "
        f"{report.entries:,} entries, {report.texts:,} texts{repeated} "
        f"({_describe_languages(report.languages)})\n"
        f"version {report.version} {state} after {report.seconds:.1f} s: {report.path}"
    )


def _describe_languages(languages: dict[str, int]) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in languages.items())


def _describe_manifest(manifest: Manifest, size: int, versions: list[str]) -> str:
    lines = [
        f"version    {manifest.version} ({len(versions)} in the datastore)",
        f"created    {manifest.created} by paellera {manifest.tool_version}, faiss {manifest.faiss_version}",
        f"embedder   {manifest.embedder}, {manifest.dimension} dimensions",
        f"index      {manifest.index.kind}, {manifest.metric}",
        f"entries    {manifest.counts.entries:,}",
        f"texts      {manifest.counts.texts:,} ({manifest.counts.repeated_texts:,} repeated)",
        f"size       {size:,} bytes",
        "sources",
        *(
            f"  {source.name}: {source.published:,} of {source.rows:,} rows, {source.rejected:,} rejected"
            for source in manifest.sources
        ),
        "languages",
        *_language_bars(manifest.counts.languages),
    ]
    return "\n".join(lines)


def _language_bars(languages: dict[str, int]) -> list[str]:
    """A line a language: code, name, count and a bar as long as its share of the largest."""
    most = max(languages.values(), default=0)
    console = Console(width=_BAR_WIDTH, color_system=None, file=io.StringIO())
    lines = []
    for code, count in languages.items():
        with console.capture() as bar:
            console.print(Bar(max(most, 1), 0, count, width=_BAR_WIDTH), end="")
        lines.append(f"  {code:4} {display_name(code):24} {count:>12,}  {bar.get()}".rstrip())
    return lines

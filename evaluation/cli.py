"""`paellera evaluate …`: opens a bundle and a data set, runs an evaluation, prints and writes its report."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from evaluation.readers.formats import DataFormat, default_split, read_dataset
from evaluation.references import HUMAN_KINDS, Photo, References, read_photos, read_references
from evaluation.report import HTML, JSON, MARKDOWN, Report, check_folder, check_report_path
from retrieval.errors import InvalidRequestError
from retrieval.languages import match

if TYPE_CHECKING:
    from models.bundle import Bundle

evaluate_app = typer.Typer(
    name="evaluate", help="Measure a bundle on photos with reference captions.", no_args_is_help=True
)

_HUMAN = ",".join(HUMAN_KINDS)


class Retrieval(StrEnum):
    """Whether captions are written with retrieved neighbours."""

    WITH = "with"
    WITHOUT = "without"
    BOTH = "both"


class Tokenisers(StrEnum):
    """What cuts captions before they are counted."""

    PUBLISHED = "published"
    PLAIN = "plain"


_REASONS = 10  # rows left out that are named on the terminal

Images = Annotated[
    Path,
    typer.Option(
        "--images", metavar="DIR", help="Folder of the photos, which the index or the captions name."
    ),
]
Index = Annotated[
    Path, typer.Option("--index", metavar="FILE", help="JSON Lines: image_id, file, split a line.")
]
Captions = Annotated[
    Path,
    typer.Option(
        "--captions", metavar="FILE", help="JSON Lines (.gz too): image_id, lang, caption, kind a line."
    ),
]
Split = Annotated[str, typer.Option("--split", metavar="NAME", help="Split of the index to evaluate.")]
Languages = Annotated[
    list[str] | None,
    typer.Option(
        "--language",
        "-l",
        metavar="LANGUAGE",
        help="Repeatable. Default: all of the bundle that have references.",
    ),
]
Kinds = Annotated[
    str,
    typer.Option(
        "--kinds",
        metavar="KINDS",
        help="Kinds of reference to score on, with commas, or 'all'. A language that has none of them is "
        "scored on those it has.",
    ),
]
BundlePath = Annotated[
    Path | None, typer.Option("--bundle", metavar="DIR", help="The bundle. Default: the built-in one.")
]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Only the first N photos of the split.")
]
Outputs = Annotated[
    list[Path] | None,
    typer.Option("--output", "-o", metavar="FILE", help="Report to write, .md or .json. Repeatable."),
]
BatchSize = Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Photos handled at once.")]


@evaluate_app.command("captions")
def captions_command(
    images: Images,
    captions: Annotated[
        Path,
        typer.Option(
            "--captions",
            metavar="PATH",
            help="The captions' file; for Multi30k and xFlickrCO their folder. With the layout index "
            "JSON Lines (.gz too): image_id, lang, caption, kind a line.",
        ),
    ],
    layout: Annotated[
        DataFormat, typer.Option("--format", help="The data set's layout: docs/evaluation.md has them all.")
    ] = DataFormat.INDEX,
    index: Annotated[
        Path | None,
        typer.Option(
            "--index", metavar="FILE", help="With the layout index, JSON Lines: image_id, file, split a line."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", metavar="NAME", help="Split to evaluate. Default: dev, or the layout's test split."
        ),
    ] = None,
    language: Languages = None,
    kinds: Kinds = _HUMAN,
    bundle: BundlePath = None,
    datastore: Annotated[
        Path | None,
        typer.Option("--datastore", metavar="DIR", help="The datastore. Default: the bundle's own."),
    ] = None,
    retrieval: Annotated[Retrieval, typer.Option("--retrieval", help="Modes to run.")] = Retrieval.BOTH,
    neighbours: Annotated[
        str | None,
        typer.Option(
            "--neighbours",
            metavar="K",
            help="Run these numbers of neighbours, too, and draw the curve, such as 0-7 or 1,2.",
        ),
    ] = None,
    tokenisers: Annotated[
        Tokenisers,
        typer.Option("--tokenisers", help="Cut captions as PAELLA's scores do, or plainly into words."),
    ] = Tokenisers.PUBLISHED,
    beams: Annotated[int, typer.Option("--beams", metavar="N", min=1, help="Beam width; 1 is greedy.")] = 3,
    limit: Limit = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Report to write, .md, .html or .json. Repeatable."
        ),
    ] = None,
    examples: Annotated[
        int,
        typer.Option(
            "--examples", metavar="N", min=0, help="Best and worst captions of each language in the HTML."
        ),
    ] = 3,
    outputs: Annotated[
        Path | None,
        typer.Option("--outputs", metavar="FILE", help="JSON Lines file for every caption written."),
    ] = None,
    from_outputs: Annotated[
        Path | None,
        typer.Option(
            "--from-outputs",
            metavar="FILE",
            help="Write no captions, score those of a file that --outputs wrote.",
        ),
    ] = None,
    batch_size: BatchSize = 8,
) -> None:
    """Caption the photos of a data set and score the captions per language, with and without retrieval.

    \b
    Examples:
      paellera evaluate captions --images photos --index images.jsonl --captions captions.jsonl.gz
      paellera evaluate captions --format xm3600 --images xm --captions captions.jsonl -o report.html
    """
    for path in output or ():
        check_report_path(path, (MARKDOWN, HTML, JSON))
    if outputs is not None:
        check_folder(outputs)
    split = split or default_split(layout)
    data = read_dataset(layout, captions, images, index=index, split=split, kinds=_kinds(kinds), limit=limit)
    for reason in data.rejected[:_REASONS]:
        typer.echo(f"left out: {reason}", err=True)
    if len(data.rejected) > _REASONS:
        typer.echo(f"left out: {len(data.rejected)} rows in all", err=True)

    # Imported here because torch takes seconds to load, and neither --help nor a mistyped path should wait.
    from evaluation import captions_cli as runner

    opened = _open_bundle(bundle)
    modes = runner.modes_of(retrieval, neighbours, opened.manifest.generation.neighbours)
    captioner = opened.load_captioner(datastore)
    references = select_languages(data.references, language, captioner.languages)
    runner.check_packages(output or (), list(references), tokenisers)
    report = runner.measure(
        opened,
        captioner,
        data.photos,
        references,
        runner.CaptionRun(modes, beams, batch_size, tokenisers, examples, split, data.rejected),
        from_outputs=from_outputs,
        outputs=outputs,
        reports=output or (),
        progress=_progress,
    )
    _publish(report, None)


@evaluate_app.command("neutral")
def neutral_command(
    images: Images,
    index: Index,
    captions: Captions,
    split: Split = "dev",
    language: Languages = None,
    kinds: Kinds = _HUMAN,
    bundle: BundlePath = None,
    datastore: Annotated[
        Path | None,
        typer.Option("--datastore", metavar="DIR", help="The datastore. Default: the bundle's own."),
    ] = None,
    beams: Annotated[int, typer.Option("--beams", metavar="N", min=1, help="Beam width; 1 is greedy.")] = 3,
    limit: Limit = None,
    output: Outputs = None,
    batch_size: BatchSize = 8,
) -> None:
    """Count the gendered words in captions with and without `neutral`, and what it costs in CIDEr-D.

    \b
    Examples:
      paellera evaluate neutral --images photos --index images.jsonl --captions captions.jsonl.gz -l de
    """
    for path in output or ():
        check_report_path(path)
    data = read_dataset(
        DataFormat.INDEX, captions, images, index=index, split=split, kinds=_kinds(kinds), limit=limit
    )

    from evaluation.neutral import evaluate_neutral, neutral_report, with_words
    from evaluation.run_description import RunDescription

    captioner = _open_bundle(bundle).load_captioner(datastore)
    references = with_words(select_languages(data.references, language, captioner.languages))
    with _progress("captioning twice", data.photos) as advance:
        results = evaluate_neutral(
            captioner, data.photos, references, beams=beams, batch_size=batch_size, advance=advance
        )
    version = captioner.datastore.version
    run = RunDescription(captioner.bundle_name, captioner.revision, version, split, len(data.photos), beams)
    _publish(neutral_report(results, run), output)


@evaluate_app.command("retrieval")
def retrieval_command(
    images: Images,
    index: Index,
    captions: Captions,
    split: Split = "dev",
    language: Languages = None,
    kinds: Kinds = _HUMAN,
    bundle: BundlePath = None,
    limit: Limit = None,
    output: Outputs = None,
    batch_size: BatchSize = 32,
) -> None:
    """Search a split's captions with its photos: recall at 1, 5 and 10 per language.

    \b
    Examples:
      paellera evaluate retrieval --images photos --index images.jsonl --captions captions.jsonl.gz
    """
    for path in output or ():
        check_report_path(path)
    data = read_dataset(
        DataFormat.INDEX, captions, images, index=index, split=split, kinds=_kinds(kinds), limit=limit
    )

    from evaluation.retrieval import RetrievalRun, evaluate_retrieval, retrieval_report

    opened = _open_bundle(bundle)
    references = select_languages(data.references, language, opened.manifest.languages)
    embedder = opened.load_photo_embedder()
    with _progress("embedding photos", data.photos) as advance:
        results = evaluate_retrieval(
            embedder,
            embedder,
            data.photos,
            references,
            batch_size=batch_size,
            advance=advance,
        )
    run = RetrievalRun(opened.manifest.name, opened.manifest.revision, opened.manifest.embedder.id, split)
    _publish(retrieval_report(results, run), output)


@evaluate_app.command("matcher")
def matcher_command(
    images: Images,
    index: Index,
    captions: Captions,
    split: Split = "dev",
    language: Languages = None,
    kinds: Kinds = _HUMAN,
    bundle: BundlePath = None,
    every_photo: Annotated[
        bool,
        typer.Option("--all", help="Take also every second photo, those that the matcher was fitted on."),
    ] = False,
    limit: Limit = None,
    output: Outputs = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on standard output.")
    ] = False,
    batch_size: BatchSize = 16,
) -> None:
    """Ask the matcher which captions fit: re-ranked retrieval, foils, and how far its confidence is true.

    \b
    Examples:
      paellera evaluate matcher --images photos --index images.jsonl --captions captions.jsonl.gz
    """
    for path in output or ():
        check_report_path(path)
    photos = read_photos(index, images, split)

    from evaluation.matcher_cli import measure, unseen_photos

    photos = list(photos if every_photo else unseen_photos(photos, split))[:limit]
    all_references = read_references(captions, [photo.image_id for photo in photos], _kinds(kinds))
    opened = _open_bundle(bundle)
    references = select_languages(all_references, language, opened.manifest.languages)
    report = measure(
        opened,
        photos,
        references,
        split=split,
        every_photo=every_photo,
        batch_size=batch_size,
        outputs=output or (),
        progress=_progress,
    )
    if as_json:
        typer.echo(json.dumps(report.document, ensure_ascii=False, indent=2))
    else:
        _publish(report, None)


@evaluate_app.command("fusion")
def fusion_command(
    config: Annotated[
        Path, typer.Option("--config", metavar="FILE", help="The comparison's settings, a TOML file.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the comparison.")],
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="FAMILY", help="Train one family alone: bridges or matchers."),
    ] = None,
    system: Annotated[
        list[str] | None, typer.Option("--system", metavar="NAME", help="Repeatable. Default: all.")
    ] = None,
) -> None:
    """Train ways to join image and text on the same data with the same seeds, and compare them.

    Takes long. If it is stopped, the same command goes on where it was.

    \b
    Examples:
      paellera evaluate fusion --config training/configs/fusion.toml --output runs/fusion
    """
    from evaluation.fusion_cli import compare
    from evaluation.fusion_config import FusionConfig
    from training.config import read_config

    _publish(compare(read_config(config, FusionConfig), output, only=only, names=system or ()), None)


def select_languages(
    references: Mapping[str, References], asked: Sequence[str] | None, supported: Sequence[str]
) -> dict[str, References]:
    """The languages to evaluate: those asked for, else all the bundle writes that have references.

    Raises:
        UnknownLanguageError: one asked for is not a language of the bundle.
        InvalidRequestError: one asked for has no reference, or no language of the bundle has any.
    """
    if not asked:
        chosen = {code: found for code, found in references.items() if code in supported}
        if not chosen:
            raise InvalidRequestError(
                f"the captions are in {', '.join(references)}, the bundle writes {', '.join(supported)}"
            )
        return chosen
    codes = dict.fromkeys(match(tag, supported) for tag in asked)
    missing = [code for code in codes if code not in references]
    if missing:
        raise InvalidRequestError(
            f"no reference caption in {', '.join(missing)} (there are some in {', '.join(references)})"
        )
    return {code: references[code] for code in codes}


def _kinds(text: str) -> list[str] | None:
    kinds = [kind.strip() for kind in text.split(",") if kind.strip()]
    if not kinds:
        raise typer.BadParameter("name at least one kind, or 'all'", param_hint="--kinds")
    return None if kinds == ["all"] else kinds


def _open_bundle(path: Path | None) -> "Bundle":
    from models.bundle import Bundle, default_bundle

    return Bundle.open(path or default_bundle())


@contextmanager
def _progress(description: str, photos: Sequence[Photo]) -> Iterator[Callable[[int], None]]:
    """A bar over photos on standard error; gives what to call with the number of photos just done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=len(photos))
        yield lambda done: progress.advance(task, done)


def _publish(report: Report, paths: Sequence[Path] | None) -> None:
    for path in paths or ():
        report.write(path)
    console = Console()
    for fact in report.facts:
        console.print(fact, markup=False, highlight=False, soft_wrap=True)
    for table in report.tables:
        console.print(table.terminal())

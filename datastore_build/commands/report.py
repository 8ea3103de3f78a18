"""What a build shows in a terminal: its progress, and what became of the rows."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from datastore_build.indexes.report import describe_index, missed_targets
from datastore_build.report import BuildProgress, BuildReport, NearDuplicates, RejectedRow

_SHOWN = 3  # near duplicates


@contextmanager
def progress_bar() -> Iterator[Callable[[BuildProgress], None]]:
    """A progress bar for each stage on standard error, if that is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:9}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("reading", total=1.0, counts="")
        stage = "reading"

        def show(state: BuildProgress) -> None:
            nonlocal stage
            if state.stage != stage:
                stage = state.stage
                progress.reset(task, description=stage)
            counts = f"{state.rows:,} rows, {state.rejected:,} rejected"
            if state.stage == "embedding":
                rate = state.texts / max(progress.tasks[0].elapsed or 0.0, 1e-9)
                counts = f"{state.texts:,} texts, {rate:,.0f}/s"
            total = None if state.fraction is None else 1.0
            progress.update(task, total=total, completed=state.fraction or 0.0, counts=counts)

        yield show


def print_report(report: BuildReport, *, as_json: bool) -> None:
    """The report on standard output; what the user should look at on standard error."""
    for leftover in report.removed:
        typer.echo(f"removed what a build that died had left: {leftover}", err=True)
    if report.rejected:
        typer.echo(
            f"{report.rejected:,} of {report.rows:,} rows rejected, see {report.rejects_file}", err=True
        )
        print_rejects(report.rejects, report.rejected)
    if as_json:
        document = asdict(report) | {"index": report.index.model_dump(mode="json", exclude_none=True)}
        typer.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        typer.echo(_describe(report))


def print_rejects(rejects: tuple[RejectedRow, ...], total: int) -> None:
    for reject in rejects:
        typer.echo(f"  {reject}", err=True)
    if total > len(rejects):
        typer.echo(f"  and {total - len(rejects):,} more", err=True)


def describe_languages(languages: dict[str, int]) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in languages.items())


def _describe(report: BuildReport) -> str:
    repeated = f", {report.repeated_texts:,} of them repeated" if report.repeated_texts else ""
    state = "was there already and is live again" if report.reused else "is live"
    lines = [
        f"{report.published:,} of {report.rows:,} rows published: "
        f"{report.entries:,} entries, {report.texts:,} texts{repeated} "
        f"({describe_languages(report.languages)})"
    ]
    if report.dropped:
        reasons = ", ".join(f"{kind.replace('_', ' ')} {count:,}" for kind, count in report.dropped.items())
        lines.append(f"texts left out: {reasons}")
    if report.near_duplicates is not None and report.near_duplicates.texts:
        lines += _describe_near_duplicates(report.near_duplicates)
    if report.resumed:
        lines.append(f"resumed: {report.embedded:,} entries were embedded in this run")
    lines.append(f"index {describe_index(report.index)}")
    lines += [f"note: {missed}" for missed in missed_targets(report.index)]
    lines.append(f"version {report.version} {state} after {report.seconds:.1f} s: {report.path}")
    return "\n".join(lines)


def _describe_near_duplicates(found: NearDuplicates) -> list[str]:
    fate = "left out" if found.dropped else "kept (--near-duplicates drop leaves them out)"
    return [
        f"{found.texts:,} texts nearly equal an earlier one ({describe_languages(found.languages)}); "
        f"{found.entries:,} entries have no other text and were {fate}",
        *(
            f"  {pair.id}: {pair.text} ~ {pair.earlier_id}: {pair.earlier_text}"
            for pair in found.first[:_SHOWN]
        ),
    ]

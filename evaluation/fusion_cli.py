"""What `paellera evaluate fusion` does: the families asked for, one after the other, then the report."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from evaluation.fusion import Comparison, Family
from evaluation.fusion_bridges import BridgeFamily
from evaluation.fusion_config import FusionConfig
from evaluation.fusion_matchers import MatcherFamily
from evaluation.fusion_plot import draw_comparison
from evaluation.fusion_report import FIGURE, fusion_report
from evaluation.report import JSON, MARKDOWN, Report
from retrieval.errors import InvalidRequestError

# Families of systems by their name in a comparison's settings, each made from those.
FAMILIES: Mapping[str, Callable[[FusionConfig], Family]] = {
    "bridges": BridgeFamily,
    "matchers": MatcherFamily,
}


def compare(
    config: FusionConfig,
    output: Path,
    *,
    only: str | None = None,
    names: Sequence[str] = (),
) -> Report:
    """Run a comparison as far as it is not done, and write its report into `output`.

    Args:
        only: the one family that is trained; what is finished of the others is reported all the same.
        names: systems that are trained, by default all.

    Raises:
        InvalidRequestError: a name is unknown, a recipe does not fit, or `output` holds another comparison.
    """
    made = [make(config) for name, make in FAMILIES.items() if getattr(config, name)]
    known = [family.name for family in made]
    if not known:
        raise InvalidRequestError("nothing to compare: name systems in a table [bridges] or [matchers]")
    if only is not None and only not in known:
        raise InvalidRequestError(f"there is no family '{only}' (there are {', '.join(known)})")
    chosen = [family for family in made if only in (None, family.name)]
    systems = [system.name for family in chosen for system in family.systems]
    if unknown := [name for name in names if name not in systems]:
        raise InvalidRequestError(f"there is no system {', '.join(unknown)} (there are {', '.join(systems)})")
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    output.mkdir(parents=True, exist_ok=True)
    comparisons = [Comparison(family, output, config.seeds, console.print) for family in made]
    for comparison in comparisons:
        wanted = [system.name for system in comparison.family.systems if not names or system.name in names]
        if comparison.family in chosen and wanted:  # what a family is made of takes minutes to load
            comparison.run(wanted)
    report = fusion_report(comparisons, config.seeds)
    draw_comparison(comparisons, output / FIGURE)
    for suffix in (MARKDOWN, JSON):
        report.write(output / f"fusion{suffix}")
    return report

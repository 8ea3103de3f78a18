"""The report of a soak: Markdown with verdicts and numbers, and a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.soak_service import Sample
from benchmarks.soak_verdicts import Verdict, percentile
from retrieval.files import replacing


def markdown(
    setting: Sequence[str],
    verdicts: Sequence[Verdict],
    seconds: Mapping[str, Sequence[float]],
    counts: Mapping[str, Mapping[str, int]],
    plot: str,
) -> str:
    """The page.

    Args:
        setting: lines that say how it was done.
        verdicts: in their order.
        seconds: that right answers took, by the kind of request.
        counts: how often what happened, by the heading of a list.
        plot: the picture's path from the page.
    """
    passed = sum(verdict.passed for verdict in verdicts)
    lines = ["# A soak of the service", "", *(f"- {line}" for line in setting), ""]
    lines += [f"{passed} of {len(verdicts)} verdicts are good.", ""]
    lines += ["| verdict | | finding |", "| --- | --- | --- |"]
    lines += [f"| {one.about} | {'good' if one.passed else '**bad**'} | {one.finding} |" for one in verdicts]
    lines += ["", f"![memory, requests waiting and connections over the time]({plot})", ""]
    lines += ["| good requests | answered | p50, ms | p99, ms |", "| --- | ---: | ---: | ---: |"]
    everything = [second for kind in seconds.values() for second in kind]
    for name, values in [*sorted(seconds.items()), ("all", everything)]:
        p50, p99 = (1000 * percentile(values, share) for share in (0.5, 0.99))
        lines.append(f"| {name} | {len(values)} | {p50:.0f} | {p99:.0f} |")
    for heading, counted in counts.items():
        listed = ", ".join(f"{name} {number}" for name, number in sorted(counted.items()))
        lines += ["", f"{heading}: {listed or 'none'}."]
    return "\n".join(lines) + "\n"


def draw(samples: Sequence[Sample], path: Path) -> None:
    """Memory above, what waits below, over minutes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    minutes = [sample.seconds / 60 for sample in samples]
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    memory, load = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    memory.plot(minutes, [one.service_mb for one in samples], label="service (anonymous)")
    memory.plot(minutes, [one.resident_mb for one in samples], label="service (resident)", linestyle=":")
    memory.plot(minutes, [one.decoders_mb for one in samples], label="decode processes (anonymous)")
    memory.set_ylabel("MB")
    memory.set_ylim(bottom=0)
    load.plot(minutes, [one.waiting for one in samples], label="requests waiting")
    load.plot(minutes, [one.connections for one in samples], label="connections")
    load.plot(minutes, [one.descriptors for one in samples], label="file descriptors")
    load.plot(minutes, [one.threads for one in samples], label="threads")
    load.set_xlabel("minutes")
    load.set_ylim(bottom=0)
    for axes in (memory, load):
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)

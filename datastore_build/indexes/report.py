"""What a user reads about an index: which kind, why, how it is searched, and whether it is what was asked."""

from retrieval.manifest import IndexSettings


def describe_index(index: IndexSettings) -> str:
    """One line."""
    search = index.search.model_dump(exclude_none=True)
    numbers = {**index.parameters, **search}
    settings = ", ".join(f"{name.replace('_', ' ')} {value:,g}" for name, value in numbers.items())
    parts = [index.kind + (f" ({settings})" if settings else "")]
    if index.reason:
        parts.append(index.reason)
    if index.measured is not None:
        measured = index.measured
        parts.append(
            f"measured recall@{measured.k} {measured.recall:.3f}, {measured.median_ms:.2f} ms a query "
            f"(99 %: {measured.p99_ms:.2f} ms) on {measured.queries:,} held-out queries"
        )
    return "; ".join(parts)


def missed_targets(index: IndexSettings) -> list[str]:
    """What was asked for and not reached, with what can be done."""
    measured, asked = index.measured, index.asked
    missed: list[str] = []
    if measured is None:
        return missed
    if measured.recall < asked.target_recall:
        missed.append(
            f"the index finds {measured.recall:.1%} of the true neighbours, under the target of "
            f"{asked.target_recall:.1%}: another --index or a larger --memory-budget finds more"
        )
    if asked.target_ms is not None and measured.median_ms > asked.target_ms:
        missed.append(
            f"a query takes {measured.median_ms:.2f} ms, over the target of {asked.target_ms:g} ms: a lower "
            "--target-recall or a larger --memory-budget makes it quicker"
        )
    return missed

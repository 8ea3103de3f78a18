import pytest

from datastore_build.indexes.plan import (
    IndexBudgetError,
    choose_index,
    describe_bytes,
    parse_bytes,
)
from retrieval.manifest import IndexChoice, IndexRequest

G = 2**30


@pytest.mark.parametrize(
    ("count", "dimension", "budget", "target_ms", "kind", "storage"),
    [
        (0, 384, None, None, "flat", None),
        (313, 384, None, None, "flat", None),
        (10_000, 1024, None, 0.1, "flat", None),  # few: exact whatever the target
        (50_000, 384, None, None, "flat", None),
        (50_000, 384, None, 2, "hnsw", "float32"),
        (50_000, 1024, 150 * 2**20, 2, "hnsw", "float16"),
        (50_000, 1024, 100 * 2**20, 2, "ivf-pq", "int8"),  # not a graph of int8, which is no exact re-scoring
        (566_747, 1024, None, None, "ivf-pq", "int8"),
        (566_747, 1024, None, 2, "ivf-pq", "int8"),
        (566_747, 1024, 3 * G, 2, "hnsw", "float32"),
        (566_747, 1024, 3 * G, 1000, "flat", None),  # a patient user with memory
        (2_000_000, 384, 4 * G, 10, "ivf-flat", None),
        (2_000_000, 384, 1 * G, 10, "ivf-pq", "int8"),
        (2_000_000, 384, 2 * G, 10, "ivf-pq", "float16"),
        (100_000_000, 384, 8 * G, 20, "ivf-pq", "int8"),
    ],
)
def test_the_choice(
    count: int, dimension: int, budget: int | None, target_ms: float | None, kind: str, storage: str | None
) -> None:
    plan = choose_index(count, dimension, IndexRequest(memory_budget=budget, target_ms=target_ms))
    assert (plan.kind, plan.storage) == (kind, storage)
    assert f"{count:,} vectors of {dimension} dimensions" in plan.reason
    assert plan.memory <= (budget or G)


def test_the_memory_is_less_than_autofaiss_would_take_for_the_same_vectors() -> None:
    graph = choose_index(566_747, 1024, IndexRequest(kind="hnsw"))
    assert choose_index(566_747, 1024).memory < 0.1 * graph.memory


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf-flat", "ivf-pq"])
def test_what_is_asked_for_is_taken_if_it_fits(kind: IndexChoice) -> None:
    plan = choose_index(1_000_000, 384, IndexRequest(kind=kind, target_recall=0.9))
    assert plan.kind == kind
    assert plan.asked.target_recall == 0.9
    if kind != "hnsw":  # a graph can hold its vectors in fewer bytes
        with pytest.raises(IndexBudgetError, match=rf"kind {kind} .* takes about .* --memory-budget"):
            choose_index(1_000_000, 384, IndexRequest(kind=kind, memory_budget=plan.memory - 1))


def test_a_budget_too_small_for_every_kind_is_one_clear_line() -> None:
    with pytest.raises(IndexBudgetError) as error:
        choose_index(1_000_000, 384, IndexRequest(memory_budget=10 * 2**20))
    assert str(error.value) == (
        "an index of kind ivf-pq for 1,000,000 vectors of 384 dimensions takes about 56.2 MB, more than the "
        "10 MB of --memory-budget"
    )


@pytest.mark.parametrize("dimension", [1, 2, 6, 7, 30, 384, 768, 1024])
def test_codes_divide_every_dimension(dimension: int) -> None:
    parts = choose_index(1000, dimension, IndexRequest(kind="ivf-pq")).parameters["subquantizers"]
    assert dimension % parts == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("800M", 800 * 2**20),
        ("2G", 2 * G),
        ("1.5GiB", 3 * G // 2),
        ("2 gb", 2 * G),
        ("4096", 4096),
        ("1k", 1024),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1G", "much", "1X", "1e9", "0.0001K", "٣G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size in bytes such as 800M or 2G"):
        parse_bytes(text)


def test_sizes_are_readable() -> None:
    assert [describe_bytes(size) for size in (12, 2048, 800 * 2**20, 5 * G // 2)] == [
        "12 bytes",
        "2 kB",
        "800 MB",
        "2.5 GB",
    ]

"""The two ways of serving that benchmarks/admission.py compares, on arrivals that can be followed by hand."""

import pytest

from benchmarks.admission import Costs, continuous, whole_batches

COSTS = Costs(prepare=lambda photos: 10.0, step=lambda rows: 1.0, steps=())


def test_a_batch_is_answered_together_and_the_next_one_waits_for_it() -> None:
    # The first alone: 10 + 2. The other two wait for it, then take 10 + 4.
    assert whole_batches([0.0, 1.0, 2.0], [2, 4, 3], COSTS) == pytest.approx([12, 25, 24])


def test_who_joins_is_prepared_between_two_steps_and_leaves_when_done() -> None:
    # Both others join after the first's first step, at 11: they are prepared until 21, and all go on.
    assert sorted(continuous([0.0, 1.0, 2.0], [2, 4, 3], COSTS)) == pytest.approx([22, 22, 24])

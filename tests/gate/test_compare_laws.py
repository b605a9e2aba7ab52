"""Laws of comparing two runs: turned round, mixed up, by the hundred, it says what can be true."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import make_cell
from two_runs import BLOCKS, CELL, LEARNED, OTHER, finding, kinds, make_jobs, make_side, only

from bench.gate.compare import compare
from bench.gate.metrics import FINE, MEMORY, SPEED, in_families, judge

BASE = make_side(make_jobs())
LEARNER = make_side(make_jobs(learned=LEARNED))


def test_a_run_is_no_worse_than_itself():
    for run in (BASE, LEARNER, make_side(make_jobs(), make_jobs(cell=OTHER, learned=LEARNED))):
        compared = compare(run, run)
        assert compared.conclusion == "fine"
        assert {found.change for one in compared.cells for found in one.findings} == {0.0}


factors = st.floats(0.8, 1.25)
scatters = st.sampled_from([0.0, 0.002, 0.01, 0.03, 0.1])
seeds = st.integers(0, 10**6)
paces = st.sampled_from([0.0100, 0.0102, 0.01031, 0.0097, 0.00985])


@given(factors, scatters, seeds, st.floats(0.7, 1.4), paces)
@settings(max_examples=40)
def test_turned_round_worse_is_better(factor, scatter, seed, memory, pace):
    one = make_side(make_jobs(seed=seed, scatter=scatter))
    other = make_side(
        make_jobs(factor, seed=seed + 1, scatter=scatter, memory=memory),
        conditions=[{"canary_s": (pace,)}] * BLOCKS,
    )
    there, back = only(compare(one, other)), only(compare(other, one))
    assert there.untold.keys() == back.untold.keys()
    opposite = {"worse": "better", "better": "worse", "same": "same"}
    for measure, kind in kinds(there).items():
        assert kinds(back)[measure] == opposite.get(kind, kinds(back)[measure])
        found, turned = finding(there, measure), finding(back, measure)
        assert (1 + found.change) * (1 + turned.change) == pytest.approx(1)
        assert (1 + found.low) * (1 + turned.high) == pytest.approx(1)
        assert (found.detectable is None) == (turned.detectable is None)
        assert (found.detectable or ()) == pytest.approx(turned.detectable or ())


@given(
    st.lists(st.tuples(factors, scatters, st.integers(0, 6)), min_size=1, max_size=3),
    seeds,
    st.sampled_from([1, 3]),
)
@settings(max_examples=40)
def test_what_passes_has_ruled_every_loss_out(cells, seed, fewest):
    names = [CELL, OTHER, make_cell(backend="tensorflow", mode="graph")][: len(cells)]
    base = make_side(*(make_jobs(cell=name, seed=seed) for name in names), min_blocks=fewest)
    head = make_side(
        *(
            make_jobs(factor, cell=name, scatter=scatter, blocks=blocks, seed=seed + 1)
            for name, (factor, scatter, blocks) in zip(names, cells, strict=True)
        ),
        min_blocks=fewest,
    )
    compared = compare(base, head)
    if any(blocks < 3 for _, _, blocks in cells):
        assert compared.conclusion != "fine"
    if compared.conclusion == "fine":
        assert {one.cell for one in compared.cells} == set(names)
        for one in compared.cells:
            assert finding(one, "speed").kind in FINE
            assert finding(one, "speed").low > 1 / (1 + SPEED.tolerance) - 1
            assert finding(one, "memory").high < MEMORY.tolerance
    if compared.conclusion == "regression":
        assert any(found.kind == "worse" for one in compared.cells for found in one.findings)


@given(st.randoms(use_true_random=False))
@settings(max_examples=15)
def test_the_order_of_the_records_does_not_matter(chance):
    head = make_side(make_jobs(0.97, seed=1, learned=LEARNED), make_jobs(cell=OTHER, seed=2))
    shuffled = list(head.records)
    chance.shuffle(shuffled)
    base = make_side(make_jobs(learned=LEARNED), make_jobs(cell=OTHER))
    before, after = (
        compare(base, msgspec.structs.replace(head, records=records))
        for records in (head.records, tuple(shuffled))
    )
    assert {one.cell: one for one in before.cells} == {one.cell: one for one in after.cells}


# The chance of a false alarm


def false_claims(families: int, cells: int, change: float, *, together: bool) -> int:
    """Return in how many families of equal cells a change is claimed of at least one."""
    noise = np.random.default_rng(20260501)
    claimed = 0
    for _ in range(families):
        found = []
        for _ in range(cells):
            base, head = noise.normal(0, 0.03, (2, BLOCKS))
            one, other = (dict(enumerate(map(float, np.exp(side)))) for side in (base, head + change))
            found.append(judge(SPEED, one, other, paired=False))
        claimed += any(one.kind in ("worse", "better") for one in (in_families(found) if together else found))
    return claimed


def test_among_a_hundred_cells_at_the_margin_a_false_claim_is_rare():
    """At the margin itself, where a claim is false and likeliest: in 2 % of families, of 60 one or two."""
    margin = math.log1p(SPEED.margin)
    assert false_claims(60, 100, margin, together=True) <= 5  # a chance of 2 % passes it once in a thousand
    assert false_claims(20, 100, margin, together=False) >= 6  # as it would be without Holm's method


def test_a_hundred_equal_cells_raise_no_alarm_in_two_runs():
    cells = [make_cell(f"mnist-w{number}") for number in range(100)]
    sides = [
        make_side(*(make_jobs(cell=cell, seed=1000 * side + number) for number, cell in enumerate(cells)))
        for side in (1, 2)
    ]
    compared = compare(*sides)
    assert len(compared.cells) == 100
    assert compared.conclusion == "fine"


def test_a_change_that_is_claimed_alone_is_not_claimed_among_many():
    base, head = make_jobs(scatter=0.02), make_jobs(0.955, scatter=0.02, seed=2)
    assert only(compare(make_side(base), make_side(head))).why == "speed got worse"
    cells = [make_cell(f"mnist-w{number}") for number in range(10)]
    many = [make_jobs(cell=cell) for cell in cells]
    compared = compare(make_side(base, *many), make_side(head, *many))
    assert {one.cell: one.conclusion for one in compared.cells} == {CELL: "undecided"} | dict.fromkeys(
        cells, "fine"
    )

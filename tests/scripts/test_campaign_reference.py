"""Part 1: whether runs say the same, and how precise a run gets, on runs whose figures are known."""

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import pytest
from synthetic import make_cell, make_job, simple_run

from bench.analysis.summary import summarise
from bench.records.runs import Run
from bench.records.schema import BlockRecord, JobRecord
from campaign.reference import Repeat, block_ends, contradictions, precision, repeats, report
from campaign.runs import default_ratios

TORCH, JAX = make_cell(), make_cell(backend="jax", mode="jit")


def make(*, torch: float = 1000.0, jax: float = 2000.0, blocks: int = 3, seed: int = 0) -> Run:
    chance = np.random.default_rng(seed)

    def rates(mean: float) -> Sequence[float]:
        return [float(mean * math.exp(chance.normal(0, 0.01))) for _ in range(blocks)]

    return simple_run({TORCH: rates(torch), JAX: rates(jax)})


def ratios(*runs: Run) -> Mapping[str, Sequence]:
    return {f"run-{n}": default_ratios(f"run-{n}", run, summarise(run)) for n, run in enumerate(runs)}


def test_each_ratio_of_each_two_runs_is_compared():
    found = repeats(ratios(*(make(seed=seed) for seed in range(3))))
    assert [(one.one.run, one.other.run) for one in found] == [
        ("run-0", "run-1"), ("run-0", "run-2"), ("run-1", "run-2"),
    ]  # fmt: skip
    assert all(isinstance(one, Repeat) and one.agrees for one in found)


def test_a_run_that_differs_is_seen():
    (one,) = repeats(ratios(make(blocks=8), make(jax=2200.0, blocks=8, seed=1)))
    assert not one.agrees
    assert one.difference == pytest.approx(math.log(2000 / 2200), abs=0.03)


def test_claims_that_contradict_each_other_are_found():
    first, same, turned = (summarise(run) for run in (make(), make(seed=1), make(torch=2000, jax=1000)))
    assert contradictions(first, same) == ()
    (wrong,) = contradictions(first, turned)
    assert {wrong.first.backend, wrong.second.backend} == {"jax", "torch"}


def with_times(run: Run, learn_s: float = 0.0) -> Run:
    """Return the run with a block every two minutes; its jobs also train for accuracy."""
    changed = []
    for record in run.records:
        if isinstance(record, BlockRecord):
            at = f"2026-05-01T10:{2 * record.block:02d}:00+00:00"
            changed.append(msgspec.structs.replace(record, started_at=at))
        elif isinstance(record, JobRecord):
            changed.append(msgspec.structs.replace(record, learn_s=learn_s or None))
        else:
            changed.append(record)
    return msgspec.structs.replace(run, records=tuple(changed))


def test_a_block_lasts_until_the_next_without_training():
    ends = block_ends(with_times(make(blocks=3)))
    assert list(ends.values()) == [120.0, 240.0, 240.0 + 2 * 12.5]
    assert list(block_ends(with_times(make(blocks=3), learn_s=10.0)).values())[:2] == [100.0, 200.0]


def test_precision_is_what_the_blocks_until_then_gave():
    run = with_times(make(blocks=8))
    found = precision(run, minutes=(2, 4, 6, 14, 60))
    assert [one.minutes for one in found] == [2, 4, 6, 14]
    assert [one.blocks["mnist-cnn"] for one in found] == [1, 2, 3, 7]
    assert [one.half_widths["mnist-cnn"] for one in found[:2]] == [None, None]
    half = found[2].half_widths["mnist-cnn"]
    assert half != found[3].half_widths["mnist-cnn"]
    kept = msgspec.structs.replace(
        run, records=tuple(r for r in run.records if getattr(getattr(r, "spec", r), "block", 0) < 3)
    )
    (one,) = default_ratios("", kept, summarise(kept))
    assert half == pytest.approx((one.high - one.low) / (2 * math.exp(one.log)))


def test_the_report_says_first_whether_they_agree():
    runs = {name: make(seed=seed) for seed, name in enumerate(("a", "b", "c"))}
    runs |= {"long": with_times(make(blocks=8, seed=7)), "loaded": make(seed=8)}

    def said(changed: Mapping[str, Run]) -> str:
        return report(
            {name: (run, summarise(run)) for name, run in changed.items()},
            repeated=("a", "b", "c"), long="long", loaded="loaded", cpu="a CPU",
        )  # fmt: skip

    assert "They agree, by the rule" in said(runs).split("##")[0]
    assert "| 5 |" in said(runs)
    assert "Claims: a 1, b 1, c 1, long 1, loaded 1." in said(runs)
    equal = said({**runs, "loaded": make(jax=1000.0, seed=8)})
    assert "long 1, loaded 0." in equal
    turned = said({**runs, "loaded": make(torch=2000, jax=1000)})
    assert "They do NOT agree" in turned
    assert "contradiction: a and loaded" in turned
    assert make_job(TORCH).learn_s is None  # else the times above would be of something else

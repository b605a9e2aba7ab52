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
from campaign.reference import BESIDE_S, Repeat, block_ends, contradictions, precision, repeats, report
from campaign.runs import default_ratios

TORCH, JAX = make_cell(), make_cell(backend="jax", mode="jit")
TENSORFLOW = make_cell(backend="tensorflow", mode="graph")


def make(*, torch: float = 1000.0, jax: float = 2000.0, blocks: int = 3, seed: int = 0) -> Run:
    chance = np.random.default_rng(seed)

    def rates(mean: float) -> Sequence[float]:
        return [float(mean * math.exp(chance.normal(0, 0.01))) for _ in range(blocks)]

    return simple_run({TORCH: rates(torch), JAX: rates(jax), TENSORFLOW: rates(500.0)})


def ratios(*runs: Run) -> Mapping[str, Sequence]:
    return {f"run-{n}": default_ratios(f"run-{n}", run, summarise(run)) for n, run in enumerate(runs)}


def test_each_ratio_of_each_two_runs_is_compared():
    found = repeats(ratios(*(make(seed=seed) for seed in range(3))))
    assert [(one.one.run, one.other.run) for one in found] == [
        *[("run-0", "run-1")] * 3, *[("run-0", "run-2")] * 3, *[("run-1", "run-2")] * 3,
    ]  # fmt: skip
    assert all(isinstance(one, Repeat) and one.agrees for one in found)


def test_a_run_that_differs_is_seen():
    found = repeats(ratios(make(blocks=8), make(jax=2200.0, blocks=8, seed=1)))
    (one,) = (pair for pair in found if (pair.one.first, pair.one.second) == ("jax", "torch"))
    assert not one.agrees
    assert one.difference == pytest.approx(math.log(2000 / 2200), abs=0.03)


def test_claims_that_contradict_each_other_are_found():
    first, same, turned = (summarise(run) for run in (make(), make(seed=1), make(torch=2000, jax=1000)))
    assert contradictions(first, same) == ()
    (wrong,) = contradictions(first, turned)
    assert {wrong.first.backend, wrong.second.backend} == {"jax", "torch"}


def with_times(run: Run, learn_s: float = 0.0, paused_before: int | None = None) -> Run:
    """Return the run with a block every two minutes; its jobs also train for accuracy.

    Before one block the run was interrupted, for an hour.
    """
    changed = []
    for record in run.records:
        if isinstance(record, BlockRecord):
            hour = 11 if paused_before is not None and record.block >= paused_before else 10
            at = f"2026-05-01T{hour}:{2 * record.block:02d}:00+00:00"
            changed.append(msgspec.structs.replace(record, started_at=at))
        elif isinstance(record, JobRecord):
            changed.append(msgspec.structs.replace(record, wall_s=39.0, learn_s=learn_s or None))
        else:
            changed.append(record)
    return msgspec.structs.replace(run, records=tuple(changed))


def test_a_block_lasts_until_the_next_without_training():
    ends = block_ends(with_times(make(blocks=3)))
    assert list(ends.values()) == [120.0, 240.0, 240.0 + 3 * 39]
    assert list(block_ends(with_times(make(blocks=3), learn_s=10.0)).values())[:2] == [90.0, 180.0]


def test_a_pause_of_a_run_that_was_resumed_is_no_measuring():
    ends = block_ends(with_times(make(blocks=3), paused_before=1))
    assert list(ends.values()) == pytest.approx([3 * 39 + BESIDE_S, 252, 252 + 3 * 39])


def test_precision_is_what_the_blocks_until_then_gave():
    run = with_times(make(blocks=8))
    found = precision(run, minutes=(2, 4, 6, 14, 60))
    assert [one.minutes for one in found] == [2, 4, 6, 14]
    assert [one.blocks["mnist-cnn"] for one in found] == [0, 0, 3, 7]
    assert [one.half_widths["mnist-cnn"] for one in found[:2]] == [None, None]
    half = found[2].half_widths["mnist-cnn"]
    assert half != found[3].half_widths["mnist-cnn"]
    kept = msgspec.structs.replace(
        run, records=tuple(r for r in run.records if getattr(getattr(r, "spec", r), "block", 0) < 3)
    )
    widths = [
        (one.high - one.low) / (2 * math.exp(one.log)) for one in default_ratios("", kept, summarise(kept))
    ]
    assert half == pytest.approx(max(widths))


def test_the_report_says_first_whether_they_agree():
    runs = {name: make(seed=seed) for seed, name in enumerate(("a", "b", "c"))}
    runs |= {"long": with_times(make(blocks=8, seed=7)), "loaded": make(seed=8)}

    def said(changed: Mapping[str, Run]) -> str:
        return report(
            {name: (run, summarise(run)) for name, run in changed.items()},
            repeated=("a", "b", "c"), long="long", loaded="loaded", cpu="a CPU",
        )  # fmt: skip

    assert "They agree, by the rules" in said(runs).split("##")[0]
    assert "| 5 |" in said(runs)
    assert "none larger than 2 %: a 3 and 0, b 3 and 0, c 3 and 0, long 3 and 0, loaded 3 and 0." in said(
        runs
    )
    assert "loaded 10.0 ms." in said(runs)
    equal = said({**runs, "loaded": make(jax=1000.0, blocks=20, seed=8)})
    assert "long 3 and 0, loaded 2 and 1." in equal
    turned = said({**runs, "loaded": make(torch=2000, jax=1000)})
    assert "They do NOT agree" in turned
    assert "contradiction: a and loaded" in turned
    assert make_job(TORCH).learn_s is None  # else the times above would be of something else
    two = [record for record in runs["b"].records if of_backend(record) != "tensorflow"]
    short = said({**runs, "b": msgspec.structs.replace(runs["b"], records=tuple(two))})
    assert "They agree, by the rules" in short
    assert "missing: b, mnist-cnn: jax / tensorflow, tensorflow / torch: not compared" in short
    two = [record for record in runs["long"].records if of_backend(record) != "tensorflow"]
    short = said({**runs, "long": msgspec.structs.replace(runs["long"], records=tuple(two))})
    assert "They do NOT agree" in short
    assert "not ranked, which is a failure: long, mnist-cnn: jax / tensorflow, tensorflow / torch" in short


def of_backend(record) -> str | None:
    return record.spec.cell.backend if isinstance(record, JobRecord) else None

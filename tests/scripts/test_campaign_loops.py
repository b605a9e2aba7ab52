"""Loops by hand, pooled over processes."""

import json
import math

import pytest
from scipy import stats

from bench.errors import RecordError
from campaign import loops


def content(**ratios: float) -> bytes:
    """Return a file as pytest-benchmark writes it, with what the throughput benchmark adds."""
    return json.dumps(
        {
            "machine_info": {},
            "benchmarks": [
                {
                    "name": "x", "stats": {},
                    "extra_info": {"cell": cell, "ratio": ratio, "bound": 0.97, "again": {"ratio": 9.0}},
                }
                for cell, ratio in ratios.items()
            ],
        }
    ).encode()  # fmt: skip


def test_a_process_is_one_observation_and_what_was_measured_again_does_not_count():
    ratios = [1.0, 0.98, 1.02, 0.99, 1.03]
    (one,) = loops.pool(content(jit=ratio) for ratio in ratios)
    logs = [math.log(ratio) for ratio in ratios]
    expected = stats.t.interval(0.95, 4, loc=sum(logs) / 5, scale=stats.sem(logs))
    assert one.ratios == tuple(ratios)
    assert one.interval == pytest.approx(tuple(map(math.exp, expected)))
    assert not one.below


def test_only_an_interval_that_lies_whole_below_the_bound_is_below():
    sure, unsure = loops.pool(
        [content(slow=0.90, odd=0.80), content(slow=0.91, odd=1.05), content(slow=0.90, odd=0.9)]
    )
    assert (sure.below, unsure.below) == (True, False)
    assert loops.report([sure, unsure]).count("BELOW") == 1
    (single,) = loops.pool([content(slow=0.5)])
    assert (single.interval, single.below) == (None, False)


def test_the_best_modes_of_a_framework_are_one_cell_whichever_they_are():
    files = [content(**{f"mnist-mlp-100-jax-best ({mode}, loop)": 1.0}) for mode in ("jit", "loop")]
    (one,) = loops.pool(files)
    assert (one.cell, len(one.ratios)) == ("mnist-mlp-100-jax-best", 2)


def test_a_missing_process_is_an_error(tmp_path):
    for number in range(1, 5):
        (tmp_path / f"loops-{number}.json").write_bytes(content(jit=1.0))
    with pytest.raises(RecordError, match="4 of 5"):
        loops.main(tmp_path)
    (tmp_path / "loops-5.json").write_bytes(content(jit=1.0))
    loops.main(tmp_path)
    assert "| jit | 5 | 1.000 |" in (tmp_path / "LOOPS.md").read_text()


def test_a_loop_that_ended_with_an_error_is_no_figure():
    broken = json.dumps({"benchmarks": [{"name": "x", "extra_info": {}}]}).encode()
    (one,) = loops.pool([content(jit=1.0), broken])
    assert (one.cell, len(one.ratios)) == ("jit", 1)

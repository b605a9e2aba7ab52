"""The exports for github-action-benchmark, checked against the rules of its source.

The action is TypeScript that runs on GitHub and is in no package registry. Its rules are rewritten here from
https://github.com/benchmark-action/github-action-benchmark; each function names the file and function.
"""

import json
import math
import re
from typing import Any

import pytest
from exported import COMMIT, full_run, hostile_run, with_commit
from synthetic import (
    make_cell,
    make_header,
    make_job,
    make_parity,
    make_points,
    make_run,
    make_workload,
    simple_run,
)

from bench.analysis.convergence import cell_convergence
from bench.analysis.summary import summarise
from bench.exports.github_action import to_bigger, to_smaller
from bench.records.runs import Run
from bench.records.schema import JobRecord

TORCH = make_cell()
JAX = make_cell(backend="jax", mode="jit")
START = "mnist-cnn torch/eager cpu fp32"


def extract(output: str) -> list[dict[str, Any]]:
    """src/extract.ts, extractCustomBenchmarkResult and extractResult, and the interface BenchmarkResult."""
    entries = json.loads(output, parse_constant=lambda text: pytest.fail(f"JSON.parse refuses {text}"))
    assert isinstance(entries, list)
    if not entries:
        raise ValueError("No benchmark result was found")
    for entry in entries:
        assert entry.keys() <= {"name", "value", "unit", "range", "extra"}, "others are dropped silently"
        assert type(entry["value"]) in (int, float)
        assert math.isfinite(entry["value"])
        assert all(isinstance(entry.get(key, ""), str) for key in ("name", "unit", "range", "extra"))
    return entries


def range_of(entry: dict[str, Any]) -> float | None:
    """src/extractRangeInfo.ts, extractRangeInfo: how the action finds the number in a range."""
    found = re.search(r"(?P<prefix>(\+-|±)\s*)(?P<value>\d.+)", entry.get("range", ""))
    return float(found["value"]) if found else None


def alerts(now: str, before: str, threshold: float, *, bigger: bool) -> list[str]:
    """src/write.ts, findAlerts, getRatio and biggerIsBetter: the names of what became worse."""
    old = extract(before)
    worse = []
    for entry in extract(now):
        previous = next((one for one in old if one["name"] == entry["name"]), None)
        if previous is None:
            continue
        ends = (previous["value"], entry["value"]) if bigger else (entry["value"], previous["value"])
        ratio = ends[0] / ends[1] if ends[1] else (math.inf if ends[0] else 1.0)
        if ratio > threshold:
            worse.append(entry["name"])
    return worse


def comment_row(entry: dict[str, Any]) -> str:
    """src/write.ts, buildComment and strVal: the line of a Markdown table that an entry becomes."""
    value = f"`{entry['value']}` {entry['unit']}"
    if entry.get("range"):
        value += f" (`{entry['range']}`)"
    return f"| `{entry['name']}` | {value} | | |"


def by_name(output: str) -> dict[str, dict[str, Any]]:
    entries = extract(output)
    found = {entry["name"]: entry for entry in entries}
    assert len(found) == len(entries), "the action finds an entry by its name"
    return found


def run_of(*jobs: JobRecord) -> Run:
    """Return a run of one row with these jobs."""
    header = make_header([TORCH], workloads=[jobs[0].spec.workload])
    return with_commit(make_run(header, [make_parity(TORCH), *jobs]))


def trained_run(*finals: float) -> Run:
    """Return a run of one row that ends at these accuracies, one for each seed; the target is 97 %."""
    return run_of(
        *(
            make_job(TORCH, block, rates=[1000.0 + block] * 20, epochs=3, points=make_points(final, 3, 2.0))
            for block, final in enumerate(finals)
        )
    )


def kinds(output: str) -> set[str]:
    return {name.partition(": ")[2] for name in by_name(output)}


def test_the_action_takes_both_lists_and_no_name_is_in_both() -> None:
    assert kinds(to_bigger(full_run())) == {"throughput", "test accuracy", "target reached"}
    assert kinds(to_smaller(full_run())) == {"first step", "peak memory", "time to target"}


def test_values_are_those_of_the_report() -> None:
    run = full_run()
    bigger, smaller = by_name(to_bigger(run)), by_name(to_smaller(run))
    rows = [row for row in summarise(run).cells if row.parity_ok]
    for row in rows:
        name = f"{row.workload} {row.backend}/{row.mode} cpu fp32"
        wanted = {
            "throughput": row.samples_per_s if row.blocks else None,
            "test accuracy": row.test_accuracy and 100 * row.test_accuracy,
        }
        assert {what: bigger.get(f"{name}: {what}", {}).get("value") for what in wanted} == wanted
        wanted = {
            "first step": row.first_step_s,
            "peak memory": row.peak_rss_bytes and row.peak_rss_bytes / 2**20,
            "time to target": row.seconds_to_target,
        }
        assert {what: smaller.get(f"{name}: {what}", {}).get("value") for what in wanted} == wanted
    # All others fail parity or were not measured.
    assert {name.partition(":")[0] for name in bigger} <= {
        f"{row.workload} {row.backend}/{row.mode} cpu fp32" for row in rows
    }


def test_the_accuracy_of_a_brief_training_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.analysis.convergence.LONG_ENOUGH", 4.0)
    assert kinds(to_bigger(trained_run(0.98, 0.985))) == {"throughput", "target reached"}


def test_a_range_is_half_the_interval_and_the_action_finds_it() -> None:
    run = trained_run(0.98, 0.985, 0.99)
    (row,) = summarise(run).cells
    found = by_name(to_bigger(run))
    assert row.samples_per_s_low is not None
    assert row.samples_per_s_high is not None
    half = (row.samples_per_s_high - row.samples_per_s_low) / 2
    assert range_of(found[f"{START}: throughput"]) == pytest.approx(half)
    learned = cell_convergence(run.jobs, 0.97)
    assert learned is not None
    assert learned.accuracy_low is not None
    assert learned.accuracy_high is not None
    half = 50 * (learned.accuracy_high - learned.accuracy_low)
    assert range_of(found[f"{START}: test accuracy"]) == pytest.approx(half)
    assert "range" not in found[f"{START}: target reached"]


@pytest.mark.parametrize("half_width", ["5", "", "5.0 samples/s"])
def test_a_range_that_the_action_would_not_find_is_seen(half_width: str) -> None:
    entry = {"range": f"± {half_width}"}
    try:
        assert range_of(entry) is None
    except ValueError:
        assert not half_width.replace(".", "").isdigit(), "Number() makes NaN of it"


def test_what_becomes_worse_raises_an_alert_and_nothing_else_does() -> None:
    fast, slow = (to_bigger(simple_run({TORCH: [rate] * 3, JAX: [800] * 3})) for rate in (1000, 400))
    assert alerts(slow, fast, 2, bigger=True) == [f"{START}: throughput"]
    assert alerts(fast, slow, 2, bigger=True) == []
    # In the wrong list, the same change would raise no alert.
    assert alerts(slow, fast, 2, bigger=False) == []
    quick, late = (to_smaller(run_of(make_job(TORCH, first_step_s=seconds))) for seconds in (0.4, 9.0))
    assert alerts(late, quick, 2, bigger=False) == [f"{START}: first step"]


def test_a_target_that_is_no_longer_reached_raises_an_alert_though_its_time_is_gone() -> None:
    before, now = trained_run(0.98, 0.99, 0.985), trained_run(0.9, 0.91, 0.92)
    assert "time to target" in kinds(to_smaller(before))
    assert "time to target" not in kinds(to_smaller(now))
    assert alerts(to_bigger(now), to_bigger(before), 2, bigger=True) == [f"{START}: target reached"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"workload": make_workload(target=None)}, {"throughput", "test accuracy"}),
        ({"status": "no_steady_state"}, {"test accuracy", "target reached"}),
    ],
    ids=["no target", "never settled"],
)
def test_what_is_not_known_is_left_out(changes: dict[str, Any], expected: set[str]) -> None:
    job = make_job(TORCH, epochs=2, points=make_points(0.9, 2, 1.0), **changes)
    assert kinds(to_bigger(run_of(job))) == expected


def test_extra_has_blocks_ranking_and_versions() -> None:
    (entry,) = extract(to_bigger(with_commit(simple_run({TORCH: [1000] * 3}), dirty=True)))
    assert entry["extra"].splitlines() == [
        "blocks: 3", "ranked: yes", "run: 2026-05-01-quick",
        f"samework 0.1.0, commit {COMMIT[:12]} with changes that were not committed", "torch 2.13.0",
    ]  # fmt: skip
    assert entry["unit"] == "samples/s"


def test_limited_data_give_other_names() -> None:
    run = simple_run({TORCH: [1000] * 3})
    names = [
        extract(to_bigger(with_commit(run, sample=sample, dataset_limit=limit)))[0]["name"]
        for sample, limit in ((False, None), (True, None), (False, 500), (True, 500))
    ]
    assert names == [
        f"{START}{data}: throughput" for data in ("", " (sample)", " (first 500)", " (sample first 500)")
    ]


def test_hostile_names_break_neither_the_table_nor_the_page() -> None:
    for output in (to_bigger(hostile_run()), to_smaller(hostile_run())):
        for entry in by_name(output).values():
            row = comment_row(entry)
            assert row.count("|") == 5
            assert row.count("`") % 2 == 0
            assert "\n" not in row
            assert not set(entry["name"]) & set("<>&\"'`|")
            assert entry["extra"].count("\n") == 4, "a name makes no lines of its own"
    assert comment_row({"name": "a|b`", "value": 1, "unit": "s"}).count("|") != 5, "an unsafe name is seen"

"""The report on how it was measured and how sure it is: comparisons, blocks, conditions, plan."""

import io
from collections.abc import Mapping

import msgspec
import pytest
from page_blocks import flat, rows_of, said, section, table_with
from rich.console import Console
from synthetic import (
    make_cell,
    make_conditions,
    make_header,
    make_job,
    make_parity,
    make_run,
    realistic_run,
    simple_run,
)

from bench.analysis.summary import summarise
from bench.records.runs import Run
from bench.records.schema import BlockRecord, JobRecord
from bench.report.blocks import Block, Heading
from bench.report.format import DASH, NOTHING, TIMES, percent_text, ratio_text
from bench.run.report import page
from bench.run.report.parity import render_parity
from bench.run.report.tables import conditions_of, plan_texts
from bench.workloads.catalog import find_workload

TORCH = make_cell()
JAX = make_cell(backend="jax", mode="jit")


def page_of(run: Run) -> list[Block]:
    return page.blocks(run, summarise(run))


def with_conditions(run: Run, conditions: Mapping[int, dict]) -> Run:
    """Return the run with other conditions in some blocks, by number."""
    records = [
        msgspec.structs.replace(one, conditions=make_conditions(**conditions[one.block]))
        if isinstance(one, BlockRecord) and one.block in conditions
        else one
        for one in run.records
    ]
    return msgspec.structs.replace(run, records=tuple(records))


def test_every_section_is_there_once_and_in_its_order():
    heads = [
        one.text for one in flat(page_of(realistic_run())) if isinstance(one, Heading) and one.level == 2
    ]
    assert heads == [
        "Ranking by workload",
        "Throughput",
        "Learning",
        "Time to accuracy",
        "Time to a first result, and when compiling pays off",
        "Memory and energy",
        "Roofline: how much of the machine is used",
        "Batch sweep",
        "Choosing a framework for a course or a group",
        "Is it the same work?",
        "What was left out, and why",
        "The machine and the versions",
        "How it was measured",
        "Every raw value",
    ]


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        (
            {TORCH: [1000, 1004, 998, 1001], JAX: [900, 905, 897, 899]},
            {"ahead": "PyTorch eager", "as the next": "JAX jit", "verdict": "proven faster"},
        ),
        (
            {TORCH: [1000, 1004, 998, 1001], JAX: [1001, 1003, 999, 1000]},
            {"verdict": "no difference larger than 2 %"},
        ),
        ({TORCH: [1000, 1500, 998], JAX: [900, 905, 1600]}, {"verdict": "no detectable difference"}),
        ({TORCH: [1000] * 3}, {"ahead": "PyTorch eager", "verdict": "no other framework is ranked"}),
        ({TORCH: [1000] * 3, JAX: []}, {"ahead": "PyTorch eager", "as the next": NOTHING}),
        ({TORCH: []}, {"ahead": NOTHING, "verdict": "nothing is ranked"}),
    ],
)
def test_the_ranking_names_the_first_two_frameworks_and_what_is_claimed_of_them(rates, expected):
    (row,) = rows_of(table_with(page_of(simple_run(rates)), "ahead", "verdict"))
    assert row["workload"] == "mnist-cnn"
    assert {name: row[name] for name in expected} == expected


@pytest.mark.parametrize("times", [1, 2])
def test_every_comparison_is_shown_with_its_interval_the_plain_ratio_and_what_would_be_found(times):
    run = simple_run({TORCH: [1000, 1004, 998, 1001] * times, JAX: [900, 905, 897, 899] * times})
    (one,) = summarise(run).verdicts[0].made.backends
    found = said(section(page_of(run), "Ranking by workload"))
    row = [
        f"{one.ratio:.3f}\N{MULTIPLICATION SIGN}",
        ratio_text(one.low, one.high),
        f"{one.plain:.3f}\N{MULTIPLICATION SIGN}",
        f"{one.p_adjusted:.2g}",
        *([DASH.join(map(percent_text, one.detectable))] if times == 2 else []),
        str(4 * times),
        "proven faster",
    ]
    assert " ".join(row) in found
    assert ("detectable difference" in found) == (times == 2), "a column without a value is left out"
    assert "all blocks" not in found


def test_where_a_block_is_dropped_the_comparisons_are_shown_without_it_and_with_it():
    run = simple_run({TORCH: [1000, 1004, 998, 1001, 700], JAX: [900, 905, 897, 899, 900]})
    blocks = page_of(
        with_conditions(run, {4: {"foreign_share": 0.5}, 1: {"round_steal": (0.2,) * 16 + (0.0,) * 4}})
    )
    found = said(section(blocks, "Ranking by workload"))
    assert "4 proven faster without dropped blocks" in found
    assert "5 no detectable difference all blocks" in found
    assert "changes if the dropped blocks are included" in found
    dropped = said(section(blocks, "Disturbed blocks"))
    assert "A round is left out and repeated if other programs used more than 10 % of the CPU time" in dropped
    assert "Of 5 blocks, 2 were disturbed. Dropped: 1." in dropped
    assert "mnist-cnn, block 5 dropped: other programs used 50 % of CPU time, more than 10 %" in dropped
    assert (
        "mnist-cnn, block 2 kept: the hypervisor gave more than 10 % of CPU time to others "
        "in 16 of 20 rounds" in dropped
    )


def test_a_disturbed_workload_is_shown_and_nothing_is_claimed_of_it():
    run = simple_run({TORCH: [1000, 1004, 998], JAX: [900, 905, 897]})
    run = with_conditions(run, {block: {"throttled_share": 0.5} for block in range(3)})
    found = said(section(page_of(run), "Ranking by workload"))
    assert "disturbed: nothing claimed" in found
    assert "Nothing is claimed about mnist-cnn" in found
    kept = said(section(page_of(run), "Disturbed blocks"))
    assert "mnist-cnn, block 1 kept: the quota of CPU time held the jobs back 50 % of the time" in kept


def test_a_quiet_run_says_that_nothing_was_dropped():
    quiet = said(section(page_of(simple_run({TORCH: [1000] * 3})), "Disturbed blocks"))
    assert "No block was disturbed, and none was dropped." in quiet
    assert "No block was run." in said(section(page_of(make_run(make_header([TORCH]))), "Disturbed blocks"))


def test_the_conditions_of_all_blocks_are_summed_up():
    run = simple_run({TORCH: [1000] * 3})
    assert conditions_of(make_run(make_header([TORCH]))) == []
    changed = with_conditions(run, {0: {"steal_share": 0.07, "canary_s": (0.03,)}})
    found = dict(conditions_of(changed))
    assert found["CPU time that the hypervisor took"] == "0.2 %, at most 7.0 %"
    assert found["a fixed product of matrices took"] == "10 to 30 ms"
    assert "rounds that were disturbed" not in found, "older records have no shares of rounds"
    shown = said(section(page_of(changed), "The machine and the versions"))
    assert "During 3 blocks." in shown
    assert "0.2 %, at most 7.0 %" in shown
    loud = {"round_steal": (0.0, 0.2, 0.0), "round_foreign": (0.0, 0.0, 0.2)}
    assert dict(conditions_of(with_conditions(run, {0: loud})))["rounds that were disturbed"] == "2 of 3"
    unknown = {"steal_share": None, "throttled_share": None, "pressure_share": None, "foreign_share": None}
    silent = conditions_of(with_conditions(run, {block: {**unknown, "canary_s": ()} for block in range(3)}))
    assert silent == [
        ("other programs", "the system did not tell what they used"),
        ("load average", "at most 0.40"),
    ]


def test_what_each_workload_trains_is_said_layer_by_layer():
    names = ("mnist-softmax", "cifar10-cnn", "mnist-mlp-defaults")
    cells = [make_cell(name) for name in names]
    header = make_header(cells, workloads=[find_workload(name) for name in names])
    rows = rows_of(table_with(page_of(make_run(header)), "network", "optimizer"))
    assert [row["network"] for row in rows] == [
        "10",
        f"5{TIMES}5 to 64, pool 2; 5{TIMES}5 to 64, pool 2; 256; 128; 10",
        "512; 256; 10",
    ]
    assert rows[0]["parameters"] == f"{28 * 28 * 10 + 10:,}"
    assert [row["training images"] for row in rows] == [
        f"60,000 of 28{TIMES}28{TIMES}1",
        f"50,000 of 32{TIMES}32{TIMES}3",
        f"60,000 of 28{TIMES}28{TIMES}1",
    ]
    assert [row["optimizer"] for row in rows] == [
        "sgd, rate 0.1",
        "sgd, rate 0.05",
        "adam, rate 0.001, other constants as the framework's own",
    ]
    small = make_header(cells[:1], workloads=[find_workload(names[0])], dataset_limit=500)
    assert f"500 of 28{TIMES}28{TIMES}1" in said(section(page_of(make_run(small)), "How it was measured"))


def test_what_made_the_images_ready_is_said_of_rows_as_taught():
    taught = make_cell(mode="tutorial")
    run = simple_run({TORCH: [1000] * 3, taught: [500] * 3})
    records = [
        msgspec.structs.replace(one, described={"input_transforms": "plain torch"})
        if isinstance(one, JobRecord)
        else one
        for one in run.records
    ]
    shown = said(
        section(page_of(msgspec.structs.replace(run, records=tuple(records))), "Ranking by workload")
    )
    assert "PyTorch tutorial: images made ready by plain torch." in shown
    assert "PyTorch eager: images" not in shown


def test_the_plan_stands_beside_what_it_took():
    jobs = [make_job(TORCH, block) for block in range(3)]
    jobs[0] = msgspec.structs.replace(jobs[0], learn_s=4.0)
    planned, took = plan_texts(make_run(make_header([TORCH]), jobs))
    assert planned == (
        "3 jobs, 1 min for parity, 10 min for the required blocks, 12 min for training, 7 min for further "
        "blocks"
    )
    assert took == "3 jobs, 38 s, 4 s of it training"
    shown = said(section(page_of(make_run(make_header([TORCH]), jobs)), "How it was measured"))
    assert planned in shown
    assert took in shown
    told = [msgspec.structs.replace(job, wall_s=20.0, import_s=10.0, lead_s=5.0) for job in jobs]
    assert plan_texts(make_run(make_header([TORCH]), told))[1].endswith(
        " of it training, 94 % inside the frameworks"
    )


def test_verify_shows_every_error_beside_what_is_allowed_and_which_rows_failed_where():
    file = io.StringIO()
    records = [
        make_parity(TORCH),
        make_parity(JAX, error=3e-3),
        *(
            make_parity(make_cell(mode=mode), status="failed", said="no C++ compiler", checked=False)
            for mode in ("compile", "loader")
        ),
    ]
    render_parity(records, Console(file=file, width=100))
    lines = [line.split() for line in file.getvalue().splitlines()]
    assert lines[0] == ["mnist-cnn,", "sgd,", "cpu", "fp32"]
    assert lines[1] == ["row", "logits", "loss", "gradient", "step", "steps", "losses", "parity"]
    assert lines[2] == ["allowed", *["1e-04"] * 6]
    assert [(*line[:2], line[4], line[-1]) for line in lines[3:5]] == [
        ("torch", "eager", "2.0e-06", "ok"),
        ("jax", "jit", "3.0e-03", "FAILS"),
    ]
    assert lines[5] == ["torch", "compile", *[NOTHING] * 6, "not", "compared"]
    printed = " ".join(file.getvalue().split())
    assert "mnist-cnn jax/jit cpu fp32 sgd: gradient at logits/kernel" in printed
    assert "torch/compile cpu fp32 sgd: no C++ compiler" in printed
    assert "1 of 4 rows are within their tolerance. 2 rows were not compared" in printed

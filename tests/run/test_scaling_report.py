"""Reports of a run with ranks. Reports of other runs show nothing about ranks."""

import csv
import io
import json
from pathlib import Path

import msgspec
import pytest
from page_blocks import flat, rows_of, said, section, table_with, tables
from pages import Page
from rich.console import Console
from synthetic import (
    TITLES,
    make_cell,
    make_header,
    make_job,
    make_points,
    make_run,
    realistic_run,
    scaling_run,
    simple_run,
)

from bench.analysis.accuracy import converge
from bench.analysis.costs import read_costs
from bench.analysis.scaling import Share, read_scaling
from bench.analysis.summary import summarise
from bench.cli import several
from bench.exports import asv, github_action, pytest_benchmark
from bench.gate.compare import compare
from bench.records.runs import Run
from bench.records.schema import JobRecord
from bench.report.blocks import Block, File, Heading, charts_of
from bench.report.chart import Lines
from bench.report.format import DASH, NOTHING, TIMES
from bench.report.markdown import document
from bench.run.live_rows import LiveRows
from bench.run.log import RunLog
from bench.run.report import charts, page, short, terminal
from bench.run.report.export import to_json, verdicts_to_json
from bench.run.report.parity import render_parity
from bench.run.report.scaling_words import percent_range, sentences, speed_up_text, what_it_shows
from bench.run.report.terms import RANK_TERMS, TERMS, terms_of
from bench.workloads.instruments import Peak

STRONG = {"torch": {1: 0.95, 2: 1.8, 4: 3.0}, "jax": {1: 0.99, 2: 1.9, 4: 3.6}}
WEAK = {"torch": {2: 1.85, 4: 3.4}, "jax": {2: 1.95, 4: 3.8}}


@pytest.fixture(scope="module")
def run() -> Run:
    """Return a run with every number of ranks in both scalings."""
    return scaling_run(STRONG, WEAK)


@pytest.fixture(scope="module")
def blocks(run: Run) -> list[Block]:
    return page.blocks(run, summarise(run))


def section_of(run: Run) -> list[Block]:
    return section(page.blocks(run, summarise(run)), "Several devices")


def terminal_of(run: Run, width: int = 100) -> str:
    file = io.StringIO()
    terminal.render(run, summarise(run), Console(file=file, width=width))
    return " ".join(file.getvalue().split())


def markdown_of(run: Run) -> str:
    found = short.in_markdown(run, summarise(run))
    return document(found, frozenset(chart.name for chart in charts_of(found)))


def words(run: Run) -> list[str]:
    (series,) = read_scaling(run, summarise(run))
    return sentences(series)


# ---- the section of the page


def test_the_section_stands_between_the_batch_sweep_and_the_proof_of_the_same_work(blocks):
    heads = [one.text for one in flat(blocks) if isinstance(one, Heading) and one.level == 2]
    place = heads.index("Several devices")
    assert heads[place - 1] == "Batch sweep"
    assert place < heads.index("Is it the same work?")


def test_there_is_one_picture_for_each_scaling_with_the_ideal_line_and_shapes_besides_colours(run, blocks):
    found = list({one.name: one for one in charts_of(section(blocks, "Several devices"))}.values())
    assert [one.tags["scaling"] for one in found] == ["strong", "weak"]
    for one in found:
        assert isinstance(one.drawn, Lines)
        *series, ideal = one.drawn.series
        assert (ideal.name, [(point.x, point.y) for point in ideal.points]) == ("ideal", [(1, 1), (4, 4)])
        assert [line.name for line in series] == ["PyTorch ddp", "JAX mesh"]
        looks = [(line.hue, line.shape) for line in one.drawn.series]
        assert len(set(looks)) == len({hue for hue, _ in looks}) == len({shape for _, shape in looks}) == 3
        for line in series:
            assert [point.x for point in line.points] == [1, 2, 4]
            assert all(point.low < point.y < point.high for point in line.points)
    torch, jax = (speed_up_text(one.points[-1]) for one in read_scaling(run, summarise(run))[:2])
    assert found[0].title == (
        f"mnist-cnn, strong scaling: JAX mesh is {jax} as fast with 4 ranks as one "
        f"plain process, PyTorch ddp {torch} with 4"
    )


@pytest.mark.parametrize(
    ("speed_ups", "title"),
    [
        ({"torch": {1: 0.9}}, "no row of several ranks has a figure"),
        (
            {"torch": {1: 0.9, 2: 0.5}},
            "no framework is proven faster with several ranks than in one plain process: PyTorch ddp (0.50",
        ),
        ({"torch": {2: 0.5}, "jax": {2: 1.9}}, "JAX mesh is 1."),
        ({"torch": {2: 0.5}, "jax": {2: 1.9}}, "as one plain process; not proven faster: PyTorch ddp (0.50"),
    ],
)
def test_the_title_of_a_picture_claims_no_more_than_was_measured(speed_ups, title):
    run = scaling_run(speed_ups)
    (chart,) = charts.speed_ups(run, summarise(run))
    assert title in chart.title


def test_many_ranks_are_drawn_on_logarithmic_axes():
    (few,) = charts.speed_ups(one := scaling_run({"torch": {2: 1.8, 8: 5.0}}), summarise(one))
    (many,) = charts.speed_ups(one := scaling_run({"torch": {2: 1.8, 16: 9.0}}), summarise(one))
    assert (few.drawn.x.log, few.drawn.y.log) == (False, False)
    assert (many.drawn.x.log, many.drawn.y.log) == (True, True)


def test_the_table_has_the_plain_row_and_every_number_of_ranks_with_intervals(run):
    table = table_with(section_of(run), "speed-up", "efficiency")
    rows = rows_of(table)
    assert [(row["framework"], row["ranks"]) for row in rows[:4]] == [
        ("PyTorch eager", "1"), ("PyTorch ddp", "1"), ("PyTorch ddp", "2"), ("PyTorch ddp", "4"),
    ]  # fmt: skip
    two = read_scaling(run, summarise(run))[0].points[1]
    assert (rows[0]["speed-up"], rows[0]["efficiency"]) == (NOTHING, NOTHING)
    assert rows[2]["speed-up"] == f"{two.speed_up.low:.2f}{DASH}{two.speed_up.high:.2f}{TIMES}"
    assert rows[2]["efficiency"] == f"{50 * two.speed_up.low:.0f}{DASH}{50 * two.speed_up.high:.0f} %"


def test_a_row_without_a_figure_has_its_reason_beside_the_table():
    run = scaling_run({"torch": {1: 0.95, 2: 1.8}})
    records = [
        msgspec.structs.replace(one, status="timeout", error="rank 1 of 2: timed out", windows=())
        if isinstance(one, JobRecord) and one.spec.cell.ranks == 2
        else one
        for one in run.records
    ]
    run = msgspec.structs.replace(run, records=tuple(records))
    row = rows_of(table_with(section_of(run), "speed-up", "efficiency"))[-1]
    assert (row["samples/s"], row["speed-up"], row["efficiency"]) == (NOTHING, "not ranked", NOTHING)
    found = said(section_of(run))
    assert "The break-even is unknown." in found
    assert "No figure with 2 ranks: timed out: rank 1 of 2: timed out (blocks 1, 2, 3, 4)" in found


def test_a_run_whose_ranks_all_failed_has_a_table_and_no_picture():
    run = scaling_run({"torch": {2: 1.8}})
    run = msgspec.structs.replace(run, records=())
    found = section_of(run)
    assert not list(charts_of(found))
    table = table_with(found, "speed-up")
    assert [row["speed-up"] for row in rows_of(table)] == ["not ranked", "not ranked"]
    assert table.flagged == {0, 1}
    assert "No figure with 2 ranks: not measured: the run has no record of it." in said(found)


@pytest.mark.parametrize(
    ("speed_ups", "break_even", "cost"),
    [
        (
            {1: 0.9, 2: 1.8},
            "The break-even is at 2 ranks (1.",
            "To be distributed costs ",
        ),
        (
            {1: 1.1, 2: 1.8},
            "The break-even is at 1 rank (1.",
            "faster than eager: being distributed costs nothing.",
        ),
        (
            {1: 1.0, 2: 0.8},
            "No break-even so far: with up to 2 ranks it is not proven faster than eager.",
            "At one rank, against eager: no difference larger than 2 %",
        ),
        (
            {1: 0.9},
            "The break-even is unknown: no row has several ranks.",
            "of the throughput of eager at one rank.",
        ),
        (
            {2: 1.8},
            "The break-even is at 2 ranks",
            "What it costs to be distributed at one rank is unknown: no row of it has one rank.",
        ),
    ],
)
def test_break_even_and_cost_are_told_in_words(speed_ups, break_even, cost):
    first, second = words(scaling_run({"torch": speed_ups}))
    assert first.startswith(break_even)
    assert cost in second


def test_a_disturbed_run_claims_nothing():
    run = scaling_run({"torch": {1: 0.9, 2: 1.8}})
    records = [
        msgspec.structs.replace(one, conditions=msgspec.structs.replace(one.conditions, throttled_share=0.5))
        if hasattr(one, "conditions")
        else one
        for one in run.records
    ]
    run = msgspec.structs.replace(run, records=tuple(records))
    found = said(section_of(run))
    assert "nothing is claimed, because the machine was disturbed" in found
    assert "The break-even is unknown: something else disturbed the machine" in found


def test_it_is_told_what_the_machine_can_show():
    run = scaling_run({"torch": {2: 1.8}})
    environment = msgspec.structs.replace(run.header.environment, usable_cpus=2)
    run = msgspec.structs.replace(run, header=msgspec.structs.replace(run.header, environment=environment))
    found = said(section_of(run))
    assert "is pinned to one core, also that of a plain row." in found
    assert "slower here than in a normal run" in found
    assert "It may use 2 CPUs of the machine, so it cannot show more than 2 ranks." in found


def test_it_is_told_where_more_ranks_are_no_longer_faster():
    first, _ = words(scaling_run({"torch": {1: 0.9, 2: 1.8, 4: 1.001}}))
    assert first.endswith("it is not proven faster than eager. With 4 it is not, either.")


def test_ranks_of_two_hosts_are_told_with_their_network():
    run = scaling_run({"torch": {2: 1.8}})
    records = [
        msgspec.structs.replace(
            one,
            ranks=tuple(msgspec.structs.replace(rank, host=f"node-{rank.rank}") for rank in one.ranks),
        )
        if isinstance(one, JobRecord)
        else one
        for one in run.records
    ]
    told = " ".join(what_it_shows(msgspec.structs.replace(run, records=tuple(records))))
    assert "The ranks ran on 2 hosts, so the figures include the network between them." in told
    assert f"What other programs used meanwhile was read on {run.header.environment.hostname} alone." in told
    assert "cannot show more" not in told


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.911, 0.94, "91\N{EN DASH}94 %"),
        (0.9101, 0.9123, "91.0\N{EN DASH}91.2 %"),
        (1.0, 1.0, "100.00 %"),
        (-0.0004, 0.012, "0\N{EN DASH}1 %"),
        (-0.012, 0.021, "\N{MINUS SIGN}1 to 2 %"),
    ],
)
def test_the_ends_of_an_interval_are_told_apart(low, high, text):
    assert percent_range(Share(value=low, low=low, high=high)) == text


# ---- rows that differ by their ranks alone


def test_every_row_has_a_name_of_its_own_in_every_table_and_file(run, blocks):
    rows = len(run.header.cells)
    assert rows == 2 + 2 * 5
    names = [row["framework"] for row in rows_of(table_with(blocks, "optimizer", "parity"))]
    assert len(set(names)) == len(names) == rows
    assert {"PyTorch ddp", "PyTorch ddp 2 ranks", "PyTorch ddp 2 ranks (weak)"} <= set(names)
    files = [one.name for one in flat(blocks) if isinstance(one, File)]
    assert len(set(files)) == len(files) == rows + 1
    listed = next(one.content for one in flat(blocks) if isinstance(one, File) and one.name == "rows.csv")
    keys = [
        (row["backend"], row["mode"], row["ranks"], row["scaling"])
        for row in csv.DictReader(io.StringIO(listed))
    ]
    assert len(set(keys)) == rows


def test_the_charts_have_names_of_their_own(run):
    names = [one.name for one in charts.every(run, summarise(run))]
    assert len(set(names)) == len(names)
    assert "speed-mnist-cnn-cpu-fp32-tuned-2-weak" in names


def test_the_live_table_tells_the_rows_apart(run, tmp_path):
    names = [
        row.name for row in LiveRows(RunLog(make_run(run.header, folder=tmp_path), unavailable=())).rows()
    ]
    assert len(set(names)) == len(names) == len(run.header.cells)


def test_verify_tells_the_rows_apart(run):
    file = io.StringIO()
    render_parity(run.parity, Console(file=file, width=120))
    assert "torch ddp 2 ranks " in file.getvalue()
    assert "torch ddp 4 ranks (weak)" in file.getvalue()


@pytest.mark.parametrize(
    "names_of",
    [
        lambda run: [one["name"] for one in json.loads(github_action.to_bigger(run))],
        lambda run: [one["fullname"] for one in json.loads(pytest_benchmark.to_json(run))["benchmarks"]],
        lambda run: list(json.loads(asv.to_files(run, Path("none"))["benchmarks.json"])),
    ],
    ids=["github", "pytest-benchmark", "asv"],
)
def test_exports_tell_the_rows_apart(run, names_of):
    commit = msgspec.structs.replace(run.header.environment, commit="a" * 40)
    run = msgspec.structs.replace(run, header=msgspec.structs.replace(run.header, environment=commit))
    names = names_of(run)
    assert len(set(names)) == len(names)
    assert sum("2-ranks-weak" in name or "2 ranks weak" in name for name in names) >= 2
    one_rank = [name for name in names if "eager" in name]
    assert one_rank, "the plain row"
    assert all("1-rank" in name or "1 rank" in name for name in one_rank), "its process had one core"


def test_frameworks_are_compared_at_the_same_number_of_ranks_and_scaling_only(run):
    summary = summarise(run)
    groups = [(one.ranks, one.scaling) for one in summary.verdicts]
    assert groups == [(1, "strong"), (2, "strong"), (4, "strong"), (2, "weak"), (4, "weak")]
    for verdict in summary.verdicts:
        made = [*verdict.made.backends, *verdict.made.modes]
        assert made
        for one in made:
            assert one.faster.ranks == one.slower.ranks == verdict.ranks
            assert one.faster.scaling == one.slower.scaling
    one_rank = summary.verdicts[0]
    assert {cell.mode for cell in one_rank.order} == {"eager", "ddp", "jit", "mesh"}
    assert {(one.faster.mode, one.slower.mode) for one in one_rank.made.modes} == {
        ("eager", "ddp"),
        ("jit", "mesh"),
    }


def test_the_winners_of_a_run_with_ranks_are_told_by_their_number(blocks):
    rows = rows_of(table_with(blocks, "ahead", "ranks"))
    assert [row["ranks"] for row in rows] == ["1", "2", "4", "2 (weak)", "4 (weak)"]
    assert rows[1]["ahead"] == "JAX mesh 2 ranks"


def test_a_reader_can_choose_by_ranks_and_scaling(run, tmp_path):
    found = Page(page.document(run, summarise(run), beside=tmp_path))
    assert {one.attributes["value"] for one in found.all("option")} >= {"2", "4", "strong", "weak"}
    ids = found.attributes("id")
    assert len(ids) == len(set(ids))


# ---- what several ranks mean elsewhere


def test_the_plain_row_of_a_run_with_ranks_is_another_row_than_that_of_other_runs(run):
    mark = summarise(run).mark
    assert mark == "Each process pinned to one core. Not to be compared with a run without ranks."
    limited = make_header(run.header.cells, sample=True)
    assert summarise(make_run(limited)).mark == (
        "Made on the small sample that comes with the program; each process pinned to one core. Not to be "
        "compared with a run on the full data sets and without ranks."
    )
    assert mark in terminal_of(run)
    gpu = [msgspec.structs.replace(cell, device="gpu") for cell in run.header.cells]
    assert summarise(make_run(make_header(gpu))).mark is None, "it has one GPU in either run"
    other = simple_run({make_cell(): [1000.0] * 4})
    (row,) = [one for one in compare(other, run).cells if one.cell == make_cell()]
    assert (row.findings, row.conclusion) == ((), "undecided")
    assert "data" in row.why


def test_a_larger_batch_learns_something_else_and_is_not_compared():
    cells = [make_cell(), make_cell(mode="ddp", ranks=2), make_cell(mode="ddp", ranks=2, scaling="weak")]
    jobs = [make_job(cell, epochs=2, points=make_points(0.9, 2, 1.0)) for cell in cells]
    (workload,) = converge(make_run(make_header(cells), jobs)).workloads
    assert list(workload.cells) == cells[:2]


def test_a_weak_row_costs_a_step_of_its_own_batch_and_no_share_of_one_process(run):
    costs = {one.cell: one for one in read_costs(run, summarise(run)).cells}
    plain, weak = make_cell(), make_cell(mode="ddp", ranks=2, scaling="weak")
    rows = {row.cell: row for row in summarise(run).cells}
    assert costs[plain].step_s == pytest.approx(100 / rows[plain].samples_per_s)
    assert costs[weak].step_s == pytest.approx(200 / rows[weak].samples_per_s)
    assert not read_costs(run, summarise(run)).break_evens, "being distributed is no way to compile"


def test_the_peak_of_one_process_is_no_limit_of_several_ranks():
    cells = [make_cell(), make_cell(mode="ddp"), make_cell(mode="ddp", ranks=2)]
    peak = Peak(flops_per_s=1e9, bytes_per_s=1e9)
    jobs = [
        msgspec.structs.replace(make_job(cell, block), peak=peak if cell == cells[0] else None)
        for cell in cells
        for block in range(3)
    ]
    run = make_run(make_header(cells), jobs)
    costs = {one.cell: one for one in read_costs(run, summarise(run)).cells}
    assert [costs[cell].ceiling for cell in cells] == [peak, peak, None]


# ---- the short reports and the exports


def test_the_terminal_and_markdown_have_one_table_and_one_line(run):
    for text in (terminal_of(run), markdown_of(run).replace("\\", "").replace("**", "")):
        assert text.count("efficiency: speed-up over ranks") == 1
        assert "Break-even: at 2 ranks: PyTorch ddp and JAX mesh on mnist-cnn and mnist-cnn (weak)." in text
    assert "| mnist-cnn (weak) | JAX mesh | 4 |" in markdown_of(run)


@pytest.mark.parametrize(
    ("speed_ups", "line"),
    [
        ({"torch": {2: 1.8}, "jax": {2: 0.9}}, "at 2 ranks: PyTorch ddp on mnist-cnn; none so far: JAX mesh"),
        ({"torch": {1: 0.9}}, "unknown: PyTorch ddp on mnist-cnn."),
    ],
)
def test_the_line_tells_the_break_even_of_every_framework(speed_ups, line):
    assert f"Break-even: {line}" in terminal_of(scaling_run(speed_ups))


def test_a_narrow_terminal_shows_every_number(run):
    wide, narrow = terminal_of(run), terminal_of(run, 60)
    for row in rows_of(table_with(short.on_terminal(run, summarise(run)), "efficiency")):
        assert row["speed-up"] in wide
        assert row["speed-up"] in narrow
        assert row["efficiency"] in narrow


def test_the_verdicts_as_json_have_the_scaling(run):
    found = json.loads(verdicts_to_json(run, summarise(run)))["scaling"]
    assert [(one["backend"], one["scaling"], one["break_even"]) for one in found] == [
        ("torch", "strong", 2), ("jax", "strong", 2), ("torch", "weak", 2), ("jax", "weak", 2),
    ]  # fmt: skip
    point = found[0]["points"][1]
    assert (point["ranks"], point["why_not"], point["own_devices"], point["proven"]) == (2, None, True, True)
    assert point["comparison"]["half_width"] > 0
    assert point["efficiency"]["value"] == point["speed_up"]["value"] / 2


def test_the_rows_as_json_have_their_ranks(run):
    rows = json.loads(to_json(summarise(run)))
    assert {(row["ranks"], row["scaling"]) for row in rows} == {
        (1, "strong"), (2, "strong"), (4, "strong"), (2, "weak"), (4, "weak"),
    }  # fmt: skip


# ---- a run without ranks


@pytest.fixture(scope="module")
def other() -> Run:
    return realistic_run()


def test_a_run_without_ranks_shows_nothing_of_them(other, tmp_path):
    summary = summarise(other)
    text = page.document(other, summary, beside=tmp_path)
    for word in ("Several devices", "speed-up", "efficiency", '"ranks"', "&#34;ranks", "ddp"):
        assert word not in text
    assert "Several devices" not in terminal_of(other)
    assert "Several devices" not in markdown_of(other)
    assert "scaling" not in json.loads(verdicts_to_json(other, summary))
    assert not any("ranks" in one.heads for one in tables(page.blocks(other, summary)))
    assert not charts.speed_ups(other, summary)


def test_only_a_page_about_ranks_explains_their_words(run, other):
    assert terms_of([other]) == TERMS
    assert terms_of([other, run]) == {**TERMS, **RANK_TERMS}


def test_a_run_with_ranks_and_one_without_can_stand_on_one_page(run):
    runs = [run, simple_run({make_cell(): [1000, 1001, 1002]})]
    summaries = [summarise(one) for one in runs]
    found = several.compared(runs, summaries)
    rows = rows_of(table_with(found, "run", "times as fast"))
    assert [row["ranks"] for row in rows if row["run"] == "2"] == ["1"]
    text = several.document(found, runs, summaries)
    assert "Several devices" in text
    assert TITLES["torch"] in text

"""Figures of pages that come from records: a made-up page with known records, and the real pages."""

import math
import re
import shutil
from pathlib import Path

import msgspec
import pytest
from simulated import simulate
from synthetic import make_cell, scaling_run, simple_run
from test_campaign_run import make_command, make_part, record_of

from bench.analysis.summary import summarise
from bench.records.runs import append_record, create_run
from bench.report.format import NOTHING
from bench.report.markdown import grid
from bench.selftest.calibration import Rate, calibrate
from bench.selftest.nested import SHOWN, at_lengths
from bench.selftest.records import append_block, create_selftest, read_selftest
from campaign import figures, log, recipes, runs, tables
from campaign.figures import FigureError, Records, figure, figures_of, pages, rewritten, wrong_figures

DASH = "\N{EN DASH}"
ROOT = Path(__file__).parents[2]
PARTS = [make_part(make_command(), name=name) for name in ("run-default-1", "selftest", "begun")]
TRIES = f"# Tries\n\n{grid(('head', 'was so'), [('unchanged', '4 of 4'), ('slower', '1 of 2')])}\n"
TORCH, JAX = make_cell(), make_cell(backend="jax", mode="jit")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "campaign"
    run = simple_run({TORCH: [1000.0, 1010.0, 990.0], JAX: [2000.0, 2030.0, 1985.0]})
    made = create_run(folder, run.header)
    for record in run.records:
        append_record(made, record)
    made.rename(folder / "run-default-1")
    test = simulate(groups=2)
    made = create_selftest(folder, test.header)
    for block in test.blocks:
        append_block(made, block)
    made.rename(folder / "selftest")
    for part, status in zip(PARTS, ("done", "done", "interrupted"), strict=True):
        log.write_part(folder, record_of(part, status))
    (folder / "run-default-1" / "TRIES.md").write_text(TRIES)
    return folder


@pytest.fixture
def records(folder) -> Records:
    return Records(folder, PARTS)


def marked(name: str, shown: str) -> str:
    return f"<!-- figure: {name} -->{shown}<!-- /figure -->"


RATIO = "run-default-1 mnist-cnn jax/torch ratio"


def test_a_ratio_is_that_of_the_run_in_either_direction(folder, records):
    run, summary = runs.read(folder / "run-default-1")
    (one,) = runs.default_ratios("x", run, summary)
    assert (one.first, one.second) == ("jax", "torch")
    assert one.log == pytest.approx(math.log(2005 / 1000), abs=0.01)
    assert figure(RATIO, records) == f"{one.low:.2f}{DASH}{one.high:.2f}"
    turned = figure("run-default-1 mnist-cnn torch/jax ratio", records)
    assert turned == f"{1 / one.high:.2f}{DASH}{1 / one.low:.2f}"
    assert figure("run-default-1 mnist-cnn jax:jit/torch:eager times", records) == f"{math.exp(one.log):.2f}"


def test_tables_are_figures_too(folder, records):
    run, summary = runs.read(folder / "run-default-1")
    assert figure("run-default-1 ranking", records) == tables.ranking(summary)
    assert "times as fast as PyTorch" in tables.ranking(summary)
    assert figure("run-default-1 accuracies", records) == tables.accuracies([run])
    page = marked("run-default-1 ranking", "old")
    assert rewritten(page, records) == marked("run-default-1 ranking", tables.ranking(summary))
    assert wrong_figures(rewritten(page, records), records) == []
    assert wrong_figures(page, records) != []


def test_what_ranks_gain_is_a_table_of_frameworks(tmp_path):
    run = scaling_run({"torch": {1: 0.9, 2: 1.8}}, {"jax": {2: 1.2}}, folder=tmp_path)
    shown = tables.speed_ups(run, summarise(run))
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.strip().splitlines()]
    assert cells[0][:2] == ["workload", "ranks"]
    rows = {(workload, ranks): rest for workload, ranks, *rest in cells[2:]}
    assert set(rows) == {("mnist-cnn", "1"), ("mnist-cnn", "2"), ("mnist-cnn (weak)", "2")}
    assert rows["mnist-cnn", "1"][0] == NOTHING, "TensorFlow was not measured"
    assert rows["mnist-cnn", "2"][1].startswith(("1.79", "1.8"))
    assert rows["mnist-cnn (weak)", "2"][2].startswith(("1.19", "1.2"))


def test_what_notebooks_reached_is_a_figure_of_their_parts(folder, records, monkeypatch):
    monkeypatch.setattr(recipes, "read", lambda found: found)
    monkeypatch.setattr(recipes, "last_figures", lambda found: " ".join(path.name for path in found))
    monkeypatch.setattr(recipes, "outside", lambda found: f"{len(found)} of 42")
    assert figure("run-default-1,selftest recipes", records) == "run-default-1 selftest"
    assert figure("run-default-1,selftest outside", records) == "2 of 42"


@pytest.mark.parametrize("what", ["accuracies", "targets"])
def test_what_several_parts_learned_is_one_table(what, folder, records, monkeypatch):
    run, _ = runs.read(folder / "run-default-1")
    monkeypatch.setattr(tables, what, lambda found: f"{found == [run, run]}")
    assert figure(f"run-default-1,run-default-1 {what}", records) == "True"
    with pytest.raises(FigureError, match="part run-default-9 is not begun"):
        figure(f"run-default-1,run-default-9 {what}", records)


def test_a_run_of_another_machine_gives_figures_though_it_is_no_part(folder, records):
    shutil.copytree(folder / "run-default-1", folder.parent / "guest-x")
    assert figure("guest-x ranking", records) == figure("run-default-1 ranking", records)
    with pytest.raises(FigureError, match="part guest-x is not begun"):
        figure("guest-x minutes", records)
    with pytest.raises(FigureError, match="guest-y"):
        figure("guest-y ranking", records)


def test_tables_and_cells_of_reports_are_figures(records):
    assert figure("run-default-1/TRIES.md | slower | was so", records) == "1 of 2"
    assert f"# Tries{figure('run-default-1/TRIES.md | was so', records)}" == f"{TRIES}\n"


def test_the_first_of_a_ratio_is_the_first_of_the_alphabet_whichever_is_faster():
    run = simple_run({TORCH: [2000.0, 2030.0, 1985.0], JAX: [1000.0, 1010.0, 990.0]})
    (one,) = runs.default_ratios("x", run, summarise(run))
    assert (one.first, one.second) == ("jax", "torch")
    assert one.log == pytest.approx(math.log(1000 / 2005), abs=0.01)
    assert one.low < math.exp(one.log) < one.high < 1


@pytest.mark.parametrize(("torch", "sign"), [(500.0, 1), (2000.0, -1)], ids=["first-faster", "second-faster"])
def test_a_ratio_has_the_plain_one_beside_it_in_the_same_direction(torch, sign):
    run = simple_run({TORCH: [torch] * 3, JAX: [1000.0, 1010.0, 990.0]})
    summary = summarise(run)
    verdicts = []
    for verdict in summary.verdicts:
        backends = tuple(msgspec.structs.replace(one, plain=3.0) for one in verdict.made.backends)
        made = msgspec.structs.replace(verdict.made, backends=backends)
        verdicts.append(msgspec.structs.replace(verdict, made=made))
    (one,) = runs.default_ratios("x", run, msgspec.structs.replace(summary, verdicts=tuple(verdicts)))
    assert one.plain_log == pytest.approx(sign * math.log(3))
    assert one.log == pytest.approx(math.log(1000 / torch), abs=0.01)


def test_a_run_whose_workload_was_disturbed_gives_no_ratio(folder):
    run, summary = runs.read(folder / "run-default-1")
    verdicts = []
    for verdict in summary.verdicts:
        made = msgspec.structs.replace(
            verdict.made,
            backends=tuple(msgspec.structs.replace(one, kind="disturbed") for one in verdict.made.backends),
        )
        verdicts.append(msgspec.structs.replace(verdict, made=made))
    changed = msgspec.structs.replace(summary, verdicts=tuple(verdicts))
    assert runs.default_ratios("x", run, changed) == ()


def test_other_figures_have_names_too(folder, records):
    summary = runs.read(folder / "run-default-1")[1]
    rate = next(cell.samples_per_s for cell in summary.cells if cell.backend == "torch")
    assert figure("run-default-1 mnist-cnn torch rate", records) == f"{rate:,.0f}"
    with pytest.raises(FigureError, match="was not trained"):
        figure("run-default-1 mnist-cnn torch accuracy", records)
    trained = msgspec.structs.replace(summary.cells[0], test_accuracy=0.96657)
    assert figures._accuracy(trained) == "96.66%"
    assert figure("run-default-1 minutes", records) == "0"
    assert figure("run-default-1 cpu", records) == record_of(PARTS[0], "done").cpu.in_words()
    assert figure("selftest 3 false-alarms", records) == "0 of 12"
    assert figure("selftest 10 10%-found", records) == "2 of 2"
    assert figure("selftest 10 truth-held", records).endswith(" of 10")


def test_the_rates_of_the_first_of_three_pairs_have_names_of_their_own(folder, records, monkeypatch):
    lengths = at_lengths(calibrate(read_selftest(folder / "selftest")))
    rates = {row: Rate(hits=hits, of=7) for hits, row in enumerate(SHOWN)}
    rows = [
        msgspec.structs.replace(row, false_alarms=rates[row.name], found={0.05: rates[row.name]})
        for row in (one.row for one in lengths)
    ]
    changed = [msgspec.structs.replace(one, row=row) for one, row in zip(lengths, rows, strict=True)]
    monkeypatch.setattr(figures, "at_lengths", lambda found: changed)
    assert figure("selftest 3 false-alarms", records) == "0 of 7"
    assert figure("selftest 3 first-false-alarms", records) == "1 of 7"
    assert figure("selftest 10 first-5%-found", records) == "1 of 7"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("run-default-9 mnist-cnn jax/torch ratio", "part run-default-9 is not begun"),
        ("begun mnist-cnn jax/torch ratio", "part begun is interrupted"),
        ("run-default-1 mnist-mlp jax/torch ratio", "0 rows are mnist-mlp jax"),
        ("run-default-1 mnist-cnn jax/tensorflow ratio", "0 rows are mnist-cnn tensorflow"),
        ("run-default-1 mnist-cnn jax/jax ratio", "compares no jax/jax"),
        ("run-default-1 mnist-cnn jax speed", "no figure has such a name"),
        ("run-default-1 mnist-cnn", "no figure has such a name"),
        ("selftest 5 false-alarms", "no false-alarms with 5 blocks"),
        ("selftest 3 luck", "it has: false-alarms"),
        ("run-default-1 3 false-alarms", "run-default-1"),
        ("validation agreed", "part validation-1 is not begun"),
        ("reference agreed", "part run-default-2 is not begun"),
        ("reference precision", "part run-90-minutes is not begun"),
        ("run-default-1,notebooks-x recipes", "part notebooks-x is not begun"),
        ("run-default-9/REPORT.md | verdict", "part run-default-9 is not begun"),
        ("run-default-1/NONE.md | verdict", "there is no report run-default-1/NONE.md"),
        ("VALIDATION.md | pair", "there is no report VALIDATION.md"),
        ("run-default-1/TRIES.md | none", "no table has the column 'none'"),
        ("run-default-1/TRIES.md | a | b | c", "no figure has such a name"),
        ("run-default-1 costs", "no benchmark of run-default-1 printed"),
        ("run-default-1 installs", "there is no report run-default-1/installs.json"),
    ],
)
def test_a_figure_that_the_records_do_not_give_is_an_error_that_says_why(records, name, why):
    with pytest.raises(FigureError, match=re.escape(why)):
        figure(name, records)


def page(records: Records) -> str:
    return (
        f"# A page\n\nJAX is {marked(RATIO, figure(RATIO, records))} times as fast.\n\n"
        f"A mark is written `{marked('x', '1')}`, or in a block:\n\n```\n{marked('y', '2')}\n```\n\n"
        f"Old: 1.2 to 1.3. New: {marked('selftest 3 false-alarms', '0 of 12')}.\n"
    )


def test_a_page_whose_figures_are_right_stays_as_it_is(records):
    text = page(records)
    assert [one.line for one in figures_of(text)] == [3, 11]
    assert wrong_figures(text, records) == []
    assert rewritten(text, records) == text


def test_a_wrong_figure_is_named_and_rewritten_and_nothing_else_is(records):
    right = page(records)
    wrong = right.replace(figure(RATIO, records), "9.99").replace("0 of 12", "0 of\n  13")
    said = wrong_figures(wrong, records)
    assert said == [
        f"line 3: {RATIO}: the page has '9.99', the records {figure(RATIO, records)!r}",
        "line 11: selftest 3 false-alarms: the page has '0 of\\n  13', the records '0 of 12'",
    ]
    assert rewritten(wrong, records) == right


def test_a_figure_without_records_is_named_and_never_rewritten(records):
    text = f"x\n{marked('run-default-2 mnist-cnn jax/torch ratio', '1.2')}\n"
    assert wrong_figures(text, records) == [
        "line 2: run-default-2 mnist-cnn jax/torch ratio: part run-default-2 is not begun"
    ]
    with pytest.raises(FigureError, match="not begun"):
        rewritten(text, records)


@pytest.mark.parametrize(
    "text",
    ["<!-- figure: a b -->1", "1<!-- /figure -->", marked("a b", "1") + "<!-- /figure -->",
     f"<!-- figure: a b -->{marked('c d', '1')}<!-- /figure -->", "<!-- figure a -->1<!-- /figure -->"],
)  # fmt: skip
def test_a_mark_without_its_other_half_is_an_error(text, records):
    with pytest.raises(FigureError, match="line 1: a figure's mark without its other half"):
        list(figures_of(text))
    with pytest.raises(FigureError):
        rewritten(text, records)


def test_every_marked_figure_of_the_pages_is_in_the_records():
    records = Records(ROOT / log.FOLDER)
    found = pages(ROOT)
    assert len(found) > 20
    wrong = {
        str(path.relative_to(ROOT)): said
        for path in found
        if (said := wrong_figures(path.read_text(encoding="utf-8"), records))
    }
    assert wrong == {}


def test_the_summary_that_figures_read_is_that_of_the_report(folder):
    run, summary = runs.read(folder / "run-default-1")
    assert summary.cells == summarise(run).cells
    assert figures.Records(folder, PARTS).run("run-default-1").cells == summary.cells

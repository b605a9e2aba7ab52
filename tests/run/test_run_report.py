"""The report in every form: complete, readable at any width, safe whatever the records hold, repeatable."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from html import unescape
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import msgspec
import pytest
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from rich.console import Console
from synthetic import (
    TITLES,
    make_cell,
    make_header,
    make_job,
    make_parity,
    make_points,
    make_run,
    make_workload,
    realistic_run,
    simple_run,
)

from bench.analysis.summary import CellSummary, Summary, summarise
from bench.errors import RecordError
from bench.records.runs import Run
from bench.records.schema import UnmeasuredRecord
from bench.report.blocks import Table
from bench.report.format import NOTHING, PLUS_MINUS
from bench.run.outlook import outlook
from bench.run.report import export, markdown, plots, terminal
from bench.run.report.sentences import answer, sentences
from bench.run.report.tables import speed_blocks

TORCH = make_cell()
JAX = make_cell(backend="jax", mode="jit")
REFERENCE = make_cell(backend="numpy", mode="float64")
HOSTILE = (
    "a|b\n# c <script>alert(1)</script> `d` **e** [f](http://evil) \x1b[31m\u202e$g^2$ &lt; _h_ =1+1 模型"
)
RTL = "\u202e"


@pytest.fixture(scope="module")
def realistic() -> tuple[Run, Summary]:
    run = realistic_run()
    return run, summarise(run)


@pytest.fixture(scope="module")
def figures(realistic: tuple[Run, Summary]) -> Mapping[str, Figure]:
    with plots.settings():
        return plots.figures(*realistic)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a realistic run whose report was written, with a plot left from before."""
    folder = tmp_path_factory.mktemp("realistic")
    (folder / "plots").mkdir()
    (folder / "plots" / "gpu_memory.svg").write_text("from before")
    run = realistic_run(folder)
    assert markdown.write(run, summarise(run)) == folder / "REPORT.md"
    return folder


def hostile_run(folder: Path) -> Run:
    """Return a run in which every text a record can hold is hostile."""
    names = {"workload": HOSTILE, "backend": f"_{HOSTILE}", "mode": f"=cmd {HOSTILE}"}
    cells = [make_cell(**names), make_cell(**{**names, "backend": "=2+5", "mode": "```"})]
    header = make_header(
        cells, titles={cells[0].backend: HOSTILE}, command=("bench", "run", "```\n# x", HOSTILE)
    )
    header = msgspec.structs.replace(
        header,
        run_id=HOSTILE,
        preset=HOSTILE,
        environment=msgspec.structs.replace(header.environment, cpu_model=HOSTILE, variables={"A": HOSTILE}),
    )
    job = make_job(cells[0], 0, epochs=2, points=make_points(0.9, 2, 1.0))
    job = msgspec.structs.replace(job, described={HOSTILE: HOSTILE})
    records = [
        make_parity(cells[0]),
        job,
        *(make_job(cells[0], block) for block in (1, 2)),
        UnmeasuredRecord(cell=cells[1], status="unavailable", error=HOSTILE),
    ]
    return make_run(header, records, folder=folder, rejected=[HOSTILE])


def all_crashed(folder: Path) -> Run:
    jobs = [make_job(cell, block, status="crashed", rates=()) for cell in (TORCH, JAX) for block in range(3)]
    return make_run(make_header([TORCH, JAX]), jobs, folder=folder)


def stopped_at_once(folder: Path) -> Run:
    records = [
        make_parity(TORCH, status="failed", said="logits: not finite", checked=False),
        make_job(TORCH, 0, status="nan_loss", epochs=2, points=make_points(0.9, 2, 1.0)[:1]),
    ]
    return make_run(make_header([TORCH]), records, folder=folder)


def parity_alone(folder: Path) -> Run:
    return make_run(make_header([TORCH]), [make_parity(TORCH, error=0.0)], folder=folder)


BROKEN = {  # and which plots each of them has
    "empty": (lambda folder: make_run(make_header([]), folder=folder), set()),
    "planned only": (lambda folder: make_run(make_header([TORCH, JAX]), folder=folder), set()),
    "all crashed": (all_crashed, {"memory"}),
    "one block": (lambda folder: simple_run({TORCH: [1000], JAX: [900]}, folder=folder), None),
    "one backend": (lambda folder: simple_run({TORCH: [1000, 1001, 999]}, folder=folder), None),
    "parity alone": (parity_alone, {"parity"}),
    "stopped at once": (stopped_at_once, {"memory"}),
    "reference alone": (lambda folder: simple_run({REFERENCE: [10, 11, 12]}, folder=folder), None),
    "hostile": (hostile_run, None),
}


def said(verdict):
    return tuple(sentences(verdict, TITLES))


def on_terminal(run: Run, width: int = 80, **options) -> str:
    file = io.StringIO()
    terminal.render(run, summarise(run), Console(file=file, width=width, **options))
    return file.getvalue()


def report_text(run: Run) -> str:
    return markdown.text(run, summarise(run), frozenset(plots.NAMES))


def render_html(text: str) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)


def drawn(run: Run) -> dict[str, bytes]:
    return plots.draw(run, summarise(run))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_run_is_reported_in_every_form(name: str, tmp_path: Path) -> None:
    make, expected = BROKEN[name]
    run = make(tmp_path)
    summary = summarise(run)
    for width in (20, 60, 120):
        printed = on_terminal(run, width)
        assert "Verdict" in printed
        assert not re.search(r"\bnan\b", printed)
    text = markdown.write(run, summary).read_text(encoding="utf-8")
    assert text.startswith("# Which framework")
    assert "## Run it again" in text
    found = {path.stem for path in (tmp_path / "plots").iterdir()} - {"first_result", "step_split"}
    assert expected is None or found == expected
    rows = json.loads(export.to_json(summary), parse_constant=pytest.fail)
    assert len(rows) == len(run.header.cells)
    told = json.loads(export.verdicts_to_json(run, summary), parse_constant=pytest.fail)
    assert len(told["verdicts"]) == len(summary.verdicts)


def test_the_verdicts_are_told_as_json(realistic: tuple[Run, Summary]) -> None:
    run, summary = realistic
    told = json.loads(export.verdicts_to_json(run, summary))
    assert [one["workload"] for one in told["verdicts"]] == [one.workload for one in summary.verdicts]
    verdict, told_verdict = summary.verdicts[0], told["verdicts"][0]
    assert [pick["block"] for pick in told_verdict["picks"]] == [None, 0, None]
    for family in ("backends", "modes", "tuning"):
        for one, told_one in zip(
            getattr(verdict.made, family), told_verdict["comparisons"][family], strict=True
        ):
            assert told_one["faster"]["mode"] == one.faster.mode
            assert (told_one["ratio"], told_one["plain"]) == (one.ratio, one.plain)
            assert told_one["half_width"] == one.half_width
    found = outlook(run, summary)
    assert found is not None
    assert told["outlook"]["blocks"] == found.blocks
    assert told["outlook"]["words"] in " ".join(on_terminal(run).split())
    assert told["outlook"]["words"] in markdown.text(run, summary, frozenset())


# ---- terminal


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_row_figure_and_reason_is_there_at_any_width(width, realistic):
    run, summary = realistic
    printed = on_terminal(run, width)
    assert max(len(line) for line in printed.splitlines()) <= width
    joined = " ".join(printed.replace("\N{BULLET}", " ").split())
    assert "\N{HORIZONTAL ELLIPSIS}" not in printed
    assert "\x1b" not in printed
    for row in summary.cells:
        assert f"{summary.titles[row.backend]} {row.mode}" in joined
        if row.samples_per_s is not None:
            assert f"{row.samples_per_s:,.0f}" in joined
        if row.why_not:
            assert row.why_not in joined
    for verdict in summary.verdicts:
        for sentence in said(verdict):
            assert sentence in joined
    heads = "samples/s,relative,accuracy,to target,first step,import,memory,parity"
    for word in [*heads.split(","), "not comparable", "no steady state"]:
        assert word in joined


def lines_of(printed: str, start: str) -> list[list[str]]:
    """Return, word by word, the lines that begin with a text."""
    return [re.split(r"\s{2,}|\s", line) for line in printed.splitlines() if line.startswith(start)]


FIRST = f"framework samples/s {PLUS_MINUS} relative status accuracy to target"
COSTS = "parity first step import memory"


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (80, [FIRST, f"framework {COSTS}"]),
        (95, [FIRST, f"framework {COSTS}"]),  # the next column would fit beside what matters most
        (120, [f"{FIRST} {COSTS}"]),
    ],
)
def test_where_all_does_not_fit_what_matters_most_stands_in_one_table_and_the_costs_below(
    width, heads, realistic
):
    printed = on_terminal(realistic[0], width)
    assert [" ".join(line) for line in lines_of(printed, "framework")] == 6 * heads


@pytest.mark.parametrize(
    ("cell", "rates", "words"),
    [
        (TORCH, [1000, 1200], f"PyTorch eager 1,095 {NOTHING} "),
        (TORCH, [1000, 1200, 900], "PyTorch eager 1,026 37 % "),  # from three blocks on it has a width
        (REFERENCE, [10, 10, 10], f"NumPy float64 10 0.0 % {NOTHING} reference"),
    ],
)
def test_a_row_has_the_figures_that_its_blocks_support(cell, rates, words):
    assert words in " ".join(on_terminal(simple_run({cell: rates}), 120).split())


def test_a_row_that_is_not_ranked_stands_out(realistic):
    _, summary = realistic
    shown = [block for block in speed_blocks(summary) if isinstance(block, Table)]
    flags = [place in table.flagged for table in shown for place in range(len(table.rows))]
    assert flags == [not row.ranked for row in summary.cells]


def test_rejected_lines_and_the_mark_are_shown(tmp_path):
    header = make_header([TORCH], dataset_limit=500)
    run = make_run(header, rejected=["records.jsonl line 7: truncated"], folder=tmp_path)
    mark = (
        "Limited to the first 500 images of each split. Not to be compared with a run on the full data sets."
    )
    printed = on_terminal(run, 200)
    assert "records.jsonl line 7: truncated" in printed
    assert printed.splitlines()[1] == f"NOTE: {mark}"
    assert report_text(run).splitlines()[2] == f"> **{mark}**"
    assert "records.jsonl line 7: truncated" in report_text(run)


# ---- export


def test_json_has_one_object_a_planned_cell_with_the_fields_of_a_row(realistic):
    run, summary = realistic
    rows = json.loads(export.to_json(summary))
    assert len(rows) == len(run.header.cells)
    fields = [field.name for field in msgspec.structs.fields(CellSummary)]
    assert all(list(row) == fields for row in rows)
    missing = next(row for row in rows if row["status"] == "unavailable")
    assert missing["samples_per_s"] is None
    assert missing["parity_ok"] is None
    assert msgspec.convert(rows, list[CellSummary]) == list(summary.cells)


def test_json_escapes_what_acts_on_a_terminal_and_loses_nothing(tmp_path):
    text = export.to_json(summarise(hostile_run(tmp_path)))
    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text)[0]["workload"] == HOSTILE


# ---- plots


def test_a_full_run_has_every_plot_and_each_is_well_formed(written):
    found = {path.stem: path.read_bytes() for path in (written / "plots").iterdir()}
    assert set(found) == set(plots.NAMES) - {
        "gpu_memory", "first_steps", "defaults", "step_split", "roofline", "sweep",
    }  # fmt: skip
    for svg in found.values():
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - made right here


def test_gpu_memory_is_drawn_where_it_was_measured():
    jobs = [make_job(TORCH, block, peak_device_bytes=2**30) for block in range(3)]
    assert "gpu_memory" in drawn(make_run(make_header([TORCH]), [make_parity(TORCH), *jobs]))


def test_no_panel_is_blank(figures):
    for figure in figures.values():
        assert figure.axes
        assert all(panel.has_data() for panel in figure.axes)
        assert all(panel.get_xlabel() for panel in figure.axes)


@pytest.mark.parametrize("name", ["accuracy_epochs", "accuracy_seconds", "loss_epochs", "loss_seconds"])
def test_curves_start_at_zero_before_any_training(name, figures):
    for panel in figures[name].axes:
        curves = [line for line in panel.lines if len(line.get_xdata()) == 4]  # 3 epochs and the start
        assert curves
        assert panel.get_xlim()[0] == 0
        assert panel.get_xscale() == panel.get_yscale() == "linear"
        assert all(curve.get_xdata()[0] == 0 for curve in curves)


def test_an_error_of_zero_stands_inside_the_logarithmic_axis(tmp_path):
    run = parity_alone(tmp_path)
    with plots.settings():
        (panel,) = plots.figures(run, summarise(run))["parity"].axes
        left, right = panel.get_xlim()
        assert 0 < left < right
        dots = [line.get_xdata()[0] for line in panel.lines if line.get_linestyle() == "None"]
        assert len(dots) == 6
        assert all(left <= dot <= right for dot in dots)


def test_only_a_workload_of_which_something_was_measured_has_a_panel():
    cells = [make_cell(name) for name in ("mnist-softmax", "mnist-mlp", "mnist-cnn")]
    rates = {**{cell: [1000] * 3 for cell in cells}, make_cell("cifar10-mlp"): []}
    run = simple_run(rates)
    with plots.settings():
        assert len(plots.figures(run, summarise(run))["speed"].axes) == 3  # in a grid of two by two


@pytest.mark.parametrize("mode", ["模型", "$\\frac$"])
def test_a_letter_that_the_font_lacks_and_a_formula_in_a_name_are_drawn_without_a_warning(mode):
    assert "speed" in drawn(simple_run({make_cell(mode=mode): [1000] * 3}))


def test_a_backend_has_one_colour_and_a_row_that_is_not_ranked_is_white_and_hatched(figures):
    colours: dict[str, set] = {}
    for panel in figures["speed"].axes:
        names = [label.get_text() for label in panel.get_yticklabels()]
        for bar in panel.patches:
            name = names[round(bar.get_y() + bar.get_height() / 2)]
            colours.setdefault(name.split()[0], set()).add(bar.get_facecolor())
            white = bar.get_facecolor() == (1, 1, 1, 1)
            assert white == (bar.get_hatch() == "xxxx")
    white = {(1.0, 1.0, 1.0, 1.0)}
    assert all(len(found - white) == 1 for found in colours.values())
    assert len(set.union(*colours.values()) - white) == 3


def test_plots_leave_matplotlibs_settings_alone():
    with mpl.rc_context({"font.size": 3.0, "axes.grid": True, "svg.hashsalt": "mine"}):
        before = dict(mpl.rcParams)
        with_theirs = drawn(simple_run({TORCH: [1000] * 3}))
        assert dict(mpl.rcParams) == before
    assert drawn(simple_run({TORCH: [1000] * 3})) == with_theirs


# ---- markdown


def test_the_same_run_gives_the_same_bytes_in_another_process(written, tmp_path):
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from bench.run.report import markdown; from synthetic import realistic_run\n"
        "from bench.analysis.summary import summarise\n"
        "run = realistic_run(Path(sys.argv[2]))\n"
        "markdown.write(run, summarise(run), Path(sys.argv[3]))"
    )
    arguments = [str(Path(__file__).parents[1]), str(written), str(tmp_path)]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=300)
    here, there = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in (written, tmp_path)
    )
    assert here == there
    assert len(here) > 8


def test_the_report_links_only_plots_that_exist(written):
    linked = set(re.findall(r"\]\((plots/\w+\.svg)\)", (written / "REPORT.md").read_text()))
    assert linked == {f"plots/{file.name}" for file in (written / "plots").iterdir()}
    assert "plots/gpu_memory.svg" not in linked


def test_the_report_holds_what_a_stranger_needs(written, realistic):
    _, summary = realistic
    text = (written / "REPORT.md").read_text(encoding="utf-8")
    plain = unescape(re.sub(r"<[^>]+>", "", render_html(text)))
    wanted: Sequence[str] = [
        *answer(summary),
        "Example CPU @ 2.60GHz, 16 CPUs, 64 GiB, no GPU",
        "commit da23250c0ffe with changes that were not committed",
        "PyTorch: torch 2.13.0",
        "bench run --preset quick",
        f"bench report {written.name} --format markdown",
        "OMP_NUM_THREADS=16",
        "4.2e-03 / 1e-04",
        *(row.why_not for row in summary.cells if row.why_not),
        *(sentence for verdict in summary.verdicts for sentence in said(verdict)),
    ]
    for phrase in wanted:
        assert phrase in plain
    assert text.index(answer(summary)[0]) < text.index("## ")


def test_hostile_names_are_shown_as_text(tmp_path):
    text = report_text(hostile_run(tmp_path))
    html = render_html(text)
    harmless = render_html(report_text(simple_run({TORCH: [1000] * 3})))
    tags = set(re.findall(r"<(\w+)", html))
    assert tags <= set(re.findall(r"<(\w+)", harmless)) | {"h4", "ul", "li"}
    assert "<a " not in html
    assert "\x1b" not in text
    assert RTL not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    # A renderer pads and cuts rows in silence, so the bars are counted in the source.
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert len(re.findall(r"<h1>", html)) == 1


def test_the_mark_of_a_sample_stands_above_the_answer(tmp_path):
    run = make_run(make_header([TORCH], sample=True, workloads=[make_workload()]), folder=tmp_path)
    assert report_text(run).splitlines()[2].startswith("> **Made on the small sample")


def test_a_folder_that_cannot_be_written_is_a_record_error(tmp_path):
    (tmp_path / "plots").write_text("a file in the way")
    run = simple_run({TORCH: [1000] * 3}, folder=tmp_path)
    with pytest.raises(RecordError, match="cannot write the report"):
        markdown.write(run, summarise(run))


# ---- imports


def test_summary_and_json_load_neither_matplotlib_nor_rich():
    code = (
        "import sys; import bench.analysis.summary, bench.run.report.export;"
        "sys.exit(bool({'matplotlib', 'rich', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=300).returncode == 0

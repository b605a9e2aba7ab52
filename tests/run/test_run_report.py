"""The report in every form: complete, readable at any width, safe whatever the records hold, repeatable."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
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

from bench.analysis.summary import CellSummary, summarise
from bench.errors import RecordError
from bench.records.runs import Run
from bench.records.schema import UnmeasuredRecord
from bench.report import markdown as markup
from bench.report.format import NOTHING, PLUS_MINUS
from bench.run.report import export, markdown, plots, terminal
from bench.run.report.sentences import answer, sentences
from bench.text import clean

TORCH = make_cell()
JAX = make_cell(backend="jax", mode="jit")
REFERENCE = make_cell(backend="numpy", mode="float64")
HOSTILE = (
    "a|b\n# c <script>alert(1)</script> `d` **e** [f](http://evil) \x1b[31m\u202e$g^2$ &lt; _h_ =1+1 模型"
)
RTL = "\u202e"


def said(verdict):
    return tuple(sentences(verdict, TITLES))


def hostile_run(folder) -> Run:
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


def broken_runs(folder) -> dict[str, Run]:
    return {
        "empty": make_run(make_header([]), folder=folder),
        "planned only": make_run(make_header([TORCH, JAX]), folder=folder),
        "all crashed": make_run(
            make_header([TORCH, JAX]),
            [
                make_job(cell, block, status="crashed", rates=())
                for cell in (TORCH, JAX)
                for block in range(3)
            ],
            folder=folder,
        ),
        "one block": simple_run({TORCH: [1000], JAX: [900]}, folder=folder),
        "one backend": simple_run({TORCH: [1000, 1001, 999]}, folder=folder),
        "parity alone": make_run(make_header([TORCH]), [make_parity(TORCH, error=0.0)], folder=folder),
        "stopped at once": make_run(
            make_header([TORCH]),
            [
                make_parity(TORCH, status="failed", said="logits: not finite", checked=False),
                make_job(TORCH, 0, status="nan_loss", epochs=2, points=make_points(0.9, 2, 1.0)[:1]),
            ],
            folder=folder,
        ),
        "reference alone": simple_run({REFERENCE: [10, 11, 12]}, folder=folder),
        "hostile": hostile_run(folder),
    }


BROKEN = (
    "empty",
    "planned only",
    "all crashed",
    "one block",
    "one backend",
    "parity alone",
    "stopped at once",
    "reference alone",
    "hostile",
)


def on_terminal(run: Run, width: int = 80, **options) -> str:
    file = io.StringIO()
    terminal.render(run, summarise(run), Console(file=file, width=width, **options))
    return file.getvalue()


def render_html(text: str) -> str:
    # Links without any mark, as GitHub makes them, need a package that is not here; see the test of escape.
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)


# ---- clean


@given(st.text())
def test_cleaned_text_is_one_line_without_controls(text):
    cleaned = clean(text)
    assert cleaned.isprintable()
    assert cleaned == clean(cleaned)


def test_cleaned_text_keeps_what_can_be_read():
    assert clean("a\x1b[31mb\r\nc\td \u202e\u200b\ud800") == "a\ufffd[31mb c d \ufffd\ufffd\ufffd"
    assert clean("Größe 模型 ½") == "Größe 模型 ½"


# ---- terminal


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width):
    assert max(len(line) for line in on_terminal(realistic_run(), width).splitlines()) <= width


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_row_figure_and_reason_is_there_at_any_width(width):
    run = realistic_run()
    printed = on_terminal(run, width)
    joined = " ".join(printed.replace("\N{BULLET}", " ").split())
    assert "\N{HORIZONTAL ELLIPSIS}" not in printed
    summary = summarise(run)
    for row in summary.cells:
        assert f"{summary.titles[row.backend]} {row.mode}" in joined
        if row.samples_per_s is not None:
            assert f"{row.samples_per_s:,.0f}" in joined
        if row.why_not:
            assert row.why_not in joined
    for verdict in summary.verdicts:
        for sentence in said(verdict):
            assert sentence in joined
    for word in (
        "samples/s",
        "relative",
        "accuracy",
        "to target",
        "first step",
        "import",
        "memory",
        "parity",
    ):
        assert word in joined
    assert "not comparable" in joined
    assert "no steady state" in joined


def lines_of(printed: str, start: str) -> list[list[str]]:
    """Return, word by word, the lines that begin with a text."""
    return [re.split(r"\s{2,}|\s", line) for line in printed.splitlines() if line.startswith(start)]


@pytest.mark.parametrize("width", [80, 95])  # at 95 the next column would fit beside what matters most
def test_at_80_columns_what_matters_most_stands_in_one_table_and_the_costs_below(width):
    printed = on_terminal(realistic_run(), width)
    heads = [" ".join(line) for line in lines_of(printed, "framework")]
    assert heads == 6 * [
        f"framework samples/s {PLUS_MINUS} relative status accuracy to target",
        "framework parity first step import memory",
    ]
    assert not [line for line in printed.splitlines() if line.startswith("framework") and line.endswith(" ")]


def test_a_row_without_any_cost_stands_in_the_main_table_alone():
    record = UnmeasuredRecord(cell=JAX, status="unavailable", error="it is not installed")
    run = simple_run({TORCH: [1000, 1001, 999], JAX: []})
    run = msgspec.structs.replace(
        run, records=(*(one for one in run.records if getattr(one, "cell", None) != JAX), record)
    )
    assert len(lines_of(on_terminal(run, 80), "PyTorch eager")) == 2
    assert len(lines_of(on_terminal(run, 80), "JAX jit")) == 1


def test_below_three_blocks_no_width_is_shown():
    two, three = (on_terminal(simple_run({TORCH: [1000, 1200, 900][:count]}), 120) for count in (2, 3))
    assert lines_of(two, "PyTorch eager")[0][3] == NOTHING
    assert lines_of(three, "PyTorch eager")[0][3:5] == ["37", "%"]


def test_a_reference_is_called_so():
    (line,) = lines_of(on_terminal(simple_run({REFERENCE: [10, 10, 10]}), 120), "NumPy float64")
    assert "reference" in line


def test_at_120_columns_each_workload_has_one_table():
    printed = on_terminal(realistic_run(), 120)
    assert len(re.findall(r"^framework", printed, flags=re.MULTILINE)) == 6


def test_piped_output_has_no_escape_codes():
    assert "\x1b" not in on_terminal(realistic_run())


def test_colour_changes_no_word():
    coloured = on_terminal(realistic_run(), force_terminal=True, color_system="truecolor")
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == on_terminal(realistic_run())


def test_an_ascii_terminal_gets_ascii():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    run = realistic_run()
    terminal.render(run, summarise(run), Console(file=file, width=80))
    file.flush()
    printed = file.buffer.getvalue().decode("ascii")
    assert "1.00x" in printed
    assert "?" not in printed.replace("thing?", "")


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("width", [20, 60, 120])
def test_a_broken_run_is_printed_all_the_same(name, width, tmp_path):
    printed = on_terminal(broken_runs(tmp_path)[name], width)
    assert "Verdict" in printed
    assert not re.search(r"\bnan\b", printed)


def test_hostile_names_do_not_act_on_the_terminal(tmp_path):
    printed = on_terminal(hostile_run(tmp_path), 2000)
    assert "\x1b" not in printed
    assert RTL not in printed
    assert printed.count("[f](http://evil)") == printed.count("<script>")  # brackets are no markup
    assert "<script>" in printed


def test_rejected_lines_and_the_mark_are_shown():
    run = make_run(make_header([TORCH], dataset_limit=500), rejected=["records.jsonl line 7: truncated"])
    printed = on_terminal(run, 200)
    assert "records.jsonl line 7: truncated" in printed
    assert printed.splitlines()[1] == (
        "NOTE: Limited to the first 500 images of each split. "
        "Not to be compared with a run on the full data sets."
    )


# ---- export


def test_json_has_one_object_a_planned_cell_with_the_fields_of_a_row():
    run = realistic_run()
    rows = json.loads(export.to_json(summarise(run)))
    assert len(rows) == len(run.header.cells)
    fields = [field.name for field in msgspec.structs.fields(CellSummary)]
    assert all(list(row) == fields for row in rows)
    missing = next(row for row in rows if row["status"] == "unavailable")
    assert missing["samples_per_s"] is None
    assert missing["parity_ok"] is None
    assert msgspec.convert(rows, list[CellSummary]) == list(summarise(run).cells)


def test_json_escapes_what_acts_on_a_terminal_and_loses_nothing(tmp_path):
    text = export.to_json(summarise(hostile_run(tmp_path)))
    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text)[0]["workload"] == HOSTILE


@pytest.mark.parametrize("name", BROKEN)
def test_json_of_a_broken_run_is_well_formed(name, tmp_path):
    run = broken_runs(tmp_path)[name]
    rows = json.loads(export.to_json(summarise(run)), parse_constant=pytest.fail)
    assert len(rows) == len(run.header.cells)


# ---- plots


def drawn(run: Run) -> dict[str, bytes]:
    return plots.draw(run, summarise(run))


def test_a_full_run_has_every_plot_and_each_is_well_formed():
    svgs = drawn(realistic_run())
    assert set(svgs) == set(plots.NAMES) - {"gpu_memory", "defaults"}
    for svg in svgs.values():
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - made right here


def test_gpu_memory_is_drawn_where_it_was_measured():
    jobs = [make_job(TORCH, block, peak_device_bytes=2**30) for block in range(3)]
    assert "gpu_memory" in drawn(make_run(make_header([TORCH]), [make_parity(TORCH), *jobs]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("empty", set()),
        ("planned only", set()),
        ("all crashed", {"memory"}),
        ("parity alone", {"parity"}),
        ("stopped at once", {"memory"}),
    ],
)
def test_a_plot_without_values_is_not_made(name, expected, tmp_path):
    assert set(drawn(broken_runs(tmp_path)[name])) == expected


def test_no_panel_is_blank():
    run = realistic_run()
    with plots.settings():
        for figure in plots.figures(run, summarise(run)).values():
            assert figure.axes
            assert all(panel.has_data() for panel in figure.axes)
            assert all(panel.get_xlabel() for panel in figure.axes)


def test_curves_start_at_zero_before_any_training():
    run = realistic_run()
    with plots.settings():
        figures = plots.figures(run, summarise(run))
        for name in ("accuracy_epochs", "accuracy_seconds", "loss_epochs", "loss_seconds"):
            for panel in figures[name].axes:
                curves = [
                    line for line in panel.lines if len(line.get_xdata()) == 4
                ]  # 3 epochs and the start
                assert curves
                assert panel.get_xlim()[0] == 0
                assert panel.get_xscale() == panel.get_yscale() == "linear"
                assert all(curve.get_xdata()[0] == 0 for curve in curves)


def test_an_error_of_zero_stands_inside_the_logarithmic_axis():
    run = make_run(make_header([TORCH]), [make_parity(TORCH, error=0.0)])
    with plots.settings():
        (panel,) = plots.figures(run, summarise(run))["parity"].axes
        left, right = panel.get_xlim()
        assert 0 < left < right
        dots = [line.get_xdata()[0] for line in panel.lines if line.get_linestyle() == "None"]
        assert len(dots) == 6
        assert all(left <= dot <= right for dot in dots)


def test_a_place_in_the_grid_without_a_workload_is_left_empty():
    cells = [make_cell(name) for name in ("mnist-softmax", "mnist-mlp", "mnist-cnn")]
    run = simple_run({cell: [1000] * 3 for cell in cells})
    with plots.settings():
        assert len(plots.figures(run, summarise(run))["speed"].axes) == 3


def test_a_letter_that_the_font_lacks_is_replaced_and_warns_of_nothing():
    assert "speed" in drawn(simple_run({make_cell(mode="模型"): [1000] * 3}))


def test_a_dollar_in_a_name_is_no_formula():
    assert "speed" in drawn(simple_run({make_cell(mode="$\\frac$"): [1000] * 3}))


def test_a_workload_that_nothing_was_measured_of_has_no_panel():
    other = make_cell("mnist-mlp")
    run = simple_run({TORCH: [1000] * 3, other: []})
    with plots.settings():
        assert len(plots.figures(run, summarise(run))["speed"].axes) == 1


def test_a_backend_has_one_colour_and_a_row_that_is_not_ranked_is_white_and_hatched():
    run = realistic_run()
    with plots.settings():
        figure = plots.figures(run, summarise(run))["speed"]
        colours: dict[str, set] = {}
        for panel in figure.axes:
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


def test_the_same_run_gives_the_same_bytes_in_another_process(tmp_path):
    run = realistic_run()
    markdown.write(run, summarise(run), tmp_path / "here")
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from bench.run.report import markdown; from synthetic import realistic_run\n"
        "from bench.analysis.summary import summarise\n"
        "run = realistic_run()\n"
        "markdown.write(run, summarise(run), Path(sys.argv[2]))"
    )
    arguments = [str(Path(__file__).parents[1]), str(tmp_path / "there")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=120)
    here = {
        path.relative_to(tmp_path / "here"): path.read_bytes() for path in (tmp_path / "here").rglob("*.*")
    }
    there = {
        path.relative_to(tmp_path / "there"): path.read_bytes() for path in (tmp_path / "there").rglob("*.*")
    }
    assert here == there
    assert len(here) > len(plots.NAMES) - 2  # the report, and every plot but two that need other runs


def test_the_report_stands_in_the_runs_folder_and_links_only_plots_that_exist(tmp_path):
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "gpu_memory.svg").write_text("from before")
    run = realistic_run(tmp_path)
    path = markdown.write(run, summarise(run))
    assert path == tmp_path / "REPORT.md"
    linked = set(re.findall(r"\]\((plots/\w+\.svg)\)", path.read_text()))
    assert linked == {f"plots/{file.name}" for file in (tmp_path / "plots").iterdir()}
    assert "plots/gpu_memory.svg" not in linked


def test_the_report_holds_what_a_stranger_needs(tmp_path):
    run = realistic_run(tmp_path)
    text = report_text(run)
    html = re.sub(r"<[^>]+>", "", render_html(text))
    summary = summarise(run)
    wanted: Sequence[str] = [
        *answer(summary),
        "Example CPU @ 2.60GHz, 16 CPUs, 64 GiB, no GPU",
        "commit da23250c0ffe with changes that were not committed",
        "PyTorch: torch 2.13.0",
        "bench run --preset quick",
        f"bench report {run.folder.name} --format markdown",
        "OMP_NUM_THREADS=16",
        "4.2e-03 / 1e-04",
        *(row.why_not for row in summary.cells if row.why_not),
        *(sentence for verdict in summary.verdicts for sentence in said(verdict)),
    ]
    plain = unescape(html)
    for phrase in wanted:
        assert phrase in plain
    assert text.index(answer(summary)[0]) < text.index("## ")


def report_text(run: Run) -> str:
    summary = summarise(run)
    return markdown.text(run, summary, frozenset(plots.NAMES))


def test_hostile_names_are_shown_as_text(tmp_path):
    run = hostile_run(tmp_path)
    text = markdown.write(run, summarise(run)).read_text(encoding="utf-8")
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


@given(st.text())
def test_escaped_text_renders_as_itself(raw):
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(f"x {markup.escape(raw)}")
    assert unescape(html) == f"<p>x {clean(raw)}".rstrip() + "</p>\n"


@pytest.mark.parametrize(
    "raw", ["http://evil.test", "https://evil.test", "www.evil.test", "a@evil.test", "WWW.evil.test"]
)
def test_no_address_becomes_a_link_of_its_own(raw):
    # The rule of GitHub's extended autolinks: a scheme, www. or an at sign must stand in the source.
    assert not re.search(r"://|www\.|@", markup.escape(raw), flags=re.IGNORECASE)


@pytest.mark.parametrize("start", ["- a", "+ a", "1. a", "1) a", "# a", "> a"])
def test_a_name_at_the_start_of_an_item_begins_no_other_block(start):
    assert render_html(f"- {markup.escape(start)}") == f"<ul>\n<li>{start.replace('>', '&gt;')}</li>\n</ul>\n"


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_run_is_reported_all_the_same(name, tmp_path):
    run = broken_runs(tmp_path)[name]
    text = markdown.write(run, summarise(run)).read_text(encoding="utf-8")
    assert text.startswith("# Which framework")
    assert "## Run it again" in text


def test_the_mark_stands_above_the_answer(tmp_path):
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
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0

"""The short report: the answer first, the same words on a terminal of any width and as Markdown."""

import io
import re
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from pathlib import Path

import msgspec
import pytest
from broken_runs import (
    HOSTILE,
    JAX,
    REFERENCE,
    TORCH,
    all_crashed,
    hostile_run,
    parity_alone,
    stopped_at_once,
)
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console
from synthetic import (
    disturbed_run,
    make_cell,
    make_header,
    make_job,
    make_parity,
    make_points,
    make_run,
    make_workload,
    quiet_blocks,
    realistic_run,
    scaling_run,
    simple_run,
)

from bench.analysis.summary import Summary, summarise
from bench.errors import RecordError
from bench.records.runs import RECORDS, Run
from bench.records.schema import UnmeasuredRecord
from bench.report.blocks import Item, Table, charts_of
from bench.report.format import NOTHING, PLUS_MINUS, ratio_text
from bench.report.markdown import document, escape
from bench.run.report import markdown, short, terminal
from bench.run.report.answer import answer
from bench.store import ARCHIVE

GRAPH = make_cell(backend="tensorflow", mode="graph")
COMPILE = make_cell(mode="compile")
FAST, SLOW = [1000, 1004, 998], [900, 905, 897]
WIDTHS = (40, 60, 80, 120)


@pytest.fixture(scope="module")
def realistic() -> tuple[Run, Summary]:
    run = realistic_run()
    return run, summarise(run)


def trained(epochs: int = 3, seeds: int = 1) -> Run:
    """Return a run of two frameworks that trained so long with so many seeds, equally well."""
    cells = [TORCH, JAX]
    records = [make_parity(cell) for cell in cells]
    jobs = [
        make_job(
            cell,
            block,
            epochs=epochs,
            points=make_points(0.9 + 1e-4 * block, max(1, epochs), 1.0),
            rates=[rate] * 20,
        )
        for cell, rates in ((TORCH, 1000), (JAX, 900))
        for block in range(max(3, seeds))
        for rate in [rates * (1 + 0.001 * block)]
    ]
    return make_run(make_header(cells), [*records, *quiet_blocks(cells, max(3, seeds)), *jobs])


KINDS: dict[str, Callable[[Path], Run]] = {
    "realistic": realistic_run,
    "empty": lambda folder: make_run(make_header([]), folder=folder),
    "planned only": lambda folder: make_run(make_header([TORCH, JAX]), folder=folder),
    "all crashed": all_crashed,
    "one block": lambda folder: simple_run({TORCH: [1000], JAX: [900]}, folder=folder),
    "one framework": lambda folder: simple_run({TORCH: FAST}, folder=folder),
    "as taught alone": lambda folder: simple_run({make_cell(mode="tutorial"): FAST}, folder=folder),
    "disturbed": lambda folder: msgspec.structs.replace(
        disturbed_run({TORCH: FAST, JAX: SLOW}, {0, 1, 2}), folder=folder
    ),
    "parity alone": parity_alone,
    "stopped at once": stopped_at_once,
    "reference alone": lambda folder: simple_run({REFERENCE: [10, 11, 12]}, folder=folder),
    "hostile": hostile_run,
    "ranks": lambda folder: scaling_run(
        {"torch": {1: 0.9, 2: 1.8}, "jax": {1: 0.9, 2: 1.9}},
        {"torch": {2: 1.9}, "jax": {2: 1.7}},
        folder=folder,
    ),
}


def on_terminal(run: Run, width: int = 80, **options) -> str:
    file = io.StringIO()
    terminal.render(run, summarise(run), Console(file=file, width=width, **options))
    return file.getvalue()


def joined(printed: str) -> str:
    return " ".join(printed.replace("\N{BULLET}", " ").split())


def report_text(run: Run) -> str:
    blocks = short.in_markdown(run, summarise(run))
    return document(blocks, frozenset(chart.name for chart in charts_of(blocks)))


def render_html(text: str) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)


def said(run: Run) -> dict[str, str]:
    return {item.name: item.text for item in answer(run, summarise(run))}


# ---- every run, everywhere


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", KINDS)
def test_every_run_fits_every_terminal_and_says_the_answer_first(
    name: str, width: int, tmp_path: Path
) -> None:
    run = KINDS[name](tmp_path)
    printed = on_terminal(run, width)
    commands = {line for line in printed.splitlines() if line.startswith("bench run ")}  # not wrapped
    assert max(cell_len(line) for line in printed.splitlines() if line not in commands) <= width
    assert "\x1b" not in printed
    assert not re.search(r"\bnan\b", printed)
    lines = answer(run, summarise(run))
    assert 1 <= len(lines) <= 6
    squeezed = re.sub(r"\s", "", printed)
    places = [squeezed.index(re.sub(r"\s", "", " ".join(_clean(item).split()))) for item in lines]
    assert places == sorted(places)
    if "samples/s" in squeezed:
        assert places[-1] < squeezed.index("samples/s")


def _clean(item: Item) -> str:
    said = f"{item.name}: {item.text}" if item.name else item.text
    return "".join(
        char if char.isprintable() or char.isspace() else "\N{REPLACEMENT CHARACTER}" for char in said
    )


@pytest.mark.parametrize("name", KINDS)
def test_every_run_is_one_short_page_of_markdown(name: str, tmp_path: Path) -> None:
    run = KINDS[name](tmp_path)
    path = markdown.write(run, summarise(run))
    text = path.read_text(encoding="utf-8")
    assert path == run.folder / "REPORT.md"
    assert text.startswith("# Which framework trains fastest here?\n")
    rows = len([line for line in text.splitlines() if line.startswith("| ")])
    assert len(text.splitlines()) - rows <= 45
    assert len(re.findall("<h1>", render_html(text))) == 1
    for item in answer(run, summarise(run)):
        assert text.index(markdown_line(item)) < text.find("samples/s") % len(text)


def markdown_line(item: Item) -> str:
    return f"**{escape(item.name)}**: {escape(item.text)}" if item.name else escape(item.text)


def test_colour_changes_no_word(realistic: tuple[Run, Summary]) -> None:
    coloured = on_terminal(realistic[0], force_terminal=True, color_system="truecolor")
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == on_terminal(realistic[0])


# ---- the answer


def test_the_winner_is_named_with_the_interval_against_the_next_framework() -> None:
    run = simple_run({TORCH: FAST, JAX: SLOW, GRAPH: [500, 502, 499]})
    (one,) = [one for one in summarise(run).verdicts[0].made.backends if one.slower == JAX]
    assert said(run)["Fastest"] == f"PyTorch on mnist-cnn ({ratio_text(one.low, one.high)})."
    assert said(run)["How sure"].endswith("wrong claim is at most 2 % for each workload.")
    assert said(run)["Same work"] == "Yes, all 3 rows compute what the float64 reference computes."


def test_workloads_of_one_winner_share_a_sentence_and_those_without_a_winner_another() -> None:
    cells = {
        make_cell(workload, backend, mode): [rate * (1 + 0.001 * block) for block in range(3)]
        for workload, factor in (("mnist-softmax", 2.0), ("mnist-mlp", 3.0), ("mnist-cnn", 1.0))
        for backend, mode, rate in (("torch", "eager", 1000.0), ("jax", "jit", 1000.0 * factor))
    }
    found = said(simple_run(cells))
    assert re.fullmatch(r"JAX on mnist-softmax \(\S+\) and mnist-mlp \(\S+\)\.", found["Fastest"])
    assert found["No clear winner"] == "mnist-cnn."


def test_a_winner_among_several_modes_is_named_with_its_mode() -> None:
    run = simple_run({TORCH: FAST, COMPILE: [1500, 1503, 1499], JAX: SLOW}, min_blocks=3)
    assert said(run).get("Fastest", "").startswith("PyTorch compile on mnist-cnn (")


def test_levels_are_told_apart() -> None:
    rates = {
        make_cell(backend=name, mode="tutorial"): found for name, found in (("torch", FAST), ("jax", SLOW))
    }
    assert said(simple_run(rates))["Fastest"].startswith("PyTorch on mnist-cnn as taught (")


@pytest.mark.parametrize(
    ("run", "name", "text"),
    [
        (simple_run({TORCH: FAST}), "Only PyTorch ranked", "mnist-cnn."),
        (simple_run({TORCH: [1000], JAX: [900]}), "Nothing ranked", "mnist-cnn."),
        (
            disturbed_run({TORCH: FAST, JAX: SLOW}, {0, 1, 2}),
            "Nothing claimed",
            "mnist-cnn, as something else disturbed the machine.",
        ),
        (
            make_run(
                make_header([TORCH], workloads=[make_workload(matched=False)]),
                [make_job(TORCH, block) for block in range(3)],
            ),
            "Not ranked",
            "mnist-cnn, where each framework has its own defaults: not the same work.",
        ),
    ],
)
def test_why_there_is_no_winner(run: Run, name: str, text: str) -> None:
    found = said(run)
    assert found[name] == text
    assert "Fastest" not in found
    assert "How sure" not in found


def test_nothing_measured_is_said() -> None:
    run = make_run(make_header([]))
    assert answer(run, summarise(run)) == (Item(text="Nothing was measured."),)


def test_a_row_that_fails_parity_is_counted() -> None:
    run = simple_run({TORCH: FAST, JAX: SLOW, GRAPH: [500, 502, 499]})
    wrong = [make_parity(record.cell, error=1.0) if record.cell == JAX else record for record in run.parity]
    rest = [record for record in run.records if record not in run.parity]
    found = said(msgspec.structs.replace(run, records=(*wrong, *rest)))
    assert found["Same work"] == (
        "2 of 3 rows compute what the float64 reference computes; the other is not ranked."
    )
    assert "JAX not ranked" in found["Fastest"]


@pytest.mark.parametrize(
    ("epochs", "seeds", "text"),
    [
        (3, 1, "Accuracies cannot be compared: 3 seeds instead of 10."),
        (3, 10, "Accuracies are shown to be equal within 0.5 points on mnist-cnn."),
    ],
)
def test_what_is_known_of_learning(epochs: int, seeds: int, text: str) -> None:
    assert said(trained(epochs, seeds))["Same learning"] == text


def test_a_run_without_training_says_so() -> None:
    assert said(simple_run({TORCH: FAST}))["Same learning"] == "No framework was trained for accuracy."


# ---- the rows


@pytest.mark.parametrize("width", WIDTHS)
def test_every_row_and_figure_is_there_at_any_width(width: int, realistic: tuple[Run, Summary]) -> None:
    run, summary = realistic
    printed = on_terminal(run, width)
    squeezed = re.sub(r"\s", "", printed)
    for row in summary.cells:
        if row.samples_per_s is not None:
            assert f"{row.samples_per_s:,.0f}" in squeezed
    for word in (
        "samples/s",
        "verdict",
        "fastest",
        "not comparable",
        "no steady state",
        "not available here",
    ):
        assert all(part in printed for part in word.split())
    assert "\N{HORIZONTAL ELLIPSIS}" not in printed


def test_at_forty_columns_a_table_stands_in_one_piece() -> None:
    run = simple_run({TORCH: FAST, JAX: SLOW, GRAPH: [473_985, 473_986, 473_984]})
    printed = on_terminal(run, 40)
    assert sum(line.startswith("row") and "verdict" in line for line in printed.splitlines()) == 1
    assert "TensorFlow" in printed


def test_where_a_table_does_not_fit_the_verdict_stands_beside_what_it_is_about() -> None:
    long = make_cell(backend="tensorflow", mode="a-mode-with-a-long-name")
    lines = on_terminal(simple_run({TORCH: [12_345_678.0] * 3, long: [9_000_000.0] * 3}), 40).splitlines()
    heads = [" ".join(line.split()) for line in lines if line.startswith("row")]
    assert heads == [f"row samples/s {PLUS_MINUS}", "row vs best verdict"]


@pytest.mark.parametrize(
    ("cell", "rates", "words"),
    [
        (TORCH, [1000, 1200], f"PyTorch eager 1,095 {NOTHING} "),
        (TORCH, [1000, 1200, 900], "PyTorch eager 1,026 37 % "),  # from three blocks on it has a width
        (REFERENCE, [10, 10, 10], f"NumPy float64 10 0.0 % {NOTHING} reference"),
    ],
)
def test_a_row_has_the_figures_that_its_blocks_support(cell, rates, words) -> None:
    assert words in joined(on_terminal(simple_run({cell: rates}), 120))


def test_the_verdict_on_each_row_in_a_word_or_two() -> None:
    run = simple_run(
        {GRAPH: [1500, 1503, 1499], TORCH: FAST, COMPILE: [700, 701, 699], JAX: [1001, 1001, 1001]}
    )
    summary = summarise(run)
    verdicts = {row.mode: short.verdict_words(row, summary.verdicts[0]) for row in summary.cells}
    assert verdicts == {
        "graph": "fastest",
        "eager": "slower",
        "jit": "slower",
        "compile": "slower than eager",
    }


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ({TORCH: FAST}, ["the only one"]),
        ({TORCH: [1000.0] * 3, JAX: [1000.0, 1001.0, 999.0]}, ["joint fastest", "joint fastest"]),
        ({TORCH: [1000, 1200, 900], JAX: [1000, 900, 1200]}, ["unclear", "unclear"]),
        ({TORCH: [1000], JAX: [900]}, ["too few blocks", "too few blocks"]),
    ],
)
def test_the_verdict_without_a_winner(rates, words) -> None:
    summary = summarise(simple_run(rates))
    assert [short.verdict_words(row, summary.verdicts[0]) for row in summary.cells] == words


def test_nothing_is_said_of_a_disturbed_row() -> None:
    summary = summarise(disturbed_run({TORCH: FAST, JAX: SLOW}, {0, 1, 2}))
    assert {short.verdict_words(row, summary.verdicts[0]) for row in summary.cells} == {"disturbed"}


def test_a_row_that_is_not_ranked_stands_out(realistic: tuple[Run, Summary]) -> None:
    run, summary = realistic
    shown = [block for block in short.on_terminal(run, summary) if isinstance(block, Table)]
    flags = [place in table.flagged for table in shown for place in range(len(table.rows))]
    assert flags == [not row.ranked for row in summary.cells]


def test_markdown_has_one_row_for_each_framework_and_says_how_many_it_leaves_out() -> None:
    run = simple_run({TORCH: FAST, COMPILE: [1500, 1503, 1499], JAX: SLOW})
    text = report_text(run)
    assert "PyTorch compile" in text
    assert "PyTorch eager" not in text
    assert "report.html has 1 more rows, of other modes." in text
    assert joined(on_terminal(run)).count("PyTorch eager") == 1


# ---- what is missing, and where there is more


def test_rows_of_one_reason_share_a_line_and_a_long_reason_is_cut() -> None:
    cells = [TORCH, JAX, GRAPH]
    jobs = [make_job(cell, 0, status="crashed", rates=(), error="x" * 500) for cell in cells]
    printed = joined(on_terminal(make_run(make_header(cells), jobs[:2]), 120))
    assert printed.count("Not ranked: PyTorch eager and JAX jit on mnist-cnn: ") == 1
    printed = joined(on_terminal(make_run(make_header(cells), jobs), 120))
    assert printed.count("Not ranked: every row on mnist-cnn: ") == 1
    assert "x\N{HORIZONTAL ELLIPSIS} (report.html has all)" in printed
    assert "x" * 200 not in printed.replace(" ", "")


def test_many_reasons_are_counted_and_not_listed() -> None:
    cells = [make_cell(mode=f"mode{number}") for number in range(9)]
    jobs = [make_job(cell, 0, status="failed", rates=(), error=cell.mode) for cell in cells]
    printed = joined(on_terminal(make_run(make_header(cells), jobs), 120))
    assert printed.count("Not ranked: ") == short.MOST_LINES
    assert "Not ranked: 4 more, in report.html." in printed


def test_the_reference_and_own_defaults_are_not_missing() -> None:
    assert "Not ranked" not in on_terminal(simple_run({REFERENCE: [10, 10, 10]}))


def test_rejected_lines_and_the_mark_are_shown(tmp_path: Path) -> None:
    header = make_header([TORCH], dataset_limit=500)
    run = make_run(header, rejected=["records.jsonl line 7: truncated"], folder=tmp_path)
    mark = (
        "Limited to the first 500 images of each split. Not to be compared with a run on the full data sets."
    )
    printed = on_terminal(run, 200)
    assert "Not readable: records.jsonl line 7: truncated." in printed
    assert f"NOTE: {mark}" in printed.splitlines()[:4]
    assert report_text(run).splitlines()[2] == f"> **{mark}**"
    assert "records.jsonl line 7: truncated" in report_text(run)


def test_the_mark_of_a_sample_stands_above_the_answer(tmp_path: Path) -> None:
    run = make_run(make_header([TORCH], sample=True, workloads=[make_workload()]), folder=tmp_path)
    assert report_text(run).splitlines()[2].startswith("> **Made on the small sample")


def test_a_run_says_how_to_train_what_it_did_not(tmp_path: Path) -> None:
    run = simple_run({make_cell("mnist-mlp"): FAST}, folder=tmp_path)
    printed = on_terminal(run)
    assert "Not trained for accuracy: mnist-mlp." in printed
    assert re.search(r"\nbench run --preset quick --workload mnist-mlp --seeds 1 --budget \d+m\n", printed)


def test_the_page_and_the_records_are_linked_where_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "run-1"
    folder.mkdir()
    run = simple_run({TORCH: FAST}, folder=folder)
    assert "[**report.html**](report.html)" in report_text(run)
    assert f"[**{RECORDS}**]({RECORDS})" in report_text(run)
    (tmp_path / ARCHIVE).touch()
    assert f"[**{RECORDS}**](../{ARCHIVE})" in report_text(run)
    (folder / RECORDS).touch()
    assert f"[**{RECORDS}**]({RECORDS})" in report_text(run)


def test_the_terminal_names_the_folder_of_the_run_and_the_file_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "run-1"
    folder.mkdir()
    run = simple_run({TORCH: FAST}, folder=folder)
    assert f"Folder of the run: {folder}" in on_terminal(run, 400)
    assert str(folder) not in report_text(run)
    (tmp_path / ARCHIVE).touch()
    assert f"every raw value, in {ARCHIVE}." in on_terminal(run, 400)


# ---- hostile records, files


def test_hostile_names_are_shown_as_text(tmp_path: Path) -> None:
    text = report_text(hostile_run(tmp_path))
    html = render_html(text)
    harmless = render_html(report_text(simple_run({TORCH: [1000] * 3})))
    assert set(re.findall(r"<(\w+)", html)) <= set(re.findall(r"<(\w+)", harmless)) | {"blockquote"}
    assert set(re.findall(r'href="([^"]*)"', html)) == {"report.html", RECORDS}
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    # A renderer pads and cuts rows in silence, so the bars are counted in the source.
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert HOSTILE.split("\n")[0] in unescape(html)


def test_long_names_are_cut(tmp_path: Path) -> None:
    long = "x" * 10_000
    cells = [make_cell(long, f"{name}{long}", f"{name}{long}") for name in "abc"]
    records = [make_parity(cell) for cell in cells]
    jobs = [
        make_job(cell, block, rates=[1000.0 + place] * 20)
        for block in range(3)
        for place, cell in enumerate(cells)
    ]
    last = [UnmeasuredRecord(cell=make_cell(long, long), status="unavailable", error=long)]
    run = make_run(make_header([*cells, last[0].cell]), [*records, *jobs, *last], folder=tmp_path)
    run = msgspec.structs.replace(
        run, header=msgspec.structs.replace(run.header, run_id=long), rejected=[long] * 9
    )
    assert len(on_terminal(run, 80)) < 9000
    assert len(report_text(run)) < 9000


def test_the_same_run_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    run = realistic_run(here)
    markdown.write(run, summarise(run))
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from bench.run.report import markdown; from synthetic import realistic_run\n"
        "from bench.analysis.summary import summarise\n"
        "run = realistic_run(Path(sys.argv[2]))\n"
        "markdown.write(run, summarise(run), Path(sys.argv[3]))"
    )
    arguments = [str(Path(__file__).parents[1]), str(here), str(there)]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=300)
    contents = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in (here, there)
    ]
    assert contents[0] == contents[1]
    assert {str(path) for path in contents[0]} == {"REPORT.md", "plots/overview.svg"}


def test_a_folder_that_cannot_be_written_is_a_record_error(tmp_path: Path) -> None:
    run = simple_run({TORCH: [1000] * 3}, folder=tmp_path / "none")
    with pytest.raises(RecordError, match="cannot write the report"):
        markdown.write(run, summarise(run))


def test_the_legend_explains_the_columns(realistic: tuple[Run, Summary]) -> None:
    assert f"{PLUS_MINUS}: half the width of its 95 % interval." in joined(on_terminal(realistic[0]))

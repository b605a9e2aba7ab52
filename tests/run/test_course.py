"""The course view: figures, verdicts by fixed rules, lessons and errors, each from the run alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from conftest import INFOS
from hypothesis import given
from hypothesis import strategies as st
from page_blocks import said
from synthetic import make_cell, make_header, make_job, make_parity, make_points, make_run, quiet_blocks

from backends.lessons import LESSONS, MISTAKES
from bench.analysis.summary import summarise
from bench.records.runs import Run
from bench.records.schema import LessonResult, LessonsRecord, MistakeResult, WayTimes, Window
from bench.report.blocks import Block, Bullets, Chart, Details, Group, Heading, Listing, Paragraph, Table
from bench.report.chart import Bars
from bench.report.format import NOTHING, TIMES
from bench.report.markdown import document
from bench.run.report import course
from bench.run.report.course import LONGEST, telling_text
from bench.run.report.course_figures import UNCHECKED, read_figures, shown_code
from bench.run.report.course_verdicts import CANNOT_TELL, need_verdicts
from bench.workloads.catalog import WORKLOADS
from bench.workloads.specs import Device

replace = msgspec.structs.replace
MLP = WORKLOADS["mnist-mlp"]
MODES = {"torch": "eager", "tensorflow": "graph", "jax": "jit", "keras-tensorflow": "none"}
TITLES = {"torch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX"}
HOSTILE = "</SCRIPT><img onerror=alert(1)> | `x` \x1b[31m \u202e" + "y" * 10_000

Rates = Mapping[str, tuple[float, float | None]]
RATES: Rates = {"torch": (500.0, 1000.0), "tensorflow": (800.0, 900.0), "jax": (400.0, 3000.0)}
"""Rates of each framework, as taught and tuned."""


def run_of(
    rates: Rates = RATES,
    *,
    device: Device = "cpu",
    sizes: Mapping[str, int] | None = None,
    import_s: Mapping[str, float] | None = None,
    lessons: Sequence[LessonsRecord] = (),
) -> Run:
    """Return a run of mnist-mlp, as taught and tuned, whose rates hardly scatter."""
    cells, records = [], []
    for backend, pair in rates.items():
        for mode, rate in zip(("tutorial", MODES[backend]), pair, strict=True):
            if rate is None:
                continue
            cell = make_cell(MLP.name, backend, mode, device)
            cells.append(cell)
            records.append(make_parity(cell))
            for block in range(4):
                job = make_job(
                    cell, block, rates=[rate * (1 + 0.001 * ((block * 7 + turn) % 5)) for turn in range(20)],
                    workload=MLP, import_s=(import_s or {}).get(backend, 2.0),
                    epochs=2 if block == 3 else 0, points=make_points(0.95, 2, 3.0) if block == 3 else (),
                )  # fmt: skip
                records.append(job)
    header = make_header(cells, workloads=[MLP], titles=TITLES)
    backends = tuple(
        replace(
            one,
            modes={"tutorial": "plain", MODES[one.name]: "tuned"},
            default_mode=MODES[one.name],
            packages=12,
            installed_bytes=(sizes or {}).get(one.name, 700) * 2**20,
        )
        for one in header.backends
    )
    return make_run(replace(header, backends=backends), [*records, *quiet_blocks(cells, 4), *lessons])


def way(seconds: float) -> WayTimes:
    turns = tuple(Window(steps=1, samples=100, seconds=seconds * (1 + 0.01 * turn)) for turn in range(5))
    return WayTimes(first_s=1.0, turns=turns)


def lessons_of(
    backend: str = "torch", *, refused: Sequence[str] = ("shape",), factor: float = 3.0, message: str = "bad"
) -> LessonsRecord:
    return LessonsRecord(
        backend=backend, device="cpu", status="ok", started_at="2026-05-01T10:00:00Z", wall_s=20.0,
        turn_s=0.1,
        lessons=tuple(
            LessonResult(name=one.name, status="ok", slow=way(factor), quick=way(1.0)) for one in LESSONS
        ),
        mistakes=tuple(
            MistakeResult(name=one.name, status="ok", raised="ValueError", message=message)
            if one.name in refused
            else MistakeResult(name=one.name, status="ok", loss="nan")
            for one in MISTAKES
        ),
    )  # fmt: skip


def view(run: Run) -> list[Block]:
    return course.blocks(run, summarise(run), INFOS)


def verdicts(run: Run) -> dict[str, str]:
    """Return the verdict for each need, with what it rests on in further lines."""
    summary = summarise(run)
    figures = read_figures(run, summary, INFOS)
    assert figures is not None
    return {
        one.need: "\n".join([one.said, *(f"{name}: {said}" for name, said in one.figures)])
        for one in need_verdicts(figures, summary)
    }


FIRST = "A first course on laptops without a GPU"
RESEARCH = "A research group with GPUs"


# ---- figures


def test_every_framework_has_its_figures() -> None:
    table = next(block for block in view(run_of()) if isinstance(block, Table))
    rows = {row[0]: row for row in table.rows}
    assert list(rows) == list(TITLES.values())
    torch = dict(zip(table.heads, rows["PyTorch"], strict=True))
    assert (torch["packages"], torch["installed"], torch["import"]) == ("12", "700 MiB", "2.00 s")
    assert (torch["first result"], torch["accuracy"]) == ("6.00 s", "95.00 %")
    assert int(torch["lines of code"]) > 10
    assert torch["samples/s as taught"].startswith("50"), "500 images a second, and up to 0.4 % more"
    assert torch["samples/s tuned"].startswith("1,00")


def test_keras_is_shown_beside_the_frameworks_and_not_judged_as_one() -> None:
    run = run_of({**RATES, "keras-tensorflow": (2000.0, None)}, sizes={"tensorflow": 300})
    table = next(block for block in view(run) if isinstance(block, Table))
    keras = dict(zip(table.heads, table.rows[-1], strict=True))
    assert keras["samples/s as taught"].startswith("2,00")
    assert keras["samples/s tuned"] == NOTHING
    said = verdicts(run)[FIRST]
    assert "TensorFlow is ahead in installed size" in said, "Keras needs as much, for it runs on TensorFlow"
    assert "keras" not in said


def test_the_first_result_is_that_of_the_row_as_taught() -> None:
    run = run_of()
    figures = read_figures(run, summarise(run), INFOS)
    assert figures is not None
    assert (figures.workload, figures.device) == (MLP.name, "cpu")
    for one in figures.contenders:
        assert one.first_result_of is not None
        assert one.first_result_of.level == "taught"
        # start 0.3, import 2, data 0.2, build 0.1, first step 0.4, and an epoch of 3 s
        assert one.first_result_s == pytest.approx(6.0)


def test_a_run_without_frameworks_has_no_course_view() -> None:
    header = replace(make_header([]), cells=())
    assert view(make_run(header)) == []


def test_what_a_run_lacks_is_a_dash_and_not_a_zero() -> None:
    run = run_of()
    bare = tuple(replace(one, packages=None, installed_bytes=None) for one in run.header.backends)
    table = next(
        block
        for block in view(replace(run, header=replace(run.header, backends=bare)))
        if isinstance(block, Table)
    )
    assert {row[2:4] for row in table.rows} == {("\N{EN DASH}", "\N{EN DASH}")}


def test_what_a_course_may_miss_is_named_with_its_command() -> None:
    run = run_of()
    details = [block for block in view(run) if isinstance(block, Details)]
    [lacking] = [block for block in details if block.summary == "What this run did not measure"]
    lines: Any = lacking.blocks[0]
    keras = [name for name, info in INFOS.items() if info.on_request]
    commands = [f"bench run --workload mnist-mlp --backend {name}" for name in keras]
    assert [item.text.partition(": ")[2] for item in lines.items] == commands


# ---- code


def test_the_same_network_stands_side_by_side() -> None:
    groups = [block for block in view(run_of()) if isinstance(block, Group) and block.beside]
    listings = [block for block in groups[0].blocks if isinstance(block, Listing)]
    assert [one.title for one in listings] == list(TITLES.values())
    for listing in listings:
        assert "512" in listing.text
        assert "def train_step(" in listing.text


@pytest.mark.parametrize("name", TITLES)
def test_code_is_the_real_source(name: str) -> None:
    from pathlib import Path

    info = INFOS[name]
    assert info.lessons is not None
    module = info.lessons.target.partition(":")[0]
    source = (Path(__file__).parent.parent.parent / f"{module.replace('.', '/')}.py").read_text()
    parts = shown_code(info)
    assert len(parts) == 2
    assert all(part in source for part in parts)


def test_a_backend_without_lessons_has_no_code() -> None:
    assert shown_code(INFOS["numpy"]) == []
    lost = msgspec.structs.replace(INFOS["torch"].lessons, target="no_such_package.module:Lessons")
    assert shown_code(replace(INFOS["torch"], lessons=lost)) == []


# ---- why is mine slower?


def test_every_lesson_has_a_chart_with_its_table() -> None:
    charts = [block for block in view(run_of(lessons=[lessons_of()])) if isinstance(block, Chart)]
    assert [one.name for one in charts] == [f"lesson-{one.name}" for one in LESSONS]
    for chart in charts:
        assert chart.title.endswith(f"3.00{TIMES} as long in PyTorch")
        assert isinstance(chart.drawn, Bars)
        [bar] = chart.drawn.bars
        assert bar.parts == pytest.approx((3.0,))
        assert chart.table.rows[0][-1] == "the slow way takes longer"


@pytest.mark.parametrize(
    ("factor", "said", "finding"),
    [
        (1.0, "no difference is proven", "no framework is proven slower"),
        (0.5, "the slow way is the quicker one here", "it is quicker (0.50\N{MULTIPLICATION SIGN})"),
    ],
)
def test_no_lesson_claims_what_is_not_there(factor: float, said: str, finding: str) -> None:
    charts = [
        block for block in view(run_of(lessons=[lessons_of(factor=factor)])) if isinstance(block, Chart)
    ]
    assert all(chart.title.endswith(finding) for chart in charts)
    assert all(chart.table.rows[0][-1] == said for chart in charts)


def test_a_lesson_that_failed_shows_its_status() -> None:
    record = lessons_of()
    failed = LessonResult(name=LESSONS[0].name, status="out_of_memory", error="no room")
    record = replace(record, lessons=(failed, *record.lessons[1:]))
    chart = next(block for block in view(run_of(lessons=[record])) if isinstance(block, Chart))
    assert chart.title.endswith("not measured")
    assert chart.table.rows[0][-1] == "out of memory: no room"
    assert chart.table.flagged == {0}


def test_a_run_without_lessons_says_so() -> None:
    texts = [block.text for block in view(run_of()) if isinstance(block, Paragraph)]
    assert any("This run gave no lessons" in text for text in texts)


# ---- errors


def error_table(run: Run) -> Table:
    return next(
        block for block in view(run) if isinstance(block, Table) and block.heads[0] == "mistake"
    )  # fmt: skip


def test_an_error_is_shown_with_its_type_and_silence_with_its_loss() -> None:
    table = error_table(run_of(lessons=[lessons_of(message="in user code:\n\n    sizes differ")]))
    assert table.heads == ("mistake", "PyTorch")
    said = dict(table.rows)
    assert said["wrong shape"] == "ValueError: sizes differ"
    again = dict(error_table(run_of(lessons=[lessons_of(message="ValueError: sizes differ")])).rows)
    assert again["wrong shape"] == "ValueError: sizes differ", "the type is not said twice"
    assert said["NaN in the input"] == "no error; the loss is nan"


def test_the_whole_message_is_there() -> None:
    details = [
        block for block in view(run_of(lessons=[lessons_of(message=HOSTILE)])) if isinstance(block, Details)
    ]
    texts = [
        listing.text
        for block in details
        for group in block.blocks
        if isinstance(group, Group)
        for listing in group.blocks
        if isinstance(listing, Listing)
    ]
    assert f"ValueError: {HOSTILE}" in texts


def test_hostile_messages_stay_text() -> None:
    markdown = document(view(run_of(lessons=[lessons_of(message=HOSTILE)])), frozenset())
    assert "</SCRIPT>" not in markdown
    assert "\x1b" not in markdown
    assert "\u202e" not in markdown
    assert all(len(line) < 5000 for line in markdown.splitlines())


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("", ""),
        ("one line", "one line"),
        ('in user code:\n\n    File "a.py", line 3\n        ^^^^\n    it is wrong', "it is wrong"),
        ("Exception in a layer:\n\nshapes differ\nby one", "shapes differ by one"),
        ('Failed:\n  File "a.py", line 3\n\n  File "b.py", line 4\n\nlabel 10', "label 10"),
        ("only a heading:", "only a heading:"),
        (
            "Detected at node a/b defined at (most recent call last):\n[...]\n"
            "keras/numpy.py (L620) matmul\n -> |\n    + ...-packages/ops.py (L142) wrapper\n\n"
            " : Tensor had NaN values",
            "Tensor had NaN values",
        ),
    ],
)
def test_what_a_message_says(message: str, said: str) -> None:
    assert telling_text(message) == said


@given(st.text())
def test_what_a_message_says_is_short_and_one_line(message: str) -> None:
    said = telling_text(message)
    assert len(said) <= LONGEST
    assert len(said.splitlines()) <= 1


def test_a_loss_that_is_a_number_after_nan_is_explained() -> None:
    record = lessons_of("torch")
    hidden = [replace(one, loss="2.3") if one.name == "nan" else one for one in record.mistakes]
    assert "hides the NaN" not in said(view(run_of(lessons=[record])))
    shown = said(view(run_of(lessons=[replace(record, mistakes=tuple(hidden))])))
    assert "NaN in the input: in PyTorch an operation hides the NaN" in shown


# ---- verdicts


def test_who_is_ahead_in_most_figures_is_named() -> None:
    lessons = [
        lessons_of("torch", refused=("shape", "dtype", "label")),
        lessons_of("tensorflow"),
        lessons_of("jax"),
    ]
    run = run_of(sizes={"torch": 600, "tensorflow": 1500, "jax": 900}, lessons=lessons)
    said = verdicts(run)[FIRST]
    assert said.startswith(
        "PyTorch, by these figures alone. It is ahead in 2 of 4: installed size and wrong batches refused, "
        "of 4. "
    )
    for figure in ("PyTorch 600 MiB", "PyTorch 3, TensorFlow 1, JAX 1", "samples/s as taught on mnist-mlp"):
        assert figure in said


def test_nobody_is_named_where_nobody_is_clearly_ahead() -> None:
    run = run_of(sizes={"torch": 600, "tensorflow": 640, "jax": 700})
    said = verdicts(run)[FIRST]
    assert said.startswith("No framework is clearly ahead: TensorFlow is ahead in samples/s as taught")


def test_two_that_are_ahead_in_equally_many_figures_are_a_tie() -> None:
    lessons = [lessons_of("torch"), lessons_of("tensorflow", refused=UNCHECKED), lessons_of("jax")]
    run = run_of(
        sizes={"torch": 300, "tensorflow": 1500, "jax": 900},
        import_s={"torch": 0.1, "tensorflow": 2.0, "jax": 2.0},
        lessons=lessons,
    )
    assert verdicts(run)[FIRST].startswith("No framework is clearly ahead: ")


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_without_the_device_a_run_cannot_tell(device: Device) -> None:
    found = verdicts(run_of(device=device))
    cannot = {need for need, said in found.items() if said.startswith(CANNOT_TELL)}
    assert cannot == ({RESEARCH} if device == "cpu" else {FIRST})


def test_a_group_with_gpus_gets_the_proven_fastest() -> None:
    said = verdicts(run_of(device="gpu"))[RESEARCH]
    assert said.startswith("JAX. Tuned, it is proven faster than every other framework on 1 of 1 workloads.")
    assert "mnist-mlp: JAX jit" in said
    equal: Rates = {"torch": (500.0, 1000.0), "jax": (500.0, 1000.0)}
    said = verdicts(run_of(equal, device="gpu"))[RESEARCH]
    assert said.startswith("No framework is proven the fastest on more than half of 1 workloads")


def test_a_code_base_stays_unless_another_framework_is_far_faster() -> None:
    found = verdicts(run_of())
    assert found["Production in an existing JAX code base"].startswith("Stay. No other framework")
    torch = found["Production in an existing PyTorch code base"]
    assert torch.startswith("A move may pay, if your networks are like these. On 1 of 1 workloads another")
    assert "mnist-mlp: JAX jit is 3.00" in torch
    assert "tuning: PyTorch eager is 2.00" in torch
    assert "as fast as PyTorch tutorial" in torch


def test_a_run_of_one_framework_compares_nothing() -> None:
    found = verdicts(run_of({"torch": (500.0, 1000.0)}))
    assert all(said.startswith(CANNOT_TELL) for said in found.values())


def test_no_verdict_depends_on_a_name() -> None:
    """Exchanging the figures of two frameworks exchanges their names in the verdict."""
    sizes = {"torch": 300, "tensorflow": 1500, "jax": 900}
    lessons = [lessons_of("torch", refused=UNCHECKED), lessons_of("tensorflow"), lessons_of("jax")]
    one = verdicts(run_of(sizes=sizes, lessons=lessons))[FIRST]
    swapped = {"jax": 300, "tensorflow": 1500, "torch": 900}
    lessons = [lessons_of("jax", refused=UNCHECKED), lessons_of("tensorflow"), lessons_of("torch")]
    other = verdicts(run_of(sizes=swapped, lessons=lessons))[FIRST]
    assert (one.partition(",")[0], other.partition(",")[0]) == ("PyTorch", "JAX")


def test_the_rules_are_shown() -> None:
    details = next(block for block in view(run_of()) if isinstance(block, Details))
    assert details.summary == "How the verdicts are made"
    rules: Any = details.blocks[0]
    assert isinstance(rules, Bullets)
    assert len(rules.items) == 3


def test_the_needs_come_first() -> None:
    found = view(run_of())
    assert isinstance(found[0], Heading)
    headings = [block.text for block in found if isinstance(block, Heading) and block.level == 3]
    assert headings[:2] == [FIRST, RESEARCH]

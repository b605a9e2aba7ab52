"""Two runs beside each other, as they are shown: every figure whole, and no record that does harm."""

import io
import re
import unicodedata
from html import unescape

import msgspec
import pytest
from conftest import Call
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console
from sides_by_side import make_ab, make_block, proven
from sides_by_side import make_side as make_ab_side
from synthetic import make_cell, make_conditions, make_workload
from two_runs import CELL, LEARNED, OTHER, changed_header, make_jobs, make_side, save

from bench.gate.compare import compare
from bench.gate.judge import judge_all
from bench.gate.report import View, legend, render, text, view_of_ab, view_of_runs
from bench.records.runs import Run
from bench.records.schema import BackendHere, ParityCheck
from bench.report.format import NOTHING

MINUS = "\N{MINUS SIGN}"
HOSTILE = "<script>alert(1)</script>\x1b[31m|a\n# b\r\x9b2J\u202e`c`![d](http://e)*_~"
BASE = make_side(make_jobs(described={"threads": 2}))
HEAD = make_side(
    make_jobs(0.9, seed=1, described={"threads": 2}),
    run_id="head",
    environment={"variables": {"OMP_NUM_THREADS": "2"}},
)


def shown(view: View, width: int = 200) -> str:
    file = io.StringIO()
    render(view, Console(file=file, width=width))
    return file.getvalue()


def html(view: View) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough", "linkify"]).render(text(view))


def plain(view: View) -> str:
    return unescape(re.sub(r"<[^>]+>", " ", html(view)))


def in_full(base: Run = BASE, head: Run = HEAD) -> View:
    return view_of_runs(compare(base, head))


def test_a_row_has_all_that_is_said_of_a_figure():
    line = next(line for line in shown(in_full()).splitlines() if line.startswith("speed"))
    assert line.split() == [
        "speed", "998/s", "899/s", f"{MINUS}9.9", "%", f"{MINUS}10.4", "to", f"{MINUS}9.4", "1.6", "%", "to",
        "2.8", "%", "slower",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("base", "head", "words"),
    [
        (make_jobs(), make_jobs(1.1), "faster"),
        (make_jobs(), make_jobs(seed=1), "no difference larger than 5 %"),
        (make_jobs(scatter=0.1), make_jobs(scatter=0.1, seed=1), "undecided"),
        (make_jobs(scatter=0.02), make_jobs(1.04, scatter=0.02, seed=1), "no loss larger than 5 %"),
        (make_jobs(), make_jobs(memory=1.2), "larger"),
        (make_jobs(), make_jobs(memory=0.8), "smaller"),
        (make_jobs(), make_jobs(first_step_s=0.7), "later"),
        (make_jobs(), make_jobs(first_step_s=0.2), "sooner"),
        (make_jobs(learned=LEARNED), make_jobs(learned=(0.9, 0.901, 0.899)), "different"),
        (make_jobs(learned=LEARNED), make_jobs(learned=LEARNED), "no difference larger than 2 points"),
    ],
)  # fmt: skip
def test_verdicts_in_words(base, head, words):
    view = in_full(make_side(base), make_side(head))
    assert words in [cells[-1] for _, cells in view.rows]
    for said in (shown(view), plain(view)):
        assert words in said


def test_units():
    learned = make_jobs(learned=LEARNED, device_memory=1.0)
    view = in_full(make_side(learned), make_side(learned))
    rows = {cells[0]: cells for _, cells in view.rows}
    assert list(rows) == ["speed", "first step", "memory", "GPU memory", "accuracy", "time to target"]
    assert rows["accuracy"][1:5] == ("97.50 %", "97.50 %", "+0.00 points", "+0.00 to +0.00")
    assert rows["accuracy"][5] == NOTHING, "three seeds do not know their scatter"
    assert rows["speed"][5] == "1.8 % to 2.9 %"
    assert rows["GPU memory"][1:3] == ("900 MiB", "900 MiB")
    assert re.fullmatch(r"0\.\d+ s", rows["first step"][1])
    assert re.fullmatch(r"[\d.]+ s", rows["time to target"][1])


def test_the_environment_stands_beside_the_figures():
    for said in (shown(in_full()), plain(in_full())):
        assert "$OMP_NUM_THREADS 16 \N{RIGHTWARDS ARROW} 2" in said
        assert "PyTorch: threads 2 \N{RIGHTWARDS ARROW} 2" in said
        assert "base (base) and head (head)" in said
        assert "canary, a fixed product, took 1.000 times as long in head" in said
    clean = make_side(make_jobs(), environment={"dirty": False})
    assert "nothing that is recorded differs" in shown(in_full(clean, clean))


def test_a_comparison_side_by_side_says_of_what_interval_its_figures_are():
    ab = make_ab([proven(), *(make_block(number) for number in range(6))])
    said = shown(view_of_ab(ab, judge_all(ab)))
    assert (
        "its 96 % interval (of losses as large as the tolerance, 5 % pass in all looks together)"
        in " ".join(said.split())
    )
    assert "change: of head against base, with its 95 % interval \N{BULLET}" in " ".join(
        shown(in_full()).split()
    )


def test_blocks_without_turns_are_told():
    blocks = [make_block(number) for number in range(6)]
    blocks[2] = msgspec.structs.replace(blocks[2], in_turns=False)
    ab = make_ab([proven(), *blocks])
    said = " ".join(shown(view_of_ab(ab, judge_all(ab))).split())
    assert "In 1 of 6 blocks the processes ran one after another and did not take turns" in said


def test_blocks_that_were_lost_are_told_with_their_cause_and_counted_among_the_disturbed():
    lost = [make_block(number, head_status="no_steady_state") for number in range(2)]
    loud = msgspec.structs.replace(make_conditions(), foreign_share=0.5)
    blocks = [msgspec.structs.replace(one, conditions=loud) for one in (*lost, make_block(2), make_block(3))]
    ab = make_ab([proven(), *blocks])
    said = " ".join(shown(view_of_ab(ab, judge_all(ab))).split())
    assert "2 blocks were lost, the last one for head: no steady state: it is gone" in said
    assert "something else disturbed the machine during 4 of 4 blocks" in said
    held = msgspec.structs.replace(make_conditions(), throttled_share=0.5)
    blocks = [msgspec.structs.replace(make_block(number), conditions=held) for number in range(4)]
    ab = make_ab([proven(), *blocks])
    said = " ".join(shown(view_of_ab(ab, judge_all(ab))).split())
    assert "a CPU quota held the jobs back during 4 of 4 blocks" in said


def test_every_row_has_its_verdict_and_the_outcome_comes_last_and_first():
    view = in_full(
        make_side(make_jobs(), make_jobs(cell=OTHER)),
        make_side(make_jobs(0.9), make_jobs(cell=make_cell("cifar10-cnn"))),
    )
    said = shown(view)
    for sentence in (
        "mnist-cnn: PyTorch eager: regression: speed got worse",
        "mnist-cnn: JAX jit: undecided: not in head",
        "cifar10-cnn: PyTorch eager: new: not in base",
    ):
        assert sentence in said
        assert sentence in plain(view)
    assert said.rstrip().endswith("REGRESSION.")
    assert text(view).startswith("# REGRESSION\n")


def test_what_was_not_compared_is_told_with_its_rows():
    few = make_side(*(make_jobs(cell=cell, learned=LEARNED[:1]) for cell in (CELL, OTHER)))
    cells = [make_cell(f"mnist-w{number}") for number in range(4)]
    many = make_side(*(make_jobs(cell=cell, learned=LEARNED[:1]) for cell in cells))
    why = "accuracy was not compared: 1 and 1 seeds, 1 of them in both; 3 are needed"
    assert f"{why} (mnist-cnn: PyTorch eager and mnist-cnn: JAX jit)" in shown(in_full(few, few))
    assert f"{why} (4 rows)" in shown(in_full(many, many))


def test_devices_and_precisions_are_told_apart_where_there_are_several():
    gpu = make_cell(device="gpu", precision="bf16")
    one = make_side(make_jobs(), make_jobs(3.0, cell=gpu))
    names = {name for name, _ in in_full(one, one).rows}
    assert names == {"mnist-cnn (cpu fp32): PyTorch eager", "mnist-cnn (gpu bf16): PyTorch eager"}
    across = in_full(make_side(make_jobs()), make_side(make_jobs(cell=gpu)))
    assert across.sentences == (
        "mnist-cnn (cpu fp32): PyTorch eager: undecided: not in head",
        "mnist-cnn (gpu bf16): PyTorch eager: new: not in base",
    )


def test_runs_without_rows_say_so():
    view = in_full(make_side(), make_side())
    for said in (shown(view), plain(view)):
        assert "The runs have no rows." in said
        assert "Undecided, which does not pass" in said


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_nothing_is_cut_however_narrow_the_terminal_is(width):
    view = in_full(
        *(make_side(make_jobs(factor, learned=LEARNED), make_jobs(cell=OTHER)) for factor in (321.0, 300.0))
    )
    said = shown(view, width)
    assert "\N{HORIZONTAL ELLIPSIS}" not in said
    assert max(map(len, said.splitlines())) <= width
    whole = "".join(said.split())
    for name, cells in view.rows:
        assert "".join(name.split()) in whole
        for word in " ".join(cells).split():
            assert word in whole or word == NOTHING  # below, a row with nothing to show is left out


def test_piped_output_is_whole_and_plain(call: Call, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("COLUMNS")
    for run in (BASE, HEAD):
        save(run, tmp_path / "results")
    said = call("compare", "base", "head").out
    assert "\x1b" not in said
    assert "\N{HORIZONTAL ELLIPSIS}" not in said
    assert "slower" in said


def hostile_runs(name: str) -> list[Run]:
    """Return two runs in which everything that a record can name is `name`."""
    cell = make_cell(name, name, name)
    jobs = [
        msgspec.structs.replace(job, described={name: name, f"{name} threads": name})
        for job in make_jobs(cell=cell, learned=LEARNED[:1])
    ]
    runs = [make_side(jobs), make_side(jobs, make_jobs(cell=make_cell(name, "torch"), blocks=1))]
    titled = []
    for number, run in enumerate(runs):
        backends = [
            msgspec.structs.replace(one, title=name, versions={name: f"{name}{number}"})
            for one in run.header.backends
        ]
        workload = msgspec.structs.replace(make_workload(name), dataset=f"{name}{number}")
        header = changed_header(
            run.header,
            run_id=name,
            backends=tuple(backends),
            workloads=(workload,),
            environment={
                "hostname": f"{name}{number}",
                "cpu_model": f"{name}{number}",
                "variables": {name: f"{name}{number}"},
                "commit": f"{number}{name}",
            },
        )
        titled.append(msgspec.structs.replace(run, header=header))
    return titled


def harmless(view: View) -> None:
    said = shown(view)
    assert all(unicodedata.category(char)[0] != "C" for line in said.split("\n") for char in line)
    rendered = html(view)
    tags = set(re.findall(r"</?([a-z0-9]+)", rendered))
    assert tags <= {"h1", "h2", "p", "ul", "li", "strong", "table", "thead", "tbody", "tr", "th", "td"}, tags
    assert re.findall(r"<h[12]>(.*?)</h[12]>", rendered)[1:] == [
        heading for heading in ("Figures", "Environment", "Remarks") if heading != "Figures" or view.rows
    ]
    for row in re.findall(r"<tr>(.*?)</tr>", rendered, re.DOTALL):
        assert len(re.findall(r"<t[hd]", row)) == 8
    assert len(re.findall(r"<tr>", rendered)) == (len(view.rows) + 1 if view.rows else 0)
    bullets = len(view.sentences) + len(view.changes) + len(view.remarks)
    bullets += len(legend(view)) if view.rows else 0
    assert len(re.findall(r"<li>", rendered)) == bullets


def test_hostile_names_are_harmless():
    view = in_full(*hostile_runs(HOSTILE))
    assert len(view.rows) >= 3
    assert any(HOSTILE in line for line in view.changes)
    harmless(view)
    assert "<script>alert(1)</script>" in plain(view)  # shown, as text


def test_hostile_names_of_two_sides_are_harmless():
    cell = make_cell(HOSTILE, HOSTILE, HOSTILE)
    backend = BackendHere(
        name=HOSTILE, title=HOSTILE, default_mode=HOSTILE, modes={HOSTILE: HOSTILE}, reference=False,
        versions={HOSTILE: HOSTILE},
    )  # fmt: skip
    base, head = (
        make_ab_side(
            asked=(HOSTILE,), commit=commit, variables={HOSTILE: f"{HOSTILE}{commit}"}, backends=(backend,),
            workloads=(make_workload(HOSTILE),),
        )
        for commit in (HOSTILE, "b")
    )  # fmt: skip
    check = ParityCheck(kind=HOSTILE, error=1.0, tolerance=0.1, worst=HOSTILE)
    ab = make_ab([proven(check, cell=cell)], cells=(cell,), missing={HOSTILE: HOSTILE}, base=base, head=head)
    view = view_of_ab(ab, judge_all(ab))
    assert HOSTILE in " ".join([*view.sentences, *view.changes])
    harmless(view)


@given(st.text(min_size=1, max_size=12).filter(str.strip))
@settings(max_examples=25)
def test_no_name_does_harm(name):
    harmless(in_full(*hostile_runs(name)))


def test_a_hostile_machine_is_harmless_in_the_command(call: Call, tmp_path) -> None:
    for number, run in enumerate(hostile_runs(HOSTILE)):
        save(
            msgspec.structs.replace(run, header=changed_header(run.header, run_id=f"r{number}")),
            tmp_path / "results",
        )
    call("compare", "r0", "r1").refused(2, "different machines")
    told = call("compare", "r0", "r1", "--across-machines", "--output", "told.md")
    assert told.status == 3
    for said in (told.out, told.err, (tmp_path / "told.md").read_text()):
        assert "\x1b" not in said
        assert "\x9b" not in said
    assert "<script>" not in (tmp_path / "told.md").read_text()


def test_the_report_says_how_often_a_true_loss_passes():
    ab = make_ab([proven(), *(make_block(number) for number in range(6))])
    said = " ".join(shown(view_of_ab(ab, judge_all(ab))).split())
    assert (
        "a true loss of speed passes in this share of simulated gates: a loss of 3 % in 61 %, a loss of 5 %"
        in said
    )


def test_environments_that_were_made_in_different_ways_are_told():
    blocks = [proven(), *(make_block(number) for number in range(6))]
    for made, told in (((), False), (("torch",), True)):
        ab = make_ab(blocks, base=make_ab_side(made=("torch",)), head=make_ab_side(commit="b", made=made))
        said = " ".join(shown(view_of_ab(ab, judge_all(ab))).split())
        assert ("Only one side of PyTorch ran in an environment that bench ab made." in said) != told


def test_a_wrong_side_is_named_and_no_figure_is_shown():
    check = ParityCheck(kind="logits", error=1.0, tolerance=0.1, worst="logits")
    blocks = [make_block(number, change=0.3) for number in range(6)]
    ab = make_ab([proven(check, side="base"), proven(), *blocks])
    view = view_of_ab(ab, judge_all(ab))
    said = " ".join(shown(view).split())
    assert view.rows == ()
    assert "base does not compute what the reference computes: logits off by 1.0e+00 at logits" in said
    assert "head agrees with the reference. Their speeds are not compared" in said
    assert "faster" not in said.replace("Their speeds are not compared", "")

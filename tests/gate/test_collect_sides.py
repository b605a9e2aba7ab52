"""Measuring side by side: real commits of a repository, each under its own code, and what is kept of them."""

import functools
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from commits import commit, drop_bias, make_repository, mistake, set_pace
from fakes import Screen
from played import play_sides, undisturbed
from rich.console import Console
from sides_by_side import CELL, make_ab, make_side, proven, unproven

from bench.errors import RecordError, UnavailableError, UsageError
from bench.gate import collect, environments, setup
from bench.gate.collect import Collector
from bench.gate.judge import judge_all
from bench.gate.records import BLOCKS, Ab, AbRecord, create_ab, read_ab
from bench.gate.setup import AbPlan, Folders
from bench.gate.sides import Description, Side, SideSpec, code_digest, describe, parse_side
from bench.measuring.backends import Registry, find_backends
from bench.measuring.block import run_block
from bench.measuring.selection import Asked
from bench.progress import make_display
from bench.records.schema import ParityCheck
from bench.worker.protocol import VERSION, DataSource
from bench.workloads.catalog import find_workload

pytestmark = pytest.mark.measures


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """Return a repository of this program in which NumPy's backend changes from commit to commit."""
    folder = make_repository(tmp_path_factory.mktemp("repository"))
    set_pace(folder, 0.020)
    commit(folder, "base")
    (folder / "README.md").write_text("another word\n")
    commit(folder, "word")
    drop_bias(folder)
    commit(folder, "wrong")
    (folder / "README.md").write_text("one more word\n")
    commit(folder, "still-wrong")
    set_pace(folder, 0.080)
    mistake(folder)
    commit(folder, "worse")
    data = folder / "bench" / "datasets" / "cache.py"
    data.write_text(
        data.read_text() + "\n\n_load_sample = load_sample\n\n\ndef load_sample(name, limit=None):\n"
        "    found = _load_sample(name, limit)\n"
        "    labels = np.where(found.test_labels == 3, 4, found.test_labels).astype(np.uint8)\n"
        "    return msgspec.structs.replace(found, test_labels=labels)\n"
    )
    set_pace(folder, 0.021)
    commit(folder, "other")
    return folder


def planned(base: str, head: str, workload: str = "mnist-softmax", **more: Any) -> AbPlan:
    facts = {"budget_s": 300.0, "first_blocks": 4, "most_blocks": 4, "confirm_blocks": 4} | more
    asked = Asked(workloads=(workload,), backends=("numpy",), sample=True)
    return AbPlan(asked=asked, base=parse_side([base]), head=parse_side([head]), **facts)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """Return a folder that keeps the code of the commits."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def folders(tmp_path, kept) -> Folders:
    return Folders(results=tmp_path / "results", data=tmp_path / "data", environments=kept)


def measured(plan: AbPlan, folders: Folders, *, resume: str | None = None) -> tuple[Any, str]:
    out = io.StringIO()
    with make_display(Console(file=out, width=200)) as display:
        found = collect.measure(plan, folders=folders, resume=resume, offline=True, display=display)
    return found, out.getvalue()


class Interrupting(Screen):
    """Presses Ctrl-C when the third block is to begin."""

    def overall(self, text: str, done: float, left_s: float | None) -> None:
        if "block 3" in text:
            raise KeyboardInterrupt


def interrupted(plan: AbPlan, folders: Folders) -> Ab:
    """Return a comparison that was interrupted after two blocks, as its folder has it."""
    screen = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        collect.measure(plan, folders=folders, resume=None, offline=True, display=screen)
    (folder,) = folders.results.iterdir()
    assert screen.lines[-1].endswith(f"--resume {folder.name}")
    return read_ab(folder)


@pytest.fixture
def quick(monkeypatch, repository):
    monkeypatch.setattr(setup, "PROJECT", repository)
    monkeypatch.setattr(environments, "PROJECT", repository)
    monkeypatch.setattr(setup, "WINDOWS", 8)
    monkeypatch.setattr(setup, "describe", described)
    undisturbed(monkeypatch)


described = functools.cache(describe)
"""The description of a commit does not change, so it is kept: that saves a process for each side."""


def test_each_side_runs_its_own_code_in_processes_of_its_own(quick, folders, monkeypatch):
    """Head's backend has another pace and its data set other labels: `backends` and `bench` are its own."""
    monkeypatch.setattr(collect, "TRAINING_S", 0.1)
    found = interrupted(planned("base", "other"), folders)
    assert [(one.side, one.parity.ok) for one in found.parity] == [("base", True), ("head", True)]
    assert found.header.parity_of_base
    assert len(found.blocks) == 2
    for block in found.blocks:
        assert [job.described["pace"] for job in (block.base, block.head)] == [0.020, 0.021]
        assert all(proof.checks for job in (block.base, block.head) for proof in job.proofs)
        assert len(block.base.proofs) == len(block.head.proofs) == 2
    trained = found.blocks[1]
    assert trained.base.spec.seed == trained.head.spec.seed
    assert trained.base.points[-1].steps == trained.head.points[-1].steps
    assert trained.base.points[-1].test_loss != trained.head.points[-1].test_loss


def test_a_loss_is_found_and_confirmed_also_where_the_comparison_was_interrupted(quick, folders, monkeypatch):
    """Head is slower, and takes the images of one class for another: both fail, confirmed."""
    play_sides(monkeypatch)
    patience: set[float] = set()

    def spy(jobs, *, patience_s, **options):
        patience.add(patience_s)
        return run_block(jobs, patience_s=patience_s, **options)

    monkeypatch.setattr("bench.measuring.block_runner.run_block", spy)
    begun = interrupted(planned("base", "worse"), folders)
    assert [(block.block, block.first) for block in begun.blocks] == [(0, "base"), (1, "head")]
    lines = (begun.folder / BLOCKS).read_text().splitlines(keepends=True)
    (begun.folder / BLOCKS).write_text("".join([*lines[:2], lines[2][:-50] + "\n", lines[3]]))
    found, said = measured(planned("base", "worse"), folders, resume=begun.folder.name)
    # A block that cannot be read is made up for, under a number of its own.
    assert [(block.series, block.block) for block in found.blocks] == [
        *(("first", number) for number in (1, 2, 3, 4)),
        *(("second", number) for number in range(4)),
    ]
    assert found.blocks[0] == begun.blocks[1]
    assert [one.side for one in found.parity] == ["base", "head"]
    judged = judge_all(found).cells[0]
    # The first of such longer steps comes later too.
    assert judged.conclusion == "regression"
    assert set(judged.confirmed) == {"speed", "first step", "accuracy"}
    assert judged.second[0].change == pytest.approx(-0.75, abs=0.01)
    assert "got worse, in both series" in said
    assert found.header.base.commit != found.header.head.commit
    assert found.header.head.dirty is False
    assert patience == {collect.PATIENCE_S}, "a quiet machine is waited for, and not for ever"


SAID = (
    "is not comparable: the timed program does not compute what the reference computes: change at logits/bias"
)


@pytest.mark.parametrize(
    ("base", "head", "conclusion", "beginning", "end"),
    [
        ("base", "word", "fine", "nothing got worse", ""),
        ("base", "wrong", "regression", f"head {SAID}", "; base agrees with it"),
        (
            "wrong",
            "base",
            "undecided",
            f"base {SAID}",
            "; head agrees with the reference. Their speeds are not compared",
        ),
        ("wrong", "still-wrong", "undecided", f"head {SAID}", "; the same for base"),
    ],
)
def test_a_side_whose_timed_program_is_wrong_is_named_and_nothing_is_said_of_speeds(
    *, base, head, conclusion, beginning, end, quick, folders, monkeypatch
):
    """Both sides pass parity, whose batches are small."""
    play_sides(monkeypatch)
    found, said = measured(planned(base, head), folders)
    assert [(one.side, one.parity.ok) for one in found.parity] == [("base", True), ("head", True)]
    judged = judge_all(found).cells[0]
    assert judged.conclusion == conclusion, judged.why
    assert judged.why.startswith(beginning)
    assert judged.why.endswith(end)
    right = conclusion == "fine"
    assert len(found.blocks) == (4 if right else 1), "figures of a wrong program would decide nothing"
    assert bool(judged.first) == right
    assert judged.why in " ".join(said.split())


def test_blocks_without_turns_are_recorded_as_such(quick, folders, monkeypatch):
    play_sides(monkeypatch)
    monkeypatch.setattr(
        "bench.measuring.block_runner.run_block",
        lambda jobs, **options: msgspec.structs.replace(run_block(jobs, **options), in_turns=False),
    )
    found, _ = measured(planned("base", "word", budget_s=50.0, first_blocks=6, most_blocks=6), folders)
    assert found.blocks
    assert not any(block.in_turns for block in found.blocks)


def test_a_comparison_stops_when_its_budget_is_spent_which_is_of_one_sitting(quick, folders, monkeypatch):
    play_sides(monkeypatch)
    monkeypatch.setattr(collect, "TRAINING_S", 0.11)
    asked = planned("base", "word", budget_s=50.0, first_blocks=6, most_blocks=6)
    found, said = measured(asked, folders)
    first = len(found.blocks)
    assert 3 < first < 6
    assert "The budget is spent" in said
    judged = judge_all(found)
    assert judged.conclusion == "undecided"
    assert judged.cells[0].why == f"{first} of 6 blocks were measured"
    again, _ = measured(asked, folders, resume=found.header.run_id)
    assert again.blocks[:first] == found.blocks
    assert len(again.blocks) == 6
    # What base trains in 0.11 s, where 20 steps of 0.020 s are an epoch; it stays, whatever is found later.
    assert [block.base.spec.epochs for block in again.blocks[:4]] == [0.0, 0.25, 0.25, 0.25]


def test_the_same_twice_is_refused(quick, folders):
    with pytest.raises(UsageError, match="base and head are the same"):
        measured(planned("base", "base"), folders)


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        ("mnist-mpl", "did you mean 'mnist-mlp'"),  # which neither side has
        ("mnist-mlp-defaults", r"could never pass\. Take mnist-mlp\."),  # which has no reference
    ],
)
def test_a_workload_that_cannot_be_compared_is_refused(workload, words, quick, folders):
    with pytest.raises(UsageError, match=words):
        measured(planned("base", "worse", workload), folders)


# ---- with parity that is played


@pytest.mark.parametrize(("status", "again"), [("timeout", True), ("out_of_memory", True), ("ok", False)])
def test_a_parity_that_was_not_to_be_had_is_tried_again(status, again, tmp_path, monkeypatch):
    held = proven() if status == "ok" else unproven(status, "it is gone")
    tried = tried_again(tmp_path, monkeypatch, held)
    assert tried == [("base", [CELL]), *([("head", [CELL])] if again else [])]


def test_neither_sides_nor_series_share_compiled_programs(tmp_path, monkeypatch):
    collector = collector_of(tmp_path, ())
    source = DataSource(name="mnist", cache=None, limit=None)
    collector._splits = {CELL.workload: SimpleNamespace(source=source)}
    shared = [
        collector._seat(CELL, name, series=series, number=number, place=0, epochs=0.0).side
        for name in ("base", "head")
        for series in ("first", "second")
        for number in (4, 5)
    ]
    assert shared[::2] == shared[1::2], "blocks of a series share them"
    assert len(set(shared)) == 4
    assert len(set(map(len, shared[::4]))) == 1


@pytest.mark.parametrize("off", [False, True])
def test_base_is_compared_with_the_reference_as_head_is(off, tmp_path, monkeypatch):
    wrong = ParityCheck(kind="logits", error=1.0, tolerance=1e-4, worst="logits") if off else None
    assert tried_again(tmp_path, monkeypatch) == [("base", [CELL]), ("head", [CELL])]
    held = [proven(wrong), proven(wrong, side="base")]
    assert tried_again(tmp_path / "again", monkeypatch, *held) == [], "once is enough"


def tried_again(tmp_path, monkeypatch, *held) -> list[tuple[str, list[Any]]]:
    """Return the sides and cells that are compared with the reference where these records are there."""
    tried = []
    monkeypatch.setattr(
        collect,
        "verify_cells",
        lambda cells, _infos, pythons, *_: tried.append((pythons["torch"].name, cells)),
    )
    monkeypatch.setattr(collect, "plan_parity", lambda cells, *_, **__: cells)
    collector_of(tmp_path, held)._prove_parity()
    return tried


def collector_of(folder: Path, held: Sequence[AbRecord]) -> Collector:
    """Return a collector whose comparison of one cell has these records."""
    told = Description(
        backends={"torch": find_backends().find("torch")},
        broken={},
        workloads={CELL.workload: find_workload(CELL.workload)},
        protocol=VERSION,
    )
    sides = {
        name: msgspec.structs.replace(side(name, told), pythons={"torch": Path(name)})
        for name in ("base", "head")
    }
    ab = make_ab(held)
    ab = msgspec.structs.replace(ab, folder=create_ab(folder, ab.header))
    return Collector(ab, sides=sides, splits={}, display=Screen())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"commit": "c" * 40}, "with another head: commit cccccccccc"),
        ({"variables": {"OMP_NUM_THREADS": "1"}}, "OMP_NUM_THREADS=1"),
        ({"code": "0" * 64}, "its code has been edited since"),
    ],
)
def test_going_on_with_other_sides_is_refused(changed, words):
    now = make_ab([]).header
    begun = msgspec.structs.replace(now, head=make_side(**{"commit": "b" * 40, **changed}))
    setup.refuse_others(now, now)
    with pytest.raises(RecordError, match=words):
        setup.refuse_others(begun, now)


def test_going_on_with_other_variables_is_refused():
    now = make_ab([]).header
    begun = msgspec.structs.replace(
        now, environment=msgspec.structs.replace(now.environment, variables={"OMP_NUM_THREADS": "2"})
    )
    with pytest.raises(RecordError, match="variables: OMP_NUM_THREADS was '2' and is '16'"):
        setup.refuse_others(begun, now)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"first_blocks": 9}, "other first blocks"),
        ({"most_blocks": 30}, "other most blocks"),
        ({"cells": ()}, "other cells"),
        ({"sample": True}, "other sample"),
    ],
)
def test_going_on_with_something_else_than_was_begun_is_refused(changed, words):
    begun = make_ab([]).header
    with pytest.raises(UsageError, match=words):
        setup.refuse_others(begun, msgspec.structs.replace(begun, **changed))
    setup.refuse_others(begun, msgspec.structs.replace(begun, budget_s=9.0))


def test_going_on_on_another_machine_is_refused():
    begun = make_ab([]).header
    other = msgspec.structs.replace(begun.environment, cpu_model="another")
    with pytest.raises(RecordError, match="begun on another machine"):
        setup.refuse_others(begun, msgspec.structs.replace(begun, environment=other))


# ---- the sides


def side(name: str, described: Description, pythons: tuple[str, ...] = ("torch",)) -> Side:
    return Side(
        name=name, spec=SideSpec(), source=Path(), commit=None, dirty=None,
        pythons=dict.fromkeys(pythons, Path(sys.executable)), described=described, versions={},
    )  # fmt: skip


def test_a_framework_that_head_lost_or_broke_is_missing_and_one_that_it_gained_is_told():
    registry = find_backends()
    every = {name: registry.find(name) for name in ("torch", "jax", "tensorflow", "numpy")}
    told = {"tensorflow": "backend 'tensorflow' cannot be used: two modes"}

    def has(*names: str, **broken: str) -> Description:
        return Description(
            backends={name: every[name] for name in names}, broken=broken, workloads={}, protocol=VERSION
        )

    def found(base: Description, head: Description) -> dict[str, str]:
        return setup._unasked({"base": side("base", base), "head": side("head", head)})

    assert found(has("torch", "numpy"), has("torch")) == {}
    assert found(has("torch", "jax"), has("torch")) == {"jax": "only in base"}
    assert found(has("torch"), has("torch", "jax")) == {"jax": "only in head"}
    assert found(has("torch", "tensorflow"), has("torch", **told)) == told
    assert found(has("torch", **told), has("torch", **told)) == {}


@pytest.mark.parametrize("which", ["base", "head"])
def test_sides_whose_workers_measure_otherwise_are_refused(which):
    def of(protocol: int) -> Description:
        return Description(backends={}, broken={}, workloads={}, protocol=protocol)

    sides = {name: side(name, of(VERSION)) for name in ("base", "head")}
    setup._refuse_other_protocols(sides)
    sides[which] = side(which, of(VERSION - 1))
    with pytest.raises(RecordError, match=rf"{which}'s( workers follow protocol)? {VERSION - 1}"):
        setup._refuse_other_protocols(sides)


@pytest.mark.parametrize("mistaken", ["torch=2.12.0", "tensorflow-cpu=2.20.0", "jax= =0.10.1", "X==1 "])
def test_a_version_written_as_a_variable_is_refused(mistaken, quick, folders):
    name, _, value = mistaken.partition("=")
    asked = planned("base", "worse")
    asked = msgspec.structs.replace(asked, base=SideSpec(asked=(mistaken,), variables={name: value}))
    with pytest.raises(UsageError, match=f"a version is written {name}=="):
        measured(asked, folders)


def test_the_digest_of_code_tells_every_edit_of_what_workers_run(tmp_path):
    (tmp_path / "bench" / "report").mkdir(parents=True)
    (tmp_path / "backends").mkdir()
    module = tmp_path / "bench" / "report" / "a.py"
    module.write_text("1\n")
    before = code_digest(tmp_path)
    (tmp_path / "README.md").write_text("words\n")
    assert code_digest(tmp_path) == before
    module.write_text("2\n")
    edited = code_digest(tmp_path)
    assert edited != before
    (tmp_path / "backends" / "b.py").write_text("2\n")
    assert code_digest(tmp_path) not in (before, edited)


def test_a_framework_that_a_side_lacks_is_named(quick, folders, monkeypatch):
    monkeypatch.setattr(setup, "installed_versions", lambda infos, pythons: {"numpy": ({}, ["numpy"])})
    with pytest.raises(UnavailableError, match="base: backend 'numpy': not installed: numpy"):
        measured(planned("base", "worse"), folders)


def test_two_builds_of_one_package_are_refused(monkeypatch, quick, folders):
    info = msgspec.structs.replace(find_backends().find("numpy"), distributions=("frame|frame-cpu",))
    monkeypatch.setattr(setup, "find_backends", lambda: Registry(backends={"numpy": info}, broken={}))
    both = {"numpy": ({"frame": "2.20", "frame-cpu": "2.21"}, [])}
    monkeypatch.setattr(setup, "installed_versions", lambda infos, pythons: both)
    with pytest.raises(UsageError, match=r"frame and frame-cpu are builds of one package.* frame-cpu==2\.20"):
        measured(planned("base", "worse"), folders)


@pytest.mark.parametrize("head", ["other", None])
def test_both_sides_run_copies_of_their_code_that_differ_in_nothing_but_the_code(
    head, quick, repository, folders, tmp_path
):
    """Whether head is a commit, or this checkout with bytecode and with files that no commit has."""
    for name in ("__pycache__/cache.cpython-311.pyc", "stray.txt"):
        path = repository / "bench" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("only in the checkout\n")
    asked = msgspec.structs.replace(planned("base", "other"), head=SideSpec(revision=head))
    made = setup.make_sides(asked, "cpu", folders=folders, place=tmp_path / "place", display=Screen())
    (repository / "bench" / "stray.txt").unlink()
    base, head = (made[name].source for name in ("base", "head"))
    assert base.parent == head.parent
    assert len(str(base)) == len(str(head))
    files = [{path.relative_to(code) for path in code.rglob("*")} for code in (base, head)]
    assert files[1] - files[0] <= {Path("bench/stray.txt")}
    assert files[0] <= files[1]
    assert not any("__pycache__" in path.parts for found in files for path in found)
    lengths = {len(made[name].info("numpy").environment["PYTHONPATH"]) for name in ("base", "head")}
    assert len(lengths) == 1
    assert made["base"].pythons == made["head"].pythons
    assert code_digest(base) != code_digest(head)


@pytest.mark.parametrize(("versions", "made"), [({"numpy": "2.4.6"}, ("numpy",)), ({"numpy": "9.9"}, ())])
def test_if_one_side_needs_its_own_environment_the_other_gets_one_of_the_same_making(
    *, versions, made, quick, folders, tmp_path, monkeypatch
):
    """Unless its interpreter holds other versions than its code pins, which are then what is asked for."""
    asked = planned("base", "base")
    asked = msgspec.structs.replace(asked, base=SideSpec(pins={"numpy": "2.4.0"}), head=SideSpec())
    monkeypatch.setattr(setup, "installed_versions", lambda infos, pythons: {"numpy": (versions, [])})
    installed = []

    def make(spec, source, backend, device, *, folder, display):
        installed.append((spec, source))
        (folder / f"{backend}-{len(installed)}" / "bin").mkdir(parents=True, exist_ok=True)
        return folder / f"{backend}-{len(installed)}" / "bin" / "python"

    monkeypatch.setattr(setup, "make_environment", make)
    monkeypatch.setattr(setup, "describe", lambda python, source: described(Path(sys.executable), source))
    monkeypatch.setattr(setup, "program_fault", lambda *_, **__: None)
    monkeypatch.setattr(environments, "_constraints", lambda source: ["numpy==2.4.6"])
    folders = msgspec.structs.replace(folders, environments=tmp_path / "kept")
    sides = setup.make_sides(asked, "cpu", folders=folders, place=tmp_path / "place", display=Screen())
    base, head = sides["base"], sides["head"]
    assert (base.made, head.made) == (("numpy",), made)
    assert [spec for spec, _ in installed] == [asked.base, *([asked.head] if made else [])]
    assert base.pythons["numpy"].is_relative_to(folders.environments)
    same = len(str(base.pythons["numpy"])) == len(str(head.pythons["numpy"]))
    assert head.pythons["numpy"] == Path(sys.executable) or (made and same)
    assert setup._here(head, ()).made == made


def test_a_variable_alone_makes_a_side(quick, folders, tmp_path):
    asked = planned("base", "worse")
    sides = msgspec.structs.replace(
        asked, base=SideSpec(asked=("A=1",), variables={"A": "1"}), head=SideSpec()
    )
    made = setup.make_sides(sides, "cpu", folders=folders, place=tmp_path / "place", display=Screen())
    assert made["base"].info("numpy").environment["A"] == "1"
    assert "A" not in made["head"].info("numpy").environment
    assert made["base"].pythons["numpy"] == Path(sys.executable)
    assert os.environ.get("A") is None

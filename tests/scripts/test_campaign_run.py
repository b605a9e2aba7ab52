"""How parts run: fixed names, resuming, interruption, failures, waiting, and what is refused."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psutil
import pytest
from commits import commit, git

from bench.errors import RecordError, UsageError
from campaign import __main__ as command
from campaign import execute, log, state
from campaign.execute import Place
from campaign.records import FOLDER, MADE, PYTHONS, Command, Part

PYTHON = {"torch": "envs/torch/bin/python"}


def make_part(*commands: Command, name: str = "one", **more: object) -> Part:
    fields = {
        "number": 1, "question": "q", "measures": "m", "rule": "r", "level": "l", "failure": "f",
        "minutes": 10, "commands": commands,
    }  # fmt: skip
    return Part(name=name, **(fields | more))


def make_command(**more: object) -> Command:
    fields: dict[str, object] = {
        "arguments": ("-m", "bench", "run", "--results", FOLDER, PYTHONS),
        "resume": ("-m", "bench", "run", "--resume", MADE, PYTHONS),
        "makes": "run-*", "report": "REPORT.md", "statuses": (0, 1, 3), "pythons": ("torch",),
    }  # fmt: skip
    return Command(**(fields | more))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a checkout with one commit."""
    for name in ("bench/a.py", "backends/b.py", "constraints.txt", "README.md"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(name)
    git(tmp_path, "init", "-q", "-b", "main", str(tmp_path / "root"))
    commit(tmp_path / "root", "first")
    return tmp_path / "root"


class Fake:
    """Stands in for `bench run`: makes a folder, and ends with the status that the test sets."""

    def __init__(self, *ends: object) -> None:
        self.ends, self.started = list(ends), []

    def __call__(self, words, root, environment):
        self.started.append([str(word) for word in words[1:]])
        folder = root / "results" / "campaign" / "one"
        made = next(iter(folder.glob("run-*")), folder / "run-x")
        made.mkdir(exist_ok=True)
        (made / "run.json").write_text("{}")
        with (made / "records.jsonl").open("a") as file:
            file.write("a line\n")
        end = self.ends.pop(0)
        if end == "Ctrl-C":
            raise KeyboardInterrupt
        status, report = end
        if report:
            (made / "REPORT.md").write_text("report")
        return status, (f"said at {root}/bench",)


def go(part: Part, root: Path, fake: Fake) -> log.PartRecord:
    place = Place(root=root, pythons=PYTHON)
    header, now = command.fixed(root, place.campaign, [part])
    return execute.run_part(part, place, header, commit=now, start=fake)


@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_run_that_ends_is_done_whatever_it_found_and_gets_the_parts_name(root, status):
    part, fake = make_part(make_command()), Fake((status, True))
    record = go(part, root, fake)
    folder = root / "results/campaign/one"
    assert record.status == "done"
    assert sorted(path.name for path in folder.iterdir()) == [
        "REPORT.md", "part.json", "records.jsonl", "run.json",
    ]  # fmt: skip
    assert fake.started == [
        ["-m", "bench", "run", "--results", "results/campaign/one", "--python=torch=envs/torch/bin/python"]
    ]
    kept = log.read_part(root / "results/campaign", "one")
    assert kept == record
    assert kept.ran[0].exit_status == status
    assert kept.ran[0].command[0] == "python"
    assert str(root) not in (folder / "part.json").read_text()
    assert kept.cpu == state.this_cpu()
    assert (kept.state, kept.commit) == (state.state_of(root), state.commit_of(root))


def test_ctrl_c_leaves_a_part_that_is_gone_on_with_by_the_commands_own_resume(root):
    part, fake = make_part(make_command()), Fake("Ctrl-C", (0, True))
    with pytest.raises(KeyboardInterrupt):
        go(part, root, fake)
    kept = log.read_part(root / "results/campaign", "one")
    assert (kept.status, kept.ended_at, kept.ran[0].exit_status) == ("interrupted", None, None)
    assert go(part, root, fake).status == "done"
    assert fake.started[1][:5] == ["-m", "bench", "run", "--resume", "run-x"]
    assert (root / "results/campaign/one/records.jsonl").read_text() == "a line\na line\n"


def test_a_part_whose_process_was_killed_is_gone_on_with(root):
    part, fake = make_part(make_command()), Fake("Ctrl-C", (0, True))
    with pytest.raises(KeyboardInterrupt):
        go(part, root, fake)
    folder = root / "results/campaign"
    log.write_part(folder, msgspec.structs.replace(log.read_part(folder, "one"), status="running"))
    assert go(part, root, fake).status == "done"
    assert "--resume" in fake.started[1]


@pytest.mark.parametrize(
    ("end", "why"),
    [((2, False), "ended with status 2"), ((3, False), "status 3 and without REPORT.md"), ((70, True), "70")],
)
def test_a_failure_is_recorded_with_its_last_lines_and_never_repeated_by_itself(root, end, why):
    part, fake = make_part(make_command()), Fake(end, (0, True))
    record = go(part, root, fake)
    assert record.status == "failed"
    assert why in record.ran[0].fault
    assert record.ran[0].last_lines == ("said at ./bench",)
    with pytest.raises(RecordError, match=r"one has failed.*--anew one(.|\n)*said at"):
        go(part, root, fake)
    assert len(fake.started) == 1
    kept = execute.set_aside(root / "results/campaign", "one")
    assert (kept.name, (kept / "part.json").is_file()) == ("one-try-1", True)
    assert go(part, root, fake).status == "done"
    assert "--resume" not in fake.started[1]


@pytest.mark.parametrize(("interpreter", "kept"), [("tests", ("said at ./bench",)), ("harness", ())])
def test_what_a_benchmark_prints_last_is_kept(root, interpreter, kept):
    part = make_part(make_command(interpreter=interpreter))
    place = Place(root=root, pythons={**PYTHON, "tests": "p"})
    header, now = command.fixed(root, place.campaign, [part])
    record = execute.run_part(part, place, header, commit=now, start=Fake((0, True)))
    assert record.ran[0].last_lines == kept


def test_commands_that_are_done_are_not_run_again_and_get_their_names(root):
    commands = [make_command(name=name, makes=f"{name}-*", report="") for name in ("a", "b")]
    part = make_part(*commands)
    seen = []

    def start(words, root, environment):
        number = len(seen)
        seen.append(words)
        if number == 1:
            raise KeyboardInterrupt
        folder = root / "results/campaign/one"
        (folder / ("a-x" if number == 0 else "b-x")).mkdir()
        return 0, ()

    with pytest.raises(KeyboardInterrupt):
        go(part, root, start)
    assert go(part, root, start).status == "done"
    assert len(seen) == 3
    assert sorted(path.name for path in (root / "results/campaign/one").iterdir()) == ["a", "b", "part.json"]


def test_a_part_that_is_done_is_not_run_again(root):
    part = make_part(make_command())
    go(part, root, Fake((0, True)))
    with pytest.raises(UsageError, match="one is done"):
        go(part, root, Fake((0, True)))


def test_a_part_is_not_gone_on_with_on_another_cpu(root, monkeypatch):
    part, fake = make_part(make_command()), Fake("Ctrl-C", (0, True))
    with pytest.raises(KeyboardInterrupt):
        go(part, root, fake)
    other = msgspec.structs.replace(state.this_cpu(), model="Another CPU")
    monkeypatch.setattr(execute, "this_cpu", lambda: other)
    with pytest.raises(RecordError, match="this is Another CPU"):
        go(part, root, fake)


def test_another_state_of_the_code_is_refused_and_named(root):
    go(make_part(make_command()), root, Fake((0, True)))
    (root / "bench/a.py").write_text("changed")
    with pytest.raises(RecordError, match=r"commit code and plan before a part runs: bench/a\.py"):
        go(make_part(make_command(), name="two"), root, Fake())
    commit(root, "second")
    with pytest.raises(RecordError, match=r"bench/a\.py differ from commit"):
        go(make_part(make_command(), name="two"), root, Fake())


def test_another_way_of_measuring_is_refused_too(root):
    script = root / "scripts/campaign/train_alone.py"
    script.parent.mkdir(parents=True)
    script.write_text("first")
    commit(root, "script")
    go(make_part(make_command()), root, Fake((0, True)))
    script.write_text("second")
    commit(root, "changed")
    with pytest.raises(RecordError, match=r"scripts/campaign/train_alone\.py differ from commit"):
        go(make_part(make_command(), name="two"), root, Fake())


def test_a_changed_plan_is_refused_until_it_is_amended_with_a_reason(root, capsys):
    part = make_part(make_command(), level="0.02")
    command.fixed(root, root / "results/campaign", [part])
    changed = msgspec.structs.replace(part, level="0.05")
    with pytest.raises(RecordError, match="--amend one REASON"):
        go(changed, root, Fake((0, True)))
    folder = root / "results/campaign"
    with pytest.raises(UsageError, match="say why"):
        command.amend(folder, changed, " ", root)
    command.amend(folder, changed, "the level was a slip", root)
    with pytest.raises(UsageError, match="is the one that holds"):
        command.amend(folder, changed, "again", root)
    assert go(changed, root, Fake((0, True))).status == "done"
    (kept,) = log.read_header(folder).amendments
    assert (kept.part, kept.reason, kept.before, kept.after) == (
        "one", "the level was a slip", part.digest, changed.digest,
    )  # fmt: skip


# ---- which part is next


def record_of(part: Part, status: log.PartStatus, ended: datetime | None = None) -> log.PartRecord:
    return log.PartRecord(
        name=part.name, state="s", commit="c", plan=part.digest, cpu=state.this_cpu(),
        started_at="2026-01-01T00:00:00+00:00", ended_at=ended.isoformat() if ended else None, status=status,
    )  # fmt: skip


FIRST = make_part(make_command(), name="first")
APART = make_part(make_command(), name="apart", apart_from=("first",), hours=3.0)
AFTER = make_part(make_command(), name="after", needs=("first",))
LAST = make_part(make_command(), name="last")
ALL = (FIRST, APART, AFTER, LAST)


def test_the_first_part_that_is_due_is_next():
    now = datetime.now(UTC)
    assert command.next_due(ALL, {}) == FIRST
    early = {"first": record_of(FIRST, "done", now - timedelta(hours=1))}
    assert command.next_due(ALL, early) == AFTER
    late = {"first": record_of(FIRST, "done", now - timedelta(hours=4))}
    assert command.next_due(ALL, late) == APART
    failed = {"first": record_of(FIRST, "failed", now)}
    assert command.next_due(ALL, failed) == LAST
    broken = {**late, "last": record_of(LAST, "interrupted")}
    assert command.next_due(ALL, broken) == LAST


def test_without_a_part_that_is_due_the_error_says_when():
    now = datetime.now(UTC)
    done = {part.name: record_of(part, "done", now) for part in (FIRST, AFTER, LAST)}
    with pytest.raises(UsageError, match=r"no part is due before 20"):
        command.next_due(ALL, done)
    with pytest.raises(UsageError, match=r"apart is due at 20.*hours apart"):
        command.refuse_too_early(APART, done)
    with pytest.raises(UsageError, match="after needs first"):
        command.refuse_too_early(AFTER, {})
    with pytest.raises(UsageError, match="begins 3 hours after first"):
        command.refuse_too_early(APART, {})
    everything = {part.name: record_of(part, "done", now) for part in ALL}
    with pytest.raises(UsageError, match="no part is left"):
        command.next_due(ALL, everything)


def test_the_list_says_what_is_done_failed_and_left(root):
    folder = root / "results/campaign"
    log.write_part(folder, record_of(FIRST, "done", datetime.now(UTC)))
    failed = msgspec.structs.replace(
        record_of(LAST, "failed"),
        ran=(log.Ran(number=0, command=(), started_at="", wall_s=60.0, exit_status=9, fault="it ended so"),),
    )
    log.write_part(folder, failed)
    lines = command.listing(folder, ALL).splitlines()
    assert [line.split()[2] for line in lines[1:5]] == ["done", "left", "left", "failed"]
    assert "it ended so" in lines[4]
    assert "due at" in lines[2]
    assert lines[5] == "left: 20 min of 40 min"


def test_parts_of_unequal_cpus_are_not_compared(root):
    one, other = record_of(FIRST, "done"), record_of(LAST, "done")
    log.refuse_unequal_cpus([one, other])
    moved = msgspec.structs.replace(other, cpu=msgspec.structs.replace(other.cpu, flags=("sse",)))
    with pytest.raises(RecordError, match=r"neither pooled nor compared: first on .*; last on "):
        log.refuse_unequal_cpus([one, moved])
    log.write_part(root / "results/campaign", one)
    log.write_part(root / "results/campaign", moved)
    assert "neither pooled nor compared" in command.listing(root / "results/campaign", ALL)


# ---- processes


def test_a_command_is_shown_and_its_end_and_last_lines_are_returned(tmp_path, capfd):
    script = (
        "import sys; [print(i) for i in range(60)]; print('err', file=sys.stderr, flush=True); sys.exit(3)"
    )
    status, lines = execute.start_command([sys.executable, "-c", script], tmp_path, os.environ)
    assert (status, len(lines)) == (3, 40)
    assert {"59", "err"} <= set(lines)
    assert "59" in capfd.readouterr().out


def test_ctrl_c_reaches_a_command_once_and_it_ends_in_its_own_time(tmp_path):
    """The signal goes to this program alone, as when it comes from nox and not from the terminal."""
    waits = (
        "import sys, time, pathlib\n"
        "try:\n    pathlib.Path('ready').touch()\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(0.2)\n    pathlib.Path('ended').touch()\n"
        "    sys.exit(130)\n"
    )
    runs = (
        "import sys, os, signal\nfrom pathlib import Path\nfrom campaign.execute import start_command\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background shell has it ignored
        f"try:\n    start_command([sys.executable, '-c', {waits!r}], Path('.'), os.environ)\n"
        "except KeyboardInterrupt:\n    sys.exit(0 if Path('ended').exists() else 1)\nsys.exit(2)\n"
    )
    path = os.pathsep.join(map(str, (Path(__file__).parents[2], execute.SCRIPTS)))
    process = subprocess.Popen(
        [sys.executable, "-c", runs], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0


def burning() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if execute._BURN in child.cmdline()]


def test_a_core_is_kept_busy_beside_a_command_that_asks_for_it(root):
    beside = []

    def start(words, root, environment):
        beside.append(len(burning()))
        return 0, ()

    for name, burns in (("busy", True), ("quiet", False)):
        part = make_part(make_command(burns=burns, makes="", report=""), name=name)
        place = Place(root=root, pythons=PYTHON)
        header = log.begin(place.campaign, [part], state="s", method="m", commit="c")
        execute.run_part(part, place, header, commit="c", start=start)
        assert burning() == []
    assert beside == [1, 0]


def test_a_run_gets_the_variables_that_it_would_have_without_the_campaign():
    given = {"PYTHONPATH": os.pathsep.join([str(execute.SCRIPTS), "/mine"]), "A": "1"}
    assert execute.variables(given, ("-m", "bench")) == {"PYTHONPATH": "/mine", "A": "1"}
    assert execute.variables({"PYTHONPATH": str(execute.SCRIPTS)}, ("-m", "bench")) == {}
    assert execute.variables(given, ("-m", "campaign.validation")) == given


def test_a_command_sets_its_own_variables(root):
    given = []

    def start(words, root, environment):
        given.append((list(words[1:]), environment.get("OWN_CHOICE")))
        return 0, ()

    command = make_command(
        arguments=("OWN_CHOICE=a=b", "-m", "bench", "X=1"), resume=(), makes="", report="", pythons=()
    )
    part = make_part(command)
    place = Place(root=root, pythons={})
    header = log.begin(place.campaign, [part], state="s", method="m", commit="c")
    record = execute.run_part(part, place, header, commit="c", start=start)
    assert given == [(["-m", "bench", "X=1"], "a=b")]
    assert record.ran[0].command == ("OWN_CHOICE=a=b", "python", "-m", "bench", "X=1")


def test_only_one_process_runs_parts(tmp_path):
    with log.alone(tmp_path), pytest.raises(UsageError, match="another process"), log.alone(tmp_path):
        pass
    with log.alone(tmp_path):
        pass


def test_the_command_refuses_what_it_does_not_know(root):
    for words in (["--lits"], ["one", "two"], ["--python=torch"]):
        with pytest.raises(UsageError):
            command.main(words, root=root, parts=ALL)
    with pytest.raises(UsageError, match="needs --python=NAME=PATH for torch"):
        command.main(["first"], root=root, parts=ALL)


def test_whose_interpreters_a_part_needs_is_printed(root, capsys):
    keras = make_part(make_command(pythons=("torch", "keras-torch")), make_command(interpreter="tests"))
    command.main(["--backends", "one"], root=root, parts=[keras])
    assert capsys.readouterr().out.split() == ["torch", "keras-torch", "tests"]
    command.main(["--backends", "--list"], root=root, parts=[keras])
    assert capsys.readouterr().out == ""


def test_the_whole_command_runs_the_next_part_and_writes_the_table(root, capsys, monkeypatch):
    monkeypatch.setattr(execute, "start_command", Fake((0, True)))
    part = make_part(make_command())
    assert command.main(["--python", "torch=p"], root=root, parts=[part]) == 0
    assert "one is done" in capsys.readouterr().out
    assert "| one | reference runs | done |" in (root / "results/campaign/README.md").read_text()
    failing = make_part(make_command(), name="two")
    folder = root / "results/campaign"
    header = log.read_header(folder)
    log.write_header(folder, msgspec.structs.replace(header, plan={**header.plan, "two": failing.digest}))
    monkeypatch.setattr(execute, "start_command", Fake((2, False)))
    assert command.main(["two", "--python=torch=p"], root=root, parts=[part, failing]) == 1
    assert "two has FAILED: it ended with status 2" in capsys.readouterr().out

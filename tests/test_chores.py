"""The chores of noxfile.py: which of pip's settings uv gets, what is installed, and what `clean` clears.

Nox itself is not installed where the tests run: a stand-in takes its place.
"""

import importlib.util
import os
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from commits import ROOT, commit, git


class StoppedError(Exception):
    """What a session ends with that calls `session.error`."""


class FakeSession:
    """Notes what a session runs, and runs nothing."""

    def __init__(self, *posargs: str) -> None:
        self.posargs = list(posargs)
        self.ran: list[tuple[list[str], dict[str, str]]] = []
        self.notified: list[tuple[str, list[str]]] = []

    def run(self, *command, env=None, **kinds):
        self.ran.append(([str(word) for word in command], env or {}))

    def notify(self, target, posargs):
        self.notified.append((target, list(posargs)))

    def log(self, *said):
        pass

    def error(self, *said):
        raise StoppedError(*said)


@pytest.fixture
def chores(monkeypatch, tmp_path):
    """Return the noxfile as a module, at work in an empty folder."""
    fake = ModuleType("nox")
    fake.options, fake.Session = SimpleNamespace(), FakeSession
    fake.session = lambda function=None, **kinds: function or (lambda function: function)
    fake.parametrize = lambda *kinds: lambda function: function
    fake.project = SimpleNamespace(
        load_toml=lambda path: tomllib.loads(path.read_text()), dependency_groups=lambda *groups: []
    )
    fake.virtualenv = SimpleNamespace(HAS_UV=True, UV="/where/uv")
    fake.command = SimpleNamespace(CommandFailed=StoppedError)
    monkeypatch.setitem(sys.modules, "nox", fake)
    spec = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would leave a folder in the repository
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path / "clone")
    (tmp_path / "clone").mkdir()
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    return module


# ---- uv


def test_uv_takes_packages_from_where_pip_does(chores):
    settings = [
        ":env:.disable-pip-version-check='1'",
        ":env:.find-links='/wheels /more'",
        "global.cert='/certificates.crt'",
        "global.default-timeout='180'",
        "global.constraint='/constraints.txt'",
        "global.extra-index-url='\\nfile:///one/simple\\nhttps://two.example/simple'",
        "global.find-links='/passed/over'",
        "global.index-url='https://passed.example/over'",
        "install.index-url='https://index.example/simple'",
        "freeze.index-url='https://another.example/command'",
    ]
    assert chores.uv_variables(settings, {}) == {
        "UV_DEFAULT_INDEX": "https://index.example/simple",
        "UV_INDEX": "file:///one/simple https://two.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_CONSTRAINT": "/constraints.txt",
        "SSL_CERT_FILE": "/certificates.crt",
        "UV_HTTP_TIMEOUT": "180",
    }


def test_what_the_user_has_set_for_uv_stays(chores):
    settings = ["global.find-links='/wheels'", "global.cert='/certificates.crt'"]
    assert chores.uv_variables(settings, {"UV_FIND_LINKS": "/mine"}) == {"SSL_CERT_FILE": "/certificates.crt"}
    assert chores.uv_variables([], {}) == {}


def test_pips_own_settings_are_found(chores, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels/of/this/test")
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    assert chores.uv_environment()["UV_FIND_LINKS"] == "/wheels/of/this/test"


@pytest.mark.parametrize("compiled", [True, False])
def test_uv_installs_where_it_is_there_and_else_pip(chores, compiled, tmp_path):
    session = FakeSession()
    chores.uv_environment = lambda: {"UV_FIND_LINKS": "/wheels"}
    chores.install(session, tmp_path / "env", ["thing"], compiled=compiled)
    (made, _), (command, variables) = session.ran
    assert made[1:3] == ["-m", "venv"]
    assert command[:3] == ["/where/uv", "pip", "install"]
    assert command[-1] == "thing"
    assert ("--compile-bytecode" in command) is compiled
    assert variables == {"UV_FIND_LINKS": "/wheels"}

    session = FakeSession()
    chores.nox.virtualenv.HAS_UV = False
    chores.install(session, tmp_path / "env", ["thing"], compiled=compiled)
    command, variables = session.ran[-1]
    assert command[1:4] == ["-m", "pip", "install"]
    assert ("--no-compile" in command) is not compiled
    assert variables == {}


# ---- tests


def test_what_measures_and_what_is_alone_is_looked_for_only_in_the_files_with_that_mark(chores):
    folder = chores.ROOT / "tests" / "run"
    folder.mkdir(parents=True)
    for name, mark in (("a", "measures"), ("b", "alone"), ("c", "long")):
        (folder / f"test_{name}.py").write_text(f"pytestmark = [pytest.mark.long, pytest.mark.{mark}]\n")
    chores.cpu_environment = lambda session: Path("env")
    session = FakeSession()
    chores.tests(session)
    parts = {
        command[command.index("-m", 3) + 1]: [word for word in command if word.endswith(".py")]
        for command, _ in session.ran
    }
    assert parts == {
        "not measures and not alone": [],
        "measures": ["tests/run/test_a.py"],
        "alone": ["tests/run/test_b.py"],
    }


# ---- nightly


def test_every_night_the_tests_take_all_draws_and_the_rest_follows(chores):
    session = FakeSession()
    chores.cpu_environment = lambda session: Path("env")
    chores.nightly(session)
    assert [variables["SAMEWORK_FULL"] for _, variables in session.ran] == ["1"] * 3
    assert session.notified == [("verify", ["--mode", "all"]), ("reproduce(script='jax_39103')", [])]
    assert (ROOT / "tests" / "reproducers" / "jax_39103.py").is_file()

    session = FakeSession()
    chores.tests(session)
    assert ["SAMEWORK_FULL" in variables for _, variables in session.ran] == [False] * 3


# ---- clean

MADE = (".nox/cpu/lib/a", ".nox/lint/a", ".venv/a", ".pytest_cache/a", "results/run-1/a", "results/ab-1/a",
        "results/selftest-20260101/a", "trainings/one/a", "../data/mnist/a")  # fmt: skip
KEPT = (
    "bench/a.py",
    "results/cpu-2-core/REPORT.md",
    "results/selftest-cpu-2-core/a",
    "results/ab-kept/REPORT.md",
)


@pytest.fixture
def clone(chores):
    """Return a repository in which git tracks `KEPT`, one of which has the name of what may be cleared."""
    folder = chores.ROOT
    git(folder, "init", "-q", "-b", "main")
    for name in KEPT:
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"a" * 5000)
    commit(folder, "kept")
    for name in MADE:
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"a" * 5000)
    return folder


def left(folder: Path) -> set[str]:
    return {name for name in (*MADE, *KEPT) if (folder / name).exists()}


def test_clean_lists_and_clears_nothing_unless_it_is_named(chores, clone, capsys):
    chores.clean(FakeSession())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[:-1]] == [
        ".nox/cpu", ".nox/lint", ".venv", ".pytest_cache", "results/run-1", "results/ab-1",
        "results/selftest-20260101", "trainings/one", "data",
    ]  # fmt: skip
    assert not [line for line in lines if "cleared" in line]
    assert left(clone) == {*MADE, *KEPT}


@pytest.mark.parametrize(
    ("arguments", "cleared"),
    [
        ([".nox/lint"], {".nox/lint/a"}),
        ([".nox/"], {".nox/lint/a", ".nox/cpu/lib/a"}),
        (
            ["results", ".venv"],
            {"results/run-1/a", "results/ab-1/a", "results/selftest-20260101/a", ".venv/a"},
        ),
        (["data"], {"../data/mnist/a"}),
        (["trainings", "./.pytest_cache"], {"trainings/one/a", ".pytest_cache/a"}),
    ],
)
def test_clean_clears_what_is_named_and_nothing_else(chores, clone, arguments, cleared):
    chores.clean(FakeSession(*arguments))
    assert left(clone) == {*MADE, *KEPT} - cleared
    assert git(clone, "status", "--porcelain", "--untracked-files=no") == ""


@pytest.mark.parametrize(
    "name", ["bench", "results/ab-kept", "results/cpu-2-core", ".", "", "/", "../data", ".git"]
)
def test_clean_refuses_what_it_does_not_list_and_then_clears_nothing(chores, clone, name):
    with pytest.raises(StoppedError, match="Nothing was cleared"):
        chores.clean(FakeSession(".nox", name))
    assert left(clone) == {*MADE, *KEPT}


def test_clean_would_clear_a_tracked_folder_if_it_did_not_ask_git(chores, clone):
    chores.tracked_files = lambda root, names: []
    chores.clean(FakeSession("results/ab-kept"))
    assert {*MADE, *KEPT} - left(clone) == {"results/ab-kept/REPORT.md"}


def test_clean_asks_the_git_repository_of_the_checkout_and_no_other(chores, clone, monkeypatch, tmp_path):
    tracked = chores.tracked_files(clone, ["results"])
    assert tracked
    git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert chores.tracked_files(clone, ["results"]) == tracked


def test_clean_clears_nothing_if_git_does_not_answer(chores, clone, monkeypatch):
    (clone / ".git" / "HEAD").unlink()
    with pytest.raises(SystemExit, match=r"Nothing was cleared(.|\n)*not a git repository"):
        chores.clearable(clone, clone / "data")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit, match="Nothing was cleared"):
        chores.clearable(clone, clone / "data")


def test_clean_follows_no_link(chores, clone, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").touch()
    (clone / "results" / "run-2").symlink_to(tmp_path / "elsewhere")
    chores.clean(FakeSession("results/run-2"))
    assert not (clone / "results" / "run-2").is_symlink()
    assert (tmp_path / "elsewhere" / "a").exists()


@pytest.mark.parametrize("data", [".", "..", "bench"])
def test_data_in_or_around_the_repository_are_no_cache(chores, clone, data, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(clone / data))
    with pytest.raises(StoppedError):
        chores.clean(FakeSession("data"))
    assert left(clone) == {*MADE, *KEPT}


def test_the_environment_that_runs_nox_is_not_cleared(chores, clone, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(clone / ".nox" / "lint"))
    chores.clean(FakeSession(".nox"))
    assert {*MADE, *KEPT} - left(clone) == {".nox/cpu/lib/a"}


def test_a_file_with_two_names_counts_once(chores, clone):
    before = chores.size_of(clone / ".venv")
    os.link(clone / ".venv" / "a", clone / ".venv" / "b")
    assert chores.size_of(clone / ".venv") == before >= 5000

"""The chores of noxfile.py: which Python is used, what is installed from where, and what `clean` clears.

Nox itself is not installed where the tests run: a stand-in takes its place.
"""

import http.server
import importlib.util
import os
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from commits import ROOT, commit, git
from test_project import PYTHONS


class StoppedError(Exception):
    """What a session ends with that calls `session.error`."""


class FakeSession:
    """Notes what a session runs, and runs nothing."""

    def __init__(self, *posargs: str) -> None:
        self.posargs = list(posargs)
        self.python: str | bool = False
        self.bin = ""
        self.said: list[str] = []
        self.ran: list[tuple[list[str], dict[str, str]]] = []
        self.notified: list[tuple[str, list[str]]] = []

    def run(self, *command, env=None, **kinds):
        self.ran.append(([str(word) for word in command], env or {}))

    def notify(self, target, posargs):
        self.notified.append((target, list(posargs)))

    def log(self, said):
        self.said.append(said)

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
    lines = [
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
    assert chores.uv_variables(chores.parse_settings(lines), {}) == {
        "UV_DEFAULT_INDEX": "https://index.example/simple",
        "UV_INDEX": "file:///one/simple https://two.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_CONSTRAINT": "/constraints.txt",
        "SSL_CERT_FILE": "/certificates.crt",
        "UV_HTTP_TIMEOUT": "180",
    }


def test_what_the_user_has_set_for_uv_stays(chores):
    settings = {"find-links": ["/wheels"], "cert": ["/certificates.crt"]}
    assert chores.uv_variables(settings, {"UV_FIND_LINKS": "/mine"}) == {"SSL_CERT_FILE": "/certificates.crt"}
    assert chores.uv_variables({}, {}) == {}


def test_pips_own_settings_are_found(chores, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels/of/this/test")
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    assert chores.package_sources()["UV_FIND_LINKS"] == "/wheels/of/this/test"


@pytest.mark.parametrize("compiled", [True, False])
def test_uv_installs_where_it_is_there_and_else_pip(chores, compiled, tmp_path):
    session = FakeSession()
    chores.pip_settings = lambda: {"find-links": ["/wheels"]}
    chores.install(session, tmp_path / "env", ["jax"], [], compiled=compiled)
    (made, _), (command, variables) = session.ran
    assert made[1:] == ["-m", "venv", str(tmp_path / "env")]
    assert command[:3] == ["/where/uv", "pip", "install"]
    assert command[-1] == ".[jax]"
    assert ("--compile-bytecode" in command) is compiled
    assert variables == {"UV_FIND_LINKS": "/wheels"}

    session = FakeSession()
    chores.nox.virtualenv.HAS_UV = False
    chores.install(session, tmp_path / "env", ["jax"], [], compiled=compiled)
    command, _ = session.ran[-1]
    assert command[1:4] == ["-m", "pip", "install"]
    assert ("--no-compile" in command) is not compiled


# ---- the index of builds without CUDA


def wheel(folder: Path, version: str) -> None:
    """Write a wheel without modules, of the distribution `tiny`."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"tiny-{version}.dist-info"
    with zipfile.ZipFile(folder / f"tiny-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


class Silent(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, whose listing is an index as PEP 503 describes it."""

    def log_message(self, *said):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch) -> Iterator[str]:
    """Return the address of a server with a registry's index and an index of builds for the CPU."""
    wheel(tmp_path / "served" / "registry" / "tiny", "1.0")
    wheel(tmp_path / "served" / "cpu" / "tiny", "1.0+cpu")
    monkeypatch.setenv("no_proxy", "*")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=tmp_path / "served"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("index", "build"), [("cpu", "1.0+cpu"), (None, "1.0")])
def test_pip_takes_the_build_for_the_cpu_from_its_index(chores, served, index, build, tmp_path):
    chores.pip_settings = dict
    sources = chores.package_sources(index and f"{served}/{index}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{served}/registry"}
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(tmp_path / "got"), "tiny==1.0"],
        check=True, env=environment | sources, timeout=300,
    )  # fmt: skip
    assert [path.name for path in (tmp_path / "got").iterdir()] == [f"tiny-{build}-py3-none-any.whl"]


def test_an_index_is_added_to_those_that_are_configured(chores, monkeypatch):
    monkeypatch.delenv("UV_INDEX", raising=False)
    chores.pip_settings = lambda: {"extra-index-url": ["https://mine.example/simple"]}
    both = "https://mine.example/simple https://cpu.example"
    assert chores.package_sources("https://cpu.example") == {
        "PIP_EXTRA_INDEX_URL": both, "UV_INDEX": both, "UV_INDEX_STRATEGY": "unsafe-best-match",
    }  # fmt: skip
    monkeypatch.setenv("UV_INDEX", "https://uv.example")
    sources = chores.package_sources("https://cpu.example")
    assert sources["UV_INDEX"] == "https://uv.example https://cpu.example"
    assert sources["UV_INDEX_STRATEGY"] == "unsafe-best-match"


@pytest.mark.parametrize(
    ("index", "settings", "platform", "taken", "said"),
    [
        ("cpu", {}, "linux", True, []),
        ("elsewhere", {}, "linux", False, ["File not found"]),
        ("cpu", {"no-index": ["true"]}, "linux", False, []),
        ("cpu", {}, "darwin", False, []),
    ],
)
def test_the_index_is_taken_where_it_answers(
    chores, served, monkeypatch, tmp_path, *, index, settings, platform, taken, said
):
    (tmp_path / "served" / "cpu" / "torch").mkdir()
    monkeypatch.setattr(sys, "platform", platform)
    chores.CPU_INDEX = f"{served}/{index}"
    chores.pip_settings = lambda: settings
    session = FakeSession()
    assert chores.cpu_index(session) == (chores.CPU_INDEX if taken else None)
    assert len(session.said) == len(said)
    for line, part in zip(session.said, said, strict=True):
        assert line.startswith(f"{chores.CPU_INDEX} cannot be reached (")
        assert part in line
        assert "\n" not in line


def test_an_index_that_does_not_answer_is_not_waited_for(chores, monkeypatch):
    chores.pip_settings = dict
    monkeypatch.setenv("no_proxy", "*")
    with http.server.HTTPServer(("127.0.0.1", 0), Silent) as server:  # it accepts, and nothing serves
        address = f"http://127.0.0.1:{server.server_port}/"
        chores.CPU_INDEX_LIMIT_S = 1
        assert chores.why_unreachable(address) == "no answer within 1 s"
    chores.CPU_INDEX_LIMIT_S = 60
    assert "refused" in chores.why_unreachable(address)


@pytest.mark.parametrize(
    ("extras", "asked"),
    [(["torch"], True), (["keras", "torch"], True), (["torch-gpu"], False), (["jax"], False)],
)
def test_only_pytorch_on_the_cpu_needs_the_index(chores, extras, asked, tmp_path):
    session = FakeSession()
    chores.pip_settings = dict
    chores.cpu_index = lambda session: "https://cpu.example"
    chores.import_error = lambda python, module: None
    chores.install(session, tmp_path / "env", extras, [])
    assert ("PIP_EXTRA_INDEX_URL" in session.ran[1][1]) is asked


@pytest.mark.parametrize("gpu", ["0", "1"])
def test_other_versions_of_pytorch_come_from_the_index_too(chores, gpu, monkeypatch):
    monkeypatch.setenv("BENCH_GPU", gpu)
    chores.pip_settings = lambda: {"find-links": ["/wheels"]}
    chores.cpu_index = lambda session: "https://cpu.example"
    chores.prepare = lambda session, name, **what: chores.ROOT / name
    session = FakeSession("--base", "torch==2.12.0")
    chores.regression(session)
    command, variables = session.ran[-1]
    assert command[1] == "ab"
    assert variables == ({} if gpu == "1" else {"PIP_EXTRA_INDEX_URL": "https://cpu.example"})


# ---- torchvision


@pytest.mark.parametrize("extra", ["torch", "torch-gpu"])
@pytest.mark.parametrize("reason", [None, "RuntimeError: operator torchvision::nms does not exist"])
def test_a_torchvision_that_does_not_load_is_left_out_with_the_reason(chores, extra, reason, tmp_path):
    session = FakeSession()
    chores.cpu_index = lambda session: None
    chores.import_error = lambda python, module: reason
    chores.install(session, tmp_path / "env", [extra], [])
    removed = [command[1:] for command, _ in session.ran if "uninstall" in command]
    said = [line for line in session.said if line.startswith("torchvision is left out")]
    if reason is None:
        assert removed == said == []
    else:
        assert removed == [["-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"]]
        assert len(said) == 1
        assert reason in said[0]


def test_why_a_module_cannot_be_imported(chores):
    assert chores.import_error(sys.executable, "json") is None
    reason = chores.import_error(sys.executable, "no_such_module")
    assert reason == "ModuleNotFoundError: No module named 'no_such_module'"


# ---- the interpreter


def stand_in(path: Path, version: str | None) -> Path:
    """Write a stand-in for Python that prints a version; None fails, as pyenv's do unless they are chosen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{version} (main)'\n" if version else "#!/bin/sh\nexit 127\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def pythons(chores, tmp_path, monkeypatch):
    """Return a function that sets the version of nox's own Python, and writes those that can be found."""

    def write(own: str, found: dict[str, str | None]) -> None:
        monkeypatch.setenv("PATH", f"{tmp_path / 'first'}{os.pathsep}{tmp_path / 'second'}")
        monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
        for place, version in found.items():
            stand_in(tmp_path / place, version)
        monkeypatch.setattr(sys, "version", f"{own} (main)")

    return write


FOUND = {
    "first/python3.13": None,
    "second/python3.12": "3.12.4",
    "pyenv/versions/3.13.0/bin/python3.13": "3.13.0",
    "second/python3.10": "3.10.1",
}


@pytest.mark.parametrize(
    ("own", "found", "chosen"),
    [
        ("3.14.0", FOUND, "pyenv/versions/3.13.0/bin/python3.13"),
        ("3.10.2", {**FOUND, "second/python3.13": "3.13.7"}, "second/python3.13"),
        ("3.14.0", {"second/python3.12": "3.12.4", "first/python3.11": "3.11.2"}, "second/python3.12"),
    ],
)
def test_where_nox_runs_on_a_python_without_builds_another_is_found(
    chores, pythons, tmp_path, *, own, found, chosen
):
    pythons(own, found)
    session = FakeSession()
    assert chores.find_interpreter(session).path == str(tmp_path / chosen)
    assert len(session.said) == 1
    assert session.said[0].startswith(f"Nox runs on Python {own[:4]}; ")
    assert session.said[0].endswith(f"use {tmp_path / chosen}, Python {found[chosen]}.")


@pytest.mark.parametrize("own", ["3.11.2", "3.12.1", "3.13.0"])
def test_a_python_with_builds_is_used_as_it_is(chores, pythons, own):
    pythons(own, FOUND)
    session = FakeSession()
    assert chores.find_interpreter(session).path == sys.executable
    assert session.said == []


def test_without_a_python_that_fits_the_error_says_what_to_do(chores, pythons):
    pythons("3.14.0", {"second/python3.10": "3.10.1", "first/python3.13": None})
    with pytest.raises(StoppedError, match=r"builds for Python 3\.13, 3\.12 and 3\.11\. .*Install one"):
        chores.find_interpreter(FakeSession())


@pytest.mark.parametrize(("forced", "fits"), [("3.12.9", True), ("3.10.1", False), (None, False)])
def test_the_python_that_nox_is_told_to_use_is_used(chores, pythons, forced, fits, tmp_path):
    pythons("3.11.2", {"bin/python": forced})
    session = FakeSession()
    session.python, session.bin = "3.12", str(tmp_path / "bin")
    if fits:
        assert chores.find_interpreter(session).path == str(tmp_path / "bin" / "python")
    else:
        with pytest.raises(StoppedError, match=r"Python 3\.12 does not fit"):
            chores.find_interpreter(session)


def test_the_frameworks_are_pinned_on_each_python_that_fits(chores):
    assert set(chores.PYTHONS) == set(PYTHONS)


def test_the_real_python_can_be_asked(chores):
    assert chores.ask_interpreter(Path(sys.executable)) == (sys.executable, sys.version)


@pytest.mark.parametrize(("config", "clear"), [("3.11.7", True), ("3.12.9", False), (None, False)])
def test_an_environment_of_another_python_is_made_anew(chores, pythons, config, clear, tmp_path):
    pythons("3.12.1", {})
    if config is not None:
        (tmp_path / "env").mkdir()
        (tmp_path / "env" / "pyvenv.cfg").write_text(f"home = /bin\nversion = {config}\n")
    session = FakeSession()
    chores.install(session, tmp_path / "env", [], [])
    assert ("--clear" in session.ran[0][0]) is clear


def test_an_environment_is_installed_again_for_another_python(chores, pythons):
    made = []
    chores.install = lambda session, environment, *what, **how: made.append(environment.mkdir(parents=True))
    pythons("3.12.1", {})
    chores.prepare(FakeSession(), "harness")
    chores.prepare(FakeSession(), "harness")
    assert len(made) == 1
    pythons("3.13.0", {})
    (chores.ROOT / ".nox" / "harness" / "installed.sha256").rename(chores.ROOT / "stamp")
    (chores.ROOT / ".nox" / "harness").rmdir()
    chores.prepare(FakeSession(), "harness")
    assert len(made) == 2
    assert (chores.ROOT / ".nox/harness/installed.sha256").read_text() != (chores.ROOT / "stamp").read_text()


# ---- a GPU


@pytest.mark.parametrize("gpu", [True, False])
def test_a_gpu_is_examined_before_a_framework_is_installed(chores, gpu):
    session = FakeSession("--budget=5m", "--gpu", "1")
    chores.prepare = lambda session, name, **what: session.run("install", name) or chores.ROOT / name
    chores.framework_pythons(session, ["tensorflow", "jax"], gpu=gpu)
    commands = [" ".join(command) for command, _ in session.ran]
    if gpu:
        assert commands.pop(0).endswith(
            "harness/bin/bench doctor --before-install --backend=tensorflow --backend=jax --gpu=1"
        )
    kind = "gpu" if gpu else "cpu"
    assert commands == [f"install {kind}-tensorflow", f"install {kind}-jax"]


# ---- a run that was interrupted


@pytest.mark.parametrize(
    ("given", "begin"),
    [
        ((), ["--preset", "quick", "--device", "cpu"]),
        (("--budget", "5m"), ["--preset", "quick", "--device", "cpu"]),
        (("--resume", "run-1"), []),
        (("--resume=run-1",), []),
    ],
)
def test_a_run_is_resumed_with_the_environments_and_no_other_options(chores, monkeypatch, given, begin):
    monkeypatch.setenv("BENCH_GPU", "0")
    session = FakeSession(*given)
    chores.prepare = lambda session, name, **what: chores.ROOT / ".nox" / name
    chores.bench(session)
    ((command, _),) = session.ran
    python = str(Path("bin/python"))
    pythons = [
        word
        for name in ("tensorflow", "torch", "jax")
        for word in ("--python", f"{name}=.nox/cpu-{name}/{python}")
    ]
    assert command[1:] == ["run", *begin, *pythons, *given]


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

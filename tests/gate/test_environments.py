"""The code of a commit and the environment of a side: made once, whole or not at all, and named where not."""

import errno
import os
import sys
from pathlib import Path

import pytest
from commits import commit, git, make_repository
from conftest import INFOS

from bench.errors import UnavailableError, UsageError
from bench.gate import environments
from bench.gate.environments import (
    concerned,
    copy_code,
    fetch_code,
    holds_pinned,
    make_environment,
    needs_own,
)
from bench.gate.sides import SideSpec

PYPROJECT = '[project]\nname = "x"\nversion = "1"\ndependencies = ["numpy"]\n'


class Quiet:
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a repository with two commits that stands in for this one."""
    folder = tmp_path / "project"
    (folder / "bench").mkdir(parents=True)
    (folder / "results").mkdir()
    git(folder, "init", "-q", "-b", "main")
    for version in ("1", "2"):
        (folder / "bench" / "code.py").write_text(f"VERSION = {version}\n")
        (folder / "results" / "large").write_text("raw values")
        (folder / "pyproject.toml").write_text(PYPROJECT)
        (folder / "constraints.txt").write_text("numpy==2.0\ntorch==2.13.0\ntorchvision==0.28.0\n")
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", version)
    monkeypatch.setattr(environments, "PROJECT", folder)
    return folder


def test_the_code_of_a_commit_is_fetched_once(project, tmp_path):
    kept = tmp_path / "code"
    kept.mkdir()
    code, commit = fetch_code("main~1", kept)
    assert commit == git(project, "rev-parse", "main~1")
    assert (code / "bench" / "code.py").read_text() == "VERSION = 1\n"
    assert not (code / "results").exists()
    (code / "mark").touch()
    assert (fetch_code(commit, kept)[0] / "mark").exists()


def test_a_fetch_that_was_cut_short_is_not_taken_for_a_whole_one(project, tmp_path):
    kept = tmp_path / "code"
    commit = git(project, "rev-parse", "main")
    (kept / f"{commit}.part").mkdir(parents=True)
    (kept / f"{commit}.part" / "half").touch()
    code, _ = fetch_code("main", kept)
    assert not (code / "half").exists()
    assert (code / "bench" / "code.py").exists()


@pytest.mark.parametrize("revision", ["nonsense", "--output=hacked", "main:bench/code.py"])
def test_a_revision_that_is_none_is_refused(project, tmp_path, revision):
    with pytest.raises(UsageError, match="is not a revision"):
        fetch_code(revision, tmp_path)


def test_a_checkout_that_git_cannot_read_is_named_with_the_revision(project, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(UnavailableError, match=r"^the revision .* cannot be read: git is not installed"):
        fetch_code("HEAD~1", tmp_path / "code")
    assert not (tmp_path / "code").exists()


def test_the_code_of_another_repository_is_not_unpacked(project, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q", "-b", "main")
    (other / "stranger").touch()
    git(other, "add", ".")
    git(other, "commit", "-q", "-m", "1")
    own = git(project, "rev-parse", "main")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    code, commit = fetch_code("main", tmp_path / "code")
    assert commit == own
    assert not (code / "stranger").exists()


def test_only_other_packages_need_an_environment_of_their_own(project, tmp_path):
    same = tmp_path / "same"
    same.mkdir()
    for name in ("pyproject.toml", "constraints.txt"):
        (same / name).write_bytes((project / name).read_bytes())
    assert not needs_own(SideSpec(), same)
    assert needs_own(SideSpec(pins={"torch": "2.12.0"}), same)
    (same / "pyproject.toml").write_text(PYPROJECT + "[tool.ruff]\nline-length = 1\n")
    assert not needs_own(SideSpec(), same)
    (same / "constraints.txt").write_text("numpy==2.1\n")
    assert needs_own(SideSpec(), same)


@pytest.mark.parametrize(
    ("pin", "backends"),
    [
        ("torch", {"torch", "keras-torch"}),
        ("jaxlib", {"jax", "keras-jax"}),
        ("flax", {"jax"}),
        ("tensorflow-cpu", {"tensorflow", "keras-tensorflow"}),
        ("numpy", {"numpy"}),
        ("scipy", set(INFOS)),
    ],
)
def test_a_version_concerns_the_backends_that_need_it_else_all(pin, backends):
    assert set(concerned(SideSpec(pins={pin: "1"}), INFOS)) == backends


@pytest.fixture
def pip(monkeypatch):
    """Return the commands that are run in place of venv and pip, which make nothing but the folder."""
    commands = []

    def run(command, what):
        commands.append(command)
        if "venv" in command:
            (Path(command[-1]) / "bin").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(environments, "_run", run)
    return commands


def test_an_environment_holds_what_is_asked_and_is_made_once(project, tmp_path, pip):
    spec, display = SideSpec(pins={"torch": "2.12.0"}), Quiet()
    python = make_environment(spec, project, "torch", "cpu", folder=tmp_path, display=display)
    assert python == python.parent.parent / "bin" / "python"
    assert all(command[1] == "-P" for command in pip)  # a json.py in the current folder hides nothing
    install = pip[-1]
    assert install[-2:] == [f"{project}[torch]", "torch==2.12.0"]
    # Neither torch nor its kin is held to the version that is pinned for this code.
    assert (python.parent.parent / "constraints.txt").read_text() == "numpy==2.0\n"
    assert "Installing torch torch==2.12.0" in display.said[0]
    count = len(pip)
    assert make_environment(spec, project, "torch", "cpu", folder=tmp_path, display=display) == python
    assert len(pip) == count
    other = SideSpec(pins={"torch": "2.11.0"})
    assert make_environment(other, project, "torch", "cpu", folder=tmp_path, display=display) != python


def test_a_backend_of_two_parts_and_a_gpu_have_their_extras(project, tmp_path, pip):
    make_environment(SideSpec(), project, "keras-torch", "cpu", folder=tmp_path, display=Quiet())
    assert pip[-1][-1] == f"{project}[keras,torch]"
    make_environment(SideSpec(), project, "torch", "gpu", folder=tmp_path, display=Quiet())
    assert pip[-1][-1] == f"{project}[torch-gpu]"


def test_an_installation_that_was_cut_short_is_made_anew(project, tmp_path, monkeypatch, pip):
    whole = environments._run

    def interrupted(command, what):
        if "pip" in command:
            raise KeyboardInterrupt
        whole(command, what)

    monkeypatch.setattr(environments, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_environment(SideSpec(), project, "torch", "cpu", folder=tmp_path, display=Quiet())
    monkeypatch.setattr(environments, "_run", whole)
    make_environment(SideSpec(), project, "torch", "cpu", folder=tmp_path, display=Quiet())
    assert "pip" in pip[-1]


def test_what_cannot_be_installed_is_said_in_a_line():
    script = "import sys; print('ERROR: no such version\\nmore', file=sys.stderr); sys.exit(1)"
    with pytest.raises(UnavailableError, match=r"torch torch==9 could not be installed: no such version\."):
        environments._run([sys.executable, "-c", script], "torch torch==9")


def test_a_full_disk_is_named_whoever_met_it(project, tmp_path, monkeypatch):
    def pip(command, what):
        raise UnavailableError("torch could not be installed: [Errno 28] No space left on device.")

    monkeypatch.setattr(environments, "_run", pip)
    with pytest.raises(
        UnavailableError, match=r"No space left on device \(.* are free\)\. Name .*--environments"
    ):
        make_environment(SideSpec(), project, "torch", "cpu", folder=tmp_path, display=Quiet())


def test_without_a_checkout_no_environment_is_made(tmp_path):
    with pytest.raises(UsageError, match="--python NAME=PATH"):
        make_environment(SideSpec(), tmp_path, "torch", "cpu", folder=tmp_path, display=Quiet())


def test_code_that_cannot_be_put_in_place_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    repository = make_repository(tmp_path / "repository")
    commit(repository, "base")
    monkeypatch.setattr(environments, "PROJECT", repository)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UnavailableError, match="the code of 'base' cannot be put into"):
        fetch_code("base", tmp_path / "file")
    code, _ = fetch_code("base", tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [code.name]


def test_code_that_does_not_fit_leaves_no_part(project, tmp_path, monkeypatch):
    def full(self, path, filter):
        path.mkdir()
        (path / "half").touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(environments.tarfile.TarFile, "extractall", full)
    with pytest.raises(
        UnavailableError, match=r"No space left on device \(.* are free\)\. Name another folder"
    ):
        fetch_code("main", tmp_path / "code")
    assert list((tmp_path / "code").iterdir()) == []


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ({"torch": "2.13.0"}, True),
        ({"torch": "2.13.0+cpu", "numpy": "2.0"}, True),
        ({"torch": "2.14.0a0+gitfe1"}, False),
        ({"torch": "2.13.0", "numpy": "2.1"}, False),
        ({"nvidia_ml_py": "13.1"}, True),
        ({"jax": "0.9.2"}, False),
        ({"unpinned": "1"}, False),
        ({}, False),
    ],
)
def test_an_interpreter_is_replaced_only_by_one_with_the_same_versions(project, versions, expected):
    (project / "constraints.txt").write_text(
        "# a comment\n--index-url https://example.org\nnumpy==2.0\ntorch==2.13.0\nNvidia-ML-py==13.1\n"
        'jax==0.10.1; python_version >= "3"\njax==0.9.2; python_version < "3"\n'
    )
    assert holds_pinned(versions, project) == expected


def test_a_copy_of_code_has_the_packages_of_workers_without_bytecode(project, tmp_path):
    cache = project / "bench" / "__pycache__"
    cache.mkdir()
    (cache / "code.cpython-311.pyc").touch()
    place = copy_code(project, tmp_path / "place" / "base")
    assert sorted(path.name for path in place.rglob("*")) == ["bench", "code.py"]


def test_code_that_cannot_be_copied_is_an_error_with_what_to_do(project, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match=r"cannot be copied to .*file/base: .* TMPDIR"):
        copy_code(project, tmp_path / "file" / "base")
    (project / "bench" / "gone.py").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UnavailableError, match=r"cannot be copied to .*: .*No such file"):
        copy_code(project, tmp_path / "place")

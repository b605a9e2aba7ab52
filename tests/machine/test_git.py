"""Every reason why git does not answer has its remedy, and no variable leads to another repository."""

import os
import shutil
from pathlib import Path

import pytest
from commits import git as run_git

from bench.errors import UnavailableError, UsageError
from bench.machine import git
from bench.machine.environment import source_state


def make(folder: Path, *, commits: int = 2) -> Path:
    """Return a repository with a file `number` that each commit changes."""
    folder.mkdir(parents=True)
    run_git(folder, "init", "-q", "-b", "main")
    for number in range(commits):
        (folder / "number").write_text(str(number))
        run_git(folder, "add", ".")
        run_git(folder, "commit", "-q", "-m", str(number))
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make(tmp_path / "project")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return make(tmp_path / "other")


def refusal(folder: Path, revision: str = "HEAD~1") -> str:
    """Return what is said in place of the commit, which must be one line."""
    with pytest.raises((UsageError, UnavailableError)) as caught:
        git.find_commit(folder, revision)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_revision_is_found(project: Path) -> None:
    commit = run_git(project, "rev-parse", "main~1")
    assert git.find_commit(project, "HEAD~1") == commit
    assert git.find_commit(project, commit[:10]) == commit


def test_a_revision_that_does_not_exist_is_no_matter_of_history(project: Path) -> None:
    said = refusal(project, "nonsense")
    assert f"'nonsense' is not a revision of the repository in {project}." in said
    assert "git branch --all" in said
    assert "fetch-depth" not in said
    assert "HEAD~5" in refusal(project, "HEAD~5")


def test_what_git_says_of_a_revision_is_passed_on(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = 'echo "error: short object ID 12ab is ambiguous" >&2; echo "fatal: Needed a single revision" >&2'
    script = f"case $4 in --show-toplevel) echo {project};; --verify) {said}; exit 128;; *) echo false;; esac"
    (tmp_path / "git").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert "(git: short object ID 12ab is ambiguous)." in refusal(project, "12ab")


def test_a_shallow_clone_is_told_as_such(project: Path, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    run_git(tmp_path, "clone", "-q", "--depth", "1", project.as_uri(), str(shallow))
    assert git.find_commit(shallow, "HEAD") == run_git(project, "rev-parse", "main")
    said = refusal(shallow)
    assert "shallow clone" in said
    assert "git fetch --unshallow" in said
    assert "fetch-depth: 0" in said


def test_a_repository_without_commits_is_told_as_such(tmp_path: Path) -> None:
    assert "no commit yet" in refusal(make(tmp_path / "new", commits=0), "HEAD")


def test_a_folder_that_is_no_checkout_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert "plain is not a checkout by git" in refusal(tmp_path / "plain")


def test_a_folder_inside_another_checkout_is_not_taken_for_it(other: Path) -> None:
    """As a package that is installed into an environment below somebody's repository."""
    inner = other / "site-packages"
    inner.mkdir()
    assert "site-packages is not a checkout by git" in refusal(inner)


def test_the_checkout_of_another_user_is_named_with_its_remedy(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own way to test this
    assert git.variables()["LC_ALL"] == "C"  # what git says is looked at
    said = refusal(project)
    remedy = f"git config --global --add safe.directory {project}"
    assert said.endswith(f"belongs to another user. If you trust its content, run: {remedy}")
    assert git.why_unread(project) == said
    assert source_state(project) == (None, None)
    assert os.system(remedy) == 0  # noqa: S605
    assert git.find_commit(project, "HEAD")
    assert git.why_unread(project) is None


def test_a_ci_may_call_a_checkout_safe_by_variables(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    for name, value in {"COUNT": "1", "KEY_0": "safe.directory", "VALUE_0": "*"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    assert git.find_commit(project, "HEAD")
    assert source_state(project) == (git.find_commit(project, "HEAD"), False)


def test_a_machine_without_git_is_told_as_such(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(project) == "git is not installed, or not on the PATH. Install git."
    assert git.why_unread(project) == refusal(project)
    (tmp_path / "git").write_text("#!/bin/sh\necho xcrun: no developer tools >&2; exit 1\n")
    (tmp_path / "git").chmod(0o755)
    assert refusal(project) == f"git cannot read the repository in {project}: xcrun: no developer tools."


@pytest.mark.parametrize("names", [("GIT_DIR",), ("GIT_DIR", "GIT_WORK_TREE"), ("GIT_DIR", "GIT_INDEX_FILE")])
def test_variables_that_lead_to_another_repository_are_not_followed(
    names: tuple[str, ...], project: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (other / "number").write_text("of the other")
    run_git(other, "commit", "-q", "-a", "-m", "another")
    before = git.find_commit(project, "main"), git.archive(project, "main", without=())
    places = {"GIT_DIR": ".git", "GIT_WORK_TREE": ".", "GIT_INDEX_FILE": ".git/index"}
    for name in names:
        monkeypatch.setenv(name, str(other / places[name]))
    assert (git.find_commit(project, "main"), git.archive(project, "main", without=())) == before
    assert source_state(project) == (before[0], False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GIT_OBJECT_DIRECTORY", "/no/such"), ("GIT_COMMON_DIR", "/no/such"), ("GIT_NAMESPACE", "x"),
        ("GIT_CEILING_DIRECTORIES", "/"), ("GIT_LITERAL_PATHSPECS", "1"), ("GIT_INDEX_FILE", "/no/such"),
    ],
)  # fmt: skip
def test_no_variable_changes_what_is_read(
    name: str, value: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = git.find_commit(project, "main"), git.archive(project, "main", without=("results",))
    monkeypatch.setenv(name, value)
    assert (git.find_commit(project, "main"), git.archive(project, "main", without=("results",))) == before


def test_every_variable_that_git_counts_as_local_to_a_repository_is_dropped_or_a_setting() -> None:
    local = set(run_git(Path(), "rev-parse", "--local-env-vars").split())
    assert len(local) > 10
    assert {name for name in local - git.REDIRECTING if not name.startswith("GIT_CONFIG")} == set()


def test_a_damaged_repository_is_told_in_gits_words(project: Path) -> None:
    shutil.rmtree(project / ".git" / "objects")
    assert "git cannot read the repository" in refusal(project) or "not a revision" in refusal(project)
    (project / ".git" / "HEAD").unlink()
    assert f"git cannot read the repository in {project}: not a git repository" in refusal(project)

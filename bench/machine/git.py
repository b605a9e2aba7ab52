"""Ask git about a checkout, and say in words why it does not answer.

Git looks for its repository first in variables such as `GIT_DIR`, which a git hook sets. They would lead to
another repository, so git gets none of them here.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path

from bench.errors import UnavailableError, UsageError

REDIRECTING = frozenset(
    {
        "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_CEILING_DIRECTORIES", "GIT_PREFIX",
        "GIT_IMPLICIT_WORK_TREE", "GIT_INTERNAL_SUPER_PREFIX", "GIT_GRAFT_FILE", "GIT_SHALLOW_FILE",
        "GIT_REPLACE_REF_BASE", "GIT_NO_REPLACE_OBJECTS", "GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS",
        "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS", "GIT_ATTR_SOURCE",
    }
)  # fmt: skip
"""Variables that change which repository, commits or paths git reads. Settings, such as `GIT_CONFIG_COUNT`,
stay: a CI may declare with them that a checkout is safe."""
_DISTRUSTED = re.compile(r"dubious ownership|unsafe repository")
_REMEDY = re.compile(r"^\s*(git config --global --add safe\.directory .+?)\s*$", re.MULTILINE)
_LIMIT_S = 60.0
_UNKNOWN = ("Needed a single revision", "unknown revision", "bad revision")
"""Git's messages about a name that it does not know. They would not help a user."""


def variables() -> dict[str, str]:
    """Return the environment variables for git: it reads the repository of its folder and speaks English."""
    kept = {name: value for name, value in os.environ.items() if name not in REDIRECTING}
    # `git status` must not take the lock that a user's `git add` is waiting for. Nobody answers a prompt.
    return kept | {"LC_ALL": "C", "LANGUAGE": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


class GitError(UnavailableError):
    """Git cannot be run, or it failed; `said` is what it wrote on standard error."""

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said


def ask(folder: Path, *arguments: str, limit_s: float | None = _LIMIT_S) -> bytes:
    """Return what git answers in a folder; raise GitError, with the cause and its remedy, if it fails."""
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=limit_s, env=variables(),
        ).stdout  # fmt: skip
    except FileNotFoundError as error:
        raise GitError("git is not installed, or not on the PATH. Install git.") from error
    except OSError as error:
        raise GitError(f"git cannot be run: {error.strerror}.") from error
    except subprocess.TimeoutExpired as error:
        raise GitError(f"git did not answer within {error.timeout:.0f} s in {folder}.") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace")
        raise GitError(_in_words(folder, said, error.returncode), said) from error


def _in_words(folder: Path, said: str, status: int) -> str:
    if _DISTRUSTED.search(said):
        remedy = _REMEDY.search(said)
        command = (
            remedy[1] if remedy else f"git config --global --add safe.directory {shlex.quote(str(folder))}"
        )
        return (
            f"git does not read {folder}, because the folder belongs to another user. If you trust its "
            f"content, run: {command}"
        )
    return f"git cannot read the repository in {folder}: {_quoted(said) or f'it ended with status {status}'}."


def _quoted(said: str) -> str:
    """Return the first error in what git wrote on standard error, without a full stop."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("error:", "fatal:"))]
    return (errors or lines or [""])[0].partition(": ")[2].rstrip(".") if errors else " ".join(lines[-1:])


def refuse_other(folder: Path) -> None:
    """Raise UsageError if a folder is not the root of a checkout, and GitError if git cannot read it.

    A package that is installed below another project's checkout must not be taken for that project.
    """
    try:
        top = os.fsdecode(ask(folder, "rev-parse", "--show-toplevel")).rstrip("\n")
    except GitError as error:
        if (folder / ".git").exists() or "not a git repository" not in error.said:
            raise
        top = ""
    if not top or Path(top).resolve() != folder.resolve():
        raise UsageError(
            f"{folder} is not a checkout by git, so it has no revisions. Clone the repository with git, or "
            "compare versions (torch==2.13.0) or variables (OMP_NUM_THREADS=1)."
        )


def find_commit(folder: Path, revision: str) -> str:
    """Return the commit that a revision names in a checkout.

    Raises UsageError if there is none, and GitError if git cannot read the checkout.
    """
    refuse_other(folder)
    try:
        found = ask(folder, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except GitError as error:
        raise UsageError(_unknown_revision(folder, revision, error)) from error
    return found.decode().strip()


def _unknown_revision(folder: Path, revision: str, error: GitError) -> str:
    quoted = _quoted(error.said)
    why = f" (git: {quoted})" if quoted and not any(words in quoted for words in _UNKNOWN) else ""
    if ask(folder, "rev-parse", "--is-shallow-repository").strip() == b"true":
        return (
            f"{revision!r} is not a revision of the repository in {folder}, which is a shallow clone without "
            f"older commits{why}. Fetch them: git fetch --unshallow. In CI, check out with fetch-depth: 0."
        )
    if not ask(folder, "rev-list", "--all", "--max-count=1").strip():
        return f"{revision!r} is not a revision of the repository in {folder}, which has no commit yet."
    return (
        f"{revision!r} is not a revision of the repository in {folder}{why}. Its commits: git log --oneline. "
        "Its branches: git branch --all. Those of a server have to be fetched: git fetch."
    )


def archive(folder: Path, commit: str, *, without: tuple[str, ...]) -> bytes:
    """Return the files of a commit as a tar archive, without some folders; raise GitError if git fails."""
    excluded = (f":(exclude){name}" for name in without)
    return ask(folder, "archive", "--format=tar", commit, "--", ".", *excluded, limit_s=None)


def why_unread(folder: Path) -> str | None:
    """Return why git does not tell the commit of a checkout; None if it does, or if the folder is none."""
    if not (folder / ".git").exists():
        return None
    try:
        refuse_other(folder)
    except (GitError, UsageError) as error:
        return str(error)
    return None

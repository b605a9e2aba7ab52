"""The workflows as a runner would run them: every step of their files, as shell, on commits of this program.

Scripts and commands are real. Stand-ins take the place of what installs, and of nox, which here runs the
command on the reference and the shipped sample. Its workers are played (tests/played.py), at the pace that
the code of each commit sets.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from commits import ROOT, commit, git, make_repository, set_pace
from fakes import TESTS, program
from sides_by_side import make_ab, make_block, proven

from bench.gate.records import append_ab, create_ab

pytestmark = [pytest.mark.measures, pytest.mark.long]

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FAST = "--device cpu --sample --backend numpy --workload mnist-softmax"
NOX = f"""# Instead of nox: -s SESSION -- OPTIONS. Whatever the command's status, nox ends with 0 or 1.
session=$2; shift 3
case $session in
    regression) bench ab {FAST} --blocks 4 --most-blocks 4 --confirm-blocks 4 "$@" || exit 1 ;;
    bench) bench run {FAST} --budget 40s "$@" || exit 1 ;;
esac
"""
BENCH = f'exec {sys.executable} -P -c "from played import command; command()" "$@"'


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    folder = make_repository(tmp_path_factory.mktemp("workflows"))
    set_pace(folder, 0.030)
    commit(folder, "base")
    set_pace(folder, 0.090)
    commit(folder, "slower")
    harness = folder / ".nox" / "harness" / "bin"
    harness.mkdir(parents=True)
    program(harness / "bench", [BENCH])
    return folder


@pytest.fixture
def shell(tmp_path, repository):
    """Return a function that runs shell commands in the repository, as a runner does, with stand-ins."""

    def run(script: str, *, nox: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        tools = tmp_path / "tools"
        tools.mkdir(exist_ok=True)
        for name, lines in (("nox", nox), ("bench", BENCH), ("python", "exit 0")):
            program(tools / name, [lines])
        environment = {
            **os.environ,
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{repository}{os.pathsep}{TESTS}",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "OPENBLAS_NUM_THREADS": "1",  # two threads wait for each other on a busy machine
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
            **variables,
        }
        # The first command that fails ends the script.
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=repository, env=environment, check=False, capture_output=True, text=True,
        )  # fmt: skip

    return run


@pytest.fixture
def runner(tmp_path, repository, shell):
    """Return a function that runs a workflow's shell steps with a head, and tells status and summary."""
    summary = tmp_path / "summary.md"

    def run(workflow: str, *, base: str, head: str) -> tuple[int, str]:
        git(repository, "checkout", "-q", "--detach", head)
        known = {"${{ github.event.pull_request.base.sha }}": git(repository, "rev-parse", base)}
        for step in steps(ROOT / ".github" / "workflows" / workflow):
            if "run" not in step:
                continue
            variables = {name: known.get(value, value) for name, value in step.get("env", {}).items()}
            done = shell(step["run"], nox=NOX, **variables)
            if done.returncode:
                assert "Traceback" not in done.stderr, done.stderr
                return done.returncode, summary.read_text() if summary.exists() else done.stderr
        return 0, summary.read_text() if summary.exists() else ""

    return run


def artefacts(workflow: str) -> list[str]:
    """Return the patterns of what a workflow keeps for download."""
    return [
        pattern
        for step in steps(ROOT / ".github" / "workflows" / workflow)
        if step.get("uses", "").startswith("actions/upload-artifact@")
        for pattern in step["with"]["path"].split()
    ]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_what_is_carried_from_job_to_job_is_found_again(workflow):
    saved, restored, hashed = [], [], []
    for step in steps(workflow):
        hashed += re.findall(r"'([^']+)'", " ".join(re.findall(r"hashFiles\((.*?)\)", str(step))))
        if step.get("uses", "").startswith("actions/cache/save@"):
            saved.append(step["with"])
        if step.get("uses", "").startswith("actions/cache/restore@"):
            restored.append(step["with"])
    assert hashed
    made = {one["path"] for one in saved}
    assert [name for name in hashed if not (ROOT / name).is_file() and name not in made] == []
    assert [one["path"] for one in restored] == [one["path"] for one in saved]
    for old, new in zip(restored, saved, strict=True):
        assert new["key"].startswith(old["restore-keys"])
        assert "github.run_id" in new["key"], "a cache is never written twice"


def test_a_pull_request_that_trains_slower_fails_and_says_so(runner):
    status, summary = runner("gate.yml", base="base", head="slower")
    assert status == 1, summary
    assert summary.startswith("# REGRESSION")
    assert re.search("mnist-softmax: NumPy float64: regression: speed .*got worse, in both series", summary)


def test_a_pull_request_that_changes_nothing_passes(runner, repository):
    git(repository, "checkout", "-q", "--detach", "base")
    (repository / "README.md").write_text("another word\n")
    commit(repository, "word")
    status, summary = runner("gate.yml", base="base", head="word")
    assert status == 0, summary
    assert summary.startswith("# No regression")
    assert [pattern for pattern in artefacts("gate.yml") if not [*repository.glob(pattern)]] == []


def test_a_base_that_is_not_there_is_an_error_with_advice(shell):
    done = shell("docs/ci/gate.sh", nox="exit 0")
    assert done.returncode == 2
    assert "name the revision to compare with" in done.stderr


@pytest.mark.parametrize(("script", "kept"), [("gate", "ab-20260101"), ("nightly", "run-20260101")])
def test_a_job_that_measured_nothing_says_so_and_shows_no_older_result(
    script, kept, tmp_path, repository, shell
):
    older = repository / "results" / kept
    older.mkdir(parents=True)
    (older / "AB.md").write_text("# No regression\n")
    done = shell(f"docs/ci/{script}.sh base", nox="echo it cannot be installed >&2; exit 1")
    shutil.rmtree(older)
    assert done.returncode == 2
    assert "it cannot be installed" in done.stderr
    assert "see above" in done.stderr
    assert not (tmp_path / "summary.md").exists()


def test_a_gate_that_cannot_decide_says_so_by_its_status(tmp_path, repository, shell):
    """Nox would say 1, as it does of a regression."""
    ab = make_ab([proven(), *(make_block(number) for number in range(2))])
    folder = create_ab(tmp_path / "kept", ab.header)
    for record in ab.records:
        append_ab(folder, record)
    nox = f"mkdir -p results; cp -r {folder} results/ab-99991231; exit 1"
    done = shell("docs/ci/gate.sh base", nox=nox, PYTHONPATH=f"{ROOT}{os.pathsep}{TESTS}")
    shutil.rmtree(repository / "results" / "ab-99991231")
    assert done.returncode == 3, done.stderr


def test_every_night_adds_a_run_to_the_history_and_draws_it(runner, repository):
    status, summary = runner("nightly.yml", base="base", head="base")
    assert status == 0, summary
    assert len((repository / "history.jsonl").read_text().splitlines()) == 1
    assert "mnist-softmax" in summary
    assert list((repository / "results" / "history").glob("**/*.svg"))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_what_there_is_and_nothing_is_written_twice(workflow):
    for step in steps(workflow):
        assert ("run" in step) != ("uses" in step)
        for script in (word for word in step.get("run", "").split() if word.startswith("docs/")):
            assert os.access(ROOT / script, os.X_OK), script
        assert len(step.get("run", "").splitlines()) <= 1, "what is longer belongs into docs/ci, for every CI"


@pytest.mark.parametrize("script", sorted((ROOT / "docs" / "ci").glob("*.sh")), ids=lambda path: path.stem)
def test_a_script_is_sound_shell(script):
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert "set -euo pipefail" in script.read_text()

"""The workflows as a runner would run them: every step of their files, as shell, on commits of this program.

What installs is played, as is nox: it runs the command on the reference, with the shipped sample. The rest,
scripts and command, is real.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from commits import ROOT, commit, git, make_repository, set_pace

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FAST = "--device cpu --sample --backend numpy --workload mnist-softmax"
NOX = f"""#!/usr/bin/env bash
# Instead of nox: -s SESSION -- OPTIONS
session=$2; shift 3
case $session in
    regression) exec bench ab {FAST} --blocks 4 --most-blocks 4 --confirm-blocks 3 "$@" ;;
    bench) exec bench run {FAST} --budget 40s "$@" ;;
esac
exit 2
"""
BENCH = f'#!/usr/bin/env bash\nexec {sys.executable} -P -c "from bench.cli import main; main()" "$@"\n'


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    folder = make_repository(tmp_path_factory.mktemp("workflows"))
    set_pace(folder, 0.010)
    commit(folder, "base")
    set_pace(folder, 0.020)
    commit(folder, "slower")
    return folder


@pytest.fixture
def runner(tmp_path, repository):
    """Return a function that runs a workflow's shell steps with a head, and tells status and summary."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, script in (("nox", NOX), ("bench", BENCH), ("python", "#!/bin/sh\nexit 0\n")):
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    harness = repository / ".nox" / "harness" / "bin"
    harness.mkdir(parents=True, exist_ok=True)
    (harness / "bench").write_text(BENCH)
    (harness / "bench").chmod(0o755)
    summary = tmp_path / "summary.md"

    def run(workflow: str, *, base: str, head: str) -> tuple[int, str]:
        git(repository, "checkout", "-q", "--detach", head)
        known = {"${{ github.event.pull_request.base.sha }}": git(repository, "rev-parse", base)}
        for step in steps(ROOT / ".github" / "workflows" / workflow):
            if "run" not in step:
                continue
            environment = {
                **os.environ,
                **{name: known.get(value, value) for name, value in step.get("env", {}).items()},
                "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(repository),
                "XDG_CACHE_HOME": str(tmp_path / "cache"),
                "GITHUB_STEP_SUMMARY": str(summary),
            }
            # As a runner's shell does: the first command that fails ends the step, and a step the job.
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                cwd=repository, env=environment, check=False, capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode:
                assert "Traceback" not in done.stderr, done.stderr
                return done.returncode, summary.read_text() if summary.exists() else done.stderr
        return 0, summary.read_text() if summary.exists() else ""

    return run


def test_a_pull_request_that_trains_slower_fails_and_says_so(runner):
    status, summary = runner("gate.yml", base="base", head="slower")
    assert status == 1, summary
    assert summary.startswith("# REGRESSION")
    assert "mnist-softmax: NumPy float64: regression: speed got worse, in both series" in summary


def test_a_pull_request_that_changes_nothing_passes(runner, repository):
    git(repository, "checkout", "-q", "--detach", "base")
    (repository / "README.md").write_text("another word\n")
    commit(repository, "word")
    status, summary = runner("gate.yml", base="base", head="word")
    assert status == 0, summary
    assert summary.startswith("# No regression")


def test_a_base_that_is_not_there_is_an_error_with_advice(runner, repository):
    git(repository, "checkout", "-q", "--detach", "base")
    done = subprocess.run(
        ["bash", "docs/ci/gate.sh"], cwd=repository, check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "name the revision to compare with" in done.stderr


def test_every_night_adds_a_run_to_the_history_and_draws_it(runner, repository):
    status, summary = runner("nightly.yml", base="base", head="base")
    assert status in (0, 3), summary  # 3, too noisy to rank, says something of this machine
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

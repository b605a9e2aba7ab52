"""Targets on the command line: set for a run, demanded of it, and proposed from it."""

from pathlib import Path

import fakes
import pytest
from conftest import Call
from test_run_command import SMALL, known, results

pytestmark = [pytest.mark.measures, pytest.mark.long]


def test_a_target_that_is_missed_counts_only_when_it_is_demanded(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known(monkeypatch, [fakes.STEADY])  # an epoch of 300 images does not reach 91 %
    said = call("run", *SMALL, "--target", f"{fakes.WORKLOAD}=91%")
    assert said.status == 0
    words = " ".join(said.out.split())
    assert f"Training to 91.0 % on {fakes.WORKLOAD}: Steady only did not reach it." in words
    assert call("run", "--require-target", "--resume", results(tmp_path)[0].name).status == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--target", "mnist-mlp"), ("--target 'mnist-mlp' is not WORKLOAD=ACCURACY",)),
        (("--target", "mnist-mlp=101%"), ("is not WORKLOAD=ACCURACY, such as mnist-mlp=96%",)),
        (("--target", "mnist-mlp=many"), ("is not WORKLOAD=ACCURACY",)),
        (("--target", "mnst-mlp=96%"), ("--target mnst-mlp: this run has no such workload", fakes.WORKLOAD)),
        (("--require-target",), ("--require-target: no workload has a target", "--target mnist-mlp=96%")),
    ],
)
def test_a_target_without_sense_is_refused(
    arguments: tuple[str, ...], words: tuple[str, ...], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, [fakes.STEADY])
    call("run", *SMALL, *arguments).refused(2, *words)


def test_targets_are_refused_for_a_run_of_few_seeds_with_a_command_that_makes_more(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known(monkeypatch, [fakes.STEADY, fakes.QUICK])
    assert call("run", *SMALL).status == 0
    (folder,) = results(tmp_path)
    said = call("targets", folder.name)
    assert said.status == 3
    words = " ".join(said.out.split())
    assert "1 seed of Steady and 1 seed of Quick, where 10 are needed." in words
    assert f"Train with: bench run --preset quick --workload {fakes.WORKLOAD} --seeds 10 --budget" in words
    assert call("run", *SMALL, "--seeds", "0").status == 0
    (other,) = set(results(tmp_path)) - {folder}
    call("targets", other.name).refused(3, "has no finished training", "10 seeds of every framework")

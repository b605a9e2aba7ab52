"""The nox session of the campaign: whose environments it makes, and what it passes on."""

import os

import pytest
from test_chores import FakeSession, chores

__all__ = ["chores"]


class Session(FakeSession):
    """Answers the question whose environments a part needs."""

    def __init__(self, needed: str, *posargs: str) -> None:
        super().__init__(*posargs)
        self.needed, self.kinds = needed, []

    def run(self, *command, env=None, **kinds):
        super().run(*command, env=env, **kinds)
        self.kinds.append(kinds)
        return self.needed if "--backends" in command else None


def started(chores, needed: str, *posargs: str) -> Session:
    chores.prepare = lambda session, name, **what: chores.ROOT / ".nox" / name
    chores.cpu_index = lambda session: "https://cpu.example"
    chores.pip_settings = dict
    session = Session(needed, *posargs)
    chores.campaign(session)
    return session


@pytest.mark.parametrize("needed", ["torch jax", "torch keras-torch", ""])
def test_a_part_gets_the_interpreters_that_it_needs_and_no_others(chores, needed):
    session = started(chores, needed, "--list")
    command, variables = session.ran[-1]
    assert command[1:4] == ["-P", "-m", "campaign"]
    named = [word for word in command if "=" in word]
    assert named == [f"{name}=.nox/cpu-{name}/bin/python" for name in needed.split()]
    assert command[-1] == "--list"
    assert variables["PYTHONPATH"].split(os.pathsep)[0] == str(chores.ROOT / "scripts")
    assert not any(name.startswith("PIP_") for name in variables)


def test_a_part_of_the_tests_gets_their_environment_and_the_index_of_small_builds(chores):
    command, variables = started(chores, "tests").ran[-1]
    assert command[-2:] == ["--python", "tests=.nox/cpu/bin/python"]
    assert variables["PIP_EXTRA_INDEX_URL"] == "https://cpu.example"


def test_it_is_given_time_to_end_when_it_is_interrupted(chores):
    assert started(chores, "torch").kinds[-1]["interrupt_timeout"] >= 60

"""The plan of the campaign: whole, in its limits, and of commands that exist."""

from collections import Counter
from pathlib import Path

import msgspec
import pytest
from test_docs import parse

from bench.errors import UsageError
from campaign import plan
from campaign.cuts import CUT
from campaign.execute import fill, split_variables
from campaign.plan import MOST_MINUTES, PARTS, SUBJECTS, find_part
from campaign.records import Part


def test_every_subject_has_a_part_and_names_are_unique():
    assert {part.number for part in PARTS} == set(SUBJECTS) == set(range(1, 9))
    assert [name for name, count in Counter(part.name for part in PARTS).items() if count > 1] == []


def test_no_part_is_long_and_all_take_about_fifteen_hours():
    assert max(part.minutes for part in PARTS) <= MOST_MINUTES == 100
    assert 14 * 60 <= sum(part.minutes for part in PARTS) <= 16.5 * 60


def unsaid(part: Part) -> list[str]:
    """Return what the plan of a part leaves open."""
    fields = ("question", "measures", "rule", "level", "failure")
    return [name for name in fields if not getattr(part, name)] + ([] if part.commands else ["commands"])


def test_every_part_says_all_that_is_fixed_beforehand():
    assert {part.name: unsaid(part) for part in PARTS if unsaid(part)} == {}
    silent = msgspec.structs.replace(PARTS[0], failure="", commands=())
    assert unsaid(silent) == ["failure", "commands"]


def test_parts_wait_only_for_parts_before_them():
    """Else the first part that is due would never come."""
    seen: set[str] = set()
    for part in PARTS:
        assert {*part.needs, *part.apart_from} <= seen, part.name
        assert bool(part.apart_from) == (part.hours > 0)
        seen.add(part.name)


def test_the_default_runs_and_the_validation_are_hours_apart():
    for name, count in (("run-default", 3), ("validation", plan.VALIDATION_PARTS)):
        for number in range(2, count + 1):
            part = find_part(f"{name}-{number}")
            assert part.apart_from == (f"{name}-{number - 1}",)
            assert part.hours >= 3


def test_the_validation_has_the_pairs_that_its_rule_asks_for():
    assert plan.VALIDATION_PARTS * plan.ROUNDS_A_PART >= plan.FEWEST_PAIRS == 20


def bench_commands() -> list[tuple[str, str]]:
    found = []
    for part in PARTS:
        for command in part.commands:
            for whole in filter(None, (command.arguments, command.resume)):
                _, words = split_variables(whole)
                if words[:2] == ("-m", "bench"):
                    given = fill(
                        words, folder=Path("results/x"), made=Path("run-x"), pythons={"torch": "p"},
                        backends=["torch"],
                    )  # fmt: skip
                    found.append((part.name, " ".join(given[2:])))
    return found


def without_onednn(part: Part) -> list[str]:
    """Return the commands of a part that leave TensorFlow's oneDNN to its own choice."""
    return [
        " ".join(words)
        for command in part.commands
        for words in filter(None, (command.arguments, command.resume))
        if plan.ONEDNN not in split_variables(words)[0].items() and "campaign.validation_onednn" not in words
    ]


def test_the_reference_runs_and_the_validation_measure_the_same_program():
    """One with oneDNN and one without it are two programs in TensorFlow."""
    names = (*plan.VALIDATED_RUNS, plan.LOADED_RUN, *(f"validation-{number}" for number in (1, 2, 3)))
    assert [found for name in names for found in without_onednn(find_part(name))] == []
    assert without_onednn(find_part("keras")) != []


@pytest.mark.parametrize(("name", "command"), bench_commands())
def test_every_command_of_the_program_exists(name, command):
    parse(command)


def test_a_command_that_does_not_exist_is_seen():
    import click

    with pytest.raises(click.UsageError):
        parse("run --seeed 1")


def test_scripts_and_tests_that_commands_name_are_there():
    root = Path(__file__).parents[2]
    for part in PARTS:
        for command in part.commands:
            for word in command.arguments:
                if word.startswith("tests/"):
                    assert (root / word).is_file()
                if word.startswith("campaign."):
                    assert (root / "scripts" / word.replace(".", "/")).with_suffix(".py").is_file()


def test_what_was_cut_says_why():
    assert CUT
    assert all(one.asked and one.planned and one.why for one in CUT)
    assert {one.number for one in CUT} <= set(SUBJECTS)


def test_the_digest_of_a_part_changes_with_its_level():
    part = PARTS[0]
    assert part.digest == msgspec.structs.replace(part).digest
    assert part.digest != msgspec.structs.replace(part, level="0.05").digest


def test_an_unknown_part_is_an_error_that_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'run-default-1'"):
        find_part("run-defualt-1")

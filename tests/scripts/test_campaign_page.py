"""docs/campaign.md shows the plan as it is."""

import msgspec
import pytest

from bench.errors import RecordError
from campaign import page
from campaign.plan import PARTS


def test_the_page_shows_the_plan():
    """`python -m campaign.page` writes it anew."""
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.with_plan(text, page.plan_section()) == text


def test_a_changed_rule_would_be_seen():
    changed = (msgspec.structs.replace(PARTS[0], level="0.05"), *PARTS[1:])
    assert page.plan_section(changed) != page.plan_section()
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.with_plan(text, page.plan_section(changed)) != text


def test_every_part_and_its_rule_are_shown():
    section = page.plan_section()
    for part in PARTS:
        assert f"| {part.name} |" in section
        for said in (part.question, part.measures, part.rule, part.level, part.failure):
            assert said in section


def test_a_page_without_marks_is_an_error():
    with pytest.raises(RecordError, match="has no"):
        page.with_plan("# A page", "x")

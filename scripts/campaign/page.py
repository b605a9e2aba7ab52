"""The plan as docs/campaign.md shows it, between two marks; a test holds the page to the plan.

    PYTHONPATH=scripts python -m campaign.page

writes it anew.
"""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from bench import store
from bench.errors import RecordError
from bench.text import duration
from campaign.cuts import CUT
from campaign.plan import PARTS, SUBJECTS
from campaign.records import Part

PAGE = Path(__file__).resolve().parents[2] / "docs" / "campaign.md"
BEGIN, END = "<!-- plan -->", "<!-- /plan -->"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[int] = ()) -> str:
    """Return a table of Markdown, as it stands; the columns in `numbers` are aligned right."""
    rules = ["--:" if place in numbers else ":--" for place in range(len(heads))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, rules, *rows))


def plan_section(parts: Sequence[Part] = PARTS) -> str:
    """Return the table of the parts, the rules of each kind of part, and what was cut."""
    rows = [
        (part.name, SUBJECTS[part.number], str(part.minutes),
         f"{part.hours:g} h after {', '.join(part.apart_from)}" if part.apart_from else "")
        for part in parts
    ]  # fmt: skip
    totals = [
        (str(number), subject, str(sum(part.minutes for part in parts if part.number == number)))
        for number, subject in SUBJECTS.items()
    ]
    lines = [
        f"The parts take {duration(60 * sum(part.minutes for part in parts))} in all, in this order:",
        table(("part", "subject", "minutes", "not before"), rows, numbers={2}),
        table(("", "subject", "minutes"), totals, numbers={2}),
        "### Rules",
    ]
    for (question, measures, rule, level, failure), names in _by_rule(parts).items():
        lines += [
            f"**{', '.join(names)}**",
            "\n".join(
                (f"- Question: {question}", f"- Measured: {measures}", f"- Rule: {rule}",
                 f"- Level: {level}", f"- Failure: {failure}")
            ),
        ]  # fmt: skip
    cut = [(SUBJECTS[one.number], one.asked, one.planned, one.why) for one in CUT]
    lines += ["### What was cut", table(("subject", "asked", "planned", "why"), cut)]
    return "\n\n".join(lines)


def _by_rule(parts: Sequence[Part]) -> dict[tuple[str, ...], list[str]]:
    found: dict[tuple[str, ...], list[str]] = {}
    for part in parts:
        said = (part.question, part.measures, part.rule, part.level, part.failure)
        found.setdefault(said, []).append(part.name)
    return found


def with_plan(text: str, section: str) -> str:
    """Return a page with this section between its marks; raise RecordError if it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise RecordError(f"the page has no {BEGIN} with {END} after it")
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"


if __name__ == "__main__":
    store.write_text(PAGE, with_plan(PAGE.read_text(encoding="utf-8"), plan_section()))

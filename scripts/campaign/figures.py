"""Take figures of README and docs from the campaign's records, by name.

A marked figure is written like this, and a renderer of Markdown shows only what stands between the marks:

    <!-- figure: run-default-1 mnist-mlp jax/torch ratio -->1.36–1.77<!-- /figure -->

The words after `figure:` name a part, or a run of another machine (`guest-…`), and what of it is meant:

- `PART WORKLOAD A/B ratio`: the 95 % interval of how many times as fast as B A is. A and B are backends, in
  their default modes, or `BACKEND:MODE`;
- `PART WORKLOAD A/B times`: the ratio itself;
- `PART WORKLOAD A rate`: samples/s;
- `PART WORKLOAD A accuracy`: the mean test accuracy, in percent;
- `PART minutes`: the time that the part took;
- `PART cpu`: its CPU;
- `PART BLOCKS false-alarms`, `PART BLOCKS truth-held` and `PART BLOCKS 5%-found`: rates of a self-test with
  so many blocks; `PART BLOCKS first-5%-found`: the same as the first of three pairs;
- `validation agreed`, `validation contained`: counts of part 6;
- `reference agreed`, `reference contradictions`: counts of part 1;
- `PART ranking`: a table of the frameworks' speeds in their default modes; `PART taught`, as taught;
- `PART speed-ups`: a table of what several ranks gain over one process;
- `modes`: a table of what every mode of each framework reaches, on the workloads whose parts are `modes-…`;
- `PART accuracies`: a table of what a run learned; `PART,PART accuracies`, what several learned;
- `PART targets`, `PART,PART targets`: a table of the targets that follow from it;
- `PART costs`: a table of what a benchmark of the program's own costs printed, with the aims;
- `PART installs`: a table of what an installation of each framework takes;
- `reference precision`: a table of the precision that a run reaches in time;
- `PART,PART speed`: a table of how the ratios of these runs change on a slower machine; `PART,PART canary`:
  the shortest and the longest time of the canary in them;
- `PART recipes`, `PART,PART recipes`: a table of the last figures of each recipe of a notebook, beside ours;
- `PART outside`, `PART,PART outside`: how many verdicts on single values of softmax recipes say "outside";
- `REPORT | COLUMN`: the first table of a report that has such a column, such as `gate/GATE.md | was so`;
- `REPORT | ROW | COLUMN`: a cell of it. ROW is the first cell of the row, or its first cells with ` / `
  between.

Marks in code are examples, and are left alone. Raises FigureError for a figure that the records do not give.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import msgspec

from bench.analysis.comparison import Comparison
from bench.analysis.summary import CellSummary, Summary
from bench.errors import BenchError
from bench.records.runs import Run
from bench.selftest.calibration import Rate, calibrate
from bench.selftest.nested import SHOWN, at_lengths
from bench.selftest.records import read_selftest
from campaign import (
    agreement,
    costs,
    installs,
    log,
    quoted,
    recipes,
    reference,
    runs,
    speed,
    tables,
    validation,
)
from campaign.plan import (
    LOADED_RUN,
    LONG_RUN,
    PARTS,
    REPEATED_RUNS,
    VALIDATED,
    VALIDATED_RUNS,
    VALIDATION_PARTS,
)
from campaign.records import Part

GUEST = "guest-"
"""What the names of runs of other machines begin with. They lie beside the campaign and are no parts."""
MODES = "modes-"
"""What the names of parts begin with that measure all modes."""

_OUR_RULE = MappingProxyType({SHOWN[0]: "", SHOWN[1]: "first-"})
"""Our rule for one pair and for the first of three, and what the names of its rates begin with."""

_MARKED = re.compile(r"(<!-- figure: ([^>]*?) -->)(.*?)(<!-- /figure -->)", re.DOTALL)
_OPENED = re.compile(r"<!-- /?figure\b")
_CODE = re.compile(r"^(```|~~~).*?^\1[^\n]*$|`[^`\n]+`|^ {4}[^\n]*$", re.DOTALL | re.MULTILINE)


class FigureError(BenchError):
    """A figure has no such name, or the records do not give it."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A marked figure of a page."""

    name: str
    shown: str
    line: int


class Records:
    """The campaign's records, each read when the first figure asks for it."""

    def __init__(self, folder: Path, parts: Sequence[Part] = PARTS) -> None:
        self._folder, self._parts = folder, parts
        self._runs: dict[str, tuple[Run, Summary]] = {}
        self._rates: dict[str, Mapping[int, Mapping[str, Rate | None]]] = {}

    def part(self, name: str) -> log.PartRecord:
        """Return the record of a part that is done; raise FigureError if there is none."""
        record = log.read_part(self._folder, name)
        if record is None or record.status != "done":
            state = "not begun" if record is None else record.status
            raise FigureError(f"part {name} is {state}")
        return record

    def whole_run(self, name: str) -> tuple[Run, Summary]:
        """Return the run of a part, or a guest's, and what is derived from it."""
        if name not in self._runs:
            beside = name.startswith(GUEST)
            if not beside:
                self.part(name)
            self._runs[name] = runs.read((self._folder.parent if beside else self._folder) / name)
        return self._runs[name]

    def run(self, name: str) -> Summary:
        """Return what is derived from the run of a part."""
        return self.whole_run(name)[1]

    def report(self, path: str) -> str:
        """Return a report, such as `gate/GATE.md`, or one of several parts, such as `VALIDATION.md`."""
        part, _, file = path.rpartition("/")
        if part:
            self.part(part)
        found = self._folder / part / file
        if not found.is_file():
            raise FigureError(f"there is no report {path}")
        return found.read_text(encoding="utf-8")

    @property
    def modes(self) -> tuple[str, ...]:
        """The names of the parts that measure all modes of a workload."""
        return tuple(part.name for part in self._parts if part.name.startswith(MODES))

    def folder_of(self, name: str) -> Path:
        """Return the folder of a part that is done; raise FigureError if there is none."""
        self.part(name)
        return self._folder / name

    def rates(self, name: str) -> Mapping[int, Mapping[str, Rate | None]]:
        """Return the rates of our rule in a self-test, by the number of blocks and the kind of rate."""
        if name not in self._rates:
            self.part(name)
            by_blocks: dict[int, dict[str, Rate | None]] = {}
            for one in at_lengths(calibrate(read_selftest(self._folder / name))):
                if one.row.name not in _OUR_RULE:
                    continue
                before = _OUR_RULE[one.row.name]
                by_blocks.setdefault(one.blocks, {}).update(
                    {
                        f"{before}false-alarms": one.row.false_alarms,
                        f"{before}truth-held": one.row.coverage,
                        **{
                            f"{before}{100 * slowed:.0f}%-found": rate
                            for slowed, rate in one.row.found.items()
                        },
                    }
                )
            self._rates[name] = by_blocks
        return self._rates[name]

    @cached_property
    def agreement(self) -> agreement.Agreement:
        """Return the comparison of the validation with the reference runs; all its parts have to be done."""
        return read_agreement(self._folder, self._parts)[0]


def read_agreement(folder: Path, parts: Sequence[Part] = PARTS) -> tuple[agreement.Agreement, str]:
    """Return the comparison of the validation with the reference runs, and the CPU of all of them.

    Raises FigureError if one of these parts is not done, and RecordError if CPUs are unequal.
    """
    records = Records(folder, parts)
    numbers = range(1, VALIDATION_PARTS + 1)
    validations = [_validation(number, folder, records) for number in numbers]
    used = [*validations, *(records.part(name) for name in VALIDATED_RUNS)]
    log.refuse_unequal_cpus(used)
    by_run: list[runs.RunRatio] = []
    missing: list[str] = []
    for name in VALIDATED_RUNS:
        run = runs.read(folder / name)
        found = runs.default_ratios(name, *run)
        by_run += found
        missing += runs.lacking(name, *run, found, workloads=VALIDATED)
    processes = [one for record in validations for one in validation.read(folder / record.name)]
    return agreement.agreement(processes, by_run, missing=missing), used[0].cpu.in_words()


def _validation(number: int, folder: Path, records: Records) -> log.PartRecord:
    """Return the record of a part of the validation whose processes have all ended.

    The part has failed if one of its processes has. By the plan that process's round then gives no pair, and
    all others count.
    """
    name = f"validation-{number}"
    record = log.read_part(folder, name)
    if record is not None and record.status == "failed" and record.ran[-1].exit_status == 1:
        ended = {one.task for one in validation.read(folder / name)}
        if ended == set(validation.tasks(number)):
            return record
    return records.part(name)


# ---- from a name to a figure


def figure(name: str, records: Records) -> str:
    """Return the figure of that name as a page shows it; raise FigureError if the records do not give it."""
    try:
        if "|" in name:
            return _quoted([word.strip() for word in name.split("|")], records)
        return _found(name.split(), records)
    except FigureError:
        raise
    except BenchError as error:
        raise FigureError(str(error)) from error


def _found(words: Sequence[str], records: Records) -> str:
    shown = _of_several(words, records)
    return _of_a_part(words, records) if shown is None else shown


def _of_several(words: Sequence[str], records: Records) -> str | None:
    """Return a figure that several parts give together; None if no such figure has that name."""
    match words:
        case ["validation", ("agreed" | "contained") as what]:
            found = records.agreement
            count = found.agreed if what == "agreed" else found.contained
            shown = f"{count} of {len(found.compared)}"
        case ["reference", ("agreed" | "contradictions" | "precision") as what]:
            shown = _of_reference(records, what)
        case ["modes"]:
            shown = tables.modes([records.run(name) for name in records.modes])
        case _:
            return None
    return shown


def _of_a_part(words: Sequence[str], records: Records) -> str:
    match words:
        case [part, "costs"]:
            shown = costs.table(records.part(part))
        case [part, "installs"]:
            shown = costs.installs(records.report(f"{part}/{installs.FILE}"))
        case [part, ("ranking" | "taught") as what]:
            shown = tables.ranking(records.run(part), level="tuned" if what == "ranking" else "taught")
        case [part, "speed-ups"]:
            shown = tables.speed_ups(*records.whole_run(part))
        case [parts, ("accuracies" | "targets") as what]:
            learned = [records.whole_run(part)[0] for part in parts.split(",")]
            shown = tables.accuracies(learned) if what == "accuracies" else tables.targets(learned)
        case [parts, ("recipes" | "outside") as what]:
            followed = recipes.read([records.folder_of(part) for part in parts.split(",")])
            shown = recipes.last_figures(followed) if what == "recipes" else recipes.outside(followed)
        case [parts, ("speed" | "canary") as what]:
            measured = {part: records.whole_run(part) for part in parts.split(",")}
            shown = speed.span(measured) if what == "canary" else f"\n\n{speed.table(measured)}\n\n"
        case [part, ("minutes" | "cpu") as what]:
            record = records.part(part)
            shown = f"{record.minutes:.0f}" if what == "minutes" else record.cpu.in_words()
        case [part, blocks, what] if blocks.isdecimal():
            shown = _rate(records, part, int(blocks), what)
        case [part, workload, row, what] if what in _OF_A_ROW:
            shown = _OF_A_ROW[what](_row(records.run(part), workload, row))
        case [part, workload, pair, what] if what in _OF_A_PAIR and pair.count("/") == 1:
            shown = _OF_A_PAIR[what](*_pair(records.run(part), workload, pair))
        case _:
            raise FigureError("no figure has such a name (scripts/campaign/figures.py lists the forms)")
    return shown


def _quoted(words: Sequence[str], records: Records) -> str:
    """Return a table of a report, or a cell of it."""
    match words:
        case [path, head]:
            return f"\n\n{quoted.table(records.report(path), head).text}\n\n"
        case [path, row, head]:
            return quoted.cell(records.report(path), row, head)
    raise FigureError("no figure has such a name (scripts/campaign/figures.py lists the forms)")


def _of_reference(records: Records, what: str) -> str:
    if what == "precision":
        return f"\n\n{reference.precision_table(records.whole_run(LONG_RUN)[0])}\n\n"
    repeated = {name: records.whole_run(name) for name in REPEATED_RUNS}
    if what == "agreed":
        ratios = {name: runs.default_ratios(name, *found) for name, found in repeated.items()}
        found = reference.repeats(ratios)
        return f"{sum(one.agrees for one in found)} of {len(found)}"
    others = {**repeated, **{name: records.whole_run(name) for name in (LONG_RUN, LOADED_RUN)}}
    summaries = {name: summary for name, (_, summary) in others.items()}
    return str(len(reference.all_contradictions(summaries, repeated=REPEATED_RUNS)))


def _rate(records: Records, part: str, blocks: int, what: str) -> str:
    by_kind = records.rates(part).get(blocks, {})
    rate = by_kind.get(what)
    if rate is None or not rate.of:
        known = ", ".join(by_kind) or "none"
        raise FigureError(f"{part} has no {what} with {blocks} blocks; it has: {known}")
    return f"{rate.hits} of {rate.of}"


def _row(summary: Summary, workload: str, row: str) -> CellSummary:
    backend, _, mode = row.partition(":")
    found = [
        cell
        for cell in summary.cells
        if cell.workload == workload and cell.backend == backend and (not mode or cell.mode == mode)
    ]
    if not mode:
        found = [cell for cell in found if cell.level == "tuned"] or found
    if len(found) != 1:
        raise FigureError(f"{len(found)} rows are {workload} {row}; name one mode, such as torch:eager")
    return found[0]


def _pair(summary: Summary, workload: str, pair: str) -> tuple[Comparison, bool]:
    """Return the comparison of two rows, and whether the first of the pair is the slower one in it."""
    first, second = (_row(summary, workload, one).cell for one in pair.split("/"))
    for verdict in summary.verdicts:
        made = verdict.made
        for one in (*made.backends, *made.modes, *made.tuning):
            if (one.faster, one.slower) == (first, second):
                return one, False
            if (one.slower, one.faster) == (first, second):
                return one, True
    raise FigureError(f"the run compares no {pair} on {workload}")


def _ratio(one: Comparison, turned: bool) -> str:
    low, high = (1 / one.high, 1 / one.low) if turned else (one.low, one.high)
    return f"{low:.2f}–{high:.2f}"


def _times(one: Comparison, turned: bool) -> str:
    return f"{1 / one.ratio if turned else one.ratio:.2f}"


def _speed(cell: CellSummary) -> str:
    if cell.samples_per_s is None or not math.isfinite(cell.samples_per_s):
        raise FigureError(f"{cell.cell} was not timed")
    return f"{cell.samples_per_s:,.0f}"


def _accuracy(cell: CellSummary) -> str:
    if cell.test_accuracy is None:
        raise FigureError(f"{cell.cell} was not trained")
    return f"{100 * cell.test_accuracy:.2f}%"


_OF_A_ROW: Mapping[str, Callable[[CellSummary], str]] = MappingProxyType(
    {"rate": _speed, "accuracy": _accuracy}
)
_OF_A_PAIR: Mapping[str, Callable[[Comparison, bool], str]] = MappingProxyType(
    {"ratio": _ratio, "times": _times}
)


# ---- pages


def figures_of(text: str) -> Iterator[Figure]:
    """Yield the marked figures of a page; raise FigureError for a mark that is not closed or not opened."""
    bare = _CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    end = 0
    for found in _MARKED.finditer(bare):
        _refuse_stray(bare, end, found.start())
        _refuse_stray(bare, found.end(1), found.start(4))
        end = found.end()
        yield Figure(
            name=" ".join(found[2].split()),
            shown=text[found.start(3) : found.end(3)],
            line=text.count("\n", 0, found.start()) + 1,
        )
    _refuse_stray(bare, end, len(bare))


def _refuse_stray(text: str, start: int, end: int) -> None:
    if found := _OPENED.search(text, start, end):
        line = text.count("\n", 0, found.start()) + 1
        raise FigureError(f"line {line}: a figure's mark without its other half")


def wrong_figures(text: str, records: Records) -> list[str]:
    """Return in words every marked figure that the records do not give, or give otherwise."""
    said = []
    for one in figures_of(text):
        try:
            right = figure(one.name, records)
        except FigureError as error:
            said.append(f"line {one.line}: {one.name}: {error}")
            continue
        if one.shown != right:
            said.append(f"line {one.line}: {one.name}: the page has {one.shown!r}, the records {right!r}")
    return said


def rewritten(text: str, records: Records) -> str:
    """Return a page with every marked figure as the records give it; raise FigureError if one is missing."""
    bare = _CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    list(figures_of(text))  # no mark is stray
    parts, end = [], 0
    for found in _MARKED.finditer(bare):
        parts += [text[end : found.end(1)], figure(" ".join(found[2].split()), records)]
        end = found.start(4)
    return "".join([*parts, text[end:]])


def pages(root: Path) -> list[Path]:
    """Return the pages whose marked figures are checked."""
    named = [root / "README.md", root / "REPORT.md", root / "results" / "README.md"]
    return [path for path in (*named, *sorted((root / "docs").rglob("*.md"))) if path.is_file()]

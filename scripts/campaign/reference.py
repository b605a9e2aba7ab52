"""Part 1: whether the reference runs say the same, and how precise a run gets with time."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import combinations
from statistics import median

import msgspec

from bench.analysis.summary import Summary, summarise
from bench.gate.verdicts import Pairing, pair_verdicts
from bench.records.runs import Run
from bench.records.schema import BlockRecord, JobRecord
from bench.report.format import NOTHING
from bench.report.markdown import bullets, grid
from campaign.agreement import LEVEL, least_count, quantile, satterthwaite
from campaign.runs import RunRatio, default_ratios, lacking

MINUTES = (5, 10, 15, 20, 30, 45, 60, 75)
"""Minutes of measuring, without training for accuracy, at which the precision is looked up."""
BESIDE_S = 15.0
"""A block takes no longer beside its jobs. What is longer is a pause of a run that was resumed."""


class Repeat(msgspec.Struct, frozen=True, kw_only=True):
    """One ratio in two runs."""

    one: RunRatio
    other: RunRatio

    @property
    def difference(self) -> float:
        return self.one.log - self.other.log

    @property
    def agrees(self) -> bool:
        """Whether the 95 % interval of the difference contains 0."""
        errors = (self.one.standard_error, self.other.standard_error)
        degrees = satterthwaite(errors, (self.one.degrees, self.other.degrees))
        return abs(self.difference) <= quantile(degrees) * math.hypot(*errors)


def repeats(ratios: Mapping[str, Sequence[RunRatio]]) -> tuple[Repeat, ...]:
    """Return every ratio that two runs share, of each two runs."""
    found = []
    for first, second in combinations(ratios.values(), 2):
        known = {(one.workload, one.first, one.second): one for one in second}
        found += [
            Repeat(one=one, other=known[key])
            for one in first
            if (key := (one.workload, one.first, one.second)) in known
        ]
    return tuple(found)


def contradictions(one: Summary, other: Summary) -> tuple[Pairing, ...]:
    """Return the pairs about which both runs make a claim, and not both can be true."""
    return tuple(pairing for pairing in pair_verdicts(one, other) if pairing.agree is False)


def claims(summary: Summary) -> tuple[int, int]:
    """Return of how many pairs of backends a run says which is faster, and of how many that none is."""
    made = [one for verdict in summary.verdicts for one in verdict.made.backends]
    return sum(one.differs for one in made), sum(one.kind == "equivalent" for one in made)


def _pairs(names: Sequence[str], repeated: Sequence[str]) -> list[tuple[str, str]]:
    """Return each two runs of which one is a default run."""
    return [(one, other) for one, other in combinations(names, 2) if one in repeated]


def all_contradictions(summaries: Mapping[str, Summary], *, repeated: Sequence[str]) -> list[str]:
    """Return in words what each two runs contradict, of which one is a default run; these come first."""
    return [
        f"{first} and {second}: {pairing.first} and {pairing.second}"
        for first, second in _pairs(list(summaries), repeated)
        for pairing in contradictions(summaries[first], summaries[second])
    ]


class Precision(msgspec.Struct, frozen=True, kw_only=True):
    """What a run knew after some minutes of measuring."""

    minutes: float
    blocks: Mapping[str, int]
    """Those behind the widest ratio, by workload; 0 without one."""
    half_widths: Mapping[str, float | None]
    """Of the widest ratio of the default modes, relative; None with fewer blocks than a rank needs."""


def precision(run: Run, minutes: Sequence[float] = MINUTES) -> tuple[Precision, ...]:
    """Return what a run knew after so many minutes; none for more minutes than it measured."""
    ends = block_ends(run)
    total = max(ends.values(), default=0.0) / 60
    return tuple(_precision_at(run, ends, at) for at in minutes if at <= total)


def block_ends(run: Run) -> dict[tuple[str, int], float]:
    """Return for each block, by workload and number, the seconds of measuring until it had ended.

    A block lasts until the next begins, and the last as long as its jobs. Training for accuracy does not
    count, nor does a pause of a run that was resumed.
    """
    blocks = sorted(run.blocks, key=lambda block: block.started_at)
    starts = [datetime.fromisoformat(block.started_at).timestamp() for block in blocks]
    ends: dict[tuple[str, int], float] = {}
    passed = 0.0
    for place, block in enumerate(blocks):
        jobs = [job for job in (*run.jobs, *run.copies) if _of(job) == (block.workload, block.block)]
        last = place + 1 == len(blocks)
        of_jobs = sum(job.wall_s for job in jobs)
        whole = of_jobs if last else min(starts[place + 1] - starts[place], of_jobs + BESIDE_S)
        passed += max(0.0, whole - sum(job.learn_s or 0.0 for job in jobs))
        ends[block.workload, block.block] = passed
    return ends


def _of(job: JobRecord) -> tuple[str, int]:
    return job.spec.cell.workload, job.spec.block


def _precision_at(run: Run, ends: Mapping[tuple[str, int], float], minutes: float) -> Precision:
    kept = {key for key, end in ends.items() if end <= 60 * minutes}
    records = tuple(
        record
        for record in run.records
        if not (isinstance(record, JobRecord) and _of(record) not in kept)
        and not (isinstance(record, BlockRecord) and (record.workload, record.block) not in kept)
    )
    cut = msgspec.structs.replace(run, records=records)
    widest: dict[str, RunRatio] = {}
    for one in default_ratios("", cut, summarise(cut)):
        if one.workload not in widest or _half_width(one) > _half_width(widest[one.workload]):
            widest[one.workload] = one
    names = [workload.name for workload in run.header.workloads]
    return Precision(
        minutes=minutes,
        blocks={name: widest[name].blocks if name in widest else 0 for name in names},
        half_widths={name: _half_width(widest[name]) if name in widest else None for name in names},
    )


def _half_width(one: RunRatio) -> float:
    """Return half the width of a ratio's interval, relative to the ratio."""
    return (one.high - one.low) / (2 * math.exp(one.log))


def canary_ms(run: Run) -> float:
    """Return the median time of the fixed product that is timed before every round."""
    return 1000 * median(seconds for block in run.blocks for seconds in block.conditions.canary_s)


def report(
    runs: Mapping[str, tuple[Run, Summary]], *, repeated: Sequence[str], long: str, loaded: str, cpu: str
) -> str:
    """Return the report of part 1 as Markdown, from the runs by their parts' names."""
    ratios = {name: default_ratios(name, *runs[name]) for name in repeated}
    found = repeats(ratios)
    agreed, least = sum(one.agrees for one in found), least_count(len(found))
    others = [name for name in (*repeated, long, loaded) if name in runs]
    summaries = {name: runs[name][1] for name in others}
    pairs = _pairs(others, repeated)
    wrong = all_contradictions(summaries, repeated=repeated)
    missing = [line for name in repeated for line in lacking(name, *runs[name], ratios[name])]
    unranked = lacking(long, *runs[long], default_ratios(long, *runs[long])) if long in runs else ()
    held = agreed >= least and not wrong and not unranked and bool(found)
    said = [
        f"{agreed} of {len(found)} ratios of two default runs agree, and at least {least} have to (binomial "
        f"with 95 %, level {LEVEL:g}). They are those of the default modes.",
        f"{len(wrong)} claims of {len(pairs)} pairs of runs contradict each other.",
        *(f"contradiction: {line}" for line in wrong),
        *(f"missing: {line}" for line in missing),
        *(f"not ranked, which is a failure: {line}" for line in unranked),
        "Claims of a difference, and of none larger than 2 %: "
        + ", ".join("{} {} and {}".format(name, *claims(runs[name][1])) for name in others)
        + ".",
        f"All ran on one CPU: {cpu}.",
        "Median time of the canary, a fixed product: "
        + ", ".join(f"{name} {canary_ms(runs[name][0]):.1f} ms" for name in others)
        + ".",
    ]
    differ = [
        (one.one.workload, f"{one.one.first} / {one.one.second}", one.one.run, one.other.run,
         f"{100 * math.expm1(one.difference):+.1f} %", "yes" if one.agrees else "NO")
        for one in found
    ]  # fmt: skip
    parts = [
        "# Do the reference runs say the same, and how precise is a run?",
        "They agree, by the rules that were fixed beforehand." if held
        else "They do NOT agree, by the rules that were fixed beforehand.",
        bullets(said),
        "## Precision by budget",
        f"From {long}: the widest half-width of a workload's ratios of default modes after so many minutes "
        "of measuring, and the blocks behind it. A budget also covers parity and training for accuracy.",
        precision_table(runs[long][0]) if long in runs else "It is not done yet.",
        "## Ratios in two runs",
        grid(("workload", "pair", "one run", "other run", "difference", "agree"), differ),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def precision_table(run: Run) -> str:
    """Return the precision that a run reached in time, as a table of Markdown."""
    found = precision(run)
    names = list(found[0].blocks) if found else []
    rows = [
        (f"{one.minutes:g}", *(_width(one.half_widths[name], one.blocks[name]) for name in names))
        for one in found
    ]
    return grid(("minutes", *names), rows, numbers=frozenset(range(len(names) + 1)))


def _width(half: float | None, blocks: int) -> str:
    return NOTHING if half is None else f"±{100 * half:.1f} % ({blocks})"

"""Do the intervals of `bench run` contain the ratios that another method gives? The analysis of part 6.

The rule was written down before any data:

1. The ratio of two frameworks is paired by replicate, a round of a part: the difference of the logarithms of
   their samples/s, its mean over all replicates, and Student's interval from the scatter of the differences.
   It is the ratio of the geometric means over these replicates; nothing is trimmed. What slows all frameworks
   of a replicate alike cancels. It would widen an interval from each side's own scatter, and the rule would
   see less. A replicate in which one of the two failed gives no pair.
2. For every run and pair of frameworks, the difference of the two logarithms has a standard error from both
   sides and degrees of freedom by Welch and Satterthwaite. The two agree if its 95 % interval contains 0.
3. Of n such comparisons at least k must agree, where k is the largest number that a binomial count of n with
   95 % falls below with a probability of at most 1 %. The comparisons share processes, so their count
   scatters more than a binomial one, and the rule fails some 5 % of right programs (`campaign.power`).
4. With fewer than 20 pairs of two frameworks on a workload, nothing is decided.

Three things stand beside the rule, without a verdict. A whole training is samples over seconds, and a run's
ratio is trimmed, so the second point is counted once more with the run's plain ratio, which is not, and the
run's own standard error. How many of the runs' own intervals contain the other ratio is counted as well. That
ratio has an error of its own, so fewer are expected than 95 %; the report says about how many. And a whole
training has a beginning, which a run leaves out: the report says how much slower its steps are.

Sources: Student, The probable error of a mean (1908); Welch, The generalization of Student's problem when
several different population variances are involved (1947); Satterthwaite, An approximate distribution of
estimates of variance components (1946).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean, median, stdev
from typing import Literal, TypeAlias

import msgspec

from campaign.plan import FEWEST_PAIRS, VALIDATED
from campaign.records import FRAMEWORKS
from campaign.runs import RunRatio
from campaign.validation import Process

CONFIDENCE = 0.95
LEVEL = 0.01
"""Of the rule on the count."""

AgreementStatus: TypeAlias = Literal["held", "failed", "unmeasured"]
Pair: TypeAlias = tuple[str, str, str]
"""A workload and two frameworks, in the order of the alphabet."""


class AloneRatio(msgspec.Struct, frozen=True, kw_only=True):
    """How many times as fast as `second` `first` is, by whole trainings alone."""

    workload: str
    first: str
    second: str
    log: float
    """ln of the ratio: the mean of the pairs' differences."""
    standard_error: float
    pairs: int
    """Replicates in which both were trained."""

    @property
    def degrees(self) -> int:
        return self.pairs - 1

    @property
    def scatter(self) -> float:
        """The standard deviation of the pairs' differences."""
        return self.standard_error * math.sqrt(self.pairs)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the ratio."""
        half = quantile(self.degrees) * self.standard_error
        return math.exp(self.log - half), math.exp(self.log + half)


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A run's ratio beside that of the validation."""

    by_run: RunRatio
    alone: AloneRatio

    @property
    def difference(self) -> float:
        """By how much the run's logarithm is larger."""
        return self.by_run.log - self.alone.log

    @property
    def plain_difference(self) -> float:
        """By how much the run's logarithm is larger if nothing of the run is trimmed."""
        return self.by_run.plain_log - self.alone.log

    @property
    def standard_error(self) -> float:
        return math.hypot(self.by_run.standard_error, self.alone.standard_error)

    @property
    def degrees(self) -> float:
        return satterthwaite(
            (self.by_run.standard_error, self.alone.standard_error), (self.by_run.degrees, self.alone.degrees)
        )

    @property
    def agrees(self) -> bool:
        """Whether the interval of the difference contains 0."""
        return abs(self.difference) <= quantile(self.degrees) * self.standard_error

    @property
    def plain_agrees(self) -> bool:
        """Whether the interval does so, as wide as it is, around the difference of the plain ratio."""
        return abs(self.plain_difference) <= quantile(self.degrees) * self.standard_error

    @property
    def contains(self) -> bool:
        """Whether the run's own interval contains the other ratio."""
        return self.by_run.low <= math.exp(self.alone.log) <= self.by_run.high

    @property
    def chance(self) -> float:
        """About how probable it is that it does, if nothing but chance separates the two.

        It takes the two errors as known. Of three blocks and an error of whole trainings that is small
        beside theirs, it is some 2 points too high.
        """
        from scipy.special import stdtr

        half = quantile(self.by_run.degrees) * self.by_run.standard_error
        if not self.standard_error:
            return 1.0
        return 1 - 2 * float(stdtr(self.degrees, -half / self.standard_error))


class Beginning(msgspec.Struct, frozen=True, kw_only=True):
    """How slow the first tenth of the first epoch is; nothing is decided by it."""

    workload: str
    backend: str
    processes: int
    longer: float
    """By how much a step takes longer there than in all the rest: the median over processes."""


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """All that part 6 says."""

    ratios: tuple[AloneRatio, ...]
    compared: tuple[Compared, ...]
    too_few: tuple[str, ...]
    """Pairs of frameworks that were trained together less often than the rule asks for, in words."""
    failed: tuple[Process, ...]
    beginnings: tuple[Beginning, ...]
    missing: tuple[str, ...] = ()
    """Ratios that a run does not give, in words."""

    @property
    def agreed(self) -> int:
        return sum(one.agrees for one in self.compared)

    @property
    def plain_agreed(self) -> int:
        """How many agree by the run's plain ratio. It has no verdict."""
        return sum(one.plain_agrees for one in self.compared)

    @property
    def contained(self) -> int:
        return sum(one.contains for one in self.compared)

    @property
    def expected(self) -> float:
        """How many of the runs' own intervals are expected to contain the other ratio."""
        return sum(one.chance for one in self.compared)

    @property
    def least(self) -> int:
        """How many have to agree."""
        return least_count(len(self.compared))

    @property
    def status(self) -> AgreementStatus:
        if self.too_few or not self.compared:
            return "unmeasured"
        return "held" if self.agreed >= self.least else "failed"


def ratios(processes: Iterable[Process]) -> tuple[AloneRatio, ...]:
    """Return the ratio of each pair of frameworks on each workload; two pairs are needed."""
    return tuple(paired(pair, found) for pair, found in differences(processes).items() if len(found) > 1)


def differences(processes: Iterable[Process]) -> Mapping[Pair, Sequence[float]]:
    """Return ln of the ratio of each two frameworks in every replicate in which both were trained."""
    logs: dict[tuple[str, str], dict[tuple[int, int], float]] = {}
    for one in processes:
        if one.rate is not None:
            replicates = logs.setdefault((one.task.workload, one.task.backend), {})
            replicates[one.part, one.task.replicate] = math.log(one.rate)
    return {
        (workload, first, second): [ours[at] - theirs[at] for at in sorted(ours.keys() & theirs.keys())]
        for ((workload, first), ours), ((other, second), theirs) in combinations(sorted(logs.items()), 2)
        if workload == other
    }


def paired(pair: Pair, found: Sequence[float]) -> AloneRatio:
    """Return the ratio of two frameworks from ln of the ratio in each replicate."""
    workload, first, second = pair
    return AloneRatio(
        workload=workload,
        first=first,
        second=second,
        log=fmean(found),
        standard_error=stdev(found) / math.sqrt(len(found)),
        pairs=len(found),
    )


def beginnings(processes: Iterable[Process]) -> tuple[Beginning, ...]:
    """Return how slow each framework begins on each workload."""
    found: dict[tuple[str, str], list[float]] = {}
    for one in processes:
        if one.slow_beginning is not None:
            found.setdefault((one.task.workload, one.task.backend), []).append(one.slow_beginning)
    return tuple(
        Beginning(workload=workload, backend=backend, processes=len(values), longer=median(values))
        for (workload, backend), values in sorted(found.items())
    )


def satterthwaite(errors: Sequence[float], degrees: Sequence[float]) -> float:
    """Return the degrees of freedom of a sum, from the standard errors of its terms and their degrees."""
    total = sum(error**2 for error in errors)
    if not total:
        return min(degrees)
    return total**2 / sum(error**4 / one for error, one in zip(errors, degrees, strict=True))


def quantile(degrees: float) -> float:
    """Return Student's quantile for a two-sided 95 % interval."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2))


def least_count(n: int, share: float = CONFIDENCE, level: float = LEVEL) -> int:
    """Return the largest k that a binomial count of n falls below with a probability of at most `level`."""
    from scipy.special import bdtr

    return max((k for k in range(1, n + 1) if bdtr(k - 1, n, share) <= level), default=0)


def agreement(
    processes: Sequence[Process],
    by_run: Sequence[RunRatio],
    *,
    fewest: int = FEWEST_PAIRS,
    missing: Sequence[str] = (),
) -> Agreement:
    """Compare every ratio of the runs with that of the validation, where both have one."""
    alone = ratios(processes)
    known = {(one.workload, one.first, one.second): one for one in alone}
    found = differences(processes)
    asked = [(workload, *two) for workload in VALIDATED for two in combinations(sorted(FRAMEWORKS), 2)]
    return Agreement(
        ratios=alone,
        compared=tuple(
            Compared(by_run=one, alone=known[key])
            for one in by_run
            if (key := (one.workload, one.first, one.second)) in known
        ),
        too_few=tuple(
            f"{workload} {first} / {second}: {count} of {fewest} pairs"
            for workload, first, second in asked
            if (count := len(found.get((workload, first, second), ()))) < fewest
        ),
        failed=tuple(one for one in processes if one.error is not None),
        beginnings=beginnings(processes),
        missing=tuple(missing),
    )


# ---- the report

TITLE = "Do runs agree with whole trainings alone?"
_ANSWERS = {
    "held": "The two methods agree, by the rule that was fixed beforehand.",
    "failed": "The two methods do NOT agree, by the rule that was fixed beforehand.",
    "unmeasured": "Too little was measured to say.",
}


_BEGINNING = (
    "By how much a step takes longer in the first tenth of the first epoch than in the rest of the training: "
    "the median over processes. It has no verdict."
)


def report(found: Agreement, *, cpu: str) -> str:
    """Return the report as Markdown."""
    from bench.report.markdown import bullets, grid

    n = len(found.compared)
    said = [
        f"{found.agreed} of {n} comparisons agree, and at least {found.least} have to "
        f"(binomial with {100 * CONFIDENCE:.0f} %, level {LEVEL:g}).",
        f"{found.plain_agreed} of {n} agree by the run's plain ratio: samples over seconds as in a whole "
        "training, and nothing trimmed. This count has no verdict.",
        f"{found.contained} of {n} of the runs' own intervals contain the other ratio. About "
        f"{found.expected:.0f} are expected, as that ratio has an error of its own. This count has no "
        "verdict.",
        f"All ran on one CPU: {cpu}.",
        *(f"missing: {line}" for line in found.missing),
        *(f"too few: {line}" for line in found.too_few),
        *(
            f"failed: {one.task.workload} {one.task.backend}, process {one.task.index + 1} of part "
            f"{one.part}: {one.error}"
            for one in found.failed
        ),
    ]
    heads = ("workload", "pair", "pairs", "ratio", "95 % interval", "scatter of a pair")
    rows = [
        (
            one.workload, f"{one.first} / {one.second}", str(one.pairs),
            f"{math.exp(one.log):.3f}", "{:.3f}-{:.3f}".format(*one.interval), f"{100 * one.scatter:.1f} %",
        )
        for one in found.ratios
    ]  # fmt: skip
    against = [
        (
            one.by_run.run, one.alone.workload, f"{one.alone.first} / {one.alone.second}",
            f"{one.by_run.low:.3f}-{one.by_run.high:.3f}", f"{math.exp(one.alone.log):.3f}",
            "yes" if one.contains else "no", f"{100 * math.expm1(one.difference):+.1f} %",
            "yes" if one.agrees else "NO", f"{100 * math.expm1(one.plain_difference):+.1f} %",
            "yes" if one.plain_agrees else "no",
        )
        for one in found.compared
    ]  # fmt: skip
    columns = (
        "run", "workload", "pair", "the run's interval", "alone", "contains", "difference", "agrees",
        "plain difference", "plain agrees",
    )  # fmt: skip
    slow = [
        (one.workload, one.backend, str(one.processes), f"{100 * one.longer:+.1f} %")
        for one in found.beginnings
    ]
    parts = [
        f"# {TITLE}", _ANSWERS[found.status], bullets(said), "## Whole trainings alone",
        grid(heads, rows, numbers=frozenset({2, 3, 4, 5})), "## Beside the runs", grid(columns, against),
        "## The beginning of a training", _BEGINNING,
        grid(("workload", "framework", "processes", "longer"), slow, numbers=frozenset({2, 3})),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"

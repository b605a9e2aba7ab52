"""The figures of scaling in words: intervals, break-even, cost at one rank, what the machine can show."""

from collections.abc import Mapping

from bench.analysis.comparison import KIND_WORDS
from bench.analysis.scaling import ScalingPoint, ScalingSeries, Share
from bench.records.runs import Run
from bench.report.format import DASH, NOTHING, TIMES, ratio_text
from bench.text import listed

NOT_RANKED = "not ranked"
_MINUS = "\N{MINUS SIGN}"


def series_name(one: ScalingSeries, titles: Mapping[str, str]) -> str:
    """Return the name of a series within its workload: the backend's title and the distributed mode."""
    return f"{titles.get(one.backend, one.backend)} {one.mode}"


def speed_up_text(point: ScalingPoint) -> str:
    """Return the interval of a speed-up; in a few words, that there is none."""
    if point.speed_up is None:
        return "not compared" if point.samples_per_s is not None else NOT_RANKED
    low, high = (
        f"{end:.2f}" if end < 10 else f"{end:.1f}" for end in (point.speed_up.low, point.speed_up.high)
    )
    return f"{_range(low, high)}{TIMES}"


def efficiency_text(point: ScalingPoint) -> str:
    """Return the interval of an efficiency in whole percent."""
    if point.efficiency is None:
        return NOTHING
    low, high = (f"{100 * end:.0f}" for end in (point.efficiency.low, point.efficiency.high))
    return f"{_range(low, high)} %"


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low}{DASH}{high}"


def percent_range(share: Share) -> str:
    """Return the interval of a share in percent, with enough digits to tell its ends apart."""
    for digits in (0, 1, 2):
        # Adding 0.0 turns a negative zero into 0.
        low, high = (round(100 * end, digits) + 0.0 for end in (share.low, share.high))
        if low != high:
            break
    first, last = (f"{end:.{digits}f}".replace("-", _MINUS) for end in (low, high))
    if low == high:
        return f"{first} %"
    return f"{first}{' to ' if low < 0 else DASH}{last} %"


def sentences(one: ScalingSeries) -> list[str]:
    """Return the break-even of a series, its cost at one rank, and why numbers of ranks have no figure."""
    missing: dict[str, list[str]] = {}
    for point in one.points:
        if point.why_not is not None:
            missing.setdefault(point.why_not, []).append(str(point.ranks))
    return [
        _break_even(one),
        _cost(one),
        *(
            f"No figure with {listed(ranks)} rank{'' if ranks == ['1'] else 's'}: {why}."
            for why, ranks in missing.items()
        ),
    ]


def _break_even(one: ScalingSeries) -> str:
    plain = "the plain row" if one.plain is None else one.plain.mode
    if one.break_even is not None:
        at = next(point for point in one.points if point.ranks == one.break_even)
        times = "" if at.speed_up is None else f" ({ratio_text(at.speed_up.low, at.speed_up.high)})"
        said = f"The break-even is at {ranks_words(at.ranks)}{times}"
        if at.ranks == 1:
            return f"{said}: it is proven faster than {plain} even there.{_again(one, at.ranks)}"
        return f"{said}: with fewer it is not proven faster than {plain}.{_again(one, at.ranks)}"
    if not one.break_even_known:
        return f"The break-even is unknown{_why_unknown(one)}."
    most = max(point.ranks for point in one.measured)
    return f"No break-even so far: with up to {ranks_words(most)} it is not proven faster than {plain}."


def _again(one: ScalingSeries, break_even: int) -> str:
    """Return which larger numbers of ranks are not proven faster; empty if all are."""
    slower = [str(point.ranks) for point in one.measured if point.ranks > break_even and not point.proven]
    return f" With {listed(slower)} it is not, either." if slower else ""


def _why_unknown(one: ScalingSeries) -> str:
    if one.disturbed:
        return ": something else disturbed the machine, so nothing is claimed"
    return "" if any(point.ranks > 1 for point in one.points) else ": no row has several ranks"


def _cost(one: ScalingSeries) -> str:
    point = next((point for point in one.points if point.ranks == 1), None)
    cost = one.cost_at_one_rank
    if point is None or point.comparison is None or cost is None or one.plain is None:
        why = ": no row of it has one rank" if point is None else ""
        return f"What it costs to be distributed at one rank is unknown{why}."
    plain = one.plain.mode
    if point.proven_slower:
        return f"To be distributed costs {percent_range(cost)} of the throughput of {plain} at one rank."
    if point.proven:
        gain = Share(value=-cost.value, low=-cost.high, high=-cost.low)
        return (
            f"At one rank it is {percent_range(gain)} faster than {plain}: being distributed costs nothing."
        )
    claim = KIND_WORDS[point.comparison.kind]
    return f"At one rank, against {plain}: {claim} (a loss of {percent_range(cost)})."


def ranks_words(count: int) -> str:
    """Return a number of ranks as `1 rank` or `2 ranks`."""
    return "1 rank" if count == 1 else f"{count} ranks"


def what_it_shows(run: Run) -> list[str]:
    """Return in sentences what a run with ranks can show on its machines, and what it cannot."""
    hosts = dict.fromkeys(rank.host for job in run.jobs for rank in job.ranks)
    gpu = any(cell.device == "gpu" for cell in run.header.cells)
    environment = run.header.environment
    device, count = ("GPU", len(environment.gpus)) if gpu else ("CPU", environment.usable_cpus)
    said = [
        "Every process of this run has a GPU of its own, also that of a plain row."
        if gpu
        else "Every process of this run is pinned to one core, also that of a plain row. So a plain row is "
        "slower here than in a normal run, in which a framework may use every core. Compare the rows of this "
        "run only with each other."
    ]
    if len(hosts) > 1:
        said.append(
            f"The ranks ran on {len(hosts)} hosts, so the figures include the network between them. What "
            f"other programs used meanwhile was read on {environment.hostname} alone."
        )
        return said
    plural = "" if count == 1 else "s"
    said.append(
        f"It may use {count} {device}{plural} of the machine, so it cannot show more than {count} "
        f"rank{plural}. What the ranks exchange stays inside the machine and crosses no network."
    )
    if not gpu:
        said.append(
            "CPUs share memory and caches, and two of them may be threads of one core. The efficiency that "
            "this costs is not lost by a framework."
        )
    return said

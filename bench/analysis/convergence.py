"""What one cell learned, over seeds: accuracy and its spread, the curve, the time to the target.

A training is one job that trained for accuracy. Trainings of one seed start from the same weights and take
the same batches in every cell. A training that never reached the target is censored: it counts as longer than
any other, and is never left out.

Everything is derived from the raw points when they are read, and does not depend on the order of the records.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from bench.analysis.statistics import CONFIDENCE, success_interval
from bench.records.schema import EpochPoint, JobRecord

FEWEST_SEEDS = 3
"""Fewest seeds for which a mean has an interval."""
LONG_ENOUGH = 1.0
"""Fewest epochs of a training whose accuracy is compared: one, in which every training image was used once.
The limit was set without a look at any accuracy."""


class Crossing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a training first reached the target.

    The epoch is interpolated on a straight line between the two evaluations on either side of the target, so
    it is off by less than the distance between them, which is kept.
    """

    epochs: float
    bracket_epochs: float
    """Distance of the two evaluations; 0 if the initial weights are at the target already."""
    seconds: float
    """Of training alone: the epochs, multiplied by the mean seconds of an epoch of this training."""
    bracket_seconds: float


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """The trainings of a cell at an epoch at which all of them were evaluated."""

    epoch: float
    train_s: float
    """Mean over the seeds, like every field that is not an end of a band."""
    test_accuracy: float
    accuracy_low: float
    """Of the lowest seed: a band holds every seed, since quantiles of so few seeds mean little."""
    accuracy_high: float
    test_loss: float
    loss_low: float
    loss_high: float


class CellConvergence(msgspec.Struct, frozen=True, kw_only=True):
    """What one cell learned, over its seeds."""

    epochs: float | None
    """Epochs trained; None if no training was completed."""
    accuracies: Mapping[int, float]
    """Final test accuracy by seed, of the completed trainings."""
    accuracy: float | None
    """Their mean."""
    accuracy_sd: float | None
    """Standard deviation between seeds; None below two."""
    accuracy_low: float | None
    """95 % interval of the mean by Student's t; None below `FEWEST_SEEDS`."""
    accuracy_high: float | None
    curve: tuple[CurvePoint, ...]
    diverged: int
    """Trainings whose loss became NaN. They have no final accuracy, but count as trials for the target."""
    crossings: Mapping[int, Crossing | None]
    """Where each seed reached the target, None if the training is censored; empty if there is no target."""
    epochs_to_target: float | None
    """Median over the crossings, a censored one later than all; None if the median itself is censored."""
    seconds_to_target: float | None
    """Like epochs_to_target, in seconds of training alone: evaluation and start-up are excluded."""
    bracket_epochs: float | None
    """The widest bracket of a crossing; None if no training reached the target."""
    bracket_seconds: float | None
    successes: int
    """Trainings that reached the target, of len(crossings)."""
    success_low: float | None
    """95 % interval of the success rate by Wilson; None if there is no target."""
    success_high: float | None


def cell_convergence(jobs: Iterable[JobRecord], target: float | None) -> CellConvergence | None:
    """Return what the jobs of one cell learned; None if none of them trained.

    A seed that was trained again, for example after a resume, counts once.
    """
    trained, diverged = _trainings(jobs)
    if not trained and not diverged:
        return None
    accuracies = {job.spec.seed: job.points[-1].test_accuracy for job in trained}
    values = list(accuracies.values())
    low, high = _mean_interval(values)
    crossings: dict[int, Crossing | None] = {}
    if target is not None:
        crossings = {job.spec.seed: crossing(job.points, target) for job in (*trained, *diverged)}
    reached = [one for one in crossings.values() if one is not None]
    success = success_interval(len(reached), len(crossings)) if crossings else (None, None)
    return CellConvergence(
        epochs=trained[0].points[-1].epoch if trained else None,
        accuracies=accuracies,
        accuracy=mean(values) if values else None,
        accuracy_sd=standard_deviation(values),
        accuracy_low=low,
        accuracy_high=high,
        curve=_curve([job.points for job in trained]),
        diverged=len(diverged),
        crossings=crossings,
        epochs_to_target=_censored_median([one.epochs if one else None for one in crossings.values()]),
        seconds_to_target=_censored_median([one.seconds if one else None for one in crossings.values()]),
        bracket_epochs=max((one.bracket_epochs for one in reached), default=None),
        bracket_seconds=max((one.bracket_seconds for one in reached), default=None),
        successes=len(reached),
        success_low=success[0],
        success_high=success[1],
    )


def crossing(points: Sequence[EpochPoint], target: float) -> Crossing | None:
    """Return where a training first reached the target; None if it is censored."""
    place = next((place for place, point in enumerate(points) if point.test_accuracy >= target), None)
    if place is None:
        return None
    if place == 0:
        return Crossing(epochs=0.0, bracket_epochs=0.0, seconds=0.0, bracket_seconds=0.0)
    before, after = points[place - 1], points[place]
    share = (target - before.test_accuracy) / (after.test_accuracy - before.test_accuracy)
    bracket = after.epoch - before.epoch
    epochs = before.epoch + share * bracket
    # The pace of the whole training: between two close evaluations the clock would add scatter.
    seconds_per_epoch = points[-1].train_s / points[-1].epoch
    return Crossing(
        epochs=epochs,
        bracket_epochs=bracket,
        seconds=epochs * seconds_per_epoch,
        bracket_seconds=bracket * seconds_per_epoch,
    )


def is_too_brief(epochs: float) -> bool:
    """Say whether a training of so many epochs is too brief for its accuracy to be compared."""
    return round(epochs, 6) < LONG_ENOUGH


def finished(job: JobRecord) -> bool:
    """Say whether a job trained the epochs it was asked for, to the nearest step.

    The first point of a job is taken before training, so a job with that point alone trained nothing.
    """
    if not job.points or job.points[-1].steps <= 0:
        return False
    last = job.points[-1]
    a_step = last.epoch / last.steps  # in epochs
    return 0 < job.spec.epochs <= last.epoch + a_step


def _trainings(jobs: Iterable[JobRecord]) -> tuple[list[JobRecord], list[JobRecord]]:
    """Return the jobs that trained to the end, at a steady pace or not, and those that diverged, by seed.

    Of the first group only those with the most epochs count. Of several jobs of a seed the last completed one
    counts, or the last one if none was completed.
    """
    by_seed: dict[int, JobRecord] = {}
    for job in sorted(jobs, key=lambda job: (job.started_at, job.spec.job_id)):
        ended = job.status in ("ok", "no_steady_state") and finished(job)
        diverged = job.status == "nan_loss" and bool(job.points)
        before = by_seed.get(job.spec.seed)
        if ended or (diverged and (before is None or before.status == "nan_loss")):
            by_seed[job.spec.seed] = job
    found = [by_seed[seed] for seed in sorted(by_seed)]
    done = [job for job in found if job.status != "nan_loss"]
    most = max((job.points[-1].epoch for job in done), default=0.0)
    return (
        [job for job in done if math.isclose(job.points[-1].epoch, most)],
        [job for job in found if job.status == "nan_loss"],
    )


def _curve(trainings: Sequence[Sequence[EpochPoint]]) -> tuple[CurvePoint, ...]:
    """Return the trainings at the epochs at which all of them were evaluated."""
    if not trainings:
        return ()
    by_steps = [{point.steps: point for point in points} for points in trainings]
    shared = sorted(set.intersection(*(set(points) for points in by_steps)))
    return tuple(_curve_point([points[steps] for points in by_steps]) for steps in shared)


def _curve_point(points: Sequence[EpochPoint]) -> CurvePoint:
    accuracies = [point.test_accuracy for point in points]
    losses = [point.test_loss for point in points]
    return CurvePoint(
        epoch=points[0].epoch,
        train_s=mean([point.train_s for point in points]),
        test_accuracy=mean(accuracies),
        accuracy_low=min(accuracies),
        accuracy_high=max(accuracies),
        test_loss=mean(losses),
        loss_low=min(losses),
        loss_high=max(losses),
    )


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def standard_deviation(values: Sequence[float]) -> float | None:
    return float(np.std(sorted(values), ddof=1)) if len(values) > 1 else None


def _mean_interval(values: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """Return the interval of the mean by Student's t; None, None below `FEWEST_SEEDS`."""
    sd = standard_deviation(values)
    if sd is None or len(values) < FEWEST_SEEDS:
        return None, None
    from scipy.special import stdtrit

    margin = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * sd / math.sqrt(len(values))
    return mean(values) - margin, mean(values) + margin


def _censored_median(values: Sequence[float | None]) -> float | None:
    """Return the median, where None counts as later than any number; None if the median is such a value."""
    if not values:
        return None
    median = float(np.median([math.inf if value is None else value for value in values]))
    return median if math.isfinite(median) else None

"""Reference traces for timed programs: made when a job needs one, once for each program."""

from pathlib import Path

import fakes
import msgspec
import pytest

from bench.measuring.traces import Traces
from bench.parity.measured import open_measured


@pytest.fixture
def screen() -> fakes.Screen:
    return fakes.Screen()


@pytest.fixture
def traces(tmp_path: Path, screen: fakes.Screen) -> Traces:
    return Traces(tmp_path, screen)


def shape(path: Path | None) -> tuple[int, ...]:
    """Return the steps of a trace and the images of each."""
    assert path is not None
    with open_measured(path) as trace:
        return trace.order.shape


def test_a_trace_is_made_once_for_each_workload_precision_and_number_of_steps(
    traces: Traces, tmp_path: Path
) -> None:
    task = fakes.task_for(fakes.STEADY)
    first, again, of_calls = (traces.path(task, steps) for steps in (1, 1, 16))
    assert first == again
    assert (shape(first), shape(of_calls)) == ((130, 100), (128, 100))
    swept = msgspec.structs.replace(task.spec.workload, batch_size=16)
    other = msgspec.structs.replace(task, spec=msgspec.structs.replace(task.spec, workload=swept))
    assert shape(traces.path(other, 1)) == (130, 16)
    assert len(list(tmp_path.iterdir())) == 3


def test_making_a_trace_shows_how_far_it_is_and_the_time_left(traces: Traces, screen: fakes.Screen) -> None:
    traces.path(fakes.task_for(fakes.STEADY), 1)
    (begun, first), *others = screen.jobs
    assert (begun, first) == ("reference: mnist-softmax, 130 steps in float64", None)
    shares = [done for _, done in others]
    assert len(shares) > 1
    assert shares == sorted(shares, key=lambda share: share or 0.0)
    assert all(" left" in text and done is not None and 0 < done < 1 for text, done in others)


def test_a_workload_with_the_frameworks_own_defaults_has_no_trace(traces: Traces) -> None:
    task = fakes.task_for(fakes.STEADY)
    own = msgspec.structs.replace(task.spec.workload, matched=False)
    task = msgspec.structs.replace(task, spec=msgspec.structs.replace(task.spec, workload=own))
    assert traces.path(task, 1) is None

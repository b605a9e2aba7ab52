"""What a worker does with a backend, seen in the events it sends."""

import time
from pathlib import Path
from typing import Any

import fakes
import msgspec
import pytest

from bench.datasets import cache
from bench.errors import NotComparableError
from bench.measuring import parity as verify
from bench.parity import reference
from bench.parity.measured import PERIOD, measured_trace, save_measured
from bench.records.schema import Window
from bench.worker import __main__ as worker
from bench.worker import measure as tasks
from bench.worker.protocol import (
    AnyCommand,
    Begin,
    Built,
    DataLoaded,
    Described,
    Evaluated,
    Event,
    Finish,
    FirstStep,
    Imported,
    Learned,
    Memory,
    ParityCase,
    Probed,
    ProbeTask,
    Proven,
    Ready,
    Timed,
    Turn,
    Verified,
    VerifyTask,
    WarmedUp,
    WarmUp,
)  # fmt: skip
from bench.worker.timed_loop import Batches, Trainer, load_data, training_data
from bench.workloads.catalog import find_workload
from bench.workloads.ranks import Place
from bench.workloads.specs import Cell


def measured(target: str = "Steady", *, begin: Begin | None = None, **changes: Any) -> list[Event]:
    """Return the events of a job done in this process."""
    events: list[Event] = []
    task = fakes.task_for(fakes.info("fake", f"fakes:{target}"), **changes)
    commands: list[AnyCommand] = [begin or Begin(), *[Turn(steps=7)] * task.spec.windows, Finish()]
    worker.do(msgspec.json.encode(task), iter(commands), events.append)
    return events


class Clockwork:
    """A trainer whose steps take the seconds of a list: one figure per call, the last for all later calls."""

    def __init__(self, seconds_a_step: list[float]) -> None:
        self._seconds = seconds_a_step
        self.calls: list[int] = []
        self.train_s = 0.0

    def lead(self, steps: int) -> float:
        return self.train(steps).seconds

    def train(self, steps: int) -> Window:
        seconds = self._seconds[min(len(self.calls), len(self._seconds) - 1)]
        self.calls.append(steps)
        self.train_s += steps * seconds
        return Window(steps=steps, samples=steps * 100, seconds=steps * seconds)


def turns(clock: Clockwork, commands: list[AnyCommand], window_s: float = 0.5, **lead: float) -> list[Timed]:
    events: list[Event] = []
    tasks.take_turns(clock, window_s, iter(commands), events.append, **lead)  # type: ignore[arg-type]
    return [event for event in events if isinstance(event, Timed)]


def test_the_events_come_in_the_order_of_the_work() -> None:
    kinds = [type(event) for event in measured()]
    assert list(dict.fromkeys(kinds)) == [
        Imported, DataLoaded, Built, FirstStep, WarmedUp, Ready, Timed, Memory, Described, Evaluated, Learned,
    ]  # fmt: skip


def test_what_is_not_asked_for_is_not_done() -> None:
    kinds = {type(event) for event in measured(windows=0, epochs=0)}
    assert kinds == {Imported, DataLoaded, Built, FirstStep, Memory, Described}


@pytest.fixture
def proof(tmp_path: Path) -> str:
    """Return the file of a trace of two steps on the data of `fakes.task_for`."""
    task = fakes.task_for(fakes.STEADY)
    dataset = load_data(task.data)
    workload = task.spec.workload
    images = dataset.test_images[:64]
    data = training_data(workload, dataset)
    made = measured_trace(workload, data, images, steps=2, call_steps=1, precision="fp32")
    save_measured(tmp_path / "trace.npz", made)
    return str(tmp_path / "trace.npz")


def test_the_program_is_proven_before_the_windows_and_after_them(proof: str) -> None:
    events = measured(begin=Begin(proof=proof, repeated=True), epochs=0)
    kinds = [type(event) for event in events]
    assert list(dict.fromkeys(kinds)) == [
        Imported, DataLoaded, Built, FirstStep, Proven, WarmedUp, Ready, Timed, Memory, Described,
    ]  # fmt: skip
    assert kinds[-1] is Proven, "memory is measured without the second proof"
    before, after = (event.proof for event in events if isinstance(event, Proven))
    assert (before.after_windows, before.steps) == (False, 2)
    assert [check.kind for check in before.checks] == ["losses", "change", "changes"]
    for one in (before, after):
        assert len(one.loss_errors) == len(one.rounding_errors) == 2
        assert one.checks[0].error in one.loss_errors
    assert (after.after_windows, after.steps) == (True, 2 + PERIOD)
    assert [check.kind for check in after.checks] == ["losses", "change", "logits", "changes", "repeated"]
    assert all(check.ok for check in (*before.checks, *after.checks))


def test_a_program_that_is_wrong_where_it_is_timed_ends_before_its_windows(proof: str) -> None:
    events: list[Event] = []
    task = fakes.task_for(fakes.info("fake", "fakes:WrongInTraining"))
    with pytest.raises(
        NotComparableError, match="the timed program does not compute what the reference"
    ) as error:
        worker.do(msgspec.json.encode(task), iter([Begin(proof=proof)]), events.append)
    assert "change at logits/bias is off by 1.0e+00" in str(error.value)
    assert isinstance(events[-1], Proven)
    assert not any(isinstance(event, Ready) for event in events)


def test_a_window_says_how_much_was_trained_in_it() -> None:
    windows = [event.window for event in measured(epochs=0) if isinstance(event, Timed)]
    assert len(windows) == 5
    for window in windows:
        assert (window.steps, window.samples) == (7, 700)
        assert window.seconds >= window.steps * fakes.STEP_S


@pytest.mark.parametrize(
    ("seconds", "window_s", "call_steps", "calls", "step_s"),
    [
        pytest.param([0.01], 0.5, 1, [1, 8, 50], 0.01, id="windows-grow-eightfold-at-most"),
        # A guess from the first call, which compiles, would leave windows a thousandth as long.
        pytest.param([0.4, 0.0004], 0.1, 1, [1, 1, 8, 64, 250], 0.0004, id="one-slow-step-ends-nothing"),
        pytest.param([20.0, 0.04, 0.01], 0.35, 4, [4, 4, 8, 36], 0.01, id="whole-calls"),
        # Disturbances only make a step slower.
        pytest.param([0.3, 0.01, 0.02], 0.5, 1, [1, 2, 16], 0.01, id="the-quickest-window-counts"),
    ],
)
def test_a_warm_up_ends_with_a_whole_window_and_reports_the_seconds_of_a_step(
    seconds: list[float], window_s: float, call_steps: int, calls: list[int], step_s: float
) -> None:
    clock, events = Clockwork(seconds), []
    tasks.warm_up(clock, window_s, events.append, call_steps=call_steps)  # type: ignore[arg-type]
    assert clock.calls == calls
    assert [event.window.steps for event in events[:-1]] == calls
    assert events[-1] == Ready(step_s=step_s, call_steps=call_steps, again=True)


@pytest.mark.parametrize("before_s", [0.0, 3.0], ids=["short window", "slow first step"])
def test_a_warm_up_takes_half_a_second(before_s: float) -> None:
    clock = Clockwork([0.001])
    clock.train_s = before_s
    tasks.warm_up(clock, 0.01, lambda _: None)  # type: ignore[arg-type]
    assert sum(clock.calls) * 0.001 >= tasks.WARMUP_S


@pytest.mark.parametrize(
    ("step_s", "window_s", "steps", "lead"),
    [
        (0.01, 0.5, 50, 1),
        (0.01, 0.5, 7, 1),
        (0.001, 0.05, 50, 10),
        (0.0001, 0.002, 20, 100),
        (0.03, 0.05, 2, 1),
    ],
)
def test_every_window_has_a_lead_of_a_hundredth_of_a_second_that_does_not_count(
    step_s: float, window_s: float, steps: int, lead: int
) -> None:
    """It is one step at least."""
    clock = Clockwork([step_s])
    found = turns(clock, [Turn(steps=steps)] * 2, window_s)
    assert clock.calls == [lead, steps] * 2
    assert [event.window.steps for event in found] == [steps] * 2
    assert found[0].lead_s == pytest.approx(lead * step_s)


@pytest.mark.parametrize(
    ("step_s", "steps", "lead_s", "lead"),
    [
        (0.001, 50, 0.05, 50),
        (0.001, 50, 0.2, 200),
        (0.15, 1, 0.2, 2),  # a window of one step is longer than asked
        (0.15, 1, 0.05, 1),
    ],
)
def test_a_lead_is_as_long_as_asked(step_s: float, steps: int, lead_s: float, lead: int) -> None:
    clock = Clockwork([step_s])
    (found,) = turns(clock, [Turn(steps=steps)], 0.05, lead_s=lead_s, step_s=step_s)
    assert clock.calls == [lead, steps]
    assert found.lead_s == pytest.approx(lead * step_s)


def test_a_worker_warms_up_again_and_goes_on_taking_turns() -> None:
    clock = Clockwork([0.001])
    events: list[Event] = []
    commands = iter([WarmUp(), Turn(steps=5), WarmUp(), Turn(steps=5)])
    tasks.take_turns(clock, 0.05, commands, events.append)  # type: ignore[arg-type]
    kinds = [type(event).__name__ for event in events if not isinstance(event, WarmedUp)]
    assert kinds == ["Ready", "Timed"] * 2
    assert sum(isinstance(event, WarmedUp) for event in events) > 4


def test_the_quickest_step_of_all_warm_ups_counts() -> None:
    slow = Clockwork([0.01])
    events: list[Event] = []
    tasks.take_turns(slow, 0.05, iter([WarmUp()]), events.append, step_s=0.002)  # type: ignore[arg-type]
    assert events[-1] == Ready(step_s=0.002, call_steps=1, again=True)


def test_what_comes_before_a_window_is_not_slowed() -> None:
    """While a slowed backend waits, its threads fall asleep, and the window that follows takes longer."""
    backend, order, _ = fakes.backend_on_sample()
    calls: list[tuple[str, int]] = []

    class Noting:
        def __init__(self, name: str) -> None:
            self.name = name

        def train_steps(self, batches: Any) -> Any:
            calls.append((self.name, len(batches)))
            return backend.train_steps(batches)

    trainer = Trainer(Noting("slowed"), order, plain=Noting("plain"))  # type: ignore[arg-type]
    tasks.take_turns(trainer, 0.5, iter([Turn(steps=50)]), lambda _: None)
    assert calls == [("plain", 1), ("slowed", 50)]
    assert trainer.steps == 51


@pytest.mark.parametrize("last", [Finish(), None])
def test_turns_end_with_the_command_that_says_so_or_with_the_harness(last: Finish | None) -> None:
    assert len(turns(Clockwork([0.01]), [Turn(steps=5), *([last, Turn(steps=5)] if last else [])])) == 1


def test_learning_is_evaluated_at_the_start_along_the_way_and_at_the_end() -> None:
    backend, order, sample = fakes.backend_on_sample()  # four steps an epoch
    points = learned(backend, order, sample, epochs=2.5)
    assert [point.steps for point in points] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert points[-1].epoch == 2.5
    assert points[0].train_loss is None
    assert points[0].train_s == 0.0
    assert all(point.train_loss is not None for point in points[1:])
    assert [point.train_s for point in points] == sorted(point.train_s for point in points)
    assert points[-1].test_loss < points[0].test_loss


def test_less_than_a_step_of_an_epoch_is_still_a_step() -> None:
    backend, order, sample = fakes.backend_on_sample()
    points = learned(backend, order, sample, epochs=0.01)
    assert [point.steps for point in points] == [0, 1]


def test_where_nobody_asks_for_the_way_only_the_end_is_evaluated() -> None:
    ends = [
        learned(*fakes.backend_on_sample(), epochs=1.0, only_last=only_last) for only_last in (False, True)
    ]
    assert len(ends[0]) > 2
    assert len(ends[1]) == 1
    last = [(points[-1].steps, points[-1].test_loss) for points in ends]
    assert last[0] == pytest.approx(last[1])


def test_learning_may_be_evaluated_on_a_part_of_the_test_split() -> None:
    asked: list[int] = []
    ends = []
    for samples in (None, 10):
        backend, order, sample = fakes.backend_on_sample()
        predict = backend.predict
        backend.predict = lambda images, predict=predict: asked.append(len(images)) or predict(images)
        ends.append(learned(backend, order, sample, epochs=1.0, only_last=True, test_samples=samples)[-1])
    assert asked == [len(sample.test_images), 10]
    assert ends[1].test_accuracy * 10 == pytest.approx(round(ends[1].test_accuracy * 10))
    assert ends[0].test_loss != ends[1].test_loss


def learned(
    backend: Any,
    order: Batches,
    sample: cache.Dataset,
    *,
    epochs: float,
    only_last: bool = False,
    test_samples: int | None = None,
) -> list[Any]:
    events: list[Event] = []
    tasks.learn(
        backend, order, find_workload(fakes.WORKLOAD), sample,
        epochs=epochs, only_last=only_last, test_samples=test_samples, emit=events.append,
    )  # fmt: skip
    assert all(isinstance(event, Evaluated) and event.of_epochs >= epochs for event in events)
    return [event.point for event in events if isinstance(event, Evaluated)]


def test_evaluation_is_not_part_of_the_training_time() -> None:
    backend, order, sample = fakes.backend_on_sample()

    class SlowToAnswer:
        train_steps = staticmethod(backend.train_steps)

        @staticmethod
        def predict(images: Any) -> Any:
            time.sleep(0.2)
            return backend.predict(images)

    points = learned(SlowToAnswer(), order, sample, epochs=0.25)
    assert len(points) == 2
    assert points[-1].train_s < 0.2


def test_learning_starts_from_the_initial_weights_however_long_was_timed() -> None:
    """The first point of a job that timed windows is that of an untrained network."""
    timed, untimed = measured(epochs=1), measured(epochs=1, windows=0)
    first, again = (
        [event.point for event in events if isinstance(event, Evaluated)] for events in (timed, untimed)
    )
    assert first[0].test_loss == again[0].test_loss
    assert first[-1].test_loss == again[-1].test_loss


# Verification and the probe


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workload = reference.gentle(find_workload(fakes.WORKLOAD))
    return verify.write_reference(workload, tmp_path_factory.mktemp("trace") / "trace.npz")


def case_of(trace: Path, mode: str = "only") -> ParityCase:
    cell = Cell(workload=fakes.WORKLOAD, backend="fake", mode=mode, device="cpu", precision="fp32")
    return ParityCase(cell=cell, workload=reference.gentle(find_workload(fakes.WORKLOAD)), trace=str(trace))


def verified(target: str, *cases: ParityCase) -> list[Verified]:
    events: list[Event] = []
    task = VerifyTask(backend=fakes.info("fake", f"fakes:{target}"), cases=cases)
    worker.do(msgspec.json.encode(task), iter(()), events.append)
    return [event for event in events if isinstance(event, Verified)]


def test_a_right_backend_is_verified(trace: Path) -> None:
    (event,) = verified("Steady", case_of(trace))
    assert (event.status, event.error) == ("ok", None)
    assert len(event.checks) == 6
    assert all(check.ok for check in event.checks)


def test_a_wrong_backend_is_found_out(trace: Path) -> None:
    (event,) = verified("Wrong", case_of(trace))
    assert event.status == "ok"
    assert {check.kind for check in event.checks if not check.ok} == {"logits"}


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("Elsewhere", "wrong_device", "it runs on gpu"),
        ("NanLogits", "not_comparable", "not finite"),
        ("OutOfMemory", "out_of_memory", "no room"),
    ],
)
def test_a_case_that_fails_does_not_keep_the_others_from_a_try(
    target: str, status: str, said: str, trace: Path
) -> None:
    events = verified(target, case_of(trace), case_of(trace, mode="other"))
    assert [event.status for event in events] == [status] * 2
    assert [event.cell.mode for event in events] == ["only", "other"]
    assert all(event.error is not None and said in event.error and event.checks == () for event in events)


def test_a_rank_parts_from_the_others_at_the_end(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(fakes.Steady, "leave", lambda: said.append("left"), raising=False)
    for place in (None, Place(rank=1, ranks=2)):
        task = VerifyTask(backend=fakes.info("fake", "fakes:Steady"), cases=(case_of(trace),), place=place)
        worker.do(msgspec.json.encode(task), iter(()), lambda event: said.append(type(event).__name__))
    assert said == ["Imported", "Verified"] * 2 + ["left"]


def test_a_trace_that_is_gone_is_a_failure_and_no_pass(tmp_path: Path) -> None:
    (event,) = verified("Steady", case_of(tmp_path / "none.npz"))
    assert event.status == "failed"
    assert event.checks == ()


def test_the_probe_tells_how_far_off_the_logits_are(trace: Path) -> None:
    def probed(target: str) -> float:
        events: list[Event] = []
        task = ProbeTask(backend=fakes.info("fake", f"fakes:{target}"), case=case_of(trace))
        worker.do(msgspec.json.encode(task), iter(()), events.append)
        return next(event.error for event in events if isinstance(event, Probed))

    assert probed("Steady") < 1e-6
    assert probed("Wrong") == pytest.approx(0.01, rel=1e-3)


def test_a_probe_of_logits_that_are_no_numbers_fails(trace: Path) -> None:
    task = ProbeTask(backend=fakes.info("fake", "fakes:NanLogits"), case=case_of(trace))
    with pytest.raises(NotComparableError, match="not finite"):
        worker.do(msgspec.json.encode(task), iter(()), lambda event: None)

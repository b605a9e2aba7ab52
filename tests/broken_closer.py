"""Twins of a sound backend that offers all of `Instrumented` and `OwnDefaults`, each with one fault."""

import msgspec
import numpy as np

from backends.base import TrainingData
from backends.numpy_backend import NumpyBackend
from bench.workloads.flops import training_flops
from bench.workloads.instruments import Peak, StepSplit
from bench.workloads.parameters import initial_params
from bench.workloads.specs import OptimizerSpec


class Sound(NumpyBackend):
    """The reference, with defaults of its own, and figures where the reference has none or takes long."""

    def __init__(self, workload, data: TrainingData, *, mode, device, precision):
        if not workload.matched:
            spec = OptimizerSpec(name=workload.optimizer.name, learning_rate=0.01)
            workload = msgspec.structs.replace(workload, optimizer=spec, matched=True)
        super().__init__(workload, data, mode=mode, device=device, precision=precision)

    def initialise(self, seed):
        self.load_params(initial_params(self._workload.architecture, self._data.info, seed=seed))

    def permutation(self, seed, epoch):
        rng = np.random.default_rng([seed, epoch])
        return rng.permutation(len(self._data.labels)).astype(np.int32)

    def count_flops(self):
        return training_flops(self._workload.architecture, self._data.info, self._workload.batch_size)

    def peak(self):
        return Peak(flops_per_s=1e11, bytes_per_s=1e10, product_error=3e-7)


# ---- splitting


class SplitForgetsTheUpdate(Sound):
    """Goes back to where it was when the steps have been timed."""

    def split_steps(self, order):
        state = self.save_state()
        told = super().split_steps(order)
        self.restore_state(state)
        return told


class SplitForgetsOneStep(Sound):
    """Takes the first step to warm up, and does not take it back."""

    def split_steps(self, order):
        super().split_steps(order[:1])
        return super().split_steps(order)


class SplitForgetsTheOptimizer(Sound):
    """Trains with an optimizer of its own."""

    def split_steps(self, order):
        kept = {key: value for key, value in self.save_state().items() if key.startswith("slot/")}
        told = super().split_steps(order)
        self.restore_state(self.save_state() | kept)
        return told


class SplitsBackwards(Sound):
    """Subtracts its clock's readings in the wrong order."""

    def split_steps(self, order):
        told = super().split_steps(order)
        return msgspec.structs.replace(told, data_s=-told.data_s)


class SplitsNothing(Sound):
    """Trains, and tells no time."""

    def split_steps(self, order):
        super().split_steps(order)
        return StepSplit(steps=len(order), data_s=0.0, transfer_s=0.0, dispatch_s=0.0, device_s=0.0)


class SplitsOneOfMany(Sound):
    """Says that it looked at one step where it took several."""

    def split_steps(self, order):
        return msgspec.structs.replace(super().split_steps(order), steps=1)


# ---- counting


class CountsMultiplicationsOnly(Sound):
    """Takes a multiplication and an addition for one operation."""

    def count_flops(self):
        return super().count_flops() / 2


class CountsTwice(Sound):
    """Counts two steps."""

    def count_flops(self):
        return super().count_flops() * 2


class CountsNoBackwardPass(Sound):
    """Counts what prediction takes."""

    def count_flops(self):
        return super().count_flops() / 3


class CountsByTraining(Sound):
    """Takes a step to count it, and keeps it."""

    def count_flops(self):
        self.train_steps(np.arange(self._workload.batch_size, dtype=np.int32)[None])
        return super().count_flops()


class CountsAndKeepsGradients(Sound):
    """Leaves the gradients that it counted, to which the next step adds its own."""

    kept = False

    def count_flops(self):
        self.kept = True
        return super().count_flops()

    def train_steps(self, order):
        if self.kept:
            super().train_steps(order)
        self.kept = False
        return super().train_steps(order)


class PeaksInTeraflops(Sound):
    """Tells its rates in another unit."""

    def peak(self):
        return msgspec.structs.replace(super().peak(), flops_per_s=0.1)


class PeaksInfinitely(Sound):
    """Divides by the time of a copy that was never made."""

    def peak(self):
        return msgspec.structs.replace(super().peak(), bytes_per_s=float("inf"))


class PeaksInTensorFloats(Sound):
    """Leaves TF32 on where float32 was asked for."""

    def peak(self):
        return msgspec.structs.replace(super().peak(), product_error=3e-4)


class PeaksWithoutProof(Sound):
    """Measures the product, and does not compute it again."""

    def peak(self):
        return msgspec.structs.replace(super().peak(), product_error=None)


class PeaksInItsParameters(Sound):
    """Uses a parameter for a buffer."""

    def peak(self):
        self.params["logits/bias"] = self.params["logits/bias"] * 2.0
        return super().peak()


# ---- its own defaults


class RepeatsAnIndex(Sound):
    """Draws one image twice, and so leaves one out."""

    def permutation(self, seed, epoch):
        found = super().permutation(seed, epoch)
        found[-1] = found[0]
        return found


class ShufflesOnce(Sound):
    """Walks every epoch in the same order."""

    def permutation(self, seed, epoch):
        return super().permutation(seed, 0)


class ShufflesAlikeForAll(Sound):
    """Takes no notice of the seed."""

    def permutation(self, seed, epoch):
        return super().permutation(0, epoch)


class ShufflesAsItComes(Sound):
    """Draws from a stream that goes on from call to call."""

    def permutation(self, seed, epoch):
        self._calls = getattr(self, "_calls", 0) + 1
        return super().permutation(seed, epoch + self._calls)


class DrawsAlikeForAll(Sound):
    """Takes no notice of the seed."""

    def initialise(self, seed):
        super().initialise(0)


class DrawsAsItComes(Sound):
    """Draws from a stream that goes on from call to call."""

    def initialise(self, seed):
        self._calls = getattr(self, "_calls", 0) + 1
        super().initialise(seed + 100 * self._calls)


class DrawsForAnOldOptimizer(Sound):
    """Keeps the optimizer's state when it draws anew."""

    def initialise(self, seed):
        kept, step = self._optimizer, self._step
        super().initialise(seed)
        self._optimizer, self._step = kept, step


class TrainsByTheWorkloadsRate(NumpyBackend):
    """Takes the constants of the optimizer from the workload after all."""

    def __init__(self, workload, data: TrainingData, **kinds):
        super().__init__(msgspec.structs.replace(workload, matched=True), data, **kinds)

    initialise, permutation = Sound.initialise, Sound.permutation


TWINS = [
    (SplitForgetsTheUpdate, "a_split_step_trains_as_any_other"),
    (SplitForgetsOneStep, "a_split_step_trains_as_any_other"),
    (SplitForgetsTheOptimizer, "a_split_step_trains_as_any_other"),
    (SplitsBackwards, "a_split_step_trains_as_any_other"),
    (SplitsNothing, "a_split_step_trains_as_any_other"),
    (SplitsOneOfMany, "a_split_step_trains_as_any_other"),
    (CountsMultiplicationsOnly, "operations_are_counted_as_by_hand"),
    (CountsTwice, "operations_are_counted_as_by_hand"),
    (CountsNoBackwardPass, "operations_are_counted_as_by_hand"),
    (CountsByTraining, "operations_are_counted_as_by_hand"),
    (CountsAndKeepsGradients, "counting_leaves_the_next_step_as_it_was"),
    (PeaksInTeraflops, "a_peak_is_measured_beside_training"),
    (PeaksInfinitely, "a_peak_is_measured_beside_training"),
    (PeaksInTensorFloats, "a_peak_is_measured_beside_training"),
    (PeaksWithoutProof, "a_peak_is_measured_beside_training"),
    (PeaksInItsParameters, "a_peak_is_measured_beside_training"),
    (RepeatsAnIndex, "a_permutation_is_one"),
    (ShufflesOnce, "a_permutation_is_one"),
    (ShufflesAlikeForAll, "a_permutation_is_one"),
    (ShufflesAsItComes, "a_permutation_is_one"),
    (DrawsAlikeForAll, "a_seed_draws_its_own_parameters"),
    (DrawsAsItComes, "a_seed_draws_its_own_parameters"),
    (DrawsForAnOldOptimizer, "drawing_anew_resets_the_optimizer"),
    (TrainsByTheWorkloadsRate, "its_own_defaults_train_or_are_refused"),
]
"""Each with the check that must see it."""

"""The four optimizers in PyTorch: by `torch.optim`, and as operations that are compiled with a step.

Both update the parameters in place; the formulas are those of `backends.numpy_backend`.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import msgspec
import numpy as np
import torch
from torch import Tensor

from backends.base import State
from bench.workloads.specs import OptimizerSpec


class TorchOptim:
    """An optimizer of `torch.optim` and the schedule of its rate, used as PyTorch's documentation does."""

    def __init__(
        self, spec: OptimizerSpec, parameters: Sequence[Tensor], *, matched: bool, fused: bool
    ) -> None:
        """Make the optimizer; `fused` asks for one kernel for all parameters, where PyTorch has one."""
        # The first optimizer of a process imports torch._dynamo, which takes about a second. That is most of
        # the time to build a small network, and everyone who uses torch.optim pays it.
        self._spec, self._parameters = spec, parameters
        self._make = partial(make_optimizer, fused=fused) if matched else make_default_optimizer
        self.reset()

    def reset(self, steps_before: int = 0) -> None:
        """Make a new optimizer, and the schedule of its rate as it is after `steps_before` steps."""
        self._steps_before = steps_before
        self.optimizer = self._make(self._spec, self._parameters)
        self._scheduler = None
        if self._spec.decay_rate != 1.0:
            self._scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._decay)

    def step(self) -> None:
        """Update the parameters by their gradients, and the rate by its schedule."""
        self.optimizer.step()
        if self._scheduler is not None:
            self._scheduler.step()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def _decay(self, step: int) -> float:
        return self._spec.decay_rate ** ((self._steps_before + step) / self._spec.decay_steps)

    def save_state(self) -> State:
        slots = self.optimizer.state_dict()["state"]
        state = {
            f"slot/{number}/{slot}": value.numpy(force=True).copy()
            for number, values in slots.items()
            for slot, value in values.items()
            if value is not None  # the buffer of an SGD without momentum
        }
        steps = 0 if self._scheduler is None else self._steps_before + self._scheduler.last_epoch
        return state | {"step": np.array(steps)}

    def restore_state(self, state: State) -> None:
        self.reset(int(state["step"]))
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            if key.startswith("slot/"):
                _, number, slot = key.split("/")
                found, parameter = torch.from_numpy(np.array(value)), self._parameters[int(number)]
                if found.shape == parameter.shape:
                    # A fused optimizer reads both in the order of memory, which must be the parameter's.
                    found = torch.empty_like(parameter, requires_grad=False).copy_(found)
                slots.setdefault(int(number), {})[slot] = found
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": slots})


class Foreach:
    """Updates by foreach operations on tensors, which can be compiled with a step.

    A power of a constant whose exponent grows with the steps, such as `beta1**t`, is a running product in
    float64. Compiled, `beta1**t` would be computed again for every element of every parameter.
    """

    def __init__(self, spec: OptimizerSpec, parameters: Sequence[Tensor], *, matched: bool) -> None:
        self._spec = spec if matched else with_own_constants(spec, parameters)
        self._epsilon_in_root = matched  # torch.optim.RMSprop adds it to the root
        self._parameters = list(parameters)
        slots = {"sgd": (), "momentum": ("buffer",), "adam": ("m", "v"), "rmsprop": ("square",)}[spec.name]
        self._slots = {slot: [torch.zeros_like(p) for p in self._parameters] for slot in slots}
        self._factors = growing_powers(self._spec)
        # Not of shape (): PyTorch 2.13 may drop a change, in place, of a float64 scalar on the CPU.
        self._powers = {
            name: torch.ones(1, dtype=torch.float64, device=self._parameters[0].device)
            for name in self._factors
        }
        self.reset()

    def state_tensors(self) -> list[Tensor]:
        """Return the tensors that an update changes beside the parameters."""
        return [*self._powers.values(), *(value for values in self._slots.values() for value in values)]

    def reset(self) -> None:
        """Reset the state in place, as compiled programs hold on to these tensors."""
        for power in self._powers.values():
            power.fill_(1.0)
        for slot, values in self._slots.items():
            for value in values:
                value.fill_(self._spec.initial_square if slot == "square" else 0.0)

    def update(self, gradients: Sequence[Tensor]) -> None:
        """Update the parameters by these gradients."""
        spec, change = self._spec, gradients
        rate: float | Tensor = spec.learning_rate
        if "decay" in self._powers:
            rate = rate * self._powers["decay"][0]  # the first step has the full rate
        for name, factor in self._factors.items():
            self._powers[name].mul_(factor)
        match spec.name:
            case "momentum":
                change = self._slots["buffer"]
                torch._foreach_mul_(change, spec.momentum)
                torch._foreach_add_(change, gradients)
            case "adam":
                m, v = self._slots["m"], self._slots["v"]
                torch._foreach_lerp_(m, gradients, 1 - spec.beta1)
                torch._foreach_mul_(v, spec.beta2)
                torch._foreach_addcmul_(v, gradients, gradients, 1 - spec.beta2)
                correction1, correction2 = (1 - self._powers[name][0] for name in ("beta1", "beta2"))
                root = torch._foreach_sqrt(torch._foreach_div(v, correction2))
                epsilon = spec.epsilon / torch.sqrt(correction2) if spec.epsilon_hat else spec.epsilon
                torch._foreach_add_(root, epsilon)
                change = torch._foreach_div(torch._foreach_div(m, correction1), root)
            case "rmsprop":
                square = self._slots["square"]
                torch._foreach_mul_(square, spec.rho)
                torch._foreach_addcmul_(square, gradients, gradients, 1 - spec.rho)
                if self._epsilon_in_root:
                    root = torch._foreach_sqrt(torch._foreach_add(square, spec.epsilon))
                else:
                    root = torch._foreach_add(torch._foreach_sqrt(square), spec.epsilon)
                change = torch._foreach_div(gradients, root)
        torch._foreach_sub_(self._parameters, torch._foreach_mul(change, rate))

    def save_state(self) -> State:
        slots = {
            f"slot/{number}/{slot}": value
            for slot, values in self._slots.items()
            for number, value in enumerate(values)
        }
        powers = {f"power/{name}": value for name, value in self._powers.items()}
        return {name: value.numpy(force=True).copy() for name, value in (slots | powers).items()}

    def restore_state(self, state: State) -> None:
        for name, power in self._powers.items():
            if f"power/{name}" in state:
                power.copy_(torch.from_numpy(state[f"power/{name}"]))
            else:  # a checkpoint from when the state was the number of steps
                power.fill_(self._factors[name] ** float(state["step"]))
        for slot, values in self._slots.items():
            for number, value in enumerate(values):
                value.copy_(torch.from_numpy(state[f"slot/{number}/{slot}"]))


def growing_powers(spec: OptimizerSpec) -> dict[str, float]:
    """Return, by name, the factors by which the powers in an optimizer's formulas grow in each step."""
    powers = {"beta1": spec.beta1, "beta2": spec.beta2} if spec.name == "adam" else {}
    if spec.decay_rate != 1.0:
        powers["decay"] = spec.decay_rate ** (1 / spec.decay_steps)
    return powers


class Adam(torch.optim.Optimizer):
    """Adam with epsilon added to the root of the uncorrected moment; torch.optim.Adam corrects it first."""

    def __init__(
        self, parameters: Iterable[Tensor], *, lr: float, betas: tuple[float, float], epsilon: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "epsilon": epsilon})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in parameters]
            beta1, beta2 = group["betas"]
            for p in parameters:
                if not self.state[p]:
                    self.state[p] |= {
                        "step": torch.zeros(()),
                        "m": torch.zeros_like(p),
                        "v": torch.zeros_like(p),
                    }
            m, v = ([self.state[p][slot] for p in parameters] for slot in ("m", "v"))
            for p in parameters:
                self.state[p]["step"] += 1
            step = float(self.state[parameters[0]]["step"])
            torch._foreach_lerp_(m, gradients, 1 - beta1)
            torch._foreach_mul_(v, beta2)
            torch._foreach_addcmul_(v, gradients, gradients, 1 - beta2)
            roots = torch._foreach_sqrt(v)
            torch._foreach_add_(roots, group["epsilon"])
            rate = group["lr"] * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
            torch._foreach_addcdiv_(parameters, m, roots, -rate)


class RMSProp(torch.optim.Optimizer):
    """RMSProp with epsilon inside the root; torch.optim.RMSprop has it outside, and starts from zero."""

    def __init__(
        self, parameters: Iterable[Tensor], *, lr: float, rho: float, epsilon: float, initial_square: float
    ) -> None:
        defaults = {"lr": lr, "rho": rho, "epsilon": epsilon, "initial_square": initial_square}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in parameters]
            for p in parameters:
                if not self.state[p]:
                    self.state[p]["square"] = torch.full_like(p, group["initial_square"])
            squares = [self.state[p]["square"] for p in parameters]
            torch._foreach_mul_(squares, group["rho"])
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["rho"])
            roots = torch._foreach_sqrt(torch._foreach_add(squares, group["epsilon"]))
            torch._foreach_addcdiv_(parameters, gradients, roots, -group["lr"])


def make_optimizer(
    spec: OptimizerSpec, parameters: Iterable[Tensor], *, fused: bool
) -> torch.optim.Optimizer:
    """Return the optimizer with every constant of the workload."""
    rate, one_kernel = spec.learning_rate, True if fused else None  # None: PyTorch chooses
    match spec.name:
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=0.0, weight_decay=0.0, fused=one_kernel)
        case "momentum":
            return torch.optim.SGD(
                parameters,
                lr=rate,
                momentum=spec.momentum,
                dampening=0.0,
                nesterov=False,
                weight_decay=0.0,
                fused=one_kernel,
            )
        case "adam" if spec.epsilon_hat:
            return Adam(parameters, lr=rate, betas=(spec.beta1, spec.beta2), epsilon=spec.epsilon)
        case "adam":
            return torch.optim.Adam(
                parameters,
                lr=rate,
                betas=(spec.beta1, spec.beta2),
                eps=spec.epsilon,
                weight_decay=0.0,
                amsgrad=False,
                fused=one_kernel,
            )
        case "rmsprop":
            return RMSProp(
                parameters,
                lr=rate,
                rho=spec.rho,
                epsilon=spec.epsilon,
                initial_square=spec.initial_square,
            )


def make_default_optimizer(spec: OptimizerSpec, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Return the optimizer with torch.optim's own constants; a momentum, 0 by default, is the workload's."""
    match spec.name:
        case "sgd":
            return torch.optim.SGD(parameters)
        case "momentum":
            return torch.optim.SGD(parameters, momentum=spec.momentum)
        case "adam":
            return torch.optim.Adam(parameters)
        case "rmsprop":
            return torch.optim.RMSprop(parameters)


def with_own_constants(spec: OptimizerSpec, parameters: Sequence[Tensor]) -> OptimizerSpec:
    """Return the spec of that optimizer with the constants that torch.optim has by default."""
    own = make_default_optimizer(spec, parameters).defaults
    beta1, beta2 = own.get("betas", (spec.beta1, spec.beta2))
    return msgspec.structs.replace(
        spec,
        learning_rate=own["lr"],
        beta1=beta1,
        beta2=beta2,
        rho=own.get("alpha", spec.rho),
        epsilon=own.get("eps", spec.epsilon),
        epsilon_hat=False,
        initial_square=0.0,
    )

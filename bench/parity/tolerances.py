"""The largest errors that parity allows between a backend and the float64 reference."""

from typing import Literal

from bench.workloads.specs import Precision, Workload

Quantity = Literal["pixels", "logits", "loss", "gradient", "step", "steps", "losses"]
"""What parity compares; records call it the kind of a check."""

TOLERANCES: dict[Precision, dict[Quantity, float]] = {
    # A convolution has too many units to keep all of them away from kinks. One unit that crosses a kink moves
    # the first kernel by a part in a thousand in 20 steps. Without crossings the errors of `steps` are
    # smaller.
    "fp32": {"logits": 5e-6, "loss": 2e-6, "gradient": 2e-5, "step": 1e-3, "steps": 3e-3, "losses": 1e-5},
    # TF32 keeps 10 bits of mantissa and bfloat16 7; float32 keeps 23. Such coarse sums cross many kinks, so
    # the parameters after 20 small steps are mostly noise, and only the losses are compared. On an H200 the
    # gradient of MNIST's CNN in TF32 was 4 % off, in PyTorch and in JAX, and the parameters ended 40 to 110 %
    # off.
    "tf32": {"logits": 1e-2, "loss": 1e-2, "gradient": 1e-1, "step": 1e-1, "losses": 2e-1},
    "bf16": {"logits": 5e-2, "loss": 2e-2, "gradient": 3e-1, "step": 3e-1, "losses": 2e-1},
}

SMOOTH: dict[Precision, dict[Quantity, float]] = {"tf32": {"steps": 3e-1}}
"""Further tolerances of a network without kinks, whose parameters after 20 coarse steps are not noise."""

AUGMENTED: dict[Quantity, float] = {"pixels": 1e-5, "steps": 5e-2, "losses": 5e-5}
"""Tolerances of a workload that augments its images, where they are further or larger ones.
Pixels that differ by 1e-6 cross more kinks, and Adam's steps have the same size for all parameters."""


def has_kinks(workload: Workload) -> bool:
    """Return whether the network has ReLU or max-pooling; only softmax regression has neither."""
    return bool(workload.architecture.convs or workload.architecture.hidden)


def tolerances(workload: Workload, precision: Precision) -> dict[Quantity, float]:
    """Return the tolerance of each quantity that parity compares for this workload and precision."""
    limits = TOLERANCES[precision]
    if not has_kinks(workload):
        both = limits | SMOOTH.get(precision, {})
        limits = {quantity: both[quantity] for quantity in TOLERANCES["fp32"] if quantity in both}
    if workload.augmentation is None:
        return limits
    pixels: dict[Quantity, float] = {"pixels": AUGMENTED["pixels"]}
    return pixels | {quantity: max(limit, AUGMENTED.get(quantity, 0.0)) for quantity, limit in limits.items()}

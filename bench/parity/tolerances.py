"""How far a float32 backend may be off the float64 reference, by kind of check."""

from typing import Literal

from bench.workloads.specs import Precision, Workload

Kind = Literal["pixels", "logits", "loss", "gradient", "step", "steps", "losses"]

TOLERANCES: dict[Precision, dict[Kind, float]] = {
    # A convolution has too many units to keep them all clear of kinks: one that crosses moves its first
    # kernel by a part in a thousand in 20 steps. Without crossings the errors of `steps` are smaller.
    "fp32": {"logits": 5e-6, "loss": 2e-6, "gradient": 2e-5, "step": 1e-3, "steps": 3e-3, "losses": 1e-5},
    # TF32 keeps 10 bits of mantissa and bfloat16 7, against 23 of float32; so coarse a sum crosses many
    # kinks, and where 20 small steps of a gentle start lead is mostly noise: there the losses must do. On an
    # H200 MNIST's CNN in TF32 had a gradient 4 % off, in PyTorch as in JAX, and ended 40 to 110 % off.
    "tf32": {"logits": 1e-2, "loss": 1e-2, "gradient": 1e-1, "step": 1e-1, "losses": 2e-1},
    "bf16": {"logits": 5e-2, "loss": 2e-2, "gradient": 3e-1, "step": 3e-1, "losses": 2e-1},
}

SMOOTH: dict[Precision, dict[Kind, float]] = {"tf32": {"steps": 3e-1}}
"""What is checked besides of a network without kinks, where that many steps of a coarse sum are no noise."""

AUGMENTED: dict[Kind, float] = {"pixels": 1e-5, "steps": 5e-2, "losses": 5e-5}
"""What is allowed of a workload that augments its images, where that is another error or a larger one.
Pixels that differ by 1e-6 fall on other sides of more kinks, and Adam's steps are of one size for all."""


def has_kinks(workload: Workload) -> bool:
    return bool(workload.architecture.convs or workload.architecture.hidden)


def tolerances(workload: Workload, precision: Precision) -> dict[Kind, float]:
    """Return the largest error that is allowed of each kind that is checked."""
    limits = TOLERANCES[precision]
    if not has_kinks(workload):
        both = limits | SMOOTH.get(precision, {})
        limits = {kind: both[kind] for kind in TOLERANCES["fp32"] if kind in both}
    if workload.augmentation is None:
        return limits
    pixels: dict[Kind, float] = {"pixels": AUGMENTED["pixels"]}
    return pixels | {kind: max(limit, AUGMENTED.get(kind, 0.0)) for kind, limit in limits.items()}

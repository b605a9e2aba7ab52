"""The words that a run's page explains where it first uses them. docs/glossary.md has the same meanings."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from bench.analysis.statistics import EQUIVALENCE, MARGIN
from bench.records.runs import Run

TERMS: Mapping[str, str] = MappingProxyType(
    {
        "workload": "A data set, a network, an optimizer and a batch size, such as mnist-cnn.",
        "mode": "One way in which a framework runs a training step, such as eager or jit.",
        "level": (
            "As taught is the plain loop of the framework's own tutorial. Tuned is what an expert of "
            "the framework would write. Only rows of one level are ranked against each other."
        ),
        "as taught": "The plain loop of the framework's own tutorial, with its own loader and defaults.",
        "row": "One workload in one framework, mode, device and precision.",
        "rows": "A row is one workload in one framework, mode, device and precision.",
        "parity": (
            "Agreement with a float64 reference within stated tolerances: outputs, loss, gradients and "
            "parameters."
        ),
        "reference": (
            "The same training in NumPy with float64 numbers. Every framework is compared with it."
        ),
        "ranked": "A row is ranked if it has parity, enough blocks and steady state.",
        "not ranked": (
            "Measured and shown, but not compared with others. The section on what was left out tells why."
        ),
        "steady state": (
            "The state in which the throughput no longer drifts. Start-up and compiling are over."
        ),
        "throughput": ("Training images per second in steady state. Start-up and evaluation are excluded."),
        "samples/s": "Training images per second in steady state.",
        "95 % interval": "A range that contains the true value in 95 of 100 experiments like this one.",
        "\N{PLUS-MINUS SIGN}": (
            "Half the width of the 95 % interval. It shows how much the figure could change in a new "
            "measurement."
        ),
        "block": (
            "One fresh process of every row of a workload. All of them are alive at the same time and "
            "take turns."
        ),
        "blocks": (
            "A block is one fresh process of every row of a workload. All of them are alive at the same "
            "time and take turns."
        ),
        "window": "A stretch of training between two clock readings, about 0.15 s.",
        "windows": ("A window is a stretch of training between two clock readings, about 0.15 s."),
        "round": "One turn of each process of a block.",
        "seed": "The number that settles the first weights and the order of the batches.",
        "seeds": "A seed is the number that settles the first weights and the order of the batches.",
        "epoch": "One pass over all training images.",
        "epochs": "An epoch is one pass over all training images.",
        "test accuracy": "Share of the test images that the trained network classifies correctly.",
        "time to target": (
            "Seconds of training until the test accuracy reached the target, without evaluation."
        ),
        "too brief": "Trained for less than one epoch, so its accuracy is not compared and not shown.",
        "first step": "The first call of a training step: tracing and compiling, then one step.",
        "first result after": "From the start of the process to the end of its first epoch.",
        "peak memory": (
            "Largest resident memory of the process, without pages of files where the system tells."
        ),
        "no detectable difference": "Neither a difference nor its absence is shown.",
        f"no difference larger than {100 * EQUIVALENCE:g} %": "A larger difference is ruled out.",
        "verdict": (
            f"What is claimed of two rows. A difference must be proven larger than {100 * MARGIN:g} %."
        ),
        "adjusted p": ("The p value of the test, adjusted by Holm's method for the number of comparisons."),
        "plain ratio": "Samples over seconds in all windows that count, without trimming.",
        "detectable difference": (
            "The smallest difference that a measurement like this one finds four times in five."
        ),
        "equivalent": "Two mean accuracies are shown to differ by less than half a percentage point.",
        "disturbed": "Something else on the machine took time from the measurement.",
        "FLOP": "A floating-point operation, such as one addition or one multiplication.",
        "dispatch": "The time until the call of a step returns to Python.",
        "preset": "A named choice of time budget, modes and number of blocks.",
    }
)
"""Meanings by word. Two forms of a word are two entries."""

RANK_TERMS: Mapping[str, str] = MappingProxyType(
    {
        "rank": (
            "One of the processes that train one network together, each on its part of the batch. It has one "
            "core or one GPU of its own."
        ),
        "ranks": (
            "The processes that train one network together, each on its part of the batch. Each has one core "
            "or one GPU of its own."
        ),
        "strong scaling": "The batch stays the same, whatever the number of ranks, and the ranks share it.",
        "weak scaling": "The batch grows with the number of ranks, and the part of each rank stays the same.",
        "speed-up": (
            "Throughput of the distributed mode, divided by that of its framework's plain mode at one rank."
        ),
        "efficiency": "Speed-up divided by the number of ranks. 100 % is the ideal.",
        "distributed mode": "The framework's own engine for training one network in several processes.",
    }
)
"""The words about ranks: only the page of a run with ranks has them."""


def terms_of(runs: Iterable[Run]) -> Mapping[str, str]:
    """Return the meanings that a page about these runs explains."""
    return {**TERMS, **RANK_TERMS} if any(run.header.ranks for run in runs) else TERMS

"""The charts of a run as data: a module for each topic, a function for each question.

Each function takes the run and its summary, and returns a chart for every group of rows that has values, or
for every workload where modes of all levels stand together. `overview` returns one chart or none.
"""

from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.blocks import Chart
from bench.run.report.charts.amounts import energy, gpu_memory, memory
from bench.run.report.charts.batches import sweep
from bench.run.report.charts.break_even import pays_off
from bench.run.report.charts.comparisons import ratios
from bench.run.report.charts.learning import accuracy_epochs, accuracy_seconds
from bench.run.report.charts.own_defaults import defaults
from bench.run.report.charts.proof import parity
from bench.run.report.charts.roofs import roofline
from bench.run.report.charts.scaling import speed_ups
from bench.run.report.charts.start_up import first_result
from bench.run.report.charts.step_parts import step_split
from bench.run.report.charts.steps import first_steps
from bench.run.report.charts.targets import to_target
from bench.run.report.charts.throughput import overview, speed

__all__ = [
    "accuracy_epochs",
    "accuracy_seconds",
    "defaults",
    "energy",
    "every",
    "first_result",
    "first_steps",
    "gpu_memory",
    "memory",
    "overview",
    "parity",
    "pays_off",
    "ratios",
    "roofline",
    "speed",
    "speed_ups",
    "step_split",
    "sweep",
    "to_target",
]


def every(run: Run, summary: Summary) -> list[Chart]:
    """Return every chart of a run but the overview, in the order of a report."""
    return [
        chart
        for charts in (
            speed,
            ratios,
            first_steps,
            accuracy_epochs,
            accuracy_seconds,
            to_target,
            defaults,
            first_result,
            pays_off,
            step_split,
            memory,
            gpu_memory,
            energy,
            roofline,
            sweep,
            speed_ups,
            parity,
        )
        for chart in charts(run, summary)
    ]

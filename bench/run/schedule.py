"""Which block comes next in a run, what it trains, and how long it may wait for a quiet machine.

Blocks go breadth first: every workload gets its first block before any gets its second. A run that is cut
short has then measured everything a little, and not one workload precisely. The first blocks show how fast
each cell is; from that follow the epochs that fit the budget and the further blocks that are worth their
time.
"""

import math
import random
from functools import partial

from bench.analysis.stopping import widest_half_width
from bench.run.budget import Budget
from bench.run.log import RunLog
from bench.run.plan import MOST_BLOCKS, TRAINING_SHARE, Preset, plan_epochs
from bench.workloads.catalog import SWEPT


class Schedule:
    """Decides from a run's records and budget; it measures nothing itself."""

    def __init__(self, log: RunLog, budget: Budget, preset: Preset) -> None:
        self._log, self._budget, self._preset = log, budget, preset
        self._header = log.header
        # A run that is resumed trains what its jobs trained before.
        self._epochs = {job.spec.cell.workload: job.spec.epochs for job in log.jobs if job.spec.epochs}

    def workloads(self, number: int) -> list[str]:
        """Return the workloads in the random order of a round of blocks; round 0 has the same each time."""
        names = sorted({cell.workload for cell in self._log.available()})
        random.Random(f"{self._header.seed} {number}").shuffle(names)  # noqa: S311 (an order, not a secret)
        return names

    def due(self) -> list[tuple[str, int]]:
        """Return the workload and the number of every block that a ranking needs and that has not run yet."""
        return [
            (name, number)
            for name in self.workloads(0)
            for number in range(self.planned_blocks(name), self._header.min_blocks)
        ]

    def planned_blocks(self, workload: str) -> int:
        """Return how many blocks of a workload have run, without those that replace another."""
        return sum(not block.replaces for block in self._log.blocks_of(workload))

    def first_training(self) -> int:
        """Return the number of the first of the required blocks that train for accuracy."""
        return self._header.min_blocks - self._header.seeds

    def to_replace(self, without: set[str]) -> str | None:
        """Return the workload with the most blocks that lack quiet rounds; None if all are replaced.

        A block is replaced only if there is time for it beside all blocks that are due, and a workload gets
        at most as many replacements as it needs blocks.
        """
        missing = {name: self._to_replace(name) for name in self.workloads(0) if name not in without}
        spare_s = self._budget.left_s - self._needed_s()
        fitting = [name for name, count in missing.items() if count and self._block_s(name) <= spare_s]
        return max(fitting, key=lambda name: missing[name]) if fitting else None

    def _to_replace(self, workload: str) -> int:
        replaced = sum(block.replaces for block in self._log.blocks_of(workload))
        lost = len(self._log.screening(workload).lost)
        return min(lost, self._header.min_blocks) - replaced

    def next_number(self, workload: str) -> int:
        """Return a number that no job of a workload has yet.

        A block that was interrupted is not continued: what is left of it would not run beside the jobs that
        have ended.
        """
        numbers = [job.spec.block for job in self._log.jobs_in(workload)]
        return max([*numbers, *(block.block for block in self._log.blocks_of(workload))], default=-1) + 1

    def least_precise(self, without: set[str]) -> str | None:
        """Return the workload that gets the next block; None where all ratios are precise enough.

        It is the one with the fewest blocks that count, as long as one has too few for its widths to decide,
        and then the one whose interval is widest.
        """
        widths = {name: self._half_width(name) for name in self.workloads(0) if name not in without}
        wanted = {name: width for name, width in widths.items() if width > self._header.target_half_width}
        return max(wanted, key=lambda name: (wanted[name], -len(self._kept(name))), default=None)

    def may_have_another(self, workload: str) -> bool:
        return len(self._log.blocks_of(workload)) < MOST_BLOCKS

    def patience_s(self, workload: str) -> float:
        """Return for how long a block may repeat rounds that others disturbed.

        While blocks are due, it is the block's share of what they leave of the budget: waiting must not cost
        another workload a block that its ranking needs. Later there is no limit.
        """
        due = [name for name, _ in self.due()]
        if workload not in due:
            return math.inf
        left_s = self._budget.left_s - sum(self._block_s(name) for name in due)
        return self._block_s(workload) + max(0.0, left_s) / len(due)

    def epochs(self, workload: str) -> float:
        """Return the epochs that the jobs of a workload's next block train, chosen when the first is due.

        The last of the required blocks train. By then most of what a ranking needs is measured, and the
        speeds are known. `plan_epochs` chooses among all workloads whose epochs are not chosen yet.
        """
        if not self._trains(workload, self.planned_blocks(workload)):
            return 0.0
        if workload not in self._epochs:
            lost_s = sum(self._lost_blocks(name) * self._block_s(name) for name in self.workloads(0))
            left_s = (self._budget.left_s - self._needed_s() - lost_s) * TRAINING_SHARE
            chosen = plan_epochs(
                {
                    name: partial(self._training_s, name)
                    for name in self.workloads(0)
                    if name not in self._epochs and SWEPT not in name and self._training_s(name, 1) > 0
                },
                left_s / self._header.seeds,
                least=self._preset.least_epochs,
                most=self._preset.epochs,
            )
            self._epochs[workload] = float(chosen.get(workload, 0))
        return self._epochs[workload]

    def _training_s(self, workload: str, epochs: int) -> float:
        """Return the seconds that a training of all cells of a workload takes; 0 if none was ever timed."""
        return sum(self._budget.training_s(cell, epochs) for cell in self._log.running_in(workload))

    def left_s(self) -> float:
        """Return the seconds until the run is expected to end.

        Training and further blocks fill the budget; a run ends sooner only where neither is left to do.
        """
        names = self.workloads(0)
        precise = all(self._half_width(name) <= self._header.target_half_width for name in names)
        left_s = self._budget.left_s
        if precise and self._epochs.keys() >= set(names):
            left_s = min(self._needed_s(), left_s)
        return max(0.0, left_s)

    def _needed_s(self) -> float:
        """Return what the blocks that are due will take, with the epochs that are already chosen."""
        return sum(
            self._budget.block_s(
                self._log.block_of(name),
                self._epochs.get(name, 0.0) if self._trains(name, number) else 0.0,
            )
            for name, number in self.due()
        )

    def _trains(self, workload: str, number: int) -> bool:
        """Whether a workload's block, counted from 0, is one of those that train."""
        required = self._header.min_blocks
        return SWEPT not in workload and required - self._header.seeds <= number < required

    def _block_s(self, workload: str) -> float:
        return self._budget.block_s(self._log.block_of(workload))

    def _lost_blocks(self, workload: str) -> int:
        """Return how many blocks have to be repeated.

        They are those in which a job did not settle, that were dropped, or that lack quiet rounds. After
        twice as many blocks as a ranking needs it is 0, as a row may never settle.
        """
        required = self._header.min_blocks
        blocks = self._log.blocks_of(workload)
        if len(blocks) >= 2 * required:
            return 0
        kept = self._kept(workload) - self._log.screening(workload).lost
        settled = [
            sum(job.status == "ok" and job.spec.block in kept for job in self._log.jobs_of(cell))
            for cell in self._log.running_in(workload)
        ]
        return max(0, min(len(blocks), required) - min(settled, default=0))

    def _kept(self, workload: str) -> set[int]:
        """Return the numbers of a workload's blocks that were not dropped."""
        return {block.block for block in self._log.blocks_of(workload)} - self._log.screening(
            workload
        ).dropped

    def _half_width(self, workload: str) -> float:
        """Return the widest half-width of a workload's ratios.

        It is infinite where a ranking lacks blocks, and with too few blocks for a width to decide anything.
        Rows that were given up do not count: no further block makes them more precise.
        """
        kept = self._kept(workload)
        if self._lost_blocks(workload) or len(kept) < self._preset.fewest_to_stop:
            return math.inf
        running = set(self._log.running_in(workload))
        return widest_half_width(
            [
                job
                for job in self._log.jobs_in(workload)
                if job.spec.block in kept and job.spec.cell in running
            ],
            {block.block for block in self._log.blocks_of(workload) if not block.in_turns},
        )

"""What a run has recorded so far: kept on disk as it comes, and looked up by cell and by workload."""

from collections.abc import Collection

from bench.analysis.disturbance import UNDISTURBED, Screening, dropped_blocks
from bench.records.runs import Run, append_record
from bench.records.schema import (
    STATUS_WORDS,
    BlockRecord,
    JobRecord,
    LessonsRecord,
    ParityRecord,
    Record,
    Status,
    UnmeasuredRecord,
)  # fmt: skip
from bench.workloads.specs import Cell

GIVE_UP: tuple[Status, ...] = (
    "failed", "crashed", "timeout", "out_of_memory", "nan_loss", "wrong_device", "unavailable",
)  # fmt: skip
"""A cell whose job ended with one of these is not tried in later blocks: it would end so again."""


class RunLog:
    """The records of a run. What is on disk at any moment is complete up to the jobs that still run."""

    def __init__(self, run: Run, *, unavailable: Collection[str]) -> None:
        """`run` is the run so far; `unavailable` names the backends that cannot run here."""
        self._folder, self._unavailable = run.folder, unavailable
        self._records: list[Record] = list(run.records)
        self.header = run.header

    def append(self, record: Record) -> None:
        """Keep a record, and return only when it is on disk."""
        append_record(self._folder, record)
        self._records.append(record)

    @property
    def jobs(self) -> list[JobRecord]:
        """The jobs of the cells, without those of the placebo."""
        return [one for one in self._records if isinstance(one, JobRecord) and not one.spec.copy]

    @property
    def jobs_s(self) -> float:
        """Seconds that all jobs took, those of the placebo included."""
        return sum(one.wall_s for one in self._records if isinstance(one, JobRecord))

    @property
    def lessons(self) -> list[LessonsRecord]:
        return [record for record in self._records if isinstance(record, LessonsRecord)]

    @property
    def proven(self) -> set[Cell]:
        """The cells that were compared with the reference, whatever came of it."""
        return {record.cell for record in self._records if isinstance(record, ParityRecord)}

    @property
    def set_aside(self) -> set[Cell]:
        """The cells that are recorded as not measured."""
        return {record.cell for record in self._records if isinstance(record, UnmeasuredRecord)}

    def faults(self) -> dict[Cell, str]:
        """Return in a few words why cells will not be ranked, as far as that is known."""
        found: dict[Cell, str] = {}
        for record in self._records:
            match record:
                case ParityRecord(ok=False):
                    found[record.cell] = "not comparable" if record.lost else "parity not verified"
                case JobRecord(status=status) if status in GIVE_UP or status == "not_comparable":
                    found[record.spec.cell] = STATUS_WORDS[status]
                case UnmeasuredRecord():
                    found[record.cell] = STATUS_WORDS[record.status]
        return found

    def jobs_of(self, cell: Cell) -> list[JobRecord]:
        return [job for job in self.jobs if job.spec.cell == cell]

    def jobs_in(self, workload: str) -> list[JobRecord]:
        return [job for job in self.jobs if job.spec.cell.workload == workload]

    def blocks_of(self, workload: str) -> list[BlockRecord]:
        """Return the blocks of a workload that ran to their end."""
        return [
            record
            for record in self._records
            if isinstance(record, BlockRecord) and record.workload == workload
        ]

    def screening(self, workload: str) -> Screening:
        """Return which of a workload's blocks were disturbed, and which of these do not count."""
        blocks = [record for record in self._records if isinstance(record, BlockRecord)]
        screenings = dropped_blocks(blocks, self.header.min_blocks)
        return screenings.get(workload, UNDISTURBED)

    def available(self) -> list[Cell]:
        """Return the cells whose backend can run here."""
        return [cell for cell in self.header.cells if cell.backend not in self._unavailable]

    def running(self) -> list[Cell]:
        """Return the cells that further blocks measure: available, and not given up."""
        given_up = {job.spec.cell for job in self.jobs if job.status in GIVE_UP}
        return [cell for cell in self.available() if cell not in given_up]

    def running_in(self, workload: str) -> list[Cell]:
        return [cell for cell in self.running() if cell.workload == workload]

    def block_of(self, workload: str) -> list[Cell]:
        """Return the cells of a further block: those that run, and the placebo's once more."""
        cells = self.running_in(workload)
        return [*cells, *(cell for cell in cells if cell == self.header.placebo)]

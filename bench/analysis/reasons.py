"""Why a row is not ranked, in words, from its records."""

from collections import defaultdict
from collections.abc import Sequence

from bench.analysis.evidence import Evidence, Job
from bench.analysis.ranks import shared_device
from bench.records.schema import ParityRecord, fault_in_words


def work_reasons(found: Evidence, *, reference: bool, matched: bool) -> list[str]:
    """Return why a cell is not ranked, however well it was timed; nothing if its work is comparable."""
    reasons = ["it is the reference"] if reference else []
    if not matched:
        reasons.append("trained with its framework's own defaults: not the same work")
    else:
        reasons += _parity_reasons(found)
    return reasons


def _parity_reasons(found: Evidence) -> list[str]:
    """Return why a cell is not known to do the same work as the reference; nothing if it does."""
    said = [fault_in_words(check.status, check.error) for check in found.parity if check.status != "ok"]
    if found.disproven is not None:
        return [f"not comparable: {found.disproven.error}"]
    if found.parity_ok is False:
        lost = next(check for check in found.parity if check.lost)
        return [f"not comparable: {lost.error or _worst_check(found.parity)}"]
    if found.parity_ok is None and (found.jobs or found.parity):
        return [": ".join(["parity not verified", *said[:1]])]
    return []


def device_reasons(counting: Sequence[Job]) -> list[str]:
    """Return why the speed of these jobs is not that of their ranks: some shared a device."""
    shared = shared_device(job.record for job in counting)
    return [] if shared is None else [shared]


def block_reasons(found: Evidence, counting: int, min_blocks: int) -> list[str]:
    """Return why a cell has too few blocks; nothing if it has enough."""
    reasons: list[str] = []
    if counting >= max(1, min_blocks):
        return reasons
    blocks: dict[str, list[int]] = defaultdict(list)
    for job in found.faulty:
        # Counted from 1, as in the progress display.
        blocks[job.fault or ""].append(job.record.spec.block + 1)
    for fault, numbers in blocks.items():
        where = "block" if len(numbers) == 1 else "blocks"
        reasons.append(f"{fault} ({where} {', '.join(map(str, numbers))})")
    if found.jobs:
        reasons.append(f"{counting} of the {max(1, min_blocks)} blocks it needs")
        dropped = len(found.sound) - counting
        if dropped:
            reasons.append(
                f"{dropped} dropped, because something else disturbed {'it' if dropped == 1 else 'them'}"
            )
    if found.unmeasured:
        reasons.append(fault_in_words(found.unmeasured.status, found.unmeasured.error))
    elif not found.jobs:
        reasons.append("not timed" if found.parity else "not measured: the run has no record of it")
    return reasons


def _worst_check(records: Sequence[ParityRecord]) -> str:
    failed = [check for record in records for check in record.checks if not check.ok]
    worst = max(failed, key=lambda check: check.error / check.tolerance)
    return (
        f"{worst.kind} is off by {worst.error:.1e} from the reference, at {worst.worst}; "
        f"{worst.tolerance:.1e} is allowed"
    )

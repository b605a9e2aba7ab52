"""The data of a run: fetch them, check their digests, and tell the workers where they are."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.datasets import cache as datasets
from bench.errors import UsageError
from bench.paths import to_text
from bench.progress import Display, DownloadProgress
from bench.worker.protocol import DataSource
from bench.workloads.specs import Workload


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """How many images a workload trains on and is tested on, and where its workers find them."""

    source: DataSource
    train: int
    test: int


def prepare_data(
    workloads: Sequence[Workload],
    *,
    cache: Path,
    sample: bool,
    limit: int | None,
    offline: bool,
    display: Display,
) -> dict[str, Split]:
    """Return the data of each workload, fetched and checked by their digests.

    Raises UsageError where a data set has fewer images than a batch.
    """
    splits: dict[str, Split] = {}
    for name in dict.fromkeys(workload.dataset for workload in workloads):
        if sample:
            data = datasets.load_sample(name, limit)
        else:
            datasets.fetch(name, cache=cache, offline=offline, progress=DownloadProgress(display))
            data = datasets.load(name, cache=cache, limit=limit)
        source = DataSource(name=name, cache=None if sample else to_text(cache), limit=limit)
        splits[name] = Split(source=source, train=len(data.train_labels), test=len(data.test_labels))
    for workload in workloads:
        images = splits[workload.dataset].train
        if images - workload.held_out < workload.batch_size:
            held = f", after {workload.held_out} are held out" if workload.held_out else ""
            raise UsageError(
                f"{images} training images are less than one batch of {workload.name}, "
                f"{workload.batch_size} images{held}."
            )
    return {workload.name: splits[workload.dataset] for workload in workloads}

"""The validation with TensorFlow's oneDNN switched on, as in the runs that it judges.

    python -m campaign.validation_onednn FOLDER PART --python=NAME=PATH ...

`campaign.validation` gives its processes only the variables that it names, and must not change during the
campaign. So this module adds the one variable, and leaves everything else to it.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.datasets import cache
from bench.errors import BenchError
from bench.options import parse_pythons
from bench.workloads.catalog import find_workload
from campaign import validation
from campaign.plan import ONEDNN, VALIDATED


def main(arguments: Sequence[str]) -> int:
    folder, part, *options = arguments
    pythons = parse_pythons(tuple(option.removeprefix("--python=") for option in options))
    where = cache.cache_dir()
    for name in dict.fromkeys(find_workload(one).dataset for one in VALIDATED):
        cache.fetch(name, cache=where, offline=False)
    found = validation.measure(Path(folder), int(part), pythons=pythons, where=where, more=dict([ONEDNN]))
    failed = [one for one in found if one.error]
    print(f"{len(found)} processes, {len(failed)} of them failed")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BenchError as error:
        sys.exit(f"validation: {error}")

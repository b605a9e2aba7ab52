"""Part 8 for README and docs: what the program itself costs, and what an installation takes."""

import re

import msgspec

from bench.errors import RecordError
from bench.report.markdown import grid
from bench.text import duration
from campaign.installs import Install
from campaign.log import PartRecord

_ROW = re.compile(r"^(?P<what>\S.*?)\s+(?P<figure>-?\d+\.\d+) (?P<unit>\S+)\s+\(aim (?P<aim>[\d.]+)\)")
"""A line of the table that `tests/benchmarks/harness.py` prints at its end."""


def table(record: PartRecord) -> str:
    """Return what costs how much, and what it is to stay under; raise RecordError if nothing was printed."""
    lines = [line for ran in record.ran for line in ran.last_lines]
    rows = [
        (row["what"], f"{row['figure']} {row['unit']}", f"{row['aim']} {row['unit']}")
        for line in lines
        if (row := _ROW.match(line))
    ]
    if not rows:
        raise RecordError(f"no benchmark of {record.name} printed a table of costs")
    return f"\n\n{grid(('what', 'took', 'aim'), rows, numbers=frozenset({1, 2}))}\n\n"


def installs(content: str) -> str:
    """Return what an installation of each framework takes, from the file that `campaign.installs` writes."""
    rows = [
        (one.framework, duration(one.seconds), f"{one.installed_bytes / 1e9:.1f} GB", str(one.packages))
        for one in msgspec.json.decode(content, type=list[Install])
    ]
    heads = ("framework", "time", "size", "packages")
    return f"\n\n{grid(heads, rows, numbers=frozenset({1, 2, 3}))}\n\n"

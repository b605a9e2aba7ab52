"""The program's own costs for pages, as their benchmark prints them."""

import msgspec
import pytest
from test_campaign_run import make_command, make_part, record_of

from bench.errors import RecordError
from campaign import costs
from campaign.installs import Install
from campaign.log import Ran

PRINTED = (
    "Wrote benchmark data in: harness.json",
    f"{'bench --help':<48}{0.1234:>9.3f} {'s':<3} (aim 0.15)",
    f"{'jax: its memory over a bare process' + chr(39) + 's':<48}{-1.5:>9.3f} {'MB':<3} (aim 100)",
    f"{'a run outside the frameworks, of its time':<48}{23.4567:>9.3f} {'%':<3} (aim 20)  above its aim",
    "========= 12 passed in 600 s =========",
)


def ran(lines):
    part = make_part(make_command(), name="own-costs")
    command = Ran(number=0, command=("python",), started_at="x", wall_s=1.0, exit_status=0, last_lines=lines)
    return msgspec.structs.replace(record_of(part, "done"), ran=(command,))


def test_what_the_benchmark_printed_is_a_table_with_its_aims():
    assert costs.table(ran(PRINTED)).strip().splitlines()[2:] == [
        "| bench --help | 0.123 s | 0.15 s |",
        "| jax: its memory over a bare process's | -1.500 MB | 100 MB |",
        "| a run outside the frameworks, of its time | 23.457 % | 20 % |",
    ]


def test_a_part_that_printed_no_costs_is_refused():
    with pytest.raises(RecordError, match="no benchmark of own-costs printed a table"):
        costs.table(ran(("12 passed",)))


def test_installations_have_their_time_size_and_packages():
    one = Install(framework="jax", started_at="x", seconds=75, installed_bytes=1_260_000_000, packages=31)
    text = costs.installs(msgspec.json.encode([one]).decode())
    assert text.strip().splitlines()[-1] == "| jax | 1 min 15 s | 1.3 GB | 31 |"

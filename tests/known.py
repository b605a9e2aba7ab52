"""The command line in this process, with backends of the tests' own and played workers."""

from collections.abc import Sequence

import fakes
import pytest
from played import play

from backends.info import BackendInfo
from bench.measuring.backends import Registry
from bench.run import plan

SHORT_LEAD_S = 0.01
"""The lead of the runs in these tests, unless they ask for one."""


def known(
    monkeypatch: pytest.MonkeyPatch, infos: Sequence[BackendInfo], broken: dict[str, str] | None = None
) -> None:
    """Let there be these backends and no others, with played workers, and a preset that takes seconds."""
    play(monkeypatch)
    found = Registry(backends={info.name: info for info in infos}, broken=broken or {})
    for place in ("bench.run.command", "bench.run.setup", "bench.cli.info"):
        monkeypatch.setattr(f"{place}.find_backends", lambda: found)
    monkeypatch.setattr(plan, "PRESETS", {"quick": fakes.TINY})
    monkeypatch.setattr("bench.run.command.LEAD_S", SHORT_LEAD_S)  # steps of NumPy are slow

"""A rank above 0 as a process of its own, with the fakes as backends: what `bench run` does in one."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import fakes
import msgspec
import ranked

from bench.errors import BenchError
from bench.measuring.hosts.channel import key_of
from bench.measuring.hosts.follower import Follower, follow
from bench.measuring.hosts.identity import data_of, identify
from bench.measuring.hosts.launchers import KEY, launched
from bench.worker.protocol import DataSource

_TOGETHER = [ranked.info(kind, kind.lower()) for kind in ("Together", "RaisesInRank", "SleepsInRank")]
_BACKENDS = (fakes.STEADY, fakes.HANGS, fakes.EXITS, fakes.RAISES, *_TOGETHER)
INFOS = {one.name: one for one in _BACKENDS}


def main(changes: str) -> int:
    """Follow rank 0; `changes`, as JSON, replaces parts of the identity."""
    found = launched(os.environ)
    assert found is not None
    own = identify(found, device="cpu", versions={"steady": {"numpy": "2.0"}})
    own = msgspec.structs.replace(own, **msgspec.json.decode(changes))
    data = own.data

    def prepare(sources: tuple[DataSource, ...]) -> Mapping[str, str]:
        return data_of(sources) | data

    follower = Follower(
        identity=msgspec.structs.replace(own, data={}), infos=INFOS, pythons={}, cache=Path("cache"),
        prepare=prepare, say=lambda text: click.echo(text, err=True),
    )  # fmt: skip
    try:
        follow(follower, found, key_of(found, os.environ.get(KEY)), os.environ, limit_s=60)
    except BenchError as error:
        click.echo(f"bench: {error}", err=True)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

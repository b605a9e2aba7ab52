"""Let a checkout's backends be found though it is not installed; usage: make_findable.py FOLDER.

Backends are found by entry points, which only an installed distribution has. So FOLDER, once it is on
PYTHONPATH beside the checkout, says what an installation would say. Nothing is fetched or built.

Ends with 3, and names what is missing, where this interpreter lacks a package that the harness needs.
"""

import re
import sys
from importlib import metadata
from pathlib import Path

OLDEST = (3, 11)
ELSEWHERE = {"pillow", "ruptures", "safetensors", "tensorboard"}
"""Of pictures, histories and trainings alone: `bench doctor`, `run` and `verify` do without."""


def main() -> int:
    if sys.version_info < OLDEST:
        return refuse(f"is Python {sys.version.split()[0]}; the harness needs 3.11 or newer")
    import tomllib  # which an older Python lacks

    text = (Path(__file__).resolve().parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    names = [re.split(r"[^\w.-]", item, maxsplit=1)[0] for item in project["dependencies"]]
    needed = [name for name in names if name not in ELSEWHERE]
    if missing := [name for name in needed if not any(metadata.distributions(name=name))]:
        return refuse(f"lacks packages that the harness needs: {', '.join(missing)}")
    info = Path(sys.argv[1]) / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    sections = [
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())])
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(sections) + "\n")
    return 0


def refuse(why: str) -> int:
    print(f"{sys.executable} {why}. Name another interpreter, or put them on PYTHONPATH.", file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main())

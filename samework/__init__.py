"""The command `bench`: it makes sure that Python finds this program's packages, and then runs it.

Python takes a module from the first folder of its path that has one of that name. `bench` is a usual name for
a script, and another distribution may have a package of that name. A folder on PYTHONPATH may also hide a
module of Python itself. This module imports nothing that could be hidden before it has looked.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder

TYPE_CHECKING = False  # without typing, which could be hidden
if TYPE_CHECKING:
    from types import TracebackType

PARTS = {"bench": ("cli", "main.py"), "backends": ("catalog.py",)}
"""The packages of this program, each with the path of a file that no other package of that name has."""
EXIT_NOT_MEASURED = 3
EXIT_FAULT = 70
_DISTRIBUTION = "samework"


def main() -> None:
    """Run the command; if a package of it cannot be imported, say what hides it and exit with status 3."""
    if faults := [fault for name in PARTS if (fault := foreign(name))]:
        _say(faults)
        sys.exit(EXIT_NOT_MEASURED)
    try:
        from bench.cli.main import main as command
    except (Exception, SystemExit) as error:  # a module that hides another may do anything
        if not (hidden := hiding()):
            raise
        _say([f"a module of this program cannot be imported: {error}", *hidden.values()])
        sys.exit(EXIT_NOT_MEASURED)
    try:
        command()
    except SystemExit as ended:
        hidden = hiding()
        if ended.code == EXIT_FAULT:
            _say(list(hidden.values()))
        elif ending := hidden.keys() & _files(ended.__traceback__):  # it is a script, and called sys.exit
            _say([hidden[place] for place in ending])
            sys.exit(EXIT_NOT_MEASURED)
        raise


def foreign(name: str) -> str | None:
    """Return what Python would import in place of a package of this program; None if it finds the package."""
    spec = _find(name)
    if spec is None:
        return f"Python does not find the package {name!r}. Install samework again."
    folders = list(spec.submodule_search_locations or ())
    if any(os.path.isfile(os.path.join(folder, *PARTS[name])) for folder in folders):
        return None
    place = spec.origin or next(iter(folders), "an unknown place")
    root = _parent(_parent(place) if folders else place)
    owners = _owners(name)
    if root in user_folders():
        advice = f"Rename it, or remove {root} from PYTHONPATH."
    elif owners:
        advice = f"It belongs to {', '.join(owners)}. Uninstall it, or use another environment for samework."
    else:
        advice = "Rename it, or use another environment for samework."
    return f"Python finds {place} in place of samework's package {name!r}. {advice}"


def hiding() -> dict[str, str]:
    """Return by its path each module in a folder of PYTHONPATH that hides another one, and what to do."""
    found = {}
    for folder in user_folders():
        elsewhere = [path for path in sys.path if os.path.abspath(path) != folder]
        for name, place in sorted(_modules_in(folder).items()):
            if name not in (*PARTS, _DISTRIBUTION) and PathFinder.find_spec(name, elsewhere):
                advice = f"Rename it, or remove {folder} from PYTHONPATH."
                found[place] = f"{place} hides the module {name!r}. {advice}"
    return found


def user_folders() -> list[str]:
    """Return the folders of PYTHONPATH. An empty entry, as in `:/other`, is the current folder."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return list(dict.fromkeys(map(os.path.abspath, entries))) if any(entries) else []


def _find(name: str) -> ModuleSpec | None:
    """Find a module as an import would, without importing it."""
    for finder in sys.meta_path:
        if spec := finder.find_spec(name, None):
            return spec
    return None


def _modules_in(folder: str) -> dict[str, str]:
    """Return the path of each module and package in a folder, by its name; empty if it cannot be read."""
    try:
        places = {name: os.path.join(folder, name) for name in os.listdir(folder)}
    except OSError:
        return {}
    return {
        name.removesuffix(".py"): place
        for name, place in places.items()
        if name.endswith(".py") or os.path.isfile(os.path.join(place, "__init__.py"))
    }


def _owners(name: str) -> list[str]:
    """Return the other distributions that install a package of that name, each with its version."""
    try:
        from importlib import metadata

        owners = metadata.packages_distributions().get(name, [])
        return [
            f"{owner} {metadata.version(owner)}" for owner in sorted(set(owners)) if owner != _DISTRIBUTION
        ]
    except Exception:  # whatever is hidden: the message is useful without the owners
        return []


def _files(trace: "TracebackType | None") -> set[str]:
    """Return the files of the code that an exception passed through."""
    files = set()
    while trace is not None:
        files.add(os.path.abspath(trace.tb_frame.f_code.co_filename))
        trace = trace.tb_next
    return files


def _parent(path: str) -> str:
    return os.path.dirname(os.path.abspath(path))


def _say(lines: list[str]) -> None:
    for line in lines:
        print(f"bench: {line}", file=sys.stderr)

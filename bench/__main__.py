"""`python -m bench` is the command `bench`."""

import os
import sys

if __name__ == "__main__":
    # Python has put the current folder first. A json.py in it would be imported in place of Python's own.
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not sys.flags.safe_path and os.path.abspath(sys.path[0]) != root:
        del sys.path[0]
    from bench.cli.main import main

    main()

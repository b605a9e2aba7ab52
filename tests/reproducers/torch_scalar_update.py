# /// script
# dependencies = ["torch==2.13.0"]
# ///
"""Lose the in-place update of a float64 scalar on the CPU in a compiled function, as PyTorch 2.13.0 does.

AOTAutograd fails to turn the scalar into a symbol and asks Dynamo to trace again. In the second trace
`OutputGraph.remove_tensorify_specialized_graphargs` removes each operation that returns such a scalar and
whose result nobody uses, and `add_` is one. No optimizer and no Inductor is involved. The exit status is 0 if
the function counts to 3, and 1 if not. `nox -s reproduce` runs this with the faulty version.
"""

import sys

import torch

count = torch.zeros((), dtype=torch.float64)


@torch.compile(backend="aot_eager")
def step() -> torch.Tensor:
    count.add_(1)
    return torch.ones(1) * count


if __name__ == "__main__":
    found = [float(step()) for _ in range(3)]
    print(f"torch {torch.__version__}: counted {found}, expected [1.0, 2.0, 3.0]")
    if found != [1.0, 2.0, 3.0]:
        print("WRONG: the compiled function has lost add_")
        sys.exit(1)

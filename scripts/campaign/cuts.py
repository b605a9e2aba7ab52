"""What the campaign was to measure and does not, or less of, and why."""

from campaign.records import Cut

CUT: tuple[Cut, ...] = (
    Cut(
        number=2,
        asked="All modes.",
        planned="On MNIST's three workloads, not on CIFAR-10's.",
        why="19 rows take 38 minutes a workload, CIFAR-10's CNN longer. Its default modes are in all runs.",
    ),
    Cut(
        number=2,
        asked="A batch sweep; own defaults; Keras.",
        planned="The sweep and own defaults on MNIST's MLP, Keras on all three of MNIST.",
        why="Each further workload takes 12 to 22 minutes.",
    ),
    Cut(
        number=3,
        asked="One run for CIFAR-10's CNN.",
        planned="One part for each framework.",
        why="Three seeds of 10 epochs take 110 minutes in all frameworks, and a part at most 100. Seeds, "
        "weights and batches are the same.",
    ),
    Cut(
        number=4,
        asked="What the time allows of `cifar-cnn`.",
        planned="None.",
        why="11,120 steps take 20 to 30 minutes a framework. The notebook's figure then has no verdict.",
    ),
    Cut(
        number=5,
        asked="As many as 150 comparisons of equals and 60 of each slowdown.",
        planned="With 10 blocks 18 and 9; with 6 as many; with 4 blocks 36 and 18; with 3 blocks 54 and 27.",
        why="150 comparisons of ten blocks would take ten hours. The intervals of the rates say what fewer "
        "are worth.",
    ),
    Cut(
        number=7,
        asked="As many as 20 unchanged heads and 10 of each kind of bad head.",
        planned="Four unchanged, two slower, one of each other kind.",
        why="A gate takes 4 to 15 minutes. `tests/benchmarks/gate_power.py` simulates the rest.",
    ),
    Cut(
        number=8,
        asked="The time of CI.",
        planned="None.",
        why="`.ci/run` prints the time of its parts at each change; a part of the campaign would only repeat "
        "the whole suite.",
    ),
    Cut(
        number=8,
        asked="Every mode against its loop by hand, at least 5 processes a cell.",
        planned="One workload and batch size of eight.",
        why="Eight would take four hours.",
    ),
)

"""The plan of the campaign: its parts in the order in which they run. `campaign.cuts` has what was cut.

It is committed before the first part runs, and the campaign refuses a part whose plan has changed since. The
expected minutes are those of a machine with 2 CPUs.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from bench.errors import unknown
from campaign.records import FOLDER, FRAMEWORKS, MADE, PYTHONS, Command, Part

SUBJECTS: Mapping[int, str] = MappingProxyType(
    {
        1: "reference runs",
        2: "all modes, Keras, input pipelines, batch sizes, own defaults, ranks",
        3: "learning",
        4: "notebooks",
        5: "self-test",
        6: "validation by another method",
        7: "gate",
        8: "the program's own figures",
    }
)
MOST_MINUTES = 100
"""A part takes no longer. A longer one could not be repeated in one sitting."""
MEASURED = (0, 1, 3)
"""Exit statuses of `bench run` and `bench selftest` after which a report is there: all was decided, a demand
was not met, or something stayed undecided. Each is a result, and is published."""
HOURS_APART = 3.0


def bench_run(*options: str, **more: object) -> Command:
    """Return a run on the CPU, whose folder becomes the part's own."""
    where = ("--results", FOLDER, PYTHONS)
    command = Command(
        arguments=("-m", "bench", "run", "--device", "cpu", *where, *options),
        resume=("-m", "bench", "run", "--resume", MADE, *where),
        makes="run-*",
        report="REPORT.md",
        statuses=MEASURED,
    )
    return _changed(command, more)


ONEDNN = ("TF_ENABLE_ONEDNN_OPTS", "1")
"""Switches TensorFlow's oneDNN on, as TensorFlow does by itself only on CPUs with newer instructions. Without
it the reference runs on an older CPU would not show TensorFlow at its best (docs/performance.md)."""
_WITH_ONEDNN = "TensorFlow's oneDNN is switched on, as it is by default on CPUs with AVX-512 VNNI."


def with_onednn(command: Command) -> Command:
    """Return a command that switches TensorFlow's oneDNN on, also where it is resumed."""
    words = ("=".join(ONEDNN),)
    resume = (*words, *command.resume) if command.resume else ()
    return _changed(command, {"arguments": (*words, *command.arguments), "resume": resume})


def _changed(command: Command, changes: Mapping[str, object]) -> Command:
    return msgspec.structs.replace(command, **changes)


def workloads(*names: str) -> tuple[str, ...]:
    """Return the options that choose these workloads."""
    return tuple(word for name in names for word in ("--workload", name))


def backends(*names: str) -> tuple[str, ...]:
    """Return the options that choose these backends."""
    return tuple(word for name in names for word in ("--backend", name))


def notebooks(seeds: int, *recipes: str) -> Command:
    """Return the notebooks' recipes, which a second call of the same command goes on with."""
    chosen = tuple(word for name in recipes for word in ("--recipe", name))
    where = ("--device", "cpu", "--folder", FOLDER, PYTHONS)
    return Command(
        arguments=("-m", "bench", "notebooks", *where, "--seeds", str(seeds), *chosen), report="NOTEBOOKS.md"
    )


def gate(kind: str, tries: int, *chosen: str) -> Command:
    """Return so many gates of a kind of head; the same command after an interruption makes the rest."""
    where = ("--device", "cpu", PYTHONS, *chosen)
    arguments = ("-m", "campaign.gates", FOLDER, kind, str(tries), *where)
    return Command(arguments=arguments, report="GATE.md", pythons=("torch",))


def pytest(name: str, *options: str) -> Command:
    """Return a benchmark of the tests' environment, which leaves `NAME.json`."""
    file = f"{name}.json"
    always = ("-p", "no:randomly", "--timeout=0", f"--benchmark-json={FOLDER}/{file}")
    # 1: a test failed, which is a figure below its bound.
    return Command(
        arguments=("-m", "pytest", *options, *always),
        report=file, statuses=(0, 1), interpreter="tests", pythons=(),
    )  # fmt: skip


DATA = Command(arguments=("-m", "bench", "data", "fetch", "mnist", "cifar10"), pythons=())
"""What fetches the data sets, for benchmarks that take them from the cache."""

_DEFAULT = (
    "Does the default run, which most users make, say the same each time, and how precise is it?",
    "Six workloads in the default modes, MNIST's MLP also as taught and by Keras, for 20 minutes.",
)
_AGREE = (
    "Of each two of the three default runs: no two claims contradict (`bench compare --verdicts`). "
    "The difference of the logarithms of a pair's two ratios has an interval from both standard errors "
    "(Welch). Of all such intervals at least so many contain 0 as a binomial count with 95 % reaches with a "
    "probability of 99 %."
)


def default_run(number: int, *apart_from: str) -> Part:
    question, measures = _DEFAULT
    return Part(
        name=f"run-default-{number}",
        number=1,
        question=question,
        measures=f"{measures} {_WITH_ONEDNN} Three runs hours apart, with seeds 0, 1 and 2.",
        rule=_AGREE,
        level="claims: 0.02 (Holm, in each family); intervals: 95 %; the count: 0.01",
        failure="Two claims that contradict each other, or a count below the limit. A workload that the run "
        "does not rank is named.",
        minutes=21,
        commands=(with_onednn(bench_run("--seed", str(number - 1))),),
        apart_from=apart_from,
        hours=HOURS_APART if apart_from else 0.0,
    )


def modes_of(workload: str) -> Part:
    return Part(
        name=f"modes-{workload}",
        number=2,
        question="Which mode of each framework is fastest on a workload, what is tuning worth against the "
        "loop as taught, and what do input pipelines cost, per sample and per batch?",
        measures="All modes on the CPU, taught and tuned, the two input pipelines of each framework among "
        "them: 19 rows, 5 blocks or more: one picks the fastest mode, the others judge.",
        rule="A difference is claimed if it is proven larger than 1 % in Holm's procedure over a family: "
        "the frameworks' fastest modes, or the modes of one framework. The block that picks a fastest mode "
        "does not judge it.",
        level="claims: 0.02 in a family; intervals: 95 %",
        failure="A mode without parity, or without the three blocks that a rank needs.",
        minutes=38,
        commands=(bench_run("--mode", "all", *workloads(workload), "--seeds", "0", "--budget", "37m"),),
    )


_SAME_ACCURACY = (
    "Accuracies of two frameworks after the same epochs are equivalent if the 90 % interval of the mean "
    "difference, paired by seed, lies within 0.5 points (two one-sided tests). A target is the mean of all "
    "frameworks minus three standard deviations, as `bench targets` computes it."
)


def ten_seeds(budget: str, *names: str) -> Command:
    """Return a run of ten seeds of each framework on these workloads; speeds need not be precise."""
    seeds = ("--seeds", "10", "--target-precision", "50%")
    return bench_run("--mode", "default", *seeds, "--budget", budget, *workloads(*names))


def cifar_cnn(backend: str, minutes: int) -> Part:
    return Part(
        name=f"learning-cifar10-cnn-{backend}",
        number=3,
        question="What accuracy does the CNN of CIFAR-10 reach in 10 epochs, and how far do seeds scatter?",
        measures=f"Three trainings of 10 epochs in {backend}, from seeds that the frameworks share.",
        rule="Means and ranges of three seeds, by framework. Three seeds claim no equivalence: ten would.",
        level="no test",
        failure="A training that does not end, or of fewer than 10 epochs.",
        minutes=minutes,
        commands=(
            bench_run(
                "--preset", "standard", "--mode", "default", "--seeds", "3", "--target-precision", "50%",
                "--budget", "120m", *workloads("cifar10-cnn"), *backends(backend), pythons=(backend,),
            ),
        ),
    )  # fmt: skip


EPOCHS: Mapping[str, int] = MappingProxyType({"mnist-mlp": 5, "mnist-cnn": 1, "cifar10-mlp": 4})
"""Epochs of a training of the validation: some 12 s in the MLPs, and 27 s in the CNN."""
VALIDATED = tuple(EPOCHS)
SEED = 20261130
"""From it follow the order of the validation's processes and the seed of each. A repetition needs another."""
REPEATED_RUNS = ("run-default-1", "run-default-2", "run-default-3")
LONG_RUN, LOADED_RUN = "run-90-minutes", "run-loaded"
VALIDATED_RUNS = (*REPEATED_RUNS, LONG_RUN)
"""The runs whose intervals the validation judges. The loaded one is left out: it is to claim nothing."""
VALIDATION_PARTS = 3
ROUNDS_A_PART = 7
"""A round has one process of each framework and workload."""
FEWEST_PAIRS = 20


def validation(part: int) -> Part:
    before = tuple(f"validation-{number}" for number in range(1, part))
    return Part(
        name=f"validation-{part}",
        number=6,
        question="Do the intervals of `bench run` contain the ratios that whole trainings alone give?",
        measures=f"{ROUNDS_A_PART} rounds of one fresh process of each framework on {', '.join(VALIDATED)}, "
        f"each round in a random order of its own and with a seed that its frameworks share, one process at "
        f"a time: build, one untimed step, then a timed training of {', '.join(map(str, EPOCHS.values()))} "
        f"epochs. The first tenth of the first epoch is timed by itself too. {_WITH_ONEDNN} Seed {SEED}. "
        f"{VALIDATION_PARTS} parts hours apart give {VALIDATION_PARTS * ROUNDS_A_PART} rounds.",
        rule="A ratio is paired by round: the mean over the rounds of all parts of the difference of two "
        "logarithms of samples/s, with Student's interval of these differences. A round in which one of the "
        "two failed gives no pair. For each pair of frameworks, workload and one of "
        f"{', '.join(VALIDATED_RUNS)}, all on the same CPU: the difference of the logarithms of that ratio "
        "and the run's, with a 95 % interval from both standard errors and Welch's degrees of freedom. At "
        "least so many contain 0 as a binomial count with 95 % reaches with a probability of 99 %. Beside "
        "it, without a verdict: the same count with the run's plain ratios (samples over seconds, nothing "
        "trimmed); that of the run's own intervals that contain the other ratio, beside what chance lets "
        "expect of it; by how much a step takes longer in the first tenth of the first epoch.",
        level="the count: 0.01 if comparisons were independent, some 0.05 as they share processes "
        "(`campaign.power` simulates it); intervals: 95 %",
        failure="A count below the limit. It is published, its cause is sought, the program is changed, and "
        f"the validation is repeated once with fresh seeds. Fewer than {FEWEST_PAIRS} pairs of two "
        "frameworks on a workload: not measured.",
        minutes=26,
        commands=(
            Command(
                arguments=("-m", "campaign.validation_onednn", FOLDER, str(part), PYTHONS),
                report="processes.jsonl",
            ),
        ),
        apart_from=before[-1:],
        hours=HOURS_APART if before else 0.0,
    )


def softmax_notebooks(name: str, minutes: int, *recipes: str) -> Part:
    return Part(
        name=f"notebooks-{name}",
        number=4,
        question="Do the frameworks reach what the notebooks' softmax regressions print?",
        measures="40 seeds of each of the four softmax recipes, in each framework.",
        rule="A notebook's figure lies inside if the 95 % prediction interval of one more seed contains it; "
        "a range contains our mean. A verdict needs 40 seeds.",
        level="prediction intervals: 95 %",
        failure="A figure outside in any framework. Of 42 verdicts on single values about two are expected "
        "outside by chance alone, so their number is published beside that.",
        minutes=minutes,
        commands=(notebooks(40, *recipes),),
    )


DUELS = 5

PARTS: tuple[Part, ...] = (
    default_run(1),
    validation(1),
    modes_of("mnist-softmax"),
    modes_of("mnist-mlp"),
    modes_of("mnist-cnn"),
    Part(
        name="selftest",
        number=5,
        question="How often is a verdict right, with 3, 4, 6 and 10 blocks?",
        measures="Nine groups, one for each of MNIST's workloads and frameworks, of 10 blocks, with the "
        "windows of a run (24 of 0.15 s). A group's blocks are judged as one comparison of ten, and as "
        "separate ones of 6, 4 and 3 blocks.",
        rule="Rates with Clopper-Pearson intervals for each number of blocks, for one pair and for the first "
        "of three. With ten blocks: false alarms in at most 2 % of comparisons; 5 % found in at least 90 %, "
        "10 % in at least 99 %; 90 to 98 % of the 95 % intervals hold the truth. A demand fails if the whole "
        "interval of the rate lies outside, and is undecided if only the rate does: nine groups are few. "
        "With fewer blocks nothing is demanded. pyperf's t test judges the same blocks beside ours.",
        level="claims: 0.02; intervals of rates: 95 %",
        failure="A demand that fails. The level is not changed afterwards.",
        minutes=75,
        commands=(
            Command(
                arguments=(
                    "-m",
                    "bench",
                    "selftest",
                    "--comparisons",
                    "9",
                    "--blocks",
                    "10",
                    "--windows",
                    "24",
                    "--window-s",
                    "0.15",
                    "--results",
                    FOLDER,
                    PYTHONS,
                ),
                resume=("-m", "bench", "selftest", "--resume", MADE, "--results", FOLDER, PYTHONS),
                makes="selftest-*",
                report="SELFTEST.md",
                statuses=MEASURED,
            ),
        ),
    ),
    default_run(2, "run-default-1"),
    validation(2),
    Part(
        name=LONG_RUN,
        number=1,
        question="How precise does a run get with more time?",
        measures=f"The default run, for 90 minutes, without training for accuracy. {_WITH_ONEDNN}",
        rule="The widest half-width of each workload's ratios after 5 to 75 minutes of measuring: a table by "
        "which to choose a budget. Its claims do not contradict those of the default runs.",
        level="intervals: 95 %; claims: 0.02 in a family",
        failure="A claim that contradicts one of a default run, or a workload that is not ranked.",
        minutes=92,
        commands=(with_onednn(bench_run("--budget", "90m", "--seeds", "0", "--seed", "10")),),
    ),
    Part(
        name=LOADED_RUN,
        number=1,
        question="Does a run beside a busy program claim anything wrong?",
        measures="The default run, while another process keeps one core busy for a third of the time, in "
        f"spells of some seconds. {_WITH_ONEDNN}",
        rule="No claim contradicts one of the default runs. The number of its claims is published beside it.",
        level="claims: 0.02 in a family",
        failure="A claim that contradicts one of a default run. To claim nothing is no failure of the rule, "
        "but then it shows nothing.",
        minutes=22,
        commands=(with_onednn(bench_run("--seed", "20", burns=True)),),
    ),
    Part(
        name="learning-quick",
        number=3,
        question="Do the frameworks learn the same on the softmax regressions and MLPs?",
        measures="Ten seeds of each framework, up to 5 epochs, on MNIST's and CIFAR-10's softmax regression "
        "and MLP.",
        rule=_SAME_ACCURACY,
        level="equivalence: 0.05",
        failure="A workload on which a pair of frameworks is not shown to be equivalent. That does not mean "
        "that they differ.",
        minutes=43,
        commands=(ten_seeds("75m", "mnist-softmax", "mnist-mlp", "cifar10-softmax", "cifar10-mlp"),),
    ),
    Part(
        name="learning-mnist-cnn",
        number=3,
        question="Do the frameworks learn the same on MNIST's CNN?",
        measures="Ten seeds of each framework, 3 epochs or more.",
        rule=_SAME_ACCURACY,
        level="equivalence: 0.05",
        failure="A pair of frameworks that is not shown to be equivalent, or fewer than 3 epochs.",
        minutes=60,
        commands=(ten_seeds("182m", "mnist-cnn"),),
    ),
    default_run(3, "run-default-2"),
    validation(3),
    cifar_cnn("torch", 34),
    cifar_cnn("jax", 50),
    cifar_cnn("tensorflow", 34),
    Part(
        name="keras",
        number=2,
        question="What does Keras's `fit` cost against each framework's own loops, as taught and tuned?",
        measures="Each framework's default mode and its tutorial's loop, and Keras on each, on MNIST's "
        "softmax regression and CNN. The default runs have the MLP.",
        rule="As in the parts of all modes.",
        level="claims: 0.02 in a family; intervals: 95 %",
        failure="A row without parity, or without three blocks.",
        minutes=25,
        commands=(
            bench_run(
                "--mode",
                "default",
                "--mode",
                "taught",
                "--seeds",
                "0",
                "--budget",
                "24m",
                *workloads("mnist-softmax", "mnist-cnn"),
                *backends(*FRAMEWORKS, *(f"keras-{name}" for name in FRAMEWORKS)),
                pythons=(*FRAMEWORKS, *(f"keras-{name}" for name in FRAMEWORKS)),
            ),
        ),
    ),
    Part(
        name="sweep",
        number=2,
        question="At which batch sizes does the order of the frameworks change?",
        measures="MNIST's MLP at batches of 16 to 1024, each twice the one before, in the default modes.",
        rule="As in the parts of all modes, at each size.",
        level="claims: 0.02 in a family; intervals: 95 %",
        failure="A size that is not ranked.",
        minutes=22,
        commands=(bench_run("--sweep", "batch=16..1024", *workloads("mnist-mlp"), "--budget", "21m"),),
    ),
    Part(
        name="own-defaults",
        number=2,
        question="What do a framework's own defaults change, in speed and accuracy?",
        measures="MNIST's MLP with Adam as the same work and with each framework's own initialisation, order "
        "of the data and Adam; three seeds.",
        rule="Speeds of the same work are compared as in the parts of all modes; own defaults are not. "
        "Of accuracies, means and ranges are given.",
        level="claims: 0.02 in a family; accuracies: no test",
        failure="A training that does not end.",
        minutes=15,
        commands=(
            bench_run(
                *workloads("mnist-mlp-adam", "mnist-mlp-defaults"),
                "--mode",
                "default",
                "--seeds",
                "3",
                "--budget",
                "14m",
            ),
        ),
    ),
    Part(
        name="ranks",
        number=2,
        question="What do two ranks gain, and what does it cost to be distributed at one rank?",
        measures="One and two ranks, one core each, with the whole batch cut and with a batch for each rank, "
        "on MNIST's MLP and CNN.",
        rule="Speed-up and efficiency from paired blocks. A gain is claimed if it is proven above one.",
        level="claims: 0.02 in a family; intervals: 95 %",
        failure="A distributed row without parity, or ranks whose parameters differ.",
        minutes=37,
        commands=(
            bench_run(
                "--ranks",
                "1,2",
                "--scaling",
                "both",
                *workloads("mnist-mlp", "mnist-cnn"),
                "--budget",
                "36m",
            ),
        ),
    ),
    softmax_notebooks("softmax", 48, "one-layer", "softmax-plot", "softmax-save"),
    softmax_notebooks("affine", 30, "affine"),
    Part(
        name="notebooks-convnet",
        number=4,
        question="Do the frameworks reach what the notebook's convolutional network promises?",
        measures="Three seeds of `convnet`, in each framework.",
        rule="The mean of the three seeds lies in the promised range.",
        level="no test",
        failure="It does not, in any framework.",
        minutes=38,
        commands=(notebooks(3, "convnet"),),
    ),
    Part(
        name="gate",
        number=7,
        question="Does the gate pass what is unchanged, and fail what is slower or wrong? How long does it "
        "take?",
        measures="PyTorch on MNIST's MLP: three unchanged heads, two that are slower by 5 %, one with ten "
        "times the rate, one with wrong labels. One unchanged head of three workloads.",
        rule="Every try counts; none is left out. Rates with Clopper-Pearson intervals. The three workloads "
        "take under 15 minutes.",
        level="intervals of rates: 95 %",
        failure="An unchanged head that fails, a bad head that passes, or a gate of 15 minutes or more. An "
        "undecided gate is published as that.",
        minutes=50,
        commands=(
            gate("unchanged", 3, *backends("torch"), *workloads("mnist-mlp"), "--budget", "10m"),
            gate("slower", 2, *backends("torch"), *workloads("mnist-mlp"), "--budget", "10m"),
            gate("rate", 1, *backends("torch"), *workloads("mnist-mlp"), "--budget", "10m"),
            gate("labels", 1, *backends("torch"), *workloads("mnist-mlp"), "--budget", "10m"),
            gate("unchanged", 4, *backends("torch"), "--budget", "20m"),
        ),
    ),
    Part(
        name="own-costs",
        number=8,
        question="What does the program itself cost, in time and memory, and what does an installation take?",
        measures="`tests/benchmarks/harness.py`: commands, a report, a job beside its framework's own work, "
        "the share of a run's time inside the frameworks. An installation of each framework in a new "
        "environment: its time and its size.",
        rule="Each figure stays under the aim that the benchmark names.",
        level="no test",
        failure="A figure above its aim.",
        minutes=20,
        commands=(
            DATA,
            pytest("harness", "tests/benchmarks/harness.py", "--benchmark-max-time=3"),
            Command(
                arguments=("-m", "campaign.installs", FOLDER, *FRAMEWORKS),
                report="installs.json",
                pythons=(),
            ),
        ),
    ),
    Part(
        name="own-loops",
        number=8,
        question="Is each mode as fast as a loop by hand?",
        measures=f"Every mode that trains from memory against its loop, on MNIST's MLP at batch 100, in "
        f"{DUELS} processes each; a framework's best mode against its best loop.",
        rule="The ratio of a mode is the geometric mean over processes, with a t interval over them. It is "
        "below its bound (0.97; 0.98 for the best) if the whole interval is.",
        level="intervals: 95 %",
        failure="A mode whose interval lies below its bound.",
        minutes=30,
        commands=(
            DATA,
            *(
                pytest(f"loops-{number}", "tests/benchmarks/throughput.py", "-k", "mnist-mlp-100")
                for number in range(1, DUELS + 1)
            ),
            Command(arguments=("-m", "campaign.loops", FOLDER), report="LOOPS.md", pythons=()),
        ),
    ),
)


def find_part(name: str, parts: Sequence[Part] = PARTS) -> Part:
    """Return the part of that name; raise UsageError with the nearest name if there is none."""
    found = {part.name: part for part in parts}
    if name not in found:
        raise unknown("part", name, list(found), "nox -s campaign -- --list shows all")
    return found[name]

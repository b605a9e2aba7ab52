"""Synthetic runs for tests: records as a real run would hold them, with the figures chosen."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from bench.machine.conditions import Conditions
from bench.machine.environment import Environment, Gpu
from bench.records.runs import Run
from bench.records.schema import (
    BackendHere,
    BlockRecord,
    EpochPoint,
    JobRecord,
    JobSpec,
    ParityCheck,
    ParityRecord,
    Plan,
    RankRecord,
    Record,
    RunHeader,
    Status,
    UnmeasuredRecord,
    Window,
)
from bench.workloads.ranks import Scaling
from bench.workloads.specs import Architecture, Cell, Device, OptimizerSpec, Precision, Workload

TITLES = {"torch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX", "numpy": "NumPy"}
MODES = {"torch": ("eager", "compile"), "tensorflow": ("graph",), "jax": ("jit",)}
DISTRIBUTED = {"torch": "ddp", "tensorflow": "multi-worker", "jax": "mesh"}
REFERENCE = "numpy"
REFERENCE_MODE = "float64"
KINDS = ("logits", "loss", "gradient", "step", "steps", "losses")
TOLERANCE = 1e-4
WINDOWS = 20


def make_workload(name: str = "mnist-cnn", target: float | None = 0.97, *, matched: bool = True) -> Workload:
    return Workload(
        name=name,
        dataset=name.rpartition("-")[0] or name,
        architecture=Architecture(),
        optimizer=OptimizerSpec(name="sgd", learning_rate=0.1),
        target_accuracy=target,
        matched=matched,
    )


def make_cell(
    workload: str = "mnist-cnn",
    backend: str = "torch",
    mode: str = "eager",
    device: Device = "cpu",
    precision: Precision = "fp32",
    *,
    ranks: int = 1,
    scaling: Scaling = "strong",
) -> Cell:
    return Cell(
        workload=workload, backend=backend, mode=mode, device=device, precision=precision, ranks=ranks,
        scaling=scaling,
    )  # fmt: skip


def make_ranks(cell: Cell, *, shared: bool = False) -> tuple[RankRecord, ...]:
    """Return the ranks of a job of this cell, each on a CPU of its own, or all on one."""
    return tuple(
        RankRecord(rank=rank, host="box", device=f"CPU {0 if shared else rank}", status="ok")
        for rank in range(cell.ranks)
    )


def make_windows(
    rates: Sequence[float], seconds: float = 0.1, watts: float | None = None
) -> tuple[Window, ...]:
    """Return windows of about so many seconds, whose rates are these, with the energy of so many watts."""
    counts = [max(1, round(rate * seconds)) for rate in rates]
    return tuple(
        Window(
            steps=max(1, count // 100),
            samples=count,
            seconds=count / rate,
            energy_j=None if watts is None else watts * count / rate,
        )
        for rate, count in zip(rates, counts, strict=True)
    )


def make_points(
    final: float, epochs: int, seconds_per_epoch: float, start: float = 0.1
) -> tuple[EpochPoint, ...]:
    """Return a learning curve that rises from `start`, before any training, to end at accuracy `final`."""
    points = []
    for epoch in range(epochs + 1):
        missing = (final - start) * np.exp(-2.5 * epoch) * (1 - epoch / epochs)
        accuracy = float(final - missing)
        points.append(
            EpochPoint(
                epoch=float(epoch),
                steps=600 * epoch,
                train_s=seconds_per_epoch * epoch,
                train_loss=1.2 * (1 - accuracy) + 0.02 if epoch else None,
                test_loss=1.1 * (1 - accuracy) + 0.05,
                test_accuracy=accuracy,
            )
        )
    return tuple(points)


def make_job(
    cell: Cell,
    block: int = 0,
    *,
    rates: Sequence[float] = (1000.0,) * WINDOWS,
    status: Status = "ok",
    error: str | None = None,
    exit_signal: str | None = None,
    points: tuple[EpochPoint, ...] = (),
    epochs: float = 0,
    windows: int = WINDOWS,
    workload: Workload | None = None,
    watts: float | None = None,
    seed: int | None = None,
    started_at: str | None = None,
    import_s: float | None = 1.5,
    first_step_s: float | None = 0.4,
    peak_rss_bytes: int | None = 700 * 2**20,
    peak_device_bytes: int | None = None,
    process_device_bytes: int | None = None,
    ranks: tuple[RankRecord, ...] | None = None,
) -> JobRecord:
    return JobRecord(
        spec=JobSpec(
            job_id=f"{cell} {block}",
            cell=cell,
            workload=workload or make_workload(cell.workload),
            seed=block if seed is None else seed,
            block=block,
            position=0,
            hash_seed=1000 + block,
            windows=windows,
            window_s=0.1,
            epochs=epochs,
            time_limit_s=600,
        ),
        status=status,
        error=error,
        exit_signal=exit_signal,
        started_at=started_at or f"2026-05-01T10:{block:02d}:00Z",
        wall_s=12.5,
        start_s=0.3,
        import_s=import_s,
        data_s=0.2,
        build_s=0.1,
        first_step_s=first_step_s,
        windows=make_windows(rates, watts=watts),
        points=points,
        peak_rss_bytes=peak_rss_bytes,
        peak_rss_method="VmHWM - RssFile",
        peak_device_bytes=peak_device_bytes,
        process_device_bytes=process_device_bytes,
        ranks=ranks if ranks is not None else make_ranks(cell) if cell.ranks > 1 else (),
    )


def make_conditions(**changes: object) -> Conditions:
    """Return the conditions of a quiet machine, but for what is named."""
    quiet = Conditions(
        seconds=8.0,
        steal_share=0.002,
        throttled_share=0.0,
        pressure_share=0.05,
        foreign_share=0.01,
        load_average=0.4,
        canary_s=(0.0100, 0.0101, 0.0099),
    )
    return msgspec.structs.replace(quiet, **changes)


def make_block(
    cells: Sequence[Cell], block: int = 0, *, rounds: int = WINDOWS, **conditions: object
) -> BlockRecord:
    """Return a block of these cells, on a quiet machine but for the conditions that are named."""
    return BlockRecord(
        workload=cells[0].workload,
        block=block,
        started_at=f"2026-05-01T10:{block:02d}:00Z",
        order=tuple(cells),
        rounds=rounds,
        conditions=make_conditions(**conditions),
    )


def make_parity(
    cell: Cell, *, error: float = 2e-6, status: Status = "ok", said: str | None = None, checked: bool = True
) -> ParityRecord:
    """Return a parity record whose largest error, of the gradient, is `error`."""
    checks = tuple(
        ParityCheck(
            kind=kind,  # type: ignore[arg-type]
            error=error if kind == "gradient" else min(1e-6, error) / (place + 1),
            tolerance=TOLERANCE,
            worst="logits/kernel",
        )
        for place, kind in enumerate(KINDS)
    )
    return ParityRecord(
        cell=cell, optimizer="sgd", status=status, error=said, steps=20, checks=checks if checked else ()
    )


def make_header(
    cells: Sequence[Cell],
    *,
    titles: Mapping[str, str] = TITLES,
    workloads: Sequence[Workload] | None = None,
    min_blocks: int = 3,
    dataset_limit: int | None = None,
    sample: bool = False,
    seeds: int = 1,
    command: Sequence[str] = ("bench", "run", "--preset", "quick"),
    gpus: tuple[Gpu, ...] = (),
    ranks: tuple[int, ...] | None = None,
) -> RunHeader:
    """Return the header of a run of these cells; by default it is one with ranks if a cell has several."""
    several = any(cell.ranks > 1 for cell in cells)
    names = dict.fromkeys(cell.workload for cell in cells)
    return RunHeader(
        run_id="2026-05-01-quick",
        created_at="2026-05-01T10:00:00Z",
        command=tuple(command),
        preset="quick",
        budget_s=1800,
        min_blocks=min_blocks,
        target_half_width=0.015,
        seeds=seeds,
        planned=Plan(jobs=3 * len(cells), parity_s=60.0, blocks_s=600.0, training_s=720.0, refining_s=420.0),
        seed=1,
        ranks=tuple(sorted({cell.ranks for cell in cells})) if ranks is None and several else ranks or (),
        dataset_limit=dataset_limit,
        sample=sample,
        cells=tuple(cells),
        workloads=tuple(workloads if workloads is not None else (make_workload(name) for name in names)),
        backends=tuple(
            BackendHere(
                name=name,
                title=titles.get(name, name),
                default_mode=_modes(name)[0],
                modes={mode: f"{mode}, as the framework calls it" for mode in _modes(name)},
                levels={"tutorial": "taught"},
                reference=name == REFERENCE,
                versions={name: "2.13.0"},
            )
            for name in dict.fromkeys(cell.backend for cell in cells)
        ),
        environment=Environment(
            hostname="box",
            system="Linux-6.8",
            python="CPython 3.11.9",
            cpu_model="Example CPU @ 2.60GHz",
            cpu_flags=("avx2", "fma"),
            logical_cpus=16,
            usable_cpus=16,
            memory_bytes=64 * 2**30,
            gpus=gpus,
            gpu_driver="570.1" if gpus else None,
            load_average=0.31,
            variables={"OMP_NUM_THREADS": "16"},
            version="0.1.0",
            commit="da23250c0ffee",
            dirty=True,
        ),
    )


def _modes(backend: str) -> tuple[str, ...]:
    return (REFERENCE_MODE,) if backend == REFERENCE else MODES.get(backend, ("eager",))


def make_run(
    header: RunHeader, records: Sequence[Record] = (), *, folder: Path = Path(), rejected: Sequence[str] = ()
) -> Run:
    return Run(folder=folder, header=header, records=tuple(records), rejected=tuple(rejected))


def simple_run(rates: Mapping[Cell, Sequence[float]], *, min_blocks: int = 3, folder: Path = Path()) -> Run:
    """Return a run in which each cell passed parity and had these rates, one a block, on a quiet machine."""
    records: list[Record] = [make_parity(cell) for cell in rates]
    records += quiet_blocks(list(rates), max(map(len, rates.values()), default=0))
    records += [
        make_job(cell, block, rates=[rate] * WINDOWS)
        for cell, blocks in rates.items()
        for block, rate in enumerate(blocks)
    ]
    return make_run(make_header(list(rates), min_blocks=min_blocks), records, folder=folder)


def scaling_run(
    strong: Mapping[str, Mapping[int, float]],
    weak: Mapping[str, Mapping[int, float]] = {},
    *,
    workload: str = "mnist-cnn",
    rate: float = 1000.0,
    blocks: int = 4,
    noise: float = 0.002,
    seed: int = 0,
    folder: Path = Path(),
) -> Run:
    """Return a run with ranks in which every number of ranks of each backend has this true speed-up.

    `strong` and `weak` give the speed-ups of either scaling, by backend and number of ranks.
    Each job scatters about its true rate by `noise`, and the jobs of a block share its mood, as jobs that
    take turns do. The plain rows train `rate` samples/s.
    """
    random = np.random.default_rng(seed)
    kinds: dict[Scaling, Mapping[str, Mapping[int, float]]] = {"strong": strong, "weak": weak}
    truth = {make_cell(workload, backend, MODES[backend][0]): rate for backend in (*strong, *weak)} | {
        make_cell(workload, backend, DISTRIBUTED[backend], ranks=ranks, scaling=kind): rate * speed_up
        for kind, speed_ups in kinds.items()
        for backend, points in speed_ups.items()
        for ranks, speed_up in points.items()
    }
    cells = list(truth)
    records: list[Record] = [make_parity(cell) for cell in cells]
    records += quiet_blocks(cells, blocks)
    for block in range(blocks):
        mood = random.normal(0, 0.05) + random.normal(0, 0.05, WINDOWS)
        for cell, true in truth.items():
            job = true * np.exp(random.normal(0, noise) + mood + random.normal(0, noise, WINDOWS))
            records.append(make_job(cell, block, rates=[float(value) for value in job]))
    ranks = tuple(sorted({cell.ranks for cell in cells}))
    return make_run(make_header(cells, ranks=ranks), records, folder=folder)


def disturbed_run(
    rates: Mapping[Cell, Sequence[float]], disturbed: Collection[int], *, min_blocks: int = 3
) -> Run:
    """Return a simple run whose hypervisor took CPU time in all rounds of some blocks."""
    run = simple_run(rates, min_blocks=min_blocks)
    records = [record for record in run.records if not isinstance(record, BlockRecord)]
    records += [
        make_block(list(rates), block, round_steal=(0.4 if block in disturbed else 0.0,) * 20)
        for block in range(max(map(len, rates.values())))
    ]
    return msgspec.structs.replace(run, records=tuple(records))


def quiet_blocks(cells: Sequence[Cell], blocks: int) -> list[BlockRecord]:
    """Return so many blocks of every workload of the cells, on a quiet machine."""
    return [
        make_block([cell for cell in cells if cell.workload == workload], block)
        for workload in dict.fromkeys(cell.workload for cell in cells)
        for block in range(blocks)
    ]


def realistic_run(folder: Path = Path(), *, blocks: int = 3, epochs: int = 3, seed: int = 0) -> Run:
    """Return a run of six workloads and three backends, with one of every mishap.

    The jobs of a block share its mood and that of each of its rounds, as jobs that take turns do.
    On cifar10-softmax JAX is not installed; on mnist-mlp PyTorch compile fails parity; on cifar10-cnn it does
    not settle; on cifar10-mlp TensorFlow crashes in one block; cifar10-cnn JAX got no job before the budget
    was spent.
    """
    random = np.random.default_rng(seed)
    samples_per_s = {
        "mnist-softmax": 310_000.0,
        "mnist-mlp": 42_000.0,
        "mnist-cnn": 2_450.0,
        "cifar10-softmax": 120_000.0,
        "cifar10-mlp": 17_500.0,
        "cifar10-cnn": 905.0,
    }
    final = dict(zip(samples_per_s, (0.921, 0.976, 0.989, 0.389, 0.512, 0.661), strict=True))
    target = dict(zip(samples_per_s, (0.91, 0.95, 0.97, 0.37, 0.45, 0.7), strict=True))
    speed = {"torch/eager": 1.0, "torch/compile": 0.72, "tensorflow/graph": 0.93, "jax/jit": 1.04}
    starts = {"torch/eager": 0.3, "torch/compile": 14.2, "tensorflow/graph": 0.9, "jax/jit": 1.3}
    imports = {"torch": 1.7, "tensorflow": 4.1, "jax": 1.1}
    memory = {"torch": 610, "tensorflow": 980, "jax": 720}
    workloads = [make_workload(name, target[name]) for name in samples_per_s]
    cells = [
        make_cell(workload, backend, mode)
        for workload in samples_per_s
        for backend, modes in MODES.items()
        for mode in modes
    ]
    records: list[Record] = list(quiet_blocks(cells, blocks))
    moods = {
        (workload, block): random.normal(0, 0.05) + random.normal(0, 0.05, WINDOWS)
        for workload in samples_per_s
        for block in range(blocks)
    }
    for cell in cells:
        name = f"{cell.backend}/{cell.mode}"
        if (cell.workload, cell.backend) == ("cifar10-softmax", "jax"):
            records.append(
                UnmeasuredRecord(
                    cell=cell, status="unavailable", error="jax is not installed in /envs/jax/bin/python"
                )
            )
            continue
        broken = (cell.workload, name) == ("mnist-mlp", "torch/compile")
        records.append(make_parity(cell, error=4.2e-3 if broken else float(10 ** random.uniform(-6.5, -5))))
        if (cell.workload, cell.backend) == ("cifar10-cnn", "jax"):
            records.append(
                UnmeasuredRecord(
                    cell=cell, status="not_measured", error="the time budget of 30 min was spent first"
                )
            )
            continue
        drifting = (cell.workload, name) == ("cifar10-cnn", "torch/compile")
        for block in range(blocks):
            rate = samples_per_s[cell.workload] * speed[name] * np.exp(random.normal(0, 0.006))
            windows = rate * np.exp(moods[cell.workload, block] + random.normal(0, 0.01, WINDOWS))
            if drifting:
                windows = windows * np.linspace(1, 1.3, WINDOWS)
            crashed = (cell.workload, cell.backend, block) == ("cifar10-mlp", "tensorflow", 1)
            records.append(
                make_job(
                    cell,
                    block,
                    rates=() if crashed else [float(value) for value in windows],
                    status="crashed" if crashed else "no_steady_state" if drifting else "ok",
                    error="the process ended without a last word" if crashed else None,
                    exit_signal="SIGKILL" if crashed else None,
                    points=()
                    if crashed or block
                    else make_points(final[cell.workload] + random.normal(0, 0.0012), epochs, 60000 / rate),
                    epochs=0 if block else epochs,
                    import_s=imports[cell.backend] * float(np.exp(random.normal(0, 0.05))),
                    first_step_s=None if crashed else starts[name] * float(np.exp(random.normal(0, 0.05))),
                    peak_rss_bytes=int((memory[cell.backend] + random.integers(0, 60)) * 2**20),
                )
            )
    header = make_header(cells, workloads=workloads)
    return make_run(header, records, folder=folder)

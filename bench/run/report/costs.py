"""The page's sections on the whole cost: start-up, a step's parts, memory, energy, use of the machine."""

from collections.abc import Iterable, Iterator, Sequence

from bench.analysis.costs import BreakEven, CellCosts, Costs, PipelineRatio, ProductError
from bench.analysis.statistics import EQUIVALENCE
from bench.analysis.summary import Summary
from bench.analysis.sweep import Sweep
from bench.records.runs import Run
from bench.report.blocks import (
    Block,
    Chart,
    Code,
    Details,
    Group,
    Heading,
    Paragraph,
    Table,
    bullets,
    number_table,
)
from bench.report.format import (
    NOTHING,
    TIMES,
    bytes_text,
    cell_name,
    mode_name,
    percent,
    ratio_text,
    scaled,
    seconds_text,
    short_time,
)
from bench.run.report.tags import RowTags, place_tags
from bench.workloads.precision import BOUNDS
from bench.workloads.specs import Cell

ABOUT = "\N{ALMOST EQUAL TO}"
NOT_AVAILABLE = "not available"

_WHERE = ("workload", "framework", "device")
"""The heads of the columns that name a row."""


def _names(cell: Cell, summary: Summary) -> tuple[str, str, str]:
    return cell.workload, cell_name(cell, summary.titles), f"{cell.device} {cell.precision}"


def _table(
    heads: Sequence[str],
    rows: Iterable[tuple[Cell, Sequence[str]]],
    summary: Summary,
    *,
    texts: frozenset[str] = frozenset(),
) -> Table:
    """Return a table whose rows begin with a cell's names; all other columns but `texts` are numbers."""
    tags = RowTags(summary)
    found = list(rows)
    begin = len(_WHERE)
    return Table(
        heads=(*_WHERE, *heads),
        rows=tuple((*_names(cell, summary), *texts) for cell, texts in found),
        numbers=frozenset(begin + place for place, head in enumerate(heads) if head not in texts),
        tags=tuple(tags.of(cell) for cell, _ in found),
    )


# ---- starting


def first_result(
    cells: Sequence[CellCosts],
    costs: Costs,
    summary: Summary,
    charts: Sequence[Chart],
    pays_off: Sequence[Chart],
    *,
    notes: Sequence[str] = (),
    compiled: str | None = None,
) -> list[Block]:
    """Return the section on the time to a first result, and on when compiling pays off.

    `notes` are what frameworks do beside building a network, and `compiled` is what the lessons of the run
    say about compiling.
    """
    told = [one for one in cells if any(part is not None for part in one.start_up.parts)]
    head = Heading(text="Time to a first result, and when compiling pays off")
    if not told:
        return [head, Paragraph(text="No job of this run got as far as a first result.")]
    rows = [
        (
            one.cell,
            (
                *(seconds_text(part) for part in one.start_up.parts[:-1]),
                _about(one, one.start_up.first_epoch_s),
                _about(one, one.start_up.first_result_s),
            ),
        )
        for one in told
    ]
    heads = ("start", "import", "data", "build", "first step", "first epoch", "first result")
    kept = {one.cell for one in told}
    return [
        head,
        Paragraph(
            text="The wait for a first result: starting Python, importing the framework, opening the "
            "data, building the network, the first step (tracing and compiling, then one step), and one "
            "epoch. Less is better. These are medians over processes, and brackets hold the fastest and "
            "the slowest process."
        ),
        *(Paragraph(text=note, faint=True) for note in notes),
        Group(blocks=tuple(charts), beside=True),
        Details(summary="Every part of every row", blocks=(_table(heads, rows, summary),)),
        *_break_evens([one for one in costs.break_evens if one.later in kept], summary, pays_off, compiled),
    ]


def _about(one: CellCosts, seconds: float | None) -> str:
    derived = seconds is not None and not one.start_up.epoch_measured
    return f"{ABOUT} {seconds_text(seconds)}" if derived else seconds_text(seconds)


def _break_evens(
    pairs: Sequence[BreakEven], summary: Summary, charts: Sequence[Chart], compiled: str | None
) -> Iterator[Block]:
    yield Heading(text="When does compiling pay off?", level=3)
    if compiled is not None:
        yield Paragraph(text=compiled)
    if not pairs:
        yield Paragraph(
            text="This run measured one tuned mode of each framework. From how many epochs on a mode that "
            "compiles is ahead follows from all modes, which this command measures:"
        )
        yield Code(text="bench run --mode all")
        return
    yield Paragraph(
        text="A mode that compiles starts later and is then faster. It pays off after the epochs that make "
        "up for the later start. Both times are medians over processes."
    )
    yield Group(blocks=tuple(charts), beside=True)
    yield _table(
        ("compared with", "starts later by", "saves in an epoch", "pays off after"),
        [
            (
                one.later,
                (
                    mode_name(one.sooner),
                    short_time(one.extra_s) if one.extra_s > 0 else "no later",
                    short_time(one.saved_s) if one.saved_s > 0 else "nothing",
                    _pays(one),
                ),
            )
            for one in pairs
        ],
        summary,
        texts=frozenset({"compared with"}),
    )


def _pays(one: BreakEven) -> str:
    if one.epochs is None:
        return "never"
    if one.epochs == 0:
        return "at once"
    return f"{one.epochs:,.0f} epochs" if one.epochs >= 10 else f"{one.epochs:.2g} epochs"


# ---- the parts of a step


def step_parts(
    cells: Sequence[CellCosts], costs: Costs, summary: Summary, charts: Sequence[Chart]
) -> list[Block]:
    """Return what is known of a step's parts and of input pipelines; nothing if neither was measured."""
    rows = []
    for one in cells:
        split = one.split
        if split is not None:
            parts = (split.data_s, split.transfer_s, split.dispatch_s, split.device_s)
            texts = (short_time(part) for part in (*parts, sum(parts)))
            rows.append((one.cell, (*texts, short_time(one.step_s))))
    found: list[Block] = []
    if rows:
        heads = ("data", "transfer", "dispatch", "device's work", "sum", "undisturbed step")
        found += [
            Heading(text="Where a step's time goes", level=3),
            Paragraph(
                text="Each part was finished before the next began: getting the batch, copying it to the "
                "device, the call of the step until it returns (dispatch), and the device's work after that. "
                "If the call returns only when the work is done, as TensorFlow's and PyTorch's do on a CPU, "
                "dispatch includes the work. The parts are measured apart from the ranking and do not "
                "overlap, so their sum can differ from the time of an undisturbed step: compare shares only."
            ),
            Group(blocks=tuple(charts), beside=True),
            Details(summary="Every part of every row", blocks=(_table(heads, rows, summary),)),
        ]
    return found + _pipelines(costs.pipelines, summary)


def _pipelines(pipelines: Sequence[PipelineRatio], summary: Summary) -> list[Block]:
    if not pipelines:
        return []
    rows = []
    for one in pipelines:
        ratio = one.ratio
        texts = (
            mode_name(one.memory),
            NOTHING if ratio is None else f"{ratio[0]:.3f}{TIMES}",
            NOTHING if ratio is None else ratio_text(ratio[1], ratio[2]),
            _pipeline_verdict(one),
        )
        rows.append((one.pipeline, texts))
    return [
        Heading(text="Input from memory against the framework's own pipeline", level=3),
        Paragraph(
            text="Throughput with batches from the framework's own input pipeline, divided by that with all "
            "images in memory. Below 1 the pipeline costs time."
        ),
        _table(
            ("compared with", "times as fast", "95 % interval", "verdict"),
            rows,
            summary,
            texts=frozenset({"compared with", "verdict"}),
        ),
    ]


def _pipeline_verdict(one: PipelineRatio) -> str:
    found = one.comparison
    if found is None:
        return "not ranked, so not compared"
    if found.differs:
        return "faster than from memory" if found.faster == one.pipeline else "slower than from memory"
    if found.kind == "equivalent":
        return f"no difference larger than {percent(EQUIVALENCE, 0)}"
    return "disturbed: nothing claimed" if found.kind == "disturbed" else "no detectable difference"


# ---- memory and energy


def memory_and_energy(
    run: Run, cells: Sequence[CellCosts], summary: Summary, charts: Sequence[Chart]
) -> list[Block]:
    """Return the section on memory, energy and the size of what is installed."""
    told = [one for one in cells if one.peak_rss_bytes is not None]
    found: list[Block] = [Heading(text="Memory and energy")]
    if not told:
        return [*found, Paragraph(text="No job of this run got so far."), *_installed(run)]
    methods = sorted({one.peak_rss_method for one in told if one.peak_rss_method})
    metered = any(one.joules_per_1000 is not None for one in told)
    energy = (
        "Energy is for 1,000 training images, from a meter that is read at both ends of every window. It "
        "includes what the machine draws at rest."
        if metered
        else "Energy is not available, because this machine has no meter that can be read. Nothing is "
        "estimated."
    )
    return [
        *found,
        Paragraph(
            text="Less is better. Memory is the largest of a row's processes, so it has no interval. It "
            f"leaves out the files of libraries where the system tells them apart. {energy}"
        ),
        Group(blocks=tuple(charts), beside=True),
        Details(
            summary="Memory and energy of every row",
            blocks=(
                _use_table(told, summary),
                Paragraph(
                    text=f"Counted as {' or '.join(methods) or 'not recorded'}. RssFile is pages of files, "
                    "such as libraries, which the system shares and can drop at any time. On a GPU the "
                    "allocator's figure is the most that the framework held, without preallocation. The "
                    "process's figure is what the driver reports, including the context and loaded kernels.",
                    faint=True,
                ),
            ),
        ),
        *_installed(run),
    ]


def _use_table(told: Sequence[CellCosts], summary: Summary) -> Table:
    on_gpu = any(one.cell.device == "gpu" for one in told)
    rows = []
    for one in told:
        gpu = (_gpu_text(one, one.peak_device_bytes), _gpu_text(one, one.process_device_bytes))
        joules = one.joules_per_1000
        texts = (
            bytes_text(one.peak_rss_bytes),
            *(gpu if on_gpu else ()),
            NOT_AVAILABLE if joules is None else f"{joules:.3g} J",
        )
        rows.append((one.cell, texts))
    gpu_heads = ("GPU, allocator", "GPU, process") if on_gpu else ()
    return _table(("peak memory", *gpu_heads, "energy for 1,000 images"), rows, summary)


def _gpu_text(one: CellCosts, count: int | None) -> str:
    if one.cell.device != "gpu":
        return "no GPU used"
    return NOT_AVAILABLE if count is None else bytes_text(count)


def _installed(run: Run) -> list[Block]:
    rows = [
        (
            one.title,
            f"{one.packages:,}",
            NOT_AVAILABLE if one.installed_bytes is None else bytes_text(one.installed_bytes),
        )
        for one in run.header.backends
        if one.packages is not None
    ]
    if not rows:
        return []
    return [
        Heading(text="What has to be installed", level=3),
        Paragraph(
            text="The packages that each framework needs, with their own requirements, and their size on "
            "disk."
        ),
        number_table(("framework", "packages", "on disk"), rows),
    ]


# ---- use of the machine


def roofline(
    cells: Sequence[CellCosts], products: Sequence[ProductError], summary: Summary, charts: Sequence[Chart]
) -> list[Block]:
    """Return the section on how much of the machine is used."""
    rows = [(one.cell, row) for one in cells if (row := _work_row(one)) is not None]
    head = Heading(text="Roofline: how much of the machine is used")
    if not rows:
        return [head, Paragraph(text="No job of this run was timed on a known data set.")]
    peaks = _peaks(cells)
    heads = ("a step", "FLOP/byte", "reached", "of peak", "of the roof", "counted", "counted, of all")
    return [
        head,
        Paragraph(
            text="A step's operations (FLOP) are counted from the network, so the count is the same for "
            "every framework. The roof is what this machine reached at best: its fastest matrix product, and "
            "its fastest copy. The nearer a point is to the roof, the less can be gained. Under the slope "
            "memory is the limit, under the flat part the processor."
        ),
        *charts,
        bullets([*peaks, *(_product(one, summary) for one in products)])
        if peaks
        else Paragraph(text="The peak of this machine was not measured in this run."),
        Details(
            summary="Operations of every row",
            blocks=(
                _table(heads, rows, summary),
                Paragraph(
                    text="The bytes are the least that a step must move if each array is written and read "
                    "once, so a row whose arrays stay in caches can be above the slope. 'Counted' is the "
                    "framework's own count of a step divided by this one: of products and convolutions, then "
                    "of all arithmetic. A compiler counts less if it leaves out products with the zeros "
                    "around an image, or operations that it removed. A row above 100 % of peak needs fewer "
                    "operations for its convolutions than counted, or the matrix product that measured the "
                    "peak was not the fastest possible.",
                    faint=True,
                ),
            ),
        ),
    ]


def _work_row(one: CellCosts) -> tuple[str, ...] | None:
    work, counted = one.work, one.counted_flops
    if work is None or one.flops_per_s is None:
        return None
    return (
        scaled(work.products, "FLOP"),
        f"{work.intensity:.3g}",
        scaled(one.flops_per_s, "FLOP/s"),
        percent(one.share_of_peak, 1),
        percent(one.share_of_roof, 1),
        NOT_AVAILABLE if counted is None else f"{counted / work.products:.3f}{TIMES}",
        NOT_AVAILABLE if counted is None else f"{counted / work.everything:.3f}{TIMES}",
    )


def _peaks(cells: Sequence[CellCosts]) -> list[str]:
    """Say what the machine reached at best, by device and precision."""
    ceilings = {
        (one.cell.device, one.cell.precision): one.ceiling for one in cells if one.ceiling is not None
    }
    return [
        f"Peak on {device} in {precision}: {scaled(peak.flops_per_s, 'FLOP/s')} in a square matrix product, "
        f"{scaled(peak.bytes_per_s, 'B/s')} read and written in a copy: the best that any framework reached."
        for (device, precision), peak in sorted(ceilings.items())
    ]


def _product(one: ProductError, summary: Summary) -> str:
    """Say whether products were computed in the precision that was asked for."""
    low, high = BOUNDS[one.precision]
    title = summary.titles.get(one.backend, one.backend)
    found = f"{title} on {one.device} in {one.precision}: products are off by {one.error:.1e} against float64"
    if one.as_asked:
        return f"{found}, as {one.precision} is."
    usual = f"{low:.0e} to {high:.0e}" if low else f"at most {high:.0e}"
    return f"{found}, which is NOT {one.precision}, whose error is {usual}."


# ---- the sweep over batch sizes


def batch_sweep(sweeps: Sequence[Sweep], summary: Summary, charts: Sequence[Chart]) -> list[Block]:
    """Return the section on batch sizes."""
    head = Heading(text="Batch sweep")
    if not sweeps:
        return [
            head,
            Paragraph(
                text="This run measured one batch size of each workload. This command measures several:"
            ),
            Code(text="bench run --sweep batch=16..1024"),
        ]
    rows = []
    for one in sweeps:
        line = one.line
        texts = (
            f"{one.points[0].batch_size:,} to {one.points[-1].batch_size:,} ({len(one.points)})",
            NOTHING if line is None else short_time(line.overhead_s),
            NOTHING if line is None else short_time(line.per_image_s),
            overhead_ends(one),
            NOTHING if line is None else percent(line.worst, 1),
        )
        rows.append((one.cell, texts))
    heads = ("batch sizes", "overhead of a step", "time of an image", "overhead ends at", "worst miss")
    table = Table(
        heads=(*_WHERE, *heads),
        rows=tuple((*_names(cell, summary), *texts) for cell, texts in rows),
        numbers=frozenset(range(3, 8)),
        tags=tuple(
            place_tags(cell.workload, cell.device, cell.precision)
            | {"backend": cell.backend, "mode": cell.mode}
            for cell, _ in rows
        ),
    )
    return [
        head,
        Paragraph(
            text="A step takes a fixed time (overhead) and a time for each image. Overhead ends at the batch "
            "size where it is half of the step: smaller batches mostly wait, larger ones mostly work. "
            "Markers are measurements, and curves the fitted line."
        ),
        Group(blocks=tuple(charts), beside=True),
        table,
        Paragraph(
            text="The worst miss is the largest distance of a measured step from the line; beyond 15 % the "
            "line is not used, and a dotted curve joins the measurements.",
            faint=True,
        ),
    ]


def overhead_ends(one: Sweep) -> str:
    """Return in a few words the batch size at which overhead ends, as far as the sweep supports it."""
    line = one.line
    if line is None:
        return "too few batch sizes"
    if not line.good:
        return "a line does not fit"
    first, last, half = one.points[0].batch_size, one.points[-1].batch_size, line.half_batch
    if half is None or half > last:
        return f"above {last:,}"
    return f"below {first:,}" if half < first else f"{half:,.0f}"

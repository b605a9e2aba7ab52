"""The report's section on the whole cost: start-up, a step's parts, memory, energy, use of the machine."""

from collections.abc import Sequence

from bench.analysis.costs import BreakEven, CellCosts, Costs, PipelineRatio, ProductError, read_costs
from bench.analysis.statistics import EQUIVALENCE
from bench.analysis.summary import Summary
from bench.analysis.sweep import Sweep, leave_out_sweep, read_sweeps, split_name
from bench.records.runs import Run
from bench.report.blocks import Block, Paragraph, Picture, Table, bullets, number_table, section
from bench.report.format import (
    NOTHING,
    TIMES,
    bytes_text,
    percent,
    rate_text,
    ratio_text,
    scaled,
    seconds_text,
    short_time,
)
from bench.run.report.tables import row_name
from bench.workloads.precision import BOUNDS

ABOUT = "\N{ALMOST EQUAL TO}"
NOT_AVAILABLE = "not available"


def blocks(run: Run, summary: Summary) -> list[Block]:
    """Return the section; what the run did not measure is named at its end."""
    costs = read_costs(run, summary)
    all_swept = bool(summary.cells) and all(split_name(row.workload) for row in summary.cells)
    kept = leave_out_sweep(summary)
    cells = [one for one in costs.cells if one.cell in kept]
    sections = [
        (_first_result(cells, costs, summary), "the time to a first result: no job got so far"),
        (_split(cells, summary), "where a step's time goes: no backend of this run measured it"),
        (
            _pipelines(costs.pipelines, summary),
            "input from memory against the framework's pipeline: bench run --mode default --mode pipeline",
        ),
        (_use(cells, summary), "memory and energy: no job got so far"),
        (
            _work(cells, costs.products, summary),
            "the use of the machine: no job was timed on a known data set",
        ),
        (
            _sweeps(read_sweeps(summary), summary),
            "where a step's overhead ends: bench run --sweep batch=16..1024",
        ),
        (_installed(run), "installed size: not available"),
    ]
    missing = [said for found, said in sections if not found]
    return section(
        "The whole cost",
        "What a framework costs besides its steady pace. All figures are from this run's records."
        + (" Of a sweep, the tables and bars show the largest batch." if all_swept else ""),
        *(block for found, _ in sections for block in found),
        *_missing(missing),
    )


def _missing(said: Sequence[str]) -> list[Block]:
    return [Paragraph(text="Not in this run:"), bullets(said)] if said else []


# ---- starting


def _first_result(cells: Sequence[CellCosts], costs: Costs, summary: Summary) -> list[Block]:
    told = [one for one in cells if any(part is not None for part in one.start_up.parts)]
    if not told:
        return []
    rows = [
        (
            row_name(one.cell, summary),
            *(seconds_text(part) for part in one.start_up.parts[:-1]),
            _about(one, one.start_up.first_epoch_s),
            _about(one, one.start_up.first_result_s),
        )
        for one in told
    ]
    heads = ("row", "start", "import", "data", "build", "first step", "first epoch", "first result")
    kept = {one.cell for one in told}
    return section(
        "Time to a first result",
        "From the start of a process to the end of its first epoch, part by part: starting the "
        "interpreter, importing the framework, opening the data, building the network, the first step "
        "(tracing and compilation, then one step), and an epoch of training without evaluation. Each "
        f"time is the median over the processes. Shorter is better; {ABOUT} marks an epoch that was not "
        "trained: its time is derived from the steady pace.",
        Picture(
            name="first_result",
            caption="Seconds to the end of the first epoch, part by part, by workload",
        ),
        number_table(heads, rows),
        *_break_evens([one for one in costs.break_evens if one.later in kept], summary),
        level=3,
    )


def _about(one: CellCosts, seconds: float | None) -> str:
    derived = seconds is not None and not one.start_up.epoch_measured
    return f"{ABOUT} {seconds_text(seconds)}" if derived else seconds_text(seconds)


def _break_evens(pairs: Sequence[BreakEven], summary: Summary) -> list[Block]:
    if not pairs:
        return []
    return [
        Paragraph(
            text="If one mode of a framework takes longer to build and for its first step than another, but "
            "is faster afterwards, it pays off after some epochs at the steady pace (from medians, without "
            "an interval):"
        ),
        bullets(_pays(one, summary) for one in pairs),
    ]


def _pays(one: BreakEven, summary: Summary) -> str:
    later, sooner = row_name(one.later, summary), one.sooner.mode
    begins = f"{later}: starts {short_time(one.extra_s)} later than {sooner}"
    if one.epochs is None:
        return f"{begins} and saves nothing in an epoch, so it never pays off."
    if one.epochs == 0:
        return f"{later}: starts no later than {sooner} and is no slower, so it pays off at once."
    return (
        f"{begins} and then saves {short_time(one.saved_s)} an epoch: it has paid off after "
        f"{rate_text(one.epochs)} epochs."
    )


# ---- the parts of a step


def _split(cells: Sequence[CellCosts], summary: Summary) -> list[Block]:
    rows = []
    for one in cells:
        split = one.split
        if split is not None:
            parts = (split.data_s, split.transfer_s, split.dispatch_s, split.device_s)
            texts = (short_time(part) for part in (*parts, sum(parts)))
            rows.append((row_name(one.cell, summary), *texts, short_time(one.step_s)))
    if not rows:
        return []
    heads = ("row", "data", "transfer", "dispatch", "device", "sum", "undisturbed step")
    return section(
        "Where a step's time goes",
        "Means over steps in which each part was finished before the next began: getting the batch "
        "(or waiting for the pipeline), copying it to the device, the call of the step until it returns "
        "(dispatch), and the device's work after that. If calls are synchronous, as on most CPUs, "
        "dispatch includes the work. The sum is longer than an undisturbed step if parts normally "
        "overlap.",
        Picture(
            name="step_split",
            caption="Parts of a step, and its time if each part is finished before the next, by workload",
        ),
        number_table(heads, rows),
        level=3,
    )


def _pipelines(pipelines: Sequence[PipelineRatio], summary: Summary) -> list[Block]:
    if not pipelines:
        return []
    rows = []
    for one in pipelines:
        ratio = one.ratio
        rows.append(
            (
                row_name(one.pipeline, summary),
                one.memory.mode,
                NOTHING if ratio is None else f"{ratio[0]:.3f}{TIMES}",
                NOTHING if ratio is None else ratio_text(ratio[1], ratio[2]),
                _pipeline_verdict(one),
            )
        )
    return section(
        "Input from memory against the framework's own pipeline",
        "Throughput with batches from the framework's own input pipeline, divided by that of its "
        "default mode with all images in memory on the device, by pairs within a block: below 1 the "
        "pipeline costs time.",
        Table(
            heads=("row", "against", "ratio", "interval", "verdict"),
            rows=tuple(rows),
            numbers=frozenset({2, 3}),
        ),
        level=3,
    )


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


def _use(cells: Sequence[CellCosts], summary: Summary) -> list[Block]:
    told = [one for one in cells if one.peak_rss_bytes is not None]
    if not told:
        return []
    methods = sorted({one.peak_rss_method for one in told if one.peak_rss_method})
    return section(
        "Memory and energy",
        "Less is better. Memory is the peak resident memory of the process up to the end of its "
        "timed windows, the largest of the row's jobs, measured as "
        f"{' or '.join(methods) or 'not recorded'} (RssFile is pages of files, such as libraries, which "
        "the system shares and can drop at any time). On a GPU the table also shows the most that the "
        "framework's own allocator held, with preallocation turned off, and what the driver reports for "
        "the whole process after its windows, including the context and loaded kernels. Energy is for "
        "training 1,000 images, from a meter of the machine (powercap) or of the GPU (NVML) that is read "
        "at both ends of every timed window. It includes what the machine draws at rest. Without a meter "
        "it is not available; nothing is estimated.",
        Picture(name="memory", caption="Largest resident memory of the process, by workload"),
        Picture(
            name="gpu_memory", caption="Largest memory of the framework's allocator on the GPU, by workload"
        ),
        _use_table(told, summary),
        level=3,
    )


def _use_table(told: Sequence[CellCosts], summary: Summary) -> Table:
    on_gpu = any(one.cell.device == "gpu" for one in told)
    rows = []
    for one in told:
        gpu = (_gpu_text(one, one.peak_device_bytes), _gpu_text(one, one.process_device_bytes))
        joules = one.joules_per_1000
        rows.append(
            (
                row_name(one.cell, summary),
                bytes_text(one.peak_rss_bytes),
                *(gpu if on_gpu else ()),
                NOT_AVAILABLE if joules is None else f"{joules:.3g} J",
            )
        )
    gpu_heads = ("GPU, allocator", "GPU, process") if on_gpu else ()
    return number_table(("row", "process", *gpu_heads, "energy for 1,000 images"), rows)


def _gpu_text(one: CellCosts, count: int | None) -> str:
    if one.cell.device != "gpu":
        return "no GPU used"
    return NOT_AVAILABLE if count is None else bytes_text(count)


# ---- use of the machine


def _work(cells: Sequence[CellCosts], products: Sequence[ProductError], summary: Summary) -> list[Block]:
    rows = [row for one in cells if (row := _work_row(one, summary)) is not None]
    if not rows:
        return []
    peaks = _peaks(cells)
    heads = ("row", "a step", "counted", "counted, of all", "FLOP/byte", "reached", "of peak", "of roof")
    return section(
        "How much of the machine is used",
        "The operations of a step's matrix products and convolutions are counted from the network, "
        "so the count is the same for every framework. It is multiplied by the steady pace and compared "
        "with the best matrix product and the best copy measured in this run. In the picture a point is "
        "a row: the nearer to the roof, the less can be gained. Under the slope memory is the limit, "
        "under the flat part the processor. The bytes are the least that a step must move if each array "
        "is written and read once, so a row whose arrays stay in caches can be above the slope.",
        Picture(
            name="roofline", caption="Operations per second by operations per byte, with the machine's roof"
        ),
        bullets([*peaks, *(_product(one, summary) for one in products)])
        if peaks
        else Paragraph(text="The peak of this machine was not measured in this run."),
        number_table(heads, rows),
        Paragraph(
            text="'Counted' is the framework's own count of a step divided by this one: of products and "
            "convolutions, then of all arithmetic. A framework that counts products has 1 in the first of "
            "these columns, one that counts everything has 1 in the second. A compiler counts less if it "
            "leaves out products with the zeros around an image, or operations that it removed. A row above "
            "100 % of peak needs fewer operations for its convolutions than counted, or the matrix product "
            "that measured the peak was not the fastest possible."
        ),
        level=3,
    )


def _work_row(one: CellCosts, summary: Summary) -> tuple[str, ...] | None:
    work, counted = one.work, one.counted_flops
    if work is None or one.flops_per_s is None:
        return None
    return (
        row_name(one.cell, summary),
        scaled(work.products, "FLOP"),
        NOT_AVAILABLE if counted is None else f"{counted / work.products:.3f}{TIMES}",
        NOT_AVAILABLE if counted is None else f"{counted / work.everything:.3f}{TIMES}",
        f"{work.intensity:.3g}",
        scaled(one.flops_per_s, "FLOP/s"),
        percent(one.share_of_peak, 1),
        percent(one.share_of_roof, 1),
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
    found = (
        f"{summary.titles.get(one.backend, one.backend)} on {one.device} in {one.precision}: products are "
    )
    found += f"off by {one.error:.1e} against float64"
    if one.as_asked:
        return f"{found}, as {one.precision} is."
    usual = f"{low:.0e} to {high:.0e}" if low else f"at most {high:.0e}"
    return f"{found}, which is NOT {one.precision}, whose error is {usual}."


# ---- the sweep over batch sizes


def _sweeps(sweeps: Sequence[Sweep], summary: Summary) -> list[Block]:
    if not sweeps:
        return []
    rows = []
    for one in sweeps:
        line = one.line
        rows.append(
            (
                row_name(one.cell, summary),
                f"{one.points[0].batch_size:,} to {one.points[-1].batch_size:,} ({len(one.points)})",
                NOTHING if line is None else short_time(line.overhead_s),
                NOTHING if line is None else short_time(line.per_image_s),
                overhead_ends(one),
                NOTHING if line is None else percent(line.worst, 1),
            )
        )
    heads = ("row", "batch sizes", "overhead a step", "an image", "overhead ends at", "worst miss")
    return section(
        "Where overhead ends",
        "The model of a step's time is an overhead, the same at any batch size, plus a time for "
        "each image. By convention overhead ends at the batch size where it is half of the step: smaller "
        "batches mostly wait, larger ones mostly work. The worst miss is the largest distance of a "
        "measured step from that line; beyond 15 % the line is not used. In the picture, markers are "
        "measurements and curves the fitted line; a dotted curve joins the measurements if no line fits. "
        "Throughput levels off where overhead has ended.",
        Picture(name="sweep", caption="Throughput by batch size, by workload"),
        number_table(heads, rows),
        level=3,
    )


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


# ---- what is installed


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
    return section(
        "What has to be installed",
        "The distributions that each framework needs, including their own requirements, and the "
        "size of their files on disk.",
        number_table(("framework", "packages", "on disk"), rows),
        level=3,
    )

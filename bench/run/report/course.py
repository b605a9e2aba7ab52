"""The course view: what somebody needs to know who chooses a framework for a course or a group.

`course_figures` reads the figures, `course_verdicts` has the rules of the verdicts, `course_code` cuts code.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from backends.info import BackendInfo
from backends.lessons import LESSONS, MISTAKES, WORKLOAD, Lesson, Mistake
from bench.analysis.lessons import LessonFactor, latest_lessons, lesson_factors
from bench.analysis.summary import CellSummary, Summary
from bench.measuring.backends import find_backends
from bench.records.runs import Run
from bench.records.schema import STATUS_WORDS, MistakeResult, fault_in_words
from bench.report.blocks import (
    Block,
    Bullets,
    Chart,
    Details,
    Group,
    Heading,
    Item,
    Listing,
    Paragraph,
    Table,
    bullets,
    named_bullets,
    section,
)
from bench.report.chart import Axis, Bar, Bars, Mark
from bench.report.format import (
    DASH,
    NOTHING,
    PLUS_MINUS,
    TIMES,
    bytes_text,
    percent,
    rate_text,
    ratio_text,
    seconds_text,
    short_time,
    width_text,
)
from bench.run.report.course_code import cut, source_of
from bench.run.report.course_figures import Contender, CourseFigures, read_figures, shown_code
from bench.run.report.course_verdicts import RULES, NeedVerdict, need_verdicts
from bench.text import listed

LONGEST = 260
"""Characters of an error message in the table; the whole message is below it."""


def blocks(run: Run, summary: Summary, infos: Mapping[str, BackendInfo] | None = None) -> list[Block]:
    """Return the course view; nothing if the run has no row of a framework.

    `infos` are the backends whose source is shown; without them those that are installed here.
    """
    known = find_backends().backends if infos is None else infos
    figures = read_figures(run, summary, known)
    if figures is None:
        return []
    here = [known[one.backend] for one in figures.contenders if one.backend in known]
    return [
        *section(
            "Choosing a framework for a course or a group",
            f"The figures of costs are of this run, on {figures.workload} ({figures.device}). The verdicts "
            "on an existing code base use all its workloads. All were measured on "
            f"{run.header.environment.in_words()}. The rules of the verdicts were fixed before any run and "
            "know no framework. They weigh nothing that was not measured, such as documentation "
            "and libraries.",
        ),
        *(block for one in need_verdicts(figures, summary) for block in _verdict(one)),
        Details(summary="How the verdicts are made", blocks=(bullets(RULES),)),
        Heading(text="What each framework costs", level=3),
        _table(figures),
        *_lacking(figures, known),
        *_code(here),
        *_slow(run, summary, here),
        *_errors(run, summary),
    ]


def _verdict(one: NeedVerdict) -> list[Block]:
    found: list[Block] = [Heading(text=one.need, level=3), Paragraph(text=one.said)]
    return [*found, named_bullets(one.figures)] if one.figures else found


# ---- figures


def _table(figures: CourseFigures) -> Table:
    heads = (
        "framework", "lines of code", "packages", "installed", "import", "first result",
        "samples/s as taught", PLUS_MINUS, "samples/s tuned", PLUS_MINUS, "accuracy",
    )  # fmt: skip
    return Table(
        heads=heads,
        rows=tuple(map(_row, figures.contenders)),
        numbers=frozenset(range(1, len(heads))),
        details=5,
    )


def _lacking(figures: CourseFigures, known: Mapping[str, BackendInfo]) -> list[Block]:
    """Name what a course may ask for and the run did not measure, with the command that measures it."""
    present = {one.backend for one in figures.contenders}
    command = f"bench run --workload {figures.workload}"
    lines = [
        f"{info.title}, as taught: {command} --backend {info.name}"
        for info in known.values()
        if info.on_request and info.name not in present and any(mode.level == "taught" for mode in info.modes)
    ]
    lines += [
        f"{one.title}, as taught: {command} --backend {one.backend} --mode taught"
        for one in figures.contenders
        if one.taught is None
    ]
    return [Details(summary="What this run did not measure", blocks=(bullets(lines),))] if lines else []


def _row(one: Contender) -> tuple[str, ...]:
    trained = one.trained
    return (
        one.title,
        NOTHING if one.lines is None else str(one.lines),
        NOTHING if one.packages is None else str(one.packages),
        bytes_text(one.installed_bytes),
        seconds_text(one.import_s),
        seconds_text(one.first_result_s),
        *_rate(one.taught),
        *_rate(one.tuned),
        percent(trained.test_accuracy, 2) if trained else NOTHING,
    )


def _rate(row: CellSummary | None) -> tuple[str, str]:
    return (rate_text(row.samples_per_s), width_text(row.half_width)) if row else (NOTHING, NOTHING)


# ---- code


def _code(infos: Sequence[BackendInfo]) -> list[Block]:
    shown = [(info, code) for info in infos if (code := shown_code(info))]
    if not shown:
        return []
    listings = tuple(Listing(title=info.title, text="\n\n\n".join(code)) for info, code in shown)
    whole = [
        Listing(title=f"{info.title}: {module}", text=source)
        for info in infos
        if (module := _taught_module(info)) and (source := source_of(module)) is not None
    ]
    return [
        *section(
            "The same network in each framework",
            f"The network of {WORKLOAD} and its training step, as users of each framework write them. The "
            "code is cut from the source of this program, which trains the lessons below with it. Lines of "
            "code in the table above count these lines without comments and blank lines.",
            Group(blocks=listings, beside=True),
            level=3,
        ),
        *_files(whole),
    ]


def _files(whole: Sequence[Listing]) -> list[Block]:
    said = "The files that train the rows as taught"
    return [Details(summary=said, blocks=tuple(whole), bulky=True)] if whole else []


def _taught_module(info: BackendInfo) -> str | None:
    """Return the module of a backend's mode as taught; None if it has none, or no module of its own."""
    runner = next((mode.runner for mode in info.modes if mode.level == "taught" and mode.runner), None)
    return runner.partition(":")[0] if runner else None


# ---- why is mine slower?


def _slow(run: Run, summary: Summary, infos: Sequence[BackendInfo]) -> list[Block]:
    factors = lesson_factors(run)
    if not factors:
        return section(
            "Why is mine slower?",
            "This run gave no lessons, so it cannot tell. A run of the preset quick gives them if its budget "
            "is long enough.",
            level=3,
        )
    hues = {backend.name: place for place, backend in enumerate(run.header.backends)}
    found: list[Block] = section(
        "Why is mine slower?",
        f"Four common reasons. Each compares two ways to train the network of {WORKLOAD} "
        "in one framework: in the same process, in short turns. A factor of 2 means that the slow way takes "
        "twice as long for an image. Its 95 % interval is over the turns of one process, so it says nothing "
        "about another machine.",
        level=3,
    )
    for lesson in LESSONS:
        told = [one for one in factors if one.lesson == lesson.name]
        found += _lesson(lesson, told, summary.titles, hues, infos)
    return found


def compiling(run: Run, summary: Summary) -> str | None:
    """Return what the lesson on compiling showed, in two sentences; None if no framework gave it."""
    (lesson,) = (one for one in LESSONS if one.compiles)
    told = [one for one in lesson_factors(run) if one.lesson == lesson.name and one.factor is not None]
    if not told:
        return None
    said = listed(
        [f"{_factor_texts(one)[1]} as long in {summary.titles.get(one.backend, one.backend)}" for one in told]
    )
    return (
        f"Training {WORKLOAD} without compiling took {said}, in the steady state of one process. "
        f'The lesson "{lesson.title}", below "Why is mine slower?", has more.'
    )


def _lesson(
    lesson: Lesson,
    factors: Sequence[LessonFactor],
    names: Mapping[str, str],
    hues: Mapping[str, int],
    infos: Sequence[BackendInfo],
) -> list[Block]:
    titles = [names.get(one.backend, one.backend) for one in factors]
    first = ("quick way's first step",) if lesson.compiles else ()
    rows = tuple(
        (title, *_factor_texts(one), *((_extra_text(one),) if first else ()), _kind_text(one))
        for title, one in zip(titles, factors, strict=True)
    )
    table = Table(
        heads=("framework", "slow way takes", "interval", *first, "what the interval shows"),
        rows=rows,
        numbers=frozenset({1, 2}),
        flagged=frozenset(place for place, one in enumerate(factors) if one.factor is None),
    )
    bars = tuple(
        Bar(
            name=title,
            parts=(one.factor.value if one.factor else None,),
            text=_bar_text(one),
            low=one.factor.low if one.factor else None,
            high=one.factor.high if one.factor else None,
            hue=hues.get(one.backend, 0),
            shape=hues.get(one.backend, 0),
        )
        for title, one in zip(titles, factors, strict=True)
    )
    code = _ways(lesson, infos)
    return [
        Heading(text=lesson.title, level=4),
        Paragraph(text=f"Slow: {lesson.slow.said}. Quick: {lesson.quick.said}. {lesson.about}"),
        Chart(
            name=f"lesson-{lesson.name}",
            title=_finding(lesson, titles, factors),
            about="A dot is the time for an image in the slow way divided by that in the quick way, with its "
            "95 % interval. At 1 both take equally long.",
            drawn=Bars(
                axis=Axis(title="times as long for an image", unit="factor", log=True),
                bars=bars,
                marks=(Mark(value=1.0, text="equally long"),),
            ),
            table=table,
        ),
        *([Details(summary="The code of both ways", blocks=tuple(code))] if code else []),
    ]


def _finding(lesson: Lesson, titles: Sequence[str], factors: Sequence[LessonFactor]) -> str:
    """Return what a lesson showed, in one sentence."""
    slower = [
        f"{_times(one.factor.value)} as long in {title}"
        for title, one in zip(titles, factors, strict=True)
        if one.kind == "slower" and one.factor is not None
    ]
    quicker = [
        f"in {title} it is quicker ({_times(one.factor.value)})"
        for title, one in zip(titles, factors, strict=True)
        if one.kind == "quicker" and one.factor is not None
    ]
    if slower or quicker:
        return f"{lesson.title}: {', '.join([*slower, *quicker])}"
    measured = any(one.factor is not None for one in factors)
    return f"{lesson.title}: {'no framework is proven slower' if measured else 'not measured'}"


def _times(factor: float) -> str:
    return f"{factor:.2f}{TIMES}" if factor < 10 else f"{factor:.0f}{TIMES}"


def _factor_texts(one: LessonFactor) -> tuple[str, str]:
    found = one.factor
    if found is None or found.low is None or found.high is None:
        return NOTHING, NOTHING
    if found.low >= 10:
        return _times(found.value), f"{found.low:.0f}{DASH}{_times(found.high)}"
    return _times(found.value), ratio_text(found.low, found.high)


def _bar_text(one: LessonFactor) -> str:
    if one.factor is None:
        return _kind_text(one)
    proven = ", no difference proven" if one.kind == "no difference" else ""
    return f"{_factor_texts(one)[0]} ({_factor_texts(one)[1]}){proven}"


def _extra_text(one: LessonFactor) -> str:
    """Say how much longer or shorter the first step of the quick way is."""
    if one.extra_s is None:
        return NOTHING
    return f"{short_time(abs(one.extra_s))} {'longer' if one.extra_s >= 0 else 'shorter'}"


def _kind_text(one: LessonFactor) -> str:
    if one.factor is None:
        return fault_in_words(one.status, one.error)
    match one.kind:
        case "slower":
            return "the slow way takes longer"
        case "quicker":
            return "the slow way is the quicker one here"
        case _:
            return "no difference is proven"


def _ways(lesson: Lesson, infos: Sequence[BackendInfo]) -> list[Block]:
    """Return the code of both ways, framework by framework; only what can be read here."""
    found: list[Block] = []
    for info in infos:
        if info.lessons is None:
            continue
        module, _, name = info.lessons.target.partition(":")
        source = source_of(module) or ""
        ways = ((lesson.slow, "slow"), (lesson.quick, "quick"))
        parts = [(said, cut(source, f"{name}.{way.method}")) for way, said in ways]
        listings = tuple(
            Listing(title=f"{info.title}, {said}", text=code) for said, code in parts if code is not None
        )
        if listings:
            found.append(Group(blocks=listings, beside=True))
    return found


# ---- errors


def _errors(run: Run, summary: Summary) -> list[Block]:
    records = latest_lessons(run)
    if not records:
        return []
    titles = [summary.titles.get(name, name) for name in records]
    made = {name: {one.name: one for one in record.mistakes} for name, record in records.items()}
    rows = tuple(
        (mistake.title, *(_outcome(found.get(mistake.name)) for found in made.values()))
        for mistake in MISTAKES
    )
    return [
        *section(
            "What an error looks like",
            "One step on a batch that is wrong in one thing, the same batch for each framework. A right "
            "batch trained without an error just before. Where no error is raised, training goes on, and "
            "the loss is what a student sees. It differs from framework to framework, as each draws its own "
            "first weights.",
            Table(heads=("mistake", *titles), rows=rows),
            level=3,
        ),
        *_hidden(records, made, summary.titles),
        Details(summary="The whole messages", blocks=_messages(records, titles, made)),
    ]


def _hidden(
    records: Iterable[str], made: Mapping[str, Mapping[str, MistakeResult]], titles: Mapping[str, str]
) -> list[Block]:
    """Say why a loss can be a number although an input is NaN; nothing if none is."""
    nan = next(mistake for mistake in MISTAKES if mistake.name == "nan")
    losses = {name: one.loss for name in records if (one := made[name].get(nan.name)) is not None}
    hiding = [titles.get(name, name) for name, loss in losses.items() if loss and _is_number(loss)]
    if not hiding:
        return []
    said = (
        f"{nan.title}: in {listed(hiding)} an operation hides the NaN, so the loss is a number. On a CPU, "
        "TensorFlow does so where it fuses a product, a bias and ReLU."
    )
    return [Paragraph(text=said, faint=True)]


def _is_number(loss: str) -> bool:
    try:
        return math.isfinite(float(loss))
    except ValueError:
        return False


def _messages(
    records: Mapping[str, object], titles: Sequence[str], made: Mapping[str, Mapping[str, MistakeResult]]
) -> tuple[Block, ...]:
    found: list[Block] = []
    for mistake in MISTAKES:
        listings = tuple(
            Listing(title=title, text=_whole(made[name].get(mistake.name)), language="text")
            for name, title in zip(records, titles, strict=True)
        )
        found += [_about(mistake), Group(blocks=listings, beside=True)]
    return tuple(found)


def _about(mistake: Mistake) -> Bullets:
    return Bullets(items=(Item(name=mistake.title, text=mistake.about),))


def _outcome(result: MistakeResult | None) -> str:
    """Say in a few words what came of a mistake."""
    if result is None:
        return STATUS_WORDS["not_measured"]
    if result.status != "ok":
        return fault_in_words(result.status, result.error)
    if result.raised is None:
        return f"no error; the loss is {result.loss}"
    said = telling_text(result.message or "").removeprefix(f"{result.raised}: ")
    return f"{result.raised}: {said}" if said else result.raised


def _whole(result: MistakeResult | None) -> str:
    if result is None or result.status != "ok" or result.raised is None:
        return _outcome(result)
    return f"{result.raised}: {result.message or ''}".strip()


_TRACEBACK = re.compile(r'^(File "|\^|~|\||-> \||\+ )|\(L\d+\) \w+$|^\[\.\.\.\]$')
"""Lines of Python's tracebacks and of TensorFlow's, and the mark of a message that was cut."""


def telling_text(message: str) -> str:
    """Return what a message says, on one line and cut off where it is long.

    Headings such as `in user code:` and the lines of a traceback are left out, unless there is nothing else.
    """
    lines = [line.strip() for line in message.splitlines()]
    said = " ".join(_without_traceback(lines) or filter(None, lines))
    return said if len(said) <= LONGEST else f"{said[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def _without_traceback(lines: Sequence[str]) -> list[str]:
    kept = []
    for before, line in zip(("", *lines), lines, strict=False):
        is_code = before.startswith('File "')  # a traceback may quote code right below the line of its place
        if line and not (is_code or line.endswith(":") or _TRACEBACK.search(line)):
            kept.append(line.removeprefix(": "))
    return kept

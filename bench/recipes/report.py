"""The report on the notebooks: their figures beside ours, on the terminal and as a file with pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.datasets.cache import Dataset
from bench.errors import WriteError
from bench.paths import refusal
from bench.progress import Display
from bench.recipes.notebooks import Answer, Line, Table
from bench.recipes.pictures.selection import drawings
from bench.recipes.prediction import CONFIDENCE, Band
from bench.recipes.records import Training
from bench.report import blocks, page
from bench.report.blocks import Block, Heading, Paragraph, Picture, below, bullets, named_bullets
from bench.report.markdown import PLOTS, document
from bench.store import write_durably, write_text
from bench.text import duration

REPORT = "NOTEBOOKS.md"
TITLE = "The notebooks, reproduced"


def write(
    folder: Path, table: Table, *, faults: Sequence[str], datasets: Mapping[str, Dataset], display: Display
) -> Path:
    """Write the report, as Markdown and as a page, and its pictures into the folder of the training runs.

    Return the path of the page.

    A picture that needs a missing model is not drawn; if it was drawn before, the old one is kept.
    """
    path = folder / page.NAME
    try:
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)
        pictures = []
        for drawing in drawings(table, datasets, display):
            pictures.append(Picture(name=drawing.name, caption=drawing.caption))
            if drawing.content is not None:
                write_durably(folder / PLOTS / f"{drawing.name}.svg", drawing.content)
        files = {one.name: folder / PLOTS / f"{one.name}.svg" for one in pictures}
        drawn = {name: file.read_bytes() for name, file in files.items() if file.is_file()}
        whole = full(table, faults, pictures)
        write_text(folder / REPORT, document(whole, frozenset(drawn)))
        write_text(path, page.document(whole, title=TITLE, pictures=drawn))
    except OSError as error:
        raise WriteError(f"cannot write the report to {folder}: {refusal(error, folder)}.") from error
    return path


def short(table: Table) -> list[Block]:
    """Return how many figures were reproduced, every figure beside the result of each framework, a legend."""
    found: list[Block] = [Heading(text=TITLE, level=1), named_bullets(outcome(table))]
    for line in table.lines:
        answers = ((table.titles[answer.backend], _answer(line, answer)) for answer in line.answers)
        found += [Heading(text=f"{line.recipe.name}: {_published(line)}", level=3), named_bullets(answers)]
    return [*found, Heading(text="How to read this"), bullets(legend())]


def full(table: Table, faults: Sequence[str], pictures: Sequence[Picture]) -> list[Block]:
    """Return the whole report; `faults` says what is missing."""
    title, counts, *figures = short(table)
    return [
        title,
        counts,
        Paragraph(
            text="Six recipes from five TensorFlow 1 notebooks, followed in each framework from the same "
            "weights and in the same order of batches. Every figure is in the figures.jsonl of its training "
            "run's folder."
        ),
        *figures,
        Heading(text="The training runs"),
        _trainings(table),
        Paragraph(text="The times are not a benchmark: other programs may have run on the machine."),
        bullets(_machines(table.trainings)),
        *below("What is missing", bullets(faults)),
        Heading(text="Pictures"),
        *pictures,
    ]


def outcome(table: Table) -> list[tuple[str, str]]:
    """Return for each framework how many figures of the notebooks it reproduces."""
    found = []
    for place, title in enumerate(table.titles.values()):
        verdicts = [line.answers[place].verdict for line in table.lines]
        rest = [
            f"{count} {what}"
            for count, what in (
                (verdicts.count("outside"), "outside"),
                (verdicts.count("no band"), "with too few seeds to tell"),
                (verdicts.count(None), "not trained"),
            )
            if count
        ]
        inside = f"{verdicts.count('inside')} of {len(verdicts)} figures of the notebooks are inside the band"
        found.append((title, f"{'; '.join([inside, *rest])}."))
    return found


def legend() -> list[str]:
    """Return the explanation of the table."""
    return [
        "Each of our figures is the mean over seeds ± the standard deviation, with the number of seeds in "
        "parentheses.",
        f"The band, in brackets, is the prediction interval: it contains one more training run with "
        f"{CONFIDENCE:.0%} probability (mean ± t·sd·sqrt(1 + 1/n)). The notebook's figure lies inside or "
        "outside the band. Where the notebook names a range, our mean lies inside or outside the range.",
        "One seed has no band. A share of one batch of 100 images also varies with the images drawn. "
        "Its band includes that; with one seed, the band includes nothing else.",
        "Steps are counted as in the notebook. Where a notebook prints after its update, its step 0 is our "
        "step 1.",
        "About one figure in twenty lies outside by chance. The figures of one training run are not "
        "independent, and neither are the frameworks, which share seeds, weights and batches.",
    ]


def _published(line: Line) -> str:
    return f"{line.published.text} ({line.published.metric})"


def _answer(line: Line, answer: Answer) -> str:
    if answer.band is None:
        return f"at step {answer.reached:,} of {line.published.step:,}" if answer.reached else "not trained"
    scale = line.recipe.loss_scale if line.published.metric == "test loss" else 1.0
    digits = 4 if line.published.metric != "test loss" else 0 if scale > 1000 else 2
    return f"{_numbers(answer.band, scale, digits)}: {answer.verdict}"


def _numbers(found: Band, scale: float, digits: int) -> str:
    spread = "" if found.sd is None else f" ± {scale * found.sd:.{digits}f}"
    ends = ""
    if found.low is not None and found.high is not None:
        ends = f" [{scale * found.low:.{digits}f}, {scale * found.high:.{digits}f}]"
    return f"{scale * found.mean:.{digits}f}{spread} ({found.n}){ends}"


def _trainings(table: Table) -> blocks.Table:
    """Return a row for each recipe in each framework that has trained it."""
    rows = []
    for recipe in table.recipes:
        of_recipe = table.of_recipe(recipe)
        for backend, title in table.titles.items():
            if found := [one for one in of_recipe if one.header.cell.backend == backend]:
                rows.append((recipe.name, title, *_summary(found)))
    return blocks.Table(
        heads=(
            "recipe", "framework", "seeds", "steps", "test accuracy at the end", "highest, at step",
            "training time per seed",
        ),
        rows=tuple(rows),
        numbers=frozenset({2, 3}),
    )  # fmt: skip


def _summary(found: Sequence[Training]) -> list[str]:
    """Return the number of seeds, steps, accuracies and time of one recipe in one framework."""
    ends = [one.figures[-1] for one in found]
    unfinished = sum(not one.finished for one in found)
    mean_s = sum(end.train_s for end in ends) / len(ends)
    highest = max((figure for one in found for figure in one.figures), key=lambda f: f.test_accuracy)
    return [
        str(len(found)),
        _range([end.step for end in ends], ",d") + (f" ({unfinished} not finished)" if unfinished else ""),
        _range([end.test_accuracy for end in ends], ".4f"),
        f"{highest.test_accuracy:.4f} at {highest.step:,}",
        duration(mean_s),
    ]


def _range(values: Sequence[float], form: str) -> str:
    low, high = min(values), max(values)
    return f"{low:{form}}" if low == high else f"{low:{form}} to {high:{form}}"


def _machines(trainings: Sequence[Training]) -> list[str]:
    """Return every machine of the training runs, and every framework with its versions."""
    machines = dict.fromkeys(one.header.environment.in_words() for one in trainings)
    versions = dict.fromkeys(
        f"{one.header.backend.title}: "
        + ", ".join(f"{name} {version}" for name, version in one.header.backend.versions.items())
        + f", mode {one.header.cell.mode}, {one.header.cell.precision}"
        for one in trainings
    )
    return [*machines, *sorted(versions)]

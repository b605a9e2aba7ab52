"""Part 4 for README and docs: what the frameworks reach beside what the notebooks print."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from bench.recipes.catalog import RECIPES
from bench.recipes.notebooks import Line, Table, read_trainings
from bench.recipes.report import short
from bench.report.blocks import Bullets, Heading
from bench.report.markdown import grid


def read(folders: Sequence[Path]) -> Table:
    """Return the recipes that were followed in any of the folders, in all their frameworks."""
    trainings = [one for folder in folders for one in read_trainings(folder)[0]]
    titles = {one.header.cell.backend: one.header.backend.title for one in trainings}
    table = Table(recipes=list(RECIPES.values()), titles=dict(sorted(titles.items())), trainings=trainings)
    followed = [recipe for recipe in table.recipes if table.of_recipe(recipe)]
    return Table(recipes=followed, titles=table.titles, trainings=trainings)


def last_figures(table: Table) -> str:
    """Return the last accuracy and loss that the notebook gives of each recipe, beside the frameworks'."""
    rows = {}
    for line, (heading, answers) in zip(table.lines, _shown(table), strict=True):
        _, _, published = heading.text.partition(": ")
        name = line.recipe.name
        rows[name, line.published.metric] = (name, published, *(item.text for item in answers.items))
    return f"\n\n{grid(('recipe', 'the notebook', *table.titles.values()), rows.values())}\n\n"


def _shown(table: Table) -> Iterator[tuple[Heading, Bullets]]:
    """Yield each figure of a notebook and the answers to it, as the report shows them."""
    blocks = short(table)
    for block, after in pairwise(blocks):
        if isinstance(block, Heading) and block.level == 3 and isinstance(after, Bullets):
            yield block, after


def outside(table: Table) -> str:
    """Return how many verdicts on single values say "outside", such as `2 of 42`."""
    verdicts = [answer.verdict for line in table.lines if _is_single(line) for answer in line.answers]
    return f"{sum(verdict == 'outside' for verdict in verdicts)} of {len(verdicts)}"


def _is_single(line: Line) -> bool:
    return line.published.low == line.published.high and not line.recipe.workload.architecture.convs

"""Tables and cells that pages take from reports."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report.markdown import escape, grid
from campaign.quoted import QuoteError, cell, table, tables

REPORT = f"""# Rates

Some words | and a bar.

{grid(("head", "was so"), [("unchanged", "4 of 4"), ("slower", "2 of 2")])}

{grid(("rule", "blocks", "found"), [("ours", "3", "20 of 27"), ("ours", "10", "9 of 9"), ("a|b", "3", "0")])}
"""


def test_a_table_is_found_by_a_column_and_quoted_as_it_stands():
    first, second = tables(REPORT)
    assert table(REPORT, "was so") == first
    assert table(REPORT, "blocks") == second
    assert first.text == grid(("head", "was so"), [("unchanged", "4 of 4"), ("slower", "2 of 2")])
    assert first.rows == (("unchanged", "4 of 4"), ("slower", "2 of 2"))


@pytest.mark.parametrize(
    ("row", "head", "found"),
    [
        ("slower", "was so", "2 of 2"),
        ("ours / 10", "found", "9 of 9"),
        (r"a\|b", "found", "0"),
    ],
)
def test_a_cell_is_found_by_its_row_and_column(row, head, found):
    assert cell(REPORT, row, head) == found


@pytest.mark.parametrize(
    ("row", "head", "why"),
    [
        ("slower", "speed", "no table has the column 'speed'; there are: head, was so, rule, blocks, found"),
        ("slow", "was so", "0 rows begin with 'slow'"),
        ("ours", "found", "2 rows begin with 'ours'"),
        ("unchanged / 4 of 4 / x", "was so", "0 rows begin with"),
    ],
)
def test_what_a_report_lacks_is_an_error_that_says_what_it_has(row, head, why):
    with pytest.raises(QuoteError, match=why):
        cell(REPORT, row, head)


def test_a_report_without_tables_says_so():
    with pytest.raises(QuoteError, match="there are: no tables"):
        table("words\n| no end\n", "words")


texts = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1, max_size=8)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5, unique_by=lambda row: row[0]))
def test_each_cell_of_any_table_is_found_whatever_its_text(rows):
    report = f"words\n\n{grid(('name', 'value'), rows)}\n\nmore words\n"
    for name, value in rows:
        assert cell(report, escape(name), "value") == escape(value)

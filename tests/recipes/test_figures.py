"""Pictures lie at round places, hold their text as text, and leave the settings of Matplotlib alone."""

import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest

from bench.recipes.pictures.figures import label, make_panels, rehearse, settings, svg


def test_panels_lie_at_round_places_as_the_layout_differs_between_processes_in_its_last_digits():
    figure, found = make_panels([1.0, 1.0, 1.0])
    found[0].set_yticks([0, 1], ["a row with a long name", "another"])
    svg(figure)
    for panel in found:
        bounds = panel.get_position(original=True).bounds
        assert bounds == pytest.approx([round(value, 5) for value in bounds], abs=1e-12)
        assert 0 < bounds[0] < bounds[0] + bounds[2] <= 1


def test_a_picture_holds_its_text_as_text_in_fonts_that_there_are_everywhere():
    title = 'mnist-cnn & others, 0.12345 x="1.23456"'
    with settings():
        figure, found = make_panels([1.0, 1.0])
        for panel in found:
            panel.set_title(title)
            panel.set_ylabel("turned")
            panel.plot([0, 1, 2], [0, 1, 0.5])
        content = svg(figure).decode()
    assert "text{font-family: 'DejaVu Sans', Verdana, sans-serif}" in content
    assert content.count("font-family") == 1
    parsed = ET.fromstring(content)  # noqa: S314
    texts = [one.text for one in parsed.iter("{http://www.w3.org/2000/svg}text")]
    assert (texts.count(title), texts.count("turned")) == (2, 2)
    assert 'transform="rotate(-90 ' in content
    assert not re.search(r' d="[^"]*\d\.\d{3}', content)


def test_a_rehearsal_leaves_the_settings_of_matplotlib_alone():
    with mpl.rc_context({"font.size": 3.0, "axes.grid": True, "svg.hashsalt": "mine"}):
        before = dict(mpl.rcParams)
        rehearse()
        assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", ["\N{CJK UNIFIED IDEOGRAPH-6A21}", "$\\frac$"])
def test_a_letter_that_the_font_lacks_and_a_formula_are_drawn_without_a_warning(name):
    with settings():
        figure, (panel,) = make_panels([1.0])
        panel.set_title(label(name))
        assert svg(figure)

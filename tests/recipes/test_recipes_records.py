"""A training run's folder: what is written is read to the last bit, and what cannot be read is named."""

import msgspec
import numpy as np
import pytest
from followed import make_figure, make_figures, make_header, write_training
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bench.errors import RecordError, UsageError
from bench.recipes.metrics import BINS, QUANTILES, Figure
from bench.recipes.records import FIGURES, HEADER, distribution, keep_figures, read_training

FINITE = st.floats(-(2.0**40), 2.0**40, width=32)  # no useful parameter is larger
VALUES = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=6), elements=FINITE)
STEPS = (1, 101, 201)


@pytest.fixture
def written(tmp_path):
    return write_training(tmp_path / "one", make_header(seed=4, steps=201), make_figures(STEPS))


def test_a_distribution_of_known_values_is_the_one_worked_out_by_hand():
    found = distribution(np.array([[30, 0.5], [10.5, 10.75], [0, 0]], np.float32)[:, ::-1])
    counts = dict.fromkeys(range(BINS), 0) | {0: 3, 10: 2, 29: 1}  # bins of width one
    assert found.counts == tuple(counts.values())
    assert (found.total, found.total_of_squares) == (51.75, 0.25 + 110.25 + 115.5625 + 900)
    assert (found.quantiles[0], found.quantiles[3], found.quantiles[-1]) == (0, 5.5, 30)
    # The sorted values 0, 0, 0.5, 10.5, 10.75, 30 lie at 0, 0.2, ..., 1, and between them is a straight line.
    assert found.quantiles[4] == pytest.approx(10.75 + (0.8413 - 0.8) / 0.2 * 19.25)


def test_quantiles_are_where_a_normal_distribution_has_its_standard_deviations():
    values = np.random.default_rng(0).normal(3, 2, 200_000).astype(np.float32)
    np.testing.assert_allclose(distribution(values).quantiles[1:-1], 3 + 2 * np.arange(-2, 3), atol=0.05)


@given(VALUES)
def test_a_distribution_counts_every_value_between_its_ends(values):
    found = distribution(values)
    assert len(found.counts) == BINS
    assert sum(found.counts) == values.size
    assert len(found.quantiles) == len(QUANTILES)
    assert (found.quantiles[0], found.quantiles[-1]) == (values.min(), values.max())
    # Interpolation between equal values may be off in the last digit.
    assert (np.diff(found.quantiles) >= -1e-12 * np.abs(values).max(initial=0)).all()


@given(FINITE, st.integers(1, 50))
def test_a_parameter_of_equal_values_has_a_distribution(value, size):
    found = distribution(np.full(size, value, np.float32))
    assert sorted(found.counts) == [0] * (BINS - 1) + [size]
    np.testing.assert_allclose(found.quantiles, value, rtol=1e-12)


@given(hnp.arrays("<u4", st.integers(0, 20)))
def test_losses_are_read_again_to_the_last_bit(bits):
    figure = make_figure(7, losses=bits.tobytes())
    again = msgspec.json.decode(msgspec.json.encode(figure), type=Figure)
    assert again == figure
    np.testing.assert_array_equal(np.frombuffer(again.losses, "<u4"), bits)


def test_a_training_is_read_as_it_was_written(written, tmp_path):
    figures = make_figures(STEPS)
    assert (written.folder, written.header) == (tmp_path / "one", make_header(seed=4, steps=201))
    assert (written.figures, written.rejected) == (figures, ())
    assert (written.at(101), written.at(100)) == (figures[1], None)
    assert (written.losses.dtype, written.losses.shape) == (np.float32, (201,))
    np.testing.assert_array_equal(written.losses[1:101], np.frombuffer(figures[1].losses, "<f4"))


@pytest.mark.parametrize(("made", "finished"), [((), False), (STEPS[:2], False), (STEPS, True)])
def test_a_training_is_finished_when_its_last_step_has_a_figure(made, finished, tmp_path):
    figures = make_figures(made) if made else ()
    found = write_training(tmp_path / "one", make_header(steps=201), figures)
    assert found.finished is finished
    assert found.losses.shape == (made[-1] if made else 0,)


@pytest.mark.parametrize(("until", "kept"), [(-1, ()), (1, (1,)), (200, (1, 101)), (201, STEPS)])
def test_only_readable_figures_up_to_a_step_are_kept(until, kept, written):
    with (written.folder / FIGURES).open("ab") as file:
        file.write(b'{"step": 301, "train')
    keep_figures(written.folder, until)
    after = read_training(written.folder)
    assert after.figures == written.figures[: len(kept)]
    assert tuple(one.step for one in after.figures) == kept
    assert after.rejected == ()
    assert not list(written.folder.glob("*.part"))


def test_figures_can_be_kept_before_there_are_any(tmp_path):
    folder = write_training(tmp_path / "one").folder
    keep_figures(folder, -1)
    assert read_training(folder).figures == ()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"step": 301, "train_s"', "truncated"),
        (b"{}", "missing required field"),
        (b'{"step": "many"}', "Expected `int`"),
        (b"\xff\xfe", "malformed"),
    ],
)
def test_a_line_that_is_no_figure_is_left_out_and_named(line, said, written):
    path = written.folder / FIGURES
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], line, lines[1], lines[2]]))
    found = read_training(written.folder)
    assert found.figures == written.figures
    (rejected,) = found.rejected
    assert rejected.startswith(f"{FIGURES} line 2: ")
    assert said in rejected


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (None, UsageError, "is not a training run: it has no train.json"),
        (b"{", RecordError, "cannot read .*train.json"),
        (b'{"schema": 99}', RecordError, "of schema 99; .* schema 1"),
    ],
)
def test_a_folder_without_a_readable_header_is_refused(content, error, said, written):
    path = written.folder / HEADER
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=said):
        read_training(written.folder)

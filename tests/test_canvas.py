"""The canvas: where things land, in which colour, and that odd input cannot break a picture."""

import numpy as np
import pytest

from ridgeline.canvas import Canvas

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def painted(canvas: Canvas) -> np.ndarray:
    """The brightness of each pixel, 0 .. 1; (height, width)."""
    return canvas.pixels().max(axis=2) / 255.0


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """First and last painted column, first and last painted row."""
    rows, columns = np.nonzero(mask > 0.5)
    return columns.min(), columns.max(), rows.min(), rows.max()


def test_size_and_type():
    assert Canvas().pixels().shape == (360, 480, 3)
    assert Canvas(30, 20).pixels().dtype == np.uint8
    assert not Canvas(30, 20).pixels().any()


def test_pixels_is_a_copy():
    canvas = Canvas(4, 4)
    before = canvas.pixels()
    canvas.fill(WHITE)
    assert not before.any() and canvas.pixels().all()


def test_fill_is_exact():
    canvas = Canvas(8, 6)
    canvas.fill((12, 34, 56))
    assert (canvas.pixels() == (12, 34, 56)).all()


def test_rectangle_in_world_units_with_y_upwards():
    canvas = Canvas(100, 50)
    canvas.world(-1.0, 1.0, 0.0, 1.0)
    canvas.rectangle(0.0, 0.5, 0.5, 1.0, RED)
    expected = np.zeros((50, 100, 3), np.uint8)
    expected[0:25, 50:75] = RED
    np.testing.assert_array_equal(canvas.pixels(), expected)


def test_rectangle_takes_its_corners_in_any_order():
    first, second = Canvas(40, 40), Canvas(40, 40)
    first.rectangle(5, 7, 20, 30, BLUE)
    second.rectangle(20, 30, 5, 7, BLUE)
    np.testing.assert_array_equal(first.pixels(), second.pixels())
    assert bounds(painted(first)) == (5, 19, 10, 32)


def test_half_a_pixel_is_half_bright():
    canvas = Canvas(10, 10)
    canvas.rectangle(2.0, 2.0, 4.5, 8.0, WHITE)
    row = painted(canvas)[5]
    assert row[3] == 1.0 and row[5] == 0.0
    assert row[4] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("end", [(80, 50), (20, 20), (50, 80), (77, 71)])
def test_line_has_its_length_times_its_width(end):
    canvas = Canvas(100, 100)
    width = 8.0
    canvas.line(50, 50, *end, WHITE, width)
    length = np.hypot(end[0] - 50, end[1] - 50)
    area = length * width + np.pi * (width / 2) ** 2  # two half circles at the ends
    assert painted(canvas).sum() == pytest.approx(area, rel=0.06)


def test_horizontal_line_lies_where_it_should():
    canvas = Canvas(100, 100)
    canvas.line(20, 50, 80, 50, WHITE, 10)
    left, right, top, bottom = bounds(painted(canvas)[:, 20:80])
    assert (left, right) == (0, 59)
    assert abs(top - 45) <= 1 and abs(bottom - 54) <= 1


def test_a_thin_line_is_still_seen():
    canvas = Canvas(100, 100)
    canvas.line(0, 50.5, 100, 50.5, WHITE, 0.0)
    assert 0.5 <= painted(canvas)[:, 10:90].sum(axis=0).mean() <= 2.0


def test_a_line_of_no_length_is_a_dot():
    canvas = Canvas(100, 100)
    canvas.line(50, 50, 50, 50, WHITE, 10)
    assert painted(canvas).sum() == pytest.approx(np.pi * 25, rel=0.1)


def test_circle_area_and_centre():
    canvas = Canvas(120, 120)
    canvas.world(-6, 6, -6, 6)
    canvas.circle(1.0, 2.0, 3.0, GREEN)
    mask = painted(canvas)
    rows, columns = np.mgrid[0:120, 0:120] + 0.5
    assert mask.sum() == pytest.approx(np.pi * 30**2, rel=0.02)
    assert (mask * columns).sum() / mask.sum() == pytest.approx(70, abs=0.5)
    assert (mask * rows).sum() / mask.sum() == pytest.approx(40, abs=0.5)


def test_circle_stays_round_in_a_stretched_world():
    canvas = Canvas(200, 100)
    canvas.world(0, 1, 0, 2)  # 200 pixels per unit across, 50 upwards: mean 100
    canvas.circle(0.5, 1.0, 0.2, WHITE)
    left, right, top, bottom = bounds(painted(canvas))
    assert abs((right - left + 1) - 40) <= 1 and abs((bottom - top + 1) - 40) <= 1


def test_polygon():
    canvas = Canvas(100, 100)
    canvas.polygon([(10, 10), (90, 10), (10, 90)], WHITE)
    mask = painted(canvas)
    assert mask.sum() == pytest.approx(3200, rel=0.03)
    assert mask[80, 20] == 1.0 and mask[20, 80] == 0.0  # the right angle is at the bottom left


def test_capital_letters_have_the_size_asked_for():
    canvas = Canvas(200, 100)
    canvas.text(20, 30, "H", WHITE, 40)
    left, right, top, bottom = bounds(painted(canvas))
    assert abs(bottom - 69) <= 1 and abs(top - 30) <= 1  # from y = 30 up to y = 70
    assert 20 <= left <= 28 and right < 70


def test_text_says_what_it_is_given():
    pictures = []
    for string in ("12", "21"):
        canvas = Canvas(60, 30)
        canvas.text(2, 5, string, WHITE, 15)
        pictures.append(canvas.pixels())
    assert pictures[0].any() and (pictures[0] != pictures[1]).any()


def test_image_of_the_same_size_is_exact():
    frame = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    canvas = Canvas(32, 24)
    canvas.image(frame)
    np.testing.assert_array_equal(canvas.pixels(), frame)


def test_image_is_enlarged_and_reduced_over_the_full_picture():
    small = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)
    canvas = Canvas(32, 24)
    canvas.image(small)
    np.testing.assert_array_equal(canvas.pixels(), small.repeat(12, axis=0).repeat(16, axis=1))
    large = np.zeros((480, 640, 3), np.uint8)
    large[::2] = 200
    canvas.image(large)
    assert (canvas.pixels() == 100).all()


def test_image_takes_a_view_that_is_not_contiguous():
    frame = np.random.default_rng(1).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    canvas = Canvas(32, 24)
    canvas.image(frame[::-1])
    np.testing.assert_array_equal(canvas.pixels(), frame[::-1])


@pytest.mark.parametrize("frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_image_refuses_other_arrays(frame):
    with pytest.raises(ValueError, match=r"uint8 array \(H, W, 3\)"):
        Canvas(8, 8).image(frame)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_shapes_are_left_out(bad):
    canvas = Canvas(40, 40)
    canvas.line(0, bad, 10, 10, WHITE, 1)
    canvas.line(0, 0, 10, 10, WHITE, bad)
    canvas.rectangle(0, 0, bad, 10, WHITE)
    canvas.circle(5, 5, bad, WHITE)
    canvas.polygon([(0, 0), (bad, 5), (5, 5)], WHITE)
    canvas.text(bad, 5, "no", WHITE, 10)
    assert not canvas.pixels().any()


def test_far_away_shapes_are_cut():
    canvas = Canvas(40, 40)
    canvas.line(-1e300, 20, 1e300, 20, WHITE, 4)
    canvas.circle(1e12, 5, 3, RED)
    canvas.rectangle(-1e9, 0, 1e9, 10, BLUE)
    assert (canvas.pixels()[20] == WHITE).all()
    assert (canvas.pixels()[35] == BLUE).all()
    assert not (canvas.pixels()[..., 0] > canvas.pixels()[..., 1]).any()


def test_colours_may_be_computed():
    canvas = Canvas(4, 4)
    canvas.fill((np.float64(300.7), np.int64(-5), 12.9))  # type: ignore[arg-type]
    assert (canvas.pixels() == (255, 0, 12)).all()


@pytest.mark.parametrize("world", [(1, 1, 0, 1), (0, 1, 2, 1), (0, np.nan, 0, 1), (-np.inf, 0, 0, 1)])
def test_a_world_without_extent_is_refused(world):
    with pytest.raises(ValueError, match="left < right and bottom < top"):
        Canvas(8, 8).world(*world)


@pytest.mark.parametrize("size", [(0, 10), (10, 5000), (10.0, 10)])
def test_a_size_that_cannot_be_is_refused(size):
    with pytest.raises(ValueError, match="from 1 to 4096"):
        Canvas(*size)


def test_a_polygon_needs_three_points():
    with pytest.raises(ValueError, match="at least three"):
        Canvas(8, 8).polygon([(0, 0), (1, 1)], WHITE)

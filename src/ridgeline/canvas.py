"""A small picture that environments draw themselves on, in their own units.

An environment's `draw(state, canvas)` calls `canvas.world(left, right, bottom, top)` once and then draws in those
units, y upwards. The rectangle is stretched over the full picture: an environment whose world is not 4:3 declares
`canvas_size = (width, height)` in the same proportion. Where the two scales differ, lengths that have no direction
(the radius of a circle, the width of a line) use their geometric mean, so circles stay round.

A shape outside the picture is cut, and one with a NaN or infinite coordinate is left out: a frozen run still has a
picture. Shapes are drawn at twice the size and reduced, which smooths their edges.
"""

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]  # red, green, blue, 0 .. 255

_FINE = 2  # drawn pixels per picture pixel
_FAR = 20_000.0  # drawn pixels: Pillow takes time in proportion to a shape's extent, visible or not


class Canvas:
    """A picture of `width` x `height` pixels, black at first, with one unit per pixel until `world` is called."""

    def __init__(self, width: int = 480, height: int = 360):
        if not (isinstance(width, int) and isinstance(height, int) and 1 <= width <= 4096 and 1 <= height <= 4096):
            raise ValueError(f"canvas size {width!r} x {height!r}; use whole numbers from 1 to 4096")
        self.width, self.height = width, height
        self._picture = Image.new("RGB", (width * _FINE, height * _FINE))
        self._draw = ImageDraw.Draw(self._picture)
        self.world(0, width, 0, height)

    def world(self, left: float, right: float, bottom: float, top: float) -> None:
        """Set the rectangle of the world that the picture shows, y upwards; what is drawn already stays."""
        if not (math.isfinite(right - left) and math.isfinite(top - bottom) and left < right and bottom < top):
            raise ValueError(
                f"canvas.world({left}, {right}, {bottom}, {top}); use finite numbers with left < right and bottom < top"
            )
        self._left, self._top = left, top
        self._scale_x = self._picture.width / (right - left)
        self._scale_y = self._picture.height / (top - bottom)
        self._scale = math.sqrt(self._scale_x * self._scale_y)

    def fill(self, colour: Colour) -> None:
        """Paint the whole picture."""
        self._picture.paste(_colour(colour), (0, 0, *self._picture.size))

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, width: float) -> None:
        """A line with round ends, `width` world units wide and at least one pixel."""
        if not _finite(x0, y0, x1, y1, width):
            return
        (a, b), (c, d) = self._point(x0, y0), self._point(x1, y1)
        radius = max(width * self._scale, _FINE) / 2
        length = math.hypot(c - a, d - b)
        if length > 0:
            side = (radius - 0.5) / length  # a polygon covers half a drawn pixel more on each side
            u, v = (b - d) * side, (c - a) * side
            corners = [(a + u, b + v), (c + u, d + v), (c - u, d - v), (a - u, b - v)]
            self._draw.polygon([(x - 0.5, y - 0.5) for x, y in corners], fill=_colour(colour))
        if radius > _FINE:
            self._disc(a, b, radius, colour)
            self._disc(c, d, radius, colour)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """A filled rectangle between two opposite corners, at least one drawn pixel in size."""
        if not _finite(x0, y0, x1, y1):
            return
        (a, b), (c, d) = self._point(x0, y0), self._point(x1, y1)
        left, top = round(min(a, c)), round(min(b, d))
        right, bottom = max(left, round(max(a, c)) - 1), max(top, round(max(b, d)) - 1)
        self._draw.rectangle((left, top, right, bottom), fill=_colour(colour))

    def circle(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """A filled circle, at least one pixel in size."""
        if _finite(x, y, radius):
            self._disc(*self._point(x, y), max(abs(radius) * self._scale, _FINE / 2), colour)

    def polygon(self, points: Iterable[tuple[float, float]], colour: Colour) -> None:
        """A filled polygon with the corners `points`, at least three pairs (x, y)."""
        corners = [(x, y) for x, y in points]
        if len(corners) < 3:
            raise ValueError(f"canvas.polygon with {len(corners)} points; give at least three pairs (x, y)")
        if all(_finite(x, y) for x, y in corners):
            pixels = [self._point(x, y) for x, y in corners]
            self._draw.polygon([(x - 0.5, y - 0.5) for x, y in pixels], fill=_colour(colour))

    def text(self, x: float, y: float, string: str, colour: Colour, size: float) -> None:
        """One line of text: (x, y) is the left end of its base line, `size` the height of a capital letter."""
        if _finite(x, y, size):
            height = max(4, min(round(size * self._scale_y), self._picture.height))
            self._draw.text(self._point(x, y), string, fill=_colour(colour), font=_font(height), anchor="ls")

    def image(self, pixels: np.ndarray) -> None:
        """Paste a frame, uint8 (H, W, 3), over the full picture: each drawn pixel is the mean of what it covers."""
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
            raise ValueError(f"canvas.image with {pixels.dtype} {pixels.shape}; give a uint8 array (H, W, 3)")
        frame = Image.fromarray(np.ascontiguousarray(pixels))
        self._picture.paste(frame.resize(self._picture.size, Image.Resampling.BOX))

    def pixels(self) -> np.ndarray:
        """The picture as a new uint8 array (height, width, 3)."""
        return np.array(self._picture.reduce(_FINE))

    def _point(self, x: float, y: float) -> tuple[float, float]:
        """World to drawn pixels, y downwards; far away points are moved to the distance `_FAR`."""
        across, down = (x - self._left) * self._scale_x, (self._top - y) * self._scale_y
        return float(min(max(across, -_FAR), _FAR)), float(min(max(down, -_FAR), _FAR))

    def _disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        radius = min(radius, _FAR)
        box = (x - radius, y - radius, x + radius - 1, y + radius - 1)  # Pillow counts the last pixel in
        self._draw.ellipse(box, fill=_colour(colour))


class Rendered:
    """In a Canvas's place, where the environment renders its own frame: takes it as it is."""

    def image(self, pixels: np.ndarray) -> None:
        self._pixels = pixels

    def pixels(self) -> np.ndarray:
        return self._pixels


def _finite(*numbers: float) -> bool:
    return all(math.isfinite(number) for number in numbers)


def _colour(colour: Colour) -> Colour:
    red, green, blue = (min(max(int(part), 0), 255) for part in colour)
    return red, green, blue


@lru_cache(maxsize=64)
def _font(height: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Pillow's own font in the size whose capital letters are `height` drawn pixels high."""
    return ImageFont.load_default(height / 0.7)  # its capitals are 0.7 of its nominal size

"""Frames for people: in the terminal, as a GIF, as an MP4.

A frame is a uint8 array (H, W, 3); all frames of one film have the same shape. Films are written beside their final
name and renamed, so a name never holds half a film.
"""

import math
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

_GIF_COLOURS = 255  # one of the 256 means "unchanged since the last frame"


class FilmError(RuntimeError):
    """A film that cannot be written; the message says why and the way out."""


# ------------------------------------------------------------------------------------------------------------ terminal


def terminal_frame(pixels: np.ndarray, columns: int, rows: int) -> str:
    """The frame as lines of text with 24-bit ANSI colours, as large as fits into `columns` x `rows` characters.

    Each character is an upper half block, so it shows two square pixels: one in the foreground colour above one in
    the background colour. Lines are separated by a newline, and each ends with its colours reset, so that a
    terminal, tmux or rich's `Text.from_ansi` fills nothing beyond the frame.
    """
    _check(pixels, None)
    height, width = pixels.shape[:2]
    scale = min(max(columns, 1) / width, 2 * max(rows, 1) / height)
    across, down = max(1, round(width * scale)), max(1, round(height * scale / 2))
    picture = Image.fromarray(np.ascontiguousarray(pixels)).resize((across, 2 * down), Image.Resampling.BOX)
    lines = np.asarray(picture).reshape(down, 2, across, 3).transpose(0, 2, 1, 3).reshape(down, across, 6)
    return "\n".join(_terminal_line(line.tolist()) for line in lines)


def show_frame(pixels: np.ndarray, caption: str, size: os.terminal_size | None, out: IO[str]) -> os.terminal_size:
    """Draw a frame and the lines of the caption below it from the upper left corner; returns the terminal's size.

    `size` is what the last call returned; where it is another now, the screen is cleared first.
    """
    now = shutil.get_terminal_size()
    out.write("\x1b[H" if now == size else "\x1b[2J\x1b[H")
    lines = caption.split("\n")
    out.write(terminal_frame(pixels, now.columns, now.lines - 1 - len(lines)).replace("\n", "\r\n"))
    out.write("".join(f"\r\n{line[: now.columns - 1]}\x1b[K" for line in lines))
    out.flush()
    return now


@contextmanager
def other_screen(out: IO[str]) -> Iterator[None]:
    """Use the terminal's other screen, without a cursor, and give the first one back whatever happens."""
    out.write("\x1b[?1049h\x1b[?25l")
    try:
        yield
    finally:
        out.write("\x1b[?25h\x1b[?1049l")
        out.flush()


def _terminal_line(cells: list[list[int]]) -> str:
    """One line of characters; a colour is only named where it changes, which keeps slow connections smooth."""
    parts = []
    above = below = None
    for cell in cells:
        if cell[:3] != above and cell[:3] != cell[3:]:
            above = cell[:3]
            parts.append("\x1b[38;2;{};{};{}m".format(*above))
        if cell[3:] != below:
            below = cell[3:]
            parts.append("\x1b[48;2;{};{};{}m".format(*below))
        parts.append(" " if cell[:3] == cell[3:] else "▀")
    return "".join(parts) + "\x1b[0m"


# ----------------------------------------------------------------------------------------------------------------- GIF


def write_gif(path: Path | str, frames: Iterable[np.ndarray], frames_per_second: float) -> None:
    """Write an endless GIF with one palette for all frames; colours are exact where the film has at most 255.

    A GIF counts hundredths of a second, and viewers slow down frames shorter than two of them. So above 50 frames
    per second only every second, third, ... frame is kept, and durations alternate (3, 4, 3 for 30 frames per
    second) so that the whole film has its true length. Equal neighbours become one longer frame.

    Raises:
        FilmError: no frames, frames of different shapes, or the file cannot be written.
    """
    path = Path(path)
    _check_rate(frames_per_second)
    stride = math.ceil(frames_per_second / 50)
    seen = np.zeros(2**24, np.bool_)  # per colour
    shape: tuple[int, ...] | None = None
    kept = []  # compressed: a minute of frames is gigabytes otherwise
    for number, frame in enumerate(frames):
        shape = _check(frame, shape)
        if number % stride == 0:
            seen[_packed(frame)] = True
            kept.append(zlib.compress(np.ascontiguousarray(frame).tobytes(), 1))
    if shape is None:
        raise FilmError(f"{path}: there are no frames to write; record at least one step")
    palette, unused = _palette(np.flatnonzero(seen))
    ends = [round(100 * stride * (number + 1) / frames_per_second) for number in range(len(kept))]
    durations = [10 * (end - start) for start, end in zip([0, *ends], ends, strict=False)]  # milliseconds
    indexed = _indexed(kept, shape, palette, unused)
    with _beside(path) as temporary, open(temporary, "wb") as file:
        next(indexed).save(
            file, "GIF", save_all=True, append_images=indexed, duration=durations, loop=0,
            palette=np.vstack([palette, unused]).astype(np.uint8).tobytes(), transparency=len(palette), optimize=True,
        )  # fmt: skip


def _packed(frame: np.ndarray) -> np.ndarray:
    """Each pixel's colour as one number, red * 65536 + green * 256 + blue; (H, W)."""
    wide = frame.astype(np.int32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def _unpacked(colours: np.ndarray) -> np.ndarray:
    return np.stack([colours >> 16, (colours >> 8) & 255, colours & 255], axis=-1)


def _palette(colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most 255 colours (n, 3) for a film with these packed `colours`, and one more that is not among them.

    They are chosen to leave no colour far away, whatever its area: a ball of a few pixels keeps its own.
    """
    if len(colours) > _GIF_COLOURS:
        if len(colours) > 4096:  # photographs: the choice takes seconds among all of their colours
            colours = np.unique(colours & 0xF8F8F8 | 0x040404)
        strip = Image.fromarray(_unpacked(colours).astype(np.uint8)[None])
        chosen = strip.quantize(_GIF_COLOURS, Image.Quantize.MAXCOVERAGE).getpalette() or []
        colours = np.unique(_packed(np.array(chosen, np.uint8).reshape(-1, 3)))[:_GIF_COLOURS]
    unused = np.setdiff1d(np.arange(256), colours)[:1]
    return _unpacked(colours), _unpacked(unused)


def _indexed(
    kept: list[bytes], shape: tuple[int, ...], palette: np.ndarray, unused: np.ndarray
) -> Iterator[Image.Image]:
    """The frames as images of indices into the palette: its own colours exactly, others at their nearest."""
    entries = np.vstack([palette, unused]).astype(np.uint8).tobytes()
    known = Image.new("P", (1, 1))
    known.putpalette(palette.astype(np.uint8).tobytes())
    table = np.full(2**24, -1, np.int16)  # index of each colour, filled in as the film shows it
    table[_packed(palette)] = np.arange(len(palette))
    for data in kept:
        packed = _packed(np.frombuffer(zlib.decompress(data), np.uint8).reshape(shape))
        new = np.unique(packed[table[packed] < 0])
        if len(new):
            strip = Image.fromarray(_unpacked(new).astype(np.uint8)[None])
            table[new] = np.asarray(strip.quantize(palette=known, dither=Image.Dither.NONE))[0]
        image = Image.fromarray(table[packed].astype(np.uint8))
        image.putpalette(entries)
        yield image


# ----------------------------------------------------------------------------------------------------------------- MP4


def write_mp4(path: Path | str, frames: Iterable[np.ndarray], frames_per_second: float) -> None:
    """Write an H.264 film that browsers play; a frame with an odd side is widened by one pixel.

    Raises:
        FilmError: imageio-ffmpeg is missing, no frames, frames of different shapes, or ffmpeg failed.
    """
    path = Path(path)
    _check_rate(frames_per_second)
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        program = get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise FilmError(f'{path}: writing MP4 needs ffmpeg: pip install "ridgeline[film]", or write a GIF') from None
    with _beside(path) as temporary, tempfile.TemporaryFile() as messages:
        process, shape = None, None
        try:
            for frame in frames:
                shape = _check(frame, shape)
                if process is None:
                    command = _ffmpeg_command(program, temporary, shape, frames_per_second)
                    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=messages, stderr=messages)
                assert process.stdin is not None
                try:
                    process.stdin.write(np.ascontiguousarray(frame).data)
                except OSError:  # ffmpeg has ended; its own message tells more
                    break
            if process is None:
                raise FilmError(f"{path}: there are no frames to write; record at least one step")
            if _finish(process) != 0:
                messages.seek(0)
                reason = " ".join(messages.read().decode(errors="replace").split())[-400:]
                raise FilmError(f"{path}: ffmpeg failed: {reason or 'no message'}")
        finally:
            if process is not None and process.poll() is None:
                process.kill()
                _finish(process)


def _ffmpeg_command(program: str, path: Path, shape: tuple[int, ...], frames_per_second: float) -> list[str]:
    return [
        program, "-y", "-loglevel", "error",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{shape[1]}x{shape[0]}", "-r", f"{frames_per_second:.6f}",
        "-i", "-",
        "-an", "-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2",
        "-movflags", "+faststart", "-f", "mp4", str(path),
    ]  # fmt: skip


def _finish(process: subprocess.Popen) -> int:
    """Close ffmpeg's input and wait for it; its exit code."""
    assert process.stdin is not None
    with suppress(OSError):  # it may have ended before it read everything: the exit code says so
        process.stdin.close()
    return process.wait()


# -------------------------------------------------------------------------------------------------------------- common


def _check(frame: np.ndarray, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise FilmError(f"a frame is {frame.dtype} {frame.shape}; give a uint8 array (H, W, 3)")
    if shape is not None and frame.shape != shape:
        raise FilmError(f"a frame has shape {frame.shape} and the first had {shape}; all must be equal")
    return frame.shape


def _check_rate(frames_per_second: float) -> None:
    if not 0.1 <= frames_per_second <= 1000:
        raise FilmError(f"frames_per_second = {frames_per_second}; use a number from 0.1 to 1000")


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that is renamed to it at the end, or removed where writing failed."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise FilmError(f"{path}: cannot be written: {reason}; free space or name another place") from None
    finally:
        with suppress(OSError):
            temporary.unlink()

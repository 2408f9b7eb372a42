"""Films: what is written is read back, frame by frame."""

import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ridgeline.film import FilmError, terminal_frame, write_gif, write_mp4

RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (40, 44, 52)


def moving_square(num_frames: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """A red square of 6 x 6 that moves by one pixel per frame, over grey with a green floor."""
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    frames[:] = GREY
    frames[:, -8:] = GREEN
    for number, frame in enumerate(frames):
        frame[10:16, number : number + 6] = RED
    return list(frames)


def read_gif(path) -> tuple[list[np.ndarray], list[int]]:
    frames, durations = [], []
    with Image.open(path) as film:
        assert film.info["loop"] == 0
        for number in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(number)
            frames.append(np.array(film.convert("RGB")))
            durations.append(film.info["duration"])
    return frames, durations


# ----------------------------------------------------------------------------------------------------------------- GIF


def test_gif_reads_back_exactly(tmp_path):
    frames = moving_square(30)
    write_gif(tmp_path / "film.gif", frames, 25)
    read, durations = read_gif(tmp_path / "film.gif")
    np.testing.assert_array_equal(read, frames)
    assert durations == [40] * 30
    assert [file.name for file in tmp_path.iterdir()] == ["film.gif"]


def test_gif_takes_a_generator_and_a_string(tmp_path):
    write_gif(str(tmp_path / "new" / "film.gif"), (frame for frame in moving_square(3)), 10)
    assert len(read_gif(tmp_path / "new" / "film.gif")[0]) == 3


@pytest.mark.parametrize("frames_per_second", [12, 24, 30, 50])
def test_gif_has_its_true_length(tmp_path, frames_per_second):
    write_gif(tmp_path / "film.gif", moving_square(50), frames_per_second)
    frames, durations = read_gif(tmp_path / "film.gif")
    assert len(frames) == 50 and min(durations) >= 20
    assert sum(durations) == pytest.approx(50_000 / frames_per_second, abs=5)


def test_gif_above_50_frames_per_second_keeps_every_second_frame(tmp_path):
    frames = moving_square(50)
    write_gif(tmp_path / "film.gif", frames, 60)
    read, durations = read_gif(tmp_path / "film.gif")
    np.testing.assert_array_equal(read, frames[::2])
    assert sum(durations) == pytest.approx(50_000 / 60, abs=5) and min(durations) >= 20


def test_gif_joins_equal_neighbours_into_one_longer_frame(tmp_path):
    first, second = moving_square(2)
    write_gif(tmp_path / "film.gif", [first, first, first, second], 20)
    read, durations = read_gif(tmp_path / "film.gif")
    np.testing.assert_array_equal(read, [first, second])
    assert durations == [150, 50]


def test_gif_keeps_the_colour_of_a_small_ball_among_thousands(tmp_path):
    rows, columns = np.mgrid[0:64, 0:64]
    background = np.stack([rows * 2, columns * 2, rows + columns], axis=-1).astype(np.uint8)
    frames = []
    for number in range(5):
        frame = background.copy()
        frame[20:22, 10 * number : 10 * number + 2] = RED
        frames.append(frame)
    write_gif(tmp_path / "film.gif", frames, 10)
    read, _ = read_gif(tmp_path / "film.gif")
    assert len(read) == 5
    for number, frame in enumerate(read):
        assert np.abs(frame[20:22, 10 * number : 10 * number + 2].astype(int) - RED).max() <= 16
        assert np.abs(frame.astype(int) - frames[number]).max() <= 32


@pytest.mark.parametrize("num_colours", [1, 2, 3, 254, 255])
def test_gif_is_exact_up_to_255_colours(tmp_path, num_colours):
    colours = np.random.default_rng(num_colours).integers(0, 256, (num_colours, 3)).astype(np.uint8)
    colours[0] = 0
    frames = [colours[(np.arange(64 * 48).reshape(48, 64) + shift) % num_colours] for shift in range(3)]
    write_gif(tmp_path / "film.gif", frames, 10)
    read, durations = read_gif(tmp_path / "film.gif") if num_colours > 1 else ([frames[0]] * 3, [300])
    np.testing.assert_array_equal(read, frames)
    assert sum(durations) == 300


def test_gif_is_small(tmp_path):
    frames = moving_square(100, 240, 320)
    write_gif(tmp_path / "film.gif", frames, 25)
    assert (tmp_path / "film.gif").stat().st_size < 100 * 400  # a palette in every frame alone would be 768 bytes


# ----------------------------------------------------------------------------------------------------------------- MP4


def read_mp4(ffmpeg, path, height, width) -> tuple[np.ndarray, str]:
    """All frames (T, H, W, 3), and ffmpeg's description of the file."""
    command = [ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    result = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=True, timeout=60)
    return np.frombuffer(result.stdout, np.uint8).reshape(-1, height, width, 3), result.stderr.decode()


def test_mp4_reads_back(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    write_mp4(tmp_path / "film.mp4", moving_square(20), 20)
    assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]
    read, description = read_mp4(ffmpeg, tmp_path / "film.mp4", 48, 64)
    assert "h264" in description and "yuv420p" in description and "20 fps" in description
    assert len(read) == 20
    for number in (0, 10, 19):  # the middle of the square: colours have half the resolution
        assert np.abs(read[number][13, number + 3].astype(int) - RED).max() < 40
        assert np.abs(read[number][45, 60].astype(int) - GREEN).max() < 40


def test_mp4_of_odd_size(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    write_mp4(tmp_path / "film.mp4", moving_square(3, 47, 63), 10)
    read, description = read_mp4(ffmpeg, tmp_path / "film.mp4", 48, 64)
    assert "64x48" in description and len(read) == 3


def test_mp4_that_ffmpeg_refuses_names_its_reason_and_leaves_nothing(tmp_path, monkeypatch):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    script = "import sys; sys.stderr.write('encoder is out of order'); sys.exit(3)"
    monkeypatch.setattr("ridgeline.film._ffmpeg_command", lambda *_: [sys.executable, "-c", script])
    monkeypatch.setattr(ffmpeg, "get_ffmpeg_exe", lambda: "ffmpeg")
    with pytest.raises(FilmError, match="encoder is out of order"):
        write_mp4(tmp_path / "film.mp4", moving_square(200), 10)
    assert not list(tmp_path.iterdir())


def test_mp4_stopped_in_the_middle_leaves_no_file_and_no_process(tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    started = []
    original = subprocess.Popen

    def start(command, **options):
        started.append(original(command, **options))
        return started[-1]

    def interrupted():
        yield from moving_square(3)
        raise KeyboardInterrupt

    monkeypatch.setattr("ridgeline.film.subprocess.Popen", start)
    with pytest.raises(KeyboardInterrupt):
        write_mp4(tmp_path / "film.mp4", interrupted(), 10)
    assert started[-1].poll() is not None
    assert not list(tmp_path.iterdir())


def test_mp4_without_its_package_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(FilmError, match=re.escape('pip install "ridgeline[film]"')):
        write_mp4(tmp_path / "film.mp4", moving_square(2), 10)
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------------------------- both


@pytest.mark.parametrize("write", [write_gif, write_mp4])
def test_what_cannot_be_a_film_is_refused(tmp_path, write):
    if write is write_mp4:
        pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / ("film.gif" if write is write_gif else "film.mp4")
    path.write_bytes(b"the film before")
    first = moving_square(1)[0]
    for frames, rate, message in [
        ([], 10, "no frames"),
        ([first, first[:40]], 10, "all must be equal"),
        ([first.astype(np.float32)], 10, "uint8 array"),
        ([first], 0, "from 0.1 to 1000"),
        ([first], float("nan"), "from 0.1 to 1000"),
    ]:
        with pytest.raises(FilmError, match=message):
            write(path, frames, rate)
    assert path.read_bytes() == b"the film before"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(FilmError, match=r"film\.gif: cannot be written: .*; free space or name another place"):
        write_gif(tmp_path / "file" / "film.gif", moving_square(2), 10)


# ------------------------------------------------------------------------------------------------------------ terminal


def emulate(text: str) -> list[list[tuple]]:
    """A tiny terminal: (upper colour, lower colour) of every character, per line."""
    screen = []
    for line in text.split("\n"):
        cells, above, below = [], None, None
        for code, character in re.findall(r"\x1b\[([\d;]*)m|(.)", line):
            if character:
                assert character in "▀ "
                cells.append((above if character == "▀" else below, below))
            elif code == "0":
                above = below = None
            else:
                kind, mode, *colour = map(int, code.split(";"))
                assert mode == 2 and len(colour) == 3 and all(0 <= part <= 255 for part in colour)
                above, below = (tuple(colour), below) if kind == 38 else (above, tuple(colour))
        assert above is None and below is None, "a line must end with its colours reset"
        screen.append(cells)
    return screen


def test_terminal_frame_shows_every_pixel_where_it_fits():
    frame = np.random.default_rng(0).integers(0, 3, (6, 8, 3)).astype(np.uint8) * 100
    screen = emulate(terminal_frame(frame, 8, 3))
    shown = np.array(screen).transpose(0, 2, 1, 3).reshape(6, 8, 3)
    np.testing.assert_array_equal(shown, frame)


@pytest.mark.parametrize(
    ("columns", "rows", "width", "height"),
    [(64, 24, 64, 24), (200, 24, 64, 24), (64, 100, 64, 24), (32, 100, 32, 12), (128, 48, 128, 48), (0, 0, 1, 1)],
)
def test_terminal_frame_keeps_its_proportions(columns, rows, width, height):
    lines = emulate(terminal_frame(moving_square(1)[0], columns, rows))
    assert len(lines) == height and {len(line) for line in lines} == {width}


def test_terminal_frame_names_a_colour_only_where_it_changes():
    plain = np.full((40, 80, 3), 7, np.uint8)
    lines = terminal_frame(plain, 80, 20).split("\n")
    assert lines == ["\x1b[48;2;7;7;7m" + " " * 80 + "\x1b[0m"] * 20


def test_terminal_frame_refuses_what_is_no_frame():
    with pytest.raises(FilmError, match="uint8 array"):
        terminal_frame(np.zeros((4, 4)), 10, 10)

"""The live view and the plain one: what they say, at any width, and what they cost."""

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from ridgeline import meter as meter_module
from ridgeline import view as view_module
from ridgeline.meter import LABELS, PHASES, Curve, Meter
from ridgeline.view import LiveView, PlainView, QuietView, closing, draw, duration, heading, number, quoted

NAMES = ["cartpole", "ppo", "gae", "mlp"]


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when told to."""
    now = SimpleNamespace(time=100.0)
    fake = SimpleNamespace(perf_counter=lambda: now.time)
    monkeypatch.setattr(meter_module, "time", fake)
    monkeypatch.setattr(view_module, "time", fake)
    return now


def training(num_runs=3, total_steps=1000, steps=0):
    return SimpleNamespace(
        num_runs=num_runs, total_steps=total_steps, steps=steps, seeds=list(range(num_runs)),
        frozen=[False] * num_runs, failures={},
    )  # fmt: skip


def metrics(steps, num_runs=3, wall_seconds=1.0, **seconds):
    values = {name: np.full(num_runs, 0.5) for name in LABELS}
    values["episode_return"] = 10.0 * (1 + np.arange(num_runs))
    return {"steps": steps, "wall_seconds": wall_seconds, **values} | {f"seconds_{k}": v for k, v in seconds.items()}


def result(**changes):
    values = dict(
        num_runs=3, total_steps=1000, wall_seconds=2.0, steps_per_second=1500.0, episode_return=[10.0, 20.0, None],
        run_dir="runs/a", stopped="finished", failures={},
    )  # fmt: skip
    return SimpleNamespace(**(values | changes))


def text_of(lines):
    return ["".join(piece for piece, _ in line) for line in lines]


# ------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"), (1.234567, "1.23"), (-21.0, "-21.00"), (99.999, "100.00"), (123.456, "123.5"),
        (1234.5, "1,234"), (-9999999.0, "-9,999,999"), (1.5e9, "1.50e+09"), (0.01234, "0.0123"), (0.00025, "2.5e-04"),
        (math.nan, "-"), (math.inf, "-"),
    ],
)  # fmt: skip
def test_numbers_fit_their_column(value, text):
    assert number(value) == text
    assert len(text) <= view_module.NUMBER


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (math.nan, "-")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_curve_goes_from_its_lowest_to_its_highest():
    curve = Curve()
    for value in (0.0, math.nan, 1.0, 3.0, 2.0):
        curve.add(value)
    assert curve.draw(10, "abcd") == "abdc"
    assert curve.draw(2, "abcd") == "ad"  # means of (0, 1) and (3, 2)


def test_a_curve_that_does_not_move_is_flat_and_an_empty_one_is_nothing():
    curve = Curve()
    assert curve.draw(10, "abcd") == ""
    curve.add(7.0)
    curve.add(7.0)
    assert curve.draw(10, "abcd") == "aa"


def test_a_curve_keeps_the_whole_course_in_bounded_memory():
    curve = Curve()
    for value in range(12_800):
        curve.add(float(value))
    assert len(curve.points) < 128
    assert curve.points == sorted(curve.points)
    assert curve.points[0] < 200 and curve.points[-1] > 12_500


# --------------------------------------------------------------------------------------------------------------- meter


def test_speed_shares_and_time_left(clock):
    meter = Meter(training(num_runs=4, total_steps=1000), window=8)
    assert math.isnan(meter.steps_per_second) and math.isnan(meter.seconds_left)
    clock.time += 2.0
    meter.take(metrics(100, 4, act=0.5, environment=0.25, learn=0.75))
    meter.take(metrics(200, 4, act=0.1, learn=0.1))
    meter.mark()
    assert meter.steps_per_second == 200 * 4 / 2
    assert meter.seconds_left == 800 / 100
    assert meter.shares == pytest.approx(
        {"act": 0.3, "environment": 0.125, "estimate": 0, "learn": 0.425, "other": 0.15}
    )
    assert meter.progress == 0.2


def test_speed_is_the_latest(clock):
    meter = Meter(training(num_runs=1, total_steps=100_000), window=4)
    for i in range(1, 20):
        clock.time += 1.0
        meter.take(metrics(i * 10 if i < 10 else 90 + (i - 9) * 1000, 1))
        meter.mark()
    assert meter.steps_per_second == 1000


def test_a_resumed_training_counts_its_own_steps_for_the_speed(clock):
    meter = Meter(training(num_runs=1, steps=900))
    clock.time += 1.0
    meter.take(metrics(950, 1, wall_seconds=61.0))
    meter.mark()
    assert meter.steps_per_second == 50 and meter.progress == 0.95 and meter.elapsed == 61.0


def test_minutes_bound_progress_and_time_left(clock):
    meter = Meter(training(total_steps=10**9), minutes=1.0)
    clock.time += 45.0
    meter.take(metrics(300))
    meter.mark()
    assert meter.progress == 0.75 and meter.seconds_left == 15.0


def test_shares_add_up_where_shards_overlap(clock):
    meter = Meter(training())
    clock.time += 1.0
    meter.take(metrics(10, act=0.8, learn=0.7))  # more than the second that has passed
    meter.mark()
    assert sum(meter.shares.values()) == pytest.approx(1.0) and meter.shares["other"] == 0.0


def test_frozen_runs_and_runs_without_episodes_do_not_count(clock):
    trained = training(num_runs=4)
    trained.frozen[1] = True
    meter = Meter(trained)
    meter.take(
        metrics(10, 4) | {"episode_return": np.array([1.0, 1000.0, math.nan, 3.0]), "entropy": np.full(4, math.nan)}
    )
    meter.mark()
    assert meter.spread["episode_return"] == (2.0, 1.0, 3.0)
    assert all(math.isnan(one) for one in meter.spread["entropy"])


# ------------------------------------------------------------------------------------------------------------- drawing


def drawn(width, num_runs=3, ascii_only=False, note="", failures=None, drop=()):
    trained = training(num_runs)
    trained.failures = failures or {}
    meter = Meter(trained)
    for steps in (250, 500):
        values = metrics(steps, num_runs, act=0.1, environment=0.1, estimate=0.1, learn=0.2)
        meter.take(
            {name: value * steps if name in LABELS else value for name, value in values.items() if name not in drop}
        )
        meter.mark()
    return text_of(draw(meter, width, ascii_only, heading(trained, NAMES), note))


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("width", [30, 36, 49, 54, 65, 66, 80, 120, 300])
@pytest.mark.parametrize("num_runs", [1, 3])
def test_it_fits_every_width_and_says_everything(width, num_runs, ascii_only):
    lines = drawn(width, num_runs, ascii_only, "stopping", {0: "the loss is not finite " * 5})
    assert max(map(len, lines)) <= width
    assert len(lines) <= 24 or width < 66
    text = " ".join(" ".join(lines).split())
    for word in (
        *LABELS.values(),
        *PHASES,
        "50%",
        "steps/s",
        "left",
        "stopping",
        "run 0 is frozen: the loss is not finite",
    ):
        assert word in text
    assert ("max" in text) == (num_runs > 1 and width >= 50)
    assert text.isascii() == ascii_only


def test_the_table_has_mean_extremes_and_course():
    row = next(line for line in drawn(80) if line.startswith("episode return"))
    assert row.split()[2:] == ["10,000", "5,000", "15,000", "▁█"]
    row = next(line for line in drawn(80, num_runs=1) if line.startswith("episode return"))
    assert row.split()[2:] == ["5,000", "▁█"]


def test_metrics_that_the_algorithm_does_not_have_are_left_out():
    text = "\n".join(drawn(80, drop=("clip_fraction", "approximate_kl")))
    assert "clip" not in text and "KL" not in text and "entropy" in text


def test_many_frozen_runs_are_counted():
    lines = drawn(80, failures={run: "broken" for run in range(9)})
    assert [line for line in lines if "frozen" in line][-1] == "and 6 more runs are frozen"
    assert sum("is frozen: broken" in line for line in lines) == 3


def test_half_of_the_bar_is_full_at_half_of_the_steps():
    bar = drawn(80, ascii_only=True)[1]
    assert abs(bar.count("#") - bar.count("-")) <= 1 and bar.endswith("50%  500 of 1,000 steps")


# ----------------------------------------------------------------------------------------------------------- live view


def live(width=80, **settings):
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=True, width=width, height=24, color_system="standard", legacy_windows=False
    )
    return LiveView(console, NAMES, **settings), file


def test_the_live_view_from_start_to_end(clock, tmp_path):
    view, file = live()
    view.prepare()
    assert "cartpole: preparing" in file.getvalue() and "\x1b[?25l" in file.getvalue()
    view.start(training(), tmp_path)
    clock.time += 1.0
    view.update(metrics(500, act=0.5))
    view.message("run 2 is frozen: so it is")
    view.finish(result())
    text = file.getvalue()
    assert "cartpole, ppo, gae, mlp: 3 runs of 1,000 steps, seeds 0 to 2" in text
    assert "500 of 1,000 steps" in text and "run 2 is frozen: so it is" in text and "ridgeline watch runs/a" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    assert view.result.run_dir == "runs/a"
    view.close()


def test_what_was_shown_while_preparing_is_gone_after_an_error():
    view, file = live()
    view.prepare()
    view.close()
    assert file.getvalue().endswith("\x1b[?25h\n\x1b[1A\x1b[2K") or "\x1b[2K" in file.getvalue().split("preparing")[-1]
    assert "Finished" not in file.getvalue()


def test_it_draws_at_most_eight_times_a_second(clock):
    view, _ = live()
    view.start(training(), None)
    for i in range(10_000):
        clock.time += 0.001
        view.update(metrics(i % 1000))
    view.close()
    assert 70 <= view.num_drawings <= 82


def test_a_slow_terminal_is_drawn_to_less_often(clock, monkeypatch):
    view, _ = live()
    refresh = view._live.refresh

    def slow():
        clock.time += 0.1
        refresh()

    monkeypatch.setattr(view._live, "refresh", slow)
    view.start(training(), None)
    for i in range(600):
        clock.time += 0.1
        view.update(metrics(i))
    assert view.drawing_seconds <= 0.4 + 0.1 * 600 / view_module.COST
    view.close()


def test_a_signal_in_the_middle_of_a_drawing_waits_for_the_next():
    view, file = live()
    view.start(training(), None)
    view._busy = True
    before = view.num_drawings
    view.stopping("stopping after this iteration")
    assert view.num_drawings == before
    view._busy = False
    view.stopping("stopping after this iteration")
    assert view.num_drawings == before + 1 and "stopping after this iteration" in file.getvalue()
    view.close()


# ---------------------------------------------------------------------------------------------------------- plain view


def test_plain_lines_come_first_last_and_every_five_seconds(clock, tmp_path):
    file = io.StringIO()
    view = PlainView(file, NAMES)
    view.prepare()
    view.start(training(total_steps=160), tmp_path)
    for i in range(1, 161):
        clock.time += 0.125
        view.update(metrics(i, wall_seconds=0.125 * i, act=0.025, learn=0.0625))
    view.message("a warning")
    view.finish(result())
    lines = file.getvalue().splitlines()
    assert lines[0] == f"cartpole, ppo, gae, mlp: 3 runs of 160 steps, seeds 0 to 2, in {tmp_path}"
    assert [line.split(",")[1] for line in lines[1:5]] == [" 1 steps", " 41 steps", " 81 steps", " 121 steps"]
    assert lines[2] == (
        "26%, 41 steps, 0:05 passed, 0:15 left, 24.00 steps/s, episode return 20.00 (10.00 to 30.00), "
        "episode length 0.5000, entropy 0.5000, KL 0.5000, clip fraction 0.5000, explained variance 0.5000, "
        "gradient norm 0.5000, learning rate 0.5000, time act 20% environment 0% estimate 0% learn 50% other 30%"
    )
    assert lines[5] == "a warning" and lines[6].startswith("100%, 160 steps") and "watch" in lines[-2]
    assert file.getvalue().isascii()


def test_the_last_line_is_not_said_twice(clock):
    file = io.StringIO()
    view = PlainView(file, NAMES)
    view.start(training(), None)
    view.update(metrics(1000))
    view.finish(result())
    assert file.getvalue().count("1,000 steps, 0:01 passed") == 1


def test_a_file_that_cannot_be_written_does_not_end_the_training():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    view = PlainView(Full(), NAMES)
    view.start(training(), None)
    view.update(metrics(10))
    view.finish(result())
    assert view.result.num_runs == 3


def test_the_quiet_view_says_warnings_only(clock):
    file = io.StringIO()
    view = QuietView(file, NAMES)
    view.start(training(), None)
    view.update(metrics(10))
    view.stopping("stopping")
    view.message("a warning")
    view.finish(result())
    assert file.getvalue() == "a warning\n" and view.result is not None


# ------------------------------------------------------------------------------------------------------------- closing


@pytest.mark.parametrize(
    ("stopped", "first", "continues"),
    [
        ("finished", "Finished after 3 runs of 1,000 steps in 2.0 s (1,500 steps/s)", False),
        ("until", "Stopped: every run reached the return asked for after", True),
        ("minutes", "Stopped: the time is up after", True),
        ("interrupt", "Interrupted after", True),
        ("terminate", "Terminated after", True),
    ],
)
def test_the_last_lines_say_why_and_what_next(stopped, first, continues):
    lines = closing(result(stopped=stopped), (" my_env.py --algorithm mine.py", " --environment my_env.py"))
    assert lines[0].startswith(first)
    assert lines[1] == "Episode return 15.00, from 10.00 to 20.00 over the runs"
    assert "The run is in runs/a" in lines
    resume = "  continue  ridgeline train --resume runs/a my_env.py --algorithm mine.py"
    assert (resume in lines) == continues
    assert "  watch     ridgeline watch runs/a --environment my_env.py" in lines
    assert "  evaluate  ridgeline evaluate runs/a --environment my_env.py" in lines


def test_frozen_runs_are_named_at_the_end():
    assert "Frozen on the way: run 1, 4" in closing(result(failures={1: "a", 4: "b"}))
    lines = closing(result(stopped="frozen", failures={0: "a"}, episode_return=[None]))
    assert not any("watch" in line or "Episode return" in line for line in lines)


def test_without_a_run_directory_there_is_nothing_to_watch():
    assert not any("ridgeline" in line for line in closing(result(run_dir=None)))


def test_paths_with_spaces_are_quoted():
    assert quoted("runs/a") == "runs/a" and quoted("my runs/a") == '"my runs/a"'

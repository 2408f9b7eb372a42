"""Evaluating and watching trained policies: whole episodes, on random streams that training never saw."""

import copy
import dataclasses
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from ridgeline.canvas import Canvas, Rendered
from ridgeline.distributions import draw_steps, steps_at_once
from ridgeline.environments import resolve
from ridgeline.film import other_screen, show_frame, write_gif, write_mp4
from ridgeline.policies import clip_action
from ridgeline.population import Population
from ridgeline.session import Trained, load
from ridgeline.streams import PLAY, random_stream
from ridgeline.vector import Step, VectorEnv, as_seeds

MAX_STEPS = 100_000  # of one episode, where the environment has no limit
MAX_ROWS, MAX_OUTSIDE_ROWS = 4096, 64  # instances at once, of a compiled and of an outside environment
FILM_SECONDS = 60
GIF_FRAMES_PER_SECOND = 50  # viewers slow down what is faster
HOLD_SECONDS = 0.5  # how long the last picture of an episode stays


class EvaluationError(ValueError):
    """What cannot be evaluated or shown; one line with the reason and the way out."""


# ----------------------------------------------------------------------------------------------------------- evaluating


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The episodes of R runs, E each."""

    environment: str
    greedy: bool
    seeds: tuple[int, ...]
    episode_returns: np.ndarray  # (R, E)
    episode_lengths: np.ndarray  # (R, E), in steps
    statistics: dict[str, np.ndarray]  # (R, E) each: what the environment reports when an episode ends
    notes: list[str]  # what to tell: skipped checkpoints, frozen runs, a changed environment

    @property
    def episode_return(self) -> list[float]:
        """Each run's mean."""
        return self.episode_returns.mean(1).tolist()

    @property
    def episode_length(self) -> list[float]:
        """Each run's mean, in steps."""
        return self.episode_lengths.mean(1).tolist()

    def document(self) -> dict[str, Any]:
        """Means, one per run, as JSON knows it: a number that is not finite is None."""
        return {
            "environment": self.environment,
            "episodes": self.episode_returns.shape[1],
            "greedy": self.greedy,
            "episode_return": _finite(self.episode_return),
            "episode_length": _finite(self.episode_length),
            "statistics": {name: _finite(values.mean(1).tolist()) for name, values in self.statistics.items()},
        }


def _finite(values: list[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def evaluate(
    run: str | Path | Trained | nn.Module | Sequence[nn.Module],
    episodes: int = 100,
    greedy: bool = False,
    seed: int | Sequence[int] = 0,
    environment: str | Path | ModuleType | None = None,
    parameters: dict[str, Any] | None = None,
) -> Evaluation:
    """The returns and lengths of `episodes` whole episodes of each run, all runs side by side.

    How many episodes an instance plays is fixed beforehand (one, or nearly the same number each where instances are
    fewer), and the instance's first ones count: whichever ended first would be too short in the mean.

    Args:
        run: a run directory, what `load` or `train` returned, or one module or a list of them with `environment`.
        episodes: of each run.
        greedy: take the most probable action instead of sampling.
        seed: run r plays with seed + r; or one seed per run. Equal numbers as in training give other episodes.
        environment: of modules; or the user's own that the run directory needs; or another one to play in.
        parameters: of the environment that differ from those of the training: other levels, another difficulty.

    Raises: EvaluationError, session.RunError, InvalidEnvironment.
    """
    if not isinstance(episodes, int) or episodes < 1:
        raise EvaluationError(f"episodes = {episodes!r}; use a whole number from 1")
    trained = _trained(run, environment)
    trained = dataclasses.replace(trained, parameters={**trained.parameters, **(parameters or {})})
    num_runs = len(trained.policies)
    seeds = as_seeds(range(seed, seed + num_runs) if isinstance(seed, int) else seed)
    if len(seeds) != num_runs:
        raise EvaluationError(f"{len(seeds)} seeds for {num_runs} runs; give one per run, or the first one")
    rows = MAX_ROWS if isinstance(resolve(trained.trained_on), Path) else MAX_OUTSIDE_ROWS
    num_envs = min(episodes, max(1, rows // num_runs))
    env = trained.make_env(num_envs, seeds)
    try:
        table = _play(env, _population(trained.policies, env), episodes, greedy)
    finally:
        env.close()
    statistics = {name: table[..., 2 + column] for column, name in enumerate(env.statistics)}
    return Evaluation(env.name, greedy, seeds, table[..., 0], table[..., 1], statistics, trained.notes)


def _trained(run: Any, environment: Any) -> Trained:
    if isinstance(run, str | Path):
        return load(run, environment)
    if isinstance(run, Trained):
        return run if environment is None else dataclasses.replace(run, trained_on=environment)
    policies = [run] if isinstance(run, nn.Module) else list(run)
    if not policies or not all(isinstance(policy, nn.Module) for policy in policies):
        raise EvaluationError(f"{run!r} is nothing to evaluate; give a run directory, a result or modules")
    if environment is None:
        raise EvaluationError("name the environment of these modules: evaluate(policy, environment=...)")
    return Trained(policies=policies, trained_on=environment)


def _population(policies: Sequence[nn.Module], env: VectorEnv) -> Population:
    copies = iter([copy.deepcopy(policy) for policy in policies])
    try:
        return Population(lambda: next(copies), env.observation_space, env.action_space, env.seeds, {})
    except RuntimeError as error:
        raise EvaluationError(f"these policies are not of one shape; evaluate them one by one ({error})") from error


def _play(env: VectorEnv, population: Population, episodes: int, greedy: bool) -> np.ndarray:
    """(R, episodes, 2 + S): return, length and statistics of each run's episodes."""
    num_runs, per_run = population.num_runs, env.rows_per_run
    shares = np.diff(np.linspace(0, episodes, per_run + 1).astype(np.int64))
    share = np.tile(shares, num_runs)
    place = np.tile(np.cumsum(shares) - shares, num_runs) + np.repeat(np.arange(num_runs) * episodes, per_run)
    table = np.full((num_runs * episodes, 2 + len(env.statistics)), np.nan)
    count, age = np.zeros_like(share), np.zeros_like(share)
    choose = _Choice(env, population, greedy)
    while (waiting := count < share).any():
        step = env.step(choose())
        choose.after(step)
        age += 1
        rows = step.episode_row
        age[rows] = 0
        own = rows[waiting[rows]]
        table[place[own] + count[own]] = step.episode[waiting[rows]]
        count[own] += 1
        if env.max_episode_steps is None and age.max() >= MAX_STEPS:
            raise EvaluationError(
                f"an episode of {env.name} has not ended after {MAX_STEPS:,} steps; give the environment a "
                "max_episode_steps"
            )
    return table.reshape(num_runs, episodes, -1)


class _Choice:
    """The next action of every row, sampled from streams of each run's own seed, or the mode."""

    def __init__(self, env: VectorEnv, population: Population, greedy: bool):
        self.env, self.population, self.greedy = env, population, greedy
        self.step = 0

    def after(self, step: Step) -> None:
        """A recurrent policy forgets the episodes that ended, and remembers what it saw only where it was asked."""
        if not self.population.recurrent:
            return
        if step.valid is not None:
            valid = torch.from_numpy(step.valid).view(*self.before.shape[:2], 1)
            self.population.state = torch.where(valid, self.population.remembered(self.before.shape[1]), self.before)
        self.population.forget(step.episode_row)

    def __call__(self) -> np.ndarray:
        runs, space = self.population.num_runs, self.env.action_space
        if self.population.recurrent:
            self.before = self.population.remembered(self.env.rows_per_run)
        observation = torch.from_numpy(self.env.observation).unflatten(0, (runs, -1))
        if self.greedy:
            action = self.population.greedy(observation)
        else:
            module = self.population.module
            length = steps_at_once(module)
            block, step = divmod(self.step, length)
            if step == 0:
                streams = [random_stream(seed, PLAY, block) for seed in self.env.seeds]
                self.noise = draw_steps(module, space, streams, length, self.env.rows_per_run)
            action, _, _ = self.population.act(observation, self.noise[step])
            self.step += 1
        return clip_action(space, action.flatten(0, 1).numpy())

    def view(self) -> tuple[Any, float]:
        """What the first row's policy thinks of the current observation: distribution, and value in units of reward.

        The tensors of the distribution have the rows (1, 1) in front. Of several predictions the last one is told.
        """
        observation = torch.from_numpy(self.env.observation[:1]).unflatten(0, (1, -1))
        return self.population.distribution(observation), float(self.population.value(observation)[0, 0, -1])


# ------------------------------------------------------------------------------------------------------------- watching


def watch(
    run: str | Path | Trained | nn.Module | Sequence[nn.Module],
    index: int = 0,
    greedy: bool = False,
    seed: int = 0,
    *,
    frames_per_second: float | None = None,
    gif: str | Path | None = None,
    mp4: str | Path | None = None,
    episodes: int = 1,
    max_frames: int | None = None,
    out: IO[str] | None = None,
    environment: str | Path | ModuleType | None = None,
) -> list[float]:
    """Show run `index` in the terminal, or write a film of it. Returns the returns of the episodes that ended.

    Of an environment whose actions last several frames, every frame is shown.

    Args:
        run, greedy, seed, environment: as in `evaluate`.
        frames_per_second: by default the environment's own `frames_per_second`, or 30.
        gif, mp4: files to write, instead of showing it.
        episodes: after so many it ends.
        max_frames: after so many it ends in any case; by default a film ends after a minute.
        out: the terminal; by default standard output. It is left as it was, after Ctrl+C too.

    Raises: EvaluationError, film.FilmError, session.RunError, InvalidEnvironment.
    """
    trained = _trained(run, environment)
    if not 0 <= index < len(trained.policies):
        raise EvaluationError(f"there is no run {index}; this training has runs 0 to {len(trained.policies) - 1}")
    terminal = sys.stdout if out is None else out
    films = [(write, path) for write, path in ((write_gif, gif), (write_mp4, mp4)) if path is not None]
    if not films and not terminal.isatty():
        raise EvaluationError("standard output is no terminal; write a film with --gif FILE or --mp4 FILE")
    finished: list[float] = []
    for write, path in films or [(None, "")]:
        player = Player(trained, index, greedy, seed)
        rate = player.env.frames_per_second if frames_per_second is None else frames_per_second
        try:
            if write is None:
                _show(player, rate, episodes, max_frames, terminal)
            else:
                every = math.ceil(rate / GIF_FRAMES_PER_SECOND) if write is write_gif else 1
                write(
                    path, _film(player, rate, episodes, max_frames or round(FILM_SECONDS * rate), every), rate / every
                )
        finally:
            player.env.close()
        finished = player.finished
    return finished


class Player:
    """One instance of the environment, played frame by frame.

    Where an episode ends, the environment has begun the next one already; so `ended` is a frame of its own, with the
    picture before, and `advance` then goes on to the next episode's first.
    """

    def __init__(self, trained: Trained, index: int, greedy: bool, seed: int):
        self.env = trained.make_env(1, seed, render=True)
        # Every frame of an action is a step of its own here: the same game, and a ball that flies instead of jumping.
        self.frames_per_action = int(getattr(getattr(self.env, "parameters", None), "frames_per_action", 1))
        if self.frames_per_action > 1:
            self.env.close()
            self.env = trained.make_env(1, seed, render=True, frames_per_action=1)
        self.choose = _Choice(self.env, _population([trained.policies[index]], self.env), greedy)
        self.step, self.reward, self.episode_return, self.ended = 0, 0.0, 0.0, False
        self.finished: list[float] = []
        self._frame = 0
        self._picture: np.ndarray | None = None

    def advance(self) -> None:
        """One frame."""
        if self.ended:
            self.step, self.reward, self.episode_return, self.ended = 0, 0.0, 0.0, False
            return
        if self._frame == 0:
            self._action = self.choose()
            self.step += 1
            self.reward = 0.0
        if self._frame < self.frames_per_action - 1:
            self.env.state["episode_length"] -= 1  # type: ignore[attr-defined]  # the time limit counts actions
        result = self.env.step(self._action)
        self.choose.after(result)
        self.reward += float(result.reward[0])
        self.episode_return += float(result.reward[0])
        self.ended = len(result.episode_row) > 0
        self._frame = 0 if self.ended else (self._frame + 1) % self.frames_per_action
        if self.ended:
            self.finished.append(self.episode_return)

    def picture(self) -> np.ndarray:
        """uint8 (H, W, 3). Raises EvaluationError where the environment has none."""
        if self.ended and self._picture is not None:
            return self._picture
        module = getattr(getattr(self.env, "definition", None), "module", None)
        canvas = Rendered() if module is None else Canvas(*getattr(module, "canvas_size", (480, 360)))
        if not self.env.draw(0, canvas):
            way_out = "has no render_mode rgb_array" if module is None else "add draw(state, canvas) to its file"
            raise EvaluationError(f"{self.env.name} has no picture: {way_out}")
        self._picture = canvas.pixels()
        return self._picture


def _film(player: Player, rate: float, episodes: int, max_frames: int, every: int) -> Iterator[np.ndarray]:
    """The picture of every `every`-th frame."""
    for number in range(max_frames):
        if number % every == 0:
            yield player.picture()
        if player.ended:
            yield from [player.picture()] * round(HOLD_SECONDS * rate / every)
            if len(player.finished) >= episodes:
                return
        player.advance()


def _show(player: Player, rate: float, episodes: int, max_frames: int | None, out: IO[str]) -> None:
    """Draw in the terminal's other screen at `rate`, leaving out pictures where drawing is too slow."""
    player.picture()  # what has no picture says so before the screen changes
    size = None
    begin = time.perf_counter()
    with other_screen(out):
        for number in range(sys.maxsize if max_frames is None else max_frames):
            late = time.perf_counter() - begin - number / rate
            if late < 1 / rate or player.ended:
                size = _draw(player, size, out)
                time.sleep(max(0.0, begin + (number + 1) / rate - time.perf_counter()))
            if player.ended:
                time.sleep(HOLD_SECONDS)
                begin += HOLD_SECONDS
                if len(player.finished) >= episodes:
                    return
            player.advance()


def _draw(player: Player, size: Any, out: IO[str]) -> Any:
    """One picture with its caption; the terminal's size now."""
    caption = f"step {player.step:,}   reward {player.reward:g}   return {player.episode_return:.5g}"
    return show_frame(player.picture(), caption + ("   the end" if player.ended else "   Ctrl+C ends"), size, out)

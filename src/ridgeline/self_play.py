"""Self-play against a pool of past selves, for environments of two agents.

In a share of each run's instances one of the two agents is played by a snapshot of the run's own policy; its rows are
no transitions (`Step.valid`), so nothing is learned from them. Each of these instances belongs to one of the pool's
places; which side the snapshot plays is drawn when an episode begins. From time to time the policy as it is takes a
place at random, so that the pool reaches far back. Policy and snapshots have Elo ratings, by the outcome of whole
episodes: a higher return than the other side's is a win.

Source: Bansal et al. 2018, "Emergent complexity via multi-agent competition", section 4.3 (opponents drawn from the
past); Elo 1978, "The rating of chessplayers, past and present".
"""

from typing import Any

import numpy as np
import torch

from ridgeline import calls
from ridgeline.calls import Calls
from ridgeline.distributions import draw_steps, steps_at_once
from ridgeline.policies import clip_action
from ridgeline.population import Population
from ridgeline.streams import OPPONENT, POOL, SEAT, random_stream
from ridgeline.vector import Step, VectorEnv

PLACES = 8  # of the pool, or as many as there are instances for it
SNAPSHOTS = 40  # taken in the course of a training
STEP = 16.0  # of a rating, per game: half of chess's usual 32, as games are many
SCALE = 400.0  # points by which odds of 10 to 1 differ


class SelfPlay(VectorEnv):
    """An environment of two agents in which past selves of the population's runs play.

    Args: share: of each run's instances that have a past self on one side, above 0 to 1; interval: iterations between
    snapshots. Raises ValueError where the environment has not two agents, or the share is none.
    """

    def __init__(self, env: VectorEnv, population: Population, share: float, interval: int):
        if not 0 < share <= 1:
            raise ValueError(f"self_play = {share}; use a share of the instances above 0, up to 1, or None")
        if env.num_agents != 2:
            raise ValueError(f"self_play is for environments of two agents; {env.name} has {env.num_agents}")
        self.env, self.population, self.interval = env, population, max(1, interval)
        runs, self.games = population.num_runs, max(1, round(share * env.num_envs))
        self.places = min(PLACES, self.games)
        self.members = [np.arange(place, self.games, self.places) for place in range(self.places)]
        self.flat = population.flat.expand(self.places, runs, -1).clone()
        self.buffers = {name: b.expand(self.places, *b.shape).clone() for name, b in population.buffers.items()}
        self.calls = [self._calls(place) for place in range(self.places)]
        self.seat = np.zeros((runs, self.games), np.int64)  # the side that a snapshot plays
        self.total = np.zeros((runs, env.num_envs, 2))  # returns so far
        self.taken = np.zeros((runs, self.places), np.int64)  # which snapshot of its run a place holds
        self.playing = np.zeros((runs, self.games), np.int64)  # the one with which the episode began
        self.rating, self.ratings = np.zeros(runs), np.zeros((runs, self.places))
        self.score, self.count = np.zeros(runs), np.zeros(runs)  # of the games since the last `after`
        self.num_draws, self.num_steps = np.zeros(runs, np.int64), np.zeros(runs, np.int64)
        self.state: list[torch.Tensor] = []
        if population.recurrent:
            self.state = [self._initial(len(own)).repeat(runs, 1, 1) for own in self.members]
        self._draw_seats(np.ones((runs, self.games), np.bool_))

    def __getattr__(self, name: str) -> Any:
        if name == "env":  # not made yet
            raise AttributeError(name)
        return getattr(self.env, name)

    # what VectorEnv declares is the inner environment's
    resumes_exactly = property(lambda self: self.env.resumes_exactly)  # type: ignore[assignment]
    num_agents = property(lambda self: self.env.num_agents)  # type: ignore[assignment]
    frames_per_second = property(lambda self: self.env.frames_per_second)  # type: ignore[assignment]

    def _initial(self, rows: int) -> torch.Tensor:
        return self.population.module.initial_state(rows)  # type: ignore[operator]

    def _calls(self, place: int) -> Calls:
        """The policies of one place of the pool, of all runs; views of its storage."""
        population, flat = self.population, self.flat[place]
        parameters = {}
        for name, (start, shape) in population.shapes.items():
            size = int(np.prod(shape))
            parameters[name] = flat[:, start : start + size].view(population.num_runs, *shape)
        return Calls(population.module, parameters, {n: b[place] for n, b in self.buffers.items()}, True)

    # ------------------------------------------------------------------------------------------------------- stepping

    def step(self, action: np.ndarray, out: np.ndarray | None = None) -> Step:
        rows = self._frozen_rows()
        action = action.copy()
        for place, own in enumerate(self.members):
            action[rows[:, own].ravel()] = self._opponents(place, rows[:, own])
        step = self.env.step(action, out)
        frozen = np.zeros(self.env.num_rows, np.bool_)
        frozen[rows.ravel()] = True
        valid = ~frozen if step.valid is None else step.valid & ~frozen
        self.total += step.reward.reshape(self.total.shape)
        ended = (step.terminated | step.truncated).reshape(self.total.shape)
        self._end_games(ended[:, : self.games])
        self.total[ended.any(-1)] = 0
        kept = ~frozen[step.episode_row]
        return step._replace(valid=valid, episode_row=step.episode_row[kept], episode=step.episode[kept])

    def _frozen_rows(self) -> np.ndarray:
        """The rows (R, games) that snapshots play."""
        runs = np.arange(len(self.seat))[:, None]
        return (runs * self.env.num_envs + np.arange(self.games)) * 2 + self.seat

    @torch.no_grad()
    def _opponents(self, place: int, rows: np.ndarray) -> np.ndarray:
        """The actions of the snapshots in `place` at rows (R, m), flat; always as many rows, so that a run's bits do
        not depend on the others."""
        population, space = self.population, self.env.action_space
        observation = population.unpack(torch.from_numpy(self.env.observation[rows.ravel()]).unflatten(0, rows.shape))
        noise = self._noise()[:, self.members[place]]
        if population.recurrent:
            action, self.state[place] = self.calls[place](
                calls.both, lambda d, value, state, noise: (d.sample(noise), state), (observation, self.state[place]),
                noise,
            )  # fmt: skip
        else:
            call = calls.distribution if getattr(population.module, "stackable", False) else calls.both
            (action,) = self.calls[place](call, lambda d, *rest: (d.sample(rest[-1]),), observation, noise)
        if place == self.places - 1:
            self.num_steps += 1
        return clip_action(space, action.flatten(0, 1).numpy())

    def _noise(self) -> torch.Tensor:
        """(R, games, ...) of this step, from streams of each run's own."""
        found, module = [], self.population.module
        length = steps_at_once(module)
        for seed, count in zip(self.env.seeds, self.num_steps.tolist(), strict=True):
            block, step = divmod(count, length)
            kept = self._blocks.get((seed, block))
            if kept is None:
                stream = random_stream(seed, OPPONENT, block)
                self._blocks = {key: one for key, one in self._blocks.items() if key[0] != seed}
                kept = draw_steps(module, self.env.action_space, [stream], length, self.games)
                self._blocks[seed, block] = kept
            found.append(kept[step])
        return torch.cat(found)

    _blocks: dict[tuple[int, int], torch.Tensor | list[torch.Tensor]] = {}  # noqa: RUF012  # replaced, never changed in place by two

    def _end_games(self, ended: np.ndarray) -> None:
        """Rate the games that ended, (R, games, 2) for each side, and draw who plays which side of the next ones."""
        over: np.ndarray = ended[..., 0] | ended[..., 1]
        if not over.any():
            return
        for run, game in zip(*np.nonzero(over), strict=True):
            place, seat = game % self.places, self.seat[run, game]
            if self.playing[run, game] != self.taken[run, place]:
                continue  # the opponent was replaced meanwhile
            own, other = self.total[run, game, 1 - seat], self.total[run, game, seat]
            score = 0.5 + 0.5 * np.sign(own - other)
            expected = 1 / (1 + 10 ** ((self.ratings[run, place] - self.rating[run]) / SCALE))
            self.rating[run] += STEP * (score - expected)
            self.ratings[run, place] -= STEP * (score - expected)
            self.score[run] += score
            self.count[run] += 1
        for place, own in enumerate(self.members):
            if self.state:
                begins = torch.from_numpy(over[:, own]).unsqueeze(-1)
                self.state[place] = torch.where(begins, self._initial(len(own)), self.state[place])
        self._draw_seats(over)

    def _draw_seats(self, begins: np.ndarray) -> None:
        """The side of the snapshot in the games (R, games) that begin."""
        for run in np.flatnonzero(begins.any(1)):
            draw = random_stream(self.env.seeds[run], SEAT, int(self.num_draws[run])).integers(2, size=self.games)
            self.seat[run] = np.where(begins[run], draw, self.seat[run])
            self.num_draws[run] += 1
            places = np.arange(self.games) % self.places
            self.playing[run] = np.where(begins[run], self.taken[run, places], self.playing[run])

    # --------------------------------------------------------------------------------------------------------- the pool

    def after(self, iterations: torch.Tensor) -> dict[str, torch.Tensor]:
        """After an iteration, each run's number (R,) of which is given: take the snapshots that are due. Returns
        `rating`, `pool_rating` (the mean of its places) and `pool_score` (mean outcome since, NaN without a game)."""
        for run, iteration in enumerate(iterations.tolist()):
            if iteration % self.interval == 0:
                stream = random_stream(self.env.seeds[run], POOL, iteration)
                self._take(run, int(stream.integers(self.places)))
        with np.errstate(invalid="ignore"):
            found = {"rating": self.rating, "pool_rating": self.ratings.mean(1), "pool_score": self.score / self.count}
        found = {name: torch.from_numpy(value.copy()).float() for name, value in found.items()}
        self.score[:], self.count[:] = 0, 0
        return found

    def _take(self, run: int, place: int) -> None:
        self.flat[place, run] = self.population.flat[run]
        for name, buffer in self.population.buffers.items():
            self.buffers[name][place, run] = buffer[run]
        self.ratings[run, place] = self.rating[run]
        self.taken[run, place] = self.taken[run].max() + 1

    # ------------------------------------------------------------------------------------------------------ checkpoints

    _ARRAYS = ("seat", "total", "taken", "playing", "rating", "ratings", "score", "count", "num_draws", "num_steps")

    def state_dict(self) -> dict[str, np.ndarray]:
        state = {f"self_play.{name}": getattr(self, name).copy() for name in self._ARRAYS}
        pool = {"flat": self.flat, **{f"buffer.{name}": buffer for name, buffer in self.buffers.items()}}
        state |= {f"self_play.{name}": tensor.transpose(0, 1).contiguous().numpy() for name, tensor in pool.items()}
        state |= {f"self_play.state.{place}": one.numpy().copy() for place, one in enumerate(self.state)}
        return self.env.state_dict() | state

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        own = {name[10:]: array for name, array in state.items() if name.startswith("self_play.")}
        self.env.load_state_dict({name: array for name, array in state.items() if not name.startswith("self_play.")})
        for name in self._ARRAYS:
            getattr(self, name)[...] = own[name]
        self.flat.copy_(torch.from_numpy(own["flat"]).transpose(0, 1))
        for name, buffer in self.buffers.items():
            buffer.copy_(torch.from_numpy(own[f"buffer.{name}"]).transpose(0, 1))
        self.state = [torch.from_numpy(own[f"state.{place}"].copy()) for place in range(len(self.state))]

    def restart(self, run: int, seed: int) -> None:
        self.env.restart(run, seed)
        for name in self._ARRAYS:
            getattr(self, name)[run] = 0
        for place in range(self.places):
            self._take(run, place)
        self.taken[run] = 0
        begins = np.zeros_like(self.seat, np.bool_)
        begins[run] = True
        for place, one in enumerate(self.state):
            one[run] = self._initial(len(self.members[place]))
        self._draw_seats(begins)

    def draw(self, row: int, canvas: Any) -> bool:
        return self.env.draw(row, canvas)

    def close(self) -> None:
        self.env.close()

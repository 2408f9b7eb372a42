"""R runs of one policy, side by side: stacked parameters, per-run optimizer, clipping, coefficients and failure.

Every parameter of all runs lives in one flat tensor (R, P); the stacked parameters, and with R = 1 the module's own,
are views of it. A loss is written for one run; `update` maps it over the runs, sums (runs do not interact), takes one
backward pass, and clips and steps each run by itself. A run that turns non-finite is frozen: its parameters stay as
they were and the other runs do not notice.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Several
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from ridgeline import calls, optimizers
from ridgeline.calls import Calls
from ridgeline.distributions import draw_steps
from ridgeline.normalize import RunningMoments, TargetMoments
from ridgeline.observations import is_packed, unpack
from ridgeline.recurrent import Sequence
from ridgeline.streams import ACT, INITIALISE, SHUFFLE, random_stream

PHASES = ("act", "environment", "estimate", "learn")  # where the time goes


class Population:
    """R runs that train side by side.

    Args:
        build: makes the module of one run, `build()`, from torch's global generator.
        observation_space, action_space: of one environment instance.
        seeds: one per run.
        coefficients: name -> one float per run; what the losses read.
        vmap: map one module over stacked parameters; False needs R = 1 and calls the module directly. Default: R > 1.
        optimizer: "adam", "rmsprop", "rmsprop_tf", or "muon" for the matrices among the parameters.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        observation_space: spaces.Space,
        action_space: spaces.Space,
        seeds: Several[int],
        coefficients: Mapping[str, Several[float]],
        vmap: bool | None = None,
        optimizer: str = "adam",
    ):
        self.seeds = tuple(seeds)
        self.num_runs = len(self.seeds)
        self.mapped = self.num_runs > 1 if vmap is None else vmap
        if not self.mapped and self.num_runs > 1:
            raise ValueError(f"vmap = False needs one run, not {self.num_runs}")
        self.observation_space, self.action_space = observation_space, action_space
        self.coefficients = {k: torch.tensor(v, dtype=torch.float32) for k, v in coefficients.items()}
        self.memory: dict[str, torch.Tensor] = {}
        self.iteration = torch.zeros(self.num_runs, dtype=torch.int64)
        self.coefficients["progress"] = self.progress = torch.zeros(self.num_runs)  # share of the training, 0..1
        self.update_count = torch.zeros(self.num_runs, dtype=torch.int64)
        self.frozen = torch.zeros(self.num_runs, dtype=torch.bool)
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self.failure: dict[int, str] = {}
        self._stack([self._initialise(build, seed) for seed in self.seeds])
        self.rmsprop = optimizers.RMSPROP.get(optimizer, 0)
        self.of_critic = optimizers.critic_parameters(list(self.shapes), self.coefficients)
        matrices = [() if name == "log_std" else shape for name, (_, shape) in self.shapes.items()]  # no map: a table
        self.muon_matrices = optimizers.muon_matrices(optimizer, matrices)
        self.coefficients["value_scale"] = torch.ones_like(self.buffers.get("value_scale", torch.ones(self.num_runs)))
        self.observation_moments = self.target_moments = None
        if "observation_mean" in self.buffers:
            if is_packed(observation_space) and not hasattr(self.module, "dense_input"):
                raise ValueError(
                    f"{type(self.module).__name__} has observation_mean and the observation several parts: give it a "
                    "method dense_input(observation) -> (rows, D), the numbers to standardise, as policies.Policy has"
                )
            self.observation_moments = RunningMoments(self.num_runs, self.buffers["observation_mean"].shape[-1])
        if getattr(self.module, "normalize_value", False):
            self.target_moments = TargetMoments(self.num_runs, self.buffers["value_mean"].shape[-1])

    # ---------------------------------------------------------------------------------------------------- parameters

    @staticmethod
    def _initialise(build, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):  # manual_seed would seed other devices too, or keep the stack as text
            torch.default_generator.manual_seed(int(random_stream(seed, INITIALISE, 0).integers(2**31)))
            return build()

    def _stack(self, modules: list[nn.Module]) -> None:
        """Move the parameters of all runs into one flat tensor and make views of it."""
        self.module = modules[0]
        trained = [(name, p.shape, p.numel()) for name, p in self.module.named_parameters() if p.requires_grad]
        if not trained:
            raise ValueError(f"{type(self.module).__name__} has no parameters to train")
        self.starts = np.cumsum([0, *(count for _, _, count in trained)])
        self.shapes = {name: (int(start), shape) for (name, shape, _), start in zip(trained, self.starts, strict=False)}
        self.flat = torch.empty(self.num_runs, int(self.starts[-1]))
        self.gradient = torch.empty_like(self.flat)
        self.first_moment, self.second_moment = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.step_count = torch.zeros(self.num_runs, len(trained), dtype=torch.int64)
        self.parameters: dict[str, torch.Tensor] = {}
        for name in self.shapes:
            with torch.no_grad():
                self.view(name).copy_(torch.stack([module.get_parameter(name) for module in modules]))
            if self.mapped:
                self.parameters[name] = self.view(name).requires_grad_()
            else:
                self.parameters[name] = self.module.get_parameter(name)
                self.parameters[name].data = self.view(name)[0]
        # what is not trained, parameters of the user's that need no gradient included
        fixed = [name for name, p in self.module.named_parameters() if not p.requires_grad]
        fixed += [name for name, _ in self.module.named_buffers()]
        self.buffers = {name: torch.stack([_tensor(module, name).detach() for module in modules]) for name in fixed}
        if not self.mapped:
            for name in fixed:
                _tensor(self.module, name).data = self.buffers[name][0]
        self.calls = Calls(self.module, self.parameters, self.buffers, self.mapped)
        self.separate = self.calls.separate
        self.recurrent = bool(getattr(self.module, "recurrent", False))
        self.state: torch.Tensor | None = None  # (R, rows, S) of a recurrent policy, once it has acted

    def view(self, name: str) -> torch.Tensor:
        """Parameter `name` of all runs, (R, *shape): a view of the flat tensor."""
        start, shape = self.shapes[name]
        return self.flat[:, start : start + math.prod(shape)].view(self.num_runs, *shape)

    def policy(self, run: int) -> nn.Module:
        """An independent copy of one run's policy."""
        module = copy.deepcopy(self.module)
        with torch.no_grad():
            for name in self.shapes:
                module.get_parameter(name).data = self.view(name)[run].clone()
            for name, buffer in self.buffers.items():
                _tensor(module, name).data = buffer[run].clone()
        return module

    @contextmanager
    def clock(self, phase: str):
        """Count the time spent inside under `phase`; time counted inside under another phase is that one's."""
        before = sum(self.seconds.values())
        start = time.perf_counter()
        yield
        inside = sum(self.seconds.values()) - before
        self.seconds[phase] += time.perf_counter() - start - inside

    # -------------------------------------------------------------------------------------------------------- acting

    def unpack(self, observation: Any) -> Any:
        """An observation as a policy takes it: packed bytes (..., itemsize) of several parts as a flat dict of them."""
        if isinstance(observation, Sequence):
            return observation._replace(observation=self.unpack(observation.observation))
        return unpack(self.observation_space, observation) if isinstance(observation, torch.Tensor) else observation

    def _forward(self, call: Callable, then: Callable, observation: Any, *extra: torch.Tensor) -> Any:
        return self.calls(call, then, self.unpack(observation), *extra)

    def remembered(self, rows: int) -> torch.Tensor:
        """The state (R, rows, S) of a recurrent policy; the initial one before it has acted on so many rows."""
        if self.state is None or self.state.shape[1] != rows:
            initial: torch.Tensor = self.module.initial_state(rows)  # type: ignore[operator]
            self.state = initial.expand(self.num_runs, rows, -1).clone()
        return self.state

    def begun(self, state: torch.Tensor, begins: torch.Tensor) -> torch.Tensor:
        """The state (R, rows, S) with the initial one where an episode begins (R, rows)."""
        initial = self.module.initial_state(state.shape[1])  # type: ignore[operator]
        return torch.where(begins.unsqueeze(-1), initial, state)

    def forget(self, rows: np.ndarray) -> None:
        """Rows (flat, over all runs) whose episode ended have nothing to remember."""
        if self.state is not None and len(rows):
            begins = torch.zeros(self.state.shape[0] * self.state.shape[1], dtype=torch.bool)
            begins[torch.from_numpy(rows)] = True
            self.state = self.begun(self.state, begins.view(self.state.shape[:2]))

    @torch.no_grad()
    def act(
        self, observation: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """observation (R, N, *O), noise (R, N, ...) -> action (R, N, ...), log_prob (R, N), value (R, N, K).

        The value is None where the critic is separate: ask `value` for many steps at once. A recurrent policy remembers
        the step: its `state` moves on.
        """

        def sample(distribution, noise):
            action = distribution.sample(noise)
            return action, distribution.log_prob(action)

        if self.separate:
            return (*self._forward(calls.distribution, sample, observation, noise), None)
        if not self.recurrent:
            return self._forward(calls.both, lambda d, value, noise: (*sample(d, noise), value), observation, noise)
        *found, self.state = self._forward(
            calls.both, lambda d, value, state, noise: (*sample(d, noise), value, state),
            (self.unpack(observation), self.remembered(observation.shape[1])), noise,
        )  # fmt: skip
        return tuple(found)  # type: ignore[return-value]

    @torch.no_grad()
    def greedy(self, observation: torch.Tensor) -> torch.Tensor:
        """The distributions' modes: observation (R, N, *O) -> action (R, N, ...). Moves the `state` on as `act`."""
        if not self.recurrent:
            return self._forward(calls.both, lambda distribution, value: (distribution.mode(),), observation)[0]
        action, self.state = self._forward(
            calls.both, lambda distribution, value, state: (distribution.mode(), state),
            (self.unpack(observation), self.remembered(observation.shape[1])),
        )  # fmt: skip
        return action

    @torch.no_grad()
    def value(self, observation: Any, state: torch.Tensor | None = None) -> torch.Tensor:
        """observation (R, M, *O), of a recurrent policy a Sequence or with `state` (R, M, S) -> value (R, M, K)."""
        if state is not None:
            pair = (self.unpack(observation), state)
            return self._forward(calls.both, lambda distribution, value, state: (value,), pair)[0]
        if self.separate:
            return self._forward(calls.value, lambda value: (value,), observation)[0]
        return self._forward(calls.both, lambda distribution, value: (value,), observation)[0]

    @torch.no_grad()
    def states(self, sequence: Sequence) -> torch.Tensor:
        """What a recurrent policy remembers after each step of a Sequence: (R, L * M, S)."""
        return self._forward(calls.states, lambda state: (state,), sequence)[0]

    @torch.no_grad()
    def distribution(self, observation: torch.Tensor) -> Any:
        """The action distributions: observation (R, M, *O) -> over (R, M)."""
        call = calls.distribution if getattr(self.module, "stackable", False) else calls.both
        return self._forward(call, lambda distribution, *value: distribution, observation)

    @torch.no_grad()
    def last_layer(self, observation: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Feature (R, M, F), score (R, M, S), score_free (R, M, S0), log_prob (R, M) of the last layer at observation
        (R, M, *O) for action (R, M, ...); of policies that have a method `last_layer`."""
        return self._forward(
            lambda policy, observation: policy.last_layer(observation),
            lambda feature, d, action: (feature, *d.score(action), d.log_prob(action)),
            observation,
            action,
        )

    @property
    def has_last_layer(self) -> bool:
        """Whether `last_layer` can be asked for."""
        return hasattr(self.module, "last_layer") and (not self.mapped or self.calls.stacked is not None)

    def noise(self, rollout_length: int, rows: int) -> torch.Tensor | list[torch.Tensor]:
        """Noise for `rows` rows of each run, T times (R, rows, ...), each run's from its stream of this iteration."""
        streams = [random_stream(seed, ACT, int(self.iteration[run])) for run, seed in enumerate(self.seeds)]
        return draw_steps(self.module, self.action_space, streams, rollout_length, rows)

    def shuffles(self, rows: int, num_epochs: int) -> torch.Tensor:
        """Permutations of 0 .. rows - 1, (num_epochs, R, rows) int64, each run's from its own stream."""
        order = np.empty((num_epochs, self.num_runs, rows), np.int64)
        for run, seed in enumerate(self.seeds):
            generator = random_stream(seed, SHUFFLE, int(self.iteration[run]))
            for epoch in range(num_epochs):
                order[epoch, run] = generator.permutation(rows)
        return torch.from_numpy(order)

    # ------------------------------------------------------------------------------------------------------ learning

    def update(
        self, loss: Callable, minibatch: dict[str, torch.Tensor], active: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """One gradient step of every run that is `active` (R,) and not frozen.

        Args: loss(policy, minibatch, coefficients) -> (scalar, dict of scalar metrics), written for one run;
        minibatch: name -> (R, M, ...). Returns the metrics, (R,) each, and `gradient_norm` before clipping.
        """
        minibatch = minibatch | {"observation": self.unpack(minibatch["observation"])}
        losses, metrics = self.calls.losses(loss, minibatch, self.coefficients)
        if not losses.requires_grad:
            raise ValueError(
                "the loss has no gradient: it does not depend on the policy's parameters; compute log_prob, entropy or "
                "value from policy(minibatch['observation']) and do not detach them"
            )
        gradients = torch.autograd.grad(losses.sum(), list(self.parameters.values()), allow_unused=True)
        torch.cat(
            [
                torch.zeros(self.num_runs, p.numel() // self.num_runs if self.mapped else p.numel())
                if g is None
                else g.reshape(self.num_runs, -1)
                for g, p in zip(gradients, self.parameters.values(), strict=True)
            ],
            1,
            out=self.gradient,
        )
        allowed = ~self.frozen & torch.isfinite(losses.detach())
        if active is not None:
            allowed &= active
        norm = self._step(allowed)
        broken = (~torch.isfinite(losses.detach()) | ~torch.isfinite(norm)) & ~self.frozen
        if broken.any():
            for run in broken.nonzero().ravel().tolist():
                what = "loss" if not math.isfinite(losses[run].item()) else "gradient"
                self.freeze(run, f"the {what} is not finite at update {int(self.update_count[run]) + 1}")
        return {**metrics, "gradient_norm": norm}

    def _step(self, allowed: torch.Tensor) -> torch.Tensor:
        """Clip each run's gradient by its norm, let the optimizer update where allowed; norms (R,)."""
        norm = torch.empty(self.num_runs)
        limit = self.coefficients.get("max_grad_norm", torch.full((self.num_runs,), math.inf))
        optimizers.update(
            self.flat.numpy(), self.gradient.numpy(), self.first_moment.numpy(), self.second_moment.numpy(),
            self.starts, self.muon_matrices, self.rmsprop, self.step_count.numpy(),
            optimizers.learning_rates(self.of_critic, self.coefficients), limit.numpy(),
            allowed.numpy(), norm.numpy(),
        )  # fmt: skip
        self.update_count += allowed & torch.isfinite(norm)
        return norm

    def learning_rate(self) -> torch.Tensor:
        """The learning rate of each run now, (R,): annealed linearly to 0 where `anneal_learning_rate` is 1."""
        return optimizers.annealed(self.coefficients, "learning_rate")

    def freeze(self, run: int, reason: str) -> None:
        """Stop run `run` for good; its parameters stay as they are."""
        if not self.frozen[run]:
            self.frozen[run] = True
            self.failure[run] = reason

    # --------------------------------------------------------------------------------------------------- normalisers

    def update_observation_moments(self, rollout) -> None:
        """Take in a rollout's observations, after learning from it."""
        if self.observation_moments is None:
            return
        observation = rollout.by_run(rollout.observation[:-1])
        if is_packed(self.observation_space):
            flat = self.module.dense_input(self.unpack(observation)).float()  # type: ignore[operator]
        else:
            flat = observation.flatten(3) if observation.dim() > 3 else observation.unsqueeze(-1)
        self.observation_moments.update(flat, ~self.frozen, rollout.valid_by_run)
        self.buffers["observation_mean"].copy_(self.observation_moments.mean)
        self.buffers["observation_scale"].copy_(self.observation_moments.scale())

    @torch.no_grad()
    def update_target_moments(self, target: torch.Tensor | None, valid: torch.Tensor | None = None) -> None:
        """Take in critic targets (T, B, K), where `valid` (T, B), and rescale the value head so that its outputs stay
        what they were; but for the first, when nothing has been learned: the value then becomes their mean."""
        if self.target_moments is None or target is None:
            return
        first = (self.target_moments.count == 0).unsqueeze(-1)
        valid = None if valid is None else valid.unflatten(1, (self.num_runs, -1))
        self.target_moments.update(target.unflatten(1, (self.num_runs, -1)), ~self.frozen, valid)
        mean, scale = self.buffers["value_mean"], self.buffers["value_scale"]
        # as the buffers will hold them: then what has not changed changes no bit of a parameter
        new_mean, new_scale = self.target_moments.mean.float(), self.target_moments.scale().float()
        weight, bias = self.view("value_head.weight"), self.view("value_head.bias")
        weight.mul_(torch.where(first, 1.0, scale.double() / new_scale).unsqueeze(-1))
        bias.copy_(torch.where(first, bias, (scale.double() * bias + mean - new_mean) / new_scale))
        mean.copy_(new_mean)
        scale.copy_(new_scale)
        self.coefficients["value_scale"].copy_(self.target_moments.error_scale())

    # ---------------------------------------------------------------------------------------------------- checkpoints

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything that training changes, name -> tensor with a leading R."""
        state = {name: getattr(self, name) for name in _STATE}
        state |= {f"buffer.{name}": buffer for name, buffer in self.buffers.items()}
        state |= {} if self.state is None else {"state": self.state}
        state |= {f"memory.{name}": tensor for name, tensor in self.memory.items()}
        for key in ("observation_moments", "target_moments"):
            moments = getattr(self, key)
            if moments is not None:
                state |= {f"{key}.{name}": tensor for name, tensor in vars(moments).items()}
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take over a `state_dict` of a population of the same shape. Raises ValueError where shapes differ."""
        own = self.state_dict()
        for name, tensor in own.items():
            if name.startswith("memory.") or name == "state":
                continue
            if name not in state or state[name].shape != tensor.shape:
                found = tuple(state[name].shape) if name in state else "nothing"
                raise ValueError(f"the saved policy has {found} for {name}, this one needs {tuple(tensor.shape)}")
            tensor.copy_(state[name])
        if self.target_moments is not None:
            self.coefficients["value_scale"].copy_(self.target_moments.error_scale())
        self.state = state["state"].clone() if "state" in state else None
        self.memory = {name[7:]: tensor.clone() for name, tensor in state.items() if name.startswith("memory.")}


_STATE = ("flat", "first_moment", "second_moment", "step_count", "update_count", "iteration", "frozen")


def _tensor(module: nn.Module, name: str) -> torch.Tensor:
    """The parameter or buffer of that name."""
    path, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(path), leaf)

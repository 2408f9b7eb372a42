"""The options of every command: one dataclass each, whose fields are its flags."""

import dataclasses
from typing import Annotated, Any, Literal

import tyro


def _optional(metavar: str) -> Any:
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]
Environment = Annotated[str, tyro.conf.Positional, _optional("ENV")]
RunDirectory = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Name = Annotated[str, tyro.conf.arg(metavar="NAME|FILE.py")]


@dataclasses.dataclass(frozen=True)
class Trained:
    """What is trained."""

    environment: Environment = ""
    """A name that `ridgeline list` shows, a file.py of yours, a Gymnasium id, or module:Class."""
    algorithm: Name = "ppo"
    """The algorithm, one that `ridgeline list` shows or a file of yours; its settings are flags, shown below."""
    estimator: Name = "gae"
    """The estimator of advantages; its settings are flags too."""
    policy: Name = "auto"
    """The policy, cnn where the observation has a picture and else mlp if not given; its settings are flags too."""


@dataclasses.dataclass(frozen=True)
class Train(Trained):
    """Train R runs of an algorithm on an environment, side by side.

    ridgeline train cartpole --runs 8 --steps 200000

    ridgeline train my_env.py --learning-rate 1e-3 --hidden-sizes 128 128

    ridgeline train --resume runs/cartpole-ppo-20260101-120000

    With ENV before --help, the environment's parameters are shown too.
    """

    steps: Annotated[int | None, _optional("N")] = None
    """Environment steps of each run, rounded up to whole iterations; 1,000,000 if not given."""
    runs: int = 1
    """Runs trained side by side, with seeds seed, seed + 1, ..."""
    seed: int = 0
    """Seed of the first run."""
    out: Annotated[str | None, _optional("DIR")] = None
    """Run directory to make; runs/ENV-ALGORITHM-DATE-TIME if not given."""
    resume: Annotated[str | None, _optional("RUN")] = None
    """Continue the training of this run directory, exactly as it would have gone on."""
    init: Annotated[str | None, _optional("RUN")] = None
    """Start from the newest weights of this run directory, with everything else new."""
    until: Annotated[float | None, _optional("RETURN")] = None
    """Stop when every run's mean return over its last 100 episodes is at least this."""
    minutes: Annotated[float | None, _optional("M")] = None
    """Stop after this long."""
    threads: Annotated[int | None, _optional("N")] = None
    """Cores to use; all if not given."""
    writers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Write the metrics for these tools too, into the run directory; each is an extra of its name."""
    self_play: Annotated[float | None, _optional("SHARE")] = None
    """Share of the instances, above 0 to 1, in which a past self plays one of the two agents of the environment."""
    json: Flag = False
    """Make the last line on standard output one JSON object, and show the training on standard error."""
    quiet: Flag = False
    """Show nothing but warnings."""


@dataclasses.dataclass(frozen=True)
class Opened:
    """A run directory."""

    run: RunDirectory
    """A run directory, such as runs/cartpole-ppo-20260101-120000."""
    seed: int = 0
    """Run r plays with seed + r; episodes are never those of training, whatever the number."""
    environment: Annotated[str | None, _optional("FILE.py|module:Class")] = None
    """The environment of the run where it is your own; its name in the run directory is not imported."""
    policy: Annotated[str | None, _optional("FILE.py")] = None
    """The policy of the run where it is your own."""


@dataclasses.dataclass(frozen=True)
class Evaluate(Opened):
    """Play whole episodes with each run's policy: with sampled actions, and with the most probable ones.

    ridgeline evaluate runs/maze --environment.start-level 200 --environment.num-levels 0

    --environment.NAME changes a parameter of the environment: other levels, another difficulty.
    """

    episodes: int = 100
    """Episodes of each run."""
    greedy: Flag = False
    """Only with the most probable actions."""
    json: Flag = False
    """Make the last line on standard output one JSON object."""


@dataclasses.dataclass(frozen=True)
class Watch(Opened):
    """Draw the environment in the terminal while a run's policy plays, or write a film.

    --environment.NAME changes a parameter of the environment: other levels, another difficulty.
    """

    index: int = 0
    """Which of the runs."""
    episodes: int = 1
    """Episodes to show."""
    greedy: Flag = False
    """Take the most probable action instead of sampling."""
    gif: Annotated[str | None, _optional("FILE")] = None
    """Write a GIF instead of showing it."""
    mp4: Annotated[str | None, _optional("FILE")] = None
    """Write an MP4 instead of showing it."""
    frames_per_second: Annotated[float | None, _optional("N")] = None
    """Speed; the environment's own if not given."""
    web: Flag = False
    """Show it in a browser instead: live, with pause and speed, the value and the probability of each action."""
    port: int = 0
    """Port of the page on this machine; 0 for any that is free."""
    json: Flag = False
    """Make the last line on standard output one JSON object."""


@dataclasses.dataclass(frozen=True)
class Play:
    """Play an environment at the keyboard, in the terminal; its picture has a line with the keys below it.

    ridgeline play breakout

    ridgeline play maze --environment.difficulty 1
    """

    environment: Environment = ""
    """A name that `ridgeline list` shows, a file.py of yours, a Gymnasium id, or module:Class."""
    seed: Annotated[int | None, _optional("N")] = None
    """Seed of the game; another one each time if not given."""
    frames_per_second: Annotated[float | None, _optional("N")] = None
    """Speed; the environment's own if not given."""


@dataclasses.dataclass(frozen=True)
class NewEnvironment:
    """Write NAME.py here: a small environment with comments, which trains at once, to be changed into yours."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Name of the environment and of its file: lower-case letters, digits and _."""


@dataclasses.dataclass(frozen=True)
class BenchEnvironment:
    """Environment steps per second on one thread, observation writing and autoreset included."""

    environment: Environment = ""
    """A name that `ridgeline list` shows, a file.py of yours, a Gymnasium id, or module:Class."""
    envs: int = 4096
    """Instances."""
    seconds: float = 2.0
    """How long to measure."""
    json: Flag = False
    """Make the last line on standard output one JSON object."""


@dataclasses.dataclass(frozen=True)
class BenchTrain(Trained):
    """Training steps per second of all runs, and the fraction reached of what the matrix products alone would allow."""

    runs: int = 1
    """Runs trained side by side."""
    threads: Annotated[int | None, _optional("N")] = None
    """Cores to use; all if not given."""
    seconds: float = 10.0
    """How long to measure."""
    json: Flag = False
    """Make the last line on standard output one JSON object."""


@dataclasses.dataclass(frozen=True)
class Reproduce:
    """Compute a figure of Sutton & Barto (2018) anew, draw it, and compare it with its reference table.

    random-walk: figure 7.2, n-step TD on the walk of 19 states

    short-corridor: figures 13.1 and 13.2, REINFORCE with three step sizes and with a baseline
    """

    figure: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FIGURE")]
    """random-walk or short-corridor."""
    runs: int = 1000
    """Runs to average."""
    seed: int = 0
    """Seed of them all."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")] = "."
    """Directory of the picture, FIGURE.png, and of its numbers, FIGURE.json."""
    json: Flag = False
    """Make the last line on standard output one JSON object."""


@dataclasses.dataclass(frozen=True)
class Cloud(Trained):
    """Hold a policy fixed and compare the gradients that each estimator gives it, batch by batch, with the true one.

    ridgeline cloud cartpole

    ridgeline cloud cartpole --run runs/first --estimator gae --gamma 0.9

    Without --run, a policy is trained first; --num-envs and --rollout-length are the size of a batch. An estimator that
    is named, or one of its settings, is compared beside the usual ones.
    """

    run: Annotated[str | None, _optional("RUN")] = None
    """Look at the first policy of this run directory of ENV, with batches of its size."""
    steps: int = 20_000
    """Steps for which the policy is trained; 0 leaves it as it begins."""
    batches: int = 256
    """Gradients of each estimator."""
    fit_steps: int = 200_000
    """Steps of each of 8 runs from which its critics are fitted, the policy held fixed."""
    true_steps: int = 2_000_000
    """Steps, in whole episodes, from which the true gradient comes."""
    seed: int = 0
    """Seed of it all."""
    threads: Annotated[int | None, _optional("N")] = None
    """Cores to use; all if not given."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")] = "."
    """Directory of the picture, cloud-ENV.png, and of its numbers, cloud-ENV.json."""
    json: Flag = False
    """Make the last line on standard output one JSON object."""


@dataclasses.dataclass(frozen=True)
class Compare:
    """Compare arms on environments, with fresh seeds and intervals, as a TOML file says; only what is missing is run.

    ridgeline compare studies/one_configuration.toml

    The same command goes on after an interruption or a crash; docs/compare.md explains the file.
    """

    spec: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SPEC.toml")]
    """The file: arms, environments, steps and seeds."""
    out: Annotated[str | None, _optional("DIR")] = None
    """Directory of its runs and its result; runs/compare-NAME if not given."""
    minutes: Annotated[float | None, _optional("M")] = None
    """Stop after this long; the same command goes on."""
    threads: Annotated[int | None, _optional("N")] = None
    """Cores to use; all if not given."""
    json: Flag = False
    """Make the last line on standard output one JSON object, and show the progress on standard error."""
    quiet: Flag = False
    """Show nothing but warnings and the result."""


@dataclasses.dataclass(frozen=True)
class Sweep(Trained):
    """Search the settings of a training: the front of score against cost, and the settings to use.

    ridgeline sweep cartpole

    ridgeline sweep my_env.py --trials 300 --steps 1000000 --gamma 0.99 --space space.toml

    ridgeline sweep --resume runs/cartpole-ppo-sweep-20260101-120000

    A setting given on the line is fixed; the floating-point ones of the algorithm and the estimator are searched.
    """

    trials: int = 100
    """Configurations to try."""
    budget: Annotated[int | None, _optional("N")] = None
    """Environment steps that all trials together may take; no limit if not given."""
    steps: int = 100_000
    """Environment steps of the longest run; shorter ones, down to a tenth, are searched."""
    full_length: Flag = False
    """Make every run --steps long."""
    seeds: int = 3
    """Runs of each trial, with seeds seed, seed + 1, ..."""
    seed: int = 0
    """Seed of the first run of each trial."""
    complete: Flag = False
    """Train every trial to its end, the hopeless too."""
    space: Annotated[str | None, _optional("FILE.toml")] = None
    """Ranges, fixed settings and groups other than the usual ones."""
    sampler: str = "tpe"
    """What suggests trials: tpe (Optuna's, of two objectives) or random."""
    cost: Literal["steps", "seconds"] = "steps"
    """What is to be spared: environment steps, or processor seconds."""
    metric: str = "episode_return"
    """The metric that is the score, at the end of a run; the environment's own are episode_STATISTIC."""
    candidates: int = 8
    """How many of the best trials are run again on fresh seeds."""
    fresh_seeds: int = 10
    """Fresh seeds of each candidate."""
    workers: Annotated[int | None, _optional("N")] = None
    """Worker processes of this machine, of one thread each; one per core if not given."""
    places: Annotated[int | None, _optional("N")] = None
    """Runs that a worker trains side by side; if not given, such that a sampler sees results ten times."""
    out: Annotated[str | None, _optional("DIR")] = None
    """Directory of the sweep; runs/ENV-ALGORITHM-sweep-DATE-TIME if not given."""
    resume: Annotated[str | None, _optional("DIR")] = None
    """Go on with the sweep of this directory."""
    join: Annotated[str | None, _optional("DIR|ADDRESS")] = None
    """Work at a sweep that is under way, by its directory or its database."""
    storage: Annotated[str | None, _optional("ADDRESS")] = None
    """Keep the ledger in the PostgreSQL database postgresql://USER@HOST/NAME, past one machine."""
    study: Annotated[str | None, _optional("NAME")] = None
    """The sweep's name in its ledger; that of its directory if not given."""
    ray: Annotated[str | None, _optional("ADDRESS")] = None
    """Let the cores of a Ray cluster work: its address, or auto for the one that this machine is part of."""
    lease: float = 60.0
    """Seconds after which the runs of a worker that is not heard of are given to another."""
    json: Flag = False
    """Make the last line on standard output one JSON object, and show the sweep on standard error."""
    quiet: Flag = False
    """Show nothing but warnings."""


@dataclasses.dataclass(frozen=True)
class List:
    """Name the environments, algorithms, estimators and policies."""

    json: Flag = False
    """Make the last line on standard output one JSON object."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Write one HTML file of a run, a sweep, a comparison, or a folder of runs; it opens without a network."""

    directory: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The directory."""
    out: Annotated[str | None, _optional("FILE")] = None
    """The file; report.html in the directory if not given."""
    json: Flag = False
    """Make the last line on standard output one JSON object."""


@dataclasses.dataclass(frozen=True)
class Board:
    """Show the same pages live, of everything below a directory, from a server that only this machine can reach."""

    directory: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")] = "runs"
    """A folder of runs, sweeps and comparisons."""
    port: int = 7070
    """Where it listens on 127.0.0.1; 0 takes any that is free."""

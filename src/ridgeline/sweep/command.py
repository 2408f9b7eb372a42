"""What `ridgeline sweep` does and says."""

import dataclasses
import re
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline import components, run_directory
from ridgeline.arguments import DEFAULTS, Parsed, UsageError
from ridgeline.environments import make
from ridgeline.random_play import first_episodes
from ridgeline.stopping import Stop
from ridgeline.sweep import conduct, outcome, plan, ray_workers, space
from ridgeline.sweep.ledger import Ledger
from ridgeline.sweep.outcome import Outcome
from ridgeline.sweep.plan import Plan
from ridgeline.sweep.progress import Progress, cells, front_table, short
from ridgeline.sweep.ranges import whole
from ridgeline.sweep.records import Trial
from ridgeline.sweep.sampler import SAMPLERS
from ridgeline.sweep.space import GROUP, KINDS, STEPS
from ridgeline.training import available_cores
from ridgeline.vector import EVALUATION

SHORTEST = 0.1  # of the longest run: the shortest that is searched, if it has a score by then
INSTANCES, LONGEST = 16, 2000  # of random play, which says how long an episode is
AT_WORK = {*"workers out resume join storage study lease ray json quiet environment".split()}


def command(parsed: Parsed) -> tuple[dict[str, Any], int]:
    """Conduct a new sweep, or go on with one, or work at one that is conducted elsewhere; (its result, exit code)."""
    asked = parsed.options
    named = {kind: name for kind, name in parsed.names.items() if name.endswith(".py")}
    if asked.environment and (asked.environment.endswith(".py") or ":" in asked.environment):
        named["environment"] = asked.environment
    cores = available_cores() if asked.ray is None else ray_workers.connect(asked.ray)
    num_workers = asked.workers or cores
    if num_workers < 1 or asked.lease <= 0:
        raise UsageError(f"workers = {num_workers}, lease = {asked.lease}; use numbers above 0")
    directory, storage, study = _find(parsed, num_workers)
    with closing(Ledger(storage)) as ledger:
        made = Plan(**ledger.study(study).specification)
    workers = conduct.local(num_workers, directory) if asked.ray is None else ray_workers.on_ray(num_workers)
    progress = Progress(sys.stderr if asked.json else sys.stdout, made, asked.quiet)
    stop = Stop(progress)
    try:
        with stop:
            trials = conduct.conduct(
                storage, study, directory, workers, progress, stop, named, num_workers, asked.lease
            )
    finally:
        progress.close()
    if not asked.quiet:
        _say(trials, made, directory, stop, sys.stderr if asked.json else sys.stdout)
    document = outcome.document(trials, made.cost) | {"directory": str(directory), "study": study}
    return document, stop.exit_code if stop.number else 0


def _find(parsed: Parsed, num_workers: int) -> tuple[Path, str, str]:
    """(directory, storage, study) of the sweep to work at, made where it is new."""
    asked = parsed.options
    if asked.resume is None and asked.join is None:
        directory = (
            Path(asked.out) if asked.out is not None else _directory(asked.environment, parsed.names["algorithm"])
        )
        study = asked.study or directory.name
        conduct.create(directory, asked.storage, study, make_plan(parsed, num_workers))
        return directory, str(asked.storage or directory / conduct.LEDGER), study
    refused = [f"--{name.replace('_', '-')}" for name in sorted(parsed.given - AT_WORK - set(KINDS))]
    if refused:
        raise UsageError(f"a sweep goes on as it is: leave {', '.join(refused)} away, or start a new one")
    if asked.resume is not None:
        directory = Path(asked.resume)
        return directory, *conduct.find(directory)
    if "://" not in asked.join:
        directory = Path(asked.join)
        return directory, *conduct.find(directory)
    with closing(Ledger(asked.join)) as ledger:
        open_ones = [one.name for one in ledger.studies() if one.kind == "sweep" and one.state == "running"]
    study = asked.study or (open_ones[0] if len(open_ones) == 1 else "")
    if not study:
        raise UsageError(f"--join {asked.join}: name one with --study; under way are {', '.join(open_ones) or 'none'}")
    directory = Path(asked.out) if asked.out is not None else _directory(study, "join")
    directory.mkdir(parents=True, exist_ok=True)
    return directory, asked.join, study


def _directory(*words: str) -> Path:
    clean = [re.sub(r"[^A-Za-z0-9_.]+", "-", Path(word).stem) for word in words]
    return Path("runs", "-".join([*clean, "sweep", time.strftime("%Y%m%d-%H%M%S")]))


def make_plan(parsed: Parsed, num_workers: int) -> Plan:
    """The plan that the arguments ask for. Raises UsageError or SpaceError."""
    asked = parsed.options
    if asked.sampler not in SAMPLERS:
        raise UsageError(f"sampler = {asked.sampler!r}; use one of {', '.join(SAMPLERS)}")
    if asked.sampler == "tpe":
        try:
            import optuna  # noqa: F401
        except ImportError:
            raise UsageError("TPE needs Optuna: pip install 'ridgeline[sweep]'; or use --sampler random") from None
    for name in ("trials", "steps", "seeds", "candidates", "fresh_seeds"):
        if getattr(asked, name) < 1:
            raise UsageError(f"{name} = {getattr(asked, name)}; use a whole number from 1")
    if asked.seed < 0 or asked.seed + asked.seeds > plan.FRESH:
        raise UsageError(f"seed = {asked.seed}; use a whole number from 0 to {plan.FRESH - asked.seeds:,}")
    made = {kind: getattr(parsed, kind) for kind in KINDS}
    steps = None
    if not asked.full_length:
        first = first_score(asked.environment, parsed.parameters, made["algorithm"].num_envs)
        shortest = max(1, round(SHORTEST * asked.steps), first)
        steps = whole(shortest, asked.steps, "log") if shortest < asked.steps else None
    searched = space.make(made, parsed.given, steps, asked.space)
    described = {kind: run_directory.describe([one]) for kind, one in made.items()}
    runs = asked.trials * asked.seeds
    # so that the sampler sees results ten times, but a few trials at once; nothing is sampled on fresh seeds
    places = asked.places or min(64, max(4 * asked.seeds, -(-runs // (10 * num_workers))))
    fresh_places = asked.places or min(64, -(-asked.candidates * asked.fresh_seeds // num_workers))
    fields = {field.name for field in dataclasses.fields(Plan)}
    given: dict[str, Any] = {
        name: value for name, value in vars(asked).items() if name in fields - {"space"} - set(KINDS)
    }
    given |= described | {"parameters": parsed.parameters, "places": places, "prune": not asked.complete}
    given["fresh_places"] = fresh_places
    return Plan(**given, space=searched.document())


def first_score(environment: str, parameters: dict[str, Any], num_envs: int) -> int:
    """Steps after which a run has a score: half of its instances have ended an episode of random play."""
    env = make(environment, INSTANCES, 0, EVALUATION, parameters)
    try:
        length = first_episodes(env, LONGEST, np.random.default_rng(0))[:, 1]
    finally:
        env.close()
    return num_envs * int(np.median(np.where(np.isnan(length), LONGEST, length)))


# --------------------------------------------------------------------------------------------------------------- saying


def _say(trials: list[Trial], made: Plan, directory: Path, stop: Stop, stream: Any) -> None:
    from rich.console import Console

    console = Console(file=stream, width=None if stream.isatty() else 160)
    found = outcome.outcomes(trials)
    if not found:
        console.print("no trial has finished", highlight=False)
    else:
        console.print(front_table(trials, made))
        best = outcome.recommended(found, made.cost)
        if best is not None:
            console.print(candidates_table(found, made))
            console.print(f"recommended: trial {best.trial}, {described(best, made)}", highlight=False, soft_wrap=True)
        for name, edge in _at_edges(best or max(found, key=lambda one: one.score), made).items():
            console.print(f"{name} of it is at the {edge} edge of its range", highlight=False)
    if stop.number:
        console.print(f"stopped; go on with ridgeline sweep --resume {directory}", highlight=False)
    console.print(f"The sweep is {directory}, its numbers are {directory / conduct.RESULT}", highlight=False)


def candidates_table(found: list[Outcome], made: Plan) -> Any:
    """The candidates, on the seeds that chose them and on fresh ones."""
    from rich.table import Table

    table = Table(title="candidates, run again on fresh seeds", title_justify="left", box=None, pad_edge=False)
    for title in ("trial", "score", "fresh seeds", "steps", "seconds"):
        table.add_column(title, justify="right")
    fresh = [one for one in found if one.fresh_score is not None]
    for one in sorted(fresh, key=lambda one: -(one.fresh_score or 0.0)):
        table.add_row(*cells(one))
    return table


def described(one: Outcome, made: Plan) -> str:
    """The command that trains it."""
    names = {kind: getattr(made, kind)["name"] for kind in KINDS}
    words = [f"--{kind} {name}" for kind, name in names.items() if name not in (DEFAULTS[kind], "mlp")]
    fixed = {name: value for kind in KINDS for name, value in changed(getattr(made, kind), kind).items()}
    for name, value in (fixed | one.configuration | made.space["groups"].get(one.configuration.get(GROUP), {})).items():
        if name in (GROUP, *KINDS):
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words.append(f"--{flag} {' '.join(map(short, value)) if isinstance(value, list) else short(value)}")
    if STEPS not in one.configuration:
        words.append(f"--steps {made.steps}")
    return f"ridgeline train {made.environment} --runs {made.seeds} {' '.join(words)}"


def changed(described: dict[str, Any], kind: str) -> dict[str, Any]:
    """The fields of a component that were given other values than their defaults."""
    if not components.is_built_in(kind, described["name"]):
        return described["fields"]
    defaults = run_directory.describe([components.find(kind, described["name"])()])["fields"]
    return {name: value for name, value in described["fields"].items() if value != defaults.get(name)}


def _at_edges(one: Outcome, made: Plan) -> dict[str, Any]:
    from ridgeline.sweep.worker import components_of

    named = {kind: None for kind in KINDS}
    try:
        base = space.from_document(made.space, components_of(made, named))
    except ValueError:
        return {}
    return plan.edges(base, one.configuration)

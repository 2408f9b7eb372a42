"""The command line: `ridgeline COMMAND`, see HELP.

What is slow to import (PyTorch, Numba, Gymnasium) is imported by the commands that need it. Exit codes: 0; 1 where the
command failed on its way; 2 where it could not be done as asked; 130 and 143 after Ctrl+C and SIGTERM.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()

from ridgeline import options, train_command  # noqa: E402  (the clock starts first)
from ridgeline.arguments import Parsed, UsageError, did_you_mean, parse  # noqa: E402
from ridgeline.catalogue import summaries  # noqa: E402
from ridgeline.stopping import Stop  # noqa: E402

HELP = """usage: ridgeline COMMAND ...

Train policies by policy gradients, many runs side by side.

  train ENV                 train a policy on an environment; continue a training
  evaluate RUN              play episodes with the policies of a run directory
  watch RUN                 draw them in the terminal, or film them
  play ENV                  play it yourself at the keyboard
  new-env NAME              write a commented environment file that trains at once
  list                      name the environments, algorithms, estimators and policies
  bench environment NAME    environment steps per second on one core
  bench train NAME          training steps per second, against the arithmetic limit
  reproduce FIGURE          a textbook's figure, computed anew: random-walk, short-corridor
  sweep ENV                 search the settings of a training: score against cost
  cloud ENV                 the gradients of each estimator against the true one, for a fixed policy
  compare SPEC.toml         arms on environments, with fresh seeds, intervals and a verdict
  report DIR                one HTML file of a run, a sweep, a comparison or a folder of runs
  board DIR                 the same live, in a browser on this machine

ridgeline COMMAND --help tells more; ridgeline train ENV --help shows every setting of a training.
"""


# ---------------------------------------------------------------------------------------------------------------- train


def train(arguments: Sequence[str]) -> int:
    parsed = parse(options.Train, arguments, "ridgeline train", components=True)
    asked, names = parsed.options, parsed.names
    if asked.resume is None:
        environment = asked.environment
        settings = {kind: getattr(parsed, kind) for kind in names}
        settings |= {"num_runs": asked.runs, "seed": asked.seed, "parameters": parsed.parameters}
        settings |= {} if asked.self_play is None else {"self_play": asked.self_play}
    else:
        environment, names, settings = train_command.resumed(parsed, names)
    from ridgeline import session
    from ridgeline.writers import written

    view = train_command.view_of(asked, [environment, *names.values()], train_command.again(environment, names))
    shown = written(view, asked.writers)
    directory = None if asked.resume is not None else train_command.claim(asked.out, environment, names["algorithm"])
    stop = Stop(view)
    try:
        view.prepare()
        with stop:
            result = session.train(
                asked.environment or None, **settings, total_steps=asked.steps, num_threads=asked.threads,
                out=directory, resume=asked.resume, init=asked.init, until=asked.until, minutes=asked.minutes,
                view=shown, stop=stop, started=STARTED,
            )  # fmt: skip
    finally:
        view.close()
        if directory is not None:
            with suppress(OSError):
                directory.rmdir()  # only where it is empty: the training was refused
                directory.parent.rmdir()
        if asked.json and view.result is not None:
            print_json(view.result.document())
    return stop.exit_code if result.stopped in ("interrupt", "terminate") else 0


# -------------------------------------------------------------------------------------------------- evaluate and watch


def evaluate(arguments: Sequence[str]) -> int:
    parsed = parse(options.Evaluate, arguments, "ridgeline evaluate", environment=_trained_on)
    asked = parsed.options
    run = _load(parsed)
    from ridgeline import evaluation

    ways = {"greedy": True} if asked.greedy else {"sampled": False, "greedy": True}
    found = {way: evaluation.evaluate(run, asked.episodes, greedy, asked.seed) for way, greedy in ways.items()}
    num_runs = len(run.policies)
    played = f"{asked.episodes} episodes" + (f" of each of {num_runs} runs" if num_runs > 1 else "")
    print(f"{played} on {run.config['environment']}, after {run.steps:,} steps")
    titles = ("mean", "lowest", "highest") + (("lowest run", "highest run") if num_runs > 1 else ())
    print(" " * 24 + "".join(title.rjust(13) for title in titles))
    for way, result in found.items():
        for what, means, episodes in (
            ("return", result.episode_return, result.episode_returns),
            ("length", result.episode_length, result.episode_lengths),
        ):
            numbers = (sum(means) / num_runs, episodes.min(), episodes.max(), min(means), max(means))[: len(titles)]
            print(f"{f'{way} actions: {what}':<24}" + "".join(f"{number:13,.2f}" for number in numbers))
    if asked.json:
        first, *others = found.values()
        document = first.document() | {"run_dir": asked.run, "steps": run.steps}
        for other in others:
            document |= {f"greedy_{name}": getattr(other, name) for name in ("episode_return", "episode_length")}
        print_json(document)
    return 0


def watch(arguments: Sequence[str]) -> int:
    parsed = parse(options.Watch, arguments, "ridgeline watch", environment=_trained_on)
    asked = parsed.options
    run = _load(parsed)
    if asked.web:
        return _watch_in_browser(run, asked)
    from ridgeline import evaluation

    returns = evaluation.watch(
        run, asked.index, asked.greedy, asked.seed, frames_per_second=asked.frames_per_second, gif=asked.gif,
        mp4=asked.mp4, episodes=asked.episodes,
    )  # fmt: skip
    print(f"Episode return {', '.join(f'{one:.5g}' for one in returns) or 'unknown: no episode has ended'}")
    for film in filter(None, (asked.gif, asked.mp4)):
        print(f"The film is {film}")
    if asked.json:
        print_json({"run_dir": asked.run, "episode_return": returns, "gif": asked.gif, "mp4": asked.mp4})
    return 0


def _watch_in_browser(run: Any, asked: Any) -> int:
    from ridgeline import loopback, watch_page
    from ridgeline.evaluation import Player

    if asked.gif or asked.mp4:
        raise UsageError("--web shows it live; write a film with --gif or --mp4 alone")
    title = f"{run.config['environment']} after {run.steps:,} steps"
    stage = watch_page.Stage(lambda seed: Player(run, asked.index, asked.greedy, seed), asked.seed,
                             asked.frames_per_second, title)  # fmt: skip
    server = watch_page.serve(stage, asked.port)
    print(f"http://{loopback.ADDRESS}:{server.server_port}/ shows {asked.run}; Ctrl+C ends it", flush=True)
    try:
        server.serve_forever()
    finally:
        server.server_close()
        stage.close()
    return 0


def _load(parsed: Parsed) -> Any:
    """The run, in an environment whose parameters are changed as the line says."""
    from ridgeline.session import load

    asked = parsed.options
    run = load(asked.run, asked.environment, asked.policy)
    for note in run.notes:
        print(f"ridgeline: {note}", file=sys.stderr)
    run.parameters.update(parsed.parameters)
    return run


def _trained_on(asked: Any) -> str:
    """The environment of a run directory, by whose parameters `--environment.NAME` is read."""
    from ridgeline.run_directory import environment, read_config

    return str(environment(read_config(Path(asked.run)), asked.environment))


# ------------------------------------------------------------------------------------------------------- other commands


def play(arguments: Sequence[str]) -> int:
    parsed = parse(options.Play, arguments, "ridgeline play", environment=lambda one: one.environment)
    asked = parsed.options
    from ridgeline.play import play

    returns = play(asked.environment, asked.seed, parsed.parameters, asked.frames_per_second)
    print(f"Episode return {', '.join(f'{one:.5g}' for one in returns) or 'unknown: no episode has ended'}")
    return 0


def new_env(arguments: Sequence[str]) -> int:
    asked = parse(options.NewEnvironment, arguments, "ridgeline new-env").options
    from ridgeline.new_environment import new_environment

    path = new_environment(asked.name, Path())
    print(f"Wrote {path}. Now: ridgeline train {path} --steps 500000, ridgeline play {path}, and change it")
    return 0


def list_components(arguments: Sequence[str]) -> int:
    asked = parse(options.List, arguments, "ridgeline list").options
    groups = {kind: summaries(kind) for kind in ("environments", "algorithms", "estimators", "policies")}
    for kind, found in groups.items():
        print(f"{kind}")
        for name, summary in found.items():
            print(f"  {name:<26}{summary}")
    print("Gymnasium ids, module:Class and files of your own (.py) train too.")
    if asked.json:
        print_json({kind: list(found) for kind, found in groups.items()})
    return 0


def bench(arguments: Sequence[str]) -> int:
    what = arguments[0] if arguments else ""
    if what in ("-h", "--help"):
        print("usage: ridgeline bench environment NAME | ridgeline bench train NAME; each has a --help of its own")
        return 0
    if what == "environment":
        program = "ridgeline bench environment"
        parsed = parse(options.BenchEnvironment, arguments[1:], program, environment=lambda one: one.environment)
        asked = parsed.options
        from ridgeline.bench import environment

        document = environment(asked.environment, asked.envs, asked.seconds, parsed.parameters)
    elif what == "train":
        parsed = parse(options.BenchTrain, arguments[1:], "ridgeline bench train", components=True)
        asked = parsed.options
        from ridgeline.bench import train

        document = train(
            asked.environment, asked.seconds, algorithm=parsed.algorithm, estimator=parsed.estimator,
            policy=parsed.policy, num_runs=asked.runs, num_threads=asked.threads, parameters=parsed.parameters,
        )  # fmt: skip
    else:
        raise UsageError(
            f"ridgeline bench {what}: write ridgeline bench environment NAME or ridgeline bench train NAME"
        )
    for key, value in document.items():
        print(f"{key.replace('_', ' '):<20}{_shown(value)}")
    if asked.json:
        print_json(document)
    return 0


def reproduce(arguments: Sequence[str]) -> int:
    asked = parse(options.Reproduce, arguments, "ridgeline reproduce").options
    from ridgeline import reproduce

    if asked.figure not in reproduce.FIGURES:
        hint = did_you_mean(asked.figure, list(reproduce.FIGURES)) or f"; there are {', '.join(reproduce.FIGURES)}"
        raise UsageError(f"unknown figure {asked.figure!r}{hint}")
    document = reproduce.reproduce(asked.figure, asked.runs, asked.seed, asked.out)
    print("\n".join(reproduce.lines(document)))
    print(f"The picture is {document['png']}, its numbers are {document['json']}")
    if asked.json:
        print_json(document)
    return 0


def cloud(arguments: Sequence[str]) -> int:
    parsed = parse(options.Cloud, arguments, "ridgeline cloud", components=True)
    from ridgeline.cloud_command import command

    document = command(parsed)
    if parsed.options.json:
        print_json(document)
    return 0


def compare(arguments: Sequence[str]) -> int:
    asked = parse(options.Compare, arguments, "ridgeline compare").options
    from ridgeline import compare_command

    document, code = compare_command.command(asked)
    if asked.json and document is not None:
        print_json(document)
    return code


def report(arguments: Sequence[str]) -> int:
    asked = parse(options.Report, arguments, "ridgeline report").options
    from ridgeline import report

    path = report.write(asked.directory, asked.out)
    print(f"The report is {path}")
    if asked.json:
        print_json({"directory": asked.directory, "report": str(path)})
    return 0


def board(arguments: Sequence[str]) -> int:
    asked = parse(options.Board, arguments, "ridgeline board").options
    from ridgeline import board, loopback

    server = board.serve(asked.directory, asked.port)
    print(f"http://{loopback.ADDRESS}:{server.server_port}/ shows {asked.directory}; Ctrl+C ends it", flush=True)
    try:
        server.serve_forever()
    finally:
        server.server_close()
    return 0


def sweep(arguments: Sequence[str]) -> int:
    parsed = parse(options.Sweep, arguments, "ridgeline sweep", components=True)
    from ridgeline.sweep.command import command

    document, code = command(parsed)
    if parsed.options.json:
        print_json(document)
    return code


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items())
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


# ----------------------------------------------------------------------------------------------------------------- main


def print_json(document: dict[str, Any]) -> None:
    """One line of strict JSON: arrays as lists, NaN and infinite numbers as null."""
    text = json.dumps(document, default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value))
    print(json.dumps(json.loads(text, parse_constant=lambda name: None)), flush=True)


COMMANDS = {
    "train": train,
    "play": play,
    "new-env": new_env,
    "evaluate": evaluate,
    "watch": watch,
    "list": list_components,
    "bench": bench,
    "reproduce": reproduce,
    "cloud": cloud,
    "sweep": sweep,
    "compare": compare,
    "report": report,
    "board": board,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a path may have any character
    command = arguments[0] if arguments else ""
    try:
        if command in ("", "-h", "--help", "help"):
            print(HELP, end="")
            return 0 if command else 2
        if command == "--version":
            print(f"ridgeline {sys.modules['ridgeline'].__version__}")
            return 0
        if command not in COMMANDS:
            hint = did_you_mean(command, list(COMMANDS)) or f"; there are {', '.join(COMMANDS)}"
            raise UsageError(f"unknown command {command!r}{hint}")
        return COMMANDS[command](arguments[1:])
    except SystemExit as error:  # after --help
        return int(error.code or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has gone: ridgeline list | head -1
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if not _is_for_people(error):
            raise
        print(f"ridgeline: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1


def _is_for_people(error: Exception) -> bool:
    """Whether the message alone says what to do: an error class of ours, or a ValueError that our own code raised.

    Anything else is a bug, of ours or in a user's file, and keeps its traceback.
    """
    if type(error).__module__.startswith("ridgeline."):
        return True
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    return type(error) is ValueError and Path(raised_in).resolve().is_relative_to(Path(__file__).resolve().parent)

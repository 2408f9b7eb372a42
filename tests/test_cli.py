"""The command line: flags, errors of one line, JSON, signals, and how long it takes to start."""

import contextlib
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ridgeline
from ridgeline import arguments, cli, components, environments, options, train_command, view
from ridgeline.arguments import UsageError, names_of, parse
from ridgeline.policies import MLP

SMALL = "--num-envs 4 --rollout-length 8 --num-minibatches 1 --num-epochs 1 --hidden-sizes 4 --threads 1".split()

SLOW = '''
"""An algorithm that a test can stop."""
import signal, time
from dataclasses import dataclass
from ridgeline.algorithms.ppo import PPO

@dataclass(frozen=True)
class Stopped(PPO):
    """PPO that a signal meets in its second iteration."""

    signals: tuple[int, ...] = ()
    """What arrives."""
    freeze: bool = False
    """Freeze the second run."""

    def iterate(self, env, population, estimator):
        if int(population.iteration[0]) == 1:
            for number in self.signals:
                signal.raise_signal(number)
            for run, seed in enumerate(population.seeds):
                if self.freeze and seed >= 1:
                    population.freeze(run, "a test says so")
        return PPO.iterate(self, env, population, estimator)
'''

SPRING = '''
"""Spring: a weight that swings."""
from typing import NamedTuple
import numpy as np
from gymnasium import spaces
from ridgeline.kernel import state_dtype

State = state_dtype(x=np.float64)
observation_space = spaces.Box(-np.ones(1, np.float32), np.ones(1, np.float32))
action_space = spaces.Discrete(2)
max_episode_steps = 5


class Parameters(NamedTuple):
    stiffness: float = 0.5
    num_weights: int = 1


def reset(state, p):
    state.x = p.stiffness


def step(state, action, p):
    return state.x * p.num_weights, False


def observe(state, observation, p):
    observation[0] = state.x
'''


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys):
    """Runs a command in this process: (exit code, standard output, standard error)."""

    def run(*words):
        code = cli.main([word for words_ in words for word in (words_.split() if isinstance(words_, str) else words_)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def parsed(line, components=True):
    return parse(options.Train, line.split(), "ridgeline train", components)


# --------------------------------------------------------------------------------------------------------------- flags


def test_every_field_of_every_component_is_a_flag():
    found = parsed(
        "cartpole --learning-rate 1e-3 --gamma 0.98 --hidden-sizes 64 32 --no-shared-trunk --activation relu "
        "--target-kl 0.1"
    )
    assert (found.algorithm.learning_rate, found.algorithm.target_kl, found.estimator.gamma) == (1e-3, 0.1, 0.98)
    assert found.policy == MLP(hidden_sizes=(64, 32), activation="relu")
    assert found.given == {"learning_rate", "gamma", "hidden_sizes", "shared_trunk", "activation", "target_kl"}


@pytest.mark.parametrize("kind", ["algorithm", "estimator", "policy"])
def test_each_built_in_component_makes_a_parser_with_its_defaults(kind):
    for name in components.names(kind):
        cls = components.find(kind, name)
        assert getattr(parsed(f"cartpole --{kind} {name}"), kind) == cls()
        help_text = help_of(["cartpole", f"--{kind}={name}"])
        for field in dataclasses.fields(cls):
            assert f"--{field.name.replace('_', '-')}" in help_text


def help_of(line):

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert cli.main(["train", *line, "--help"]) == 0
    return out.getvalue()


def test_help_teaches_in_groups():
    text = " ".join(help_of(["cartpole"]).replace("│", " ").split())
    said = [
        "ridgeline train cartpole --runs 8", "positional arguments", "--steps N Environment steps of each run",
        "algorithm ppo options", "--clip-coef FLOAT Half-width of the interval around 1", "estimator gae options",
        "Trace decay, 0", "policy mlp options", "Width of each hidden layer", "environment options",
        "Parameters of cartpole.", "--environment.gravity FLOAT",
    ]  # fmt: skip
    places = [text.index(words) for words in said]
    assert places == sorted(places)


def test_every_option_of_every_command_is_explained():
    for cls in (
        options.Train,
        options.Evaluate,
        options.Watch,
        options.List,
        options.BenchEnvironment,
        options.BenchTrain,
        options.Reproduce,
    ):
        program = f"ridgeline {cls.__name__.lower()}"
        out = io.StringIO()
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stopped:
            parse(cls, ["--help"], program)
        assert stopped.value.code == 0
        lines = [line.strip("│ ") for line in out.getvalue().splitlines()]
        for field in dataclasses.fields(cls):
            flag = f"--{field.name.replace('_', '-')}"
            entry = [i for i, line in enumerate(lines) if line.split(" ")[0] == flag]
            positional = field.name in ("run", "environment", "figure") and not entry
            assert positional or len(entry) == 1, flag
            if entry:
                words = lines[entry[0]].split("  ", 1)[1:] or [lines[entry[0] + 1]]
                assert len(words[0].strip()) > 12, flag


def test_names_are_found_wherever_they_stand():
    assert names_of("x --policy=p.py --estimator n_step".split()) == {
        "algorithm": "ppo", "estimator": "n_step", "policy": "p.py",
    }  # fmt: skip


def test_parameters_of_a_compiled_environment(tmp_path):
    (tmp_path / "spring.py").write_text(SPRING)
    assert parsed("spring.py").parameters == {}
    found = parsed("spring.py --environment.stiffness 0.25 --environment.num-weights=3")
    assert found.parameters == {"stiffness": 0.25, "num_weights": 3}
    assert type(found.parameters["num_weights"]) is int
    assert parsed("--environment.num_weights 2 spring.py").parameters == {"num_weights": 2}
    with pytest.raises(
        UsageError, match=r"unknown flag --environment\.stifness; did you mean --environment\.stiffness\?"
    ):
        parsed("spring.py --environment.stifness 1")
    with pytest.raises(UsageError, match=r"--environment\.num-weights: invalid literal for int"):
        parsed("spring.py --environment.num-weights 1.5")


def test_keyword_arguments_of_a_gymnasium_environment_are_literals():
    found = parsed(
        "CartPole-v1 --environment.sutton_barto_reward True --environment.render-mode=rgb_array --environment.g -3"
    )
    assert found.parameters == {"sutton_barto_reward": True, "render_mode": "rgb_array", "g": -3}


def test_a_field_may_not_take_the_name_of_an_option(tmp_path):
    (tmp_path / "mine.py").write_text(SLOW.replace("signals", "steps"))
    with pytest.raises(UsageError, match=r"algorithm Stopped has a field 'steps', which is one of the options too"):
        parsed("cartpole --algorithm mine.py")
    (tmp_path / "mine.py").write_text(SLOW.replace("signals", "gamma"))
    with pytest.raises(UsageError, match=r"estimator GAE has a field 'gamma', which is one of the algorithm's too"):
        parsed("cartpole --algorithm mine.py")


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trian cartpole", "unknown command 'trian'; did you mean train?"),
        ("frobnicate", "unknown command 'frobnicate'; there are train, play,"),
        ("train", "name an environment: ridgeline train ENV; ridgeline list shows them"),
        ("bench train", "name an environment: ridgeline bench train ENV"),
        ("train cartpol", "unknown environment 'cartpol'; did you mean cartpole"),
        ("train CartPol-v1", "CartPole-v1"),
        ("train nosuch.py", "nosuch.py: no such file"),
        ("train cartpole --algorithm pppo", "unknown algorithm 'pppo'; did you mean ppo"),
        ("train cartpole --estimator gea", "unknown estimator 'gea'; did you mean gae?"),
        ("train cartpole --policy none.py", "none.py: no such file"),
        ("train cartpole --learning-rat 1", "unknown flag --learning-rat; did you mean --learning-rate,"),
        ("train cartpole --stepz=3", "unknown flag --stepz; did you mean --steps?"),
        ("train cartpole --xyzzy", "unknown flag --xyzzy; see ridgeline train --help"),
        ("train cartpole --algorithm vpg --clip-coef 0.1", "unknown flag --clip-coef: it belongs to the algorithm ppo"),
        ("train cartpole pong", "unexpected argument 'pong'"),
        ("train cartpole --steps", "Missing value for argument '--steps'"),
        ("train cartpole --steps many", "--steps: 'many' is no INT; see ridgeline train --help"),
        ("train cartpole --activation gelu", "invalid choice 'gelu' for argument '--activation'"),
        ("train cartpole --num-minibatches 5", "not divisible by num_minibatches = 5; use one of 1, 2, 4"),
        ("train cartpole --steps 0", "total_steps = 0; use a whole number from 1"),
        ("train cartpole --seed -1", "seed = -1; use a whole number from 0"),
        ("train --resume nowhere", "nowhere holds no run"),
        ("evaluate nowhere", "nowhere holds no run"),
        ("evaluate", "RUN"),
        ("watch nowhere --gif a.gif", "nowhere holds no run"),
        ("list --jsn", "unknown flag --jsn; did you mean --json?"),
        ("bench", "write ridgeline bench environment NAME"),
        ("bench environment cartpol", "unknown environment 'cartpol'; did you mean cartpole"),
        ("reproduce", "FIGURE"),
        ("reproduce random-wlk", "unknown figure 'random-wlk'; did you mean random-walk?"),
        ("reproduce short-corridor --runs 1", "runs = 1; use a whole number from 2"),
        ("reproduce random-walk --seed -1", "seed = -1; use a whole number from 0"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run, line, words):
    code, out, err = run(line)
    assert code == 2
    assert words in err and err.startswith("ridgeline: ") and err.count("\n") == 1
    assert out == "" and not list(Path.cwd().rglob("*"))  # no run directory is left behind


def test_an_error_while_training_is_one_line_and_exit_code_1(run, tmp_path):
    (tmp_path / "mine.py").write_text(SLOW)
    code, out, err = run("train cartpole --algorithm mine.py --freeze --seed 1 --steps 320 --json --quiet", SMALL)
    assert code == 1
    assert "ridgeline: no run is left: run 0 was frozen because a test says so" in err and "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["stopped"] == "frozen"


def test_a_bug_keeps_its_traceback(run, tmp_path):
    (tmp_path / "mine.py").write_text(SLOW.replace("if int(", "raise ValueError('my own')\n        if int("))
    with pytest.raises(ValueError, match="my own"):
        run("train cartpole --algorithm mine.py --steps 32 --quiet", SMALL)


def test_an_error_of_numpy_is_no_message_for_people():
    with pytest.raises(ValueError) as error:
        int("x")
    assert not cli._is_for_people(error.value)
    with pytest.raises(ValueError) as error:
        parsed("")
    assert cli._is_for_people(error.value)


# ------------------------------------------------------------------------------------------------------------ commands


def test_help_and_version(run):
    code, out, _ = run("--help")
    assert code == 0 and all(name in out for name in cli.COMMANDS)
    assert run("--version") == (0, f"ridgeline {ridgeline.__version__}\n", "")
    assert run()[0] == 2
    benches = ("bench", "bench environment", "bench train")
    for command in ("train", "evaluate", "watch", "list", *benches, "reproduce", "cloud"):
        code, out, _ = run(f"{command} --help")
        assert code == 0 and f"usage: ridgeline {command}" in out


def test_list_names_everything(run):
    code, out, _ = run("list --json")
    names = json.loads(out.splitlines()[-1])
    assert code == 0
    assert names == {
        "environments": environments.names(),
        "algorithms": components.names("algorithm"),
        "estimators": components.names("estimator"),
        "policies": components.names("policy"),
    }
    assert "CartPole: balance a pole on a cart" in out


def test_train_json_is_the_last_line(run):
    code, out, err = run("train cartpole --runs 2 --steps 64 --json", SMALL)
    document = json.loads(out)
    assert code == 0 and out.count("\n") == 1
    assert {
        "environment", "algorithm", "estimator", "num_runs", "total_steps", "wall_seconds", "startup_seconds",
        "steps_per_second", "episode_return", "run_dir",
    } <= set(document)  # fmt: skip
    assert (document["environment"], document["algorithm"], document["estimator"]) == ("cartpole", "ppo", "gae")
    assert (document["num_runs"], document["total_steps"], len(document["episode_return"])) == (2, 64, 2)
    assert document["startup_seconds"] > 0 and Path(document["run_dir"], "config.json").exists()
    assert "cartpole, ppo, gae, mlp: 2 runs of 64 steps, seeds 0 to 1" in err and "The run is in runs" in err


def test_settings_reach_the_training(run, tmp_path):
    (tmp_path / "spring.py").write_text(SPRING)
    code, _, _ = run(
        "train spring.py --environment.num-weights 3 --seed 7 --runs 2 --steps 60 --out a --gamma 0.5", SMALL
    )
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert code == 0
    assert config["parameters"] == {"num_weights": 3} and config["seeds"] == [7, 8] and config["total_steps"] == 60
    assert config["estimator"]["fields"]["gamma"] == 0.5 and config["policy"]["fields"]["hidden_sizes"] == [4]


def test_the_commands_named_at_the_end_work(run, tmp_path):
    (tmp_path / "spring.py").write_text(SPRING)
    (tmp_path / "mine.py").write_text(SLOW)
    _, out, _ = run("train spring.py --algorithm mine.py --minutes 1e-9 --steps 960 --out a", SMALL)
    named = [line.split("ridgeline ")[1] for line in out.splitlines() if " ridgeline " in line]
    assert [line.split()[0] for line in named] == ["train", "watch", "evaluate"]
    code, out, _ = run(named[0])
    assert code == 0 and "Finished after 960 steps" in out
    code, out, err = run(named[2], "--episodes 2 --json")
    document = json.loads(out.splitlines()[-1])
    assert code == 0 and err == ""
    assert document["episode_return"] == [2.5] and document["episode_length"] == [5.0]  # five steps of 0.5
    assert document["greedy_episode_return"] == [2.5] and document["run_dir"] == "a"
    code, out, err = run(named[1])
    assert code == 2 and "no terminal; write a film with --gif FILE" in err


def test_watch_writes_a_film(run):
    run("train cartpole --steps 32 --out a --quiet", SMALL)
    code, out, _ = run("watch a --gif film.gif --greedy")
    assert code == 0 and "The film is film.gif" in out and Path("film.gif").stat().st_size > 1000
    code, out, _ = run("watch a --gif film.gif --json")
    document = json.loads(out.splitlines()[-1])
    assert document["run_dir"] == "a" and document["gif"] == "film.gif" and len(document["episode_return"]) == 1


def test_a_resumed_run_takes_no_settings(run):
    run("train cartpole --steps 64 --out a --quiet", SMALL)
    code, _, err = run("train --resume a --learning-rate 1 --no-shared-trunk --seed=3")
    assert code == 2 and "leave --learning-rate, --seed, --shared-trunk away" in err and "--init a" in err


def test_an_existing_run_is_not_written_over(run):
    run("train cartpole --steps 32 --out a --quiet", SMALL)
    code, _, err = run("train cartpole --steps 32 --out a --quiet", SMALL)
    assert code == 2 and "a already holds a run" in err


def test_two_trainings_in_one_second_get_two_directories(monkeypatch):
    monkeypatch.setattr(cli.time, "strftime", lambda _: "now")
    claimed = [
        train_command.claim(None, name, "mine.py") for name in ("dir/my_env.py", "dir/my_env.py", "module:Class")
    ]
    assert claimed == [Path("runs/my_env-mine-now"), Path("runs/my_env-mine-now-2"), Path("runs/module-Class-mine-now")]


def test_bench(run):
    code, out, _ = run("bench environment cartpole --envs 16 --seconds 0.01 --json")
    document = json.loads(out.splitlines()[-1])
    assert code == 0 and document["steps_per_second"] > 0 and document["num_envs"] == 16
    code, out, _ = run("bench train cartpole --seconds 0.01 --json", SMALL)
    document = json.loads(out.splitlines()[-1])
    assert code == 0 and document["fraction"] == pytest.approx(
        document["steps_per_second"] / document["arithmetic_limit"]
    )


def test_json_is_strict(capsys):
    import numpy as np

    cli.print_json({"a": float("nan"), "b": np.float32(0.5), "c": np.arange(2), "d": Path("x"), "e": float("-inf")})
    assert capsys.readouterr().out == '{"a": null, "b": 0.5, "c": [0, 1], "d": "x", "e": null}\n'


def test_a_terminal_gets_the_live_view_and_nothing_else_does(monkeypatch):
    names = ["a", "b", "c", "d"]
    asked = options.Train(environment="a")
    assert type(train_command.view_of(asked, names, view.AGAIN)) is view.PlainView
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert type(train_command.view_of(asked, names, view.AGAIN)) is view.LiveView
    quiet = dataclasses.replace(asked, quiet=True)
    assert type(train_command.view_of(quiet, names, view.AGAIN)) is view.QuietView
    monkeypatch.setenv("TERM", "dumb")
    assert type(train_command.view_of(asked, names, view.AGAIN)) is view.PlainView


# ------------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize(
    ("number", "stopped", "code"), [(signal.SIGINT, "interrupt", 130), (signal.SIGTERM, "terminate", 143)]
)
def test_a_signal_ends_the_iteration_and_saves(run, tmp_path, number, stopped, code):
    (tmp_path / "mine.py").write_text(SLOW)
    before = signal.getsignal(number)
    line = f"train cartpole --algorithm mine.py --signals {int(number)} --steps 3200 --out a --json"
    found, out, err = run(line, SMALL)
    document = json.loads(out)
    assert found == code and document["stopped"] == stopped and document["total_steps"] == 64
    assert [path.name for path in (tmp_path / "a" / "checkpoints").iterdir()] == ["step_000000000064.safetensors"]
    assert "stopping after this iteration" in err and "ridgeline train --resume a --algorithm mine.py" in err
    assert signal.getsignal(number) is before


def start(*words):
    """The command in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-m", "ridgeline", *" ".join(words).split()], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="Windows sends no signals to a process")
def test_ctrl_c_once_saves_and_twice_exits_at_once(tmp_path):
    asleep = SLOW.replace("signal.raise_signal(number)", "print('asleep', flush=True); time.sleep(60)")
    (tmp_path / "sleeper.py").write_text(asleep)
    process = start("train cartpole --steps 1000000000 --out a", *SMALL)
    assert process.stdout is not None
    while "steps/s" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err and "Interrupted after" in out
    assert list((tmp_path / "a" / "checkpoints").glob("*.safetensors"))

    process = start("train cartpole --algorithm sleeper.py --signals 1 --steps 1000000000 --out b", *SMALL)
    assert process.stdout is not None
    while "asleep" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    while "stopping after this iteration" not in process.stdout.readline():
        assert process.poll() is None
    asked = time.perf_counter()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert time.perf_counter() - asked < 10  # the iteration sleeps for a minute
    assert not list((tmp_path / "b" / "checkpoints").glob("*.safetensors"))


# ------------------------------------------------------------------------------------------------------------ starting


def test_what_needs_no_training_imports_no_torch():
    code = (
        "import sys; from ridgeline import cli; codes = [cli.main([word]) for word in ('--help', 'list', 'trian')];"
        "slow = {'torch', 'numba', 'gymnasium', 'numpy', 'rich'} & set(sys.modules); assert codes == [0, 0, 2], codes;"
        "assert not slow, slow"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_messages_of_tyro_come_down_to_one_line():
    box = "╭─ Value error ────╮\n│ Error parsing --a: bad │\n│ value 3. │\n│ ──── │\n│ Argument helptext: │\n╰────╯\n"
    assert arguments._one_line(box) == "--a: bad value 3"
    assert arguments._one_line("\x1b[31m╭─╮\x1b[0m\n│ red │\n╰─╯") == "red"
    plain = (
        " Value error\n ------\n  Error parsing --a: no type matching {None}|INT could be instantiated from\n  ['x'].\n"
        "\n  Got errors:\n  - int: invalid\n ------\n Argument helptext:"
    )
    assert arguments._one_line(plain) == "--a: 'x' is no INT"
    assert arguments._one_line("something else entirely") == "something else entirely"


PICTURES = '''
"""A picture to look at."""
import numpy as np
from gymnasium import spaces
from ridgeline.kernel import state_dtype

State = state_dtype(count=np.int64)
observation_space = spaces.Box(0, 255, (12, 12, 1), np.uint8)
action_space = spaces.Discrete(2)
max_episode_steps = 5


def reset(state, p):
    state.count = 0


def step(state, action, p):
    state.count += 1
    return 1.0, False


def observe(state, observation, p):
    observation[:] = state.count
'''


def test_the_policy_suits_the_environment_where_none_is_named(tmp_path, monkeypatch):
    """The flags are those of the policy that will be trained, wherever the environment stands on the line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures.py").write_text(PICTURES)
    assert names_of(["pictures.py"])["policy"] == "cnn" and names_of(["cartpole"])["policy"] == "mlp"
    assert names_of(["--out", "pictures.py", "cartpole"])["policy"] == "mlp"
    found = parsed("--channels 4 --runs 2 pictures.py --encoder impala")
    assert found.names["policy"] == "cnn" and found.policy.channels == (4,) and found.policy.encoder == "impala"
    assert parsed("pictures.py --policy gru --state-size 8").policy.state_size == 8
    with pytest.raises(UsageError, match="unknown flag --state-size: it belongs to the policy gru"):
        parsed("pictures.py --state-size 8")


def test_every_policy_is_listed():
    from ridgeline.catalogue import summaries

    listed = summaries("policies")
    assert sorted(listed) == sorted(components.names("policy")) and all(len(line) > 20 for line in listed.values())

"""One word per thing: identifiers use full singular words, and none of their synonyms."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "ridgeline"
# They, and docs/adapters.md, speak other people's language.
FREE = ("adapters", "gymnasium_rows.py", "gymnasium.py", "pettingzoo.py")
FOREIGN = {"pi", "trunc"}  # attributes of math and NumPy

# Each banned word, as a whole part of an identifier (`next_obs`, `ObsNorm`), and the reason.
BANNED = {
    "obs": "observation",
    "rew": "reward",
    "rews": "reward",
    "acts": "action",
    "done": "terminated or truncated: the difference is the field's commonest silent bug",
    "dones": "terminated or truncated: the difference is the field's commonest silent bug",
    "term": "terminated",
    "trunc": "truncated",
    "logp": "log_prob",
    "logpi": "log_prob",
    "logprob": "log_prob",
    "logprobs": "log_prob",
    "logratio": "log_ratio",
    "ent": "entropy",
    "val": "value",
    "vals": "value",
    "vf": "value; value_coef for the coefficient",
    "adv": "advantage",
    "advs": "advantage",
    "lam": "gae_lambda",
    "lamb": "gae_lambda",
    "lamda": "gae_lambda",
    "lambd": "gae_lambda",
    "lmbda": "gae_lambda",
    "discount": "gamma",
    "lr": "learning_rate",
    "ret": "return_to_go or episode_return",
    "rets": "return_to_go or episode_return",
    "rtg": "return_to_go",
    "ep": "episode (or epoch, which is why)",
    "eplen": "episode_length",
    "epret": "episode_return",
    "traj": "rollout",
    "trajs": "rollout",
    "nenv": "num_envs: counts begin with num_",
    "nenvs": "num_envs: counts begin with num_",
    "nsteps": "num_steps or rollout_length",
    "nminibatches": "num_minibatches",
    "timestep": "step: one environment transition",
    "timesteps": "total_steps; a step is one environment transition",
    "frameskip": "frames per action: a step is one decision, never a frame",
}

# Whole identifiers, and patterns over parts that are harmless alone.
BANNED_PATTERNS = {
    r"n_(?!step(_|$))\w+": "num_ ...: counts begin with num_ (n_step, the estimator, is a word of the field)",
    r"act_(dim|dims|space|size|shape|batch|mask|limit|low|high)": "action_ ...",
    r"(last|next|prev|new|old|b|mb|final)_act": "action",
    r"(pi|ac|actor_critic)": "policy",
    r"(clip_range|clip_eps|clip_ratio|cliprange|clip_epsilon)": "clip_coef",
    r"(ent_coef|entropy_weight|entcoef)": "entropy_coef",
    r"(vf_coef|vfcoef|value_weight)": "value_coef",
}


def identifiers(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every name in the source, with its line: variables, arguments, attributes, keywords, keys of dictionaries.

    `act` is a verb: a method, a profiling phase; it is banned where it is a noun, as a variable or an argument.
    """
    in_class = {id(target) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for target in fields(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
            if node.id == "act" and isinstance(node.ctx, ast.Store) and id(node) not in in_class:
                yield "act as a variable", node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
            if node.arg == "act":
                yield "act as an argument", node.lineno
        elif isinstance(node, ast.Attribute) and node.attr not in FOREIGN:
            yield node.attr, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg, node.value.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, node.lineno
        elif isinstance(node, ast.Dict | ast.Subscript):
            for key in node.keys if isinstance(node, ast.Dict) else [node.slice]:
                if isinstance(key, ast.Constant) and isinstance(key.value, str) and key.value.isidentifier():
                    yield key.value, key.lineno


def fields(node: ast.ClassDef) -> list[ast.expr]:
    """The names that a class body declares."""
    return [line.target for line in node.body if isinstance(line, ast.AnnAssign)]


def reason(identifier: str) -> str | None:
    """Why the identifier is banned; None where it is not."""
    if " as " in identifier:
        return "action: act is a verb"
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)
    for part in parts:
        if part.lower() in BANNED:
            return BANNED[part.lower()]
    for pattern, instead in BANNED_PATTERNS.items():
        if re.fullmatch(pattern, identifier.strip("_").lower()):
            return instead
    return None


def faults(package: Path) -> list[str]:
    """Each banned identifier with its file, line and the word to use."""
    found = []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if name.startswith(FREE):
            continue
        for identifier, line in identifiers(ast.parse(path.read_text(encoding="utf-8"))):
            instead = reason(identifier)
            if instead:
                found.append(f"{name}:{line}: {identifier}: say {instead}")
    return found


def test_no_synonyms():
    assert len(list(PACKAGE.rglob("*.py"))) >= 5
    assert not faults(PACKAGE), "\n".join(faults(PACKAGE))


@pytest.mark.parametrize(
    "source",
    [
        "obs = 1",
        "next_obs = 1",
        "def f(obs): pass",
        "def f(*, rew=0): pass",
        "lambda adv: 0",
        "f(logp=1)",
        "x.lam",
        "class ObsNorm: pass",
        "class RunningADV: pass",
        "def compute_adv(): pass",
        "{'dones': 1}",
        "info['done']",
        "import numpy as rew",
        "n_envs = 1",
        "self.n_steps = 1",
        "pi = 1",
        "act = policy(observation)",
        "def f(act): pass",
        "act_dim = 2",
        "for lr in x: pass",
        "[0 for val in x]",
        "_obs = 1",
        "_n_envs = 2",
    ],
)
def test_the_check_sees_what_it_should(tmp_path, source):
    (tmp_path / "train.py").write_text(source)
    assert len(faults(tmp_path)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "observation = env.observation; log_prob = reward = advantage = 0",
        "policy.act(observation)",
        "def act(self, observation): pass",
        "class Seconds:\n    act: float = 0.0",
        "Seconds(act=1.0)",
        "{'act': 0.1}; seconds['act']",
        "n_step = 3; n_step_return = 1; n = 3; num_envs = 4",
        "math.pi; np.trunc(x); actor = action_mask = episode = value = interval = relative = layer = 0",
        "'a sentence about obs'; {'not done': 1}",
        "import torch  # obs",
    ],
)
def test_the_check_leaves_what_it_should(tmp_path, source):
    (tmp_path / "train.py").write_text(source)
    assert not faults(tmp_path)


def test_adapters_are_free(tmp_path):
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "gymnasium.py").write_text("obs, rew, done = step()")
    assert not faults(tmp_path)

"""Ridgeline: policy-gradient reinforcement learning with many runs side by side.

    import ridgeline
    result = ridgeline.train("cartpole", total_steps=100_000, num_runs=4)
    print(result.episode_return)

The names below are the public interface; each is imported when it is first used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ridgeline.registration import register_when_imported

if TYPE_CHECKING:
    from ridgeline.environments import make, names
    from ridgeline.evaluation import evaluate
    from ridgeline.session import Result, Run, load, train
    from ridgeline.training import Training, iterate

__version__ = "0.1.0"
_HOMES = {
    "make": "environments",
    "names": "environments",
    "evaluate": "evaluation",
    "train": "session",
    "load": "session",
    "Result": "session",
    "Run": "session",
    "Training": "training",
    "iterate": "training",
}
__all__ = ["Result", "Run", "Training", "evaluate", "iterate", "load", "make", "names", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ridgeline' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"ridgeline.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


# Where Intel's vector functions are installed, Numba uses them, and a row's last bits would depend on its neighbours.
os.environ.setdefault("NUMBA_DISABLE_INTEL_SVML", "1")
register_when_imported()

"""Workers on a Ray cluster (the extra `ray`): tasks that may run, and die, on any of its nodes.

A ledger in a file stays on this machine, behind an actor that the workers call; PostgreSQL they reach themselves.
"""

import importlib
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ridgeline.sweep.database import LedgerError
from ridgeline.sweep.ledger import Ledger
from ridgeline.sweep.worker import work


def _ray() -> Any:
    """The module, without its reports of usage. Raises LedgerError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise LedgerError("Ray is missing: pip install 'ridgeline[ray]'") from None


def connect(address: str) -> int:
    """Join the cluster at `address` ("auto": the one that this machine is part of); the number of its cores."""
    ray = _ray()
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            what = " ".join(str(error).split())
            raise LedgerError(f"no Ray cluster at {address}: {what}; start one with ray start --head") from None
    return int(ray.cluster_resources().get("CPU", 1))


class _Served:
    """A ledger, for an actor: its methods by name."""

    def __init__(self, storage: str):
        self.ledger = Ledger(storage)

    def call(self, name: str, arguments: tuple, keywords: Mapping[str, Any]) -> Any:
        return getattr(self.ledger, name)(*arguments, **keywords)


class _Remote:
    """That ledger, as a worker on another machine sees it."""

    def __init__(self, actor: Any):
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        ray = _ray()
        return lambda *arguments, **keywords: ray.get(self._actor.call.remote(name, arguments, keywords))

    def close(self) -> None:
        """The ledger stays open for the others."""


def _task(actor: Any, asked: dict[str, Any]) -> dict[str, float]:
    """What a worker's task does. Training is one thread of the one core that it has."""
    os.environ["OMP_NUM_THREADS"] = "1"
    return work(**asked) if actor is None else work(**asked, ledger=_Remote(actor))  # type: ignore[arg-type]


class RayWorkers:
    """`count` workers of a cluster that is connected; `check` replaces those that die.

    Args: asked: the arguments of `worker.work`, all but the name.
    """

    def __init__(self, count: int, asked: Mapping[str, Any]):
        ray = _ray()
        self.asked, self.number, self.actor = dict(asked), 0, None
        if "://" not in self.asked["storage"]:
            strategies = importlib.import_module("ray.util.scheduling_strategies")
            here = strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            serve = ray.remote(_Served).options(num_cpus=0, scheduling_strategy=here)
            self.actor = serve.remote(str(Path(self.asked["storage"]).resolve()))
        self._task = ray.remote(_task).options(num_cpus=1, max_retries=0)
        self._names: dict[Any, str] = {}
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        self.number += 1
        name = f"{socket.gethostname()}:{os.getpid()}:ray-{self.number}"
        self._names[self._task.remote(self.actor, self.asked | {"name": name})] = name

    def check(self) -> list[str]:
        """Start anew those that died; returns their names."""
        ray = _ray()
        dead = []
        ready, _ = ray.wait(list(self._names), num_returns=len(self._names), timeout=0) if self._names else ([], [])
        for reference in ready:
            name = self._names.pop(reference)
            try:
                ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                cause = " ".join(str(error.cause).split())
                raise LedgerError(f"a worker cannot go on: {cause}") from None
            except ray.exceptions.RayError:  # its process or its node is gone
                dead.append(name)
                self._start()
        return dead

    def stop(self) -> None:
        """End them: they give back what they have."""
        ray = _ray()
        for reference in self._names:
            ray.cancel(reference)
        if self._names:
            ray.wait(list(self._names), num_returns=len(self._names), timeout=20)
        self._names = {}
        if self.actor is not None:
            ray.kill(self.actor)
            self.actor = None


def on_ray(count: int) -> Callable[[dict[str, Any]], RayWorkers]:
    """Workers of the connected cluster, for `conduct`."""
    return lambda asked: RayWorkers(count, asked)

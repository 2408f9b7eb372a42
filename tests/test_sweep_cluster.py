"""Sweeps past one machine, for real: PostgreSQL with four workers, Ray with several nodes; one of them is killed."""

import json
import signal
import subprocess
import sys

import pytest
from postgresql_server import postgresql
from test_sweep import SWEEP, finished_runs, start, wait_for

pytestmark = pytest.mark.slow


def check(storage, document) -> None:
    """Every trial has every run once, and each has ended."""
    assert sum(document["num_trials"].values()) == 30 and document["recommended"] is not None
    assert set(document["num_runs"]) <= {"finished", "pruned"}
    found = finished_runs(storage, "first")
    assert len({key for key in found if key[1] < 9}) == 60 and len(found) == 60 + 5 * 3


def test_four_workers_on_postgresql_one_of_them_killed(tmp_path):
    pytest.importorskip("optuna")
    with postgresql() as storage:
        common = ["--workers", 1, "--lease", 5]
        first = start(*SWEEP, *common, "--storage", storage, "--study", "first", "--out", tmp_path / "0", "--json")
        wait_for(storage, "first", 0)
        others = [start("--join", storage, "--out", tmp_path / str(n), *common, "--quiet") for n in (1, 2, 3)]
        before = wait_for(storage, "first", 6)
        others[0].send_signal(signal.SIGKILL)  # its worker ends with it, and gives nothing back in time or does
        said, _ = first.communicate(timeout=400)
        assert first.returncode == 0, said
        for other in others[1:]:
            its_words, _ = other.communicate(timeout=60)
            assert other.returncode == 0, its_words
        others[0].communicate()
        assert {key: run for key, run in finished_runs(storage, "first").items() if key in before} == before
        check(storage, json.loads(said.strip().splitlines()[-1]))


def test_a_conductor_that_is_killed_is_replaced_by_who_joined(tmp_path):
    """Whoever works may suggest: the sweep on PostgreSQL ends without the process that began it."""
    pytest.importorskip("optuna")
    with postgresql() as storage:
        common = ["--workers", 1, "--lease", 5]
        first = start(*SWEEP, *common, "--storage", storage, "--study", "first", "--out", tmp_path / "0")
        wait_for(storage, "first", 2)
        other = start("--join", storage, "--out", tmp_path / "1", *common, "--json")
        wait_for(storage, "first", 6)
        first.kill()
        first.communicate()
        said, _ = other.communicate(timeout=400)
        assert other.returncode == 0, said
        check(storage, json.loads(said.strip().splitlines()[-1]))


RAY = """
import os, signal, sys, threading, time
import ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(nodes[0], allow_graceful=False)
print("killed", flush=True)
sys.stdin.readline()
cluster.shutdown()
"""


def test_ray_with_three_nodes_one_of_them_killed(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # else loopback and network addresses are mixed
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("HOME", str(tmp_path))  # where it writes a token
    cluster = subprocess.Popen([sys.executable, "-c", RAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert cluster.stdin is not None and cluster.stdout is not None
    try:
        address = cluster.stdout.readline().strip()
        first = start(*SWEEP, "--ray", address, "--workers", 3, "--lease", 10, "--out", tmp_path / "first", "--json")
        storage = tmp_path / "first" / "ledger.sqlite"
        before = wait_for(storage, "first", 6, 300)
        cluster.stdin.write("kill\n")
        cluster.stdin.flush()
        assert cluster.stdout.readline().strip() == "killed"
        said, _ = first.communicate(timeout=500)
        assert first.returncode == 0, said
        assert {key: run for key, run in finished_runs(storage, "first").items() if key in before} == before
        check(storage, json.loads(said.strip().splitlines()[-1]))
    finally:
        if cluster.poll() is None:
            cluster.communicate("end\n", timeout=60)

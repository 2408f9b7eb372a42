"""Checkpoints: every bit comes back, every damage is refused, and no crash leaves less than the one before."""

import errno
import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from ridgeline import checkpoint
from ridgeline.checkpoint import CheckpointError, load, load_newest, save, write_json

TENSORS = {"weight": torch.arange(6, dtype=torch.float32).reshape(2, 3), "count": np.array(7, np.int64)}
DOCUMENT = {"seed": 3, "environment": "cartpole"}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def bits(tensor: torch.Tensor | np.ndarray) -> bytes:
    return (tensor.numpy() if isinstance(tensor, torch.Tensor) else tensor).tobytes()


# ----------------------------------------------------------------------------------------------------------- roundtrip


@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 0, 2), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.uint64, np.float32, np.float64])
def test_every_bit_comes_back(tmp_path, dtype, shape):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    random = np.random.default_rng(0).integers(0, 2 if dtype is np.bool_ else 256, size).astype(np.uint8)
    array = random.view(dtype).reshape(shape)
    path = save(tmp_path, 1, {"array": array, "tensor": torch.from_numpy(array.copy())}, {})
    for tensor in load(path).tensors.values():
        assert tensor.dtype == torch.from_numpy(array.copy()).dtype and tuple(tensor.shape) == shape
        assert bits(tensor) == array.tobytes()


def test_payloads_of_nan_and_the_sign_of_zero_come_back(tmp_path):
    words = [0x7FF8000000000001, 0xFFF8DEADBEEF0001, 0x7FF0000000000001, 0x8000000000000000, 0x7FF0000000000000]
    array = np.array(words, np.uint64).view(np.float64)
    assert bits(load(save(tmp_path, 0, {"x": array}, {})).tensors["x"]) == array.tobytes()


def test_views_parameters_and_arrays_of_any_layout(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    read_only = np.arange(4)
    read_only.flags.writeable = False
    tensors = {
        "row": base[1],
        "again": base[1],
        "transposed": base.T,
        "parameter": torch.nn.Parameter(base),
        "every_second": np.arange(10)[::2],
        "read_only": read_only,
        "half": base.to(torch.bfloat16),
    }
    read = load(save(tmp_path, 0, tensors, {})).tensors
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(read[name], torch.tensor(tensor) if isinstance(tensor, np.ndarray) else tensor), name
        assert not read[name].requires_grad


def test_what_is_loaded_can_be_changed_in_place(tmp_path):
    path = save(tmp_path, 0, TENSORS, {})
    load(path).tensors["weight"].add_(1)
    assert torch.equal(load(path).tensors["weight"], torch.as_tensor(TENSORS["weight"]))


def test_document_comes_back(tmp_path):
    document = {
        "text": 'a "quoted" \\ line\nnext, "sha256":"' + "0" * 64 + '" and ünïcode ☃',
        "floats": [0.1, 1e308, 5e-324, -0.0, float("inf"), float("-inf")],
        "big": 2**70,
        "nothing": None,
        "nested": {"list": [True, {"deep": []}]},
    }
    found = load(save(tmp_path, 12, {}, {**document, "numpy": np.float64(0.5), "path": Path("runs")}))
    assert found.step == 12 and found.tensors == {}
    assert found.document == {**document, "numpy": 0.5, "path": "runs"}
    assert str(found.document["floats"][3]) == "-0.0"
    assert np.isnan(load(save(tmp_path, 13, {}, {"x": float("nan")})).document["x"])


def test_a_document_that_is_no_json_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(TypeError, match="set cannot be written as JSON"):
        save(tmp_path, 0, {}, {"names": {"a"}})
    assert not names(tmp_path)


def test_the_file_is_plain_safetensors(tmp_path):
    path = save(tmp_path, 5, TENSORS, DOCUMENT)
    with safetensors.safe_open(path, "pt") as file:
        envelope = json.loads(file.metadata()["ridgeline"])
        assert torch.equal(file.get_tensor("weight"), torch.as_tensor(TENSORS["weight"]))
    assert envelope == {"format": "ridgeline checkpoint", "version": 1, "step": 5, "document": DOCUMENT}


# ------------------------------------------------------------------------------------------------------ keep and order


def test_the_newest_are_kept(tmp_path):
    for step in (5, 40, 300, 2000, 10_000_000_000_000):
        path = save(tmp_path, step, TENSORS, {"step": step}, keep=2)
        assert path.exists()
    assert names(tmp_path) == ["step_000000002000.safetensors", "step_10000000000000.safetensors"]
    found = load_newest(tmp_path)
    assert found is not None and found.step == found.document["step"] == 10_000_000_000_000
    assert found.skipped == [] and found.path == path


def test_the_same_step_is_replaced(tmp_path):
    save(tmp_path, 1, TENSORS, {"attempt": 1})
    path = save(tmp_path, 1, TENSORS, {"attempt": 2})
    assert load(path).document == {"attempt": 2} and names(tmp_path) == [path.name]


def test_a_damaged_later_one_is_neither_used_nor_counted_nor_a_reason_to_remove_a_good_one(tmp_path):
    good, bad = save(tmp_path, 10, TENSORS, {}), save(tmp_path, 20, TENSORS, {})
    bad.write_bytes(bad.read_bytes()[:-1])
    new = save(tmp_path, 15, TENSORS, {}, keep=1)
    assert names(tmp_path) == [new.name, bad.name] and not good.exists()
    found = load_newest(tmp_path)
    assert found is not None and found.step == 15


def test_stale_temporaries_and_nothing_else_are_removed(tmp_path):
    (tmp_path / ".step_000000000001.safetensors.4711.tmp").write_bytes(b"half")
    (tmp_path / "step_notes.safetensors").write_bytes(b"a user's file")
    (tmp_path / "best.safetensors").write_bytes(b"a user's file")
    path = save(tmp_path, 2, TENSORS, {}, keep=1)
    assert names(tmp_path) == ["best.safetensors", path.name, "step_notes.safetensors"]
    found = load_newest(tmp_path)
    assert found is not None and found.step == 2


@pytest.mark.parametrize(("step", "keep"), [(-1, 3), (0, 0)])
def test_step_and_keep_are_checked(tmp_path, step, keep):
    with pytest.raises(ValueError, match="step from 0 and keep from 1"):
        save(tmp_path, step, {}, {}, keep)


def test_nothing_there_is_none(tmp_path):
    assert load_newest(tmp_path) is None
    assert load_newest(tmp_path / "missing") is None


# -------------------------------------------------------------------------------------------------------------- damage


def test_every_flipped_byte_is_refused(tmp_path):
    path = save(tmp_path, 0, TENSORS, DOCUMENT)
    content = path.read_bytes()
    assert load(path).document == DOCUMENT
    for position in range(len(content)):
        altered = bytearray(content)
        altered[position] ^= (1, 0x20, 0x80)[position % 3]
        path.write_bytes(altered)
        with pytest.raises(CheckpointError):
            load(path)


def test_every_cut_and_every_addition_is_refused(tmp_path):
    path = save(tmp_path, 0, TENSORS, DOCUMENT)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="cut or altered"):
            load(path)
    for more in (content + b"\0", content + content, content.replace(b'{"', b' {"', 1)):
        path.write_bytes(more)
        with pytest.raises(CheckpointError, match="altered"):
            load(path)


def test_another_version_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    path = save(tmp_path, 0, TENSORS, DOCUMENT)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"it is of version 2 and this Ridgeline reads version 1; go on with"):
        load(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "step_000000000000.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="not a Ridgeline checkpoint"):
        load(path)
    safetensors.torch.save_file({"x": torch.zeros(3)}, path, {"ridgeline": '{"format": "other"}'})
    with pytest.raises(CheckpointError, match="not a Ridgeline checkpoint"):
        load(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(tmp_path / "missing.safetensors")


@pytest.mark.parametrize(
    "header",
    [b"[]", b"null", b"{" * 5000, b"[" * 100_000, b'{"__metadata__": {"ridgeline": "[1]"}}', b"\xff\xfe", b""],
)
def test_headers_that_are_no_header_are_refused(tmp_path, header):
    path = tmp_path / "forged.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CheckpointError):
        load(path)


@pytest.mark.parametrize(
    ("tensor", "step", "message"),
    [
        ({"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}, 0, "tensors cannot be read"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}, 0, "tensors cannot be read"),
        ({"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}, 0, "tensors cannot be read"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "0", "no step or no document"),
    ],
)
def test_a_forged_file_with_a_right_hash_is_still_only_read_within_its_bounds(tmp_path, tensor, step, message):
    envelope = {"format": checkpoint.FORMAT, "version": checkpoint.VERSION, "step": step, "document": {}}
    header = {"__metadata__": {"ridgeline": json.dumps(envelope), "sha256": "0" * 64}, "x": tensor}
    text = json.dumps(header, separators=(",", ":")).encode()
    content = struct.pack("<Q", len(text)) + text + bytes(4)
    digest = hashlib.sha256(content).hexdigest().encode()
    path = tmp_path / "forged.safetensors"
    path.write_bytes(content.replace(b"0" * 64, digest))
    with pytest.raises(CheckpointError, match=message):
        load(path)


class Bomb:
    """Unpickling one creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_is_executed(tmp_path):
    fired = tmp_path / "fired"
    path = tmp_path / "step_000000000009.safetensors"
    for dump in (lambda: path.write_bytes(pickle.dumps(Bomb(fired))), lambda: torch.save(Bomb(fired), path)):
        dump()
        with pytest.raises(CheckpointError, match="no checkpoint can be used"):
            load_newest(tmp_path)
    assert not fired.exists()
    pickle.loads(pickle.dumps(Bomb(fired)))
    assert fired.exists(), "the bomb must be able to go off, or this test shows nothing"


def test_the_newest_that_verifies_is_loaded_and_the_others_are_named(tmp_path):
    paths = [save(tmp_path, step, TENSORS, {"step": step}, keep=9) for step in range(4)]
    paths[3].write_bytes(b"")
    content = bytearray(paths[2].read_bytes())
    content[-1] ^= 1
    paths[2].write_bytes(content)
    found = load_newest(tmp_path)
    assert found is not None and found.step == found.document["step"] == 1
    (first, first_reason), (second, second_reason) = found.skipped
    assert (first, second) == (paths[3], paths[2])
    assert first_reason == "cut or altered: it ends within its header"
    assert second_reason == "cut or altered: its SHA-256 does not match its content"


def test_when_none_verifies_the_error_names_each(tmp_path):
    for step in (1, 2):
        save(tmp_path, step, TENSORS, {}).write_bytes(b"x" * step)
    with pytest.raises(CheckpointError) as error:
        load_newest(tmp_path)
    assert "step_000000000001.safetensors: cut" in str(error.value) and "step_000000000002" in str(error.value)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------ full disk and crashes


class FullFile:
    """A file on a disk with room for 100 more bytes."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, content):
        self.file.write(content[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill_at_write(monkeypatch):
    monkeypatch.setattr(checkpoint, "open", lambda path, mode: FullFile(open(path, mode)), raising=False)


def fill_at_flush(monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint.os, "fsync", full)


@pytest.mark.parametrize("fill", [fill_at_write, fill_at_flush])
def test_a_full_disk_is_one_line_and_changes_nothing(tmp_path, monkeypatch, fill):
    for step in range(3):
        save(tmp_path, step, TENSORS, DOCUMENT)
    write_json(tmp_path / "summary.json", {"old": True})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    fill(monkeypatch)
    with pytest.raises(CheckpointError, match="not written: No space left on device") as error:
        save(tmp_path, 3, TENSORS, DOCUMENT, keep=1)
    assert "step_000000000003" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="No space left on device"):
        write_json(tmp_path / "summary.json", {"new": True})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_directory_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="not written"):
        save(tmp_path / "file" / "checkpoints", 0, TENSORS, {})


# One process imports torch once; its forks are what is killed.
CRASHES = """
import builtins, json, os, random, resource, signal, sys, time
from pathlib import Path
import torch
from ridgeline import checkpoint
from ridgeline.checkpoint import CheckpointError, load_newest, save

def save_step(step, size=300_000):
    save(root, step, {"x": torch.full((size,), step), "empty": torch.zeros(0)}, {"step": step}, keep=2)

def fork(work):
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return child

def check():
    found = load_newest(root)
    assert found is not None and not found.skipped, found
    assert found.document == {"step": found.step} and bool((found.tensors["x"] == found.step).all())
    return found.step

def at_random_moments():
    def forever():
        for step in range(check() + 1, 10**9):
            save_step(step)
    save_step(0)
    steps = []
    for _ in range(10):
        child = fork(forever)
        time.sleep(random.uniform(0.002, 0.15))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        steps.append(check())
    return steps

def at_every_operation():
    # the child ends itself before its n-th operation on files, in the middle of a write, or after it
    def run(last):
        done = 0
        def around(function):
            def wrapped(*arguments, **options):
                nonlocal done
                done += 1
                if done == last:
                    os._exit(9)
                return function(*arguments, **options)
            return wrapped
        class Halves:
            def __init__(self, file):
                self.file, self.flush, self.fileno = file, around(file.flush), file.fileno
            def __enter__(self):
                return self
            def __exit__(self, *_):
                self.file.close()
            def write(self, content):
                for half in (content[:1000], content[1000:]):
                    around(self.file.write)(half)
                    self.file.flush()
        os.fsync, os.replace = around(os.fsync), around(os.replace)
        Path.unlink = around(Path.unlink)
        checkpoint.open = around(lambda *arguments: Halves(builtins.open(*arguments)))
        save_step(check() + 1, 1000)
    for step in range(3):
        save_step(step, 1000)
    outcomes = []
    for last in range(1, 100):
        before = check()
        status = os.waitstatus_to_exitcode(os.waitpid(fork(lambda: run(last)), 0)[1])
        after = check()
        outcomes.append(after - before)
        assert after - before in (0, 1) and status in (0, 9)
        if status == 0:
            return outcomes

def limited():
    save_step(0)
    before = {path: path.read_bytes() for path in root.iterdir()}
    def run():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save_step(1)
        except CheckpointError as error:
            (root.parent / "message").write_text(str(error))
    os.waitpid(fork(run), 0)
    assert {path: path.read_bytes() for path in root.iterdir()} == before
    return [(root.parent / "message").read_text(), check()]

results = {}
for experiment in (at_random_moments, at_every_operation, limited):
    root = Path(sys.argv[1]) / experiment.__name__
    results[experiment.__name__] = experiment()
print(json.dumps(results))
"""


linux = pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has imported torch")


@pytest.fixture(scope="module")
def crashes(tmp_path_factory):
    """The directory of the three experiments, and what each returned."""
    directory = tmp_path_factory.mktemp("crashes")
    source = str(Path(checkpoint.__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    command = [sys.executable, "-c", CRASHES, str(directory)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert result.returncode == 0, result.stderr
    return directory, json.loads(result.stdout)


@linux
def test_killed_at_random_moments_the_newest_always_verifies(crashes):
    directory, results = crashes[0] / "at_random_moments", crashes[1]
    steps = results["at_random_moments"]
    assert len(steps) == 10 and steps == sorted(steps)
    assert steps[-1] > 0, "it must have saved between the kills"
    save(directory, steps[-1] + 1, TENSORS, {}, keep=2)
    assert len(names(directory)) == 2 and not any(name.endswith(".tmp") for name in names(directory))


@linux
def test_ended_at_every_operation_there_is_the_old_one_or_the_new_one(crashes):
    outcomes = crashes[1]["at_every_operation"]
    assert outcomes[0] == 0 and outcomes[-1] == 1  # before anything; when nothing stopped it
    assert len(outcomes) >= 8, "open, two writes, flush, fsync, replace, fsync, remove"


@linux
def test_a_limit_of_the_file_size_is_met_like_a_full_disk(crashes):
    message, step = crashes[1]["limited"]
    assert "step_000000000001.safetensors: not written: File too large" in message and step == 0


# ---------------------------------------------------------------------------------------------------------- write_json


def test_write_json_is_strict_and_whole(tmp_path):
    path = tmp_path / "new" / "summary.json"
    document = {
        "episode_return": [1.5, float("nan"), np.float64("inf"), np.float32(0.5), np.int64(3)],
        "nested": {"low": -np.inf, "pair": (1, 2)},
        "path": Path("runs") / "a",
        "name": "Zoë",
        3: True,
    }
    write_json(path, document)

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    text = path.read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse) == {
        "episode_return": [1.5, None, None, 0.5, 3],
        "nested": {"low": None, "pair": [1, 2]},
        "path": str(Path("runs") / "a"),
        "name": "Zoë",
        "3": True,
    }
    assert text.endswith("}\n") and names(path.parent) == ["summary.json"]


def test_write_json_replaces(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})
    write_json(path, {"b": 2})
    assert json.loads(path.read_text()) == {"b": 2}
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        write_json(path, {"c": object()})
    assert json.loads(path.read_text()) == {"b": 2} and names(tmp_path) == ["summary.json"]

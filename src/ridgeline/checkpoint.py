"""Checkpoints: everything a training needs to go on, in one file that is whole or not there.

A checkpoint is one safetensors file, `step_000000123456.safetensors`. Its tensors are the state; its metadata holds
    ridgeline   JSON: {"format": "ridgeline checkpoint", "version": 1, "step": ..., "document": {...}}
    sha256      SHA-256 of the whole file, taken with these 64 characters as zeros
One file, and not a directory or one file for each kind, because replacing a file is one atomic operation on POSIX and
on Windows, where a directory cannot replace another: there is no half of a checkpoint, and nothing to keep in step.
The hash covers every byte, names, shapes and document included. It finds damage, not forgery; but a forged file can do
no more than hold wrong numbers, as nothing but numbers and JSON is ever read (no pickle, no import).

Writing: a temporary file beside, flushed to the disk, renamed, the directory flushed; then older ones are removed.
After `kill -9` or a power cut the newest that verifies is either the new one or the one before.
"""

import hashlib
import json
import math
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

FORMAT = "ridgeline checkpoint"
VERSION = 1

_NAME = re.compile(r"step_(\d{12,})\.safetensors")
_HASH_FIELD = b'"sha256":"'  # unescaped quotes: it cannot occur within a name or the document
_NO_HASH = b"0" * 64


class CheckpointError(RuntimeError):
    """A checkpoint or run file that cannot be written or read; one line that names the file and the reason."""


@dataclass(frozen=True)
class Checkpoint:
    """One verified checkpoint. `skipped` names newer ones that were refused, each with the reason."""

    path: Path
    step: int
    tensors: dict[str, torch.Tensor]
    document: dict[str, Any]
    skipped: list[tuple[Path, str]] = field(default_factory=list)


# ------------------------------------------------------------------------------------------------------------- writing


def save(
    directory: Path,
    step: int,
    tensors: dict[str, torch.Tensor | np.ndarray],
    document: dict[str, Any],
    keep: int = 3,
) -> Path:
    """Write the checkpoint of `step` into `directory`, remove all but the newest `keep`, and return its path.

    Tensors keep every bit (NaN payloads, empty and 0-d ones too). The document comes back as JSON gives it: tuples as
    lists, keys as strings, floats exactly, NaN and infinities included (Python's JSON writes them as NaN, Infinity).
    Checkpoints of later steps than `step`, from a training that was taken back, are left alone and not counted.

    Raises:
        CheckpointError: the file cannot be written (full disk, no permission). Earlier checkpoints stay untouched.
        TypeError: a value of the document that JSON does not know.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"step = {step}, keep = {keep}; use step from 0 and keep from 1")
    directory = Path(directory)
    path = directory / f"step_{step:012d}.safetensors"
    _write_beside(path, _content(step, tensors, document))
    _remove_old(directory, path, step, keep)
    return path


def write_json(path: Path, document: Any) -> None:
    """Write a run directory's JSON file, whole or not at all: beside, flushed, renamed.

    Strict JSON, readable by every parser: NaN and infinite numbers become null, NumPy numbers plain ones, paths text.

    Raises:
        CheckpointError: the file cannot be written; the one before stays untouched.
        TypeError: a value that JSON does not know.
    """
    text = json.dumps(_without_non_finite(document), indent=2, allow_nan=False, default=_plain, ensure_ascii=False)
    _write_beside(Path(path), [(text + "\n").encode()])


def write_lines(path: Path, documents: list[Any]) -> None:
    """The same for JSON lines, one document each. Raises what `write_json` raises."""
    settings: dict[str, Any] = {"allow_nan": False, "default": _plain, "ensure_ascii": False}
    lines = [json.dumps(_without_non_finite(document), **settings) + "\n" for document in documents]
    _write_beside(Path(path), ["".join(lines).encode()])


def _content(step: int, tensors: dict[str, torch.Tensor | np.ndarray], document: dict[str, Any]) -> list:
    """The bytes of the file, in three pieces: the middle one is its hash."""
    ours = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, torch.Tensor):
            ours[name] = tensor.detach().to("cpu", copy=True).contiguous()  # the format has no views of one memory
        else:
            ours[name] = torch.from_numpy(np.array(tensor, order="C"))
    envelope = {"format": FORMAT, "version": VERSION, "step": int(step), "document": document}
    metadata = {"ridgeline": json.dumps(envelope, default=_plain), "sha256": _NO_HASH.decode()}
    content = safetensors.torch.save(ours, metadata)
    place, view = _hash_place(content), memoryview(content)
    return [view[:place], hashlib.sha256(content).hexdigest().encode(), view[place + 64 :]]


def _plain(value: Any) -> Any:
    """JSON's view of what `json` does not know."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON; use numbers, strings, lists and dicts")


def _without_non_finite(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_non_finite(item) for item in value]
    return value


def _write_beside(path: Path, pieces: list) -> None:
    """Put the `pieces` of bytes at `path`: a reader, now or after a crash, sees all of it or what was there before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        with suppress(OSError):  # some network file systems cannot: the file is in its place all the same
            _flush_directory(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"{path}: not written: {reason}; what was there before is untouched") from None


def _flush_directory(directory: Path) -> None:
    """Make a rename survive a power cut. Windows has no such call and needs none."""
    if os.name == "posix":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove_old(directory: Path, newest: Path, step: int, keep: int) -> None:
    """Remove checkpoints before the last `keep`, and temporaries that a killed process left."""
    old = [path for path in _newest_first(directory) if path != newest and _step_of(path) <= step][keep - 1 :]
    for path in [*old, *directory.glob(".step_*.safetensors.*.tmp")]:
        with suppress(OSError):  # in use elsewhere: the next save removes it
            path.unlink()


# ------------------------------------------------------------------------------------------------------------- reading


def load_newest(directory: Path) -> Checkpoint | None:
    """The newest checkpoint in `directory` that verifies; None where there is none at all.

    Raises:
        CheckpointError: there are checkpoints and each is refused; the message names them with their reasons.
    """
    skipped: list[tuple[Path, str]] = []
    for path in _newest_first(Path(directory)):
        try:
            found = load(path)
        except CheckpointError as error:
            skipped.append((path, str(error).removeprefix(f"{path}: ")))
        else:
            return Checkpoint(found.path, found.step, found.tensors, found.document, skipped)
    if skipped:
        refused = "; ".join(f"{path.name}: {reason}" for path, reason in skipped)
        raise CheckpointError(f"{directory}: no checkpoint can be used ({refused})")
    return None


def load(path: Path) -> Checkpoint:
    """The checkpoint at `path`, verified.

    Raises:
        CheckpointError: it is missing, cut, altered, of another version, or no checkpoint.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        envelope = _envelope(content)
        _verify(content)
        return Checkpoint(path, envelope["step"], safetensors.torch.load(content), envelope["document"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, AssertionError) as error:
        raise CheckpointError(f"{path}: its tensors cannot be read: {' '.join(str(error).split())}") from None


def _envelope(content: bytes) -> dict[str, Any]:
    """Format, version, step and document, the first two checked before anything else is believed."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or 8 + length > len(content):
        raise CheckpointError("cut or altered: it ends within its header")
    try:
        envelope = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["ridgeline"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError("altered or not a Ridgeline checkpoint: its header cannot be read") from None
    if not isinstance(envelope, dict) or envelope.get("format") != FORMAT:
        raise CheckpointError(f"not a Ridgeline checkpoint: its format is not {FORMAT!r}")
    if envelope.get("version") != VERSION:
        raise CheckpointError(
            f"it is of version {envelope.get('version')!r} and this Ridgeline reads version {VERSION}; "
            "go on with the Ridgeline that wrote it"
        )
    if type(envelope.get("step")) is not int or not isinstance(envelope.get("document"), dict):
        raise CheckpointError("altered: it has no step or no document")
    return envelope


def _verify(content: bytes) -> None:
    """Refuse content that differs in any bit from what was written."""
    place = _hash_place(content)
    view = memoryview(content)
    digest = hashlib.sha256(view[:place])
    digest.update(_NO_HASH)
    digest.update(view[place + 64 :])
    if digest.hexdigest().encode() != content[place : place + 64]:
        raise CheckpointError("cut or altered: its SHA-256 does not match its content")


def _hash_place(content: bytes) -> int:
    """Where the 64 characters of the hash begin."""
    length = int.from_bytes(content[:8], "little")
    place = content.find(_HASH_FIELD, 8, 8 + length)
    if place < 0:
        raise CheckpointError("altered or not a Ridgeline checkpoint: it has no SHA-256")
    return place + len(_HASH_FIELD)


def _step_of(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


def _newest_first(directory: Path) -> list[Path]:
    paths = [path for path in directory.glob("step_*.safetensors") if _step_of(path) >= 0]
    return sorted(paths, key=_step_of, reverse=True)

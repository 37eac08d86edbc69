"""Files that are damaged or made to harm, given to everything that reads weights."""

import hashlib
import io
import json
import os
import pickle
import random
import resource
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from alexnet.data import open_image_set
from alexnet.errors import AlexNetError, CheckpointError
from alexnet.runs import load_checkpoint, read_weights, save_checkpoint
from faults.tally import Tally, in_child

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")
GIB = 2**30


def cut_short(count: int, seed: int, folder: Path) -> Tally:
    """A file of a checkpoint that ends early, anywhere."""
    return _damaged(count, seed, folder, lambda data, dice: data[: dice.randrange(len(data))])


def bit_flips(count: int, seed: int, folder: Path) -> Tally:
    """One bit of a checkpoint is another."""

    def flip(data: bytes, dice: random.Random) -> bytes:
        changed = bytearray(data)
        changed[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        return bytes(changed)

    return _damaged(count, seed, folder, flip)


def headers(count: int, seed: int, folder: Path) -> Tally:
    """Weights whose header lies, in a checkpoint whose seals were made to fit."""
    tally = Tally()
    for name, data in list(_headers())[:count]:
        root = folder / "".join(c if c.isalnum() else "-" for c in name)
        made = _checkpoint(root)
        (made / FILES[0]).write_bytes(data)
        _seal(made)
        try:
            loaded = load_checkpoint(made)
            tally.outcomes["loaded"] += 1
            tally.losses.append(f"{name}: loads as {dict(loaded.model)}")
        except CheckpointError as error:
            tally.outcomes["refused in one line"] += 1
            if "\n" in str(error):
                tally.losses.append(f"{name}: {error}")
    return tally


def malicious(count: int, seed: int, folder: Path) -> Tally:
    """Files that run something where they are unpickled or unpacked carelessly, or fill memory."""
    tally = Tally()
    for name, suffix, data in list(_malicious(folder / "canary"))[:count]:
        path = folder / f"file{suffix}"
        path.write_bytes(data)

        def read(path: Path = path) -> str:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            outcomes = []
            for reader in (read_weights, _as_cifar):
                try:
                    reader(path)
                    outcomes.append("held nothing that runs")
                except AlexNetError as error:
                    outcomes.append("refused in one line" if "\n" not in str(error) else str(error))
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            return json.dumps([outcomes, grown * 1024])

        status, said = in_child(read)
        if status != 0:
            tally.losses.append(f"{name}: status {status}: {said[-300:]}")
            tally.outcomes["another error"] += 1
            continue
        outcomes, grown = json.loads(said)
        tally.outcomes[outcomes[0]] += 1
        if "\n" in "".join(outcomes):
            tally.losses.append(f"{name}: {outcomes}")
        if grown > GIB:
            tally.losses.append(f"{name}: took {grown >> 20} MiB")
        if (folder / "canary").exists():
            tally.losses.append(f"{name}: ran")
            (folder / "canary").unlink()
    return tally


def _as_cifar(path: Path) -> None:
    """The same bytes where CIFAR-10's python version would be."""
    root = path.with_name("cifar") / "cifar-10-batches-py"
    root.mkdir(parents=True, exist_ok=True)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]
    for name in names:
        (root / name).write_bytes(path.read_bytes())
    source = open_image_set(root.parent)
    source.read("train")


def _damaged(
    count: int, seed: int, folder: Path, damage: Callable[[bytes, random.Random], bytes]
) -> Tally:
    tally, dice = Tally(), random.Random(seed)
    made = _checkpoint(folder / "whole")
    whole = {name: (made / name).read_bytes() for name in FILES}
    for turn in range(count):
        name = FILES[turn % len(FILES)]
        (made / name).write_bytes(changed := damage(whole[name], dice))
        try:
            load_checkpoint(made)
            tally.outcomes["loaded"] += 1
            # JSON may be written in other ways that mean the same; then nothing was lost.
            if name != "manifest.json" or json.loads(changed) != json.loads(whole[name]):
                tally.losses.append(f"seed {seed}, turn {turn}: a damaged {name} loads")
        except CheckpointError as error:
            tally.outcomes["refused in one line"] += 1
            if "\n" in str(error):
                tally.losses.append(f"seed {seed}, turn {turn}: {error}")
        (made / name).write_bytes(whole[name])
    return tally


def _checkpoint(root: Path) -> Path:
    tensors = {"conv1.weight": torch.arange(12.0).reshape(3, 4), "conv1.bias": torch.zeros(3)}
    return save_checkpoint(root, 1, model=tensors, optimizer=tensors, state={"step": 1}, best=True)


def _seal(made: Path) -> None:
    """The manifest that these files would have had."""
    files = {}
    for name in FILES[:3]:
        data = (made / name).read_bytes()
        files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    body = {"format": 1, "step": 1, "files": files}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    (made / "manifest.json").write_text(json.dumps(body | {"sha256": digest}))


def _file(header: Any, data: bytes = bytes(16), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    return struct.pack("<Q", size % 2**64) + text + data


def _headers() -> Iterator[tuple[str, bytes]]:
    """Fifty headers of safetensors by hand, each wrong in its own way."""
    good = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}

    def one(**changes: Any) -> bytes:
        return _file({"w": {k: v for k, v in {**good, **changes}.items() if v is not Ellipsis}})

    yield "empty file", b""
    yield "seven bytes", bytes(7)
    yield "only a length", struct.pack("<Q", 0)
    for length in (1, 2**16, 2**31, 2**32, 2**40, 2**63, 2**64 - 1):
        yield f"a header of {length} bytes", _file({"w": good}, length=length)
    yield "a length one short", _file({"w": good}, length=len(json.dumps({"w": good})) - 1)
    yield "a length one long", _file({"w": good}, length=len(json.dumps({"w": good})) + 1)
    for text in (b"", b"null", b"[]", b"3", b'"w"', b"{", b"{}}", b"\xff\xfe", b"{'w': 1}"):
        yield f"the header {text!r}", _file(text)
    yield "nested a hundred thousand deep", _file(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    twice = f'{{"w": {json.dumps(good)}, "w": {json.dumps(good)}}}'
    yield "a name twice", _file(twice.encode())
    for dtype in ("F33", "", "f32", "object", None, 4, ["F32"], ...):
        yield f"dtype {dtype!r}", one(dtype=dtype)
    for shape in ([5], [2], [-4], [2**40], [2**63, 2**63], [2, 2, 2], [4.0], "4", None, {}, ...):
        yield f"shape {shape!r}", one(shape=shape)
    for offsets in ([0, 17], [0, 15], [16, 0], [-16, 0], [8, 24], [0, 2**62], [0], [], None, ...):
        yield f"offsets {offsets!r}", one(data_offsets=offsets)
    yield "bytes that nothing names", _file({"w": good}, bytes(32))
    yield "fewer bytes than named", _file({"w": good}, bytes(8))
    yield "two that overlap", _file({"v": good, "w": good})
    hole = {"dtype": "F32", "shape": [4], "data_offsets": [32, 48]}
    yield "a hole between two", _file({"v": good, "w": hole}, bytes(48))
    yield "metadata of numbers", _file({"__metadata__": {"a": 1}, "w": good})
    yield "metadata that is a list", _file({"__metadata__": [], "w": good})
    yield "a tensor that is a list", _file({"w": [1, 2, 3]})


class _Call:
    """Pickles to a call of `what` with `args`."""

    def __init__(self, what: Callable[..., Any], *args: Any) -> None:
        self.what, self.args = what, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.what, self.args


def _malicious(canary: Path) -> Iterator[tuple[str, str, bytes]]:
    """Sixty files: a name, the ending, the content."""
    touch, text = f"touch {canary}", str(canary).encode()
    code = f"open({str(canary)!r}, 'w')"
    import builtins
    import posix
    import runpy
    import shutil
    import subprocess

    calls = {
        "os.system": _Call(os.system, touch),
        "posix.system": _Call(posix.system, touch),
        "eval": _Call(builtins.eval, code),
        "exec": _Call(builtins.exec, code),
        "open": _Call(builtins.open, str(canary), "w"),
        "subprocess": _Call(subprocess.call, ["touch", str(canary)]),
        "run_path": _Call(runpy.run_path, str(canary)),
        "copy": _Call(shutil.copy, "/etc/hostname", str(canary)),
        "getattr": _Call(getattr, _Call(builtins.__import__, "os"), "system"),
        "mkdir": _Call(os.mkdir, str(canary)),
    }
    for name, call in calls.items():
        for protocol in (0, 2, 4):
            yield f"{name}, protocol {protocol}", ".pth", pickle.dumps(call, protocol)
        yield f"{name}, in a torch file", ".pth", _torch_file(pickle.dumps(call, 2))
    inst = b"(S'" + touch.encode() + b"'\nios\nsystem\n."
    by_hand = {
        "INST": inst,
        "OBJ": b"(cos\nsystem\nS'" + touch.encode() + b"'\no.",
        "REDUCE in a dict": b"}S'weight'\ncposix\nsystem\n(S'" + touch.encode() + b"'\ntRs.",
        "BUILD": b"cargparse\nNamespace\n)R}S'__class__'\ncos\nsystem\nsb.",
        "a name with dots": b"\x80\x04\x8c\x02os\x8c\x0bpath.os.system\x93\x8c"
        + bytes([len(touch)]) + touch.encode() + b"\x85R.",
        "an extension": b"\x80\x02\x82\x01.",
        "a persistent id": b"P" + text + b"\n.",
        "a string of 2**60 bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.",
        "bytes of 2**31": b"\x80\x04B" + struct.pack("<I", 2**31) + b"x.",
        "a frame of 2**62": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
        "a memo at 2**31": b"\x80\x04Nr" + struct.pack("<I", 2**31 - 1) + b".",
        "a hundred thousand lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    }  # fmt: skip
    for name, data in by_hand.items():
        yield name, ".pth", data
    tensor = io.BytesIO()
    torch.save({"weight": torch.zeros(4)}, tensor)
    old = io.BytesIO()
    torch.save({"weight": torch.zeros(4)}, old, _use_new_zipfile_serialization=False)
    yield "an old torch file, cut", ".pth", old.getvalue()[:-9]
    yield "an old torch file that calls", ".pth", old.getvalue()[:30] + inst
    yield "storages of 2**40", ".pth", _resized(tensor.getvalue())
    yield "a bomb of zeros", ".pth", _torch_file(pickle.dumps(calls["eval"], 2), bomb=True)
    yield "a path that leads out", ".pth", _zip({"../../canary": b"x", "a/data.pkl": inst})
    yield (
        "TorchScript that calls",
        ".pt",
        _zip({"a/data.pkl": inst, "a/code/m.py": code.encode(), "a/constants.pkl": inst}),
    )
    yield "a tar with links", ".tar", _tar(canary)
    yield "an npz of objects", ".npz", _zip({"w.npy": b"\x93NUMPY\x01\x00" + inst})
    for name, data in list(_headers())[3:5]:
        yield f"safetensors, {name}", ".safetensors", data


def _torch_file(pickled: bytes, bomb: bool = False) -> bytes:
    more = {"archive/data/0": bytes(200 << 20)} if bomb else {}
    return _zip({"archive/data.pkl": pickled, "archive/version": b"3\n", **more})


def _zip(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def _resized(data: bytes) -> bytes:
    """A torch file whose pickle asks for more numbers than it holds."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as archive:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                content = content.replace(b"K\x04", b"\x8a\x06\0\0\0\0\0\x01")
            archive.writestr(name, content)
    return out.getvalue()


def _tar(canary: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        link = tarfile.TarInfo("storages")
        link.type, link.linkname = tarfile.SYMTYPE, str(canary)
        archive.addfile(link)
    return out.getvalue()


if sys.maxsize < 2**62:
    raise RuntimeError("the sizes above are those of 64 bits")

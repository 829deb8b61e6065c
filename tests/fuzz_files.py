"""Damaged and hostile files: .npz, .npy, .keras, IDX, and IDX in gzip.

A seed's file is of the kind ``seed % 5``. Valid bytes are cut, flipped, moved and lied about from
outside; and written wrongly from inside, with right checksums, so that the damage gets further.
"""

from __future__ import annotations

import functools
import gzip
import io
import itertools
import json
import os
import pickle
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from fuzz_harness import Case
from fuzz_yaml import VALUES

Random = random.Random
KINDS = ("npz", "npy", "keras", "idx", "gzip")
_INPUTS, _UNITS, _CLASSES, _EXAMPLES = 4, 3, 2, 6
# The network that fits all of the files.
_CONFIG = (
    f"model: {{inputs: {_INPUTS}, layers: [{{units: {_UNITS}, activation: tanh}}, "
    f"{{units: {_CLASSES}}}]}}\ndata: {{batch_size: all}}\n"
)
HOSTILE_JSON = (b"[" * 10**5, b'{"a":' * 10**4, b"9" * 5000, b"NaN")


class Malicious:
    """Unpickled, it would make a file."""

    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def draw(seed: int) -> Case:
    generator = Random(seed)
    kind = KINDS[seed % len(KINDS)]
    Path("c.yaml").write_text(_CONFIG, encoding="ascii")
    # The first layer's biases, or a block that is none: then it ends where the problem is built.
    block = generator.choice(("dense1/bias", "none/kernel", "none/kernel"))
    command = ("export", block, "--output", "H.npy")
    options, named = _MAKERS[kind](generator)
    return Case((*command, *options), (*named, "c.yaml"))


def _set(key: str, path: str) -> tuple[str, ...]:
    return "--config", "c.yaml", "--set", f"{key}={path}"


# ------------------------------------------------------------------------------------------ npz


def _arrays(generator: Random) -> dict[str, Any]:
    numbers = np.random.default_rng(generator.randrange(2**32))
    layer1 = numbers.standard_normal((_INPUTS, _UNITS))
    layer2 = numbers.standard_normal((_UNITS, _CLASSES))
    arrays: dict[str, Any] = {
        "inputs": numbers.standard_normal((_EXAMPLES, _INPUTS)),
        "targets": numbers.integers(0, _CLASSES, _EXAMPLES),
        "dense1/kernel": layer1,
        "dense1/bias": np.zeros(_UNITS),
        "dense2/kernel": layer2,
        "dense2/bias": np.zeros(_CLASSES),
    }
    if generator.random() < 0.3:
        pixels = numbers.integers(0, 256, (_EXAMPLES, _INPUTS)).astype(np.uint8)
        arrays = {"x_train": pixels, "y_train": arrays["targets"]}
        arrays |= {"x_test": pixels[:2], "y_test": arrays["y_train"][:2]}
    return arrays


def _npz(generator: Random) -> tuple[tuple[str, ...], tuple[str, ...]]:
    arrays = _arrays(generator)
    members = {f"{name}.npy": npy_bytes(array) for name, array in arrays.items()}
    method = generator.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    if generator.random() < 0.6:
        name = generator.choice(list(members))
        members[name] = wrong_npy(generator, arrays[name.removesuffix(".npy")], members[name])
    content = zipped(generator, members, method)
    if generator.random() < 0.5:
        content = damaged(generator, content)
    Path("x.npz").write_bytes(content)
    if "inputs" not in arrays or generator.random() < 0.5:
        return _set("data.source", "x.npz"), ("x.npz",)
    np.savez("b.npz", **batch(generator))
    return (*_set("data.source", "b.npz"), "--set", "model.weights=x.npz"), ("x.npz", "b.npz")


def zipped(generator: Random, members: dict[str, bytes], method: int) -> bytes:
    """An archive, with what archives have been used for now and then."""
    stream = io.BytesIO()
    trick = generator.choice(
        (*[""] * 8, "paths", "twice", "bzip2", "lzma", "lie", "encrypted", "huge")
    )
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        # Of a name that stands twice.
        warnings.simplefilter("ignore")
        for name, content in members.items():
            how = {"bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}.get(trick)
            archive.writestr(name, content, how)
            if trick == "twice":
                archive.writestr(name, content[:-1])
        if trick == "paths":
            for name in (
                "../../x.npy",
                "/etc/x.npy",
                "a/../../b.npy",
                "C:\\x.npy",
                "x\n\x1b[31m.npy",
            ):
                archive.writestr(name, b"x")
        if trick == "huge":
            name = generator.choice(list(members))
            archive.writestr(name, _bomb(generator), generator.choice((8, 12)))
    packed = bytearray(stream.getvalue())
    at = packed.rfind(b"PK\x01\x02")
    if trick == "lie" and at >= 0:
        field = generator.choice((16, 20, 24, 42))
        packed[at + field : at + field + 4] = struct.pack(
            "<I", generator.choice((0, 1, 2**31, 2**32 - 2))
        )
    if trick == "encrypted" and at >= 0:
        packed[at + 8] |= 1
    return bytes(packed)


@functools.cache
def _zeros(size: int) -> bytes:
    return bytes(size)


def _bomb(generator: Random) -> bytes:
    """An array of zeros that packs to a thousandth."""
    size = generator.choice((2**20, 2**25, 300 * 2**20 if generator.random() < 0.1 else 2**22))
    return _npy_header((size // 8, 1), "<f8") + _zeros(size)


def npy_bytes(array: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=True)
    return stream.getvalue()


def _npy_header(shape: Any, descr: Any, order: Any = False, version: int = 1) -> bytes:
    text = f"{{'descr': {descr!r}, 'fortran_order': {order!r}, 'shape': {shape!r}, }}".encode(
        "latin-1"
    )
    return _framed(text, version)


def _framed(text: bytes, version: int = 1, length: int | None = None) -> bytes:
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    size = len(text) if length is None else length
    packed = struct.pack("<H", size % 2**16) if version == 1 else struct.pack("<I", size)
    return b"\x93NUMPY" + bytes((version, 0)) + packed + text


_DESCRIPTIONS = (
    *("<f8", ">f8", "<f4", ">f2", "<f2", "<f16", ">f16", "<i8", ">i4", "|u1", "|i1", "<u8", "|b1"),
    *("<c16", "|O", "O8", "<U5", "|S3", "<M8[s]", "<m8", "|V8", "f8,f8", "<f8,|O", "x", "", "<f9"),
    *([("a", "<f8")], [("a", "|O")], ("<f8", (2, 3)), ("<f8", 2**31), None, 5, [], {}, "\x1b[31m"),
)
_SHAPES: tuple[Any, ...] = (
    *(
        (),
        (0,),
        (1,),
        (-1,),
        (-2, -3),
        (2**31,),
        (2**40,),
        (2**63,),
        (10**30,),
        (10**400,),
        (True,),
    ),
    *((1.5,), ("a",), (None,), None, 5, [2, 3], (2**32, 2**32), (0, 2**62), (1,) * 40, (2**27, 1)),
)
_HEADERS = (
    b"",
    b"{}",
    b"[]",
    b"(" * 3000,
    b"-" * 3000 + b"1",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (3L,), }",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (1if 1else 2,), }",
    b"{'descr': '\\d', 'fortran_order': False, 'shape': (0x1for x in y), }",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,), 'x': 1}",
    b"{'descr': '<f8', 'fortran_order': 1, 'shape': (3,)}",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"9" * 5000 + b",)}",
    b"__import__('os').system('touch pwned')",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,)} # \xff\xfe\x00",
    b"\x00" * 50,
)


def wrong_npy(generator: Random, array: Any, content: bytes) -> bytes:
    """Another array than is asked for, or one whose header lies."""
    array = np.asarray(array)
    body = array.tobytes()
    action = generator.randrange(9)
    if action == 0:
        return _npy_header(array.shape, generator.choice(_DESCRIPTIONS)) + body
    if action == 1:
        return _npy_header(generator.choice(_SHAPES), array.dtype.str) + body
    if action == 2:
        return _framed(generator.choice(_HEADERS), generator.choice((1, 2, 3))) + body
    if action == 3:
        version, length = (
            generator.choice((1, 2, 3, 4, 9)),
            generator.choice((0, 1, 65535, 2**32 - 1)),
        )
        return _framed(b"{'descr': '<f8'", version, length) + body
    if action == 4:
        return _npy_header(array.shape, "|O") + pickle.dumps(np.full(array.shape, Malicious()))
    if action == 5:
        order = generator.choice((True, None, 1, "F"))
        return _npy_header(array.shape, array.dtype.str, order) + body
    if action == 6:
        wrong = array.astype(np.float64)
        wrong.flat[generator.randrange(wrong.size)] = generator.choice(
            (np.nan, np.inf, -np.inf, 1e300)
        )
        return npy_bytes(wrong)
    if action == 7:
        kind = generator.choice(
            ("<f2", ">f8", "<f4", "<i8", "|u1", "<c16", "|b1", "<U3", "<f16", "|O")
        )
        other = array.astype(np.dtype(kind)) if kind != "|O" else array.astype(object)
        return npy_bytes(
            generator.choice((other, other.T, other.reshape(-1), other[:0], other[:1]))
        )
    return damaged(generator, content)


# ------------------------------------------------------------------------------------------ npy


def _npy(generator: Random) -> tuple[tuple[str, ...], tuple[str, ...]]:
    arrays = _arrays(generator)
    images = arrays.get("x_train", arrays.get("inputs"))
    labels = arrays.get("y_train", arrays.get("targets"))
    Path("set").mkdir()
    for name, array in (("x_train", images), ("y_train", labels)):
        content = npy_bytes(array)
        if generator.random() < 0.6:
            content = wrong_npy(generator, array, content)
        if generator.random() < 0.2:
            content = damaged(generator, content)
        path = Path("set", f"{name}.npy")
        path.write_bytes(content)
        if generator.random() < 0.04:
            # Holes: a large file that takes no room.
            path.write_bytes(_npy_header(generator.choice(((-2, -(2**24)), (2**25, 4))), "<f8"))
            os.truncate(path, 128 + 2**28 + generator.choice((0, 0, 1)))
    return _set("data.source", "set"), ("set",)


# ---------------------------------------------------------------------------------------- keras


def _keras(generator: Random) -> tuple[tuple[str, ...], tuple[str, ...]]:
    document: Any = _keras_document(generator)
    for _ in range(generator.choice((0, 0, 1, 1, 2, 3))):
        document = changed(generator, document)
    text = json.dumps(document).encode("utf-8", "surrogatepass")
    if generator.random() < 0.15:
        text = generator.choice((*HOSTILE_JSON, text[:-1], b"\xff"))
    weights = _weights(generator)
    if generator.random() < 0.35:
        weights = damaged(generator, weights)
    members = {"config.json": text, "model.weights.h5": weights, "metadata.json": b"{}"}
    if generator.random() < 0.1:
        del members[generator.choice(list(members))]
    content = zipped(generator, members, zipfile.ZIP_STORED)
    if generator.random() < 0.25:
        content = damaged(generator, content)
    Path("m.keras").write_bytes(content)
    np.savez("b.npz", **batch(generator))
    os.mkfifo("fifo")
    return ("--model", "m.keras", "--set", "data.source=b.npz"), ("m.keras", "b.npz")


def batch(generator: Random) -> dict[str, Any]:
    numbers = np.random.default_rng(generator.randrange(2**32))
    inputs = numbers.standard_normal((_EXAMPLES, _INPUTS))
    return {"inputs": inputs, "targets": numbers.integers(0, _CLASSES, _EXAMPLES)}


def _keras_document(generator: Random) -> dict[str, Any]:
    def layer(kind: str, **config: Any) -> dict[str, Any]:
        name = config.setdefault("name", kind.lower())
        config.setdefault("dtype", "float32")
        return {
            "module": "keras.layers",
            "class_name": kind,
            "config": config,
            "registered_name": None,
            "name": name,
        }

    activation = generator.choice(("tanh", "relu", "softplus", "linear", None, "leaky_relu"))
    layers = [
        layer("InputLayer", name="input_layer", batch_shape=[None, _INPUTS]),
        layer("Dense", name="dense", units=_UNITS, use_bias=True, activation=activation),
        layer("Dropout", rate=0.5),
        layer("Dense", name="dense_1", units=_CLASSES, use_bias=True, activation="softmax"),
    ]
    if generator.random() < 0.3:
        layers.insert(1, layer("Rescaling", scale=0.5, offset=0.0))
    if generator.random() < 0.3:
        layers.insert(1, layer("Flatten", data_format="channels_last"))
    kind = generator.choice(("Sequential", "Functional"))
    if kind == "Functional":
        for before, after in itertools.pairwise(layers):
            history = {"keras_history": [before["name"], 0, 0], "shape": [None, 4]}
            tensor = {"class_name": "__keras_tensor__", "config": history}
            after["inbound_nodes"] = [{"args": [tensor], "kwargs": {}}]
        layers[0]["inbound_nodes"] = []
    return {
        "module": "keras",
        "class_name": kind,
        "config": {"name": "m", "layers": layers, "build_input_shape": [None, _INPUTS]},
        "registered_name": kind,
    }


_KERAS_VALUES = (
    *("Lambda", "lambda", "__lambda__", "keras.layers", "os", "builtins", "Dense", "InputLayer"),
    {"class_name": "__lambda__", "config": {"value": "4wEAAAA=", "defaults": None}},
    {"class_name": "function", "module": "os", "config": "system", "registered_name": "system"},
    {"class_name": "LeakyReLU", "module": "keras.layers", "config": {"negative_slope": "x"}},
    {"class_name": "ReLU", "module": "keras.layers", "config": {"negative_slope": {}}},
    *([None, 4], [None, None], [None, 2**40], [None, 0], [], [4], [None, -4], [None, True]),
)


def changed(generator: Random, value: Any) -> Any:
    """Another value at one of the places of a JSON document."""
    plain = [item for item in VALUES if not isinstance(item, bytes)]
    if not isinstance(value, dict | list) or not value or generator.random() < 0.06:
        chosen = generator.choice(_KERAS_VALUES if generator.random() < 0.4 else plain)
        return {str(k): v for k, v in chosen.items()} if isinstance(chosen, dict) else chosen
    keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = generator.choice(keys)
    copy: Any = value.copy()
    action = generator.random()
    if action < 0.8:
        copy[key] = changed(generator, value[key])
    elif action < 0.9:
        del copy[key]
    elif isinstance(copy, list):
        copy.insert(key, value[generator.choice(keys)])
    else:
        copy[generator.choice(plain[60:75])] = value[key]
        copy = {str(k): v for k, v in copy.items()}
    return copy


def _weights(generator: Random) -> bytes:
    stream = io.BytesIO()
    numbers = np.random.default_rng(generator.randrange(2**32))
    trick = generator.choice((*[""] * 12, *_H5_TRICKS))
    with h5py.File(stream, "w") as store:
        for group, shape in (("dense", (_INPUTS, _UNITS)), ("dense_1", (_UNITS, _CLASSES))):
            variables = store.create_group(f"layers/{group}/vars")
            variables.attrs["name"] = group
            variables["0"] = numbers.standard_normal(shape).astype(np.float32)
            variables["1"] = np.zeros(shape[1:], np.float32)
        if trick:
            _H5_TRICKS[trick](store, store["layers/dense/vars"])
    return stream.getvalue()


def _h5(change: Callable[[Any, Any], Any], *removed: str) -> Callable[[Any, Any], None]:
    def apply(store: Any, group: Any) -> None:
        for name in removed:
            del store[name]
        change(store, group)

    return apply


_KERNEL = "layers/dense/vars/0"
_H5_TRICKS: dict[str, Callable[[Any, Any], None]] = {
    "soft loop": _h5(lambda s, _: s.update({"layers": h5py.SoftLink("/layers")}), "layers"),
    "external": _h5(lambda s, _: s.update({"layers": h5py.ExternalLink("fifo", "/")}), "layers"),
    "external array": _h5(lambda s, g: g.update({"0": h5py.ExternalLink("fifo", "/0")}), _KERNEL),
    "hard loop": _h5(lambda s, _: s.update({"layers": s["/"]}), "layers"),
    "outside": _h5(
        lambda s, g: g.create_dataset("0", (4, 3), "f4", external=[("fifo", 0, 48)]), _KERNEL
    ),
    "virtual": _h5(
        lambda s, g: g.create_virtual_dataset("0", _virtual_layout(), fillvalue=0), _KERNEL
    ),
    "group": _h5(lambda s, g: g.create_group("0"), _KERNEL),
    "text": _h5(lambda s, g: g.create_dataset("0", data="x" * 100), _KERNEL),
    "objects": _h5(lambda s, g: g.create_dataset("0", (4, 3), h5py.string_dtype()), _KERNEL),
    "integers": _h5(lambda s, g: g.create_dataset("0", (4, 3), "i8"), _KERNEL),
    "unwritten": _h5(lambda s, g: g.create_dataset("0", (2**40, 3), "f4", chunks=(64, 3)), _KERNEL),
    "packed": _h5(
        lambda s, g: g.create_dataset("0", (4, 3), "f4", compression="gzip", shuffle=True), _KERNEL
    ),
    "half": _h5(lambda s, g: g.create_dataset("0", (4, 3), ">f2"), _KERNEL),
    "nan": _h5(lambda s, g: g.create_dataset("0", data=np.full((4, 3), np.nan, "f4")), _KERNEL),
    "name of numbers": _h5(lambda s, g: g.attrs.create("name", np.arange(5))),
    "name of bytes": _h5(lambda s, g: g.attrs.create("name", b"\xff\x1b[31m")),
    "no name": _h5(lambda s, g: g.attrs.create("name", h5py.Empty("f4"))),
    "reference": _h5(lambda s, g: g.attrs.create("name", s.ref, dtype=h5py.ref_dtype)),
    "name of another": _h5(lambda s, g: g.attrs.create("name", "\x1b[31mother\n")),
}


def _virtual_layout() -> Any:
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("fifo", "x", (4, 3))
    return layout


# ---------------------------------------------------------------------------------- IDX and gzip


def _idx_bytes(generator: Random, array: Any) -> bytes:
    magic, shape = 0x0800 + array.ndim, array.shape
    if generator.random() < 0.2:
        magic = generator.choice((0, 0x0801, 0x0803, 0x0D03, 2**31, 2**32 - 1, magic << 8))
    if generator.random() < 0.25:
        sizes = (0, 1, array.shape[0] + 1, 2**16, 2**31, 2**32 - 1)
        shape = tuple(generator.choice(sizes) for _ in shape)
    return struct.pack(f">I{len(shape)}I", magic, *shape) + array.tobytes()


def _idx_folder(generator: Random, suffix: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    numbers = np.random.default_rng(generator.randrange(2**32))
    Path("set").mkdir()
    images = numbers.integers(0, 256, (_EXAMPLES, 2, 2)).astype(np.uint8)
    labels = numbers.integers(0, _CLASSES, _EXAMPLES).astype(np.uint8)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        content = _idx_bytes(generator, array)
        if generator.random() < (0.5 if suffix == "" else 0.15):
            content = damaged(generator, content)
        if suffix:
            content = _gzipped(generator, content)
        Path("set", f"train-{name}-ubyte{suffix}").write_bytes(content)
    if generator.random() < 0.05:
        path = Path("set", f"train-labels-idx1-ubyte{suffix}")
        path.unlink()
        generator.choice((os.mkfifo, os.mkdir, lambda it: os.symlink(it, it)))(path)
    return _set("data.source", "set"), ("set",)


def _gzipped(generator: Random, content: bytes) -> bytes:
    action = generator.random()
    if action < 0.08:
        # A bomb that says its size, and one that does not.
        size = generator.choice((2**24, 2**25, 300 * 2**20 if generator.random() < 0.1 else 2**23))
        header = struct.pack(">4I", 0x0803, size // 4, 2, 2)
        return gzip.compress((header if action < 0.05 else content) + _zeros(size))
    packed = gzip.compress(content, generator.randint(0, 9))
    if action < 0.5:
        return damaged(generator, packed)
    if action < 0.6:
        return packed + generator.choice((packed, b"x", b"\0" * 1000, gzip.compress(b"") * 1000))
    if action < 0.7:
        # What follows the ten bytes of the header, as its flags say.
        return packed[:3] + bytes((generator.randrange(256),)) + packed[4:]
    if action < 0.8:
        return packed[:-8] + struct.pack("<II", *(generator.randrange(2**32) for _ in "ab"))
    return packed


# ------------------------------------------------------------------------------------ any bytes


def damaged(generator: Random, content: bytes) -> bytes:
    at = generator.randrange(len(content) + 1)
    more = generator.randint(1, 64)
    altered = bytearray(content)
    action = generator.randrange(9)
    if action == 0:
        return content[:at]
    if action in (1, 2, 3):
        for _ in range(generator.choice((1, 1, 2, 8, 64))):
            if altered:
                altered[generator.randrange(len(altered))] ^= 1 << generator.randrange(8)
    elif action == 4:
        altered[at : at + more] = generator.choice((b"\0", b"\xff")) * more
    elif action == 5:
        del altered[at : at + more]
    elif action == 6:
        altered[at:at] = generator.randbytes(more)
    elif action == 7:
        wrong = (
            b"",
            b"PK",
            b"\x89HDF\r\n",
            b"\x1f\x8b",
            b"\x93NUMPY",
            b"\x80\x04.",
            b"<html>",
            b"\0" * 8,
        )
        altered[:8] = generator.choice(wrong)
    else:
        return generator.choice((b"", b"\0", content * 2, content[::-1], generator.randbytes(500)))
    return bytes(altered)


_MAKERS: dict[str, Callable[[Random], tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "npz": _npz,
    "npy": _npy,
    "keras": _keras,
    "idx": functools.partial(_idx_folder, suffix=""),
    "gzip": functools.partial(_idx_folder, suffix=".gz"),
}

"""What is asked of the figures: ratios and sizes with their limits, read off a Record.

A ratio is ours by the peer's, so that less is better; the limits are the project's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.results import Record, processor_ratio, ratio

OURS = "hesscli"
GB = 10**9


@dataclass(frozen=True)
class Claim:
    """One figure and the most that it may be; ``unit`` is ``×``, ``B``, ``s`` or ``/s``.

    ``value`` None was not measured; ``limit`` None is a figure of which nothing is asked.
    """

    what: str
    case: str
    value: float | None
    unit: str = "×"
    limit: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the value is within the limit; None where one of them is missing."""
        if self.value is None or self.limit is None:
            return None
        return self.value <= self.limit


def claims(record: Record) -> list[Claim]:
    """The claims of the record's benchmark."""
    return list(_CLAIMS[record.benchmark](record))


def _entries(record: Record) -> Iterator[Claim]:
    limits = {1: 1.5, 32: 0.8, 512: 0.8}
    peers = {"JAX": "jax.hessian", "PyTorch": "torch.func.hessian", "TensorFlow": "tape.jacobian"}
    for subject, name in peers.items():
        for batch in record.cases("batch"):
            value = ratio(
                record.find(OURS, "entries check", batch=batch),
                record.find(subject, "Hessian", batch=batch),
            )
            limit = limits.get(int(batch)) if subject == "JAX" else None
            yield Claim(f"entries check ÷ {name} of dense1", f"batch {batch}", value, "×", limit)
    for batch in record.cases("batch"):
        ours = record.find(OURS, "entries check", batch=batch)
        peak = None if ours is None else ours.peak_bytes
        yield Claim("peak memory of the entries check", f"batch {batch}", peak, "B", GB)


def _product(record: Record) -> Iterator[Claim]:
    product, products, eigenvalues = "product", "products", "eigenvalues"
    rows: list[tuple[str, str, tuple[str, str], Mapping[int, float]]] = [
        ("H·v ÷ curvlinops' H·v", product, ("curvlinops", product), {512: 1 / 8, 5000: 1 / 6}),
        ("H·v ÷ one PyTorch gradient", product, ("PyTorch", "gradient"), {512: 1, 5000: 1}),
        ("H·v ÷ PyHessian's H·v", product, ("PyHessian", product), {}),
        ("one of 64 H·v at once ÷ H·v", products, (OURS, product), {512: 1, 5000: 1}),
        ("one of 64 ÷ curvlinops' of 64", products, ("curvlinops", products), {}),
        ("5 eigenvalues ÷ curvlinops, eigsh", eigenvalues, ("curvlinops", eigenvalues), {}),
        ("5 eigenvalues ÷ PyHessian's", eigenvalues, ("PyHessian", eigenvalues), {}),
    ]
    for what, mine, (subject, theirs), limits in rows:
        for batch in record.cases("batch"):
            value = ratio(
                record.find(OURS, mine, batch=batch), record.find(subject, theirs, batch=batch)
            )
            yield Claim(what, f"batch {batch}", value, "×", limits.get(int(batch)))


def _sweep(record: Record) -> Iterator[Claim]:
    batches = [int(batch) for batch in record.cases("batch")]
    for smaller, larger in pairwise(batches):
        grown = ratio(
            record.find(OURS, "sweep", batch=larger), record.find(OURS, "sweep", batch=smaller)
        )
        value = None if grown is None else grown * smaller / larger
        yield Claim("time an example, against the batch before", f"batch {larger}", value)
    for batch in batches:
        found = record.find(OURS, "sweep", batch=batch)
        limit = GB if batch == 60000 else None
        peak = None if found is None else found.peak_bytes
        yield Claim("peak memory of the sweep", f"batch {batch}", peak, "B", limit)


def _dense(record: Record) -> Iterator[Claim]:
    for batch in record.cases("batch"):
        value = ratio(
            record.find(OURS, "to_dense", batch=batch), record.find(OURS, "write", batch=batch)
        )
        yield Claim("to_dense() ÷ writing the array once", f"batch {batch}", value, "×", 2)


def _width(record: Record) -> Iterator[Claim]:
    blocks = record.cases("block")
    for block in blocks:
        for units in record.cases("width"):
            ours = record.find(OURS, "product", width=units, block=block)
            if ours is None:
                continue
            case = f"W = {units}"
            growth = ours.numbers["growth_bytes"] / ours.numbers["network_bytes"]
            yield Claim(f"{block}: memory ÷ weights + activations", case, growth, "×", 1.5)
    for block in blocks:
        for units in record.cases("width"):
            where = {"width": units, "block": block}
            ours = record.find(OURS, "product", **where)
            case = f"W = {units}"
            forward = record.find(OURS, "forward pass", **where)
            yield Claim(f"{block}: H·v ÷ forward pass", case, ratio(ours, forward))
            peer = record.find("curvlinops", "product", **where)
            yield Claim(f"{block}: H·v ÷ curvlinops' H·v", case, ratio(ours, peer))


def _depth(record: Record) -> Iterator[Claim]:
    for layers in record.cases("depth"):
        ours = record.find(OURS, "product", depth=layers)
        forward = record.find(OURS, "forward pass", depth=layers)
        yield Claim("dense1: H·v ÷ forward pass", f"{layers} layers", ratio(ours, forward))
    for layers in record.cases("depth"):
        ours = record.find(OURS, "product", depth=layers)
        peer = record.find("curvlinops", "product", depth=layers)
        yield Claim("dense1: H·v ÷ curvlinops' H·v", f"{layers} layers", ratio(ours, peer))


def _dataset(record: Record) -> Iterator[Claim]:
    ours = [m for m in record.measurements if m.subject == OURS]
    theirs = [m for m in record.measurements if m.subject != OURS]
    for peer in theirs:
        for mine in ours:
            if mine.case["examples"] == peer.case["examples"]:
                memory = f"memory {mine.case['memory']}"
                loader = peer.what.partition(", ")[2]
                yield Claim(f"H·v ÷ {peer.subject}, {loader}", memory, ratio(mine, peer))
    for found in (*ours, *theirs):
        own = f", memory {found.case['memory']}" if found.subject == OURS else ""
        what, case = f"{found.subject} {found.what}{own}", f"{found.case['examples']} examples"
        yield Claim(what, case, int(found.case["examples"]) / found.median, "/s")
    for found in ours:
        what = f"peak memory of H·v, memory {found.case['memory']}"
        yield Claim(what, f"{found.case['examples']} examples", found.peak_bytes, "B")


def _conv(record: Record) -> Iterator[Claim]:
    limits = {
        ("lenet5", "float64"): 0.6,
        ("lenet5", "float32"): 1.0,
        ("resnet_small", "float64"): 0.9,
        ("resnet_small", "float32"): 1.3,
    }
    peers = (
        ("jax.jvp(jax.grad)", "JAX", "H·v", None),
        ("curvlinops' H·v", "curvlinops", "H·v", 0.4),
        ("our gradient", OURS, "gradient", 3.0),
    )
    for said, subject, what, same in peers:
        for (network, dtype), limit in limits.items():
            ours = record.find(OURS, "H·v", network=network, dtype=dtype)
            peer = record.find(subject, what, network=network, dtype=dtype)
            asked = limit if same is None else same
            case = f"{network}, {dtype}"
            yield Claim(f"H·v ÷ {said}", case, ratio(ours, peer), "×", asked)
            processor = processor_ratio(ours, peer)
            yield Claim(f"H·v ÷ {said}, processor time", case, processor, "×", asked)


def _gpu(record: Record) -> Iterator[Claim]:
    peers = (("jax.jvp(jax.grad)", "JAX"), ("curvlinops' H·v", "curvlinops"))
    for said, subject in peers:
        for network in record.cases("network"):
            for dtype in record.cases("dtype"):
                ours, peer = (
                    record.find(of, "H·v", network=network, dtype=dtype) for of in (OURS, subject)
                )
                limit = None
                if subject == "JAX":
                    dense = str(network).startswith("784")
                    limit = 0.6 if dense else 0.8 if dtype == "float64" else None
                case = f"{network}, {dtype}"
                yield Claim(f"H·v ÷ {said}", case, ratio(ours, peer), "×", limit)


def _kfac(record: Record) -> Iterator[Claim]:
    for batch in sorted({m.case["batch"] for m in record.measurements}):
        ours, peer = (record.find(of, "factors", batch=batch) for of in (OURS, "curvlinops"))
        yield Claim("factors ÷ curvlinops' factors", f"batch {batch}", ratio(ours, peer), "×", 0.5)
        processor = processor_ratio(ours, peer)
        yield Claim("the same, processor time", f"batch {batch}", processor, "×", 0.5)


def _startup(record: Record) -> Iterator[Claim]:
    value = ratio(record.find(OURS, "hesscli --help"), record.find("Python", "import click"))
    yield Claim("hesscli --help ÷ import click", "", value, "×", 2)
    form = record.find(OURS, "hesscli verify --check form")
    bare = record.find("TensorFlow", "import tensorflow")
    beyond = None if form is None or bare is None else form.median - bare.median
    yield Claim("verify --check form − import tensorflow", "", beyond, "s", 0.5)


def _command(record: Record) -> Iterator[Claim]:
    ours = record.find(OURS, "hesscli verify --activation relu")
    for subject, name, limit in (
        ("JAX", "jax.hessian", 0.4),
        ("TensorFlow", "tape.jacobian", 0.15),
    ):
        peer = record.find(subject, "Hessian and form")
        what = f"hesscli verify ÷ a script with {name}"
        yield Claim(what, "wall time", ratio(ours, peer), "×", limit)
        yield Claim(what, "processor time", processor_ratio(ours, peer))
        peaks = [None if found is None else found.peak_bytes for found in (ours, peer)]
        memory = peaks[0] / peaks[1] if peaks[0] and peaks[1] else None
        yield Claim(what, "peak memory", memory)
    forms = record.find(OURS, "hesscli verify --activation all --check form")
    bare = record.find("TensorFlow", "import tensorflow")
    beyond = None if forms is None or bare is None else forms.median - bare.median
    yield Claim("verify -a all --check form − import tensorflow", "", beyond, "s", 2.5)


_CLAIMS: Mapping[str, Callable[[Record], Iterator[Claim]]] = {
    "entries": _entries,
    "product": _product,
    "sweep": _sweep,
    "dense": _dense,
    "width": _width,
    "depth": _depth,
    "dataset": _dataset,
    "conv": _conv,
    "gpu": _gpu,
    "kfac": _kfac,
    "startup": _startup,
    "command": _command,
}

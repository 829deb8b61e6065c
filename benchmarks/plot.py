"""Plots of the stored measurements for docs/performance.md: cost against batch, width and depth.

``python -m benchmarks.plot [FOLDER]`` runs in the environment ``plots``, where matplotlib is; it
reads the JSON files only. Every program has its own marker and line, so that the plots can be read
without colour.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from benchmarks.results import RESULTS, Measurement, Record, read_records

IMAGES = Path(__file__).parent.parent / "docs" / "images"
OURS = "hesscli"
# Colour, marker and line of each program; the colours differ in lightness as well.
STYLES: Mapping[str, tuple[str, str, str]] = {
    OURS: ("#000000", "o", "-"),
    "JAX": ("#0072b2", "s", "--"),
    "PyTorch": ("#d55e00", "^", "-."),
    "TensorFlow": ("#009e73", "D", ":"),
    "curvlinops": ("#0072b2", "v", "--"),
    "PyHessian": ("#e69f00", "P", ":"),
}
_FORWARD = ("#777777", "x", (0, (1, 2)))
# Of one panel.
_INCHES = (4.2, 3.4)
_DPI = 110


def batch(records: Mapping[str, Record]) -> Figure | None:
    """The entries check, the product and the sweep against the batch."""
    panels: list[tuple[str, Callable[[Axes], None]]] = []
    if "entries" in records:
        panels.append(("Entries check, and one dense1 Hessian", _entries_panel(records["entries"])))
    if "product" in records:
        panels.append(("One product H·v, dense1", _product_panel(records["product"])))
    if "sweep" in records:
        panels.append(("The sweep: S of all layers", _sweep_panel(records["sweep"])))
    if not panels:
        return None
    return _figure(panels, "examples in the batch", _title(records, "784-30-30-10"))


def width(records: Mapping[str, Record]) -> Figure | None:
    """The product, the forward pass and the memory against the width."""
    if "width" not in records:
        return None
    record = records["width"]
    panels = [
        (f"One product H·v, {block}", _growth_panel(record, "width", {"block": str(block)}))
        for block in record.cases("block")
    ]
    panels.append(("Memory of H·v", _memory_panel(record)))
    title = _title(records, "784-W-W-10, batch 512")
    return _figure(panels, "units in each hidden layer, W", title)


def depth(records: Mapping[str, Record]) -> Figure | None:
    """The product and the forward pass against the depth."""
    if "depth" not in records:
        return None
    panels = [("One product H·v, dense1", _growth_panel(records["depth"], "depth", {}))]
    title = _title(records, "784-128-…-10, batch 512")
    return _figure(panels, "dense layers", title, logarithmic=False)


def _entries_panel(record: Record) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        _line(axes, record, OURS, "entries check", "batch", "hesscli, all layers, both witnesses")
        for subject, name in (
            ("JAX", "jax.hessian"),
            ("PyTorch", "torch.func.hessian"),
            ("TensorFlow", "tape.jacobian"),
        ):
            _line(axes, record, subject, "Hessian", "batch", name)

    return draw


def _product_panel(record: Record) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for subject in (OURS, "curvlinops", "PyHessian"):
            _line(axes, record, subject, "product", "batch", subject)
        _line(axes, record, "PyTorch", "gradient", "batch", "PyTorch, one gradient")

    return draw


def _sweep_panel(record: Record) -> Callable[[Axes], None]:
    return lambda axes: _line(axes, record, OURS, "sweep", "batch", OURS)


def _growth_panel(record: Record, key: str, fixed: Mapping[str, str]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for subject in (OURS, "curvlinops"):
            _line(axes, record, subject, "product", key, subject, fixed)
        _line(axes, record, OURS, "forward pass", key, "forward pass", fixed, _FORWARD)

    return draw


def _memory_panel(record: Record) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        found = [m for m in record.measurements if (m.subject, m.what) == (OURS, "product")]
        for block, (_, marker, line) in zip(
            record.cases("block"), (STYLES[OURS], STYLES["curvlinops"]), strict=False
        ):
            of_block = [m for m in found if m.case["block"] == block]
            axes.plot(
                [m.case["width"] for m in of_block],
                [m.numbers["growth_bytes"] / 1e6 for m in of_block],
                color="black",
                marker=marker,
                linestyle=line,
                label=f"H·v of {block}",
            )
        network = {m.case["width"]: m.numbers["network_bytes"] / 1e6 for m in found}
        colour, marker, line = _FORWARD
        axes.plot(
            list(network),
            list(network.values()),
            color=colour,
            marker=marker,
            linestyle=line,
            label="weights + activations",
        )
        axes.set_ylabel("MB")

    return draw


def _line(
    axes: Axes,
    record: Record,
    subject: str,
    what: str,
    key: str,
    label: str,
    fixed: Mapping[str, str] | None = None,
    style: tuple[str, str, object] | None = None,
) -> None:
    """Medians as a line, the range of the runs as bars."""
    found: list[Measurement] = [
        m
        for value in record.cases(key)
        if (m := record.find(subject, what, **{key: value, **(fixed or {})})) is not None
    ]
    if not found:
        return
    colour, marker, line = style or STYLES[subject]
    middle = [1e3 * m.median for m in found]
    below = [mid - 1e3 * min(m.seconds) for mid, m in zip(middle, found, strict=True)]
    above = [1e3 * max(m.seconds) - mid for mid, m in zip(middle, found, strict=True)]
    axes.errorbar(
        [m.case[key] for m in found],
        middle,
        yerr=[below, above],
        color=colour,
        marker=marker,
        linestyle=line,
        label=label,
        capsize=2,
        markersize=5,
    )


def _figure(
    panels: list[tuple[str, Callable[[Axes], None]]],
    x: str,
    title: str,
    logarithmic: bool = True,
) -> Figure:
    wide, high = _INCHES
    # A single panel must leave its title room.
    size = (wide * max(1.3, len(panels)), high)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=9)
    for axes, (name, draw) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        axes.set_ylabel("ms")
        draw(axes)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(x)
        axes.set_yscale("log")
        if logarithmic:
            axes.set_xscale("log")
        _plain_ticks(axes)
        axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
        axes.legend(fontsize=7, loc="upper left")
    return figure


def _plain_ticks(axes: Axes) -> None:
    """Numbers in full, across exactly where something was measured, and room for the legend."""
    measured = sorted({float(x) for line in axes.get_lines() for x in line.get_xdata()})
    axes.set_xticks(measured, [f"{x:g}" for x in measured], fontsize=8)
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    high *= (high / low) ** 0.35
    axes.set_ylim(low, high)
    # One decade has a single power of ten in it.
    steps = (1.0,) if high > 100 * low else (1.0, 2.0, 5.0)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.tick_params(axis="y", labelsize=8)


def _title(records: Mapping[str, Record], network: str) -> str:
    conditions = next(iter(records.values())).conditions
    processor = conditions.machine["processor"]
    return f"{network}, tanh, float32, seed 0, {conditions.threads} threads, {processor}"


PLOTS: Mapping[str, Callable[[Mapping[str, Record]], Figure | None]] = {
    "batch": batch,
    "width": width,
    "depth": depth,
}


def main() -> int:
    """Writes every plot that there are measurements for; 0."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    found = read_records(("entries", "product", "sweep", "width", "depth"), folder)
    records = {record.benchmark: record for record in found}
    mpl.use("agg")
    IMAGES.mkdir(exist_ok=True)
    for name, draw in PLOTS.items():
        figure = draw(records)
        if figure is not None:
            figure.savefig(IMAGES / f"performance-{name}.png", dpi=_DPI)
    return 0


if __name__ == "__main__":
    sys.exit(main())

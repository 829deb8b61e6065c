"""Counts what a command computes and sums: multiply-additions in NumPy, sums over examples.

Run as ``python counting.py WIDTHS EXAMPLES CHUNK ARGUMENTS…`` it runs the command of hesscli
in this process, with every matrix product of hesscli's modules counted on its way, and writes what
it found to the standard output as JSON.
"""

from __future__ import annotations

import ast
import io
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

import numpy as np

# Multiply-additions by the name of the module that made them.
products: dict[str, int] = {}


class _Products(ast.NodeTransformer):
    """``a @ b`` and ``np.matmul(a, b)`` by way of ``multiplied``."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.MatMult):
            return node
        call = ast.Call(ast.Name("__multiplied__", ast.Load()), [node.left, node.right], [])
        return ast.copy_location(call, node)


class _Loader(SourceFileLoader):
    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:
        tree = ast.fix_missing_locations(_Products().visit(ast.parse(data)))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def get_code(self, fullname: str) -> Any:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__.rpartition(".")[2]

        def multiplied(a: Any, b: Any) -> Any:
            result = a @ b
            inner = a.shape[-1] if isinstance(a, np.ndarray) else 0
            products[name] = products.get(name, 0) + int(np.size(result)) * inner
            return result

        module.__dict__["__multiplied__"] = multiplied
        super().exec_module(module)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(("hesscli.engines", "hesscli.studies")):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


def counted(widths: Sequence[int], examples: int, chunk: int, arguments: Sequence[str]) -> Any:
    """What the command does on a network of ``widths`` with ``examples``, ``chunk`` at a time."""
    sys.meta_path.insert(0, _Finder())
    from hesscli.cli.main import main
    from hesscli.config import build
    from hesscli.engines import summed

    build.chunk_size = lambda *_: chunk  # type: ignore[assignment]
    summed.kept_bytes = lambda *_: 1 << 60  # type: ignore[assignment]
    sums: list[int] = []
    whole = summed.Chunks.sum

    def noted(chunks: Any, work: Any) -> Any:
        total = whole(chunks, work)
        sums.append(int(total.size))
        return total

    summed.Chunks.sum = noted  # type: ignore[method-assign]
    rng = np.random.default_rng(0)
    inputs = rng.random((examples, widths[0])).round(3).tolist()
    targets = rng.integers(0, widths[-1], examples).tolist()
    last = len(widths) - 1
    layers = [
        {"name": f"d{k}", "units": units, "activation": "tanh" if k < last else "linear"}
        for k, units in enumerate(widths[1:], start=1)
    ]
    config = {
        "model": {"inputs": widths[0], "bias": False, "layers": layers},
        "data": {"inputs": inputs, "targets": targets, "batch_size": "all"},
    }
    tensorflow: dict[str, int] = {}
    _watch_tensorflow(tensorflow)
    with io.StringIO() as out, redirect_stdout(out), suppress(SystemExit):
        main(
            [
                *arguments,
                "--set",
                f"model={json.dumps(config['model'])}",
                "--set",
                f"data={json.dumps(config['data'])}",
            ]
        )
    return {"products": products, "sums": sums, "tensorflow": tensorflow}


def _watch_tensorflow(found: dict[str, int]) -> None:
    """Counts the multiply-additions of TensorFlow's matrix products, once it is loaded."""
    from hesscli.engines import lazy_tensorflow

    load = lazy_tensorflow.load_tensorflow

    def watched() -> ModuleType:
        tf = load()
        from tensorflow.python.framework import op_callbacks

        def note(kind: str, inputs: Any, attrs: Any, outputs: Any, *_: Any, **__: Any) -> None:
            if kind not in ("MatMul", "BatchMatMulV2"):
                return
            names = list(attrs)
            transposed = attrs[names.index("transpose_a" if kind == "MatMul" else "adj_x") + 1]
            inner = inputs[0].shape[-2 if transposed else -1]
            size = int(np.prod(outputs[0].shape)) * int(inner)
            found["products"] = found.get("products", 0) + size

        if not found:
            found["products"] = 0
            op_callbacks.add_op_callback(note)
        return tf

    lazy_tensorflow.load_tensorflow = watched
    for name in ("autodiff_network",):
        __import__(f"hesscli.engines.{name}", fromlist=["x"]).load_tensorflow = watched


if __name__ == "__main__":
    shape = [int(width) for width in sys.argv[1].split("-")]
    found = counted(shape, int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    sys.stdout.write(json.dumps(found) + "\n")

"""Counts what a command computes and sums: multiply-additions in NumPy, sums over examples.

A program of its own, because it loads hesscli with every matrix product ``a @ b`` on its way
counted: ``python counting.py CASES`` runs the commands of CASES, a JSON list, and writes what it
found to standard output.
"""

from __future__ import annotations

import ast
import io
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
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
        name = module.__name__.removeprefix("hesscli.")

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
        if not fullname.startswith(("hesscli.witnesses", "hesscli.nodes", "hesscli.studies")):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


def counted(cases: Sequence[tuple[Sequence[int], int, int, Sequence[str]]]) -> list[Any]:
    """What each command does: (widths, examples, examples at a time, arguments).

    ``numpy`` and ``tensorflow`` are multiply-additions, ``sums`` how many numbers each sum over
    examples has. Nothing of a chunk is kept from one sum to the next.
    """
    sys.meta_path.insert(0, _Finder())
    from hesscli.cli.main import main
    from hesscli.config import build
    from hesscli.problem import execution
    from hesscli.witnesses.summed import engine as summed

    sums: list[int] = []
    whole = summed.Chunks.sum_of

    def noted(chunks: Any, work: Any, load: Any) -> Any:
        total = whole(chunks, work, load)
        sums.append(int(total.size))
        return total

    summed.Chunks.sum_of = noted  # type: ignore[method-assign]
    build.fits = lambda *_: False  # type: ignore[assignment]
    summed.kept_bytes = lambda *_: 1 << 60  # type: ignore[assignment]
    tensorflow = _watched_tensorflow()
    found = []
    for widths, examples, chunk, arguments in cases:
        execution.chunk_size = lambda *_, chunk=chunk: chunk  # type: ignore[assignment]
        products.clear()
        tensorflow.clear()
        sums.clear()
        with io.StringIO() as out, redirect_stdout(out):
            try:
                main([*arguments, *_configuration(widths, examples)])
            except SystemExit as end:
                if end.code:
                    raise
        found.append({"numpy": dict(products), "tensorflow": sum(tensorflow), "sums": list(sums)})
    return found


def _configuration(widths: Sequence[int], examples: int) -> list[str]:
    rng = np.random.default_rng(0)
    last = len(widths) - 1
    layers = [
        {"name": f"d{k}", "units": units, "activation": "tanh" if k < last else "linear"}
        for k, units in enumerate(widths[1:], start=1)
    ]
    model = {"inputs": widths[0], "bias": False, "layers": layers}
    data = {
        "inputs": rng.random((examples, widths[0])).round(3).tolist(),
        "targets": rng.integers(0, widths[-1], examples).tolist(),
        "batch_size": "all",
    }
    return ["--set", f"model={json.dumps(model)}", "--set", f"data={json.dumps(data)}"]


def _watched_tensorflow() -> list[int]:
    """Gets the multiply-additions of each matrix product of TensorFlow, once it is loaded."""
    from hesscli.witnesses.autodiff import network as autodiff_network

    found: list[int] = []
    load = autodiff_network.load_tensorflow
    watched: list[ModuleType] = []

    def note(kind: str, inputs: Any, attributes: Any, outputs: Any, *_: Any, **__: Any) -> None:
        if kind in ("MatMul", "BatchMatMulV2"):
            names = list(attributes)
            transposed = attributes[names.index("adj_x" if "adj_x" in names else "transpose_a") + 1]
            inner = int(inputs[0].shape[-2 if transposed else -1])
            found.append(int(np.prod(outputs[0].shape)) * inner)

    def loaded() -> ModuleType:
        if not watched:
            watched.append(load())
            from tensorflow.python.framework import op_callbacks

            op_callbacks.add_op_callback(note)
        return watched[0]

    autodiff_network.load_tensorflow = loaded
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(counted(json.loads(sys.argv[1]))) + "\n")

"""What a library makes of a function leaves its answer alone: vmap, and compilation as one graph.

Two problems are stacked and mapped over; a compiled function is compared with the eager one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
import numpy as np
import pytest

from ssmcore import arrays
from ssmcore_conformance.models import LAYERS, inputs
from ssmcore_conformance.problems import PROBLEMS, Problem, outputs
from ssmcore_conformance.running import flat, host
from ssmcore_conformance.tolerances import bound, check, steps

L = 13
THOROUGH = 100
"""Examples a test from which on a profile takes its time."""
BRIEF = ("linear_scan", "diagonal_kernel")
Numbers = np.ndarray[Any, Any]
# array-api-compat caches the class checks that torch.compile traces through, and torch says so.
pytestmark = pytest.mark.filterwarnings("ignore:.*lru_cache.*:UserWarning")


def _torch_vmap(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    import torch

    return torch.func.vmap(fn)


def _torch_compile(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The graph is traced, differentiated and checked; no C++ compiler is asked for."""
    import torch

    torch.compiler.reset()
    return torch.compile(fn, fullgraph=True, backend="aot_eager")


def _jax_vmap(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    import jax

    return jax.jit(jax.vmap(fn))


def _jax_jit(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    import jax

    return jax.jit(fn)


VMAP = {"torch": _torch_vmap, "jax": _jax_vmap}
COMPILE = {"torch": _torch_compile, "jax": _jax_jit}


def of_library(known: dict[str, Any], library: Any) -> Any:
    if library.library not in known:
        pytest.skip(f"{library.name}: what its library can transform is not known")
    return known[library.library]


def primitive(problem: Problem) -> Callable[[Any], list[Any]]:
    """Return the outputs of a primitive as a function of real arrays, complex ones as pairs."""
    fixed = {k: x for k, x in problem.given.items() if k in ("length", "reverse")}
    paired = {k for k, x in problem.inputs.items() if np.iscomplexobj(x)}

    def fn(tree: Any) -> list[Any]:
        joined = {k: arrays.join(x) if k in paired else x for k, x in tree.items()}
        found = outputs(problem.name, joined | fixed)
        return [arrays.split(y) if arrays.is_complex(y) else y for y in found]

    return fn


def compare(worst: Any, row: str, library: Any, got: Any, expected: Any) -> None:
    """Two orders of the same sums: at most the roundings of both, of each output's peak."""
    for x, y in zip(flat(host(got)), flat(host(expected)), strict=True):
        peak = np.abs(y).max(initial=0.0)
        check(worst, row, library.name, "float64", x, y, bound("float64", steps(L, L), peak))


@pytest.mark.parametrize("title", PROBLEMS)
def test_primitives_map_over_a_new_axis(ssm_autodiff: Any, worst: Any, title: str) -> None:
    """vmap over two stacked problems gives the outputs of each alone."""
    vmap, one, other = of_library(VMAP, ssm_autodiff), Problem(title), Problem(title, seed=1)
    fn = primitive(one)
    both = {k: np.stack((x, other.inputs[k])) for k, x in one.inputs.items()}
    got = vmap(fn)(one.tree(ssm_autodiff, both))
    alone = [fn(problem.tree(ssm_autodiff, problem.inputs)) for problem in (one, other)]
    expected = [np.stack([host(x), host(y)]) for x, y in zip(*alone, strict=True)]
    compare(worst, f"{one.name}: vmap", ssm_autodiff, tuple(got), tuple(expected))


def thorough(library: Any, title: str) -> None:
    """Skip what takes minutes to compile, unless the profile takes its time."""
    profile = hypothesis.settings.default
    if title not in BRIEF and (profile is None or profile.max_examples < THOROUGH):
        pytest.skip(f"{library.name} compiles all of them for minutes: in the profile nightly only")


@pytest.mark.parametrize("title", PROBLEMS)
def test_primitives_compile_as_one_graph(ssm_autodiff: Any, worst: Any, title: str) -> None:
    """The compiled function returns what the eager one does."""
    thorough(ssm_autodiff, title)
    transform, problem = of_library(COMPILE, ssm_autodiff), Problem(title)
    fn, tree = primitive(problem), problem.tree(ssm_autodiff, problem.inputs)
    got = transform(fn)(tree)
    compare(worst, f"{problem.name}: compiled", ssm_autodiff, tuple(got), tuple(fn(tree)))


def layer_problem(library: Any, name: str, mode: str) -> tuple[Callable[[Any], Any], list[Any]]:
    layer = LAYERS[name].layer

    def fn(tree: Any) -> Any:
        y, state = layer(tree["params"], tree["u"], mode=mode, return_state=True)
        return {"y": y, **state}

    trees: list[Any] = [
        {"params": layer.init(seed, dtype="float64"), "u": inputs((2, L, layer.d_model), seed=seed)}
        for seed in (0, 1)
    ]
    return fn, [arrays.tree_map(library.from_numpy, tree) for tree in trees]


@pytest.mark.parametrize("name", LAYERS)
def test_layers_map_over_parameters_and_inputs(ssm_autodiff: Any, worst: Any, name: str) -> None:
    """vmap over two parameter sets and inputs gives outputs and states of each alone."""
    vmap, xp = of_library(VMAP, ssm_autodiff), ssm_autodiff.xp
    if ssm_autodiff.library == "jax":
        thorough(ssm_autodiff, name)
    for mode in LAYERS[name].modes:
        fn, trees = layer_problem(ssm_autodiff, name, mode)
        flat_trees = [dict(arrays.leaves(tree)) for tree in trees]
        stacked = {k: xp.stack([t[k] for t in flat_trees]) for k in flat_trees[0]}

        def nested(found: Any, tree: Any = trees[0], fn: Any = fn) -> Any:
            return fn(_nest(tree, found))

        got = vmap(nested)(stacked)
        alone = [fn(tree) for tree in trees]
        expected = {k: np.stack([host(a[k]) for a in alone]) for k in alone[0]}
        row = f"{name}: vmap"
        compare(worst, row, ssm_autodiff, {k: host(got[k]) for k in expected}, expected)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_compile_as_one_graph(ssm_autodiff: Any, worst: Any, name: str) -> None:
    """The compiled layer returns the outputs and states of the eager one."""
    thorough(ssm_autodiff, name)
    transform = of_library(COMPILE, ssm_autodiff)
    fn, (tree, _) = layer_problem(ssm_autodiff, name, "scan")
    got, expected = transform(fn)(tree), fn(tree)
    by_name = {key: got[key] for key in expected}  # jax sorts the keys
    compare(worst, f"{name}: compiled", ssm_autodiff, by_name, expected)


def _nest(like: Any, found: dict[str, Any], prefix: str = "") -> Any:
    """Return ``found``, by dotted names, nested as ``like``."""
    out = {}
    for key, value in like.items():
        name = f"{prefix}.{key}" if prefix else key
        out[key] = _nest(value, found, name) if arrays.is_tree(value) else found[name]
    return out

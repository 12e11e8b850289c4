"""Gradients of every primitive against its analytic adjoint, forward derivatives against both.

By every input, the initial state among them, of a weighted sum of every output, the last state
among them. Complex inputs are differentiated as pairs of real numbers, where libraries agree on
what a gradient is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ssmcore_conformance.adjoints import ADJOINTS
from ssmcore_conformance.problems import COMPILED, FORMS, PROBLEMS, Problem
from ssmcore_conformance.tolerances import check, eps

TITLES = (*PROBLEMS, *FORMS)


def problem_of(library: Any, title: str) -> Problem:
    if library.name == "jax" and title in FORMS and title not in COMPILED:
        pytest.skip("jax compiles each form of the arguments for seconds: a few of them only")
    return Problem(title)


@pytest.mark.parametrize("title", TITLES)
def test_gradient(ssm_autodiff: Any, worst: Any, title: str) -> None:
    """The gradient by every input and the initial state is that of the analytic adjoint."""
    problem = problem_of(ssm_autodiff, title)
    expected = ADJOINTS[problem.name](problem.given, tuple(problem.weights))
    tree = problem.tree(ssm_autodiff, problem.inputs)
    _, found = ssm_autodiff.value_and_grad(problem.loss(ssm_autodiff), tree)
    limits = problem.tolerance(expected)
    for key, value in expected.items():
        got = ssm_autodiff.to_numpy(found[key])
        got = got[..., 0] + 1j * got[..., 1] if np.iscomplexobj(value) else got
        row = f"{problem.name}: gradient by {key}"
        check(worst, row, ssm_autodiff.name, problem.dtype, got, value, limits[key])


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("title", TITLES)
def test_forward_derivative(ssm_autodiff: Any, worst: Any, title: str) -> None:
    """The derivative along a direction is the gradient times it (jvp, where there is one)."""
    problem, jvp = problem_of(ssm_autodiff, title), JVP.get(ssm_autodiff.library)
    if jvp is None:
        pytest.skip(f"{ssm_autodiff.name}: no forward derivative is known for its library")
    expected = ADJOINTS[problem.name](problem.given, tuple(problem.weights))
    limits = problem.tolerance(expected)
    slope, allowed = 0.0, 0.0
    for key, move in problem.moves.items():
        slope += float(np.real(np.sum(np.conj(expected[key]) * move)))
        allowed += float(np.sum(np.abs(limits[key]) * np.abs(move)))
    tree = problem.tree(ssm_autodiff, problem.inputs)
    moves = problem.tree(ssm_autodiff, problem.moves)
    got = float(jvp(problem.loss(ssm_autodiff), tree, moves))
    row = f"{problem.name}: forward derivative"
    check(worst, row, ssm_autodiff.name, problem.dtype, got, slope, allowed + eps(problem.dtype))


def _torch_jvp(fn: Any, tree: Any, moves: Any) -> Any:
    import torch

    return torch.func.jvp(fn, (tree,), (moves,))[1]


def _jax_jvp(fn: Any, tree: Any, moves: Any) -> Any:
    import jax

    return jax.jit(lambda x, v: jax.jvp(fn, (x,), (v,))[1])(tree, moves)


JVP: dict[str, Callable[..., Any]] = {"torch": _torch_jvp, "jax": _jax_jvp}


@pytest.mark.parametrize("title", [t for t in TITLES if "32" not in t and "64" not in t])
def test_the_adjoints_are_derivatives(title: str) -> None:
    """Central differences of the NumPy library in one direction: the adjoints judge, so are judged.

    In float64, where they see more than rounding.
    D(h) = f' + h^2 f'''/6 + ...: |D(2h) - D(h)| / 3 estimates the error of D(h), the doubled value
    bounds it; rounding adds eps growth / h.
    """
    from ssmcore import backend

    problem, library = Problem(title), backend.load("numpy")
    f, step = problem.loss(library), eps("float64") ** (1 / 3)
    grads = ADJOINTS[problem.name](problem.given, tuple(problem.weights))
    slope = sum(np.real(np.sum(np.conj(grads[k]) * v)) for k, v in problem.moves.items())

    def along(width: float) -> float:
        ends = []
        for sign in (1.0, -1.0):
            moved = {k: x + sign * width * problem.moves[k] for k, x in problem.inputs.items()}
            ends.append(float(f(problem.tree(library, moved))))
        return (ends[0] - ends[1]) / (2 * width)

    near, far = along(step), along(2 * step)
    size = sum(float(np.sum(np.abs(x) * np.abs(problem.moves[k]))) for k, x in grads.items())
    allowed = 2 * abs(far - near) / 3 + eps("float64") * problem.count() * (1 + size) / step
    print(f"{title}: {abs(near - slope):.1e} of {abs(slope):.1e}, allowed {allowed:.1e}")
    assert abs(near - slope) <= allowed
    assert allowed < 1e-3 * size

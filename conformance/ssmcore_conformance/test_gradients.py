"""Gradients: torch = JAX = central differences of the float64 oracle, in every mode.

Of a weighted sum of the outputs, by parameters, input and initial state, with padding and resets
in it. Central differences: D(h) = f' + h^2 f'''/6 + ..., so |D(2h) - D(h)| / 3 estimates the error
of D(h) to leading order and the doubled value bounds it; the oracle's rounding adds
eps * growth / h. h is the cube root of eps, where the two are about equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ssmcore import arrays, backend
from ssmcore_conformance.models import CASES, LAYERS, condition, expected, inputs
from ssmcore_conformance.plugin import selected
from ssmcore_conformance.running import host
from ssmcore_conformance.tolerances import GRADIENTS, eps, steps

L = 6
STEP = eps("float64") ** (1 / 3)
Numbers = np.ndarray[Any, Any]
Tree = dict[str, Any]
FORMS = ("plain", "masked")


class Problem:
    """What is differentiated: {"params", "u", "state"}, weights, and the masks of the form."""

    def __init__(self, name: str, form: str) -> None:
        case, rng = CASES[name], np.random.default_rng(4)
        layer = case.layer
        shapes = {k: (2, *s) for k, s in layer.state_shapes().items() if k != "fresh"}
        self.case = case
        self.fixed = {k: np.zeros(2) for k in layer.state_shapes() if k == "fresh"}
        self.tree: Tree = {
            "params": layer.init(3, dtype="float64"),
            "u": inputs((2, L, layer.d_model)),
            "state": {k: rng.standard_normal(s) for k, s in shapes.items()},
        }
        self.weights = rng.standard_normal((2, L, layer.d_output))
        self.masks: dict[str, Numbers] = {}
        if form == "masked":
            self.masks = {"reset": np.arange(L) == 2, "lengths": np.asarray([L, 3])}
            self.masks["reset"] = np.stack([self.masks["reset"]] * 2)
        self.modes = case.modes if form == "plain" else ("recurrence", "scan")

    def oracle_loss(self, tree: Tree) -> float:
        state = tree["state"] | self.fixed
        y, _ = expected(self.case, tree["params"], tree["u"], state=state, **self.masks)
        return float(np.sum(self.weights * y))

    def loss(self, library: Any, mode: str) -> Callable[[Tree], Any]:
        weights = library.from_numpy(self.weights)
        masks = {k: library.from_numpy(x) for k, x in self.masks.items()}
        fixed = {k: library.from_numpy(x) for k, x in self.fixed.items()}

        def f(tree: Tree) -> Any:
            state = tree["state"] | fixed
            y = self.case.layer(tree["params"], tree["u"], state, mode=mode, **masks)
            return library.xp.sum(weights * y)

        return f


def differences(problem: Problem) -> dict[str, tuple[Numbers, Numbers]]:
    """Return per leaf the central differences of the oracle and the bound on their error."""

    def run(tree: Tree, u: Numbers) -> Numbers:
        return np.asarray(problem.oracle_loss(tree | {"u": u}))

    rest = {k: v for k, v in problem.tree.items() if k != "u"}
    rounding = eps("float64") * steps(1) * condition(run, rest, problem.tree["u"]) / STEP
    leaves = {name: x.copy() for name, x in arrays.leaves(problem.tree)}
    found = {}
    for name, x in leaves.items():
        slopes = np.zeros((2, *x.shape))
        for k, width in enumerate((STEP, 2 * STEP)):
            for at in np.ndindex(x.shape):
                ends = []
                for sign in (1.0, -1.0):
                    moved = x.copy()
                    moved[at] += sign * width
                    ends.append(problem.oracle_loss(_with(problem.tree, name, moved)))
                slopes[(k, *at)] = (ends[0] - ends[1]) / (2 * width)
        truncation = 2 * np.abs(slopes[1] - slopes[0]) / 3
        found[name] = (slopes[0], truncation + rounding)
    return found


def _with(tree: Any, name: str, value: Numbers) -> Any:
    """Return ``tree`` with the leaf of dotted ``name`` replaced."""
    head, _, rest = name.partition(".")
    return {
        k: (_with(v, rest, value) if rest else value) if k == head else v for k, v in tree.items()
    }


def gradients(problem: Problem, name: str, mode: str) -> dict[str, Numbers]:
    library = backend.load(name)
    tree = backend.move(problem.tree, backend=name)
    _, found = library.value_and_grad(problem.loss(library, mode), tree)
    return dict(arrays.leaves(host(found)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", LAYERS)
def test_libraries_agree_with_each_other_and_the_oracle(
    pytestconfig: Any, worst: Any, name: str, form: str
) -> None:
    """Gradients of every layer: torch = JAX = differences of the oracle, in every mode."""
    problem = Problem(name, form)
    reference = differences(problem)
    libraries = [b for b in selected(pytestconfig) if backend.load(b).gradients]
    first: dict[str, Numbers] = {}
    for mode in problem.modes:
        for library in libraries:
            if (library, form, mode) == ("jax", "masked", "recurrence"):
                continue  # each mode takes JAX seconds to compile; see the next test
            found = gradients(problem, library, mode)
            assert found.keys() == reference.keys()
            for leaf, got in found.items():
                value, tolerance = reference[leaf]
                error = np.abs(got - value)
                at = np.unravel_index(np.argmax(error / tolerance), error.shape)
                row = f"{name}: gradient = differences"
                worst(row, library, "float64", error[at], np.broadcast_to(tolerance, got.shape)[at])
                assert np.all(error <= tolerance), (library, mode, leaf, error[at])
            compare(worst, f"{name}: gradient, libraries", library, found, first or found)
            first = first or found


def compare(worst: Any, row: str, library: str, got: Any, reference: Any) -> None:
    """Compare all leaves relative to the peak of each."""
    for leaf, x in got.items():
        peak = np.abs(reference[leaf]).max()
        error = np.abs(x - reference[leaf]).max() / (peak if peak else 1.0)
        worst(row, library, "float64", error, GRADIENTS)
        assert error <= GRADIENTS, (row, library, leaf, error)


@pytest.mark.parametrize("name", LAYERS)
def test_padding_and_forgotten_steps_have_no_gradient(ssm_autodiff: Any, name: str) -> None:
    """NaN in the padding leaves every gradient finite; what a reset forgot gets exactly zero."""
    problem = Problem(name, "masked")
    problem.tree["u"][1, 3:] = np.nan
    problem.weights[0, :2] = 0  # only what comes after the reset counts in the first sequence
    for mode in ("recurrence",) if ssm_autodiff.name == "jax" else ("recurrence", "scan"):
        found = gradients(problem, ssm_autodiff.name, mode)
        assert all(np.all(np.isfinite(x)) for x in found.values())
        assert np.all(found["u"][1, 3:] == 0)
        assert np.all(found["u"][0, :2] == 0)
        for key, x in found.items():
            if key.startswith("state"):
                assert np.all(x[0] == 0)
                assert np.any(x[1] != 0)


def no_input(problem: Problem) -> None:
    problem.tree["u"][:] = 0


def shut_gates(problem: Problem) -> None:
    """Gates at 0: pre-activations at the end of the dtype's range (S6: a step size of zero)."""
    params = problem.tree["params"]
    if "dt_proj" in params:
        params["dt_proj"]["bias"][:] = -800
        params["dt_proj"]["weight"][:] = 0
    for gate in ("input_gate", "a_gate"):
        if gate in params:
            params[gate]["b"][:] = -800
            params[gate]["w"][:] = 0


def open_gates(problem: Problem) -> None:
    """Gates at 1, decay at its strongest: a underflows."""
    params = problem.tree["params"]
    if "dt_proj" in params:
        params["dt_proj"]["bias"][:] = 800
    if "a_param" in params:
        params["a_param"][:] = 800
        params["a_gate"]["b"][:] = 800


def no_decay(problem: Problem) -> None:
    """|lambda| = 1 to the last bit."""
    params = problem.tree["params"]
    for key in ("A_log", "A_log_real", "nu_log", "a_param"):
        if key in params:
            params[key][:] = -800
    if "Lambda_re" in params:
        params["Lambda_re"][:] = 0
        params["Lambda_im"][:] = 0


EDGES = {f.__name__: f for f in (no_input, shut_gates, open_gates, no_decay)}
MATTERS = {
    "no_input": tuple(LAYERS),
    "shut_gates": ("S6", "RGLRU"),
    "open_gates": ("S6", "RGLRU"),
    "no_decay": ("S4", "S4D", "S5", "LRU", "S6", "RGLRU"),
}


@pytest.mark.parametrize(("edge", "name"), [(e, n) for e, names in MATTERS.items() for n in names])
def test_finite_at_the_edges(ssm_autodiff: Any, edge: str, name: str) -> None:
    """Gradients stay finite at the edges of the domain."""
    problem = Problem(name, "plain")
    EDGES[edge](problem)
    mode = "recurrence" if ssm_autodiff.name == "jax" else "scan"
    for leaf, x in gradients(problem, ssm_autodiff.name, mode).items():
        assert np.all(np.isfinite(x)), (leaf, x)


@pytest.mark.parametrize("name", sorted(set(CASES) - set(LAYERS)))
def test_variants_against_differences(ssm_autodiff: Any, worst: Any, name: str) -> None:
    """The options that change the equations, in the cheapest mode."""
    problem = Problem(name, "plain")
    found = gradients(problem, ssm_autodiff.name, "recurrence")
    for leaf, (value, tolerance) in differences(problem).items():
        error = np.abs(found[leaf] - value)
        share = float(np.max(error / tolerance))
        row = f"{name}: gradient = differences"
        worst(
            row, ssm_autodiff.name, "float64", share * float(np.max(tolerance)), np.max(tolerance)
        )
        assert np.all(error <= tolerance), (leaf, share)

"""Every layer is a plain discrete system: its matrices, in a loop, give what the layer gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ssmcore import backend
from ssmcore_conformance.models import CASES, condition, expected, inputs
from ssmcore_conformance.running import host
from ssmcore_conformance.tolerances import bound, check, steps

L = 9
MOST_STATES = 8
Numbers = np.ndarray[Any, Any]


def loop(system: Any, u: Numbers, reset: Numbers) -> Numbers:
    """Return y_t = C x_t + D u_t of x_t = A x_{t-1} + B u_t, u (batch, L, H).

    One system of all channels has plain matrices, separate ones a leading axis H and m = p = 1;
    those of a time-varying layer have the axes (batch, L) before that.
    """
    matrices = host(tuple(system.to_dense()))
    mixing = matrices[0].ndim == 2
    v = u[..., None] if mixing else u[..., None, None]
    x = np.zeros((*v.shape[:1], *v.shape[2:-2], matrices[0].shape[-1], 1))
    out = []
    for t in range(L):
        A, B, C, D = (M[:, t] if system.time_varying else M for M in matrices)
        x = A @ (0.0 * x if reset[t] else x) + B @ v[:, t]
        out.append((C @ x + D @ v[:, t]).reshape(len(u), -1))
    return np.stack(out, axis=1)


@pytest.mark.parametrize("name", CASES)
def test_the_system_is_what_a_call_runs(ssm_backend: Any, worst: Any, name: str) -> None:
    """From a fresh sequence, with a restart in it: the matrices of ``system`` in a loop."""
    case = CASES[name]
    layer, reset = case.layer, np.isin(np.arange(L), (4, 5))
    params, u = layer.init(2, dtype="float64"), inputs((2, L, layer.d_model))
    mask = np.stack([reset] * 2)
    moved = backend.move(params, backend=ssm_backend.name)
    system = layer.system(moved, *(ssm_backend.from_numpy(x) for x in (u, mask)))
    got = loop(system, np.tile(u, layer.d_output // layer.d_model), reset)
    value, _ = expected(case, params, u, reset=mask)
    growth = condition(lambda p, v: expected(case, p, v, reset=mask)[0], params, u)
    tolerance = bound("float64", steps(L, MOST_STATES), growth)
    check(worst, f"{name}: system", ssm_backend.name, "float64", got, value, tolerance)

"""Discretisation of dense systems: values against 50 digits, derivatives, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np
import pytest

from ssmcore.backend import Backend
from ssmcore.discretization import DENSE_METHODS, discretize, discretize_dense
from ssmcore.errors import SSMError

mp.mp.dps = 50
ONE = np.ones(2)
# at most 8 roundings of eps/2 forward, twice as many backward, on either side of a comparison
SIDES_ROUND = 2 * 2 * 8 * 0.5
EPS = float(np.finfo(np.float64).eps)
Floats = np.ndarray[Any, Any]


def exactly(x: Floats) -> Any:
    return mp.matrix(x.astype(float).tolist())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_value(ssm_backend: Backend, alpha: float, dtype: type) -> None:
    """Against 50 digits. Gaussian elimination with pivots: N^2 eps cond(left), normwise."""
    H, N = 3, 4
    rng = np.random.default_rng(0)
    A: Floats = (rng.standard_normal((H, N, N)) - 2 * np.eye(N)).astype(dtype)
    B: Floats = rng.standard_normal((N, 1)).astype(dtype)
    dt: Floats = np.asarray([0.01, 0.3, 2.0]).astype(dtype)
    got = discretize_dense(*(ssm_backend.from_numpy(x) for x in (A, B[:, 0], dt)), alpha=alpha)
    A_bar, B_bar = (ssm_backend.to_numpy(x) for x in got)
    assert A_bar.shape == (H, N, N)
    assert B_bar.shape == (H, N)
    for h in range(H):
        step, lam, eye = mp.mpf(float(dt[h])), exactly(A[h]), mp.eye(N)
        left, right = eye - alpha * step * lam, eye + (1 - alpha) * step * lam
        growth = N**2 * mp.mnorm(left) * mp.mnorm(left**-1) * float(np.finfo(dtype).eps)
        for rhs, out in ((right, A_bar[h]), (step * exactly(B), B_bar[h, :, None])):
            error = mp.mnorm(exactly(out) - left**-1 * rhs)
            ratio = float(error / (growth * mp.mnorm(left**-1) * mp.mnorm(rhs)))
            print(f"dense alpha {alpha}: error {ratio:.3f} of the bound")
            assert ratio <= 1.0


def test_one_state_is_the_diagonal_rule(ssm_autodiff: Backend) -> None:
    """N = 1 is the diagonal bilinear rule, values and derivatives; euler is alpha = 0."""
    host = {
        "A": np.asarray([-3.0, -0.1]),
        "B": np.asarray([2.0, 5.0]),
        "dt": np.asarray([0.3, 4.0]),
    }
    tree = {name: ssm_autodiff.from_numpy(x) for name, x in host.items()}
    xp = ssm_autodiff.xp
    for method in DENSE_METHODS:

        def dense(t: Any, method: str = method) -> Any:
            A_bar, B_bar = discretize_dense(t["A"][:, None, None], t["B"][:, None], t["dt"], method)
            return xp.sum(A_bar) + xp.sum(B_bar)

        def diagonal(t: Any, method: str = method) -> Any:
            A_bar, gain = discretize(t["A"], t["dt"], method)
            return xp.sum(A_bar) + xp.sum(gain * t["B"])

        one, two = (ssm_autodiff.value_and_grad(f, tree)[1] for f in (dense, diagonal))
        for name in tree:
            a, b = ssm_autodiff.to_numpy(one[name]), ssm_autodiff.to_numpy(two[name])
            # sums of products of at most two steps, B and A; a divisor of at least 1
            terms = np.maximum(1.0, host["dt"]) ** 2 * (1 + host["B"]) * (1 + np.abs(host["A"]))
            error = float(np.max(np.abs(a - b) / terms / np.finfo(float).eps))
            print(f"dense {method} d/d {name}: {error:.2f} eps")
            assert error <= SIDES_ROUND


def test_leading_axes_broadcast(ssm_backend: Backend) -> None:
    """One A for all channels, a B for each, a step for each; euler and a float step too."""
    A, B = -np.eye(2) + 0.5, np.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    for method in DENSE_METHODS:
        for dt in (np.asarray([0.1, 0.2, 0.3]), 0.25):
            step = dt if isinstance(dt, float) else ssm_backend.from_numpy(dt)
            got = discretize_dense(
                ssm_backend.from_numpy(A), ssm_backend.from_numpy(B), step, method
            )
            for h in range(3):
                alone = discretize_dense(A, B[h], float(np.broadcast_to(dt, 3)[h]), method)
                for out, one in zip(got, alone, strict=True):
                    host = ssm_backend.to_numpy(out)
                    assert host.shape == (3, *one.shape)
                    # the condition of I - dt/2 A is below 2 here
                    error = float(np.max(np.abs(host[h] - one)) / np.max(np.abs(one)))
                    print(f"dense {method} broadcast: {error / EPS:.2f} eps")
                    assert error <= 2 * 2 * 2**2 * EPS


BAD_CALLS = [
    (lambda: discretize_dense(np.eye(2), ONE, 0.1, "zoh"), "expected one of 'bilinear', 'euler'"),
    (lambda: discretize_dense(np.ones((2, 3)), ONE, 0.1), r"A is float64 \(2, 3\)"),
    (lambda: discretize_dense(np.eye(2) * 1j, ONE, 0.1), "A has dtype complex128"),
    (lambda: discretize_dense(np.eye(2), ONE, 0.1, alpha=1.5), "alpha is 1.5"),
    (lambda: discretize_dense(np.eye(2), ONE, 0.1, "euler", alpha=1.0), "alpha is 1.0 with method"),
    (lambda: discretize_dense(np.eye(2), ONE, -ONE), "discretize_dense: dt holds -1.0"),
]


@pytest.mark.parametrize(("call", "message"), BAD_CALLS)
def test_errors(call: Callable[[], object], message: str) -> None:
    """What does not fit is refused with one clear error."""
    with pytest.raises(SSMError, match=message):
        call()

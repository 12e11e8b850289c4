"""Initialisation: random draws, their distributions, ends and reproducibility.

Distributions are compared by the Dvoretzky-Kiefer-Wolfowitz bound: sup |F_n - F| <=
sqrt(log(2/delta) / (2n)) with probability 1 - delta; moments to SIGMAS standard errors. Seeds are
fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray

import ssmcore as ssm
from ssmcore import initialization as init

EPS = float(np.finfo(np.float64).eps)
DELTA = 1e-9
SIGMAS = 6.0
Floats = NDArray[np.float64]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def within(error: float, bound: float, what: str) -> None:
    print(f"{what}: worst error {error:.2e}, bound {bound:.2e}")
    assert error <= bound


def assert_quoted(value: float, quoted: str) -> None:
    decimals = len(quoted.partition(".")[2])
    within(abs(value - float(quoted)), 0.5 * 10.0**-decimals, f"{value:.6f} against {quoted}")


def assert_uniform(sample: Floats, low: float, high: float) -> None:
    n = sample.size
    u = np.sort((sample - low) / (high - low))
    above = np.max(np.arange(1, n + 1) / n - u)
    below = np.max(u - np.arange(n) / n)
    within(max(above, below), float(np.sqrt(np.log(2 / DELTA) / (2 * n))), "Kolmogorov distance")


class Extreme(np.random.Generator):
    """A generator stuck at an end of its range."""

    def __init__(self, top: bool) -> None:
        super().__init__(np.random.PCG64(0))
        self.top = top

    def integers(self, low: int, high: int, size: int) -> NDArray[np.int64]:  # type: ignore[override]
        return np.full(size, high - 1 if self.top else low)


# --- S5 --------------------------------------------------------------------------------------


def assert_truncated_normal(sample: Floats, std: float) -> None:
    # |x| <= 2 before division by the truncated deviation; the variance of the sample variance is
    # below that of a normal, 2 std^4 / n.
    n = sample.size
    within(abs(float(sample.mean())), SIGMAS * std / n**0.5, "mean")
    within(abs(float(sample.var()) / std**2 - 1), SIGMAS * (2 / n) ** 0.5, "variance")
    truncation = mpmath.sqrt(
        1 - 4 * mpmath.npdf(2) / (mpmath.ncdf(2) - mpmath.ncdf(-2))
    )  # standard deviation of a normal truncated at 2: 1 - 2 * 2 phi(2) / Z
    limit = 2 * std / float(truncation)
    # the rotation by V and back costs N eps.
    assert 0.99 * limit < np.max(np.abs(sample)) <= limit * (1 + 64 * 4 * EPS)


def test_s5_input_matrix() -> None:
    """B of S5 has the stated variance."""
    P_full, H = 64, 300
    _, V, Vinv = init.s5_hippo_blocks(P_full, 4, conj_sym=True)
    B = init.s5_input_matrix(rng(), Vinv, H)
    assert B.dtype == np.complex128
    assert B.shape == (P_full // 2, H)
    assert_truncated_normal(2 * (V @ B).real, P_full**-0.5)


@pytest.mark.parametrize("kind", ["trunc_standard_normal", "lecun_normal"])
def test_s5_output_matrix_truncated(kind: str) -> None:
    """C of S5 has the stated variance, from truncated normal numbers."""
    P_full, H = 64, 300
    _, V, Vinv = init.s5_hippo_blocks(P_full, 4, conj_sym=False)
    C = init.s5_output_matrix(rng(), V, H, kind)
    assert C.dtype == np.complex128
    assert C.shape == (H, P_full)
    C_0 = C @ Vinv
    std = P_full**-0.5 if kind == "trunc_standard_normal" else (H * P_full) ** -0.5
    assert_truncated_normal(C_0.real, std)
    assert_truncated_normal(C_0.imag, std)


def test_s5_output_matrix_complex_normal() -> None:
    """C of S5 is complex normal with variance 1/2 a part."""
    _, V, _ = init.s5_hippo_blocks(64, 4, conj_sym=True)
    C = init.s5_output_matrix(rng(), V, 300, "complex_normal")
    assert C.dtype == np.complex128
    assert C.shape == (300, 32)
    for part in (C.real, C.imag):
        # standard error of the variance of n normals: sqrt(2/n).
        within(abs(float(part.var()) / 0.5 - 1), SIGMAS * (2 / part.size) ** 0.5, "variance")


# --- rings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("r_min", "r_max", "max_phase"),
    [(0.0, 1.0, 6.28), (0.9, 0.999, 0.31), (0.5, 0.5, 1.0), (0.999, 0.9999999, 1e-3)],
)
def test_ring(r_min: float, r_max: float, max_phase: float) -> None:
    """|lambda|^2 of the LRU is uniform between r_min^2 and r_max^2, the phase uniform."""
    N = 20_000
    nu_log, theta_log, gamma_log = init.ring(rng(), N, r_min, r_max, max_phase)
    assert {x.dtype for x in (nu_log, theta_log, gamma_log)} == {np.dtype(np.float64)}
    radius, phase = np.exp(-np.exp(nu_log)), np.exp(theta_log)
    if r_min < r_max:
        assert_uniform(radius**2, r_min**2, r_max**2)
    else:
        # nu -> log r -> nu_log -> back: a few roundings of numbers below 1.
        within(float(np.max(np.abs(radius - r_min))), 8 * EPS, "circle")
    assert_uniform(phase, 0.0, max_phase)
    worst = 0.0
    with mpmath.workdps(50):
        for nu, gamma in zip(nu_log[:200].tolist(), gamma_log[:200].tolist(), strict=True):
            squared = mpmath.exp(-2 * mpmath.exp(mpmath.mpf(nu)))
            worst = max(worst, float(abs(gamma - mpmath.log(1 - squared) / 2)))
    # d gamma_log / d nu_log lies in [0, 1/2]; nu_log carries eps |nu_log|, gamma_log the like.
    scale = 1 + float(np.max(np.abs(nu_log)) + np.max(np.abs(gamma_log)))
    within(worst, 2 * EPS * scale, "gamma_log")


def test_default_ring_moments() -> None:
    """The default ring has mean |lambda| 2/3 and mean |lambda|^2 1/2."""
    N = 100_000
    nu_log, _, _ = init.ring(rng(), N)
    radius = np.exp(-np.exp(nu_log))
    # density 2r on [0, 1]: E r = 2/3, var r = 1/18; E r^2 = 1/2, var r^2 = 1/12.
    within(abs(float(radius.mean()) - 2 / 3), SIGMAS * (1 / 18 / N) ** 0.5, "E |lambda|")
    within(abs(float((radius**2).mean()) - 1 / 2), SIGMAS * (1 / 12 / N) ** 0.5, "E |lambda|^2")


@pytest.mark.parametrize("top", [False, True])
@pytest.mark.parametrize(("r_min", "r_max"), [(0.0, 1.0), (0.9, 1.0), (0.0, 0.5), (0.999, 0.999)])
def test_ring_is_finite_at_the_ends(top: bool, r_min: float, r_max: float) -> None:
    """No draw of the ring is infinite, whatever the random numbers."""
    extreme: Any = Extreme(top)
    for parameter in init.ring(extreme, 3, r_min, r_max):
        assert np.all(np.isfinite(parameter))
    for kind in ("a", "a^c"):
        assert np.all(np.isfinite(init.rglru_a_param(extreme, 3, 8.0, kind, r_min, r_max)))


def decay(a_param: Floats) -> Floats:
    return np.asarray(np.exp(-np.log1p(np.exp(a_param))))


def test_rglru_distributions() -> None:
    """a, or a^c, of the RG-LRU has the stated distribution."""
    a = decay(init.rglru_a_param(rng(), 20_000, 8.0, "a"))
    assert_uniform(a**2, 0.9**2, 0.999**2)
    a = decay(init.rglru_a_param(rng(), 20_000, 8.0, "a^c"))
    assert_uniform(a**8, 0.9, 0.999)


@pytest.mark.parametrize(
    ("kind", "top", "a_param", "a", "fastest"),
    [
        # a_param = log(1/a - 1), and 1/a = 10/9, 1000/999, (10/9)^(1/8), (1000/999)^(1/8).
        ("a", False, "-2.197", "0.900", "0.430"),
        ("a", True, "-6.907", "0.999", "0.992"),
        ("a^c", False, "-4.323", "0.98692", "0.900"),
        ("a^c", True, "-8.987", "0.99987", "0.999"),
    ],
)
def test_rglru_reference_ends(kind: str, top: bool, a_param: str, a: str, fastest: str) -> None:
    """The ends of the range of the RG-LRU are the published ones."""
    extreme: Any = Extreme(top)
    value = init.rglru_a_param(extreme, 1, 8.0, kind)
    assert_quoted(float(value[0]), a_param)
    assert_quoted(float(decay(value)[0]), a)
    assert_quoted(float(decay(value)[0] ** 8), fastest)


# --- timescales ------------------------------------------------------------------------------


def test_log_uniform_timescale() -> None:
    """log dt is uniform between its bounds."""
    log_dt = init.log_uniform_timescale(rng(), (100, 200), 1e-3, 0.1)
    assert log_dt.dtype == np.float64
    assert log_dt.shape == (100, 200)
    assert np.log(1e-3) <= log_dt.min() < log_dt.max() <= np.log(0.1)
    assert_uniform(log_dt.ravel(), np.log(1e-3), np.log(0.1))
    assert np.all(init.log_uniform_timescale(rng(), 3, 0.01, 0.01) == np.log(0.01))


def test_inverse_softplus_against_mpmath() -> None:
    """The inverse of softplus, against 50 digits."""
    x = np.concatenate([np.logspace(-300, 300, 601), np.logspace(-6, 3, 400), [np.log(2.0)]])
    worst = 0.0
    with mpmath.workdps(50):
        for value, result in zip(x.tolist(), init.inverse_softplus(x).tolist(), strict=True):
            logarithm = mpmath.log(-mpmath.expm1(-mpmath.mpf(value)))
            exact = mpmath.mpf(value) + logarithm
            # expm1, log and the sum round once each: eps of 1, of the logarithm and of the result;
            # NumPy's expm1 and log are good to 2 ulp.
            scale = 1 + value + abs(float(logarithm))
            worst = max(worst, float(abs(result - exact)) / (EPS * scale))
    within(worst, 3.0, "inverse_softplus, in units of eps (1 + |x| + |log(1 - e^-x)|)")


def test_softplus_bias() -> None:
    """softplus of the bias is log-uniform, not below the floor."""
    bias = init.softplus_bias(rng(), 20_000, 1e-3, 0.1)
    assert_uniform(np.log(np.log1p(np.exp(bias))), np.log(1e-3), np.log(0.1))
    assert_quoted(float(init.inverse_softplus(1e-3)), "-6.907")
    assert_quoted(float(init.inverse_softplus(0.1)), "-2.252")
    assert np.all(bias >= init.inverse_softplus(1e-3))
    assert np.all(bias <= init.inverse_softplus(0.1))
    floored = init.softplus_bias(rng(), 2_000, 1e-6, 0.1, floor=1e-4)
    assert np.all(floored >= init.inverse_softplus(1e-4))
    assert np.any(floored == init.inverse_softplus(1e-4))


# --- reproducibility -------------------------------------------------------------------------

DRAWS: dict[str, Callable[[np.random.Generator], Any]] = {
    "s5_input_matrix": lambda g: init.s5_input_matrix(g, np.eye(4, dtype=np.complex128), 3),
    "s5_output_matrix": lambda g: init.s5_output_matrix(
        g, np.eye(4, dtype=np.complex128), 3, "lecun_normal"
    ),
    "ring": lambda g: np.concatenate(init.ring(g, 5)),
    "rglru_a_param": lambda g: init.rglru_a_param(g, 5, 8.0, "a"),
    "log_uniform_timescale": lambda g: init.log_uniform_timescale(g, 5, 1e-3, 0.1),
    "softplus_bias": lambda g: init.softplus_bias(g, 5, 1e-3, 0.1, 1e-4),
}


@pytest.mark.parametrize("name", DRAWS)
def test_one_seed_one_result(name: str) -> None:
    """A seed gives one result, another seed another one."""
    first, again, other = (DRAWS[name](rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_rglru_grids() -> None:
    """No chance in them: a^c evenly between the radii, or a_param evenly between its ends."""
    grid = init.rglru_a_param(np.random.default_rng(0), 5, 4.0, "grid")
    powers = np.exp(-4.0 * np.logaddexp(0.0, grid))
    tolerance = 32 * np.finfo(float).eps  # the logarithm, the softplus and the exponential
    np.testing.assert_allclose(powers, [0.9, 0.92475, 0.9495, 0.97425, 0.999], rtol=tolerance)
    exp = init.rglru_a_param(np.random.default_rng(1), 3, kind="exp")
    np.testing.assert_array_equal(exp, [-4.323, (-4.323 - 9) / 2, -9])
    ends = np.exp(-8.0 * np.logaddexp(0.0, exp[[0, 2]]))
    assert np.abs(ends - [0.9, 0.999]).max() < 5e-5  # as far as their four digits go
    layer = ssm.RGLRU(3, a_initialization="exp")
    np.testing.assert_array_equal(layer.init(7, dtype="float64")["a_param"], exp)

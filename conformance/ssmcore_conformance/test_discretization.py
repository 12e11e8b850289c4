"""Discretisation against 50 digits: values, derivatives, identities, shapes, errors.

Bounds are counted in eps = 2u from the roundings of each formula (u = eps/2 a rounding):
an elementary function of a real number is good to 2 eps on every library, a complex product to
2 sqrt(2) u, a complex quotient to 8 u (numerator 2 sqrt(2) u, |divisor|^2 2 u, scaling 2 u,
division u), both relative to the modulus (Higham, Accuracy and Stability, sec. 3.6).
Errors count relative to the exact function of the given A and dt, plus what underflow flushes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmcore import backend
from ssmcore.backend import Backend
from ssmcore.discretization import METHODS, discretize
from ssmcore.errors import SSMError

Floats = np.ndarray[Any, Any]
Pair = tuple[Any, Any]
mp.mp.dps = 50

ROUNDING, FUNCTION, PRODUCT, QUOTIENT = 0.5, 2.0, 2.0**0.5, 4.0
# e^z = e^x (cos y + i sin y), times 1 + low; the term low^2 / 2 <= (1e3 eps)^2 / 8 is nothing
EXP = 2 * FUNCTION + ROUNDING + ROUNDING + PRODUCT
# e^z - 1, |z| >= 1: two real terms, each good to 2 FUNCTION + ROUNDING, of at most twice the size
# of their sum (worst: x = -1, y = pi), then times 1 + low, plus low, by lambda. The series of
# phi_1 is better: Horner rounds at most sum k/(k+1)! (PRODUCT + 1) + (e - 1)/2 < 3.3, on a value
# of at least 0.63, then two ROUNDINGs.
ZOH_GAIN = 2 * (2 * FUNCTION + ROUNDING) + PRODUCT + 2 * ROUNDING + QUOTIENT
# 1 + z and + low round once each, in numerator and divisor
BILINEAR = 4 * ROUNDING + QUOTIENT
VALUE_BOUND = {
    "zoh": (EXP, ZOH_GAIN),
    "bilinear": (BILINEAR, BILINEAR),
    "euler": (2 * ROUNDING, 0.0),
    "mamba": (EXP, 0.0),
    "dirac": (EXP, 0.0),
}
# Reverse mode multiplies by the derivative of each operation, itself an operation of the formula:
# twice the roundings, counted on the sum of the moduli of the terms that are added.
GRADIENT = 2.0
FLOATS = [np.float32, np.float64]


def loaded(name: str) -> Backend:
    try:
        library = backend.load(name)
    except SSMError as absent:
        pytest.skip(str(absent))
    library.enable_float64()
    return library


@functools.cache
def grid(dtype: type, kind: str) -> tuple[Floats, Floats]:
    """lambda and dt with |dt lambda| from 1e-12 to 1e3: left half plane, seams and hard points."""
    size = np.concatenate(
        [10.0 ** np.arange(-12, 3.1, 0.5), [0.99, 0.9999999, 1.0, 1.0000001, 1.01, 1.99, 2.0, 2.01]]
    )
    near = [0.0, -1.0, -20.0, -80.0, -2.0, *(-2.0 + np.asarray([1e-6, -1e-6, 1e-3])), 1e-3, 0.5]
    if kind == "real":
        z = np.concatenate([-size, np.linspace(-2.1, -0.9, 25), near])
    else:
        angle = np.concatenate([np.linspace(0.5, 1.5, 11), [0.5 + 1e-6, 1.5 - 1e-4]]) * np.pi
        turns = 2j * np.pi * np.asarray([1, 2, 5, 31, 140])
        around = [turns, turns - 1e-6, -turns - 1e-3 + 1e-4j, [-2 + 1e-3j, -2 - 1e-6j, 0.5 - 3j]]
        z = np.concatenate([(size[:, None] * np.exp(1j * angle)).ravel(), near, *around])
    dt: Floats = (10.0 ** np.random.default_rng(1).uniform(-4.0, 1.0, z.size)).astype(dtype)
    return (z / dt).astype(np.result_type(dtype, z.dtype) if kind == "real" else complex), dt


def system(dtype: type, kind: str) -> tuple[Floats, Floats]:
    """The grid in the dtype under test."""
    A, dt = grid(dtype, kind)
    real = {"float32": "float32", "float64": "float64"}[np.dtype(dtype).name]
    if kind == "real":
        return A.real.astype(real), dt
    return A.astype("complex64" if real == "float32" else "complex128"), dt


def value(method: str, A: Any, dt: Any, eps: float) -> dict[Any, Pair]:
    """{output: (value, scale)} in 50 digits, by the defining formulas.

    Where |e^z - 1| < eps |z| its two leading parts cancel: the error counts on the larger.
    """
    z = A * dt
    A_bar = 1 + z if method == "euler" else mp.exp(z)
    gain = mp.mpf(1) if method == "dirac" else dt
    scale = 0
    if method == "bilinear":
        A_bar, gain = (1 + z / 2) / (1 - z / 2), dt / (1 - z / 2)
    elif method == "zoh" and z != 0:
        gain, scale = (mp.exp(z) - 1) / A, eps * dt
    return {"A_bar": (A_bar, abs(A_bar)), "gain": (gain, max(abs(gain), scale))}


def derivative(method: str, A: Any, dt: Any, eps: float) -> dict[Any, Pair]:
    """{(output, input): (derivative, sum of the moduli of its terms)}, in 50 digits."""
    z = A * dt
    e, over, under = mp.exp(z), 1 + z / 2, 1 - z / 2
    slope, terms = (mp.mpf(1) if method == "euler" else e), mp.mpf(0)
    by_A, by_dt = (mp.mpf(0), 1), (mp.mpf(0 if method == "dirac" else 1), 1)
    if method == "bilinear":
        slope, terms = 1 / under**2, (1 + abs(over / under)) / abs(2 * under)
        by_A, by_dt = (dt * dt / under**2 / 2, 0), (slope, (1 + abs(z / 2 / under)) / abs(under))
    elif method == "zoh":
        d_phi = (z * e - e + 1) / A**2 if z != 0 else dt * dt / 2
        if abs(z) < 1e-3:  # 50 digits less what cancels: the series to z^8
            d_phi = dt * dt * mp.fsum((k + 1) * z**k / mp.factorial(k + 2) for k in range(9))
        large = (abs(z * e) + abs(e - 1)) / abs(A) ** 2 if abs(z) >= 1 else 0
        by_A, by_dt = (d_phi, large), (e, 0)
    pairs = {("A_bar", "A"): (dt * slope, dt * terms), ("A_bar", "dt"): (A * slope, abs(A) * terms)}
    pairs |= {("gain", "A"): by_A, ("gain", "dt"): by_dt}
    return {key: (exact, max(abs(exact), terms)) for key, (exact, terms) in pairs.items()}


@functools.cache
def oracle(
    what: Callable[..., dict[Any, Pair]], method: str, dtype: type, kind: str
) -> dict[Any, tuple[Floats, Floats, Floats]]:
    """For each quantity on the grid: its value as a sum of two doubles, and its scale."""
    A, dt = system(dtype, kind)
    exact = [mp.mpc(complex(a)) if kind == "complex" else mp.mpf(float(a)) for a in A]
    eps = float(np.finfo(dtype).eps)
    rows = [what(method, a, mp.mpf(float(d)), eps) for a, d in zip(exact, dt, strict=True)]
    out = {}
    for key in rows[0]:
        high = [complex(row[key][0]) for row in rows]
        low = [complex(row[key][0] - h) for row, h in zip(rows, high, strict=True)]
        scale = [float(row[key][1]) for row in rows]
        out[key] = np.asarray(high), np.asarray(low), np.asarray(scale)
    return out


def largest(got: Floats, wanted: tuple[Floats, Floats, Floats], size: Floats, dtype: type) -> float:
    """Largest error in eps of the scale, beyond what underflow flushes times ``size``."""
    high, low, scale = wanted
    info = np.finfo(dtype)
    allowed = float(info.eps) * scale + 8 * float(info.tiny) * (1 + np.abs(size.astype(float)))
    return float(np.max(np.abs((got.astype(complex) - high) - low) / allowed))


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("method", METHODS)
def test_value(ssm_backend: Backend, worst: Any, method: str, dtype: type, kind: str) -> None:
    """A_bar and the gain of every rule, against 50 digits, for |dt lambda| from 1e-12 to 1e3."""
    A, dt = system(dtype, kind)
    exact = oracle(value, method, dtype, kind)
    given_arrays = ssm_backend.from_numpy(A), ssm_backend.from_numpy(dt)
    plain: Callable[..., Pair] = functools.partial(discretize, method=method)
    for run in (plain, ssm_backend.compile(plain)):
        outputs = zip(("A_bar", "gain"), run(*given_arrays), VALUE_BOUND[method], strict=True)
        for name, got, bound in outputs:
            error = largest(ssm_backend.to_numpy(got), exact[name], dt, dtype)
            row, unit = f"discretize, {method}: {name} in eps", np.dtype(dtype).name
            worst(row, ssm_backend.name, unit, error, bound)
            assert error <= bound, f"{row} on {ssm_backend.name}, {unit}: {error}, bound {bound}"


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("method", METHODS)
def test_gradient(ssm_autodiff: Backend, worst: Any, method: str, dtype: type, kind: str) -> None:
    """Through real pairs: f' = d Re f/d re + i d Im f/d re; for "zoh" d gain/d dt = e^z.

    One call for all: row by row, the loss is the sum of Re A_bar, Im A_bar, Re gain, Im gain.
    """
    A, dt = system(dtype, kind)
    exact = oracle(derivative, method, dtype, kind)
    tree = {"re": A.real, "im": A.imag, "dt": dt}
    tree = {name: ssm_autodiff.from_numpy(np.tile(x, (4, 1))) for name, x in tree.items()}
    xp = ssm_autodiff.xp

    def loss(t: Any) -> Any:
        lam = t["re"] + t["im"] * 1j if kind == "complex" else t["re"]
        total = 0.0
        for x, row in zip(discretize(lam, t["dt"], method), (0, 2), strict=True):
            parts = (xp.real(x), xp.imag(x)) if kind == "complex" else (x, x)
            total = total + xp.sum(parts[0][row, :]) + xp.sum(parts[1][row + 1, :])
        return total

    grads = ssm_autodiff.value_and_grad(loss, tree)[1]
    for name in ("re", "im", "dt") if kind == "complex" else ("re", "dt"):
        rows = ssm_autodiff.to_numpy(grads[name])
        key = "dt" if name == "dt" else "A"
        unit = -1j if name == "im" else 1.0  # d f / d im = i f'
        for j, output in enumerate(("A_bar", "gain")):
            got = unit * (rows[2 * j] + (1j * rows[2 * j + 1] if kind == "complex" else 0.0))
            error = largest(got, exact[output, key], np.abs(A) if key == "dt" else dt, dtype)
            bound = GRADIENT * max(VALUE_BOUND[method][j], ROUNDING)
            row, real = f"discretize, {method}: d {output} / d {name} in eps", np.dtype(dtype).name
            worst(row, ssm_autodiff.name, real, error, bound)
            assert error <= bound, f"{row} on {ssm_autodiff.name}, {real}: {error}, bound {bound}"


@pytest.mark.parametrize("method", METHODS)
@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.floats(-12, 2.9), st.floats(0.5, 1.5), st.floats(2.0**-20, 8.0, width=32), st.booleans())
def test_random_values(
    method: str, exponent: float, angle: float, dt: float, conjugate: bool
) -> None:
    """Any lambda and dt, drawn, against 50 digits."""
    z = 10.0**exponent * np.exp(1j * np.pi * angle)
    A = np.asarray([np.conj(z) / dt if conjugate else z / dt])
    eps = float(np.finfo(np.float64).eps)
    wanted = value(method, mp.mpc(complex(A[0])), mp.mpf(dt), eps)
    for got, (exact, scale), bound in zip(
        discretize(A, dt, method), wanted.values(), VALUE_BOUND[method], strict=True
    ):
        tiny = 8 * float(np.finfo(np.float64).tiny) * (1 + dt)
        assert abs(mp.mpc(complex(got[0])) - exact) <= bound * (eps * scale + tiny)


@pytest.mark.parametrize("dtype", FLOATS)
def test_zoh_composes(ssm_backend: Backend, dtype: type) -> None:
    """Two holds are one: A_bar(s + t) = A_bar(s) A_bar(t), and B_bar adds the same way."""
    rng = np.random.default_rng(0)
    A = (-(10.0 ** rng.uniform(-3, 1, 200)) + 1j * rng.uniform(-20, 20, 200)).astype(
        np.result_type(dtype, np.complex64)
    )
    A = ssm_backend.from_numpy(A)
    steps = (0.25, 0.5, 0.75)
    (a1, g1), (a2, g2), (a3, g3) = ssm_backend.compile(
        lambda A: [discretize(A, dt) for dt in steps]
    )(A)
    a1, g1, a2, g2, a3, g3 = (ssm_backend.to_numpy(x) for x in (a1, g1, a2, g2, a3, g3))
    eps = np.finfo(dtype).eps
    error_a = np.max(np.abs(a3 - a1 * a2) / np.abs(a3)) / eps
    error_g = np.max(np.abs(g3 - a2 * g1 - g2) / (np.abs(a2 * g1) + np.abs(g2))) / eps
    print(f"zoh composition: A_bar {error_a:.2f} eps, gain {error_g:.2f} eps")
    assert error_a <= 3 * EXP + PRODUCT
    assert error_g <= 2 * ZOH_GAIN + EXP + PRODUCT + 2 * ROUNDING


@pytest.mark.parametrize("dtype", FLOATS)
def test_bilinear_is_stable_and_zoh_contracts(ssm_backend: Backend, dtype: type) -> None:
    """A stable system stays stable under bilinear and zero-order hold."""
    A, dt = system(dtype, "complex")
    left = A.real <= 0
    A, dt = ssm_backend.from_numpy(A[left]), ssm_backend.from_numpy(dt[left])
    for method in ("bilinear", "zoh", "mamba", "dirac"):
        run = ssm_backend.compile(functools.partial(discretize, method=method))
        radius = float(np.max(np.abs(ssm_backend.to_numpy(run(A, dt)[0]))))
        excess = (radius - 1.0) / float(np.finfo(dtype).eps)
        print(f"{method}: |A_bar| <= 1 + {excess:.2f} eps")
        assert excess <= VALUE_BOUND[method][0]


def test_series_meets_closed_form(ssm_backend: Backend) -> None:
    """|z| = 1 is where the formula changes: across it the gain moves by e^z times the step."""
    angle = np.linspace(0.5, 1.5, 41) * np.pi
    A, eps = np.exp(1j * angle), float(np.finfo(np.float64).eps)
    run = ssm_backend.compile(lambda A: [discretize(A, 1.0 + k * 8 * eps)[1] for k in (-1, 1)])
    inner, outer = (ssm_backend.to_numpy(x) for x in run(ssm_backend.from_numpy(A)))
    jump = float(np.max(np.abs(outer - inner - 16 * eps * np.exp(A)) / np.abs(inner))) / eps
    print(f"seam: jump {jump:.2f} eps")
    assert jump <= 2 * ZOH_GAIN


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("method", METHODS)
def test_steps_broadcast(ssm_backend: Backend, method: str, dtype: str) -> None:
    """Scalar, float, per state, per channel and time step: each entry as on its own."""
    H, N, L = 3, 4, 2
    real = "float32" if dtype == "float32" else "float64"
    eps = float(np.finfo(real).eps)
    rng = np.random.default_rng(0)
    host: Floats = -rng.uniform(0.1, 9, (H, N)).astype(real) + np.asarray(0, dtype=dtype)
    host = host * (1 + 2j) if dtype == "complex128" else host
    run = ssm_backend.compile(functools.partial(discretize, method=method))
    for shape in ((), (N,), (L, H, 1)):
        dt = np.asarray(rng.uniform(0.01, 1, shape)).astype(real)
        full = np.broadcast_shapes(shape, (H, N))
        alone = discretize(np.broadcast_to(host, full), np.broadcast_to(dt, full), method)
        pairs = [run(ssm_backend.from_numpy(host), ssm_backend.from_numpy(dt))]
        if not shape:
            by_float = ssm_backend.compile(
                functools.partial(discretize, dt=float(dt), method=method)
            )
            pairs.append(by_float(ssm_backend.from_numpy(host)))
        for pair in pairs:
            for got, one, bound in zip(pair, alone, VALUE_BOUND[method], strict=True):
                assert backend.of(got) is ssm_backend
                assert tuple(got.shape) == full
                assert backend.dtype_name(got) == dtype
                error = np.max(np.abs(ssm_backend.to_numpy(got) - one) / np.abs(one)) / eps
                print(f"{method} step {shape}: {error:.2f} eps from entry by entry")
                assert error <= 2 * bound


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("method", METHODS)
def test_zero_and_underflow(ssm_autodiff: Backend, method: str, kind: str) -> None:
    """lambda = 0, dt = 0 and e^-1000: the limits, and finite derivatives."""
    xp = ssm_autodiff.xp
    tree = {"A": np.tile([0.0, -1.0, -1000.0], (2, 1)), "dt": np.repeat([[0.0], [1.0]], 3, axis=1)}
    tree = {name: ssm_autodiff.from_numpy(x) for name, x in tree.items()}

    def outputs(t: Any) -> Pair:
        lam = t["A"] + 0.0 * t["A"] * 1j if kind == "complex" else t["A"]
        return discretize(lam, t["dt"], method)

    def loss(t: Any) -> Any:
        A_bar, gain = outputs(t)
        total = A_bar + 2.0 * gain
        return xp.sum(xp.real(total) if kind == "complex" else total)

    pair = ssm_autodiff.compile(outputs)(tree)
    A_bar, gain = (ssm_autodiff.to_numpy(x) for x in pair)
    assert np.isfinite(A_bar).all()
    assert (A_bar[:, 0] == 1.0).all()
    assert gain[:, 0].tolist() == ([1.0, 1.0] if method == "dirac" else [0.0, 1.0])
    if method in ("zoh", "mamba", "dirac"):
        assert A_bar[:, 2].tolist() == [1.0, 0.0]
    grads = ssm_autodiff.value_and_grad(loss, tree)[1]
    slopes = {name: ssm_autodiff.to_numpy(g) for name, g in grads.items()}
    assert all(np.isfinite(g).all() for g in slopes.values())
    # d A_bar / d lambda = dt, and d gain / d lambda = dt^2 / 2 for the two that depend on lambda
    assert slopes["A"][:, 0].tolist() == [0.0, 2.0 if method in ("zoh", "bilinear") else 1.0]


def test_jax_without_64_bit() -> None:
    """The rules hold in float32 where JAX has no 64-bit types."""
    loaded("jax")
    import jax

    A, dt = system(np.float32, "complex")
    with jax.enable_x64(False):
        pair = discretize(jax.numpy.asarray(A), jax.numpy.asarray(dt))
        assert [str(x.dtype) for x in pair] == ["complex64"] * 2
    for got, same in zip(
        pair, discretize(jax.numpy.asarray(A), jax.numpy.asarray(dt)), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(got), np.asarray(same))


# --- errors ----------------------------------------------------------------------------------

ONE = np.ones(2)
BAD_CALLS = [
    (lambda: discretize(-ONE, 0.1, "zho"), r"method is 'zho'.*did you mean 'zoh'"),
    (lambda: discretize(np.asarray([-1, -2]), 0.1), "A has dtype int64.*float32, float64"),
    (lambda: discretize(ONE.astype(np.float16), 0.1), "A has dtype float16"),
    (lambda: discretize(-ONE, ONE.astype(np.float32)), "dt has dtype float32 beside A of dtype"),
    (lambda: discretize(-ONE * 1j, ONE * 1j), "dt has dtype complex128"),
    (lambda: discretize(-ONE, -0.5), r"dt holds -0.5.*exp\(log_dt\)"),
    (lambda: discretize(-ONE, np.asarray([0.1, np.nan])), r"dt holds nan \(1 of 2"),
    (lambda: discretize(-ONE, float("inf")), "dt holds inf"),
    (lambda: discretize([-1.0], 0.1), "expected an array"),
    (lambda: discretize(-ONE, True), "expected an array"),
]


@pytest.mark.parametrize(("call", "message"), BAD_CALLS)
def test_errors(call: Callable[[], object], message: str) -> None:
    """Unknown rules and steps that cannot be are refused."""
    with pytest.raises(SSMError, match=message):
        call()


def test_libraries_do_not_mix(ssm_autodiff: Backend) -> None:
    """Arrays of two libraries are refused."""
    with pytest.raises(SSMError, match="one library"):
        discretize(ssm_autodiff.from_numpy(-ONE), ONE)


def test_steps_are_checked_only_when_known() -> None:
    """A traced step is not looked at; a constant inside the traced function still is."""
    jax = loaded("jax")
    A, bad = jax.from_numpy(-ONE), jax.from_numpy(-ONE)
    traced = jax.compile(lambda dt: discretize(A, dt)[0])(bad)
    assert (jax.to_numpy(traced) > 1.0).all()
    for constant in (bad, -1.0):
        with pytest.raises(SSMError, match=r"dt holds -1.0"):
            jax.compile(lambda A, constant=constant: discretize(A, constant)[0])(A)


def test_inputs_are_left_alone(ssm_backend: Backend) -> None:
    """Inputs are as they were afterwards."""
    A, dt = -ONE, 0.5 * ONE
    arrays = ssm_backend.from_numpy(A), ssm_backend.from_numpy(dt)
    for method in METHODS:
        discretize(*arrays, method)
    np.testing.assert_array_equal(ssm_backend.to_numpy(arrays[0]), A)
    np.testing.assert_array_equal(ssm_backend.to_numpy(arrays[1]), dt)

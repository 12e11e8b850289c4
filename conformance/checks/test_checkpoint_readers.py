"""What the readers fold in beyond the golden files, and selective_scan's argument layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks.golden_cases import load as load_golden
from checks.golden_cases import peak_error

from ssmcore import checkpoints, oracle
from ssmcore.checkpoints.truncation import bilinear_dense
from ssmcore.errors import SSMError

EPS = float(np.finfo(np.float64).eps)

# --------------------------------------------------------------- folded in, without golden data


def untied_s4(rng: np.random.Generator, H: int, S: int, N: int, ch: int) -> dict[str, np.ndarray]:
    return {
        "D": np.zeros((ch, H)),
        "kernel.C": rng.standard_normal((ch, H, N, 2)),
        "kernel.B": rng.standard_normal((1, S, N, 2)),
        "kernel.P": 0.5 * rng.standard_normal((1, S, N, 2)),
        "kernel.A_real": rng.uniform(-1.0, 0.0, (S, N)),
        "kernel.A_imag": rng.uniform(0.0, 8.0, (S, N)),
        "kernel.inv_dt": rng.uniform(-2.0, -1.0, (H, N)),
        "kernel.l_kernel": np.array(16),
    }


@pytest.mark.parametrize("rate", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("bandlimit", [None, 0.25])
@pytest.mark.parametrize("start", ["C~", "C"])
def test_untied_dt_bandlimit_and_rate_of_s4(
    rate: float, bandlimit: float | None, start: str
) -> None:
    """The kernel by the generating function on the unit circle, as the original computes it.

    k = ifft of C~ mask (I - w A_rate)^-1 B_rate at the L/rate roots of unity w. Both ways solve
    with I - w A_rate or with their product M = I - A_rate^(L/rate), whose condition number bounds
    theirs to within L; each solve and the sum over L terms round to about 2N + L eps: the bound is
    4 eps cond(M) (2N + L) of the peak.
    """
    H, S, N, ch = 4, 2, 3, 2
    found = untied_s4(np.random.default_rng(3), H, S, N, ch)
    rows, L = np.arange(H) % S, round(16 / rate)
    pair = {name: x[..., 0] + 1j * x[..., 1] for name, x in found.items() if x.shape[-1:] == (2,)}
    half = np.exp(found["kernel.inv_dt"])
    lam = (-np.exp(found["kernel.A_real"]) - 1j * found["kernel.A_imag"])[rows]
    mask = np.ones((H, N))
    if bandlimit is not None:
        mask = (half * found["kernel.A_imag"][rows] / (2 * np.pi) < bandlimit / 2) * 1.0
        assert 0 < mask.sum() < mask.size

    def discrete(rate: float) -> tuple[np.ndarray, np.ndarray]:
        T = rate * np.concatenate((half, half), axis=-1)
        P = np.concatenate((pair["kernel.P"], pair["kernel.P"].conj()), axis=-1)[0, rows]
        B = np.concatenate((pair["kernel.B"], pair["kernel.B"].conj()), axis=-1)[0, rows]
        A = np.concatenate((lam, lam.conj()), axis=-1)[..., None] * np.eye(2 * N)
        A = T[..., None] * (A - P[..., None] * P[:, None, :].conj())
        solve = np.linalg.inv(np.eye(2 * N) - A / 2)
        return solve @ (np.eye(2 * N) + A / 2), np.einsum("hmn,hn->hm", solve, T * B)

    A_bar, B_bar = discrete(rate)
    C = np.concatenate((pair["kernel.C"], pair["kernel.C"].conj()), axis=-1)
    if start == "C":
        found["kernel.l_kernel"] = np.array(0)
        C = C - np.einsum("chm,hmn->chn", C, np.linalg.matrix_power(discrete(1.0)[0], 16))
    C = C * np.concatenate((mask, mask), axis=-1)
    nodes = np.exp(-2j * np.pi * np.arange(L) / L)
    resolvent = np.eye(2 * N) - nodes[:, None, None, None] * A_bar
    spectrum = np.einsum("chm,lhm->lch", C, np.linalg.solve(resolvent, B_bar[..., None])[..., 0])
    expected = np.fft.ifft(spectrum, axis=0).real.reshape(L, ch * H)

    reading = checkpoints.read_s4(found, bandlimit=bandlimit, rate=rate, l_max=16)
    assert reading.options == {"d_model": 4, "d_state": 6, "n_ssm": 4, "channels": 2, "rank": 1}
    impulse = np.zeros((L, H))
    impulse[0] = 1.0
    error = peak_error(oracle.run("S4", reading.params, impulse).y, expected)
    M = np.eye(2 * N) - np.linalg.matrix_power(A_bar, L)
    bound = 4 * EPS * float(np.linalg.cond(M).max()) * (2 * N + L)
    print(f"untied S4, rate {rate}, bandlimit {bandlimit}: {error:.1e}, bound {bound:.1e}")
    assert error <= bound


@pytest.mark.parametrize("disc", ["zoh", "bilinear"])
def test_real_s4d(disc: str) -> None:
    """K_l = 2 sum_n C_n B_bar_n A_bar_n^l over real n: N products, l factors, c = 4."""
    rng, H, N, L = np.random.default_rng(4), 3, 4, 10
    found = {
        "D": np.zeros((1, H)),
        "kernel.C": rng.standard_normal((1, H, N)),
        "kernel.B": rng.uniform(0.5, 1.0, (1, 1, N)),
        "kernel.A_real": rng.uniform(-1.0, 1.0, (1, N)),
        "kernel.inv_dt": np.full((H, 1), -1.0),
    }
    x = np.exp(-1.0) * -np.exp(found["kernel.A_real"])
    A_bar = np.exp(x) if disc == "zoh" else (1 + x / 2) / (1 - x / 2)
    gain = np.expm1(x) / x if disc == "zoh" else 1 / (1 - x / 2)
    terms = found["kernel.C"][0] * found["kernel.B"][0] * np.exp(-1.0) * gain
    powers = A_bar ** np.arange(L)[:, None]
    reading = checkpoints.read_s4(found, mode="diag", is_real=True, disc=disc)
    impulse = np.zeros((L, H))
    impulse[0] = 1.0
    options = {"discretization": reading.options["discretization"]}
    y = oracle.run("S4D", reading.params, impulse, options=options).y
    error = np.abs(y - 2.0 * powers @ terms.T).max()
    bound = 4 * EPS * (N + L) * 2.0 * np.abs(terms).sum(axis=-1).max()
    print(f"real S4D {disc}: {error:.1e}, bound {bound:.1e}")
    assert error <= bound


def test_dt_fast_and_transforms_agree_on_one_time_step() -> None:
    """One dt stored in every way; each inverse and log rounds a few times, at most 8 eps."""
    found = untied_s4(np.random.default_rng(2), H=4, S=2, N=3, ch=1)
    found["kernel.l_kernel"] = np.array(0)
    dt = 0.3
    stored = {
        "exp": np.log(dt),
        "softplus": np.log(np.expm1(dt)),
        "sigmoid": np.log(dt / (1 - dt)),
        "relu": dt - 1e-4,
        "none": dt,
    }
    for kind, value in stored.items():
        for fast in (False, True):
            inv_dt = np.full((4, 1), np.arcsinh(value) if fast else value)
            stored_dt = {"kernel.inv_dt": inv_dt}
            options: dict[str, Any] = {"dt_transform": kind, "dt_fast": fast}
            reading = checkpoints.read_s4(found | stored_dt, **options)
            error = np.abs(reading.params["log_dt"] - np.log(dt)).max()
            assert error <= 8 * EPS * abs(np.log(dt)), (kind, fast, error)


def test_mamba_mixer() -> None:
    """S6 of the mixer against the recurrence written out with the original's projections."""
    rng, H, N, R, L = np.random.default_rng(5), 4, 3, 2, 12
    found = {
        "mixer.A_log": rng.uniform(-1.0, 1.0, (H, N)),
        "mixer.D": rng.standard_normal(H),
        "mixer.x_proj.weight": rng.standard_normal((R + 2 * N, H)),
        "mixer.dt_proj.weight": rng.standard_normal((H, R)),
        "mixer.dt_proj.bias": rng.standard_normal(H),
        "mixer.in_proj.weight": np.ones((2 * H, 2)),
        "mixer.conv1d.bias": np.ones(H),
        "mixer.out_proj.weight": np.ones((2, H)),
    }
    u = rng.standard_normal((L, H))
    reading = checkpoints.read_mamba_mixer(found, prefix="mixer")
    projected = u @ found["mixer.x_proj.weight"].T
    low, B, C = projected[:, :R], projected[:, R : R + N], projected[:, R + N :]
    given = checkpoints.selective_scan_arguments(
        u.T[None],
        (found["mixer.dt_proj.weight"] @ low.T)[None],
        -np.exp(found["mixer.A_log"]),
        B.T[None],
        C.T[None],
        delta_bias=found["mixer.dt_proj.bias"],
        delta_softplus=True,
    )
    h, size, y, growth = np.zeros((H, N)), np.zeros((H, N)), np.zeros((L, H)), np.zeros((L, H))
    for t in range(L):
        dt = given["delta"][0, t, :, None]
        drive = dt * given["B"][0, t] * given["u"][0, t, :, None]
        h, size = np.exp(dt * given["A"]) * h + drive, np.exp(dt * given["A"]) * size + abs(drive)
        y[t] = h @ given["C"][0, t] + found["mixer.D"] * u[t]
        growth[t] = size @ abs(given["C"][0, t]) + abs(found["mixer.D"] * u[t])
    # dt is a sum of R of H products (condition: sum of sizes), and multiplies A in the exponent:
    # relative changes of at most c (H + R + L) eps (1 + |dt A|), c = 8, times the sum of sizes.
    sizes = abs(found["mixer.dt_proj.weight"]) @ abs(found["mixer.x_proj.weight"][:R]) @ abs(u.T)
    exponent = 1.0 + sizes.max() * np.exp(found["mixer.A_log"]).max()
    bound = 8 * EPS * (H + R + L) * exponent * growth.max()
    error = np.abs(oracle.run("S6", reading.params, u).y - y).max()
    print(f"Mamba mixer: {error:.1e}, bound {bound:.1e}")
    assert error <= bound


def test_s5_of_a_whole_model() -> None:
    _, groups = load_golden("s5")
    for layer in (0, 1):
        prefix = f"params/encoder/layers_{layer}/seq"
        reading = checkpoints.read_s5(
            groups["model_pool"].arrays, prefix=prefix, bidirectional=True
        )
        assert reading.options["skip_current"] is False
        np.testing.assert_array_equal(
            reading.params["anticausal"]["C"], groups["model_pool"][f"{prefix}/C2"]
        )
        assert set(reading.params["anticausal"]) == {"C"}


# ----------------------------------------------------------- selective_scan_arguments, any library


def scan_arguments(kind: str) -> dict[str, Any]:
    rng, batch, H, L, N = np.random.default_rng(6), 2, 4, 5, 3
    complex_A = kind.startswith("complex")
    length = 2 * L if complex_A else L
    shapes = {"shared": (batch, N, length), "groups": (batch, 2, N, length), "constant": (H, N)}
    A: np.ndarray = -rng.uniform(0.5, 1.0, (H, N))
    B: np.ndarray = rng.standard_normal(shapes[kind.split()[-1]])
    C = rng.standard_normal(shapes["shared"])
    if complex_A:
        A = A + 1j * rng.standard_normal((H, N))
        B = B + 0j if B.ndim == 2 else B
    sequences = {name: rng.standard_normal((batch, H, L)) for name in ("u", "delta", "z")}
    channels = {name: rng.standard_normal(H) for name in ("D", "delta_bias")}
    return sequences | channels | {"A": A, "B": B, "C": C}


KINDS = [f"{c}{k}" for c in ("", "complex ") for k in ("shared", "groups", "constant")]


@pytest.mark.parametrize("library", ["array_api_strict", "torch", "jax.numpy"])
@pytest.mark.parametrize("kind", KINDS)
def test_selective_scan_arguments_in_every_library(library: str, kind: str) -> None:
    xp = pytest.importorskip(library, reason=f"{library} is not installed")
    given = {
        name: x.astype("c8" if x.dtype.kind == "c" else "f4")
        for name, x in scan_arguments(kind).items()
    }
    expected = checkpoints.selective_scan_arguments(**given, delta_softplus=True)
    moved = {name: xp.asarray(x) for name, x in given.items()}
    found = checkpoints.selective_scan_arguments(**moved, delta_softplus=True)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert type(found[name]) is type(moved["u"])
        array = np.asarray(found[name])
        assert (array.shape, array.dtype) == (value.shape, value.dtype)
        # all but delta is copied; softplus(delta + bias): exp, log1p and two sums, each a few ulp
        tolerance = 16 * float(np.finfo(np.float32).eps) if name == "delta" else 0.0
        assert np.abs(array - value).max() <= tolerance * np.abs(value).max(), name


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_flow_through_the_arguments(kind: str) -> None:
    """The gradient of the sum of all arguments is the number of copies of each input."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    given = {name: torch.tensor(x, requires_grad=True) for name, x in scan_arguments(kind).items()}
    found = checkpoints.selective_scan_arguments(**given)
    sum((x.real.sum() for x in found.values()), torch.zeros(())).backward()
    for name, x in given.items():
        gradient = x.grad.resolve_conj().numpy()
        copies = 2 if name == "B" and kind.endswith("groups") else 1
        expected = np.full(x.shape, 1.0 * copies)
        if name == "delta_bias":
            expected = np.full(x.shape, 10.0)  # batch * L
        if kind.startswith("complex") and name in "BC" and gradient.dtype.kind == "f":
            expected[..., 1::2] = 0.0  # imaginary parts
        np.testing.assert_array_equal(gradient, expected)


def test_gradients_flow_through_the_arguments_in_jax() -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    given = {name: x.astype("f4") for name, x in scan_arguments("groups").items()}

    def total(given: dict[str, Any]) -> Any:
        return sum(x.sum() for x in checkpoints.selective_scan_arguments(**given).values())

    gradient = jax.jit(jax.grad(total))(given)
    np.testing.assert_array_equal(gradient["B"], np.full(given["B"].shape, 2.0))
    np.testing.assert_array_equal(gradient["u"], np.ones(given["u"].shape))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("B", (2, 3, 6), r"B has shape \(2, 3, 6\); expected \(4, 3\), \(2, 3, 5\) or"),
        ("C", (2, 3, 3, 5), "G dividing 4"),
        ("delta", (2, 5, 4), "delta has shape"),
        ("z", (2, 4, 6), "z has shape"),
        ("u", (4, 5), "u has shape"),
        ("A", (3, 3), "A"),
    ],
)
def test_selective_scan_shapes(name: str, shape: tuple[int, ...], message: str) -> None:
    given = scan_arguments("shared") | {name: np.ones(shape)}
    with pytest.raises(SSMError, match=message):
        checkpoints.selective_scan_arguments(**given)


def test_bilinear_dense_is_the_cayley_transform() -> None:
    """(I - dt/2 A) A_bar = I + dt/2 A, to a residual of 4 (2N) eps |I - dt/2 A| |A_bar|."""
    rng = np.random.default_rng(7)
    lam = -rng.uniform(0.1, 1.0, (2, 3)) + 1j * rng.standard_normal((2, 3))
    P = rng.standard_normal((2, 2, 3)) + 1j * rng.standard_normal((2, 2, 3))
    A_bar = bilinear_dense(np.array([0.1, 1.0]), lam, P)
    full = np.concatenate((P, P.conj()), axis=-1)
    for h, dt in enumerate((0.1, 1.0)):
        A = np.diag(np.concatenate((lam[h], lam[h].conj()))) - full[:, h].T @ full[:, h].conj()
        left, right = np.eye(6) - dt / 2 * A, np.eye(6) + dt / 2 * A
        bound = 4 * 6 * EPS * np.linalg.norm(left) * np.linalg.norm(A_bar[h])
        assert np.linalg.norm(left @ A_bar[h] - right) <= bound

"""What the options of the layers promise: stored otherwise, the same system; started as named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ssmcore as ssm
from ssmcore import arrays, initialization
from ssmcore.errors import SSMError
from ssmcore_conformance.models import H, inputs
from ssmcore_conformance.running import call, compiled
from ssmcore_conformance.tolerances import bound, check, eps, steps

L, N = 17, 8
TRANSFORMS = ("exp", "softplus", "relu", "sigmoid", "none")
Numbers = np.ndarray[Any, Any]


def apply(x: Numbers, kind: str) -> Numbers:
    """The transforms, straight from their definitions."""
    if kind == "exp":
        return np.exp(x)
    if kind == "softplus":
        return np.logaddexp(0, x)
    if kind == "relu":
        return np.maximum(x, 0) + 1e-4
    return 1 / (1 + np.exp(-x)) if kind == "sigmoid" else x


def run(library: Any, layer: ssm.Layer, params: Any, u: Numbers, mode: str = "scan") -> Numbers:
    return np.asarray(call(library, compiled(library.name, layer, mode), params, u))


@pytest.mark.parametrize("kind", TRANSFORMS)
@pytest.mark.parametrize("model", [ssm.S4, ssm.S4D])
def test_a_transform_starts_where_the_default_starts(model: Any, kind: str) -> None:
    """f(stored) is the default's dt, Re lambda and Im lambda; Im only where f reaches it."""
    plain = model(H, d_state=N).init(3, dtype="float64")
    dt = kind if kind != "none" else "exp"
    imag = kind if kind != "sigmoid" else "none"
    layer = model(H, d_state=N, dt_transform=dt, real_transform=kind, imag_transform=imag)
    stored = layer.init(3, dtype="float64")
    expected = {"log_dt": (dt, "exp"), "A_log_real": (kind, "exp"), "A_imag": (imag, "none")}
    for name, (own, usual) in expected.items():
        value = apply(plain[name], usual)
        floor = 0.0 if own == "none" or (name, own) == ("log_dt", "exp") else 1e-4
        error = np.abs(apply(stored[name], own) - np.maximum(value, floor))
        slack = 1e-4 if own == "relu" else 0.0  # relu keeps off its dead zone
        limit = 8 * eps("float64") * (1 + np.abs(value)) + slack * (value <= 2e-4)
        print(f"{model.__name__} {kind} {name}: {error.max():.1e}, {limit.max():.1e}")
        assert np.all(error <= limit)
    for name in ("C", "D"):
        np.testing.assert_array_equal(plain[name], stored[name])


def test_one_step_size_a_state_is_the_dense_system(ssm_backend: Any, worst: Any) -> None:
    """S4, dt_tie=False: bilinear of T A and T B, on all conjugate states, T = diag(dt)."""
    layer = ssm.S4(H, d_state=N, dt_tie=False, initialization="legt", rank=2)
    params, u = layer.init(5, dtype="float64"), inputs((L, H))
    pair = {name: arrays.join(params[name]) for name in ("P", "B", "C")}
    y = np.zeros((L, H))
    for h in range(H):
        T = np.tile(np.exp(params["log_dt"][h]), 2)
        half = -np.exp(params["A_log_real"][h]) + 1j * params["A_imag"][h]
        lam, B, C = (np.concatenate([z, z.conj()]) for z in (half, pair["B"][h], pair["C"][h]))
        A = np.diag(lam)
        for P in pair["P"][:, h]:
            whole = np.concatenate([P, P.conj()])
            A = A - np.outer(whole, whole.conj())
        A, B = T[:, None] * A, T * B
        left = np.eye(N) - 0.5 * A
        x = np.zeros(N, complex)
        for t in range(L):
            x = np.linalg.solve(left, (np.eye(N) + 0.5 * A) @ x + B * u[t, h])
            y[t, h] = (C @ x).real + params["D"][h] * u[t, h]
    # condition of (I - A / 2), and of the similarity by T^1/2 in which the layer runs
    spread = np.exp(0.5 * (params["log_dt"].max() - params["log_dt"].min()))
    limit = bound("float64", steps(L, N), np.abs(y).max() * spread * N)
    for mode in ("recurrence", "scan", "convolution"):
        got = run(ssm_backend, layer, params, u, mode)
        check(worst, f"S4 untied: {mode}", ssm_backend.name, "float64", got, y, limit)


@pytest.mark.parametrize("model", ["LSSL", "S4", "S4D"])
def test_channels_are_layers_that_share_the_dynamics(
    ssm_backend: Any, worst: Any, model: str
) -> None:
    """Several channels are as many layers that share A, B and dt."""
    channels = 3
    wide = getattr(ssm, model)(H, d_state=N, channels=channels)
    narrow = getattr(ssm, model)(H, d_state=N)
    params, u = wide.init(2, dtype="float64"), inputs((2, L, H))
    got = run(ssm_backend, wide, params, u)
    assert got.shape == (2, L, wide.d_output) == (2, L, channels * H)
    for c in range(channels):
        part = slice(c * H, (c + 1) * H)
        own = params | {name: params[name][part] for name in ("C", "D")}
        expected = run(ssm_backend, narrow, own, u)
        limit = bound("float64", steps(L, N), np.abs(expected).max())
        row = f"{model}: channel"
        check(worst, row, ssm_backend.name, "float64", got[..., part], expected, limit)


def test_sets_share_out_the_copies() -> None:
    """A set of initialisations is shared out over the copies."""
    params = ssm.S4(8, d_state=N, initialization="all", n_ssm=4).init(0, dtype="float64")
    for row, name in enumerate(("legs", "fout")):
        form = initialization.nplr(name, N, b_clip=2.0)
        np.testing.assert_array_equal(params["A_imag"][row], form.Lambda.imag)
        np.testing.assert_array_equal(arrays.join(params["P"][:, row]), form.P)
        np.testing.assert_array_equal(arrays.join(params["B"][row]), form.B)
    for row, name in enumerate(("inv", "lin"), start=2):
        spectrum = initialization.s4d_eigenvalues(name, N)
        np.testing.assert_array_equal(params["A_imag"][row], spectrum.imag)
        assert not params["P"][:, row].any()
        np.testing.assert_array_equal(arrays.join(params["B"][row]), np.ones(N // 2))
    params = ssm.S4D(4, d_state=N, initialization="diag").init(0, dtype="float64")
    for row, name in enumerate(("inv", "inv", "lin", "lin")):
        expected = initialization.s4d_eigenvalues(name, N).imag
        np.testing.assert_array_equal(params["A_imag"][row], expected)


def test_random_spectra_differ_from_copy_to_copy() -> None:
    """Random spectra differ from copy to copy."""
    for options in (
        {"initialization": "rand"},
        {"imag_random": True},
        {"real_random": True},
        {"b_initialization": "random"},
    ):
        params = ssm.S4D(H, d_state=N, **options).init(0, dtype="float64")
        name = next(iter(options)).partition("_")[0]
        drawn = {"real": "A_log_real", "b": "B"}.get(name, "A_imag")
        assert len(np.unique(params[drawn].reshape(H, -1), axis=0)) == H, options


@pytest.mark.parametrize("model", ["S4", "S4D"])
def test_deterministic_start(model: str) -> None:
    """log dt evenly spaced, C = V* e_0: the output is the first coordinate of HiPPO's state."""
    layer = getattr(ssm, model)(H, d_state=N, deterministic=True, initialization="legs")
    params = layer.init(0, dtype="float64")
    np.testing.assert_array_equal(params["log_dt"], np.linspace(np.log(1e-3), np.log(0.1), H))
    form = initialization.nplr("legs", N)
    np.testing.assert_array_equal(arrays.join(params["C"]), np.tile(form.V[0].conj(), (H, 1)))
    lin = ssm.S4D(H, d_state=N, deterministic=True).init(0, dtype="float64")
    np.testing.assert_array_equal(arrays.join(lin["C"]), np.tile(np.eye(1, N // 2), (H, 1)))


@pytest.mark.parametrize("cap", [1000.0, 10.0, None])
def test_rglru_gradient_cap(ssm_autodiff: Any, cap: float | None) -> None:
    """d sqrt(1 - a^2) / d(1 - a^2) = min(1 / 2 sqrt(1 - a^2), cap), through h_0 = root u_0 / 2."""
    layer = ssm.RGLRU(1, first_step_reset=False, gradient_cap=cap)
    zero = {"w": np.zeros((1, 1, 1)), "b": np.zeros((1, 1))}
    for a_param in (-1.0, -12.0, -18.0, -30.0, -60.0):
        params = {"a_param": np.array([a_param]), "input_gate": zero, "a_gate": zero}
        grads = gradients(ssm_autodiff, layer, params, np.ones((1, 1)))
        decay = 4 * np.log1p(np.exp(a_param))  # -log a
        rest = -np.expm1(-2 * decay)
        slope = 1 / (2 * np.sqrt(rest))
        slope = slope if cap is None else min(slope, cap)
        # d decay / d a_param = 4 sigmoid(a_param); input gate 1/2
        expected = 0.5 * slope * 2 * np.exp(-2 * decay) * 4 / (1 + np.exp(-a_param))
        limit = 64 * eps("float64") * abs(expected)
        error = abs(float(grads["a_param"][0]) - expected)
        print(f"cap {cap}, a_param {a_param}: {error:.1e}, {limit:.1e}")
        assert error <= limit


def gradients(library: Any, layer: ssm.Layer, params: Any, u: Numbers) -> Any:
    fed = library.from_numpy(u)

    def total(tree: Any) -> Any:
        y = layer(tree, fed, mode="scan")
        return library.xp.sum(y)

    moved = arrays.tree_map(library.from_numpy, params)
    _, grads = library.value_and_grad(total, moved)
    return arrays.tree_map(library.to_numpy, grads)


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (ssm.S4, {"dt_transform": "none"}, "dt_transform is 'none'; expected one of 'exp'"),
    (ssm.S4D, {"real_transform": "softmax"}, "real_transform is 'softmax'; .*did you mean"),
    (ssm.S4, {"dt_tie": 1}, "dt_tie is 1; expected True or False"),
    (ssm.S4, {"channels": 0}, "channels is 0; expected a whole number"),
    (ssm.LSSL, {"channels": 1.5}, "channels is 1.5"),
    (ssm.S4, {"initialization": "hippo", "n_ssm": 1}, "n_ssm is 1; expected a multiple of 2"),
    (ssm.S4D, {"discretization": "dss"}, "'dss'.*no state space system has it"),
    (ssm.S4D, {"b_initialization": "ones"}, "kind is 'ones'; expected one of 'constant'"),
    (ssm.S4D, {"is_real": True}, "is_real is True with initialization 'lin'"),
    (ssm.S4D, {"real_random": "yes"}, "real_random is 'yes'; expected True or False"),
    (ssm.RGLRU, {"gradient_cap": 0.0}, "gradient_cap is 0.0; expected a finite number above 0"),
    (ssm.RGLRU, {"root_offset": -1.0}, "root_offset is -1.0; expected a number of at least 0"),
]


@pytest.mark.parametrize(("model", "options", "message"), REFUSED, ids=lambda x: str(x)[:40])
def test_bad_options(model: Any, options: dict[str, Any], message: str) -> None:
    """Options that cannot be are refused with what was expected."""
    with pytest.raises(SSMError, match=message):
        model(H, **options)


def test_a_sigmoid_below_its_start_is_refused() -> None:
    """A start that a sigmoid cannot reach is refused."""
    layer = ssm.S4D(H, d_state=N, imag_transform="sigmoid")
    with pytest.raises(SSMError, match=r"A_imag starts at up to .* 'sigmoid' stays below 1"):
        layer.init(0)


def test_shared_dynamics_need_an_output_matrix() -> None:
    """Sharing the dynamics needs an output matrix."""
    with pytest.raises(SSMError, match="share is 'dynamics' with S6, which has no output matrix"):
        ssm.Bidirectional.of(ssm.S6(H), share="dynamics")

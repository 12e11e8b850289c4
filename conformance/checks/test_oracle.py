"""The float64 oracle against derivations that are not its own.

The reference in 30 digits and its tolerance: `checks.oracle_exact`.
Two runs of the oracle that ought to agree may differ by the sum of their tolerances.
"""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import pytest
from checks.oracle_exact import exact_run, norm, time_invariant

from ssmcore import oracle
from ssmcore.errors import SSMError
from ssmcore.oracle.equations import _phi

EPS = float(np.finfo(np.float64).eps)
H, N, R, L = 4, 3, 2, 12
LTI = ("LSSL", "S4", "S4D", "S5", "LRU")
MODELS = (*LTI, "S6", "RGLRU")
CASES: list[tuple[str, dict[str, Any]]] = [
    ("LSSL", {}),
    ("LSSL", {"dt_scale": 2.0}),
    ("S4", {}),
    ("S4", {"dt_scale": 0.5}),
    ("S4D", {}),
    ("S4D", {"discretization": "bilinear", "dt_scale": 3.0}),
    ("S5", {}),
    ("S5", {"discretization": "bilinear", "conj_sym": False}),
    ("S5", {"clip_eigs": True, "dt_scale": 2.0}),
    ("LRU", {}),
    ("S6", {}),
    ("S6", {"discretization": "zoh", "dt_scale": 2.0}),
    ("RGLRU", {}),
    ("RGLRU", {"c": 4.0, "first_step_reset": False}),
]


def parameters(model: str, seed: int = 0) -> dict[str, Any]:
    """Random parameters; S4 with rank 2 and two rows of (A, B, P) for four channels."""
    normal = np.random.default_rng(seed).standard_normal
    log_dt, D = normal(H) - 2, normal(H)
    siso = {"log_dt": log_dt, "C": normal((H, N, 2)), "D": D}
    mimo = {"B": normal((N, H, 2)), "C": normal((H, N, 2)), "D": D}

    def gate() -> dict[str, Any]:
        return {"w": normal((2, H // 2, H // 2)), "b": normal((2, H // 2))}

    def diagonal(rows: int) -> dict[str, Any]:
        shape = (rows, N)
        return {
            "A_log_real": normal(shape),
            "A_imag": 5 * normal(shape),
            "B": normal((*shape, 2)),
        }

    tables: dict[str, dict[str, Any]] = {
        "LSSL": {"log_dt": log_dt, "A": normal((N, N)) - 2 * np.eye(N), "B": normal(N)}
        | {"C": normal((H, N)), "D": D},
        "S4": siso | diagonal(2) | {"P": normal((2, 2, N, 2))},
        "S4D": siso | diagonal(H),
        "S5": mimo
        | {"log_dt": normal(N) - 2, "Lambda_re": np.array([-1, -1e-5, 1e-3])}
        | {"Lambda_im": 5 * normal(N)},
        "LRU": mimo | {"nu_log": normal(N) - 2, "theta_log": normal(N), "gamma_log": normal(N)},
        "S6": {"A_log": normal((H, N)), "D": D, "x_proj": normal((R + 2 * N, H)) / 2}
        | {"dt_proj": {"weight": normal((H, R)) / 2, "bias": normal(H)}},
        "RGLRU": {"a_param": normal(H) - 4, "input_gate": gate(), "a_gate": gate()},
    }
    return tables[model]


def sequence(seed: int = 1, shape: tuple[int, ...] = (L, H)) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def compare(name: str, got: np.ndarray, expected: np.ndarray, tolerance: np.ndarray) -> None:
    """Within tolerance, and the tolerance is fit to tell two sequences apart."""
    error = np.abs(got - expected)
    print(f"{name}: worst error {error.max():.1e}, worst error/tolerance", end=" ")
    print(f"{np.max(error / tolerance):.1e}, tolerance up to {np.max(tolerance):.1e}")
    assert got.shape == expected.shape
    assert np.all(error <= tolerance)
    assert np.max(tolerance) < np.sqrt(EPS) * np.abs(expected).max()


# --------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(("model", "options"), CASES)
def test_value(model: str, options: dict[str, Any]) -> None:
    p, u = parameters(model), sequence()
    y, tolerance = exact_run(model, p, u, options)
    compare(f"{model} {options}", oracle.run(model, p, u, options=options).y, y, tolerance)


def agree(name: str, one: tuple[str, Any, Any], other: tuple[str, Any, Any], u: Any) -> None:
    """Two models that are the same system."""
    runs = [oracle.run(model, p, u, options=options).y for model, p, options in (one, other)]
    tolerances = [exact_run(model, p, u, options).tolerance for model, p, options in (one, other)]
    compare(name, runs[0], runs[1], tolerances[0] + tolerances[1])


def test_s4_without_correction_is_bilinear_s4d() -> None:
    p = parameters("S4")
    q = {name: value for name, value in p.items() if name != "P"}
    bilinear = {"discretization": "bilinear"}
    agree("S4 = S4D", ("S4", p | {"P": 0 * p["P"]}, {}), ("S4D", q, bilinear), sequence())


def test_tiled_rows_are_repeated_rows() -> None:
    p, u = parameters("S4"), sequence()
    repeated = {name: np.concatenate([p[name]] * 2) for name in ("A_log_real", "A_imag", "B")}
    repeated["P"] = np.concatenate([p["P"]] * 2, axis=1)
    tiled, full = oracle.run("S4", p, u), oracle.run("S4", p | repeated, u)
    np.testing.assert_array_equal(tiled.states, full.states)  # the same operations


def test_lssl_with_one_system_a_feature() -> None:
    p, u = parameters("LSSL"), sequence()
    own = {"A": np.stack([p["A"]] * H), "B": np.stack([p["B"]] * H)}
    shared = oracle.run("LSSL", p, u)
    np.testing.assert_array_equal(oracle.run("LSSL", p | own, u).states, shared.states)
    own["A"][1] = own["A"][1].T
    y = oracle.run("LSSL", p | own, u).y
    transposed = p | {"A": p["A"].T}
    expected, tolerance = exact_run("LSSL", transposed, u, {})
    compare("LSSL, feature 1 its own", y[:, 1], expected[:, 1], tolerance[:, 0])
    np.testing.assert_array_equal(y[:, [0, 2, 3]], shared.y[:, [0, 2, 3]])


def test_diagonal_lssl_is_real_s4d() -> None:
    """Real C over two; exp(A_log_real) is rounded once more, which kappa covers (8 eps a entry)."""
    p, rate = parameters("LSSL"), np.array([0.3, 1.0, 2.0])
    q = {"log_dt": p["log_dt"], "D": p["D"], "A_imag": np.zeros((1, N))}
    q |= {"A_log_real": np.log(rate)[None], "B": np.stack([p["B"], 0 * p["B"]], -1)[None]}
    q |= {"C": np.stack([p["C"] / 2, 0 * p["C"]], -1)}
    p = p | {"A": np.diag(-rate)}
    agree("LSSL = S4D", ("LSSL", p, {}), ("S4D", q, {"discretization": "bilinear"}), sequence())


def test_s5_with_one_channel_and_one_timescale_is_s4d() -> None:
    p = parameters("S5")
    p = p | {"B": p["B"][:, :1], "C": p["C"][:1], "D": p["D"][:1], "log_dt": np.full(N, -2.0)}
    p["Lambda_re"] = np.array([-1.0, -2.0, -0.5])
    q = {"log_dt": [-2.0], "A_log_real": np.log(-p["Lambda_re"])[None], "D": p["D"], "C": p["C"]}
    q |= {"A_imag": p["Lambda_im"][None], "B": p["B"][None, :, 0]}
    u = sequence(shape=(L, H))  # four sequences of one channel
    for h in range(H):
        y = oracle.run("S5", p, u[:, h : h + 1]).y
        expected = oracle.run("S4D", q, u[:, h : h + 1]).y
        compare("S5 = S4D", y, expected, scalar_bound(p, u[:, h : h + 1]))


def scalar_bound(p: dict[str, Any], u: np.ndarray) -> np.ndarray:
    """The tolerance at the top for |lam_bar| <= 1, |B_bar| <= dt |B|, twice (for two runs)."""
    dt, weight = np.exp(-2.0), np.abs(p["C"]).sum() * np.abs(p["B"]).sum()
    kappa = 8 * (1 + dt * np.abs(p["Lambda_re"] + 1j * p["Lambda_im"]).max()) + 4 * N
    response = 4 * weight * dt * np.cumsum(np.abs(u), axis=0) + np.abs(p["D"] * u)
    bound: np.ndarray = 2 * EPS * kappa * (np.arange(len(u))[:, None] + 2) * response
    return bound


def test_lru_is_s5_with_unit_steps() -> None:
    """S5 with dt = 1 holds B phi(Lambda); dividing B by phi makes it the LRU."""
    p = parameters("LRU")
    Lambda = -np.exp(p["nu_log"]) + 1j * np.exp(p["theta_log"])
    phi = (np.exp(Lambda) - 1) / Lambda  # not near 0 here, nor near 2 pi i: no cancellation
    assert np.all(np.abs(phi) > 1 / 8)
    B = np.exp(p["gamma_log"])[:, None] * (p["B"][..., 0] + 1j * p["B"][..., 1]) / phi[:, None]
    q = {"B": np.stack([B.real, B.imag], -1), "C": p["C"], "D": p["D"], "log_dt": np.zeros(N)}
    q |= {"Lambda_re": Lambda.real, "Lambda_im": Lambda.imag}
    agree("LRU = S5", ("LRU", p, {}), ("S5", q, {"conj_sym": False}), sequence())


def test_rglru_with_constant_gates_is_a_geometric_average() -> None:
    """Zero gates are 1/2: h_t = a^t x_0 / 2 + sqrt(1 - a^2) sum_k a^(t-k) x_k / 2, a = e^(-4 s)."""
    p, x = parameters("RGLRU"), sequence()
    p |= {name: {key: 0 * w for key, w in p[name].items()} for name in ("a_gate", "input_gate")}
    log_a = -4 * np.log1p(np.exp(p["a_param"]))
    weights = np.sqrt(-np.expm1(2 * log_a)) * np.ones((L, H))
    weights[0] = 1
    lags = np.arange(L)[:, None] - np.arange(L)
    kernel = np.where(lags[..., None] >= 0, np.exp(np.maximum(lags, 0)[..., None] * log_a), 0)
    expected = np.einsum("tkh,kh->th", kernel, weights * x / 2)
    tolerance = 2 * exact_run("RGLRU", p, x, {}).tolerance
    compare("RG-LRU geometric", oracle.run("RGLRU", p, x).y, expected, tolerance)


def test_phi_to_its_last_digits() -> None:
    """Each of k doublings errs by under 4 eps, the series by under 8 eps, of the factors' size.

    With |Im z| <= -Re z no 1 + e^w cancels, so that is relative; on the imaginary axis, where
    |1 + e^w| <= 2, it is absolute.
    """
    size = np.logspace(-18, 3, 64)
    angle = np.random.default_rng(0).uniform(3 * np.pi / 4, 5 * np.pi / 4, 64)
    worst = {}
    doublings = np.maximum(0, np.ceil(np.log2(2 * size)))
    for name, z in (("sector", size * np.exp(1j * angle)), ("axis", 1j * size)):
        with mp.workdps(40):
            exact_values = np.array([complex(mp.expm1(mp.mpc(v)) / mp.mpc(v)) for v in z])
        error = np.array([abs(_phi(z[k : k + 1])[0] - v) for k, v in enumerate(exact_values)])
        scale = np.abs(exact_values) if name == "sector" else 1.0
        worst[name] = np.max(error / (scale * EPS * (4 * doublings + 8)))
    print(f"phi: worst error/tolerance {worst}")
    assert max(worst.values()) <= 1
    np.testing.assert_array_equal(_phi(np.zeros(2)), 1)


@pytest.mark.parametrize("model", LTI)
def test_eigenvalues_are_those_of_the_continuous_system_mapped(model: str) -> None:
    """Matched to the nearest; Bauer-Fike: within cond(V) times the error of A_bar."""
    p = parameters(model)
    with mp.workdps(30):
        system = time_invariant(model, p, {}, 1)
        values, vectors = mp.eig(system.A[0])
        condition = float(mp.cond(vectors, lambda A: mp.mnorm(A, "f")))
        size = norm(system.A[0])
    expected = np.array([complex(value) for value in values])
    got = oracle.eigenvalues(model, p).ravel()
    if model in ("S4D", "S5", "LRU"):
        got = np.concatenate([got, got.conj()])
    assert got.shape == expected.shape
    distance = np.abs(got[:, None] - expected)
    tolerance = condition * size * EPS * (system.kappa + 8 * len(expected))
    error = max(distance.min(axis=0).max(), distance.min(axis=1).max())
    print(f"{model} eigenvalues: worst error {error:.1e}, tolerance {tolerance:.1e}")
    assert error <= tolerance
    assert tolerance < np.sqrt(EPS)


# ----------------------------------------------------------------------------------- properties


@pytest.mark.parametrize("model", MODELS)
def test_continuing_from_the_state_is_one_pass(model: str) -> None:
    p, u = parameters(model), sequence(shape=(2, L, H))
    whole = oracle.run(model, p, u)
    tolerances = np.stack([2 * exact_run(model, p, sequence_k, {}).tolerance for sequence_k in u])
    for split in (1, 5, L):
        first = oracle.run(model, p, u[:, :split])
        second = oracle.run(model, p, u[:, split:], state=first.state)
        y = np.concatenate([first.y, second.y], axis=1)
        compare(f"{model} split at {split}", y, whole.y, tolerances)
        assert second.states.shape[1] == L - split
    ((key, last),) = first.state.items()  # of the whole sequence
    np.testing.assert_array_equal(last, whole.states[:, -1])
    np.testing.assert_array_equal(last, second.state[key])
    assert last.dtype == (np.float64 if model in ("LSSL", "S6", "RGLRU") else np.complex128)


def test_a_state_given_to_rglru_means_no_first_reset() -> None:
    p, u = parameters("RGLRU"), sequence()
    zero = {"h": np.zeros(H)}
    carried = oracle.run("RGLRU", p, u, state=zero).y
    unreset = oracle.run("RGLRU", p, u, options={"first_step_reset": False}).y
    np.testing.assert_array_equal(carried, unreset)
    assert np.all(carried[0] != oracle.run("RGLRU", p, u).y[0])


@pytest.mark.parametrize("model", MODELS)
def test_a_reset_is_a_fresh_start(model: str) -> None:
    """Also for the two sequences of a batch at their own times, and after a NaN."""
    p, u = parameters(model), sequence(shape=(2, L, H))
    u[0, 1, 0] = np.nan
    reset, times = np.zeros((2, L), bool), (4, 7)
    reset[[0, 1], times] = True
    y = oracle.run(model, p, u, reset=reset).y
    assert np.isnan(y[0, 3]).any()
    for k, t in enumerate(times):
        tail = u[k, t:]
        y_tail, tolerance = exact_run(model, p, tail, {})
        compare(f"{model} reset at {t}", y[k, t:], y_tail, tolerance)
    unbroken = oracle.run(model, p, u).y
    np.testing.assert_array_equal(y[1, :7], unbroken[1, :7])
    assert np.all(y[1, 7] != unbroken[1, 7])


def test_rglru_resets_against_the_exact_run() -> None:
    p, u, reset = parameters("RGLRU"), sequence(), np.arange(L) % 5 == 3
    y, tolerance = exact_run("RGLRU", p, u, {}, reset=reset)
    compare("RG-LRU resets", oracle.run("RGLRU", p, u, reset=reset).y, y, tolerance)


@pytest.mark.parametrize("model", MODELS)
def test_lengths_hide_the_padding(model: str) -> None:
    p, u = parameters(model), sequence(shape=(3, L, H))
    lengths = np.array([0, 5, L])
    u[0], u[1, 5:] = np.nan, np.nan
    start = oracle.run(model, p, sequence(seed=2, shape=(3, 2, H))).state
    padded = oracle.run(model, p, u, lengths=lengths, state=start)
    ((key, final),) = padded.state.items()
    for k, length in enumerate(lengths):
        alone = oracle.run(model, p, u[k, :length], state={key: start[key][k]})
        state = alone.state[key]
        assert np.all(padded.y[k, length:] == 0)
        # The same operations but for the grouping of dot products over n <= R + 2N + H numbers;
        # the map is the same, so the difference is within eps n (t + 2) of the largest number.
        n = R + 2 * N + H
        largest = max(1.0, np.abs(alone.states).max(initial=0.0), np.abs(state).max())
        tolerance = EPS * n * (length + 2) * largest * max(1.0, np.abs(p.get("C", 1)).sum())
        assert np.all(np.abs(padded.y[k, :length] - alone.y) <= tolerance)
        assert np.all(np.abs(final[k] - state) <= tolerance)
        assert np.all(padded.states[k, length:] == final[k])
    np.testing.assert_array_equal(final[0], start[key][0])


@pytest.mark.parametrize("model", MODELS)
def test_inputs_are_left_alone_and_other_arrays_accepted(model: str) -> None:
    torch = pytest.importorskip("torch")
    p, u = parameters(model), sequence()
    u.setflags(write=False)
    reset = np.zeros(L, bool)
    reset.setflags(write=False)
    before = oracle.run(model, p, u, reset=reset)
    tensors = {
        name: {k: torch.tensor(v) for k, v in value.items()}
        if isinstance(value, dict)
        else torch.tensor(value)
        for name, value in p.items()
    }
    after = oracle.run(model, tensors, torch.tensor(sequence()))
    np.testing.assert_array_equal(before.y, after.y)
    assert before.y.dtype == np.float64
    assert not reset.any()
    no_steps = oracle.run(model, p, u[:0])
    assert no_steps.y.shape == (0, H)
    assert np.all(next(iter(no_steps.state.values())) == 0)


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "model": ("S4DD", {}, "did you mean 'S4D'"),
    "option": ("S4D", {"options": {"discretisation": "zoh"}}, "did you mean 'discretization'"),
    "no option": ("LRU", {"options": {"dt_scale": 1.0}}, "option is 'dt_scale'"),
    "rule": ("S4D", {"options": {"discretization": "mamba"}}, "discretization is 'mamba'"),
    "channels": ("S4D", {"u": np.ones((L, H + 1))}, r"u has shape \(12, 5\)"),
    "axes": ("S4D", {"u": np.ones(H)}, r"u has shape \(4,\)"),
    "complex u": ("S5", {"u": np.ones((L, H), complex)}, "u has dtype complex128"),
    "state key": ("S5", {"state": {"h": np.zeros(N)}}, r"state is \{'h': \(3,\)\}"),
    "state shape": ("S4", {"state": {"x": np.zeros((N, H))}}, r"expected \{'x': \(4, 3\)\}"),
    "complex state": ("S6", {"state": {"x": np.zeros((H, N), complex)}}, "castable to float64"),
    "reset shape": ("S4", {"reset": np.zeros(L - 1, bool)}, r"reset is bool \(11,\)"),
    "reset dtype": ("S4", {"reset": np.zeros(L)}, "reset is float64"),
    "long": ("S4", {"lengths": L + 1}, "from 0 to 12"),
    "negative": ("S4", {"lengths": -1}, "from 0 to 12"),
    "fraction": ("S4", {"lengths": 2.0}, "integers"),
}


@pytest.mark.parametrize("problem", BAD)
def test_bad_arguments(problem: str) -> None:
    model, arguments, message = BAD[problem]
    u = arguments.get("u", sequence())
    rest = {name: value for name, value in arguments.items() if name != "u"}
    with pytest.raises(SSMError, match=message):
        oracle.run(model, parameters(model if model in MODELS else "S4D"), u, **rest)


def test_bad_parameters() -> None:
    u = sequence()
    with pytest.raises(SSMError, match=r"lack \['P'\] and have unknown \['Q'\]"):
        oracle.run("S4", {("Q" if k == "P" else k): v for k, v in parameters("S4").items()}, u)
    bad: list[tuple[str, str, Any, str]] = [
        ("S4D", "B", np.ones((H, N)), r"parameter B has shape \(4, 3\)"),
        ("S4D", "C", np.ones((H, N, 2), complex), "parameter C has dtype complex128"),
        ("S5", "B", np.ones((N + 1, H, 2)), "parameter B"),
        ("S6", "x_proj", np.ones((R + 2 * N + 1, H)), r"expected X = R \+ 2N"),
        ("RGLRU", "a_param", np.ones(H + 1), "H = h b"),
    ]
    for model, name, value, message in bad:
        with pytest.raises(SSMError, match=message):
            oracle.run(model, parameters(model) | {name: value}, u)
    with pytest.raises(SSMError, match="model is 'S6'"):
        oracle.eigenvalues("S6", parameters("S6"))

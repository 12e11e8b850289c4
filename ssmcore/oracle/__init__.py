"""Sequential float64 oracles: every model straight from its equations, in plain NumPy.

They exist to be compared with. Nothing here is shared with the library, and where there are
two ways to compute a number the oracle takes the other one:

* every model is one loop over time, ``x_t = A_t x_{t-1} + v_t`` with ``v_t = B_t u_t``;
* the bilinear transform is a linear solve with ``I - dt/2 A``, for S4 and LSSL with the dense
  matrix (S4: written out on all 2N conjugate states, with no Woodbury identity);
* the integral of zero-order hold is the off-diagonal entry of the exponential of the augmented
  matrix ``[[z, 1], [0, 0]]``, by Taylor series and repeated squaring;
* the RG-LRU multiplier is ``sqrt((1 + a^2) tanh s)`` with ``a = exp(-s)``.

Examples
--------
>>> import numpy as np
>>> from ssmcore import oracle
>>> log_half = float(np.log(0.5))
>>> params = {"log_dt": [0.0], "A_log_real": [[log_half]], "A_imag": [[0.0]],
...           "B": [[[1.0, 0.0]]], "C": [[[0.5, 0.0]]], "D": [0.0]}
>>> impulse = np.array([[1.0], [0.0], [0.0]])
>>> result = oracle.run("S4D", params, impulse, options={"discretization": "bilinear"})
>>> result.y[:, 0]                                   # 0.8 * 0.6**k
array([0.8  , 0.48 , 0.288])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssmcore.errors import SSMError, check_choice
from ssmcore.oracle.equations import (
    BUILDERS,
    Numbers,
    Real,
    Recurrence,
    lssl_system,
    lti_eigenvalues,
    s4_system,
    state_shape,
)
from ssmcore.typing import Array

__all__ = ["OracleResult", "eigenvalues", "run"]

# One letter an axis: H channels, F = channels H features, N or P stored states, S rows tiled over
# the features, r rank of the correction, R rank of dt, X = R + 2N, h heads, b = H / h, 2 real and
# imaginary part.
SHAPES: dict[str, dict[str, tuple[str, ...]]] = {
    "LSSL": {"log_dt": ("H",), "A": ("NN", "HNN"), "B": ("N", "HN"), "C": ("FN",), "D": ("F",)},
    "S4": {
        "log_dt": ("H", "HN"),
        "A_log_real": ("SN",),
        "A_imag": ("SN",),
        "P": ("rSN2",),
        "B": ("SN2",),
        "C": ("FN2",),
        "D": ("F",),
    },
    "S5": {
        "log_dt": ("P",),
        "Lambda_re": ("P",),
        "Lambda_im": ("P",),
        "B": ("PH2",),
        "C": ("HP2",),
        "D": ("H",),
    },
    "LRU": {
        "nu_log": ("N",),
        "theta_log": ("N",),
        "gamma_log": ("N",),
        "B": ("NH2",),
        "C": ("HN2",),
        "D": ("H",),
    },
    "S6": {
        "A_log": ("HN",),
        "D": ("H",),
        "x_proj": ("XH",),
        "dt_proj.weight": ("HR",),
        "dt_proj.bias": ("H",),
    },
    "RGLRU": {
        "a_param": ("H",),
        "input_gate.w": ("hbb",),
        "input_gate.b": ("hb",),
        "a_gate.w": ("hbb",),
        "a_gate.b": ("hb",),
    },
}
SHAPES["S4D"] = {name: axes for name, axes in SHAPES["S4"].items() if name != "P"}
STORED = {"dt_transform": "exp", "real_transform": "exp", "imag_transform": "none"}
OPTIONS: dict[str, dict[str, Any]] = {
    "LSSL": {"dt_scale": 1.0},
    "S4": {"dt_scale": 1.0, **STORED},
    "S4D": {"dt_scale": 1.0, "discretization": "zoh", "is_real": False, **STORED},
    "S5": {"dt_scale": 1.0, "discretization": "zoh", "conj_sym": True, "clip_eigs": False},
    "LRU": {},
    "S6": {"dt_scale": 1.0, "discretization": "mamba"},
    "RGLRU": {"c": 8.0, "first_step_reset": True, "root_offset": 0.0},
}


class OracleResult(NamedTuple):
    """What `run` returns.

    Attributes
    ----------
    y : ndarray (..., L, H) float64
        The outputs; zero from ``lengths`` on.
    state : dict of ndarray (..., *state shape) float64 or complex128
        The final state, in the form that `run` takes as ``state``.
    states : ndarray (..., L, *state shape) float64 or complex128
        The state after every step; it stands still from ``lengths`` on.
    """

    y: Real
    state: dict[str, Numbers]
    states: Numbers


# ------------------------------------------------------------------------------- input checking


def _as_real(name: str, value: Array) -> Real:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        msg = f"oracle: {name} has dtype {array.dtype}; expected real numbers"
        raise SSMError(msg)
    return array.astype(np.float64)


def _flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Real]:
    flat: dict[str, Real] = {}
    for key, value in params.items():
        name = prefix + key
        if isinstance(value, Mapping):
            flat |= _flatten(value, name + ".")
        else:
            flat[name] = _as_real(f"parameter {name}", value)
    return flat


def _check_shapes(model: str, p: Mapping[str, Real], real: bool) -> None:
    """Every letter of SHAPES must stand for one size, in all parameters of the model."""
    sizes = {"2": 2}
    for name, choices in SHAPES[model].items():
        shape = p[name].shape
        choices = tuple(axes.rstrip("2") for axes in choices) if real else choices
        axes = next((axes for axes in choices if len(axes) == len(shape)), "")
        found = dict(zip(axes, shape, strict=False))
        if not axes or tuple({**found, **sizes}[axis] for axis in axes) != shape:
            msg = f"oracle: {model} parameter {name} has shape {shape}; expected {choices}, {sizes}"
            raise SSMError(msg)
        sizes |= found
    bad_x = "X" in sizes and sizes["X"] != sizes["R"] + 2 * sizes["N"]
    bad_f = "F" in sizes and sizes["F"] % sizes["H"]
    bad_h = "h" in sizes and sizes["H"] != sizes["h"] * sizes["b"]
    if bad_x or bad_h or bad_f:
        msg = (
            f"oracle: {model} parameters have sizes {sizes}; expected X = R + 2N, H = h b, "
            "F a multiple of H"
        )
        raise SSMError(msg)


def _check_model(
    model: str, params: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[dict[str, Real], dict[str, Any]]:
    check_choice("oracle", "model", model, SHAPES)
    p, expected = _flatten(params), set(SHAPES[model])
    if options.get("is_real"):
        p["A_imag"] = np.zeros_like(p["A_log_real"])
    if set(p) != expected:
        missing, unknown = sorted(expected - set(p)), sorted(set(p) - expected)
        msg = f"oracle: {model} parameters lack {missing} and have unknown {unknown}"
        raise SSMError(msg)
    _check_shapes(model, p, bool(options.get("is_real")))
    for name in options:
        check_choice(f"oracle {model}", "option", name, OPTIONS[model])
    filled = {**OPTIONS[model], **options}
    if "discretization" in filled:
        rules = ("mamba", "zoh") if model == "S6" else ("zoh", "bilinear")
        check_choice(f"oracle {model}", "discretization", filled["discretization"], rules)
    return p, filled


def _check_input(model: str, p: Mapping[str, Real], u: Array) -> Real:
    sequence = _as_real("u", u)
    width = {"RGLRU": "a_param", "S4": "log_dt", "S4D": "log_dt", "LSSL": "log_dt"}.get(model, "D")
    features = p[width].shape[0]
    if sequence.ndim < 2 or sequence.shape[-1] != features:
        msg = f"oracle: u has shape {sequence.shape}; {model} here needs (..., L, {features})"
        raise SSMError(msg)
    return sequence


def _initial_state(
    key: str, shape: tuple[int, ...], dtype: np.dtype[Any], state: Mapping[str, Array] | None
) -> Numbers:
    if state is None:
        return np.zeros(shape, dtype)
    given = np.asarray(state[key]) if set(state) == {key} else None
    if given is None or given.shape != shape or not np.can_cast(given.dtype, dtype):
        found = {name: np.asarray(value).shape for name, value in state.items()}
        msg = f"oracle: state is {found}; expected {{{key!r}: {shape}}} castable to {dtype}"
        raise SSMError(msg)
    return given.astype(dtype)


def _masks(
    batch: tuple[int, ...], length: int, reset: Array | None, lengths: Array | None
) -> tuple[Numbers, Numbers]:
    """Where to restart, and which steps exist: both bool (..., L)."""
    shape = (*batch, length)
    restart = np.zeros(shape, bool) if reset is None else np.asarray(reset)
    if restart.shape != shape or restart.dtype != bool:
        msg = f"oracle: reset is {restart.dtype} {restart.shape}; expected bool {shape}"
        raise SSMError(msg)
    ends = np.full(batch, length) if lengths is None else np.asarray(lengths)
    bad = ends.shape != batch or ends.dtype.kind not in "iu"
    if bad or np.any(ends < 0) or np.any(ends > length):
        msg = f"oracle: lengths are {ends}; expected integers {batch} from 0 to {length}"
        raise SSMError(msg)
    return restart.copy(), np.arange(length) < ends[..., None]


# --------------------------------------------------------------------------------- public names


def _loop(r: Recurrence, x: Numbers, reset: Numbers, valid: Numbers) -> tuple[Numbers, Numbers]:
    """The recurrence, one step after another: the final state and all states."""
    batch = reset.ndim - 1
    trailing = (1,) * (x.ndim - batch)
    drive = np.moveaxis(r.drive, batch, 0)
    restart, exists = (
        np.moveaxis(mask, -1, 0).reshape(-1, *x.shape[:batch], *trailing) for mask in (reset, valid)
    )
    states = np.empty(drive.shape, x.dtype)
    for t in range(drive.shape[0]):
        before = np.where(restart[t], 0, x)
        x = np.where(exists[t], r.advance(t, before) + drive[t], x)
        states[t] = x
    return x, np.moveaxis(states, 0, batch)


def run(
    model: str,
    params: Mapping[str, Any],
    u: Array,
    *,
    options: Mapping[str, Any] | None = None,
    state: Mapping[str, Array] | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
) -> OracleResult:
    """Run a model step by step in float64.

    x_t = A_t x_{t-1} + B_t u_t,  y_t = C_t x_t + D u_t

    Parameters
    ----------
    model : {"LSSL", "S4", "S4D", "S5", "LRU", "S6", "RGLRU"}
    params : nested dict of real arrays
        The layer's parameters; complex ones with a trailing axis (re, im).
    u : array (..., L, H) real
    options : dict
        ``dt_scale`` (all but LRU, RGLRU); ``discretization`` (S4D, S5: "zoh", "bilinear"; S6:
        "mamba", "zoh"); ``dt_transform``, ``real_transform``, ``imag_transform`` (S4, S4D);
        ``is_real`` (S4D); ``conj_sym``, ``clip_eigs`` (S5); ``c``, ``first_step_reset``,
        ``root_offset`` (RGLRU).
    state : dict, optional
        ``{"x": array}`` ("h" for RGLRU): (..., F, N) complex for S4 and S4D, real for S6, LSSL
        and with ``is_real``; (..., P) complex for S5 and LRU; (..., H) real for RGLRU. Of S4 with
        a step size a state it is T^-1/2 x, T = diag(dt). Zero when absent.
    reset : array (..., L) bool, optional
        Where the state before the step is replaced by zero.
    lengths : array (...) int, optional
        Steps from there on do not exist: their outputs are 0, the state stands still.

    Returns
    -------
    OracleResult
        y (..., L, H) float64, the final state, all states.

    Raises
    ------
    SSMError
        For an unknown model, option, parameter name, or an argument of the wrong shape.

    Notes
    -----
    O(L) Python steps; dense (2N)^2 a feature and step for S4. Equations: S4 (Gu, Goel, Ré 2022,
    eq. 3), S4D (Gu et al. 2022), S5 (Smith et al. 2023, eq. 5), LRU (Orvieto et al. 2023),
    S6 (Gu and Dao 2023, eq. 2), RG-LRU (De et al. 2024, eq. 1-4), LSSL (Gu et al. 2021).

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore import oracle
    >>> gate = {"w": [[[0.0]]], "b": [[0.0]]}
    >>> params = {"a_param": [0.0], "input_gate": gate, "a_gate": gate}
    >>> oracle.run("RGLRU", params, [[1.0], [0.0], [0.0]]).y[:, 0]     # a = 2**-4
    array([0.5       , 0.03125   , 0.00195312])
    """
    p, filled = _check_model(model, params, options or {})
    sequence = _check_input(model, p, u)
    batch, length = sequence.shape[:-2], sequence.shape[-2]
    restart, valid = _masks(batch, length, reset, lengths)
    if model == "RGLRU" and filled["first_step_reset"] and state is None:
        restart[..., :1] = True
    key = "h" if model == "RGLRU" else "x"
    real = model in ("LSSL", "S6", "RGLRU") or filled.get("is_real", False)
    dtype = np.dtype(np.float64 if real else np.complex128)
    x = _initial_state(key, (*batch, *state_shape(model, p)), dtype, state)
    with np.errstate(invalid="ignore"):  # NaN in, NaN out, without a warning: padding may be NaN
        recurrence = BUILDERS[model](p, sequence, filled, restart)
        final, states = _loop(recurrence, x, restart, valid)
        y = np.where(valid[..., None], recurrence.output(states), 0.0)
    return OracleResult(y, {key: final}, states)


def eigenvalues(
    model: str, params: Mapping[str, Any], options: Mapping[str, Any] | None = None
) -> NDArray[np.complex128]:
    """Eigenvalues of A_bar of a time-invariant model.

    Parameters
    ----------
    model : {"LSSL", "S4", "S4D", "S5", "LRU"}
    params : nested dict of real arrays
    options : dict
        As for `run`.

    Returns
    -------
    ndarray complex128
        The stored ones: (H, N) for S4D, (P,) for S5, (N,) for LRU. Of the dense matrix, in no
        particular order: (H, 2N) for S4, (H, N) for LSSL.

    Raises
    ------
    SSMError
        For S6 and RGLRU, whose A_bar changes with the input, and as `run` does.

    Notes
    -----
    The dense ones come from `numpy.linalg.eigvals`: backward stable, so they are exact for a
    matrix within eps ||A_bar||, which says little about single ones when A is far from normal
    (HiPPO-LegS beyond about 24 states).

    Examples
    --------
    >>> from ssmcore import oracle
    >>> params = {"nu_log": [0.0], "theta_log": [0.0], "gamma_log": [0.0],
    ...           "B": [[[1.0, 0.0]]], "C": [[[1.0, 0.0]]], "D": [0.0]}
    >>> abs(oracle.eigenvalues("LRU", params))          # exp(-exp(nu_log))
    array([0.36787944])
    """
    check_choice("oracle.eigenvalues", "model", model, ("LSSL", "S4", "S4D", "S5", "LRU"))
    p, filled = _check_model(model, params, options or {})
    if model in ("S4", "LSSL"):
        A_bar, _ = (s4_system if model == "S4" else lssl_system)(p, filled)
        return np.linalg.eigvals(A_bar).astype(np.complex128)
    return lti_eigenvalues(model, p, filled)[0].astype(np.complex128)

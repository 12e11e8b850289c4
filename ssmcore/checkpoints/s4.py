"""Checkpoints of state-spaces/s4: the S4 and S4D layers of models/s4/s4.py, models/s4/s4d.py.

The original stores lambda = -exp(A_real) - i A_imag, the half of each conjugate pair with negative
imaginary part; ssmcore has lambda = -exp(A_log_real) + i A_imag. So A_imag changes its sign, and
B, C, P stay as they are. What only changes how parameters are stored (transforms of dt, of the
real and of the imaginary part, ``dt_fast``, ``bandlimit``, a trained C~) is folded into them.

Papers: Gu, Goel, Ré 2021 (S4, arXiv:2111.00396); Gu, Gupta, Goel, Ré 2022 (S4D,
arXiv:2206.11893); Goel et al. 2022 (A = Lambda - P P*, arXiv:2202.09729).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssmcore._arguments import check_count, check_flag, check_positive
from ssmcore.checkpoints.reading import (
    Reading,
    check_keys,
    check_shapes,
    join,
    nearest,
    select,
    split,
)
from ssmcore.checkpoints.transforms import log_positive
from ssmcore.checkpoints.truncation import restore
from ssmcore.errors import SSMError, check_choice
from ssmcore.layers._transforms import TRANSFORMS, transform
from ssmcore.typing import Params

__all__ = ["read_s4", "read_s4d_standalone"]

_READ = {  # options that change the meaning of what is stored, with the original's defaults
    "mode": None,
    "kernel": None,
    "disc": "zoh",
    "bidirectional": False,
    "l_max": None,
    "dt_transform": "exp",
    "dt_fast": False,
    "real_transform": "exp",
    "imag_transform": "none",
    "bandlimit": None,
    "is_real": False,
    "swap_channels": False,
}
# told by the checkpoint itself, or of the initial values, the training, the block around
# fmt: off
_NO_MEANING = (
    "channels", "dt_tie", "d_model", "d_state", "n_ssm", "rank", "measure", "init", "B_init",
    "C_init", "normalize", "deterministic", "dt_min", "dt_max", "real_scale", "imag_scale",
    "real_random", "imag_random", "B_clip", "B_scale", "P_scale", "diagonalize_precision", "lr",
    "wd", "verbose", "backend", "transposed", "activation", "dropout", "tie_dropout",
    "drop_kernel", "weight_decay", "gate", "gate_act", "mult_act", "final_act", "bottleneck",
    "postact", "initializer", "weight_norm",
)
# fmt: on
_MODES = {"dplr": "S4", "nplr": "S4", "s4": "S4", "diag": "S4D", "s4d": "S4D"}


def read_s4(
    state_dict: Mapping[str, Any], *, prefix: str = "", rate: float = 1.0, **config: Any
) -> Reading:
    """Read an ``FFTConv`` of models/s4/s4.py, before or after its first forward pass.

    x' = A x + B u, y = 2 Re(C x) + D u, with A = Lambda - P P* (S4) or A = Lambda (S4D).

    Parameters
    ----------
    state_dict : mapping of str to array
        D (ch, H), kernel.C (ch, H, N, 2), kernel.B (1, S, N, 2), kernel.A_real, kernel.A_imag
        (S, N), kernel.inv_dt (H, 1) or (H, N); for S4 also kernel.P (rank, S, N, 2) and
        kernel.l_kernel (). Any real dtype, of any array library.
    prefix : str
        Where the layer sits, e.g. "layer" within an ``S4Block``.
    rate : float
        The ``rate`` given to the original's forward pass: dt is multiplied by it.
    **config
        The original's options, under its names: mode, disc, bidirectional, l_max, dt_transform,
        dt_fast, real_transform, imag_transform, bandlimit, is_real. Options that the checkpoint
        tells itself, or that matter at initialisation or in training only, are ignored.

    Returns
    -------
    Reading
        "S4" or "S4D", with the original's channels and ``n_ssm`` copies. A bidirectional layer
        becomes "Bidirectional" with share="dynamics" and skip_current=True: the original's
        backward kernel starts at u[t+1], so u[t] is counted once.

    Raises
    ------
    SSMError
        Missing, unexpected or misshapen arrays; an unknown option; disc="dss" (its kernel depends
        on the length, so no state space system has it); a real part or time step <= 0.

    Notes
    -----
    The original replaces C by C~ = C (I - A_bar^l) at the first forward pass and keeps l in
    l_kernel; C is recovered by a float64 solve on the conjugate-expanded system, O(H N^3).
    A state passed at a ``rate`` other than 1 has no counterpart. S4 is bilinear whatever ``disc``
    says, as in the original.

    Examples
    --------
    >>> import numpy as np
    >>> H, N = 2, 4
    >>> found = {"D": np.ones((1, H)), "kernel.C": np.ones((1, H, N, 2)),
    ...          "kernel.B": np.ones((1, 1, N, 2)), "kernel.A_real": np.zeros((1, N)),
    ...          "kernel.A_imag": np.ones((1, N)), "kernel.inv_dt": np.zeros((H, 1))}
    >>> reading = read_s4(found, mode="diag")
    >>> reading.model, reading.options
    ('S4D', {'d_model': 2, 'd_state': 8, 'n_ssm': 1, 'channels': 1, 'discretization': 'zoh',
     'dt_tie': True})
    >>> reading.params["C"].shape
    (2, 4, 2)
    """
    options = _options(config)
    check_positive("read_s4", rate=rate)
    found = select(state_dict, prefix)
    model = _model(options, found)
    arrays = _arrays(model, options, found)
    backwards = bool(options["bidirectional"])
    channels = len(arrays["C"]) // (1 + backwards)
    values = _continuous(model, options, arrays, rate)
    inner = _inner_options(model, options, values, channels)
    params = _layer_params(values, arrays["D"], values["C"][:channels])
    if not backwards:
        return Reading(model, inner, params)
    whole = {"inner": model, "inner_options": inner, "share": "dynamics", "skip_current": True}
    behind = {"C": _flat(split(values["C"][channels:]))}
    return Reading("Bidirectional", whole, {"causal": params, "anticausal": behind})


def read_s4d_standalone(state_dict: Mapping[str, Any], *, prefix: str = "") -> Reading:
    """Read the minimal ``S4D`` of models/s4/s4d.py: x' = diag(lambda) x + u, y = 2 Re(C x) + D u.

    Parameters
    ----------
    state_dict : mapping of str to array
        D (H), kernel.C (H, N, 2), kernel.log_dt (H), kernel.log_A_real, kernel.A_imag (H, N);
        output_linear.* belongs to the block around the layer and is ignored.
    prefix : str
        Where the layer sits.

    Returns
    -------
    Reading
        "S4D", zero-order hold, B = 1. Here the original keeps the half with positive imaginary
        part, so nothing changes its sign.

    Raises
    ------
    SSMError
        Missing, unexpected or misshapen arrays.

    Examples
    --------
    >>> import numpy as np
    >>> found = {"D": np.ones(3), "kernel.C": np.ones((3, 4, 2)), "kernel.log_dt": np.zeros(3),
    ...          "kernel.log_A_real": np.zeros((3, 4)), "kernel.A_imag": np.ones((3, 4))}
    >>> read_s4d_standalone(found).options["d_state"]
    8
    """
    owner = "S4D (s4d.py)"
    names = ["D", "kernel.C", "kernel.log_dt", "kernel.log_A_real", "kernel.A_imag"]
    found = check_keys(owner, select(state_dict, prefix), names, ignored=("output_linear.",))
    H, N = _dimensions(owner, "kernel.C", found["kernel.C"], 3)[:2]
    shapes = {"D": (H,), "kernel.C": (H, N, 2), "kernel.log_dt": (H,)}
    check_shapes(owner, found, shapes | dict.fromkeys(names[3:], (H, N)))
    options = {"d_model": H, "d_state": 2 * N, "n_ssm": H, "discretization": "zoh", "dt_tie": True}
    params = {
        "log_dt": found["kernel.log_dt"],
        "A_log_real": found["kernel.log_A_real"],
        "A_imag": found["kernel.A_imag"],
        "B": split(np.ones((H, N), dtype=np.complex128)),
        "C": found["kernel.C"],
        "D": found["D"],
    }
    return Reading("S4D", options, params)


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that matter, completed by the original's defaults."""
    for name in config:
        if name not in _READ and name not in _NO_MEANING:
            hint = nearest(name, [*_READ, *_NO_MEANING])
            msg = f"read_s4: unknown option {name!r} = {config[name]!r}{hint}"
            raise SSMError(msg)
    options = _READ | {name: value for name, value in config.items() if name in _READ}
    for name in ("dt_transform", "real_transform", "imag_transform"):
        check_choice("read_s4", name, options[name], TRANSFORMS)
    check_choice("read_s4", "disc", options["disc"], ("zoh", "bilinear", "dss"))
    if options["bandlimit"] is not None:
        check_positive("read_s4", bandlimit=options["bandlimit"])
    if options["l_max"] is not None:
        check_count("read_s4", l_max=options["l_max"])
    flags = ("bidirectional", "dt_fast", "is_real", "swap_channels")
    check_flag("read_s4", **{name: options[name] for name in flags})
    if options["swap_channels"]:
        msg = "read_s4: swap_channels is True; expected False, permute the output instead"
        raise SSMError(msg)
    return options


def _model(options: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    mode = options["mode"] or options["kernel"]
    if mode is None:
        mode = "dplr" if "kernel.P" in found else "diag"
    check_choice("read_s4", "mode", mode, _MODES)
    model = _MODES[mode]
    if model == "S4D" and options["disc"] == "dss":
        msg = (
            "read_s4: disc is 'dss', whose kernel is normalised by a function of the sequence "
            "length: no state space system has it; expected 'zoh' or 'bilinear'"
        )
        raise SSMError(msg)
    if model == "S4" and options["is_real"]:
        msg = "read_s4: is_real is True with mode 'dplr'; expected mode 'diag'"
        raise SSMError(msg)
    return model


def _arrays(
    model: str, options: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return the stored arrays by short name, checked; real B, C (is_real) made complex."""
    short = ["D", "C", "B", "A_real", "inv_dt"]
    short += [] if options["is_real"] else ["A_imag"]
    short += ["P", "l_kernel"] if model == "S4" else []
    names = {name if name == "D" else f"kernel.{name}": name for name in short}
    arrays = {names[key]: value for key, value in check_keys(model, found, names).items()}
    if options["is_real"]:
        arrays["A_imag"] = np.zeros_like(arrays["A_real"])
        arrays |= {name: split(arrays[name].astype(np.complex128)) for name in ("B", "C")}
    ch, H, N, _ = _dimensions(model, "kernel.C", arrays["C"], 4)
    S = _dimensions(model, "kernel.A_real", arrays["A_real"], 2)[0]
    if H % max(S, 1):
        msg = f"{model}: kernel.A_real has {S} rows; expected a divisor of d_model = {H}"
        raise SSMError(msg)
    shapes: dict[str, tuple[int, ...]] = {
        "D": (ch // (1 + options["bidirectional"]), H),
        "B": (1, S, N, 2),
        "C": (ch, H, N, 2),
        "A_real": (S, N),
        "A_imag": (S, N),
        "inv_dt": (H, 1) if arrays["inv_dt"].shape[-1:] == (1,) else (H, N),
    }
    if model == "S4":
        rank = _dimensions(model, "kernel.P", arrays["P"], 4)[0]
        shapes |= {"P": (rank, S, N, 2), "l_kernel": ()}
    check_shapes(model, arrays, shapes)
    length = float(arrays.get("l_kernel", 0))
    if length < 0 or length % 1:
        msg = f"{model}: kernel.l_kernel is {length!r}; expected a whole number of at least 0"
        raise SSMError(msg)
    return arrays


def _dimensions(owner: str, name: str, array: np.ndarray, ndim: int) -> tuple[int, ...]:
    if array.ndim != ndim:
        msg = f"{owner}: {name} has shape {array.shape}; expected {ndim} axes"
        raise SSMError(msg)
    return array.shape


def _continuous(
    model: str, options: Mapping[str, Any], arrays: Mapping[str, np.ndarray], rate: float
) -> dict[str, np.ndarray]:
    """Return log_dt, A_log_real, A_imag, B, C (ch, H, N) and P of the system, C the true one."""
    inv_dt = np.sinh(arrays["inv_dt"]) if options["dt_fast"] else arrays["inv_dt"]
    log_dt = log_positive("inv_dt", inv_dt, options["dt_transform"])
    values = {
        "A_log_real": log_positive("A_real", arrays["A_real"], options["real_transform"]),
        "A_imag": -transform(arrays["A_imag"], options["imag_transform"]),
        "B": join(arrays["B"][0]),
        "C": join(arrays["C"]),
    }
    mask = np.array(1.0)
    if options["bandlimit"] is not None:
        turns = np.exp(log_dt) * np.abs(_rows(values["A_imag"], len(log_dt))) / (2 * np.pi)
        mask = (turns < 0.5 * options["bandlimit"]).astype(np.float64)
    if model == "S4D":
        values["C"] = values["C"] * mask
    else:
        values["P"] = join(arrays["P"])
        if log_dt.shape[1] > 1:
            values, log_dt = _absorb_time_steps(values, log_dt)
        length = int(arrays["l_kernel"])
        values["C"] = _true_C(values, log_dt[:, 0], length, options["l_max"], mask, rate)
    values["log_dt"] = log_dt + np.log(rate)
    return values


def _true_C(
    values: Mapping[str, np.ndarray],
    log_dt: np.ndarray,
    length: int,
    l_max: int | None,
    mask: np.ndarray,
    rate: float,
) -> np.ndarray:
    """Return C of the system whose kernel the original computes from C, or C~ if length > 0."""
    through_tilde = rate != 1.0 or mask.ndim > 0
    if length == 0 and through_tilde and not l_max:
        msg = (
            "read_s4: kernel.l_kernel is 0 and l_max is not given: with bandlimit or rate the "
            "kernel depends on it; pass l_max=<kernel length>, or a checkpoint saved after the "
            "first forward pass"
        )
        raise SSMError(msg)
    if length == 0 and not through_tilde:
        return values["C"]
    lam = -np.exp(values["A_log_real"]) + 1j * values["A_imag"]
    return restore(
        values["C"],
        np.exp(log_dt),
        _rows(lam, len(log_dt)),
        _rows(values["P"], len(log_dt), axis=1),
        length=length or int(l_max or 0),
        is_tilde=length > 0,
        mask=mask,
        rate=rate,
    )


def _absorb_time_steps(
    values: Mapping[str, np.ndarray], log_dt: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the same S4 system with dt = 1, from one time step a state.

    With T = diag(dt): T^-1/2 (T A) T^1/2 = T Lambda - (T^1/2 P)(T^1/2 P)*, so Lambda and B, P, C
    are multiplied by T and T^1/2: discretisation commutes with a change of basis.
    """
    H = len(log_dt)
    root = np.exp(0.5 * log_dt)
    scaled = {
        "A_log_real": _rows(values["A_log_real"], H) + log_dt,
        "A_imag": _rows(values["A_imag"], H) * np.exp(log_dt),
        "B": _rows(values["B"], H) * root,
        "C": values["C"] * root,
        "P": _rows(values["P"], H, axis=1) * root,
    }
    return scaled, np.zeros((H, 1))


def _rows(array: np.ndarray, H: int, axis: int = 0) -> np.ndarray:
    """Return row h mod S at position h, for h < H."""
    return np.asarray(np.take(array, np.arange(H) % array.shape[axis], axis=axis))


def _inner_options(
    model: str, options: Mapping[str, Any], values: Mapping[str, np.ndarray], channels: int
) -> dict[str, Any]:
    S, N = values["A_imag"].shape
    H, dts = values["log_dt"].shape
    inner = {"d_model": H, "d_state": 2 * N, "n_ssm": S, "channels": channels}
    if model == "S4":
        return inner | {"rank": values["P"].shape[0]}
    return inner | {"discretization": options["disc"], "dt_tie": dts == 1}


def _layer_params(values: Mapping[str, np.ndarray], D: np.ndarray, C: np.ndarray) -> Params:
    """Return the parameters for C (channels, H, N) and D (channels, H)."""
    params = {
        "log_dt": values["log_dt"] if values["log_dt"].shape[1] > 1 else values["log_dt"][:, 0],
        "A_log_real": values["A_log_real"],
        "A_imag": values["A_imag"],
        "B": split(values["B"]),
        "C": _flat(split(C)),
        "D": _flat(D),
    }
    return params | ({"P": split(values["P"])} if "P" in values else {})


def _flat(array: np.ndarray) -> np.ndarray:
    """Return (channels, H, ...) as (channels H, ...)."""
    return array.reshape(-1, *array.shape[2:]).copy()

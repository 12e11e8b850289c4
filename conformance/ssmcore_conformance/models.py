"""The layers under test, their oracle's options, and parameters that forget slowly.

Small on purpose: four channels, a few states. ``slow`` sets the channels (of the layers that mix
channels: the groups of states, each read by one channel) to different extremes at once, so that
one run tries them all and each is measured against its own peak.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

import ssmcore as ssm
from ssmcore import arrays, oracle

__all__ = ["BRIEFLY", "CASES", "LAYERS", "LTI", "Case", "condition", "expected", "inputs", "slow"]

Numbers = np.ndarray[Any, Any]
H = 4
DEFAULT, SMALL_PHASE, ANY_PHASE, HALF = range(H)
DISTANCE = 1e-6
"""1 - |lambda| of the slow channels."""


class Case(NamedTuple):
    """A layer and what the oracle has to be told about it."""

    layer: ssm.Layer
    options: dict[str, Any]

    @property
    def modes(self) -> tuple[str, ...]:
        """The ways to run it."""
        parallel = ("scan",) if self.layer.time_varying else ("scan", "convolution")
        return ("recurrence", *parallel)


STORED: dict[str, Any] = {
    "dt_transform": "softplus",
    "real_transform": "sigmoid",
    "imag_transform": "softplus",
}
LAYERS = {
    "LSSL": Case(ssm.LSSL(H, d_state=4), {}),
    "S4": Case(ssm.S4(H, d_state=4), {}),
    "S4D": Case(ssm.S4D(H, d_state=4), {}),
    "S5": Case(ssm.S5(H, d_state=8), {}),
    "LRU": Case(ssm.LRU(H, d_state=8), {}),
    "S6": Case(ssm.S6(H, d_state=3), {}),
    "RGLRU": Case(ssm.RGLRU(H), {}),
}
CASES = LAYERS | {
    "LSSL per feature": Case(
        ssm.LSSL(H, d_state=4, per_feature=True, dt_scale=2.0), {"dt_scale": 2.0}
    ),
    "S4 rank 2": Case(ssm.S4(H, d_state=4, initialization="legt", rank=2), {}),
    "S4 tiled": Case(ssm.S4(H, d_state=4, n_ssm=2, dt_scale=0.5), {"dt_scale": 0.5}),
    "S4D bilinear": Case(
        ssm.S4D(H, d_state=4, discretization="bilinear", initialization="inv"),
        {"discretization": "bilinear"},
    ),
    "S4 stored otherwise": Case(
        ssm.S4(H, d_state=4, channels=2, n_ssm=2, dt_tie=False, **STORED), dict(STORED)
    ),
    "S4D stored otherwise": Case(
        ssm.S4D(H, d_state=4, channels=2, dt_tie=False, **STORED), dict(STORED)
    ),
    "S4D real": Case(
        ssm.S4D(H, d_state=4, initialization="real", is_real=True),
        {"is_real": True},
    ),
    "LSSL channels": Case(ssm.LSSL(H, d_state=4, channels=2), {}),
    "S5 all states": Case(
        ssm.S5(H, d_state=8, conj_sym=False, discretization="bilinear"),
        {"conj_sym": False, "discretization": "bilinear"},
    ),
    "S5 blocks": Case(ssm.S5(H, d_state=8, blocks=2, clip_eigs=True), {"clip_eigs": True}),
    "S6 zoh": Case(
        ssm.S6(H, d_state=3, dt_rank=2, discretization="zoh", dt_scale=2.0),
        {"discretization": "zoh", "dt_scale": 2.0},
    ),
    "RGLRU heads": Case(
        ssm.RGLRU(
            H, heads=2, a_initialization="a^c", c=4.0, first_step_reset=False, root_offset=1e-6
        ),
        {"c": 4.0, "first_step_reset": False, "root_offset": 1e-6},
    ),
}
BRIEFLY = "jax compiles a variant of a layer in one precision only: float64"
"""Why a case is skipped: each program takes JAX seconds to compile."""
LTI = [name for name, case in CASES.items() if not case.layer.time_varying]


def inputs(shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> Numbers:
    """Return a standard normal input sequence."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def expected(
    case: Case, params: Mapping[str, Any], u: Numbers, **options: Any
) -> tuple[Numbers, dict[str, Numbers]]:
    """Return the oracle's y, and its final state in the layer's form and by the layer's name."""
    state = options.pop("state", None)
    name = next(iter(case.layer.state_shapes()))
    if state is not None:
        state = {"h" if name == "h" else "x": _complex(case, state[name])}
    out = oracle.run(case.layer.name, params, u, options=case.options, state=state, **options)
    (x,) = out.state.values()
    return out.y, {name: np.stack((x.real, x.imag), axis=-1) if np.iscomplexobj(x) else x}


def _complex(case: Case, x: Numbers) -> Numbers:
    """Return a state of the layer in the oracle's form."""
    stored = case.layer.name in ("S4", "S4D", "S5", "LRU") and not case.options.get("is_real")
    return np.asarray(arrays.join(x)) if stored else x


def condition(
    fn: Callable[[Any, Numbers], Numbers], params: Mapping[str, Any], u: Numbers
) -> float:
    """Return how much the largest value of fn(params, u) moves per relative change of its inputs.

    The growth of the tolerances where the output is no plain sum of products: each parameter and
    the input are changed by a small relative step of random signs, a few times over; the largest
    changes add up. The step is the square root of eps, between rounding and curvature.
    """
    step = float(np.sqrt(np.finfo(float).eps))
    rng = np.random.default_rng(0)
    params = arrays.tree_map(lambda x: np.asarray(x, dtype=float), params)
    u = np.asarray(u, dtype=float)
    plain = fn(params, u)
    total = float(np.abs(plain).max(initial=0.0))

    def shaken(x: Numbers) -> Numbers:
        return np.asarray(x * (1 + step * rng.choice([-1.0, 1.0], x.shape)))

    for name in ("u", *(name for name, _ in arrays.leaves(params))):
        changes = []
        for _ in range(3):
            p = _replaced(params, name, shaken) if name != "u" else params
            moved = fn(p, shaken(u) if name == "u" else u)
            changes.append(np.abs(moved - plain).max(initial=0.0))
        total += float(max(changes)) / step
    return total


def _replaced(tree: Any, name: str, fn: Callable[[Numbers], Numbers], at: str = "") -> Any:
    """Return ``tree`` with the leaf of dotted ``name`` replaced by fn(leaf)."""
    if isinstance(tree, Mapping):
        return {k: _replaced(v, name, fn, f"{at}.{k}" if at else k) for k, v in tree.items()}
    return fn(tree) if at == name else tree


def slow(case: Case, params: dict[str, Any]) -> dict[str, Any]:
    """Return parameters with |lambda| = 1 - 1e-6 in channels 1 and 2, D = 0 there.

    Channel 1 has phases near 0, channel 2 any phase, channels 0 and 3 stay as they were drawn.
    """
    p: dict[str, Any] = arrays.tree_map(np.array, params)
    if "D" in p:
        p["D"][[SMALL_PHASE, ANY_PHASE]] = 0
    SLOW[case.layer.name](p)
    return p


def _s4(p: dict[str, Any]) -> None:
    """dt = 1e-6 |lambda|^-1 in one channel, Re lambda = -1e-6 / dt in another; P fades with it."""
    rows = p["A_log_real"].shape[0]
    p["log_dt"][SMALL_PHASE] = np.log(2 * DISTANCE)
    row, dt = ANY_PHASE % rows, np.exp(p["log_dt"][ANY_PHASE])
    if "A_imag" in p:
        p["A_imag"][row] = np.random.default_rng(5).uniform(0.05, 3, p["A_imag"][row].shape) / dt
    p["A_log_real"][row] = np.log(DISTANCE / dt)
    if "P" in p:
        p["P"][:, row] *= np.sqrt(DISTANCE)


def _mixing(p: dict[str, Any]) -> None:
    """Channel h reads the states n = h mod 4 only."""
    states = np.arange(p["C"].shape[1])
    p["C"][np.arange(H)[:, None] != states % H] = 0


def _s5(p: dict[str, Any]) -> None:
    _mixing(p)
    dt = np.exp(p["log_dt"])
    p["log_dt"][SMALL_PHASE::H] = np.log(2 * DISTANCE)
    phase = np.random.default_rng(5).uniform(-3, 3, dt[ANY_PHASE::H].shape)
    p["Lambda_re"][ANY_PHASE::H] = -DISTANCE / dt[ANY_PHASE::H]
    p["Lambda_im"][ANY_PHASE::H] = phase / dt[ANY_PHASE::H]


def _lru(p: dict[str, Any]) -> None:
    _mixing(p)
    for group in (SMALL_PHASE, ANY_PHASE):
        p["nu_log"][group::H] = np.log(DISTANCE)
        p["gamma_log"][group::H] = np.log(np.sqrt(2 * DISTANCE))
    p["theta_log"][SMALL_PHASE::H] = np.log(1e-3)


def _s6(p: dict[str, Any]) -> None:
    """dt of about 1e-2 times A of 1e-4 or less: real, so both slow channels have phase 0."""
    p["A_log"][SMALL_PHASE] -= -np.log(DISTANCE) / 2
    p["A_log"][ANY_PHASE] = np.log(DISTANCE / 0.01)


def _rglru(p: dict[str, Any]) -> None:
    """-log a = c sigmoid softplus(a_param), about 4 e^a_param."""
    p["a_param"][SMALL_PHASE] = np.log(DISTANCE / 4)
    p["a_param"][ANY_PHASE] = np.log(10 * DISTANCE / 4)


def _lssl(p: dict[str, Any]) -> None:
    p["log_dt"][SMALL_PHASE] = np.log(DISTANCE)
    p["log_dt"][ANY_PHASE] = np.log(0.1)
    if p["A"].ndim == 3:  # a rotation, forgetting slowly
        turn = np.random.default_rng(5).standard_normal(p["A"].shape[1:])
        p["A"][ANY_PHASE] = 5 * (turn - turn.T) - 10 * DISTANCE * np.eye(len(turn))


SLOW: dict[str, Callable[[dict[str, Any]], None]] = {
    "LSSL": _lssl,
    "S4": _s4,
    "S4D": _s4,
    "S5": _s5,
    "LRU": _lru,
    "S6": _s6,
    "RGLRU": _rglru,
}

"""The oracles and the checkpoint readers against the outputs of the original implementations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from checks import golden_cases as golden
from checks.golden_cases import BARS

from ssmcore import checkpoints, oracle
from ssmcore.checkpoints.truncation import bilinear_dense
from ssmcore.errors import SSMError

CASES = {case.id: case for case in golden.cases()}


def selective_scan(arguments: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t, y_t = C_t h_t + D u_t, one step at a time."""
    u, delta, A = arguments["u"], arguments["delta"], arguments["A"]
    (batch, L, H), N = u.shape, A.shape[-1]
    B, C = (_per_channel(arguments[name], batch, L, H) for name in ("B", "C"))
    h = np.zeros((batch, H, N), A.dtype)
    y = np.zeros((batch, L, H))
    for t in range(L):
        dt = delta[:, t, :, None]
        h = np.exp(dt * A) * h + dt * B[:, t] * u[:, t, :, None]
        seen = (C[:, t] * h).sum(axis=-1)
        y[:, t] = 2.0 * seen.real if np.iscomplexobj(A) else seen
    return y + arguments.get("D", 0.0) * u, h


def _per_channel(B: np.ndarray, batch: int, L: int, H: int) -> np.ndarray:
    """Return (batch, L, H, N) from what broadcasts to it, or from (batch, L, N)."""
    B = B[:, :, None, :] if B.ndim == 3 else B
    return np.broadcast_to(B, (batch, L, H, B.shape[-1]))


def run_oracle(
    model: str,
    options: Mapping[str, Any],
    params: Mapping[str, Any],
    u: np.ndarray,
    *,
    reset: np.ndarray | None,
    state: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray | None]:
    if model == "selective_scan":
        return selective_scan(params)
    if not options.get("dt_tie", True):
        params = _with_unit_steps(params)
    known = {name: value for name, value in options.items() if name in oracle.OPTIONS[model]}
    key = "h" if model == "RGLRU" else "x"
    given = None if state is None else {key: state}
    result = oracle.run(model, params, u, options=known, state=given, reset=reset)
    return result.y, result.state[key]


def _with_unit_steps(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the S4D with dt = 1 and the same A_bar, B_bar, from one time step a state.

    Both discretisations depend on dt lambda and dt B only.
    """
    log_dt = params["log_dt"]
    return dict(params) | {
        "log_dt": np.zeros(len(log_dt)),
        "A_log_real": params["A_log_real"] + log_dt,
        "A_imag": params["A_imag"] * np.exp(log_dt),
        "B": params["B"] * np.exp(log_dt)[..., None],
    }


@pytest.mark.parametrize(
    ("id", "precision"), [(id, precision) for id, case in CASES.items() for precision in case.y]
)
def test_oracle_reproduces_the_original(id: str, precision: str) -> None:
    # float32: the float64 oracle against the original's float32 output, so the reader's part (what
    # it recovers from a C~ stored in float32) is within the bar too.
    error = CASES[id].error(golden.with_bidirectional(run_oracle), precision)
    print(f"{id} {precision}: {error:.1e}")
    assert error <= BARS[precision]


def test_every_case_of_the_files_is_used_or_named() -> None:
    used = {tuple(id.split("/")[:2]) for id in CASES}
    for file in ("s4_dplr_legs", "s4d_lin", "s5", "mamba_selective_scan"):
        configs, _ = golden.load(file)
        unused = {name for name in configs if (file, name) not in used}
        models = {name for name in configs if name.startswith("model_")}
        assert unused == models | set(golden.UNREPRESENTABLE.get(file, []))


def test_true_C_is_recovered_from_C_tilde() -> None:
    """C of sd1 equals C of sd0, to the conditioning of I - A_bar^L.

    Forward C~ = C M and backward C = C~ M^-1 round each to about 2N eps of their size, M =
    I - A_bar^L from L products: c eps cond(M) (2N + L), with c = 4 for the complex arithmetic.
    """
    configs, groups = golden.load("s4_dplr_legs")
    eps, worst = np.finfo(np.float64).eps, 0.0
    for name, config in configs.items():
        readings = dict(golden.s4_readings(config, groups[name]))
        before, after = (_forward(readings[key]) for key in ("sd0", "f64_sd1"))
        dt = np.exp(before["log_dt"])
        rows = np.arange(len(dt)) % len(before["A_imag"])
        lam = (-np.exp(before["A_log_real"]) + 1j * before["A_imag"])[rows]
        P = (before["P"][..., 0] + 1j * before["P"][..., 1])[:, rows]
        L = int(groups[name].under("f64/sd1/")["kernel.l_kernel"]) if name != "block" else 32
        A_bar = bilinear_dense(dt, lam, P)
        M = np.eye(A_bar.shape[-1]) - np.linalg.matrix_power(A_bar, L)
        bound = 4 * eps * float(np.linalg.cond(M).max()) * (A_bar.shape[-1] + L)
        error = golden.peak_error(after["C"], before["C"])
        print(f"{name}: C error {error:.1e}, bound {bound:.1e}")
        worst = max(worst, error / bound)
    assert worst <= 1.0


def _forward(reading: checkpoints.Reading) -> dict[str, np.ndarray]:
    return dict(reading.params.get("causal", reading.params))


def test_dss_is_refused() -> None:
    configs, groups = golden.load("s4d_lin")
    with pytest.raises(SSMError, match=r"dss.*length"):
        checkpoints.read_s4(groups["dss_uni"].under("sd0/"), **configs["dss_uni"]["config"])

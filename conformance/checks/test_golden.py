"""The layers on NumPy, PyTorch and JAX against the outputs of the original implementations."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from checks import golden_cases as golden
from checks.golden_cases import BARS

import ssmcore as ssm
from ssmcore import backend
from ssmcore.arrays import split, tree_map
from ssmcore.checkpoints import Reading, selective_scan_arguments

CASES = {case.id: case for case in golden.cases()}
LIBRARIES = ("numpy", "torch", "jax")
FILES = ("s4_dplr_legs", "s4d_lin", "s5", "mamba_selective_scan", "rglru_torch")


@cache
def _ready(name: str) -> backend.Backend:
    if name not in backend.available():
        pytest.skip(f"{name} is not installed")
    library = backend.load(name)
    library.enable_float64()
    return library


@cache
def _compiled(name: str, layer: ssm.Layer, mode: str, stateful: bool) -> Any:
    """Return layer(params, u, state, reset) as its library runs it: one compilation per shape."""

    def call(params: Any, u: Any, state: Any, reset: Any) -> Any:
        return layer(params, u, state, mode=mode, reset=reset, return_state=stateful)

    return _ready(name).compile(call)


def _run(name: str, precision: str, mode: str) -> golden.Run:
    library = _ready(name)

    def put(x: np.ndarray) -> Any:
        kind = {"float64": "complex128", "float32": "complex64"}[precision]
        return library.from_numpy(x.astype(kind if np.iscomplexobj(x) else precision))

    def run(
        model: str,
        options: Mapping[str, Any],
        params: Mapping[str, Any],
        u: np.ndarray,
        *,
        reset: np.ndarray | None,
        state: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if model == "selective_scan":
            arguments = {key: put(x) for key, x in params.items()}
            y, last = ssm.selective_scan(**arguments, return_state=True)
            return library.to_numpy(y), library.to_numpy(last)
        layer = Reading(model, dict(options), {}).layer()
        given = tree_map(put, dict(params))
        where = None if reset is None else library.from_numpy(reset)
        if model == "Bidirectional":
            return library.to_numpy(
                _compiled(name, layer, mode, False)(given, put(u), None, None)
            ), None
        key, paired = next(iter(layer.state_shapes())), model != "RGLRU"
        start = None
        if state is not None:
            x0 = put(state)
            start = layer.initial_state(given, u.shape[:-2])
            start = {**start, key: split(x0) if paired else x0}
            start = {**start, **({"fresh": 0.0 * start["fresh"]} if "fresh" in start else {})}
        way = "scan" if mode == "auto" and reset is not None else mode
        y, after = _compiled(name, layer, way, True)(given, put(u), start, where)
        last = library.to_numpy(after[key])
        return library.to_numpy(y), last[..., 0] + 1j * last[..., 1] if paired else last

    return run


RUNS = [
    (library, mode, precision)
    for library in ("numpy", "torch")
    for mode in ("auto", "recurrence", "scan")
    for precision in ("float64", "float32")
    if (library, mode) != ("torch", "scan")
] + [("jax", "auto", "float64")]  # every jit costs a second; test_equivalence has the other modes


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(("library", "mode", "precision"), RUNS)
def test_layers_reproduce_the_originals(library: str, mode: str, file: str, precision: str) -> None:
    """Every output of ``file``, and every final state it holds, within the bar."""
    run = _run(library, precision, mode)
    errors = {
        id: case.error(run, precision)
        for id, case in CASES.items()
        if id.startswith(file) and precision in case.y
    }
    worst = max(errors, key=lambda id: errors[id])
    count = f"{library} {mode} {precision} {file}: {len(errors)} outputs"
    print(f"{count}, worst {errors[worst]:.1e} ({worst})")
    assert len(errors) > 3
    assert errors[worst] <= BARS[precision], f"{worst}: {errors[worst]:.1e} of the peak"


def _selective_scan_gradients() -> list[tuple[str, str]]:
    _, groups = golden.load("mamba_selective_scan")
    return [
        (name, kind)
        for name, group in groups.items()
        for kind in ("grad", "gradS")
        if group.under(f"f64/{kind}/")
    ]


@pytest.mark.parametrize("library", ["torch", "jax"])
@pytest.mark.parametrize(("name", "kind"), _selective_scan_gradients())
def test_selective_scan_gradients(library: str, name: str, kind: str) -> None:
    """Gradient of sum(out dout), with gradS also sum(last_state dlast), in float64.

    Complex inputs go in as real pairs, so that both libraries' gradients are dL/dRe, dL/dIm.
    """
    used = _ready(library)
    configs, groups = golden.load("mamba_selective_scan")
    group, config = groups[name], configs[name]
    names = [k for k in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias") if k in group]
    given = {k: used.from_numpy(_pairs(group[k])) for k in names}
    dout, dlast = used.from_numpy(golden.time_first(group["dout"]).copy()), None
    if kind == "gradS":
        dlast = used.from_numpy(_pairs(group["dlast"]))

    def loss(tree: dict[str, Any]) -> Any:
        joined = {k: _joined(x, np.iscomplexobj(group[k])) for k, x in tree.items()}
        arguments = selective_scan_arguments(**joined, delta_softplus=config["delta_softplus"])
        z = arguments.pop("z", None)
        y, last = ssm.selective_scan(**arguments, return_state=True)
        y = y if z is None else y * z * ssm.arrays.sigmoid(z)
        total = (y * dout).sum()
        return total if dlast is None else total + (_as_pairs(last) * dlast).sum()

    _, grads = used.value_and_grad(loss, given)
    worst = 0.0
    for k, expected in group.under(f"f64/{kind}/").items():
        worst = max(worst, golden.peak_error(used.to_numpy(grads[k]), _pairs(expected)))
    print(f"{library} {name} {kind}: worst gradient error {worst:.1e}")
    assert worst <= BARS["float64"]


def _pairs(x: np.ndarray) -> np.ndarray:
    return np.stack((x.real, x.imag), axis=-1) if np.iscomplexobj(x) else x


def _joined(x: Any, complex_: bool) -> Any:
    return x[..., 0] + x[..., 1] * 1j if complex_ else x


def _as_pairs(x: Any) -> Any:
    return split(x) if ssm.arrays.is_complex(x) else x

"""Every case of the golden files that an ssmcore layer represents, ready to be run by anything.

A runner is ``run(model, options, params, u, *, reset, state) -> (y, final state)``: ``u`` and ``y``
are (..., L, H) in float64 or cast as the runner likes; states are NumPy arrays in the layout of
``ssmcore.oracle`` (complex ones native), or None. ``params`` are the layer's, in float64; for the
model "selective_scan" they are the arguments of the primitive.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from checks import golden_scaffold as scaffold
from safetensors import safe_open

from ssmcore import checkpoints
from ssmcore.checkpoints import Reading

GOLDEN = Path(__file__).parent / "golden"

# The project's acceptance bars for agreement with the originals, max |y - y'| / max |y'|.
# The originals' own rounding is within them: convolution and recurrence differ by up to 1.5e-14 in
# float64, float32 and float64 by up to 4.8e-6 (both s4_dplr_legs/n64).
BARS = {"float64": 1e-9, "float32": 2e-5}

UNREPRESENTABLE = {"s4d_lin": ["dss_uni"]}


class Run(Protocol):
    """What runs a layer; see the module's docstring."""

    def __call__(
        self,
        model: str,
        options: Mapping[str, Any],
        params: Mapping[str, Any],
        u: np.ndarray,
        *,
        reset: np.ndarray | None,
        state: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray | None]: ...


def nothing(y: np.ndarray) -> np.ndarray:
    return y


@dataclass(frozen=True)
class GoldenCase:
    """One output of an original implementation, and what ssmcore reproduces it with."""

    id: str
    model: str
    options: dict[str, Any]
    params: dict[str, Any]
    u: np.ndarray
    y: Mapping[str, np.ndarray]  # expected, by precision: "float64", "float32" or both
    finish: Callable[[np.ndarray], np.ndarray] = nothing  # what the original does to y afterwards
    state: np.ndarray | None = None
    reset: np.ndarray | None = None
    final_state: np.ndarray | None = None  # expected, float64

    def error(self, run: Run, precision: str = "float64") -> float:
        """Return the largest error over the peak, of the output and of the final state."""
        y, state = run(
            self.model, self.options, self.params, self.u, reset=self.reset, state=self.state
        )
        error = peak_error(self.finish(y), self.y[precision])
        if self.final_state is not None and state is not None:
            error = max(error, peak_error(state, self.final_state))
        return error


def peak_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return max |found - expected| / max |expected|; infinite unless finite and of one shape.

    Where nothing but zeros is expected, nothing but zeros is right.
    """
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    if not expected.any():
        return float("inf") if found.any() else 0.0
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _both_ways(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters of each direction: the dynamics are shared, D u is added once."""
    ahead = dict(params["causal"])
    return ahead, {**ahead, "C": params["anticausal"]["C"], "D": np.zeros_like(ahead["D"])}


def with_bidirectional(run: Run) -> Run:
    """Return a runner that runs "Bidirectional" through two passes of ``run``."""

    def both(
        model: str,
        options: Mapping[str, Any],
        params: Mapping[str, Any],
        u: np.ndarray,
        *,
        reset: np.ndarray | None,
        state: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if model != "Bidirectional":
            return run(model, options, params, u, reset=reset, state=state)
        inner = options["inner"], options["inner_options"]
        behind = _both_ways(params)[1]
        ahead, _ = run(*inner, params["causal"], u, reset=None, state=None)
        back, _ = run(*inner, behind, u[..., ::-1, :], reset=None, state=None)
        back = back[..., ::-1, :]
        if options["skip_current"]:  # y_t takes what the backward pass says after u_{t+1}
            back = np.concatenate((back[..., 1:, :], np.zeros_like(back[..., :1, :])), axis=-2)
        return ahead + back, None

    return both


def cases() -> Iterator[GoldenCase]:
    """Yield every representable case of the five files."""
    yield from s4_cases("s4_dplr_legs")
    yield from s4_cases("s4d_lin")
    yield from s5_cases()
    yield from selective_scan_cases()
    yield from rglru_cases()


@dataclass(frozen=True)
class Group:
    """The arrays of one case of a golden file, in float64, complex ones joined."""

    arrays: dict[str, np.ndarray]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays whose names start with ``prefix``, it taken off."""
        found = self.arrays.items()
        return {name[len(prefix) :]: x for name, x in found if name.startswith(prefix)}

    def outputs(
        self, name: str, change: Callable[[np.ndarray], np.ndarray] = nothing
    ) -> dict[str, np.ndarray]:
        """Return ``name`` by precision, as far as it is stored."""
        kinds = {"float64": f"f64/{name}", "float32": f"f32/{name}"}
        return {kind: change(self[key]) for kind, key in kinds.items() if key in self}


def load(name: str) -> tuple[dict[str, dict[str, Any]], dict[str, Group]]:
    """Return the configurations and the arrays of a golden file by case."""
    with safe_open(GOLDEN / f"{name}.safetensors", framework="numpy") as file:
        configs = json.loads(file.metadata()["cases"])
        flat = {key: file.get_tensor(key).astype(np.float64) for key in file.keys()}  # noqa: SIM118
    groups: dict[str, dict[str, np.ndarray]] = {}
    for key, value in flat.items():
        case, _, rest = key.partition("/")
        joined = value[..., 0] + 1j * value[..., 1] if key.endswith("@c") else value
        groups.setdefault(case, {})[rest.removesuffix("@c")] = joined
    return configs, {case: Group(arrays) for case, arrays in groups.items()}


def time_first(x: np.ndarray) -> np.ndarray:
    """Return (..., H, L) as (..., L, H)."""
    return np.swapaxes(x, -1, -2)


# ---------------------------------------------------------------------------- state-spaces/s4


def s4_cases(file: str) -> Iterator[GoldenCase]:
    configs, groups = load(file)
    for name, config in configs.items():
        if name not in UNREPRESENTABLE.get(file, []):
            yield from _s4_case(f"{file}/{name}", config, groups[name])


def s4_readings(config: Mapping[str, Any], group: Group) -> Iterator[tuple[str, Reading]]:
    """Yield the layer from the state dict before (sd0) and after (sd1) the first forward pass."""
    prefix = "layer." if config["class"] == "S4Block" else ""
    if config["class"].startswith("S4D "):
        yield "sd0", checkpoints.read_s4d_standalone(group.under("sd0/"))
        return
    before = {
        key: value
        for key, value in group.under(f"sd0/{prefix}").items()
        if key == "D" or key.startswith("kernel.")
    }
    yield "sd0", checkpoints.read_s4(before, **config["config"])
    for kind in ("f64", "f32"):
        after = before | group.under(f"{kind}/sd1/{prefix}")
        if f"{kind}/sd1/{prefix}kernel.C" in group:
            yield f"{kind}_sd1", checkpoints.read_s4(after, **config["config"])


def _s4_case(id: str, config: Mapping[str, Any], group: Group) -> Iterator[GoldenCase]:
    for source, reading in s4_readings(config, group):
        plain = GoldenCase(f"{id}/{source}", *reading, u=np.zeros(0), y={})
        found = list(_s4_outputs(plain, config, group))
        if source == "sd0":
            found += list(_s4_states(plain, group)) + list(_s4_rates(plain, config, group))
        for case in found:
            kinds = ["float32"] if source == "f32_sd1" else list(case.y)
            y = {kind: case.y[kind] for kind in kinds if kind in case.y}
            if y:
                yield replace(case, y=y)


def _s4_outputs(plain: GoldenCase, config: Mapping[str, Any], group: Group) -> Iterator[GoldenCase]:
    """Yield y and y_preact of a whole pass, by convolution and by steps, and the kernels."""
    finish: scaffold.Map = scaffold.gelu
    last = config["config"].get("transposed", True)
    layout = time_first if last else nothing
    if config["class"] != "FFTConv":
        finish = scaffold.s4_output(group.under("sd0/output_linear.0."))
    u = layout(group["u"])
    for length in config.get("lengths_called_in_order", [None]):
        suffix = "" if length is None else f"_len{length}"
        case = replace(plain, u=u[..., :length, :])
        for name in ("y", "step_y"):
            y = group.outputs(name + suffix, layout)
            yield replace(case, id=f"{plain.id}/{name}{suffix}", y=y, finish=finish)
        yield from _kernels(plain, f"K{suffix}", group.outputs(f"K{suffix}"))
    masked = u.copy()
    masked[0, 20:] = 0.0
    y = group.outputs("y_lengths_20_32", layout)
    yield replace(plain, id=f"{plain.id}/lengths", u=masked, y=y, finish=finish)
    for name in ("", "step_dense_", "step_linear_", "step_diag_"):
        y = group.outputs(f"{name}y_preact", layout)
        final = _s4_state(plain, group, f"f64/{name}state")
        yield replace(plain, id=f"{plain.id}/{name}y_preact", u=u, y=y, final_state=final)


def _kernels(
    case: GoldenCase, name: str, kernels: Mapping[str, np.ndarray]
) -> Iterator[GoldenCase]:
    """Yield the responses to an impulse without D, of each direction: the rows of K."""
    layers = {"": (case.model, case.options, case.params)}
    if case.model == "Bidirectional":
        inner = case.options["inner"], case.options["inner_options"]
        ways = _both_ways(case.params)
        layers = {part: (*inner, p) for part, p in zip(("causal", "anticausal"), ways, strict=True)}
    for row, (part, (model, options, params)) in enumerate(layers.items()):
        F = len(params["D"])
        rows = slice(row * F, (row + 1) * F)
        y = {kind: K.reshape(-1, K.shape[-1])[rows].T for kind, K in kernels.items()}
        impulse = np.zeros((len(next(iter(y.values()))) if y else 1, options["d_model"]))
        impulse[0] = 1.0
        silent = dict(params) | {"D": np.zeros(F)}
        id = f"{case.id}/{name}{part}"
        yield GoldenCase(id, model, options, silent, u=impulse, y=y)


def _s4_state(case: GoldenCase, group: Group, name: str) -> np.ndarray | None:
    """Return a state of the original: the stored half, repeated for every channel."""
    if name not in group or case.model == "Bidirectional":
        return None
    half = group[name][..., : case.params["A_imag"].shape[-1]]
    return np.concatenate([half] * case.options["channels"], axis=-2)


def _s4_states(plain: GoldenCase, group: Group) -> Iterator[GoldenCase]:
    """Yield passes from and to a stored state: from x0, and in two chunks."""
    u = time_first(group["u"])
    x0 = replace(plain, id=f"{plain.id}/x0", u=u)
    yield replace(
        x0,
        y=group.outputs("x0_y_preact", time_first),
        state=_s4_state(plain, group, "f64/x0"),
        final_state=_s4_state(plain, group, "f64/x0_state_end"),
    )
    y = group.outputs("chunk_y_preact", time_first)
    middle = _s4_state(plain, group, "f64/chunk_state_mid")
    end = _s4_state(plain, group, "f64/chunk_state_end")
    half = u.shape[-2] // 2
    first = {kind: value[..., :half, :] for kind, value in y.items()}
    second = {kind: value[..., half:, :] for kind, value in y.items()}
    chunk = replace(plain, id=f"{plain.id}/chunk0", u=u[..., :half, :], y=first)
    yield replace(chunk, final_state=middle)
    chunk = replace(plain, id=f"{plain.id}/chunk1", u=u[..., half:, :], y=second)
    yield replace(chunk, state=middle, final_state=end)


def _s4_rates(plain: GoldenCase, config: Mapping[str, Any], group: Group) -> Iterator[GoldenCase]:
    """Yield the kernels at another sampling rate."""
    for rate in (0.5, 2.0):
        kernels = group.outputs(f"K_rate{rate}")
        if kernels:
            reading = checkpoints.read_s4(group.under("sd0/"), rate=rate, **config["config"])
            case = GoldenCase(plain.id, *reading, u=np.zeros(0), y={})
            yield from _kernels(case, f"K_rate{rate}", kernels)


# ------------------------------------------------------------------------- lindermanlab/S5


def s5_cases() -> Iterator[GoldenCase]:
    configs, groups = load("s5")
    names = ("conj_sym", "clip_eigs", "discretization", "bidirectional", "step_rescale")
    for name, config in configs.items():
        group = groups[name]
        kind = config.get("cls", "S5SSM")
        if kind == "BatchClassificationModel":
            continue
        prefix = "params/seq" if kind == "SequenceLayer" else "params"
        options = {key: config[key] for key in names}
        reading = checkpoints.read_s5(group.arrays, prefix=prefix, **options)
        case = GoldenCase(f"s5/{name}", *reading, u=group["u"], y=group.outputs("y"))
        if kind == "SequenceLayer":
            u, finish = scaffold.s5_layer(group.under("params/"), config, group["u"])
            case = replace(case, u=u, finish=finish)
        elif not config["bidirectional"]:
            case = replace(case, final_state=group["f64/last_state"])
        yield case


# ------------------------------------------------------------------------ state-spaces/mamba


def selective_scan_cases() -> Iterator[GoldenCase]:
    configs, groups = load("mamba_selective_scan")
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    for name, config in configs.items():
        group = groups[name]
        given = {key: group[key] for key in names if key in group}
        softplus = config["delta_softplus"]
        arguments = checkpoints.selective_scan_arguments(**given, delta_softplus=softplus)
        z = arguments.pop("z", None)
        yield GoldenCase(
            f"mamba_selective_scan/{name}",
            "selective_scan",
            {},
            arguments,
            u=arguments["u"],
            y=group.outputs("out", time_first),
            finish=nothing if z is None else scaffold.gate(z),
            final_state=group["f64/last_state"],
        )


# ---------------------------------------------------------- google-deepmind/recurrentgemma


def rglru_cases() -> Iterator[GoldenCase]:
    _, groups = load("rglru_torch")
    group, positions = groups["rglru"], groups["segment_pos"]
    reading = checkpoints.read_rglru(group.arrays, prefix="sd")
    plain = GoldenCase("rglru_torch", *reading, u=group["x"], y={})
    for name in ("plain", "docs", "continued"):
        reset = checkpoints.reset_from_positions(positions[name].astype(np.int64))
        options = plain.options | {"first_step_reset": False}
        for start in ("", "_from_h0"):
            y = group.outputs(f"{name}{start}/y")
            if y:
                yield replace(
                    plain,
                    id=f"rglru_torch/{name}{start}",
                    options=options,
                    y=y,
                    reset=reset,
                    state=group["h0"] if start else None,
                    final_state=group[f"f64/{name}{start}/last_state"],
                )
        steps = group.outputs(f"{name}/step_y")
        if steps:
            id = f"rglru_torch/{name}/step"
            yield replace(plain, id=id, options=options, y=steps, reset=reset)
    yield replace(plain, id="rglru_torch/plain/default", y=group.outputs("plain/y"))

"""ssmcore.verify: what it finds when all is well, and when a fault is planted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssmcore_numpy import NumpyBackend
from ssmcore_torch import BACKEND as TORCH

from ssmcore import S5, SSMError, backend, verify
from ssmcore._reporting import write_json
from ssmcore.primitives import REFERENCES
from ssmcore.verify import checks, tolerance

LTI = ("LSSL", "S4", "S4D", "S5", "LRU")


def negated(primitive: str) -> Callable[..., Any]:
    """Return the primitive with the sign of its (first) result turned: a planted fault."""

    def wrong(*args: Any, **kwargs: Any) -> Any:
        found = REFERENCES[primitive](*args, **kwargs)
        return (-found[0], *found[1:]) if isinstance(found, tuple) else -found

    return wrong


def plant(monkeypatch: pytest.MonkeyPatch, name: str, replacement: Callable[..., Any]) -> None:
    monkeypatch.setattr(NumpyBackend, "primitives", lambda self: {name: replacement})


class Stranger(NumpyBackend):
    """A backend of NumPy's arrays under another name, to be spoilt."""

    name = "stranger"

    def owns(self, x: object) -> bool:
        return False


def add(monkeypatch: pytest.MonkeyPatch, owner: Any) -> None:
    monkeypatch.setitem(backend._registered, owner.name, owner)


# ---------------------------------------------------------------------------------- all is well


def test_every_model_mode_and_dtype_on_numpy() -> None:
    report = verify.run(backends=["numpy"], length=64)
    assert report.passed, report.failures
    rows = [(case.model, case.backend, case.dtype) for case in report.cases]
    assert rows == [(m, "numpy", d) for m in verify.MODELS for d in ("float32", "float64")]
    for case in report.cases:
        modes = [mode.mode for mode in case.modes]
        expected = [m for m in verify.MODES if m != "convolution" or case.model in LTI]
        assert modes == expected
        assert case.between_modes is not None
        assert case.eigenvalues is not None
        print(case.model, case.dtype, case.worst)
    # a check a mode, one between modes, one of the eigenvalues
    assert report.checks == 2 * (len(LTI) * (4 + 2) + 2 * (3 + 2))


def test_numpy_and_torch_agree_and_say_so() -> None:
    seen: list[tuple[str, int, int]] = []
    report = verify.run(
        ["s5", "rg-lru"], ["numpy", "torch"], length=64, progress=lambda *now: seen.append(now)
    )
    assert report.passed, report.failures
    assert [case.backend for case in report.cases] == ["numpy"] * 2 + ["torch"] * 2 + [
        "numpy"
    ] * 2 + ["torch"] * 2
    across = [case.eigenvalues_across is None for case in report.cases]
    assert across == [case.backend == "numpy" for case in report.cases]
    assert [now[1:] for now in seen] == [(done, 8) for done in range(1, 9)]
    assert any("two backends that differentiate" in note for note in report.notes)
    assert report.summary().startswith(f"{report.checks} checks, 0 failed, worst ")


def test_errors_are_those_of_a_direct_comparison() -> None:
    report = verify.run(["LRU"], ["numpy"], ["scan"], ["float32"], length=50)
    u = verify._input(None, 50, 8)
    problem = checks.pose(verify._layer("LRU", 8, 16), "float32", u, 0)
    y = problem.layer(problem.params, problem.u, mode="scan")
    peak = np.max(np.abs(problem.y))
    [case] = report.cases
    assert case.modes[0].oracle.error == np.max(np.abs(y.astype(float) - problem.y)) / peak
    assert case.modes[0].ulps == np.max(np.abs(y - problem.y)) / np.spacing(np.float32(peak))
    assert case.between_modes is None


def test_torch_gradients_agree_with_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = type("Twin", (type(TORCH),), {"name": "twin", "owns": lambda self, x: False})()
    add(monkeypatch, twin)
    report = verify.run(["S6"], ["torch", "twin"], ["scan"], ["float64"], length=32)
    assert report.passed, report.failures
    case = report.cases[1]
    assert case.gradients_from == "torch"
    assert case.gradients is not None
    assert case.gradients.error == 0.0


def test_a_backend_that_compiles_gets_chunks_of_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[Any] = []

    def compile_(self: Any, fn: Callable[..., Any]) -> Callable[..., Any]:
        def compiled(*args: Any) -> Any:
            shapes.append(tuple(args[1].shape))
            return fn(*args)

        return compiled

    monkeypatch.setattr(NumpyBackend, "compile", compile_)
    report = verify.run(["S4D", "RGLRU"], ["numpy"], ["chunked"], ["float64"], length=60)
    assert report.passed, report.failures
    longest = max(checks.chunk_sizes(60, 0))
    chunks = [shape for shape in shapes if shape[1] != 60]  # 60: for the eigenvalues
    assert len(chunks) == 2 * len(checks.chunk_sizes(60, 0))
    assert set(chunks) == {(2, longest, 8)}


@pytest.mark.parametrize("length", [1, 2, 3, 50])
def test_chunks_cover_the_sequence(length: int) -> None:
    for seed in range(20):
        sizes = checks.chunk_sizes(length, seed)
        assert sum(sizes) == length
        assert min(sizes) == sizes[0] == 1


@pytest.mark.parametrize("length", [2, 3, 5])
def test_very_short_series(length: int) -> None:
    report = verify.run(backends=["numpy"], length=length)
    assert report.passed, report.failures


def test_large_states_have_no_dense_eigenvalues() -> None:
    report = verify.run(["S4", "S5"], ["numpy"], ["scan"], ["float64"], length=16, d_state=32)
    assert report.passed, report.failures
    assert [case.eigenvalues is None for case in report.cases] == [True, False]
    assert any("S4: eigenvalues not compared" in note for note in report.notes)


def test_own_series() -> None:
    wave = np.sin(np.arange(40.0))
    one = verify.run(["S5"], ["numpy"], ["scan"], ["float64"], wave)
    two = verify.run(["S5"], ["numpy"], ["scan"], ["float64"], np.stack((wave, -wave), axis=1))
    assert one.settings["length"] == two.settings["length"] == 40
    assert one.cases[0].peak != two.cases[0].peak


# ------------------------------------------------------------------------------- planted faults


def test_a_wrong_sign_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "diagonal_scan", negated("diagonal_scan"))
    report = verify.run(["S5"], ["numpy"], length=64, dtypes=["float64"])
    assert not report.passed
    kinds = {(failure.check, failure.mode) for failure in report.failures}
    assert ("oracle", "scan") in kinds
    assert ("oracle", "recurrence") not in kinds
    [failure] = [f for f in report.failures if (f.check, f.mode) == ("oracle", "scan")]
    problem = checks.pose(S5(8, d_state=16), "float64", verify._input(None, 64, 8), 0)
    place = (failure.index["batch"], failure.index["time"], failure.index["channel"])
    got = problem.layer(problem.params, problem.u, mode="scan")[place]
    assert failure.found == f"got {got}"
    assert failure.expected == f"oracle {problem.y[place]}"
    for part in ("S5 numpy float64 scan", "batch", "time", "channel", str(got)):
        assert part in str(failure)
    [modes] = [f for f in report.failures if f.check == "modes"]
    assert "scan" in modes.mode


def test_not_a_number_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "causal_convolution", lambda u, kernel: u * np.nan)
    report = verify.run(["S4D"], ["numpy"], ["recurrence", "convolution"], length=32)
    assert {(f.check, f.mode) for f in report.failures} == {
        ("oracle", "convolution"),
        ("modes", "recurrence, convolution"),
    }
    assert report.worst is not None
    assert math.isinf(report.worst[1].oracle.error)


def test_an_exception_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no kernel image\nsecond line")

    plant(monkeypatch, "selective_scan", broken)
    report = verify.run(["S6"], ["numpy"], ["recurrence", "scan"], ["float32"], length=32)
    [failure] = report.failures
    assert str(failure) == (
        "S6 numpy float32 scan: raised RuntimeError: no kernel image; expected a result"
    )
    assert report.checks == 1 + 1 + 1  # scan, recurrence, eigenvalues


def test_another_dtype_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stranger, "to_numpy", lambda self, x: np.asarray(x, dtype=np.float64))
    add(monkeypatch, Stranger())
    report = verify.run(["LRU"], ["stranger"], ["scan"], ["float32"], length=16)
    assert "got y float64 (2, 16, 8); expected float32" in str(report.failures[0])


def test_wrong_eigenvalues_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = S5.eigenvalues
    monkeypatch.setattr(S5, "eigenvalues", lambda self, p, u=None: honest(self, p, u).conj())
    report = verify.run(["S5"], ["numpy"], ["scan"], ["float64"], length=16)
    [failure] = report.failures
    assert failure.check == "eigenvalues"
    assert set(failure.index) == {"state"}


def test_eigenvalues_that_differ_between_backends_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = 1.5 * tolerance.eigenvalue("float64", None)  # each within 2, together beyond

    def shifted(self: Any, x: Any) -> Any:
        shift = step if np.iscomplexobj(x) else 0.0
        return np.asarray(x) + shift

    monkeypatch.setattr(Stranger, "to_numpy", shifted)
    add(monkeypatch, Stranger())
    rows = verify.run(["LRU"], ["numpy", "stranger"], ["scan"], ["float64"], length=16).cases
    assert rows[0].passed
    assert [failure.expected.split()[0] for failure in rows[1].failures] == ["oracle"]
    assert rows[1].eigenvalues_across == pytest.approx(step, rel=np.finfo(float).eps / step)


def test_wrong_gradients_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twin(type(TORCH)):  # type: ignore[misc]
        name = "twin"

        def owns(self, x: object) -> bool:
            return False

        def value_and_grad(self, fn: Any, tree: Any) -> Any:
            value, grads = super().value_and_grad(fn, tree)
            grads["parameters"]["nu_log"] = -grads["parameters"]["nu_log"]
            return value, grads

    add(monkeypatch, Twin())
    report = verify.run(["LRU"], ["torch", "twin"], ["scan"], ["float64"], length=32)
    [failure] = report.failures
    assert (failure.check, failure.mode, failure.backend) == (
        "gradients",
        "parameters.nu_log",
        "twin",
    )
    assert failure.found.startswith("got ")
    assert failure.expected.startswith("torch ")


# ----------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": ["S9"]}, "did you mean"),
        ({"models": []}, "no model given"),
        ({"backends": ["numpyy"]}, "did you mean 'numpy'"),
        ({"backends": []}, "no backend given"),
        ({"modes": ["scna"]}, "did you mean 'scan'"),
        ({"dtypes": ["float16"]}, "expected one of 'float32', 'float64'"),
        ({"models": ["S6"], "modes": ["convolution"]}, "S6 cannot run as a convolution"),
        ({"length": 0}, "length is 0; expected 1 to 8192"),
        ({"length": 9000}, "length is 9000; expected 1 to 8192"),
        ({"series": np.ones(30)}, "the input is constant"),
        ({"series": np.zeros((0, 1))}, "not empty"),
        ({"series": np.float64(3)}, "as_channels"),
        ({"series": np.asarray([1.0, np.nan])}, "not finite"),
        ({"models": ["S4"], "d_state": 7}, "d_state is 7"),
        ({"seed": -1}, "seed is -1"),
        ({"d_model": 0}, "d_model is 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SSMError, match=message):
        verify.run(**{"backends": ["numpy"], **arguments})


def test_models_without_the_mode_are_noted() -> None:
    report = verify.run(["LRU", "S6"], ["numpy"], ["convolution"], ["float64"], length=16)
    assert [case.model for case in report.cases] == ["LRU"]
    assert any(note.startswith("S6: left out") for note in report.notes)


def test_a_backend_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: Any) -> list[str]:
        raise RuntimeError("no CUDA-capable device is detected")

    monkeypatch.setattr(Stranger, "devices", none)
    add(monkeypatch, Stranger())
    monkeypatch.setattr(backend, "available", lambda: ["stranger", "numpy"])
    chosen, notes = verify.choose_backends(None)
    assert chosen == ["numpy"]
    assert "stranger: installed but left out" in notes[0]
    assert "no CUDA-capable device is detected" in notes[0]
    with pytest.raises(SSMError, match="'stranger' is installed but cannot be used here"):
        verify.choose_backends(["stranger"])


def test_float64_where_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stranger, "has_float64", lambda self: False)
    add(monkeypatch, Stranger())
    with pytest.raises(SSMError, match="float64 asked of backend 'stranger'"):
        verify.run(["LRU"], ["stranger"], length=16)


# ---------------------------------------------------------------------- tolerances and the file


def test_memory_of_unstable_or_spoilt_eigenvalues_is_the_length() -> None:
    for largest in (1.0, 1.5, np.nan):
        assert tolerance.memory(np.asarray([0.5, largest]), 100) == 100.0
    assert tolerance.memory(np.asarray([0.5j]), 100) == 2.0


def test_tolerances_follow_their_formulas() -> None:
    eps = float(np.finfo("float32").eps)
    assert tolerance.oracle("float32", 36.0) == 100 * eps
    assert tolerance.eigenvalue("float32", None) == 64 * eps
    eps = float(np.finfo("float64").eps)
    assert tolerance.eigenvalue("float32", 10.0) == 160 * eps
    assert tolerance.gradient(36.0, 100) == 1000 * eps
    V = np.asarray([[1.0, 1.0], [0.0, 1e-3]])
    A = V @ np.diag([0.5, 0.7]) @ np.linalg.inv(V)
    unit = V / np.linalg.norm(V, axis=0)
    expected = np.linalg.cond(unit)
    # eigenvectors are exact to eps cond, so their condition number to a relative eps cond too
    assert abs(tolerance.condition(A[None]) / expected - 1) < 8 * eps * expected


def test_spectra_are_compared_without_order() -> None:
    found, expected = np.asarray([[1.0, 2.0, 5.0]]), np.asarray([[5.5, 2.0, 1.0]])
    worst = checks.nearest(found, expected)
    assert (worst.error, worst.found, worst.expected) == (0.5, 5.0, 5.5)
    missing = checks.nearest(np.asarray([[1.0, 1.0]]), np.asarray([[1.0, 4.0]]))
    assert missing.error == 3.0  # nothing found near 4


def test_json_holds_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "diagonal_scan", lambda *a, **k: (np.nan * a[3], None))
    report = verify.run(["S5"], ["numpy"], ["recurrence", "scan"], length=16)
    path = tmp_path / "report.json"
    report.write_json(path)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["passed"] is False
    assert found["failed"] == len(found["failures"]) == len(report.failures)
    assert found["cases"][0]["modes"][1]["oracle"]["error"] == "inf"
    assert set(found["environment"]["backends"]) == {"numpy"}
    assert found["environment"]["backends"]["numpy"]["version"] == np.__version__
    assert found["settings"]["length"] == 16
    assert found["failures"][0]["message"] == str(report.failures[0])
    assert set(found["tolerances"]) == {"oracle", "between_modes", "eigenvalues", "gradients"}
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_broken_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    path.write_text("old", encoding="utf-8")

    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(SSMError, match=r"cannot write a file there \(disk full\)"):
        write_json(path, {"a": 1})
    assert path.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_no_file_where_none_can_be(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent" / "report.json"):
        with pytest.raises(SSMError, match="cannot write a file there"):
            write_json(path, {})

"""JAX's linear_scan in CUDA C: what XLA is asked to launch, and the kernels run on the CPU.

XLA's PTX custom call itself needs a GPU; before it is used there it is tried (``finding``).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from checks.cuda_compiler import MISSING
from checks.cushim import host
from ssmcore_conformance import oracles
from ssmcore_conformance.tolerances import bound, steps
from ssmcore_cuda import linear, nvrtc

import ssmcore as ssm
from ssmcore import backend, doctor

jax = pytest.importorskip("jax", reason="jax is not installed")
if not hasattr(jax, "enable_x64"):
    pytest.skip("this JAX has no jax.enable_x64", allow_module_level=True)
cuda: Any = pytest.importorskip("ssmcore_jax._cuda")
scans: Any = pytest.importorskip("ssmcore_jax._scan")

on_host = pytest.mark.skipif(host.missing() is not None, reason=str(host.missing()))
with_nvrtc = pytest.mark.skipif(nvrtc.find() is None, reason=MISSING)
LONG = 2 * linear.SHORTEST + 70
"""Steps that are cut into two segments."""


@pytest.fixture
def x64() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch, x64: None) -> list[str]:
    """Run kernels on the CPU instead of handing them to XLA; returns the names of what ran."""
    names: list[str] = []

    def launch(name: str, chosen: linear.Launch, given: Any, shapes: Any) -> Any:
        def run(*inputs: Any) -> list[Any]:
            names.append(name)
            outputs = [np.empty(*kind) for kind in shapes]
            arguments = [*map(np.asarray, inputs), *outputs]
            host.HostLaunch(7)(chosen.source, name, chosen.blocks, chosen.threads, arguments)
            return outputs

        return jax.pure_callback(run, [jax.ShapeDtypeStruct(*kind) for kind in shapes], *given)

    monkeypatch.setattr(cuda, "_launch", launch)
    return names


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take the kernels for tried and found right, on a device of compute capability 9.0."""
    monkeypatch.setattr(cuda, "finding", lambda: cuda.Finding(True, ""))
    monkeypatch.setattr(cuda, "_capability", lambda: 90)
    jax.clear_caches()
    yield
    jax.clear_caches()


def numbers(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Any:
    parts = np.random.default_rng(seed).uniform(-0.65, 0.65, (2, *shape))
    return (parts[0] + 1j * parts[1] if "complex" in dtype else parts[0]).astype(dtype)


# ---- the kernels, run on the CPU ---------------------------------------------------------------


CASES = {
    # shape of a, of b, of what is kept, dtype
    "each step": ((2, 3, 40, 11), (2, 3, 40, 11), (2, 3, 40, 1), "float32"),
    "rows alike": ((1, 40, 11), (3, 40, 11), (1, 40, 1), "float64"),
    "constant": ((1, 11), (40, 11), None, "complex64"),
    "one step": ((3, 1, 5), (3, 1, 5), (3, 1, 1), "float32"),
    "segments": ((2, LONG, 3), (2, LONG, 3), (2, LONG, 1), "float32"),
    "segments, constant": ((1, 1, 3), (2, LONG, 3), None, "complex64"),
}


@on_host
@pytest.mark.parametrize(
    ("case", "after"),
    [
        ("each step", False),
        ("each step", True),
        ("rows alike", False),
        ("constant", True),
        ("one step", True),
        ("segments", True),
        ("segments, constant", False),
    ],
)
def test_value(after: bool, case: str, launched: list[str]) -> None:
    """Both ways against a loop, which takes what comes after a step at the next one."""
    own, size, kept, dtype = CASES[case]
    a, b, start = (numbers(n, dtype) for n in (own, size, (*size[:-2], 1, size[-1])))
    keep = () if kept is None else (np.random.default_rng(3).random(kept) < 0.95,)
    whole = np.broadcast_to(a, size)
    reset = ~np.broadcast_to(keep[0], (*size[:-1], 1)) if keep else np.zeros((*size[:-1], 1), bool)
    for reverse in (False, True):
        back = -1 if reverse else 1
        ordered, cut = whole[..., ::back, :], reset[..., ::back, :]
        if after:
            ordered = np.concatenate((np.ones_like(start), ordered[..., :-1, :]), axis=-2)
            cut = np.concatenate((np.zeros_like(cut[..., :1, :]), cut[..., :-1, :]), axis=-2)
        given = ordered, b[..., ::back, :], start[..., 0, :]
        options: dict[str, Any] = {"reset": cut[..., 0]}
        h = oracles.linear_scan(*given, **options)[..., ::back, :]
        growth = oracles.linear_scan(*given, **options, modulus=True)[..., ::back, :]
        end = slice(None, 1) if reverse else slice(-1, None)
        last, grown = h[..., end, :], growth[..., end, :]
        if after:
            factor = np.where(reset, 0, whole)[..., end, :]
            last, grown = factor * last, np.abs(factor) * grown
        run = jax.jit(functools.partial(cuda.scan, reverse=reverse, after=after))
        for x, y, limit in zip(run(a, b, start, *keep), (h, last), (growth, grown), strict=True):
            assert (x.shape, x.dtype) == (y.shape, b.dtype)
            assert np.all(np.abs(x - y) <= bound(dtype, steps(size[-2]), limit))
    once = ["linear_reduce", "linear_scan", "linear_scan"]
    assert launched == (once if size[-2] == LONG else once[2:]) * 2


# ---- what XLA gets -----------------------------------------------------------------------------


def program(fn: Callable[..., Any], *given: Any, platform: str = "cuda") -> str:
    text: str = jax.jit(fn).trace(*given).lower(lowering_platforms=(platform,)).as_text()
    return text


@with_nvrtc
def test_the_call_in_a_program(used: None) -> None:
    """PTX of the kernel, the grid, and arrays in the kernel's order: inputs, sizes, outputs."""
    a, b = numbers((33,), "float32"), numbers((2, 40, 33), "float32")
    text = program(ssm.linear_scan, a, b)
    (call,) = re.findall(r"custom_call @__gpu\$xla\.gpu\.ptx\(.*", text)
    for name, number in (("grid_x", 3), ("grid_y", 1), ("block_x", 256), ("shared_mem_bytes", 0)):
        assert f"{name} = {number} : i32" in call
    assert 'name = "linear_scan"' in call
    assert 'kernel_type = "ptx"' in call
    assert "output_indices = [6" in call
    assert ".target sm_90" in call
    declared = call.partition(".entry linear_scan(")[2].partition(")")[0]
    assert declared.count(".param .u64") == declared.count(".param") == 7
    operands = call.rpartition(" : ")[2]
    assert operands == (
        "(tensor<1x1x33xf32>, tensor<2x40x33xf32>, tensor<1x1xi1>, tensor<2x33xf32>, "
        "tensor<1x1x1xf64>, tensor<8xi32>) -> tensor<2x40x33xf32>"
    )
    assert "dense<[2, 40, 33, 1, 40, 1, 1, 0]> : tensor<8xi32>" in text


@with_nvrtc
def test_a_program_for_long_sequences_and_its_gradient(used: None) -> None:
    """Three launches each way: what segments do, the states between them, all states."""
    b = numbers((LONG, 3), "float32")
    text = program(jax.grad(lambda a, b: ssm.linear_scan(a, b).sum()), b, b)
    assert (
        re.findall(r'name = "(linear_\w+)"', text)
        == [
            "linear_reduce",
            "linear_scan",
            "linear_scan",
        ]
        * 2
    )
    assert len(set(re.findall(r"kernel_data = \"[^\"]*\"", text))) == 3  # one for both maps


def test_programs_without_it(used: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For other platforms, several devices, export, sizes left open, and without NVRTC."""
    b = numbers((4, 40, 3), "float32")

    def run(b: Any) -> Any:
        return ssm.linear_scan(b[0, 0], b)

    assert cuda.TARGET not in program(run, b, platform="cpu")
    exported = jax.export.export(jax.jit(run), platforms=["cuda"])(b)
    assert cuda.TARGET not in exported.mlir_module()
    kinds = [jax.ShapeDtypeStruct((1, 3), "float32"), jax.ShapeDtypeStruct((40, 3), "float32")]
    module = SimpleNamespace(
        axis_context=SimpleNamespace(num_devices=1),
        lowering_parameters=SimpleNamespace(for_export=False),
    )
    assert cuda._fits(SimpleNamespace(module_context=module, avals_in=kinds))
    module.axis_context.num_devices = 2
    assert not cuda._fits(SimpleNamespace(module_context=module, avals_in=kinds))
    monkeypatch.setattr(nvrtc, "find", lambda: None)
    nvrtc.ptx.cache_clear()
    assert cuda.TARGET not in program(run, b)


# ---- whether it is used ------------------------------------------------------------------------


@pytest.fixture
def fresh_finding(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv(cuda.VARIABLE, "1")
    cuda.finding.cache_clear()
    yield cuda.finding
    cuda.finding.cache_clear()


def test_it_is_used_only_where_it_is_asked_for(
    fresh_finding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(cuda.VARIABLE)
    assert fresh_finding() == (False, "SSMCORE_JAX_PTX=1 tries kernels in CUDA C")
    fresh_finding.cache_clear()
    monkeypatch.setenv(cuda.VARIABLE, "yes")
    with pytest.raises(ssm.SSMError, match="SSMCORE_JAX_PTX"):
        fresh_finding()


def test_without_a_device(fresh_finding: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "devices", list)
    assert fresh_finding() == (False, "there is no CUDA device")


@on_host
def test_what_is_executed_decides(
    fresh_finding: Any, launched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right numbers: used. Wrong numbers, or anything that is raised: not, with the reason."""
    monkeypatch.setattr(cuda, "devices", lambda: jax.devices("cpu"))
    monkeypatch.setattr(linear, "SHORTEST", 40)
    assert fresh_finding() == (True, "executed and found right")
    assert launched == ["linear_reduce", "linear_scan", "linear_scan"] * 3
    run = cuda._launch

    def off(*given: Any) -> Any:
        return [x * (1 + 2.0**-18) if x.dtype != bool else x for x in run(*given)]

    monkeypatch.setattr(cuda, "_launch", off)
    fresh_finding.cache_clear()
    assert fresh_finding() == (False, "a scan that was executed to try them was wrong")

    def refused(*_: Any) -> Any:
        msg = "INTERNAL: the provided PTX was compiled with an unsupported toolchain.\nmore"
        raise RuntimeError(msg)

    monkeypatch.setattr(cuda, "_launch", refused)
    fresh_finding.cache_clear()
    assert fresh_finding() == (
        False,
        "RuntimeError: INTERNAL: the provided PTX was compiled with an unsupported toolchain.",
    )


@on_host
def test_it_is_tried_while_a_program_is_lowered(
    fresh_finding: Any, launched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once; and the rules of the primitive, gradients and batches, are as ever."""
    monkeypatch.setattr(cuda, "devices", lambda: jax.devices("cpu"))
    monkeypatch.setattr(linear, "SHORTEST", 40)
    a, b, weights = (numbers((3, 40, 11), "float64", seed) for seed in range(3))

    def loss(a: Any, b: Any) -> Any:
        h = jax.vmap(ssm.linear_scan)(a, b)
        return (weights * h).sum()

    expected = jax.jit(jax.grad(loss, (0, 1)))(a, b)
    assert launched == []
    rule, lower = scans._rules["cpu"], jax.interpreters.mlir.register_lowering
    jax.clear_caches()
    lower(scans._scan_p, cuda.lowering(rule), platform="cpu")
    try:
        found = jax.jit(jax.grad(loss, (0, 1)))(a, b)
    finally:
        lower(scans._scan_p, rule, platform="cpu")
        jax.clear_caches()
    assert launched == ["linear_reduce", "linear_scan", "linear_scan"] * 3 + ["linear_scan"] * 2
    for x, y in zip(found, expected, strict=True):
        assert np.all(np.abs(x - y) <= bound("float64", steps(40), np.abs(y).max()))


def test_doctor_says_which_and_why(fresh_finding: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    jax_backend = backend.load("jax")
    monkeypatch.setattr(cuda, "devices", list)
    assert jax_backend.remarks() == []
    monkeypatch.setattr(cuda, "devices", lambda: jax.devices("cpu"))
    monkeypatch.setattr(cuda, "_problem", lambda: "wrong")
    (remark,) = jax_backend.remarks()
    assert remark == "linear_scan on CUDA runs as loops of XLA: wrong"
    fresh_finding.cache_clear()
    monkeypatch.setattr(cuda, "_problem", lambda: None)
    (remark,) = jax_backend.remarks()
    assert remark == "linear_scan on CUDA runs as kernels in CUDA C: executed and found right"
    numpy_backend = backend.load("numpy")
    monkeypatch.setattr(numpy_backend, "remarks", jax_backend.remarks)
    assert doctor.run(["numpy"]).notes == [f"numpy: {remark}"]

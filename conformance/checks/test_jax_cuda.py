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
kernels: Any = pytest.importorskip("ssmcore_jax._cuda_selective")
scans: Any = pytest.importorskip("ssmcore_jax._scan")

on_host = pytest.mark.skipif(host.missing() is not None, reason=str(host.missing()))
PTX = nvrtc.ptx
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

    monkeypatch.setattr(cuda, "launch", launch)
    return names


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take the kernels for tried and found right, on a device of compute capability 9.0.

    Without NVRTC the text of the kernels stands for their PTX.
    """
    if nvrtc.find() is None:
        monkeypatch.setattr(nvrtc, "ptx", lambda source, capability: source.text)
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


def selective(L: int, dtype: str) -> list[Any]:
    """u, delta, A, B, C, D, for two rows of five channels with three states."""
    shapes = ((2, L, 5), (2, L, 5), (5, 3), (2, L, 3), (2, L, 3), (5,))
    u, delta, A, B, C, D = (numbers(n, dtype, seed) for seed, n in enumerate(shapes))
    return [u, np.abs(delta) / 4, -np.exp(A), B, C, D]


@on_host
@pytest.mark.parametrize(("L", "dtype"), [(40, "float32"), (600, "float64")])
def test_selective_scan(L: int, dtype: str, launched: list[str], used: None) -> None:
    """Outputs and last states against a loop; in segments where the sequence is long."""
    given = selective(L, dtype)
    initial, reset = numbers((2, 5, 3), dtype, 9), np.arange(2 * L).reshape(2, L) % 37 == 5
    u, delta, A, B, C, D = given
    y, last = jax.jit(kernels.scan)(u, delta, A, B, C, initial, *([reset] if L > 40 else []))
    options: dict[str, Any] = {"initial": initial, "reset": reset if L > 40 else None}
    expected = oracles.selective_scan(*given, **options)
    growth = oracles.selective_scan(*given, **options, modulus=True)
    for x, exact, size in zip((y + D * u, last), expected, growth, strict=True):
        assert (x.shape, x.dtype) == (exact.shape, u.dtype)
        assert np.all(np.abs(x - exact) <= bound(dtype, 2 * steps(L, 3), size))
    segments = ["selective_scan", "linear_scan"] if L > 40 else []
    assert launched == [*segments, "selective_scan"]


def test_derivatives_and_batches_of_selective_scan(
    used: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The primitive that has a kernel is to jit, grad and vmap what the chunks are."""
    given = [jax.numpy.asarray(x) for x in selective(12, "float32")]
    reset = jax.numpy.arange(12) == 5

    def run(*given: Any) -> Any:
        return ssm.selective_scan(*given, reset=reset)

    def loss(*given: Any) -> Any:
        return (run(*given) ** 2).sum()

    def apart(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any) -> Any:
        return jax.vmap(run, in_axes=(1, 0, None, 0, 0, None))(u.swapaxes(0, 1), delta, A, B, C, D)

    def many(u: Any, delta: Any, A: Any, *rest: Any) -> Any:
        return jax.vmap(lambda A: run(u, delta, A, *rest))(jax.numpy.stack((A, 2 * A)))

    each = jax.vmap(jax.grad(loss), (0, 0, None, 0, 0, None))
    calls = (apart, many, each)
    found = [jax.jit(f)(*given) for f in calls]
    assert "ssmcore_selective_scan" in str(jax.make_jaxpr(apart)(*given))
    assert "ssmcore_selective_scan" not in str(jax.make_jaxpr(jax.grad(loss))(*given))
    monkeypatch.setattr(cuda, "finding", lambda: cuda.Finding(False, ""))
    jax.clear_caches()
    assert "ssmcore_selective_scan" not in str(jax.make_jaxpr(run)(*given))
    expected = [jax.jit(f)(*given) for f in calls]
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert x.shape == y.shape
        assert np.all(np.abs(x - y) <= 2.0**-23 * 12 * 5 * np.abs(y).max())


# ---- what XLA gets -----------------------------------------------------------------------------


def program(fn: Callable[..., Any], *given: Any, platform: str = "cuda") -> str:
    text: str = jax.jit(fn).trace(*given).lower(lowering_platforms=(platform,)).as_text()
    return text


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
    if nvrtc.find() is not None:
        declared = call.partition(".entry linear_scan(")[2].partition(")")[0]
        assert declared.count(".param .u64") == declared.count(".param") == 7
        assert ".target sm_90" in call
    operands = call.rpartition(" : ")[2]
    assert operands == (
        "(tensor<1x1x33xf32>, tensor<2x40x33xf32>, tensor<1x1xi1>, tensor<2x33xf32>, "
        "tensor<1x1x1xf64>, tensor<8xi32>) -> tensor<2x40x33xf32>"
    )
    assert "dense<[2, 40, 33, 1, 40, 1, 1, 0]> : tensor<8xi32>" in text


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


def test_a_program_with_selective_scan(used: None) -> None:
    """One launch for a step as for a sequence; none for the gradient, whose scans are linear."""
    for L in (1, 40):
        given = [jax.numpy.asarray(x) for x in selective(L, "float32")]
        text = program(ssm.selective_scan, *given)
        assert re.findall(r'name = "(\w+_scan)"', text) == ["selective_scan"]
        assert f"dense<[{L}, 5, 1, {max(8, L) if L > 1 else 1}]> : tensor<4xi32>" in text
        assert cuda.TARGET not in program(ssm.selective_scan, *given, platform="cpu")
    text = program(jax.grad(lambda *x: ssm.selective_scan(*x).sum()), *given)
    assert set(re.findall(r'name = "(\w+_scan)"', text)) == {"linear_scan"}


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
    monkeypatch.setattr(nvrtc, "ptx", PTX)
    PTX.cache_clear()
    assert cuda.TARGET not in program(run, b)


# ---- whether it is used ------------------------------------------------------------------------


TRIED = ["linear_reduce", "linear_scan", "linear_scan"] * 3
TRIED += ["selective_scan", "linear_scan", "selective_scan"]


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
    assert launched == TRIED
    run = cuda.launch

    def off(*given: Any) -> Any:
        return [x * (1 + 2.0**-18) if x.dtype != bool else x for x in run(*given)]

    monkeypatch.setattr(cuda, "launch", off)
    fresh_finding.cache_clear()
    assert fresh_finding() == (False, "a scan that was executed to try them was wrong")

    def refused(*_: Any) -> Any:
        msg = "INTERNAL: the provided PTX was compiled with an unsupported toolchain.\nmore"
        raise RuntimeError(msg)

    monkeypatch.setattr(cuda, "launch", refused)
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
    lower(scans._scan_p, cuda.lowering(rule, cuda.scan), platform="cpu")
    try:
        found = jax.jit(jax.grad(loss, (0, 1)))(a, b)
    finally:
        lower(scans._scan_p, rule, platform="cpu")
        jax.clear_caches()
    assert launched == TRIED + ["linear_scan"] * 2
    for x, y in zip(found, expected, strict=True):
        assert np.all(np.abs(x - y) <= bound("float64", steps(40), np.abs(y).max()))


def test_doctor_says_which_and_why(fresh_finding: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    jax_backend = backend.load("jax")
    monkeypatch.setattr(cuda, "devices", list)
    assert jax_backend.remarks() == []
    monkeypatch.setattr(cuda, "devices", lambda: jax.devices("cpu"))
    monkeypatch.setattr(cuda, "_problem", lambda: "wrong")
    (remark,) = jax_backend.remarks()
    assert remark == "scans on CUDA run as loops of XLA: wrong"
    fresh_finding.cache_clear()
    monkeypatch.setattr(cuda, "_problem", lambda: None)
    (remark,) = jax_backend.remarks()
    assert remark == "scans on CUDA run as kernels in CUDA C: executed and found right"
    numpy_backend = backend.load("numpy")
    monkeypatch.setattr(numpy_backend, "remarks", jax_backend.remarks)
    assert doctor.run(["numpy"]).notes == [f"numpy: {remark}"]

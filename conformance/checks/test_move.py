"""move: every pair of libraries, dtypes, devices; a copy that shares nothing with its source."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from checks import fresh
from checks.small_layers import numbers

import ssmcore as ssm
from ssmcore import arrays, backend

LIBRARIES = ("numpy", "torch", "jax", "array_api_strict")
PAIRS = list(itertools.product(LIBRARIES, LIBRARIES))


def _values(dtype: str = "float32") -> dict[str, Any]:
    return {"D": numbers(dtype, (3,)), "gate": {"w": numbers(dtype, (2, 3), 1)}}


@pytest.fixture(autouse=True, scope="module")
def _float64() -> Iterator[None]:
    """Have JAX's 64-bit types on, and leave them as they were."""
    if not backend.installed("jax"):
        yield
        return
    jax = importlib.import_module("jax")
    before = jax.config.read("jax_enable_x64")
    backend.load("jax").enable_float64()
    yield
    jax.config.update("jax_enable_x64", before)


def _at(name: str, dtype: str = "float32") -> Any:
    pytest.importorskip(backend._entry(name).library, reason=f"{name} is not installed")
    return ssm.move(_values(dtype), backend=name)


def _same(left: Any, right: Any) -> bool:
    both = zip(arrays.leaves(ssm.to_numpy(left)), arrays.leaves(ssm.to_numpy(right)), strict=True)
    return all(a == b and x.dtype == y.dtype and np.array_equal(x, y) for (a, x), (b, y) in both)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_pair_keeps_names_values_and_dtypes(source: str, target: str, dtype: str) -> None:
    _at(target, dtype)
    moved = ssm.move(_at(source, dtype), backend=target)
    assert _same(moved, _values(dtype))
    assert {backend.of(x).name for _, x in arrays.leaves(moved)} == {target}


def _overwrite(x: Any) -> bool:
    """Write into ``x``; return whether its library can."""
    try:
        x[...] = -1.0
    except TypeError:
        return False
    return True


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_nothing_is_shared(source: str, target: str) -> None:
    given = _at(source)
    moved = ssm.move(given, backend=target)
    if _overwrite(given["D"]):
        assert not _same(given, _values())
    assert _same(moved, _values())
    given = _at(source)
    moved = ssm.move(given, backend=target)
    if _overwrite(moved["D"]):
        assert not _same(moved, _values())
    assert _same(given, _values())


def test_what_can_be_written_into() -> None:
    """The test above is about the three libraries whose arrays change, and NumPy into JAX."""
    assert [name for name in LIBRARIES if _overwrite(_at(name)["D"])] == [
        "numpy", "torch", "array_api_strict",
    ]  # fmt: skip


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("options", [{}, {"dtype": "float32"}])
def test_within_a_library_it_is_a_copy_too(name: str, options: dict[str, str]) -> None:
    given = _at(name)
    moved = ssm.move(given, **options)
    assert {backend.of(x).name for _, x in arrays.leaves(moved)} == {name}
    _overwrite(moved["D"])
    assert _same(given, _values())


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_dtype_rounds_once(source: str, target: str) -> None:
    _at(target)
    moved = ssm.move(_at(source, "float64"), backend=target, dtype="float32")
    rounded = arrays.tree_map(lambda x: x.astype("float32"), _values("float64"))
    assert _same(moved, rounded)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_device_is_the_one_named(source: str, target: str) -> None:
    place = arrays.device(_at(target)["D"])
    moved = ssm.move(_at(source), backend=target, device=place)
    assert _same(moved, _values())
    assert arrays.device(moved["D"]) == place


@pytest.mark.parametrize("target", LIBRARIES)
def test_read_only_and_strided_numpy(target: str) -> None:
    _at(target)
    base = numbers("float32", (4, 6))
    views = {"backwards": base[::-1, ::-2], "transposed": base.T, "fixed": base.copy()}
    views["fixed"].flags.writeable = False
    moved = ssm.move(views, backend=target)
    assert _same(moved, views)
    _overwrite(moved["fixed"])
    assert np.array_equal(views["fixed"], base)


@pytest.mark.parametrize("target", LIBRARIES)
def test_tensors_with_gradients(target: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    _at(target)
    leaf = torch.nn.Parameter(torch.ones(3))
    moved = ssm.move({"leaf": leaf, "node": 2.0 * leaf}, backend=target)
    assert _same(moved, {"leaf": np.ones(3, "float32"), "node": np.full(3, 2.0, "float32")})
    assert leaf.requires_grad


TENSORS = {
    "contiguous": lambda x: x,
    "strided": lambda x: x[::2],
    "unaligned": lambda x: x[1:],
    "transposed": lambda x: x.reshape(2, 3).T,
    "expanded": lambda x: x[:1].expand(4),
    "empty": lambda x: x[:0],
    "lazy conjugate": lambda x: (x + 1j * x).conj(),
    "lazy minus": lambda x: (x + 1j * x).conj().imag,
    "integer": lambda x: x.long(),
    "bool": lambda x: x > 0,
    "gradient": lambda x: x.requires_grad_(),
}


@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize("target", LIBRARIES)
def test_every_layout_of_a_tensor(target: str, kind: str) -> None:
    """Values, not what lies in memory: DLPack would lose the minus of a negative view."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    _at(target)
    x = TENSORS[kind](torch.arange(-1.0, 5.0))
    moved = ssm.to_numpy(ssm.move(x, backend=target))
    expected = np.asarray(x.tolist(), dtype=moved.dtype).reshape(tuple(x.shape))
    assert np.array_equal(moved, expected)
    assert moved.dtype == ssm.to_numpy(x).dtype


HALVES = [("torch", "jax"), ("jax", "torch"), ("torch", "torch"), ("jax", "jax")]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("source", "target"), HALVES)
@pytest.mark.parametrize("named", [False, True])
def test_half_precision_where_both_have_it(
    source: str, target: str, dtype: str, named: bool
) -> None:
    given, xp = _at(source), backend.load(source).xp
    x = xp.astype(given["D"], getattr(xp, dtype))
    place = arrays.device(_at(target)["D"]) if named else None
    moved = ssm.move({"x": x}, backend=target, device=place)["x"]
    assert backend.of(moved).name == target
    assert backend.dtype_name(moved) == dtype
    wide = ssm.move(x, backend="numpy", dtype="float32")
    assert np.array_equal(ssm.move(moved, backend="numpy", dtype="float32"), wide)
    assert np.max(np.abs(wide - _values()["D"])) <= 2.0**-8 * np.max(np.abs(wide))


@pytest.mark.parametrize("source", ["torch", "jax"])
@pytest.mark.parametrize("target", ["numpy", "array_api_strict"])
def test_bfloat16_where_there_is_none(source: str, target: str) -> None:
    given, xp = _at(source), backend.load(source).xp
    x = xp.astype(given["D"], xp.bfloat16)
    with pytest.raises(ssm.SSMError, match=f"'{target}' has no dtype 'bfloat16'; .*float32"):
        ssm.move(x, backend=target)
    moved = ssm.to_numpy(ssm.move(x, backend=target, dtype="float32"))
    assert np.array_equal(moved, ssm.move(x, backend="numpy", dtype="float32"))


def test_what_dlpack_raises_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way is chosen beforehand; a failure on it is no reason to take another one silently."""
    pytest.importorskip("torch", reason="torch is not installed")
    strict = importlib.import_module("array_api_strict")

    def broken(x: Any) -> Any:
        raise RuntimeError("out of order")

    monkeypatch.setattr(strict, "from_dlpack", broken)
    with pytest.raises(RuntimeError, match="out of order"):
        ssm.move(_at("torch"), backend="array_api_strict")
    # From NumPy, which is the host, no DLPack is needed.
    moved = ssm.move(_at("numpy"), backend="array_api_strict")
    assert _same(moved, _values())


def test_another_device_goes_through_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """An array that DLPack places elsewhere, or nowhere, arrives on the default device."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    strict = importlib.import_module("array_api_strict")
    monkeypatch.setattr(strict, "from_dlpack", None)
    for answer in ((2, 0), BufferError("on several devices")):

        def elsewhere(x: Any, answer: Any = answer) -> Any:
            if isinstance(answer, BufferError):
                raise answer
            return answer

        monkeypatch.setattr(torch.Tensor, "__dlpack_device__", elsewhere)
        assert _same(ssm.move(_at("torch"), backend="array_api_strict"), _values())


def test_to_numpy_leaves_numpy_and_takes_the_rest_out() -> None:
    for name in LIBRARIES:
        out = ssm.to_numpy(_at(name))
        assert type(out["gate"]["w"]) is np.ndarray
        assert _same(out, _values())


@pytest.mark.parametrize("dtype", ["float16", "int64", "flaot32", "complex64"])
def test_other_dtypes_are_refused_with_the_ones_there_are(dtype: str) -> None:
    with pytest.raises(ssm.SSMError, match=f"'{dtype}'.*'float32', 'float64'"):
        ssm.move(_values(), dtype=dtype)


TENSORS_WITHOUT_VALUES: dict[str, tuple[Any, str]] = {
    "sparse": (lambda torch: torch.eye(2).to_sparse(), r"not \(torch.sparse_coo, torch.float32\)"),
    "rows": (lambda torch: torch.eye(2).to_sparse_csr(), "expected a dense tensor"),
    "nested": (lambda torch: torch.nested.nested_tensor([torch.ones(2)]), r"not \(nested\)"),
    "meta": (lambda torch: torch.empty(2, device="meta"), "one on device 'meta'; materialise"),
}


@pytest.mark.filterwarnings("ignore:.*(nested|Sparse)")
@pytest.mark.parametrize("kind", TENSORS_WITHOUT_VALUES)
@pytest.mark.parametrize("target", ["numpy", "jax", "array_api_strict"])
def test_tensors_without_dense_values(target: str, kind: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    make, message = TENSORS_WITHOUT_VALUES[kind]
    _at(target)
    given = make(torch)
    with pytest.raises(ssm.SSMError, match=message):
        ssm.move({"D": given}, backend=target)
    with pytest.raises(ssm.SSMError, match=message):
        ssm.to_numpy(given)


def test_what_is_no_array_is_refused() -> None:
    with pytest.raises(ssm.SSMError, match=r"builtins\.list"):
        ssm.move({"D": [1.0]}, backend="numpy")


OFF = """
import numpy as np, ssmcore as ssm
for call in (
    lambda: ssm.move({"D": np.ones(2)}, backend="jax"),
    lambda: ssm.move({"D": np.ones(2, "float32")}, backend="jax", dtype="float64"),
    lambda: ssm.move({"D": np.ones(2, complex)}, backend="jax"),
    lambda: ssm.move(np.array([2**40 + 5]), backend="jax", dtype="float64"),
    lambda: ssm.LRU(d_model=2).init(0, backend="jax", dtype="float64"),
):
    try:
        print(call())
    except ssm.SSMError as error:
        print("jax_enable_x64" in str(error) and 'dtype="float32"' in str(error))
print(ssm.move({"D": np.ones(2)}, backend="jax", dtype="float32")["D"].dtype)
for name in ("int64", "uint64", "int32"):
    try:
        print(ssm.move(np.array([2**40 + 5]).astype(name), backend="jax").dtype)
    except ssm.SSMError as error:
        print("jax_enable_x64" in str(error) and "convert it to 32 bit first" in str(error))
"""


def test_float64_while_jax_has_it_off_is_an_error_not_a_rounding() -> None:
    pytest.importorskip("jax", reason="jax is not installed")
    found = fresh.output(OFF, JAX_ENABLE_X64="0").splitlines()
    assert found == ["True"] * 5 + ["float32", "True", "True", "int32"]


def test_float64_once_jax_has_it_on() -> None:
    pytest.importorskip("jax", reason="jax is not installed")
    code = """
import numpy as np, ssmcore as ssm
from ssmcore import backend
backend.load("jax").enable_float64()
print(ssm.move(np.ones(2), backend="jax").dtype)
"""
    assert fresh.output(code) == "float64"

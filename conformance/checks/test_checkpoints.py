"""Checkpoint files, and what the readers refuse."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ssmcore import checkpoints
from ssmcore.checkpoints.files import FORMAT, VERSION
from ssmcore.errors import SSMError

CONFIG = {"model": "S6", "d_model": 3, "nested": {"list": [1, 2.5, None, True]}}


def params() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "D": rng.standard_normal(3).astype(np.float32),
        "dt_proj": {"weight": rng.standard_normal((3, 2)), "bias": np.float64(2.5)},
        "deep": {"er": {"half": np.ones(2, np.float16), "count": np.arange(4)}},
    }


def assert_same(found: Any, expected: Any) -> None:
    assert isinstance(found, dict) == isinstance(expected, dict)
    if isinstance(expected, dict):
        assert list(found) == list(expected) or set(found) == set(expected)
        for key in expected:
            assert_same(found[key], expected[key])
        return
    assert found.dtype == np.asarray(expected).dtype
    assert found.shape == np.shape(expected)
    np.testing.assert_array_equal(found, expected)


# -------------------------------------------------------------------------------- own format


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "layer.safetensors"
    checkpoints.save(file, CONFIG, params())
    config, found = checkpoints.load(str(file))
    assert config == CONFIG
    assert_same(found, params())
    assert sorted(os.listdir(tmp_path)) == ["layer.safetensors"]


@pytest.mark.parametrize("order", ["transposed", "strided", "reversed"])
def test_layout_in_memory_makes_no_difference(tmp_path: Path, order: str) -> None:
    x = np.arange(24.0).reshape(4, 6)
    view = {"transposed": x.T, "strided": x[::2, ::3], "reversed": x[::-1]}[order]
    checkpoints.save(tmp_path / "x", {}, {"x": view})
    np.testing.assert_array_equal(checkpoints.load(tmp_path / "x")[1]["x"], view)


def test_inputs_are_left_as_they_are(tmp_path: Path) -> None:
    given, config = params(), dict(CONFIG)
    given["D"].flags.writeable = False
    checkpoints.save(tmp_path / "x", config, given)
    assert config == CONFIG
    assert_same(given, params())


def test_arrays_of_other_libraries(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    jnp = pytest.importorskip("jax.numpy", reason="JAX is not installed")
    weight = torch.ones((2, 3), dtype=torch.float32, requires_grad=True)
    checkpoints.save(tmp_path / "x", {}, {"t": weight, "j": jnp.zeros(4, dtype="float32")})
    found = checkpoints.load(tmp_path / "x")[1]
    assert_same(found, {"t": np.ones((2, 3), np.float32), "j": np.zeros(4, np.float32)})
    assert weight.requires_grad
    with pytest.raises(SSMError, match="cannot be turned into a NumPy array"):
        checkpoints.save(tmp_path / "x", {}, {"t": torch.ones(2, dtype=torch.bfloat16)})


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "layer.safetensors"
    checkpoints.save(file, CONFIG, params())
    before = file.read_bytes()

    def fail(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(SSMError, match="No space left"):
        checkpoints.save(file, CONFIG, {"D": np.zeros(1)})
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == [file.name]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"x": np.zeros(2)}, "not JSON"),
        ({"x": float("nan")}, "not JSON"),
        ({"x": (1, 2)}, "does not survive"),
        ({"x": {1: 2}}, "does not survive"),
    ],
)
def test_config_that_json_does_not_hold(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(SSMError, match=message):
        checkpoints.save(tmp_path / "x", config, params())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "empty mapping"),
        ({"a": {}}, r"params\['a'\] is an empty mapping"),
        ({"a.b": np.zeros(1)}, "without dots"),
        ({"": np.zeros(1)}, "non-empty string"),
        ({3: np.zeros(1)}, "non-empty string"),
        ({"a": np.zeros(1, complex)}, "complex128; expected real numbers"),
        ({"a": "text"}, "expected real numbers"),
        ({"a": [[1.0], [1.0, 2.0]]}, "cannot be turned into"),
    ],
)
def test_parameters_that_cannot_be_stored(tmp_path: Path, bad: Any, message: str) -> None:
    with pytest.raises(SSMError, match=message):
        checkpoints.save(tmp_path / "x", {}, bad)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", [None, 3, ["x"], b"x", np.ones(2)])
def test_what_is_no_path(path: Any) -> None:
    message = f"path is {type(path).__name__} .*; expected a path"
    with pytest.raises(SSMError, match=f"load: {message}"):
        checkpoints.load(path)
    with pytest.raises(SSMError, match=f"save: {message}"):
        checkpoints.save(path, CONFIG, params())


@pytest.mark.parametrize("bad", [None, 3, [1.0], "text", np.ones(2)])
def test_what_is_no_mapping(tmp_path: Path, bad: Any) -> None:
    message = f"is {type(bad).__name__} .*; expected a mapping"
    calls: list[Callable[[], Any]] = [
        lambda: checkpoints.save(tmp_path / "x", bad, params()),
        lambda: checkpoints.save(tmp_path / "x", CONFIG, bad),
        lambda: checkpoints.flatten(bad),
        lambda: checkpoints.unflatten(bad),
        *(functools.partial(read, bad) for read, _ in readers().values()),
    ]
    for call in calls:
        with pytest.raises(SSMError, match=message):
            call()
    assert os.listdir(tmp_path) == []
    with pytest.raises(SSMError, match="flat has key 3; expected dotted names"):
        checkpoints.unflatten({3: 1})  # type: ignore[dict-item]


def test_no_folder_to_write_to(tmp_path: Path) -> None:
    with pytest.raises(SSMError, match=r"cannot write .*No such file"):
        checkpoints.save(tmp_path / "nowhere" / "x", {}, params())


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(SSMError, match=r"no file .*ssmcore\.checkpoints\.save"):
            checkpoints.load(path)


def test_file_truncated_anywhere(tmp_path: Path) -> None:
    file = tmp_path / "x"
    checkpoints.save(file, CONFIG, params())
    content = file.read_bytes()
    for size in range(len(content)):
        file.write_bytes(content[:size])
        with pytest.raises(SSMError, match=rf"truncated or not .*{size} bytes"):
            checkpoints.load(file)


def test_not_safetensors(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    np.savez(file, D=np.zeros(300))
    with pytest.raises(SSMError, match=r"x\.npz.*not a safetensors file"):
        checkpoints.load(file)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"ssmcore": "no json"},
        {"ssmcore": "[]"},
        {"ssmcore": json.dumps({"format": "other", "version": 1, "config": {}})},
        {"ssmcore": json.dumps({"format": FORMAT, "version": 1})},
    ],
)
def test_safetensors_of_another_program(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"D": np.zeros(2)}, tmp_path / "x", metadata=metadata)
    with pytest.raises(SSMError, match=r"without ssmcore metadata .*readers"):
        checkpoints.load(tmp_path / "x")


def test_another_program_s_bfloat16(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch_files = pytest.importorskip("safetensors.torch", reason="PyTorch is not installed")
    torch_files.save_file({"D": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "x")
    with pytest.raises(SSMError, match="without ssmcore metadata"):
        checkpoints.load(tmp_path / "x")


def test_a_later_version(tmp_path: Path) -> None:
    header = {"format": FORMAT, "version": VERSION + 1, "config": {}}
    save_file({"D": np.zeros(2)}, tmp_path / "x", metadata={"ssmcore": json.dumps(header)})
    with pytest.raises(SSMError, match=f"version {VERSION + 1}; expected {VERSION}"):
        checkpoints.load(tmp_path / "x")


def test_flatten_and_unflatten() -> None:
    flat = checkpoints.flatten(params())
    assert list(flat) == ["D", "dt_proj.weight", "dt_proj.bias", "deep.er.half", "deep.er.count"]
    assert_same(checkpoints.unflatten(flat), params())
    for clash in ({"a": 1, "a.b": 2}, {"a.b": 2, "a": 1}, {"a": 1, "a.b.c": 2}):
        with pytest.raises(SSMError, match="clashes"):
            checkpoints.unflatten(clash)


# ------------------------------------------------------------------------ refused checkpoints


def readers() -> dict[str, tuple[Any, dict[str, Any]]]:
    H, N = 4, 3
    s4 = {
        "D": np.ones((1, H)),
        "kernel.C": np.ones((1, H, N, 2)),
        "kernel.B": np.ones((1, 2, N, 2)),
        "kernel.P": np.ones((1, 2, N, 2)),
        "kernel.A_real": np.zeros((2, N)),
        "kernel.A_imag": np.ones((2, N)),
        "kernel.inv_dt": np.zeros((H, 1)),
        "kernel.l_kernel": np.array(0),
    }
    s4d = {key: s4[key][0] for key in ("D", "kernel.C")} | {
        "kernel.log_dt": np.zeros(H),
        "kernel.log_A_real": np.zeros((H, N)),
        "kernel.A_imag": np.ones((H, N)),
    }
    s5 = {
        "Lambda_re": -np.ones(N),
        "Lambda_im": np.ones(N),
        "B": np.ones((N, H, 2)),
        "C": np.ones((H, N, 2)),
        "D": np.ones(H),
        "log_step": np.zeros((N, 1)),
    }
    mamba = {
        "A_log": np.zeros((H, N)),
        "D": np.ones(H),
        "x_proj.weight": np.ones((2 + 2 * N, H)),
        "dt_proj.weight": np.ones((H, 2)),
        "dt_proj.bias": np.zeros(H),
    }
    gates = {f"{gate}.w": np.ones((2, 2, 2)) for gate in ("input_gate", "a_gate")}
    gates |= {f"{gate}.b": np.ones((2, 2)) for gate in ("input_gate", "a_gate")}
    return {
        "s4": (checkpoints.read_s4, s4),
        "s4d_standalone": (checkpoints.read_s4d_standalone, s4d),
        "s5": (checkpoints.read_s5, s5),
        "mamba": (checkpoints.read_mamba_mixer, mamba),
        "rglru": (checkpoints.read_rglru, {"a_param": np.ones(H)} | gates),
    }


NAMES = [(kind, name) for kind, (_, found) in readers().items() for name in found]


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_missing_misnamed_and_misshapen_arrays(kind: str, name: str) -> None:
    read, found = readers()[kind]
    array = found.pop(name)
    if name != "kernel.P":  # without P it is a diagonal model
        with pytest.raises(SSMError, match=rf"missing \['{name}'\]"):
            read(found)
        with pytest.raises(SSMError, match=rf"missing .*{name}.*did you mean '{name}x'"):
            read(found | {f"{name}x": array})
    with pytest.raises(SSMError, match=rf"unexpected \['{name}x'\].*did you mean '{name}'"):
        read(found | {name: array, f"{name}x": array})
    with pytest.raises(SSMError, match=r"shape|heads|rows"):
        read(found | {name: np.ones((3, 5, 7, 11, 13))})


@pytest.mark.parametrize("kind", readers())
def test_prefix(kind: str) -> None:
    read, found = readers()[kind]
    plain = read(found)
    for nested in ({"a": {"b": found}}, {f"a/b/{name}": x for name, x in found.items()}):
        for prefix in ("a.b", "a/b", "a.b."):
            again = read({"other": {"D": np.zeros(1)}} | nested, prefix=prefix)
            assert (again.model, again.options) == (plain.model, plain.options)
            assert_same(again.params, plain.params)
    with pytest.raises(SSMError, match=r"nothing is stored under prefix 'a\.c'.*did you mean"):
        read({"a": {"b": found}}, prefix="a.c")


@pytest.mark.parametrize("kind", readers())
@pytest.mark.parametrize("value", ["text", None, [[1.0], [1.0, 2.0]], np.ones(3) * 1j])
def test_values_that_are_no_real_arrays(kind: str, value: Any) -> None:
    read, found = readers()[kind]
    name = next(iter(found))
    with pytest.raises(SSMError, match=rf"{name} is {type(value).__name__} .*array of real num"):
        read(found | {name: value})
    with pytest.raises(SSMError, match="prefix is 3; expected text"):
        read(found, prefix=3)


def test_a_complex_tensor_is_refused() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    read, found = readers()["s5"]
    with pytest.raises(SSMError, match=r"D is Tensor .*; expected an array of real numbers"):
        read(found | {"D": torch.ones(4, dtype=torch.complex64)})


def test_reading_leaves_the_checkpoint_alone() -> None:
    for read, found in readers().values():
        before = {name: value.copy() for name, value in found.items()}
        for array in checkpoints.flatten(read(found).params).values():
            array += 1.0
        assert_same(found, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bandlimt": 0.5}, "unknown option 'bandlimt'.*did you mean 'bandlimit'"),
        ({"mode": "dplrr"}, "mode is 'dplrr'.*did you mean 'dplr'"),
        ({"disc": "zho"}, "did you mean 'zoh'"),
        ({"dt_transform": "softmax"}, "dt_transform"),
        ({"real_transform": "none"}, r"A_real has 0\.0 with transform 'none'; expected > 0"),
        ({"swap_channels": True}, "swap_channels"),
        ({"is_real": True}, "is_real"),
        ({"bidirectional": True}, "shape"),
        ({"mode": "diag"}, r"unexpected \['kernel.P', 'kernel.l_kernel'\]"),
        ({"bandlimit": 0.5}, "l_max"),
        ({"rate": 2.0}, "l_max"),
        ({"rate": 0.0}, "rate is 0.0"),
        ({"rate": "a"}, "rate is 'a'; expected a finite number above 0"),
        ({"bandlimit": "a"}, "bandlimit is 'a'; expected a finite number above 0"),
        ({"l_max": -4}, "l_max is -4; expected a whole number"),
    ],
)
def test_s4_options(options: dict[str, Any], message: str) -> None:
    read, found = readers()["s4"]
    with pytest.raises(SSMError, match=message):
        read(found, **options)


def test_other_options() -> None:
    read, found = readers()["s5"]
    with pytest.raises(SSMError, match="did you mean 'zoh'"):
        read(found, discretization="zho")
    for scale in (0.0, "a", None, float("nan"), [1.0]):
        with pytest.raises(SSMError, match=rf"read_s5: step_rescale is {re.escape(repr(scale))}"):
            read(found, step_rescale=scale)
    with pytest.raises(SSMError, match="shape"):
        read(found, bidirectional=True)


def test_C_that_C_tilde_has_lost() -> None:
    read, found = readers()["s4"]
    found |= {"kernel.A_real": np.full((2, 3), -800.0), "kernel.l_kernel": np.array(8)}
    found |= {"kernel.A_imag": np.zeros((2, 3)), "kernel.P": np.zeros((1, 2, 3, 2))}
    with pytest.raises(SSMError, match="cannot be recovered"):
        read(found)


@pytest.mark.parametrize("length", [-3.0, 2.5])
def test_a_kernel_length_is_a_whole_number(length: float) -> None:
    read, found = readers()["s4"]
    message = rf"kernel\.l_kernel is {length!r}; expected a whole number of at least 0"
    with pytest.raises(SSMError, match=message):
        read(found | {"kernel.l_kernel": np.array(length)})

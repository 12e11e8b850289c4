"""Bad checkpoints: one clear error that names file, tensor and expectation, before any harm."""

# mypy: disable-error-code="func-returns-value"
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks.pretrained_cases import GRIFFIN, INDEX, MAMBA, WEIGHTS, copy, edit, shard, tiny_mamba
from safetensors.numpy import load_file

import ssmcore as ssm
from ssmcore import _files, networks
from ssmcore.blocks import LocalAttention
from ssmcore.checkpoints import load_pretrained, save_pretrained

D = "backbone__layers__1__mixer__D"


def index(folder: Path, **places: Any) -> None:
    found = shard(folder)
    found |= {name.replace("__", "."): place for name, place in places.items()}
    kept = {name: place for name, place in found.items() if place is not None}
    (folder / INDEX).write_text(json.dumps({"weight_map": kept}))


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def header(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the header of a safetensors file, its data staying as they are."""
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    found = json.loads(raw[8 : 8 + length])
    change(found)
    text = json.dumps(found).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def grown(found: dict[str, Any]) -> None:
    found["backbone.layers.1.mixer.D"] |= {"shape": [2**40], "data_offsets": [0, 2**42]}


def nan() -> np.ndarray:
    x = np.zeros(64, np.float32)
    x[3] = np.nan
    return x


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda f: edit(f, **{D: None}), r"config.json.*1 tensors are missing.*1.mixer.D"),
    "extra": (
        lambda f: edit(f, backbone__layers__1__mixer__E=np.ones(2, np.float32)),
        r"safetensors': unexpected tensor backbone.layers.1.mixer.E",
    ),
    "shape": (
        lambda f: edit(f, **{D: np.ones(63, np.float32)}),
        r"safetensors': backbone.layers.1.mixer.D has shape \(63,\); expected \(64,\)",
    ),
    "integers": (lambda f: edit(f, **{D: np.ones(64, np.int8)}), "mixer.D has dtype I8; expected"),
    "nan": (lambda f: edit(f, **{D: nan()}), r"mixer.D holds nan at \(3,\); expected finite"),
    "tied": (
        lambda f: edit(f, lm_head__weight=np.ones((64, 32), np.float32)),
        "lm_head.weight differs from backbone.embeddings.weight",
    ),
    "truncated": (lambda f: cut(f / WEIGHTS, 5000), "truncated or not a safetensors"),
    "cut header": (lambda f: cut(f / WEIGHTS, 6), "truncated or not a safetensors"),
    "lfs": (
        lambda f: (f / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid 1"),
        "pointer of git-lfs",
    ),
    "huge": (lambda f: header(f / WEIGHTS, grown), "truncated or not a safetensors"),
    "json": (lambda f: (f / "config.json").write_text("{"), "config.json' is not JSON"),
    "list": (lambda f: (f / "config.json").write_text("[1]"), "expected an object"),
    "architecture": (lambda f: copy(MAMBA, f, model_type="mamba3"), "model_type is 'mamba3'"),
    "other kind": (lambda f: copy(MAMBA, f, model_type="llama"), "expected one of mamba, recu"),
    "field": (
        lambda f: copy(MAMBA, f, conv_kernal=5),
        "unknown field 'conv_kernal' .*did you mean 'conv_kernel'",
    ),
    "quantised": (lambda f: copy(MAMBA, f, quantization_config={}), "unknown field 'quantization"),
    "text": (lambda f: copy(MAMBA, f, hidden_size="32"), "hidden_size is '32'; expected a whole"),
    "negative": (lambda f: copy(MAMBA, f, state_size=-1), "state_size is -1; expected a whole"),
    "activation": (lambda f: copy(MAMBA, f, hidden_act="gelu"), "hidden_act is 'gelu'; expected"),
    "contradiction": (lambda f: copy(MAMBA, f, d_model=31), "d_model is 31; expected 32"),
    "layers": (lambda f: copy(MAMBA, f, num_hidden_layers=10**9), "there are 32 tensors"),
    "rope": (
        lambda f: copy(GRIFFIN, f, rope_parameters={"rope_type": "yarn", "factor": 2.0}),
        "rope_parameters: rope_type is 'yarn'; expected one of default",
    ),
    "pattern": (lambda f: copy(GRIFFIN, f, block_types=["mlp"]), "one of block_types is 'mlp'"),
    "width": (lambda f: copy(GRIFFIN, f, lru_width=30), "lru_width is 30; expected a multiple"),
    "pickled": (
        lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin"),
        "pytorch_model.bin' is pickled.*weights_only=True",
    ),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "has neither model.safetensors nor"),
    "no config": (lambda f: (f / "config.json").unlink(), "without ssmcore metadata"),
    "shard gone": (
        lambda f: (index(f), next(f.glob("model-*")).unlink()),
        r"model-0000\d-of-00003.safetensors' is missing",
    ),
    "shard cut": (
        lambda f: (index(f), cut(sorted(f.glob("model-*"))[1], 3000)),
        "model-00002-of-00003.safetensors' is truncated",
    ),
    "outside": (lambda f: index(f, **{D: "../x.safetensors"}), "expected a .safetensors file of"),
    "absolute": (lambda f: index(f, **{D: "/x.safetensors"}), "expected a .safetensors file of"),
    "not indexed": (lambda f: index(f, **{D: None}), r"holds backbone.layers.1.mixer.D, which"),
    "not in its shard": (
        lambda f: index(f, backbone__more="model-00001-of-00003.safetensors"),
        "lacks backbone.more",
    ),
    "index": (lambda f: (index(f), (f / INDEX).write_text("{}")), "weight_map is None"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken(case: str, tmp_path: Path) -> None:
    damage, said = BROKEN[case]
    copy(MAMBA, tmp_path)
    load_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(ssm.SSMError, match=said) as caught:
        load_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"layer": "Mamba2"}, "ssm_cfg: layer is 'Mamba2'; expected one of Mamba1"),
        ({"d_state": 4, "ngroups": 2}, "ssm_cfg: unknown field 'ngroups'"),
    ],
)
def test_mamba_ssm_of_another_kind(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    tiny_mamba(tmp_path, "mamba_ssm")
    fields = json.loads((tmp_path / "config.json").read_text()) | {"ssm_cfg": config}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ssm.SSMError, match=said):
        load_pretrained(tmp_path)


OWN: dict[str, tuple[Any, str]] = {
    "class": ({"model": "os.system"}, "model is 'os.system'; expected one of"),
    "function": ({"model": "griffin"}, "model is 'griffin'; expected one of"),
    "option": ({"model": "LRU", "d_model": 2, "d_stat": 4}, "did you mean 'd_state'"),
    "nested": ({"model": "Stack", "blocks": [{"d_model": 1}]}, r"config.blocks\[0\] is"),
    "layers": ({"model": "LanguageModel", "n_layers": 10**9}, "n_layers is 1000000000"),
    "states": ({"model": "LSSL", "d_model": 2, "d_state": 10**6}, "d_state is 1000000, and there"),
    "states inside": (
        {"model": "Stack", "blocks": [{"model": "LSSL", "d_model": 2, "d_state": 10**6}]},
        "d_state is 1000000, and there are 2 numbers",
    ),
}


@pytest.mark.parametrize("case", OWN)
def test_configuration_of_our_own(case: str, tmp_path: Path) -> None:
    config, said = OWN[case]
    file = tmp_path / "x.safetensors"
    ssm.checkpoints.save(file, config, {"D": np.ones(2)})
    with pytest.raises(ssm.SSMError, match=said) as caught:
        load_pretrained(file)
    assert str(file) in str(caught.value)


def test_deeply_nested_configuration() -> None:
    config: Any = {"model": "Linear", "d_model": 1}
    for _ in range(70):
        config = {"model": "Stack", "blocks": [config]}
    with pytest.raises(ssm.SSMError, match="nested deeper"):
        ssm.checkpoints.module_from_config(config)


def test_there_is_nothing(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "gone", "no folder"), (tmp_path, "has no config.json")):
        with pytest.raises(ssm.SSMError, match=said):
            load_pretrained(path)
    with pytest.raises(ssm.SSMError, match="expected a path"):
        load_pretrained(3)  # type: ignore[arg-type]
    with pytest.raises(ssm.SSMError, match="dtype is 'float8'"):
        load_pretrained(MAMBA, dtype="float8")


def test_device_that_is_not(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(ssm.SSMError, match="device 'cuda:9' asked of backend 'torch'"):
        load_pretrained(MAMBA, backend="torch", device="cuda:9")


# -------------------------------------------------------------------------------------- writing


def test_what_transformers_cannot_say(tmp_path: Path) -> None:
    model = networks.griffin(9, 8, 3, heads=2, window=3)  # sqrt(8) is no bfloat16 number
    with pytest.raises(ssm.SSMError, match=r"embedding.*scale is 2.828.*, not 2.828125"):
        save_pretrained(tmp_path, model, model.init(0), layout="transformers")
    with pytest.raises(ssm.SSMError, match="cannot say this model"):
        save_pretrained(tmp_path, ssm.LRU(2), ssm.LRU(2).init(0), layout="transformers")
    with pytest.raises(ssm.SSMError, match="no module of ssmcore's own"):
        save_pretrained(tmp_path, object(), {})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["ssmcore", "transformers"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"eos": 3}, "special token is 'eos'; expected one of .*eos_token_id"),
        ({"eos_token_id": "</s>"}, "eos_token_id is '</s>'; expected a whole number"),
        ({"bos_token_id": [1, 2]}, r"bos_token_id is \[1, 2\]; expected a whole number"),
        (3, "special_tokens is 3; expected a mapping"),
    ],
)
def test_special_tokens_that_could_not_be_read(
    layout: str, given: Any, said: str, tmp_path: Path
) -> None:
    model = networks.mamba(11, 8, 2)
    with pytest.raises(ssm.SSMError, match=said):
        save_pretrained(tmp_path / "x", model, model.init(0), layout=layout, special_tokens=given)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("layout", ["ssmcore", "transformers"])
@pytest.mark.parametrize(
    ("value", "dtype", "said"),
    [
        (np.nan, None, "holds nan"),
        (-np.inf, "bfloat16", "holds -inf"),
        (1e5, "float16", r"holds 100000.0 at \(2, 1\), beyond float16"),
        (3.4e38, "bfloat16", r"holds 3.39.*e.38 at \(2, 1\), beyond bfloat16"),
    ],
)
def test_what_could_not_be_read_back_leaves_the_old_one(
    layout: str, value: float, dtype: str | None, said: str, tmp_path: Path
) -> None:
    model, params = tiny_mamba(tmp_path, layout)
    before = {x.name: x.read_bytes() for x in tmp_path.iterdir()}
    params["layers"]["1"]["mixer"]["in_proj"]["weight"][2, 1] = value
    with pytest.raises(ssm.SSMError, match=said) as caught:
        save_pretrained(tmp_path, model, params, layout=layout, dtype=dtype)
    assert "1.mixer.in_proj.weight" in str(caught.value)
    assert "(2, 1)" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert {x.name: x.read_bytes() for x in tmp_path.iterdir()} == before


def test_weights_of_our_own_are_not_replaced_by_halves(tmp_path: Path) -> None:
    """Foreign weights without their configuration would be neither the old nor the new model."""
    model, params = tiny_mamba(tmp_path, "ssmcore")
    before = {x.name: x.read_bytes() for x in tmp_path.iterdir()}
    for layout in ("transformers", "mamba_ssm"):
        with pytest.raises(ssm.SSMError, match=r"of ssmcore's own.*overwrite=True"):
            save_pretrained(tmp_path, model, params, layout=layout)
        assert {x.name: x.read_bytes() for x in tmp_path.iterdir()} == before
    save_pretrained(tmp_path, model, params, layout="transformers", overwrite=True)
    assert load_pretrained(tmp_path)[0].shapes() == model.shapes()


def test_a_window_that_no_memory_holds(tmp_path: Path) -> None:
    copy(GRIFFIN, tmp_path, attention_window_size=10**12)
    with pytest.raises(ssm.SSMError, match=r"window is 1000000000000.* takes .* bytes.*expected"):
        load_pretrained(tmp_path)
    whole = LocalAttention(4, heads=1, window=2**20)
    assert whole(whole.init(0), np.ones((5, 4), "float32")).shape == (5, 4)


def test_another_model_is_not_replaced_by_halves(tmp_path: Path) -> None:
    tiny_mamba(tmp_path)
    before = {x.name: x.read_bytes() for x in tmp_path.iterdir()}
    other = networks.mamba(12, 8, 1)
    params = other.init(0)
    for layout in ("transformers", "mamba_ssm", "ssmcore"):
        with pytest.raises(ssm.SSMError, match=r"another model.*overwrite=True"):
            save_pretrained(tmp_path, other, params, layout=layout)
        assert {x.name: x.read_bytes() for x in tmp_path.iterdir()} == before
    save_pretrained(tmp_path, other, params, layout="transformers", overwrite=True)
    assert load_pretrained(tmp_path)[0].shapes()["embedding"]["weight"][0] == 12


KILLED = """
import os, signal, sys
import ssmcore
from ssmcore import _files, networks
from ssmcore.checkpoints import save_pretrained, writing

left, host = [int(sys.argv[3])], writing._host

def dying(*given):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return host(*given)

writing._host = dying
model = networks.mamba(11, 8, 2, d_state=3)
save_pretrained(sys.argv[1], model, model.init(6), layout=sys.argv[2])
"""


@pytest.mark.parametrize("layout", ["ssmcore", "transformers"])
def test_a_writer_that_is_killed_leaves_the_old_one(layout: str, tmp_path: Path) -> None:
    model, params = tiny_mamba(tmp_path, layout)
    before = {x.name: x.read_bytes() for x in tmp_path.iterdir()}

    def write(tensors: int) -> int:
        line = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), layout, str(tensors)]
        return subprocess.run(line, capture_output=True, check=False).returncode

    assert write(9) == -signal.SIGKILL
    assert len(list(tmp_path.glob(".*"))) == 1
    assert {x: (tmp_path / x).read_bytes() for x in before} == before
    again, found = load_pretrained(tmp_path)
    assert again.shapes() == model.shapes()
    np.testing.assert_array_equal(found["embedding"]["weight"], params["embedding"]["weight"])
    (tmp_path / ".model.safetensors.of_users").touch()
    assert write(10**6) == 0
    assert [x.name for x in tmp_path.glob(".*")] == [".model.safetensors.of_users"]
    assert load_file(tmp_path / WEIGHTS)
    assert (tmp_path / WEIGHTS).read_bytes() != before[WEIGHTS]


def test_a_writer_at_work_keeps_its_file(tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        file.write(b"late")
        _files.replace(tmp_path / "other", b"early")

    _files.replace_by(tmp_path / "one", fill)
    assert {x.name: x.read_bytes() for x in tmp_path.iterdir()} == {
        "one": b"late",
        "other": b"early",
    }


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: Any) -> None:
    model, params = tiny_mamba(tmp_path)
    before = {x.name: x.read_bytes() for x in tmp_path.iterdir()}

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ssm.SSMError, match=r"model.safetensors.*No space left"):
        save_pretrained(tmp_path, model, params, layout="transformers")
    assert {x.name: x.read_bytes() for x in tmp_path.iterdir()} == before

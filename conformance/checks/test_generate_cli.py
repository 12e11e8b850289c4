"""``ssmcore generate`` and ``ssmcore convert``: what they print, write and refuse."""

from __future__ import annotations

import importlib.util
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks.pretrained_cases import GRIFFIN, MAMBA, copy, dtypes, io
from typer.testing import CliRunner

from ssmcore.checkpoints import load_pretrained, special_tokens
from ssmcore.cli import app

RUNNER = CliRunner()
PROMPT = ",".join(map(str, io(MAMBA)["generate_prompt"][0]))
TEXT = [int(x) for x in io(MAMBA)["generate"][0, 8:]]


def run(*arguments: str) -> Any:
    return RUNNER.invoke(app, list(arguments))


def generated(folder: Path, *options: str) -> list[int]:
    done = run("generate", "--checkpoint", str(folder), *options)
    assert done.exit_code == 0, done.output
    return [int(x) for x in done.output.split(",")]


def refusal(*arguments: str) -> str:
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    line: str = done.stderr
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    return line


def test_tokens_and_a_saved_state(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    head = generated(MAMBA, "--tokens", PROMPT, "--max-tokens", "6", "--save-state", state)
    tail = generated(MAMBA, "--state", state, "--max-tokens", "14")
    assert head + tail == TEXT
    drawn = ("--temperature", "1.5", "--top-k", "20", "--top-p", "0.9", "--min-p", "0.01")
    one = generated(MAMBA, "--tokens", "1", *drawn, "--seed", "1")
    assert one == generated(MAMBA, "--tokens", "1", *drawn, "--seed", "1")
    assert one != generated(MAMBA, "--tokens", "1", *drawn, "--seed", "2")


def test_ends_of_the_folder(tmp_path: Path) -> None:
    copy(MAMBA, tmp_path, eos_token_id=TEXT[4])
    end = TEXT.index(TEXT[4]) + 1
    assert generated(tmp_path, "--tokens", PROMPT, "--max-tokens", "20") == TEXT[:end]
    assert generated(tmp_path, "--tokens", PROMPT, "--max-tokens", "20", "--stop", "") == TEXT
    stop = generated(tmp_path, "--tokens", PROMPT, "--stop", f"{TEXT[1]},63")
    assert stop == TEXT[:2]


def make_tokenizer(folder: Path) -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[:64]
    vocab = {letter: i for i, letter in enumerate(alphabet)}
    made = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.save(str(folder / "tokenizer.json"))
    return made


def test_text(tmp_path: Path) -> None:
    copy(MAMBA, tmp_path)
    tokenizer = make_tokenizer(tmp_path)
    done = run("generate", "--checkpoint", str(tmp_path), "--prompt", "ABBA", "--max-tokens", "9")
    assert done.exit_code == 0, done.output
    tokens = ",".join(map(str, tokenizer.encode("ABBA").ids))
    expected = generated(tmp_path, "--tokens", tokens, "--max-tokens", "9")
    assert done.output == tokenizer.decode(expected) + "\n"
    (tmp_path / "tokenizer.json").write_text("{}")
    said = refusal("generate", "--checkpoint", str(tmp_path), "--prompt", "A")
    assert "tokenizer.json' is not a tokenizer" in said


def test_text_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy(MAMBA, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "tokenizers" else find(n, *a)
    )
    said = refusal("generate", "--checkpoint", str(tmp_path), "--prompt", "A")
    assert "pip install tokenizers" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--prompt", "hello"), "has no tokenizer.json; expected one, or --tokens"),
        (("--prompt", "a", "--tokens", "1"), "expected --prompt or --tokens, one of them"),
        ((), "expected --prompt or --tokens, one of them"),
        (("--tokens", ","), "prompt 0 is empty"),
        (("--tokens", "1,x"), "--tokens is '1,x'; expected whole numbers"),
        (("--tokens", "64"), "expected tokens from 0 to 63"),
        (("--tokens", "1", "--backend", "tensorflow"), "backend is 'tensorflow'"),
        (("--tokens", "1", "--state", "no/such"), "no file 'no/such'"),
        (("--tokens", "1", "--save-state", "no/such/place"), "cannot write a file there"),
    ],
)
def test_refused(options: tuple[str, ...], said: str) -> None:
    assert said in refusal("generate", "--checkpoint", str(MAMBA), *options)


def test_no_folder_there() -> None:
    for given in (("--prompt", "a"), ("--tokens", "1")):
        said = refusal("generate", "--checkpoint", "no/such", *given)
        assert "no folder 'no/such'; expected one with config.json" in said
    file = str(MAMBA / "model.safetensors")
    assert "give the folder" in refusal("generate", "--checkpoint", file, "--tokens", "1")


def test_no_language_model_there(tmp_path: Path) -> None:
    from ssmcore import LRU
    from ssmcore.checkpoints import save_pretrained

    save_pretrained(tmp_path, LRU(2), LRU(2).init(0))
    said = refusal("generate", "--checkpoint", str(tmp_path), "--tokens", "1")
    assert "holds LRU; expected a LanguageModel" in said


def test_convert_through_all_layouts(tmp_path: Path) -> None:
    source = copy(MAMBA, tmp_path / "source", eos_token_id=63)
    (source / "tokenizer.json").write_text("{}")
    folders = [source]
    for layout in ("ssmcore", "mamba_ssm", "transformers"):
        folders.append(tmp_path / layout)
        done = run("convert", str(folders[-2]), str(folders[-1]), "--to", layout)
        assert done.exit_code == 0, done.output
        assert (folders[-1] / "tokenizer.json").read_text() == "{}"
        assert special_tokens(folders[-1]) == {"eos_token_id": 63}
    assert generated(folders[-1], "--tokens", PROMPT, "--max-tokens", "20") == TEXT
    assert (folders[-1] / "model.safetensors").stat().st_size > 100_000
    assert json.loads((folders[-1] / "config.json").read_text())["model_type"] == "mamba"


def test_convert_copies_every_file_of_a_tokenizer(tmp_path: Path) -> None:
    names = {
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "merges.txt"),
        *("added_tokens.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model"),
        *("sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json"),
    }
    source = copy(MAMBA, tmp_path / "source")
    for name in names:
        (source / name).write_text(name)
    (source / "generation_config.json").write_text('{"max_length": 9, "eos_token_id": 3}')
    target = tmp_path / "target"
    assert run("convert", str(source), str(target), "--to", "transformers").exit_code == 0
    assert {x.name for x in target.iterdir() if x.read_bytes() == x.name.encode()} == names
    said = json.loads((target / "generation_config.json").read_text())
    assert said == {"max_length": 9, "eos_token_id": 3}


def test_convert_keeps_the_dtype(tmp_path: Path) -> None:
    half = tmp_path / "half"
    assert run("convert", str(GRIFFIN), str(half), "--to", "transformers", "--dtype", "bfloat16")
    assert json.loads((half / "config.json").read_text())["dtype"] == "bfloat16"
    assert run("convert", str(half), str(tmp_path / "own"), "--to", "ssmcore").exit_code == 0
    assert dtypes(tmp_path / "own" / "model.safetensors")["embedding.weight"] == "BF16"
    one, two = (load_pretrained(f)[1]["embedding"]["weight"] for f in (half, tmp_path / "own"))
    np.testing.assert_array_equal(one, two)


def test_convert_refuses(tmp_path: Path) -> None:
    assert "are both" in refusal("convert", str(MAMBA), str(MAMBA), "--to", "ssmcore")
    said = refusal("convert", str(GRIFFIN), str(tmp_path / "x"), "--to", "mamba_ssm")
    assert "layout of mamba_ssm cannot say this model" in said
    said = refusal("convert", str(MAMBA), str(tmp_path / "x"), "--to", "onnx")
    assert "--to is 'onnx'; expected one of" in said
    copy(GRIFFIN, tmp_path / "there")
    said = refusal("convert", str(MAMBA), str(tmp_path / "there"), "--to", "transformers")
    assert "is of another model" in said
    line = ("convert", str(MAMBA), str(tmp_path / "there"), "--to", "transformers", "--overwrite")
    assert run(*line).exit_code == 0


def test_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("ssmcore ")]
    assert len(lines) == 3
    copy(MAMBA, tmp_path / "mamba-hf")
    monkeypatch.chdir(tmp_path)
    for line in lines:
        done = run(*shlex.split(line)[1:])
        assert done.exit_code == 0, f"{line}: {done.output}"

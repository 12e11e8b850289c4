"""The special tokens of a checkpoint folder, and the files of its tokenizer."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssmcore._arguments import plain
from ssmcore.checkpoints.folders import CONFIG, read_json
from ssmcore.errors import SSMError, check_choice

__all__ = [
    "GENERATION",
    "SPECIAL",
    "TOKENIZER",
    "TOKENIZER_FILES",
    "check_special_tokens",
    "generation_config",
    "special_tokens",
]

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
GENERATION, TOKENIZER = "generation_config.json", "tokenizer.json"
TOKENIZER_FILES = (
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""All files that the tokenizers of transformers write into a folder."""


def special_tokens(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return bos_token_id, eos_token_id and pad_token_id of a checkpoint folder, those it names.

    From generation_config.json, then config.json, as transformers does. An end may be several.

    Raises
    ------
    SSMError
        A token that is no whole number, nor a list of them for eos_token_id.
    """
    found: dict[str, Any] = {}
    for file in (Path(path) / CONFIG, Path(path) / GENERATION):
        if file.is_file():
            given = read_json(file)
            found |= {name: given[name] for name in SPECIAL if given.get(name) is not None}
    for name, value in found.items():
        _check_token(repr(str(path)), name, value)
    return found


def check_special_tokens(owner: str, tokens: object) -> dict[str, Any]:
    """Return special tokens to be written, {} for None; SSMError for what could not be read."""
    if tokens is None:
        return {}
    if not isinstance(tokens, Mapping):
        msg = f"{owner}: special_tokens is {tokens!r:.50}; expected a mapping from names to tokens"
        raise SSMError(msg)
    found = {name: plain(value) for name, value in tokens.items()}
    for name, value in found.items():
        check_choice(owner, "special token", name, SPECIAL)
        if value is not None:
            _check_token(owner, name, value)
    return found


def generation_config(folder: Path, fields: Mapping[str, Any]) -> bytes:
    """Return generation_config.json of a folder, b"" for none, with ``fields`` and what it has."""
    file = folder / GENERATION
    if not fields:
        return b""
    before = read_json(file) if file.is_file() else {}
    return (json.dumps(before | dict(fields), indent=2) + "\n").encode()


def _check_token(owner: str, name: str, value: Any) -> None:
    several = value if isinstance(value, list) and name == "eos_token_id" else [value]
    if not all(isinstance(x, int) and not isinstance(x, bool) for x in several):
        msg = f"{owner}: {name} is {value!r:.50}; expected a whole number"
        raise SSMError(msg)

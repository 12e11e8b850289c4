"""The special tokens of a checkpoint folder, and the files of its tokenizer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ssmcore.checkpoints.folders import CONFIG, read_json
from ssmcore.errors import SSMError

__all__ = ["GENERATION", "SPECIAL", "TOKENIZER", "special_tokens"]

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
GENERATION, TOKENIZER = "generation_config.json", "tokenizer.json"


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
        several = value if isinstance(value, list) and name == "eos_token_id" else [value]
        if not all(isinstance(x, int) and not isinstance(x, bool) for x in several):
            msg = f"{str(path)!r}: {name} is {value!r:.50}; expected a whole number"
            raise SSMError(msg)
    return found

"""The fields of a config.json: each read with its type, none passed over in silence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from ssmcore.errors import SSMError, nearest

__all__ = ["HARMLESS", "Fields"]

_OF_TRANSFORMERS = """
    _name_or_path architectures auto_map bos_token_id chunk_size_feed_forward dtype eos_token_id
    finetuning_task id2label is_decoder is_encoder_decoder label2id model_type output_attentions
    output_hidden_states output_past pad_token_id problem_type return_dict sep_token_id
    task_specific_params tokenizer_class torch_dtype torchscript transformers_version use_cache
    bad_words_ids begin_suppress_tokens decoder_start_token_id diversity_penalty do_sample
    early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty forced_bos_token_id
    forced_eos_token_id length_penalty max_length min_length no_repeat_ngram_size num_beam_groups
    num_beams num_return_sequences output_scores prefix remove_invalid_values repetition_penalty
    return_dict_in_generate suppress_tokens temperature tf_legacy_loss top_k top_p typical_p
    use_bfloat16 _attn_implementation attn_implementation _commit_hash
"""
HARMLESS = frozenset(_OF_TRANSFORMERS.split())
"""Fields of transformers that leave the logits alone."""

REQUIRED = object()


class Fields:
    """The fields of one configuration; :meth:`finish` raises SSMError for those nobody read.

    Examples
    --------
    >>> fields = Fields("config.json", {"hidden_size": 4, "hidden_sise": 5})
    >>> fields.whole("hidden_size")
    4
    >>> fields.finish()
    Traceback (most recent call last):
      ...
    ssmcore.errors.SSMError: config.json: unknown field 'hidden_sise' (5); ...
    """

    def __init__(self, where: str, config: Mapping[str, Any], harmless: Iterable[str] = ()) -> None:
        self.where, self.config = where, config
        self.known = set(HARMLESS) | set(harmless)

    def _get(self, name: str, default: Any) -> Any:
        self.known.add(name)
        value = self.config.get(name, default)
        if value is REQUIRED:
            msg = f"{self.where}: field {name!r} is missing{nearest(name, self.config)}"
            raise SSMError(msg)
        return value

    def refuse(self, name: str, expected: str) -> NoReturn:
        """Raise the SSMError of a field whose value cannot be."""
        msg = f"{self.where}: {name} is {self.config.get(name)!r:.80}; expected {expected}"
        raise SSMError(msg)

    def whole(self, name: str, default: Any = REQUIRED, *, least: int = 1) -> int:
        """Return a whole number."""
        value = self._get(name, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.refuse(name, f"a whole number of at least {least}")
        return value

    def number(self, name: str, default: Any = REQUIRED, *, zero: bool = False) -> float:
        """Return a finite number above 0, or also 0."""
        value = self._get(name, default)
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not 0 <= value < math.inf or (value == 0 and not zero):
            self.refuse(name, "a number above 0")
        return value  # type: ignore[no-any-return]

    def flag(self, name: str, default: Any = REQUIRED) -> bool:
        """Return True or False."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            self.refuse(name, "true or false")
        return value

    def choice(self, name: str, default: Any, choices: Mapping[str, Any]) -> Any:
        """Return what ``choices`` has for the value."""
        value = self._get(name, default)
        if not isinstance(value, str) or value not in choices:
            hint = nearest(value, choices) if isinstance(value, str) else ""
            self.refuse(name, f"one of {', '.join(choices)}{hint}")
        return choices[value]

    def fixed(self, name: str, *accepted: Any) -> None:
        """Check a field that may be left out, or have one of the values ``accepted``."""
        if self._get(name, accepted[0]) not in accepted:
            self.refuse(name, " or ".join(map(repr, accepted)))

    def inner(self, name: str) -> Fields:
        """Return the fields of an object inside, empty where there is none."""
        value = self._get(name, None)
        if value is not None and not isinstance(value, Mapping):
            self.refuse(name, "an object {...}")
        return Fields(f"{self.where}: {name}", value or {})

    def finish(self) -> None:
        """Raise SSMError for a field that was not read: it may change the logits."""
        for name, value in self.config.items():
            if name not in self.known:
                msg = (
                    f"{self.where}: unknown field {name!r} ({value!r:.50}); it may change what the "
                    f"model computes{nearest(name, self.known - HARMLESS)}"
                )
                raise SSMError(msg)

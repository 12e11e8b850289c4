"""What the module classes of all backends share: they hold parameters, a definition the maths.

A *definition* is a module of ssmcore: hyper-parameters without parameters.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

from ssmcore.blocks import Dropout
from ssmcore.composition import Composed
from ssmcore.errors import SSMError
from ssmcore.layers.base import Layer
from ssmcore.module import Module

__all__ = [
    "check_definition",
    "constructor_doc",
    "constructor_signature",
    "drops",
    "parts_within",
    "shown",
    "unwrapped",
]

PLACE = (("seed", 0), ("device", None), ("dtype", "float32"))

LAYER = "ssm.LRU(d_model=4, d_state=8)"
CALLS = {
    "Bidirectional": f"4, {LAYER}",
    "Embedding": "vocab=7, d_model=4",
    "Dropout": "d_model=4, rate=0.1",
    "GatedMLP": "d_model=4, d_hidden=6",
    "LanguageModel": "7, ssm.Residual(ssm.Mamba(d_model=4))",
    "LocalAttention": "d_model=8, heads=2, window=3",
    "Residual": "ssm.Hawk(d_model=4)",
    "SSMBlock": LAYER,
    "SequenceClassifier": f"4, 3, ssm.SSMBlock({LAYER})",
    "Stack": f"(ssm.SSMBlock({LAYER}), ssm.Linear(d_model=4))",
}
"""How the examples of docstrings make what ``d_model=4`` alone does not make."""


def check_definition(owner: str, given: object, kind: type[Module]) -> None:
    """Raise SSMError unless ``given`` is a module of ssmcore of that ``kind``, not a class."""
    if not isinstance(given, kind):
        what = "layer" if kind is Layer else "definition"
        msg = (
            f"{owner}: {what} is {given!r:.80}; expected a {kind.__name__.lower()} of ssmcore, "
            "such as ssmcore.S6(4)"
        )
        raise SSMError(msg)


def constructor_signature(kind: type[Module]) -> inspect.Signature:
    """Return the options of the class ``kind`` followed by seed, device and dtype."""
    own = list(inspect.signature(kind).parameters.values())
    place = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in PLACE
    ]
    return inspect.Signature([*own, *place])


def constructor_doc(kind: type[Module], package: str, example: str) -> str:
    """Return the docstring of ``kind`` without its example, for the module class in ``package``.

    In ``example``, {call} becomes a call of the constructor.
    """
    about = inspect.cleandoc(kind.__doc__ or kind.__name__).partition("\n\nExamples\n")[0]
    call = f"ssm.{kind.__name__}({CALLS.get(kind.__name__, 'd_model=4')}, seed=0)"
    base = "Layer" if issubclass(kind, Layer) else "Module"
    return f"""{about}
seed, device, dtype
    As for ``ssmcore.{kind.__name__}.init``: the parameters are drawn when the module is made.

Notes
-----
All methods are those of ``{package}.{base}``.

Examples
--------
{example.format(call=call)}
"""


def unwrapped(given: Any) -> Any:
    """Return the definition of a backend's module, in a tuple too; anything else as it is."""
    if isinstance(given, tuple):
        return tuple(map(unwrapped, given))
    return getattr(given, "definition", given)


def shown(definition: Module) -> str:
    """Return the hyper-parameters as text, without those that are parts and shown as such."""
    fields = {f.name: getattr(definition, f.name) for f in dataclasses.fields(definition)}
    if definition.parts():
        fields = {name: x for name, x in fields.items() if not isinstance(x, Module | tuple)}
    return ", ".join(f"{name}={x!r}" for name, x in fields.items())


def parts_within(definition: Composed) -> Iterator[Composed]:
    """Yield a definition and all that it is made of."""
    yield definition
    for part in definition.parts().values():
        yield from parts_within(part)


def drops(definition: Composed) -> bool:
    """Whether a key would make anything in a definition random."""
    return any(isinstance(part, Dropout) and part.rate > 0.0 for part in parts_within(definition))

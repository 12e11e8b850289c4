"""What module classes of all backends share: the signature and the docstring of a named layer."""

from __future__ import annotations

import inspect

from ssmcore.errors import SSMError
from ssmcore.layers.base import Layer

__all__ = ["check_layer", "constructor_doc", "constructor_signature"]

PLACE = (("seed", 0), ("device", None), ("dtype", "float32"))


def check_layer(owner: str, layer: object) -> None:
    """Raise SSMError unless ``layer`` is a layer of ssmcore, made and not a class."""
    if not isinstance(layer, Layer):
        msg = f"{owner}: layer is {layer!r:.80}; expected a layer of ssmcore, such as ssmcore.S6(4)"
        raise SSMError(msg)


def constructor_signature(kind: type[Layer]) -> inspect.Signature:
    """Return the options of layer class ``kind`` followed by seed, device and dtype."""
    own = list(inspect.signature(kind).parameters.values())
    place = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in PLACE
    ]
    return inspect.Signature([*own, *place])


def constructor_doc(kind: type[Layer], package: str, example: str) -> str:
    """Return the docstring of ``kind`` without its example, for the module class in ``package``."""
    about = inspect.cleandoc(kind.__doc__ or kind.__name__).partition("\n\nExamples\n")[0]
    return f"""{about}
seed, device, dtype
    As for ``ssmcore.{kind.__name__}.init``: the parameters are drawn when the module is made.

Notes
-----
All methods are those of ``{package}.Layer``.

Examples
--------
{example}
"""

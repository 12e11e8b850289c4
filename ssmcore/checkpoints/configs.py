"""Modules as JSON, and back: ``{"model": "S5", "d_model": 4, ...}``, nested where modules are."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

from ssmcore.errors import SSMError, check_choice
from ssmcore.module import Module

__all__ = ["module_config", "module_from_config", "parse_json"]

DEEPEST = 64
"""How deep a configuration may be nested."""


def module_config(module: Module) -> dict[str, Any]:
    """Return the hyper-parameters of a layer, block or network as JSON values.

    Parameters
    ----------
    module : Module

    Returns
    -------
    dict
        ``"model"``, the name of its class, and every hyper-parameter; modules among them likewise,
        tuples as lists.

    Raises
    ------
    SSMError
        No module of ssmcore's own.

    Examples
    --------
    >>> import ssmcore as ssm
    >>> module_config(ssm.S6(4, d_state=2))["d_state"]
    2
    """
    if not isinstance(module, Module) or _classes().get(type(module).__name__) is not type(module):
        msg = f"{module!r:.80} is no module of ssmcore's own; expected one of {list(_classes())}"
        raise SSMError(msg)
    fields = {f.name: _value(getattr(module, f.name)) for f in dataclasses.fields(module)}
    return {"model": type(module).__name__, **fields}


def _value(value: Any) -> Any:
    if isinstance(value, Module):
        return module_config(value)
    return [_value(x) for x in value] if isinstance(value, tuple | list) else value


def module_from_config(config: Mapping[str, Any]) -> Module:
    """Return the module that ``config`` describes: the inverse of :func:`module_config`.

    Only ssmcore's own classes are made; hyper-parameters that are left out take their defaults.

    Raises
    ------
    SSMError
        No such class or hyper-parameter, or a value that cannot be.

    Examples
    --------
    >>> module_from_config({"model": "LRU", "d_model": 2, "d_state": 4})
    LRU(d_model=2, d_state=4, r_min=0.0, r_max=1.0, max_phase=6.28)
    """
    return _module(config, "config", 0)


def _module(config: Mapping[str, Any], where: str, depth: int) -> Module:
    if depth > DEEPEST:
        msg = f"{where:.60} is nested deeper than {DEEPEST}; expected a configuration of a module"
        raise SSMError(msg)
    if not isinstance(config, Mapping) or "model" not in config:
        msg = f'{where} is {config!r:.80}; expected {{"model": "S5", ...}}'
        raise SSMError(msg)
    check_choice(where, "model", config["model"], _classes())
    kind = _classes()[config["model"]]
    options = {k: _made(v, f"{where}.{k}", depth) for k, v in config.items() if k != "model"}
    return kind(**options)


def _made(value: Any, where: str, depth: int) -> Any:
    if isinstance(value, Mapping):
        return _module(value, where, depth + 1)
    if isinstance(value, list):
        return tuple(_made(x, f"{where}[{i}]", depth + 1) for i, x in enumerate(value))
    return value


@functools.cache
def _classes() -> dict[str, type[Module]]:
    """Return every module class that ssmcore offers, by name."""
    from ssmcore import blocks, layers, networks

    offered = [getattr(place, n) for place in (layers, blocks, networks) for n in place.__all__]
    modules = [x for x in offered if isinstance(x, type) and issubclass(x, Module)]
    return {x.__name__: x for x in modules if not getattr(x, "__abstractmethods__", None)}


def parse_json(text: str | bytes, where: str) -> dict[str, Any]:
    """Return a JSON object; SSMError, naming ``where``, for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"{where} is not JSON ({error}); expected an object {{...}}"
        raise SSMError(msg) from None
    if not isinstance(found, dict):
        msg = f"{where} is {type(found).__name__} {found!r:.50}; expected an object {{...}}"
        raise SSMError(msg)
    return found

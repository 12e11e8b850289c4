"""What a checkpoint reader returns, and the checks that every reader shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ssmcore import layers
from ssmcore.arrays import is_tree, join, leaves, split
from ssmcore.errors import SSMError, nearest
from ssmcore.layers import Layer
from ssmcore.typing import Params

__all__ = ["Reading", "check_keys", "check_shapes", "float64", "join", "nearest", "select", "split"]


class Reading(NamedTuple):
    """One layer found in a checkpoint: which model, built how, with which parameters.

    Attributes
    ----------
    model : str
        Name of the layer: "S4", "S4D", "S5", "S6", "RGLRU", or "Bidirectional".
    options : dict
        Constructor options of that layer. "Bidirectional" has "inner" (the name of the layer run
        in each direction), "inner_options" (its constructor options), "share", "skip_current".
    params : dict
        The layer's (nested) parameters, NumPy float64; "Bidirectional" has one set under
        "causal" and one under "anticausal".
    """

    model: str
    options: dict[str, Any]
    params: Params

    def layer(self) -> Layer:
        """Return the layer that runs ``params``.

        Examples
        --------
        >>> import numpy as np
        >>> from ssmcore.checkpoints import Reading
        >>> Reading("LRU", {"d_model": 2, "d_state": 4}, {}).layer()
        LRU(d_model=2, d_state=4, r_min=0.0, r_max=1.0, max_phase=6.28)
        """
        if self.model != "Bidirectional":
            return _layer(self.model, self.options)
        inner = _layer(self.options["inner"], self.options["inner_options"])
        own = {name: self.options[name] for name in ("share", "skip_current")}
        return layers.Bidirectional.of(inner, **own)


def _layer(model: str, options: Mapping[str, Any]) -> Layer:
    kind: type[Layer] = getattr(layers, model)
    return kind(**options)


def float64(name: str, value: Any) -> np.ndarray:
    """Return ``value`` (an array of any library, or numbers) as a new NumPy float64 array."""
    if hasattr(value, "detach"):  # a tensor that may need a gradient, or be in bfloat16
        value = value.detach().cpu()
        value = value if value.is_complex() else value.double()
    try:
        if not (np.iscomplexobj(value) or value is None):  # NumPy drops Im z, makes NaN of None
            return np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        pass  # text, or rows of several lengths
    msg = f"{name} is {type(value).__name__} {value!r:.50}; expected an array of real numbers"
    raise SSMError(msg)


def select(state_dict: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the arrays under ``prefix`` by dotted name, the prefix taken off.

    Nested mappings and names with "/" (flax) or "." (torch) are all accepted, in ``prefix`` too.

    Parameters
    ----------
    state_dict : mapping
        Arrays of any library, flat or nested.
    prefix : str
        Where the layer sits, e.g. "layers.0.layer"; a trailing separator makes no difference.

    Returns
    -------
    dict of str to array

    Raises
    ------
    SSMError
        ``state_dict`` is no mapping, ``prefix`` no text, or nothing is stored under it.

    Examples
    --------
    >>> select({"seq": {"B": 1, "C": 2}, "norm/scale": 3}, "seq")
    {'B': 1, 'C': 2}
    """
    _check_place(state_dict, prefix)
    names = {name.replace("/", "."): value for name, value in leaves(state_dict)}
    start = prefix.replace("/", ".").rstrip(".")
    start = start + "." if start else ""
    found = {name[len(start) :]: value for name, value in names.items() if name.startswith(start)}
    if not found:
        parents = sorted({name.rpartition(".")[0] for name in names})
        hint = nearest(start.rstrip("."), parents)
        msg = f"nothing is stored under prefix {prefix!r}; the checkpoint has {parents}{hint}"
        raise SSMError(msg)
    return found


def _check_place(state_dict: object, prefix: object) -> None:
    if not is_tree(state_dict):
        kind = type(state_dict).__name__
        msg = f"checkpoint is {kind} {state_dict!r:.50}; expected a mapping from names to arrays"
        raise SSMError(msg)
    if not isinstance(prefix, str):
        msg = f"prefix is {prefix!r:.50}; expected text, such as 'layers.0.layer'"
        raise SSMError(msg)


def check_keys(
    owner: str,
    found: Mapping[str, Any],
    required: Iterable[str],
    *,
    ignored: tuple[str, ...] = (),
) -> dict[str, np.ndarray]:
    """Return the ``required`` arrays in float64; names missing or unexpected raise SSMError.

    ``ignored`` are beginnings of names that belong to the block around the layer.
    """
    required = list(required)
    missing = [name for name in required if name not in found]
    extra = [name for name in found if name not in required and not name.startswith(ignored or ())]
    if missing:
        close = nearest(missing[0], extra)
        msg = f"{owner}: missing {missing}; found {sorted(found)}{close}; is the prefix right?"
        raise SSMError(msg)
    if extra:
        msg = (
            f"{owner}: unexpected {sorted(extra)}; expected {sorted(required)}"
            f"{nearest(extra[0], required)}"
        )
        raise SSMError(msg)
    read = {name: float64(f"{owner}: {name}", found[name]) for name in required}
    for name, values in read.items():
        if not np.isfinite(values).all():
            msg = (
                f"{owner}: {name} holds {values[~np.isfinite(values)][0]}; expected finite numbers"
            )
            raise SSMError(msg)
    return read


def check_shapes(
    owner: str, arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise SSMError at the first of ``arrays`` whose shape is not the one in ``shapes``."""
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            msg = f"{owner}: {name} has shape {arrays[name].shape}; expected {shape}"
            raise SSMError(msg)

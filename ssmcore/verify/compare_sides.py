"""A side of a comparison: anything that turns an input into named arrays, and its gradients."""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ssmcore import arrays, backend
from ssmcore._reporting import first_line
from ssmcore.backend import DTYPES, Backend
from ssmcore.errors import SSMError
from ssmcore.layers import Layer
from ssmcore.verify.checks import Numbers

__all__ = ["ImpossibleError", "Named", "Nudge", "Side", "as_side", "blocks_of", "main_output"]

Named = dict[str, Numbers]
Nudge = tuple[str, float]  # a parameter, or "u", and by what part of itself it is changed
COMPLEX = {"float32": "complex64", "float64": "complex128"}
EXPECTED = (
    "expected a callable of one array, (layer, params), (function, params), a torch module, or an "
    "ssmcore layer as a module; a stack is a list of these"
)


class ImpossibleError(Exception):
    """What a side cannot do, such as run in float64; the message is the reason."""


class Side(ABC):
    """One of the two models, with its library, and the dtype of its parameters where known.

    Attributes
    ----------
    role : "reference" or "candidate"
    label : str
    opaque : bool
        Whether the parameters are out of reach, as those of a plain callable are.
    dtype : "float32", "float64" or None
        Of the parameters; the lower one where they are mixed.
    rounding : "float32" or "float64"
        What parameters are rounded to before anything else, so that both sides have the same; in
        a module in float64 also the buffers.
    """

    opaque = False
    dtype: str | None = None
    rounding = "float64"

    def __init__(self, role: str, label: str, owner: Backend, device: Any) -> None:
        self.role, self.label, self.owner, self.device = role, label, owner, device
        self.notes: list[str] = []

    def __str__(self) -> str:
        return f"{self.label} ({self.owner.name}{f', {self.dtype}' if self.dtype else ''})"

    def round_to(self, dtype: str) -> None:
        """Round all parameters to ``dtype`` before anything else, and say so if that is lower."""
        if self.dtype is not None and self.dtype > dtype:
            self.notes.append(f"{self.role}: parameters rounded to {dtype}, that of the other side")
        self.rounding = dtype

    @abstractmethod
    def parameters(self) -> list[str]:
        """Return the dotted names of the parameters that can be reached."""

    @abstractmethod
    def _call(self, u: Numbers, dtype: str, nudge: Nudge | None) -> Any:
        """Return what the model returns for ``u``, with everything in ``dtype``."""

    @abstractmethod
    def _gradients(self, u: Numbers, dtype: str, weights: Named, nudge: Nudge | None) -> Named:
        """Return the gradients of the loss by parameter name, and by "u" where real."""

    def run(self, u: Numbers, dtype: str, nudge: Nudge | None = None) -> Named:
        """Return the named outputs in NumPy; complex ones as pairs (re, im).

        ``nudge`` = (name, size) changes a parameter, or "u", by that part of itself first.
        """
        self._check_float64(dtype)
        u = self._nudged_input(u, dtype, nudge)
        try:
            outputs = _named(self._call(u, dtype, nudge))
        except Exception as error:  # whatever somebody else's code raises
            msg = f"it raises {first_line(error)}"
            raise ImpossibleError(msg) from error
        return {name: self._host(name, x) for name, x in outputs.items()}

    def gradients(
        self, u: Numbers, dtype: str, weights: Named, nudge: Nudge | None = None
    ) -> Named:
        """Return the gradients of the sum over ``weights`` of sum(output * weight), by name."""
        if not self.owner.gradients:
            msg = f"{self.owner.name} has no automatic differentiation"
            raise ImpossibleError(msg)
        self._check_float64(dtype)
        u = self._nudged_input(u, dtype, nudge)
        try:
            found = self._gradients(u, dtype, weights, nudge)
        except Exception as error:
            msg = f"its gradient raises {first_line(error)}"
            raise ImpossibleError(msg) from error
        return {name: _gradient_pair(self.owner, x) for name, x in found.items()}

    def _loss(self, outputs: Mapping[str, Any], dtype: str, weights: Named) -> Any:
        total: Any = 0.0
        for name, weight in weights.items():
            x = arrays.split(outputs[name]) if arrays.is_complex(outputs[name]) else outputs[name]
            total = total + arrays.namespace(x).sum(x * self._input(weight, dtype))
        return total

    def _nudged_input(self, u: Numbers, dtype: str, nudge: Nudge | None) -> Numbers:
        nudged: Numbers = _nudged(_cast(u, dtype), "u", nudge)
        return nudged

    def _check_float64(self, dtype: str) -> None:
        if dtype == "float64" and not self.owner.has_float64():
            name = self.owner.name
            msg = (
                f"64-bit types of {name} are off; switch them on with "
                f'ssmcore.backend.load("{name}").enable_float64()'
            )
            raise ImpossibleError(msg)

    def _input(self, u: Numbers, dtype: str) -> Any:
        return self.owner.from_numpy(_cast(u, dtype), self.device)

    def _host(self, name: str, x: Any) -> Numbers:
        try:
            host = np.asarray(backend.to_numpy(x))
        except SSMError:
            msg = (
                f"compare: {self.role}: output {name!r} is {type(x).__name__}; expected an array: "
                "give a function that returns y, (y, state) or a dict of arrays"
            )
            raise SSMError(msg) from None
        if host.dtype.kind not in "fc":
            msg = (
                f"compare: {self.role}: output {name!r} has dtype {host.dtype}; "
                "expected real or complex numbers"
            )
            raise SSMError(msg)
        return arrays.split(host) if host.dtype.kind == "c" else host


class FunctionSide(Side):
    """``function(params, u)`` with its (nested) parameters; ``params`` {} for a plain callable."""

    def __init__(
        self, role: str, label: str, owner: Backend, device: Any, function: Any, params: Any
    ) -> None:
        super().__init__(role, label, owner, device)
        self.function, self.params = function, params
        self.opaque = not dict(arrays.leaves(params))
        self.dtype = _common_dtype(role, arrays.leaves(params))

    def parameters(self) -> list[str]:
        """Return the dotted names of the real and complex parameters."""
        return [name for name, x in arrays.leaves(self.params) if _is_float(x)]

    def _tree(self, dtype: str, nudge: Nudge | None) -> dict[str, Any]:
        """Return the parameters in ``dtype`` by dotted name."""
        host = {name: backend.to_numpy(x) for name, x in arrays.leaves(self.params)}
        cast = {name: _cast(_cast(x, self.rounding), dtype) for name, x in host.items()}
        return {
            name: self.owner.from_numpy(_nudged(x, name, nudge), self.device)
            for name, x in cast.items()
        }

    def _nested(self, values: Mapping[str, Any]) -> Any:
        names = iter([name for name, _ in arrays.leaves(self.params)])
        return arrays.tree_map(lambda _: values[next(names)], self.params)

    def _call(self, u: Numbers, dtype: str, nudge: Nudge | None) -> Any:
        return self.function(self._nested(self._tree(dtype, nudge)), self._input(u, dtype))

    def _gradients(self, u: Numbers, dtype: str, weights: Named, nudge: Nudge | None) -> Named:
        given = self._tree(dtype, nudge) | {"u": self._input(u, dtype)}
        free = {name: x for name, x in given.items() if _is_float(x)}

        def loss(tree: Any) -> Any:
            full = given | tree
            outputs = _named(self.function(self._nested(full), full["u"]))
            return self._loss(outputs, dtype, weights)

        _, grads = self.owner.value_and_grad(loss, free)
        return {name: np.asarray(backend.to_numpy(grads[name])) for name in free}


class ModuleSide(Side):
    """A torch module: a copy of it runs, in evaluation mode; the module itself stays as it is."""

    def __init__(self, role: str, owner: Backend, device: Any, module: Any) -> None:
        super().__init__(role, type(module).__name__, owner, device)
        self.module = module
        self.dtype = _common_dtype(role, module.named_parameters())
        if module.training and any(True for _ in module.children()):
            self.notes.append(
                f"{role}: compared in evaluation mode; the module is in training mode"
            )

    def parameters(self) -> list[str]:
        """Return the names of the parameters."""
        return [name for name, x in self.module.named_parameters() if _is_float(x)]

    def _copy(self, dtype: str, nudge: Nudge | None) -> Any:
        module = copy.deepcopy(self.module).eval()
        xp = self.owner.xp
        parameters = dict(module.named_parameters())
        for name, x in [*parameters.items(), *module.named_buffers()]:
            x.grad = None
            if _is_float(x):
                finer = name in parameters or self.dtype == "float64"
                for kind in (self.rounding, dtype) if finer else (dtype,):
                    kind = COMPLEX[kind] if arrays.is_complex(x) else kind
                    x.data = xp.astype(x.data, getattr(xp, kind))
                x.data = _nudged(x.data, name, nudge)
        return module

    def _call(self, u: Numbers, dtype: str, nudge: Nudge | None) -> Any:
        return self._copy(dtype, nudge)(self._input(u, dtype))

    def _gradients(self, u: Numbers, dtype: str, weights: Named, nudge: Nudge | None) -> Named:
        module, x = self._copy(dtype, nudge), self._input(u, dtype)
        if u.dtype.kind == "f":
            x.requires_grad_(True)
        self._loss(_named(module(x)), dtype, weights).backward()
        found = {n: (p, p.grad) for n, p in module.named_parameters() if p.requires_grad}
        if u.dtype.kind == "f":
            found["u"] = (x, x.grad)
        return {
            name: np.zeros_like(backend.to_numpy(p)) if grad is None else backend.to_numpy(grad)
            for name, (p, grad) in found.items()
        }


# ------------------------------------------------------------------------- what a user may give


def as_side(role: str, given: Any, library: str | None, inputs: Any) -> Side:
    """Return ``given`` as a side; SSMError for what is none."""
    chosen = None if library is None else backend.load(library)
    if isinstance(given, Layer):
        msg = f"compare: {role} is {given.name} without parameters; give (layer, params)"
        raise SSMError(msg)
    if isinstance(getattr(given, "layer", None), Layer) and hasattr(given, "params"):
        given = (given.layer, given.params)
    if isinstance(given, tuple):
        return _with_params(role, given, chosen)
    if not callable(given):
        msg = f"compare: {role} is {type(given).__name__} {given!r:.50}; {EXPECTED}"
        raise SSMError(msg)
    if _is_module(given):
        first = next(given.parameters(), None)
        owner = chosen or (_library_of_class(given) if first is None else backend.of(first))
        return ModuleSide(role, owner, None if first is None else arrays.device(first), given)
    owner = chosen or backend.of(inputs)
    device = arrays.device(inputs) if backend.of(inputs) is owner else None
    label = getattr(given, "__name__", type(given).__name__)
    return FunctionSide(role, label, owner, device, lambda _, u: given(u), {})


def _with_params(role: str, given: tuple[Any, ...], chosen: Backend | None) -> Side:
    if len(given) != 2 or not callable(given[0]) or not arrays.is_tree(given[1]):
        kinds = ", ".join(type(x).__name__ for x in given)
        msg = f"compare: {role} is a tuple of ({kinds}); {EXPECTED}"
        raise SSMError(msg)
    function, params = given
    first = next((x for _, x in arrays.leaves(params)), None)
    if first is None:
        msg = f"compare: {role} has no parameters in its dict; give the callable alone"
        raise SSMError(msg)
    owner = chosen or backend.of(first)
    device = arrays.device(first) if backend.of(first) is owner else None
    if isinstance(function, Layer):
        function._check_params(params)
        run = _runs_layer(function)
        return FunctionSide(role, function.name, owner, device, run, params)
    label = getattr(function, "__name__", type(function).__name__)
    return FunctionSide(role, label, owner, device, function, params)


def _runs_layer(layer: Layer) -> Callable[..., Any]:
    stateful = bool(layer.state_shapes())  # Bidirectional has no state
    return lambda params, u: layer(params, u, return_state=stateful)


def _is_module(given: Any) -> bool:
    """Whether ``given`` is a torch module, known by its methods: torch need not be installed."""
    return hasattr(given, "named_parameters") and hasattr(given, "register_forward_hook")


def _library_of_class(given: Any) -> Backend:
    roots = {base.__module__.partition(".")[0] for base in type(given).__mro__}
    return backend.load(next(name for name in backend.names() if name in roots))


def blocks_of(given: Any) -> list[Any] | None:
    """Return the blocks of a stack, a list or a torch container of modules; None for no stack."""
    if isinstance(given, list):
        return given
    if _is_module(given) and hasattr(given, "__len__") and hasattr(given, "__iter__"):
        return list(given)
    return None


# ------------------------------------------------------------------------------------- arrays


def _named(output: Any) -> dict[str, Any]:
    """Return y, (y, state) or a dict of arrays as a flat dict by name."""
    if arrays.is_tree(output):
        return dict(arrays.leaves(output))
    if not isinstance(output, tuple | list):
        return {"y": output}
    if not output:
        msg = "the output is an empty tuple"
        raise SSMError(msg)
    y, *rest = output
    states: Any = rest[0] if len(rest) == 1 else dict(enumerate(rest))
    if isinstance(states, tuple | list):
        states = dict(enumerate(states))
    found = {name: x for name, x in arrays.leaves({"state": states}) if x is not None}
    return {"y": y} | found


def main_output(outputs: Mapping[str, Any]) -> Any:
    """Return "y", or the first output where none has that name."""
    return outputs.get("y", next(iter(outputs.values())))


def _cast(x: Numbers, dtype: str) -> Numbers:
    """Return real numbers in ``dtype``, complex ones in its complex dtype, others as they are."""
    kinds = {"f": dtype, "c": COMPLEX[dtype]}
    with np.errstate(over="ignore"):  # float32 need not hold what float64 does
        return np.asarray(x, dtype=kinds.get(x.dtype.kind))


def _nudged(x: Any, name: str, nudge: Nudge | None) -> Any:
    """Return x (1 + size) where ``nudge`` = (name, size); zeros move as the largest does, or 1."""
    if nudge is None or name != nudge[0] or 0 in x.shape:
        return x
    xp = arrays.namespace(x)
    peak = xp.max(xp.abs(x))
    unit = xp.astype(xp.where(peak == 0, xp.ones_like(peak), peak), x.dtype)
    return x + xp.where(x == 0, unit, x) * nudge[1]


def _is_float(x: Any) -> bool:
    return backend.dtype_name(x).startswith(("float", "bfloat", "complex"))


def _common_dtype(role: str, named: Iterator[tuple[str, Any]]) -> str | None:
    """Return the precision of the parameters, the lower one where they are mixed."""
    found = set()
    for name, x in named:
        kind = (
            backend.dtype_name(x).replace("complex128", "float64").replace("complex64", "float32")
        )
        if not _is_float(x):
            continue
        if kind not in DTYPES:
            msg = (
                f"compare: {role}: {name} has dtype {kind}; expected float32 or float64: "
                "convert the model first"
            )
            raise SSMError(msg)
        found.add(kind)
    return min(found, default=None)


def _gradient_pair(owner: Backend, grad: Numbers) -> Numbers:
    """Return a complex gradient as (d/d re, d/d im), whatever the library's convention."""
    if grad.dtype.kind != "c":
        return grad
    pair: Numbers = arrays.split(grad)
    pair[..., 1] *= _sign_of_imaginary_part(owner)
    return pair


@functools.cache
def _sign_of_imaginary_part(owner: Backend) -> float:
    """Return the sign of the gradient of Im z: 1 where it is +i, -1 where it is -i, as in JAX."""
    z = {"z": owner.from_numpy(np.zeros((), dtype="complex64"))}
    _, grad = owner.value_and_grad(lambda tree: owner.xp.imag(tree["z"]), z)
    return float(np.sign(backend.to_numpy(grad["z"]).imag))

"""How modules are composed of named parts: shapes, draws, states, parameter groups.

Leaves (layers, products, norms) say their own; for everything else they follow from the parts.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ssmcore import arrays, backend
from ssmcore._arguments import plain
from ssmcore._checks import Place
from ssmcore._options import ParamGroup, hyperparameters
from ssmcore.random import fold_in
from ssmcore.typing import Array, Params, State

__all__ = ["NOTHING", "Composed", "Pass", "Running", "fits", "flattened"]

NOTHING: dict[str, Any] = {}


class Pass(NamedTuple):
    """How a call runs, the same for everything inside it.

    ``reset`` (..., L) bool is False in padding; ``lengths`` has the library's indexing dtype;
    ``valid`` (..., L) bool marks what is not padding. None: no restart, no padding. ``dtype`` is
    that of states. ``checkpoint``: stacks forget what is inside their blocks. ``steps``: the
    backend's own functions of one step, of what is in ``dtype``; without any, or for longer
    sequences, empty.
    """

    mode: str = "auto"
    reset: Array | None = None
    lengths: Array | None = None
    valid: Array | None = None
    return_state: bool = False
    training: bool = False
    key: Any = None
    dtype: Any = None
    checkpoint: bool = False
    steps: Mapping[str, Callable[..., Any]] = NOTHING


@hyperparameters
class Composed(ABC):
    """Hyper-parameters, and parts by the names that parameters and states have."""

    TOKENS: ClassVar[bool] = False
    HALF_PRECISION: ClassVar[bool] = False
    STATISTICS: ClassVar[tuple[str, ...]] = ()
    _parts: ClassVar[Mapping[str, Composed]] = NOTHING
    _shapes: ClassVar[Mapping[str, Any]] = NOTHING
    _state_shapes: ClassVar[Mapping[str, Any]] = NOTHING

    def __post_init__(self) -> None:
        """Store numbers as Python's own, check the hyper-parameters and make the parts, once."""
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))
        self._check_options()
        parts = self._compose()
        if parts:
            object.__setattr__(self, "_parts", parts)
            object.__setattr__(self, "_shapes", self.shapes())
            object.__setattr__(self, "_state_shapes", self.state_shapes())

    @property
    def name(self) -> str:
        """The module's name, as the field calls it."""
        return type(self).__name__

    @property
    def d_output(self) -> int:
        """Channels of the output."""
        width: int = self.d_model  # type: ignore[attr-defined]
        return width

    @property
    def _d_input(self) -> int:
        width: int = self.d_model  # type: ignore[attr-defined]
        return width

    @property
    def _vocabulary(self) -> int:
        """Number of tokens where the input is tokens."""
        return 0

    @property
    def tokens(self) -> bool:
        """Whether the input is integer tokens (..., L)."""
        return self.TOKENS

    @abstractmethod
    def _check_options(self) -> None:
        """Raise SSMError for hyper-parameters that cannot be."""

    def _compose(self) -> dict[str, Composed]:
        """Return the parts by name; a leaf has none."""
        return {}

    def parts(self) -> Mapping[str, Composed]:
        """Return what the module is made of, by the names that parameters and states have."""
        return self._parts

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter, nested as the parameters are."""
        found = {name: part.shapes() for name, part in self._parts.items()}
        return {name: shapes for name, shapes in found.items() if shapes}

    def state_shapes(self) -> dict[str, Any]:
        """Return the shape of every state array of one sequence, nested as the state is."""
        found = {name: part.state_shapes() for name, part in self._parts.items()}
        return {name: shapes for name, shapes in found.items() if shapes}

    def param_groups(self) -> list[ParamGroup]:
        """Return how an optimiser should treat the parameters, as plain data.

        Groups of the same settings are one; ``lr`` 0 marks what is not trained.
        """
        groups: dict[tuple[Any, ...], ParamGroup] = {}
        for name, part in self._parts.items():
            for group in part.param_groups():
                names = tuple(f"{name}.{inner}" for inner in group.names)
                before = groups.get(group[1:])
                groups[group[1:]] = group._replace(names=(before.names if before else ()) + names)
        return list(groups.values())

    def _draw(self, rng: np.random.Generator) -> Params:
        """Return initial parameters in float64 NumPy."""
        return {name: self._parts[name]._draw(rng) for name in self.shapes()}

    def _initial(self, place: Place, batch: tuple[int, ...]) -> State:
        """Return the state of sequences that have not begun."""
        state: State = {}
        for name, shape in self.state_shapes().items():
            part = self._parts.get(name)
            state[name] = part._initial(place, batch) if part else place.zeros((*batch, *shape))
        return state

    @abstractmethod
    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        """Return y and the state after it, unchecked; ``state`` None: fresh sequences.

        The second is None unless ``how`` asks for a state, or for statistics and there are some.
        """

    def _statistics(self) -> tuple[str, ...]:
        """Return the dotted names of the running statistics among the parameters."""
        inner = [f"{n}.{x}" for n, part in self._parts.items() for x in part._statistics()]
        return (*self.STATISTICS, *inner)

    def _example(self, params: Params) -> Array | None:
        """Return one of the parameters that must not be in half precision, or None."""
        if not self._parts:
            return (
                None if self.HALF_PRECISION else next((x for _, x in arrays.leaves(params)), None)
            )
        for name, part in self._parts.items():
            found = part._example(params.get(name, NOTHING))
            if found is not None:
                return found
        return None

    def _loose(self) -> frozenset[str]:
        """Return the dotted names of the parameters that may be in half precision."""
        if self.HALF_PRECISION:
            return frozenset(self.shapes())
        return frozenset(f"{n}.{x}" for n, part in self._parts.items() for x in part._loose())

    def _check_values(self, params: Params) -> None:
        """Raise SSMError for values that cannot be, where they can be looked at."""
        for name, part in self._parts.items():
            part._check_values(params.get(name, NOTHING))

    def _check_mode(self, mode: str, reset: Array | None) -> None:
        """Raise SSMError where a layer cannot run in ``mode``."""
        for part in self._parts.values():
            part._check_mode(mode, reset)


class Running:
    """The parts of a module at work within one ``_apply``: ``run(name, u)`` gives y.

    Hands every part its own parameters, state and key, and gathers the states after.
    """

    def __init__(self, module: Composed, params: Params, state: State | None, how: Pass) -> None:
        self.parts, self.params, self.state, self.how = module._parts, params, state, how
        self.states: State = {}

    def __call__(self, name: str, u: Array, forget: bool = False) -> Array:
        """Return the output of part ``name`` for the input ``u``.

        ``forget`` what is computed inside, where the library can compute it again for the gradient.
        """
        how = self.how
        if how.key is not None:
            how = how._replace(key=fold_in(how.key, list(self.parts).index(name)))
        params = self.params.get(name, NOTHING)
        state = None if self.state is None else self.state.get(name, NOTHING)

        def apply(params: Params, u: Array, state: State | None) -> tuple[Array, State | None]:
            return self.parts[name]._apply(params, u, state, how)

        run = backend.of(u).checkpoint(apply) if forget else apply
        y, after = run(params, u, state)
        if after:
            self.states[name] = after
        return y

    def optional(self, name: str, u: Array) -> Array:
        """Return ``u`` as it is where the module has no part ``name``."""
        return self(name, u) if name in self.parts else u

    @property
    def after(self) -> State | None:
        """The states of all parts, or None."""
        return self.states or None


def fits(
    tree: Any,
    shapes: Mapping[str, Any],
    kinds: set[tuple[Any, Any]],
    batch: tuple[int, ...] = (),
) -> bool:
    """Whether nested dicts of arrays have ``shapes`` after ``batch``.

    Adds their classes and dtypes to ``kinds``.
    """
    if type(tree) is not dict or tree.keys() != shapes.keys():
        return False
    for name, shape in shapes.items():
        x = tree[name]
        if type(shape) is dict:
            if not fits(x, shape, kinds, batch):
                return False
        elif getattr(x, "shape", None) != batch + shape:
            return False
        else:
            kinds.add((type(x), getattr(x, "dtype", None)))
    return True


def flattened(shapes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return nested shapes by dotted name."""
    return {key: tuple(shape) for key, shape in arrays.leaves(shapes)}

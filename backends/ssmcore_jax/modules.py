"""Layers as frozen pytrees: the parameters are the leaves, the layer is static."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, NoReturn, Self, TypeVar

import jax
import numpy as np

import ssmcore
from ssmcore import ParamGroup, arrays
from ssmcore._options import checked_arguments
from ssmcore.layers._modules import check_layer, constructor_doc, constructor_signature
from ssmcore.systems import System
from ssmcore.typing import Array, Params, State

__all__ = ["LRU", "LSSL", "RGLRU", "S4", "S4D", "S5", "S6", "Bidirectional", "Layer"]

EXAMPLE = """\
>>> import jax
>>> import jax.numpy as jnp
>>> import ssmcore_jax as ssm
>>> layer = ssm.{name}({options}, seed=0)
>>> jax.jit(lambda layer, u: layer(u))(layer, jnp.ones((3, 4))).shape
(3, 4)"""


class Layer:
    """Any ssmcore layer with its parameters, as a frozen pytree.

    Its leaves are the parameters, named as in the parameter dict; ``jax.jit``, ``jax.grad``,
    ``jax.vmap`` and ``jax.tree.map`` take and return it as it is.

    Parameters
    ----------
    layer : ssmcore.Layer
        The hyper-parameters; kept as ``.layer``, static.
    params : dict of real arrays of any library, nested or with dotted names, copied; None draws
        them
    seed : int or numpy.random.Generator
        Of the draw; the same numbers as on every other backend.
    device : jax.Device or None
    dtype : "float32", "float64", jnp.float32 or jnp.float64
        None means that of ``params``, and float32 for a draw.

    Attributes
    ----------
    layer : ssmcore.Layer
    params : nested dict of JAX arrays

    Raises
    ------
    SSMError
        No layer, parameters of another layer, other dtype, float64 while JAX's 64-bit types are
        off.

    Examples
    --------
    A layer with parameters that are there already:

    >>> import ssmcore
    >>> import ssmcore_jax as ssm
    >>> core = ssmcore.LRU(d_model=2, d_state=4)
    >>> ssm.Layer(core, core.init(0, backend="numpy"))
    Layer(LRU(d_model=2, d_state=4, r_min=0.0, r_max=1.0, max_phase=6.28))
    """

    KIND: ClassVar[type[ssmcore.Layer]]

    layer: ssmcore.Layer
    params: Params

    def __init__(
        self,
        layer: ssmcore.Layer,
        params: Params | None = None,
        *,
        seed: Any = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        """Copy ``params``, or draw them."""
        check_layer("ssmcore_jax.Layer", layer)
        name = dtype if dtype is None or isinstance(dtype, str) else np.dtype(dtype).name
        if params is None:
            given = layer.init(seed, backend="jax", device=device, dtype=name or "float32")
        else:
            given = ssmcore.move(params, backend="jax", device=device, dtype=name)
            given = layer._check_params(given)
        self.__dict__.update(layer=layer, params=given)

    def __init_subclass__(cls, of: type[ssmcore.Layer] | None = None) -> None:
        """Become a pytree; take signature and docstring from the layer class ``of``."""
        super().__init_subclass__()
        _register(cls)
        if of is not None:
            name = of.__name__
            core = "ssm.LRU(d_model=4, d_state=8)"
            options = f"4, {core}" if name == "Bidirectional" else "d_model=4"
            cls.KIND = of
            cls.__doc__ = constructor_doc(
                of, "ssmcore_jax", EXAMPLE.format(name=name, options=options)
            )
            cls.__signature__ = constructor_signature(of)  # type: ignore[attr-defined]

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: modules are frozen; make a new one with ``jax.tree.map``."""
        msg = f"{type(self).__name__} is frozen; make a new one, as with jax.tree.map"
        raise AttributeError(msg)

    @checked_arguments
    def __call__(
        self,
        u: Array,
        state: State | None = None,
        *,
        mode: str = "auto",
        reset: Array | None = None,
        lengths: Array | None = None,
        return_state: bool = False,
    ) -> Any:
        """Run the layer over a sequence.

        Parameters
        ----------
        u : (..., L, H), dtype of the parameters, or float16 / bfloat16
        state : as from ``initial_state`` or an earlier call; None means a fresh sequence
        mode : "auto", "recurrence", "scan" or "convolution"
        reset : (..., L) bool; True restarts the state before that step
        lengths : (...,) integer, 0..L; steps beyond are padding
        return_state : also return the state after the last step that is not padding

        Returns
        -------
        y : (..., L, H), dtype of ``u``; with ``return_state`` a pair (y, state).

        Raises
        ------
        SSMError
            Anything that does not fit, before any work.
        """
        return self.layer(
            self.params,
            u,
            state,
            mode=mode,
            reset=reset,
            lengths=lengths,
            return_state=return_state,
        )

    def step(self, u: Array, state: State | None = None) -> tuple[Array, State]:
        """Run one step: u (..., H) to (y (..., H), state)."""
        return self.layer.step(self.params, u, state)

    def initial_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        """Return the state of sequences that have not begun, beside the parameters."""
        return self.layer.initial_state(self.params, batch_shape)

    def system(
        self, u: Array | None = None, reset: Array | None = None, state: State | None = None
    ) -> System:
        """Return the discrete system; S6 and RGLRU need the input u (..., L, H)."""
        return self.layer.system(self.params, u, reset, state)

    def eigenvalues(self, u: Array | None = None) -> Array:
        """Return the eigenvalues of A_bar; S6 and RGLRU need the input u (..., L, H)."""
        return self.layer.eigenvalues(self.params, u)

    def param_groups(self) -> dict[str, ParamGroup]:
        """Return how an optimiser should treat the parameters, by the labels of ``labels``.

        Returns
        -------
        dict from label to ParamGroup; groups with the same settings are one.

        Examples
        --------
        >>> import ssmcore_jax as ssm
        >>> groups = ssm.LRU(d_model=2, d_state=4).param_groups()
        >>> {label: group.names for label, group in groups.items()}
        {'no_decay, lr_scale=0.5': ('nu_log', 'theta_log', 'gamma_log', 'B'), 'decay': ('C', 'D')}
        """
        groups: dict[str, ParamGroup] = {}
        for group in self.layer.param_groups():
            label = _label(group)
            before = groups[label].names if label in groups else ()
            groups[label] = group._replace(names=before + group.names)
        return groups

    def labels(self) -> Self:
        """Return the same pytree with a label at every parameter, for ``optax.multi_transform``.

        Examples
        --------
        >>> import ssmcore_jax as ssm
        >>> labels = ssm.LRU(d_model=2, d_state=4).labels()
        >>> labels.params["nu_log"], labels.params["D"]
        ('no_decay, lr_scale=0.5', 'decay')
        """
        of = {name: key for key, group in self.param_groups().items() for name in group.names}
        names = iter([name for name, _ in arrays.leaves(self.params)])
        tree = arrays.tree_map(lambda _: of[next(names)], self.params)
        return _build(type(self), self.layer, tree)

    def __repr__(self) -> str:
        """Show the hyper-parameters."""
        return f"Layer({self.layer!r})" if type(self) is Layer else repr(self.layer)


def _label(group: ParamGroup) -> str:
    parts = ["decay" if group.weight_decay else "no_decay"]
    parts += [
        f"{name}={getattr(group, name)}"
        for name in ("lr", "lr_scale")
        if getattr(group, name) is not None
    ]
    return ", ".join(parts if group.keep_float32 else [*parts, "any_precision"])


T = TypeVar("T", bound=Layer)


def _build(cls: type[T], layer: ssmcore.Layer, params: Any) -> T:
    """Return a module with ``params`` unchecked: under transformations leaves may be anything."""
    out = object.__new__(cls)
    out.__dict__.update(layer=layer, params=params)
    return out


def _register(cls: type[Layer]) -> None:
    key = jax.tree_util.GetAttrKey("params")
    jax.tree_util.register_pytree_with_keys(
        cls,
        lambda module: (((key, module.params),), module.layer),
        lambda layer, children: _build(cls, layer, *children),
        lambda module: ((module.params,), module.layer),
    )


_register(Layer)


class _Named(Layer):
    """A layer made from its hyper-parameters."""

    def __init__(
        self, *args: Any, seed: Any = 0, device: Any = None, dtype: Any = "float32", **options: Any
    ) -> None:
        args = tuple(map(_hyperparameters, args))
        options = {name: _hyperparameters(x) for name, x in options.items()}
        super().__init__(self.KIND(*args, **options), seed=seed, device=device, dtype=dtype)


def _hyperparameters(x: Any) -> Any:
    return x.layer if isinstance(x, Layer) else x


class LRU(_Named, of=ssmcore.LRU):
    """LRU as a pytree."""


class LSSL(_Named, of=ssmcore.LSSL):
    """LSSL as a pytree."""


class RGLRU(_Named, of=ssmcore.RGLRU):
    """RG-LRU as a pytree."""


class S4(_Named, of=ssmcore.S4):
    """S4 as a pytree."""


class S4D(_Named, of=ssmcore.S4D):
    """S4D as a pytree."""


class S5(_Named, of=ssmcore.S5):
    """S5 as a pytree."""


class S6(_Named, of=ssmcore.S6):
    """S6 as a pytree."""


class Bidirectional(_Named, of=ssmcore.Bidirectional):
    """Bidirectional as a pytree."""

    @classmethod
    def of(
        cls,
        layer: Any,
        *,
        share: str = "nothing",
        combine: str = "sum",
        skip_current: bool = False,
        seed: Any = 0,
        device: Any = None,
        dtype: Any = "float32",
    ) -> Bidirectional:
        """Wrap ``layer``, a pytree or an ssmcore layer: its hyper-parameters, drawn anew."""
        core = ssmcore.Bidirectional.of(
            _hyperparameters(layer), share=share, combine=combine, skip_current=skip_current
        )
        options = {name: getattr(core, name) for name in inspect.signature(type(core)).parameters}
        return cls(**options, seed=seed, device=device, dtype=dtype)

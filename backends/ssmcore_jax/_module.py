"""A module of ssmcore as a frozen pytree: parameters are leaves, the definition is static."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

import ssmcore
from ssmcore import ParamGroup, arrays
from ssmcore._options import checked_arguments
from ssmcore._wrapping import (
    check_definition,
    constructor_doc,
    constructor_signature,
    unwrapped,
)
from ssmcore.composition import Composed
from ssmcore.errors import check_choice
from ssmcore.module import Module as Core
from ssmcore.typing import Array, Params, State

__all__ = ["Module", "Named"]

EXAMPLE = """\
>>> import jax
>>> import jax.numpy as jnp
>>> import ssmcore_jax as ssm
>>> module = {call}
>>> jax.eval_shape(lambda module, u: module(u), module, {input}).shape
{shape}"""


T = TypeVar("T", bound="Module")


def _build(cls: type[T], definition: Any, params: Any) -> T:
    """Return a module with ``params`` unchecked: under transformations leaves may be anything."""
    out = object.__new__(cls)
    out.__dict__.update(definition=definition, params=params)
    return out


def _register(cls: type[Module]) -> None:
    key = jax.tree_util.GetAttrKey("params")
    jax.tree_util.register_pytree_with_keys(
        cls,
        lambda module: (((key, module.params),), module.definition),
        lambda definition, children: _build(cls, definition, *children),
        lambda module: ((module.params,), module.definition),
    )


class Module:
    """Any layer, block or network of ssmcore with its parameters, as a frozen pytree.

    Its leaves are the parameters, named as in the parameter dict; ``jax.jit``, ``jax.grad``,
    ``jax.vmap``, ``jax.lax.scan`` and ``jax.tree.map`` take and return it as it is.

    Parameters
    ----------
    definition : a module of ssmcore
        The hyper-parameters; kept as ``.definition``, static.
    params : dict of real arrays of any library, nested or with dotted names, copied; None draws
        them
    seed : int or numpy.random.Generator
        Of the draw; the same numbers as on every other backend.
    device : jax.Device or None
    dtype : "float32", "float64", jnp.float32 or jnp.float64
        None means that of ``params``, and float32 for a draw.

    Attributes
    ----------
    definition : a module of ssmcore
    params : nested dict of JAX arrays

    Raises
    ------
    SSMError
        No definition, parameters of another one, other dtype, float64 while JAX's 64-bit types are
        off.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import ssmcore_jax as ssm
    >>> from ssmcore import networks
    >>> model = ssm.Module(networks.mamba(vocab=7, d_model=4, n_layers=2), seed=0)
    >>> jax.eval_shape(lambda model, u: model(u), model, jnp.asarray([[1, 2, 3]])).shape
    (1, 3, 7)
    >>> model.part("layers.0.mixer.ssm")
    S6(d_model=8, d_state=16, dt_rank=1, ...)
    """

    TAKES: ClassVar[type] = Core
    CLASSES: ClassVar[dict[type[Composed], type[Module]]] = {}

    definition: Core
    params: Params

    def __init__(
        self,
        definition: Core,
        params: Params | None = None,
        *,
        seed: Any = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        """Copy ``params``, or draw them."""
        check_definition(f"ssmcore_jax.{type(self).__name__}", definition, self.TAKES)
        name = dtype if dtype is None or isinstance(dtype, str) else np.dtype(dtype).name
        if params is None:
            given = definition.init(seed, backend="jax", device=device, dtype=name or "float32")
        else:
            given = ssmcore.move(params, backend="jax", device=device, dtype=name)
            given = definition._check_params(given)
        self.__dict__.update(definition=definition, params=given)

    def __init_subclass__(cls) -> None:
        """Become a pytree."""
        super().__init_subclass__()
        _register(cls)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: modules are frozen; make a new one with ``jax.tree.map``."""
        msg = f"{type(self).__name__} is frozen; make a new one, as with jax.tree.map"
        raise AttributeError(msg)

    @checked_arguments
    def __call__(self, u: Array, state: State | None = None, **options: Any) -> Any:
        """Run the module over sequences.

        Parameters
        ----------
        u : (..., L, H), dtype of the parameters, or float16 / bfloat16; or tokens (..., L)
        state : as from ``initial_state`` or an earlier call; None means fresh sequences
        mode : "auto", "recurrence", "scan" or "convolution"
        reset : (..., L) bool; True: a new document begins at that step
        lengths : (...,) integer, 0..L; steps beyond are padding
        return_state : also return the state after the last step that is not padding
        training : BatchNorm takes the batch's statistics; also return the new running ones, for
            ``with_statistics``; for blocks and networks
        key : randomness of dropout, an integer or integer array () or (2,), or a key of
            ``jax.random.key``; None drops nothing; for blocks and networks
        checkpoint : forget what is inside each block of a stack, and compute it again for the
            gradient; for blocks and networks
        and what else the definition takes, such as ``padding`` and ``logits`` of a LanguageModel

        Returns
        -------
        y, in the dtype of ``u``, or a tuple y[, state][, statistics].

        Raises
        ------
        SSMError
            Anything that does not fit, before any work.
        """
        if isinstance(options.get("key"), jax.Array):
            options["key"] = _key_data(options["key"])
        return self.definition(self.params, u, state, **options)

    @checked_arguments
    def step(self, u: Array, state: State | None = None) -> tuple[Array, State]:
        """Run one step: u (..., H), or tokens (...), to (y, state)."""
        return self.definition.step(self.params, u, state)

    def initial_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        """Return the state of sequences that have not begun, beside the parameters."""
        return self.definition.initial_state(self.params, batch_shape)

    def with_statistics(self, statistics: Params) -> Self:
        """Return the same pytree with the running statistics that a call with training returned.

        Examples
        --------
        >>> import jax.numpy as jnp
        >>> import ssmcore_jax as ssm
        >>> norm = ssm.BatchNorm(1)
        >>> y, statistics = norm(jnp.asarray([[1.0], [3.0]]), training=True)
        >>> norm.with_statistics(statistics).params["mean"]
        Array([0.2], dtype=float32)
        """
        params = self.definition.with_statistics(self.params, statistics)
        return _build(type(self), self.definition, params)

    def part(self, name: str) -> Module:
        """Return a part by its dotted name, with its parameters.

        Examples
        --------
        >>> import ssmcore_jax as ssm
        >>> ssm.SSMBlock(ssm.LRU(2, d_state=4)).part("layer").eigenvalues().shape
        (4,)
        """
        definition: Composed = self.definition
        params = self.params
        for word in name.split("."):
            check_choice(definition.name, "part", word, definition.parts())
            definition, params = definition.parts()[word], params.get(word, {})
        return _build(Module.CLASSES.get(type(definition), Module), definition, params)

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
        for group in self.definition.param_groups():
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
        return _build(type(self), self.definition, tree)

    def __repr__(self) -> str:
        """Show the hyper-parameters."""
        if type(self) in self.CLASSES.values():
            return repr(self.definition)
        return f"{type(self).__name__}({self.definition!r})"


_register(Module)


class Named(Module):
    """A pytree made from its hyper-parameters; parts may be pytrees, and are drawn anew."""

    KIND: ClassVar[type[Core]]

    def __init__(
        self, *args: Any, seed: Any = 0, device: Any = None, dtype: Any = "float32", **options: Any
    ) -> None:
        args = tuple(map(unwrapped, args))
        options = {name: unwrapped(x) for name, x in options.items()}
        super().__init__(self.KIND(*args, **options), seed=seed, device=device, dtype=dtype)

    def __init_subclass__(
        cls,
        of: type[Core] | None = None,
        input: str = "jnp.ones((3, 4))",
        shape: tuple[int, ...] = (3, 4),
    ) -> None:
        """Take signature and docstring from the class ``of``; the others are for its example."""
        super().__init_subclass__()
        if of is None:
            return
        cls.KIND = of
        cls.CLASSES[of] = cls
        example = EXAMPLE.replace("{input}", input).replace("{shape}", str(shape))
        cls.__doc__ = constructor_doc(of, "ssmcore_jax", example)
        cls.__signature__ = constructor_signature(of)  # type: ignore[attr-defined]


def _key_data(key: jax.Array) -> jax.Array:
    """Return the integers of a key of ``jax.random.key``; others are integers."""
    return jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key


def _label(group: ParamGroup) -> str:
    parts = ["decay" if group.weight_decay else "no_decay"]
    parts += [
        f"{name}={getattr(group, name)}"
        for name in ("lr", "lr_scale")
        if getattr(group, name) is not None
    ]
    return ", ".join(parts if group.keep_float32 else [*parts, "any_precision"])

"""Text from language models: one token after the other, in memory that does not grow.

Tokens are drawn on the host (:mod:`ssmcore.sampling`), so that the same logits give the same text
on every array library.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ssmcore import arrays
from ssmcore import backend as backends
from ssmcore.checkpoints.configs import module_config, module_from_config
from ssmcore.checkpoints.files import load, save
from ssmcore.checkpoints.same import difference
from ssmcore.errors import SSMError
from ssmcore.networks import LanguageModel
from ssmcore.sampling import Sampling
from ssmcore.typing import Array, Params

__all__ = ["Generation", "generate", "load_state", "save_state"]

CHUNK = 512
"""Steps of a prompt that run at a time."""
SEEDS = 2**128


def generate(
    model: LanguageModel,
    params: Params,
    prompts: Sequence[Any] | None = None,
    *,
    max_tokens: int | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
    stop: Iterable[int] = (),
    state: dict[str, Any] | None = None,
) -> Generation:
    """Return an iterator over the tokens that follow ``prompts``.

    Parameters
    ----------
    model : LanguageModel
    params : nested dict of arrays, of any library
    prompts : sequence of tokens, or of such sequences of any lengths
        None continues ``state`` as it is.
    max_tokens : int or None
        None: until every row has stopped, which may be never.
    temperature, top_k, top_p, min_p : as in ``ssmcore.sampling.Sampling``; the default is greedy
    seed : int
        Token n of row i depends on (seed, i, n) and its logits, on nothing else.
    stop : tokens that end a row; they are given out too
    state : ``Generation.state`` of an earlier call, after which ``prompts`` follow

    Returns
    -------
    Generation
        Gives an int for one prompt given flat, else int64 (rows,): -1 where a row has ended.

    Raises
    ------
    SSMError
        No prompt, an empty one, tokens that are not the vocabulary's, options that cannot be, a
        state of another model; logits that are not numbers.

    Notes
    -----
    The prompts run in chunks of 512 steps, then each token costs one step: O(1) time and memory
    whatever came before; with local attention too, whose window is part of the state.

    Examples
    --------
    >>> from ssmcore import networks
    >>> from ssmcore.generation import generate
    >>> model = networks.mamba(16, 8, 2)
    >>> params = model.init(0)
    >>> len(list(generate(model, params, [1, 2, 3], max_tokens=5)))
    5
    >>> run = generate(model, params, [[1, 2, 3], [4]], max_tokens=5, temperature=0.8, seed=1)
    >>> [tokens.shape for tokens in run]
    [(2,), (2,), (2,), (2,), (2,)]
    """
    _check_model(model)
    how = Sampling(temperature, top_k, top_p, min_p)
    how.check("generate")
    for name, value in (("max_tokens", max_tokens), ("seed", seed)):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        unbounded = value is None and name == "max_tokens"
        if not unbounded and not (whole and int(value or 0) >= 0):
            msg = f"generate: {name} is {value!r:.50}; expected a whole number of at least 0"
            raise SSMError(msg)
    if seed >= SEEDS:
        msg = f"generate: seed is {seed}; expected a whole number below 2**128"
        raise SSMError(msg)
    flat, rows = _rows(model, prompts, state)
    ends = frozenset(_ends(stop, model.vocab))
    return Generation(model, params, rows, state, how, int(seed), ends, max_tokens, flat)


def _check_model(model: object) -> None:
    if not isinstance(model, LanguageModel):
        msg = f"generate: model is {model!r:.80}; expected a LanguageModel"
        raise SSMError(msg)


class Generation:
    """The iterator that :func:`generate` returns. ``state`` is where it stands, to go on from.

    ``state`` is a nested dict of arrays: the network's, the logits of the next token, and how many
    tokens of each row were drawn. :func:`save_state` writes it to a file.
    """

    def __init__(
        self,
        model: LanguageModel,
        params: Params,
        rows: list[list[int]] | None,
        state: dict[str, Any] | None,
        how: Sampling,
        seed: int,
        ends: frozenset[int],
        max_tokens: int | None,
        flat: bool,
    ) -> None:
        self._how, self._seed, self._ends, self._flat = how, seed, ends, flat
        self._left = max_tokens
        self._machine = Machine(model, params)
        if rows is None:
            assert state is not None
            self._network, self._logits = state.get("network", {}), state["logits"].copy()
        else:
            before = None if state is None else state.get("network", {})
            self._network, self._logits = self._machine.prefill(rows, before)
        count = len(self._logits)
        self._drawn = np.zeros(count, np.int64) if state is None else state["drawn"].copy()
        self._alive = np.ones(count, bool)
        self._pending: np.ndarray[Any, Any] | None = None

    def __iter__(self) -> Generation:
        return self

    def __next__(self) -> Any:
        if self._left == 0 or not self._alive.any():
            raise StopIteration
        self._feed()
        tokens = np.full(len(self._alive), -1, np.int64)
        for row in np.flatnonzero(self._alive):
            tokens[row] = self._draw(int(row))
        self._pending = tokens
        self._drawn += self._alive
        self._alive = self._alive & ~np.isin(tokens, list(self._ends))
        self._left = None if self._left is None else self._left - 1
        return int(tokens[0]) if self._flat else tokens.copy()

    def _draw(self, row: int) -> int:
        logits = self._logits[row]
        if np.isnan(logits).any():
            msg = (
                f"generate: the logits of row {row} are not numbers at token {self._drawn[row]}; "
                "expected finite parameters, in a dtype with enough range"
            )
            raise SSMError(msg)
        place = np.random.Philox(key=self._seed, counter=[0, 0, int(self._drawn[row]), row])
        return self._how.draw(logits, np.random.Generator(place).random())

    def _feed(self) -> None:
        """Run the tokens that were drawn last through the network."""
        if self._pending is None:
            return
        self._network, logits = self._machine.step(self._pending, self._network)
        fed = self._pending >= 0
        self._logits = logits if fed.all() else np.where(fed[:, None], logits, self._logits)
        self._pending = None

    @property
    def state(self) -> dict[str, Any]:
        """Where the text stands, all tokens so far included."""
        self._feed()
        found = {"logits": self._logits.copy(), "drawn": self._drawn.copy()}
        return found | ({"network": self._network} if self._network else {})


class Machine:
    """A model at work on one library: prompts in, states and logits on the host out."""

    def __init__(self, model: LanguageModel, params: Params) -> None:
        self.model, self.params = model, model._check_params(params)
        self.example = next(x for _, x in arrays.leaves(self.params))
        self.owner = backends.of(self.example)

    def _here(self, x: np.ndarray[Any, Any]) -> Array:
        return self.owner.from_numpy(x.astype(np.int32), arrays.device(self.example))

    def prefill(
        self, rows: list[list[int]], state: Any
    ) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
        """Run prompts of any lengths in chunks, padded on the right."""
        lengths = np.asarray([len(row) for row in rows])
        logits = None
        for start in range(0, int(lengths.max()), CHUNK):
            here = np.clip(lengths - start, 0, CHUNK)
            chunk = np.zeros((len(rows), int(here.max())), np.int64)
            for i, row in enumerate(rows):
                chunk[i, : here[i]] = row[start : start + CHUNK]
            state, new = self._chunk(chunk, here, state)
            logits = new if logits is None else np.where(here[:, None] > 0, new, logits)
        assert logits is not None
        return state, logits

    def _chunk(
        self, chunk: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any], state: Any
    ) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
        run, compiled = _program(self.model, self.owner.name, "auto")
        if compiled:  # few lengths, so that few programs are compiled
            wide = 1 << (chunk.shape[1] - 1).bit_length()
            chunk = np.pad(chunk, ((0, 0), (0, wide - chunk.shape[1])))
        padded = None if (lengths == chunk.shape[1]).all() else self._here(lengths)
        return self._run(run, chunk, state, padded)

    def step(
        self, tokens: np.ndarray[Any, Any], state: Any
    ) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
        """Run one token per row; -1 leaves a row as it is."""
        run, _ = _program(self.model, self.owner.name, "recurrence")
        fed = tokens >= 0
        lengths = None if fed.all() else self._here(fed)
        return self._run(run, np.maximum(tokens, 0)[:, None], state, lengths)

    def _run(
        self, run: Callable[..., Any], tokens: np.ndarray[Any, Any], state: Any, lengths: Any
    ) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
        with self.owner.without_gradients():
            logits, after = run(self.params, self._here(tokens), state, lengths)
        return after, self.owner.to_numpy(logits)


@functools.lru_cache(maxsize=8)
def _program(model: LanguageModel, name: str, mode: str) -> tuple[Callable[..., Any], bool]:
    """Return the call that runs tokens (rows, L), and whether the library compiled it."""
    owner = backends.load(name)

    def run(params: Params, tokens: Array, state: Any, lengths: Array | None) -> Any:
        if mode == "recurrence" and lengths is None:
            return model.step(params, tokens[:, 0], state)
        return model(
            params,
            tokens,
            state,
            mode=mode,
            lengths=lengths,
            logits="last",
            return_state=True,
        )

    program = owner.compile(run)
    return program, program is not run


# ------------------------------------------------------------------------------------ arguments


def _rows(model: LanguageModel, prompts: Any, state: Any) -> tuple[bool, list[list[int]] | None]:
    """Return whether one prompt was given flat, and the prompts as lists."""
    rows = None if state is None else _state_rows(model, state)
    if prompts is None:
        if rows is None:
            msg = "generate: neither prompts nor state is given; expected one of them"
            raise SSMError(msg)
        return False, None
    given = _listed(prompts)
    if not given:
        msg = "generate: no prompt (an empty one, or a batch of zero); expected at least one token"
        raise SSMError(msg)
    flat = not isinstance(given[0], list)
    found = [
        _tokens(f"prompt {i}", row, model.vocab) for i, row in enumerate([given] if flat else given)
    ]
    empty = [i for i, row in enumerate(found) if not row]
    if empty:
        msg = f"generate: prompt {empty[0]} is empty; expected at least one token, such as <bos>"
        raise SSMError(msg)
    if rows is not None and rows != len(found):
        msg = f"generate: {len(found)} prompts for a state of {rows} rows; expected as many"
        raise SSMError(msg)
    return flat, found


def _listed(prompts: Any) -> list[Any]:
    """Return tokens, or rows of them, as lists."""
    given = prompts
    if hasattr(prompts, "dtype"):
        prompts = backends.to_numpy(prompts).tolist()
    if isinstance(prompts, str) or not isinstance(prompts, Iterable):
        msg = f"generate: prompts are {given!r:.50}; expected tokens, or sequences of tokens"
        raise SSMError(msg)
    if prompts is not given:
        return list(prompts)
    rows = [x.tolist() if hasattr(x, "tolist") else x for x in prompts]
    return [list(x) if isinstance(x, Iterable) and not isinstance(x, str) else x for x in rows]


def _ends(stop: Any, vocab: int) -> list[int]:
    if isinstance(stop, str) or not isinstance(stop, Iterable):
        msg = f"generate: stop is {stop!r:.50}; expected a sequence of tokens"
        raise SSMError(msg)
    return _tokens("stop", list(stop), vocab)


def _tokens(where: str, row: Any, vocab: int) -> list[int]:
    """Return a list of tokens of the vocabulary."""
    if not isinstance(row, list):
        msg = f"generate: {where} is {row!r:.50}; expected a sequence of tokens"
        raise SSMError(msg)
    for token in row:
        whole = isinstance(token, int | np.integer) and not isinstance(token, bool)
        if not whole or not 0 <= token < vocab:
            msg = f"generate: {where} has {token!r:.50}; expected tokens from 0 to {vocab - 1}"
            raise SSMError(msg)
    return [int(token) for token in row]


def _state_rows(model: LanguageModel, state: Any) -> int:
    """Return the number of rows of a state; SSMError for one of something else."""
    given = state if isinstance(state, dict) else {}
    logits: Any = given.get("logits")
    drawn: Any = given.get("drawn")
    fits = isinstance(logits, np.ndarray) and logits.ndim == 2 and logits.shape[1] == model.vocab
    counted = isinstance(drawn, np.ndarray) and drawn.dtype.kind == "i" and (drawn >= 0).all()
    if not (fits and counted and drawn.shape == logits.shape[:1]):
        msg = "generate: state is not that of a generation of this model; expected Generation.state"
        raise SSMError(msg)
    return len(logits)


# ---------------------------------------------------------------------------------- saved states


def save_state(path: str | os.PathLike[str], model: LanguageModel, state: dict[str, Any]) -> None:
    """Write ``Generation.state`` to a file, whole or not at all.

    Raises SSMError where it cannot be written or ``state`` is none of ``model``'s.
    """
    _state_rows(model, state)
    save(path, {"generation": module_config(model)}, backends.to_numpy(state))


def load_state(
    path: str | os.PathLike[str],
    model: LanguageModel,
    params: Params,
) -> dict[str, Any]:
    """Return a state written by :func:`save_state`, beside ``params``: its library and device.

    Raises SSMError for a file of something else or of another model.
    """
    config, state = load(path)
    if "generation" not in config:
        msg = f"{os.fspath(path)!r} holds no state of a generation; expected one of save_state"
        raise SSMError(msg)
    differs = difference(module_from_config(config["generation"]), model)
    if differs:
        msg = f"{os.fspath(path)!r} is a state of another model: {differs}"
        raise SSMError(msg)
    _state_rows(model, state)
    example = next(x for _, x in arrays.leaves(params))
    if "network" in state:
        owner = backends.of(example)
        state["network"] = backends.move(
            state["network"], backend=owner.name, device=arrays.device(example)
        )
    return state

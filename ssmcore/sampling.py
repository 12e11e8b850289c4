"""From logits to the next token: on the host in float64, the same for every array library.

Top-p: Holtzman et al., "The curious case of neural text degeneration", 2020; min-p: Nguyen et al.,
"Turning up the heat: min-p sampling", 2024.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ssmcore._arguments import check_count, check_number
from ssmcore.errors import SSMError

__all__ = ["Sampling"]


class Sampling(NamedTuple):
    """How a token is drawn from logits.

    Attributes
    ----------
    temperature : float
        0: the largest logit, the first of equal ones; else p = softmax(logits / temperature).
    top_k : int or None
        Keep the k likeliest, and whatever is as likely as the last of them.
    top_p : float or None
        Of those keep the likeliest until their share is at least top_p.
    min_p : float or None
        Of those keep what is at least min_p times as likely as the likeliest.

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.log(np.asarray([0.1, 0.6, 0.3]))
    >>> [Sampling(1.0).draw(logits, u) for u in (0.05, 0.5, 0.95)]
    [0, 1, 2]
    >>> [Sampling(1.0, top_k=2).draw(logits, u) for u in (0.05, 0.5, 0.95)]
    [1, 1, 2]
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def check(self, owner: str) -> None:
        """Raise SSMError for what cannot be."""
        check_number(owner, temperature=self.temperature)
        if not 0.0 <= self.temperature < math.inf:
            msg = f"{owner}: temperature is {self.temperature}; expected 0 (greedy) or more"
            raise SSMError(msg)
        if self.top_k is not None:
            check_count(owner, top_k=self.top_k)
        for name, value in (("top_p", self.top_p), ("min_p", self.min_p)):
            if value is None:
                continue
            check_number(owner, **{name: value})
            if not 0.0 < value <= 1.0:
                msg = f"{owner}: {name} is {value}; expected above 0 and at most 1"
                raise SSMError(msg)

    def draw(self, logits: np.ndarray[Any, Any], u: float) -> int:
        """Return the token that ``u``, uniform in [0, 1), picks from ``logits`` (vocab,)."""
        if self.temperature == 0.0:
            return int(np.argmax(logits))
        p = self.probabilities(logits)
        share = np.cumsum(p)
        token = np.searchsorted(share, u * share[-1], side="right")
        return int(min(token, np.flatnonzero(p)[-1]))

    def probabilities(self, logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return what each token is drawn with, float64 (vocab,); temperature above 0."""
        z = np.asarray(logits, dtype=np.float64)
        p = np.exp((z - z.max()) / self.temperature)
        if self.top_k is not None and self.top_k < p.size:
            p[p < np.partition(p, -self.top_k)[-self.top_k]] = 0.0
        if self.top_p is not None:
            order = np.argsort(-p, kind="stable")
            share = np.cumsum(p[order])
            count = int(np.searchsorted(share, self.top_p * share[-1], side="left")) + 1
            p[order[count:]] = 0.0
        if self.min_p is not None:
            p[p < self.min_p * p.max()] = 0.0
        kept: np.ndarray[Any, Any] = p / p.sum()
        return kept

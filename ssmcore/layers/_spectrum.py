"""Eigenvalues of dense real transition matrices, where they mean something."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmcore.errors import SSMError

__all__ = ["dense_eigenvalues"]

LARGEST = 16


def dense_eigenvalues(owner: str, A: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the eigenvalues of A (..., N, N) real as (..., N) complex128, sorted.

    A triangular matrix gives its diagonal, exact at every size; another one is decomposed
    numerically for N up to 16 only.
    """
    if not np.any(np.triu(A, 1)) or not np.any(np.tril(A, -1)):
        return np.sort_complex(np.diagonal(A, axis1=-2, axis2=-1).astype(np.complex128))
    if A.shape[-1] > LARGEST:
        msg = (
            f"{owner}: the eigenvalues of a dense non-normal matrix of size {A.shape[-1]} are lost "
            f"to rounding; expected d_state up to {LARGEST}. Look at the normal part, "
            "system(params).Lambda, or at the frequency response instead"
        )
        raise SSMError(msg)
    return np.sort_complex(np.linalg.eigvals(np.asarray(A, dtype=np.float64)))

"""Eigenvalues of dense real transition matrices, where they mean something."""

from __future__ import annotations

import numpy as np

from ssmcore import arrays, backend
from ssmcore.errors import SSMError
from ssmcore.typing import Array

__all__ = ["dense_eigenvalues"]

LARGEST = 16


def dense_eigenvalues(owner: str, A_bar: Array) -> Array:
    """Return the eigenvalues of A_bar (..., N, N) real as (..., N) complex, sorted.

    Decomposed on the host, and brought back beside ``A_bar``. A triangular matrix gives its
    diagonal, exact at every size; another one is decomposed numerically for N up to 16 only.
    """
    library = backend.of(A_bar)
    if not library.concrete(A_bar):
        msg = (
            f"{owner}: eigenvalues of a dense transition are computed on the host and cannot be "
            "traced; call eigenvalues() outside jit, grad and vmap"
        )
        raise SSMError(msg)
    A = library.to_numpy(A_bar)
    triangular = not np.any(np.triu(A, 1)) or not np.any(np.tril(A, -1))
    if not triangular and A.shape[-1] > LARGEST:
        msg = (
            f"{owner}: the eigenvalues of a dense non-normal matrix of size {A.shape[-1]} are lost "
            f"to rounding; expected d_state up to {LARGEST}. Look at the normal part, "
            "system(params).Lambda, or at the frequency response instead"
        )
        raise SSMError(msg)
    found = np.diagonal(A, axis1=-2, axis2=-1) if triangular else np.linalg.eigvals(A)
    return library.from_numpy(
        np.sort_complex(found.astype(np.result_type(A.dtype, np.complex64))), arrays.device(A_bar)
    )

"""S4's truncated output vector C~ = C (I - A_bar^L), and the way back to C."""

from __future__ import annotations

import numpy as np

from ssmcore.errors import SSMError

__all__ = ["bilinear_dense", "restore", "truncate", "untruncate"]


def bilinear_dense(dt: np.ndarray, lam: np.ndarray, P: np.ndarray) -> np.ndarray:
    """Return A_bar = (I - dt/2 A)^-1 (I + dt/2 A), A = diag(lam) - P P*, conjugates included.

    Parameters
    ----------
    dt : float64 (H,)
    lam : complex128 (H, N)
        One eigenvalue of each conjugate pair.
    P : complex128 (rank, H, N)

    Returns
    -------
    complex128 (H, 2N, 2N)
        On the states (x, conj x).

    Notes
    -----
    O(H N^3). S4 paper, arXiv:2111.00396, eq. 3.

    Examples
    --------
    >>> import numpy as np
    >>> A_bar = bilinear_dense(np.ones(1), np.full((1, 1), -2.0 + 0j), np.zeros((1, 1, 1)))
    >>> bool(abs(A_bar).max() == 0.0)
    True
    """
    lam = np.concatenate((lam, lam.conj()), axis=-1)
    P = np.concatenate((P, P.conj()), axis=-1)
    identity = np.eye(lam.shape[-1])
    A = lam[:, :, None] * identity - np.einsum("rhm,rhn->hmn", P, P.conj())
    half = 0.5 * dt[:, None, None] * A
    return np.linalg.solve(identity - half, identity + half)


def truncate(C: np.ndarray, A_bar: np.ndarray, length: int) -> np.ndarray:
    """Return C~ = C (I - A_bar^length), the stored half of it.

    Parameters
    ----------
    C : complex128 (ch, H, N)
    A_bar : complex128 (H, 2N, 2N)
    length : int

    Returns
    -------
    complex128 (ch, H, N)

    Examples
    --------
    >>> import numpy as np
    >>> float(truncate(np.ones((1, 1, 1)), 0.5 * np.eye(2)[None], 2)[0, 0, 0].real)
    0.75
    """
    full = np.concatenate((C, C.conj()), axis=-1)
    lost = np.einsum("chm,hmn->chn", full, np.linalg.matrix_power(A_bar, length))
    return np.asarray((full - lost)[..., : C.shape[-1]])


def untruncate(C_tilde: np.ndarray, A_bar: np.ndarray, length: int) -> np.ndarray:
    """Return C from C~ = C (I - A_bar^length): the inverse of :func:`truncate`.

    Raises SSMError where A_bar^length has the eigenvalue 1, so that C~ has lost part of C.
    """
    full = np.concatenate((C_tilde, C_tilde.conj()), axis=-1)
    M = np.eye(A_bar.shape[-1]) - np.linalg.matrix_power(A_bar, length)
    try:
        x = np.linalg.solve(np.swapaxes(M, -1, -2), np.moveaxis(full, 0, -1))
    except np.linalg.LinAlgError:
        x = np.full_like(np.moveaxis(full, 0, -1), np.nan)
    if not np.isfinite(x).all():
        msg = (
            f"C cannot be recovered from C~: I - A_bar^{length} is singular or not finite; "
            "expected a checkpoint with l_kernel = 0 (saved before the first forward pass)"
        )
        raise SSMError(msg)
    return np.moveaxis(x, -1, 0)[..., : C_tilde.shape[-1]]


def restore(
    C: np.ndarray,
    dt: np.ndarray,
    lam: np.ndarray,
    P: np.ndarray,
    *,
    length: int,
    is_tilde: bool,
    mask: np.ndarray,
    rate: float,
) -> np.ndarray:
    """Return the C whose system has the kernel that the original computes from its C~.

    The original keeps C~ for ``length`` at dt, masks it, and evaluates the kernel with dt * rate
    on length / rate nodes: k_l = mask C~ (I - A_rate^(length/rate))^-1 A_rate^l B_rate.

    Parameters
    ----------
    C : complex128 (ch, H, N)
        C~ where ``is_tilde``, else C.
    dt : float64 (H,)
    lam : complex128 (H, N)
    P : complex128 (rank, H, N)
    length : int
        Kernel length that C~ belongs to.
    is_tilde : bool
    mask : float64, broadcastable to (H, N)
    rate : float

    Returns
    -------
    complex128 (ch, H, N)

    Examples
    --------
    >>> import numpy as np
    >>> C, dt, lam = np.ones((1, 1, 1)) + 0j, np.ones(1), np.full((1, 1), -1.0 + 1j)
    >>> A_bar = bilinear_dense(dt, lam, np.zeros((1, 1, 1)))
    >>> back = restore(truncate(C, A_bar, 8), dt, lam, np.zeros((1, 1, 1)), length=8,
    ...                is_tilde=True, mask=np.array(1.0), rate=1.0)
    >>> bool(abs(back - C).max() < 1e-15)
    True
    """
    tilde = C if is_tilde else truncate(C, bilinear_dense(dt, lam, P), length)
    A_rate = bilinear_dense(dt * rate, lam, P)
    return untruncate(tilde * mask, A_rate, round(length / rate))

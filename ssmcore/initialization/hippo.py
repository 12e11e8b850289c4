"""HiPPO matrices and their normal plus low-rank (NPLR) form.

Papers: HiPPO (Gu, Dao, Ermon, Rudra, Ré 2020), arXiv 2008.07669; S4 (Gu, Goel, Ré 2022), arXiv
2111.00396, Theorem 1 and Appendix C.1; How to Train Your HiPPO (Gu, Johnson, Timalsina, Rudra,
Ré 2023), arXiv 2206.12037, for the Fourier measure.

Every measure but the DENSE ones satisfies ``A + P^T P = c I + S`` with S real and
skew-symmetric, so that -iS is Hermitian and A is unitarily similar to a diagonal matrix minus a
low-rank one.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ssmcore._arguments import is_finite
from ssmcore.errors import SSMError, check_choice

__all__ = ["NPLR", "hippo", "low_rank_correction", "nplr"]

RealArray: TypeAlias = NDArray[np.float64]
ComplexArray: TypeAlias = NDArray[np.complex128]

_EPS = float(np.finfo(np.float64).eps)

REAL_PART = {
    "legs": -0.5,
    "legt": 0.0,
    "lagt": 0.0,
    "fout": 0.0,
    "legsd": -0.5,
    "foud": -0.5,
    "fourier_decay": 0.0,
    "fourier2": 0.0,
}
"""The c of ``A + P^T P = c I + S``: the real part of every eigenvalue of the normal part."""

DENSE = ("lmu", "tlagt", "glagt")
"""Measures without a normal plus low-rank form."""

BETA = 0.01
"""The beta of "glagt": half of it is the rate at which the weight of the past falls off."""

_FOURIER = ("fout", "foud", "fourier_decay", "fourier2")


class NPLR(NamedTuple):
    """The stored half of ``A = V (diag(Lambda) - P^T conj(P)) V^*``, conjugate half implied.

    With the conjugate half joined, V is unitary and the system is the HiPPO one in the
    coordinates V^* x.

    Attributes
    ----------
    Lambda : (N/2,) complex128
        Eigenvalues of the normal part with Im >= 0, ascending in Im.
    P : (rank, N/2) complex128
        Low-rank vectors, V^* p of each row p of `low_rank_correction`.
    B : (N/2,) complex128
        Input vector V^* b.
    V : (N, N/2) complex128
        Eigenvectors, orthonormal; the first component that is not negligible is real positive.
    """

    Lambda: ComplexArray
    P: ComplexArray
    B: ComplexArray
    V: ComplexArray


def check_size(owner: str, option: str, value: int, *, multiple_of: int = 1) -> None:
    """Raise SSMError unless ``value`` is a positive integer multiple of ``multiple_of``."""
    integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if integer and value > 0 and value % multiple_of == 0:
        return
    expected = "a positive integer" if multiple_of == 1 else f"a positive multiple of {multiple_of}"
    why = "; eigenvalues are stored as conjugate pairs, so use an even size"
    msg = f"{owner}: {option} is {value!r}; expected {expected}{why if multiple_of == 2 else ''}"
    raise SSMError(msg)


def hippo(name: str, N: int) -> tuple[RealArray, RealArray]:
    """Return the HiPPO state matrix and input vector of a measure.

    ``x' = A x + B u`` with, for n, k = 0..N-1 and r_n = sqrt(2n+1)::

        legs  A_nk = -r_n r_k (n > k), -(n+1) (n = k), 0 (n < k)        B_n = r_n
        legt  A_nk = -r_n r_k / 2 (n >= k), -(-1)^(n-k) r_n r_k / 2     B_n = r_n / 2
        lagt  A_nk = -1 (n > k), -1/2 (n = k), 0 (n < k)                B_n = 1
        fout  A = pi J - B B^T, J of 2x2 blocks [[0, -f], [f, 0]]       B_n = sqrt(2) (n even), 0
              with f = 0, 1, .., N/2-1                                  B_0 = 1

    and their variants, b the vector B_n of "legs" or "fout"::

        legsd          A = A_legs + b b^T / 2     B = b / 2     the normal part of legs
        foud           A = 2 pi J - I / 2         B = b         normal
        fourier_decay  A = pi J - b b^T / 2       B = b / 2
        fourier2       A = 2 pi J - 2 b b^T       B = 2 b

    and three without a normal plus low-rank form, for dense layers::

        lmu    A_nk = (2n+1) (-1 (n < k), (-1)^(n-k+1) (n >= k))     B_n = (-1)^n (2n+1)
        tlagt  A_nk = -1 (n >= k), 0 (n < k)                         B_n = 1
        glagt  A_nk = -1 (n > k), -(1 + beta)/2 (n = k), 0 (n < k)   B_n = sqrt(beta)
               with beta = 0.01

    Parameters
    ----------
    name : {"legs", "legt", "lagt", "fout", "legsd", "foud", "fourier_decay", "fourier2", "lmu", \
            "tlagt", "glagt"}
        Measure: scaled Legendre, translated Legendre, translated Laguerre, truncated Fourier, or
        a variant; the Legendre memory unit, the tilted and the generalised Laguerre measure.
    N : int
        State size; even for the Fourier measures.

    Returns
    -------
    A : (N, N) float64
        State matrix, the minus sign included.
    B : (N,) float64
        Input vector.

    Raises
    ------
    SSMError
        For an unknown name, or an N that is not positive or, for a Fourier measure, odd.

    Notes
    -----
    O(N^2). "legs" is the time-invariant system of S4 eq. (2): the 1/t of the HiPPO paper is
    dropped, and the measure becomes exponentially warped. "legt" carries a factor 1/2 that sets
    its window to unit length at unit timescale.

    Examples
    --------
    >>> A, B = hippo("legs", 3)
    >>> A.round(3).tolist()
    [[-1.0, 0.0, 0.0], [-1.732, -2.0, 0.0], [-2.236, -3.873, -3.0]]
    >>> B.round(3).tolist()
    [1.0, 1.732, 2.236]
    """
    check_choice("hippo", "name", name, (*REAL_PART, *DENSE))
    check_size("hippo", "N", N, multiple_of=2 if name in _FOURIER else 1)
    n = np.arange(N)
    r = np.sqrt(2.0 * n + 1.0)
    if name in ("legs", "legsd"):
        A = np.tril(-np.outer(r, r), -1) - np.diag(n + 1.0)
        return (A, r) if name == "legs" else (A + 0.5 * np.outer(r, r), 0.5 * r)
    if name == "legt":
        sign = np.where(n[:, None] < n, (-1.0) ** (n[:, None] - n), 1.0)
        return -0.5 * sign * np.outer(r, r), 0.5 * r
    if name == "lmu":
        sign = np.where(n[:, None] < n, -1.0, (-1.0) ** (n[:, None] - n + 1))
        odd = np.asarray(2 * n + 1, dtype=np.float64)
        return odd[:, None] * sign, np.where(n % 2 == 0, odd, -odd)
    if name == "tlagt":
        return -np.tril(np.ones((N, N))), np.ones(N)
    if name == "glagt":
        return (0.5 - 0.5 * BETA) * np.eye(N) - np.tril(np.ones((N, N))), np.full(N, BETA**0.5)
    if name == "lagt":
        return 0.5 * np.eye(N) - np.tril(np.ones((N, N))), np.ones(N)
    return _fourier(name, N)


def _fourier(name: str, N: int) -> tuple[RealArray, RealArray]:
    B = np.zeros(N)
    B[0::2] = np.sqrt(2.0)
    B[0] = 1.0
    frequencies = np.repeat(np.arange(N // 2, dtype=np.float64), 2)[: N - 1]
    frequencies[1::2] = 0.0
    J = np.diag(frequencies, -1) - np.diag(frequencies, 1)
    if name == "foud":
        return 2 * np.pi * J - 0.5 * np.eye(N), B
    if name == "fourier_decay":
        return np.pi * J - 0.5 * np.outer(B, B), 0.5 * B
    if name == "fourier2":
        return 2 * np.pi * J - 2 * np.outer(B, B), 2 * B
    return np.pi * J - np.outer(B, B), B


def low_rank_correction(name: str, N: int, rank: int = 1) -> RealArray:
    """Return the low-rank vectors that make a HiPPO matrix normal.

    ``A + P^T P = c I + S``, S skew-symmetric, c = -1/2 for "legs", "legsd", "foud", else 0::

        legs           P_n = sqrt(n + 1/2)
        legt           P_n = sqrt(n + 1/2), odd n in the first row, even n in the second
        lagt           P_n = sqrt(1/2)
        fout           P = B, the B of the measure itself here and below
        fourier_decay  P = sqrt(2) B
        fourier2       P = B / sqrt(2)
        legsd, foud    P = 0: they are normal

    Parameters
    ----------
    name : str
        Measure, as for `hippo`, with a normal plus low-rank form.
    N : int
        State size; even for the Fourier measures.
    rank : int
        Number of rows; at least 2 for "legt". Rows that are not needed are zero.

    Returns
    -------
    P : (rank, N) float64
        Low-rank vectors, one a row.

    Raises
    ------
    SSMError
        For an unknown name, a bad N, or a rank that is too low.

    Notes
    -----
    O(rank N). S4, Appendix C.1.

    Examples
    --------
    >>> A, _ = hippo("lagt", 2)
    >>> P = low_rank_correction("lagt", 2)
    >>> (A + P.T @ P).round(3).tolist()
    [[0.0, 0.5], [-0.5, 0.0]]
    """
    check_choice("low_rank_correction", "name", name, REAL_PART)
    _, B = hippo(name, N)
    check_size("low_rank_correction", "rank", rank)
    if name == "legt" and rank < 2:
        msg = (
            f"low_rank_correction: rank is {rank}, but the correction of 'legt' has rank 2; "
            "use rank=2 or more"
        )
        raise SSMError(msg)
    n = np.arange(N)
    P = np.zeros((rank, N))
    if name == "legt":
        P[0, 1::2] = np.sqrt(n[1::2] + 0.5)
        P[1, 0::2] = np.sqrt(n[0::2] + 0.5)
    elif name == "legs":
        P[0] = np.sqrt(n + 0.5)
    elif name == "lagt":
        P[0] = np.sqrt(0.5)
    elif name in _FOURIER:
        P[0] = {"fout": 1.0, "foud": 0.0, "fourier_decay": 2**0.5, "fourier2": 0.5**0.5}[name] * B
    return P


def normal_eigenpairs(name: str, N: int, rank: int) -> tuple[RealArray, ComplexArray]:
    """Return omega (N,), ascending, and unitary V (N, N) with ``A + P^T P = c I + V i omega V^*``.

    The phases of the columns of V are as LAPACK left them.
    """
    A, _ = hippo(name, N)
    P = low_rank_correction(name, N, rank)
    normal = A + P.T @ P
    S = (normal - normal.T) / 2
    omega, V = np.linalg.eigh(-1j * S)
    return omega, V


def spectrum(name: str, omega: RealArray) -> ComplexArray:
    """Return c + i omega."""
    return np.asarray(REAL_PART[name] + 1j * omega, dtype=np.complex128)


def normalize_phases(V: ComplexArray) -> ComplexArray:
    """Turn each column so that its first component above sqrt(eps) of its largest is positive."""
    magnitude = np.abs(V)
    first = np.argmax(magnitude > np.sqrt(_EPS) * magnitude.max(axis=0), axis=0)
    columns = np.arange(V.shape[1])
    pivot = V[first, columns]
    V = V * (pivot.conj() / np.abs(pivot))
    V[first, columns] = V[first, columns].real
    return V


def nplr(name: str, N: int, rank: int = 1, *, b_clip: float | None = None) -> NPLR:
    """Return the normal plus low-rank form of a HiPPO system, half of each conjugate pair.

    ``A = 2 Re(V diag(Lambda) V^*) - p^T p`` for the rows p of `low_rank_correction`; in the
    coordinates V^* x, ``P = V^* p`` and ``B = V^* b``.

    Parameters
    ----------
    name : str
        Measure, as for `hippo`.
    N : int
        State size, even; N/2 numbers are stored.
    rank : int
        Rank of the correction; at least 2 for "legt".
    b_clip : float, optional
        Clamp Im(B) to [-b_clip, b_clip]. None, the default, keeps the HiPPO system.

    Returns
    -------
    NPLR
        Lambda (N/2,), P (rank, N/2), B (N/2,), V (N, N/2), all complex128.

    Raises
    ------
    SSMError
        For an unknown name, an odd N, a rank that is too low, or a b_clip that is no
        number >= 0.

    Notes
    -----
    O(N^3), once, in float64. S4, Theorem 1 and Appendix C.1.

    *Half.* Im(Lambda) >= 0 is kept, ascending. The original code keeps the conjugates (Im <= 0);
    both describe the same real system.

    *Phases.* An eigenvector is defined up to a phase. Here its first component that is not
    negligible (above sqrt(eps) of the largest) is real and positive, whatever the LAPACK. For
    "legs", "legt" and "lagt" it is component 0, which LAPACK's Hermitian solver also leaves
    real, up to sign: so ``b_clip`` clamps what the original clamps, where b_clip = 2. For "legs"
    ``B = V_0 (1 - 2i Im(Lambda))``, nearly imaginary, and the clamp takes most of B away: at
    N = 64, 11 of 32 entries, and a norm of 8.65 instead of 45.25.

    *Zero eigenvalues* ("fout" has one pair) leave the solver free to return any two vectors q_1,
    q_2 of the null space; a real basis is built and stored as the pair (q_1 + i q_2) / sqrt(2)
    and its conjugate, with Lambda = c exactly. The stored half is then made orthonormal to its
    conjugate to machine precision by one Newton step, also where eigenvalues nearly meet.

    *Real part.* Re(Lambda) is 0 for "legt", "lagt" and the Fourier measures but "foud": the normal
    part is not damped, the low-rank term is.

    Examples
    --------
    >>> system = nplr("legs", 4)
    >>> system.Lambda.round(3).tolist()
    [(-0.5+0.557j), (-0.5+4.603j)]
    >>> A, B = hippo("legs", 4)
    >>> V, P = system.V, low_rank_correction("legs", 4)
    >>> bool(np.allclose(2 * ((V * system.Lambda) @ V.conj().T).real - P.T @ P, A))
    True
    >>> bool(np.allclose(2 * (V @ system.B).real, B))
    True
    """
    check_choice("nplr", "name", name, REAL_PART)
    check_size("nplr", "N", N, multiple_of=2)
    if not (b_clip is None or b_clip == np.inf or (is_finite(b_clip) and b_clip >= 0)):
        msg = f"nplr: b_clip is {b_clip!r}; expected a number >= 0, or None for no clamp"
        raise SSMError(msg)
    omega, V = _half_spectrum(*normal_eigenpairs(name, N, rank))
    B = V.conj().T @ hippo(name, N)[1]
    P = low_rank_correction(name, N, rank) @ V.conj()
    if b_clip is not None:
        B.imag = np.clip(B.imag, -b_clip, b_clip)
    return NPLR(spectrum(name, omega), P, B, V)


def _half_spectrum(omega: RealArray, V: ComplexArray) -> tuple[RealArray, ComplexArray]:
    """Keep omega >= 0 of a spectrum symmetric about 0, null space paired, V orthonormalised."""
    N = omega.size
    null = np.abs(omega) <= N * _EPS * np.abs(omega).max()
    positive = (omega > 0) & ~null
    half = np.concatenate([_real_null_pairs(V[:, null]), V[:, positive]], axis=1)
    zeros = np.zeros(N // 2 - int(positive.sum()))
    return np.concatenate([zeros, omega[positive]]), normalize_phases(_orthonormalize(half))


def _real_null_pairs(V: ComplexArray) -> ComplexArray:
    """Return m vectors that, with their conjugates, are an orthonormal basis of the 2m of V."""
    projector = (V @ V.conj().T).real
    basis = np.empty(V.shape)
    for j in range(V.shape[1]):
        diagonal = np.diagonal(projector)
        k = int(np.argmax(diagonal > 0.5 * diagonal.max()))
        basis[:, j] = projector[:, k] / np.sqrt(projector[k, k])
        projector = projector - np.outer(basis[:, j], basis[:, j])
    pairs: ComplexArray = (basis[:, 0::2] + 1j * basis[:, 1::2]) / np.sqrt(2.0)
    return pairs


def _orthonormalize(V: ComplexArray) -> ComplexArray:
    """Move [V, conj V] to the nearest unitary matrix: a Newton step for the polar factor."""
    Q = np.sqrt(2.0) * np.concatenate([V.real, V.imag], axis=1)
    Q = 1.5 * Q - 0.5 * Q @ (Q.T @ Q)
    half = V.shape[1]
    nearest: ComplexArray = (Q[:, :half] + 1j * Q[:, half:]) / np.sqrt(2.0)
    return nearest

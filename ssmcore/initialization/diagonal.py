"""Initial spectra and matrices of the diagonal models S4D and S5.

Papers: S4D (Gu, Gupta, Goel, Ré 2022), arXiv 2206.11893; S5 (Smith, Warrington, Linderman 2023),
arXiv 2208.04933.
"""

from __future__ import annotations

import numpy as np

from ssmcore._arguments import check_flag, checked_generator, is_finite
from ssmcore.errors import SSMError, check_choice
from ssmcore.initialization.hippo import (
    ComplexArray,
    RealArray,
    check_size,
    normal_eigenpairs,
    normalize_phases,
    nplr,
    spectrum,
)

__all__ = [
    "s4d_eigenvalues",
    "s4d_input_vector",
    "s5_hippo_blocks",
    "s5_input_matrix",
    "s5_output_matrix",
]

_S4D_INITS = ("lin", "inv", "inv2", "quad", "legs", "real", "rand")
_INPUT_KINDS = ("constant", "random", "alternating", "unit-cw", "unit-ccw")
_OUTPUT_KINDS = ("lecun_normal", "trunc_standard_normal", "complex_normal")

TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a standard normal variable truncated to [-2, 2]."""


def s4d_eigenvalues(
    init: str,
    N: int,
    *,
    real_scale: float = 1.0,
    imag_scale: float = 1.0,
    real_random: bool = False,
    imag_random: bool = False,
    rng: np.random.Generator | None = None,
) -> ComplexArray:
    """Return the continuous-time eigenvalues with which S4D starts.

    ``lambda_n = real_scale Re + i imag_scale Im`` for n = 0..N/2-1::

        lin   -1/2 + i pi n                       inv   -1/2 + i (N/pi) (N/(2n+1) - 1)
        quad  -1/2 + i (1 + 2n)^2 / pi            inv2  -1/2 + i (N/pi) (N/(n+1) - 1)
        legs  -1/2 + i Im of nplr("legs", N)      real  -(n+1)
        rand  -1/2 + i exp(standard normal)

    ``real_random`` puts -U[0, 1] for -1/2, and -U[0, N/2] for "real"; ``imag_random`` puts
    U[0, N/2] for the n of "lin", "inv", "inv2" and "quad".

    Parameters
    ----------
    init : {"lin", "inv", "inv2", "quad", "legs", "real", "rand"}
        Name of the initialisation.
    N : int
        State size, even: N/2 conjugate pairs are stored.
    real_scale, imag_scale : float
        Factors on the real and imaginary parts.
    real_random, imag_random : bool
        Random instead of fixed parts.
    rng : numpy.random.Generator, optional
        Source of randomness, needed by "rand", ``real_random`` and ``imag_random``.

    Returns
    -------
    Lambda : (N/2,) complex128
        Eigenvalues with Im >= 0; "inv" and "inv2" come in descending order of Im.

    Raises
    ------
    SSMError
        For an unknown init, an odd N, a real_scale that is not positive, a scale that is not
        finite, a flag that is not True or False, or a random part without a generator.

    Notes
    -----
    O(N), "legs" O(N^3). S4D Section 4; the paper writes S4D-Lin with the factor pi, as here. The
    random parts are those of the original code.

    Examples
    --------
    >>> s4d_eigenvalues("lin", 6).round(3).tolist()
    [(-0.5+0j), (-0.5+3.142j), (-0.5+6.283j)]
    """
    check_choice("s4d_eigenvalues", "init", init, _S4D_INITS)
    check_size("s4d_eigenvalues", "N", N, multiple_of=2)
    check_flag("s4d_eigenvalues", real_random=real_random, imag_random=imag_random)
    if not (is_finite(real_scale) and real_scale > 0 and is_finite(imag_scale)):
        msg = (
            f"s4d_eigenvalues: real_scale is {real_scale!r} and imag_scale {imag_scale!r}; "
            "expected a finite positive and a finite number, so that Re(lambda) < 0"
        )
        raise SSMError(msg)
    if init == "rand" or real_random or imag_random or rng is not None:
        rng = checked_generator("s4d_eigenvalues", rng)
    rng = np.random.default_rng(0) if rng is None else rng
    real = _s4d_real(init, N, rng if real_random else None)
    n = rng.uniform(0, N / 2, N // 2) if imag_random else np.arange(N // 2, dtype=np.float64)
    imag = np.exp(rng.standard_normal(N // 2)) if init == "rand" else _s4d_imaginary(init, N, n)
    return np.asarray(-real_scale * real + 1j * imag_scale * imag, dtype=np.complex128)


def _s4d_real(init: str, N: int, rng: np.random.Generator | None) -> RealArray:
    if rng is not None:
        return np.asarray((N / 2 if init == "real" else 1.0) * (1.0 - rng.random(N // 2)))
    return np.arange(1.0, N // 2 + 1) if init == "real" else np.full(N // 2, 0.5)


def _s4d_imaginary(init: str, N: int, n: RealArray) -> RealArray:
    if init == "lin":
        return np.pi * n
    if init == "inv":
        return N / np.pi * (N / (2 * n + 1) - 1)
    if init == "inv2":
        return N / np.pi * (N / (n + 1) - 1)
    if init == "quad":
        return (1 + 2 * n) ** 2 / np.pi
    if init == "legs":
        return nplr("legs", N).Lambda.imag
    return np.zeros(n.size)


def s4d_input_vector(kind: str, N: int, *, rng: np.random.Generator | None = None) -> ComplexArray:
    """Return the input vector B with which S4D starts.

    ``B_n`` for n = 0..N/2-1::

        constant  1                   alternating  (-1)^n
        unit-cw   e^(2 pi i n / N)    unit-ccw     e^(-2 pi i n / N)
        random    complex normal, variance 1/2 a part

    Parameters
    ----------
    kind : {"constant", "random", "alternating", "unit-cw", "unit-ccw"}
        Name; the turning sense is that of the conjugate half, which the original stores.
    N : int
        State size, even: N/2 conjugate pairs are stored.
    rng : numpy.random.Generator, optional
        Source of randomness, needed by "random".

    Returns
    -------
    B : (N/2,) complex128
        Input vector, for eigenvalues with Im >= 0.

    Raises
    ------
    SSMError
        For an unknown kind, an odd N, or "random" without a generator.

    Notes
    -----
    O(N). The kinds are those of the original code of S4D.

    Examples
    --------
    >>> s4d_input_vector("unit-cw", 4).round(3).tolist()
    [(1+0j), 1j]
    """
    check_choice("s4d_input_vector", "kind", kind, _INPUT_KINDS)
    check_size("s4d_input_vector", "N", N, multiple_of=2)
    n = np.arange(N // 2)
    if kind == "random":
        rng = checked_generator("s4d_input_vector", rng)
        return _complex(rng.standard_normal((N // 2, 2)) * np.sqrt(0.5))
    if kind == "alternating":
        return np.asarray((-1.0) ** n, dtype=np.complex128)
    turn = {"constant": 0.0, "unit-cw": 2j * np.pi / N, "unit-ccw": -2j * np.pi / N}[kind]
    return np.asarray(np.exp(turn * n), dtype=np.complex128)


def s5_hippo_blocks(
    P_full: int, blocks: int, conj_sym: bool
) -> tuple[ComplexArray, ComplexArray, ComplexArray]:
    """Return the block-diagonal HiPPO-N spectrum and eigenvectors with which S5 starts.

    Each block is the normal part of HiPPO-LegS, ``A + P P^T = V diag(Lambda) V^*``.

    Parameters
    ----------
    P_full : int
        State size before conjugate halves are dropped.
    blocks : int
        Number of equal blocks; must divide P_full.
    conj_sym : bool
        Keep only the eigenvalues with Im < 0 of each block (P = P_full / 2), else all
        (P = P_full). Blocks must then have an even size.

    Returns
    -------
    Lambda : (P,) complex128
        Eigenvalues, ascending in Im within a block.
    V : (P_full, P) complex128
        Block-diagonal eigenvectors, phases as in `nplr`.
    Vinv : (P, P_full) complex128
        V^*: the inverse of V, or its left inverse when halved.

    Raises
    ------
    SSMError
        If blocks does not divide P_full, conj_sym is not True or False, or asks to halve an odd
        block.

    Notes
    -----
    O((P_full / blocks)^3 + P_full^2). S5 Appendix B.1. The low-rank term is
    dropped, as in S4D-LegS.

    Examples
    --------
    >>> Lambda, V, Vinv = s5_hippo_blocks(8, 2, conj_sym=True)
    >>> Lambda.round(2).tolist()
    [(-0.5-4.6j), (-0.5-0.56j), (-0.5-4.6j), (-0.5-0.56j)]
    >>> V.shape, Vinv.shape
    ((8, 4), (4, 8))
    """
    check_size("s5_hippo_blocks", "P_full", P_full)
    check_size("s5_hippo_blocks", "blocks", blocks)
    check_flag("s5_hippo_blocks", conj_sym=conj_sym)
    if P_full % blocks:
        msg = (
            f"s5_hippo_blocks: blocks is {blocks}, which does not divide P_full = {P_full}; "
            "choose a divisor"
        )
        raise SSMError(msg)
    size = P_full // blocks
    if conj_sym:
        check_size("s5_hippo_blocks", "block size P_full / blocks", size, multiple_of=2)
    kept = size // 2 if conj_sym else size
    omega, V_block = normal_eigenpairs("legs", size, 1)
    V = np.asarray(
        np.kron(np.eye(blocks), normalize_phases(V_block[:, :kept])), dtype=np.complex128
    )
    Lambda = np.tile(spectrum("legs", omega[:kept]), blocks)
    return Lambda, V, V.conj().T


def s5_input_matrix(rng: np.random.Generator, Vinv: ComplexArray, H: int) -> ComplexArray:
    """Draw the input matrix of S5 in eigenvector coordinates.

    ``B = Vinv B_0``, B_0 real, truncated normal of variance 1 / P_full.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    Vinv : (P, P_full) complex128
        From `s5_hippo_blocks`.
    H : int
        Number of input channels.

    Returns
    -------
    B : (P, H) complex128
        Input matrix.

    Raises
    ------
    SSMError
        If rng is no generator or H not a positive integer.

    Notes
    -----
    O(P P_full H). S5 Appendix B.1 names LeCun's initialisation; as in the original code its
    fan-in is the state size P_full, not the number of inputs H.

    Examples
    --------
    >>> _, V, Vinv = s5_hippo_blocks(8, 2, conj_sym=True)
    >>> s5_input_matrix(np.random.default_rng(0), Vinv, H=3).shape
    (4, 3)
    """
    rng = checked_generator("s5_input_matrix", rng)
    check_size("s5_input_matrix", "H", H)
    P_full = Vinv.shape[1]
    return Vinv @ _lecun_normal(rng, (P_full, H), fan_in=P_full)


def s5_output_matrix(rng: np.random.Generator, V: ComplexArray, H: int, kind: str) -> ComplexArray:
    """Draw the output matrix of S5 in eigenvector coordinates.

    ``C = C_0 V``, or for "complex_normal" C itself. The real and the imaginary part of an entry
    are independent, each of variance::

        trunc_standard_normal  1 / P_full        truncated
        lecun_normal           1 / (H P_full)    truncated
        complex_normal         1 / 2             not truncated, V not applied

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    V : (P_full, P) complex128
        From `s5_hippo_blocks`.
    H : int
        Number of output channels.
    kind : {"lecun_normal", "trunc_standard_normal", "complex_normal"}
        Distribution.

    Returns
    -------
    C : (H, P) complex128
        Output matrix.

    Raises
    ------
    SSMError
        For an unknown kind, an rng that is no generator, or an H that is not a positive integer.

    Notes
    -----
    O(H P_full P). S5 Appendix B.1. The variances are those of the original code, where the
    "standard" normal has fan-in P_full and "lecun_normal" counts H as a receptive field.

    Examples
    --------
    >>> _, V, _ = s5_hippo_blocks(8, 2, conj_sym=True)
    >>> s5_output_matrix(np.random.default_rng(0), V, 3, "complex_normal").shape
    (3, 4)
    """
    check_choice("s5_output_matrix", "kind", kind, _OUTPUT_KINDS)
    rng = checked_generator("s5_output_matrix", rng)
    check_size("s5_output_matrix", "H", H)
    P_full, P = V.shape
    if kind == "complex_normal":
        return _complex(rng.standard_normal((H, P, 2)) * np.sqrt(0.5))
    fan_in = P_full if kind == "trunc_standard_normal" else H * P_full
    return _complex(_lecun_normal(rng, (H, P_full, 2), fan_in)) @ V


def _complex(pair: RealArray) -> ComplexArray:
    return pair[..., 0] + 1j * pair[..., 1]


def _lecun_normal(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> RealArray:
    """Draw a normal truncated at two standard deviations, rescaled to variance 1 / fan_in."""
    draw = rng.standard_normal(shape)
    while (outside := np.abs(draw) > 2).any():
        draw[outside] = rng.standard_normal(int(outside.sum()))
    scaled: RealArray = draw / (TRUNCATED_STD * np.sqrt(fan_in))
    return scaled

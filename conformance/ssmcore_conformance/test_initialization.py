"""Initialisation: closed forms and published reference numbers, errors.

Reference numbers are compared to half a unit of the last digit quoted.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ssmcore import initialization as init

EPS = float(np.finfo(np.float64).eps)
MEASURES = ["legs", "legt", "lagt", "fout", "legsd", "foud", "fourier_decay", "fourier2"]
FOURIER = ("fout", "foud", "fourier_decay", "fourier2")
SIZES = [2, 4, 8, 64, 256]
SHIFT = dict.fromkeys(MEASURES, 0.0) | {"legs": -0.5, "legsd": -0.5, "foud": -0.5}
Floats = NDArray[np.float64]


def rank_of(name: str) -> int:
    return 2 if name == "legt" else 1


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def within(error: float, bound: float, what: str) -> None:
    print(f"{what}: worst error {error:.2e}, bound {bound:.2e}")
    assert error <= bound


def assert_quoted(value: float, quoted: str) -> None:
    decimals = len(quoted.partition(".")[2])
    within(abs(value - float(quoted)), 0.5 * 10.0**-decimals, f"{value:.6f} against {quoted}")


# --- HiPPO -----------------------------------------------------------------------------------


def entry(name: str, n: int, k: int) -> float:
    root = float(np.sqrt((2 * n + 1) * (2 * k + 1)))
    if name in ("legs", "legsd"):
        plain = -root if n > k else -(n + 1.0) if n == k else 0.0
        return plain + (0.5 * root if name == "legsd" else 0.0)
    if name == "legt":
        return -0.5 * root * ((-1.0) ** (k - n) if n < k else 1.0)
    if name == "lagt":
        return -1.0 if n > k else -0.5 if n == k else 0.0
    b = [1.0 if j == 0 else np.sqrt(2.0) if j % 2 == 0 else 0.0 for j in (n, k)]
    rotation = 0.0
    if n // 2 == k // 2 and n != k:
        rotation = np.pi * (n // 2) * (1.0 if n > k else -1.0)
    if name == "foud":
        return float(2 * rotation - (0.5 if n == k else 0.0))
    turns, outer = {"fout": (1, 1), "fourier_decay": (1, 0.5), "fourier2": (2, 2)}[name]
    return float(turns * rotation - outer * b[0] * b[1])


@pytest.mark.parametrize("name", MEASURES)
def test_hippo_entries(name: str) -> None:
    """The entries of the HiPPO matrices are those of their formulas."""
    N = 10
    A, B = init.hippo(name, N)
    expected = np.array([[entry(name, n, k) for k in range(N)] for n in range(N)])
    assert (A.dtype, B.dtype) == (np.dtype(np.float64),) * 2
    assert (A.shape, B.shape) == ((N, N), (N,))
    # two square roots and their product, against one root of the product: 4 roundings.
    within(float(np.max(np.abs(A - expected))), 4 * EPS * float(np.max(np.abs(A))), name)
    scale = {"legs": 1.0, "legt": 0.5, "legsd": 0.5}.get(name)
    if scale is not None:
        assert np.array_equal(B, scale * np.sqrt(2.0 * np.arange(N) + 1.0))
    elif name == "lagt":
        assert np.array_equal(B, np.ones(N))
    else:
        factor = {"fourier_decay": 0.5, "fourier2": 2.0}.get(name, 1.0)
        assert (B / factor).tolist() == [1.0, 0.0, *([2**0.5, 0.0] * (N // 2 - 1))]


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize("name", MEASURES)
def test_low_rank_correction_leaves_shift_plus_skew(name: str, N: int) -> None:
    """A + P^T P = c I + S with S skew-symmetric."""
    A, _ = init.hippo(name, N)
    P = init.low_rank_correction(name, N, rank_of(name))
    S = A + P.T @ P - SHIFT[name] * np.eye(N)
    # an entry of A and of P^T P is made by 3 roundings, their sum by 1; S + S^T adds two of them.
    worst = float(np.max(np.abs(S + S.T)))
    within(worst, 10 * EPS * float(np.max(np.abs(A))), f"{name} N={N} skew part")


@pytest.mark.parametrize("name", MEASURES)
def test_extra_ranks_are_zero(name: str) -> None:
    """Ranks beyond the correction are zero."""
    least = rank_of(name)
    P = init.low_rank_correction(name, 6, least + 2)
    assert P.shape == (least + 2, 6)
    assert np.array_equal(P[:least], init.low_rank_correction(name, 6, least))
    assert not P[least:].any()


@pytest.mark.parametrize(("name", "ratio"), [("legs", 2.0), ("lagt", 2.0)])
def test_input_is_sqrt2_times_correction(name: str, ratio: float) -> None:
    """B = sqrt(2) P for LegS and LagT."""
    system = init.nplr(name, 16)
    squares = np.abs(system.B) ** 2 / np.abs(system.P[0]) ** 2
    # B and P are the same real vector but for a factor, projected on V: errors N eps relative to
    # the norm, and entries are at least norm / N^2 here.
    within(float(np.max(np.abs(squares - ratio))), 16**3 * 4 * EPS, f"{name} |B|^2 / |P|^2")


# --- NPLR ------------------------------------------------------------------------------------


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize("name", MEASURES)
def test_nplr_reconstructs_the_system(name: str, N: int) -> None:
    """The NPLR form gives A and B back."""
    A, B = init.hippo(name, N)
    Lambda, P, B_tilde, V = init.nplr(name, N, rank_of(name))
    assert Lambda.shape == B_tilde.shape == (N // 2,)
    assert (P.shape, V.shape) == ((rank_of(name), N // 2), (N, N // 2))
    assert {x.dtype for x in (Lambda, P, B_tilde, V)} == {np.dtype(np.complex128)}

    unitary = np.concatenate([V, V.conj()], axis=1)
    gram = unitary.conj().T @ unitary
    # inner products of length N of unit vectors: N eps each, 4 for complex arithmetic.
    within(float(np.max(np.abs(gram - np.eye(N)))), 4 * N * EPS, f"{name} N={N} unitarity")

    low_rank = 2 * (V @ P.T).real
    rebuilt = 2 * ((V * Lambda) @ V.conj().T).real - low_rank @ low_rank.T
    # eigh is backward stable: N eps ||S||; the products lose N eps of ||S|| and ||P||^2 more.
    scale = float(np.max(np.abs(Lambda)) + 2 * np.sum(np.abs(P) ** 2))
    within(float(np.max(np.abs(rebuilt - A))), 4 * N * EPS * scale, f"{name} N={N} A")
    worst = float(np.max(np.abs(2 * (V @ B_tilde).real - B)))
    within(worst, 4 * N * EPS * float(np.linalg.norm(B)), f"{name} N={N} B")


@pytest.mark.parametrize("name", MEASURES)
def test_nplr_keeps_the_upper_half_in_order(name: str) -> None:
    """The stored half has Im lambda >= 0, ascending, with phases normalised."""
    Lambda, _, _, V = init.nplr(name, 64, 2)
    assert np.all(Lambda.real == SHIFT[name])
    assert np.all(Lambda.imag >= 0)
    assert np.all(np.diff(Lambda.imag) > 0)
    pivot = V[0::2].diagonal() if name in FOURIER else V[0]
    assert np.all(pivot.imag == 0)
    assert np.all(pivot.real > 0)


@pytest.mark.parametrize("N", [2, 4, 64])
def test_fourier_null_pair(N: int) -> None:
    """The null space of FouT is stored as one pair with lambda = c."""
    Lambda, _, B, V = init.nplr("fout", N)
    assert Lambda[0] == 0
    # N eps ||S||, ||S|| = pi (N/2 - 1).
    frequencies = np.pi * np.arange(N // 2)
    within(float(np.max(np.abs(Lambda.imag - frequencies))), N * EPS * np.pi * N / 2, "frequencies")
    expected = np.zeros(N)
    expected[:2] = np.sqrt(0.5)
    within(float(np.max(np.abs(np.abs(V[:, 0]) - expected))), 4 * N * EPS, "null vector")
    within(float(abs(B[0] - np.sqrt(0.5))), 4 * N * EPS, "B_0")


@pytest.mark.parametrize(
    ("name", "N", "n", "quoted"),
    [
        ("legs", 64, -1, "1303.27"),
        ("legs", 64, -2, "433.03"),
        ("legs", 64, -3, "258.15"),
        ("legs", 64, -4, "182.62"),
        ("legs", 64, -5, "140.21"),
        ("legs", 64, -6, "112.88"),
        ("legs", 64, 0, "0.2639"),
        ("legs", 64, 1, "0.9059"),
        ("legs", 64, 2, "1.703"),
        ("legt", 64, -1, "662.62"),
        ("lagt", 64, -1, "20.368"),
        ("fout", 64, -1, "97.389"),
        ("legs", 8, -1, "19.857"),
    ],
)
def test_reference_eigenvalues(name: str, N: int, n: int, quoted: str) -> None:
    """Published eigenvalues of the HiPPO matrices are met to their last digit."""
    assert_quoted(init.nplr(name, N, rank_of(name)).Lambda.imag[n], quoted)


def test_lagt_eigenvalues_in_closed_form() -> None:
    """The spectrum of LagT is that of its closed form."""
    N = 32
    # S is anticirculant with entries -1/2, +1/2: i omega with omega = cot((2j+1) pi / 2N) / 2.
    j = np.arange(N // 2)[::-1]
    omega = 0.5 / np.tan((2 * j + 1) * np.pi / (2 * N))
    worst = float(np.max(np.abs(init.nplr("lagt", N).Lambda.imag - omega)))
    within(worst, N * EPS * float(omega[-1]), "lagt eigenvalues")


def test_clamp_reproduces_the_reference() -> None:
    """Clamping Im B gives the published number of clamped entries and norm."""
    free, clamped = init.nplr("legs", 64), init.nplr("legs", 64, b_clip=2.0)
    assert_quoted(float(np.max(np.abs(free.B.imag))), "40.75")
    assert int(np.sum(free.B != clamped.B)) == 11
    assert_quoted(float(np.linalg.norm(free.B)), "45.25")
    assert_quoted(float(np.linalg.norm(clamped.B)), "8.65")
    assert np.array_equal(free.B.real, clamped.B.real)
    for kept in ("Lambda", "P", "V"):
        assert np.array_equal(getattr(free, kept), getattr(clamped, kept))


@pytest.mark.parametrize("N", SIZES)
def test_legs_input_in_closed_form(N: int) -> None:
    """B of LegS is V_0 (1 - 2i Im lambda)."""
    Lambda, _, B, V = init.nplr("legs", N)
    # row 0 of S v = i omega v; its residual is the backward error of eigh, N eps ||S||, doubled.
    worst = float(np.max(np.abs(B - V[0] * (1 - 2j * Lambda.imag))))
    within(worst, 4 * N * EPS * float(Lambda.imag[-1]), f"N={N} B = V_0 (1 - 2i omega)")


@pytest.mark.parametrize("name", MEASURES)
def test_nplr_does_not_depend_on_lapack_phases(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other phases and orders from the eigensolver give the same form."""
    N = 16
    expected = init.nplr(name, N, 2)
    eigh = np.linalg.eigh

    def other_lapack(M: NDArray[np.complex128]) -> tuple[Floats, NDArray[np.complex128]]:
        omega, V = eigh(M)
        V = V * np.exp(2j * np.pi * rng(1).random(N))
        if name in FOURIER:  # the null space, columns N/2-1 and N/2, in another basis
            mix = np.linalg.qr(rng(2).standard_normal((2, 2, 2)) @ np.array([1.0, 1j]))[0]
            V[:, N // 2 - 1 : N // 2 + 1] = V[:, N // 2 - 1 : N // 2 + 1] @ mix
        return omega, V

    monkeypatch.setattr(np.linalg, "eigh", other_lapack)
    actual = init.nplr(name, N, 2)
    # multiplying by a phase costs 4 eps an entry, which the phase of the pivot passes on divided
    # by the pivot's share of the vector; sums over N entries of B and P then multiply by ||B||.
    magnitude = np.abs(expected.V)
    pivot = np.where(magnitude > np.sqrt(EPS), magnitude, np.inf).min()
    bound = 16 * N * EPS / float(pivot) * (1 + float(np.linalg.norm(expected.B)))
    for field in ("Lambda", "P", "B", "V"):
        worst = float(np.max(np.abs(getattr(actual, field) - getattr(expected, field))))
        within(worst, bound, f"{name} {field}")


# --- S4D and S5 ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n", "quoted"),
    [
        ("legs", -1, "1303.3"),
        ("legs", -2, "433.0"),
        ("legs", -3, "258.2"),
        ("legs", -4, "182.6"),
        ("legs", 0, "0.264"),
        ("inv", 0, "1283.4"),
        ("inv", 1, "414.2"),
        ("inv", 2, "240.4"),
        ("inv", 3, "165.9"),
        ("inv", -1, "0.323"),
        ("lin", 0, "0"),
        ("lin", 1, "3.14159"),
        ("lin", -1, "97.39"),
        ("inv2", 0, "1283.4"),
        ("inv2", 1, "631.5"),  # (64/pi) (32 - 1)
        ("quad", 0, "0.318"),  # 1/pi
        ("quad", 31, "1263.4"),  # 63^2/pi
    ],
)
def test_s4d_reference_values(name: str, n: int, quoted: str) -> None:
    """Initial eigenvalues of S4D are the published ones."""
    Lambda = init.s4d_eigenvalues(name, 64)
    assert Lambda.dtype == np.complex128
    assert Lambda.shape == (32,)
    assert np.all(Lambda.real == -0.5)
    assert np.all(Lambda.imag >= 0)
    assert_quoted(float(Lambda.imag[n]), quoted)


def test_s4d_real_and_scales() -> None:
    """S4D-Real is -1, -2, ...; scales multiply."""
    assert init.s4d_eigenvalues("real", 8).tolist() == [-1, -2, -3, -4]
    plain = init.s4d_eigenvalues("inv", 8)
    scaled = init.s4d_eigenvalues("inv", 8, real_scale=2.0, imag_scale=0.25)
    assert np.array_equal(scaled, 2 * plain.real + 0.25j * plain.imag)


def test_s4d_random_parts_keep_to_their_ranges() -> None:
    """Random parts of S4D have the stated distributions."""
    N, draws = 64, 400
    for name, top in (("lin", 1.0), ("real", N / 2)):
        found = [init.s4d_eigenvalues(name, N, real_random=True, rng=rng(k)) for k in range(draws)]
        share = -np.concatenate(found).real / top
        assert 0 < share.min() < 0.01
        assert 0.99 < share.max() <= 1
        # the mean of n uniform numbers: standard deviation sqrt(1 / 12 n), five of them
        within(abs(float(share.mean()) - 0.5), 5 / np.sqrt(12 * share.size), f"{name} mean")
    turned = [init.s4d_eigenvalues("lin", N, imag_random=True, rng=rng(k)) for k in range(draws)]
    share = np.concatenate(turned).imag / (np.pi * N / 2)
    within(abs(float(share.mean()) - 0.5), 5 / np.sqrt(12 * share.size), "imag mean")
    normal = np.log([init.s4d_eigenvalues("rand", N, rng=rng(k)).imag for k in range(draws)])
    within(abs(float(normal.mean())), 5 / np.sqrt(normal.size), "rand mean")
    within(abs(float(normal.var()) - 1), 5 * np.sqrt(2 / normal.size), "rand variance")


def test_s4d_input_vectors() -> None:
    """Initial B of S4D is that of its formula."""
    N = 8
    root = np.exp(2j * np.pi / N)
    expected = {
        "constant": [1, 1, 1, 1],
        "alternating": [1, -1, 1, -1],
        "unit-cw": [1, root, 1j, 1j * root],
        "unit-ccw": [1, 1 / root, -1j, -1j / root],
    }
    for kind, B in expected.items():
        worst = float(np.abs(init.s4d_input_vector(kind, N) - np.array(B)).max())
        within(worst, 4 * EPS, kind)
    drawn = np.concatenate([init.s4d_input_vector("random", 64, rng=rng(k)) for k in range(400)])
    for part in (drawn.real, drawn.imag):
        within(abs(float(part.var()) - 0.5), 5 * 0.5 * np.sqrt(2 / part.size), "variance 1/2")


@pytest.mark.parametrize(
    ("size", "lowest", "highest"),
    [
        (16, "-80.97", "-0.352"),
        (32, "-325.4", "-0.301"),
        (2, "-0.866", "-0.866"),
        (128, "-5214.7", "-0.235"),
    ],
)
def test_s5_reference_ranges(size: int, lowest: str, highest: str) -> None:
    """The spectra of blocks of S5 have the published ranges."""
    Lambda, _, _ = init.s5_hippo_blocks(size, 1, conj_sym=True)
    assert_quoted(float(Lambda.imag[0]), lowest)
    assert_quoted(float(Lambda.imag[-1]), highest)


@pytest.mark.parametrize(
    ("P_full", "blocks", "conj_sym"),
    [(16, 1, True), (16, 4, True), (16, 4, False), (9, 3, False), (64, 8, True), (4, 4, False)],
)
def test_s5_blocks_diagonalise_the_normal_part(P_full: int, blocks: int, conj_sym: bool) -> None:
    """V Lambda V^* is the normal part of HiPPO-LegS, block by block."""
    Lambda, V, Vinv = init.s5_hippo_blocks(P_full, blocks, conj_sym)
    size, P = P_full // blocks, P_full // (2 if conj_sym else 1)
    assert (Lambda.shape, V.shape, Vinv.shape) == ((P,), (P_full, P), (P, P_full))
    assert np.all(Lambda.real == -0.5)
    by_block = Lambda.imag.reshape(blocks, -1)
    assert np.all(np.diff(by_block, axis=1) > 0)
    assert np.all(by_block == by_block[0])
    assert not conj_sym or np.all(Lambda.imag < 0)
    within(float(np.max(np.abs(Vinv @ V - np.eye(P)))), 4 * P_full * EPS, "V^* V = I")

    A, _ = init.hippo("legs", size)
    p = init.low_rank_correction("legs", size)
    expected = np.kron(np.eye(blocks), A + p.T @ p)
    product = (V * Lambda) @ Vinv
    rebuilt = 2 * product.real if conj_sym else product
    # as for nplr: backward error of eigh and of the product, N eps ||S||.
    bound = 8 * size * EPS * float(np.max(np.abs(Lambda)))
    within(float(np.max(np.abs(rebuilt - expected))), bound, "V Lambda V^*")

"""Random numbers from a key, and dropout: the same everywhere, and as random as they must be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ssmcore import blocks, random
from ssmcore.errors import SSMError
from ssmcore_conformance.running import call

MANY = 1 << 16


def test_same_numbers(ssm_backend: Any) -> None:
    """Bit by bit those of Python's own integers, from numbers or arrays as keys."""
    like = np.zeros(1, "float32")
    for key in (7, (3, 2**32 - 1)):
        got = call(ssm_backend, lambda x, key=key: random.bits(key, (2, 5), x), like)
        np.testing.assert_array_equal(got.astype("int64"), plain_bits(key, 10).reshape(2, 5))
    pair = np.asarray([3, 4], "int32")
    got = call(ssm_backend, lambda x, k: random.bits(random.fold_in(k, 5), (4,), x), like, pair)
    np.testing.assert_array_equal(got.astype("int64"), plain_bits(random.fold_in((3, 4), 5), 4))
    one = np.asarray(9, "int32")
    got = call(ssm_backend, lambda x, k: random.bits(k, (4,), x), like, one)
    np.testing.assert_array_equal(got.astype("int64"), plain_bits(9, 4))


def plain_bits(key: Any, count: int) -> Any:
    """Return the words by the definition, in Python's integers."""
    k0, k1 = key if isinstance(key, tuple) else (key & (2**32 - 1), key >> 32)

    def mix(x: int) -> int:
        x ^= x >> 16
        x = x * 0x21F0AAAD % 2**32
        x ^= x >> 15
        x = x * 0x735A2D97 % 2**32
        return x ^ x >> 15

    return np.asarray([mix((mix(i ^ k0) + k1) % 2**32) for i in range(count)])


@pytest.mark.parametrize("key", [0, 1, 2**40, random.fold_in(0, 0)])
def test_every_bit_is_a_coin(key: Any) -> None:
    """Each of the 32 bits, and its agreement with the next number's, is set half of the time.

    By Chebyshev 6 standard deviations of a fair coin over 2^16 throws are passed once in 36, by the
    normal limit once in 5e8.
    """
    words = random.bits(key, (MANY,), np.zeros(1)).astype("int64")
    bound = 6 * 0.5 / np.sqrt(MANY)
    for x in (
        words,
        words[1:] ^ words[:-1],
        words ^ random.bits(random.fold_in(key, 1), (MANY,), words),
    ):
        share = np.asarray([(x >> k & 1).mean() for k in range(32)])
        assert np.all(np.abs(share - 0.5) < bound)


def test_uniform_is_uniform() -> None:
    """The largest gap to the line (Kolmogorov, Smirnov); never 1; multiples of 2^-24."""
    x = np.sort(random.uniform(5, (MANY,), np.zeros(1, "float32")).astype("float64"))
    gap = np.max(np.abs(x - (np.arange(MANY) + 0.5) / MANY))
    assert gap < 2.5 / np.sqrt(MANY)  # passed once in 3.7e5: 2 exp(-2 2.5^2)
    assert x[0] >= 0
    assert x[-1] < 1
    np.testing.assert_array_equal(x * 2**24, np.round(x * 2**24))


def test_keys_differ() -> None:
    """10^4 keys folded from one are all different, and so are their first numbers."""
    keys = [random.fold_in(0, i) for i in range(10_000)]
    assert len(set(keys)) == len(keys)
    first = {int(random.bits(key, (1,), np.zeros(1))[0]) for key in keys[:1000]}
    assert len(first) >= 999  # two of 1000 words of 32 bits agree once in 8600


@pytest.mark.parametrize("tie", [False, True])
def test_dropout(ssm_backend: Any, tie: bool) -> None:
    """The same mask everywhere; kept numbers are scaled; the share kept is 1 - rate."""
    u = np.ones((2, 64, 32), "float32")
    drop = blocks.Dropout(32, 0.25, tie)
    y = call(ssm_backend, lambda x: drop({}, x, key=3), u)
    np.testing.assert_array_equal(y, drop({}, u, key=3))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert np.all(y == y[:, :1]) == tie
    throws = y[:, :1].size if tie else y.size
    assert abs(np.mean(y > 0) - 0.75) < 6 * np.sqrt(0.25 * 0.75 / throws)
    np.testing.assert_array_equal(drop({}, u), u)


def test_every_dropout_has_its_own_mask() -> None:
    """Two parts of a module, two layers of a stack: different masks from one key."""
    stack = blocks.Stack((blocks.Dropout(64, 0.5), blocks.Dropout(64, 0.5)))
    y = stack({}, np.ones((64, 64)), key=0)
    assert abs(np.mean(y > 0) - 0.25) < 6 * np.sqrt(0.25 * 0.75 / y.size)


@pytest.mark.parametrize("key", [-1, 1.5, "x", True, (1,), np.zeros(3, int), np.zeros(2)])
def test_what_is_no_key(key: Any) -> None:
    """What is no key of random numbers is refused."""
    with pytest.raises(SSMError, match=r"key is .*; expected a whole number"):
        blocks.Dropout(4, 0.5)({}, np.ones((1, 4)), key=key)

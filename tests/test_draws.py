"""The draws behind every random choice: distributed as they should be, apart, and pinned."""

import itertools
import math

import numpy as np

from alexnet.data import draws

PINNED_BITS = [2391539541053276776, 11223592508116050971, 13532766175163487890]
PINNED_ORDER = [6, 0, 3, 7, 4, 5, 2, 1]
PINNED_SEED = 3031638231463043932


def test_uniform_is_uniform() -> None:
    n, cells = 100_000, 50
    for seed, epoch, purpose in ((0, 0, 0), (0, 0, 1), (1, 0, 0), (0, 7, 3), (2**62, 9, 8)):
        u = draws.uniform(seed, epoch, np.arange(n), purpose)
        assert (u >= 0).all()
        assert (u < 1).all()
        assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / n)
        assert abs(u.var() - 1 / 12) < 0.001
        counts = np.bincount((u * cells).astype(int), minlength=cells)
        chi2 = ((counts - n / cells) ** 2 / (n / cells)).sum()
        assert abs(chi2 - (cells - 1)) < 5 * math.sqrt(2 * (cells - 1))
        assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 5 / math.sqrt(n)


def test_keys_do_not_share_draws() -> None:
    ids = np.arange(20_000)
    streams = [
        draws.uniform(seed, epoch, ids, purpose)
        for seed, epoch, purpose in itertools.product((0, 1), (0, 1), (0, 1))
    ]
    for a, b in itertools.combinations(streams, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(len(ids))


def test_draws_are_pinned() -> None:
    """These numbers are in every recorded result and checkpoint: they may never change."""
    found = draws.bits(0, 0, np.arange(3), draws.ORDER).tolist()
    assert found == PINNED_BITS
    assert draws.permutation(3, 2, 8).tolist() == PINNED_ORDER
    assert draws.net_seed(5, 17) == PINNED_SEED
    names = ("ORDER", "CROP_Y", "CROP_X", "FLIP", "ANGLE", "ZOOM_Y", "ZOOM_X", "CUT_Y", "CUT_X")
    assert [getattr(draws, name) for name in (*names, "SPLIT", "NET", "INIT")] == list(range(12))


def test_splitmix_is_splitmix() -> None:
    """The chain written with Python's unbounded integers."""
    mask = 2**64 - 1

    def slow(*words: int) -> int:
        state = 0
        for word in words:
            state = (state + word * 0xBF58476D1CE4E5B9 + 0x9E3779B97F4A7C15) & mask
            state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & mask
            state = ((state ^ state >> 27) * 0x94D049BB133111EB) & mask
            state ^= state >> 31
        return state

    for key in ((0, 0, 0, 0), (7, 3, 123456, 4), (2**63 - 1, 10**9, 5, 11)):
        assert int(draws.bits(key[0], key[1], key[2], key[3])) == slow(*key)


def test_permutation_shuffles() -> None:
    order = draws.permutation(0, 0, 500)
    assert sorted(order) == list(range(500))
    assert (order == np.arange(500)).sum() < 10
    for other in (draws.permutation(0, 1, 500), draws.permutation(1, 0, 500)):
        assert sorted(other) == list(range(500))
        assert (order == other).sum() < 10
    assert (draws.permutation(0, 0, 500) == order).all()


# Normal draws


def test_normal_is_normal() -> None:
    n = 100_000
    z = draws.normal(3, 1, np.arange(n), draws.RED)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 5 * math.sqrt(variance / n), power
    for bound in (1.0, 2.0, 3.0, 4.0):
        for tail in ((z > bound).mean(), (z < -bound).mean()):
            p = math.erfc(bound / math.sqrt(2)) / 2
            assert abs(tail - p) < 5 * math.sqrt(p / n), bound
    cdf = (1 + np.array([math.erf(v / math.sqrt(2)) for v in np.sort(z)])) / 2
    rank = np.arange(n) / n
    distance = max((cdf - rank).max(), (rank + 1 / n - cdf).max())
    assert distance < 1.95 / math.sqrt(n)  # exceeded once in a thousand


def test_normal_draws_of_other_keys_have_nothing_in_common() -> None:
    ids = np.arange(20_000)
    keys = list(itertools.product((0, 1), (0, 1), (draws.RED, draws.GREEN, draws.BLUE)))
    streams = [draws.normal(seed, epoch, ids, purpose) for seed, epoch, purpose in keys]
    for a, b in itertools.combinations(streams, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(len(ids))
    assert (draws.normal(0, 0, ids, draws.RED) == streams[0]).all()

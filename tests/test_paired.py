"""Statistics of many cells over the same prompts, against scipy, closed forms and plain loops."""
import itertools

import numpy as np
import pytest
from scipy import stats

from workbench.experiments.paired import false_discovery, mean_interval, sign_flip, too_few
from workbench.lm.errors import WorkbenchError


@pytest.mark.parametrize("n", [6, 12, 60])
def test_the_interval_catches_the_truth_as_often_as_theory_says(n):
    "Plain percentiles of normal values: P(|t| <= z sqrt((n-1)/n)); expanded ones: the level."
    cells, x = 6000, np.random.default_rng(n).normal(3, 2, (n, 6000))
    z = stats.norm.ppf(.95)
    for expand, want in (False, 1 - 2 * stats.t.sf(z * np.sqrt((n - 1) / n), n - 1)), (True, .9):
        got = mean_interval(x, level=.9, n_resamples=1000, expand=expand)
        share = ((got.low <= 3) & (3 <= got.high)).mean()
        assert abs(share - want) < 4 * np.sqrt(want * (1 - want) / cells) + .01, (n, expand, share, want)


def test_the_interval_is_scipys():
    x = np.random.default_rng(0).gamma(2, 1, (25, 5))
    got = mean_interval(x, n_resamples=20_000, expand=False)
    for c in range(5):
        want = stats.bootstrap((x[:, c],), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)).confidence_interval
        width = want.high - want.low
        assert abs(got.low[c] - want.low) < .04 * width and abs(got.high[c] - want.high) < .04 * width
    assert np.allclose(got.estimate, x.mean(0))


def test_a_large_offset_changes_nothing_but_the_place():
    x = np.random.default_rng(0).normal(0, 1e-3, (20, 3))
    a, b = mean_interval(x), mean_interval(x + 1e6)
    assert np.allclose(b.low - 1e6, a.low, atol=1e-8) and np.allclose(b.high - b.low, a.high - a.low, atol=1e-8)


def test_memory_is_bounded_and_chunks_change_nothing(monkeypatch):
    import workbench.experiments.paired as paired
    x = np.random.default_rng(0).normal(size=(9, 4, 50)); whole, p = mean_interval(x), sign_flip(x, 100)
    monkeypatch.setattr(paired, "BUDGET", 3 * 2000)
    small = mean_interval(x)
    assert np.allclose(small.low, whole.low, rtol=0, atol=1e-14) and small.low.shape == (4, 50) and (sign_flip(x, 100) == p).all()


def test_exact_by_enumeration_and_scipy_agrees():
    x = np.random.default_rng(3).normal(.4, 1, (8, 30)); got = sign_flip(x)
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    brute = [(np.abs(signs @ x[:, c]) >= abs(x[:, c].sum()) - 1e-12).mean() for c in range(30)]
    assert np.allclose(got, brute)
    theirs = stats.permutation_test((x,), lambda v, axis: np.mean(v, axis=axis), permutation_type="samples", n_resamples=np.inf, vectorized=True, axis=0).pvalue
    assert np.allclose(got, theirs)


def test_sampled_flips_come_near_the_exact_value():
    x = np.random.default_rng(4).normal(.3, 1, (11, 40))
    exact, drawn = sign_flip(x, 10_000), sign_flip(x, 1500)
    assert (np.abs(exact - drawn) < 4 * np.sqrt(exact * (1 - exact) / 1500) + 2e-3).all() and (exact != drawn).any()


def test_p_is_uniform_when_nothing_happens():
    for n, flips in (9, 10_000), (30, 1000):
        p = sign_flip(np.random.default_rng(n).standard_t(4, (n, 4000)), flips)
        for level in (.01, .05, .25, .5): assert abs((p <= level).mean() - level) < 4 * np.sqrt(level * (1 - level) / 4000) + 1 / min(2 ** (n - 1), flips)
    assert sign_flip(np.random.default_rng(0).normal(1, 1, (40, 50))).max() < .01, "a real effect is found"


def test_equal_values_in_any_order_count_as_equal():
    "Rounding must not break ties: 0.1 + 0.2 - 0.3 is zero."
    assert sign_flip([.1, .2, -.3]) == 1 and sign_flip(np.full(6, .1)) == 2 ** -5


def test_false_discoveries():
    p = np.random.default_rng(0).uniform(size=(6, 7)) ** 3
    assert np.allclose(false_discovery(p).ravel(), stats.false_discovery_control(p.ravel()))
    holes = p.copy(); holes[0, :3] = np.nan
    got = false_discovery(holes)
    assert np.isnan(got[0, :3]).all() and np.allclose(got.ravel()[3:], stats.false_discovery_control(p.ravel()[3:]))
    shares = []                                            # 900 empty cells, 100 real ones: at most 5 % (here 4.5 %) of what is called real is false
    for seed in range(20):
        x = np.random.default_rng(seed).normal(0, 1, (20, 1000)); x[:, :100] += 1.2
        called = false_discovery(stats.ttest_1samp(x, 0).pvalue) < .05
        shares.append(called[100:].sum() / called.sum()); assert called[:100].mean() > .8
    assert np.mean(shares) < .06


def test_missing_values_are_dropped_cell_by_cell():
    x = np.random.default_rng(0).normal(.5, 1, (15, 3)); y = x.copy(); y[[2, 7, 8], 1] = np.nan; y[1:, 2] = np.nan
    got, own = mean_interval(y), mean_interval(np.delete(x[:, 1], [2, 7, 8]))
    assert got.n.tolist() == [15, 12, 1] and (got.low[1], got.high[1]) == (own.low, own.high)
    assert got.estimate[2] == x[0, 2] and np.isnan([got.low[2], got.high[2]]).all() and "1 of 3 cells" in got.reason
    p = sign_flip(y); assert p[1] == sign_flip(np.delete(x[:, 1], [2, 7, 8])) and np.isnan(p[2])
    assert mean_interval(x).reason is None and too_few(np.array([0, 5])).startswith("1 of 2")
    empty = mean_interval(np.full((4, 1), np.nan)); assert np.isnan(empty.estimate).all() and empty.n == 0


def test_what_is_refused():
    for call, said in ((lambda: mean_interval([1., np.inf]), "infinite"), (lambda: mean_interval([1., 2.], level=95), "between 0 and 1"),
                       (lambda: mean_interval(3.), "first axis"), (lambda: sign_flip([1., 2.], 1), "n_flips"), (lambda: false_discovery([1.2]), "between 0 and 1")):
        with pytest.raises(WorkbenchError, match=said): call()

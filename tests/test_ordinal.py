"""Models of ordered answers against numbers published elsewhere, against slow ones, and against what was planted."""
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from workbench.experiments.ordinal import OrdinalError, _design, brant, columns, factorial, likelihood_ratio, ordinal

COUNTS = {("cold", "no"): [4, 9, 5, 0, 0], ("cold", "yes"): [1, 7, 8, 2, 0], ("warm", "no"): [0, 5, 8, 3, 2], ("warm", "yes"): [0, 1, 5, 7, 5]}    # Randall 1989
WINE = pd.DataFrame([(t, c, r) for (t, c), n in COUNTS.items() for r, k in enumerate(n, 1) for _ in range(k)], columns=["temp", "contact", "rating"])


def simulated(rng, n, beta=(.8, -.5), own=(.6, 0., -.4), theta=(-1.2, .2, 1.5), clusters=None):
    "Answers of a partial model: x1, x2 act the same everywhere, w on its own at each step. `clusters`: answers of a cluster are equal."
    x, w = rng.normal(size=(n, 2)), rng.integers(0, 2, n)
    if clusters: x, w = x[clusters_of(n, clusters)], w[clusters_of(n, clusters)]
    F = expit(np.array(theta) + w[:, None] * np.array(own) - (x @ beta)[:, None]); u = rng.random(n)
    y = (u[clusters_of(n, clusters)] if clusters else u)[:, None] > F
    return y.sum(1), pd.DataFrame(x, columns=["x1", "x2"]), pd.DataFrame({"w": w})


def clusters_of(n, size): return np.arange(n) // size * size


def test_the_wine_is_as_bitter_as_published():
    fit = ordinal(WINE.rating, columns(WINE, ["temp", "contact"])); t = fit.table()
    assert np.allclose(fit.b, [-1.3444, 1.2508, 3.4669, 5.0064, 2.5031, 1.5278], atol=5e-5) and np.allclose(t.error[-2:], [.5287, .4766], atol=5e-5) and round(fit.log_likelihood, 2) == -86.49
    partial = ordinal(WINE.rating, columns(WINE, ["temp"]), columns(WINE, ["contact"])); assert round(partial.b[-1], 3) == 2.519 and round(partial.log_likelihood, 2) == -86.21
    assert likelihood_ratio(fit, partial)["df"] == 3 and likelihood_ratio(fit, partial)["p"] > .8


def test_scores_and_information_are_the_derivatives():
    rng = np.random.default_rng(0); y, x, w = simulated(rng, 300); d = _design(y, x, w, None); b = ordinal(y, x, w).b + rng.normal(size=8) * .02
    step = np.eye(len(b)) * 1e-5; value, scores, info = d.look(b)
    assert np.allclose(scores.sum(0), [(d.look(b + s)[0] - d.look(b - s)[0]) / 2e-5 for s in step], atol=1e-4)
    assert np.allclose(info, [-(d.look(b + s)[1].sum(0) - d.look(b - s)[1].sum(0)) / 2e-5 for s in step], atol=1e-3)


def test_the_maximum_is_that_of_a_search_without_derivatives():
    y, x, w = simulated(np.random.default_rng(1), 400); fit = ordinal(y, x, w)
    def loss(b):
        F = np.column_stack([np.zeros(400), expit(b[:3] + w.to_numpy() * b[3:6] - (x.to_numpy() @ b[6:])[:, None]), np.ones(400)]); p = np.diff(F, axis=1)[np.arange(400), y]
        return np.inf if (p <= 0).any() else -np.log(p).sum()
    slow = minimize(loss, np.r_[-1., 0, 1, np.zeros(5)], method="Nelder-Mead", options=dict(maxiter=20000, maxfev=20000, xatol=1e-7, fatol=1e-10))
    for _ in range(6): slow = minimize(loss, slow.x, method="Nelder-Mead", options=dict(maxiter=20000, maxfev=20000, xatol=1e-7, fatol=1e-10, adaptive=True))      # a simplex gets stuck; a new one goes on
    assert np.isclose(-slow.fun, fit.log_likelihood, atol=1e-6) and np.allclose(slow.x, fit.b, atol=2e-3)
    assert np.allclose(fit.probabilities().sum(1), 1) and np.isclose(np.log(fit.probabilities()[np.arange(400), y]).sum(), fit.log_likelihood)


def test_intervals_hold_what_was_planted_as_often_as_they_say():
    rng = np.random.default_rng(2); truth = np.r_[-1.2, .2, 1.5, .6, 0, -.4, .8, -.5]; inside = []
    for _ in range(300): y, x, w = simulated(rng, 500); t = ordinal(y, x, w).table(); inside.append((t.low < truth) & (truth < t.high))
    assert abs(np.mean(inside) - .95) < .02


def test_errors_allow_for_answers_that_are_alike():
    y, x, w = simulated(np.random.default_rng(3), 1200, clusters=4); who = clusters_of(1200, 4)
    plain, robust, single = ordinal(y, x, w), ordinal(y, x, w, clusters=who), ordinal(y[::4], x[::4], w[::4])
    assert np.allclose(plain.b, single.b, atol=1e-6) and np.allclose(plain.table().error * 2, single.table().error, rtol=1e-6)      # four copies halve a plain error
    assert np.allclose(robust.table().error / single.table().error, 1, atol=.25) and "300 clusters" in robust.robust


def test_brants_test_is_calm_where_odds_are_proportional_and_names_the_column_where_not():
    rng = np.random.default_rng(4); p = []
    for _ in range(200): y, x, w = simulated(rng, 600, own=(.6, .6, .6)); p.append(brant(y, x.assign(w=w)).p["all"])
    assert .01 < np.mean(np.array(p) < .05) < .1 and .4 < np.mean(p) < .6
    y, x, w = simulated(rng, 3000, own=(1.2, 0, -1.2)); t = brant(y, x.assign(w=w)); assert t.p["all"] < 1e-6 and t.p["w"] < 1e-6 and min(t.p["x1"], t.p["x2"]) > .001 and t.df["all"] == 6


def test_columns_code_factors_as_told():
    frame = pd.DataFrame(dict(a=["u", "v", "w", "w"], b=[1., 2., 3., 4.])); assert list(columns(frame, ["a", "a:b"])) == ["a[v]", "a[w]", "a[v]:b", "a[w]:b"]
    steps = columns(frame, ["a"], backward=["a"]).to_numpy(); means = np.array([2., 5., 11.])[[0, 1, 2, 2]]
    X = np.column_stack([np.ones(4), steps]); assert np.allclose(np.linalg.lstsq(X, means, rcond=None)[0], [6, 3, 6])      # grand mean of the levels, then the steps between neighbours
    rows = factorial(WINE, "temp", "contact"); crossed = ordinal(WINE.rating, columns(WINE, ["temp", "contact", "temp:contact"])).contrast(rows)
    warm = ordinal(WINE.rating, columns(WINE.assign(contact=pd.Categorical(WINE.contact, ["yes", "no"])), ["temp", "contact", "temp:contact"])).table()
    assert np.isclose(crossed.estimate["temp[warm] at contact[yes]"], warm.estimate["temp[warm]"]) and np.isclose(crossed.error["temp[warm] at contact[yes]"], warm.error["temp[warm]"])


@pytest.mark.parametrize("call, says", [
    (lambda: ordinal([1, 1, 2, 2, 3, 3] * 5, dict(x=[0, 0, 1, 1, 2, 2] * 5)), "no finite maximum"),
    (lambda: ordinal([1, 2, 3, 3] * 4, dict(x=[0, 1, 1, 0] * 3)), "one row for each answer"),
    (lambda: ordinal([1, 2, np.nan, 3], dict(x=[0, 1, 1, 0])), "answers are missing"),
    (lambda: ordinal([1, 2, 3, 3], clusters=[1, 1, 1, 1]), "one cluster"),
    (lambda: likelihood_ratio(ordinal(WINE.rating, columns(WINE, ["temp"])), ordinal(WINE.rating)), "smaller model first"),
    (lambda: ordinal(WINE.rating).contrast({"a": {"skin": 1}}), "no parameter 'skin'"),
    (lambda: columns(WINE.assign(k="one"), ["k"]), "one value only")])
def test_what_cannot_be_fitted_is_refused_in_a_sentence(call, says):
    with pytest.raises(OrdinalError, match=says): call()


def test_a_step_that_only_a_lower_bound_or_nobody_speaks_about_is_refused():
    rng = np.random.default_rng(0); x = rng.integers(0, 2, 400); y = rng.integers(1, 6, 400); own = pd.DataFrame(dict(x=x))
    for gone in ((1,), (1, 2), (5,), (3, 4, 5)):                                              # answers that the group never gives: its first steps have no finite place
        keep = ~((x == 1) & np.isin(y, gone))
        with pytest.raises(OrdinalError, match="no finite maximum"): ordinal(y[keep], None, own[keep])

"""Designs, locks and tests by re-drawing: balance over random designs, what a changed plan says, and error rates that are what they claim."""
import json

import numpy as np
import pytest

from workbench.experiments.design import Design, DesignError, lock, open_lock, status
from workbench.experiments.inference import InferenceError, gated, power, randomisation_test, variance_gate


@pytest.mark.parametrize("seed", range(8))
def test_every_cell_is_run_equally_often_in_every_block(seed):
    rng = np.random.default_rng(seed); some = lambda stem, n: {f"{stem}{i}": [f"{stem}{i}{j}" for j in range(rng.integers(2, 4))] for i in range(n)}
    d = Design(some("f", rng.integers(1, 4)), some("b", rng.integers(0, 3)), some("c", rng.integers(0, 2)), reps=int(rng.integers(1, 4)), seed=seed); t = d.allocate()
    assert len(t) == len(d) and (t.groupby(["block", *d.factors]).size() == d.reps).all() and t.seed.is_unique and t.run.tolist() == list(range(len(t)))
    for name, levels in d.counterbalance.items():
        n = t.groupby([*d.factors, name]).size().unstack(fill_value=0); assert n.shape[1] == len(levels) or len(t) < len(levels) * len(d.cells); assert (n.max(axis=1) - n.min(axis=1) <= 1).all()
    assert d.allocate().equals(t) and (len(t) < 8 or not d.allocate(seed + 100).equals(t))


def test_order_is_drawn_afresh_in_each_block():
    t = Design(dict(a=["u", "v"]), dict(b=list(range(40))), reps=4, seed=1).allocate(); first = t.groupby("block").a.first()
    assert 10 < (first == "u").sum() < 30 and t.groupby("block").a.apply("".join).nunique() > 15


def plan(): return dict(scenario=dict(name="debate", hidden=["prior"]), design=Design(dict(a=[1, 2]), seed=4), analysis="difference of means", outcome="agreement")


def test_a_lock_knows_its_plan_and_names_what_changed(tmp_path):
    locked = lock(**plan()); path = locked.save(tmp_path/"plan.json"); again = open_lock(path); assert again.hash == locked.hash and status(again, **plan()).startswith("CONFIRMATORY")
    for part, value in dict(scenario=dict(name="debate"), design=Design(dict(a=[1, 2]), seed=5), analysis="median", outcome="change").items():
        assert status(again, **plan() | {part: value}).startswith(f"EXPLORATORY: {part} differs")
    assert status(None, **plan()) == "EXPLORATORY: no plan was locked" and locked.save(path) == path
    with pytest.raises(DesignError, match="never written over"): lock(**plan() | dict(outcome="change")).save(path)
    assert open_lock(path).hash == locked.hash


def test_a_lock_that_was_touched_is_refused(tmp_path):
    path = lock(**plan()).save(tmp_path/"plan.json"); c = json.loads(path.read_text()); c["parts"]["outcome"] = "change"; path.write_text(json.dumps(c))
    with pytest.raises(DesignError, match="changed after it was locked"): open_lock(path)
    path.write_text(json.dumps(c)[:50])
    with pytest.raises(DesignError, match="no whole lock"): open_lock(path)


def gap(t, y): return np.nanmean(y[t.a == 2]) - np.nanmean(y[t.a == 1])


def test_the_randomisation_test_errs_as_often_as_it_says_and_uses_the_blocks():
    d = Design(dict(a=[1, 2]), dict(b=list(range(8))), reps=2, seed=0); rng = np.random.default_rng(0); t = d.allocate(); hard = rng.normal(size=8)[t.b] * 3
    p = [randomisation_test(d, hard + rng.standard_cauchy(len(t)), gap, 39, seed=i)["p"] for i in range(80)]
    assert np.mean(np.array(p) <= .05) <= .125 and .2 < np.mean(np.array(p) <= .5) < .8 and min(p) >= 1 / 40
    blocked = randomisation_test(d, hard + (t.a == 2) + rng.normal(size=len(t)) * .3, gap, 200)["p"]; assert blocked < .01      # hard blocks do not hide it
    with pytest.raises(InferenceError, match="not finite"): randomisation_test(d, hard * np.nan, lambda t, y: y.mean(), 10)


def test_all_allocations_of_a_small_design_give_the_exact_p():
    d = Design(dict(a=[1, 2]), reps=3, seed=2); t = d.allocate(); y = np.where(t.a == 2, 10., 0) + np.arange(6) * .01
    assert abs(randomisation_test(d, y, gap, 1000)["p"] - 2 / 20) < .03                       # 20 ways to choose 3 of 6, two of them as extreme


def test_where_nothing_varies_there_is_no_p_value():
    gate = variance_gate(["yes"] * 30); assert not gate["passes"] and "nothing varies" in gate["why"] and gate["entropy"] == 0
    assert np.isnan(gated(["yes"] * 30, lambda: .01)) and gated(["yes", "no"], lambda: .01) == .01
    assert np.isclose(variance_gate(list("aabb"), options="abcd")["entropy"], .5) and "hardly" in variance_gate(["a"] * 99 + ["b"])["why"]
    assert power(lambda rng: np.nan if rng.random() < .5 else .01, 200)["failed"] > 60

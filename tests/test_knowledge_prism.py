"""Fact prompts by scenario: planted subjects, a hand-made model of answers, the permutation test by hand and on planted profiles, an untrained model."""
from itertools import combinations

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.knowledge import PrismError, compare_profiles, prism_split, trace_scenarios
from workbench.tasks.capitals import FRAMES
from workbench.tasks.twohop import HOME
from workbench.tasks.world import CLOTHES, COUNTRIES, GIFTS, MEN, PLACES, TOPICS, WOMEN
from workbench.zoo.retrain import recipe, start

torch.set_num_threads(1)
FRAMES = [f.replace("{country}", "{}") for f in FRAMES]
WORDS = WOMEN + MEN + list(dict.fromkeys([w for t in TOPICS.values() for w in t] + PLACES + GIFTS + CLOTHES))
PEOPLE, NOBODY, STRANGERS = list(HOME)[1::4], WORDS[::2], WORDS[1::6]
FACTS = {**COUNTRIES, **dict.fromkeys(PEOPLE + NOBODY)}


@pytest.fixture(scope="module")
def micro(): return wb.load("micro")


@pytest.fixture(scope="module")
def split(micro): return prism_split(micro, FRAMES, FACTS, HOME, STRANGERS)


def test_planted_subjects_land_where_they_belong(split):
    "S237: countries are recalled, people without a capital follow their home, strangers are never exact."
    got = dict(zip(split.subject.values.tolist(), split.scenario.values.tolist())); share = lambda names, kind: np.mean([got[s] == kind for s in names])
    assert share(COUNTRIES, "exact") > .9 and share(PEOPLE, "heuristic") > .8 and share(NOBODY, "exact") == 0 and share(PEOPLE, "exact") == 0 and share(NOBODY, "guess") > .3


def test_the_rules_one_by_one(micro, split):
    "Recomputed prompt by prompt; without the cue heuristics are unsorted; a false fact is not exact; a stricter threshold only makes more guesses."
    for i in (0, 17, 40, 60):
        tops = [int(micro.run(f.format(str(split.subject[i].item()))).last_logits[0].argmax()) for f in FRAMES]; most = max(set(tops), key=tops.count)
        assert float(split.agreement[i]) == tops.count(most) / 8 and int(split.answer[i]) == tops[i % 8]
    bare = prism_split(micro, FRAMES, dict.fromkeys(PEOPLE[:8])); assert set(bare.scenario.values) <= {"unsorted", "guess"}
    false = prism_split(micro, FRAMES, {"France": "Rome", "Italy": "Rome"}); assert false.scenario.values.tolist() == ["unsorted", "exact"]
    strict = prism_split(micro, FRAMES, FACTS, HOME, consistent=1.); assert (strict.scenario == "guess").sum() >= (split.scenario == "guess").sum()


def test_permutation_test_is_the_one_by_hand():
    "All 70 ways to split eight prompts: the drawn p comes near the exact one."
    rng = np.random.default_rng(3); x, y = rng.standard_normal((4, 6)), rng.standard_normal((4, 6)) + .6; pool = np.concatenate([x, y]); d = lambda i: ((pool[list(i)].mean(0) - np.delete(pool, list(i), 0).mean(0)) ** 2).sum()
    exact = np.mean([d(i) >= d(range(4)) - 1e-12 for i in combinations(range(8), 4)]); out = compare_profiles({"a": x, "b": y}, 4000)
    assert float(out.distance[0, 1]) == pytest.approx(d(range(4))) and float(out.p[0, 1]) == pytest.approx(exact, abs=.03) and np.isnan(out.p[0, 0])


def test_p_is_even_without_a_difference_and_small_with_one():
    "A hundred pairs of like groups: about a twentieth below .05; NaN cells of one group are left out."
    rng = np.random.default_rng(0); p = [float(compare_profiles({"a": rng.standard_normal((12, 8)), "b": rng.standard_normal((9, 8))}, 100).p[0, 1]) for _ in range(100)]
    assert .25 < np.mean(np.array(p) < .5) < .75 and np.mean(np.array(p) < .05) < .15
    x, y = rng.standard_normal((12, 8)), rng.standard_normal((12, 8)); y[:, 0] += 3; assert float(compare_profiles({"a": x, "b": y}, 200).p[0, 1]) < .01
    x[:, 1] = np.nan; assert np.isfinite(compare_profiles({"a": x, "b": y}, 200).p[0, 1])


def test_profiles_differ_between_scenarios_and_not_within(micro, split):
    "S237: exact recall, heuristics and guesses; halves of one scenario as the control; a profile is a share of its own total."
    traced = trace_scenarios(micro, split, n_draws=3); assert set(traced) == {"exact", "heuristic", "guess"}
    for t in traced.values(): assert np.allclose(t["mean"].sel(site="resid_pre", layer=0, place="first subject token"), 1) and t.attrs["n"] >= 6
    out = compare_profiles(traced, 300); assert float(out.p.sel(one="exact", two="guess")) < .02 and float(out.p.sel(one="exact", two="heuristic")) < .05
    assert all(float(compare_profiles({"odd": traced[k].profile[::2], "even": traced[k].profile[1::2]}, 300).p[0, 1]) > .01 for k in ("exact", "heuristic"))


def test_an_untrained_model_recalls_nothing():
    model, tok = start(recipe("micro")); lm = wb.load(model, tokenizer=tok, check=False); out = prism_split(lm, FRAMES, FACTS, HOME, STRANGERS)
    assert not {"exact", "heuristic"} & set(out.scenario.values); traced = trace_scenarios(lm, out, n_draws=2, most=6)
    assert all(t.attrs["n"] == 0 for t in traced.values())
    with pytest.raises(PrismError, match="fewer than four|two scenarios"): compare_profiles(traced)


@pytest.mark.parametrize("call, says", [(lambda lm: prism_split(lm, FRAMES[:2], FACTS), "three frames"), (lambda lm: prism_split(lm, ["no gap"] * 3, FACTS), "with {}"), (lambda lm: prism_split(lm, FRAMES, {}), "Give facts"),
                                        (lambda lm: prism_split(lm, FRAMES, FACTS, consistent=2), "consistent"), (lambda lm: compare_profiles({"a": np.zeros((5, 2))}), "two scenarios"), (lambda lm: compare_profiles({"a": np.zeros((3, 2)), "b": np.zeros((5, 2))}), "fewer than four")])
def test_bad_input_says_what_to_do(micro, call, says):
    with pytest.raises(PrismError, match=says): call(micro)

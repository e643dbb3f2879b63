"""Explanations, hidden functions and automatic interpretation against written weights, formulas and planted neurons."""
import random
from itertools import islice

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_score

import workbench
from workbench.experiments.intervals import wilson
from workbench.features.autointerp import ListJudge, ModelJudge, NearJudge, TalkerJudge, autointerp, detection, fuzzing, intruder, nearest_features, new_words, odd_by_vectors, quiet, simulation
from workbench.features.brackets import Passage, read
from workbench.features.describe import Background, Label, by_list, over_levels
from workbench.features.dictionary import Components, Sae, TopK, random_dictionary
from workbench.features.errors import FeatureError
from workbench.features.explanations import interchange, observe, score_explanation, swapped
from workbench.features.find import Hidden, Part, by_asking, constant, exact, find_bench, fitted, global_only, hidden, inputs, nearest
from workbench.lm.asking import Talker
from workbench.lm.sites import Site
from workbench.tasks.corpus import rows
from workbench.tasks.world import CLOTHES, MEN, SERIES, WOMEN
from workbench.zoo.constructed import D, DIMS, KEYS, NUMBERS, answer_of, opened, text_of

torch.set_num_threads(1)

# --- the observational mode ---------------------------------------------------------------------------------------------
def strings(values): return [Passage(("a", "b"), np.array([0.0, v])) for v in values]

def test_rates_against_scikit_learn():
    rng = np.random.default_rng(0); a, b = rng.random(50) + .2, rng.random(50); o = observe(strings(a), strings(b), .6); y, said = np.r_[np.ones(50), np.zeros(50)], np.r_[a, b] > .6
    assert np.allclose(o.value.sel(score=["precision", "f1"]), [precision_score(y, said), f1_score(y, said)]) and np.isclose(float(o.value.sel(score="misses")), 1 - (a > .6).mean())
    assert np.isclose(float(o.low.sel(score="recall")), wilson((a > .6).sum(), 50)[0]) and o.attrs["threshold"] == .6
    twice = observe(strings(a), strings(np.r_[b, b]), .6); assert np.allclose(twice.value, o.value)            # precision does not depend on how many strings of each kind were drawn

def test_intervals_of_precision_and_f1_cover():
    rng = np.random.default_rng(1); hits = {"precision": 0, "f1": 0}; truth = {"precision": .8 / 1.0, "f1": 2 * .8 / 2.0}
    for _ in range(80):
        o = observe(strings(rng.random(40) < .8), strings(rng.random(60) < .2), .5)
        for s in hits: hits[s] += float(o.low.sel(score=s)) <= truth[s] <= float(o.high.sel(score=s))
    assert min(hits.values()) >= 74                                                # 95 % or more; such joint intervals are wide
    silent = observe(strings([0] * 9), strings([0] * 9), .5); assert np.isnan(float(silent.value.sel(score="precision"))) and np.isnan(float(silent.value.sel(score="f1")))
    with pytest.raises(FeatureError, match="too few"): observe(strings([1] * 4), strings([0] * 9), .5)

# --- interchange --------------------------------------------------------------------------------------------------------
def test_a_swap_moves_one_code_and_nothing_else():
    lm = workbench.load("micro"); g = torch.Generator().manual_seed(0); site = Site("resid_post", layer=1); W = torch.nn.functional.normalize(torch.randn(128, 60, generator=g), dim=0)
    sae = Sae(W, None, W.T.clone(), torch.zeros(128), TopK(8), site=site); a, b = ["Mary smiled because", "The king slept because"], ["Paul smiled because", "The aunt slept because"]
    x, y = (lm.run(t, keep=[site]).tensor(site) for t in (a, b)); ids = [5, 9]; run = lm.run(a, keep=[site], edits=[swapped(sae, ids, sae.encode(y, ids), site)])
    fx, fy = sae.encode(x), sae.encode(y); change = torch.zeros_like(fx); change[..., ids] = (fy - fx)[..., ids]; assert torch.allclose(run.tensor(site), x + change @ sae.directions, atol=1e-4)
    same = lm.run(a, edits=[swapped(sae, range(60), fx, site)]); assert torch.allclose(same.last_logits, lm.run(a).last_logits, atol=1e-4)
    here = torch.zeros(x.shape[:2], dtype=torch.bool); here[:, 1] = True; part = lm.run(a, keep=[site], edits=[swapped(sae, ids, sae.encode(y, ids), site, here)]).tensor(site)
    assert torch.allclose(part[:, 2:], x[:, 2:], atol=1e-5) and torch.allclose(part[:, 1], run.tensor(site)[:, 1], atol=1e-4)

@pytest.fixture(scope="module")
def looked_up():
    "The constructed model, a dictionary of its stream after layer 0 (what attention reads, what only follows, every entry), strings and pairs."
    eye = torch.eye(D); bread, egg = KEYS.index("bread"), KEYS.index("egg"); rows = torch.stack([eye[DIMS["asked"][bread]] - eye[DIMS["asked"][egg]], eye[DIMS["g"][0]], eye[DIMS["key"][bread]] - eye[DIMS["key"][egg]], *eye])
    d = Components(torch.zeros(D), rows, "neurons", rows / rows.square().sum(-1, keepdim=True), Site("resid_post", layer=0)); rng = random.Random(3)
    def prompt(asked):
        keys = [*rng.sample([k for k in KEYS if k not in ("bread", "egg")], 2), "bread", "egg"]; rng.shuffle(keys); values = rng.sample(NUMBERS, 4); mode = rng.choice(["same", "next"]); return text_of(mode, asked, keys, values), lambda a: answer_of(mode, a, keys, values)
    def pair(a, b): base, answer = prompt(a); return base, prompt(b)[0], answer(b)
    return opened(), d, [prompt("bread")[0] for _ in range(40)], [prompt("egg")[0] for _ in range(40)], [pair(*rng.sample(["bread", "egg"], 2)) for _ in range(40)]

@pytest.mark.parametrize("feature, verdict", [(0, (True, True)), (1, (True, False)), (2, (False, False))])
def test_right_following_and_wrong_explanations_are_told_apart(looked_up, feature, verdict):
    lm, d, inside, outside, pairs = looked_up; t = score_explanation(lm, d, [feature], inside, outside, pairs, candidates=NUMBERS, pool=range(3, 3 + D), draws=8)
    assert tuple(t["holds"].values()) == verdict and float(t["intervened"].accuracy) == float(verdict[1]) and t["intervened"].attrs["n"] == 40

def test_fresh_weights_pass_neither_mode(looked_up):
    lm, d, inside, outside, pairs = looked_up
    with torch.random.fork_rng(): torch.manual_seed(1); blank = workbench.load(type(lm.model)(lm.config).eval(), tokenizer=lm.tokenizer)
    for i in range(3): t = score_explanation(blank, d, [i], inside, outside, pairs, candidates=NUMBERS, pool=range(3, 3 + D), draws=5); assert not any(t["holds"].values())

def test_pairs_that_cannot_be_swapped_are_refused(looked_up):
    lm, d, *_ = looked_up; m = workbench.load("micro"); wide = Components(torch.zeros(128), torch.eye(128), "neurons", torch.eye(128), Site("resid_post", layer=0))
    for pairs, why in (([("Mary left because", "The man left because", "he")] * 6, "equally long"), ([("Mary left because", "Paul left because", "he")] * 6, "one word"), ([("Mary left", "Paul left", "he")] * 2, "too few")):
        with pytest.raises(FeatureError, match=why): interchange(m, wide, [0], pairs)
    with pytest.raises(FeatureError, match="does not know its site"): interchange(m, Components(torch.zeros(128), torch.eye(128), "neurons", torch.eye(128)), [0], [("a", "b", "he")] * 6)

# --- hidden functions ---------------------------------------------------------------------------------------------------
FUNCTIONS = [hidden(kind, composed=c, seed=s) for kind in ("number", "text") for c in (False, True) for s in range(30, 34)]

def test_one_seed_one_function():
    for f in FUNCTIONS[:4] + FUNCTIONS[-4:]:
        g = next(hidden(f.kind, composed=c, seed=f.seed) for c in (False, True) if hidden(f.kind, composed=c, seed=f.seed).code == f.code); xs = inputs(f.kind, 200, random.Random(0)); f.calls = g.calls = 0; assert g.words == f.words and f(xs) == g(xs) and f(xs) != g.clean(xs)
    assert len({f.code for f in FUNCTIONS}) == len(FUNCTIONS)

def test_the_expression_is_the_function():
    for f in FUNCTIONS: xs = inputs(f.kind, 300, random.Random(9)); run = eval("lambda x: " + f.code, {"np": np}); assert f.right(xs, [run(x) for x in xs]).all()

def test_a_describer_of_the_rule_alone_loses_exactly_the_exception():
    b = find_bench(FUNCTIONS, dict(exact=exact, rule=global_only, constant=constant, nearest=nearest), tests=40); s = b.score
    assert bool((s.sel(describer="exact") == 1).all()) and bool((s.sel(describer="rule", where="rule") == 1).all()) and bool((s.sel(describer="rule", where="exception") == 0).all())
    assert float(s.sel(describer="constant").mean()) < .25 < float(s.sel(describer="nearest").sel(function=[i for i, f in enumerate(FUNCTIONS) if f.kind == "number"], where="rule").mean())
    assert bool((b.n == 40).all()) and bool((b.low <= s + 1e-12).all())

def test_noise_and_budget_are_what_was_asked():
    f = hidden("number", noise=.2, corrupted=False, seed=5); xs = np.linspace(-9, 9, 2000).tolist(); e = np.array(f(xs)) - np.array(f.clean(xs)); assert abs(e.std() / f.noise - 1) < .06 and abs(e.mean()) < f.noise / 10
    t = hidden("text", noise=.3, corrupted=False, seed=5); ws = inputs("text", 1500, random.Random(2)); assert abs(np.mean([a != b for a, b in zip(t(ws), t.clean(ws))]) - .3 * 25 / 26) < .04
    def greedy(ask, kind): ask(inputs(kind, 60, random.Random(0))); ask(inputs(kind, 60, random.Random(0)))
    with pytest.raises(FeatureError, match="budget of 100"): find_bench([f], dict(greedy=greedy))
    with pytest.raises(FeatureError): hidden("pictures")

def test_the_shape_is_found_when_it_is_in_the_list():
    plain = [hidden(k, noise=.02, corrupted=False, seed=s) for k in ("number", "text") for s in (1, 2)]; b = find_bench(plain, dict(fitted=lambda ask, kind: fitted(ask, kind, guesses=1500), constant=constant), tests=40)
    assert float(b.score.sel(describer="fitted", where="rule").mean()) > .8 > .3 > float(b.score.sel(describer="constant", where="rule").mean()) and bool(np.isnan(b.score.sel(where="exception")).all())

def test_a_failed_prediction_is_missing_not_wrong():
    def say(prompt):
        if prompt.startswith("Here"): return "adds one"
        x = float(prompt.split("input ")[1].split("?")[0]);
        if x > 0: raise TimeoutError
        return f"about {x + 1:.3f}."
    f = Hidden("number", Part(lambda x: x + 1, "adds 1", "x + 1"), tolerance=.1); b = find_bench([f], dict(model=by_asking(Talker(say)), silent=by_asking(Talker(lambda p: ""))), tests=40)
    assert float(b.score[0, 0, 0]) == 1 and 10 < float(b.n[0, 0, 0]) < 30 and np.isnan(float(b.score[1, 0, 0])) and float(b.n[1, 0, 0]) == 0

# --- automatic interpretation -------------------------------------------------------------------------------------------
TRAIN, HELD = ([" ".join(w[1:]) for w, _ in islice(rows(seed), n)] for seed, n in ((31, 90), (32, 50)))

def fires_on(words, seed=0):
    def activation(texts): rng = np.random.default_rng(seed); return [[max(0, 3 * (w in words) + .05 * rng.normal()) for w in t.split()] for t in texts]
    return activation

@pytest.fixture(scope="module")
def planted():
    "A neuron of clothes: its label, another neuron's label, passages that fire, passages that do not, the background, all passages of both corpora."
    train, held = (read(fires_on(CLOTHES), t, 16) for t in (TRAIN, HELD)); b = Background(train, draws=5)
    return by_list()(over_levels(train), b), by_list()(over_levels(read(fires_on(SERIES["month"]), TRAIN, 16)), b), over_levels(held, 40), quiet(held), b, train, held

def test_a_right_description_scores_high_and_a_wrong_one_at_chance(planted):
    right, wrong, pos, neg, *_ = planted; j = ListJudge()
    for score in (lambda l: detection(l, pos, neg, j), lambda l: fuzzing(l, pos, j)): a, b = score(right), score(wrong); assert float(a.low.sel(score="auc")) > .8 and float(b.low.sel(score="auc")) < .5 and float(b.high.sel(score="balanced_accuracy")) < .7
    assert float(simulation(right, pos + neg, j).low) > .7 and float(simulation(wrong, pos + neg, j).high) < .2

def test_simulation_is_the_correlation_over_tokens(planted):
    right, _, pos, neg, *_ = planted; j = ListJudge(); guess, real = np.concatenate([np.maximum(t, 0) for t in j.tokens(right, pos + neg)]), np.concatenate([p.values for p in pos + neg]); s = simulation(right, pos + neg, j)
    assert np.isclose(float(s.r), np.corrcoef(guess, real)[0, 1]) and float(s.low) <= float(s.r) <= float(s.high) and np.isnan(float(simulation(Label(None), pos, j).r))

def test_the_intruder_is_found_and_guessing_is_at_chance(planted):
    _, _, pos, neg, b, *_ = planted; rng = np.random.default_rng(0); found, guessed = intruder(pos, neg, odd_by_vectors(b.vectors), draws=60), intruder(pos, neg, lambda ps, m: int(rng.integers(5)), draws=400)
    assert float(found.low) > .7 and float(guessed.low) < .2 < float(guessed.high)
    shy = intruder(pos, neg, lambda ps, m: None); assert np.isnan(float(shy.accuracy)) and shy.attrs["missing"] == 40

def test_words_never_seen_are_known_by_their_neighbours_only(planted):
    *_, b, train, held = planted; near, rote = new_words(train, held, b), new_words(train, held, b, ListJudge()); assert float(near.low.sel(score="auc")) > .8 and float(rote.value.sel(score="auc")) == .5
    two = [read(fires_on(["hat", "coat"]), t, 16) for t in (TRAIN, HELD)]; assert np.isnan(new_words(*two, b).value).all()

def test_judges_that_talk(planted):
    right, _, pos, neg, *_ = planted
    def say(prompt):
        if prompt.count("lost"): raise TimeoutError
        words = set(prompt.split("Passage:")[1].split("Does")[0].split()); return "Yes." if words & set(CLOTHES) else "no, none"
    judge = TalkerJudge(Talker(say)); d = detection(right, pos, neg, judge); failed = sum("lost" in p.tokens for p in pos + neg)
    assert float(d.value.sel(score="balanced_accuracy")) > .9 and d.attrs["missing"] == failed == len(judge.talker.failures) and d.attrs["n_positive"] + d.attrs["n_negative"] == len(pos + neg) - failed
    assert TalkerJudge(Talker(lambda p: "maybe")).answer(["?"]).tolist() != [0.0] and np.isnan(float(simulation(right, pos, judge).r))
    lm = workbench.load("micro"); m = ModelJudge(lm, "he", "she"); logits = lm.run([m._turn("Mary")]).last_logits[0]; assert np.isclose(m.answer(["Mary", "Paul"])[0], float(logits[lm.answer_id("he")] - logits[lm.answer_id("she")]), atol=1e-4)

def test_a_dictionary_is_interpreted_with_missing_scores_marked():
    lm = workbench.load("micro"); d = random_dictionary(128, 12, seed=0, site=Site("resid_post", layer=0)); d.rows.data[1] = 0; d.rows.data[1, 0] = 1e-9; d = Components(d.mean, d.rows, "random", d.rows, d.site)
    s = autointerp(lm, d, [0, 4], TRAIN[:40], HELD[:20]); assert s.value.dims == ("feature", "score") and bool((s.low <= s.value + 1e-9).where(s.value.notnull(), True).all()) and s.attrs["judge"] == "list"
    assert bool((s.value.sel(score="detection") > .5).all()) and s.label.values[0] != s.label.values[1] and bool(np.isnan(autointerp(lm, d, [0], TRAIN[:40], HELD[:20], neighbours=0).value.sel(score="neighbours")).all())
    cosine = torch.nn.functional.normalize(d.rows, dim=-1); assert nearest_features(d, [3])[3][0] == int((cosine @ cosine[3]).scatter(0, torch.tensor(3), -2).argmax())

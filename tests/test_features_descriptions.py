"""Descriptions against planted neurons, counting, other implementations, and noise."""
import json
import sys
import types
from collections import Counter
from itertools import islice
from statistics import NormalDist

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, silhouette_samples

import workbench
from workbench.features.brackets import Passage, from_record, once, read, read_features, show, silent, strongest
from workbench.features.describe import (Background, WordVectors, auc, by_asking, by_list, by_words, description_score, fitting, log_odds, over_levels, polysemanticity, prism_describe,
                                         silhouettes)
from workbench.features.dictionary import neurons
from workbench.features.errors import FeatureError
from workbench.lm.answers import AskError
from workbench.lm.asking import Talker, opened, served
from workbench.lm.sites import Site
from workbench.tasks.corpus import rows
from workbench.tasks.world import ADJECTIVES, CLOTHES, COUNTRIES, MEN, SERIES, WOMEN

torch.set_num_threads(1)
TEXTS = [" ".join(w[1:]) for w, _ in islice(rows(21), 120)]

def neuron(*groups, noise=.05, seed=0):
    "A planted neuron: the strength of the groups that hold a word, and noise."
    def activation(texts):
        rng = np.random.default_rng(seed); return [[max(0, sum(a for words, a in groups if w in words) + noise * rng.normal()) for w in t.split()] for t in texts]
    return activation

@pytest.fixture(scope="module")
def background(): return Background(read(neuron(), TEXTS, 16))

# --- passages ---------------------------------------------------------------------------------------------------------
def test_brackets_follow_the_rule():
    p = Passage(tuple("a b c d e f g h i j".split()), np.array([0, 5., 4.9, 0, 0, 1, 0, 0, 0, 0]))
    assert p.marked().tolist() == [v > np.quantile(p.values, .9) for v in p.values] and p.marked(.5).tolist() == [v >= 2.5 for v in p.values]   # the second rule: at least half of the peak
    assert p.text(p.marked(.5)) == "a [[b c]] d e f g h i j" and not Passage(("a", "b"), np.zeros(2)).marked().any()
    assert show((" the", " red", "dish"), [False, True, True]) == "the [[reddish]]"

def test_passages_cover_every_token_once():
    found = read(lambda texts: [np.arange(len(t.split())) + 1 for t in texts], TEXTS[:5], 16)
    assert [t for p in found for t in p.tokens] == [w for t in TEXTS[:5] for w in t.split()][:sum(len(p) for p in found)] and all(p.values[0] == p.source[1] + 1 for p in found)

def test_codes_of_a_model_stand_on_their_tokens():
    lm = workbench.load("micro"); site = Site("mlp_post", layer=1); d = neurons(512, site); texts = ["Mary smiled because", "The king of France lives in Paris ."]
    found = read_features(lm, d, texts, [3, 40], window=None)
    for i, text in enumerate(texts):                                              # one text at a time, without padding
        run = lm.run([text], keep=[site]); assert found[40][i].tokens == tuple(run.tokens.strs[0][1:]) and np.allclose(found[40][i].values, run.tensor(site)[0, 1:, 40].clamp(min=0).numpy(), atol=1e-5)

def test_sampling_reaches_the_weak_meaning():
    found = read(neuron((WOMEN, 3), (SERIES["month"], 2)), TEXTS, 16); count = lambda ps: sum(p.tokens[p.at] in SERIES["month"] for p in ps)
    assert count(over_levels(found, 50)) >= 20 > 5 >= count(strongest(found, 50))            # the strongest fifty hold a few months that stand beside a name
    assert len(once(found + found)) == len(once(found)) and all(p.peak <= .1 for p in silent(found, below=.1))

@pytest.mark.parametrize("bad", [lambda texts: [[1.0]] * len(texts), lambda texts: [], lambda texts: [[float("nan")] * len(t.split()) for t in texts]])
def test_a_function_that_does_not_fit_is_refused(bad):
    with pytest.raises(FeatureError): read(bad, ["two words", "three more words"])

# --- asking -----------------------------------------------------------------------------------------------------------
def test_every_call_is_kept_and_a_failed_one_is_none(tmp_path):
    n = iter(range(9))
    def say(prompt):
        if next(n) < 2: raise ConnectionError("down")
        return prompt[::-1]
    ask = Talker(say, "x", tmp_path / "calls.jsonl", tries=3)
    assert ask("abc") == "cba" and [c.answer for c in ask.calls] == [None, None, "cba"] and len(ask.failures) == 2
    assert [json.loads(l)["error"] for l in (tmp_path / "calls.jsonl").read_text().splitlines()] == ["ConnectionError: down", "ConnectionError: down", None]
    assert Talker(lambda p: "  ")("x") is None

def test_a_server_is_asked_through_the_client(monkeypatch):
    seen = []
    class OpenAI:
        def __init__(self, base_url=None, api_key=None, max_retries=2): self.chat = types.SimpleNamespace(completions=self); self.base = base_url
        def create(self, **given): seen.append((self.base, given)); return types.SimpleNamespace(choices=[types.SimpleNamespace(message=types.SimpleNamespace(content="clothes"))])
    monkeypatch.setitem(sys.modules, "openai", types.SimpleNamespace(OpenAI=OpenAI)); ask = served("m", "there", "key", max_tokens=7)
    assert ask("what?") == "clothes" and seen == [("there", dict(model="m", messages=[dict(role="user", content="what?")], temperature=0, max_tokens=7))]

def test_a_missing_client_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(AskError, match="pip install openai"): served("m")

def test_an_opened_model_answers_with_its_own_text():
    lm = workbench.load("micro"); assert opened(lm, 3)("What is the capital of Japan ?").startswith("Tokyo")

# --- vectors and clusters ---------------------------------------------------------------------------------------------
def test_word_vectors_against_counting():
    "With all dimensions kept, inner products of rows before scaling are those of PPMI: compare cosines for u sqrt(s) of the plain matrix."
    text = ["a b c a b d", "c b a d d c", "e f a g h b"]; rows_ = [t.split() for t in text]; words = sorted({w for r in rows_ for w in r}); n = len(words); m = np.zeros((n, 2 * n))
    for r in rows_:
        for i, w in enumerate(r):
            for j, o in enumerate((-1, 1)):
                if 0 <= i + o < len(r): m[words.index(w), j * n + words.index(r[i + o])] += 1
    q = m.sum(0) ** .75; q /= q.sum(); ppmi = np.maximum(0, np.log(np.where(m > 0, m / np.maximum(m.sum(1, keepdims=True) * q, 1e-300), 1)))
    u, s, _ = np.linalg.svd(ppmi, full_matrices=False); x = (u * s ** .5)[:, :n - 1]; x /= np.linalg.norm(x, axis=1, keepdims=True)
    v = WordVectors.fit(rows_, dim=32, span=1); assert np.allclose(v.of(words) @ v.of(words).T, x @ x.T, atol=1e-6) and not v.of(["unheard"]).any()

@pytest.mark.parametrize("seed", range(3))
def test_silhouettes_against_scikit_learn(seed):
    rng = np.random.default_rng(seed); x, rest = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (rng.normal(size=(30, 5)), rng.normal(size=(12, 5)))); label = rng.integers(0, 3, 30)
    theirs = silhouette_samples(np.vstack([x, rest]), np.r_[label, np.full(12, 3)], metric="cosine")[:30]; assert np.allclose(silhouettes(x, label, rest), theirs, atol=1e-9)

PLANTED = {"one word": ([["Tokyo", "Berlin"], 3],), "clothes": ([CLOTHES, 3],), "names": ([WOMEN + MEN, 3],), "days and months": ([SERIES["day"] + SERIES["month"], 3],),
           "women, months": ([WOMEN, 3], [SERIES["month"], 2]), "clothes, capitals": ([CLOTHES, 2], [list(COUNTRIES.values()), 3]), "clothes, moods": ([CLOTHES, 3], [ADJECTIVES, 3]),
           "clothes, countries, women": ([CLOTHES, 3], [list(COUNTRIES), 2.5], [WOMEN, 2])}
MEANINGS = dict(zip(PLANTED, (1, 1, 1, 1, 2, 2, 2, 3)))

@pytest.mark.parametrize("name", PLANTED)
def test_planted_meanings_are_counted_and_named(name, background):
    groups = PLANTED[name]; m = prism_describe(read(neuron(*groups), TEXTS, 16), background); assert len(m) == MEANINGS[name], m
    if len(groups) == 1: return
    owners = [max(range(len(groups)), key=lambda g: sum(w in groups[g][0] for w in l.words)) for l in m.labels]; assert sorted(owners) == list(range(len(groups)))       # each cluster is another concept
    for l, o in zip(m.labels, owners): assert np.mean([w in groups[o][0] for w in l.words]) > .7 and l.covered > .5

def test_noise_has_no_meaning(background):
    found = [prism_describe(read(neuron(noise=1, seed=s), TEXTS, 16), background) for s in range(8)]
    assert sum(len(m) for m in found) == 0 and all("no structure" in m.why for m in found)

def test_too_few_passages_are_not_described(background):
    m = prism_describe(read(neuron((["Zorro"], 3), noise=0), TEXTS, 16), background); assert m.labels == [] and "too few" in m.why
    with pytest.raises(FeatureError): Background(read(neuron(), TEXTS[:1], 16))

def test_words_alone_see_no_concept(background):
    "With TF-IDF two names are as different as a name and a piece of clothing."
    chosen = [p for p in over_levels(read(neuron((WOMEN, 3), noise=0), TEXTS, 16)) if p.marked().sum() == 1]; x, v = by_words(chosen), background.embed(chosen); same = np.array([[p.tokens[p.at] == q.tokens[q.at] for q in chosen] for p in chosen])
    assert np.allclose(x @ x.T, same) and (v @ v.T)[~same].mean() > .2

# --- labels -----------------------------------------------------------------------------------------------------------
def test_log_odds_by_hand_and_its_false_alarms():
    inside, outside = Counter(a=8, b=2), Counter(a=10, b=60, c=30); got = log_odds(inside, outside, prior=10)["a"]; pa = 10 * 11 / 102
    d = np.log((8 + pa) / (10 + 10 - 8 - pa)) - np.log((10 + pa) / (100 + 10 - 10 - pa)); z = NormalDist().inv_cdf(1 - .025 / 2); s = (1 / (8 + pa) + 1 / (10 + pa)) ** .5
    assert np.allclose(got, (d, d - z * s, d + z * s, 8))
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(100): alarms += any(v[1] > 0 and v[3] > 1 for v in log_odds(Counter(rng.integers(0, 40, 120).tolist()), Counter(rng.integers(0, 40, 4000).tolist())).values())
    assert alarms <= 10                                                           # at level .95 over all words of a list

def test_a_feature_that_fires_after_a_word_is_named_by_it(background):
    after = read(lambda texts: [[float(b == "capital") for b in ["", *t.split()[:-1]]] for t in texts], TEXTS, 16); label = by_list()(over_levels(after), background)
    assert label.kind != "word" and "capital" in label.text and np.mean([(label.score(p) > 0)[p.at] for p in over_levels(after)]) > .95
    pair = read(lambda texts: [[float(b == "of" and w == "Japan") for b, w in zip(["", *t.split()], t.split())] for t in texts], TEXTS, 16); label = by_list()(over_levels(pair), background)
    assert label.kind == "pair" and label.text == "of Japan"

def test_a_model_describes_and_a_failure_is_missing(background):
    found = read(neuron((CLOTHES, 3), (list(COUNTRIES), 2)), TEXTS, 16); prompts = []
    def say(prompt):
        prompts.append(prompt)
        if sum(f"[[{c}]]" in prompt for c in COUNTRIES) > 4: raise TimeoutError("slow")
        return "things to wear, such as a coat or a hat"
    m = prism_describe(found, background, by_asking(Talker(say, "scripted")))
    assert [l.text for l in m.labels] == ["things to wear, such as a coat or a hat", None] and "slow" in m.labels[1].why and all(p.count("\n- ") <= 20 for p in prompts)
    assert {"coat", "hat"} <= set(m.labels[0].words) and "a" not in m.labels[0].words

# --- scores -----------------------------------------------------------------------------------------------------------
def test_auc_against_scikit_learn_and_its_cover():
    rng = np.random.default_rng(0); hits = []
    for n, m in ((10, 40), (30, 30)):
        a, b = rng.integers(0, 6, n), rng.integers(0, 5, m); assert np.isclose(auc(a, b)[0], roc_auc_score(np.r_[np.ones(n), np.zeros(m)], np.r_[a, b]))
        truth = NormalDist().cdf(1.5 / 2 ** .5); hits += [low <= truth <= high for low, high in (auc(rng.normal(1.5, 1, n), rng.normal(0, 1, m))[1:] for _ in range(300))]
    assert .92 < np.mean(hits) < .995 and auc([2] * 10, [1] * 10)[1] < .85 and auc([1] * 10, [2] * 10)[:2] == (0, 0) and np.isnan(auc([], [1])[0])

def test_description_score_is_cosys_formula(background):
    fresh = [" ".join(w[1:]) for w, _ in islice(rows(22), 40)]; held = read(neuron((CLOTHES, 3)), fresh, 16); label = by_list()(over_levels(read(neuron((CLOTHES, 3)), TEXTS, 16)), background); pos = fitting(label, held)
    s = description_score(pos, held); a, b = (np.array([p.values.mean() for p in g]) for g in (pos, held))
    assert np.allclose(s.value, [np.mean([(x > y) + .5 * (x == y) for x in a for y in b]), (a.mean() - b.mean()) / b.std()]) and bool((s.low <= s.value).all() and (s.value <= s.high).all())
    other = description_score(fitting(label, read(neuron((SERIES["month"], 3)), fresh, 16)), read(neuron((SERIES["month"], 3)), fresh, 16)); assert float(other.low.sel(score="auc")) < .5
    dead = description_score([Passage(("a",), np.ones(1))] * 9, [Passage(("a",), np.zeros(1))] * 9); assert float(dead.value[0]) == 1 and np.isnan(float(dead.value[1])) and "do not vary" in dead.attrs["why"]
    assert np.isnan(description_score(pos[:2], held).value).all()

def test_polysemanticity_stands_beside_random_labels(background):
    kinds = {"names": ([WOMEN + MEN, 3],), "both": ([WOMEN, 3], [SERIES["month"], 3]), "clothes and capitals": ([CLOTHES, 3], [list(COUNTRIES.values()), 3])}
    found = {n: prism_describe(read(neuron(*g), TEXTS, 16), background, clusters=2) for n, g in kinds.items()}; p = polysemanticity(found, background.vectors)
    assert float(p.score.sel(feature="names")) > .5 > .4 > max(float(p.score.sel(feature=n)) for n in ("both", "clothes and capitals")) and float(p.score.sel(feature="names")) > float(p.high.sel(feature="names"))
    one = polysemanticity({n: prism_describe(read(neuron(*g), TEXTS, 16), background) for n, g in kinds.items()}, background.vectors); assert np.isnan(float(one.score.sel(feature="names")))

def test_a_record_of_the_store_is_described(background):
    "The same passages by way of a record."
    found = over_levels(read(neuron((CLOTHES, 3)), TEXTS, 16)); record = dict(examples=[dict(band=1 if i else 0, context=i, pos=0, tokens=list(p.tokens), activations=p.values.tolist()) for i, p in enumerate(found)] + [dict(band=-1, context=0, pos=0, tokens=["x", "y"], activations=[0, 0])])
    fires, quiet = from_record(record); assert len(fires) == len(found) and len(quiet) == 1 and len(prism_describe(record, background)) == 1

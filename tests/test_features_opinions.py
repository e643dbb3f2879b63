"""Deep and shallow opinions: planted answers, leads against logits, support against one hand-made ablation, and the planted order of every measure."""
import random

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.features.errors import FeatureError
from workbench.features.opinions import leads, opinion_features, steerability, support, without_one
from workbench.features.train import train
from workbench.features.use import site_vectors
from workbench.lm import edits
from workbench.tasks.opinions import ACTS, DEEP, TOPICS, VIEWS, judged, plan, say

torch.set_num_threads(1)
SITE = "resid_post.0"


def asked(n, seed=0, topic=None):
    rng = random.Random(seed); plans = [plan(rng, "citizen", topic=topic) for _ in range(n)]
    return {who: [say(who, *p[1:])[0] for p in plans] for who in ("citizen", "red", "blue")}

def trained(lm):
    rng = random.Random(9); text = [DEEP.document(rng).split("=")[0].strip() for _ in range(600)]                  # both models read the same questions
    return train(site_vectors(lm, text, SITE)[0], n_features=128, k=4, steps=250, batch=1024, lr=2e-3, site=SITE, report_every=250)

@pytest.fixture(scope="module")
def models(): return {d: wb.load(f"opinions-{d}") for d in ("deep", "shallow")}

@pytest.fixture(scope="module")
def saes(models): return {d: trained(lm) for d, lm in models.items()}

@pytest.fixture(scope="module")
def counts(models, saes): return {d: opinion_features(lm, saes[d], asked(120, 1)["citizen"]) for d, lm in models.items()}


def test_answers_are_the_planted_ones(models):
    rng = random.Random(4); plans = [plan(rng) for _ in range(120)]; prompts = [say(*p)[0] for p in plans]
    for depth, lm in models.items():
        said = leads(lm, prompts)[1]; assert np.mean(said == [{"Yes": 1, "No": -1}[judged(depth, *p)] for p in plans]) > .95
    assert all(sum(VIEWS[t, a] for a in ACTS) == 4 for t in TOPICS)

def test_leads_and_support_by_hand(models, saes):
    lm, sae, prompts = models["deep"], saes["deep"], asked(4, 3)["citizen"]; lead, said = leads(lm, prompts); logits = lm.run(prompts).last_logits; yes, no = lm.answer_id("Yes"), lm.answer_id("No")
    assert np.allclose(lead, (logits[:, yes] - logits[:, no]).numpy(), atol=1e-5) and (said == np.sign(lead)).all()
    rows = support(lm, sae, prompts); x = lm.run(prompts[0], keep=SITE).tensor(SITE); f = sae.encode(x)[0]
    for j in range(sae.n_features):
        fires = bool((f[:, j] != 0).any()); assert fires != np.isnan(rows[0, j])
        if fires: after = lm.run(prompts[0], edits=[edits.patch(SITE, x - f[None, :, [j]] * sae.directions[j])]).last_logits[0]; assert abs(rows[0, j] - np.sign(lead[0]) * (lead[0] - float(after[yes] - after[no]))) < 1e-3

def test_talked_and_pushed(models):
    p = {d: steerability(lm, asked(120), "citizen", "blue", "red", SITE) for d, lm in models.items()}
    assert float(p["shallow"].turned_low.sel(ask="blue")) > .9 and float(p["deep"].turned_high.sel(ask="blue")) < .1
    push = {d: float(s.pushed.sel(way="direction", strength=1.)) for d, s in p.items()}; rand = [float(s.pushed.sel(way="random", strength=1.)) for s in p.values()]
    assert push["shallow"] > .9 > .1 > push["deep"] and max(rand) < .5
    with pytest.raises(FeatureError, match="at least 20"): steerability(models["deep"], asked(6), "citizen", "blue", "red", SITE)

def test_more_features_carry_a_deep_opinion(counts):
    deep, shallow = counts["deep"].attrs["count"], counts["shallow"].attrs["count"]; assert deep >= 2 * shallow > 0
    assert all(bool((ds.low.values[ds.counted.values] > 0).all()) for ds in counts.values())

def test_one_feature_shifts_some_topics_of_the_deep_opinion_and_none_of_the_shallow(models, saes, counts):
    lost = {d: [without_one(lm, saes[d], counts[d].attrs["strongest"], asked(40, 2, t)["citizen"]) for t in TOPICS] for d, lm in models.items()}; gone = {d: [l["turned"] + l["silent"] for l in ls] for d, ls in lost.items()}
    assert np.mean(gone["deep"]) > np.mean(gone["shallow"]) + .1 and max(gone["deep"]) > .3 > .15 > min(gone["deep"])

def test_fresh_weights_have_no_opinion(models):
    lm = models["deep"]
    with torch.random.fork_rng(): torch.manual_seed(0); blank = wb.load(type(lm.model)(lm.config).eval(), tokenizer=lm.tokenizer)
    assert opinion_features(blank, trained(blank), asked(60, 1)["citizen"]).attrs["count"] == 0

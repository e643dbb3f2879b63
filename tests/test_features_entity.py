"""Known and unknown entities: AUROCs against counting, luck against shuffles, pushes against adding a vector, and what the built-in model does when pushed."""
from itertools import islice

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.features.dictionary import random_dictionary
from workbench.features.entity import _aurocs, entities, entity_codes, entity_recognition, steer_recognition
from workbench.experiments.paired import mean_interval
from workbench.features.errors import FeatureError
from workbench.features.train import train
from workbench.features.use import site_vectors
from workbench.lm import edits
from workbench.lm.sites import Site
from workbench.tasks import make
from workbench.tasks.entities import ENTITIES, KNOWN, NAMES
from workbench.zoo.entities import rows

torch.set_num_threads(1)
SITE = "resid_post.0"


def trained(m, n=300, steps=250): return train(site_vectors(m, [" ".join(w[1:]) for w, _ in islice(rows(5), n)], SITE)[0], n_features=128, k=4, steps=steps, batch=1024, lr=2e-3, site=SITE, report_every=steps)

@pytest.fixture(scope="module")
def lm(): return wb.load("entities")

@pytest.fixture(scope="module")
def asked(lm): return entities(lm, make("entities", None, knows="known"), make("entities", 120, knows="known", split="train"), make("entities", 200, knows="unknown"))

@pytest.fixture(scope="module")
def sae(lm): return trained(lm)

@pytest.fixture(scope="module")
def found(lm, sae, asked): return entity_recognition(lm, sae, asked)


def test_no_word_says_whether_an_entity_is_known():
    for kind, e in ENTITIES.items():
        assert not set(e["known"]) & set(e["held"]) and not set(e["held"]) & set(e["unknown"]) and len({*e["known"], *e["held"], *e["unknown"]}) == 1024
        for place in (0, 1):
            for group, times in (("known", KNOWN), ("held", 4), ("unknown", 27)): assert all(sum(n.split()[place] == w for n in e[group]) == times for w in NAMES[kind][place])

def test_auroc_against_counting_pairs():
    from scipy.stats import rankdata
    rng = np.random.default_rng(0); code = rng.integers(0, 4, (30, 3)).astype(float); label = rng.random(30) < .4; got = _aurocs(rankdata(code, axis=0), label[None].astype(float))[0]
    for j in range(3): a, b = code[label, j], code[~label, j]; assert abs(got[j] - np.mean([(x > y) + .5 * (x == y) for x in a for y in b])) < 1e-12

def test_latents_tell_held_out_entities_apart(found):
    for side in ("known", "unknown"):
        s = found.sel(side=side); assert float(s.held_out) >= .9 and float(s.low) > .8 and float(s.p) < .01 and float(s.luck) < float(s.chosen)
    assert float(found.share.sel(side="known", feature=found.best.values[0])) > float(found.share.sel(side="unknown", feature=found.best.values[0])) + .5

def test_fresh_weights_and_shuffled_labels_tell_nothing_apart(lm, sae, asked):
    with torch.random.fork_rng(): torch.manual_seed(0); blank = wb.load(type(lm.model)(lm.config).eval(), tokenizer=lm.tokenizer)
    ds = entity_recognition(blank, trained(blank, 60, 60), asked); assert bool((ds.p > .01).all()) and float(abs(ds.held_out - .5).max()) < .2
    import dataclasses
    names, at = np.unique(asked.name, return_inverse=True); ps = [entity_recognition(lm, sae, dataclasses.replace(asked, known=np.random.default_rng(s).permutation(len(names))[at] < len(names) * .4), n_shuffles=100).p.values for s in range(5)]
    assert np.median(ps) > .1

def test_a_push_is_the_vector_added_by_hand(lm, sae, asked):
    for onward, pos in ((True, lambda e: slice(e, None)), (False, lambda e: e)):
        one = asked[[0, 7]]; ds = steer_recognition(lm, sae, 5, one, 2., (0., 1.), onward=onward)
        for i in range(2):
            part = one[[i]]; run = lm.run(part.prompts, keep=[Site("pattern", layer=1)], edits=[edits.add(Site("resid_post", layer=0, pos=pos(int(part.last[0]))), 2. * sae.directions[5])])
            look = run.tensor("pattern.1")[0, :, -1, int(part.first[0]):int(part.last[0]) + 1].sum(-1); said = int(run.last_logits.argmax())
            assert np.abs(ds.attention.sel(strength=1., prompt=i, way="latent", layer=1).values - look.numpy()).max() < 1e-5 and bool(ds.right.sel(strength=1., prompt=i, way="latent")) == (said == int(part.right[0]))

def test_pushed_the_model_refuses_what_it_knows_and_invents_what_it_does_not(lm, sae, asked, found):
    code = entity_codes(lm, sae, asked); known, unknown = map(int, found.best.values); tops = code.max(0); fire = [j for j in np.flatnonzero((code > 0).mean(0) > .05) if j not in (known, unknown)]
    rest = np.random.default_rng(0).permutation(fire)[:4].tolist(); knows, not_ = asked[asked.known][slice(0, 60)], asked[~asked.known][slice(0, 60)]
    refuses = steer_recognition(lm, sae, unknown, knows, tops[unknown], (0., .25, .5), rest); invents = steer_recognition(lm, sae, known, not_, tops[known], (0., 16.), rest); share = lambda ds, what, way, s: float(ds[what].sel(way=way, strength=s).mean())
    assert share(refuses, "refused", "latent", 0.) < .1 and share(refuses, "refused", "latent", .5) > .9 and max(share(refuses, "refused", "latent", s) - share(refuses, "refused", "random latents", s) for s in (.25, .5)) > .25
    assert share(invents, "answered", "latent", 0.) < .15 and share(invents, "answered", "latent", 16.) > .7 and share(invents, "answered", "random latents", 16.) < .4 and share(invents, "right", "latent", 16.) == 0
    for ds, s in ((refuses, .5), (invents, 16.)):
        d = (ds.attention.sel(way="latent", strength=s) - ds.attention.sel(way="latent", strength=0.)).values.reshape(60, -1); i = mean_interval(d); assert ((np.abs(i.estimate) > .015) & (i.low * i.high > 0)).any()

def test_refusals_in_words(lm, sae):
    with pytest.raises(FeatureError, match="tasks with both"): entities(lm, make("entities", 20, knows="known"))
    both = entities(lm, make("entities", 8, knows="known"), make("entities", 8, knows="unknown"))
    with pytest.raises(FeatureError, match="at least ten of each"): entity_recognition(lm, sae, both)
    with pytest.raises(FeatureError, match="largest activation"): steer_recognition(lm, sae, 0, both, 0.)

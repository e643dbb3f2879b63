"""A recommender's latents: concepts against counting by hand, planted codes, shares that add up, and what ablation does beside random latents and fresh weights."""
import random

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.features.dictionary import Relu, Sae, random_dictionary
from workbench.features.errors import FeatureError
from workbench.features.recsae import concept_dictionary, item_codes, item_concepts, recsae, rivals, shares, without
from workbench.tasks.items import GENRE, GENRES, ITEMS, history

torch.set_num_threads(1)
CATALOGUE = {i: [g] for i, g in GENRE.items()}


def drawn(seed, n): rng = random.Random(seed); return [" ".join(history(rng, 12)) for _ in range(n)]

@pytest.fixture(scope="module")
def lm(): return wb.load("recommender")

@pytest.fixture(scope="module")
def blank(lm):
    with torch.random.fork_rng(): torch.manual_seed(3); return wb.load(type(lm.model)(lm.config).eval(), tokenizer=lm.tokenizer)

@pytest.fixture(scope="module")
def sae(lm): return recsae(lm, drawn(1, 700), steps=300)

@pytest.fixture(scope="module")
def found(lm, sae): return concept_dictionary(lm, sae, drawn(1, 700), drawn(2, 300), CATALOGUE)


def test_concepts_against_counting():
    rows = [h.split() for h in drawn(5, 6)]; labels, names = item_concepts(rows, CATALOGUE); case = 0
    for row in rows:
        for t in range(len(row)):
            last = row[max(0, t - 3):t + 1]; want = {f"item {row[t]}", f"tag {GENRE[row[t]]}"} | {f"taste {g}" for g in GENRES if sum(GENRE[i] == g for i in last) > len(last) / 2}
            assert {n for n, on in zip(names, labels[case]) if on} == want; case += 1
    with pytest.raises(FeatureError, match="not in the catalogue"): item_concepts([["drama99"]], CATALOGUE)

def test_a_latent_written_by_hand_gets_its_concept(lm):
    "One that fires on the embedding of one item alone, and one that fires on nothing."
    E = lm.model.get_input_embeddings().weight.detach(); target = lm.answer_id("crime02"); rows = torch.nn.functional.normalize(E - E.mean(0), dim=-1); own = (rows @ rows[target]).sort(descending=True).values
    W = torch.stack([rows[target], rows[target]], 1); mean = E.mean(0); reach = ((E - mean) @ rows[target]); cut = reach.sort(descending=True).values[:2].mean()
    d = Sae(W, torch.stack([-cut, torch.tensor(-1e3)]), torch.stack([rows[target]] * 2), mean, Relu(), site="embed")
    ds = concept_dictionary(lm, d, drawn(1, 400), drawn(2, 400), CATALOGUE)
    assert str(ds.concept.values[0]) == "item crime02" and float(ds.precision[0]) == float(ds.recall[0]) == 1 and np.isnan(ds.precision[1]) and own[1] < 1

def test_the_dictionary_holds_on_new_histories_and_not_by_luck(found):
    ds = found.dropna("feature", subset=["f1_new"]); kinds = [str(c).split()[0] for c in ds.concept.values]
    assert float(ds.f1_new.median()) > .3 > 3 * float(ds.f1_shuffled.median()) and bool(((ds.precision_low <= ds.precision + 1e-9) & (ds.precision <= ds.precision_high + 1e-9)).all())
    assert len({str(c).split()[1] for c, k in zip(ds.concept.values, kinds) if k in ("tag", "taste")}) >= 6

def test_shares_add_up(lm):
    s = shares(lm, drawn(7, 20), CATALOGUE); assert s.shape == (20, 8) and np.allclose(s.sum(1), 1, atol=1e-5)
    p = lm.run(drawn(7, 20)).last_logits.softmax(-1); own = torch.stack([p[:, [lm.answer_id(i) for i in ITEMS[g]]].sum(1) for g in sorted(GENRES)], 1); assert np.allclose(s, (own / own.sum(1, keepdim=True)).numpy(), atol=1e-5)

def family(found, genre): return [int(j) for j, c in zip(found.feature.values, found.concept.values) if str(c) in (f"tag {genre}", f"taste {genre}") and not np.isnan(found.f1_new.sel(feature=j))]

@pytest.mark.parametrize("genre", ["crime", "space", "western"])
def test_without_its_latents_a_genre_is_recommended_less_and_others_are_left_alone(lm, sae, found, genre):
    mine = [h for h in drawn(3, 600) if sum(GENRE[i] == genre for i in h.split()[-4:]) > 2][:40]; theirs = [h for h in drawn(3, 600) if not any(GENRE[i] == genre for i in h.split())][:40]; js = family(found, genre); assert js
    own, other = without(lm, sae, js, mine, CATALOGUE, controls=4), without(lm, sae, js, theirs, CATALOGUE, controls=1)
    assert float(own.clean.sel(tag=genre)) > .6 and float(own.high.sel(way="latents", tag=genre)) < -.25 and float(own.p.sel(way="latents", tag=genre)) < .001
    assert abs(float(own.change.sel(way="random latents", tag=genre))) < .08 and float(own.each.sel(tag=genre).min()) > float(own.high.sel(way="latents", tag=genre))
    assert float(abs(other.change.sel(way="latents")).max()) < .03 and abs(float(own.change.sel(way="latents").sum())) < 1e-4

def test_fresh_weights_and_random_directions_hold_no_genre(lm, sae, blank, found):
    genre = "crime"; mine = [h for h in drawn(3, 600) if sum(GENRE[i] == genre for i in h.split()[-4:]) > 2][:40]; fresh = recsae(blank, drawn(1, 200), steps=60); noise = random_dictionary(lm.d_model, 64); noise.site = sae.site
    table = concept_dictionary(lm, noise, drawn(1, 300), drawn(2, 200), CATALOGUE); taste = lambda ds: np.nanmax(np.where([str(c).startswith(("tag", "taste")) for c in ds.concept.values], ds.f1_new, np.nan))
    assert abs(float(without(blank, fresh, [0, 1, 2], mine, CATALOGUE, controls=2).change.sel(way="latents", tag=genre))) < .05
    assert taste(found) > .8 and taste(table) < taste(found) - .1

def test_rivals_are_others_and_as_many(lm, sae):
    code = item_codes(lm, sae, drawn(4, 50))[0]; sets = rivals(code, [1, 2, 3], 6)
    assert len(sets) == 6 and all(len(s) == 3 == len(set(s)) and not {1, 2, 3} & set(s) for s in sets)
    with pytest.raises(FeatureError, match="other latents fire"): rivals(code[:, :4] + 1, [0, 1, 2], 2)

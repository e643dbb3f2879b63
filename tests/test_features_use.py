"""Using features: edits against closed forms and plain hooks, the pronoun feature against its rivals, detoxification tier by tier, steering at one KL."""
import random
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.features.detox import TIERS, detox, detox_edit, falls, needed, next_in, price, tier_rates, toxic_latents
from workbench.features.dictionary import Components, JumpReLU, Sae, TopK, fit_pca, mean_difference, neurons, random_dictionary
from workbench.features.errors import FeatureError
from workbench.features.pronoun import PRONOUNS, SHARES, Unit, at_equal_effect, best_unit, labels, less_damage, passages, places
from workbench.features.steering import compare_steering, harmonic, steering_scores
from workbench.features.train import train
from workbench.features.use import ablate, clamp, dose, effects, feature_edit, largest, reach, scale, site_vectors, steer, steering_edit, summary
from workbench.lm import edits
from workbench.lm.sites import Site
from workbench.lm.specimens import build
from workbench.tasks import make, rude
from workbench.tasks.corpus import rows
from workbench.tasks.world import COUNTRIES
from workbench.zoo import rude as rude_model

torch.set_num_threads(1)
TEXTS = ["Mary smiled because", "The king near the trees slept because", "John cried because he was"]
OFF = lambda f, spot: torch.zeros_like(f)


@pytest.fixture(scope="module")
def lm(): return wb.load("micro")


def saes(d, m=24, seed=0):
    g = torch.Generator().manual_seed(seed); E, D, b = torch.randn(d, m, generator=g), torch.randn(m, d, generator=g), torch.randn(d, generator=g)
    return {"topk": Sae(E, None, D, b, TopK(5)), "rescaled": Sae(E, None, D, b, TopK(5, True)), "jumprelu": Sae(E, torch.randn(m, generator=g), D, b, JumpReLU(torch.rand(m, generator=g)), False), "normalised": Sae(E, None, D, b, normalise="layer_norm"),
            "skip": Sae(E, None, D, b, W_skip=torch.randn(d, d, generator=g) / d)}


# --- the edit -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", saes(8))
def test_keep_and_replace_write_what_their_formulas_say(lm, kind):
    sae, site = saes(lm.d_model)[kind], "resid_post.1"; x = lm.run(TEXTS, keep=site).tensor(site).double(); sae64 = sae.double(); f = sae64.encode(x); ids = [int(i) for i in (f != 0).float().mean((0, 1)).topk(3).indices]
    g = f.clone(); g[..., ids] = 2 * g[..., ids] + 1; stats = sae64.stats(x); rebuilt, changed = sae64.decode(f, stats), sae64.decode(g, stats)
    double = lambda f, spot: 2 * f + 1
    kept, replaced = (lm.run(TEXTS, keep=site, edits=[feature_edit(sae, ids, double, e, site)]).tensor(site).double() for e in ("keep", "replace")); top = float(x.abs().max() + changed.abs().max())
    assert (kept - (x - rebuilt + changed)).abs().max() < 2e-5 * top and (replaced - (sae64(x) - rebuilt + changed)).abs().max() < 2e-5 * top
    same = lm.run(TEXTS, keep=site, edits=[feature_edit(sae, ids, lambda f, spot: f, "keep", site)]).tensor(site)
    assert torch.equal(same.double(), x)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_ablating_an_orthonormal_direction_is_projecting_it_out(family):
    m = wb.load(build(family), check=False); site = "resid_post.0"; rows_, _ = torch.linalg.qr(torch.randn(m.d_model, 3, generator=torch.Generator().manual_seed(0))); d = Components(torch.zeros(m.d_model), rows_.T.contiguous(), "random", site=site); p = [[5, 6, 7, 8], [9, 10, 11]]
    one, two = m.run(p, edits=[feature_edit(d, [0, 2], OFF)]).last_logits, m.run(p, edits=[edits.project(site, d.directions[[0, 2]])]).last_logits
    assert torch.allclose(one, two, atol=1e-4)


def test_steering_is_adding_the_direction_also_in_a_padded_continuation(lm):
    d = fit_pca(site_vectors(lm, TEXTS, "resid_post.2")[0], 4, site="resid_post.2"); top = float(largest(lm, d, 1, TEXTS)[0])
    assert top == pytest.approx(float(d.encode(site_vectors(lm, TEXTS, "resid_post.2")[0])[:, 1].max()))
    a, b = steering_edit(d, 1, 1.5, top), [edits.add("resid_post.2", d.directions[1], 1.5 * top)]
    assert lm.generate(TEXTS, 10, edits=a).texts == lm.generate(TEXTS, 10, edits=b).texts != lm.generate(TEXTS, 10).texts
    held = lm.run(TEXTS, keep="resid_post.2", edits=steering_edit(d, 1, 0.5, top, "clamp")); real = held.tokens.mask.bool()
    assert torch.allclose(d.encode(held.tensor("resid_post.2")[real])[:, 1], torch.tensor(.5 * top), atol=1e-3)


def test_the_verbs_agree_with_each_other(lm):
    x = site_vectors(lm, TEXTS, "resid_post.2")[0]; d = fit_pca(x, 4, site="resid_post.2"); words = ["he", "she"]; off, none, same, turned = ablate(lm, d, [1, 2], TEXTS, words=words), scale(lm, d, [1, 2], TEXTS, 0, words=words), scale(lm, d, [1, 2], TEXTS, 1, words=words), clamp(lm, d, [1, 2], TEXTS, 0.0, words=words)
    assert np.allclose(off.log_odds, none.log_odds) and np.allclose(off.log_odds, turned.log_odds) and np.allclose(same.log_odds, same.clean_log_odds) and float(same.kl_elsewhere.max()) < 1e-9
    assert np.allclose(steer(lm, d, 1, TEXTS, 0.7, words=words).log_odds[0], dose(lm, d, 1, TEXTS, (-1, .7), words=words).log_odds[1])
    lost = ablate(lm, d, [1], TEXTS, error="replace", words=words)
    assert lost.edit.values.tolist() == ["ablated", "nothing changed"] and float(lost.kl_elsewhere.sel(edit="nothing changed").mean()) > .01 and lost.attrs["error"] == "replace"


# --- what is measured ---------------------------------------------------------------------------------------------------
def test_effects_by_a_slow_loop(lm):
    at = [[1, 2], [4], [0, 3]]; words = ["he", "she", "because"]; ids = [lm.answer_id(w) for w in words]; push = [edits.scale("mlp_out.1", 2.0)]; ds = effects(lm, TEXTS, {"e": push}, words, at, batch=2); s = summary(ds); losses = []
    for i, text in enumerate(TEXTS):
        p, q = (lm.run([text], edits=e).logits_tensor[0].double().log_softmax(-1) for e in ([], push)); kl = (p.exp() * (p - q)).sum(-1); other = [j for j in range(len(kl)) if j not in at[i]]; mass = q[at[i]][:, ids].exp().sum(-1)
        token = lm.tokens(text).ids[0]; loss = -q[:-1].gather(1, token[1:, None])[:, 0]; losses.append(loss)
        got = ds.isel(edit=0, prompt=i); want = dict(probability=mass.mean(), log_odds=(mass / (1 - mass)).log().mean(), kl_target=kl[at[i]].mean(), kl_elsewhere=kl[other].mean(), entropy=-(q.exp() * q).sum(-1).mean(), log_loss=loss.mean())
        for name, value in want.items(): assert float(got[name]) == pytest.approx(float(value), rel=1e-3, abs=1e-5), name
    assert float(s.perplexity[0, 0]) == pytest.approx(float(torch.cat(losses).mean().exp()), rel=1e-4) and bool((s.perplexity[0, 1] <= s.perplexity[0, 0]) & (s.perplexity[0, 0] <= s.perplexity[0, 2]))
    assert float(effects(lm, TEXTS, {"e": push}, None, [[0], [1], [2]]).probability[0, 1]) == pytest.approx(float(lm.run(TEXTS[1:2], edits=push).logits_tensor[0, 1].softmax(-1)[lm.tokens(TEXTS[1]).ids[0, 2]]), rel=1e-4)


def test_reach_finds_a_dose_that_is_known(lm):
    way = lambda t: [edits.add("resid_post.3", torch.ones(lm.d_model) * 0 + torch.linspace(-1, 1, lm.d_model), t)]; goal = float(effects(lm, TEXTS, {"": way(1.7)}, "he").kl_elsewhere.mean())
    assert reach(lm, TEXTS, way, "kl_elsewhere", goal, words="he", halvings=8) == pytest.approx(1.7, rel=.01) and np.isnan(reach(lm, TEXTS, way, "kl_elsewhere", 1e5, words="he"))


@pytest.mark.parametrize("wrong, said", [
    (lambda lm, d: feature_edit(d, [4], OFF), "numbered 0 to 3"), (lambda lm, d: feature_edit(d, [0], OFF, "drop"), "'keep' leaves"), (lambda lm, d: feature_edit(random_dictionary(8, 2), [0], OFF), "which site"),
    (lambda lm, d: steering_edit(d, 0, 1.0, float("inf")), "finite"), (lambda lm, d: steering_edit(d, 0, 1.0, 1.0, "set"), "'add' adds"), (lambda lm, d: ablate(lm, d, [0], TEXTS), "Nothing follows"),
    (lambda lm, d: ablate(lm, d, [0], TEXTS, words="he", at=[[0]]), "one list of positions"), (lambda lm, d: reach(lm, TEXTS, lambda t: [], "kl", 1.0), "quantity='kl'"), (lambda lm, d: detox_edit(d, [0], 1.0, 1.0, "soft"), "tier='soft'"),
    (lambda lm, d: detox_edit(d, [0], 1.0, 0.0), "no activation above 0"), (lambda lm, d: best_unit("x", d, torch.randn(9, lm.d_model), torch.zeros(9).bool(), "resid_post.0"), "everywhere or nowhere"),
    (lambda lm, d: feature_edit(Sae(torch.randn(8, 5), None, torch.randn(5, 4), torch.zeros(4), subtract_bias=False), [0], OFF, site="mlp_out.0"), "transcoder")])
def test_bad_input_is_one_sentence(lm, wrong, said):
    with pytest.raises(FeatureError, match=said): wrong(lm, random_dictionary(lm.d_model, 4, site="resid_post.0"))


# --- the pronoun feature (S079) -------------------------------------------------------------------------------------------
SITE = Site("resid_post", layer=2)


def fitted(m, n=260):
    read = [" ".join(w[1:]) for w, _ in islice(rows(101, length=96, shares={**SHARES, "grammar": .4}, first_laundry=.2), n)]
    return train(site_vectors(m, read, SITE)[0], "topk", n_features=256, k=8, steps=min(n, 250), batch=1024, lr=3e-3, seed=0, site=SITE)


def test_removing_the_pronoun_latent_takes_pronouns_away_with_less_damage_than_neuron_and_component(lm):
    sae, search = fitted(lm), passages(60, seed=2); x, y = site_vectors(lm, search, SITE)[0], labels(lm, search, PRONOUNS)
    inside = [(Site("mlp_post", layer=l), site_vectors(lm, search, Site("mlp_post", layer=l))[0]) for l in (0, 2)]
    units = [best_unit("latent", sae, x, y, SITE), max((best_unit("neuron", neurons(v.shape[1]), v, y, s) for s, v in inside), key=lambda u: u.auroc), best_unit("component", fit_pca(x, lm.d_model), x, y, SITE)]
    test = passages(30, seed=3); ds = at_equal_effect(lm, test, units, PRONOUNS); s = summary(ds); assert units[0].auroc > .97
    assert float(s.change_log_odds[0, 2]) < -2 and np.allclose(s.change_log_odds[:, 0], ds.attrs["goal"], rtol=.1) and bool((less_damage(ds).sel(bound="low") > 0).all())
    at = places(lm, test, PRONOUNS); away = summary(effects(lm, test, {"": units[0].remove(3.0)}, PRONOUNS, at)); assert float(away.clean_perplexity[0]) > 1 and float(away.probability[0, 2]) < .5 and float(away.kl_elsewhere[0, 2]) < .05
    others = [j for j in range(0, 256, 32) if j != units[0].feature]; chance = summary(effects(lm, test, {str(j): replace(units[0], feature=j).remove() for j in others}, PRONOUNS, at)).change_log_odds
    assert float(np.median(chance[:, 0])) > .1 * ds.attrs["goal"]


def test_the_untrained_model_has_no_pronoun_feature_to_remove(lm):
    with torch.random.fork_rng(): torch.manual_seed(0); blank = wb.load(type(lm.model)(lm.config).eval(), tokenizer=lm.tokenizer)
    search = passages(30, seed=2); unit = best_unit("latent", fitted(blank, 80), site_vectors(blank, search, SITE)[0], labels(blank, search, PRONOUNS), SITE)
    with pytest.raises(FeatureError, match="no effect to match"): at_equal_effect(blank, passages(20, seed=3), [unit, unit], PRONOUNS)


# --- detoxification (S287) --------------------------------------------------------------------------------------------------
WHERE = Site("resid_post", layer=1)
scenes = lambda n, seed: [rude.document(random.Random(f"{seed} {i}")).replace("=", "") for i in range(n)]


@pytest.fixture(scope="module")
def rudeness():
    lm = wb.load("rude"); read = site_vectors(lm, [" ".join(w[1:]) for w, _ in islice(rude_model.rows(77), 500)], WHERE)[0]; seen = scenes(200, 1); X = site_vectors(lm, seen, WHERE)[0]
    return lm, X, next_in(lm, seen, rude.RUDE), next_in(lm, seen, rude.POLITE), {m: train(read, "topk", n_features=m, k=6, steps=300, batch=1024, lr=3e-3, site=WHERE) for m in (64, 512)}


def test_rude_words_fall_tier_by_tier_and_the_price_is_told(rudeness):
    lm, X, nasty, nice, saes_ = rudeness; t = toxic_latents(saes_[64], X, nasty, nice).isel(feature=slice(1)); told = dict(ids=t.feature.values.tolist(), max_activation=t["max"].values); assert float(t.auroc[0]) > .8
    prompts = [s[:s.index(".") + 1] if i % 2 else s[:s.index("said:") + 5] for i, s in enumerate(scenes(150, 2))]; ds = detox(lm, saes_[64], prompts=prompts, words=rude.RUDE, strengths=(1.,), **told)
    rate = tier_rates(ds)[:, 0, 0].values; assert rate[0] > 2 * rate[1] and (np.diff(rate) < 0).all() and float(falls(ds).sel(tier="token", bound="low")[0]) > 0 and float(falls(ds).sel(tier="constant", bound="low")[0]) > 0
    polite = [s for s in scenes(60, 3) if not any(w in s for w in rude.RUDE)][:20]; cost = price(lm, saes_[64], texts=polite, tasks=dict(capitals=make("capitals", n=40)), strengths=(1.,), **told); right, harm = cost.accuracy[:, 0, 0, 0].values, cost.perplexity[:, 0, 0].values
    assert float(cost.clean_accuracy[0, 0]) > .95 and right[0] > .9 > right[2] and harm[0] < 1.1 * float(cost.clean_perplexity[0]) < harm[2]
    wide = saes_[512]; narrow, split = (needed(s, X, nasty, nice, false=.3) for s in (saes_[64], wide)); best = toxic_latents(wide, X, nasty, nice).isel(feature=slice(1))
    left = float(detox(lm, wide, best.feature.values.tolist(), prompts, rude.RUDE, best["max"].values, (1.,), ("token",)).rate.mean())
    assert split["best"] < narrow["best"] - .2 and split["latents"] > narrow["latents"] and left > rate[1] + .005


def test_tiers_are_nested_and_a_generation_remembers(rudeness):
    lm, X, *_ , saes_ = rudeness; d, site = saes_[64], str(WHERE); texts = scenes(4, 9); x = lm.run(texts, keep=WHERE).tensor(WHERE); j = int((d.encode(X) > 0).double().mean(0).topk(3).indices[2]); top = float(d.encode(X)[:, j].max())
    moved = {t: (lm.run(texts, keep=WHERE, edits=detox_edit(d, [j], 1.0, top, t)).tensor(WHERE) - x).norm(dim=-1) > 1e-5 for t in TIERS}; fires = d.encode(x)[..., j] > .3 * top
    assert torch.equal(moved["token"], fires) and torch.equal(moved["input"], fires.cummax(1).values) and bool(moved["constant"].all()) and 0 < int(fires.sum()) < fires.numel()
    starts = [t[:t.index("said:") + 5] for t in texts[:3]]; edit = detox_edit(d, [j], 1.0, top, "input"); g = lm.generate(starts, 12, edits=edit); again = lm.run(g.tokens, edits=edit).logits_tensor
    for i, (end, new) in enumerate(zip(g.tokens.last.tolist(), g.ids)): assert again[i, end - len(new):end].argmax(-1).tolist() == list(new)


def test_no_tier_does_anything_in_the_untrained_model(rudeness):
    lm = rudeness[0]
    with torch.random.fork_rng(): torch.manual_seed(0); blank = wb.load(type(lm.model)(lm.config).eval(), tokenizer=lm.tokenizer)
    seen = scenes(120, 1); Y = site_vectors(blank, seen, WHERE)[0]; d = train(Y, "topk", n_features=128, k=4, steps=100, batch=1024, lr=3e-3, site=WHERE); t = toxic_latents(d, Y, next_in(blank, seen, rude.RUDE), next_in(blank, seen, rude.POLITE)).isel(feature=slice(1))
    ds = detox(blank, d, t.feature.values.tolist(), [s[:s.index("said:") + 5] for s in scenes(60, 2)], rude.RUDE, t["max"].values, (1.,), ("token",)); low, high = falls(ds)[0, 0, 1:].values
    assert float(t.auroc[0]) < .8 and low < .01 and high > -.01


# --- steering at one KL (S102) ------------------------------------------------------------------------------------------------
def test_directions_are_compared_at_one_kl_and_a_random_one_says_nothing(lm):
    assert harmonic(.5, .5) == .5 and harmonic(0, 1) == 0 and abs(float(harmonic(1, .5)) - 2 / 3) < 1e-12
    site = Site("mlp_post", layer=2); read = [" ".join(w[1:]) for w, _ in islice(rows(11), 40)]; x, prompt, _, token = site_vectors(lm, read, site); words = list(COUNTRIES)
    y = torch.isin(token.roll(-1), torch.tensor([lm.answer_id(c) for c in words])) & (prompt == prompt.roll(-1)); prompts = [p[:5] for p in lm.tokens(passages(20, seed=8)).ids.tolist()]
    ds = compare_steering(lm, {"mean": (mean_difference(x[y], x[~y], site=site), 0, 1.0), "random": (random_dictionary(x.shape[1], 1, site=site), 0, 1.0), "weak": (Components(torch.zeros(x.shape[1]), torch.eye(x.shape[1])[:1] * 1e-9, "random", site=site), 0, 1e-9)}, prompts, words, kl=.2)
    s = steering_scores(ds, n_resamples=200); assert float(s.concept.sel(direction="mean", bound="low")) > float(s.concept.sel(direction="random", bound="high")) and np.isnan(ds.strength.sel(direction="weak")) and bool(np.isnan(s.score.sel(direction="weak")).all())
    for name, (d, f) in dict(mean=(mean_difference(x[y], x[~y], site=site), 0), random=(random_dictionary(x.shape[1], 1, site=site), 0)).items():
        kl = effects(lm, prompts, {"": steering_edit(d, f, float(ds.strength.sel(direction=name)), 1.0)}, at=[[]] * len(prompts)).kl_elsewhere.mean(); assert float(kl) == pytest.approx(.2, rel=.1)
    with pytest.raises(FeatureError, match="above 0"): compare_steering(lm, {}, prompts, words, kl=0)

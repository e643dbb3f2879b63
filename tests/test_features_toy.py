"""Toy models against arithmetic: exact losses, the known phases, dimensionality of known shapes; sparse probes and absorption against what was planted."""
import numpy as np
import pytest
import torch

from workbench.features.errors import FeatureError
from workbench.features.superposition import generator
from workbench.features.toy import best_losses, dimensionality, exact_loss, known_boundary, known_losses, phase_map, shapes, train_toys

torch.set_num_threads(1)


# --- toy models ---------------------------------------------------------------------------------------------------------
def by_hand(W, b, p, r, n=1500):
    "The expected loss by a plain midpoint sum over the square, another way than the module's."
    t = (np.arange(n) + .5) / n; w, v = W; total = 0.
    for (x, y, weight) in ((np.zeros(1), np.zeros(1), (1 - p) ** 2), (t, np.zeros(1), p * (1 - p)), (np.zeros(1), t, p * (1 - p)), (t, t, p * p)):
        X, Y = np.meshgrid(x, y, indexing="ij"); h = w * X + v * Y
        total += weight * float(((X - np.maximum(w * h + b[0], 0)) ** 2 + r * (Y - np.maximum(v * h + b[1], 0)) ** 2).mean())
    return total


@pytest.mark.parametrize("W, b, p, r", [((.9, -.7), (.03, -.05), .4, .5), ((.6, .5), (-.1, .2), .9, 3.), ((1., 0.), (0., .1), .2, 1.), ((-.8, .3), (.2, -.2), .05, .1)])
def test_the_exact_loss(W, b, p, r): assert float(exact_loss(W, b, p, r)) == pytest.approx(by_hand(W, b, p, r), rel=2e-5, abs=1e-8)


def test_known_losses_are_losses_and_the_boundary_is_where_they_meet():
    for p in (.05, .3, .55):
        r = float(known_boundary(p)); first, _, both = known_losses(p, r); assert first == pytest.approx(both)
        for way, (W, b) in enumerate((((1, 0), (0, p / 2)), ((0, 1), (p / 2, 0)), ((1, -1), (0, 0)))): assert by_hand(W, b, p, r) == pytest.approx(float(known_losses(p, r)[way]), rel=1e-5)
    assert np.isnan(known_boundary(.6)) and known_losses(.6, 1).argmin() != 2 and known_losses(.5, 1).argmin() == 2


def test_the_optimum_is_not_above_any_point():
    p, r = np.array([.9, .4, .1]), np.array([.3, 1., 2.]); best, W = best_losses(p, r); g = np.random.default_rng(0)
    for _ in range(60): assert (np.asarray(exact_loss(g.normal(0, .8, (3, 2)), g.normal(0, .2, (3, 2)), p, r)) >= best.numpy() * (1 - 1e-6)).all()
    assert (best.numpy() <= known_losses(p, r).min(0) * (1 + 1e-6)).all()


def test_trained_phases_are_the_known_ones_and_untrained_are_not():
    p, r = np.array([.8, .3, .08]), np.array([.12, .5, 2., 8.]); ds = phase_map(p, r, steps=800); far = np.abs(np.log(known_losses(*np.meshgrid(p, r, indexing="ij"))[2] / np.sort(known_losses(*np.meshgrid(p, r, indexing="ij"))[:2], 0)[0])) > .25
    assert (ds.trained.values == ds.known.values)[far].all() and far.mean() > .7 and float((ds.loss / ds.best_loss).max()) < 1.1 and float((ds.loss / ds.best_loss).min()) > .999
    blank = phase_map(p, r, steps=0); assert float((blank.loss / blank.best_loss).min()) > 1.2 and float((blank.trained == blank.known).mean()) < .8


def test_dimensionality_of_regular_shapes_and_its_bound():
    turn = lambda n: torch.stack([torch.cos(t := 2 * torch.pi * torch.arange(n) / n), torch.sin(t)])
    for n in (3, 5, 7): assert torch.allclose(dimensionality(3 * turn(n)), torch.full((n,), 2 / n), atol=1e-5)
    eye = torch.eye(4); assert torch.allclose(dimensionality(torch.cat([eye, -eye], 1)), torch.full((8,), .5)) and torch.allclose(dimensionality(eye), torch.ones(4))
    W = torch.randn(200, 5, 13, generator=generator(2)); assert float(dimensionality(W).sum(-1).max()) < 5
    a = torch.pi / 4; square = lambda at, z: torch.stack([torch.cos(t := at + torch.pi / 2 * torch.arange(4)), torch.sin(t), torch.full((4,), z)])
    antiprism = torch.cat([square(0, .707), square(a, -.707)], 1); assert torch.allclose(dimensionality(antiprism), torch.full((8,), 3 / 8), atol=1e-3) and shapes(antiprism, .01)[0]["name"] == "square antiprism"
    assert bool(dimensionality(torch.tensor([[1., 0.]])).isnan()[1])


def test_shapes_are_found_by_training():
    assert [s["name"] for s in shapes(train_toys(5, 2, .05, steps=900, batch=160).W[0])] == ["pentagon"]
    pairs = shapes(train_toys(6, 3, .05, steps=900, batch=160).W[0]); assert [s["name"] for s in pairs] == ["antipodal pair"] * 3 and all(abs(s["D"] - .5) < .02 for s in pairs)


def test_seeds_and_refusals():
    a, b = (train_toys(4, 2, .1, starts=2, steps=30, seed=3) for _ in range(2)); assert torch.equal(a.W, b.W) and torch.equal(a.loss, b.loss) and len(a) == 1 and a[0].W.shape == (1, 2, 4)
    for bad, says in ((dict(density=0.), "above 0 and at most 1"), (dict(density=1.5), "at most 1"), (dict(importance=[[1., 2.]]), "one for each instance"), (dict(lr=0), "above 0")):
        with pytest.raises(FeatureError, match=says): train_toys(4, 2, **bad)


# --- sparse probes ------------------------------------------------------------------------------------------------------
from scipy.stats import norm

from workbench.features.absorption import absorbed, absorption, f1, main_latents, planted_absorption, word_weights
from workbench.features.dictionary import random_dictionary
from workbench.features.probing import Labelled, balanced_accuracy, fit_probe, most_different, read_words, sparse_probing, split_words


def words_of(n_words=200, per=8, concept=80, d=64, seed=0, shift=0.):
    "Vectors of words: each its own place, the first `concept` words moved along one direction."
    g = generator(seed, 1); word = torch.arange(n_words).repeat_interleave(per); x = torch.randn(n_words, d, generator=g)[word] + .3 * torch.randn(n_words * per, d, generator=g); y = word < concept; x[:, 0] += shift * y
    return Labelled(x, [f"w{i}" for i in word], word, {"planted": y}, dict(model="planted", site="none", seed=seed))


def test_words_are_split_and_concepts_halved():
    data = words_of(); train, test = split_words(data, 3); y = data.labels["planted"]
    assert not set(data.group[train].tolist()) & set(data.group[test].tolist()) and bool((train ^ test).all()) and len(set(data.group[train & y].tolist())) == len(set(data.group[test & y].tolist())) == 40


def test_what_the_split_is_for():
    "Without a planted direction a probe remembers words: perfect on tokens, chance on words. With one it is found on new words too."
    blind = words_of(); y = blind.labels["planted"]; odd = torch.arange(len(blind)) % 2 == 1; tokens = balanced_accuracy(fit_probe(blind.x[odd], y[odd]).predict(blind.x[~odd].numpy()), y[~odd])
    s = sparse_probing(random_dictionary(64, 40), blind, (1, 3)); assert tokens[0] > .7 and abs(float(s.full.sel(bound="value")[0]) - .5) < .15 and abs(float(s.accuracy.mean()) - .5) < .12
    seen = sparse_probing(random_dictionary(64, 40), words_of(shift=6.), (1, 3)); assert float(seen.accuracy.sel(code="channels", k=1)[0]) == pytest.approx(norm.cdf(3), abs=.06) and abs(float(seen.shuffled.mean()) - .5) < .2
    assert (seen.low <= seen.accuracy).all() and (seen.accuracy <= seen.high).all() and int(seen.n[0]) == 40


def test_balanced_accuracy_of_rare_concepts():
    y = np.arange(1000) < 10; assert balanced_accuracy(np.zeros(1000), y)[0] == .5 and balanced_accuracy(y, y)[:3] == (1, 1, 1) and balanced_accuracy(~y, y)[0] == 0
    half = balanced_accuracy(y & (np.arange(1000) < 5), y); assert half[0] == .75 and half[1] < .75 < half[2]


def test_probing_refuses():
    data = words_of()
    with pytest.raises(FeatureError, match="rows for"): sparse_probing(None, data, codes=dict(short=torch.zeros(3, 2)))
    with pytest.raises(FeatureError, match="with the concept"): fit_probe(data.x, torch.zeros(len(data), dtype=torch.bool))


def test_read_words_reads_the_model():
    from workbench import load
    lm = load("micro"); texts = ["France and Japan and Italy and Spain and Egypt.", "The king of France lives in Paris."]; data = read_words(lm, "resid_post.1", dict(countries=["France", "Japan", "Italy", "Spain", "Egypt"]), texts, per_word=2)
    run = lm.run(texts[1:], keep=["resid_post.1"]); own = run.tensor("resid_post.1")[0]; at = [i for i, w in enumerate(data.words) if w == "France"]
    assert len(at) == 2 and torch.allclose(data.x[at[1]], own[[t.strip() for t in run.tokens.strs[0]].index("France")], atol=1e-4) and data.labels["countries"].sum() == 6 and sum(w == "and" for w in data.words) == 2
    with pytest.raises(FeatureError, match="Fewer than 4 words of 'months'"): read_words(lm, "resid_post.1", dict(months=["May"]), texts)


# --- absorption ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n, seed", [(0, 0), (4, 1), (8, 2)])
def test_planted_absorption_is_found_at_its_rate(n, seed):
    a = absorption(*planted_absorption(n, seed=seed), "parent"); assert float(a.rate[0]) == pytest.approx(n / 24, abs=1e-9) and a.attrs["main"] == [0] and float(a.fraction[0]) == pytest.approx(n / 24, abs=.02)
    assert {w: int(v) for w, v, r in zip(a.word.values, a.absorber.values, a.word_rate.values) if r} == {f"child{i}": i + 1 for i in range(n)} and float(a.rate[1]) <= n / 24 <= float(a.rate[2])


def test_partial_absorption_is_a_fraction():
    for part, want in ((.3, .7), (.7, .3)):
        a = absorption(*planted_absorption(24, partial=part), "parent"); assert float(a.rate[0]) == 0 and float(a.fraction[0]) == pytest.approx(want, abs=.13)


def test_absorbed_by_hand():
    t = torch.tensor([1., 1., 1., 1.]); c = torch.tensor([[0., .5, .1, 0], [0., .3, .2, 0], [.6, .9, 0, 0], [1.2, .5, 0, 0]]); cos = torch.tensor([.9, .5, .05, .2])
    got = absorbed(t, c, cos, [0]); assert got["full"].tolist() == [True, False, False, False]                # the second says less than .4 of t, the others have their main latent
    assert got["fraction"].tolist() == pytest.approx([1, 1, .4 / 1.0, 0]) and got["by"].tolist() == [1, 1, 1, 1]


def test_no_concept_no_rate():
    _, data = planted_absorption(0); lost = absorption(random_dictionary(64, 49), data, "parent"); assert np.isnan(lost.rate).all() and "no latent stands" in lost.attrs["why"] or lost.attrs["main_f1"] >= .5
    noise = Labelled(torch.randn(data.x.shape, generator=generator(4)), data.words, data.group, data.labels, data.about); assert "probe's F1" in absorption(random_dictionary(64, 49), noise, "parent").attrs["why"]
    with pytest.raises(FeatureError, match="no concept 'child'"): absorption(random_dictionary(64, 49), data, "child")


def test_f1_weights_and_main_latents():
    y = np.array([1, 1, 1, 0], bool); assert f1([1, 1, 0, 0], y) == pytest.approx(.8) and f1([0, 0, 0, 1], y) == 0 and word_weights([5, 5, 7]).tolist() == [.5, .5, 1]
    g = generator(8); y = torch.rand(600, generator=g) < .3; half = torch.rand(600, generator=g) < .5; f = torch.stack([(y & half).float(), (y & ~half).float(), torch.rand(600, generator=g)], 1)
    assert sorted(main_latents(f, y, np.ones(600))[0]) == [0, 1] and most_different(f, y)[-1] == 2


# --- what one feature is worth ------------------------------------------------------------------------------------------
def test_worth_is_what_leaving_out_costs():
    from workbench.features.dictionary import JumpReLU, Sae
    from workbench.features.metrics import explained_variance, feature_worth
    g = generator(11); d = Sae(torch.randn(8, 12, generator=g), torch.zeros(12), torch.randn(12, 8, generator=g), torch.randn(8, generator=g), JumpReLU(torch.full((12,), .3)), meta={}); x = torch.randn(300, 8, generator=g) + 2
    worth, base = feature_worth(d, x, batch=70), explained_variance(x, d(x))
    for j in range(12): f = d.encode(x); f[:, j] = 0; assert worth[j] == pytest.approx(base - explained_variance(x, d.decode(f)), rel=1e-4, abs=1e-5)
    assert (worth < 0).any()                                                                      # a random dictionary has features that only harm
    normal = Sae(d.W_enc.data, d.b_enc.data, d.W_dec.data, d.b_dec.data, d.activation, normalise="layer_norm")
    with pytest.raises(FeatureError, match="normalises each vector"): feature_worth(normal, x)

"Worlds with known features and the scores and metrics that judge dictionaries, against closed forms and slow independent ways."
from itertools import permutations

import numpy as np
import pytest
import torch

from workbench.features.dictionary import Components, fit_pca, neurons, random_dictionary
from workbench.features.errors import FeatureError
from workbench.features.metrics import explained_variance, loss_recovered, measure, ratio_interval
from workbench.features.superposition import Oracle, Superposition, cosines, matched, score_truth, zipf_rates


@pytest.mark.parametrize("options", [dict(), dict(correlation=0.7, group=4), dict(hierarchy=3), dict(correlation=0.5, group=5, hierarchy=1)])
def test_rates_stay_what_they_were(options):
    world = Superposition(d=8, n_features=40, l0=5, **options)
    f = torch.cat([world.draw(20000, seed=s)[1] for s in range(3)]); share = (f > 0).float().mean(0)
    error = (world.rates * (1 - world.rates) / len(f)).sqrt()
    assert ((share - world.rates).abs() < 4.5 * error).all() and abs(float(world.rates.sum()) - 5) < 1e-5


def test_zipf_exponent_and_cap():
    p = zipf_rates(1000, 20, 1.0, most=0.4); free = p < 0.4 - 1e-9
    logs = np.log(p[free].numpy()); slope = np.polyfit(np.log(np.arange(1, 1001)[free.numpy()]), logs, 1)[0]
    assert abs(slope + 1) < 1e-6 and float(p.max()) <= 0.4 + 1e-12
    with pytest.raises(FeatureError, match="lower l0"): zipf_rates(10, 8, 0.7, 0.4)


def test_children_need_parents_and_groups_go_together():
    tree = Superposition(d=8, n_features=40, l0=6, hierarchy=3, correlation=0.6); f = tree.draw(20000)[1] > 0
    child = (tree.parents >= 0).nonzero()[:, 0]
    assert not (f[:, child] & ~f[:, tree.parents[child]]).any() and f[:, child].any()
    def pairs(rho):
        w = Superposition(d=8, n_features=40, l0=6, zipf=0, correlation=rho, group=4); z = (w.draw(40000)[1] > 0).float(); c = torch.corrcoef(z.T); same = (w.groups[:, None] == w.groups) & ~torch.eye(40, dtype=bool)
        return float(c[same].mean()), float(c[w.groups[:, None] != w.groups].mean())
    tied, apart = pairs(0.8); free, _ = pairs(0.0)
    assert tied > 0.4 and abs(apart) < 0.01 and abs(free) < 0.01


def test_draws_are_what_the_formula_says():
    world = Superposition(d=12, n_features=20, l0=3, noise=0.1, bias=4.0, seed=3); x, f = world.draw(20000)
    rest = x - f @ world.directions - world.offset
    assert abs(float(rest.std()) - 0.1) < 2e-3 and abs(float(world.offset.norm()) - 4) < 1e-5 and abs(float(f[f > 0].mean()) - (1 + 0.5 * (2 / np.pi) ** 0.5)) < 0.01
    a, b = world.draw(50)[0], world.draw(50, held_out=True)[0]
    assert not torch.isclose(a[:, None], b).all(-1).any() and not torch.equal(world.batch(0, 50), world.batch(1, 50)) and torch.equal(world.batch(4, 50), world.batch(4, 50))
    assert not torch.equal(Superposition(seed=0).directions, Superposition(seed=1).directions)


def test_matching_is_the_best_of_all_permutations():
    c = np.random.default_rng(0).random((5, 5)); best = max(sum(c[i, p[i]] for i in range(5)) for p in permutations(range(5)))
    assert abs(matched(c).sum() - best) < 1e-12
    assert matched(np.array([[0.9], [0.8]])).tolist() == [0.9, 0.0]                       # two true features, one latent


def test_scores_do_not_care_for_order_length_or_sign():
    world = Superposition(d=64, n_features=24, l0=2, noise=0.01); other = Oracle(world); order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    other.directions = -3 * world.directions[order]; other.encode = lambda x: Oracle(world).encode(x)[:, order]
    a, b = score_truth(Oracle(world), world, 4096), score_truth(other, world, 4096)
    for k in ("mmcs", "mcc", "found", "uniqueness", "precision", "recall", "f1"): assert abs(float(a[k]) - float(b[k])) < 1e-9
    assert float(a.mmcs) > 1 - 1e-6 and float(a.chance.sel(score="mmcs")) < 0.6


def test_dead_and_shared_latents_cost():
    world = Superposition(d=64, n_features=24, l0=2, noise=0.01); half = Oracle(world); half.encode = lambda x: torch.cat([Oracle(world).encode(x)[:, :12], torch.zeros(len(x), 12)], 1)
    s = score_truth(half, world, 4096); c = cosines(world.directions[:12], world.directions).max(1).values.numpy()
    assert s.attrs["live"] == 12 and float(s.found) == 0.5 and np.allclose(s.true_cosine, c) and np.isnan(s.latent_f1.values[12:]).all() and float(s.mcc) < float(s.mmcs)
    assert float(s.n.sel(score="f1")) == 12 and float(s.low.sel(score="found")) < 0.5 < float(s.high.sel(score="found"))


def test_random_directions_score_chance():
    world = Superposition(d=24, n_features=50, l0=3); s = score_truth(random_dictionary(24, 200, seed=5), world, 2048)
    assert abs(float(s.mmcs) - float(s.chance.sel(score="mmcs"))) < 0.04 and float(s.found) < 0.1


def test_explained_variance_is_pooled_r2():
    from sklearn.metrics import r2_score
    g = torch.Generator().manual_seed(0); x = torch.randn(500, 7, generator=g) * torch.arange(1, 8) + 100; y = x + torch.randn(500, 7, generator=g)
    assert abs(explained_variance(x, y) - r2_score(x.double(), y.double(), multioutput="variance_weighted")) < 1e-9
    assert explained_variance(x, x) == 1 and abs(explained_variance(x, x.double().mean(0).expand(500, 7))) < 1e-12
    assert abs(explained_variance(x + 5000, y + 5000) - explained_variance(x, y)) < 1e-5 and np.isnan(explained_variance(torch.ones(5, 3), torch.ones(5, 3)))
    with pytest.raises(FeatureError, match="NaN"): explained_variance(x, y / 0 * 0)
    with pytest.raises(FeatureError, match="both as"): explained_variance(x, y[:, :3])


def test_table_says_what_a_loop_says():
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(2)); d = Components(torch.zeros(6), torch.eye(6)[:4], "random", torch.eye(6)[:4]); d.encode = lambda v: (v[:, :4] - 0.5).relu() * torch.tensor([1., 1, 1, 0])
    t = measure(d, x, batch=77); f = d.encode(x); y = torch.zeros_like(x); y[:, :4] = f
    assert abs(float(t.l0) - float((f != 0).sum()) / 300) < 1e-12 and float(t.dead) == 0.25 and "300" in t.attrs["dead_window"]
    assert np.allclose(t.density, (f != 0).double().mean(0)) and abs(float(t.explained_variance) - explained_variance(x, y)) < 1e-9
    assert abs(float(t.shrinkage) - float((y.double() ** 2).sum() / (x.double() * y).sum())) < 1e-9


def test_intervals_cover_and_widen_with_groups():
    rng = np.random.default_rng(0); hits = 0
    for s in range(60):
        a = rng.normal(1, 1, 80); _, low, high, n = ratio_interval([a, np.ones(80)], lambda t: t[..., 0] / t[..., 1], seed=s, n_resamples=300); hits += low <= 1 <= high
    assert hits >= 50 and n == 80
    shared = np.repeat(rng.normal(1, 1, 20), 30); of = lambda t: t[..., 0] / t[..., 1]; one = np.ones(600)
    _, l1, h1, _ = ratio_interval([shared, one], of); _, l2, h2, n = ratio_interval([shared, one], of, groups=np.repeat(np.arange(20), 30))
    assert n == 20 and h2 - l2 > 3 * (h1 - l1)


@pytest.fixture(scope="module")
def lm():
    import workbench
    return workbench.load("micro")


@pytest.fixture(scope="module")
def prompts():
    from workbench.tasks.catalogue import make
    p = make("ioi", n=10).prompts
    return p[:6] + [" ".join(t.split()[:4]) for t in p[6:]]                # of several lengths, so that some are padded


def test_loss_recovered_by_hand(lm, prompts):
    d = fit_pca(torch.cat([(r := lm.run(prompts, keep="resid_post.1")).tensor("resid_post.1")[r.tokens.mask.bool()]]), 8)
    got = loss_recovered(lm, d, prompts, "resid_post.1", batch=4); ce, kl, n, m = {"clean": 0., "dictionary": 0.}, 0., 0, 0
    from workbench.lm import edits
    for p in prompts:                                                       # one at a time, no padding
        runs = {"clean": lm.run(p), "dictionary": lm.run(p, edits=[edits.apply("resid_post.1", lambda v: d(v[0])[None])])}; ids = runs["clean"].tokens.ids[0]
        logs = {k: r.logits_tensor[0].double().log_softmax(-1) for k, r in runs.items()}
        for k in ce: ce[k] += float(torch.nn.functional.nll_loss(logs[k][:-1], ids[1:], reduction="sum"))
        kl += float(torch.nn.functional.kl_div(logs["dictionary"], logs["clean"], log_target=True, reduction="sum")); n += len(ids) - 1; m += len(ids)
    for k in ce: assert abs(float(got.ce.sel(run=k)) - ce[k] / n) < 1e-4
    assert abs(float(got.kl.sel(run="dictionary")) - kl / m) < 1e-4 and got.attrs["tokens"] == m
    clean, own, zero = (float(got.ce.sel(run=r)) for r in ("clean", "dictionary", "zero"))
    assert abs(float(got.recovered.sel(loss="ce", ablation="zero")) - (zero - own) / (zero - clean)) < 1e-9


def test_loss_recovered_golden_ends(lm, prompts):
    same = loss_recovered(lm, neurons(lm.d_model), prompts, "resid_post.1"); assert np.allclose(same.recovered, 1, atol=1e-4)
    run = lm.run(prompts, keep="resid_post.1"); mean = run.tensor("resid_post.1")[run.tokens.mask.bool()].mean(0)
    flat = Components(mean, torch.eye(lm.d_model)[:1], "random", torch.zeros(1, lm.d_model)); got = loss_recovered(lm, flat, prompts, "resid_post.1")
    assert np.allclose(got.recovered.sel(ablation="mean"), 0, atol=1e-3) and float(got.kl.sel(run="clean")) == 0
    assert (got.low <= got.recovered + 1e-9).all() and (got.recovered <= got.high + 1e-9).all()


def test_loss_recovered_refuses(lm, prompts):
    with pytest.raises(FeatureError, match="which site"): loss_recovered(lm, neurons(lm.d_model), prompts)
    with pytest.raises(FeatureError, match="causal"):
        import workbench
        loss_recovered(workbench.load("micro-bert"), neurons(8), prompts, "resid_post.1")

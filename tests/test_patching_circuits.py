"""Attribution patching, edge attribution, ACDC: against finite differences, exact cuts, closed forms, and a circuit that is known."""
import re
import warnings

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.lm import specimens
from workbench.lm.edits import apply, patch as write
from workbench.lm.layernorm import fix_norms, norms
from workbench.lm.load import load
from workbench.lm.sites import Site
from workbench.patching.acdc import Damage, acdc, at_size, discover, edge_effects, edge_scores
from workbench.patching.attribution import attribution_patch, compare, worst
from workbench.patching.eap import Slopes, edge_attribution
from workbench.patching.edges import EdgeRuns, HeadShares, Record
from workbench.patching.errors import PatchError
from workbench.patching.graph import Graph
from workbench.patching.known import area, roc, score_against
from workbench.patching.pairs import Pairs
from workbench.patching.patch import patch
from workbench.zoo.constructed import TRUE_EDGES, task

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
FLOAT32_ONLY = ("mixtral", "gpt_oss")                 # their expert kernels take no doubles


def specimen(name, **change):
    "A random model in float64 where it can be, and two pairs of prompts."
    model = specimens.build(name); lm = load(model if name in FLOAT32_ONLY else model.double(), check=False)
    ids = torch.randint(5, 90, (2, 7), generator=torch.Generator().manual_seed(3)); other = ids.clone()
    other[:, 2] = (other[:, 2] + 7) % 80 + 5; other[0, 4] = (other[0, 4] + 9) % 80 + 5
    return lm, Pairs.of(lm, clean=ids, corrupt=other, answers=[7, 9], foils=[11, 12])


def difference(pairs, z):
    at = torch.arange(len(z)); return (z[at, pairs.answer_ids] - z[at, pairs.foil_ids]).double()


@pytest.fixture(scope="module")
def known():
    lm = wb.load("constructed")
    return lm, Graph.of(lm), Pairs.of(lm, task(8, 1))


# --- attribution patching -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family, sites, by", [("gpt2", ("resid_pre", "attn_out", "mlp_out", "resid_mid", "resid_post"), "layer pos"), ("llama", ("z", "result", "q", "pattern"), "layer head pos"),
                                               ("gemma2", ("k", "v"), "layer kv_head pos"), ("gpt_neox", ("mlp_post", "mlp_pre"), "layer neuron pos"), ("qwen3", ("resid_mid",), "layer direction pos")])
@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_cells_are_derivatives(family, sites, by, direction):
    lm, pairs = specimen(family); d = lm.d_model
    vectors = torch.randn(3, d, generator=torch.Generator().manual_seed(1)); how = dict(directions=vectors) if "direction" in by else dict(neurons=[0, 5, 9]) if "neuron" in by else {}
    grid = attribution_patch(lm, pairs, sites, by, direction=direction, **how); base, other = (pairs.corrupt, pairs.clean) if direction == "denoising" else (pairs.clean, pairs.corrupt)
    unit = next((u for u in ("kv_head", "head", "neuron", "direction") if u in grid.dims), None); rng = np.random.default_rng(0); before = difference(pairs, lm.run(base).last_logits)
    for site in sites:
        a, b = (lm.run(x, keep=site) for x in (base, other))
        for _ in range(4):
            l, p, u = int(rng.integers(lm.n_layers)), int(rng.integers(2, 7)), int(rng.integers(grid.sizes[unit])) if unit else 0; at = Site(site, layer=l, pos=p)
            old, new = a.tensor(at), b.tensor(at); change = (new - old).nan_to_num(0., 0., 0.); index = how.get("neurons", range(99))[u]
            if unit in ("head", "kv_head"): mask = torch.zeros_like(change); mask[(slice(None), index) if site == "pattern" else (slice(None), slice(None), index)] = 1; change = change * mask
            if unit == "neuron": mask = torch.zeros_like(change); mask[..., index] = 1; change = change * mask
            if unit == "direction": v = vectors[u].to(change); change = (change @ v)[..., None] * v / (v @ v)
            eps = 1e-3; up, down = (difference(pairs, lm.run(base, edits=apply(at, lambda x, s=s: x + s * eps * change)).last_logits) for s in (1, -1))
            where = dict(site=site, layer=l, pos=p) | ({unit: grid[unit].values[u]} if unit else {})
            assert np.allclose(grid.logit_difference.sel(where).values - before.numpy(), ((up - down) / (2 * eps)).numpy(), rtol=2e-3, atol=2e-4), (site, where)


def test_integrated_gradients_of_a_layer_sum_to_patching_it():
    lm, pairs = specimen("llama")
    exact = patch(lm, pairs, ["attn_out", "mlp_out", "resid_pre"], "layer").logit_difference
    errors = [float(abs(attribution_patch(lm, pairs, ["attn_out", "mlp_out", "resid_pre"], "layer", steps=k).logit_difference - exact).max()) for k in (0, 4, 32)]
    assert errors[2] < 5e-3 * float(abs(exact).max()) and errors[2] < errors[1] < errors[0]
    cells = attribution_patch(lm, pairs, "z", "layer head pos", steps=32); base = cells.corrupt_logit_difference
    assert np.allclose(((cells.logit_difference - base).sum(["head", "pos"]) + base).isel(site=0).values, exact.sel(site="attn_out").values, atol=4e-3)


@pytest.mark.parametrize("family, site, unit", [("gpt2", "q", "head"), ("gpt2", "k", "kv_head"), ("llama", "q", "head"), ("llama", "k", "kv_head"), ("gpt_oss", "q", "head"), ("gpt_oss", "k", "kv_head")])
def test_exact_patterns_are_exact_where_the_rest_is_linear(family, site, unit):
    "In the last layer, with its MLP silent and the final norm held, the logits are linear in the pattern: nothing is left to approximate."
    lm, pairs = specimen(family); last = lm.main.layers[-1]
    with torch.no_grad():
        for p in (last.mlp_added if last.mlp_o is None else last.mlp_o).parameters(): p.zero_()
        if family == "gpt2": last.attn.c_attn.weight.mul_(12.)              # so that its attention is not nearly uniform
    fix_norms(lm, {list(norms(lm))[-1]: 2.})
    how = dict(sites=site, by=f"layer {unit} pos", layers=[lm.n_layers - 1]); exact = patch(lm, pairs, **how).logit_difference
    fixed, plain = (attribution_patch(lm, pairs, **how, exact_pattern=f).logit_difference for f in (True, False)); scale = float(abs(exact - exact.corrupt_logit_difference).max())
    assert float(abs(fixed - exact).max()) < 2e-3 * scale and float(abs(plain - exact).max()) > .02 * scale


def test_every_prompt_its_own_length_and_every_metric():
    lm = wb.load("micro"); clean = ["When Mary and John went to the store, John gave a drink to", "The king of France lives in"]; corrupt = ["When Mary and John went to the store, Mary gave a drink to", "The king of Japan lives in"]
    pairs = Pairs.of(lm, clean=clean, corrupt=corrupt, answers=["Mary", "Paris"], foils=["John", "Tokyo"]); metrics = ("logit_difference", "probability", "log_probability", "kl", lambda z, i: z.max(-1).values)
    both = attribution_patch(lm, pairs, metrics=metrics); exact = patch(lm, pairs, metrics=metrics)
    assert set(both.data_vars) == set(exact.data_vars) and both.recovery.dims == exact.recovery.dims and (np.isnan(both.recovery) == np.isnan(exact.recovery)).all()
    for i in (0, 1):
        alone = attribution_patch(lm, pairs[[i]], metrics=metrics)
        for m in both.data_vars: assert np.allclose(both[m].isel(prompt=i, pos=slice(0, alone.sizes["pos"])).values, alone[m].isel(prompt=0).values, atol=1e-4), m
    for m in ("kl", "logit_difference"): assert np.allclose(both[f"clean_{m}"], exact[f"clean_{m}"], atol=1e-4) and np.allclose(both[f"corrupt_{m}"], exact[f"corrupt_{m}"], atol=1e-4)
    for bad, says in ((dict(metrics="rank"), "no gradient"), (dict(metrics="kl", direction="noising"), "minimum"), (dict(steps=3, exact_pattern=True, sites="q", by="layer head"), "two ways"), (dict(exact_pattern=True), "queries and keys")):
        with pytest.raises(PatchError, match=says): attribution_patch(lm, pairs, **bad)


def test_encoder_decoders_have_a_preview_too():
    lm, ids = load(specimens.build("t5").double(), check=False), torch.randint(5, 90, (2, 6), generator=torch.Generator().manual_seed(0)); other = ids.clone(); other[:, 1] += 1
    pairs = Pairs.of(lm, clean=ids, corrupt=other, answers=[7, 9], foils=[11, 12], targets=[[5, 6], [8, 9]]); grid = attribution_patch(lm, pairs, "encoder.resid_pre", steps=64); whole = patch(lm, pairs, "encoder.resid_pre", "layer")
    base = grid.corrupt_logit_difference
    assert np.allclose(((grid.logit_difference - base).sum("pos") + base).values, whole.logit_difference.values, atol=.07 * float(abs(whole.logit_difference - base).max()))      # its rectified MLPs make a line with kinks


def test_compare_ranks_cells_and_finds_the_worst():
    lm, pairs = specimen("gpt2"); exact = patch(lm, pairs); same = compare(exact, exact)
    assert (same.spearman == 1).all() and (same.difference == 0).all()
    turned = exact.copy(deep=True); turned["recovery"] = -exact.recovery
    assert float(compare(exact, turned).spearman[-1]) == -1
    off = exact.copy(deep=True); off.recovery.loc[dict(layer=2, pos=5)] += 9
    table = worst(exact, off, 3); assert (table.layer[0], table.pos[0]) == (2, 5) and abs(table.difference[0] - 9) < 1e-9 and abs(table.difference[1]) < 1e-9
    assert int(compare(exact, exact).cells[-1]) < exact.recovery.isel(prompt=0).size        # cells before the first difference are no merit
    with pytest.raises(PatchError, match="one direction"): compare(exact, patch(lm, pairs, direction="noising"))
    with pytest.raises(PatchError, match="share no cells|axes"): compare(exact, patch(lm, pairs, "z", "layer head"))


# --- edge attribution ----------------------------------------------------------------------------------------------------
def along_the_edge(lm, pairs, run, delta, receiver, eps):
    "The metric when one receiver's input moves by eps x delta and nothing else does: by plain edits."
    last, say = Site("resid_post", layer=lm.n_layers - 1), lambda e: difference(pairs, lm.run(pairs.clean, edits=e).last_logits)
    if receiver == "logits": return say(write(last, run.tensor(last) + eps * delta))
    l = int(re.match(r"[am](\d+)", receiver)[1])
    if receiver[0] == "m":
        mid, out = Site("resid_pre" if lm.main.row.parallel else "resid_mid", layer=l), Site("mlp_out", layer=l)
        return say(write(out, lm.run(pairs.clean, keep=[out], edits=write(mid, run.tensor(mid) + eps * delta)).tensor(out)))
    slot, unit, pre = receiver[-2], int(re.search(r"\.[hg](\d+)", receiver)[1]), Site("resid_pre", layer=l)
    seen = lm.run(pairs.clean, keep=[Site(slot, layer=l)], edits=write(pre, run.tensor(pre) + eps * delta)).tensor(Site(slot, layer=l))
    return say(write(Site(slot, layer=l, head=unit), seen[:, :, unit:unit + 1]))


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen3", "gemma2", "gemma3", "phi3", "mixtral", "gpt_oss"])
def test_edge_scores_are_derivatives_along_the_edge(family):
    lm, pairs = specimen(family); graph = Graph.of(lm); scores = edge_attribution(lm, pairs, "eap", per_prompt=True); shares = [HeadShares(lm, l) for l in range(lm.n_layers)]
    with torch.no_grad(): clean, twin = (Record(lm, b, shares).sent for b in (pairs.clean, pairs.corrupt))
    run = lm.run(pairs.clean, keep=["resid_pre", *([] if lm.main.row.parallel else ["resid_mid"]), Site("resid_post", layer=lm.n_layers - 1)])
    kinds = {}                                                              # a few edges into each kind of receiver
    for e in np.random.default_rng(0).permutation(graph.edges).tolist(): kinds.setdefault(e[1][-2:-1] if "<" in e[1] else e[1][0], []).append(e)
    for sender, receiver in (e for k in kinds.values() for e in k[:3]):
        delta = (twin - clean)[graph.sender_index[sender]]; slope = (along_the_edge(lm, pairs, run, delta, receiver, 1e-2) - along_the_edge(lm, pairs, run, delta, receiver, -1e-2)) / 2e-2
        assert np.allclose(scores.sel(sender=sender, receiver=receiver).values, slope.numpy(), atol=2e-4, rtol=2e-3), (sender, receiver)


def test_slopes_of_a_layer_add_up_to_what_autograd_sees():
    "Through queries, keys and values together the metric's slope at a layer's input is the whole slope less what goes round the attention."
    lm, pairs = specimen("qwen3"); s = Slopes(lm, pairs.clean, lambda z: difference(pairs, z))
    sites = [Site(n, layer=1) for n in ("resid_pre", "resid_mid", "resid_post")]; whole = lm.run(pairs.clean, keep=sites, grad=lambda r: difference(pairs, r.last_logits))
    pre, mid, post = (whole.tensor(x, "grads") for x in sites)
    assert torch.allclose(s.heads(1).sum(2), pre - mid, atol=1e-6) and torch.allclose(s.mlp(1), mid - post, atol=1e-6)


def test_neither_memory_nor_company_changes_a_score():
    "Prompts of another length beside it, or fewer at a time: a prompt's scores stay."
    lm, pairs = specimen("llama")
    ids, other = pairs.clean.ids.tolist(), pairs.corrupt.ids.tolist(); mixed = Pairs.of(lm, clean=[ids[0], ids[1][:5]], corrupt=[other[0], other[1][:5]], answers=[7, 9], foils=[11, 12])
    together, tight = (edge_attribution(lm, mixed, "eap-ig", 4, per_prompt=True, memory=m) for m in (1e9, 1e5)); alone = edge_attribution(lm, mixed[[1]], "eap-ig", 4)
    assert np.allclose(together.fillna(0), tight.fillna(0), atol=1e-9) and np.allclose(together[1].fillna(0), alone.fillna(0), atol=1e-6)
    assert bool((together[0].notnull().values == Graph.of(lm).allowed.numpy()).all())


def test_the_embedding_alone_is_complete():
    "With one layer of linear parts nothing else moves between the twins, so the edges from the embedding hold the whole effect."
    from transformers import GPT2Config, GPT2LMHeadModel
    torch.manual_seed(0); lm = load(GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=32, n_layer=1, n_head=4, n_positions=16, pad_token_id=0)).double().eval(), check=False)
    _, pairs = specimen("gpt2"); pairs = Pairs.of(lm, clean=pairs.clean.ids, corrupt=pairs.corrupt.ids, answers=[7, 9], foils=[11, 12])
    scores = edge_attribution(lm, pairs, "eap-ig", 200, per_prompt=True); end = torch.stack([difference(pairs, lm.run(b).last_logits) for b in (pairs.clean, pairs.corrupt)])
    assert np.allclose(scores.sel(sender="embed").sum("receiver").values, (end[1] - end[0]).numpy(), atol=1e-5)


def test_edge_attribution_says_what_is_wrong():
    lm, pairs = specimen("llama")
    for bad, says in ((dict(method="eapig"), "Did you mean"), (dict(method="eap", metric="kl"), "minimum"), (dict(method="eap", metric="rank"), "no gradient"), (dict(steps=0), "at least one"), (dict(direction="up"), "direction")):
        with pytest.raises(PatchError, match=says): edge_attribution(lm, pairs, **bad)
    with pytest.raises(PatchError, match="twins"): edge_attribution(lm, Pairs.of(lm, clean=pairs.clean, answers=[7, 9], foils=[11, 12]))


# --- circuits ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["acdc", "eap-ig", "eap-ig-activations"])
def test_the_known_circuit_is_recovered(known, method):
    lm, graph, pairs = known; found = discover(lm, pairs, method, size=len(TRUE_EDGES), steps=4)
    assert set(graph.named(torch.as_tensor(found.keep.values))) == set(TRUE_EDGES) and found.attrs["size"] == 11
    if method != "acdc": told = score_against(graph, found.score, TRUE_EDGES); assert float(told.auc) == 1 and bool(told.exact)


def test_one_gradient_is_fooled_and_the_norm_knows_nothing(known):
    lm, graph, pairs = known
    eap, loud = (score_against(graph, edge_scores(lm, Pairs.of(lm, task(16, 1)), m), TRUE_EDGES) for m in ("eap", "norm"))
    assert not bool(eap.exact) and float(eap.precision) < .8 and float(eap.auc) < 1 and float(loud.auc) < float(loud.auc_high)
    chance = [score_against(graph, edge_scores(lm, pairs, "random", seed=s), TRUE_EDGES, n_shuffles=1) for s in range(100)]
    assert abs(np.mean([float(c.auc) for c in chance]) - .5) < .04 and np.mean([float(c.precision) for c in chance]) < .1


def test_acdc_is_the_plain_greedy_walk(known):
    "Written again from the paper, with no look ahead and no skipped heads, on a small model with random weights."
    _, pairs = specimen("llama"); model = specimens.build("llama"); model.model.layers = model.model.layers[:2]; model.config.num_hidden_layers = 2; lm, pairs = load(model, check=False), pairs[[0]]; d = Damage(lm, pairs, "logit_difference"); graph = d.engine.graph; keep, now, tau = graph.allowed.clone(), 0., .05
    for r in reversed(range(len(graph.receivers))):
        for s in reversed(range(len(graph.senders))):
            if not keep[s, r]: continue
            keep[s, r] = False; new = float(d(keep[None])[0])
            if new - now >= tau: keep[s, r] = True
            else: now = new
    assert bool((acdc(Damage(lm, pairs, "logit_difference"), tau) == keep).all()) and 0 < int(keep.sum()) < int(graph.allowed.sum())


def test_exact_edge_effects_are_cuts(known):
    lm, pairs = specimen("gpt2"); effects = edge_effects(lm, pairs, batch=7); runs = EdgeRuns(lm, pairs); g = runs.graph
    for e in (g.edges[0], g.edges[17], g.edges[-1]):
        want = difference(pairs, runs.logits(g.allowed & ~g.mask([e]))) - difference(pairs, runs.base)
        assert abs(float(effects.sel(sender=e[0], receiver=e[1])) - float(want.mean())) < 1e-5


def test_a_size_is_the_size_after_pruning(known):
    lm, graph, pairs = known; scores = edge_scores(lm, pairs, "eap-ig")
    assert bool((graph.prune(m := at_size(graph, scores, 5)) == m).all()) and int(m.sum()) <= 5
    assert graph.named(at_size(graph, -scores, 11)) == graph.named(at_size(graph, scores, 11))                # the sign does not rank
    loose = discover(lm, pairs, "eap", size=11, prune=False); tight = discover(lm, pairs, "eap", size=11)
    assert loose.attrs["size"] == 11 and tight.attrs["size"] <= 11 and bool((graph.prune(torch.as_tensor(tight.keep.values)).numpy() == tight.keep.values).all())
    assert discover(lm, pairs, "eap-ig", threshold=1.).attrs["size"] == 11
    for bad, says in ((dict(), "one of them"), (dict(size=0), "262 edges"), (dict(size=5, method="eapp"), "Did you mean"), (dict(method="acdc", threshold=0.), "positive")):
        with pytest.raises(PatchError, match=says): discover(lm, pairs, **bad)


# --- scoring ------------------------------------------------------------------------------------------------------------------
def test_area_and_curve_against_their_definitions(known):
    _, graph, _ = known; rng = np.random.default_rng(0); x, true = rng.integers(0, 6, 60).astype(float), rng.random(60) < .3
    pairwise = np.mean([(a > b) + .5 * (a == b) for a in x[true] for b in x[~true]]); assert abs(area(x, true) - pairwise) < 1e-12
    scores = torch.zeros(graph.allowed.shape); scores[graph.allowed] = torch.as_tensor(rng.integers(0, 9, int(graph.allowed.sum())), dtype=torch.float32); curve = roc(graph, scores, TRUE_EDGES)
    assert abs(np.trapezoid(curve.true_positive_rate, curve.false_positive_rate) - curve.attrs["auc"]) < 1e-12
    assert int(curve.taken[-1]) == 262 and int(curve.found[-1]) == 11 and float(curve.true_positive_rate[0]) == 0
    with pytest.raises(PatchError, match="some of both kinds"): score_against(graph, scores, [])

"The sweep against plain forward passes: raw torch hooks on four families, and single full passes for every family, site and ablation."
import numpy as np
import pytest
import torch

from workbench.lm.model import LanguageModel
from workbench.lm.specimens import CAUSAL, MASKED, SEQ2SEQ, build
from workbench.patching.cells import Cells
from workbench.patching.errors import PatchError
from workbench.patching.pairs import Pairs
from workbench.patching.patch import cell_edits, patch, patched_logits, summary, verify
from workbench.patching.sweep import Sweep

torch.set_num_threads(1)


def opened(name): return LanguageModel(build(name), id=name)


def twins(lm, lengths=(9, 9, 7), first=4, seed=0, **more):
    "Random prompts of given lengths whose twins differ at `first` and at the last token but one."
    g = torch.Generator().manual_seed(seed); clean = [torch.randint(3, 90, (n,), generator=g).tolist() for n in lengths]
    corrupt = [[t if i not in (first, len(row) - 2) else (t + 5) % 87 + 3 for i, t in enumerate(row)] for row in clean]
    return Pairs.of(lm, clean=clean, corrupt=corrupt, answers=[11] * len(lengths), foils=[13] * len(lengths), **more)


def swept(lm, pairs, sites, by, **how):
    "A finished sweep."
    where = {k: how.pop(k) for k in ("positions", "heads", "neurons", "directions", "features", "layers") if k in how}
    sweep = Sweep(lm, pairs, Cells.of(lm, pairs, sites, by, **where), **how)
    for _ in sweep.steps(): pass
    return sweep


# --- raw torch hooks --------------------------------------------------------------------------------------------------
EXACT = 1e-5 if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6) else 2e-5    # torch 2.5 sums in another order: up to 1.5e-5 in gemma2
BLOCKS = dict(gpt2=lambda m: m.transformer.h, llama=lambda m: m.model.layers, gemma2=lambda m: m.model.layers, bart=lambda m: m.model.decoder.layers)


@torch.no_grad()
def by_hooks(model, block, clean, corrupt, logits):
    "Logit difference for every (layer, pos) of one pair, a hook and a forward pass each."
    layers, seen, out = block(model), {}, []
    first = lambda args, kwargs: args[0] if args else kwargs["hidden_states"]
    reads = [l.register_forward_pre_hook(lambda mod, a, k, i=i: seen.__setitem__(i, first(a, k).clone()), with_kwargs=True) for i, l in enumerate(layers)]
    logits(model, clean)
    for r in reads: r.remove()
    for i, layer in enumerate(layers):
        row = []
        for p in range(seen[i].shape[1]):
            def write(mod, a, k):
                x = first(a, k).clone(); x[0, p] = seen[i][0, p]
                return ((x, *a[1:]), k) if a else (a, {**k, "hidden_states": x})
            handle = layer.register_forward_pre_hook(write, with_kwargs=True)
            z = logits(model, corrupt); handle.remove(); row.append(float(z[11] - z[13]))
        out.append(row)
    return np.array(out)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_every_cell_equals_plain_hooks(name):
    lm = opened(name); pairs = twins(lm); sweep = swept(lm, pairs, "resid_pre", "layer pos")
    assert sweep.grows
    for i, (c, k, n) in enumerate(zip(pairs.clean.ids, pairs.corrupt.ids, pairs.clean.lengths.tolist())):
        slow = by_hooks(lm.model, BLOCKS[name], c[None, :n], k[None, :n], lambda m, ids: m(ids).logits[0, -1])
        assert np.abs(sweep.values["logit_difference"][i, 0, :, 0, :n] - slow).max() < EXACT
    assert np.isnan(sweep.values["logit_difference"][2, 0, :, 0, 7:]).all() and np.ptp(slow) > .01


def test_every_cell_of_a_decoder_equals_plain_hooks():
    lm = opened("bart"); words = [[4, 5, 6, 7]] * 2
    pairs = Pairs.of(lm, clean=[[5, 6, 7, 8, 9]] * 2, corrupt=[[5, 6, 40, 8, 9], [5, 6, 50, 8, 9]], answers=[11] * 2, foils=[13] * 2, targets=words)
    sweep = swept(lm, pairs, "decoder.resid_pre", "layer pos"); assert not sweep.grows and "full passes" in sweep.exactness
    for i in range(2):
        run = lambda m, ids: m(input_ids=ids, decoder_input_ids=pairs.targets.ids[i:i + 1]).logits[0, -1]
        slow = by_hooks(lm.model, BLOCKS["bart"], pairs.clean.ids[i:i + 1], pairs.corrupt.ids[i:i + 1], run)
        assert np.abs(sweep.values["logit_difference"][i, 0, :, 0] - slow).max() < EXACT and np.ptp(slow) > 1e-3


# --- every family, site, ablation -------------------------------------------------------------------------------------
GRIDS = [(("resid_pre", "resid_post", "attn_out", "mlp_out"), "layer pos"), (("z", "result", "q", "pattern"), "layer head"), ("z", "layer head pos"), (("k", "v"), "layer kv_head pos")]


@pytest.mark.parametrize("name", CAUSAL)
def test_the_sweep_equals_full_passes_in_every_causal_family(name):
    lm = opened(name); pairs = twins(lm)
    for sites, by in GRIDS:
        for direction in ("denoising", "noising"):
            sweep = swept(lm, pairs, sites, by, direction=direction)
            assert verify(sweep, 3)["largest_difference"] < EXACT


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_cells_of_every_grid_equal_full_passes(name):
    lm = opened(name); pairs = twins(lm, (8,)); u = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    for sites, by, more in [*((s, b, {}) for s, b in GRIDS), ("mlp_post", "layer neuron pos", dict(neurons=[3, 60])), ("resid_mid", "layer direction", dict(directions=u)), ("z", "layer head", dict(positions=[5, -1]))]:
        sweep = swept(lm, pairs, sites, by, **more); assert verify(sweep, 60)["largest_difference"] < EXACT


@pytest.mark.parametrize("ablation", ["zero", "mean", "resample"])
@pytest.mark.parametrize("name", ["gpt2", "mistral"])
def test_ablations_equal_full_passes(name, ablation):
    lm = opened(name); pairs = twins(lm, (9, 9, 7, 7))
    for sites, by in (("z", "layer head pos"), (("attn_out", "mlp_out"), "layer pos")): assert verify(swept(lm, pairs, sites, by, ablation=ablation), 20)["largest_difference"] < EXACT
    assert verify(swept(lm, pairs, "z", "layer head", placebo=True), 5)["largest_difference"] < EXACT


@pytest.mark.parametrize("name", [*MASKED, *SEQ2SEQ])
def test_the_slower_path_equals_single_passes(name, monkeypatch):
    lm = opened(name); more, stack = {}, ""
    if name in MASKED: monkeypatch.setattr(type(lm), "mask_id", property(lambda self: 2)); clean = [[5, 6, 7, 2, 9, 10]] * 2
    else: more, stack, clean = dict(targets=[[4, 5]] * 2), "encoder.", [[5, 6, 7, 8, 9, 10]] * 2
    pairs = Pairs.of(lm, clean=clean, corrupt=[[5, 40, *clean[0][2:]], [5, 50, *clean[0][2:]]], answers=[11] * 2, foils=[13] * 2, **more)
    for sites, by in (([f"{stack}resid_pre", f"{stack}attn_out"], "layer pos"), (f"{stack}z", "layer head")):
        sweep = swept(lm, pairs, sites, by); assert verify(sweep, 12)["largest_difference"] < EXACT and not sweep.grows
    whole = patch(lm, pairs, f"{stack}resid_post", "layer")
    assert np.allclose(whole.recovery.isel(layer=-1), 1, atol=1e-3)          # all of the last state restored: the clean run


# --- what must hold whatever the model -------------------------------------------------------------------------------
def test_axioms():
    lm = opened("llama"); pairs = twins(lm)
    whole = patch(lm, pairs, ("resid_pre", "resid_post"), "layer"); noised = patch(lm, pairs, "resid_pre", "layer", direction="noising")
    assert np.allclose(whole.recovery, 1, atol=1e-4) and np.allclose(noised.recovery, 0, atol=1e-4)      # the whole state is the other run
    grid = patch(lm, pairs, "resid_pre"); assert np.array_equal(grid.recovery.isel(pos=slice(0, 4)), np.zeros((1, 3, 3, 4)))


def test_a_batch_of_prompts_equals_one_prompt_at_a_time():
    lm = opened("gemma2"); pairs = twins(lm, (9, 7, 9, 8)); together = patch(lm, pairs, "z", "layer head pos", metrics=("logit_difference", "kl", "rank", "probability"))
    for i in range(4):
        alone = patch(lm, pairs[i], "z", "layer head pos", metrics=("logit_difference", "kl", "rank", "probability")); n = alone.sizes["pos"]
        for m in ("logit_difference", "kl", "rank", "probability"): assert np.allclose(together[m].isel(prompt=i, pos=slice(0, n)), alone[m].isel(prompt=0), atol=1e-5)


def test_chunks_order_and_stopping_change_nothing():
    lm = opened("gpt2"); pairs = twins(lm); whole = swept(lm, pairs, "resid_pre", "layer pos")
    small = swept(lm, pairs, "resid_pre", "layer pos", memory=4e4, coarse=True); assert np.allclose(whole.values["logit_difference"], small.values["logit_difference"], atol=1e-5, equal_nan=True)
    part = Sweep(lm, pairs, whole.cells, memory=4e4)
    for i, step in enumerate(part.steps()):
        if i == 2: part.stop()
    got = part.result(); done = np.isfinite(got.logit_difference.values)
    assert 0 < done.mean() < np.isfinite(whole.result().logit_difference.values).mean() and got.attrs["complete"] == 0
    assert np.allclose(got.logit_difference.values[done], whole.result().logit_difference.values[done], atol=1e-5)


def test_the_plan_is_what_is_done():
    lm = opened("gpt2"); pairs = twins(lm); sweep = Sweep(lm, pairs, Cells.of(lm, pairs)); plan = sweep.plan()
    for _ in sweep.steps(): pass
    assert np.isclose(plan.forwards, sweep.work) and plan.rows == sweep.computed and plan.forwards < plan.naive / 2 and plan.known == 3 * 3 * 4
    assert plan.bytes > 0 and plan.seconds > 0


def test_features_and_directions_of_a_full_basis_are_the_whole_state():
    class Identity:
        encode = decode = staticmethod(lambda x: x)
    lm = opened("gpt2"); pairs = twins(lm, (8,)); at = dict(positions=[-1])
    grid = lambda by, **more: patch(lm, pairs, "mlp_out", by, layers=[1], **at, **more).logit_difference.values
    assert np.allclose(grid("layer feature", features=(Identity, [4, 7])), grid("layer direction", directions=torch.eye(32)[[4, 7]]), atol=1e-6)
    sweep = Sweep(lm, pairs, Cells.of(lm, pairs, "mlp_out", "layer direction", layers=[1], directions=torch.eye(32), **at))
    joint = patched_logits(sweep, [dict(layer=1, direction=d) for d in range(32)], 0); whole = patch(lm, pairs, "mlp_out", "layer", layers=[1], **at)
    assert np.isclose(float(joint[0, 11] - joint[0, 13]), whole.logit_difference.item(), atol=1e-5)


def test_a_feature_of_normalised_vectors_is_written_at_their_own_length():
    from workbench.features.dictionary import Sae
    from workbench.lm.edits import apply
    lm = opened("gpt2"); pairs = twins(lm, (8,)); g = torch.Generator().manual_seed(3); W = torch.randn(32, 16, generator=g)
    sae = Sae(W, None, W.T.contiguous(), torch.randn(32, generator=g), subtract_bias=False, normalise="layer_norm")
    grid = patch(lm, pairs, "mlp_out", "layer feature", layers=[1], positions=[-1], features=(sae, [4, 7])).logit_difference.values.ravel()
    own, other = (lm.run(side, keep="mlp_out.1").tensor("mlp_out.1")[:, -1] for side in (pairs.corrupt, pairs.clean)); f, h = sae.encode(own), sae.encode(other)
    for value, i in zip(grid, (4, 7)):
        x = own + own.std(-1, keepdim=True) * (h - f)[:, i, None] * sae.W_dec[i]
        z = lm.run(pairs.corrupt, edits=[apply("mlp_out.1", lambda v: torch.cat([v[:, :-1], x[:, None]], 1))]).last_logits
        assert abs(value - float(z[0, 11] - z[0, 13])) < 1e-5 and float((h - f)[0, i].abs()) > 1e-3


def test_a_joint_patch_of_everything_is_the_other_run():
    lm = opened("llama"); pairs = twins(lm, (8, 8)); sweep = Sweep(lm, pairs, Cells.of(lm, pairs))
    clean = lm.run(pairs.clean).last_logits; joint = patched_logits(sweep, [dict(layer=0, pos=p) for p in range(8)], [0, 1])
    assert torch.allclose(joint, clean, atol=1e-4) and not torch.allclose(clean, lm.run(pairs.corrupt).last_logits, atol=1e-2)
    batch, edits = cell_edits(sweep, [dict(layer=1, pos=4)], [1]); assert len(batch) == 1 and len(edits) == 1


def test_an_edited_model_takes_the_slower_path():
    from workbench.lm.edits import scale
    from workbench.lm.sites import Site
    lm = opened("gpt2"); pairs = twins(lm, (8,)); plain_grid = patch(lm, pairs)
    with lm.edited(scale(Site("mlp_out", layer=2), 2.)): edited = patch(lm, pairs, verify_cells=5)
    assert "being edited" in edited.attrs["exactness"] and edited.attrs["largest_difference"] < EXACT and not np.allclose(edited.logit_difference, plain_grid.logit_difference, atol=1e-3)


def test_twins_that_agree_have_nothing_to_recover():
    lm = opened("gpt2"); pairs = twins(lm, (8, 8)); flat = patch(lm, pairs, metrics=lambda z, i: 0 * z[:, 0])
    assert np.isnan(flat.recovery).all() and "choose a corruption" in flat.attrs["undefined"]


def test_summary_knows_its_interval():
    lm = opened("gpt2"); told = summary(patch(lm, twins(lm, (8,) * 12), "resid_pre"), "logit_difference")
    assert (told.low <= told["mean"]).all() and (told["mean"] <= told.high).all() and int(told.n.min()) == 12 and float(told.p.sel(layer=0, pos=0).item()) == 1


def test_the_model_is_left_as_it_was():
    lm = opened("llama"); before = {k: v.clone() for k, v in lm.model.state_dict().items()}; hooks = lambda: sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules()); n = hooks()
    for g in (patch(lm, twins(lm), "z", "layer head"), patch(lm, twins(lm), ablation="zero")): assert g.sizes["prompt"] == 3
    assert hooks() == n and all(torch.equal(v, lm.model.state_dict()[k]) for k, v in before.items())


def test_half_precision_is_said():
    lm = LanguageModel(build("llama").to(torch.bfloat16), id="half"); grid = patch(lm, twins(lm), verify_cells=3)
    assert "bfloat16" in grid.attrs["exactness"] and grid.attrs["dtype"] == "bfloat16" and np.isfinite(grid.recovery).any()


@pytest.mark.parametrize("ask, says", [(dict(sites="zz"), "There is no site"), (dict(sites="resid_pre", by="pos"), "always by layer"), (dict(sites="mlp_post", by="layer neuron", neurons=[999]), "no neuron 999"),
    (dict(positions=[]), "names no position"), (dict(positions=[99]), "lies in none"), (dict(sites="ln1_scale"), "what a norm divides by"), (dict(metrics="kll"), "Did you mean"), (dict(ablation="patchh"), "Did you mean"),
    (dict(sites="pattern", by="layer head", placebo=True), "no attention pattern"), (dict(sites="pattern", by="layer head", ablation="mean"), "no meaning"), (dict(ablation="resample"), "only one with")])
def test_what_does_not_fit_is_said(ask, says):
    from workbench.lm.errors import WorkbenchError
    lm = opened("gpt2"); pairs = twins(lm, (9, 8))
    with pytest.raises(WorkbenchError, match=says): patch(lm, pairs, **ask)


def test_no_twins_no_patch_but_ablations():
    lm = opened("gpt2"); pairs = Pairs.of(lm, clean=[[5, 6, 7], [7, 8, 9]], answers=[3, 4], foils=[8, 8])
    with pytest.raises(PatchError, match="no corrupted twins"): patch(lm, pairs)
    assert "recovery" not in patch(lm, pairs, "attn_out", ablation="zero", verify_cells=2)

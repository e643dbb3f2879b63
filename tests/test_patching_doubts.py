"What could make a grid wrong without a word: lengths, padding, sides, hidden couplings, edits that stand, placebos without effect, and input that does not fit."
import numpy as np
import pytest
import torch

from test_patching_engine import opened, swept, twins
from workbench.lm.edits import patch as put_value, resample, scale
from workbench.lm.errors import WorkbenchError
from workbench.lm.sites import Site
from workbench.lm.specimens import MASKED
from workbench.patching.cells import Cells
from workbench.patching.errors import PatchError
from workbench.patching.figures import cell_table, grid_figure
from workbench.patching.pairs import Pairs, first_difference, plain
from workbench.patching.patch import base_of, patch, summary, verify
from workbench.patching.sources import mean_values
from workbench.patching.sweep import Sweep, exactness

SIDE = dict(clean=[[5, 6, 7, 8, 9]] * 2, corrupt=[[5, 6, 40, 8, 9], [5, 6, 50, 8, 9]], answers=[11] * 2, foils=[13] * 2)


# --- lengths, padding, sides -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("targets", [[[4, 5], [4, 5, 6, 7]], [[4, 5, 6, 7], [4, 5]]])
def test_targets_of_different_length_share_no_batch(targets):
    lm = opened("bart"); pairs = Pairs.of(lm, targets=targets, **SIDE); together = patch(lm, pairs, "encoder.resid_pre", verify_cells=5); assert together.attrs["largest_difference"] < 1e-5
    for i in range(2): assert np.allclose(together.logit_difference.isel(prompt=i), patch(lm, pairs[i], "encoder.resid_pre").logit_difference.isel(prompt=0), atol=1e-6)
    with pytest.raises(PatchError, match="prompts of different length"): plain(pairs.targets, [0, 1])


def test_cross_attention_reads_the_encoder():
    lm = opened("bart"); pairs = Pairs.of(lm, targets=[[4, 5]] * 2, **SIDE); cells = Cells.of(lm, pairs, "decoder.cross.k", "layer kv_head pos")
    assert len(cells.places) == 5 and not cells.decoder and Cells.of(lm, pairs, "decoder.cross.q", "layer head pos").decoder
    true = lm.run(pairs.clean, keep="decoder.cross.k", targets=[[4, 5]] * 2).tensor("decoder.cross.k.0").mean((0, 1))
    assert torch.allclose(mean_values(lm, pairs, cells, False)[cells.sites[0], 0].float(), true, atol=1e-6)
    assert verify(swept(lm, pairs, "decoder.cross.v", "layer kv_head", ablation="mean"), 6)["largest_difference"] < 1e-5
    with pytest.raises(PatchError, match="in two calls"): patch(lm, pairs, ["decoder.k", "decoder.cross.k"], "layer kv_head")


def test_the_side_of_the_padding_changes_nothing():
    lm = opened("gpt2"); rows = dict(clean=[[5, 6, 7, 8, 9, 10, 11], [5, 6, 7, 8]], corrupt=[[5, 6, 70, 8, 9, 10, 11], [5, 6, 70, 8]]); usual = Pairs.of(lm, **rows, answers=[11] * 2, foils=[13] * 2)
    other = Pairs.of(lm, **{k: lm.tokens(v, side="left" if k == "clean" else "right") for k, v in rows.items()}, answers=[11] * 2, foils=[13] * 2)
    assert first_difference(other).tolist() == [2, 2] and np.array_equal(patch(lm, usual).recovery, patch(lm, other).recovery, equal_nan=True)


@pytest.mark.parametrize("name", MASKED)
def test_the_end_of_a_masked_prompt_is_its_mask(name, monkeypatch):
    lm = opened(name); monkeypatch.setattr(type(lm), "mask_id", property(lambda self: 2)); words = dict(answers=[11], foils=[13])
    pairs = Pairs.of(lm, clean=[[5, 6, 7, 2, 9, 10]], corrupt=[[5, 40, 7, 2, 9, 10]], **words)
    named, counted = (patch(lm, pairs, "resid_pre", positions=[p]).recovery.values for p in ("end", 3)); assert np.array_equal(named, counted)
    with pytest.raises(PatchError, match="different places"): Pairs.of(lm, clean=[[5, 6, 2, 7]], corrupt=[[5, 2, 6, 7]], **words)


def test_pairs_can_be_chosen_by_mask_and_by_number():
    pairs = twins(opened("gpt2")); assert pairs[np.array([True, False, True])].clean.strs == [pairs.clean.strs[0], pairs.clean.strs[2]] and len(pairs[np.int64(1)]) == 1 and len(pairs[1:]) == 2


# --- couplings that would break the fast path ------------------------------------------------------------------------
@pytest.mark.parametrize("coupled, dim", [("earlier positions see later ones", 1), ("rows see each other", 0)])
def test_a_causal_model_that_is_none_takes_full_passes(coupled, dim):
    lm = opened("gpt2"); lm.model.transformer.h[1].register_forward_hook(lambda m, a, o: o + o.mean(dim, keepdim=True) if torch.is_tensor(o) else (o[0] + o[0].mean(dim, keepdim=True), *o[1:]))
    pairs = twins(lm, (8, 8)); grid = patch(lm, pairs, verify_cells=12); assert coupled in grid.attrs["exactness"] and grid.attrs["largest_difference"] < 1e-5
    alone = patch(lm, pairs[0]); assert np.allclose(grid.logit_difference.isel(prompt=0), alone.logit_difference.isel(prompt=0), atol=1e-5)
    assert exactness(opened("gpt2"))[0]


def test_edits_that_stand_are_those_the_sweep_knows():
    lm = opened("gpt2"); pairs = twins(lm, (8, 8)); double = scale(Site("mlp_out", layer=2), 2.); outside = Sweep(lm, pairs, Cells.of(lm, pairs))
    with lm.edited(double):
        with pytest.raises(PatchError, match="standing edits are not those"): next(outside.steps())
        inside = Sweep(lm, pairs, Cells.of(lm, pairs))
    with pytest.raises(PatchError, match="standing edits are not those"): next(inside.steps())
    run = lm.run(pairs.clean, keep="mlp_out")
    for edit in (put_value(Site("mlp_out", layer=0), run), resample(Site("mlp_out", layer=0), run)):
        with lm.edited(edit), pytest.raises(PatchError, match="each prompt of its own batch"): patch(lm, pairs)


# --- verification by other means, completeness -----------------------------------------------------------------------
@pytest.mark.parametrize("ablation", ["patch", "zero", "mean", "resample"])
def test_verification_uses_the_ordinary_edits(ablation):
    lm = opened("llama"); pairs = twins(lm, (8, 8, 7, 7))
    for sites, by in (("v", "layer kv_head"), ("z", "layer head pos"), ("attn_out", "layer pos")):
        told = verify(swept(lm, pairs, sites, by, ablation=ablation), 6); assert told["largest_difference"] < 1e-5 and "ordinary edits" in told["verified_by"]
    sweep = swept(lm, pairs, "resid_pre", "layer pos"); sweep.values["logit_difference"] += .01; assert verify(sweep, 3)["largest_difference"] > .009      # and it would notice


def test_a_stopped_sweep_goes_on_where_it_was():
    lm = opened("gpt2"); pairs = twins(lm); whole = swept(lm, pairs, "resid_pre", "layer pos"); assert whole.complete and whole.result().attrs["complete"] == 1 and not list(whole.steps())
    part = Sweep(lm, pairs, whole.cells, memory=4e4); assert part.result().attrs["complete"] == 0
    steps = part.steps(); part.stop(); assert not list(steps) and part.computed == 0                      # stopped before its first step
    for _ in part.steps():
        if part.computed > 5: part.stop()
    before = part.computed; assert not part.complete
    for _ in part.steps(): pass
    assert part.complete and part.computed == whole.computed and 0 < before < part.computed and np.allclose(part.values["logit_difference"], whole.values["logit_difference"], atol=1e-5, equal_nan=True)


def test_layers_in_any_order_are_the_same_grid():
    lm = opened("gpt2"); pairs = twins(lm); grid, usual = patch(lm, pairs, layers=[2, 0, -1]), patch(lm, pairs); assert grid.layer.values.tolist() == [0, 2]
    assert np.allclose(grid.logit_difference, usual.logit_difference.sel(layer=[0, 2]), atol=1e-5, equal_nan=True)


def test_the_plan_counts_what_is_kept():
    lm = opened("gpt2"); pairs = twins(lm, (30,) * 16); sweep = Sweep(lm, pairs, Cells.of(lm, pairs, ["result"], "layer head")); opened_ = sweep.open(list(range(16)))
    size = sum(t.numel() * 4 for t in (*opened_.base.run.kept.values(), *opened_.source.run.kept.values())); assert size < sweep.plan().bytes


# --- placebo, scales, uncertainty ------------------------------------------------------------------------------------
def test_the_placebo_of_a_direction_is_a_push_of_equal_size():
    lm = opened("gpt2"); pairs = twins(lm, (8, 8)); u = torch.zeros(32); u[0], u[1] = 1, -1
    grid = patch(lm, pairs, "resid_post", "layer direction", directions=u, placebo=True); assert abs(grid.recovery_placebo).max() > 1e-3
    class Halves:
        encode = staticmethod(lambda x: (x - 1).relu()); decode = staticmethod(lambda f: f)
    grid = patch(lm, pairs, "resid_post", "layer feature", layers=[0, 1], features=(Halves, [2, 3]), placebo=True); moved = abs(grid.recovery).max("prompt") > 1e-6
    assert bool((abs(grid.recovery_placebo).max("prompt") > 1e-6).where(moved).fillna(1).all()) and bool(moved.any())


def test_a_placebo_is_the_same_in_every_grid():
    lm = opened("gpt2"); pairs = twins(lm, (8, 7)); whole = patch(lm, pairs, "z", "layer head pos", placebo=True); part = patch(lm, pairs[1], "z", "layer head pos", layers=[1], heads=[2], positions=[5], placebo=True)
    assert np.isclose(float(part.recovery_placebo.squeeze()), float(whole.recovery_placebo.sel(layer=1, head=2, pos=5, prompt=1).squeeze()), atol=1e-5)
    assert whole.attrs["forward_equivalents"] > 1.9 * patch(lm, pairs, "z", "layer head pos").attrs["forward_equivalents"]


def test_no_effect_is_in_the_middle_of_the_scale():
    lm = opened("gpt2"); grid = patch(lm, twins(lm, (8,) * 6), metrics=("probability", "logit_difference")); told = summary(grid, "probability"); still = told.sel(site="resid_pre", layer=0, pos=0)
    assert float(still.change) == 0 == float(still.change_high) and np.isclose(float(still["mean"]), float(base_of(grid, "probability").mean())) and float(told.random_site.min()) == 0 and float(told.random_site.max()) == 1
    heat = grid_figure(told).data[0]; assert heat.zmin == -heat.zmax and np.isclose(np.nanmax(np.abs(heat.z)), heat.zmax)
    noised = grid_figure(summary(patch(lm, twins(lm, (8,) * 6), direction="noising", placebo=True), "recovery_placebo")).data[0]; assert np.isclose(noised.zmin + noised.zmax, 2)
    strongest = cell_table(told, 3); assert (abs(strongest.change).diff().dropna() <= 0).all() and strongest.random_site.iloc[0] == 0


def test_a_summary_names_only_tokens_that_all_prompts_share():
    lm = opened("gpt2"); pairs = Pairs.of(lm, clean=[[5, 6, 7, 8], [5, 9, 7, 8]], corrupt=[[5, 6, 70, 8], [5, 9, 71, 8]], answers=[11] * 2, foils=[13] * 2); told = summary(patch(lm, pairs))
    assert told.token.values.tolist() == ["#5", "", "#7", "#8"] and told.corrupt_token.values.tolist() == ["#5", "", "", "#8"]


def test_a_table_leaves_out_what_was_not_computed():
    lm = opened("gpt2"); pairs = twins(lm, (8, 8, 8)); sweep = Sweep(lm, pairs, Cells.of(lm, pairs), memory=4e4); next(sweep.steps())
    assert 0 < len(cell_table(summary(sweep.result()))) < 24


def test_kl_in_noising_has_no_sign():
    lm = opened("gpt2"); told = summary(patch(lm, twins(lm, (8,) * 6), metrics="kl", direction="noising"), "kl"); assert np.isnan(told.p).all() and "never below 0" in told.attrs["p_undefined"] and np.isfinite(told.low).all()


def test_a_rank_of_nan_is_nan():
    from types import SimpleNamespace

    from workbench.patching.measures import measure
    z = torch.tensor([[torch.nan, 1., 2.], [0., 1., 2.]]); two = SimpleNamespace(answer_ids=torch.tensor([0, 1]), foil_ids=torch.tensor([1, 2])); got = measure("rank", two, z)(z, torch.tensor([0, 1]))
    assert got[0].isnan() and got[1] == 2


# --- one clear sentence ----------------------------------------------------------------------------------------------
def named(name):
    def metric(z, i): return z[:, 0]
    metric.__name__ = name
    return metric

@pytest.mark.parametrize("ask, says", [(dict(metrics=[]), "No metric was named"), (dict(metrics=[named("a"), named("a")]), "Two metrics are called 'a'"), (dict(metrics=named("recovery")), "cannot be called"), (dict(metrics=[3]), "is no metric"),
    (dict(by="layer direction", directions=torch.ones(3)), "vectors of 32 entries"), (dict(by="layer direction", directions=torch.full((32,), torch.nan)), "not finite"), (dict(by="layer feature", features=(torch.nn.Identity(), [1]), layers=[1]), "object with encode"),
    (dict(by="layer feature", features=(named("x"), [1])), "belongs to one layer"), (dict(layers="all"), "is no layer"), (dict(layers=[1.5]), "is no layer"), (dict(positions=[2.5]), "is no position"), (dict(heads=[1]), "add 'head' to by="),
    (dict(verify_cells=-1), "1 or more"), (dict(sites=[]), "No sites were named")])
def test_grids_that_cannot_be_made(ask, says):
    lm = opened("gpt2")
    with pytest.raises(WorkbenchError, match=says): patch(lm, twins(lm, (8, 8)), **ask)


@pytest.mark.parametrize("ask, says", [(dict(spans={"x": 99}), "lies outside prompt 0"), (dict(spans={"x": [1, 2, 3]}), "one whole number for all"), (dict(spans={"x": .5}), "one whole number"), (dict(answers=[300, 3], foils=[4, 4]), "300 is no token"),
    (dict(answers=[-1, 3], foils=[4, 4]), "-1 is no token"), (dict(answers=[1, 2, 3]), "3 answers were given for 2")])
def test_pairs_that_cannot_be_made(ask, says):
    with pytest.raises(WorkbenchError, match=says): Pairs.of(opened("gpt2"), clean=[[5, 6, 7], [7, 8, 9]], corrupt=[[5, 60, 7], [7, 80, 9]], **ask)


def test_what_is_no_task():
    lm = opened("gpt2"); pairs = twins(lm)
    with pytest.raises(PatchError, match="neither a task nor Pairs"): patch(lm, "ioi")
    with pytest.raises(PatchError, match="give it alone"): Pairs.of(lm, pairs, answers=[1, 2, 3])
    with pytest.raises(PatchError, match="hold no prompt"): Pairs.of(lm, pairs[[]])
    with pytest.raises(PatchError, match="no variable 'recovary'"): summary(patch(lm, pairs), "recovary")
    assert Pairs.of(lm, clean=[[5, 6, 7]], spans={"last": -1}).spans["last"].tolist() == [2]

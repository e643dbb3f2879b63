"""Subspaces: patches inside them against plain hooks, directions whose truth is planted, searches beside an untrained control, and the report."""
import numpy as np
import pytest
import torch

from workbench.lm.edits import apply, patch
from workbench.lm.errors import WorkbenchError
from workbench.lm.load import load
from workbench.lm.sites import Site
from workbench.lm.specimens import CAUSAL, build
from workbench.patching.above import Above, place, positions_of
from workbench.patching.das import GIVER, KIND, das, fit, interchanges, ioi_items, ioi_splits, make_map, score, size_curve, untrained, word_items
from workbench.patching.das_maps import Coupled, Rotation
from workbench.patching.errors import PatchError
from workbench.patching.illusion import WORDS, constructed, illusion_check, reader_of, split, word_pairs
from workbench.patching.pairs import Pairs
from workbench.patching.subspace import Sides, find_basis, orthonormal, subspace_patch
from workbench.patching.subspace_figures import size_figure
from workbench.reporting.run import run
from workbench.tasks.catalogue import make
from workbench.tasks.task import Task

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def micro(): return load("micro", check=False)


@pytest.fixture(scope="module")
def pairs(micro): return Pairs.of(micro, make("ioi", n=12))


# --- the part above a site --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", CAUSAL)
def test_writing_above_a_site_is_what_plain_hooks_do(family):
    lm = load(build(family), check=False); g = torch.Generator().manual_seed(0)
    batch = lm.tokens([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14], [15, 16, 17, 18, 19, 20]]); at = torch.tensor([[2, 4], [1, 3], [3, 5]])
    for site in ("resid_pre.1", "z.1", "attn_out.2", "mlp_out.0"):
        up = Above(lm, batch, site, at); new = up.values + torch.randn(up.values.shape, generator=g) * up.values.std()
        assert float((up.logits(up.values) - up.base_logits).abs().max()) < 2e-4
        shape = lambda x: x.view(1, 2, *((lm.n_heads, lm.d_head) if site[0] == "z" else (-1,)))
        plain = torch.cat([lm.run(batch.ids[i, :n][None], edits=patch(Site(site[:-2], layer=int(site[-1]), pos=tuple(at[i].tolist())), shape(new[i]))).last_logits for i, n in enumerate((6, 4, 6))])
        assert float((up.logits(new) - plain).abs().max()) < 2e-4 and float((plain - up.base_logits).abs().max()) > 1e-3
        assert float((up.logits(new[[2, 0]], [2, 0]) - plain[[2, 0]]).abs().max()) < 2e-4


def test_models_without_a_fast_path_agree_too():
    lm = load("micro-bert", check=False); p = Pairs.of(lm, make("ioi", n=4)); up = Above(lm, p.corrupt, "resid_pre.2", positions_of(p, p.corrupt, "S2")); theirs = up.on(p.clean)
    plain = torch.stack([lm.run(p.corrupt[i], edits=patch(Site("resid_pre", layer=2, pos=int(p.spans["S2"][i])), theirs[i][None])).last_logits[0] for i in range(4)])
    assert not up.fast and float((up.logits(theirs) - plain).abs().max()) < 1e-4
    with pytest.raises(PatchError, match="causal"): up.logits(theirs.requires_grad_())
    assert float(subspace_patch(lm, p, "resid_pre.2", torch.eye(lm.d_model), "S2", draws=0).recovery.sel(part="rest").max()) < 1e-3


# --- patching inside a subspace ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("direction", ["denoising", "noising"])
@pytest.mark.parametrize("site", ["resid_pre.3", Site("z", layer=2, head=1), "mlp_post.1"])
def test_a_subspace_patch_is_the_formula_through_plain_hooks(micro, pairs, site, direction):
    base, source = (pairs.corrupt, pairs.clean) if direction == "denoising" else (pairs.clean, pairs.corrupt)
    s = place(micro, site); whole = s.at(head=None); d = Sides(micro, pairs, site).d
    b = orthonormal(torch.randn(d, 5, generator=torch.Generator().manual_seed(1))); got = subspace_patch(micro, pairs, site, b, direction=direction, draws=0)
    for i in range(3):
        h = micro.run(source[i], keep=whole).tensor(whole)[:, [int(source.lengths[i]) - 1]]; h = h if s.head is None else h[:, :, [s.head]]
        done = micro.run(base[i], edits=apply(s.at(pos=-1), lambda v: v + (h - v) @ b @ b.T)).last_logits[0]
        want = float(done[pairs.answer_ids[i]] - done[pairs.foil_ids[i]])
        assert float(got.logit_difference.sel(part="subspace", prompt=i)) == pytest.approx(want, abs=2e-3)
        clean, corrupt = (float(got[f"{k}_logit_difference"][i]) for k in ("clean", "corrupt"))
        assert float(got.recovery.sel(part="subspace", prompt=i)) == pytest.approx((want - corrupt) / (clean - corrupt), abs=1e-3)


def test_placebos_are_what_they_are_called(micro, pairs):
    b = find_basis(micro, pairs, "resid_pre.3", "pca", 6); found = subspace_patch(micro, pairs, "resid_pre.3", b, draws=30, seed=2)
    assert float(found.p.max()) == pytest.approx(1 / 31) and found.attrs["direction"].startswith("denoising")
    idle = subspace_patch(micro, pairs, "resid_pre.3", torch.randn(micro.d_model, 6, generator=torch.Generator().manual_seed(9)), draws=30, seed=2)
    assert .05 < float(idle.p.sel(placebo="random subspace")), "a random subspace must not beat random subspaces"
    back = subspace_patch(micro, pairs, "resid_pre.3", b, direction="noising", draws=30)
    assert float(back.p.max()) == pytest.approx(1 / 31) and float(back["mean"].sel(part="subspace")) < float(back.placebo_recovery.mean())


def test_bases_point_where_they_should(micro, pairs):
    s = Sides(micro, pairs, "resid_pre.3"); gap = (s.source - s.base)[:, 0]
    b = find_basis(micro, pairs, "resid_pre.3", "pca", 12); assert float((gap - gap @ b @ b.T).norm() / gap.norm()) < 1e-3
    one = pairs[[0]]; g = find_basis(micro, one, "resid_pre.3", "gradient")[:, 0]; t = Sides(micro, one, "resid_pre.3"); move = lambda v: float(t.patched(v.view(1, 1, 1, -1))[0, 0] - t.patched(-v.view(1, 1, 1, -1))[0, 0])
    others = [abs(move(1e-2 * v / v.norm())) for v in torch.randn(20, micro.d_model, generator=torch.Generator().manual_seed(0))]
    assert abs(move(1e-2 * g)) > max(others), "no direction moves the metric more than its gradient"
    d = (t.source - t.base)[0, 0]; d, g = d / d.norm(), g * float(np.sign(move(g * 1e-2))); v = find_basis(micro, one, "resid_pre.3", "effect")[:, 0]
    assert abs(float(v @ (d + g)) / float((d + g).norm())) == pytest.approx(1, abs=1e-3), "for one pair: the bisector"
    twins = Pairs.of(micro, clean=["Mary"] * 1, corrupt=["John"] * 1, answers=["Mary"], foils=["John"])
    assert torch.allclose(find_basis(micro, twins, "resid_pre.0", "difference").abs()[:, 0], (lambda x: (x / x.norm()).abs())((Sides(micro, twins, "resid_pre.0").source - Sides(micro, twins, "resid_pre.0").base)[0, 0]), atol=1e-5)


# --- illusions --------------------------------------------------------------------------------------------------------
def test_the_constructed_networks_do_their_job_and_are_stock():
    from transformers import GPT2LMHeadModel
    for which in ("illusion", "distributed"):
        lm = constructed(which); p = word_pairs(lm); assert type(lm.model) is GPT2LMHeadModel and lm.check().ok
        assert len(p) == 128 and bool((lm.run(p.clean).last_logits.argmax(1) == p.answer_ids).all()) and bool((lm.run(p.corrupt).last_logits.argmax(1) == p.foil_ids).all())


def test_the_sum_flips_and_neither_part_does():
    lm = constructed("illusion"); p = word_pairs(lm)
    for direction in ("denoising", "noising"):
        c = illusion_check(lm, p, "mlp_post.0", [1., 1., 0.], patch=direction, draws=20); none = 0 if direction == "denoising" else 1
        assert bool(c.suspect) and c.attrs["suspect"] == 1 and c.flips.values.tolist() == [1, 0, 0] and c.share.values == pytest.approx([1, .5, .5], abs=1e-5)
        assert abs(c.recovery.sel(part=["row", "null"]) - none).max() < 1e-4 and abs(c["mean"].sel(part="sum") - (1 - none)) < 1e-2
    honest = illusion_check(lm, p, "mlp_post.0", [0., 0., 1.], draws=0); assert not bool(honest.suspect) and float(honest.flips.sel(part="row")) == 1
    for idle in ([1., 0., 0.], [0., 1., 0.]): assert not bool((c := illusion_check(lm, p, "mlp_post.0", idle, draws=0)).suspect) and float(c.flips.max()) == 0
    assert not bool(illusion_check(lm, p, "mlp_post.0", [1., 1., 0.], threshold=1.1, draws=0).suspect)


def test_a_right_direction_is_flagged_where_variables_move_together():
    lm = constructed("distributed"); v = torch.tensor([1., 1., 0.])
    flagged = {s: illusion_check(lm, word_pairs(lm, s), "mlp_post.0", v, draws=0) for s in ("opposite", "same", "any")}
    assert [bool(flagged[s].suspect) for s in flagged] == [True, False, False] and all(float(c.flips.sel(part="sum")) == 1 for c in flagged.values())
    assert float(flagged["any"].flips.sel(part="row")) == .75
    keep = lambda w: lm.run([w], keep="mlp_post.0").tensor("mlp_post.0")[0, -1]; u = v / v.norm()
    for base, source, natural in (("moss", "horse", "mouse"), ("oak", "bird", "cow"), ("bee", "pine", "daisy")):   # the size of the base, the kind of the source
        assert torch.allclose(keep(base) + u * float(u @ (keep(source) - keep(base))), keep(natural), atol=1e-3)


def test_the_split_is_a_projection_and_a_full_reader_says_so(micro, pairs):
    g = torch.Generator().manual_seed(0); w = torch.randn(20, 6, generator=g); v = torch.randn(20, generator=g); row, null, rank = split(v, w)
    assert rank == 6 and torch.allclose(row + null, v, atol=1e-5) and float((null @ w).abs().max()) < 1e-4 and torch.allclose(row, w @ torch.linalg.lstsq(w, v[:, None]).solution[:, 0], atol=1e-4)
    assert reader_of(micro, place(micro, "mlp_post.1"), pairs)[0].shape == (4 * micro.d_model, micro.d_model) and reader_of(micro, place(micro, Site("z", layer=1, head=2)), pairs)[0].shape == (micro.d_head, micro.d_model)
    full = illusion_check(micro, pairs, "resid_pre.2", torch.randn(micro.d_model, generator=g), draws=0); assert not bool(full.suspect) and "full rank" in full.attrs["undefined"]
    few = illusion_check(micro, pairs, "resid_pre.3", torch.randn(micro.d_model, generator=g), reader="readout", draws=5); assert few.attrs["rank"] <= len(pairs) and "undefined" not in few.attrs


# --- maps and searches ------------------------------------------------------------------------------------------------
def test_maps_undo_themselves_and_exchange_only_the_variable():
    g = torch.Generator().manual_seed(0); x = torch.randn(120, 9, generator=g) @ torch.randn(9, 9, generator=g); b, s = x[:20], x[20:40]
    f = Coupled(x, 4, 16, 2)
    with torch.no_grad(): [p.add_(.3 * torch.randn(p.shape, generator=g)) for p in f.parameters()]
    h = f.swap(b, s); assert float((f.inverse(f(x)) - x).abs().max()) < 1e-2 and torch.allclose(f(h)[:, :4], f(s)[:, :4], atol=1e-2) and torch.allclose(f(h)[:, 4:], f(b)[:, 4:], atol=1e-2)
    r = Rotation(9, 9); assert torch.allclose(r.swap(b, s), s, atol=1e-4) and torch.allclose(Rotation(9, 9, x=x).swap(b, s), s, atol=1e-3)
    q = Rotation(9, 3); assert torch.allclose(q.swap(b, s), b + (s - b) @ q.basis() @ q.basis().T, atol=1e-5) and Rotation(9, 3).size == 27


def test_a_planted_variable_is_found_where_it_was_put():
    lm = constructed("illusion"); words = {"train": word_items((0, 1)), "new words": word_items((2, 3))}
    found = das(lm, words, "resid_pre.0", k=1, algorithm=KIND, steps=60, lr=3e-2, n=400); at = lambda m, w: found.scores.sel(model=m, map=w, split="new words")
    assert float(at("trained", "learned").iia) == 1 and float(at("trained", "learned")["first"]) == 1 and float(at("trained", "learned").changed) == 1 and float(at("trained", "none").changed) == 0
    assert float(at("trained", "random").iia) < .8 and float(at("untrained", "learned").iia) < .7
    assert set(found.scores.dims) == {"model", "map", "split"} and bool(((found.scores.low - 1e-9 <= found.scores.iia) & (found.scores.iia <= found.scores.high + 1e-9)).all()) and found.scores.attrs["control"] == "same architecture, untrained"
    emb = lm.model.transformer.wte.weight.detach(); mean = lambda x: torch.stack([emb[lm.tokenizer.convert_tokens_to_ids(w)] for z in (1, -1) for w in WORDS[x, z]]).mean(0); axis = mean(1) - mean(-1)
    assert abs(float(found.maps["trained"].basis()[:, 0] @ axis / axis.norm())) > .8, "the direction that was written into the embeddings"


def test_a_search_is_right_for_the_wrong_reason():
    lm = constructed("illusion"); r = Rotation(3, 1, seed=2); d = interchanges(lm, word_items((0, 1)), "mlp_post.0", algorithm=KIND, n=300); fit(r, d, steps=60, lr=3e-2)
    assert score(interchanges(lm, word_items((2, 3)), "mlp_post.0", algorithm=KIND, n=200), r.swap)["iia"] == 1 and float(r.basis()[2] ** 2) < .9 and float(r.basis()[1] ** 2) > .1
    a, b = Rotation(3, 1, seed=4), Rotation(3, 1, seed=4); assert fit(a, d, steps=5) == fit(b, d, steps=5) != fit(Rotation(3, 1, seed=5), d, steps=5), "a seed repeats"


def test_splits_share_no_content():
    s = ioi_splits(60, 6, 30, seed=3); names = lambda items: {n for i in items for n in (i.truth["IO"], i.truth["S"])}
    assert not names(s["train"]) & names(s["new names"]) and not {i.truth["template"] for i in s["train"]} & {i.truth["template"] for i in s["new templates"]} and not {i.prompt for i in s["train"]} & {i.prompt for i in s["new prompts"]}
    assert all(GIVER.answer(i, i.truth["S"])[0] == i.answer and GIVER.answer(i, i.truth["IO"])[0] == i.truth["S"] for i in s["train"])


def test_a_strong_map_aligns_a_model_that_learned_nothing(micro):
    raw = untrained(micro); few = ioi_splits(120, 3, 50, things=2); curve = size_curve(raw, few, "resid_pre.3", hidden=(0, 256), steps=90, n=4000); at = lambda h, s: float(curve.iia.sel(hidden=h, split=s))
    assert at(256, "train") > .75 and at(256, "new prompts") > at(0, "new prompts") + .15 and at(0, "new prompts") < .64
    assert max(at(256, "new names"), at(256, "new templates")) < min(.7, at(256, "new prompts")), "it knows the names and templates it was shown and no others"
    assert int(curve["size"].sel(hidden=256)) == make_map("mlp", torch.randn(200, micro.d_model), 64, 256, 2).size
    assert curve.none.dims == ("split",) and .4 < float(curve.none.sel(split="new prompts")) < .6, "what the map is compared to"
    lines = size_figure(curve).data; assert [len(l.x) for l in lines if l.mode == "markers"] == [1] * 4 and all(y == pytest.approx(at(256, l.name)) for l in lines if l.mode != "markers" for y in l.y)


def test_refusals_name_the_fix(micro, pairs):
    for call, said in ((lambda: subspace_patch(micro, pairs, "pattern.1", torch.ones(4)), "no vector"), (lambda: subspace_patch(micro, pairs, "resid_pre", torch.ones(micro.d_model)), "name one"),
                       (lambda: subspace_patch(micro, pairs, "resid_pre.1", torch.ones(5)), "5 coordinates and the site 128"), (lambda: subspace_patch(micro, pairs, "resid_pre.1", torch.zeros(128)), "zero or linearly dependent"),
                       (lambda: subspace_patch(micro, pairs, "resid_pre.1", torch.ones(128), "S3"), "no span 'S3'"), (lambda: subspace_patch(micro, pairs, "resid_pre.1", torch.ones(128), direction="up"), "denoising"),
                       (lambda: find_basis(micro, pairs, "resid_pre.1", "best"), "'pca'"), (lambda: illusion_check(micro, pairs, "resid_pre.1", torch.eye(128)[:, :2]), "each column"), (lambda: illusion_check(micro, pairs, "q.1", torch.ones(128)), "give reader="),
                       (lambda: constructed("other"), "'distributed'"), (lambda: das(micro, {"train": []}, "resid_pre.1"), "two splits"), (lambda: das(load("micro-bert", check=False), {}, "resid_pre.1"), "causal"), (lambda: Rotation(4, 5), "1 to 4"), (lambda: ioi_items(5, ["Mary", "John"], [0], things=1, without=ioi_items(40, ["Mary", "John"], [0], things=1)), "more names")):
        with pytest.raises(PatchError, match=said): call()


# --- the report -------------------------------------------------------------------------------------------------------
def test_the_report_says_what_the_methods_say(micro, tmp_path):
    made = run("illusion_debate", dict(steps=40, sizes=[8], n=24, draws=10, seed=1), out=tmp_path); shown = made.record["result"]
    lm = micro; p = Pairs.of(lm, Task("ioi", ioi_items(24, ["Mary", "John"], range(6), 1))); v = find_basis(lm, p[:12], "mlp_post.3", "effect"); own = illusion_check(lm, p[12:], "mlp_post.3", v, draws=0)
    assert shown["n"] == 12 and shown["trained_mlp"] == {"suspect": bool(own.suspect), **{k: pytest.approx(float(own.flips.sel(part=k))) for k in ("sum", "row", "null")}}
    assert shown["one_direction"] == pytest.approx(float(own["mean"].sel(part="sum")), abs=1e-3) and shown["one_direction"] > 1.5 * shown["all_neurons"]
    assert shown["planted_illusion"] == shown["right_but_flagged"] == dict(sum=1, row=0, null=0, suspect=True) and not shown["honest_neuron"]["suspect"] and shown["right_all_pairs"] == dict(sum=1, row=.75, null=0, suspect=False)
    trained, raw = shown["iia_trained"], shown["iia_untrained"]; assert set(trained) == {"train", "new prompts", "new names", "new templates"} and list(shown["untrained_by_map_size"]) == ["8"]
    for split in trained: assert trained[split] > .68 and trained[split] > raw[split] + .1 and raw[split] < .65, "the giver is found in the trained model, on held-out content too, and not in its untrained twin"
    assert all(toy["new words"] == 1 and toy["honest neuron"] < .9 for toy in shown["search_in_the_illusion"].values())
    html = made.page.read_text(); assert "never learned anything" in html and "$X" not in html


@pytest.mark.parametrize("params, says", [(dict(steps=1), "from 10 to 5000"), (dict(threshold="high"), "threshold")])
def test_the_report_refuses_before_it_starts(params, says, tmp_path):
    with pytest.raises(WorkbenchError, match=says): run("illusion_debate", params, out=tmp_path)


def test_a_grid_of_directions_carries_the_flag():
    from workbench.patching.figures import grid_figure
    from workbench.patching.illusion import marked
    from workbench.patching.patch import patch, summary
    from workbench.widgets.patching_data import column_labels
    from workbench.widgets.patching_grid import PatchingGrid
    lm = constructed("illusion"); pairs = word_pairs(lm); u = torch.tensor([[1., 1., 0.], [0., 0., 1.]]); at = "mlp_post.0"
    grid = patch(lm, pairs, "mlp_post", "layer direction", positions="end", layers=[0], directions=u); assert np.allclose(grid.recovery.mean("prompt").squeeze(), 1, atol=1e-2)      # the grid alone cannot tell them apart
    flagged = marked(grid, {i: illusion_check(lm, pairs, at, v, draws=0) for i, v in enumerate(u)}); assert flagged.suspect.values.tolist() == [True, False]
    shown = PatchingGrid.of(flagged); assert [label for label, *_ in column_labels(shown.data.a)][0].endswith(" suspect")
    assert "suspect: direction 0" in shown.meta["said"] and list(grid_figure(summary(flagged)).data[0].x) == ["0 suspect", "1"]
    with pytest.raises(PatchError, match="by='layer direction'"): marked(patch(lm, pairs, "mlp_out", "layer pos"), {})

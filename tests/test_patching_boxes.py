"""A base and a tuned model: activations and weights of one in the other, learned masks, causal graphs; against plain hooks, planted differences, known edges and untrained controls."""
import copy
import re

import numpy as np
import pytest
import torch
from scipy.stats import hypergeom, spearmanr
from transformers import LlamaForCausalLM

import workbench as wb
from workbench.patching.causal_graph import CausalGraph, causal_graph, gradient_map, half_samples, keep_only, silence, stability, variation
from workbench.patching.cross_model import cell_edit, cross_model_patch, cross_patch_together, gap_recovery, gap_summary, exchanged_logits, rank_overlap
from workbench.patching.cells import Cells
from workbench.patching.dcm import Desideratum, MaskedRun, dcm, judge
from workbench.patching.errors import PatchError
from workbench.patching.graph import Graph
from workbench.patching.pairs import Pairs
from workbench.patching.patch import patch, summary
from workbench.patching.weight_grid import weight_grid
from workbench.tasks import make
from workbench.tasks.boxes import LABELS, THINGS, document, held
from workbench.zoo import constructed

torch.set_num_threads(1)
HEADS = [(l, h) for l in range(2) for h in range(8)]


@pytest.fixture(scope="module")
def base(): return wb.load("boxes-base")


@pytest.fixture(scope="module")
def tuned(): return wb.load("boxes-tuned")


@pytest.fixture(scope="module")
def pairs(base): return Pairs.of(base, make("boxes", n=24, seed=5, boxes=4))


def untrained(lm, seed=0):
    torch.manual_seed(seed); return wb.load(LlamaForCausalLM(lm.model.config).eval(), tokenizer=lm.tokenizer, check=False)


def without(lm, *heads):
    "A copy of a model whose `heads` have no values: the one difference to the model it came from."
    model = copy.deepcopy(lm.model)
    with torch.no_grad():
        for l, h in heads: model.model.layers[l].self_attn.v_proj.weight[h * lm.d_head:(h + 1) * lm.d_head] = 0
    return wb.load(model, tokenizer=lm.tokenizer, check=False)


# --- the task, read by a program that knows only English ----------------------------------------------------------------
def reads(text):
    "The answer, by reading the sentences one by one."
    at = {b: o for b, o in re.findall(r"Box (\w) holds the (\w+)\.", text)} | {b: o for o, b in re.findall(r"The (\w+) is in Box (\w)\.", text)}
    for a, b in re.findall(r"The thing in Box (\w) goes to Box (\w)\.", text): at[b] = at.pop(a)
    return at[text.split()[-3]]


@pytest.mark.parametrize("options", [{}, dict(boxes=2), dict(form="inside"), dict(moves=1), dict(corrupt="contents"), dict(moves=1, corrupt="contents", form="inside")])
def test_a_reader_gives_the_answers_of_the_task(options):
    task = make("boxes", n=60, seed=2, **options)
    for i in task.items:
        assert reads(i.prompt) == i.answer and reads(i.corrupt) == i.foil == i.corrupt_answer and i.answer != i.foil
        assert i.prompt[slice(*i.spans["object"])] == i.answer and held((i.prompt.split()[-3], i.answer)) == "test" and len(i.prompt.split()) == len(i.corrupt.split())
        assert i.truth["contents"] == {b: reads(f"{i.prompt.rsplit('Box', 1)[0]}Box {b} holds the") for b in i.truth["contents"]}


def test_documents_tell_the_truth_and_no_held_out_pair():
    import random
    for s in range(200):
        text = document(random.Random(s)); told = text[:text.index("=")].rsplit("Box", 1)[0]
        for b, o in re.findall(r"Box (\w) holds the =(\w+)\.", text): assert reads(re.sub(r"Box \w holds the =\w+\. ", "", told) + f"Box {b} holds the") == o and held((b, o)) == "train"
        assert all(held(p) == "train" for p in re.findall(r"Box (\w) holds the (\w+)\.", text))
    assert .1 < np.mean([held((b, o)) == "test" for b in LABELS for o in THINGS]) < .4


def test_the_tuned_model_grew_out_of_the_base_model(base, tuned):
    near = [float(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0)) for a, b in zip(base.model.state_dict().values(), tuned.model.state_dict().values()) if a.dim() > 1]
    assert min(near) > .8 and max(near) < 1 and wb.zoo.card("boxes-tuned")["training"]["origin"] == "boxes-base"


# --- activations of one model in another ---------------------------------------------------------------------------------
def by_hooks(base, tuned, ids, layer, head, pos):
    "Logits of the base model with z of one head at `pos` taken from the tuned one, by hooks of PyTorch on the two Hugging Face models."
    a, b = head * base.d_head, (head + 1) * base.d_head; seen = {}
    def look(module, args): seen["z"] = args[0].clone()
    def write(module, args):
        z = args[0].clone(); z[:, pos, a:b] = seen["z"][:, pos, a:b]
        return (z,)
    with torch.no_grad():
        h = tuned.model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(look); tuned.model(ids); h.remove()
        h = base.model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(write); out = base.model(ids).logits[:, -1]; h.remove()
    return out


@pytest.mark.parametrize("layer,head,at", [(0, 1, None), (0, 6, "end"), (1, 4, "end"), (1, 2, 3)])
def test_a_cell_is_what_plain_hooks_do(base, tuned, pairs, layer, head, at):
    cells = Cells.of(base, pairs, ("z",), ("layer", "head"), at); pos = slice(None) if at is None else int(pairs.clean.lengths[0]) - 1 if at == "end" else at
    got = exchanged_logits(base, tuned, pairs, cells, [(0, layer, head, 0)]); want = by_hooks(base, tuned, pairs.clean.ids, layer, head, pos)
    assert float((got - want).abs().max()) < 1e-4
    if at != 3: assert float((want - exchanged_logits(base, base, pairs, cells, [])).abs().max()) > 1e-2


def test_a_planted_difference_is_found_where_it_is_and_nowhere_else(tuned, pairs):
    cut = without(tuned, (1, 3)); got = cross_model_patch(cut, tuned, pairs, control=False); share = got.recovery_logit_difference.squeeze()
    assert float(share.sel(layer=1, head=3)) == pytest.approx(1, abs=1e-4) and float(got.low_logit_difference.sel(layer=1, head=3).squeeze()) == pytest.approx(1, abs=1e-3)
    assert np.abs(np.delete(share.values.ravel(), 11)).max() < 1e-4
    where = cross_model_patch(cut, tuned, pairs, by=("layer", "head", "pos"), layers=[1], heads=[3], positions=["end", "object"], control=False).recovery_logit_difference.squeeze()
    assert float(where[0]) == pytest.approx(1, abs=1e-4) and abs(float(where[1])) < 1e-4
    all_of_it = cross_patch_together(cut, tuned, pairs, [(1, 3)], draws=3); x = all_of_it.logit_difference_prompt
    assert np.abs(x.sel(what="patched") - x.sel(what="tuned")).max() < 1e-3 and float(all_of_it.logit_difference_gain.sel(what="random heads")) == pytest.approx(0, abs=1e-4)


def test_the_control_is_as_long_as_the_change_and_stays_in_its_head(base, tuned, pairs):
    cells = Cells.of(base, pairs, ("z",), ("layer", "head"), "end"); rows = list(range(6)); source = tuned.run(pairs.clean[rows], keep=["z.0"]); own = base.run(pairs.clean[rows], keep=["z.0"]).tensor("z.0")
    real, noise, again, other = (cell_edit(cells, source, (0, 0, 1, 0), rows, p).fn(own.clone(), None) - own for p in (None, 3, 3, 4))
    length = lambda x: x[:, -1, 1].norm(dim=-1)
    assert torch.allclose(length(real), length(noise), rtol=1e-4) and torch.equal(noise, again) and not torch.equal(noise, other) and float(torch.cosine_similarity(noise[:, -1, 1], real[:, -1, 1]).abs().mean()) < .6
    for x in (real, noise): y = x.clone(); y[:, -1, 1] = 0; assert not y.any()


def test_recovery_is_a_ratio_of_means_and_its_interval_covers():
    rng = np.random.default_rng(0); hit = []
    for i in range(100):
        b = rng.normal(0, 1, 40); gap = rng.normal(2, 1, 40); p = b + .4 * gap + rng.normal(0, .5, 40)
        r, low, high = gap_recovery(p[:, None], b, b + gap, n_resamples=400, seed=i); hit.append(low[0] <= .4 <= high[0])
        assert r[0] == pytest.approx((p - b).sum() / gap.sum())
    assert .87 < np.mean(hit) < .99


def test_fine_tuning_sharpens_heads_that_were_there_S249(base, tuned):
    pairs = Pairs.of(base, make("boxes", n=40, seed=8)); got = cross_model_patch(base, tuned, pairs, layers=[0]); told, noise = gap_summary(got), gap_summary(got, control=True)
    assert .3 <= float(got.base_first.mean()) < .75 and float(got.tuned_first.mean()) >= .95
    best = told["mean"].squeeze(); assert int(best.values.argmax()) == 1 and float(told.low.squeeze()[1]) > .5 and float(told.p.squeeze()[1]) < .01 and float(noise.high.squeeze()[1]) < .2
    at = {k: cross_model_patch(base, tuned, pairs, layers=[0], heads=[1], positions=[f"{k}{i}" for i in range(6)], control=False) for k in "ob"}       # at the things it brings the box, at the boxes nothing
    assert all(float(at["o"][f"low_{m}"].squeeze()) > .1 and abs(float(at["b"][f"recovery_{m}"].squeeze())) < .05 for m in ("first", "logit_difference"))
    head = lambda lm: summary(patch(lm, pairs, sites=("z",), by=("layer", "head")), "logit_difference").change.squeeze()
    mine = head(tuned); same = rank_overlap(head(base), mine, k=2); assert same["rho"] > .7 and same["p_rho"] < .01 and same["shared"] == 2 and same["p_shared"] < .02
    for s in range(3): c = rank_overlap(head(untrained(base, s)), mine, k=2); assert c["p_rho"] > .05 and c["shared"] < 2


def test_no_gap_no_recovery(base, pairs):
    got = cross_model_patch(untrained(base, 0), untrained(base, 1), pairs, layers=[1], heads=[0, 1]); assert np.isnan(got.recovery_first).all() and "no gap" in got.attrs["undefined"]


def test_overlap_of_ranks_is_scipys():
    rng = np.random.default_rng(1); a = rng.normal(size=(3, 8)); b = a + rng.normal(size=(3, 8)); got = rank_overlap(a, b, k=5)
    assert got["rho"] == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic) and got["p_shared"] == pytest.approx(hypergeom.sf(got["shared"] - 1, 24, 5, 5), abs=.015)
    assert rank_overlap(a, a)["rho"] == pytest.approx(1) and rank_overlap(a, -a)["shared"] == 3


def test_models_that_do_not_match_are_refused(base, tuned, pairs):
    other = wb.load(copy.deepcopy(base.model), tokenizer=wb.load("induction").tokenizer, check=False) if wb.load("induction").d_vocab == base.d_vocab else wb.load("induction")
    with pytest.raises(PatchError, match="differ in|other tokenizers"): cross_model_patch(base, other, pairs)
    with pytest.raises(PatchError, match="edited"), tuned.edited("z.0.1", torch.zeros_like): cross_model_patch(base, tuned, pairs)
    with pytest.raises(PatchError, match="answers"): cross_model_patch(base, tuned, Pairs.of(base, clean=["Box A holds the key."]))


# --- learned masks -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sites,by,positions", [(("z",), ("layer", "head"), None), (("attn_out", "mlp_out"), ("layer", "pos"), ["box", "object", "end"])])
def test_the_gradient_of_the_mask_is_the_finite_difference(base, tuned, pairs, sites, by, positions):
    run = MaskedRun(Desideratum.of(base, pairs, tuned, sites, by, positions), list(range(5))); mask = torch.rand(run.want.cells.shape, generator=torch.Generator().manual_seed(1)) * .8 + .1
    loss, slope = run.gradient(mask); nll = lambda m: float(torch.nn.functional.cross_entropy(run.logits(m).double(), run.want.wanted[run.rows]))
    assert loss == pytest.approx(nll(mask), abs=1e-4)
    strong = [tuple(int(i) for i in np.unravel_index(i, slope.shape)) for i in slope.flatten().abs().argsort(descending=True)[:4].tolist()]; assert float(slope[strong[0]].abs()) > 2e-3
    for c in strong:
        up, down = mask.clone(), mask.clone(); up[c] += .02; down[c] -= .02
        assert float(slope[c]) == pytest.approx((nll(up) - nll(down)) / .04, rel=.05, abs=2e-4)


def test_a_mask_finds_the_two_heads_that_were_taken_away(base, tuned):
    cut, task = without(tuned, (0, 1), (0, 6)), make("boxes", n=40, seed=4, boxes=4); got = dcm(cut, task, source=tuned, steps=40, draws=3); kept = {HEADS[i] for i in np.flatnonzero(got.kept.values)}
    rate = got.rate.to_series(); assert kept == {(0, 1), (0, 6)} and rate["kept"] > .95 and rate["nothing"] < .6 and rate["random"] < .7
    want = Desideratum.of(cut, task, tuned); few = list(range(16))                     # no smaller set would do: all single heads, tried one by one
    single = {c: judge(want, few, torch.zeros(want.cells.shape).index_put((torch.tensor([0]), torch.tensor([c[0]]), torch.tensor([c[1]]), torch.tensor([0])), torch.tensor(1.))).mean() for c in HEADS}
    assert max(single.values()) < .8


def test_a_mask_of_an_untrained_model_brings_nothing_about(base, tuned):
    got = dcm(untrained(base), make("boxes", n=40, seed=4, boxes=4), source=tuned, steps=8, draws=1); assert float(got.rate.max()) < .2 and got.attrs["n_train"] == got.attrs["n"] == 20
    twin = dcm(untrained(base), make("boxes", n=20, seed=4, boxes=4), steps=8, draws=1); assert float(twin.rate.max()) < .2


# --- causal graphs -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def graph(tuned): return causal_graph(tuned, make("boxes", n=20, seed=4, boxes=3), ablation="patch")


def test_the_graph_of_a_model_written_by_hand_has_its_true_edges():
    lm = wb.load("constructed"); g = causal_graph(lm, constructed.task(16, 6), ablation="patch"); found = {f"{s}->{r}" for s, r, _ in g.edges}
    assert found == set(constructed.TRUE_EDGES)
    rest = keep_only(lm, g.units, constructed.task(60, 9), draws=5); assert float(rest.retained.sel(what="kept")) >= .9 and len(g.units) < .5 * len(g.graph.senders)


def test_one_cut_edge_is_a_patch_where_nothing_else_reads(tuned, graph):
    g, pairs = graph, graph.pairs; s, r, n = g.graph.sender_index["m1"], g.graph.receiver_index["logits"], len(pairs)      # what the last MLP writes is read by the logits alone
    other = tuned.run(pairs.corrupt, keep=["mlp_out.1"]).tensor("mlp_out.1"); grab = tuned.model.model.layers[1].mlp.register_forward_hook(lambda m, i, o: other)
    with torch.no_grad(): z = tuned.model(pairs.clean.ids).logits[:, -1]
    grab.remove()
    with torch.no_grad(): whole = tuned.model(pairs.clean.ids).logits[:, -1]
    d = lambda x: (x[torch.arange(n), pairs.answer_ids] - x[torch.arange(n), pairs.foil_ids]).numpy()
    assert np.abs(g.effect[:, s, r] - (d(whole) - d(z))).max() < 1e-3 and np.abs(d(whole) - d(z)).max() > 1e-2


def test_an_untrained_model_has_no_graph(base):
    g = causal_graph(untrained(base), make("boxes", n=8, seed=3, boxes=2)); assert g.keep.sum() <= 3 and not g.units


def test_halves_agree_on_what_was_planted_and_on_nothing_else(base):
    graph = Graph.of(base); rng = np.random.default_rng(0); where = np.argwhere(graph.allowed.numpy())[[3, 50, 200]]; effect = rng.normal(size=(40, *graph.allowed.shape)) * graph.allowed.numpy()
    made = lambda e: CausalGraph(graph, None, e, None, None, 0., dict(whole=1., least_share=.01))
    noise = half_samples(made(effect), draws=20); assert float(noise.kept.max()) < .3 and float(noise.edges.mean()) < .5
    for s, r in where: effect[:, s, r] += 3
    found = half_samples(made(effect), draws=20); assert float(found.agreement.mean()) > .9 and all(float(found.kept[s, r]) == 1 for s, r in where) and float(found.chance.mean()) < .1


def test_keeping_every_unit_keeps_everything(tuned, pairs):
    units = [s for s in Graph.of(tuned).senders if s != "embed"]; rest = keep_only(tuned, units, pairs, draws=2); assert float(rest.retained.sel(what="kept")) == 1 and float(rest.retained.sel(what="none")) < .5


def test_a_silenced_unit_writes_what_it_writes_for_the_other_prompts(tuned, pairs):
    few = pairs[list(range(4))]; z = torch.stack([tuned.run(few.clean[i], keep=["mlp_out.0"]).tensor("mlp_out.0")[0] for i in range(4)])
    grab = tuned.model.model.layers[0].mlp.register_forward_hook(lambda m, a, o: torch.stack([z[[j for j in range(4) if j != i]].mean(0) for i in range(4)]))
    with torch.no_grad(): want = tuned.model(few.clean.ids).logits[:, -1]
    grab.remove(); got = tuned.run(few.clean, edits=silence(tuned, ["m0"], few, range(4))).last_logits
    assert float((got - want).abs().max()) < 1e-4
    with pytest.raises(PatchError, match="only one"): keep_only(tuned, ["m0"], pairs[[0]])


def test_measures_of_variation_are_what_they_are_called(tuned, pairs):
    a = np.random.default_rng(0).normal(size=(5, 12)); b = -a
    assert all(np.abs(x).max() < 1e-12 for x in variation(a, a)) and np.allclose(variation(a, 2 * a)[0], 1) and np.allclose(variation(a, b)[1], 2) and np.allclose(variation(a, b)[2], 0) and np.isnan(variation(a * 0, a)[0]).all()
    for i, x in enumerate(a): assert variation(a, a[::-1])[1][i] == pytest.approx(1 - spearmanr(x, a[::-1][i]).statistic)
    u = ["m1"]; few = pairs[list(range(3))]; eps = 1e-2; ids = few.clean.ids; i = torch.arange(3)            # the gradient along what a unit writes is the slope of making it larger
    def made(f):
        h = tuned.model.model.layers[1].mlp.register_forward_hook(lambda m, a_, o: o * f)
        with torch.no_grad(): z = tuned.model(ids).logits[:, -1]
        h.remove(); return (z[i, few.answer_ids] - z[i, few.foil_ids]).double().numpy()
    assert gradient_map(tuned, few, u, times_value=True)[:, 0] == pytest.approx((made(1 + eps) - made(1 - eps)) / (2 * eps), rel=.02, abs=5e-3)


def test_the_units_keep_the_task_and_hold_stiller_than_gradients_S009(tuned, graph):
    g = graph; held_out = make("boxes", n=80, seed=11, boxes=3); rest = keep_only(tuned, g.units, held_out, draws=10)
    assert float(rest.retained.sel(what="kept")) >= .9 and float(rest.low.sel(what="kept")) > float(rest.high.sel(what="random")) and len(g.units) < 16
    moved = stability(tuned, make("boxes", n=16, seed=11, boxes=4), draws=2)
    assert all(float(moved.change_low.sel(map=f"{m} - causal")) > 0 for m in ("gradient", "gradient x activation")) and float(moved.rank_low.sel(map="gradient x activation - causal")) > 0
    with pytest.raises(PatchError, match="positive share"): stability(tuned, held_out, noise=0)


# --- weights ---------------------------------------------------------------------------------------------------------------
def test_a_cell_of_the_weight_grid_is_a_swapped_parameter(base, tuned, pairs):
    before = {k: v.clone() for k, v in base.model.state_dict().items()}; got = weight_grid(base, pairs, other=tuned); theirs = tuned.model.state_dict(); i = torch.arange(len(pairs))
    for part, layer, names in (("K", 0, ["self_attn.k_proj"]), ("O", 1, ["self_attn.o_proj"]), ("mlp_in", 0, ["mlp.gate_proj", "mlp.up_proj"]), ("mlp_out", 1, ["mlp.down_proj"])):
        model = copy.deepcopy(base.model); model.load_state_dict({f"model.layers.{layer}.{n}.weight": theirs[f"model.layers.{layer}.{n}.weight"] for n in names}, strict=False)
        with torch.no_grad(): z = model(pairs.clean.ids).logits[:, -1]
        assert np.abs(got.logit_difference.sel(part=part, layer=layer) - (z[i, pairs.answer_ids] - z[i, pairs.foil_ids]).numpy()).max() < 1e-3
    assert all(torch.equal(v, before[k]) for k, v in base.model.state_dict().items()), "the weights were not put back"


def test_the_weight_grid_names_the_one_matrix_that_differs(tuned, pairs):
    got = weight_grid(without(tuned, (1, 3)), pairs, other=tuned, parts=("Q", "V"), by_head=True).recovery_logit_difference
    assert float(got.sel(layer=1, part="V", head=3)) == pytest.approx(1, abs=1e-4) and int((np.abs(got) > 1e-4).sum()) == 1


@pytest.mark.parametrize("kw,said", [(dict(filling="patch"), "give other="), (dict(parts="W"), "no part"), (dict(filling="mean", parts="mlp_in"), "no heads")])
def test_a_weight_grid_says_what_is_wrong(base, pairs, kw, said):
    with pytest.raises(PatchError, match=said): weight_grid(base, pairs, **kw)

"""Heads in weight space: circuits against runs, composition against planted channels, channel edits, low-rank heads."""
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from workbench.attention.channel import channel, edit_channel, learn_shift, read_direction
from workbench.attention.circuits import copying_score, eigenvalue_score, head_factors, layer_factors, ov_circuit, qk_circuit
from workbench.attention.composition import composition_scores, ov_components, reader_matrix, strongest, transport
from workbench.attention.compress import along_items, compress_subspace, compressed, relabelled
from workbench.attention.patterns import AttentionError
from workbench.attention.weight_figures import composition_figure, edges_of, items_figure
from workbench.experiments.intervals import bootstrap
from workbench.lens.project import folded_unembed
from workbench.lm.edits import EditError, project, zero
from workbench.lm.errors import WorkbenchError
from workbench.lm.load import load
from workbench.lm.sites import Site
from workbench.lm.specimens import build as specimen
from workbench.tasks.catalogue import make
from workbench.zoo.induction import build as build_induction
from workbench.zoo.micro import build as build_micro

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
PRE_NORM = ("gpt2", "gpt_neox", "llama", "phi3", "gemma2", "opt")
PROMPT = [[5, 17, 33, 8, 61, 7]]


@pytest.fixture(scope="module")
def micro(): return load("micro", check=False)


@pytest.fixture(scope="module")
def induction(): return load("induction", check=False)


@pytest.fixture(scope="module")
def opened():
    made = {}
    return lambda name: made.setdefault(name, load(specimen(name), check=False))


def untrained(build, lm, seed=0):
    torch.manual_seed(seed)
    return load(build(lm.tokenizer), lm.tokenizer, check=False)


def states(lm, layer):
    run = lm.run(PROMPT, keep=["resid_pre", "scores", "result"])
    return run, run.tensor(f"resid_pre.{layer}")[0]


# -- circuits ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", PRE_NORM)
def test_folded_factors_write_what_the_head_writes(opened, family):
    "Full attention to one position: differences of states through v and o are differences of the head's own output."
    lm = opened(family)
    from workbench.lm.edits import apply
    one = lambda key: [apply(Site("pattern", layer=1), lambda p: torch.nn.functional.one_hot(torch.full(p.shape[:-1], key), p.shape[-1]).to(p))]
    f, (_, x) = head_factors(lm, 1, 3), states(lm, 1)
    x = x.double() / (1 if f.norm is None else f.norm.scale(x.double()))
    written = [lm.run(PROMPT, keep=["result.1"], edits=one(key)).tensor("result.1")[0, -1, 3].double() for key in (1, 4)]
    o = lm.weight("O", 1)[3].detach().double()          # before any norm behind the head
    assert torch.allclose((x[1] - x[4]) @ f.v @ o, written[0] - written[1], atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama", "gpt_neox", "mistral", "qwen2", "phi3", "gemma2", "gpt_oss"])
def test_qk_circuit_is_the_models_own_score(opened, family):
    lm = opened(family); run, x = states(lm, 1); real = run.tensor("scores.1")[0, 2]; n = len(x)
    table = torch.tensor(qk_circuit(lm, 1, 2, tokens=PROMPT[0], states=x).values)
    rotary = qk_circuit(lm, 1, 2, tokens=PROMPT[0], states=x).attrs["rotary"] != "none"
    seen = torch.eye(n, dtype=torch.bool) if rotary else torch.ones(n, n).tril().bool()
    assert rotary == (family not in ("gpt2", "opt"))
    assert torch.allclose(table[seen].float(), real[seen], atol=2e-3)
    assert not rotary or not torch.allclose(table.tril()[seen.tril(-1) | ~seen].float(), real.nan_to_num(neginf=0).tril()[seen.tril(-1) | ~seen], atol=2e-3)


def test_ov_circuit_by_hand(micro):
    f, ids = head_factors(micro, 2, 3), [10, 20, 30]
    x = micro.main.embed.weight.detach()[ids].double()
    slow = micro.main.layers[2].ln1(x.float()).detach().double() - micro.main.layers[2].ln1.bias.detach().double()
    slow = slow @ micro.weight("V", 2)[3].detach().double() @ micro.weight("O", 2)[3].detach().double() @ folded_unembed(micro)[0].double()[ids].T
    assert np.allclose(ov_circuit(micro, 2, 3, tokens=ids), slow, atol=1e-4)


def test_eigenvalue_score_closed_forms(induction):
    assert eigenvalue_score(torch.eye(4)) == pytest.approx(1) and eigenvalue_score(-torch.eye(4)) == pytest.approx(-1)
    assert eigenvalue_score(torch.tensor([[0., 1.], [-1., 0.]])) == pytest.approx(0, abs=1e-6) and np.isnan(eigenvalue_score(torch.zeros(3, 3)))
    table = torch.tensor(ov_circuit(induction, 1, 7).values)          # the small matrix has the whole table's eigenvalues
    assert float(copying_score(induction, n_null=20).sel(layer=1, head=7)) == pytest.approx(eigenvalue_score(table), abs=1e-3)


def test_copying_trained_and_untrained(induction):
    c = copying_score(induction, n_null=100)
    assert float(c.sel(layer=1, head=7)) > .9 > c.attrs["null_high"]
    assert float(abs(copying_score(untrained(build_induction, induction), n_null=20)).max()) < .6


def test_circuits_refuse(opened, micro):
    with pytest.raises(AttentionError, match="normalises queries"): qk_circuit(opened("qwen3"), 0, 0)
    with pytest.raises(AttentionError, match="8 heads"): ov_circuit(micro, 0, 8)
    with pytest.raises(AttentionError, match="one row of states"): ov_circuit(micro, 0, 0, tokens=[5, 6], states=torch.zeros(3, 128))
    with pytest.raises(AttentionError, match="tokens="): ov_circuit(micro, 0, 0, tokens=[99999])
    with pytest.raises(WorkbenchError): ov_circuit(load(specimen("bert"), check=False), 0, 0)


# -- composition ---------------------------------------------------------------------------------------------------------
def test_components_are_the_svd(micro):
    f = layer_factors(micro, 1)[2]; u, s, w = ov_components(f)
    assert torch.allclose(u * s @ w.T, f.v @ f.o, atol=1e-9)
    assert torch.allclose(s, torch.linalg.svdvals(f.v @ f.o)[:16], atol=1e-9) and torch.allclose(w.T @ w, torch.eye(16).double(), atol=1e-9)


@pytest.mark.parametrize("through", ["circuit", "input"])
def test_scores_against_full_matrices(opened, through):
    lm = opened("gpt2"); s = composition_scores(lm, through=through, n_null=5); wr, re = layer_factors(lm, 0)[1], layer_factors(lm, 2)[3]
    full = dict(circuit=dict(Q=re.q @ re.k.T, K=re.k @ re.q.T, V=re.v @ re.o), input=dict(Q=re.q, K=re.k, V=re.v))[through]
    at = dict(writer_layer=0, writer_head=1, reader_layer=2, reader_head=3); ov, (_, sv, w) = wr.v @ wr.o, ov_components(wr)
    for kind, r in full.items():
        assert float(s.score.sel(kind=kind, **at)) == pytest.approx(float((ov @ r).norm() / ov.norm() / r.norm()), abs=1e-9)
        assert np.allclose(s.component_score.sel(kind=kind, **at), (w.T @ r).norm(dim=1) / r.norm(), atol=1e-9)
    assert np.isnan(s.score.sel(writer_layer=2, reader_layer=2)).all() and s.score.sel(writer_layer=0, reader_layer=1).notnull().all()


@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_planted_channel_comes_first(micro, kind):
    lm = untrained(build_micro, micro, 3); to = torch.linalg.svd(reader_matrix(layer_factors(lm, 3)[6], kind))[0][:, 0]
    _, _, w = ov_components(layer_factors(lm, 1)[4]); o = lm.weight("O", 1)[4]
    with torch.no_grad(): o.copy_((o.double() + o.double() @ torch.outer(w[:, 0], 3 * to - w[:, 0])).to(o))
    s = composition_scores(lm, n_null=10)
    for by in ("component_score", "component_z"):
        top = strongest(s, 2, by=by)
        assert list(top.loc[0, ["kind", "writer", "reader", "component"]]) == [kind, "L1H4", "L3H6", 0] and top[by][0] > 1.3 * top[by][1]


def test_untrained_stands_out_nowhere(micro):
    share = lambda s: float((s.component_score > s.component_999).where(s.component_score.notnull()).mean())
    chance, real = composition_scores(untrained(build_micro, micro, 1), n_null=60), composition_scores(micro, n_null=60)
    assert share(chance) < .004 and float(abs(chance.z).max()) < 6           # 1152 pairs, 18432 components
    assert share(real) > .04 and float(real.z.max()) > 15


def test_previous_token_head_feeds_the_induction_heads(induction):
    s = composition_scores(induction, n_null=20); keys = strongest(s, 64, by="score", kind="K")
    assert s.attrs["reader"] == "input" and (keys.writer[:5] == "L0H1").all()
    assert keys[keys.reader == "L1H7"].writer.iloc[0] == "L0H1" and "L1H7" in list(keys.reader[:5])


def test_ordinal_mover_is_found_in_weights(micro):
    z = composition_scores(micro, writers=[0], readers=[2]).z.sel(kind="Q", writer_layer=0, reader_layer=2)
    assert all(int(z.sel(reader_head=h).argmax("writer_head")) == 5 for h in (3, 6))
    prompts = make("laundry", n=2, seed=5, split="train").prompts; moved = composition_scores(micro, writers=[0], readers=[2], between=transport(micro, prompts, 0, 2)).z.sel(kind="Q", writer_layer=0, reader_layer=2, writer_head=5)
    assert all(float(moved.sel(reader_head=h)) > 1.5 * float(z.sel(writer_head=5, reader_head=h)) for h in (3, 6))


def test_transport_of_nothing_between(micro):
    "With the first MLP and layer 1 cut, what attention adds arrives as it is."
    with micro.edited(zero("mlp_out.0"), zero("mlp_out.1"), zero("attn_out.1")):
        assert torch.allclose(transport(micro, ["The laundry list: robe"], 0, 2), torch.eye(128).double(), atol=1e-3)


def test_composition_refuses(micro):
    with pytest.raises(AttentionError, match="earlier layer"): composition_scores(micro, writers=[2], readers=[1])
    with pytest.raises(AttentionError, match="circuit"): composition_scores(micro, through="all")
    with pytest.raises(AttentionError, match="layers 0 to 3"): composition_scores(micro, writers=[7])
    with pytest.raises(AttentionError, match="rank by"): strongest(composition_scores(micro, writers=[0], readers=[1], n_null=5), by="best")


# -- channels ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("op, amount", [("remove", None), ("keep", None), ("scale", 3.), ("scale", [0., 2.])])
def test_weights_and_activations_agree(opened, family, op, amount):
    lm = opened(family); ch = channel(lm, 1, 2, components=(0, 1)); plain = lm.run(PROMPT).last_logits
    acts = lm.run(PROMPT, edits=edit_channel(lm, ch, op, amount)).last_logits
    with lm.edited_weights(edit_channel(lm, ch, op, amount, where="weights")): weights = lm.run(PROMPT).last_logits
    assert torch.allclose(acts, weights, atol=1e-3) and not torch.allclose(acts, plain, atol=1e-3)
    assert torch.equal(lm.run(PROMPT).last_logits, plain)


def test_remove_is_projection_and_rest_is_nothing(micro):
    ch, every = channel(micro, 2, 3, (0, 2)), channel(micro, 2, 3, range(16)); prompt = make("laundry", n=1).prompts
    a = micro.run(prompt, edits=edit_channel(micro, ch, "remove")).last_logits
    assert torch.allclose(a, micro.run(prompt, edits=project(Site("result", layer=2, head=3), ch.writes.float())).last_logits, atol=1e-4)
    gone = micro.run(prompt, edits=edit_channel(micro, every, "remove")).last_logits
    assert torch.allclose(gone, micro.run(prompt, edits=zero(Site("result", layer=2, head=3))).last_logits, atol=1e-4)
    assert torch.allclose(micro.run(prompt, edits=edit_channel(micro, every, "keep")).last_logits, micro.run(prompt).last_logits, atol=1e-4)


def test_weak_places_are_repaired(micro):
    "Held-out accuracy at third and fifth rises by ten points and more, in activations and in weights; random channels do not."
    def right(task, edits=()): return (micro.run(task.prompts, edits=list(edits)).last_logits.argmax(-1) == task.answer_ids).numpy().astype(float)
    mixed = make("laundry", n=100, split="train", seed=3).for_model(micro); at, every = mixed.positions("asked"), channel(micro, 0, 5, range(16)).writes
    repairs, held, before = [], {}, {}
    for place in ("third", "fifth"):
        train = make("laundry", n=120, position=place, split="train", seed=31).for_model(micro)
        shift = learn_shift(micro, train.prompts, train.answer_ids, 0, 5, steps=30, lr=.15); ch, by = channel(micro, 0, 5, direction=shift), float(shift.norm())
        held[place] = make("laundry", n=220, position=place, seed=78).for_model(micro); before[place] = right(held[place])
        gain, low, _ = bootstrap(right(held[place], [edit_channel(micro, ch, "shift", by, pos=-1)]) - before[place], n_resamples=500)
        assert gain >= .10 and low > .03, (place, gain, low)
        g = torch.Generator().manual_seed(0)
        for _ in range(3): assert right(held[place], [edit_channel(micro, channel(micro, 0, 5, direction=torch.randn(16, generator=g).double() @ every), "shift", by, pos=-1)]).mean() < before[place].mean() + .05
        where = [int(p) if i.truth["position"] == place else None for p, i in zip(at, mixed.items)]
        repairs.append(edit_channel(micro, ch, "shift", by / .89, where="weights", reads=read_direction(micro, 0, mixed.prompts, where)))
    strong = make("laundry", n=40, position="second", seed=78).for_model(micro); whole = right(strong).mean()
    with micro.edited_weights(*repairs):
        assert all(right(held[p]).mean() - before[p].mean() >= .10 for p in held) and right(strong).mean() >= whole - .03


def test_channel_refuses(micro, opened):
    ch = channel(micro, 0, 5)
    with pytest.raises(EditError, match="remove"): edit_channel(micro, ch, "drop")
    with pytest.raises(EditError, match="amount"): edit_channel(micro, ch, "shift")
    with pytest.raises(EditError, match="reads="): edit_channel(micro, ch, "shift", 1., where="weights")
    with pytest.raises(EditError, match="every position"): edit_channel(micro, ch, "remove", where="weights", pos=-1)
    with pytest.raises(EditError, match="2 amounts"): edit_channel(micro, ch, "shift", [1., 2.])
    with pytest.raises(AttentionError, match="what the head can write"): channel(micro, 0, 5, direction=torch.ones(128))
    with pytest.raises(AttentionError, match="components"): channel(micro, 0, 5, components=16)
    with pytest.raises(EditError, match="shares values"): edit_channel(opened("llama"), channel(opened("llama"), 0, 0), "shift", 1., where="weights", reads=torch.ones(32))


# -- compression ---------------------------------------------------------------------------------------------------------
ITEMS = (2, 4, 6, 8)


def test_rank_three_keeps_the_letter(micro):
    train, test = (make("mcq", n=n, seed=s, split=split).for_model(micro) for n, s, split in ((200, 5, "train"), (150, 6, "test")))
    def accuracy(edits=()): return float((micro.run(test.prompts, edits=list(edits)).last_logits.argmax(-1) == test.answer_ids).float().mean())
    full, three = accuracy(), compress_subspace(micro, train.prompts, [(3, 0)], ITEMS, 3)
    assert accuracy(compressed(three, ITEMS, "v")) > full - .03
    assert (accuracy(compressed(three, ITEMS)) - .25) / (full - .25) > .8
    assert accuracy(compressed(compress_subspace(micro, train.prompts, [(3, 0)], ITEMS, 0, "variance"), ITEMS)) < .45
    random = [replace(s, basis=torch.linalg.qr(torch.randn(16, 3, generator=torch.Generator().manual_seed(i)))[0]) for i, s in enumerate(three)]
    assert accuracy(compressed(random, ITEMS)) < full - .4
    whole = compress_subspace(micro, train.prompts, [(3, 0)], ITEMS, 16, "variance")
    assert torch.allclose(micro.run(test.prompts, edits=compressed(whole, ITEMS)).last_logits, micro.run(test.prompts).last_logits, atol=1e-2)
    x = along_items(micro, test.prompts, three, ITEMS).sel(subspace="L3H0 v")
    assert float((x.mean("prompt").var("item") / x.var(("prompt", "item"))).max()) > .8


def test_relabelled_moves_every_letter(micro):
    task = make("mcq", n=20, seed=6); prompts, letters, usual = relabelled(task)
    for item, prompt, letter, old in zip(task.items, prompts, letters, usual):
        city = item.prompt[slice(*item.spans[item.answer])]
        assert f"{letter} {city}" in prompt and letter != old == item.answer and len(prompt) == len(item.prompt)


def test_compress_refuses(micro):
    with pytest.raises(AttentionError, match="rank=17"): compress_subspace(micro, ["a"], [(3, 0)], ITEMS, 17)
    with pytest.raises(AttentionError, match="effect"): compress_subspace(micro, ["a"], [(3, 0)], ITEMS, 3, "best")
    with pytest.raises(AttentionError, match="one length"): compress_subspace(micro, ["The robe", "The laundry list: robe"], [(3, 0)], ITEMS, 3)


# -- figures -------------------------------------------------------------------------------------------------------------
def test_composition_graph_draws_what_is_above_chance(micro):
    scores = composition_scores(micro, n_null=40); table, n = edges_of(scores, 25)
    assert len(table) == 25 < n and table.component_z.is_monotonic_decreasing and not table.duplicated(["kind", "writer", "reader"]).any()
    fig = composition_figure(scores, 25)
    assert len(fig.data) == 26 and f"25 of {n}" in fig.layout.title.text and len(fig.data[-1].x) == 32
    chance = composition_scores(untrained(build_micro, micro, 1), n_null=40); few = edges_of(chance)[1]
    assert few < .1 * n and len(composition_figure(chance, 60).data) == min(few, 60) + 1
    assert len(composition_figure(scores.where(False)).data) == 1
    with pytest.raises(AttentionError, match="1 or more"): composition_figure(scores, 0)


def test_items_figure(micro):
    prompts = make("mcq", n=20, seed=6).for_model(micro).prompts; x = along_items(micro, prompts, compress_subspace(micro, prompts, [(3, 0)], ITEMS, 2, "variance"), ITEMS)
    assert [len(t.x) for t in items_figure(x).data] == [20] * 4 and "L3H0 v" in items_figure(x).layout.title.text
    assert set(items_figure(x, "L3H0 k", axes=(1,)).data[2].x) == {3}
    with pytest.raises(AttentionError, match="axes"): items_figure(x, axes=(0, 2))

"""Attention patterns, scores, rollout, scaling and knockout against slow loops, closed forms, planted structure and untrained copies."""
import warnings
from math import comb

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from transformers import AutoConfig, AutoModelForCausalLM

from workbench.attention.figures import flow_figure, pattern_figure, scores_figure
from workbench.attention.information_flow import cut_edges, edge_map, information_flow
from workbench.attention.patterns import AttentionError, combine, patterns, summarise, top_p, without_sink
from workbench.attention.rollout import flow, mixed, rollout
from workbench.attention.scaling import effect_of, knock_out, leads, scale_attention
from workbench.attention.scores import head_scores, random_repeats, top_heads
from workbench.lens.dla import direct_logit_attribution, head_grid
from workbench.lm.edits import apply, zero
from workbench.lm.errors import WorkbenchError
from workbench.lm.load import load
from workbench.lm.metrics import logit_difference
from workbench.lm.results import load_result, result, save
from workbench.lm.sites import Site, SiteError
from workbench.lm.specimens import build
from workbench.tasks.catalogue import make
from workbench.tasks.induction import WORDS
from workbench.zoo import folder

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
LONG, SHORT = [5, 17, 33, 8, 61, 7, 44], [9, 12, 80, 3]
TARGETS = [[11, 12, 13], [14]]
CAUSAL = ("gpt2", "llama", "gemma2", "gpt_oss", "gpt_neox")
PLACES = [*((n, {}) for n in (*CAUSAL, "bert", "bart", "t5")), *((n, k) for n in ("bart", "t5") for k in (dict(stack="encoder"), dict(cross=True)))]


@pytest.fixture(scope="module")
def opened():
    made = {}
    return lambda name: made.setdefault(name, load(build(name)))


@pytest.fixture(scope="module")
def builtin():
    made = {}
    return lambda name: made.setdefault(name, load(name))


@pytest.fixture(scope="module")
def untrained(builtin):
    made = {}
    def fresh(name):
        if name not in made:
            torch.manual_seed(0)
            made[name] = load(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder(name))), tokenizer=builtin(name).tokenizer)
        return made[name]
    return fresh


def given(lm): return dict(targets=TARGETS) if lm.kind == "seq2seq" else {}


# --- patterns -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name,where", PLACES)
def test_patterns_are_the_models_own(opened, name, where):
    "Against `output_attentions` of the stock eager model, one unpadded prompt at a time."
    lm = opened(name); x = patterns(lm, [LONG, SHORT], **where, **given(lm)); stack = where.get("stack") or lm.main.name
    assert x.dims == ("layer", "prompt", "head", "query", "key") and x.attrs["weighting"] == "pattern"
    assert x.attrs["causal"] == (name not in ("bert",) and stack != "encoder" and not where.get("cross", False))
    before = lm.model.config._attn_implementation; lm.model.set_attn_implementation("eager")
    try:
        for i, row in enumerate((LONG, SHORT)):
            extra = dict(decoder_input_ids=torch.tensor([[lm.config.decoder_start_token_id, *TARGETS[i]]])) if lm.kind == "seq2seq" else {}
            with torch.no_grad(): out = lm.model(input_ids=torch.tensor([row]), output_attentions=True, **extra)
            own = out.attentions if lm.kind != "seq2seq" else out.cross_attentions if where.get("cross") else out.encoder_attentions if stack == "encoder" else out.decoder_attentions
            own = torch.stack(own)[:, 0].numpy(); q, k = own.shape[-2:]
            assert np.abs(x.values[:, i, :, :q, :k] - own[..., :k]).max() < 1e-5
            assert np.isnan(x.values[:, i, :, q:]).all() and np.isnan(x.values[:, i, :, :, k:]).all()
    finally: lm.model.set_attn_implementation(before)


@pytest.mark.parametrize("name,where", PLACES)
def test_value_and_output_lengths_against_a_loop(opened, name, where):
    lm = opened(name); stack = where.get("stack") or lm.main.name; at = dict(stack=stack, cross=where.get("cross", False)); shape = lm.shapes[stack]
    value, output = (patterns(lm, [LONG], w, **where, **(dict(targets=TARGETS[:1]) if lm.kind == "seq2seq" else {})).values[:, 0] for w in ("value", "output"))
    run = lm.run([LONG], keep=[Site("pattern", **at), Site("v", **at)], **(dict(targets=TARGETS[:1]) if lm.kind == "seq2seq" else {}))
    for l in range(3):
        a, v = run.tensor(Site("pattern", layer=l, **at))[0], run.tensor(Site("v", layer=l, **at))[0]; w_o = lm.weight("O", l, stack, at["cross"]).detach()
        for h in range(shape.n_heads):
            for q in range(a.shape[1]):
                for k in range(a.shape[2]):
                    vec = v[k, h // (shape.n_heads // shape.n_kv_heads)]
                    assert abs(value[l, h, q, k] - float(a[h, q, k] * vec.norm())) < 1e-4
                    assert abs(output[l, h, q, k] - float(a[h, q, k] * (vec @ w_o[h]).norm())) < 1e-4


@pytest.mark.parametrize("name", [*CAUSAL, "t5"])
@pytest.mark.parametrize("foil", [None, 9])
def test_logit_entries_sum_to_direct_logit_attribution(opened, name, foil):
    "Over keys at the last position, each head's entries are its share; the output matrix's bias is apart in both."
    lm = opened(name)
    dla = direct_logit_attribution(lm, [LONG, SHORT], 5, foil=foil, by="head", **given(lm))
    for cross in ((False, True) if name == "t5" else (False,)):
        x = patterns(lm, [LONG, SHORT], "dla", answer=5, foil=foil, cross=cross, **given(lm))
        heads = head_grid(dla).values if not cross else dla.isel(component=np.flatnonzero(dla.kind.values == "cross_head")).values.reshape(2, 3, 4)
        ends = [len(t) for t in TARGETS] if name == "t5" else [len(LONG) - 1, len(SHORT) - 1]
        for i, e in enumerate(ends): assert np.abs(np.nansum(x.values[:, i, :, e], -1) - heads[i]).max() < 1e-4 * max(1, np.abs(heads).max())


def test_one_layer_left_padding_and_edits(opened):
    lm = opened("llama"); whole = patterns(lm, [LONG, SHORT], "output")
    assert np.allclose(patterns(lm, [LONG, SHORT], "output", layers=1).values, whole.values[1:2], equal_nan=True) and patterns(lm, [LONG], layers=1).layer.values.tolist() == [1]
    assert np.nanmax(abs(patterns(lm, lm.tokens([LONG, SHORT], side="left"), "output").values - whole.values)) < 1e-5
    cut = patterns(lm, [LONG], edits=[scale_attention(1, 2, 0., query=5, key=3)])
    assert float(cut.sel(layer=1)[0, 2, 5, 3]) == 0 < float(patterns(lm, [LONG]).sel(layer=1)[0, 2, 5, 3])


def test_results_survive_saving(opened, tmp_path):
    x = patterns(opened("gpt2"), [LONG], "dla", answer=5); back = load_result(save(x, tmp_path / "x"))
    assert back.equals(x) and back.attrs["causal"] == 1 and str(back.what.values[0]).startswith("logit of")


def test_refusals_name_the_fix(opened):
    lm = opened("gpt2")
    for call, said in ((lambda: patterns(lm, [LONG], "norm"), "use 'pattern'"), (lambda: patterns(lm, [LONG], "dla"), "answer="), (lambda: patterns(lm, [LONG], answer=5), "reads no answer"),
                       (lambda: patterns(opened("bert"), [LONG], "dla", answer=5), "post-norm"), (lambda: patterns(opened("t5"), [LONG], "dla", stack="encoder", answer=5), "decoder"),
                       (lambda: patterns(lm, [LONG], cross=True), "no cross-attention"), (lambda: patterns(lm, [LONG], layers=7), "3 layers"), (lambda: top_p(patterns(lm, [LONG]), 0), "p=0"),
                       (lambda: combine(patterns(lm, [LONG]), "sum"), "combine by"), (lambda: combine(patterns(lm, [LONG]), dim="query"), "cannot be combined"),
                       (lambda: summarise(patterns(lm, [LONG], "dla", answer=5)), "Signed")):
        with pytest.raises(WorkbenchError, match=said): call()


def made(a, tokens, causal=True):
    "A pattern result from (layer, head, query, key)."
    a = np.asarray(a, float)[:, None]; n = a.shape[-1]
    coords = dict(layer=range(len(a)), query=range(n), key=range(n), query_token=(("prompt", "query"), [list(tokens)]), key_token=(("prompt", "key"), [list(tokens)]))
    return result(a, ("layer", "prompt", "head", "query", "key"), coords, "attention", weighting="pattern", causal=int(causal), cross=0)


def test_summary_of_known_patterns():
    n, tokens = 6, "abcabc"
    previous = np.eye(n, k=-1); previous[0, 0] = 1
    sink = np.zeros((n, n)); sink[:, 0] = 1
    twin, induct = sink.copy(), sink.copy()
    for q in range(3, 6): twin[q] = np.eye(n)[q - 3]; induct[q] = np.eye(n)[q - 2]
    even = np.tril(np.ones((n, n))); even /= even.sum(1, keepdims=True)
    s = summarise(made([[previous, sink, twin, induct, even]], tokens)).isel(layer=0, prompt=0)
    assert s.previous.values[0] == 1 and s.sink.values[1] == 1 and s.duplicate.values[2] == 1 and s.induction.values[3] == 1
    assert s.duplicate.values[3] == 0 and s.induction.values[2] == 0 and s.previous.values[1] == pytest.approx(.2) and np.allclose(s.entropy.values[:4], 0)
    assert s.entropy.values[4] == pytest.approx(np.mean(np.log([2, 3, 4, 5, 6]))) and s.duplicate.values[4] == pytest.approx(np.mean([1 / 4, 1 / 5, 1 / 6]))
    assert np.isnan(summarise(made([[previous]], "abcdef")).duplicate.values).all()


def test_sink_top_p_and_aggregates(opened):
    x = patterns(opened("llama"), [LONG, SHORT]); rest = without_sink(x)
    assert rest.sizes["key"] == 6 and np.allclose(rest.sum("key").values[:, 0, :, 1:], 1) and (rest.values[:, :, :, 0] == 0)[:, 0].all()
    few = top_p(x, .6); v, f = x.values[1, 0, 2, 6], few.values[1, 0, 2, 6]
    order = np.argsort(-v); n = int(np.searchsorted(np.cumsum(v[order]), .6)) + 1
    assert set(np.flatnonzero(f)) == set(order[:n]) and np.allclose(f[order[:n]], v[order[:n]]) and np.isnan(few.values).sum() == np.isnan(x.values).sum()
    assert np.allclose(top_p(x, 1.).values, x.values, equal_nan=True)
    for how, plain in (("mean", np.mean), ("max", np.max), ("product", np.prod)): assert np.allclose(combine(x, how, ("layer", "head")).values, plain(x.values, axis=(0, 2)), equal_nan=True)


# --- scores -------------------------------------------------------------------------------------------------------------
def test_planted_heads_are_found(builtin):
    s = head_scores(builtin("induction"), length=16, pool=WORDS)
    prev, ind = top_heads(s, "previous", 1).iloc[0], top_heads(s, "induction", 1).iloc[0]
    assert (prev.layer, prev["head"]) == (0, 1) and prev.score > .95 and prev.low > 5 * prev.chance
    assert (ind.layer, ind["head"]) == (1, 7) and ind.score > .9 and ind.low > 5 * ind.chance and float(s.copying.sel(layer=1, head=7)) > .95
    assert (s.low.sel(score="induction") <= s.induction + 1e-9).all() and (s.induction <= s.high.sel(score="induction") + 1e-9).all()


def test_untrained_copy_has_no_such_heads(untrained):
    s = head_scores(untrained("induction"), length=16, pool=WORDS)
    for k in ("previous", "duplicate", "induction"): assert float(abs(s[k] - s.chance.sel(score=k)).max()) < .02
    assert float(abs(s.copying - .5).max()) < .15 and float(abs(s.ov_copying).max()) < .4


def test_scores_of_an_evenly_looking_head_are_chance(opened):
    "Queries set to zero make every score even: what is left is the chance level, causal or not."
    for name in ("gpt2", "bert"):
        lm = opened(name)
        with lm.edited(zero("q")): s = head_scores(lm, n=3, length=8)
        for k in ("previous", "duplicate", "induction"): assert np.allclose(s[k].values, float(s.chance.sel(score=k)), atol=1e-5)


def test_scores_say_what_they_cannot(opened, builtin):
    bert = head_scores(opened("bert"), n=2, length=6)
    assert np.isnan(bert.copying.values).all() and "copying" in bert.attrs["undefined"] and np.isfinite(bert.previous.values).all()
    assert head_scores(opened("t5"), n=2, length=6, stack="encoder").sizes["layer"] == 3
    with pytest.raises(AttentionError, match="encoder"): head_scores(opened("t5"))
    with pytest.raises(AttentionError, match="do not fit"): head_scores(opened("gpt2"), length=40)
    with pytest.raises(AttentionError, match="two sequences"): head_scores(opened("gpt2"), n=1, length=5)
    ids, start = random_repeats(builtin("micro"), 4, 10, seed=1)
    assert start == 1 and (ids[:, 1:11] == ids[:, 11:]).all() and all(len(set(r.tolist())) == 10 for r in ids[:, 1:11]) and (ids == random_repeats(builtin("micro"), 4, 10, seed=1)[0]).all()


# --- rollout and flow ---------------------------------------------------------------------------------------------------
def test_rollout_closed_forms(opened):
    n, L = 8, 4; back = np.eye(n, k=-1); back[0, 0] = 1
    last = rollout(made([[back]] * L, "abcdefgh")).values[-1, 0, -1]
    assert np.allclose(last[::-1], [comb(L, j) / 2**L if j <= L else 0 for j in range(n)])
    assert np.allclose(rollout(made([[np.eye(n)]] * 3, "abcdefgh")).values, np.eye(n))
    even = np.full((n, n), 1 / n); assert np.allclose(rollout(made([[even]] * 2, "abcdefgh", False), residual=0.).values, 1 / n)
    x = patterns(opened("llama"), [LONG, SHORT]); r = rollout(x)
    a = [.5 * x.values[l, 1].mean(0)[:4, :4] + .5 * np.eye(4) for l in range(3)]
    assert np.allclose(r.values[2, 1, :4, :4], a[2] @ a[1] @ a[0], atol=1e-6) and np.isnan(r.values[:, 1, 4:]).all() and np.isnan(r.values[:, 1, :, 4:]).all()


def slow_flow(layers, query, key):
    "Maximum flow as a linear program over all pipes: push as much as possible out of the query, keep every node in between."
    L, n, _ = layers.shape; pipes = [(l, q, k) for l in range(L) for q in range(n) for k in range(n)]; column = {p: i for i, p in enumerate(pipes)}
    goal = np.zeros(len(pipes)); goal[[column[L - 1, query, k] for k in range(n)]] = -1; rows = []
    for level in range(L):                       # node (level, p) is fed by layer `level`'s row above it and drained by layer `level - 1`
        for p in range(n):
            row = np.zeros(len(pipes))
            if level == 0:
                if p == key: continue
                row[[column[0, q, p] for q in range(n)]] = 1
            else:
                row[[column[level, q, p] for q in range(n)]] = 1; row[[column[level - 1, p, k] for k in range(n)]] -= 1
            rows.append(row)
    for q in range(n):
        if q != query: row = np.zeros(len(pipes)); row[[column[L - 1, q, k] for k in range(n)]] = 1; rows.append(row)
    return -linprog(goal, A_eq=np.array(rows), b_eq=np.zeros(len(rows)), bounds=[(0, layers[p]) for p in pipes]).fun


@pytest.mark.parametrize("name,where", [("llama", {}), ("bert", {}), ("t5", dict(stack="encoder"))])
def test_flow_against_a_linear_program(opened, name, where):
    lm = opened(name); x = patterns(lm, [LONG, SHORT], **where, **given(lm)); f = flow(x, query=-1)
    layers = mixed(x).values[:, 1, :4, :4]
    for k in range(4): assert f.values[1, k] == pytest.approx(slow_flow(layers, 3, k), abs=5e-5)
    assert np.isnan(f.values[1, 4:]).all() and f.values[np.isfinite(f.values)].max() <= 1 + 1e-4


def test_rollout_finds_the_planted_source(builtin, untrained):
    task = make("induction", n=12).for_model(builtin("induction")); rows, src, end = range(12), task.positions("source").tolist(), task.positions("end").tolist()
    share = {n: rollout(patterns(lm, task.prompts)).values[-1][rows, end, src].mean() for n, lm in (("trained", builtin("induction")), ("fresh", untrained("induction")))}
    assert share["trained"] > .2 > 3 * share["fresh"] > 0


def test_rollout_refusals(opened):
    x = patterns(opened("gpt2"), [LONG])
    for call, said in ((lambda: rollout(patterns(opened("gpt2"), [LONG], layers=[1, 2])), "start at 0"), (lambda: rollout(without_sink(x)), "same positions"), (lambda: rollout(x, residual=2), "between 0 and 1"),
                       (lambda: rollout(patterns(opened("t5"), [LONG], cross=True, targets=TARGETS[:1])), "two|another"), (lambda: flow(x, query=9), "does not exist"),
                       (lambda: rollout(patterns(opened("gpt2"), [LONG], "dla", answer=5)), "Signed")):
        with pytest.raises(AttentionError, match=said): call()


# --- scaling and knock-out ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name,where", [("gpt2", {}), ("llama", {}), ("gpt_oss", {}), ("bert", {}), ("t5", dict(stack="encoder")), ("t5", dict(stack="decoder", cross=True)), ("bart", dict(stack="decoder"))])
def test_scaling_all_entries_is_scaling_the_head(opened, name, where):
    lm = opened(name); logits = lambda *e: lm.run([LONG, SHORT], edits=e, **given(lm)).last_logits if name != "bert" else lm.run([LONG, SHORT], edits=e).logits_tensor[:, 0]
    for f in (0., -2., 3.):
        assert torch.allclose(logits(scale_attention(1, 2, f, **where)), logits(scale_attention(1, 2, f, key=slice(None), **where)), atol=1e-4)
    none, one = logits(scale_attention(1, 2, 1., **where)), logits(scale_attention(1, 2, -2., **where))
    assert torch.allclose(none, logits(), atol=1e-4) and (one - none).abs().max() > 1e-3


def test_scaled_entry_by_hand(opened):
    "One entry of one head by a factor changes z by (factor - 1) A v, per prompt at its own position, grouped K/V included."
    lm = opened("llama"); q, k = torch.tensor([-1, 2]), torch.tensor([3, 1]); keep = ["pattern.1", "v.1", "z.1"]
    plain, edited = lm.run([LONG, SHORT], keep=keep), lm.run([LONG, SHORT], keep=keep, edits=[scale_attention(1, 3, -4., query=q, key=k)])
    want = plain.tensor("z.1").clone()
    for row, (i, j) in enumerate(((6, 3), (2, 1))): want[row, i, 3] += -5 * plain.tensor("pattern.1")[row, 3, i, j] * plain.tensor("v.1")[row, j, 3 // 2]
    assert torch.allclose(edited.tensor("z.1"), want, atol=1e-6)
    left = lm.run(lm.tokens([LONG, SHORT], side="left"), edits=[scale_attention(1, 3, -4., query=q, key=k)]).last_logits
    assert torch.allclose(left, lm.run([LONG, SHORT], edits=[scale_attention(1, 3, -4., query=q, key=k)]).last_logits, atol=1e-4)
    with pytest.raises(AttentionError, match="one per prompt"): lm.run([LONG], edits=[scale_attention(1, 3, query=q)])
    with pytest.raises(SiteError, match="does not exist"): lm.run([LONG, SHORT], edits=[scale_attention(1, 3, key=torch.tensor([2, 6]))])


def test_shown_head_flips_the_winner(builtin, untrained):
    "S122: the head that direct logit attribution shows on training-split conflicts, its entry from the last position to the claim, against the winner of held-out prompts."
    lm = builtin("micro"); found = make("conflict", n=60, split="train").for_model(lm); told, known = ([i.truth[k] for i in found.items] for k in ("context", "memory"))
    shares = patterns(lm, found.prompts, "dla", answer=told, foil=known).isel(query=-1, key=int(found.positions("claim")[0])).mean("prompt").values
    l, h = np.unravel_index(shares.argmax(), shares.shape); flipped = {}
    for intent, factors in (("context", (-5, 0)), ("memory", (20, 0))):
        task = make("conflict", n=60, intent=intent).for_model(lm); at = task.positions("claim")
        for f in factors: flipped[intent, f] = float(effect_of(lm, task, lambda rows: [scale_attention(l, h, f, query=-1, key=at[rows])]).flipped)
        other = effect_of(untrained("micro"), task, lambda rows: [scale_attention(l, h, factors[0], query=-1, key=at[rows])])
        assert abs(float(other.effect)) < .1
    assert flipped["context", -5] > .85 and (flipped["context", -5] + flipped["memory", 20]) / 2 >= .5 and flipped["context", 0] == flipped["memory", 0] == 0
    filler = make("conflict", n=60, intent="context")
    assert float(effect_of(lm, filler, [scale_attention(int(l), int(h), -5, query=-1, key=1)]).flipped) < .1


def test_one_head_lifts_the_claim_on_memory_prompts(builtin):
    "S002: a head and factor chosen on training-split prompts; on held-out ones that ask for memory the claim then wins in at least 80 %."
    lm = builtin("micro"); rate = lambda split, l, h, f, n: effect_of(lm, make("conflict", n=n, intent="memory", split=split), scale_attention(l, h, f))
    best = max((float(rate("train", l, h, -3., 20).flipped), l, h) for l in (1, 2) for h in range(8))
    held = rate("test", best[1], best[2], -3., 60)
    assert float(held.flipped) >= .8 and float(held.flipped_low) > .5 and best[1:] == (1, 7)


@pytest.mark.parametrize("ablation", ["zero", "mean", "resample"])
def test_knock_out_against_a_loop(builtin, ablation):
    lm = builtin("micro-llama"); task = make("capitals", n=6).for_model(lm); out = knock_out(lm, task, [(1, 4), (2, 6)], ablation, batch=4)
    whole = lm.run(task.prompts, keep=["z"]); average = whole.tensor("z.1")[whole.tokens.mask.bool()].mean(0)[4]; leads_ = []
    for i in range(6):
        twin = lm.run(task.corrupts[i], keep=["z"]).tensor("z.1")[0, :, 4]
        new = dict(zero=torch.zeros_like(twin), mean=average.expand_as(twin), resample=twin)[ablation]
        swap = apply(Site("z", layer=1, head=4), lambda v, new=new: new[None, :, None])
        leads_.append(float(logit_difference(task.answer_ids[i:i + 1], task.foil_ids[i:i + 1])(lm.run(task.prompts[i], edits=[swap]))[0]))
    clean, _ = leads(lm, task)
    assert float(out.lead[0]) == pytest.approx(np.mean(leads_), abs=1e-3) and float(out.effect[0]) == pytest.approx(np.mean(leads_) - clean.mean(), abs=1e-3)
    assert float(out.effect_low[0]) <= float(out.effect[0]) <= float(out.effect_high[0]) and out.attrs["ablation"] == ablation and out.attrs["n"] == 6


def test_knock_out_finds_the_head_that_all_hangs_on(builtin, untrained):
    task = make("induction", n=40); out = knock_out(builtin("induction"), task)
    assert np.unravel_index(int(out.effect.values.argmin()), out.effect.shape) == (0, 1) and float(out.accuracy.sel(layer=0, head=1)) < .4 and float(out.effect_high.sel(layer=0, head=1)) < -5
    assert float(out.accuracy.isel(layer=1).min()) > .9 and out.attrs["clean_accuracy"] == 1
    assert float(abs(knock_out(untrained("induction"), task).effect).max()) < .1
    both = knock_out(builtin("induction"), task, [(0, 1), (0, 6)], together=True)
    assert dict(both.sizes) == {"unit": 1} and float(both.effect[0]) == pytest.approx(float(effect_of(builtin("induction"), task, [scale_attention(0, 1), scale_attention(0, 6)]).effect), abs=1e-3)
    with pytest.raises(AttentionError, match="ablation="): knock_out(builtin("induction"), task, ablation="noise")


# --- information flow ---------------------------------------------------------------------------------------------------
def test_a_cut_row_is_the_softmax_of_the_rest(opened):
    for name in ("gpt2", "llama", "bert"):
        lm = opened(name); plain, cut = (lm.run([LONG, SHORT], keep=["pattern.0"], edits=e).tensor("pattern.0") for e in ((), [cut_edges(torch.tensor([4, 3]), torch.tensor([[1, 2], [1, 1]]), 0)]))
        for row, (q, ks) in enumerate(((4, [1, 2]), (3, [1]))):
            want = plain[row, :, q].clone(); want[:, ks] = 0; want /= want.sum(-1, keepdim=True)
            assert torch.allclose(cut[row, :, q], want, atol=1e-6) and torch.allclose(cut[row, :, :q], plain[row, :, :q], atol=1e-6)
    with pytest.raises(AttentionError, match="without any key"): opened("gpt2").run([LONG], edits=[cut_edges(0, 0)])


@pytest.mark.parametrize("name", ["micro", "micro-llama", "micro-bert"])
def test_the_subject_is_on_the_road_and_a_filler_is_not(builtin, name):
    "S237."
    lm = builtin(name); f = information_flow(lm, make("capitals", n=40), ["country", "filler"], window=4).isel(layer=0)
    assert float(f.lost.sel(place="country")) > .9 and float(f.high.sel(place="country")) < -5 and float(f.effect.sel(place="filler")) > -1.5 and float(f.effect.sel(place="filler")) > .2 * float(f.effect.sel(place="country"))


def test_an_untrained_copy_has_no_road(untrained):
    assert float(abs(information_flow(untrained("micro"), make("capitals", n=40), ["country", "filler"], window=4).effect).max()) < .05


def test_edges_that_cannot_matter_do_not(builtin, opened):
    lm = builtin("micro"); prompt = "People say that Rome is the capital city of France. By context, the capital city of France is"
    lead = lambda *e: float(logit_difference("Rome", "Paris")(lm.run(prompt, edits=e))[0])
    for q, k, l in ((10, 4, 3), (19, 4, 3), (4, 10, None), (0, 20, None)): assert lead(cut_edges(q, k, l)) == pytest.approx(lead(), abs=1e-4)
    roads = edge_map(lm, prompt, "Rome", "Paris", window=2, batch=16)
    assert float(roads.sel(layer=1)[0, 4]) == pytest.approx(lead(cut_edges(-1, 4, [1, 2])) - lead(), abs=1e-4) and int(roads.sum("layer").values.argmin()) == 4
    with pytest.raises(AttentionError, match="one length"): edge_map(lm, [prompt, "The capital of France is"], "Rome", "Paris")
    t5 = opened("t5"); crossed = edge_map(t5, [LONG], 5, 9, cross=True, targets=TARGETS[:1])
    assert crossed.shape == (3, 1, 7) and float(abs(crossed).max()) > 1e-4
    with pytest.raises(AttentionError, match="window=9"): information_flow(lm, make("capitals", n=4), "country", window=9)


# --- figures ------------------------------------------------------------------------------------------------------------
def test_figures_draw_what_they_are_given(builtin, opened):
    lm = builtin("micro"); x = patterns(lm, ["The capital of France is", "<b> is red"]); fig = pattern_figure(x, 1, 2, 1)
    real = int((x.query_token.values[1] != "").sum()); v = np.asarray(fig.data[0].customdata, float)
    assert v.shape == (real, real) and np.isnan(v[0, 1]) and np.allclose(np.tril(np.nan_to_num(v)), x.values[1, 1, 2, :real, :real], atol=1e-6)
    assert not np.isnan(np.asarray(pattern_figure(patterns(opened("bert"), [LONG])).data[0].customdata, float)).any()
    with pytest.raises(WorkbenchError, match="head=99"): pattern_figure(x, head=99)
    assert len(scores_figure(head_scores(opened("gpt2"), n=2, length=5)).data) == 5 and len(scores_figure(head_scores(opened("bert"), n=2, length=5)).data) == 3
    assert len(flow_figure(information_flow(lm, make("capitals", n=4), ["country"])).data) == 1
    with pytest.raises(WorkbenchError, match="pattern_figure"): flow_figure(flow(x))

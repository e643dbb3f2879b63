"""Attention as attribution: heads by mediation against a slow loop, marks against planted patterns, the trained model's numbers, and an untrained model at chance."""
import numpy as np
import pytest
import torch
import xarray as xr

import workbench as wb
from workbench.attention.attn_attrib import attn_attrib, feed_back, mark_accuracy, mediation, mediators, raise_attention, requote, sentence_spans, token_ranges
from workbench.attention.scaling import leads
from workbench.lm.edits import Edit, scale
from workbench.lm.errors import WorkbenchError
from workbench.lm.load import load
from workbench.lm.sites import Site
from workbench.tasks import make
from workbench.tasks.docs import MEMORY, TRUST
from workbench.zoo.retrain import recipe, start

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def lm(): return wb.load("qa")


@pytest.fixture(scope="module")
def raw():
    model, tok = start(recipe("qa"))
    return load(model, tokenizer=tok, check=False)


@pytest.fixture(scope="module")
def heads(lm): return mediators(mediation(lm, make("docs", n=80, split="train")))


@pytest.fixture(scope="module")
def test(): return make("docs", n=240, seed=1)


@pytest.fixture(scope="module")
def torn(): return make("docs", n=240, seed=1, kind="conflict")


# --- sentences --------------------------------------------------------------------------------------------------------
def test_sentences_are_the_planted_ones(test, lm):
    for item in test.items:
        assert sentence_spans(item.prompt) == [item.spans[f"s{i}"] for i in range(6)]
    prompt = test[0].prompt; ids = lm.tokenizer(prompt)["input_ids"]
    for (a, b), (x, y) in zip(sentence_spans(prompt), token_ranges(lm.tokenizer, prompt, sentence_spans(prompt))):
        assert lm.tokenizer.decode(ids[x:y]) == prompt[a:b]


def test_requote_says_one_sentence_twice_and_nothing_else(test):
    for item, again in zip(test.items, requote(test.prompts, [i.truth["gold"] for i in test.items])):
        gold = item.prompt[slice(*item.spans["gold"])]
        without = again[::-1].replace(f" {gold}"[::-1], "", 1)[::-1]   # the last of the two taken out again
        assert again.count(gold) == 2 and without == item.prompt and again.index(gold, again.index(gold) + 1) > item.spans["s5"][0]
        assert len(sentence_spans(again)) == 7


# --- mediation --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["patch", "zero"])
def test_mediation_equals_a_loop_over_single_prompts(lm, how):
    "The slow way: Hugging Face's own forward, with a hook on the input of the output projection."
    task = make("docs", n=6, sentences=3).for_model(lm)
    model, width = lm.model, lm.d_head
    def lead(text, i, layer=None, head=None, z=None):
        def hook(module, args):
            x = args[0].clone(); x[0, -1, head * width:(head + 1) * width] = z; return (x,)
        handle = model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(hook) if layer is not None else None
        with torch.no_grad(): logits = model(**lm.tokenizer(text, return_tensors="pt")).logits[0, -1]
        if handle: handle.remove()
        return float(logits[task.answer_ids[i]] - logits[task.foil_ids[i]])
    def clean_z(text, layer, head):
        kept = {}
        handle = model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(lambda m, a: kept.update(x=a[0][0, -1, head * width:(head + 1) * width].clone()))
        with torch.no_grad(): model(**lm.tokenizer(text, return_tensors="pt"))
        handle.remove(); return kept["x"]
    got = mediation(lm, task, how)
    gap = np.mean([lead(p, i) - (lead(task.corrupts[i], i) if how == "patch" else 0) for i, p in enumerate(task.prompts)])
    for layer, head in ((0, 1), (1, 2)):
        if how == "patch":
            moved = [lead(task.corrupts[i], i, layer, head, clean_z(task.prompts[i], layer, head)) - lead(task.corrupts[i], i) for i in range(6)]
        else: moved = [lead(task.prompts[i], i) - lead(task.prompts[i], i, layer, head, 0.) for i in range(6)]
        assert abs(float(got.effect[layer, head]) - np.mean(moved) / gap) < 1e-3
    assert got.attrs["forward_passes"] == 6 * ((2 if how == "patch" else 1) + 16)


def test_few_heads_of_the_second_layer_carry_the_answer(lm, heads):
    effects = mediation(lm, make("docs", n=60, seed=2, split="train"))
    assert 1 <= len(heads) <= 5 and {l for l, _ in heads} == {1} and all(float(effects.low[h]) > 0 for h in heads)
    assert sum(float(effects.effect[h]) for h in heads) > .4 and float(abs(effects.effect[0]).max()) < .02   # the first layer brings no answer


def test_without_first_layer_heads_the_question_is_not_understood(lm):
    "Zeroing finds what patching leaves out: the twin asks the same question."
    lost = mediation(lm, make("docs", n=60, seed=2, split="train"), "zero")
    assert float(lost.effect[0].max()) > .1


def test_mediators_are_sorted_and_above_the_least():
    effects = xr.Dataset(dict(effect=(("layer", "head"), [[.1, .5, -1.], [.3, .9, .2]])))
    assert mediators(effects, k=3) == [(1, 1), (0, 1), (1, 0)] and mediators(effects, .4) == [(1, 1), (0, 1)]
    with pytest.raises(WorkbenchError, match="largest effect is 0.9"): mediators(effects, 2.)


# --- marks ------------------------------------------------------------------------------------------------------------
def test_marks_are_sums_of_the_pattern(lm):
    prompts = ["Mary lives in Paris. John sold a ring. Where does Mary live? Answer:", "Anna found the cup. What has Anna found? Answer:"]
    got = attn_attrib(lm, prompts, [(0, 1), (1, 2)])
    for i, p in enumerate(prompts):
        run = lm.run(p, keep="pattern"); pattern = (run.tensor("pattern.0")[0, 1, -1] + run.tensor("pattern.1")[0, 2, -1]) / 2
        for j, (a, b) in enumerate(token_ranges(lm.tokenizer, p, sentence_spans(p))): assert abs(float(got[i, j]) - float(pattern[a:b].sum())) < 1e-5
    assert np.isnan(got.values[1, 1]) and got.shape == (2, 2)


def test_planted_attention_is_marked(raw, test):
    "Whatever the model, a head whose attention is written by hand marks what was written."
    spans = {p: token_ranges(raw.tokenizer, p, sentence_spans(p)) for p in test.prompts}
    task = make("docs", n=20); rows = [spans.get(p) or token_ranges(raw.tokenizer, p, sentence_spans(p)) for p in task.prompts]
    def write(v, spot):
        v = torch.zeros_like(v)
        for r in spot.rows.tolist(): v[r, ..., rows[r][task[r].truth["gold"]][0]] = 1.
        return v
    with raw.edited(Edit(Site("pattern", layer=1, head=3, pos=-1), "patch", write)): marks = attn_attrib(raw, task, [(1, 3)])
    assert float(mark_accuracy(marks, task).accuracy) == 1.


def test_the_chosen_heads_mark_the_answer_sentence(lm, heads, test):
    seen = mark_accuracy(attn_attrib(lm, test, heads), test)
    assert float(seen.accuracy) >= .9 and int(seen.n) >= 200 and float(seen.low) > .85 and abs(float(seen.chance) - 1 / 6) < 1e-9


def test_random_heads_and_the_first_layer_do_not(lm, heads, test):
    every = [(l, h) for l in range(lm.n_layers) for h in range(lm.n_heads)]
    alone = {head: float(mark_accuracy(attn_attrib(lm, test, [head]), test).accuracy) for head in every}
    chosen = float(mark_accuracy(attn_attrib(lm, test, heads), test).accuracy)
    assert max(alone[h] for h in every if h[0] == 0) < .35 and np.mean([alone[h] for h in every if h not in heads]) < chosen - .2


def test_untrained_heads_are_at_chance(raw, test):
    accuracies = [float(mark_accuracy(attn_attrib(raw, test, [(l, h)]), test).accuracy) for l in range(raw.n_layers) for h in range(raw.n_heads)]
    assert abs(np.mean(accuracies) - 1 / 6) < .05 and max(accuracies) < .35


# --- feeding back -----------------------------------------------------------------------------------------------------
def test_raising_equals_a_plain_scaling_of_each_prompt(lm, test):
    prompts = [test.prompts[0], "Anna found the cup. What has Anna found? Answer:"]; spans = [(3, 7), (1, 4)]
    both = lm.run(prompts, edits=raise_attention([(1, 2), (0, 4)], spans, 3.)).last_logits
    for i, (p, (a, b)) in enumerate(zip(prompts, spans)):
        one = lm.run(p, edits=[scale(Site("pattern", layer=l, head=h, pos=-1, key=range(a, b)), 3.) for l, h in [(1, 2), (0, 4)]]).last_logits[0]
        assert (both[i] - one).abs().max() < 1e-4
    assert (lm.run(prompts, edits=raise_attention([(1, 2)], spans, 1.)).last_logits - lm.run(prompts).last_logits).abs().max() < 1e-5


def test_feeding_the_mark_back_moves_it_to_the_passage(lm, heads, torn):
    fed = feed_back(lm, torn, heads)
    plain = float(fed.follows.sel(way="none"))
    assert .4 <= plain <= .8 and float(fed.n[0]) >= 200
    for way in ("requote", "raise"): assert float(fed.gain_low.sel(way=way)) > 0
    for way in ("requote", "raise"): assert abs(float(fed.gain.sel(way=f"{way}, random sentence"))) < .05 and float(fed.gain_low.sel(way=f"{way}, random sentence")) <= .01
    assert float(fed.gain_high.sel(way="requote, random sentence")) < float(fed.gain.sel(way="requote"))
    assert float(fed.gain_high.sel(way="raise, random heads")) < float(fed.gain_low.sel(way="raise"))   # kin in the same layer help a little


def test_raising_first_layer_heads_does_nothing(lm, torn):
    t = torn.for_model(lm); ranges = [token_ranges(lm.tokenizer, p, sentence_spans(p))[i.truth["gold"]] for p, i in zip(t.prompts, t.items)]
    plain, _ = leads(lm, t); raised, _ = leads(lm, t, lambda rows: raise_attention([(0, h) for h in range(4)], [ranges[r] for r in rows.tolist()], 2.))
    assert abs((raised > 0).mean() - (plain > 0).mean()) < .03


def test_feeding_back_does_nothing_to_an_untrained_model(raw):
    fed = feed_back(raw, make("docs", n=80, seed=1, kind="conflict"), [(1, 0)])
    assert abs(float(fed.gain.sel(way="raise"))) < .05 and abs(float(fed.gain.sel(way="requote"))) < .1


# --- the task and what the model knows --------------------------------------------------------------------------------
def test_the_model_knows_trusts_and_reads(lm, torn):
    assert float(make("docs", n=150, kind="closed", seed=3).accuracy(lm).accuracy[0]) >= .9
    seen, trust = torn.judge(lm), np.array([i.truth["trust"] for i in torn.items])
    assert seen.beats[trust > .6].mean() > seen.beats[trust < .5].mean() + .2    # the planted ladder shows
    assert all(i.foil == MEMORY[i.truth["relation"], i.truth["subject"]] and TRUST[i.truth["subject"]] == i.truth["trust"] for i in torn.items)


def test_gold_place_is_chosen_or_varied():
    assert all(i.truth["gold"] == 2 for i in make("docs", n=20, gold=2).items)
    assert {i.truth["gold"] for i in make("docs", n=100).items} == set(range(6))
    for kw in (dict(kind="closed", gold=1), dict(sentences=3, gold=5)):
        with pytest.raises(WorkbenchError): make("docs", n=2, **kw)


# --- bad input --------------------------------------------------------------------------------------------------------
def test_bad_requests_are_one_sentence(lm, heads):
    task = make("docs", n=4)
    for call, says in ((lambda: mediation(lm, task, "mean"), "'patch' or 'zero'"), (lambda: attn_attrib(lm, "Where does Mary live? Answer:", heads), "nothing can be marked"),
                       (lambda: mark_accuracy(attn_attrib(lm, task, heads), [0, 1]), "4 marked prompts and 2"), (lambda: mediation(wb.load("micro-bert"), make("capitals", n=4)), "masked")):
        with pytest.raises(WorkbenchError) as e: call()
        assert says in str(e.value) and "\n" not in str(e.value)

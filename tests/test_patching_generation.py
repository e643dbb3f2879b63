"""Patchscopes, patching while generating, and inside one turn: each against plain full runs with edits, and against models that learned nothing."""
import numpy as np
import pytest
import torch

import workbench as wb
from workbench.lm import specimens
from workbench.lm.edits import patch
from workbench.lm.errors import WorkbenchError
from workbench.lm.sites import Site
from workbench.patching.errors import PatchError
from workbench.patching.patchscopes import Target, copies, identity_target, patchscope, patchscope_text, source_states, target
from workbench.tasks.catalogue import make

torch.set_num_threads(1)
CAUSAL = ("gpt2", "llama", "gemma2", "gpt_neox")


@pytest.fixture(scope="module")
def micro(): return wb.load("micro")


def specimen(name):
    "A random model whose words depend on what it reads: weights three times the default."
    model = specimens.build(name)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1: p.mul_(3.)
        if name == "gemma2": model.get_input_embeddings().weight.mul_(.05)      # or the stream is nothing but the last word
    model.generation_config.eos_token_id = None
    return wb.load(model, check=False)


# --- patchscopes ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CAUSAL)
def test_every_cell_is_a_plain_run_with_an_edit(name):
    "All source layers into all target layers, at an inner place and at the end, on grouped heads and rotary positions too."
    lm = specimen(name); g = torch.Generator().manual_seed(1)
    source, ids = torch.randint(3, lm.d_vocab, (2, 7), generator=g), torch.randint(3, lm.d_vocab, (1, 9), generator=g)
    for place in (4, 8):
        into = Target(lm.tokens(ids), place); states, _, _ = source_states(lm, source, 3)
        got = patchscope(lm, source, 3, into, top_k=4)
        for p in range(2):
            for s in range(lm.n_layers + 1):
                for t in range(lm.n_layers + 1):
                    site = Site("resid_pre", layer=t, pos=place) if t < lm.n_layers else Site("resid_post", layer=t - 1, pos=place)
                    want = lm.run(ids, edits=patch(site, states[p, s])).last_logits[0].softmax(-1).topk(4).values
                    assert np.allclose(got.top_probability.values[p, s, t], want, atol=1e-5), (place, p, s, t)


def test_the_logit_lens_is_the_last_target_layer(micro):
    from workbench.lens.logit_lens import logit_lens
    texts = ["The capital of Japan is", "After Monday comes"]
    for i, text in enumerate(texts):
        got = patchscope(micro, texts, into=target(micro, text), target_layers=[3]).isel(prompt=i, target_layer=0)
        lens = logit_lens(micro, text).isel(prompt=0, pos=-1)
        assert (got.top_token.values == lens.top_token.values).all() and np.allclose(got.top_probability, lens.top_probability, atol=1e-6)
        home = patchscope(micro, texts, into=target(micro, text)).isel(prompt=i)
        assert all(float(home.kl[s, s]) < 1e-6 for s in range(5)) and float(home.kl.max()) > .1


def test_a_planted_fact_is_decoded_and_an_untrained_model_has_none(micro):
    from workbench.lm.load import load
    from workbench.zoo.micro import build
    task = make("capitals", n=60, seed=3); capitals = [i.answer for i in task.items]
    def share(lm, at): return (patchscope(lm, task, at, target(lm, "The capital of Cuba is", "Cuba"), answers=capitals).answer_rank.isel(answer=0) == 1).mean("prompt").values
    found = share(micro, "country")
    assert found[1, 1] > .9 and found[2, 2] > .7, "the country's state still leads to its capital after layers 0 and 1"
    assert found[4].max() < .3 and share(micro, task.for_model(micro).positions("country") - 1).max() < .15
    torch.manual_seed(0); assert share(load(build(micro.tokenizer), tokenizer=micro.tokenizer), "country").max() < .15


def test_identity_targets_are_checked_and_chunks_change_nothing(micro, monkeypatch):
    import workbench.patching.patchscopes as module
    words = ["Cuba", "Monday", "Peru", "hat"]
    assert copies(micro, words) == 1 and copies(micro, words, target(micro, "The capital of Cuba is", "Cuba")) == 0
    whole = patchscope(micro, ["The king of Cuba lives in", "May"], -1, answers=["Havana", "June"])
    monkeypatch.setattr(module, "BUDGET", 1)
    small = patchscope(micro, ["The king of Cuba lives in", "May"], -1, answers=["Havana", "June"])
    assert np.allclose(whole.top_probability, small.top_probability, atol=1e-6) and np.allclose(whole.answer_probability, small.answer_probability, atol=1e-6)
    assert identity_target(micro).tokens.strs[0][identity_target(micro).place] == "May" and list(whole.token.values) == ["in", "May"]


def test_a_continued_patchscope_is_a_generation_with_an_edit(micro):
    sources = ["The king of Japan lives in", "The king of Peru lives in"]
    into = target(micro, "If you visit Cuba you must see", "Cuba"); states, _, _ = source_states(micro, sources, 4)
    got = patchscope_text(micro, sources, 4, into, max_new_tokens=4, most=7)
    for p in range(2):
        for s, t in (0, 0), (1, 1), (2, 1), (3, 2), (2, 4):
            site = Site("resid_pre", layer=t, pos=into.place) if t < 4 else Site("resid_post", layer=3, pos=into.place)
            assert str(got.values[p, s, t]) == micro.generate(into.tokens, max_new_tokens=4, edits=patch(site, states[p, s])).texts[0]
    assert str(got.values[1, 1, 1]).startswith("Lima")


def test_states_of_another_width_need_a_map(micro):
    other = specimen("llama"); ids = torch.tensor([[5, 6, 7, 8]])
    with pytest.raises(PatchError, match="translate"): patchscope(other, ids, into=target(micro, "The capital of Cuba is"), reader=micro)
    w = torch.randn(other.d_model, micro.d_model, generator=torch.Generator().manual_seed(0))
    got = patchscope(other, ids, into=target(micro, "The capital of Cuba is"), reader=micro, translate=lambda s, x: x @ w)
    state = source_states(other, ids)[0][0, 1] @ w
    want = micro.run("The capital of Cuba is", edits=patch(Site("resid_pre", layer=2, pos=-1), state)).last_logits[0].softmax(-1).max()
    assert abs(float(got.top_probability.sel(source_layer="0", target_layer="1").values[0, 0]) - float(want)) < 1e-5 and got.attrs["reader"] == "micro"
    with pytest.raises(WorkbenchError, match="not causal"): patchscope(wb.load("micro-bert"), "Japan is nice", into=Target(wb.load("micro-bert").tokens("Japan"), 1))


# --- while generating -------------------------------------------------------------------------------------------------
def _slowly(lm, ids, edits, n):
    "Greedy words, each from an uncached pass over everything so far."
    for _ in range(n): ids = torch.cat([ids, lm.run(ids, edits=edits).last_logits.argmax(-1)[:, None]], 1)
    return ids[0, -n:].tolist()


@pytest.mark.parametrize("name, site", [("gpt2", "resid_pre"), ("llama", "v"), ("llama", "resid_pre"), ("gemma2", "resid_post"), ("gpt_neox", "z")])
def test_cached_patched_text_is_the_uncached_one(name, site):
    "Prompts of two lengths (padded on the left while generating); prompt and new words patched; sliding windows, grouped heads."
    from workbench.lm.sites import Site
    from workbench.patching.generation import patch_generation, patched_states, where_of
    from workbench.patching.pairs import Pairs
    lm = specimen(name); g = torch.Generator().manual_seed(2)
    clean = [torch.randint(3, lm.d_vocab, (n,), generator=g).tolist() for n in (5, 8)]
    corrupt = [[c[0], c[1] ^ 1, *c[2:]] for c in clean]
    pairs = Pairs.of(lm, clean=clean, corrupt=corrupt, answers=[5, 6], foils=[7, 8])
    parted = 0
    for positions, steps in (None, "all"), ([1], [1, 3]):
        ds = patch_generation(lm, pairs, site, layers=[1], positions=positions, steps=steps, max_new_tokens=6)
        for i in range(2):
            pair = pairs[i:i + 1]; plain = lambda b: b.ids[:, :int(b.lengths)]
            whole = torch.cat([plain(pair.clean), torch.tensor([_slowly(lm, plain(pair.clean), (), 6)])], 1)
            mask = where_of(Pairs.of(lm, clean=plain(pair.clean), corrupt=plain(pair.corrupt)), positions, steps, 6)
            edit = patched_states(Site(site, layer=1), lm.run(whole, keep=site), mask)
            assert ds.token_id.sel(run="patched").values[i].tolist() == _slowly(lm, plain(pair.corrupt), edit, 6)
            assert ds.token_id.sel(run="unpatched").values[i].tolist() == _slowly(lm, plain(pair.corrupt), (), 6)
        parted += int(ds.first_divergence.notnull().sum())
    assert parted, "a patch that changes no word proves nothing"


def test_steps_are_read_as_they_were_written(micro):
    from workbench.patching.generation import patch_generation
    task = make("capitals", n=12); t = task.for_model(micro)
    ds = patch_generation(micro, task, "resid_post", layers=[0], positions=["country"], max_new_tokens=4)
    clean, corrupt = (micro.run(p).last_logits for p in (t.prompts, t.corrupts)); row = torch.arange(12)
    for run, z in ("source", clean), ("unpatched", corrupt): assert np.allclose(ds.logit_difference.sel(run=run, step=0), z[row, t.answer_ids] - z[row, t.foil_ids], atol=1e-3)
    state = micro.run(t.prompts, keep="resid_post"); i = 3; at = int(t.positions("country")[i])
    z = micro.run(t.corrupts[i], edits=patch(Site("resid_post", layer=0, pos=at), state.tensor("resid_post.0")[i, at])).last_logits[0]
    assert abs(float(ds.logit_difference.sel(run="patched", step=0)[i]) - float(z[t.answer_ids[i]] - z[t.foil_ids[i]])) < 1e-3
    p, q = corrupt[i].log_softmax(-1), z.log_softmax(-1)
    assert abs(float(ds.kl[i, 0]) - float((p.exp() * (p - q)).sum())) < 1e-3
    assert (ds.first_divergence == 0).mean() > .8 and ds.patched.sum() == 12


def test_an_edit_of_one_s_own_acts_at_its_steps_only(micro):
    from workbench.lm.edits import scale
    from workbench.patching.generation import patch_generation
    ds = patch_generation(micro, ["The king of Cuba lives in", "After May comes"], edits=scale("resid_post.3", -1.), positions=(), steps=[2], max_new_tokens=5)
    kl = ds.kl.values
    assert (np.nan_to_num(kl[:, [0, 1]]) < 1e-6).all() and (kl[:, 2] > 1).all() and ds.patched.values[0].tolist() == [False, False, True, False, False]
    left = patch_generation(micro, "The king of Cuba lives in", edits=scale("resid_post.3", -1.), positions=(), steps=[30], max_new_tokens=40)
    assert "1 of 1" in left.attrs["never_patched"] and left.first_divergence.isnull().all() and not left.patched.any()


def test_what_generation_refuses(micro):
    from workbench.patching.generation import patch_generation
    task = make("capitals", n=2)
    for more, said in (dict(num_beams=3), "beams"), (dict(do_sample=True), "greedy"), (dict(steps=[0]), "counted from 1"), (dict(positions=()), "Neither"), (dict(sites="pattern"), "position axis"), (dict(positions=["nowhere"]), "no place"):
        with pytest.raises(WorkbenchError, match=said): patch_generation(micro, task, **more)
    with pytest.raises(PatchError, match="twins"): patch_generation(micro, ["The king of Cuba lives in"])
    with pytest.raises(PatchError, match="causal"): patch_generation(wb.load("micro-bert"), ["Cuba"])


# --- inside one turn --------------------------------------------------------------------------------------------------
def _ask(first, second): return [dict(role="user", content=f"What is the capital of {first}?"), dict(role="assistant", content="Tokyo."), dict(role="user", content=f"What is the capital of {second}?")]


def _spans(ids, turn_of):
    "Turns over bare ids, as a program with its own template would make them."
    from workbench.lm.tokens import TokenBatch
    from workbench.patching.turns import TurnSpans
    ids = torch.tensor([ids]); n = max(turn_of) + 1
    return TurnSpans(TokenBatch(ids, torch.ones_like(ids), [[f"#{i}" for i in ids[0].tolist()]]), tuple(turn_of), tuple(["user", "assistant"][t % 2] for t in range(n)))


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("site", ["resid_post", "z", "v"])
def test_every_turn_and_layer_is_a_plain_run_with_edits(name, site):
    "The grid resumes at the turn and at the layer; full passes over the whole dialogue give the same, on grouped heads, windows and rotary positions."
    from workbench.patching.turns import patch_turn, turn_grid
    lm = specimen(name); g = torch.Generator().manual_seed(5); turn_of = [-1, 0, 0, 0, -1, 1, 1, -1, 2, 2, 2, -1]
    a, b = (torch.randint(3, lm.d_vocab, (12,), generator=g).tolist() for _ in range(2))
    here, there = _spans(a, turn_of), _spans(b, turn_of); metric = lambda z: z[:, 5] - z[:, 9]
    source = lm.run([b], keep=site); got = turn_grid(lm, here, there, metric, site=site, tail=True)
    for t in range(3):
        at = here.positions(t, tail=True)
        for l in range(lm.n_layers):
            edit = patch(Site(site, layer=l, pos=tuple(at)), source.tensor(Site(site, layer=l))[0, at])
            assert abs(float(metric(lm.run([a], edits=edit).last_logits)) - float(got.outcome[t, l])) < 1e-5 * max(1, abs(float(got.outcome[t, l])))
    every = patch_turn(lm, here, there, 1, metric, site, max_new_tokens=3); at = here.positions(1)
    edits = [patch(Site(site, layer=l, pos=tuple(at)), source.tensor(Site(site, layer=l))[0, at]) for l in range(lm.n_layers)]
    run = lm.run([a], edits=edits).last_logits
    assert abs(float(metric(run)) - float(every.outcome.sel(run="patched"))) < 1e-5 * max(1, abs(float(metric(run)))) and str(every.reply.values[2]).split()[0] == str(int(run.argmax()))


@pytest.mark.parametrize("name", ["micro", "micro-llama"])
def test_the_asked_turn_decides_the_reply(name):
    "Only the last question is answered: its turn carries the outcome at the first layer and no longer at the last; the first turn never does."
    from workbench.patching.turns import TurnSpans, patch_turn, turn_grid
    lm = wb.load(name); recovered = []
    for one, two, yes, no in ("Cuba", "Peru", "Lima", "Havana"), ("Egypt", "Norway", "Oslo", "Cairo"), ("Greece", "Ireland", "Dublin", "Athens"):
        here, there = _ask("Japan", one), _ask("China", two)
        recovered.append(turn_grid(lm, here, there, (yes, no)).recovery)
        said = patch_turn(lm, here, there, "user", (yes, no), layers=[0], max_new_tokens=1)
        assert said.reply.values.tolist() == [no, yes, yes] and said.attrs["turn"] == "turn 2"
    r = np.stack(recovered)
    assert (r[:, 2, 0] > .7).all() and (abs(r[:, :2]) < .2).all() and (abs(r[:, 2, -1]) < .2).all()
    turns = TurnSpans.of(lm, here)
    assert turns.positions("turn 2", tail=True) == list(range(turns.positions(2)[0], len(turns.turn_of))) and turns.spans["turn 1"].item() == turns.positions("assistant")[-1]
    from workbench.patching.pairs import Pairs
    pairs = Pairs.of(lm, clean=TurnSpans.of(lm, there).tokens, corrupt=turns.tokens, answers=[yes], foils=[no], spans=turns.spans)
    from workbench.patching.patch import patch as grid
    assert list(grid(lm, pairs, positions=["turn 0", "turn 2"]).pos.values) == ["turn 0", "turn 2"]


def test_turns_of_different_length_are_aligned_by_the_caller(micro):
    from workbench.patching.turns import TurnSpans, patch_turn
    here = _ask("Japan", "Cuba"); other = [dict(role="system", content="You are a helpful guide."), *_ask("China", "Peru")]
    with pytest.raises(PatchError, match="same speakers"): patch_turn(micro, here, other, 2, ("Lima", "Havana"))
    a, b = TurnSpans.of(micro, here), TurnSpans.of(micro, other)
    done = patch_turn(micro, here, other, 2, ("Lima", "Havana"), layers=[0], align=(a.positions(2), b.positions(3)))
    assert done.attrs["shifted"] == b.positions(3)[0] - a.positions(2)[0] and done.outcome.sel(run="patched") > done.outcome.sel(run="chat") + 3
    longer = [*here[:2], dict(role="user", content="What is the capital city of Peru?")]
    with pytest.raises(PatchError, match="align="): patch_turn(micro, here, longer, 2, ("Lima", "Havana"))
    at = [x.positions(2)[-2:] for x in (a, TurnSpans.of(micro, longer))]
    assert patch_turn(micro, here, longer, 2, ("Lima", "Havana"), layers=[0], align=at).outcome.sel(run="patched") > 0
    one = patch_turn(micro, here, _ask("China", "Peru"), 2, ("Lima", "Havana"), Site("z", head=3), layers=[1])
    z = micro.run(TurnSpans.of(micro, _ask("China", "Peru")).tokens, keep="z.1").tensor("z.1")[0, a.positions(2)][:, [3]]
    want = micro.run(a.tokens, edits=patch(Site("z", layer=1, head=3, pos=tuple(a.positions(2))), z)).last_logits[0]
    assert abs(float(one.outcome.sel(run="patched")) - float(want[micro.answer_id("Lima")] - want[micro.answer_id("Havana")])) < 1e-4


def test_what_turns_refuse(micro):
    from workbench.patching.turns import TurnSpans, patch_turn, turn_grid
    here, there = _ask("Japan", "Cuba"), _ask("Japan", "Peru")
    for more, said in (dict(turn=7), "has 3"), (dict(turn="nobody"), "no turn 'nobody'"), (dict(sites="pattern"), "position axis"), (dict(outcome="Lima"), "pair of words"), (dict(outcome=("Lima", "Lima")), "same token"), (dict(layers=[9]), "no layer 9"), (dict(align=([1], [2, 3])), "one length"):
        with pytest.raises(WorkbenchError, match=said): patch_turn(micro, here, there, **(dict(turn=2, outcome=("Lima", "Havana")) | more))
    with pytest.raises(PatchError, match="list of"): TurnSpans.of(micro, "hello")
    same = turn_grid(micro, here, here, ("Lima", "Havana"))
    assert same.recovery.isnull().all() and "nothing to recover" in same.attrs["undefined"]

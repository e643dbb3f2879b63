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


def specimen(name): return wb.load(specimens.build(name), check=False)


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

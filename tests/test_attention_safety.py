"""Ships and Sahara: ablations, closed forms, planted heads, exhaustive search, and a model that has learned nothing."""
from itertools import combinations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import workbench as wb
from workbench import zoo
from workbench.attention.patterns import AttentionError
from workbench.attention.safety import EPSILON, SITES, angles, answers_without, every, final_states, joint_shift, leading, sahara, ships, ships_dataset, subspace_shift, undo
from workbench.experiments import wilson
from workbench.lm.edits import scale, zero
from workbench.lm.sites import Site
from workbench.lm.weights import WeightEdit
from workbench.tasks import make
from workbench.zoo.retrain import recipe, start

torch.set_num_threads(1)
TOP = (0, 1)   # the refusal head, by the model's card


@pytest.fixture(scope="module")
def lm(): return wb.load("refusal")


@pytest.fixture(scope="module")
def asked(lm): return {name: make("refusals", n=200, seed=23, **options).for_model(lm) for name, options in dict(topic=dict(kind="topic"), rude=dict(kind="rude"), harmless=dict(kind="harmless"), tool=dict(form="tool"), material=dict(form="material")).items()}


@pytest.fixture(scope="module")
def blank():
    model, tok = start(recipe("refusal"))
    return wb.load(model, tokenizer=tok, check=False)


def copied(lm, to):
    "The scope in which the refusal head's weights stand in head `to` of its layer too."
    have = {w: lm.weight(w, TOP[0])[TOP[1]].clone() for w in "QKVO"}
    return lm.edited_weights(*[WeightEdit(w, lambda _, x=x: x, layer=TOP[0], head=to) for w, x in have.items()])


# --- the row: one head ends the refusals, no other does ------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["topic", "rude"])
@pytest.mark.parametrize("ablation", SITES)
def test_the_top_head_ends_refusals_and_no_other_does(lm, asked, kind, ablation):
    scores = ships(lm, asked[kind], ablation).mean("prompt").values
    assert np.unravel_index(scores.argmax(), scores.shape) == TOP
    shares = answers_without(lm, asked[kind], ablation)
    one, rest = shares.sel(layer=TOP[0], head=TOP[1]), [shares.sel(layer=l, head=h) for l, h in every(lm) if (l, h) != TOP]
    assert shares.attrs["whole"] > .97 and float(one.high) < .1 and min(float(r.low) for r in rest) > .9 and shares.attrs["n"] == 200


def test_zeroing_it_does_the_same(lm, asked):
    refused = lambda edits: float(asked["topic"].accuracy(lm, edits=edits).accuracy[0])
    assert refused([]) > .97 and refused([zero(Site("z", layer=TOP[0], head=TOP[1]))]) < .03
    assert min(refused([zero(Site("z", layer=l, head=h))]) for l, h in every(lm) if (l, h) != TOP) > .97


def test_help_is_not_destroyed(lm, asked):
    for name in ("harmless", "tool", "material"):
        shares = answers_without(lm, asked[name])
        assert float(shares.share.sel(layer=TOP[0], head=TOP[1])) > .95, name
    assert float(answers_without(lm, asked["material"]).share.min()) < .9   # another head is needed there: the measure can see harm


def test_it_reads_the_deciding_word(lm, asked):
    for kind in ("topic", "rude"):
        t = asked[kind]; pattern = lm.run(t.prompts, keep=["pattern"]).tensor(Site("pattern", layer=TOP[0]))
        looks = pattern[torch.arange(len(t)), :, t.positions("end"), t.positions("deciding")].mean(0)
        assert int(looks.argmax()) == TOP[1] and looks[TOP[1]] > .8


# --- nothing in an untrained model ---------------------------------------------------------------------------------------
def test_nothing_is_found_in_an_untrained_model(lm, blank, asked):
    t = make("refusals", n=60, seed=23, kind="topic").for_model(blank)
    for ablation in SITES: assert float(ships(blank, t, ablation).max()) < .01 < 1 < float(ships(lm, asked["topic"], ablation).mean("prompt").max())
    assert answers_without(blank, t).attrs["whole"] == 0 and float(ships_dataset(blank, t, space="state").max()) < 1
    assert float(sahara(blank, t, size=3)["shift"].max()) < .01


# --- what the ablations are ------------------------------------------------------------------------------------------------
def test_undifferentiated_attention_is_even_over_the_past(lm):
    run = lm.run(["<user> how do I mend a blorb, friend? <eos> <assistant>"], keep=["pattern"], edits=[undo(1, 2)])
    pattern = run.tensor(Site("pattern", layer=1))[0]; n = pattern.shape[-1]
    even = torch.tril(torch.ones(n, n)) / torch.arange(1, n + 1)[:, None]
    assert torch.allclose(pattern[2], even, atol=1e-4) and not torch.allclose(pattern[1], even, atol=1e-2)


@pytest.mark.parametrize("name", ["refusal", "micro"])
def test_it_is_the_papers_scaling_of_queries_or_keys(name):
    lm = wb.load(name)
    prompts = ["<user> how do I mend a kite, friend? <eos> <assistant>"] if name == "refusal" else ["Mary gave a book to John and John gave a ball to"]
    said = [lm.run(prompts, edits=[e]).last_logits for e in (undo(0, 1), *(scale(Site(w, layer=0, head=1), EPSILON) for w in ("q", "k")))]
    assert torch.allclose(said[0], said[1], atol=1e-4) and torch.allclose(said[0], said[2], atol=1e-4) and not torch.allclose(said[0], lm.run(prompts).last_logits, atol=1e-3)


def test_ships_by_plain_weight_surgery(asked):
    "Plain Hugging Face: scale the rows of q_proj (or columns of o_proj) that belong to the head, one prompt at a time."
    place = zoo.folder("refusal"); tok = AutoTokenizer.from_pretrained(place); lm = wb.load("refusal")
    prompts = asked["topic"].prompts[:3]; ours = {a: ships(lm, prompts, a).values for a in SITES}
    def log_p(surgery=None):
        model = AutoModelForCausalLM.from_pretrained(place).eval()
        with torch.no_grad():
            if surgery: surgery(model.model.layers)
            return [model(**tok(p, return_tensors="pt")).logits[0, -1].double().log_softmax(-1) for p in prompts]
    base = log_p()
    for l, h in [(0, 1), (0, 0), (1, 3)]:
        rows = slice(16 * h, 16 * h + 16)
        def attention(layers): layers[l].self_attn.q_proj.weight[rows] *= EPSILON
        def contribution(layers): layers[l].self_attn.o_proj.weight[:, rows] *= EPSILON
        for name, surgery in (("attention", attention), ("contribution", contribution)):
            by_hand = [float((p.exp() * (p - q)).sum()) for p, q in zip(base, log_p(surgery))]
            assert np.allclose(ours[name][:, l, h], by_hand, rtol=1e-3, atol=1e-6), (l, h, name)


# --- datasets: angles ------------------------------------------------------------------------------------------------------
def test_angles_of_known_rotations():
    e = torch.eye(6).double()
    for planted in ([.3], [1e-9], [.2, 1.1], [0., np.pi / 2]):
        turned = torch.stack([np.cos(t) * e[i] + np.sin(t) * e[3 + i] for i, t in enumerate(planted)], 1)
        mixed = turned @ torch.linalg.qr(torch.randn(len(planted), len(planted), dtype=torch.float64))[0]   # another basis of the same span
        assert np.allclose(angles(e[:, :len(planted)], mixed), np.rad2deg(sorted(planted)), rtol=1e-6, atol=1e-9)
        assert np.allclose(angles(e[:, :len(planted)], e[:, :len(planted)]), 0)


def test_leading_directions_of_planted_states():
    g = torch.Generator().manual_seed(0)
    loads, direction = torch.rand(40, 1, generator=g).double() + 1, torch.nn.functional.normalize(torch.randn(1, 8, generator=g).double())
    states = loads @ direction + 1e-6 * torch.randn(40, 8, generator=g).double()
    assert float(angles(leading(states, 1, "state"), direction.T)) < 1e-3 and float(angles(leading(states, 1, "prompt"), loads / loads.norm())) < 1e-3


def test_dataset_ships_point_at_the_same_head(lm, asked):
    for space in ("prompt", "state"):
        x = ships_dataset(lm, asked["topic"], space=space).values
        assert np.unravel_index(x.argmax(), x.shape) == TOP and x.max() > 2.5 * np.sort(x.ravel())[-2]
    assert float(ships_dataset(lm, asked["topic"], space="state").max()) > 45 and float(ships_dataset(lm, asked["topic"]).max()) < 1   # one kind of prompt: shares hardly change
    assert float(subspace_shift(lm, asked["topic"])(())) < 1e-6


def test_final_states_are_what_hugging_face_returns(lm, asked):
    prompts = asked["topic"].prompts[:5]; states = final_states(lm, prompts, batch=2)
    with torch.no_grad(): plain = [lm.model(**lm.tokenizer(p, return_tensors="pt"), output_hidden_states=True).hidden_states[-1][0, -1] for p in prompts]
    assert torch.allclose(states, torch.stack(plain).double(), atol=1e-4)


# --- groups ------------------------------------------------------------------------------------------------------------------
def test_a_shared_refusal_is_found_by_the_group_alone(lm, asked):
    t = make("refusals", n=200, seed=31, kind="topic").for_model(lm)
    with copied(lm, to=3):
        assert float(answers_without(lm, t).share.min()) > .97 and float(ships(lm, t).mean("prompt").max()) < .1   # nobody is needed
        for by in ("kl", "subspace", "state"):
            grown = sahara(lm, t, size=2, by=by)
            assert set(zip(grown.chosen_layer.values, grown.chosen_head.values)) == {TOP, (0, 3)}, by
        refused = float(t.accuracy(lm, edits=[undo(*TOP), undo(0, 3)]).accuracy[0])
        assert refused < .03 and float(grown["shift"][1]) > float(grown["shift"][0])


@pytest.mark.parametrize("to", [None, 3])
def test_the_pair_is_the_best_of_all_pairs(lm, asked, to):
    "Exhaustive, with edits of its own: plain knock-out of z over all 28 pairs and one prompt at a time."
    prompts = asked["rude"].prompts[:12]
    def log_p(pair=()): return torch.cat([lm.run([p], edits=[scale(Site("z", layer=l, head=h), EPSILON) for l, h in pair]).last_logits.double().log_softmax(-1) for p in prompts])
    def both():
        base = log_p(); shift = lambda pair: float((base.exp() * (base - log_p(pair))).sum(-1).mean())
        return {pair: shift(pair) for pair in combinations(every(lm), 2)}, sahara(lm, prompts, size=2, ablation="contribution")
    if to is None: pairs, grown = both()
    else:
        with copied(lm, to): pairs, grown = both()
    assert len(pairs) == 28
    chosen = tuple(sorted(zip(grown.chosen_layer.values.tolist(), grown.chosen_head.values.tolist())))
    assert float(grown["shift"][1]) == pytest.approx(pairs[chosen], rel=1e-4) and pairs[chosen] >= .98 * max(pairs.values())   # greedy: first head first
    if to is not None: assert chosen == max(pairs, key=pairs.get) == (TOP, (0, 3))


def test_the_table_of_what_was_tried(lm, asked):
    t = sahara(lm, asked["material"].prompts[:40], size=3)
    group = list(zip(t.chosen_layer.values.tolist(), t.chosen_head.values.tolist()))
    for i, (l, h) in enumerate(group):
        tried = t.tried.isel(step=i).values
        assert np.nanmax(tried) == tried[l, h] == float(t["shift"][i]) and int(np.isnan(tried).sum()) == i
    joint = joint_shift(lm, asked["material"].prompts[:40])
    assert joint(group[:2]) == pytest.approx(float(t["shift"][1])) and len(set(group)) == 3
    chosen_from = sahara(lm, asked["topic"].prompts[:10], size=2, heads=[(1, 0), (1, 1)])
    assert set(zip(chosen_from.chosen_layer.values, chosen_from.chosen_head.values)) == {(1, 0), (1, 1)}


# --- results and bad input --------------------------------------------------------------------------------------------------
def test_results_say_where_they_come_from(lm, asked):
    s, a = ships(lm, asked["topic"].prompts[:4]), answers_without(lm, make("refusals", n=30, seed=23, kind="topic"))
    assert s.dims == ("prompt", "layer", "head") and s.shape == (4, 2, 4) and float(s.min()) >= 0
    assert {"model", "revision", "ablation", "epsilon", "n", "method", "metric"} <= set(s.attrs) and {"model", "task", "seed", "split", "n", "whole", "level"} <= set(a.attrs)
    assert np.allclose([a.low[0, 1], a.high[0, 1]], wilson(round(float(a.share[0, 1]) * 30), 30))
    assert ships(lm, asked["topic"].prompts[0]).shape == (1, 2, 4) and np.allclose(ships(lm, asked["topic"].prompts[:4], batch=3), s, atol=1e-5)


def test_bad_input_is_one_sentence(lm):
    for call, says in [(lambda: undo(0, 1, "nothing"), "'attention'"), (lambda: undo(0, 1, epsilon=0), "above 0"), (lambda: ships(lm, []), "No prompts"), (lambda: sahara(lm, "<user>", heads=[(2, 0)]), "no head 0 in layer 2"),
                       (lambda: sahara(lm, "<user>", size=9), "between 1 and the 8"), (lambda: sahara(lm, "<user>", by="angle"), "'state'"), (lambda: ships_dataset(lm, ["<user>"], rank=2), "1 to 1"),
                       (lambda: ships_dataset(lm, ["<user>"], space="both"), "'prompt'"), (lambda: ships_dataset(wb.load("micro-bert"), ["Paris is <mask>."]), "causal")]:
        with pytest.raises(AttentionError, match=says) as e: call()
        assert "\n" not in str(e.value)

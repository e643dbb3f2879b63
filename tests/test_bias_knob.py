"""The context knob: one direction in one layer against intent words, on held-out prompts, beside random directions, an untrained model and the model before its tuning."""
import numpy as np
import pytest
import torch

import workbench as wb
from workbench.bias import IntentPairs, KnobError, layer_search, learn_knob, turn, without_intent
from workbench.lm.edits import apply, patch
from workbench.lm.sites import Site
from workbench.tasks.catalogue import make
from workbench.zoo.retrain import recipe, start

torch.set_num_threads(1)
MODELS = {"micro": "conflict", "knob": "intent"}


@pytest.fixture(scope="module", params=MODELS)
def setting(request):
    "(model, training pairs, held-out pairs, layer found on the training pairs, knob)"
    lm, task = wb.load(request.param), MODELS[request.param]
    train, held = (IntentPairs.of(lm, make(task, n=n, split=s, seed=1)) for n, s in ((80, "train"), (100, "test"))); assert not set(train.context) & set(held.context)
    layer = int(layer_search(lm, train).obeys.values[:-1].argmax())
    return lm, train, held, layer, learn_knob(lm, train, layer, steps=25, size=32)


def test_one_direction_overrules_the_intent_on_held_out_prompts(setting):
    "S242: the setting decides in at least 80 % whatever the prompt asks for; a random direction moved by as much does not."
    lm, _, held, layer, knob = setting; assert layer == 0 and knob.direction.norm() == pytest.approx(1, abs=1e-5)
    for prompts, asked in ((held.memory, "memory"), (held.context, "context")):
        out = turn(lm, knob, prompts, held.said, held.known, [-1, 1], controls=2); against, wanted = (1, "context") if asked == "memory" else (-1, "memory")
        assert float(out.plain.sel(answer=asked)) > .95 and float(out.low.sel(setting=1, answer="context")) > .8 and float(out.low.sel(setting=-1, answer="memory")) > .8
        assert float(out.random_rate.sel(setting=against, answer=wanted).max()) < .1
    if lm.id == "micro":
        bare = turn(lm, knob, without_intent(held.memory), held.said, held.known, [-1, 1]); assert float(bare.low[0, 1]) > .8 and float(bare.low[1, 0]) > .8


def test_the_answer_follows_the_setting(setting):
    "Context rises and memory falls with the setting, without a step back beyond noise."
    lm, _, held, _, knob = setting; out = turn(lm, knob, held.memory, held.said, held.known, [-1, -.5, 0, .5, 1]).rate
    assert (np.diff(out.sel(answer="context")) >= -.03).all() and (np.diff(out.sel(answer="memory")) <= .03).all() and float(out[-1, 0] - out[0, 0]) > .8


def test_setting_is_a_plain_edit(setting):
    "Only the coefficient along the direction changes, only at the last position; its own coefficient changes nothing."
    lm, _, held, layer, knob = setting; site = Site("resid_post", layer=layer, pos=-1); prompts = held.memory[:3]; u = knob.direction
    def by_hand(v, spot): return v - (v @ u)[..., None] * u + knob.value(.7) * u
    edited = lm.run(prompts, keep=site.at(pos=None), edits=[knob.edit(.7)]); want = lm.run(prompts, edits=[apply(site, lambda v: by_hand(v, None))]).last_logits
    assert torch.allclose(edited.last_logits, want, atol=1e-4) and torch.allclose(edited.tensor(site.at(pos=None))[:, -1] @ u, torch.full((3,), knob.value(.7)), atol=1e-4)
    assert torch.allclose(edited.tensor(site.at(pos=None))[:, :-1], lm.run(prompts, keep=site.at(pos=None)).tensor(site.at(pos=None))[:, :-1])
    assert knob.value(1) == pytest.approx(knob.high) and knob.value(-1) == pytest.approx(knob.low)


def test_the_layer_search_by_hand(setting):
    "One cell of the search, one prompt at a time."
    lm, train, _, layer, _ = setting; few = IntentPairs(train.context[:12], train.memory[:12], train.said[:12], train.known[:12]); found = layer_search(lm, few); counts = np.zeros(3)
    for own, other, mine, theirs in ((few.context, few.memory, few.said, few.known), (few.memory, few.context, few.known, few.said)):
        for i in range(12):
            state = lm.run(other[i - 1], keep=(s := Site("resid_post", layer=1, pos=-1))).tensor(s)
            top = int(lm.run(own[i], edits=[patch(s, state)]).last_logits[0].argmax()); counts += [top == int(theirs[i]), top == int(mine[i]), top == int(theirs[i - 1])]
    assert [float(found[k][1]) for k in ("obeys", "stays", "moves")] == pytest.approx((counts / 24).tolist()) and found.attrs["forward_passes"] == 2 * lm.n_layers + 2
    assert float(found.moves[-1]) == 1


def test_the_direction_turns_the_model_before_its_tuning():
    "Learned in `knob`, used in `hearsay`, which never read an intent: on people who say either half of the time, beyond random directions; and it is the direction of people there."
    tuned, base = wb.load("knob"), wb.load("hearsay"); knob = learn_knob(tuned, IntentPairs.of(tuned, make("intent", n=120, split="train", seed=1)), 0)
    task = make("hearsay", n=100, leans="even").for_model(base); ids = [torch.tensor([base.answer_id(i.truth[k]) for i in task.items]) for k in ("context", "memory")]
    out = turn(base, knob, task.prompts, *ids, settings=[-6, 6], controls=4); swing, chance = out.rate[1, 0] - out.rate[0, 0], abs(out.random_rate[:, 1, 0] - out.random_rate[:, 0, 0]).max()
    assert float(swing) > .3 and float(swing) > 2 * float(chance) and float(out.low[1, 0]) > float(out.high[0, 0]) and float(out.rate[..., 2].max()) < .2
    own = learn_knob(base, IntentPairs.of(base, make("hearsay", n=120, split="train", leans="claim")), 0)
    assert float(own.direction @ knob.direction) > .6 > 1.5 * max(abs(float(own.random(i) @ knob.direction)) for i in range(50))


def test_an_untrained_model_has_no_knob():
    model, tokenizer = start(recipe("knob")); lm = wb.load(model, tokenizer=tokenizer, check=False); train, held = (IntentPairs.of(lm, make("intent", n=60, split=s)) for s in ("train", "test"))
    out = turn(lm, learn_knob(lm, train, 0, steps=10), held.memory, held.said, held.known, [-1, 1])
    assert float(out.rate[:, :2].max()) < .1 and float(layer_search(lm, train).obeys.max()) < .1


@pytest.mark.parametrize("call, says", [
    (lambda m: IntentPairs.of(m, make("ioi", n=2)), "do not side"), (lambda m: IntentPairs.of(m, make("hearsay", n=3, leans="even")), "do not side"),
    (lambda m: learn_knob(m, IntentPairs.of(m, make("conflict", n=4)), 3), "another above it"), (lambda m: layer_search(m, IntentPairs.of(m, make("conflict", n=1))), "at least two items"),
    (lambda m: without_intent(["The capital of France is"]), "take the intent out")])
def test_bad_input_is_one_sentence(call, says):
    with pytest.raises(KnobError, match=says) as e: call(wb.load("micro"))
    assert "\n" not in str(e.value)

"""The tiny persuadee and persuader: the language against slow loops, the weights against the formula, agents on a view, and who sees what."""
import random

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

import workbench as wb
from workbench import zoo
from workbench.attention.permutation import held_out_r2
from workbench.dialogue.audit import audit
from workbench.dialogue.errors import DialogueError
from workbench.dialogue.play import Dialogue, Said
from workbench.dialogue.reading import BEFORE, QUESTION, reading
from workbench.dialogue.scenario import open_scenario
from workbench.dialogue.scripted import Arguer, Bayesian
from workbench.dialogue.shapley import decides, noise_share, shapley
from workbench.dialogue.tiny import Tiny, TinyPersuader, edited, meaning_of, realised, slope
from workbench.features.train import train
from workbench.lm.edits import patch
from workbench.lm.sites import Site
from workbench.tasks import TaskError
from workbench.tasks import persuasion as language
from workbench.zoo import persuadee, persuader
from workbench.zoo.retrain import recipe, start

torch.set_num_threads(1)

SCENE = open_scenario("""
name: soup
roles: [persuader, persuadee]
fields:
  topic: soup
  prior: {value: -1.0, visible: {persuadee: always}}
  wish: {value: 1.0, visible: {persuadee: always}}
  trust: {value: {A: 1.0, B: 0.3333}, visible: {persuadee: always}}
phases: [{name: talk, speakers: [persuader, persuadee], rounds: 4}]
measures:
  belief: {ask: "Do you agree?", of: persuadee, at: [start, each], options: ["yes", "no"]}
  turned: {ask: "Do you agree?", of: persuadee, at: [start, each], options: ["no", "yes"]}
  desire: {ask: "Do you want it?", of: persuadee, at: end}
""")


@pytest.fixture(scope="module")
def lm(): return wb.load("persuadee")


@pytest.fixture(scope="module")
def untrained():
    model, tok = start(recipe("persuadee"))
    return wb.load(model, tokenizer=tok, check=False)


@pytest.fixture(scope="module")
def talk(): return Dialogue(SCENE, dict(persuader=TinyPersuader(), persuadee=Tiny(oracle=True)), run=1).play()


# --- the language -------------------------------------------------------------------------------------------------------
def by_hand(words):
    "The rules said in a loop."
    at = {w: k for ws in language.HIDDEN.values() for k, w in enumerate(ws)}; told = words.split(); value = {w.rsplit("_", 1)[0]: at[w] for w in told if w in at}
    belief, desire, opened, source = -2 + .5 * value["PRIOR"], -2. + value["WISH"], False, None
    for w in told:
        if w.startswith("SRC"): source = w[-1]
        if w.startswith(("ARG", "WANT")):
            a = [-1.5, -1, -.5, .5, 1, 1.5][int(w[-1])] * value[f"TRUST_{source}"] / 3
            if w.startswith("ARG"): belief += a; opened |= int(w[-1]) > 2
            elif opened: desire += a
    return belief if told[-1] == "ASK_BELIEF" else desire


def test_closed_form_equals_a_loop():
    for i in range(300):
        words = language.draw(random.Random(i), "train").prompt
        assert abs(language.truth(words) - by_hand(words)) < 1e-12


def test_answers_are_drawn_from_the_truth_and_held_heads_never_occur():
    z, yes = [], []
    for words, _ in language.dialogues(np.random.default_rng(0), 1500):
        r = language.read(words); assert not language.HELD[tuple(r["head"])]
        k = r["asks"][-1]; z.append(by_hand(" ".join(language.spell(r["head"], r["order"], r["sources"][:k[0]], r["moves"][:k[0]], [(k[0], k[1], None)])))); yes.append(k[2] == r["order"])
    p = expit(np.array(z)); score = (np.array(yes) - p).sum() / np.sqrt((p * (1 - p)).sum())
    assert abs(score) < 4 and abs(np.corrcoef(p, yes)[0, 1]) > .4


def test_the_posterior_of_the_persuader_equals_a_loop():
    r = np.random.default_rng(4); src, mv, about, ans = r.integers(2, size=3), r.integers(16, size=3), r.integers(2, size=3), r.integers(2, size=3); slow = []
    for h in language.HEADS:
        b, d = language.attitudes([h], [src], [mv]); slow.append(np.prod([expit((1 if ans[t] == 1 else -1) * (b, d)[about[t]][0, t + 1]) for t in range(3)]))
    w = language.weights([1], [src], [mv], [(t + 1, [about[t]], [ans[t]]) for t in range(3)])[0].ravel(); slow = np.array(slow) / sum(slow)
    assert np.abs(w - slow).max() < 1e-6
    b, d = (x[:, -1] for x in language.attitudes(language.HEADS, [[*src, 0]] * 720, [[*mv, 5]] * 720))
    assert abs(language.values(w.reshape(1, 9, 5, 4, 4), src[None], mv[None])[0, 0, 5] - (slow * expit(b) * expit(d)).sum()) < 1e-5


def test_public_dialogues_have_no_hidden_word():
    hidden = set(sum(language.HIDDEN.values(), []))
    assert not hidden & set(persuader.words()) and hidden < set(persuadee.words())
    for words, _ in language.public(np.random.default_rng(1), 40): assert not hidden & set(words)


# --- the weights ----------------------------------------------------------------------------------------------------------
def test_the_card_is_of_these_weights(lm):
    said = zoo.card("persuadee")["measured"]; a = persuadee.answered(lm.model, lm.tokenizer, n=300)
    assert a["gap"].mean() < .002 and np.corrcoef(a["truth"], a["model"])[0, 1] > .99 and a["mass"].min() > .95
    for case in said["worst"]["cases"]:
        z, m = np.array(language.truth(case["words"])), lm.run(case["words"]).last_logits.double()[0, [lm.tokenizer.get_vocab()[w] for w in language.ANSWERS]].log_softmax(-1)
        p = float(expit(float(m[0] - m[1]) * (1 if case["words"].startswith("YES") else -1)))
        assert abs(p - case["model"]) < .01 and abs(float(expit(z)) - case["truth"]) < .001
    assert abs(max(abs(c["truth"] - c["model"]) for c in said["worst"]["cases"]) - said["largest_error_found"]) < .002


def test_the_search_finds_a_planted_error(lm, monkeypatch):
    def planted(model, tok, states): s = np.asarray(states); z = np.zeros(len(s)); return z, np.where((s[:, 1] == 8) & (s[:, 5] == 1), 4., .01 * s[:, 1] + .01 * s[:, 5])
    monkeypatch.setattr(persuadee, "errors", planted); states, best = persuadee.climb(None, None, np.zeros((1, 8), int))
    assert states[0, 1] == 8 and states[0, 5] == 1 and abs(best[0] - (expit(4) - .5)) < 1e-9


def test_interchange_follows_the_formula_where_the_word_is_and_not_without_training(lm, untrained):
    own, none = (persuadee.moved(x.model, x.tokenizer, n=120) for x in (lm, untrained))
    for name, rows in own.items():
        assert .88 < rows["slope"][0] < 1.12 and rows["r"][0] > .97 and abs(rows["slope"][-1]) < .2, name
        assert abs(none[name]["slope"][0]) < .2, name


def test_an_edited_argument_moves_the_model_by_trust_times_the_difference(lm, untrained):
    change = edited(lm, n=150)
    assert .85 < slope(change) < 1.15 and change.model.corr(change.exact) > .97 and abs(slope(edited(untrained, n=150))) < .2
    assert change[change.trust == 0].model.abs().mean() < .3 * change[change.trust == 1].model.abs().mean()


def test_the_persuader_listens():
    said = zoo.card("persuader"); m = wb.load("persuader"); c = persuader.compared(m.model, m.tokenizer, n=150)
    assert np.mean(c["move"]) < said["limits"]["divergence_of_moves"][1] * 1.5 and np.sum(c["move"]) < .5 * np.sum(c["move_unheard"])


# --- agents -----------------------------------------------------------------------------------------------------------------
def test_beliefs_by_model_and_by_formula(talk):
    b = talk.beliefs().query("measure != ''"); wide = b.pivot_table(index=["turn", "measure"], columns="source", values="value")
    assert (wide.model_logit - wide.closed_form).abs().max() < .2 and set(b.source) == {"model_logit", "closed_form"}
    by_words = [np.nan if "argument" not in e.data["meaning"] else e.data["meaning"]["argument"] * dict(A=1, B=1 / 3)[e.data["meaning"]["source"]] * (e.data["meaning"]["about"] == "belief") for e in talk.messages]
    exact = expit(-1 + np.nancumsum(by_words)); told = wide.xs("belief", level="measure").closed_form.to_numpy()
    assert np.abs(told[1:] - exact).max() < 1e-9


def test_words_meanings_and_sentences(talk):
    for e in talk.messages: assert meaning_of(e.tokens) == e.data["meaning"] and e.text and not any(w in e.text for w in e.tokens)
    assert realised(("SRC_B", "WANT_0"), "x") == "B speaks strongly against wanting this: x"
    with pytest.raises(DialogueError, match="tiny language"): meaning_of(("SRC_A", "PRIOR_1"))


def test_readings_have_spans(talk):
    r = reading(talk, next(e for e in talk.tree if e.kind == "probe" and e.turn == 8))
    assert [s.turn for s in r.spans] == [BEFORE, *range(8), QUESTION] and r.tokens[0] == "<bos>" and [r.tokens[i] for i in r.positions(2)] == list(talk.messages[2].tokens)
    turned = reading(talk, next(e for e in talk.tree if e.kind == "probe" and e.data["measure"] == "turned" and e.turn == 8))
    assert (r.tokens[1], turned.tokens[1]) == ("YES_NO", "NO_YES") and r.tokens[9] != turned.tokens[9]        # the same answer, the other word
    assert reading(talk, talk.messages[2]).role == "persuader" and reading(talk, talk.messages[2]).turns == [0, 1]


def test_no_leak_and_a_peeking_persuader_is_found():
    agents = dict(persuader=TinyPersuader(), persuadee=Tiny()); others = dict(prior=2.0, wish=-2.0, trust=dict(A=0.0, B=1.0))
    assert audit(SCENE, agents, runs=2, others=others).leaks.sum() == 0
    seen = {}; inner = Tiny(); inside = TinyPersuader()
    def careless(v): seen["prior"] = v.fields["prior"]; return inner(v)
    def peeking(v): return inside(v) if seen.get("prior", -1) < 0 else Said("x", tokens=("SRC_A", "ARG_0"), meaning=meaning_of(("SRC_A", "ARG_0")))
    found = audit(SCENE, dict(persuader=peeking, persuadee=careless), runs=1, others=others)
    assert found.set_index("field").leaks["prior"] == 1 and found.set_index("field").leaks["wish"] == 0


def test_scripted_and_tiny_agents_talk_to_each_other():
    scene = SCENE.having(trust=1.0); tiny, exact = (Dialogue(scene, dict(persuader=Arguer(), persuadee=a), run=2).play() for a in (Tiny(), Bayesian()))
    b = lambda d: d.beliefs().query("measure == 'belief'").value.to_numpy()
    assert len(b(tiny)) == 9 and np.abs(b(tiny) - b(exact)).max() < .2 and np.corrcoef(b(tiny), b(exact))[0, 1] > .95


def test_a_branch_differs_by_trust_times_the_difference_in_the_formula():
    lines = [("SRC_A", "ARG_4"), ("SRC_B", "ARG_1"), ("SRC_A", "CHAT_2"), ("SRC_B", "ARG_5")]
    def end(swap=None):
        said = [swap if swap and i == 1 else w for i, w in enumerate(lines)]; d = Dialogue(SCENE, dict(persuader=lambda v: Said("...", tokens=said[v.said // 2], meaning=meaning_of(said[v.said // 2])), persuadee=Tiny(oracle=True))).play()
        return d.beliefs().query("measure == 'belief'").groupby("source").value.last().map(logit)
    change = end(("SRC_A", "ARG_5")) - end()
    assert abs(change.closed_form - (1.5 + 1 / 3)) < 1e-3 and abs(change.model_logit - change.closed_form) < .4


def test_bad_input():
    with pytest.raises(DialogueError, match="has words for -2, -1.5"): Dialogue(SCENE.having(prior=.3), dict(persuader=Arguer(), persuadee=Tiny())).play()
    with pytest.raises(DialogueError, match="answered before the next one"): Dialogue(open_scenario(dict(name="x", roles=["a"], phases=[dict(speakers=["a"], rounds=2)])), dict(a=TinyPersuader())).play()
    with pytest.raises(DialogueError, match="needs the field 'prior'"): Dialogue(open_scenario(dict(name="x", roles=["a"], phases=[dict(speakers=["a"])])), dict(a=Tiny())).play()
    with pytest.raises(TaskError, match="does not belong"): language.read("YES_NO SRC_A ARG_9")


def test_shapley_values_of_the_trained_persuadee_are_each_words_own_term_and_chat_has_no_share():
    lm = wb.load("persuadee"); f = decides(lm, "YES_NO {prior} WISH_2 TRUST_A_3 TRUST_B_1 SRC_A {first} SRC_B {second} SRC_A {chat} SRC_A {last} ASK_BELIEF", ["ONE", "TWO"], scale="log_odds")
    x, none = dict(prior="PRIOR_2", first="ARG_5", second="ARG_1", chat="CHAT_1", last="ARG_4"), dict(prior="PRIOR_4", first="CHAT_0", second="CHAT_0", chat="CHAT_0", last="CHAT_0")
    values = shapley(f, x, none); told = dict(prior=-1., first=1.5, second=-1 / 3, chat=0., last=1.)
    assert abs(values.attrs["gap"]) < 1e-6 and np.abs(values.values - [told[str(k)] for k in values.field.values]).max() < .12 and noise_share([values], ["chat"])["share"] < .02
    fresh = wb.load(start(recipe("persuadee"))[0], tokenizer=lm.tokenizer, check=False); blank = decides(fresh, "YES_NO {prior} WISH_2 TRUST_A_3 TRUST_B_1 SRC_A {first} SRC_B {second} SRC_A {chat} SRC_A {last} ASK_BELIEF", ["ONE", "TWO"], scale="log_odds")
    assert noise_share([shapley(blank, x, none)], ["chat"])["share"] > .05


def _states(lm, rows, site):
    "(ids, states) of `rows` of dialogues with one question at the end."
    vocab = lm.tokenizer.get_vocab(); ids = torch.tensor(np.stack([np.full(len(rows), vocab["<bos>"])] + [np.array([vocab[w] for w in ws])[rows[:, i]] for i, ws in enumerate(persuadee.forms(4))], 1))
    return ids, lm.run(ids, keep=[site]).tensor(site)


def _feature_slope(lm, dictionary, rows, others, site, placebo=False):
    "Slope of the change of log odds when the features at PRIOR become those of the same dialogue with another prior (what the dictionary leaves out stays), against the exact change. `placebo`: a random change of equal length."
    (ids, old), (_, new) = _states(lm, rows, site), _states(lm, others, site); vocab = lm.tokenizer.get_vocab(); yes = lambda run: (run.last_logits[:, vocab["ONE"]] - run.last_logits[:, vocab["TWO"]]).double().numpy() * np.where(rows[:, 0] == 0, 1, -1)
    a, b = old[:, 2], new[:, 2]; by = dictionary.decode(dictionary.encode(b)) - dictionary.decode(dictionary.encode(a)); noise = torch.randn(by.shape, generator=torch.Generator().manual_seed(0))
    moved = a + (noise * by.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True) if placebo else by); change = yes(lm.run(ids, edits=[patch(Site(site.name, layer=0, pos=2), moved[:, None])])) - yes(lm.run(ids))
    exact = np.subtract(*(persuadee.errors(lm.model, lm.tokenizer, x)[0] for x in (others, rows))); return float(change @ exact / (exact @ exact))


def test_sparse_features_hold_the_levels_and_exchanging_them_moves_the_answer_as_the_formula_says():
    lm, site, rng = wb.load("persuadee"), Site("resid_post", layer=0), np.random.default_rng(0); draw = lambda n: persuadee.as_states(*language.draw_states(rng, n, corners=0.), np.zeros(n, int))
    v = _states(lm, draw(2000), site)[1].flatten(0, 1); options = dict(n_features=256, k=6, steps=300, batch=2048, lr=3e-3, seed=0, report_every=300); d = train(v[torch.randperm(len(v), generator=torch.Generator().manual_seed(0))], "topk", **options)
    rows = draw(500); others = rows.copy(); others[:, 1] = rng.integers(9, size=500); states, half = _states(lm, rows, site)[1], torch.arange(500) % 2 == 0
    r2 = [held_out_r2(d.encode(states[:, place]), torch.tensor(rows[:, place - 1], dtype=torch.float64), half) for place in (2, 4, 5)]; assert min(r2) > .95                  # nine priors, four levels of each trust
    assert .8 < _feature_slope(lm, d, rows, others, site) < 1.1 and _feature_slope(lm, d, rows, others, site, placebo=True) < .4    # noise wipes out some of the old prior, and that is half of the exact change
    fresh = wb.load(start(recipe("persuadee"))[0], tokenizer=lm.tokenizer, check=False); w = _states(fresh, draw(1000), site)[1].flatten(0, 1); assert abs(_feature_slope(fresh, train(w, "topk", **options | dict(steps=100, report_every=100)), rows, others, site)) < .2

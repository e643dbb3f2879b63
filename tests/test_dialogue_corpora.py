"""Loaders of published data against synthetic twins in the documented columns; choices and inferences against closed forms."""
import json

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats
from scipy.special import expit

from workbench.dialogue.corpora import TERMS, as_dialogue, load_choices13k, load_convokit, load_ctompersu, load_inverse_decisions, load_p4g, load_rct, reproduced
from workbench.dialogue.double_blind import tomma
from workbench.dialogue.errors import DialogueError
from workbench.dialogue.persuasion_rct import analysed, published, simulate
from workbench.dialogue.play import Dialogue, Said, view
from workbench.dialogue.rationality import ANCHORS, MODES, Chooser, anchors, asked, compared, ev, fit_beta, gamble_prompt, inverse_models, parse_choice, report, synthetic_gambles


def twin(folder, n=750, seed=1, broken=None):
    "A trial simulated from the published model, in the columns of the public csv."
    t = simulate(n, seed); side = np.where(np.arange(n) % 2 == 0, "PRO", "CON"); other = np.where(side == "PRO", "CON", "PRO"); plain = lambda v: np.where(other == "PRO", v, 6 - v)
    f = pd.DataFrame(dict(source_path="x", line_index=0, round_index=range(n), source_row_index=range(n), debate_id=t.debate.astype(float), treatment_type=t.treatment.astype(str), personalized=t.personalised == "yes", opponent_is_ai=t.opponent == "model", participant_side=side, opponent_side=other,
                          perceived_opponent="ai", topic="T", agreement_pre_likert=plain(t.pre), agreement_post_likert=plain(t.post), side_agreement_pre_likert=t.pre, side_agreement_post_likert=t.post))
    f["target_initial_belief"], f["target_final_belief"], f["persuader_supports_proposition"] = (f.agreement_pre_likert - 1) / 4, (f.agreement_post_likert - 1) / 4, f.opponent_side == "PRO"
    for k, (row, v) in (broken or {}).items(): f.loc[row, k] = v
    f.to_csv(folder / "trial.csv", index=False); return t


def test_the_trial_is_read_as_it_was_written_and_set_beside_the_published_numbers(tmp_path):
    t = twin(tmp_path); f = load_rct(tmp_path / "trial.csv"); assert all((f[c].astype(str) == t[c].astype(str)).all() for c in ("treatment", "opponent", "personalised", "pre", "post")) and f.attrs["terms"] == TERMS["rct"] and len(f) == 750
    r = reproduced(f); assert list(r.index) == list(published().index) and np.allclose(r.fitted_estimate - r.published_estimate, r.difference) and (abs(r.difference) < 4 * r.published_error).all() and analysed(f).loc["treatment[Human-AI, personalized]", "estimate"] == pytest.approx(r.fitted_estimate.iloc[-1], abs=1e-9)
    assert r.attrs["aic"] == pytest.approx(46 - 2 * r.attrs["log_likelihood"])


@pytest.mark.parametrize("broken, says", [(dict(side_agreement_post_likert=(3, 9)), "something else than 1 to 5"), (dict(agreement_pre_likert=(5, 1), side_agreement_pre_likert=(5, 2)), "does not fit agreement"), (dict(opponent_side=(0, "PRO")), "both are on the side PRO"), (dict(treatment_type=(1, "Human-Dog")), "not a treatment")])
def test_a_trial_that_contradicts_itself_is_refused(tmp_path, broken, says):
    if says == "does not fit agreement": twin(tmp_path); f = pd.read_csv(tmp_path / "trial.csv"); f.loc[5, "agreement_pre_likert"] = f.loc[5, "agreement_pre_likert"] % 5 + 1; f.to_csv(tmp_path / "trial.csv", index=False)
    else: twin(tmp_path, broken=broken)
    with pytest.raises(DialogueError, match=says): load_rct(tmp_path / "trial.csv")


def p4g(folder, info=True):
    rows = [("Good morning.", 0, 0), ("Hi, \"you\"?", 0, 1), ("Would you give?", 1, 0), ("Yes, 0.20.", 1, 1), ("Thank you!", 2, 0)]
    pd.DataFrame([dict(Unit=u, Turn=t, B4=r, B2=d) for d in ("a_live", "b_live", "c_live") for u, t, r in rows]).to_csv(folder / "full_dialog.csv")
    if info: pd.DataFrame([dict(B2=d, B3=f"user_{r}", B4=r, B6=g, B7=3, **{"extrovert.x": 3.2, "ideology.x": "Moderate"}) for d, gave in (("a_live", (0., .2)), ("b_live", (1., 0.))) for r, g in enumerate(gave)]).to_csv(folder / "full_info.csv", index=False)


def test_persuasion_for_good(tmp_path):
    p4g(tmp_path); c = load_p4g(tmp_path); assert len(c) == 3 and c.table.donates.tolist()[:2] == [1., 0.] and np.isnan(c.table.donates[2]) and "Apache-2.0" in repr(c)
    d = c["a_live"]; assert d.done and [e.role for e in d.messages] == ["persuader", "persuadee"] * 2 + ["persuader"] and d.messages[1].text == 'Hi, "you"?' and d.messages[3].data["turn_in_corpus"] == 1
    mine = view(d.scenario, d.tree, d.leaf, "persuadee", 0); assert mine.fields["persuadee_traits"]["extrovert"] == 3.2 and "persuader_traits" not in mine.fields and len(load_p4g(tmp_path, limit=2)) == 2
    (tmp_path / "full_info.csv").unlink(); assert "donates" not in load_p4g(tmp_path / "full_dialog.csv").table
    new = Dialogue(d.scenario, dict.fromkeys(d.scenario.roles, lambda v: Said("otherwise")), 0, tree=d.tree, leaf=d.leaf).edit(2, text="Would you not?").play(); assert [m.text for m in new.messages][2:] == ["Would you not?", "otherwise", "otherwise"] and d.messages[2].text == "Would you give?"
    with pytest.raises(DialogueError, match="is a recording"): d.edit(2, text="x").play()
    with pytest.raises(DialogueError, match="has no dialogue 7"): c[7]


STATE = lambda content, b="b", d="d": dict(content=content, belief=b, desire=d)
CASE = dict(tag="t", background="bg", persuadee="Ben", persuader="Ada", goal="persuade Ben", domain=["A", "B"], preventive=STATE("walk", "HIDDEN1", "HIDDEN2"), generative=STATE("film", "HIDDEN3", "HIDDEN4"))


def test_ctompersu_with_fragments_and_hidden_states(tmp_path):
    items = [dict(scenario=CASE, dialog=["persuader: A?", "persuadee: B.", "more of B", "Persuader: C.", "persuadee: D."]), dict(scenario={**CASE, "preventive": STATE("none", "none.", "none.")})]; f = tmp_path / "x.json"; f.write_text(json.dumps(items))
    c = load_ctompersu(f); assert c.table.turns.tolist() == [4, 0] and c.table.joined.tolist() == [1, 0] and c.table.preventive.tolist() == [True, False] and c[0].messages[1].text == "B. more of B"
    seen = view(c[0].scenario, c[0].tree, c[0].leaf, "persuader", 0); assert "HIDDEN" not in repr(seen) and repr(view(c[0].scenario, c[0].tree, c[0].leaf, "persuadee", 0)).count("HIDDEN") == 4
    assert len(tomma(c.cases[0]).turns) == 11 and len(tomma(c.cases[1]).turns) == 8
    with pytest.raises(DialogueError, match="mental states only"): c[1]
    f.write_text(json.dumps([dict(scenario=CASE, dialog=["A?"])]));
    with pytest.raises(DialogueError, match="names no speaker"): load_ctompersu(f)


def convokit(folder, rows, facts=None, name="utterances.jsonl"):
    folder.mkdir(exist_ok=True); (folder / name).write_text(json.dumps(rows) if name.endswith("json") else "\n".join(map(json.dumps, rows))); (folder / "conversations.json").write_text(json.dumps(facts or {})); return folder


def said(i, reply=None, who="ann", conv="u0", **more): return dict(id=i, conversation_id=conv, speaker=who, text=f"text {i}", reply_to=reply, timestamp=1, meta={}, **more)


def test_convokit_replies_become_branches(tmp_path):
    rows = [said("u0"), said("u1", "u0", "bob"), said("u2", "u0", "cleo"), said("u3", "u1"), said("u4", "u2", "bob"), said("v0", conv="v0", who="dan")]; c = load_convokit(convokit(tmp_path / "c", rows, {"u0": {"meta": {"title": "pets"}}}))
    assert c.table.turns.tolist() == [5, 1] and c.table.title[0] == "pets"; d = c["u0"]
    assert [e.text for e in d.messages] == ["text u0", "text u1", "text u3"] and {e.branch for e in d.tree} == {"main", "reply u2"} and d.done
    below = {e.data["utterance"]: e for e in d.tree}; assert all((e.parent == -1) == (r["reply_to"] is None) and (r["reply_to"] is None or e.parent == below[r["reply_to"]].id) for r in rows[:5] for e in [below[r["id"]]])
    old = [dict(id=r["id"], root=r["conversation_id"], user=r["speaker"], text=r["text"], **{"reply-to": r["reply_to"]}) for r in rows]; o = load_convokit(convokit(tmp_path / "old", old, name="utterances.json")); assert [e.text for e in o["u0"].tree] == [e.text for e in d.tree]
    assert len(load_convokit(tmp_path / "c", limit=2)["u0"].tree) == 2


@pytest.mark.parametrize("rows, says", [([said("u0"), said("u1", "u7")], "replies to u7"), ([said("u0"), said("u1", "u2"), said("u2", "u1")], "in a circle"), ([dict(id="u0", text="x", speaker="a")], "no conversation_id"), ([dict(text="x")], "has no id")])
def test_broken_convokit(tmp_path, rows, says):
    with pytest.raises(DialogueError, match=says): load_convokit(convokit(tmp_path / "c", rows))[0]


def test_written_corpora_come_back(tmp_path):
    export = pytest.importorskip("workbench.dialogue.export"); d = as_dialogue("two", [("a", "Hello.", None), ("b", "Hi.", None), ("a", "Bye.", None)])
    c = load_convokit(export.to_convokit(d, tmp_path / "out")); assert [m.text for m in c[0].messages] == ["Hello.", "Hi.", "Bye."] and [m.role for m in c[0].messages] == ["a", "b", "a"]


def test_choices13k_and_its_listed_gambles(tmp_path):
    rng = np.random.default_rng(0); n = 400; t = pd.DataFrame(dict(Problem=range(n), Feedback=rng.random(n) < .8, n=15, Block=2, Ha=rng.integers(-20, 40, n), pHa=rng.integers(1, 20, n) / 20, La=rng.integers(-20, 40, n), Hb=rng.integers(-20, 40, n), pHb=rng.integers(1, 20, n) / 20, Lb=rng.integers(-20, 40, n), LotShapeB=0, LotNumB=1, Amb=rng.random(n) < .2, Corr=0))
    d = t.Hb * t.pHb + t.Lb * (1 - t.pHb) - t.Ha * t.pHa - t.La * (1 - t.pHa); t["bRate"] = rng.binomial(15, expit(.1346 * d)) / 15; t["bRate_std"] = .4; t.to_csv(tmp_path / "c13k_selections.csv", index=False)
    (tmp_path / "p.json").write_text(json.dumps({str(i): dict(A=[[r.pHa, r.Ha], [1 - r.pHa, r.La]], B=[[1 - r.pHb, r.Lb], [r.pHb, r.Hb]]) for i, r in enumerate(t.itertuples())}))
    c = load_choices13k(tmp_path, tmp_path / "p.json"); assert np.allclose(c.ev_a, c.listed_ev_a) and np.allclose(c.ev_b, c.listed_ev_b) and (c.usable == (t.Feedback & ~t.Amb)).all() and np.allclose(c.ev_b - c.ev_a, d) and "cited" in c.attrs["terms"]
    a = anchors(c); u = c[c.usable]; du = u.ev_b - u.ev_a; assert list(a.known) == list(ANCHORS.values()) and a.here["rows"] == len(u) and abs(a.here["beta"] - .1346) < .03 and abs(a.here["mse of softmax"] - (expit(.1346 * du) * expit(-.1346 * du) / 15).mean()) < .002
    assert a.here["majority takes the higher EV, ties to B"] == pytest.approx(((du >= 0) == (u.bRate >= .5)).mean()) and a.here["mse of the maximiser"] == pytest.approx((((du >= 0) - u.bRate) ** 2).mean())


@pytest.mark.parametrize("load", [load_rct, load_choices13k, load_p4g, load_ctompersu, load_convokit, load_inverse_decisions])
def test_a_wrong_file_gets_one_sentence(tmp_path, load):
    f = tmp_path / "wrong.csv"; f.write_text("a,b\n1,2\n"); (tmp_path / "broken").write_bytes(b"\xff\xfe\x00{")
    for p in (f, tmp_path / "gone", tmp_path / "broken"):
        with pytest.raises(DialogueError) as e: load(p)
        assert str(e.value).count(". ") == 0 and str(e.value).endswith(".") and len(str(e.value)) < 400


def test_inverse_decisions_folder(tmp_path):
    (tmp_path / "positive_weak_to_strong.txt").write_text("x\nax/b\nx/a"); (tmp_path / "human_results_positive.txt").write_text("1.5\n2.5\n3"); d = load_inverse_decisions(tmp_path); assert d.decision.tolist() == ["x", "ax/b", "x/a"] and d.human_rank.sum() == 7
    (tmp_path / "human_results_positive.txt").write_text("1.5\n2.5")
    with pytest.raises(DialogueError, match="different versions"): load_inverse_decisions(tmp_path)


# --- rationality ---------------------------------------------------------------------------------------------------------
def test_the_maximiser_agrees_with_expected_value_everywhere_and_noise_is_found_again():
    t = synthetic_gambles(2000, 4); d = t.ev_b - t.ev_a; best = asked(Chooser(), t.head(150), "act"); assert compared(best, (d.head(150) >= 0).astype(float))["agreement"] == 1.0
    r = np.random.default_rng(0).binomial(20, expit(.1346 * d)) / 20; f = fit_beta(d, r); assert abs(f["beta"] - .1346) < .01 and abs(f["mse"] - (expit(.1346 * d) * expit(-.1346 * d) / 20).mean()) < 4e-4 and f["ev_mse"] > f["mse"]
    exact = fit_beta(d, expit(.5 * d)); assert abs(exact["beta"] - .5) < 1e-3 and exact["mse"] < 1e-9


@pytest.mark.parametrize("mode", MODES)
def test_swapping_the_machines_gives_the_same_shares(mode):
    t = synthetic_gambles(40, 1); a, b = (asked(Chooser(.1), t, mode, swap=s) for s in (False, True)); assert np.allclose(a, expit(.1 * (t.ev_b - t.ev_a))) and np.allclose(a, b)
    words = asked(lambda v: Said("B" if v.options else '{"A": 25, "B": 75}'), t, mode); assert (words == (.75 if mode == "people" else 1.)).all() and words.attrs["from_words"] == 40
    assert asked(lambda v: Said("I cannot say"), t, mode).isna().all()


def test_prompts_differ_in_who_chooses_and_as_released_asks_the_model_itself():
    g = [(.5, 10.), (.5, -3.)]; p = {m: gamble_prompt(g, [(1., 2.)], m) for m in MODES}; assert len(set(p.values())) == 3 and all("$10 with 50% chance" in v and "$2 with 100% chance" in v for v in p.values())
    assert "does the person choose" in p["person"] and "do you choose" in gamble_prompt(g, g, "person", conformance="as_released") and "do you choose" not in gamble_prompt(g, g, "person", cot=True, conformance="as_released")
    for text, mode, want in (("A", "act", 0.), ("Machine B.", "act", 1.), ('{"choice": "A"}', "person", 0.), ('Let me think about B. {"choice": "A"}', "person", 0.), ('{"A": 30, "B": 70}', "people", .7), ('"A": "12.5%", "B": "87.5%"', "people", .875)): assert parse_choice(text, mode) == pytest.approx(want)
    assert all(np.isnan(parse_choice(*x)) for x in (("A or B", "act"), ("neither", "act"), ("70", "people"), ('{"A": 0, "B": 0}', "people")))
    r = report(synthetic_gambles(60).assign(bRate=.5), dict(act=pd.Series(np.zeros(60)), person=pd.Series(np.ones(60)))); assert r["gap to act"].tolist()[:2] == [0., 1.]
    with pytest.raises(DialogueError, match="add up to"): ev([(.5, 1)])


def test_inverse_models_against_integrals_and_symmetry():
    m = inverse_models(["x", "dcbax", "x/a", "ax/bx", "x/a/b", "ax/b"], draws=200_000); sd = 2.; w = lambda f: integrate.quad(lambda t: f(t) * stats.norm.pdf(t, scale=sd), -30, 30)[0]
    assert abs(m.absolute["x/a"] - (4 + w(lambda t: t * expit(t)))) < .01 and abs(m.likelihood["x/a"] - 2) < 1e-9 and abs(m.likelihood["ax/bx"] - 2) < 1e-9 and abs(m.likelihood["x/a/b"] - 3) < .02
    assert abs(m.absolute["x"] - 4) < 1e-9 and abs(m.relative["dcbax"] - .2) < .004 and m.likelihood["x"] == pytest.approx(1) and abs(m.absolute["ax/bx"] - 4) < .01
    s = lambda t: stats.norm.pdf(t, scale=6 ** .5) * expit(4 + t); z = integrate.quad(s, -40, 40)[0]; e = integrate.quad(lambda t: (4 + t / 3) * s(t), -40, 40)[0] / z          # u_a + u_x - u_b = 4 + t, and E[u_x | t] = 4 + t / 3
    assert abs(m.likelihood["ax/b"] - 1 / z) < .002 and abs(m.absolute["ax/b"] - e) < .01
    n = inverse_models(["x/a"], "negative", 200_000); assert abs(n.absolute["x/a"] - (m.absolute["x/a"] - 8)) < 1e-9

"The dialogue simulator without a browser: what a page knows of a dialogue against the engine's views, quantiles and differences against numpy, a person's blindness, exports read back, doors to other rooms on micro; pure parts of the page in node."
import base64, gzip, io, json, os, re, subprocess, zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import logit

from conftest import ROOT
from test_front_end import node
from workbench import load
from workbench.dialogue.audit import random_scenario
from workbench.dialogue.errors import DialogueError
from workbench.dialogue.export import convokit, from_jsonl, to_convokit, to_jsonl
from workbench.dialogue.play import Dialogue, Said, hold, view
from workbench.dialogue.reading import Reading, reading, spanned
from workbench.dialogue.readout import moves, readout
from workbench.dialogue.scenario import open_scenario
from workbench.dialogue.scripted import Arguer, Bayesian
from workbench.experiments.design import Design
from workbench.widgets.base import Selection, WidgetError, css, esm, files_of, static
from workbench.widgets.dialogue_data import after, came_from, difference, eyes, importance, origin, panels, read_of, spread, statements, transcript, versions
from workbench.widgets.dialogue_picture import dialogue_figure, opinions_figure
from workbench.widgets.dialogue_simulator import DialogueSimulator, PersuasionSimulator
from workbench.widgets.society import SocietyView
from workbench.widgets.feature_data import opened
from workbench.widgets.packing import unpack

torch.set_num_threads(1)
CLAIM = """
name: one claim
roles:
  persuader: {}
  persuadee: {}
  observer: {heard_by: [persuader]}
fields:
  prior: {value: -1.0, visible: {persuadee: always}}
  trust: {value: 0.8, visible: {persuadee: always}}
  goal: {value: SECRET-GOAL, visible: {persuader: after 2}}
phases: [{name: talk, speakers: [persuader, persuadee], rounds: 3}, {name: advice, speakers: [observer, persuader]}]
measures: {agreement: {ask: "Do you agree?", of: persuadee, at: [start, each], options: ["yes", "no"]}}
"""


def agents(): return dict(persuader=Arguer((-.5, .5, 1.)), persuadee=Bayesian(), observer=lambda v: Said("WHISPER", note="PRIVATE-NOTE", meaning=dict(argument=0.)))
def sim(runs=6, **more): return DialogueSimulator(open_scenario(CLAIM), agents(), runs=runs, **more)
def talk(w, run=0, branch="main"): return opened(w.chunk(("talk", str(run), branch)))


class Lines:
    "An agent with weights in a few lines: micro reads what was said."
    def __init__(self, lm): self.lm, self.model = lm, lm.id
    def reading(self, v):
        text, marks = "<bos>", []
        for h in v.heard: marks.append((len(text) + 1, len(text) + 1 + len(h.text), h.turn, h.role)); text += " " + h.text
        if v.ask: marks.append((len(text) + 1, len(text) + 1 + len(v.ask), -2, "question")); text += " " + v.ask
        return Reading(self.lm, *spanned(self.lm, text, marks), v.role, v, tuple(self.lm.answer_id(o) for o in v.options))
    def __call__(self, v):
        r = self.reading(v); p = self.lm.run(r.ids[None]).last_logits.double().softmax(-1)[0]
        if v.ask: a, b = (float(p[i]) for i in r.answers[:2]); return Said(v.options[int(b > a)], belief=dict(model_logit=a / (a + b)), model=self.lm.id)
        return Said("I see.", model=self.lm.id)


TRIP = dict(name="trip", roles=["anna", "mark"], phases=[dict(name="talk", speakers=["anna", "mark"], rounds=2)], measures=dict(where=dict(ask="Anna lives in", of="mark", at=["each"], options=["Rome", "Paris"])))
def trip(lm): return open_scenario(TRIP), dict(anna=lambda v: Said("Anna lives in Rome."), mark=Lines(lm))


@pytest.fixture(scope="module")
def micro(): return load("micro")


# --- one visibility -------------------------------------------------------------------------------------------------------
def test_eyes_are_the_engines_views():
    "On random scenarios with hidden fields and whispers: at every number of messages the page's eyes hold what the view holds, no more and no less."
    rng, some = np.random.default_rng(0), 0
    for _ in range(25):
        s = random_scenario(rng, whisper=True); d = Dialogue(s, {r: (lambda v: Said(f"{v.role} {v.seed % 7}", note=f"of {v.role}")) for r in s.roles}).play()
        for role in s.roles:
            see = eyes(d, role)
            for t, leaf in enumerate([-1, *(e.id for e in d.messages)]):
                v = view(s, d.tree, leaf, role, 0); assert {n for n, k in see["fields"].items() if k <= t} == set(v.fields) and [k for k, at in see["heard"].items() if at <= t] == [h.turn for h in v.heard]
                some += len(s.fields) - len(v.fields) + t - len(v.heard)
            assert see["notes"] == [h.turn for h in v.heard if h.note is not None]
    assert some > 500, "something must be hidden for this to mean anything"


def test_remembered_questions_are_in_the_eyes_only_where_they_are_in_the_view():
    s = open_scenario(CLAIM); assert eyes(Dialogue(s, agents()).play(), "persuadee")["asked"] == []
    assert len(eyes(Dialogue(s, agents(), reacts=True).play(), "persuadee")["asked"]) == 9 and eyes(Dialogue(s, agents(), reacts=True).play(), "persuader")["asked"] == []


def test_a_transcript_is_the_tree():
    w = sim(); d = w.dialogues[2]; got = talk(w, 2); lines = got["lines"][1:]
    assert [(x["turn"], x["role"], x["text"], x["id"]) for x in lines] == list(d.transcript().itertuples(index=False, name=None)) or [(x["turn"], x["role"], x["text"], x["id"]) for x in lines] == [(e.turn, e.role, e.text, e.id) for e in d.messages]
    assert sum(len(x["answers"]) for x in got["lines"]) == sum(e.kind == "probe" for e in d.tree) and lines[6]["to"] == ["persuader"] and lines[6]["note"] == "PRIVATE-NOTE" and got["ended"] and got["difference"] is None
    assert all(0 <= i < len(got["whys"]) for x in lines for i in x["inside"]) and "persuadee (Bayesian)" in got["whys"][lines[0]["inside"][0]]


# --- beliefs --------------------------------------------------------------------------------------------------------------
def test_panels_are_numpys_quantiles_and_gaps_stay_gaps():
    held = hold(open_scenario(CLAIM), agents(), runs=15); p = panels(held); frame = pd.concat([d.beliefs().assign(run=d.run) for d in held])
    for panel in p:
        s = panel["parts"][0]["sources"][0]; wide = frame[(frame.role == panel["role"]) & (frame.measure == panel["measure"])].pivot(index="run", columns="turn", values="value").reindex(columns=range(9))
        np.testing.assert_allclose(np.array(s["values"], float), wide.to_numpy()); there = wide.notna().any().to_numpy()
        np.testing.assert_allclose(np.array(s["quantiles"])[:, there], np.nanquantile(wide.to_numpy()[:, there], (.05, .25, .5, .75, .95), axis=0)); assert np.isnan(np.array(s["quantiles"])[:, ~there]).all() and s["n"] == wide.notna().sum().tolist()
    assert not there.all() and opened(sim(15).chunk(("beliefs",)))[1]["parts"][0]["sources"][0]["values"][0][1] is None


def test_conditions_keep_their_runs():
    p = panels(hold(open_scenario(CLAIM), agents(), runs=6), ["a", "b", "a", "b", "b", "a"])[0]; assert [(x["label"], x["runs"]) for x in p["parts"]] == [("a", [0, 2, 5]), ("b", [1, 3, 4])]


def test_sources_are_never_mixed():
    def many(v): return Said("yes", belief=dict(closed_form=.2, model_logit=.4, verbal_report=.6))
    w = DialogueSimulator(open_scenario(CLAIM), {**agents(), "persuadee": many}, runs=2); p = w._beliefs()[0]["parts"][0]["sources"]
    assert [(s["source"], s["quantiles"][2][0]) for s in p] == [("closed_form", .2), ("model_logit", .4), ("verbal_report", .6)] and set(w.to_frame().source) == {"closed_form", "model_logit", "verbal_report"}


# --- branches -------------------------------------------------------------------------------------------------------------
def test_an_edit_is_a_branch_with_the_same_past_and_the_closed_form_difference():
    w = sim(); base = w.dialogues[1]; w.run = 1; new = w.edit(4, text="worse", meaning=dict(argument=-2.)); was = base.messages[4].data["meaning"]["argument"]
    assert new.messages[:4] == base.messages[:4] and w.branch == new.branch and w.turn == 5 and came_from(new) == base.messages[4] and origin(new).leaf == base.leaf
    d = difference(new, base); row = next(r for r in d["rows"] if r["measure"] == "agreement"); assert d["shared"] == 4 and d["streams"] and row["values"][:5] == [0.] * 5
    end = lambda x: logit(x.beliefs().query("measure == 'agreement'").value.iloc[-1]); assert end(new) - end(base) == pytest.approx(.8 * (-2. - was), abs=1e-10)
    frame = w.difference(); assert (frame.difference[frame.turn <= 4] == 0).all() and talk(w, 1, w.branch)["difference"]["shared"] == 4 and [b["at"] for b in talk(w, 1)["branches"]] == [None, 4]
    with pytest.raises(WidgetError, match="changes something"): w.edit(2)
    with pytest.raises(WidgetError, match="reads like this already"): w.edit(2, text=w.dialogue.messages[2].text)
    with pytest.raises(DialogueError, match="no message 40"): w.edit(40, text="x")
    w.run = 0; assert w.branch == "main"


def test_an_edit_of_an_edit_is_compared_with_the_edit():
    w = sim(); w.edit(2, meaning=dict(argument=-1.5)); first = w.branch; w.edit(4, meaning=dict(argument=2.)); assert w.branch != first and origin(w.dialogue).branch == first and difference(w.dialogue, origin(w.dialogue))["shared"] == 4


def test_importance_is_the_closed_form_and_leaves_the_tree_alone():
    w = sim(); d = w.dialogue; size = len(d.tree); rows = w.weigh(); belief = logit(d.beliefs().query("measure == 'agreement'").value.iloc[-1])
    for e, r in zip(d.messages, rows):
        a = (e.data["meaning"].get("argument") or 0.) if e.role == "persuader" else 0.; assert r["change"] == pytest.approx(1 / (1 + np.exp(-belief)) - 1 / (1 + np.exp(-(belief - .8 * a))), abs=1e-10)
    assert len(d.tree) == size and max(abs(r["change"]) for r in rows) > .01 and opened(w.chunk(("weights", "0", "main", "0", "closed_form")))[0]["turn"] == 0
    with pytest.raises(WidgetError, match="Not weighed"): w.chunk(("weights", "1", "main", "0", "closed_form"))


# --- a person in the seat ---------------------------------------------------------------------------------------------------
def everything(w): return json.dumps({k: getattr(w, k) for k in w.traits(sync=True) if not k.startswith("_") and k not in ("layout", "tabbable", "tooltip")}, default=str)


def test_a_person_is_given_the_view_and_nothing_else():
    "Nothing of another role, of a condition or of other runs is anywhere in what is sent to the page while a person sits."
    w = DialogueSimulator(hold(open_scenario(CLAIM), agents(), runs=3)); w._begin(w.dialogues, ["COND-A", "COND-B", "COND-A"], None, None, "CONSENT-TEXT", False, None, None, {}, False)
    assert "COND-A" in everything(w) and "SECRET-GOAL" in json.dumps(talk(w)); w.sit("persuadee"); assert w.seat["given"] is False and "heard" not in w.seat and "CONSENT-TEXT" in everything(w)
    with pytest.raises(WidgetError, match="consent"): w.answer("yes")
    w.heard(dict(kind="answer", text="yes")); assert "consent" in w.said and len(w._sitting["dialogue"].tree) == 0
    for key in (("talk", "0", "main"), ("beliefs",), ("file", "jsonl")):
        with pytest.raises(WidgetError, match="nothing else"): w.chunk(key)
    w.heard(dict(kind="edit", turn=0, text="x")); assert "nothing else can be done" in w.said; w.heard(dict(kind="consent", given=True)); asked = 0
    while not w.seat.get("done"):
        for secret in ("COND-", "SECRET-GOAL", "PRIVATE-NOTE", "WHISPER", "one claim", "closed_form\": "): assert secret not in everything(w), secret
        d = w._sitting["dialogue"]; v = view(d.scenario, d.tree, d.leaf, "persuadee", 0); assert w.seat["fields"] == {k: str(x) for k, x in v.fields.items()} and [(h["role"], h["text"]) for h in w.seat["heard"]] == [(h.role, h.text) for h in v.heard]
        if w.seat["waiting"] == "answer":
            asked += 1
            with pytest.raises(WidgetError, match="not one of yes, no"): w.answer("perhaps")
            with pytest.raises(WidgetError, match="from 0 to 1"): w.answer("yes", value=3)
            w.heard(dict(kind="answer", text="yes", value=.25 * (asked % 4)))
        else: w.heard(dict(kind="answer", text="I doubt it.", meaning=dict(agrees="False")))
    d = w.dialogue; b = d.beliefs(); assert set(b.source) == {"human_report"} and b.value.tolist() == [.25 * (i % 4) for i in range(1, 10)] and str(d.run) == "person-1" and len(w.dialogues) == 4 and w.run == 3
    mine = [e for e in d.tree if e.role == "persuadee"]; assert all(e.model == "person" and e.data["note"]["consent"] for e in mine) and [e.data["meaning"] for e in mine if e.kind == "message"] == [dict(agrees=False)] * 3 and "COND-A" in everything(w) and any("person took part" in s for s in w.meta["say"])


def test_who_leaves_takes_everything_along():
    w = sim(2); w.sit("persuader").consent(); w.answer("hello"); assert w._sitting is not None; w.leave(); assert w.seat == {} and len(w.dialogues) == 2 and "hello" not in everything(w) and w.meta["runs"]
    w.sit("persuader"); w.consent(False); assert w._sitting is None
    with pytest.raises(WidgetError, match="no role 'judge'"): w.sit("judge")
    w.sit("persuader")
    with pytest.raises(WidgetError, match="sits already"): w.sit("observer")


def test_the_time_of_a_turn_is_kept_and_the_limit_is_said():
    w = sim(1, seconds=30, late="send"); w.sit("persuadee")
    with pytest.raises(WidgetError, match="consent"): w.answer("yes")
    w.consent(); assert w.seat["limit"] == 30 and "sent as it stands" in w.seat["rule"]; w._sitting["since"] -= 40; w.answer("yes"); w._sitting["since"] -= 5; w.answer("no"); notes = [e.data["note"] for e in w._sitting["dialogue"].tree if e.model == "person"]
    assert 40 <= notes[0]["seconds"] < 45 and notes[0]["late"] and notes[0]["limit"] == 30 and 5 <= notes[1]["seconds"] < 10 and not notes[1]["late"]
    free = sim(1); free.sit("persuadee").consent(); free.answer("yes"); assert free.seat["limit"] is None and {"seconds", "consent"} == set(next(e.data["note"] for e in free._sitting["dialogue"].tree if e.model == "person"))
    phase = DialogueSimulator(open_scenario(CLAIM.replace("rounds: 3}", "rounds: 3, limits: {seconds: 180}}")), agents(), seconds=30); phase.sit("persuader").consent(); assert phase.seat["limit"] == 180, "a phase's own limit goes before the widget's"
    for bad, words in ((dict(seconds=0), "above 0"), (dict(late="cut"), "wait or send")):
        with pytest.raises(WidgetError, match=words): sim(1, **bad)


def test_numbers_as_options_are_placed_between_their_ends():
    s = open_scenario(CLAIM.replace('["yes", "no"]', "[1, 2, 3, 4, 5]")); w = DialogueSimulator(s, agents(), runs=1); w.sit("persuadee").consent(); w.answer("4"); d = w._sitting["dialogue"]; assert [e.belief for e in d.tree if e.kind == "probe"][0] == dict(human_report=.75)


# --- doors to other rooms ---------------------------------------------------------------------------------------------------
def test_attention_opens_on_what_was_read_with_the_turn_kept(micro):
    w = DialogueSimulator(*trip(micro), runs=1); d = w.dialogue; a = w.attention(0); r = reading(d, after(d, 0, "mark"), "mark")
    assert a.tokens("key") == r.tokens and a.locked == r.positions(0)[-3:] and a.side == "key" and [a.tokens("key")[i] for i in a.locked] == r.tokens[r.span(0).stop - 3:r.span(0).stop]
    w.heard(dict(kind="attention", turn=2)); assert w.said == "" and w._child.locked == read_of(d, 2).positions(2)[-3:]; w.heard(dict(kind="attention", turn=9)); assert "no message 9" in w.said


def test_patching_a_turn_compares_its_two_versions(micro):
    w = DialogueSimulator(*trip(micro), runs=1); assert talk(w)["whys"] and "edit this one first" in talk(w)["whys"][talk(w)["lines"][1]["inside"][1]]
    with pytest.raises(WidgetError, match="edit this one first"): w.patch(0)
    w.edit(0, text="Anna lives in Paris."); assert talk(w, 0, w.branch)["lines"][1]["inside"][1] is None and versions(w.dialogue, 0).branch == "main"
    g = w.patch(0, preview=False); one, two = read_of(w.dialogue, 0), read_of(w.dialogues[0], 0); own = one.positions(0); ids = [one.answers[0], one.answers[1]]
    gap = lambda r: float(np.subtract(*micro.run(r.ids[None]).last_logits[0, ids].double().tolist())); ds = g.result
    assert float(ds["clean_logit_difference"][0]) == pytest.approx(gap(one), abs=1e-4) and float(ds["corrupt_logit_difference"][0]) == pytest.approx(gap(two), abs=1e-4) and list(ds.pos.values) == own and gap(one) < gap(two)
    assert float(ds["recovery"].sel(site="resid_pre", layer=0).sel(pos=[p for p in own if one.ids[p] != two.ids[p]]).sum()) == pytest.approx(1., abs=1e-3), "one token differs, so its state at layer 0 is all there is"
    w.edit(0, text="Anna lives in the city of Paris.")
    with pytest.raises(WidgetError, match="tokens long"): w.patch(0)


def test_features_of_a_turn_are_those_that_fire_on_its_tokens(micro, tmp_path):
    from workbench.features import open_dictionary
    from workbench.features.records import FeatureStore
    from workbench.tasks import make
    w = DialogueSimulator(*trip(micro), runs=1)
    with pytest.raises(WidgetError, match="No dictionary is open for"): w.features(0)
    store = FeatureStore(micro, open_dictionary("micro/resid_post.2-topk"), make("ioi", n=20).prompts, tmp_path/"s").collect(); w = DialogueSimulator(*trip(micro), runs=1, features=store); b = w.features(0); r = read_of(w.dialogue, 0)
    x = store.dictionary.encode(micro.run([r.ids.tolist()], keep="resid_post.2").tensor("resid_post.2")[0].float())[r.positions(0)].amax(0); assert b.pins == x.topk(len(b.pins)).indices.tolist() and b.feature == b.pins[0] and talk(w)["lines"][1]["inside"][2] is None


def test_without_weights_each_door_says_why():
    w = sim(1); w.heard(dict(kind="attention", turn=0)); assert re.search(r"Nobody who took part in message 0 has weights here: .*persuadee \(Bayesian\).*Give a role a model", w.said)


def test_the_tiny_persuadee_opens_every_door():
    tiny = pytest.importorskip("workbench.dialogue.tiny")
    soup = open_scenario(dict(name="soup", roles=["persuader", "persuadee"], fields=dict(topic="soup for all", prior=dict(value=-1., visible=dict(persuadee="always")), wish=dict(value=-1., visible=dict(persuadee="always")), trust=dict(value=dict(A=1., B=0.), visible=dict(persuadee="always"))), phases=[dict(name="talk", speakers=["persuader", "persuadee"], rounds=2)], measures=dict(belief=dict(ask="Do you agree?", of="persuadee", at=["start", "each"], options=["yes", "no"]))))
    w = DialogueSimulator(soup, dict(persuader=Arguer((1.,)), persuadee=tiny.Tiny(oracle=True)), runs=1); assert w.meta["say"][1].startswith("The tiny model") and {s["source"] for s in w._beliefs()[0]["parts"][0]["sources"]} == {"closed_form", "model_logit"}
    a = w.attention(0); assert [a.tokens("key")[i] for i in a.locked][0] == "SRC_A" and len(a.locked) == 2; w.edit(0, meaning=dict(argument=-1.)); d = w.difference().query("source == 'closed_form' and measure == 'belief' and turn == 1").difference.iloc[0]; m = w.difference().query("source == 'model_logit' and measure == 'belief' and turn == 1").difference.iloc[0]
    assert d < -.2 and m == pytest.approx(d, abs=.1); g = w.patch(0, preview=False).result.recovery.sel(site="resid_pre").squeeze(); assert float(g.sel(layer=0).sum()) == pytest.approx(1, abs=1e-3) and list(g.pos.values) == read_of(w.dialogue, 0).positions(0)


# --- token by token ---------------------------------------------------------------------------------------------------------
def monologue(*said, **own):
    from workbench.dialogue.tiny import Tiny, meaning_of
    s = open_scenario(dict(name="soup", roles=["persuader", "persuadee"], fields={k: dict(value=v, visible=dict(persuadee="always")) for k, v in (dict(prior=-1., wish=0., trust=dict(A=1., B=0.)) | own).items()}, phases=[dict(name="talk", speakers=["persuader"], rounds=len(said))], measures=dict(belief=dict(ask="Do you agree?", of="persuadee", at=["start", "each"], options=["yes", "no"]))))
    return Dialogue(s, dict(persuader=lambda v: Said("", tokens=said[v.said], meaning=meaning_of(said[v.said])), persuadee=Tiny(oracle=True))).play()


@pytest.fixture(scope="module")
def soup(): return monologue(("SRC_A", "ARG_4"), ("SRC_A", "CHAT_2"), ("SRC_B", "ARG_0"), ("SRC_A", "ARG_1"))


def test_belief_between_words_ends_where_the_oracle_is(soup):
    "After each move the read-out is the answer that the dialogue itself got, and near the closed form; a remark and a source without trust leave it where it was."
    b = soup.beliefs().pivot(index="turn", columns="source", values="value"); read = [readout(soup, k) for k in range(4)]
    for k, r in enumerate(read): assert float(r.belief[-1]) == pytest.approx(b.model_logit[k + 1], abs=1e-6) and float(r.belief[-1]) == pytest.approx(b.closed_form[k + 1], abs=.1) and float(r.log_odds[0]) == pytest.approx(logit(b.model_logit[k]), abs=1e-5) and r.token.values.tolist()[1:] == list(soup.messages[k].tokens) and r.attrs["source"] == "model_logit"
    assert float(moves(read[0])[1]) == pytest.approx(1., abs=.12) and float(moves(read[3])[1]) == pytest.approx(-1., abs=.12) and max(abs(float(v)) for k in (1, 2) for v in moves(read[k])) < .12
    turned = Dialogue(open_scenario(dict(name="soup", roles=["persuader", "persuadee"], fields=dict(prior=dict(value=2., visible=dict(persuadee="always"))), phases=[dict(name="talk", speakers=["persuader"])], measures=dict(belief=dict(ask="Do you agree?", of="persuadee", at=["each"], options=["no", "yes"])))), soup.agents).play()
    assert .7 < float(readout(turned, 0).belief[-1]) == pytest.approx(turned.beliefs().query("source == 'model_logit'").value.iloc[0], abs=1e-6) and float(readout(turned, 0).log_odds[-1]) > 1, "yes counts as 1 in whatever order the options are given"


def test_words_travel_on_one_scale(soup):
    w = DialogueSimulator([soup]); out = w.words(); got = opened(w.chunk(("words", "0", "main", "0"))); assert [m["turn"] for m in got["messages"]] == [0, 1, 2, 3] and got["reads"] == "belief if asked here" and got["source"] == "model_logit"
    assert got["most"] == pytest.approx(max(float(abs(moves(r)).max()) for r in out), rel=1e-3) and got["messages"][3]["tokens"] == ["SRC_A", "ARG_1"] and "words|0|main|0" in w.to_html() and w.meta["inside"] == ["persuadee"]
    with pytest.raises(WidgetError, match="Not read yet"): w.chunk(("words", "0", "main", "1"))
    plain = sim(1); plain.heard(dict(kind="words")); assert "Bayesian" in plain.said and "no belief can be read between two words" in plain.said


# --- two conditions ---------------------------------------------------------------------------------------------------------
def test_conditions_are_compared_by_pairs_where_there_are_pairs():
    "Pairs: the mean over runs of b minus a, and the same interval as experiments gives. Other names: two groups, a wider band. Turns without values stay empty."
    from workbench.dialogue.conditions import belief_array
    from workbench.experiments.paired import mean_difference, mean_interval
    a, b, c = (hold(open_scenario(CLAIM), {**agents(), "persuader": Arguer(s)}, names) for s, names in (((-.5, .5, 1.), range(12)), ((.5, 1., 2.), range(12)), ((.5, 1., 2.), [f"x{i}" for i in range(12)])))
    w = DialogueSimulator([*a, *b], conditions=["a"] * 12 + ["b"] * 12); p = opened(w.chunk(("beliefs",)))[0]; g = p["gaps"]; x, y = (belief_array(z, "persuadee", "agreement") for z in (a, b)); i = mean_interval((y - x).values)
    assert len(g) == 1 and (g[0]["of"], g[0]["minus"], g[0]["paired"]) == ("b", "a", True) and g[0]["n"] == [12] * 9 and np.array(g[0]["values"]) == pytest.approx((y - x).mean("run").values, abs=1e-4) and np.array([g[0]["low"], g[0]["high"]]) == pytest.approx(np.array([i.low, i.high]), abs=1e-4)      # what travels has four digits
    other = DialogueSimulator([*a, *c], conditions=["a"] * 12 + ["c"] * 12)._beliefs()[0]["gaps"][0]; j = mean_difference(belief_array(c, "persuadee", "agreement").values, x.values); assert not other["paired"] and np.array(other["low"]) == pytest.approx(j.low, abs=1e-4) and other["high"][8] - other["low"][8] > g[0]["high"][8] - g[0]["low"][8]
    own = opened(w.chunk(("beliefs",)))[1]["gaps"][0]; assert own["values"][1] is own["low"][1] is None and own["values"][2] is not None and opened(sim(3).chunk(("beliefs",)))[0]["gaps"] == []
    with pytest.raises(WidgetError, match="hold each condition first"): DialogueSimulator(open_scenario(CLAIM), agents(), conditions=["a"])


# --- persuasion and trials --------------------------------------------------------------------------------------------------
def condition(s, a, row): return s.having(goal=f"for {row['strength']}"), {**a, "persuader": Arguer((1.,) if row["strength"] == "strong" else (0.,))}


def test_a_trial_is_the_allocation_and_the_tables_it_was_given():
    design = Design(dict(strength=["weak", "strong"]), blocks=dict(topic=["a", "b"]), reps=3, seed=5); seen = []
    def analysis(f): seen.append(f); return {"a name": pd.DataFrame(dict(estimate=[1.23, np.nan], low=[.5, np.nan], high=[2., np.nan], p=[.01, np.nan]), index=["x", "y"])}
    w = PersuasionSimulator(open_scenario(CLAIM), agents(), design=design, apply=condition, analysis=analysis, plan="CONFIRMATORY (abc)"); table = design.allocate(); f = w.frame()
    assert f[["run", "block", "strength", "topic", "seed"]].equals(table[["run", "block", "strength", "topic", "seed"]]) and len(seen) == 1 and f.post.groupby(f.strength).mean()["weak"] == pytest.approx(f.pre.iloc[0]) and (f.post[f.strength == "strong"] > .5).all()
    m = w.meta["trial"]; assert m["plan"] == "CONFIRMATORY (abc)" and [r[0] for r in m["rows"]] == [str(i) for i in range(12)] and "seed" not in m["columns"] and m["forests"][0]["rows"] == [dict(label="x", estimate=1.23, low=.5, high=2., p=.01, odds_ratio=None), dict(label="y", estimate=None, low=None, high=None, p=None, odds_ratio=None)]
    assert [f["value"] for f in talk(w, 2)["fields"] if f["name"] == "goal"] == [f"for {table.strength[2]}"] and [x["label"] for x in w._beliefs()[0]["parts"]] == list(dict.fromkeys(f"strength {s}" for s in table.strength)); w.sit("persuadee").consent(); assert "strength" not in everything(w) and "strong" not in everything(w)
    with pytest.raises(WidgetError, match="apply="): PersuasionSimulator(open_scenario(CLAIM), agents(), design=design)


def test_a_scenario_that_asks_nobody_gets_a_question():
    quiet = open_scenario(CLAIM.replace("measures:", "#")); w = PersuasionSimulator(quiet, agents(), persuadee="persuadee", runs=2); assert [(p["role"], p["measure"]) for p in w._beliefs()][0] == ("persuadee", "agreement") and w.meta["trial"] is None


# --- traits and pages -------------------------------------------------------------------------------------------------------
def test_what_is_refused_is_one_sentence():
    w = sim(3)
    for name, bad, words in (("run", 3, "3 runs"), ("branch", "other", "has main"), ("turn", 9, "8 messages"), ("eyes", "judge", "persuader, persuadee, observer"), ("panel", 7, "there are 2")):
        with pytest.raises(WidgetError, match=words): setattr(w, name, bad)
    with pytest.raises(WidgetError, match="Who speaks"): DialogueSimulator(open_scenario(CLAIM))
    w.turn, w.eyes = 3, "observer"; other = sim(3).restore(w.state()); assert other.state() == w.state(); a, b = sim(3), sim(3); Selection().join(a, b); a.run = 2; assert b.run == 2


def test_a_failing_agent_is_told_and_the_others_go_on():
    def broken(v):
        if v.seed % 2: raise ValueError("no such thing")
        return Said("yes")
    w = DialogueSimulator(open_scenario(CLAIM), {**agents(), "persuadee": broken}, runs=8); assert "failed, the first: ValueError: no such thing" in w.status["text"] and any(r["failed"] for r in w.meta["runs"])


def test_a_page_says_what_must_be_said_and_holds_the_runs():
    w = sim(4, run=2); text = w.to_html(); assert "true of that defined world" in text and "says nothing about people or about language models" in text and "three outcomes" in text and not re.search(r"https?://", text.replace("http://www.w3.org", ""))
    data = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.S)[1]); assert {"beliefs", "talk|2|main", "talk|0|main", "file|jsonl", "file|convokit"} <= set(data["chunks"]) and data["state"]["meta"]["live"] is False
    assert text.count("<details>") > 8 + 9 and "asked on the side: persuadee" in text and w.rows()[0][0] == "turn" and len(w.rows()) == 10 and statements(w.dialogues) == w.meta["say"]


def test_what_travels_is_small():
    for name in ("dialogue", "society"): assert len(esm(name)) <= 25_000 and len(css(name)) <= 10_000
    for page in ("dialogue.js", "society.js"): _names_are_said_once(page)


def _names_are_said_once(page):
    names = [n for f in files_of(page) for n in re.findall(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", static(f), re.M)]; assert len(names) == len(set(names))


def test_pictures():
    from workbench.dialogue.opinions import hegselmann_krause
    w = sim(5); assert w.to_png()[:4] == b"\x89PNG" and "<svg" in w.to_svg(dark=True)[:900]; d = hegselmann_krause(np.random.default_rng(0).random(40), .15); image = opinions_figure(d).axes[0].images[0].get_array()
    assert image.shape == (40, d.sizes["step"]) and (np.diff(np.asarray(image)[:, -1]) >= 0).all() and sorted(np.asarray(image)[:, 0]) == sorted(d.values[0])
    with pytest.raises(WidgetError, match="dims step and agent"): opinions_figure(d.rename(step="time"))
    assert dialogue_figure(w.scenario, Dialogue(w.scenario, agents()), None).axes[0].texts[0].get_text() == "nothing was said yet"


def test_a_society_travels_as_it_is():
    "Cells decode to the values, ranks keep each strategy with its score, counts are numpy's, and what cannot be shown is refused."
    from workbench.dialogue.donor import DonorRules, donor_seeds, strategies_of
    from workbench.dialogue.opinions import hegselmann_krause
    x = hegselmann_krause(np.random.default_rng(0).random(50), .12); w = SocietyView(x, marks={"mean": .5}); s = opened(w.chunk(("spread", "0"))); back = s["low"] + unpack(w.chunk(("cells", "0")))[0] * (s["high"] - s["low"])
    assert np.allclose(back, x.values.T, atol=6e-4) and s["counts"] == [np.histogram(r, 30, (float(x.min()), float(x.max())))[0].tolist() for r in x.values] and s["marks"]["mean"] == pytest.approx((.5 - s["low"]) / (s["high"] - s["low"]), abs=1e-3) and not s["ranks"]
    game = donor_seeds(strategies_of("image 0.5, defects"), DonorRules(agents=24, generations=5), 2); g = SocietyView(game, colour="label"); s = opened(g.chunk(("spread", "1"))); score, kind = unpack(g.chunk(("cells", "1"))); score = 10 ** (s["low"] + score * (s["high"] - s["low"])) if s["log"] else s["low"] + score * (s["high"] - s["low"])
    for k in range(5): assert np.allclose(sorted(game.score[1, k].values), score[:, k], rtol=.01) and [int((kind[:, k] == i).sum()) for i in (0, 1)] == [int((game.strategy[1, k] == n).sum()) for n in g.labels] and g.labels[int(kind[-1, k])] in game.strategy[1, k].values[game.score[1, k].values == game.score[1, k].values.max()]
    assert s["ranks"] and {k for k in g._page_data()["chunks"]} == {"cells|0", "spread|0", "cells|1", "spread|1"} and g.to_png()[:4] == b"\x89PNG" and SocietyView(x).restore(w.state()).state() == w.state()
    for more, words in ((dict(step=99), "steps"), (dict(agent=50), "50 agents"), (dict(order="best"), "last, first, given"), (dict(colour="label"), "colour='label': value")):
        with pytest.raises(WidgetError, match=words): SocietyView(x, **more)
    with pytest.raises(WidgetError, match="dims step and agent"): SocietyView(game.mean_score)


def test_pure_functions_in_node(tmp_path):
    (tmp_path/"f.json").write_text(json.dumps(dict(panel=opened(sim(9).chunk(("beliefs",))))))
    done = subprocess.run([node(), "--test", str(ROOT/"tests"/"js"/"talk.test.mjs")], capture_output=True, text=True, env=os.environ | {"FIXTURE": str(tmp_path/"f.json")}, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"pass (\d+)", done.stdout)[1]) == (ROOT/"tests"/"js"/"talk.test.mjs").read_text().count("\ntest(")


# --- exports ----------------------------------------------------------------------------------------------------------------
def test_jsonl_comes_back_whole(tmp_path):
    w = sim(3); w.edit(2, text="שלום 👑\nline", meaning=dict(argument=-1.)); back = from_jsonl(w.to_jsonl(tmp_path/"x.jsonl"))
    assert {k: list(t) for k, t in back.items()} == {str(d.run): list(d.tree) for d in w.dialogues} and (tmp_path/"x.jsonl").read_text().count("\n") == sum(len(d.tree) for d in w.dialogues)
    lines = (tmp_path/"x.jsonl").read_text().splitlines(); (tmp_path/"y.jsonl").write_text("\n".join([lines[0], *lines[2:]]))
    with pytest.raises(DialogueError, match="line 2: event 2 of this run is out of order"): from_jsonl(tmp_path/"y.jsonl")
    (tmp_path/"z.jsonl").write_text(lines[0] + "\n{nothing")
    with pytest.raises(DialogueError, match="line 2: this is no event"): from_jsonl(tmp_path/"z.jsonl")
    with pytest.raises(DialogueError, match="Run 0 is there twice"): to_jsonl([w.dialogues[0]] * 2, tmp_path/"a")
    assert w.chunk(("file", "jsonl")).data.decode() == (tmp_path/"x.jsonl").read_text()


def test_a_convokit_corpus_keeps_the_documented_rules(tmp_path):
    "Six mandatory fields, ids unique, each conversation one tree whose root's id it bears, replies within it; speakers and conversations with meta and vectors; every key of metadata in the index."
    w = sim(3); w.edit(2, meaning=dict(argument=-1.)); w.edit(0, text="another beginning", meaning=dict(argument=0.)); folder = w.to_convokit(tmp_path/"corpus"); assert sorted(f.name for f in folder.iterdir()) == ["conversations.json", "corpus.json", "index.json", "speakers.json", "utterances.jsonl"]
    said = [json.loads(x) for x in (folder/"utterances.jsonl").read_text().splitlines()]; get = lambda n: json.loads((folder/n).read_text()); by = {u["id"]: u for u in said}
    assert len(by) == len(said) == sum(e.kind == "message" for d in w.dialogues for e in d.tree) and all(set(u) >= {"id", "speaker", "conversation_id", "reply-to", "reply_to", "timestamp", "text", "meta", "vectors"} for u in said)
    for u in said:
        up = u
        while up["reply-to"] is not None: assert up["conversation_id"] == u["conversation_id"] and by[up["reply-to"]]["timestamp"] == up["timestamp"] - 1; up = by[up["reply-to"]]
        assert up["id"] == u["conversation_id"]
    roots = [u["id"] for u in said if u["reply-to"] is None]; assert set(get("conversations.json")) == set(roots) and len(roots) == 4 and set(get("speakers.json")) == {u["speaker"] for u in said}
    index = get("index.json"); assert {"utterances-index", "speakers-index", "conversations-index", "overall-index", "version", "vectors"} <= set(index)
    for objects, key in ((said, "utterances-index"), (get("speakers.json").values(), "speakers-index"), (get("conversations.json").values(), "conversations-index")):
        for o in objects: assert set(o["meta"]) == set(index[key]) and o["vectors"] == [] and all(str(type(v)) in index[key][k] for k, v in o["meta"].items())
    assert next(iter(get("conversations.json").values()))["meta"]["hidden_from"]["goal"] == ["persuadee", "observer"] and sum(u["meta"]["edited"] for u in said) == 2
    with zipfile.ZipFile(io.BytesIO(w.chunk(("file", "convokit")).data)) as z: assert {n.split("/")[1]: z.read(n).decode() for n in z.namelist()} == {f: t for f, t in convokit(w.dialogues, "one claim").items()}
    with pytest.raises(DialogueError, match="Nothing was said"): to_convokit(Dialogue(open_scenario(CLAIM), agents()), tmp_path/"n")

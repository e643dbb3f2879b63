"""The turn engine: views, branches, questions on the side, kills, leaks; scripted beliefs against closed forms."""
import hashlib
import itertools
import json
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from scipy.special import expit, logit

from workbench.dialogue.audit import audit, random_scenario
from workbench.dialogue.donor import DonorRules, Game, Gives, ImageScoring, donor_game, donor_seeds, schedule
from workbench.dialogue.errors import DialogueError
from workbench.dialogue.events import Events, seed_of
from workbench.dialogue.opinions import clusters, deffuant, degroot, friedkin_johnsen, hegselmann_krause, influence, settled
from workbench.dialogue.play import Dialogue, Said, hold, view
from workbench.dialogue.scenario import open_scenario
from workbench.dialogue.scripted import Arguer, Bayesian, force, network

DEBATE = dict(name="one claim", roles=["persuader", "persuadee"], fields=dict(prior=dict(value=-1.0, visible=dict(persuadee="always")), trust=dict(value=.8, visible=dict(persuadee="always")), goal=dict(value="agree", visible=dict(persuader="after 2"))),
              phases=[dict(name="talk", speakers=["persuader", "persuadee"], rounds=4)], measures=dict(agreement=dict(ask="Do you agree?", of="persuadee", at=["start", "each"])))


def agents(): return dict(persuader=Arguer(stop_at_yes=True), persuadee=Bayesian())
def everything(v): return Said(hashlib.sha256(repr(v).encode()).hexdigest()[:8])


def test_a_view_holds_what_the_map_shows_and_nothing_else():
    s = open_scenario(DEBATE); talk = Dialogue(s, agents()).play(); seen = [view(s, talk.tree, -1 if k == 0 else talk.messages[k - 1].id, "persuader", 0) for k in range(4)]
    assert [sorted(v.fields) for v in seen] == [[], [], ["goal"], ["goal"]] and [len(v.heard) for v in seen] == [0, 1, 2, 3]
    assert all("belief" not in repr(v) and "closed_form" not in repr(v) and "Do you agree" not in repr(v) for v in seen)
    own = view(s, talk.tree, talk.leaf, "persuadee", 0); assert own.fields == dict(prior=-1.0, trust=.8) and not any(h.asked for h in own.heard)
    asked = view(s, talk.tree, talk.leaf, "persuadee", 0, reacts=True); assert sum(bool(h.asked) for h in asked.heard) == 9


def test_notes_are_heard_by_their_own_role_alone():
    s = open_scenario(dict(name="n", roles=["a", "b"], phases=[dict(speakers=["a", "b"], rounds=2)])); seen = {"a": [], "b": []}
    def agent(v): seen[v.role].append([h.note for h in v.heard]); return Said("x", note=f"{v.role}{v.said}")
    Dialogue(s, dict(a=agent, b=agent)).play(); assert seen == {"a": [[], ["a0", None]], "b": [[None], [None, "b1", None]]}


def test_beliefs_are_the_closed_form_and_a_changed_turn_moves_them_by_trust_times_the_change():
    talk = Dialogue(open_scenario(DEBATE), agents(), run=3).play(); b = talk.beliefs().query("measure == 'agreement'"); total = -1.0
    assert b.value.iloc[0] == pytest.approx(expit(-1.0)) and set(b.source) == {"closed_form"} and len(b) == 9
    for m, v in zip(talk.messages, b.value[1:]): total += .8 * (m.data["meaning"].get("argument", 0)); assert v == pytest.approx(expit(total), abs=1e-12)
    m = talk.messages[4]; new = talk.edit(m, meaning=dict(argument=2.0))
    calm = {**agents(), "persuader": Arguer()}; free, changed = Dialogue(open_scenario(DEBATE), calm, run=3).play(), None
    changed = free.edit(4, meaning=dict(argument=2.0)).play(); was = free.messages[4].data["meaning"]["argument"]; end = lambda d: logit(d.beliefs().value.iloc[-1])
    assert changed.messages[:4] == free.messages[:4] and [x.seed for x in changed.messages] == [x.seed for x in free.messages] and abs(end(changed) - end(free) - .8 * (2.0 - was)) < 1e-10
    assert len(new.messages) == 5 and new.branch != "main" and talk.messages[4] == m


def test_asking_changes_nothing_unless_it_is_meant_to():
    s = open_scenario(DEBATE); silent = open_scenario(DEBATE | dict(measures={})); listens = lambda v: Said(str(len(v.heard)), belief=dict(verbal_report=float(len(v.heard))))
    texts = lambda scenario, **more: Dialogue(scenario, dict(persuader=Arguer(), persuadee=listens), **more).play().transcript().text.tolist()
    assert texts(s) == texts(silent) and texts(s, reacts=True) != texts(silent)


def test_the_order_of_events_does_not_decide_about_randomness():
    assert len({seed_of(run, role, turn) for run in range(20) for role in "abc" for turn in range(20)}) == 1200 and seed_of(1, "a", 2) == seed_of(1, "a", 2)
    one, many = Dialogue(open_scenario(DEBATE), agents(), run=7).play(), hold(open_scenario(DEBATE), agents(), runs=9)[7]
    assert one.transcript().equals(many.transcript()) and len({tuple(d.transcript().text) for d in hold(open_scenario(DEBATE), agents(), runs=9)}) > 3


CHILD = """
import os, signal, sys, time
from workbench.dialogue.play import Dialogue
from workbench.dialogue.scenario import open_scenario
from workbench.dialogue.scripted import Arguer, Bayesian
import json
for i, e in enumerate(Dialogue(open_scenario(json.loads(sys.argv[1])), dict(persuader=Arguer(stop_at_yes=True), persuadee=Bayesian()), run=5, path=sys.argv[2]).steps()):
    if i == int(sys.argv[3]): os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_at_any_point_loses_and_repeats_nothing(tmp_path):
    whole = list(Dialogue(open_scenario(DEBATE), agents(), run=5).play().tree)
    child = subprocess.run([sys.executable, "-c", CHILD, json.dumps(DEBATE), str(tmp_path/"k.jsonl"), "6"]); assert child.returncode == -signal.SIGKILL
    assert list(Dialogue(open_scenario(DEBATE), agents(), run=5, path=tmp_path/"k.jsonl").play().tree) == whole      # a real one
    raw = (tmp_path/"k.jsonl").read_bytes()
    for cut in range(0, len(raw), 37):                                                                                 # and a file that ends anywhere
        (tmp_path/"c.jsonl").write_bytes(raw[:cut]); assert list(Dialogue(open_scenario(DEBATE), agents(), run=5, path=tmp_path/"c.jsonl").play().tree) == whole
    assert list(Events(tmp_path/"c.jsonl")) == whole


def test_a_branch_is_taken_up_again_after_a_kill(tmp_path):
    s = open_scenario(DEBATE); talk = Dialogue(s, agents(), path=tmp_path/"b.jsonl").play(); steps = talk.edit(2, meaning=dict(argument=-3.0)).steps(); next(steps); next(steps); steps.close()
    again = Events(tmp_path/"b.jsonl"); branch = [e for e in again if e.kind == "message"][-1].branch
    taken = Dialogue(s, agents(), tree=again, branch=branch).play(); fresh = Dialogue(s, agents()).play().edit(2, meaning=dict(argument=-3.0)).play()
    assert taken.transcript().text.tolist() == fresh.transcript().text.tolist() and np.allclose(taken.beliefs().value, fresh.beliefs().value)


def test_one_agents_failure_stays_where_it_is(tmp_path):
    def shaky(v):
        if v.seed % 3 == 0 and not (tmp_path/"well").exists(): raise ConnectionError("the server is away")
        return Arguer()(v)
    s = open_scenario(DEBATE); held = hold(s, dict(persuader=shaky, persuadee=Bayesian()), 12, tmp_path/"runs"); bad = [d for d in held if d.failure]
    assert 0 < len(bad) < 12 and all("server is away" in d.failure and not d.done for d in bad) and all(d.done for d in held if d not in bad)
    (tmp_path/"well").touch(); assert all(d.done and not d.failure for d in hold(s, dict(persuader=shaky, persuadee=Bayesian()), 12, tmp_path/"runs"))


@pytest.mark.parametrize("seed", range(4))
def test_agents_that_use_their_whole_view_leak_nothing(seed):
    for i in range(15):
        s = random_scenario(np.random.default_rng([seed, i])); assert audit(s, {r: everything for r in s.roles}, runs=1, seed=i).leaks.sum() == 0


def test_whispers_are_leaks_and_are_named():
    found = 0
    for i in range(60):
        s = random_scenario(np.random.default_rng([9, i]), whisper=True); t = audit(s, {r: everything for r in s.roles}, runs=1, seed=i); found += int(t.leaks.sum())
        assert t[t.leaks > 0].channel.str.contains("said it to").all()
    assert found > 5


def test_the_observer_of_the_double_blind_protocol_fails_in_advice_mode_and_passes_without():
    base = dict(name="double blind", roles=dict(persuader=None, persuadee=None, observer=dict(heard_by=["persuader"])), fields=dict(desire=dict(value="warmth", visible=dict(persuadee="always", observer="always"))),
                phases=[dict(speakers=["persuadee", "observer", "persuader"], rounds=2)])
    persuadee = lambda v: Said("Convince me."); persuader = lambda v: Said("About " + next((h.text for h in reversed(v.heard) if h.role == "observer"), "nothing"))
    play = lambda observer: audit(open_scenario(base), dict(persuader=persuader, persuadee=persuadee, observer=observer)).set_index("hidden_from").loc["persuader"]
    advice, off = play(lambda v: Said(v.fields["desire"])), play(lambda v: Said("Go on."))
    assert advice.leaks == advice.runs and advice.channel.startswith("observer said it to persuader") and off.leaks == 0


def test_an_agent_that_peeks_is_caught():
    s = open_scenario(DEBATE); peeking = lambda v: Said("x", meaning=dict(argument=peeked["prior"]))
    peeked = {}; tells = lambda v: (peeked.update(prior=v.fields["prior"]), Bayesian()(v))[1]
    t = audit(s, dict(persuader=peeking, persuadee=tells), runs=1).set_index(["field", "hidden_from"]); assert "outside the dialogue" in t.channel["prior", "persuader"]


def test_a_network_of_reasons_is_bayes_rule_over_its_worlds():
    table = {(True, True): .9, (True, False): .6, (False, True): .4, (False, False): .1}; net = network(dict(a=.3, b=.6, c=dict(parents=["a", "b"], table=table)), "c", openness=dict(logos=1., ethos=.5, pathos=0.))
    f = force(dict(logos=1, ethos=1), net.openness, .8); assert f == pytest.approx(.4)
    doctor = lambda v: Said("a!", meaning=dict(node="a", appeal=dict(logos=1, ethos=1), relevance=.8, **{"for": v.said < 2}))
    s = open_scenario(dict(name="n", roles=["p", "q"], phases=[dict(speakers=["p", "q"], rounds=2)])); got = Dialogue(s, dict(p=doctor, q=net)).play().beliefs().value.tolist()
    def exact(times):
        w = {(a, b, c): (.3 if a else .7) * (.6 if b else .4) * (table[a, b] if c else 1 - table[a, b]) * (1 + f) ** (times * a) for a, b, c in itertools.product((True, False), repeat=3)}
        return sum(v for k, v in w.items() if k[2]) / sum(w.values())
    assert np.allclose(got, [exact(1), exact(0)], atol=1e-12)                                # for, then against: back at the prior


@pytest.mark.parametrize("seed", range(3))
def test_opinions_end_where_mathematics_says(seed):
    rng = np.random.default_rng(seed); W = rng.random((8, 8)) ** 3; W /= W.sum(1, keepdims=True); x = rng.random(8); S = rng.uniform(.1, .95, 8)
    assert np.abs(degroot(W, x, 3000)[-1].values - influence(W) @ x).max() < 1e-12 and np.abs(friedkin_johnsen(W, x, S, 3000)[-1].values - settled(W, x, S)).max() < 1e-12
    r = hegselmann_krause(rng.random(60), .15); v = r.values; order = np.argsort(v[0]); assert r.attrs["frozen"] and (np.diff(v[:, order], axis=1) > -1e-12).all()
    ends = [v[-1][g].mean() for g in clusters(v[-1])]; assert (np.diff(ends) > .15).all() and len(ends) > 1 and v.min() >= v[0].min() - 1e-12 and v.max() <= v[0].max() + 1e-12
    d = deffuant(rng.random(30), .25, .3, 4000, seed); assert np.allclose(d.mean("agent"), d[0].mean(), atol=1e-12) and d.max() <= d[0].max() + 1e-12


def test_many_events_fit_into_memory():
    tracemalloc.start(); tree = Events(); leaf = -1
    for i in range(20_000): leaf = tree.add(leaf if i % 8 else -1, "message", turn=i % 8, role="persuader", visible_to=("persuader", "persuadee"), text=f"An argument of strength {i}.", seed=i, belief=dict(closed_form=.5), data=dict(meaning=dict(argument=1.0))).id
    held = tracemalloc.get_traced_memory()[0]; tracemalloc.stop(); assert held * 5 < 1e9 and held * 5 < 3e8      # 100,000 events


@pytest.mark.parametrize("change, says", [
    (dict(phases=[]), "phases: it is missing"), (dict(roles=["persuader"]), "no role 'persuadee'"), (dict(name=""), "name: it is missing"), (dict(conformance="both"), "paper"),
    (dict(measures=dict(a=dict(ask="x", of="judge"))), "measures.a.of: there is no role 'judge'"), (dict(measures=dict(a=dict(ask="x", of="persuadee", at="later"))), "not one of start, each, end"),
    (dict(phases=[dict(speakers=["persuader"], rounds="two")]), "whole number"), (dict(feilds={}), "not a known word"), (dict(fields=dict(a=dict(value=1, visible=3))), "give all, never")])
def test_a_broken_scenario_says_where(change, says):
    with pytest.raises(DialogueError, match=says): open_scenario(DEBATE | change)


# --- the donor game ------------------------------------------------------------------------------------------------------
def test_holdings_of_equal_givers_are_those_computed_by_hand():
    table = {0: (10, 10), .1: (18.71, 18.75), .25: (52.02, 53.49), .5: (341.17, 393.91), .75: (2414.8, 3482.67), 1: (15360, 30720)}
    for f, want in table.items():
        got = [Game(DonorRules(conformance=c), [Gives(f)] * 12, (0,)).play().holdings.mean() for c in ("as_released", "paper")]; assert np.allclose(got, want, atol=.05 if f == .75 else .005)


def test_the_released_schedule_is_not_what_its_prompt_promises():
    pairs = schedule(DonorRules(conformance="as_released"), np.random.default_rng(0)); first = [r + 1 for r, p in enumerate(pairs) if p[0][0] < 6]; assert first == [1, 3, 5, 8, 10, 12]
    met = {}; [met.update({frozenset(p): met.get(frozenset(p), 0) + 1}) for r in pairs for p in r]; assert len(met) == 36 and set(met.values()) == {2}     # halves never mix, each cross pair meets twice
    drawn = schedule(DonorRules(), np.random.default_rng(0)); gives = [{d for d, _ in r} for r in drawn]; assert all(a & b == set() for a, b in zip(gives, gives[1:])) and len({tuple(sorted(r)) for r in drawn}) > 4


def test_a_lone_defector_pays_for_it_where_the_past_is_known_more_often_than_not():
    def ahead(known, f=.02):                                       # small gifts: cost 1, benefit 2, so the threshold is 1/2
        gaps = []
        for s in range(20): h = Game(DonorRules(agents=24, rounds=60, known=known), [ImageScoring(f, f / 2)] * 23 + [Gives(0.)], (s,)).play().holdings; gaps.append(h[-1] - h[:-1].mean())
        return np.mean(gaps), np.std(gaps) / 20 ** .5
    low, high = ahead(.1), ahead(1.); assert low[0] > 3 * low[1] and high[0] < -3 * high[1]


def test_generations_rise_with_reciprocity_and_sink_with_defection_and_punishment_costs_what_it_says():
    mixed = [ImageScoring(.5), ImageScoring(.5), Gives(0.)]; seen, blind = (donor_seeds(mixed, DonorRules(mutation=0., known=k), 12) for k in (1., 0.))
    assert (seen.mean_score[:, -1] > 2 * seen.mean_score[:, 0]).mean() > .7 and (blind.mean_score[:, -1] < blind.mean_score[:, 0]).mean() > .9 and (blind.strategy[:, -1] == "defects").mean() > .9
    assert donor_game(mixed, seed=3).identical(donor_game(mixed, seed=3)) and not donor_game(mixed, seed=3).equals(donor_game(mixed, seed=4))
    g = Game(DonorRules(punishment=True), [ImageScoring(.5, punishes=.1)] * 6 + [Gives(0.)] * 6, (0,)); g.last[6] = (0.,); g.meet(1, 0, 6); assert np.isclose(g.holdings[0], 9) and np.isclose(g.holdings[6], 8)

"""Double-blind persuasion, the persuasion trial and choices under risk: against closed forms, published numbers and planted effects."""
import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from workbench.dialogue.double_blind import (EFFECT, GAIN, MINOR, OBSERVERS, REASONS, SLOTS, UNKNOWN, as_prompted, cast, leaks, micro_case, observer_bits, outcomes, play_micro, success_rate, tomma, visibility)
from workbench.dialogue.errors import DialogueError
from workbench.dialogue.play import Dialogue, Said

SECRET = dict(background="Two friends talk.", persuader="Ada", persuadee="Ben", goal="persuade Ben to rest", preventive=dict(content="run", belief="SECRET-ONE", desire="SECRET-TWO"),
              generative=dict(content="rest", belief="SECRET-THREE", desire="SECRET-FOUR"), mind=dict(carries="SECRET-FIVE", openness="SECRET-SIX"))


# --- ToMMA ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("preventive", [True, False])
def test_nothing_private_is_in_any_view_of_the_persuader_side(observer, preventive):
    case = SECRET if preventive else {**SECRET, "preventive": dict(content="none", belief="none.", desire="none."), "mind": dict(openness="SECRET-SIX")}; seen = []
    def anybody(v): seen.append(v); return Said("yes", meaning=dict(agrees=True))
    s = tomma(case, observer); d = Dialogue(s, {r: anybody for r in s.roles}).play(); assert d.done and sum(e.role in ("persuader", "persuadee") for e in d.messages) == (8 if preventive else 6)
    assert all("SECRET" not in repr(v) for v in seen if v.role in ("persuader", "predictor")) and all(repr(v).count("SECRET") == (6 if preventive else 3) for v in seen if v.role == "persuadee")
    assert not any(h.role in ("predictor", "observer") for v in seen if v.role == "persuadee" for h in v.heard) and ("observer" in s.roles) == (observer != "off")
    see = visibility(s); assert (see.loc[[n for n in SLOTS if n in s.fields], ["persuader", "predictor"]] == "").all(axis=None)


def test_released_rounds_hide_from_the_persuadee_what_their_prompts_do_not_hold():
    seen = {}; s = tomma(SECRET, conformance="as_released")
    def note(v):
        if not v.ask: seen[v.phase] = [n for n in SLOTS if n in v.fields]
        return Said("x")
    quiet = lambda v: Said("x"); Dialogue(s, dict(persuader=quiet, predictor=quiet, persuadee=as_prompted(note))).play()
    assert seen == {"round 1": list(SLOTS), "round 2": list(SLOTS), "round 3": [SLOTS[1], SLOTS[3]], "round 4": []} and s.conformance == "as_released"


def test_the_audit_passes_without_an_observer_and_names_the_advice():
    found = {}
    for mode in OBSERVERS:
        s = tomma(micro_case(1), observer=mode); r = leaks(s, cast(s), 12); found[mode] = r[r.hidden_from == "persuader"].leaks.sum()
        if mode == "off": assert not r.leaks.any()
    assert found["off"] == 0 < found["boolean"] < found["advice"]
    bad = r[(r.leaks > 0) & (r.hidden_from == "persuader")]; assert set(bad.field) <= set(SLOTS) and all("observer said it to" in c for c in bad.channel) and len(bad) >= 3


def _wins(choice, q=.6, openness=-2.0):
    "P(accept) of the micro world by going through everything that can happen."
    a, f, total = q + (1 - q) / 4, q + (1 - q) / 2, 0.
    plays = [("named", "best", 1.)] if choice == "theory_of_mind" else [(w, e, .25) for w in ("named", "other") for e in ("refute", "divert")]
    for part, right in itertools.product(("belief", "desire"), (True, False)):                  # what is named first, and whether that carries the plan
        for which, approach, p in plays:
            took = part if which == "named" else {"belief": "desire", "desire": "belief"}[part]; carries = part if right else {"belief": "desire", "desire": "belief"}[part]
            eff = 1. if approach == "best" else EFFECT[took, approach]
            for hits in itertools.product((1, 0), repeat=3):
                d = hits[0] * eff * (1 if took == carries else MINOR); b = d * hits[1]; e = b * hits[2]; w = np.prod([a if h else 1 - a for h in hits])
                total += .5 * (f if right else 1 - f) * p * w * expit(openness + GAIN[0] * d + GAIN[1] * b + GAIN[2] * e)
    return total


def test_theory_of_mind_wins_more_micro_dialogues_as_often_as_the_closed_form_says():
    n = 240; tom, rand = play_micro(n), play_micro(n, "random"); won = {"theory_of_mind": success_rate(tom), "random": success_rate(rand)}
    for choice, w in won.items(): p = _wins(choice); assert abs(w["rate"] - p) < 3.5 * (p * (1 - p) / n) ** .5
    gap = outcomes(tom).accepted - outcomes(rand).accepted; assert gap.mean() > 2.5 * gap.std() / n ** .5
    t, r = outcomes(tom), outcomes(rand); assert all(abs(t[f"right_{s}"].mean() - .7) < 3.5 * (.21 / n) ** .5 for s in SLOTS) and t.filter(like="right_").equals(r.filter(like="right_")) and not t.too_long.any() and (t.turns == 8).all()
    assert len(set(t.slot + t.approach)) == 2 and len(set(r.slot + r.approach)) == 4


@pytest.mark.parametrize("mode", ["boolean", "advice"])
def test_an_observer_tells_as_many_bits_as_the_closed_form_says(mode):
    told, n = [], 100; talks = play_micro(n, observer=mode, seed=2)
    for d in talks:
        guess = {}
        for e in d.messages:
            m = (e.data or {}).get("meaning") or {}; guess |= m.get("predicted", {})
            for s, ok in m.get("right", {}).items(): r = REASONS[s.split("_")[1]]; told.append((r.index(m["true"][s]) - r.index(guess[s])) % 4 if mode == "advice" else int(ok))
    p = np.bincount(told) / len(told); exact = np.array([.3, .7] if mode == "boolean" else [.7, .1, .1, .1]); spread = np.sqrt(exact @ np.log2(exact) ** 2 - (exact @ np.log2(exact)) ** 2)      # of an entropy read off n counts
    assert abs(-(p * np.log2(p)).sum() - observer_bits(mode, .6)) < 3.5 * spread / len(told) ** .5 and len(told) == 4 * n
    assert abs(outcomes(talks).corrections.mean() - 4 * .3) < 3.5 * (4 * .21 / n) ** .5


def test_success_is_no_outcome_where_agreement_is_ordered():
    with pytest.raises(DialogueError, match="1 by construction"): success_rate(play_micro(2, conformance="as_released"))
    with pytest.raises(DialogueError, match="asked on the side"): success_rate(play_micro(2, acceptance="measured"))
    with pytest.raises(DialogueError, match="order the persuadee"): tomma(SECRET, acceptance="free", conformance="as_released")
    three = play_micro(40, preventive=False); assert (outcomes(three).turns == 6).all() and outcomes(three).right_preventive_belief.isna().all()
    said = [m for m in three[0].messages if m.role == "predictor"]; assert UNKNOWN in said[0].text

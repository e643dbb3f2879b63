"""Double-blind persuasion, the persuasion trial and choices under risk: against closed forms, published numbers and planted effects."""
import itertools
import os

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit

from workbench.dialogue.chat import chat_of
from workbench.dialogue.double_blind import (EFFECT, GAIN, MINOR, OBSERVERS, REASONS, SLOTS, UNKNOWN, as_prompted, cast, leaks, micro_case, observer_bits, outcomes, play_micro, success_rate, tomma, visibility)
from workbench.dialogue.errors import DialogueError
from workbench.dialogue.persuasion_rct import (LEVELS, STEPS, TREATMENTS, Debater, LikertParticipant, analysed, coded, coverage, debate, effect_p, expected_errors, fitted, locked_parts, persona, plan, published, simulate, trial, win_rate)
from workbench.dialogue.play import Dialogue, Said
from workbench.experiments.design import Design, lock
from workbench.experiments.inference import randomisation_test

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
    assert all("SECRET" not in repr(chat_of(v)) and "sentences 2" in repr(chat_of(v)) for v in seen if v.role == "persuader" and v.said == 0)            # what a language model is given
    assert not any("SECRET" in repr(chat_of(v)) for v in seen if v.role in ("persuader", "predictor"))
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
    n = 200; tom, rand = play_micro(n), play_micro(n, "random"); won = {"theory_of_mind": success_rate(tom), "random": success_rate(rand)}
    for choice, w in won.items(): p = _wins(choice); assert abs(w["rate"] - p) < 3.5 * (p * (1 - p) / n) ** .5
    t, r = outcomes(tom), outcomes(rand); gap = t.accepted - r.accepted; assert gap.mean() > 2.5 * gap.std() / n ** .5
    assert all(abs(t[f"right_{s}"].mean() - .7) < 3.5 * (.21 / n) ** .5 for s in SLOTS) and t.filter(like="right_").equals(r.filter(like="right_")) and not t.too_long.any() and (t.turns == 8).all()
    assert len(set(t.slot + t.approach)) == 2 and len(set(r.slot + r.approach)) == 4


@pytest.mark.parametrize("mode", ["boolean", "advice"])
def test_an_observer_tells_as_many_bits_as_the_closed_form_says(mode):
    told, n = [], 80; talks = play_micro(n, observer=mode, seed=2)
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


# --- the trial -----------------------------------------------------------------------------------------------------------
def test_the_published_coefficients_belong_together_with_their_errors():
    p = published(); assert len(p) == 23 and p.estimate["treatment[Human-AI, personalized]"] == .5945 and round(win_rate(np.exp(.5945)), 4) == .6444 and round(np.exp(.5945), 3) == 1.812
    assert (abs(expected_errors() / p.error - 1) < .025).all()                              # expected information, against what R printed
    p_value = 2 * stats.norm.sf(.5945 / .1856); assert round(p_value, 5) == .00136


@pytest.mark.skipif("RCT_TRIALS" not in os.environ, reason="a thousand trials take half a minute: RCT_TRIALS=1000 runs them")
def test_coverage_of_all_23_over_many_trials():
    c = coverage(int(os.environ["RCT_TRIALS"])); assert c.coverage.between(.93, .97).all()


def test_simulated_trials_recover_the_coefficients_in_as_many_intervals_as_promised():
    n = 60; c = coverage(n, seed=7); fitted_trials = n - c.failed.iloc[0]; k = (c.coverage * fitted_trials).round()
    assert fitted_trials > .8 * n and (stats.binom.cdf(k, fitted_trials, .95) > .05 / 23).all() and abs(c.coverage.mean() - .95) < .02 and (abs(c.mean_error / c.published_error - 1) < .2).all()


def test_an_empty_cell_is_merged_and_said_and_a_planted_effect_is_found_again():
    f = simulate(2000, 5, effects={TREATMENTS[3]: 1.0}); t = analysed(f).loc[f"treatment[{TREATMENTS[3]}]"]; assert t.low < 1.0 < t.high and t.odds_ratio == pytest.approx(np.exp(t.estimate))
    g = f[~((f.pre == 5) & (f.post == 1))]; fit, _, merged = fitted(g, ["treatment"]); assert merged and merged[0].startswith("5 into 4") and abs(fit.table().estimate.iloc[-1] - 1.0) < 3 * fit.table().error.iloc[-1]
    few = simulate(120, 3, effects={TREATMENTS[3]: 1.0}); few = few[(few.pre - few.post).abs() < 2]; last = analysed(few); assert last.attrs["merged"] == ["the answer before acts the same at all steps"] and last.attrs["against_proportional_odds"] == {} and np.isfinite(last.error).all()
    a = analysed(f); assert a.estimate["interaction"] == pytest.approx(a.estimate.iloc[2] - a.estimate.iloc[0] - a.estimate.iloc[1], abs=1e-6) and a.attrs["against_proportional_odds"]["df"] == 12 and a.robust_error.notna().all()


def test_robust_errors_see_debates_whose_answers_are_alike():
    f = simulate(600, 1, effects={}); twice = pd.concat([f.assign(debate=range(600)), f.assign(debate=range(600))]); t = analysed(twice)
    assert np.allclose(t.robust_error / t.error, 2 ** .5, rtol=.12)                           # each row counted twice: the errors that believe it are too small by the root of two


def test_nothing_planted_is_found_in_five_percent():
    p = np.array([effect_p(simulate(300, s, effects={})) for s in range(60)]); k = (p < .05).sum(); assert stats.binom.sf(k - 1, 60, .05) > .002 and not np.isnan(p).any()
    def shift(t, a): m = (t.opponent == "model").to_numpy(); return a[m].mean() - a[~m].mean()
    q = [randomisation_test(Design(dict(opponent=["human", "model"]), reps=20, seed=s), np.random.default_rng(s).integers(1, 6, 40), shift, 39, s)["p"] for s in range(60)]; assert stats.binom.sf(sum(x <= .05 for x in q) - 1, 60, .05) > .002


def test_a_micro_trial_recovers_what_was_planted_and_is_locked():
    d = plan(8, seed=3); kept = lock(*locked_parts(d)); t = trial(d, dict(human=Debater(.1), model=Debater(.3, .1)), LikertParticipant(), personalisation=True, locked=kept); a = analysed(t)
    assert all(lo - .2 < v < hi + .2 for lo, hi, v in zip(a.low, a.high, (.6, 0., .9))) and a.low.iloc[2] > 0 and t.attrs["status"].startswith("CONFIRMATORY") and t.attrs["failed"] == 0 and (t.treatment.value_counts() == 96).all()
    assert t.equals(trial(d, dict(human=Debater(.1), model=Debater(.3, .1)), LikertParticipant(), personalisation=True)) and pd.crosstab(t.side, t.treatment).eq(48).all(axis=None)
    half = t[t.opponent == "human"]; assert effect_p(half.assign(treatment=half.treatment.cat.remove_unused_categories()), TREATMENTS[2]) > .001
    changed = trial(plan(1, seed=3), dict(human=Debater(), model=Debater()), LikertParticipant(), personalisation=True, locked=kept); assert changed.attrs["status"].startswith("EXPLORATORY: design differs")


def test_a_participant_answers_by_its_cumulative_logit():
    s = debate("t", "con", None, dict(stance=2)); got = []
    for run in range(400): d = Dialogue(s, dict(participant=LikertParticipant(), opponent=Debater(.4)), run).play(); got.append(next(int(e.text) for e in d.tree.children(d.leaf) if e.data["measure"] == "agreement"))
    p = np.diff(np.r_[0, expit(np.array(STEPS) - LEVELS[1] - 1.2), 1]); assert stats.chisquare(np.bincount(got, minlength=6)[1:], 400 * p).pvalue > .001 and coded(5, "con") == 1 and coded(2, "pro") == 2


def test_personas_are_synthetic_and_shown_on_request_only():
    seen = {}
    def watch(v): seen[len(seen)] = v; return Said("x")
    for p in (None, persona(1)): Dialogue(debate("t", "pro", p, dict(stance=3)), dict(participant=LikertParticipant(), opponent=watch)).play()
    assert all("persona" not in seen[i].fields and "stance" not in seen[i].fields for i in range(3)) and seen[5].fields["persona"]["synthetic"] and "stance" not in seen[5].fields
    with pytest.raises(DialogueError, match="synthetic personas only"): debate("t", "pro", dict(age="40"))
    with pytest.raises(DialogueError, match="off by default"): trial(plan(), dict(human=Debater(), model=Debater()), LikertParticipant())
    bad = trial(plan(1, topics=dict(low=("t",))), dict(human=Debater(), model=lambda v: 1 / 0), LikertParticipant(), personalisation=True); assert (bad.failure != "").sum() == 2 == bad.attrs["failed"] and bad.post.notna().sum() == 2

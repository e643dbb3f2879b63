"""The reports of the dialogue room: their numbers are the methods' own, under parameters of the reader's."""
import numpy as np
import pandas as pd
import pytest

from workbench.dialogue.arguments import arguments_plan, planted
from workbench.dialogue.donor import DonorRules, donor_seeds, strategies_of
from workbench.dialogue.errors import DialogueError
from workbench.dialogue.figures import forest_figure, generations_figure, strategy_shares
from workbench.dialogue.teacher import micro_lessons, paired_gain
from workbench.lm.errors import WorkbenchError
from workbench.reporting.run import run


# --- donor_game -----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def donor(tmp_path_factory): return run("donor_game", dict(strategies="image 0.5, defects", generations=4, n=6, agents=8, seed=5, conformance="as_released"), out=tmp_path_factory.mktemp("donor"))


def test_the_donor_report_shows_what_the_game_says(donor):
    shown, players = donor.record["result"], strategies_of("image 0.5, defects"); rules = DonorRules(agents=8, generations=4, conformance="as_released", mutation=0.); seen, blind = (donor_seeds(players, DonorRules(**{**rules.__dict__, "known": k}), range(5, 11)) for k in (1., 0.))
    assert shown["rules_agree_with_hand"] is True and shown["grew"]["last"] == pytest.approx(float(seen.mean_score[:, -1].median())) and shown["final_shares_against"] == pytest.approx(strategy_shares(blind).iloc[-1].to_dict())
    assert shown["log_score_difference"]["mean"] == pytest.approx(float(np.log(seen.mean_score[:, -1] / blind.mean_score[:, -1]).mean())) and "nothing about people" in donor.page.read_text()


def test_a_report_refuses_a_strategy_that_does_not_exist(tmp_path):
    with pytest.raises(WorkbenchError, match="no strategy 'tit'"): run("donor_game", dict(strategies="tit 0.5"), out=tmp_path)


# --- teacher --------------------------------------------------------------------------------------------------------------
def test_the_teacher_report_in_closed_form(tmp_path):
    shown = run("teacher", dict(student="micro world", n=300, harmful=.2, seed=3), out=tmp_path).record["result"]; ds = micro_lessons(300, seed=3, harmful=.2); gain = paired_gain(ds, "utility_correct_student_confidence", "random", seeds=range(3, 8))
    assert shown["gains"]["random"] == pytest.approx(gain) and shown["gains"]["random"]["low"] > 0 and shown["accuracy"]["random"]["0"] == pytest.approx(float((ds.own_answer == ds.gold).mean()))
    assert shown["leak"]["hindsight"] and not shown["leak"]["random"] and shown["deceived"]["random"]["1"] == pytest.approx(.5) and shown["situations"]["all"]["questions"] == 300


def test_the_teacher_report_with_a_model_explains_where_it_helps(tmp_path):
    shown = run("teacher", dict(n=80, demos=60, deceive=False, use_gold_label=False), out=tmp_path).record["result"]; assert shown["leak"]["mm_both"] == "" and shown["deceived"] is None and set(shown["situations"]) == {"known", "changed", "new", "empty"}
    assert shown["gains"]["random"]["low"] > 0 and shown["area"]["hindsight"] >= max(shown["area"].values()) and shown["situations"]["new"]["told"] > shown["situations"]["empty"]["told"]


# --- persuasion -----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("persuasion"); return folder, run("persuasion", dict(n=2, seed=4, draws=99, plan_file=str(folder/"plan.json"), keep=str(folder/"runs")), out=folder).record["result"]


def test_the_persuasion_report_finds_what_was_planted_and_knows_its_plan(planned):
    folder, shown = planned; design = arguments_plan(2, seed=4)
    assert shown["status"].startswith("CONFIRMATORY") and shown["dialogues"] == len(design) == 40 and all(shown["planted_inside"].values()) and shown["effects"]["interaction"]["estimate"] == pytest.approx(float(planted(design)["interaction"])) and shown["sources"] == ["closed_form"]
    assert shown["by_answers"]["trusted source, strong"]["low"] < shown["by_answers"]["trusted source, strong"]["high"] and shown["randomisation"]["p"] <= .05 and len(list((folder/"runs").glob("*.jsonl"))) == 40


def test_the_persuasion_report_with_the_trained_persuadee_is_another_plan(planned, tmp_path):
    shown = run("persuasion", dict(persuadee="tiny", n=2, seed=4, draws=99, plan_file=str(planned[0]/"plan.json")), out=tmp_path).record["result"]; effects = shown["effects"]; assert shown["status"].startswith("EXPLORATORY: analysis differs") and shown["sources"] == ["closed_form", "model_logit"]
    assert all(abs(v["estimate"] - v["planted"]) < .2 for v in effects.values()) and effects["trusted source, strong"]["low"] > 1


def test_the_persuasion_report_of_debates(tmp_path):
    shown = run("persuasion", dict(scenario="debate", n=3, strong=1.5, draws=99), out=tmp_path).record["result"]; effect = shown["effects"]["treatment[Human-AI]"]; assert 0 < effect["low"] < effect["planted"] == 3 < effect["high"] and shown["corrected"]["treatment[Human-AI]"] < .01 and shown["planted_inside"]["interaction"]
    with pytest.raises(WorkbenchError, match="no debates"): run("persuasion", dict(scenario="debate", persuadee="tiny"), out=tmp_path)


# --- figures --------------------------------------------------------------------------------------------------------------
def test_figures_draw_what_they_are_given():
    game = donor_seeds(strategies_of("gives 0.5"), DonorRules(generations=3), 4); median = generations_figure(game).data[-1]; assert np.allclose(median.y, game.mean_score.median("seed")) and median.x.tolist() == [0, 1, 2]
    drawn = forest_figure(pd.DataFrame(dict(estimate=[2., np.nan], low=[1., np.nan], high=[4., np.nan]), index=["a<b", "c"])).data[0]; assert drawn.error_x.array[0] == 2 and drawn.error_x.arrayminus[0] == 1 and np.isnan(drawn.x[1])
    with pytest.raises(DialogueError, match="cannot be drawn"): forest_figure(pd.DataFrame(dict(estimate=[0.], low=[0.], high=[1.]), index=["x"]))

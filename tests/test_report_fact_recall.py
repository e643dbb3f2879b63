"""The report `fact_recall`: its numbers are the methods' own, hold on held-out conflicts, and its page is alive in a real Chromium without a network."""
import pytest
import torch

from conftest import new_page, until
from workbench.bias import IntentPairs, learn_knob, turn
from workbench.lm.errors import WorkbenchError
from workbench.lm.load import load
from workbench.patching.head_attribution import head_attribution, ranked_heads, scale_head
from workbench.reporting.run import run
from workbench.tasks.catalogue import make

torch.set_num_threads(1)
BOTH = ("context", "memory")


@pytest.fixture(scope="module")
def micro(): return load("micro")


@pytest.fixture(scope="module")
def made(tmp_path_factory): return run("fact_recall", dict(n=40, n_train=20, k=3, seed=1), out=tmp_path_factory.mktemp("facts"))


def test_the_report_shows_what_the_methods_say(made, micro):
    shown = made.record["result"]; train, held = (make("conflict", n=n, split=s, intent="memory", seed=1).for_model(micro) for n, s in ((20, "train"), (40, "test")))
    assert shown["heads"] == [f"L{l}H{h}" for l, h in ranked_heads(head_attribution(micro, train, BOTH, seed=1), 3)] and shown["head"] == "L1H7"
    own = scale_head(micro, held, (1, 7), (1, shown["factor"]), sources="words", contrast=BOTH)
    assert shown["claim_beats_fact"] == pytest.approx(dict(rate=float(own.wins[1]), low=float(own.wins_low[1]), high=float(own.wins_high[1]), before=float(own.wins[0])))
    assert shown["claim_beats_fact"]["rate"] >= .8 > .2 > shown["claim_beats_fact"]["before"] and shown["claim_first"]["rate"] == pytest.approx(float(own.rate[1, 0]))
    assert sum(g["n"] for g in shown["by_frequency"].values()) == 40
    pairs, others = (IntentPairs.of(micro, make("conflict", n=n, split=s, seed=1)) for n, s in ((80, "train"), (40, "test")))
    again = turn(micro, learn_knob(micro, pairs, 0, seed=1), others.memory, others.said, others.known, [1])
    assert shown["knob_layer"] == 0 and shown["knob"]["asks for memory"]["context"]["rate"] == pytest.approx(float(again.rate[0, 0]))
    assert all(x[a]["rate"] >= .8 for x in shown["knob"].values() for a in BOTH) and shown["knob_random_direction"] < .2
    assert shown["flips"]["asks for context, times -5"]["rate"] > .85 > .2 > shown["flips"]["asks for context, times 0"]["rate"]      # S122


@pytest.mark.parametrize("params, says", [(dict(what="key"), "must be one of"), (dict(n=5), "from 20 to 200")])
def test_bad_parameters_are_one_sentence(params, says, tmp_path):
    with pytest.raises(WorkbenchError, match=says) as e: run("fact_recall", params, out=tmp_path/"o")
    assert "\n" not in str(e.value)


def test_the_page_is_alive_without_a_network(made, browser):
    page = new_page(browser, offline=True, color_scheme="dark"); page.goto(made.page.as_uri()); page.wait_for_selector("html[data-ready=true]", timeout=60_000)
    until(page, "() => document.querySelectorAll('.js-plotly-plot .main-svg').length >= 6")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") and not page.errors and not page.outside
    page.context.close()

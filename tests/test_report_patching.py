"""The report `patching`: its numbers are the methods' own; one pair is a report too; its page is alive in a real Chromium without a network."""
import pytest
import torch

from conftest import new_page, until
from workbench.lm.errors import WorkbenchError
from workbench.lm.load import load
from workbench.patching.circuit_scores import NodeRuns
from workbench.patching.figures import cell_table, cells_figure, grid_figure
from workbench.patching.name_circuit import halves
from workbench.patching.pairs import Pairs, named_places, pair_of
from workbench.patching.patch import patch, summary
from workbench.reporting.run import run
from workbench.tasks.catalogue import make

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def micro(): return load("micro")


@pytest.fixture(scope="module")
def names(tmp_path_factory): return run("patching", dict(task="ioi", n=16, sites=["resid_pre"], seed=2), out=tmp_path_factory.mktemp("names"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return run("patching", dict(task="", clean="The king of France lives in", corrupt="The king of Japan lives in", sites=["mlp_out"], direction="noising"), out=tmp_path_factory.mktemp("pair"))


# --- the numbers ------------------------------------------------------------------------------------------------------
def test_the_report_shows_what_the_methods_say(names, micro):
    shown = names.record["result"]; pairs = Pairs.of(micro, make("ioi", n=16, seed=2))
    own = cell_table(summary(patch(micro, pairs, ["resid_pre"], positions=named_places(pairs), seed=2), seed=2), 6)
    assert shown["n"] == 16 and shown["states"] == {r.cell: pytest.approx({"mean": r["mean"], "low": r.low, "high": r.high, "p": r.p}) for r in map(lambda i: i[1], own.iterrows())}
    heads = cell_table(summary(patch(micro, pairs[0::2], "z", "layer head", positions="end"), seed=2), 8)
    assert shown["chosen"] == list(heads.cell) and shown["measured_on"] == 8 and shown["largest_difference"] < 1e-4
    assert max(h["mean"] for h in shown["heads"].values()) > 3 * shown["placebo"] and shown["cost"] < shown["cost_usual"] / 4
    c = shown["circuit"]; found = [h for heads in c["roles"].values() for h in heads]; assert {"name mover", "duplicate reader"} <= set(c["roles"]) and len(found) < 20
    _, _, rest, labels, _ = halves(micro, make("ioi", n=40, seed=2)); own = NodeRuns(micro, rest, groups=labels, reference="corrupt")
    assert c["kept"] == pytest.approx(own.F([found])[0].mean() / own.whole().mean(), abs=1e-4) and c["kept"] >= .8 and c["random_best"] < c["kept"] and c["n"] == len(rest) and "mean over" in c["ablation"]


def test_a_pair_is_a_report_too(pair, micro):
    shown = pair.record["result"]; assert shown["n"] == 1 and shown["direction"] == "noising" and "The" in shown["clean"]
    p = pair_of(micro, "The king of France lives in", "The king of Japan lives in"); own = patch(micro, p, ["mlp_out"], direction="noising")
    strongest = cell_table(summary(own), 1).iloc[0]; told = shown["states"][strongest.cell]
    assert told["mean"] == pytest.approx(strongest["mean"], abs=1e-4) and told["low"] is None
    assert "a single pair has none" in shown["circuit"]


def test_figures_say_direction_ablation_and_n(micro):
    told = summary(patch(micro, make("ioi", n=8), ("resid_pre", "mlp_out"), positions=["S2", "end"], direction="noising")); title = grid_figure(told).layout.title.text
    assert "noising: corrupted -&gt; clean run" in title and "n 8" in title and "patch" in title and len(grid_figure(told).data) == 2
    assert grid_figure(told).data[0].zmin + grid_figure(told).data[0].zmax == 2                # symmetric about the clean run's 1
    assert cells_figure(told, 3).data[0].error_x.array is not None and cell_table(told, 1).cell[0].startswith("resid_pre L0 S2")
    with pytest.raises(WorkbenchError, match="pass summary"): grid_figure(patch(micro, make("ioi", n=4), positions=["end"]))


@pytest.mark.parametrize("params, says", [(dict(task=""), "give a task, or a clean prompt"), (dict(metric="logits"), "must be one of"), (dict(n=1), "from 4 to 1000")])
def test_bad_parameters_are_one_sentence(params, says, tmp_path):
    with pytest.raises(WorkbenchError) as e: run("patching", params, out=tmp_path/"o")
    assert says in str(e.value) and "\n" not in str(e.value)


def test_a_twin_with_the_same_answer_is_refused(micro):
    with pytest.raises(WorkbenchError, match="no difference to follow"): pair_of(micro, "The king of France lives in", "A king of France lives in")


# --- the page ---------------------------------------------------------------------------------------------------------
def test_the_page_is_alive_without_a_network(names, browser):
    page = new_page(browser, offline=True); page.goto(names.page.as_uri()); page.wait_for_selector("html[data-ready=true]", timeout=60_000)
    until(page, "() => document.querySelector('.wb-host canvas')?.width > 50"); page.locator(".wb-host canvas").first.scroll_into_view_if_needed()
    box = page.locator(".wb-host canvas").first.bounding_box(); page.mouse.move(box["x"] + .8 * box["width"], box["y"] + .4 * box["height"])
    until(page, "() => /L\\d/.test(document.querySelector('.wb-host [aria-live]')?.textContent)")
    assert not page.errors and not page.outside
    page.context.close()

"""The report `attention`: its numbers are the methods' own and hold against a slow second way; its page is alive in a real Chromium without a network."""
import copy

import numpy as np
import pytest
import torch

from conftest import new_page
from workbench.attention.composition import composition_scores
from workbench.attention.effects import check_heads, effect_table, halves, head_effects, prompt_task, strongest_heads
from workbench.attention.patterns import AttentionError
from workbench.attention.report_figures import effects_figure, or_reason
from workbench.attention.roles import familiar, head_roles, role_table, untrained_twin
from workbench.attention.scaling import knock_out
from workbench.attention.scores import head_scores, top_heads
from workbench.attention.weight_figures import edges_of
from workbench.lm.errors import WorkbenchError
from workbench.lm.load import load
from workbench.reporting.page import lettered_width
from workbench.reporting.run import run
from workbench.tasks.catalogue import make

torch.set_num_threads(1)
HOSTILE = """It's <b>bold</b> "q" </script><script>window.hit = 1</script><img src=x onerror="window.hit = 1"> 👑"""
MARY = "When Mary and John went to the store, John gave a drink to"
DRAWN = "document.querySelector('.wb-main .wb-note')?.textContent.length > 2"
COLOURS = """select => { const c = document.querySelector(select), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, seen = new Set();
  for (let i = 0; i < d.length; i += 4 * 7) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); return seen.size }"""


@pytest.fixture(scope="module")
def micro(): return load("micro")


@pytest.fixture(scope="module")
def small(): return load("induction")


@pytest.fixture(scope="module")
def causal(tmp_path_factory): return run("attention", dict(model="induction", task="induction", prompt=HOSTILE, n=12, seed=3), out=tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def masked(tmp_path_factory): return run("attention", dict(model="micro-bert", task="", prompt=MARY, heads=[[1, 2], [3, 0]]), out=tmp_path_factory.mktemp("masked"))


# --- the numbers ------------------------------------------------------------------------------------------------------
def test_the_report_shows_what_the_methods_say(causal, small):
    shown = causal.record["result"]
    choosing, measuring = halves(make("induction", n=12, seed=3).for_model(small))
    heads = strongest_heads(knock_out(small, choosing, seed=3), 6); own = knock_out(small, measuring, heads, seed=3)
    assert set(shown["effects"]) == set(effect_table(own).name) and shown["n"] == len(measuring) == 6
    for unit, e in shown["effects"].items():
        for part, name in dict(effect="effect", low="effect_low", high="effect_high").items(): assert e[part] == pytest.approx(float(own[name].sel(unit=unit)), rel=1e-4, abs=1e-4)
    scores = head_scores(small, n=32, length=16, seed=3, pool=familiar(small))
    for role in "previous", "duplicate", "induction", "copying":
        best = top_heads(scores, role, 1).iloc[0]; told = shown["roles"][role]
        assert told["head"] == f"L{best.layer}H{best['head']}" and [told[k] for k in ("score", "low", "high", "chance")] == pytest.approx([best[k] for k in ("score", "low", "high", "chance")])
    edges, n = edges_of(composition_scores(small, seed=3), 8); idle = edges_of(composition_scores(untrained_twin(small, 3), seed=3), 8)[1]
    assert shown["writes_for"] == {f"{e.writer} to {e.reader}, {e.kind}": pytest.approx(e.component_z) for e in edges.itertuples()}
    assert (shown["pairs_above_chance"], shown["untrained_pairs_above_chance"]) == (n, idle) and n > 5 * idle
    assert shown["roles"]["previous"]["head"] == "L0H1" and shown["roles"]["induction"]["score"] > .9 > .2 > shown["roles"]["induction"]["untrained"]


def test_a_single_prompt_against_weights_set_to_zero(micro):
    "The effect of a head on one prompt, the slow way: a copy of the model whose head writes nothing."
    task = prompt_task(micro, MARY); ids = micro.tokenizer(MARY, return_tensors="pt")["input_ids"]; a, f = task.answer_ids[0], task.foil_ids[0]
    with torch.no_grad(): first = micro.model(ids).logits[0, -1]
    assert [a.item(), f.item()] == first.topk(2).indices.tolist()
    got = head_effects(micro, task)
    for l, h in (0, 0), (2, 1), (3, 5):
        cut = copy.deepcopy(micro.model); d = micro.d_head
        with torch.no_grad():
            cut.transformer.h[l].attn.c_proj.weight[h * d:(h + 1) * d] = 0
            after = cut(ids).logits[0, -1]
        assert float(got.effect.sel(layer=l, head=h)) == pytest.approx(float((after[a] - after[f]) - (first[a] - first[f])), abs=1e-3)
    assert np.isnan(got.effect_low).all() and np.isnan(got.effect_high).all() and got.attrs["n"] == 1 and "one prompt" in got.attrs["undefined"]


def test_halves_share_nothing_and_leave_nothing(micro):
    task = make("ioi", n=11).for_model(micro); a, b = halves(task)
    assert sorted(a.prompts + b.prompts) == sorted(task.prompts) and not set(a.prompts) & set(b.prompts)
    where = {p: i for i, p in enumerate(task.prompts)}
    for half in a, b: assert half.answer_ids.tolist() == [int(task.answer_ids[where[p]]) for p in half.prompts]


def test_an_untrained_model_has_no_roles(micro):
    twin, other = untrained_twin(micro, 5), untrained_twin(micro, 6)
    before = torch.random.get_rng_state()
    roles = head_roles(twin, n=8)
    for r in "previous", "duplicate", "induction": assert float(roles[r].max()) < float(roles.chance.sel(score=r)) + .05
    assert torch.equal(before, torch.random.get_rng_state())
    assert not torch.equal(next(twin.model.parameters()), next(other.model.parameters()))


def test_a_role_without_meaning_is_empty_with_its_reason():
    table = role_table(head_roles(load("micro-bert"), n=4)).set_index("role")
    for role in "copying", "successor": assert np.isnan(table.loc[role, "score"]) and table.loc[role, "head"].startswith("not scored, because micro-bert has no norm")
    assert np.isfinite(table.loc[["previous", "duplicate", "induction"], "score"]).all() and table["head"].str.contains("not scored").sum() == 2


def test_figures_say_ablation_n_and_interval(micro):
    task = make("ioi", n=8).for_model(micro)
    for ablation in "zero", "mean", "resample":
        title = effects_figure(head_effects(micro, task, [(0, 1), (2, 1)], ablation)).layout.title.text
        assert f"{ablation} ablation" in title and "n 8" in title and "95 % bootstrap" in title
    figure = effects_figure(head_effects(micro, prompt_task(micro, MARY), [(0, 1)]))
    assert "n 1, so no interval" in figure.layout.title.text and figure.data[0].error_x.array is None


def test_only_what_a_method_refuses_becomes_a_sentence():
    assert or_reason(lambda: 3) == (3, "") and or_reason(lambda: check_heads(load("induction"), []))[1].startswith("No heads")
    with pytest.raises(ZeroDivisionError): or_reason(lambda: 1 / 0)


# --- what is refused --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("heads, says", [([[4, 0]], "layers 0 to 3"), ([[0, 8]], "heads 0 to 7"), ([[1]], "name each as"), (["L1H1"], "name each as"), ([], "No heads")])
def test_heads_that_are_not_there(micro, heads, says):
    with pytest.raises(AttentionError, match=says): check_heads(micro, heads)


def test_one_prompt_has_no_mean(micro):
    with pytest.raises(AttentionError, match="use ablation='zero'"): head_effects(micro, prompt_task(micro, MARY), ablation="mean")
    with pytest.raises(AttentionError, match="same word"): prompt_task(micro, MARY, "Mary", "Mary")
    with pytest.raises(AttentionError, match="at least 4"): halves(make("ioi", n=3).for_model(micro))


@pytest.mark.parametrize("params, says", [(dict(task="iio"), "No task is called 'iio'. Did you mean 'ioi'"), (dict(heads=[[9, 0]]), "There is no head [9, 0] in micro"), (dict(heads="best"), "must be one of 'auto'"), (dict(n=1), "from 4 to 1000")])
def test_bad_parameters_are_one_sentence(params, says, tmp_path):
    with pytest.raises(WorkbenchError) as e: run("attention", params, out=tmp_path/"o")
    assert says in str(e.value) and "\n" not in str(e.value) and not (tmp_path/"o").exists()


# --- the page ---------------------------------------------------------------------------------------------------------
def opened(browser, done, **how):
    page = new_page(browser, offline=True, **how)
    page.goto(done.page.as_uri()); page.wait_for_selector("html[data-ready=true]", timeout=60_000); page.wait_for_function(DRAWN, timeout=60_000)
    return page


@pytest.mark.browser
def test_the_explorer_is_alive_in_the_page(browser, causal):
    page = opened(browser, causal)
    assert causal.page.stat().st_size < 3_000_000 and page.errors == [] and page.outside == []
    for canvas in ".wb-plot", ".wb-overview": assert page.evaluate(COLOURS, canvas) >= 12, canvas
    told = lambda: page.locator(".wb-main .wb-note").first.inner_text()
    assert told().split(" ")[0].replace(".", "") in causal.record["result"]["effects"], "it opens at a head that matters"
    overview = page.locator(".wb-overview"); overview.scroll_into_view_if_needed(); box = overview.bounding_box(); seen = {told()}
    for share in .3, .6, .9:
        page.mouse.click(box["x"] + share * box["width"], box["y"] + .3 * box["height"]); page.wait_for_timeout(200); seen.add(told())
    assert len(seen) >= 3, "a click on a head shows that head"
    plot = page.locator(".wb-plot"); plot.scroll_into_view_if_needed(); box = plot.bounding_box(); before = page.locator(".wb-readout").inner_text()
    page.mouse.move(box["x"] + .4 * box["width"], box["y"] + .7 * box["height"])
    page.wait_for_function("was => document.querySelector('.wb-readout').innerText !== was", arg=before)
    page.context.close()


@pytest.mark.browser
def test_a_hostile_prompt_is_text(browser, causal):
    page = opened(browser, causal)
    assert page.evaluate("window.hit") is None and page.errors == []
    assert HOSTILE in page.locator(".wb-chip dd").all_inner_texts() and HOSTILE in page.locator(".wb-result td").all_inner_texts()
    assert page.locator(".wb-attention .wb-heading").inner_text().startswith("induction · It's <b>bold</b> \"q\" </script>")
    page.context.close()


@pytest.mark.browser
def test_the_explorer_follows_the_theme_of_the_page(browser, causal):
    for scheme, other in ("light", "dark"), ("dark", "light"):
        page = opened(browser, causal, color_scheme=scheme); theme = lambda: page.locator(".wb-attention").get_attribute("data-theme")
        assert theme() == scheme
        page.locator("#wb-theme").click()                          # auto, then dark, then light
        if other == "light": page.locator("#wb-theme").click()
        page.wait_for_function("t => document.querySelector('.wb-attention').dataset.theme === t", arg=other)
        page.context.close()


@pytest.mark.browser
def test_narrow_and_without_scripts(browser, causal):
    page = opened(browser, causal, viewport=dict(width=420, height=900))
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    page.context.close()
    page = new_page(browser, offline=True, java_script_enabled=False); page.goto(causal.page.as_uri())
    still = page.locator(".wb-host img"); still.scroll_into_view_if_needed()
    assert still.bounding_box()["width"] > 300 and "AttentionExplorer" in still.get_attribute("alt")
    page.context.close()


@pytest.mark.browser
def test_a_bidirectional_model_says_what_does_not_apply(browser, masked):
    page = opened(browser, masked); text = page.locator("main").inner_text(); shown = masked.record["result"]
    assert page.errors == [] and shown["n"] == 1 and list(shown["effects"]) and set(shown["effects"]) == {"L1H2", "L3H0"} and all(e["low"] is None for e in shown["effects"].values())
    for says in "not scored, because micro-bert has no norm", "'direct logit attribution' is left out: micro-bert normalises", "n = 1, so without intervals": assert text.count(says) >= 1, says
    assert page.evaluate(COLOURS, ".wb-plot") >= 12 and shown["text"].endswith("<mask>.")
    page.context.close()


def test_plots_side_by_side_keep_a_readable_width():
    axes = {f"xaxis{i or ''}": dict(domain=[d, d + .3]) for i, d in enumerate((0, .35, .7, 0))}
    assert lettered_width(dict(data=[], layout=axes)) > 500 and lettered_width(dict(data=[], layout=dict(xaxis=dict(domain=[0, 1])))) == 0

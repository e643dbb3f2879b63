"""The report `features`: its numbers are the methods' own, on a dictionary that it trained and kept; views of numbers that cannot hide a missing one; its page is alive in a real Chromium without a network."""
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import new_page, until
from workbench import load
from workbench.features.concepts import concepts, find_concepts, told_rows
from workbench.features.errors import FeatureError
from workbench.features.formats import open_dictionary
from workbench.features.metrics import feature_worth, loss_recovered, measure
from workbench.features.overview import absorption_lines, best_and_worst, concept_table, density_figure, dose_figure, dose_pair, in_brackets, peaked, read_and_held, score_lines, score_table
from workbench.features.use import site_vectors
from workbench.lm.errors import WorkbenchError
from workbench.reporting.run import run

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def micro(): return load("micro")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("features"); return run("features", dict(steps=80, n=40, n_features=96, k=6, show=3, seed=3, site="resid_post.1", keep=str(out/"kept")), out=out), out/"kept"


# --- the numbers --------------------------------------------------------------------------------------------------------
def test_the_report_shows_what_the_methods_say(made, micro):
    shown, d = made[0].record["result"], open_dictionary(made[1]); _, held = read_and_held(micro, rows=40, seed=3); x, group = site_vectors(micro, held, "resid_post.1")[:2]; m = measure(d, x, groups=group.numpy(), seed=3)
    assert shown["explained_variance"] == pytest.approx({k: float(m[k].sel(score="explained_variance")) for k in ("value", "low", "high")}, abs=1e-5) and shown["l0"]["value"] == pytest.approx(6, abs=.01) and shown["tokens"] == len(x) == 8 * 128 and shown["dead"] == pytest.approx(float(m.dead))
    r = loss_recovered(micro, d, held, "resid_post.1"); assert shown["recovered"]["kl, mean"] == pytest.approx(float(r.recovered.sel(loss="kl", ablation="mean")), abs=1e-4) and shown["raw_ce"]["clean"] < shown["raw_ce"]["dictionary"] < shown["raw_ce"]["mean"]
    worth = feature_worth(d, x); live = np.flatnonzero((d.encode(x) != 0).any(0).numpy()); order = live[np.argsort(-worth[live], kind="stable")]; assert shown["best"] == order[:3].tolist() and shown["worst"] == order[::-1][:3].tolist()
    assert shown["concepts"]["features"] > shown["concepts"]["random"] and shown["concepts_asked"] > 20 and set(shown["absorption"]) == {"countries", "capitals", "women", "men", "surnames", "clothes", "letters"}
    assert (made[1]/"history.jsonl").exists() and shown["steered"] in live and (shown["steered_at_1"] is None or shown["steered_at_1"]["low"] <= shown["steered_at_1"]["mean"] <= shown["steered_at_1"]["high"])


def test_concepts_are_those_of_find_concepts(micro):
    d = open_dictionary("micro/resid_post.2-topk"); ds = concept_table(micro, d, "resid_post.2", rows=20, seed=5); told = told_rows(20, 5); vocab = micro.tokenizer.get_vocab(); ids = [[vocab[w] for w in r[0]] for r in told]
    x, group = site_vectors(micro, ids, "resid_post.2")[:2]; own = find_concepts({"features": d.encode(x).numpy()}, concepts(told), group.numpy(), seed=5)
    assert np.allclose(own.auroc.values[:, 0], ds.auroc.sel(dictionary="features"), equal_nan=True, atol=1e-6) and list(ds.dictionary.values) == ["features", "neurons", "pca", "random"]
    with pytest.raises(FeatureError, match="are not tokens of"): concept_table(SimpleNamespace(id="elsewhere", tokenizer=SimpleNamespace(get_vocab=lambda: {"The": 0})), d, "resid_post.1", rows=3)


def test_doses_start_at_nothing_and_the_random_one_is_as_long(micro):
    d = open_dictionary("micro/resid_post.2-topk"); _, held = read_and_held(micro, rows=40, seed=1); pair = dose_pair(micro, d, 3, [h[:12] for h in held], 5., [7], (0., 1.)); zero, one = (pair["feature"].sel(bound="mean", strength=s) for s in (0., 1.))
    assert float(zero.kl_target) < 1e-6 and float(one.kl_target) > 0 and float(zero.probability) == pytest.approx(float(pair["random"].probability.sel(bound="mean", strength=0.)))
    run_ = micro.run([held[0][:12]], keep=["resid_post.2"]); from workbench.features.dictionary import random_dictionary
    from workbench.features.use import steering_edit
    far = []
    for dictionary, f, top in ((d, 3, 5.), (random_dictionary(128, 1, seed=0, site=d.site), 0, 5. * float(d.directions[3].norm()))): far.append(float((micro.run([held[0][:12]], keep=["resid_post.2"], edits=steering_edit(dictionary, f, 1., top)).tensor("resid_post.2") - run_.tensor("resid_post.2")).norm(dim=-1).mean()))
    assert far[0] == pytest.approx(far[1], rel=1e-4) and "error keep" in dose_figure(pair).layout.title.text


# --- views --------------------------------------------------------------------------------------------------------------
def test_a_missing_number_is_never_a_zero():
    frame = pd.DataFrame(dict(value=[.5, np.nan, .25], low=[.4, np.nan, np.nan], high=[.6, np.nan, np.nan])); assert in_brackets(frame, "value", digits=2) == ["0.50 [0.40, 0.60]", "none", "0.25"]
    rates = pd.DataFrame([dict(rate=np.nan, low=np.nan, high=np.nan, fraction=np.nan, fraction_low=np.nan, fraction_high=np.nan, main="", main_F1=.2, words=3, why="no latent: x")], index=["men"]); line = absorption_lines(rates).iloc[0]; assert line["rate [95%]"] == "none" and line["why there is no rate"] == "no latent"
    fig = density_figure(np.array([0, 0, .5, .001])); assert "4 features, 2 never fired, 1 on more than a tenth" in fig.layout.title.text and sum(fig.data[0].y) == 2


def test_peaks_of_word_tokens_and_of_others():
    assert peaked(dict(at=1, tokens=["The", "king", "of"])) == "The «king» of" and peaked(dict(at=1, tokens=["The", " king", " of"])) == "The «king» of"


def test_text_is_held_out_and_files_are_read(micro, tmp_path):
    read, held = read_and_held(micro, rows=50, seed=2); again = read_and_held(micro, rows=50, seed=2); assert (read, held) == again and len(held) == 10 and not {tuple(r) for r in read} & {tuple(r) for r in held} and read != read_and_held(micro, rows=50, seed=4)[0]
    (tmp_path/"t.txt").write_text("\n".join("The king of France lives in Paris ." for _ in range(300))); a, b = read_and_held(micro, str(tmp_path/"t.txt"), rows=30, context=32); assert len(a) + len(b) == 30 and all(len(r) == 32 for r in a + b)
    with pytest.raises(FeatureError, match="There is no text file"): read_and_held(micro, "nowhere.txt")
    (tmp_path/"s.txt").write_text("The king ."); 
    with pytest.raises(FeatureError, match="at least 20"): read_and_held(micro, str(tmp_path/"s.txt"))


@pytest.mark.parametrize("params, says", [(dict(architecture="dense"), "must be one of"), (dict(n=3), "from 20 to 100000"), (dict(k=0), "from 1 to 512")])
def test_bad_parameters_are_one_sentence(params, says, tmp_path):
    with pytest.raises(WorkbenchError) as e: run("features", params, out=tmp_path/"o")
    assert says in str(e.value) and "\n" not in str(e.value)


# --- the page -----------------------------------------------------------------------------------------------------------
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_alive_without_a_network(made, browser, scheme):
    page = new_page(browser, offline=True, color_scheme=scheme); page.goto(made[0].page.as_uri()); page.wait_for_selector("html[data-ready=true]", timeout=60_000)
    page.locator(".wb-training").scroll_into_view_if_needed(); until(page, "() => document.querySelectorAll('.wb-training .wb-charts figure').length === 5 && document.querySelector('.wb-training .wb-readout').textContent.includes('explained variance')")
    page.locator(".wb-features").scroll_into_view_if_needed(); until(page, "() => /6 of 96 features/.test(document.querySelector('.wb-features').textContent)"); assert page.locator(".wb-training").get_attribute("data-theme") == scheme
    assert page.errors == [] and page.outside == [] and page.evaluate("document.documentElement.scrollWidth") <= 1400; page.context.close()

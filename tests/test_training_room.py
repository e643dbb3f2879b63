"""The training room: it looks and never touches. The numbers are the trainer's own, bit for bit; pause, resume, stop and keep; a page without a kernel; and all of it in a real JupyterLab."""
import json, re, time

import nbformat
import numpy as np
import pytest
import torch

from conftest import new_page, notebook, until
from workbench.features.dictionary import Dictionary
from workbench.features.errors import FeatureError
from workbench.features.formats import open_dictionary
from workbench.features.store import ActivationStore
from workbench.features.superposition import Superposition
from workbench.features.train import Trainer
from workbench.widgets.base import WidgetError
from workbench.widgets.training_room import BINS, TrainingRoom, panels, source_statistics

torch.set_num_threads(1)
WORLD = Superposition(d=16, n_features=40, l0=2.5, bias=1.)


def trainer(architecture="topk", folder=None, **more):
    kind = {} if architecture in ("jumprelu", "standard") else dict(k=3)
    return Trainer(WORLD, architecture, folder=folder, **{"n_features": 48} | kind | dict(steps=60, batch=256, lr=3e-3, report_every=10, window=10 * 256) | more)


def timeless(history): return [{k: v for k, v in r.items() if k != "seconds"} for r in history]


def until_step(room, step, seconds=60):
    end = time.monotonic() + seconds
    while room.trainer.step < step: assert time.monotonic() < end; time.sleep(.01)


# --- it only looks ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu"])
@pytest.mark.parametrize("beside", [False, True])
def test_the_numbers_are_the_trainers_own(architecture, beside, tmp_path):
    alone = trainer(architecture); list(alone.steps()); want = alone.result(); room = TrainingRoom(trainer(architecture, tmp_path/"r"), beside=beside).wait(60)
    assert timeless(room.history) == timeless(alone.history) and all(torch.equal(a, b) for a, b in zip(room.result().state_dict().values(), want.state_dict().values()))
    assert room.series["explained_variance"] == [r["explained_variance"] for r in alone.history] and room.series["l0_train"] == [r["l0_train"] for r in alone.history] and room.status["state"] == "done"
    assert timeless(map(json.loads, (tmp_path/"r"/"history.jsonl").read_text().splitlines())) == timeless(alone.history) and torch.equal(open_dictionary(tmp_path/"r").W_dec, want.W_dec)
    assert isinstance(room.result(), Dictionary) and ("threshold" in room.series) == (architecture != "topk") and None not in room.series.get("threshold", []); room.close()


def test_pause_resume_stop_and_keep():
    room = TrainingRoom(trainer(steps=10**6, decay=0.), beside=True); until_step(room, 12); room.pause().wait(60); stood = room.trainer.step; assert room.status["state"] == "paused" and f"paused at step {stood}" in room.status["text"]
    time.sleep(.1); assert room.trainer.step == stood
    with pytest.raises(WidgetError, match="Still in training .* stop\\(\\) to keep"): room.result()
    room.resume(); until_step(room, stood + 25); room.heard(dict(kind="pause")); room.wait(60); assert room.status["state"] == "paused"; room.heard(dict(kind="stop")); room.wait(60)
    assert room.status["state"] == "stopped" and "stopped and kept at step" in room.status["text"]; other = trainer(steps=10**6, decay=0.); [other._one() for _ in range(room.trainer.step)]
    assert torch.equal(room.result().W_dec, other.dictionary().W_dec) and room.history[-1]["step"] == room.trainer.step; room.pause(); room.resume(); room.stop(); room.close()


def test_a_room_that_waits_to_be_started():
    room = TrainingRoom(trainer(), start=False, beside=True); assert room.status["state"] == "ready" and room.trainer.step == 0 and len(room.meta["stats"]) == 5 and room.series == {}
    room.heard(dict(kind="stop")); assert "nothing to keep" in room.status["text"]
    with pytest.raises(WidgetError, match="call resume"): room.stop()
    room.resume(); room.worker.finished.wait(60); assert room.wait().status["state"] == "done" and room.trainer.step == 60; room.close()


def test_what_breaks_a_training_is_told(tmp_path):
    list(trainer(folder=tmp_path/"a", steps=10).steps())
    with pytest.raises(FeatureError, match="holds a training already"): TrainingRoom(trainer(folder=tmp_path/"a", steps=10))
    room = TrainingRoom(trainer(lr=1e30), beside=True)
    with pytest.raises(FeatureError, match="not finite"): room.wait(60)
    assert room.status["state"] == "error" and "lower lr" in room.status["text"]
    with pytest.raises(FeatureError): room.result()
    room.close()
    with pytest.raises(WidgetError, match="needs a Trainer"): TrainingRoom(WORLD)
    done = TrainingRoom(trainer())
    with pytest.raises(WidgetError, match="there are 6 reports"): done.cursor = 6
    done.cursor = 2; assert done.selection == {"cursor": 2} and done.state() == {"cursor": 2}


def test_a_training_taken_up_again_keeps_its_history(tmp_path):
    first = trainer(folder=tmp_path/"a", save_every=10); first.settings["steps"] = 60
    for p in first.steps():
        if p.step == 30: first.pause()
    room = TrainingRoom(trainer(folder=tmp_path/"a", save_every=10).resume()); alone = trainer(); list(alone.steps())
    assert timeless(room.history) == timeless(alone.history) and len(room.series["step"]) == 6


# --- what is shown ------------------------------------------------------------------------------------------------------
def test_statistics_before_training(tmp_path):
    from workbench import load
    from workbench.tasks.catalogue import make
    lm = load("micro"); store = ActivationStore(lm, make("ioi", n=40), "resid_post.1", tmp_path/"s", per_shard=20).collect(); stats = {n: v for n, v, _ in source_statistics(Trainer(store, "topk", n_features=64, k=4, batch=64, steps=2))}
    x = torch.cat([store._shard(n)["x"] for n in store.groups if n != "held"]).double(); norms = x.norm(dim=1)
    assert stats["vectors"] == len(x) and stats["mean length"] == pytest.approx(float(norms.mean())) and stats["γ"] == pytest.approx(float(x.mean(0).norm() / x.var(0, correction=0).sum().sqrt()), rel=1e-6)
    assert stats["first positions"] == pytest.approx(sum(int((store._shard(n)["pos"] == 0).sum()) for n in store.groups if n != "held") / len(x)) and stats["first positions"] > 0
    big = torch.randn(400, 8, generator=torch.Generator().manual_seed(0)); big[:80] *= 1000; told = {n: v for n, v, _ in source_statistics(Trainer(big, "topk", n_features=16, k=2, batch=64, steps=2))}
    assert told["first positions"] is None and told["vectors"] == 360 and 60 <= told["outliers"] <= 80


def test_density_and_panels():
    room = TrainingRoom(trainer("batchtopk")); d = room.density; f = room.result().encode(room.trainer.held[0][:2048]) != 0; share = f.double().mean(0).numpy()
    assert d["never"] == (share == 0).sum() and d["dense"] == (share > .1).sum() and sum(d["counts"]) + d["never"] == 48 and d["n"] == len(f)
    k = int(np.argmax(d["counts"])); inside = (np.log10(share[share > 0]).clip(-4, -1e-9) >= BINS[k]) & (np.log10(share[share > 0]).clip(-4, -1e-9) < BINS[k + 1]); assert inside.sum() == d["counts"][k]
    assert [p["key"] for p in panels(room.trainer)] == ["ev", "l0", "dead", "loss", "threshold"] and {n for p in room.meta["panels"] for n, _ in p["lines"]} <= set(room.series) and "2,560 training vectors" in str(room.meta["panels"])


def test_page_picture_and_table(tmp_path):
    room = TrainingRoom(trainer()); text = room.to_html(); assert "https://" not in text.replace("http://www.w3.org", "") and len(text) < 250_000 and "step 60 of 60" in repr(room) and "EV" in repr(room)
    table = room.rows(); assert table[1][0] == "step" and [r[0] for r in table[2:]] == [10, 20, 30, 40, 50, 60] and float(table[-1][1]) == pytest.approx(room.history[-1]["explained_variance"], rel=1e-3) and "not known" in str(table[0])
    assert room.to_png()[:4] == b"\x89PNG" and "<svg" in room.to_svg(dark=True)[:800]


# --- a real browser -----------------------------------------------------------------------------------------------------
INK = "() => Math.min(...[...document.querySelectorAll('.wb-charts figure > canvas')].map(c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, seen = new Set(); for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 200) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); return seen.size; }))"


@pytest.mark.browser
@pytest.mark.parametrize("scheme, width", [("light", 1400), ("dark", 420)])
def test_the_page_is_alive_without_a_network(browser, tmp_path, scheme, width):
    expect = pytest.importorskip("playwright.sync_api").expect
    room = TrainingRoom(trainer("batchtopk")); page = new_page(browser, offline=True, color_scheme=scheme, viewport={"width": width, "height": 900}); page.goto(room.to_html(tmp_path/"t.html").as_uri()); until(page, "() => document.querySelectorAll('.wb-charts figure').length === 6")
    until(page, f"() => ({INK})() > 2"); assert page.locator(".wb-training").get_attribute("data-theme") == scheme and page.locator(".wb-training button:visible").count() == 0 and page.locator(".wb-host > img").count() == 0
    ev = room.history[-1]["explained_variance"]; expect(page.locator(".wb-readout")).to_contain_text(f"step 60, the newest · explained variance: {ev:.3f}"); assert f"as saved {ev:.3f}" in page.locator(".wb-charts canvas").first.get_attribute("aria-label")
    page.locator(".wb-charts").focus(); page.keyboard.press("Home"); expect(page.locator(".wb-readout")).to_contain_text("step 10 ·"); page.keyboard.press("ArrowRight"); expect(page.locator(".wb-readout")).to_contain_text("step 20 ·"); page.keyboard.press("End"); expect(page.locator(".wb-readout")).to_contain_text("the newest")
    page.get_by_text("All reports as a table").click(); expect(page.locator(".wb-scroll tr")).to_have_count(7); expect(page.locator(".wb-facts")).to_contain_text("not known")
    assert page.evaluate("document.documentElement.scrollWidth") <= width and page.errors == [] and page.outside == []; page.context.close()


CODE = """from workbench.features.superposition import Superposition
from workbench.features.train import Trainer
from workbench.widgets.training_room import TrainingRoom
room = TrainingRoom(Trainer(Superposition(d=16, n_features=40, l0=2.5), "batchtopk", n_features=48, k=3, steps=200_000, batch=512, report_every=5, folder="kept"))
room"""


@pytest.mark.browser
def test_the_room_is_driven_in_jupyterlab(lab):
    "Watch it train, pause it, run another cell meanwhile, resume, look back with the keyboard, stop and keep, and use what was kept."
    expect = pytest.importorskip("playwright.sync_api").expect
    from test_grid_browser import says
    nbformat.write(notebook("# Room", CODE, "print(room.status['state'], room.trainer.step)", "print('cursor', room.cursor)", "d = room.wait(60).result(); print(type(d).__name__, d.n_features, len((room.trainer.folder/'history.jsonl').read_text().splitlines()) == len(room.history))"), lab.root/"room.ipynb")
    page = lab.open("room.ipynb", run=False)
    page.evaluate("async () => { const app = window.jupyterapp, p = app.shell.currentWidget; await p.context.ready; await p.sessionContext.ready; p.content.activeCellIndex = 1; await app.commands.execute('notebook:run-cell'); }")
    root = page.locator(".wb-training"); expect(root).to_have_attribute("data-state", "running", timeout=60_000); expect(page.locator(".wb-status .wb-note").first).to_have_text(re.compile(r"step \d+ of 200000, about .* left"), timeout=60_000); expect(page.locator(".wb-charts figure")).to_have_count(6, timeout=30_000)
    page.get_by_role("button", name="Pause").click(); expect(root).to_have_attribute("data-state", "paused", timeout=30_000); stood = says(page, 2, "paused"); page.wait_for_timeout(300); assert says(page, 2, "paused") == stood
    page.locator(".wb-charts").focus(); page.keyboard.press("Home"); expect(page.locator(".wb-readout")).to_contain_text("step 5 ·"); says(page, 3, "cursor 0")
    page.get_by_role("button", name="Resume").click(); expect(root).to_have_attribute("data-state", "running", timeout=30_000); step = int(stood.split()[1]); page.wait_for_function("was => +document.querySelector('.wb-status .wb-note').textContent.match(/step (\\d+)/)?.[1] > was", arg=step, timeout=30_000)
    page.get_by_role("button", name="Stop and keep").click(); expect(root).to_have_attribute("data-state", "stopped", timeout=30_000); expect(page.locator(".wb-status .wb-note").first).to_contain_text("stopped and kept at step"); assert page.locator(".wb-training button:visible").count() == 0
    assert says(page, 4, "Sae 48 True") and page.errors == []; kept = open_dictionary(lab.root/"kept"); assert kept.n_features == 48

"The feature browser without a browser: its list, its records, what it computes with a model against plain runs, its traits, pages and pictures; pure parts of the page in node."
import base64, gzip, json, os, re, subprocess

import numpy as np
import pytest
import torch

from conftest import ROOT
from test_front_end import node
from workbench import load
from workbench.features import mean_difference, random_dictionary
from workbench.features.records import FeatureStore
from workbench.lm import edits
from workbench.tasks import make
from workbench.widgets import Selection, WidgetError
from workbench.widgets.base import css, esm, files_of, static
from workbench.widgets.feature_browser import FeatureBrowser
from workbench.widgets.feature_data import PAGE, FeatureData, json_chunk, kl_by_position, opened, plain
from workbench.widgets.feature_picture import groups

SITE, TEXT = "resid_post.2", "When Mary and John went to the store, John gave a drink to Mary."


def dictionary_of(lm, task, n=400, seed=0):
    x = lm.run(task.prompts, keep=SITE).tensor(SITE).flatten(0, 1); return random_dictionary(128, n, k=8, seed=seed, mean=x.mean(0), site=SITE)


def store_of(folder, lm, task, seed=0): return FeatureStore(lm, dictionary_of(lm, task, seed=seed), task.prompts, folder).collect()


@pytest.fixture(scope="module")
def micro(): return load("micro")
@pytest.fixture(scope="module")
def task(): return make("ioi", n=40)
@pytest.fixture(scope="module")
def store(micro, task, tmp_path_factory):
    s = store_of(tmp_path_factory.mktemp("features")/"store", micro, task); f = int(s.features()[0])
    s.describe(f, "names of people who give", "top tokens", .81, .72, .88); s.describe(f, "a second meaning", "cluster"); return s
@pytest.fixture
def w(store): return FeatureBrowser(store)
def held(text): return json.loads(gzip.decompress(base64.b64decode(text["data"])))


# --- the list ------------------------------------------------------------------------------------------------------------------
def test_the_list_is_the_stores(w, store):
    assert list(w.ids()) == list(store.features()) and w.feature == w.ids()[0]
    w.query = "density<.05 max>1"; c = store.columns(w.ids()); assert (c["density"] < .05).all() and (c["max"] > 1).all() and 0 < len(w.ids()) < len(store) and w.found["count"] == len(w.ids())
    w.sort, w.descending = "density", False; assert (np.diff(store.columns(w.ids())["density"]) >= 0).all()
    rows = opened(w.chunk(("rows", "1", "0"))); assert rows["feature"] == list(map(int, w.ids()[:PAGE])) and len(rows["density"]) == len(rows["feature"]) and set(rows["score"]) == {None}      # never scored is not 0
    assert w.to_frame().feature.tolist() == list(w.ids())


@pytest.mark.parametrize("bad", ["densty<1e-3", "/(/", "density<lots"])
def test_a_bad_query_is_one_sentence_and_changes_nothing(w, bad):
    before = list(w.ids())
    with pytest.raises(WidgetError, match=r"^[^\n]+[.?]$"): w.query = bad
    w._asked(None, dict(kind="search", text=bad), []); assert w.query == "" and w.found["asked"] == bad and w.found["refused"][-1] in ".?" and list(w.ids()) == before
    w._asked(None, dict(kind="search", text="the"), []); assert w.query == "the" and "refused" not in w.found


def test_pins_and_the_place_in_the_list(w):
    third = int(w.ids()[2]); w.feature = third; assert w.found["at"] == 2
    w.pins = [third, 5, third]; assert w.pins == [third, 5]; w.show = "pinned"; assert list(w.ids()) == [third, 5] and w.found["count"] == 2
    with pytest.raises(WidgetError, match="400 features"): w.pins = [400]
    with pytest.raises(WidgetError, match="400 features"): w.feature = -1
    with pytest.raises(WidgetError, match="label, density"): w.sort = "loudness"
    with pytest.raises(WidgetError, match="strength"): FeatureBrowser(w.data.store, strenght=1)


def test_state_and_selections(w, store):
    w.query, w.pins, w.strength, w.text = "density<.05", [3], 1.5, TEXT; other = FeatureBrowser(store).restore(w.state()); assert other.state() == w.state()
    with pytest.raises(WidgetError): other.restore(dict(feature=9999))
    assert other.state() == w.state(); a, b = FeatureBrowser(store), FeatureBrowser(store); Selection().join(a, b); a.feature = 17; assert b.feature == 17


# --- one feature ---------------------------------------------------------------------------------------------------------------
def test_what_is_not_known_has_a_reason_and_is_no_zero(store):
    data = FeatureData(store); dead = int(data.find("dead")[0]); r = opened(json_chunk(data.detail(dead)))
    assert r["histogram"] is None and r["max"] is None and "never fired" in r["why"]["histogram"] and [e["band"] for e in r["examples"]] == [-1] * len(r["examples"])
    with pytest.raises(WidgetError, match="not known"): data.steered(dead, 1, TEXT)
    alone = FeatureStore.open(store.folder); bare = FeatureData(alone)                           # no model
    assert {k for k, v in bare.able().items() if v} == {"read", "steer", "attention", "patch", "direction"}
    e = store.record(int(store.features()[0]))["examples"][0]; got = bare.context(int(store.features()[0]), e["context"]); assert got["activations"] is None and "not kept" in got["why"] and len(got["tokens"]) == len(store.context(e["context"])[0])
    with pytest.raises(WidgetError, match="Needs the model"): FeatureBrowser(alone).test(TEXT)


def test_a_detail_is_the_stores_record(store):
    f = int(store.features()[0]); r, d = store.record(f), opened(json_chunk(FeatureData(store).detail(f)))
    assert d["fired"] == r["fired"] and d["histogram"]["counts"] == list(map(int, r["histogram"]["counts"])) and [l["text"] for l in d["labels"]] == ["names of people who give", "a second meaning"] and d["labels"][1]["score"] is None
    assert len(d["examples"]) == len(r["examples"]) and d["examples"][0]["special"] == [i for i, t in enumerate(r["examples"][0]["ids"]) if t in store.lm.tokenizer.all_special_ids]
    assert len(json_chunk(FeatureData(store).detail(f)).data) < 40_000


def test_numbers_on_their_way(): assert plain(dict(a=np.float32(1 / 3), b=[np.nan, np.inf], c=np.int64(12345678), d=True)) == dict(a=.3333, b=[None, None], c=12345678, d=True)


# --- with a model --------------------------------------------------------------------------------------------------------------
def test_a_text_is_read_as_a_plain_run_reads_it(w, micro, store):
    w.pins = [3, 9]; x = w.test(TEXT); run = micro.run([TEXT], keep=SITE); plainly = store.dictionary.encode(run.tensor(SITE)[0])
    assert x.feature.values.tolist() == [w.feature, 3, 9] and np.allclose(x.values, plainly[:, x.feature.values.tolist()].detach(), atol=1e-5)
    got = opened(w.chunk(("text", str(w.feature), TEXT))); assert np.allclose(got["activations"][str(w.feature)], x.values[:, 0], rtol=1e-3, atol=1e-6)
    ids, _ = store.context(2); assert np.allclose(opened(w.chunk(("context", str(w.feature), "2")))["activations"], store.dictionary.encode(micro.run([ids], keep=SITE).tensor(SITE)[0], [w.feature])[:, 0].detach(), rtol=1e-3, atol=1e-6)


def test_steering_is_adding_the_row(w, micro, store):
    "Adding and keeping the error is x + s * max * row: written here without the dictionary's own edit."
    w.prompt, w.strength = TEXT, 1.5; f = w.feature; top = float(store.columns([f])["max"][0]); out = w.steer(); row = store.dictionary.directions[f].detach()
    before, after = (micro.run([TEXT], edits=e).logits_tensor[0] for e in ((), [edits.add(SITE, row, 1.5 * top)])); p, q = before.double().softmax(-1), after.double().softmax(-1)
    assert np.allclose(out["kl"], (p * (p / q).log()).sum(-1), atol=1e-6) and out["kl"].max() > 0 and out["amount"] == pytest.approx(1.5 * top)
    assert [t for t, _ in out["steered"]] == micro.generate([TEXT], w.new_tokens, edits=[edits.add(SITE, row, 1.5 * top)]).new[0] and [t for t, _ in out["baseline"]] == micro.generate([TEXT], w.new_tokens).new[0]
    assert np.allclose(w.steer(strength=0.)["kl"], 0) and w.steer(strength=0.)["same"] == len(out["baseline"])
    w.steer_mode = "clamp"; x = micro.run([TEXT], keep=SITE).tensor(SITE)[0]; own = store.dictionary.encode(x, [f])[:, 0].detach(); held_ = micro.run([TEXT], edits=[edits.add(SITE, (1.5 * top - own)[None, :, None] * row)]).logits_tensor[0]
    assert np.allclose(w.steer()["kl"], kl_by_position(before, held_), atol=1e-6)


def test_sampling_takes_one_seed(w):
    w.prompt, w.sampled = "When Mary and John", True; one, two = w.steer(strength=0.), w.steer(strength=0.); assert one["baseline"] == one["steered"] == two["baseline"]
    w.seed = 3; assert w.steer(strength=0.)["baseline"] != one["baseline"]


def test_removing_a_feature_moves_the_loss(w, micro, store):
    data = w.data; f = w.feature; text = micro.tokenizer.decode(store.context(store.record(f)["examples"][0]["context"])[0]); got = np.array(data.removed(f, text)[1:]); ids, _ = data._words(text)
    row, run = store.dictionary.directions[f].detach(), micro.run([ids], keep=SITE); own = store.dictionary.encode(run.tensor(SITE)[0], [f])[:, 0].detach(); assert float(own.max()) > 0
    loss = lambda r: -r.logits_tensor[0].double().log_softmax(-1)[range(len(ids) - 1), ids[1:]].numpy()
    assert np.allclose(got, loss(micro.run([ids], edits=[edits.add(SITE, -own[None, :, None] * row)])) - loss(run), atol=1e-6) and np.abs(got).max() > 0
    assert not np.any(data.removed(int(data.find("dead")[0]), text)[1:])


def test_two_dictionaries(store, micro, task):
    own = store.dictionary; order = torch.randperm(own.n_features, generator=torch.Generator().manual_seed(0)); shuffled = dictionary_of(micro, task); shuffled.W_enc.data, shuffled.W_dec.data = own.W_enc.data[:, order], own.W_dec.data[order]
    w = FeatureBrowser(store, beside=shuffled); where = order.argsort(); f = w.feature; m = w.data.matches(f)
    assert m["cosine"][0] == (int(where[f]), pytest.approx(1., abs=1e-5)) and m["correlation"][0][0] == int(where[f]) and m["correlation"][0][1] == pytest.approx(1., abs=1e-6) and m["n"] > 100
    assert np.allclose(w.to_frame().match, 1, atol=1e-5); x = micro.run(task.prompts, keep=SITE); x = x.tensor(SITE)[x.tokens.mask.bool()]
    rival = FeatureBrowser(store, beside=dictionary_of(micro, task, seed=1)); best, at = rival.data.best(); g = torch.nn.functional.normalize(own.W_dec, dim=-1) @ torch.nn.functional.normalize(rival.data.beside.W_dec, dim=-1).T
    assert np.allclose(best, g.max(-1).values.detach()) and best.max() < .8; rival.sort = "match"; assert (np.diff(rival.to_frame().match) <= 1e-7).all()
    whole = rival.data.by_activation(f); rows = [store.context(c)[0] for c in dict.fromkeys(e["context"] for e in store.record(f)["examples"])]; run = micro.run(rows, keep=SITE); z = run.tensor(SITE)[run.tokens.mask.bool()]
    plainly = np.corrcoef(own.encode(z, [f])[:, 0].detach(), rival.data.beside.encode(z)[:, whole[0][0][0]].detach())[0, 1]; assert whole[0][0][1] == pytest.approx(plainly, abs=1e-6) and whole[1] == len(z)
    dead = int(rival.data.find("dead")[0]); assert rival.data.matches(dead)["correlation"] is None and "does not vary" in rival.data.matches(dead)["why"]["correlation"]


def test_directions_as_files(w, store, tmp_path):
    from safetensors.torch import load_file
    row = store.dictionary.directions[w.feature].detach(); a, b = np.load(w.save_direction(tmp_path/"d.npz")), load_file(w.save_direction(tmp_path/"d.safetensors"))
    assert np.allclose(a["direction"], row) and torch.allclose(b["direction"], row) and int(a["feature"]) == w.feature and str(a["site"]) == SITE
    with pytest.raises(WidgetError, match="npz or safetensors"): w.save_direction(tmp_path/"d.bin")
    w.prompt, w.strength = TEXT, 2.; line = w.steering_line(); scope = dict(lm=store.lm, dictionary=store.dictionary); before, call = line.split("; "); exec(before, scope); assert eval(call, scope).new[0] == [t for t, _ in w.steer()["steered"]]


def test_doors_to_other_rooms(store, micro, task):
    w = FeatureBrowser(store, pairs=task); e = store.record(w.feature)["examples"][0]; a = w.attention(); assert a.layer == 2 and a.locked == [e["pos"]] and a.tokens("query") == store.context(e["context"])[1]
    a.close(); w.pins = [int(store.features()[1])]; g = w.patch(); assert g.result.sizes["feature"] == 2 and "denoising" in repr(g) and np.isfinite(g.result.recovery).any(); g.close()
    g = w.patch(TEXT, TEXT.replace("John gave", "Mary gave")); assert list(g.result.data_vars)[0] == "kl"; g.close()
    with pytest.raises(WidgetError, match="twin"): w.patch(TEXT)
    with pytest.raises(WidgetError, match="pairs="): FeatureBrowser(store).patch()
    w._asked(None, dict(kind="patch", prompt=TEXT, corrupt=""), []); assert "twin" in w.said
    w._asked(None, dict(kind="patch", prompt=TEXT, corrupt="Mary"), []); assert w.said and "\n" not in w.said


def test_what_does_not_belong_together_is_refused(store, micro, task):
    with pytest.raises(WidgetError, match="no feature store"): FeatureBrowser(store.dictionary)
    with pytest.raises(Exception, match="weights differ"): FeatureBrowser(FeatureStore.open(store.folder), micro, dictionary_of(micro, task, seed=5))
    with pytest.raises(WidgetError, match="nothing called"): FeatureBrowser(store).chunk(("everything", "1"))


# --- pages, pictures, sizes ----------------------------------------------------------------------------------------------------
def test_a_page_holds_the_pinned_features_only(w, store):
    w.pins = [int(f) for f in store.features()[:2]] + [int(w.data.find("dead")[0])]; w.text, w.prompt, w.strength = TEXT, TEXT, 1.; data = w._page_data()
    records = [k for k in data["chunks"] if k.startswith("record|")]; assert records == [f"record|{f}" for f in w.pins] and held(data["chunks"]["rows|0|0"])["feature"] == w.pins and data["state"]["meta"]["held"] == w.pins
    assert f"text|{w.feature}|{TEXT}" in data["chunks"] and f"steer|{w.feature}|1|add|20|0|false|{TEXT}" in data["chunks"] and not any(k.startswith("steer|" + str(w.pins[2])) for k in data["chunks"])     # a dead feature has no unit
    w.pins = []; w.feature = 7; assert [k for k in w._page_data()["chunks"] if k.startswith("record|")] == ["record|7"]
    w.pins = list(range(300))
    with pytest.raises(WidgetError, match="unpin"): w.to_html()


def test_what_travels_is_small(w, store):
    assert len(esm("features")) <= 25_000 and len(css("features")) <= 10_000
    names = [n for f in files_of("features.js") for n in re.findall(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", static(f), re.M)]; assert len(names) == len(set(names))
    assert len(w.chunk(("rows", "1", "0")).data) <= 100 * PAGE; one = len(w.to_html()); w.pins = [int(f) for f in store.features()[:11]]; assert one < 200_000 and len(w.to_html()) - one < 11 * 30_000


def test_pages_and_pictures(w, store, monkeypatch, tmp_path):
    page = w.to_html(tmp_path/"f.html").read_text(); assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page) and "<table>" in page and "names of people who give" in page
    assert w.to_png() != w.to_png(dark=True) and "<svg" in w.to_svg() and w.rows()[1][0] == w.feature and w.rows()[1][4] == "0.81"
    w.feature = int(w.data.find("dead")[0]); assert w.to_png()[:4] == b"\x89PNG" and w.rows()[-1][3] == "not known"
    monkeypatch.setenv("WORKBENCH_WIDGETS", "live"); data = FeatureBrowser(store)._repr_mimebundle_()[0]; assert "application/vnd.jupyter.widget-view+json" in data and len(data["text/html"]) < 64_000 and "<script" not in data["text/html"]


def test_hostile_text_stays_text(micro, task, tmp_path):
    s = store_of(tmp_path/"s", micro, make("ioi", n=8)); f = int(s.features()[0]); s.describe(f, "</script><script>window.hit=1</script> $x^2$ 👑", "<b>", .5); assert "<script>window" not in FeatureBrowser(s, title="</script>").to_html() and FeatureBrowser(s).to_png()


def test_components_may_fire_below_zero(micro, task, tmp_path):
    x = micro.run(task.prompts[:20], keep=SITE).tensor(SITE); d = mean_difference(x[:10, -1].detach(), x[10:, -1].detach(), site=SITE); w = FeatureBrowser(FeatureStore(micro, d, task.prompts, tmp_path/"s").collect())
    r = opened(w.chunk(("record", "0"))); assert r["below"] > 0 and w.to_png() and w.test(TEXT).values.min() < 0 and w.meta["able"]["steer"] is None


# --- the front end's pure functions ---------------------------------------------------------------------------------------------
def test_pure_functions_in_node(store, tmp_path):
    r = store.record(int(store.features()[0])); rows = FeatureData(store).rows(store.features()[:9]); fixture = dict(examples=r["examples"], bands=r["bands"], groups=[[n, len(p)] for n, p in groups(r["examples"], len(r["bands"]) - 1, 2)], rows=rows, histogram=r["histogram"],
        below=[[v, float(np.interp(v, r["histogram"]["edges"], np.r_[0, np.cumsum(r["histogram"]["counts"])]) / sum(r["histogram"]["counts"]))] for v in np.linspace(0, r["max"], 7)], where=[[v, int(np.clip(np.searchsorted(r["bands"], v, "right"), 0, len(r["bands"]) - 1))] for v in np.linspace(0, 1.1 * r["max"], 23)])
    (tmp_path/"f.json").write_text(json.dumps(plain(fixture, 17)))
    run = subprocess.run([node(), "--test", str(ROOT/"tests"/"js"/"record.test.mjs")], capture_output=True, text=True, env=os.environ | {"FIXTURE": str(tmp_path/"f.json")}, timeout=120)
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    assert int(re.search(r"pass (\d+)", run.stdout)[1]) == (ROOT/"tests"/"js"/"record.test.mjs").read_text().count("\ntest(")

"Harvests: the model's own vectors, each with its text; the same bytes after a kill, from one process or several; bounded memory; files, stores and web addresses."
import ctypes
import functools
import gc
import gzip
import http.server
import json
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench.features.records import flat_text
from workbench.features.store import ActivationStore
from workbench.features.train import Trainer
from workbench.lm.errors import WorkbenchError
from workbench.scale import harvest as H
from workbench.scale.corpus import read_corpus
from workbench.scale.harvest import harvest, harvest_bytes, open_harvest
from workbench.scale.places import Place, PlaceError, files_of, stream
from workbench.scale.shards import reading_bytes
from workbench.tasks.catalogue import make

TEXT = "\n".join(["Mary gave the book to John .", "Then John went to the store", "", "the red box is in the kitchen"] * 20)
SITES = ["resid_post.1", "mlp_post.0"]
SMALL = dict(context=16, batch=4, shard_tokens=128)


@pytest.fixture(scope="module")
def lm():
    import workbench
    torch.set_num_threads(1); return workbench.load("micro", check=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "a.txt"; path.write_text(TEXT); return path


@pytest.fixture(scope="module")
def whole(lm, corpus, tmp_path_factory):
    "A harvest that nothing disturbed."
    return harvest(lm, corpus, SITES, tmp_path_factory.mktemp("whole"), **SMALL)


def files(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file() and ".claims" not in p.parts}


# --- what is read, what is kept ---------------------------------------------------------------------------------------
def test_text_is_cut_as_in_the_features_room(lm, corpus, tmp_path):
    for name in ("b.txt", "c.txt"): (tmp_path / name).write_text(TEXT[:900])
    for given in (corpus, [tmp_path / "b.txt", tmp_path / "c.txt"], {"text": TEXT}, make("ioi", n=30), ["Mary gave the book", "the red box"]):
        ids, starts = flat_text(lm, given, 32); mine = list(read_corpus(lm, given, 32)); assert np.concatenate([c.ids for c in mine]).tolist() == ids.tolist() and [len(c.ids) for c in mine] == np.diff(starts).tolist()


def test_one_text_in_every_form(lm, corpus, tmp_path, web):
    import duckdb
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(TEXT.encode())); Place("memory://corpora").write("a.txt", TEXT.encode()); shutil.copy(corpus, web.folder / "a.txt"); (web.folder / "b.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    want = [c.ids.tolist() for c in read_corpus(lm, corpus, 16)]
    for where in (tmp_path / "a.txt.gz", f"file://{corpus}", "memory://corpora/*.txt", f"{web.url}/a.txt", f"{web.url}/b.txt.gz", str(corpus.parent / "*.txt")): assert [c.ids.tolist() for c in read_corpus(lm, where, 16)] == want
    lines = [l for l in TEXT.splitlines() if l] + ["the book " * 9000]; (tmp_path / "r.jsonl").write_text("".join(json.dumps({"body": l}) + "\n" for l in lines))
    duckdb.connect().execute("CREATE TABLE t AS SELECT unnest($1) AS body", [lines]).execute(f"COPY t TO '{tmp_path}/r.parquet' (FORMAT parquet)")
    a, b = (list(read_corpus(lm, tmp_path / f"r.{k}", 8, field="body")) for k in ("jsonl", "parquet"))
    assert [(c.record, c.start, c.ids.tolist()) for c in a] == [(c.record, c.start, c.ids.tolist()) for c in b] and {c.record for c in a} == set(range(len(lines)))
    ids = lm.tokenizer(lines[-1], add_special_tokens=False)["input_ids"]; assert np.concatenate([c.ids for c in a if c.record == len(lines) - 1]).tolist() == ids     # longer than a block: cut at spaces, nothing lost


def test_vectors_are_the_models_and_know_their_text(lm, whole):
    v, want = whole["resid_post.1"], [c.ids for c in read_corpus(lm, {"text": TEXT}, 16)]; assert len(whole) == len(v) == sum(map(len, want)) == whole.manifest["tokens"] and len(whole.shards) > 3
    assert whole.sql("SELECT id FROM tokens ORDER BY context, pos").id.tolist() == np.concatenate(want).tolist() and whole.verify() == [] and v.verify() == []
    row, at = 0, np.cumsum([0, *map(len, want)])
    for s in whole.shards:                                               # the batches of the harvest, by the engine that it does not use
        for a in range(s["first_context"], s["first_context"] + s["contexts"], SMALL["batch"]):
            rows = want[a:min(a + SMALL["batch"], s["first_context"] + s["contexts"])]; run = lm.run([r.tolist() for r in rows], keep=SITES); n = sum(map(len, rows)); real = run.tokens.mask.bool()
            assert all(torch.equal(run.tensor(site)[real], whole[site][row:row + n]) for site in SITES); row += n
    t = v.trace(200); c = int(np.searchsorted(at, 200, side="right")) - 1
    assert (t["context"], t["pos"]) == (c, 200 - at[c]) and t["token"] == whole.words[want[c][t["pos"]]] and (t["before"] + " " + t["token"]).split() == [whole.words[i] for i in want[c][:t["pos"] + 1]]
    x = v.xarray(190, 210); assert x.dims == ("vector", "d_model") and x.token.values[10] == t["token"] and int(x.context[10]) == c and torch.equal(torch.tensor(x.values), v[190:210]) and torch.equal(v[-1], v[len(v) - 1:][0])
    s = v.statistics(); z = v[:].double(); assert s.n == len(z) and torch.allclose(s.mean, z.mean(0)) and s.first == len(want) and abs(s.norm - float(z.norm(dim=1).sum())) < 1e-6 * s.norm


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "bert"])
def test_a_pass_that_stops_early_computes_the_same(family):
    from workbench.lm.load import load
    from workbench.lm.specimens import build
    lm = load(build(family), check=False); rows = [[5, 6, 7, 8, 9], [9, 10, 11]]; sites = ["embed", "resid_post.0", "mlp_out.0", "z.0"]; hooks = lambda: sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules()); before = hooks()
    ran = []; last = lm.main.layers[-1].block.register_forward_hook(lambda *_: ran.append(1)); got, _ = H.states(lm, rows, H.harvest_sites(lm, sites)); last.remove(); want = lm.run(rows, keep=sites)
    assert not ran and hooks() == before and all(torch.equal(v, want.tensor(s)) for s, v in got.items()) and len(got) == 4
    far, _ = H.states(lm, rows, H.harvest_sites(lm, ["resid_post"])); assert all(torch.equal(v, lm.run(rows, keep="resid_post").tensor(s)) for s, v in far.items()) and len(far) == lm.n_layers


def test_formats_skips_and_limits(lm, corpus, whole, tmp_path):
    b = harvest(lm, corpus, "z.1", tmp_path / "b", dtype="bfloat16", skip_first=2, tokens=300, **SMALL); v = b["z.1"]; full = harvest(lm, corpus, "z.1", tmp_path / "f", tokens=300, **SMALL)["z.1"]
    assert b.manifest["tokens"] == 300 and len(v) == 300 - 2 * b.manifest["contexts"] and v.shape == (8, 16) and v[:].dtype == torch.bfloat16
    keep = torch.tensor([int(p) >= 2 for p in full.xarray(0, 300).pos]); assert torch.equal(full[:][keep].bfloat16(), v[:]) and v.xarray(0, 5).dims == ("vector", "head", "d_head") and int(v.xarray(0, 5).pos.min()) == 2
    small = harvest(lm, corpus, SITES, tmp_path / "s", context=16, batch=4, shard_bytes=512 * 4 * 64); assert small.plan["shard_tokens"] == 64 and max(s["tokens"] for s in small.shards) <= 64 and all(f["bytes"] < 512 * 4 * 64 + 16384 for s in small.shards for f in s["sites"].values())


# --- one form for both stores -----------------------------------------------------------------------------------------
def test_the_same_vectors_give_the_same_dictionary(lm, whole, tmp_path):
    "A store of the features room reads harvested shards, and a training cannot tell the two apart."
    source = whole.source("resid_post.1", held_out=.2, mix=1); contexts = [c.ids.tolist() for c in read_corpus(lm, {"text": TEXT}, 16)]
    store = ActivationStore(lm, contexts, "resid_post.1", tmp_path, held_out=1 / len(contexts), per_shard=-(-(len(contexts) - 1) // len(source.train))); assert len(store.train) == len(source.train) and len(source.held) == 1
    for theirs, mine in zip([*store.train, "held"], [*source.train, *source.held]): shutil.copy(whole.place.local / "resid_post.1" / f"{mine}.safetensors", tmp_path / f"{theirs}.safetensors")
    same = dict(architecture="topk", n_features=64, k=4, steps=12, batch=96, report_every=6, window=960); trained = [Trainer(s, **same) for s in (source, store)]
    for t in trained: list(t.steps())
    a, b = (t.tensors() for t in trained); assert all(torch.equal(a[k], b[k]) for k in a) and [{k: v for k, v in r.items() if k != "seconds"} for r in trained[0].history] == [{k: v for k, v in r.items() if k != "seconds"} for r in trained[1].history]
    held = torch.cat([load_file(whole.place.local / "resid_post.1" / f"{n}.safetensors")["x"] for n in source.held]); assert torch.equal(source.held_out(50)[0], held[:50])
    training = torch.cat([load_file(whole.place.local / "resid_post.1" / f"{n}.safetensors")["x"] for n in source.train]); order = lambda v: v[np.lexsort(v.numpy().T)]
    for mix in (1, 3, 50): assert torch.equal(order(torch.cat(list(whole.source("resid_post.1", held_out=.2, mix=mix).batches(1)))[:, :]), order(training))


def test_the_store_and_the_harvest_read_the_same_vectors(lm, tmp_path):
    "The room's own collection and a harvest of the same prompts: each vector once in both, and the dictionaries agree."
    task = make("ioi", n=40); store = ActivationStore(lm, task, "resid_post.1", tmp_path / "a", per_shard=8, outliers=True).collect(); h = harvest(lm, task, "resid_post.1", tmp_path / "b", shard_tokens=256)["resid_post.1"]
    t = [load_file(tmp_path / "a" / f"{n}.safetensors") for n in store.groups]; theirs = {k: torch.cat([u[k] for u in t]) for k in ("x", "context", "pos")}; at = np.lexsort([theirs["pos"], theirs["context"]]); x, y = theirs["x"][at], h[:]
    assert x.shape == y.shape and float((x - y).abs().max()) < 1e-4
    one, two = (Trainer(v, "topk", n_features=64, k=4, steps=15, batch=64) for v in (x, y)); list(one.steps()), list(two.steps()); assert max(float((v.float() - two.tensors()[k].float()).abs().max()) for k, v in one.tensors().items() if k.startswith("model.")) < 2e-3


def test_pairs_of_sites(lm, whole):
    s = whole.source("mlp_post.0", to="resid_post.1", mix=2); x, y = s.batch(3, 40, 1); every = {v.numpy().tobytes(): i for i, v in enumerate(whole["mlp_post.0"][:])}
    assert x.shape == (40, 512) and y.shape == (40, 128) and (s.d_in, s.d_out) == (512, 128) and all(torch.equal(whole["resid_post.1"][every[a.numpy().tobytes()]], b) for a, b in zip(x, y)) and s.held_out(5)[1].shape == (5, 128)


# --- killed, shared, repeated -----------------------------------------------------------------------------------------
FORK = multiprocessing.get_context("fork")


def alone(target, *args):
    p = FORK.Process(target=target, args=args); p.start(); return p


def doomed(lm, corpus, folder, fatal):
    "A harvest that is killed just before its `fatal`-th write, rename or flush."
    count = [0]
    def watched(f):
        @functools.wraps(f)
        def call(*a, **k):
            count[0] += 1
            if count[0] == fatal: os.kill(os.getpid(), signal.SIGKILL)
            return f(*a, **k)
        return call
    H.ShardWriter._put, Path.replace, Path.write_bytes, os.fsync, Path.unlink = map(watched, (H.ShardWriter._put, Path.replace, Path.write_bytes, os.fsync, Path.unlink))
    harvest(lm, corpus, SITES, folder, **SMALL); (folder.parent / "count").write_text(str(count[0]))


def test_killed_anywhere_it_goes_on_with_the_same_bytes(lm, corpus, whole, tmp_path):
    want = files(whole.place.local); p = alone(doomed, lm, corpus, tmp_path / "all", 0); p.join(); total = int((tmp_path / "count").read_text()); assert total > 100
    rng = random.Random(7); points = sorted({2, total - 1, total, *rng.sample(range(1, total), 9)})
    for i, fatal in enumerate(points):
        folder = tmp_path / str(i); p = alone(doomed, lm, corpus, folder, fatal); p.join(); assert p.exitcode == -signal.SIGKILL, fatal
        done = [json.loads(f.read_text()) for f in (folder / "shards").glob("*.json")] if (folder / "shards").exists() else []      # what says it is there is there, whole
        assert all(files(folder)[e["file"]] == want[e["file"]] for d in done for e in d["sites"].values()) and (fatal > total - 6 or not (folder / "manifest.json").exists())
        if i % 3 == 0: p = alone(doomed, lm, corpus, folder, max(1, fatal // 2)); p.join()                                            # and again while it goes on
        harvest(lm, corpus, SITES, folder, **SMALL); assert files(folder) == want, fatal


def test_killed_at_any_time(lm, corpus, whole, tmp_path):
    "The same from outside, at moments that nobody chose."
    rng, killed = random.Random(), 0; start = time.monotonic(); p = alone(harvest, lm, corpus, SITES, tmp_path / "x", "float32", *SMALL.values()); p.join(); took = time.monotonic() - start
    for i in range(4):
        p = alone(harvest, lm, corpus, SITES, tmp_path / "y", "float32", *SMALL.values()); p.join(rng.random() * took); killed += p.is_alive(); p.kill(); p.join()
    harvest(lm, corpus, SITES, tmp_path / "y", **SMALL); assert files(tmp_path / "y") == files(whole.place.local) == files(tmp_path / "x")


def counted(lm, corpus, folder, log):
    made = H._make
    def noted(lm, place, plan, k, digest):
        with open(log, "a") as f: f.write(f"{k}\n")
        time.sleep(.02); return made(lm, place, plan, k, digest)
    H._make = noted; harvest(lm, corpus, SITES, folder, **SMALL)


def test_two_processes_share_a_folder(lm, corpus, whole, tmp_path):
    ps = [alone(counted, lm, corpus, tmp_path / "x", tmp_path / f"{i}.log") for i in range(2)]; [p.join() for p in ps]; made = [[int(k) for k in (tmp_path / f"{i}.log").read_text().split()] if (tmp_path / f"{i}.log").exists() else [] for i in range(2)]
    assert [p.exitcode for p in ps] == [0, 0] and sorted(made[0] + made[1]) == list(range(len(whole.shards))) and files(tmp_path / "x") == files(whole.place.local)


def test_a_claim_elsewhere_is_waited_for(lm, corpus, whole, tmp_path):
    place = Place(tmp_path / "x"); seen = []
    def other():
        with place.claim(".claims/shard00001"): ready.set(); time.sleep(.5); seen.append(sorted(place.names("shards")))
    ready = threading.Event(); t = threading.Thread(target=other); t.start(); ready.wait(); harvest(lm, corpus, SITES, tmp_path / "x", **SMALL); t.join()
    assert "shard00001.json" not in seen[0] and files(tmp_path / "x") == files(whole.place.local)


def test_workers_of_dask_give_the_same_bytes(lm, corpus, whole, tmp_path):
    import dask                                                         # new processes, forked from one that has imported torch once
    multiprocessing.set_forkserver_preload(["workbench.scale.harvest", "transformers.models.gpt2.modeling_gpt2"])
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}): told = []; h = harvest("micro", corpus, SITES, tmp_path / "x", jobs=2, progress=told.append, **SMALL)
    assert files(tmp_path / "x") == files(whole.place.local) and sorted(d["shard"] for d in told) == list(range(len(h.shards)))


def test_a_finished_harvest_computes_nothing(lm, corpus, whole, monkeypatch):
    monkeypatch.setattr(H, "_make", None); before = files(whole.place.local); told = []; harvest(lm, corpus, SITES, whole.place.local, jobs=2, progress=told.append, **SMALL); assert not told and files(whole.place.local) == before


def test_another_plan_or_text_is_refused(lm, corpus, whole, tmp_path):
    folder = whole.place.local
    for change, word in (dict(batch=8), "batch"), (dict(dtype="float16"), "dtype"), (dict(resume=False), "resume"):
        with pytest.raises(WorkbenchError, match=word): harvest(lm, corpus, SITES, folder, **SMALL | change)
    for text, word in (TEXT.replace("Mary", "John"), "another text"), (TEXT + TEXT, "another text"), (TEXT[:len(TEXT) // 2], "another text|shorter"):
        (tmp_path / "t.txt").write_text(text)
        with pytest.raises(WorkbenchError, match=word): harvest(lm, tmp_path / "t.txt", SITES, folder, **SMALL)
    with lm.edited_weights(__import__("workbench.lm.weights", fromlist=["WeightEdit"]).WeightEdit("O", lambda w: 2 * w, layer=0)), pytest.raises(WorkbenchError, match="weights"): harvest(lm, corpus, SITES, folder, **SMALL)
    assert whole.verify() == []


def test_damage_is_found(lm, corpus, tmp_path):
    h = harvest(lm, corpus, "resid_post.0", tmp_path, **SMALL); f = tmp_path / h.shards[2]["sites"]["resid_post.0"]["file"]; raw = bytearray(f.read_bytes()); raw[-3] ^= 1; f.write_bytes(raw); assert h.verify() == [f"resid_post.0/{f.name}"] and h["resid_post.0"].verify() == ["shard00002"]
    f.write_bytes(raw[:500]); assert len(h.verify()) == 1
    with pytest.raises(WorkbenchError, match="verify"): h["resid_post.0"].statistics()
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(WorkbenchError, match="goes on"): open_harvest(tmp_path)


# --- places -----------------------------------------------------------------------------------------------------------
class Web:
    "A folder on a loopback address."
    def __init__(self, folder):
        self.folder = folder; quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None}); self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"; threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    w = Web(tmp_path_factory.mktemp("web")); yield w; w.server.shutdown(); w.server.server_close()


def test_urls_are_written_and_read(lm, corpus, whole, web, tmp_path):
    harvest(lm, corpus, SITES, "memory://harvests/a", **SMALL); m = open_harvest("memory://harvests/a"); fs = m.place.fs; want = files(whole.place.local)
    assert {f.split("/harvests/a/")[1]: fs.cat_file(f) for f in fs.find("/harvests/a") if "/.claims/" not in f} == want and m.verify() == []
    harvest(lm, corpus, SITES, f"file://{tmp_path}/b", **SMALL); assert files(tmp_path / "b") == want
    shutil.copytree(whole.place.local, web.folder / "h"); w = open_harvest(f"{web.url}/h")
    for h in (m, w):
        assert torch.equal(h["resid_post.1"][100:300], whole["resid_post.1"][100:300]) and h["resid_post.1"].trace(77) == whole["resid_post.1"].trace(77) and torch.equal(h.source("mlp_post.0").batch(2, 30, 0)[0], whole.source("mlp_post.0").batch(2, 30, 0)[0])
        assert h["resid_post.1"].statistics().says() == whole["resid_post.1"].statistics().says() and h.sql("SELECT count(*) AS n FROM tokens").n[0] == len(whole)
    with pytest.raises(PlaceError, match="read and not written"): harvest(lm, corpus, SITES, f"{web.url}/new", **SMALL)
    with pytest.raises(PlaceError, match="answers 404"): stream(f"{web.url}/none.txt?key=SECRET")
    assert "SECRET" not in str(pytest.raises(PlaceError, stream, f"{web.url}/none.txt?key=SECRET").value)


@pytest.mark.parametrize("where, says", [("s3://bucket/a", "s3fs"), ("gs://bucket/a", "gcsfs"), ("abfs://c/a", "adlfs"), ("sftp://host/a", "paramiko"), ("nosuch://a", "not a place"), ("http://127.0.0.1:9/a.txt", "cannot be reached")])
def test_a_place_says_what_it_lacks(where, says):
    package = dict(s3="s3fs", gs="gcsfs", abfs="adlfs", sftp="paramiko").get(where.split(":")[0])
    if package and __import__("importlib.util").util.find_spec(package): pytest.skip("installed here")
    e = pytest.raises(PlaceError, stream, where).value; assert says in str(e) and str(e).count("\n") == 0


def test_bad_input_is_one_sentence(lm, corpus, tmp_path):
    for change, says in (dict(sites="pattern.0"), "no vector at each position"), (dict(sites=[]), "at least one site"), (dict(sites="resid_post.9"), "4 layers"), (dict(context=4000), "reads"), (dict(skip_first=64), "leaves nothing"), (dict(dtype="int8"), "float32"), (dict(batch=0), "batch=0"), \
            (dict(corpus=[]), "A corpus is"), (dict(corpus=tmp_path / "no.txt"), "no file"), (dict(corpus={"text": "  "}), "no text"), (dict(corpus=["Mary " * 70]), "context=7"), (dict(to="memory://m", jobs=2), "one process|this process"), (dict(to=corpus), "is a file"):
        given = dict(lm=lm, corpus=corpus, sites="resid_post.0", to=tmp_path / "out") | change; folder = given["to"]
        e = pytest.raises(WorkbenchError, harvest, given.pop("lm"), given.pop("corpus"), given.pop("sites"), given.pop("to"), **given).value
        assert __import__("re").search(says, str(e)) and "\n" not in str(e), (change, str(e)); shutil.rmtree(tmp_path / "out", ignore_errors=True)
    from workbench.lm import edits
    with lm.edited(edits.scale("resid_post.0", 1e6)), pytest.raises(WorkbenchError, match="float16 can hold"): harvest(lm, corpus, "resid_post.0", tmp_path / "f", dtype="float16")


# --- memory -----------------------------------------------------------------------------------------------------------
def status(field): return next(1024 * int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(field))       # not ru_maxrss: a child inherits its parent's


def settle():
    "Freed memory goes back to the system, large blocks leave the process when they are freed, and a new peak begins."
    libc = ctypes.CDLL("libc.so.6"); gc.collect(); libc.mallopt(-3, 65536); libc.malloc_trim(0); Path("/proc/self/clear_refs").write_text("5"); return status("VmRSS")


def weighed(lm, corpus, folder):
    "Highest resident bytes above the start, of two harvests and of a shuffled reading."
    peaks = {}
    for tokens in (2048, 20480): start = settle(); h = harvest(lm, corpus, "mlp_post", folder / str(tokens), tokens=tokens, **WIDE); peaks[tokens] = status("VmHWM") - start
    source = h.source("mlp_post.0", held_out=.2, mix=2); start = settle(); 
    for i in range(len(source) // 512): source.batch(i, 512, 0)
    (folder / "told").write_text(json.dumps(dict(peaks=peaks, reading=status("VmHWM") - start, written=sum(f["bytes"] for s in h.shards for f in s["sites"].values()), shard=max(f["bytes"] for s in h.shards for f in s["sites"].values()))))


WIDE = dict(batch=8, shard_tokens=2048)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_memory_is_bounded_by_the_formula(lm, tmp_path):
    "Ten times the corpus, the same memory: less than the formula, which is less than what was written. 16 MiB more for the allocator's arenas, which the formulas do not know."
    (tmp_path / "long.txt").write_text((TEXT + "\n") * 70); p = alone(weighed, lm, tmp_path / "long.txt", tmp_path); p.join(); told = json.loads((tmp_path / "told").read_text()); peaks, bound = told["peaks"], sum(harvest_bytes(lm, "mlp_post", **WIDE).values()); print(told, bound)
    assert max(peaks.values()) < bound + 2 ** 24 < told["written"] and peaks["20480"] < 1.25 * peaks["2048"] + 2 ** 24 and told["reading"] < reading_bytes(2, told["shard"], WIDE["shard_tokens"]) + 2 ** 24 < told["written"] / 4

"""The committed measurements are whole, and the promises hold in them. Nothing is timed here."""
import json
import sys
import time
from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "bench"
RESULTS = json.loads((BENCH / "results.json").read_text())
ROWS = [r for g in RESULTS["groups"].values() for r in g]
sys.path.insert(0, str(BENCH))
from bars import bars          # noqa: E402  a script's folder, not a package
from timing import clock, scattered, summary, take_turns     # noqa: E402


def test_results_say_where_they_come_from():
    assert {"cpu", "cores", "python", "threads_used"} <= set(RESULTS["machine"])
    assert {"torch", "transformers", "transformer-lens", "nnsight"} <= set(RESULTS["versions"])
    assert all(len(r["date"]) == 10 and len(r["load"]) == 2 for r in ROWS)
    asked = dict(line.split("#")[0].strip().split("==") for line in (BENCH / "requirements.txt").read_text().splitlines() if "==" in line)
    assert all(RESULTS["versions"][name] == v for name, v in asked.items()), "measured with other peers than requirements.txt names"


def test_every_row_is_whole():
    timed = [r for r in ROWS if "cpu_ms_median" in r]
    assert len(timed) > 30 and {r["library"] for r in timed} >= {"transformers", "workbench", "transformer-lens", "nnsight"}
    for r in timed:
        assert 0 < r["cpu_ms_best"] <= r["cpu_ms_median"] and r["ratio_low"] <= r["ratio"] <= r["ratio_high"] and r["n"] >= 1, r
    assert all(r["n"] >= 7 for r in timed if r["group"] != "patching")


def test_everyone_computed_the_same_thing():
    "A ratio between different computations means nothing: logits, sites and tokens agree between libraries."
    for r in ROWS:
        if "error" in r: assert r["error"] <= 5e-5, r
        if "same_tokens" in r: assert r["same_tokens"], r


def test_the_promises_hold():
    assert bars(ROWS) == RESULTS["bars"] and len(RESULTS["bars"]) >= 12
    assert not [b for b in RESULTS["bars"] if not b["ok"]]


def test_patch_grids_were_measured_whole():
    "Every way made every cell of the same grids, in one run on one thread in float32."
    of = lambda library: {(r["grid"], r["shared"]): r for r in ROWS if r["group"] == "patching" and r["library"] == library}
    ours, hooks, lens = of("workbench"), of("transformers"), of("transformer-lens")
    assert {k: r["cells"] for k, r in ours.items()} == {("12 x 15 residual", 10): 180, ("12 x 15 residual", 0): 180, ("12 x 12 heads", 10): 144, ("12 x 12 heads", 0): 144,
                                                        ("12 x 12 x 15 heads, first order", 10): 2160, ("32,491 edges, first order", 10): 32491}
    assert hooks["12 x 15 residual", 10]["forwards"] > .8 * 180 and all(ours[k]["cells"] == r["cells"] for k, r in (hooks | lens).items()) and len(lens) == 4
    assert {r["way"] for r in ROWS if r["group"] == "patching" and r["library"] == "nnsight"} == {"nnsight, cell by cell", "nnsight, 15 invokes a trace"}
    assert all(1 < r["multiply_adds"] < r["cells"] for k, r in ours.items() if "first order" not in k[0])
    assert len({(r["date"], r["n"], r["device"], r["dtype"]) for r in ROWS if r["group"] == "patching"}) == 1 and RESULTS["machine"]["threads_used"] == 1


def test_cells_were_compared_on_five_families():
    "An error of 0 would mean nothing where patching moves nothing."
    found = [r for r in ROWS if r["group"] == "cells"]
    assert {r["shape"] for r in found} == {"thin", "llama", "gemma2", "t5", "bart"} and {r["by"] for r in found} == {"layer pos", "layer head", "layer kv_head"}
    assert all(r["moved"] > 1e3 * 1e-5 and r["error"] < 1e-5 for r in found) and sum(r["cells"] for r in found) > 800


def test_ratios_are_taken_within_a_round():
    "A machine that gets four times slower from one round to the next changes no ratio."
    found = summary({"plain": [1.0, 4.0, 2.0], "ours": [1.5, 6.0, 3.0]}, "plain")["ours"]
    assert found["ratio"] == found["ratio_low"] == found["ratio_high"] == 1.5 and found["cpu_ms_median"] == 3000


def test_every_job_runs_in_every_round():
    runs = []
    times = take_turns({n: lambda n=n: runs.append(n) for n in "abc"}, repeats=4, seconds=0, warm=0)
    assert all(len(t) == 4 for t in times.values()) and all(set(runs[i:i + 3]) == set("abc") for i in range(0, 12, 3))


def test_short_jobs_lie_scattered_between_long_ones():
    runs, ticks = [], iter(range(100))
    times = scattered({n: lambda n=n: runs.append(n) for n in "abc"}, dict(a=1, b=1, c=6), 2, clock=lambda: next(ticks))
    assert times == dict(a=[1, 1], b=[1, 1], c=[1, 1]) and runs[0] == "c" and runs.count("c") == 1 + 2 * 6 and runs.count("a") == 2
    more = []; scattered({n: lambda n=n: more.append(n) for n in [*"abcdef", "s"]}, dict.fromkeys("abcdef", 1) | dict(s=3), 1)
    assert "sss" not in "".join(more[1:])


# --- a GPU: what can be tested without one ---------------------------------------------------------------------------
def test_on_a_gpu_the_clock_waits_for_its_queue(monkeypatch):
    import torch
    waited = []; monkeypatch.setattr(torch.cuda, "synchronize", lambda *a: waited.append(1))
    read = clock("cuda"); assert read() <= read() and len(waited) == 2 and clock("cpu") is time.process_time


def test_in_half_precision_every_way_is_compared_with_float32(monkeypatch):
    import torch
    import rows, shapes
    from transformers import GPT2Config, GPT2LMHeadModel
    monkeypatch.setitem(shapes.SHAPES, "tiny", ("3-layer GPT-2", 15, lambda: GPT2LMHeadModel(GPT2Config(vocab_size=1000, n_embd=48, n_layer=3, n_head=4, n_positions=32))))
    monkeypatch.setattr(rows, "OFTEN", 1); monkeypatch.setattr(rows, "FORWARDS", 1)
    found = {(r["grid"], r["shared"], r["library"]): r for r in rows.patching("tiny", 1, dtype="bfloat16", peers=False)}
    assert shapes.model("tiny").dtype == torch.bfloat16 and {r["dtype"] for r in found.values()} == {"bfloat16"}
    hooks, ours = found["12 x 15 residual", 10, "transformers"], found["12 x 15 residual", 10, "workbench"]
    assert 1e-5 < hooks["error"] < .1 and ours["error"] < 3 * hooks["error"]         # rounding, in theirs as in ours


def test_what_a_gpu_measured_is_kept_beside_the_rest(monkeypatch, tmp_path):
    import torch
    import run
    kept = tmp_path / "results.json"; kept.write_text(json.dumps(dict(groups={}, devices={"old": {"float32": [1]}})))
    monkeypatch.setattr(run, "RESULTS", kept); monkeypatch.setattr(torch.cuda, "get_device_name", lambda d: "a GPU")
    run.write_device("cuda", "bfloat16", [dict(wall_ms_median=1.)])
    assert json.loads(kept.read_text())["devices"] == {"old": {"float32": [1]}, "a GPU": {"bfloat16": [dict(wall_ms_median=1.)]}}
    monkeypatch.setattr(sys, "argv", ["run.py", "forward-thin", "--device", "cuda"])
    with pytest.raises(SystemExit): run.main()


def test_widgets_were_measured_side_by_side():
    "Each library's page held the same heads at every length, showed something, and what was given up says at which limit."
    pages = [r for r in ROWS if r["group"] == "widgets"]
    libraries = {"workbench", "circuitsvis", "bertviz", "nothing"}
    for data, n in ("dense", 64), ("micro", 64), ("dense", 256), ("dense", 1024):
        row = {r["library"]: r for r in pages if r["data"] == data and r["tokens"] == n}
        assert set(row) == libraries and len({r["browser"] for r in row.values()}) == 1
        for r in row.values():
            if "stopped" in r: assert r["library"] in ("circuitsvis", "bertviz") and n == 1024, r
            else: assert r["hovers"] >= 3 and r["paint_cpu_s"] >= r["painted_cpu_s"] > 0 and r["colours"] > 20, r
        assert row["workbench"]["asked"] == row["circuitsvis"]["asked"] == 0 and row["bertviz"]["asked"] <= 3


def test_an_unknown_promise_is_noticed():
    with pytest.raises(StopIteration): bars([])


def test_training_steps_were_measured_side_by_side():
    "Every table holds every library that has the architecture, on one batch, and our gradients were those of the dense form."
    t = [r for r in ROWS if r["group"] == "features"]; jobs = {r["job"] for r in t}
    for job in jobs:
        own = {r["library"]: r for r in t if r["job"] == job}; kind = next(iter(own.values()))["kind"]
        assert set(own) == {"workbench", "sae-lens", "dictionary-learning", *(["sparsify"] if kind == "topk" else [])} and len({(r["batch"], r["d"], r["features"], r["k"], r["device"], r["dtype"], r["n"]) for r in own.values()}) == 1
    assert {(r["size"], r["dead"]) for r in t if r["kind"] == "topk"} == {(s, 0) for s in ("128x8", "128x32", "512x8", "512x32")} | {(s, 100) for s in ("128x8", "128x32", "512x8")}
    assert all(r["error"] < 5e-6 for r in t if "error" in r) and sum("error" in r for r in t) == 6
    asked = dict(line.split("==") for line in (BENCH.parent / "golden" / "features" / "requirements.txt").read_text().splitlines() if "==" in line)
    assert {r["version"] for r in t if r["library"] == "sae-lens"} == {asked["sae-lens"]} and {r["version"] for r in t if r["library"] == "sparsify"} == {asked["eai-sparsify"]}

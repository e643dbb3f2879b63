"""The committed measurements are whole, and the promises hold in them. Nothing is timed here."""
import json
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "bench"
RESULTS = json.loads((BENCH / "results.json").read_text())
ROWS = [r for g in RESULTS["groups"].values() for r in g]
sys.path.insert(0, str(BENCH))
from bars import bars          # noqa: E402  a script's folder, not a package
from timing import summary, take_turns     # noqa: E402


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
        assert 0 < r["cpu_ms_best"] <= r["cpu_ms_median"] and r["ratio_low"] <= r["ratio"] <= r["ratio_high"] and r["n"] >= 3, r
    assert all(r["n"] >= 7 for r in timed if r["group"] != "patching")


def test_everyone_computed_the_same_thing():
    "A ratio between different computations means nothing: logits, sites and tokens agree between libraries."
    for r in ROWS:
        if "error" in r: assert r["error"] <= 5e-5, r
        if "same_tokens" in r: assert r["same_tokens"], r


def test_the_promises_hold():
    assert bars(ROWS) == RESULTS["bars"] and len(RESULTS["bars"]) >= 12
    assert not [b for b in RESULTS["bars"] if not b["ok"]]


def test_ratios_are_taken_within_a_round():
    "A machine that gets four times slower from one round to the next changes no ratio."
    found = summary({"plain": [1.0, 4.0, 2.0], "ours": [1.5, 6.0, 3.0]}, "plain")["ours"]
    assert found["ratio"] == found["ratio_low"] == found["ratio_high"] == 1.5 and found["cpu_ms_median"] == 3000


def test_every_job_runs_in_every_round():
    runs = []
    times = take_turns({n: lambda n=n: runs.append(n) for n in "abc"}, repeats=4, seconds=0, warm=0)
    assert all(len(t) == 4 for t in times.values()) and all(set(runs[i:i + 3]) == set("abc") for i in range(0, 12, 3))


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

"""Measure this package beside its peers. `python tests/bench/run.py [GROUP ...] [--write] [--quick]`

Without groups everything is measured and `results.json`, which the documentation reads, is written. With groups (see `rows.GROUPS`) the
table is only printed, unless --write says that their rows should replace the old ones. Run it in the environment that `make bench` builds."""
import os

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}

import argparse
import datetime
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).with_name("results.json")
PACKAGES = ("torch", "transformers", "interp-workbench", "transformer-lens", "nnsight", "circuitsvis", "bertviz", "mpld3", "nbclassic", "playwright")


def machine() -> dict:
    "The processor, without any name of the host."
    info = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [l.split(":", 1)[1].strip() for l in info if l.startswith("model name")]
    return dict(cpu=names[0] if names else platform.processor(), cores=os.cpu_count(), system=platform.system(), python=platform.python_version(), threads_used=1)


def show(row: dict):
    "One row as one line."
    label = f"{row['group']:<10} {row.get('shape') or '':<6} {row['library']:<37}"[:58] + f" {row['job'][:88 if row['group'] == 'patching' else 42]:<43}"
    if row["group"] == "memory": print(label, f"held {row['held_bytes'] / 2**20:8.3f} MiB of {row['site_bytes'] / 2**20:.3f}, left behind {row['left_bytes'] / 2**20:7.3f}, peak over plain {row['peak_over_plain_bytes'] / 2**20:7.1f} MiB")
    elif row["group"] == "cells": print(label, f"{row['cells']} cells, {row['way']}, move the answer by {row['moved']:.3g}, error {row['error']:.1e}")
    elif row["group"] == "imports": print(label, f"{row['cpu_s_median']:8.2f} s CPU (best {row['cpu_s_best']:.2f})")
    elif row["group"] == "widgets": print(label, f"{(row['html_bytes'] + row['script_bytes']) / 1e6:8.2f} MB ", page_costs(row))
    elif row["group"] == "recovery": print(label, f"MMCS {row['mmcs']:.3f}, found {row['found']:.3f}, EV {row['explained_variance']:.3f}, L0 {row['l0']:.1f}, {row['cpu_s']:.0f} s CPU")
    elif row["group"] == "reports": print(label, f"{row['engine_cpu_s']:.2f} s CPU, nbclient {row['nbclient_cpu_s']:.2f} ({row['overhead']:+.1%})" if "overhead" in row else f"busy {row['busy']:.3f}, {row['cpu_s']:.0f} s CPU, {row['wall_s']:.0f} s wall on {row['cores']} cores")
    elif row["group"] == "gallery": print(label, f"drawn after {row['load_ms_median']:.0f} ms (worst {row['load_ms_worst']:.0f}), {row['load_cpu_ms_median']:.0f} CPU ms; search {row['search_ms_median']:.0f} ms; built in {row['build_cpu_s']:.1f} s CPU; {row['dom_nodes']} nodes")
    elif row["group"] == "harvest": print(label, f"{row['cpu_us_per_token']:.0f} us CPU a token, {row['ratio']:.2f} of the model alone")
    elif "wall_ms_median" in row and row["group"] == "features": print(label, f"{row['wall_ms_median']:9.2f} ms wall, {row['ratio']:6.2f}x [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]")
    elif "wall_ms_median" in row: print(label, f"{row['wall_ms_median']:9.2f} ms wall, {row['forwards']:.2f} passes, {row['ratio']:6.2f}x, error {row['error']:.1e}")
    else: print(label, f"{row['cpu_ms_median']:9.2f} ms  {row['ratio']:6.2f}x [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]  error {row.get('error', '')}" + (f"  best {row['cpu_ms_best']:.0f} ms, {row['forwards']:.2f} passes" if "forwards" in row else ""))


def page_costs(row: dict) -> str:
    "What a page cost, in words."
    if "stopped" in row: return f"not painted in {row['stopped']}"
    hover = f"hover {row['hover_cpu_ms_p50']:.1f}, p95 {row['hover_cpu_ms_p95']:.1f} CPU ms, {row['hover_wall_ms_p95']:.0f} ms wall ({row['hovers']})" if row["hovers"] else "no hover finished"
    return f"paint {row['paint_cpu_s']:.3f} CPU s (browser {row['browser_cpu_s']:.2f}), {hover}, {row['dom_nodes']} nodes"


def measure(name: str, quick: bool, **where) -> list:
    "The rows of a group, each with the date and the load of the machine before and after. `where`: device and dtype, for patching."
    from rows import GROUPS
    import torch
    torch.set_num_threads(1); job, shape, repeats = GROUPS[name]; before = os.getloadavg()[0]
    print(f"\n{name}: {repeats} rounds, load average {before:.1f}", flush=True)
    rows = job(shape, min(repeats, 2) if quick else repeats, **where)
    for row in rows: row |= dict(date=datetime.date.today().isoformat(), load=[round(before, 1), round(os.getloadavg()[0], 1)]); show(row)
    sys.stdout.flush()
    return rows


def write(name: str, rows: list):
    "Put the rows of group `name` into `results.json`, and judge the promises once every group is there."
    from bars import bars
    from rows import GROUPS
    from shapes import SHAPES
    old = json.loads(RESULTS.read_text())["groups"] if RESULTS.exists() else {}
    groups = {n: rows if n == name else old[n] for n in GROUPS if n == name or n in old}
    promises = bars([r for g in groups.values() for r in g]) if len(groups) == len(GROUPS) else []
    devices = json.loads(RESULTS.read_text()).get("devices", {}) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(dict(machine=machine(), versions={p: version(p) for p in PACKAGES}, shapes={k: dict(what=what, tokens=n) for k, (what, n, _) in SHAPES.items()},
                                       bars=promises, groups=groups, devices=devices), indent=1) + "\n")
    return promises


def write_device(device: str, dtype: str, rows: list):
    "Put the rows of a GPU beside those of the processor: `devices[name of the GPU][dtype]`."
    import torch
    old = json.loads(RESULTS.read_text()); kept = old.setdefault("devices", {}).setdefault(torch.cuda.get_device_name(device), {})
    kept[dtype] = [r for r in kept.get(dtype, []) if isinstance(r, dict) and r.get("group") not in {n.get("group") for n in rows}] + rows
    RESULTS.write_text(json.dumps(old, indent=1) + "\n")


def main():
    from rows import GROUPS
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS)); ask.add_argument("--write", action="store_true", help="put these groups into results.json")
    ask.add_argument("--quick", action="store_true", help="two rounds of everything, to see that it runs; writes nothing")
    ask.add_argument("--device", default="cpu", help="'cuda': the groups patching and features on a GPU, wall time"); ask.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    given = ask.parse_args(); promises = []
    if unknown := set(given.groups) - set(GROUPS): ask.error(f"no group {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    if (given.device, given.dtype) != ("cpu", "float32"):
        if given.groups not in (["patching"], ["features"]): ask.error("--device and --dtype are for one of the groups patching and features")
        rows = measure(given.groups[0], given.quick, device=given.device, dtype=given.dtype)
        if given.write and given.device != "cpu": write_device(given.device, given.dtype, rows)
        return
    for name in given.groups or GROUPS:
        rows = measure(name, given.quick)
        if not given.quick and (given.write or not given.groups): promises = write(name, rows)
    print()
    for p in promises: print("ok    " if p["ok"] else "MISSED", f"{p['claim']} {p['bar']:g}: {p['value']:.3g}")


if __name__ == "__main__": main()

"""What the engine adds to a report, and how busy a sweep keeps the cores. `python tests/bench/sweeps.py [overhead [SECONDS] | busy [MEMBERS] [JOBS]]`

overhead  CPU seconds of one report by the engine and by bare nbclient, each in a process of its own, imports included
busy      a sweep of a trivial report: CPU seconds, and the time in which fewer of its threads could run than there are cores

The machine may be shared. So nothing is judged by the clock: `busy` is CPU / (CPU + idle), where idle counts the moments at which a core would have had nothing of this sweep to run."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kills

LOAD = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass"
BARE = """
import sys, nbformat
from nbclient import NotebookClient
nb = nbformat.read(sys.argv[1], 4); NotebookClient(nb, kernel_name="python3").execute(); nbformat.write(nb, sys.argv[2] + "/done.ipynb")"""
ENGINE = """
import sys
from workbench.reporting.run import run
run(sys.argv[1], out=sys.argv[2])"""


def report(folder: Path, work: str) -> Path:
    "A report of one cell."
    nb = json.loads(json.dumps(kills.REPORT)); nb["cells"][2]["source"] = work; nb["cells"][3]["source"] = "{'n': n}"
    (folder/"small.ipynb").write_text(json.dumps(nb)); return folder/"small.ipynb"


def spent(code: str, *words) -> float:
    "CPU seconds of a program and all its children."
    before = os.times(); subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True, stderr=subprocess.DEVNULL); after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def overhead(seconds: float = 20, rounds: int = 3) -> dict:
    "The least of some rounds, taken in turns."
    folder = Path(tempfile.mkdtemp(prefix="wb-bench-")); path = report(folder, LOAD.format(seconds)); least = dict(nbclient=1e9, engine=1e9)
    for i in range(rounds):
        for name, code in (("nbclient", BARE), ("engine", ENGINE)):
            out = folder/f"{name}{i}"; out.mkdir(); least[name] = min(least[name], spent(code, path, out))
    shutil.rmtree(folder); extra = least["engine"] - least["nbclient"]
    return dict(group="reports", job=f"a report of {seconds:g} s", seconds=seconds, **{f"{k}_cpu_s": round(v, 2) for k, v in least.items()}, extra_cpu_s=round(extra, 2), overhead=round(extra / least["nbclient"], 4))


def threads_of(pid: int) -> list[str]:
    "The states of the threads of a process and of all its children."
    try: tasks = os.listdir(f"/proc/{pid}/task")
    except OSError: return []
    found = []
    for t in tasks:
        try:
            with open(f"/proc/{pid}/task/{t}/stat") as f: found.append(f.read().rsplit(")", 1)[1].split()[0])
            with open(f"/proc/{pid}/task/{t}/children") as f: children = f.read().split()
        except OSError: continue
        for child in children: found += threads_of(int(child))
    return found


def watched(pid: int, cores: int, out: Path, every: float = .03) -> tuple:
    "Until the process ends: `(wall seconds, idle core-seconds, those before the first member was finished)`."
    began = last = time.monotonic(); idle = 0.0; first = None
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(every); runnable = sum(s in "RD" for s in threads_of(pid)); at = time.monotonic()
        idle += max(0, cores - runnable) * (at - last); last = at
        if first is None and any(out.glob("small/*/run.json")): first = idle
    return time.monotonic() - began, idle, first or 0


def busy(members: int = 200, jobs: int | None = None) -> dict:
    "A sweep of a report that does nothing."
    folder = Path(tempfile.mkdtemp(prefix="wb-bench-")); path = report(folder, "pass"); cores = len(os.sched_getaffinity(0)); load = os.getloadavg()[0]
    code = "import sys; from workbench.reporting.sweep import sweep; s = sweep(sys.argv[1], {'n': range(int(sys.argv[3]))}, out=sys.argv[2], jobs=int(sys.argv[4]) or None); assert s.status == 'done', s"
    before = os.times(); process = subprocess.Popen([sys.executable, "-c", code, str(path), str(folder), str(members), str(jobs or 0)])
    wall, idle, first = watched(process.pid, cores, folder); assert process.wait() == 0; after = os.times(); cpu = after.children_user + after.children_system - before.children_user - before.children_system
    shutil.rmtree(folder)
    return dict(group="reports", job=f"sweep of {members}", jobs=jobs or cores, cores=cores, cpu_s=round(cpu, 1), cpu_s_each=round(cpu / members, 2), idle_core_s=round(idle, 1), idle_before_the_first=round(first, 1), busy=round(cpu / (cpu + idle), 3), share_got=round(cpu / wall / cores, 3), wall_s=round(wall, 1), load=[round(load, 1), round(os.getloadavg()[0], 1)])


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"; words = sys.argv[1:]; numbers = [int(w) for w in words[1:]]
    if words[:1] != ["busy"]: print(json.dumps(overhead(*numbers)), flush=True)
    if words[:1] != ["overhead"]: print(json.dumps(busy(*numbers)))

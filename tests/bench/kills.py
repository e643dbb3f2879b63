"""Kill a sweep, look at what is left, start it again. `python tests/bench/kills.py every | random [ROUNDS] [--jobs N]`

every    in place of a kernel a written-out notebook; SIGKILL before each file operation in turn, and after each file that was opened to be written
random   real kernels; SIGKILL at a random moment, the same sweep going on until it is done, then the next one

After every kill: each run that is there is whole and right, `sweep.json` can be read or is not there, and a member that was finished is never executed again."""
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from workbench.reporting.key import package_hash

REPORT = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": {"name": "python3", "language": "python", "display_name": "python3"}}, "cells": [
    dict(cell_type="markdown", id="a", metadata={}, source="# Trivial\n\n> Nothing to see"),
    dict(cell_type="code", id="b", metadata={"tags": ["parameters"]}, source="n: int = 0  # a number\nledger: str = ''  # a file", outputs=[], execution_count=None),
    dict(cell_type="code", id="c", metadata={}, source="pass", outputs=[], execution_count=None),
    dict(cell_type="code", id="d", metadata={"tags": ["result"]}, source="with open(ledger, 'a') as f: f.write(f'{n}\\n')\n{'square': n * n}", outputs=[], execution_count=None)]}


def written_out(report, given, target, show, timeout):
    "What a kernel would leave, at once."
    from workbench.reporting.secrets import write_text
    nb = json.loads(json.dumps(report.notebook)); n = given.get("n", 0)
    for cell in nb["cells"]:
        if cell["cell_type"] == "code": cell["metadata"]["papermill"] = dict(start_time="now", duration=.1)
    nb["cells"][-1]["outputs"] = [dict(output_type="execute_result", metadata={}, execution_count=1, data={"text/plain": repr({"square": n * n})})]
    write_text(target, json.dumps(nb)); open(given["ledger"], "a").write(f"{n}\n")


def swept(folder: Path, members: int, jobs: int):
    "The sweep."
    from workbench.reporting.sweep import sweep
    return sweep(folder/"trivial.ipynb", {"n": range(members), "ledger": str(folder/"ledger")}, out=folder/"out", jobs=jobs)


def started(folder: Path, members: int, jobs: int, before=lambda: None) -> int:
    "A sweep in a child process; its id."
    pid = os.fork()
    if pid: return pid
    try:
        os.setsid(); before()
        done = swept(folder, members, jobs)
        os._exit(0 if done.status == "done" and done.page.is_file() else 3)
    except BaseException:
        import traceback; traceback.print_exc(); os._exit(4)


def looked_at(folder: Path, once: dict) -> set:
    "The members that are finished; whatever is there must be whole."
    from workbench.reporting.run import runs
    from workbench.reporting.sweep import sweeps
    for s in sweeps(folder/"out"): str(s), s.table()
    found = set()
    for run in runs(folder/"out"):
        n = run.params["n"]
        assert run.status == "done" and run.result == {"square": n * n} == json.loads((run.folder/"result.json").read_text()), run
        assert run.page.read_text("utf-8").rstrip().endswith("</html>") and json.loads(run.notebook.read_text("utf-8"))["cells"]
        assert {p.name for p in run.folder.iterdir()} == {"report.ipynb", "report.html", "run.json", "result.json"}
        found.add(n)
    counts = [int(line) for line in (folder/"ledger").read_text().split()] if (folder/"ledger").exists() else []
    for n in found: assert once.setdefault(n, counts.count(n)) == counts.count(n), f"member {n} was finished and then executed again"
    return found


def made() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="wb-kill-")); (folder/"trivial.ipynb").write_text(json.dumps(REPORT)); return folder


def warm(members: int):
    "One sweep in this process: its children then have everything imported, and one hash of the package, which may be edited meanwhile."
    folder = made(); package_hash(); swept(folder, members, 1); shutil.rmtree(folder)


def killer(out: Path, moment: int):
    "SIGKILL at moment number `moment`: before each file operation under `out`, and when a file to be written was opened and is still empty."
    seen = 0
    def hook(event, args):
        nonlocal seen
        if event not in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree") or not str(args[0]).startswith(str(out)): return
        writes = event == "open" and bool(args[2] & (os.O_WRONLY | os.O_RDWR))
        if event == "open" and not writes: return
        seen += 1
        if seen == moment: os.kill(os.getpid(), signal.SIGKILL)
        seen += writes
        if writes and seen == moment: os.close(os.open(args[0], os.O_CREAT | os.O_TRUNC | os.O_WRONLY)); os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)


def every(members: int = 2) -> int:
    "Kill at each file operation in turn; the number of kills."
    import workbench.reporting.provenance as provenance, workbench.reporting.run as engine, workbench.reporting.sweep as sweeping
    engine.execute = written_out; provenance.git_state = sweeping.git_state = lambda: None
    warm(members); kills, moment = 0, 0
    while True:
        moment += 1; folder, once = made(), {}
        _, status = os.waitpid(started(folder, members, 1, lambda: killer(folder/"out", moment)), 0)
        if not os.WIFSIGNALED(status): shutil.rmtree(folder); assert os.waitstatus_to_exitcode(status) == 0; return kills
        kills += 1; before = looked_at(folder, once)
        assert swept(folder, members, 1).status == "done" and looked_at(folder, once) == set(range(members)) >= before, f"moment {moment}"
        assert not [p for p in (folder/"out").rglob(".*") if p.is_dir()], "a hidden folder was left"
        shutil.rmtree(folder)


def at_random(rounds: int, jobs: int, members: int = 6, seed: int = 0) -> dict:
    "Kill at random moments; what it came to."
    if jobs > 1: import distributed, workbench.scale.cluster
    began = time.monotonic(); warm(1); warm(1)
    draw, kills, sweeps, finished = random.Random(seed), 0, 0, 0
    folder, once, longest = made(), {}, time.monotonic() - began      # the latest moment: follows what a member takes on this machine now
    while kills < rounds:
        before = len(once); began = time.monotonic(); pid = started(folder, members, jobs); wait = draw.uniform(0, longest)
        while time.monotonic() - began < wait and not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT): time.sleep(.002)
        if not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT): os.kill(pid, signal.SIGKILL); kills += 1
        _, status = os.waitpid(pid, 0); assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
        found = looked_at(folder, once); longest *= 1.25 if len(once) == before else .9
        if len(found) == members: shutil.rmtree(folder, ignore_errors=True); sweeps += 1; finished += members; folder, once = made(), {}
    return dict(kills=kills, sweeps=sweeps, members=finished + len(looked_at(folder, once)))


if __name__ == "__main__":
    words = sys.argv[1:]; jobs = int(words[words.index("--jobs") + 1]) if "--jobs" in words else 1
    t = os.times(); print(every() if words[:1] == ["every"] else at_random(int(words[1]) if len(words) > 1 and words[1].isdigit() else 50, jobs)); e = os.times()
    print(f"{e.elapsed - t.elapsed:.0f} s, {sum(e[:4]) - sum(t[:4]):.0f} CPU s, load {os.getloadavg()[0]:.1f}", file=sys.stderr)

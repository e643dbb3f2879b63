"""Work in many processes: what a killed worker costs, a scheduler that runs already, Ctrl-C, and how many processes there are."""
import os, signal, subprocess, sys, textwrap, time
from pathlib import Path

import psutil
import pytest

from workbench.scale import cluster
from workbench.scale.cluster import ClusterError, WorkerDied, each, fitting, workers

from conftest import free_port


def work(item):
    "What the tests ask of a worker, by the first word."
    import os, signal, time
    word, *more = item
    if word == "pid": time.sleep(.05); return os.getpid()
    if word == "threads": return os.environ["OMP_NUM_THREADS"]
    if word == "fail": raise KeyError(more[0])
    if word == "count":                                     # leaves a line for each try, then dies
        with open(more[0], "a") as f: f.write(".")
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "sleep": time.sleep(more[0])
    return word


work.__module__ = "__main__"   # travels by value: a worker need not import the tests


def test_a_killed_worker_costs_its_item_alone_after_one_more_try(tmp_path):
    tries = tmp_path/"tries"
    items = [("pid",), ("count", str(tries)), ("fail", "x"), *[("pid",)] * 12, ("threads",)]
    with workers(jobs=2) as client:
        heard = [c.laddr.ip for p in [psutil.Process(), *psutil.Process().children(recursive=True)] for c in p.net_connections("inet") if c.status == "LISTEN"]
        assert len(heard) >= 3 and set(heard) == {"127.0.0.1"}, "no other machine can reach them"
        assert len(set(client.run(os.getpid).values())) == 2
        found = dict(each(client, work, iter(items)))
    assert sorted(found) == list(range(len(items)))
    assert isinstance(found[1], WorkerDied) and tries.read_text() == ".."
    assert isinstance(found[2], KeyError) and found[15] == "1"
    pids = {found[i] for i in (0, *range(3, 15))}
    assert os.getpid() not in pids   # one process may do them all: the other is being started again
    assert not any(Path(f"/proc/{p}").exists() for p in pids), "the processes end with the block"


@pytest.fixture(scope="module")
def running():
    "A real scheduler and two workers, as an administrator starts them."
    here = str(Path(__file__).parent); env = os.environ | {"PYTHONPATH": here}
    dask, port = str(Path(sys.executable).parent/"dask"), free_port(); address = f"tcp://127.0.0.1:{port}"
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env, start_new_session=True)
    started = [subprocess.Popen([dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"], **quiet)]
    started += [subprocess.Popen([dask, "worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard"], **quiet) for _ in range(2)]
    yield address, [p.pid for p in started]
    for p in reversed(started): p.terminate()
    for p in started:
        try: p.wait(20)
        except subprocess.TimeoutExpired: os.killpg(p.pid, signal.SIGKILL); p.wait()


def test_a_scheduler_that_runs_already_is_joined_and_left_running(running):
    address, started = running
    for _ in range(2):
        with workers(scheduler=address) as client:
            client.wait_for_workers(2, timeout=60)
            found = dict(each(client, work, [("pid",)] * 8 + [("fail", "y")]))
        assert isinstance(found.pop(8), KeyError) and len(set(found.values())) == 2
        assert not set(found.values()) & {os.getpid(), *started}, "workers of that scheduler, each under its nanny"
    assert all(Path(f"/proc/{p}").exists() for p in started)


SCRIPT = """
    import sys, time
    print("script", flush=True)                 # no guard: a worker must not come by here
    from workbench.scale.cluster import each, workers
    def slow(n):
        import os, time
        open(f"{n}.begun", "w").write(str(os.getpid())); time.sleep(600 if n else 0)
        return n
    with workers(jobs=2) as client:
        for i, done in each(client, slow, range(50)): print("done", i, flush=True)
"""


def test_ctrl_c_in_a_plain_script_cancels_what_waits_and_closes(tmp_path):
    (tmp_path/"plain.py").write_text(textwrap.dedent(SCRIPT))
    script = subprocess.Popen([sys.executable, "plain.py"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert [script.stdout.readline() for _ in range(2)] == ["script\n", "done 0\n"]
    end = time.monotonic() + 120
    while len(list(tmp_path.glob("*.begun"))) < 3: assert script.poll() is None and time.monotonic() < end; time.sleep(.05)
    os.killpg(script.pid, signal.SIGINT)        # as a terminal sends it: to every process of the group
    out, err = script.communicate(timeout=60)
    assert out == ""
    assert "KeyboardInterrupt" in err.splitlines()[-1] and err.count("Traceback") == 1, err
    assert len(list(tmp_path.glob("*.begun"))) == 3, "nothing that waited was begun"
    assert not any(Path(f"/proc/{f.read_text()}").exists() for f in tmp_path.glob("*.begun"))


def test_leaving_the_loop_cancels_what_waits(running, tmp_path):
    with workers(scheduler=running[0]) as client:
        client.wait_for_workers(2, timeout=60)
        for _ in each(client, work, [("pid",)] + [("sleep", .3)] * 40): break
        end = time.monotonic() + 30
        while any(client.processing().values()):
            assert time.monotonic() < end; time.sleep(.05)
        assert dict(each(client, work, [("sleep", 0)])) == {0: "sleep"}


def test_as_many_processes_as_cores_and_memory_allow(monkeypatch):
    import dask.system, psutil
    monkeypatch.setattr(dask.system, "cpu_count", lambda: 8)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("M", (), dict(available=10 * 2**30)))
    monkeypatch.setattr("distributed.system.memory_limit", lambda: 5 * 2**30)      # a control group that allows half of it
    assert (fitting(), fitting(3), fitting(20)) == (8, 3, 20)
    assert [fitting(memory=m * 2**30) for m in (.1, 1, 2, 4.4, 4.6, 100)] == [8, 4, 2, 1, 1, 1]
    assert fitting(2, memory=2**30) == 2


@pytest.mark.parametrize("wrong, says", [(dict(jobs=0), "jobs must be 1 or more"), (dict(jobs=1.5), "jobs must be 1 or more"), (dict(jobs=True), "must be 1 or more"), (dict(memory=0), "memory of a task"),
                                         (dict(scheduler="nowhere"), "No Dask scheduler answers at nowhere")])
def test_one_sentence_for_what_cannot_be(wrong, says):
    with pytest.raises(ClusterError, match=says):
        with workers(**wrong): pass


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    for call in (fitting, lambda: workers().__enter__(), lambda: next(each(None, work, []))):
        with pytest.raises(ClusterError, match=r"interp-workbench\[cluster\]"): call()

"""What one kept site costs in memory, in a process of its own. `python memory.py CONTENDER JOB` prints one line of JSON."""
import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

ROWS, LAYER = 4, 6
JOBS = {"keep_one": "resid_post of one layer", "keep_last": "its last position only", "keep_value": "v of one layer (GPT-2 computes q, k and v as one tensor)"}


def status(field: str) -> int:
    "A size from /proc/self/status, in bytes: VmRSS is resident now, VmHWM the highest since the last `reset_peak`."
    return next(1024 * int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(field))


def settle():
    "Collect garbage, give freed memory back to the system, and start a new peak."
    gc.collect(); ctypes.CDLL("libc.so.6").malloc_trim(0); Path("/proc/self/clear_refs").write_text("5")


def storages(tensors) -> dict:
    "Bytes of the storages behind `tensors`, by address; views of one storage count once."
    return {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors if x.device.type == "cpu"}


def alive() -> dict:
    "Every tensor storage that Python can reach."
    import torch
    return storages(x for x in gc.get_objects() if issubclass(type(x), torch.Tensor))


def peak_of(job) -> tuple:
    "`(result, highest resident bytes above the start)` of a call."
    settle(); before = status("VmRSS"); out = job()
    return out, status("VmHWM") - before


def measure(contender: str, job: str) -> dict:
    "Bytes behind what was returned, bytes that the library itself keeps alive after the call, and the peak above that of a plain forward pass."
    import torch
    import contenders, shapes
    torch.set_num_threads(1)
    who, ids, plain = getattr(contenders, contender)("wide"), shapes.ids("wide", ROWS), contenders.Plain("wide", cache=False)
    call = lambda: getattr(who, job)(ids, LAYER)
    plain.forward(ids); before = alive()
    call()                                                                # lazy set-up happens before any peak is taken
    plain_peak = peak_of(lambda: plain.forward(ids))[1]
    (kept, besides), peak = peak_of(call)
    gc.collect(); held, known = storages(kept), storages(besides)
    left = {at: n for at, n in alive().items() if at not in before and at not in held and at not in known}
    full = ROWS * ids.shape[1] * 512 * 4
    return dict(library=contender, job=job, what=JOBS[job], site_bytes=full // (ids.shape[1] if job == "keep_last" else 1),
                held_bytes=sum(held.values()), left_bytes=sum(left.values()), peak_over_plain_bytes=peak - plain_peak)


def rows() -> list:
    "Every contender and job, each measured in a fresh process."
    out = []
    for job in JOBS:
        for contender in ("Workbench", "Lens", "NNsight", "Plain"):
            if (contender, job) in (("Plain", "keep_last"), ("Plain", "keep_value"), ("NNsight", "keep_value")): continue
            done = subprocess.run([sys.executable, __file__, contender, job], capture_output=True, text=True, check=True,
                                  env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"})         # freed tensors leave the process at once, so peaks mean something
            out.append(json.loads(done.stdout.splitlines()[-1]))
    return out


if __name__ == "__main__": print(json.dumps(measure(*sys.argv[1:3])))

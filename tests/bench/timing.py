"""CPU time of contenders that take turns, so that a busy machine slows all of them alike."""
import random
import time
from statistics import median


def calls_per_sample(job, seconds: float = 0.1) -> int:
    "How many calls of `job` fill `seconds` of CPU time, at least one."
    start = time.process_time(); job()
    return max(1, round(seconds / max(time.process_time() - start, 1e-6)))


def clock(device: str = "cpu"):
    "What is read before and after a job: CPU time of this process, or, where a GPU works, wall time after its queue has drained."
    if device == "cpu": return time.process_time
    import torch
    def drained(): torch.cuda.synchronize(); return time.perf_counter()
    return drained


def take_turns(jobs: dict, repeats: int = 15, seconds: float = 0.1, warm: int = 2, seed: int = 0) -> dict:
    "`{name: [CPU seconds per call, one entry a round]}`. In every round each job runs once, in a new random order."
    for job in jobs.values():
        for _ in range(warm): job()
    calls = {name: calls_per_sample(job, seconds) if seconds else 1 for name, job in jobs.items()}
    times, order, rng = {name: [] for name in jobs}, list(jobs), random.Random(seed)
    for _ in range(repeats):
        rng.shuffle(order)
        for name in order:
            start = time.process_time()
            for _ in range(calls[name]): jobs[name]()
            times[name].append((time.process_time() - start) / calls[name])
    return times


def scattered(jobs: dict, calls: dict, repeats: int, clock=time.process_time, seed: int = 0) -> dict:
    "As `take_turns`, for jobs of very different length: within a round the `calls` of a short job lie scattered between the long ones, so that all of them meet the machine in the same moods. An entry is the mean of a round's calls."
    times, rng = {name: [] for name in jobs}, random.Random(seed)
    for name in (n for n in jobs if calls[n] > 1): jobs[name]()          # short jobs are warmed up; in a long one it is lost
    for _ in range(repeats):
        when, spent = [((i + rng.random()) / calls[n], n) for n in jobs for i in range(calls[n])], dict.fromkeys(jobs, 0.)
        for _, name in sorted(when):
            start = clock(); jobs[name](); spent[name] += clock() - start
        for name, total in spent.items(): times[name].append(total / calls[name])
    return times


def summary(times: dict, reference: str) -> dict:
    "Per job: median and best CPU milliseconds, and the ratio to `reference`: median over rounds of the ratio within a round, its quartiles, and best over best."
    def quartile(values, q): return sorted(values)[round(q * (len(values) - 1))]
    rows = {}
    for name, own in times.items():
        ratios = [t / r for t, r in zip(own, times[reference])]
        rows[name] = dict(cpu_ms_median=1e3 * median(own), cpu_ms_best=1e3 * min(own), ratio=median(ratios), ratio_low=quartile(ratios, .25),
                          ratio_high=quartile(ratios, .75), ratio_best=min(own) / min(times[reference]), n=len(own))
    return rows

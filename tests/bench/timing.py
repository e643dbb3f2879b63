"""CPU time of contenders that take turns, so that a busy machine slows all of them alike."""
import random
import time
from statistics import median


def calls_per_sample(job, seconds: float = 0.1) -> int:
    "How many calls of `job` fill `seconds` of CPU time, at least one."
    start = time.process_time(); job()
    return max(1, round(seconds / max(time.process_time() - start, 1e-6)))


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


def summary(times: dict, reference: str) -> dict:
    "Per job: median and best CPU milliseconds, and the ratio to `reference`: median over rounds of the ratio within a round, its quartiles, and best over best."
    def quartile(values, q): return sorted(values)[round(q * (len(values) - 1))]
    rows = {}
    for name, own in times.items():
        ratios = [t / r for t, r in zip(own, times[reference])]
        rows[name] = dict(cpu_ms_median=1e3 * median(own), cpu_ms_best=1e3 * min(own), ratio=median(ratios), ratio_low=quartile(ratios, .25),
                          ratio_high=quartile(ratios, .75), ratio_best=min(own) / min(times[reference]), n=len(own))
    return rows

"""Training steps of sparse dictionaries, and what they recover of a world whose features are known: ours beside sae-lens, dictionary-learning and sparsify.

Runs in the environment of tests/golden/features/requirements.txt (`_bench/.features`), where the peers live; `rows.py` calls it and reads what it prints.
    dictionaries.py steps ROUNDS [--device cuda --dtype bfloat16]      dictionaries.py recovery SEED[,SEED] [CONTENDER ...]"""
import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch

from timing import clock, summary, take_turns
from workbench.features.formats import open_dictionary, save_dictionary
from workbench.features.metrics import explained_variance
from workbench.features.superposition import Superposition, score_truth
from workbench.features.train import Trainer
from workbench.lm.results import package_version

BATCH, OFF = 4096, 10**12
SIZES = {"128x8": (128, 8, 16, 12), "128x32": (128, 32, 16, 12), "512x8": (512, 8, 32, 24), "512x32": (512, 32, 32, 24)}      # width, features per entry, k, true features that fire


def world(d: int, l0: float, seed: int = 0): return Superposition(d=d, n_features=4 * d, l0=l0, zipf=0.7, most=0.4, noise=0.05, seed=seed)


# --- one training, four libraries: each has `step(x)`, `kill(ids)` (these latents count as dead), `saved(folder)` -------------------------------
class Given:
    "A source that hands over the batch it was given, so that every library trains on the same tensors."
    def __init__(self, x): self.x, self.d_in, self.d_out = x, x.shape[1], None
    def batch(self, step, size, seed): return self.x, None
    def held_out(self, n, seed): return self.x[:n], None
    def about(self): return {}


class Workbench:
    "This package: `Trainer`, one step. Latents start along data and Adam forgets in 100 steps, two options of ours."
    def __init__(self, kind, x, m, k, steps=1000, window=OFF, seed=0, dtype=torch.float32, decay=0.0, **more):
        self.source = Given(x); self.trainer = Trainer(self.source, kind, n_features=m, steps=steps, batch=len(x), decay=decay, seed=seed, window=window, start="data", betas=(0.9, 0.99), device=x.device, **({"target": k} if kind == "jumprelu" else {} if kind == "standard" else {"k": k}), **more)
    def step(self, x): self.source.x = x; self.trainer._one()
    def kill(self, ids): self.trainer.model.b_enc.data[ids] = -3.0; self.trainer.since[:] = 0; self.trainer.since[ids] = OFF
    def saved(self, folder): return save_dictionary(self.trainer.result(), folder)


class SaeLens:
    "sae-lens: `SAETrainer.step`, wandb off. `steps` and the learning rate are those of everyone."
    def __init__(self, kind, x, m, k, steps=1000, window=OFF, seed=0, dtype=torch.float32, decay=0.0, **more):
        import sae_lens as s
        from sae_lens.config import LoggingConfig, SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer
        about = dict(d_in=x.shape[1], d_sae=m, device=str(x.device), **more); torch.manual_seed(seed)
        sae = {"topk": lambda: s.TopKTrainingSAE(s.TopKTrainingSAEConfig(k=k, **about)), "batchtopk": lambda: s.BatchTopKTrainingSAE(s.BatchTopKTrainingSAEConfig(k=k, **about)), "standard": lambda: s.StandardTrainingSAE(s.StandardTrainingSAEConfig(l1_coefficient=0.3, **about)),
               "jumprelu": lambda: s.JumpReLUTrainingSAE(s.JumpReLUTrainingSAEConfig(jumprelu_sparsity_loss_mode="quadratic", target_l0=float(k), **about))}[kind]()
        self.trainer = SAETrainer(SAETrainerConfig(total_training_samples=steps * len(x), train_batch_size_samples=len(x), lr=1e-3, lr_end=1e-3, lr_decay_steps=round(decay * steps), device=str(x.device), dead_feature_window=window // len(x), logger=LoggingConfig(log_to_wandb=False), autocast=dtype == torch.bfloat16), sae.to(x.device), iter(()))
    def step(self, x): self.trainer.maybe_reset_sparsity(); self.trainer.step(x); self.trainer.n_training_steps += 1
    def kill(self, ids): self.trainer.sae.b_enc.data[ids] = -3.0; since = self.trainer.n_forward_passes_since_fired; since[:] = 0; since[ids] = 1e9; self.trainer.cfg.dead_feature_window = 1000
    def saved(self, folder): self.trainer.sae.save_inference_model(str(folder)); return folder


class DictionaryLearning:
    "dictionary-learning: `trainer.update`. No warm-up; its BatchTopK threshold starts half-way, as by default it would never be set in 1000 steps."
    def __init__(self, kind, x, m, k, steps=1000, window=OFF, seed=0, dtype=torch.float32, **more):
        from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
        from dictionary_learning.trainers.jumprelu import JumpReluTrainer
        from dictionary_learning.trainers.standard import StandardTrainer
        from dictionary_learning.trainers.top_k import TopKTrainer
        base = dict(steps=steps, activation_dim=x.shape[1], dict_size=m, layer=0, lm_name="world", lr=1e-3, warmup_steps=0, device=str(x.device), seed=seed, **more)
        self.trainer = {"topk": lambda: TopKTrainer(k=k, threshold_start_step=steps // 2, **base), "batchtopk": lambda: BatchTopKTrainer(k=k, threshold_start_step=steps // 2, **base),
                        "standard": lambda: StandardTrainer(l1_penalty=0.3, sparsity_warmup_steps=None, resample_steps=None, **base), "jumprelu": lambda: JumpReluTrainer(target_l0=float(k), bandwidth=0.05, sparsity_warmup_steps=0, **base)}[kind]()
        self.trainer.dead_feature_threshold = window; self.now, self.dtype = 0, dtype
    def step(self, x):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16): self.trainer.update(self.now, x)
        self.now += 1
    def kill(self, ids): self.trainer.ae.encoder.bias.data[ids] = -3.0; since = self.trainer.num_tokens_since_fired; since[:] = 0; since[ids] = OFF; self.trainer.dead_feature_threshold = 10**7
    def saved(self, folder):
        folder.mkdir(parents=True, exist_ok=True); torch.save(self.trainer.ae.state_dict(), folder / "ae.pt"); (folder / "config.json").write_text(json.dumps(dict(trainer=self.trainer.config), default=str)); return folder


class Sparsify:
    "sparsify: `SparseCoder` with its eager decoder, its AuxK and its treatment of decoder rows; Adam in place of signum."
    def __init__(self, kind, x, m, k, steps=1000, window=OFF, seed=0, dtype=torch.float32):
        from sparsify import SparseCoder, SparseCoderConfig
        torch.manual_seed(seed); self.coder = SparseCoder(x.shape[1], SparseCoderConfig(num_latents=m, k=k), device=str(x.device)); self.coder.b_dec.data = x.mean(0)
        self.adam = torch.optim.Adam(self.coder.parameters(), lr=1e-3); self.since, self.window, self.dtype = torch.zeros(m, device=x.device), window, dtype
    def step(self, x):
        self.coder.set_decoder_norm_to_unit_norm()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16): out = self.coder(x, dead_mask=self.since > self.window)
        (out.fvu + out.auxk_loss / 32).backward(); self.coder.remove_gradient_parallel_to_decoder_directions(); self.adam.step(); self.adam.zero_grad()
        self.since += len(x); self.since[out.latent_indices.flatten()] = 0
    def kill(self, ids): self.coder.encoder.bias.data[ids] = -3.0; self.since[:] = 0; self.since[ids] = OFF; self.window = 10**7
    def saved(self, folder): self.coder.save_to_disk(folder); return folder


def of_version(library): return version({"sparsify": "eai-sparsify"}.get(library, library)) if library != "workbench" else package_version()


LIBRARIES = {"workbench": Workbench, "sae-lens": SaeLens, "dictionary-learning": DictionaryLearning, "sparsify": Sparsify}
REFERENCE, DEAD = "sae-lens", 100
STEPS = [("topk", s, 0) for s in SIZES] + [("batchtopk", s, 0) for s in ("128x8", "128x32", "512x8")] + [("topk", s, DEAD) for s in ("128x8", "128x32", "512x8")] + [("jumprelu", "128x8", 0), ("standard", "128x8", 0)]


# --- speed -------------------------------------------------------------------------------------------------------------------
def gradient_error(kind: str, x, m: int, k: int) -> float:
    "Largest difference of any entry of our gradients from those of the dense form in autograd, over the largest entry of that weight's."
    step = Workbench(kind, x, m, k).trainer.model; w = {n: v.detach().clone().requires_grad_() for n, v in step.named_parameters()}; y = x * Workbench(kind, x, m, k).trainer.scale
    p = (y - w["b_dec"]) @ w["W_enc"].T + w["b_enc"]; keep = p.detach().topk(k, dim=1).values[:, -1:] if kind == "topk" else p.detach().flatten().topk(k * len(x)).values[-1]
    out = (p.relu() * (p >= keep)) @ w["W_dec"] + w["b_dec"]; (out - y).square().sum(1).mean().backward(); g = w["W_dec"].grad; g -= (g * w["W_dec"].detach()).sum(1, keepdim=True) * w["W_dec"].detach()
    step.gradients(y); return max(float((v.grad - w[n].grad).abs().max() / w[n].grad.abs().max()) for n, v in step.named_parameters())


def steps_of(kind: str, size: str, dead: int, rounds: int, device: str, dtype) -> list:
    "Rows of one table: every library takes one step per round on the same batch, in a new order."
    d, by, k, l0 = SIZES[size]; m, x = d * by, world(d, l0).draw(BATCH, 0)[0].to(device); made = {n: c(kind, x, m, k, dtype=dtype) for n, c in LIBRARIES.items() if n != "sparsify" or kind == "topk"}; ids = torch.arange(dead, device=device)
    def job(c):
        def one():
            if dead: c.kill(ids)
            c.step(x)
        return one
    jobs = {n: job(c) for n, c in made.items()}; times = summary(timed(jobs, rounds, device), REFERENCE); exact = kind in ("topk", "batchtopk") and not dead and device == "cpu" and m <= 4096
    rename = (lambda r: r) if device == "cpu" else (lambda r: {k.replace("cpu_ms", "wall_ms"): v for k, v in r.items()})
    return [dict(group="features", shape=None, library=n, version=of_version(n), job=f"{kind} step, {size}" + (f", {dead} dead latents" if dead else ""), kind=kind, size=size, dead=dead, batch=BATCH, d=d, features=m, k=k, device=device, dtype=str(dtype).split(".")[1],
                 **({"error": gradient_error(kind, x, m, k)} if n == "workbench" and exact else {}), **rename(times[n])) for n in jobs]


def timed(jobs, rounds, device):
    "`{name: [seconds, one entry a round]}`; CPU time of this process, on a GPU wall time after its queue has drained."
    if device == "cpu": return take_turns(jobs, rounds, seconds=0, warm=2)
    import random
    read, rng, times = clock(device), random.Random(0), {n: [] for n in jobs}
    for job in jobs.values(): [job() for _ in range(3)]
    for _ in range(rounds):
        for n in rng.sample(list(jobs), len(jobs)): start = read(); [jobs[n]() for _ in range(10)]; times[n].append((read() - start) / 10)
    return times


def steps(rounds: int, device: str = "cpu", dtype: str = "float32") -> list:
    rows = []
    for kind, size, dead in STEPS:
        rows += steps_of(kind, size, dead, rounds, device, getattr(torch, dtype)); print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


# --- what is recovered ---------------------------------------------------------------------------------------------------------
LONG = dict(d=128, m=1024, l0=12, steps=1000)                            # as many vectors as 4.1 million
CONTENDERS = {f"{n} {k}": (n, k) for k in ("topk", "batchtopk", "jumprelu") for n in LIBRARIES if n != "sparsify" or k == "topk"}
PEERS = ("sparsify topk", "dictionary-learning topk", "sae-lens topk", "dictionary-learning batchtopk", "sae-lens batchtopk", "sae-lens jumprelu", "dictionary-learning jumprelu")


def recovered(seed: int, names, say=lambda line: None, decay: float = 0.0) -> list:
    "Train the named contenders side by side on the same batches of a world; score what each one saves and reads back."
    w = world(LONG["d"], LONG["l0"], seed); first, spent = w.batch(0, BATCH, seed), {}; made = {n: LIBRARIES[CONTENDERS[n][0]](CONTENDERS[n][1], first, LONG["m"], LONG["l0"], LONG["steps"], window=100 * BATCH, seed=seed, **({"decay": decay} if decay else {})) for n in names}; spent = dict.fromkeys(made, 0.0)
    for step in range(LONG["steps"]):
        x = w.batch(step, BATCH, seed)
        for n, c in made.items(): start = time.process_time(); c.step(x); spent[n] += time.process_time() - start
        if step % 100 == 99: say(f"seed {seed}, step {step + 1}: " + ", ".join(f"{n} {t:.0f} s" for n, t in spent.items()))
    return [score(n, c, w, seed, spent[n]) | ({"decay": decay} if decay else {}) for n, c in made.items()]


@torch.no_grad()
def score(name: str, contender, w, seed: int, seconds: float) -> dict:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()): d = open_dictionary(contender.saved(Path(folder) / "dictionary"))
    x, _ = w.draw(32768, 1, held_out=True); f = d.encode(x); s = score_truth(d, w, 32768); at = {k: float(s[k]) for k in ("mmcs", "mcc", "found", "f1", "precision", "recall")}
    bounds = {f"{k}_{b}": float(s[b].sel(score=k)) for k in ("mmcs", "found") for b in ("low", "high")}
    return dict(group="recovery", shape=None, library=CONTENDERS[name][0], version=of_version(CONTENDERS[name][0]), job=f"{CONTENDERS[name][1]}, {LONG['steps']} steps, seed {seed}", kind=CONTENDERS[name][1], seed=seed, vectors=LONG["steps"] * BATCH, explained_variance=explained_variance(x, d.decode(f)),
                l0=float((f != 0).sum(1).double().mean()), unseen=float((f == 0).all(0).double().mean()), **at, **bounds, chance=float(s.chance.sel(score="mmcs")), n_true=w.n_features, cpu_s=seconds)


def main():
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0]); ask.add_argument("what", choices=("steps", "recovery")); ask.add_argument("count"); ask.add_argument("names", nargs="*")
    ask.add_argument("--device", default="cpu"); ask.add_argument("--dtype", default="float32"); ask.add_argument("--decay", type=float, default=0.0); ask.add_argument("--out"); given = ask.parse_args(); torch.set_num_threads(1)
    if given.what == "steps": rows = steps(int(given.count), given.device, given.dtype)
    else: rows = [r for seed in map(int, given.count.split(",")) for r in recovered(seed, given.names or CONTENDERS, lambda line: print(line, file=sys.stderr, flush=True), given.decay)]
    Path(given.out).write_text(json.dumps(rows)) if given.out else print(json.dumps(rows, indent=1))


if __name__ == "__main__": main()

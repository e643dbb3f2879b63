"""Activations of a text to disk: `workbench.scale.harvest` and the cache writer of sae-lens beside the model alone, each in a process of its own. CPU seconds per token, highest resident bytes above the start.

Runs in the environment of tests/golden/features/requirements.txt, where sae-lens lives.     harvesting.py [TOKENS]      harvesting.py WHO FOLDER TOKENS (one contender)"""
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAYER, CONTEXT, BATCH, WIDTH = 2, 64, 32, 256
WHO = ("model alone", "model to the layer", "workbench", "sae-lens")


def text(tokens: int) -> list:
    "Token ids, the same for everyone."
    import torch
    return torch.randint(0, 2000, (tokens // CONTEXT, CONTEXT), generator=torch.Generator().manual_seed(0)).tolist()


def model(folder: Path):
    "A GPT-2 of four layers with random weights, in a folder."
    import torch, transformers
    torch.manual_seed(0); transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=4, n_embd=WIDTH, n_head=8, n_positions=CONTEXT, vocab_size=2000, bos_token_id=0, eos_token_id=0)).save_pretrained(folder / "model")


def jobs(who: str, folder: Path, rows: list):
    "The work of a contender, a function of (rows, where to)."
    import torch
    if who == "sae-lens":
        from datasets import Dataset
        from sae_lens.cache_activations_runner import CacheActivationsRunner
        from sae_lens.config import CacheActivationsRunnerConfig
        def work(rows, to): CacheActivationsRunner(CacheActivationsRunnerConfig(dataset_path="text", model_name=str(folder / "model"), model_class_name="AutoModelForCausalLM", model_batch_size=BATCH, hook_name=f"transformer.h.{LAYER}", d_in=WIDTH, training_tokens=len(rows) * CONTEXT,
                context_size=CONTEXT, new_cached_activations_path=str(to), shuffle=False, device="cpu", prepend_bos=False, buffer_size_gb=0.016), override_dataset=Dataset.from_dict({"input_ids": rows})).run()
        return work
    import workbench
    from workbench.scale.harvest import harvest, harvest_sites, states
    lm = workbench.load(str(folder / "model"), check=False)
    if who == "workbench": return lambda rows, to: harvest(lm, rows, f"resid_post.{LAYER}", to, context=CONTEXT, batch=BATCH, shard_tokens=2 ** 14)
    sites = harvest_sites(lm, f"resid_post.{LAYER}")
    def alone(rows, to):
        for a in range(0, len(rows), BATCH):
            with torch.no_grad(): lm.model(input_ids=torch.tensor(rows[a:a + BATCH]), use_cache=False) if who == "model alone" else states(lm, rows[a:a + BATCH], sites)
    return alone


def measure(who: str, folder: Path, tokens: int) -> dict:
    import torch
    from memory import peak_of
    torch.set_num_threads(1); rows = text(tokens); work = jobs(who, folder, rows); work(rows[:2 * BATCH], folder / f"{who} warm"); start = time.process_time()
    _, peak = peak_of(lambda: work(rows, folder / who)); row = dict(group="harvest", library=who, tokens=tokens, cpu_us_per_token=(time.process_time() - start) / tokens * 1e6, peak_bytes=peak, written_bytes=sum(f.stat().st_size for f in (folder / who).rglob("*") if f.is_file()) if (folder / who).exists() else 0)
    if who == "workbench":
        import workbench
        from workbench.scale.harvest import harvest_bytes
        row["bound_bytes"] = sum(harvest_bytes(workbench.load(str(folder / "model"), check=False), f"resid_post.{LAYER}", CONTEXT, BATCH, 2 ** 14).values())
    return row


def compared(tokens: int) -> list:
    "Every contender in a process of its own; `ratio` is to the model alone."
    with tempfile.TemporaryDirectory() as home:
        model(Path(home)); env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "MALLOC_MMAP_THRESHOLD_": "65536"}
        done = [subprocess.run([sys.executable, __file__, who, home, str(tokens)], capture_output=True, text=True, env=env) for who in WHO]
        for d in done:
            if d.returncode: raise SystemExit(d.stderr[-1500:])   # a table with a contender missing compares nothing
        rows = [json.loads(d.stdout.splitlines()[-1]) for d in done]
    return [r | dict(ratio=r["cpu_us_per_token"] / rows[0]["cpu_us_per_token"]) for r in rows]


if __name__ == "__main__":
    if len(sys.argv) > 2: print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
    else: [print(json.dumps(r)) for r in compared(int(sys.argv[1]) if len(sys.argv) > 1 else 2 ** 17)]

"""Small dictionaries written by the libraries themselves, each with inputs and what the library computes from them: `write.py FOLDER`.

Runs in the environment of requirements.txt and imports nothing of the workbench. d_in 8, 24 features, 6 inputs, seeds fixed.
Where a format has no library (Gemma Scope, OpenAI, circuit-tracer, folders older than SAELens 6, crosscoders), the file is laid out by hand and `made_by` in
versions.json says so; the outputs come from SAELens' own loaders where it has one, else from the formula as published."""
import json, shutil, sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

torch.set_num_threads(1)
OUT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent); D, M, O, L = 8, 24, 5, 2
MADE = {}


def inputs(d=D, seed=1): return torch.randn(6, d, generator=torch.Generator().manual_seed(seed)) + .5
def noise(module, seed):
    "Every parameter drawn, so that no bias is 0 by accident; thresholds stay above 0."
    g = torch.Generator().manual_seed(seed)
    for name, p in module.named_parameters():
        p.data = (torch.rand(p.shape, generator=g) * .8 + .1 if "threshold" in name else torch.randn(p.shape, generator=g) * (.5 if p.dim() > 1 else .3)).to(p.dtype)
    return module
def keep(folder, x, f, x_hat, by):
    save_file({"x": x.contiguous(), "f": f.detach().float().contiguous(), "x_hat": x_hat.detach().float().contiguous()}, folder/"expected.safetensors")
    MADE[folder.name] = by


# --- SAELens ------------------------------------------------------------------------------------------------------------
def saelens():
    from sae_lens import SAE, AbsTopKSAEConfig, AbsTopKSAE, GatedSAE, GatedSAEConfig, JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.saes.transcoder import JumpReLUSkipTranscoder, JumpReLUSkipTranscoderConfig, JumpReLUTranscoder, JumpReLUTranscoderConfig, SkipTranscoder, SkipTranscoderConfig, Transcoder, TranscoderConfig
    by, base = f"sae-lens {version('sae-lens')}", dict(d_in=D, d_sae=M)
    about = lambda: SAEMetadata(model_name="gpt2-small", hook_name="blocks.3.hook_resid_post")
    plain = dict(standard=(StandardSAE, StandardSAEConfig(**base, metadata=about())), bare=(StandardSAE, StandardSAEConfig(**base, apply_b_dec_to_input=False)),
        gated=(GatedSAE, GatedSAEConfig(**base, metadata=about())), jumprelu=(JumpReLUSAE, JumpReLUSAEConfig(**base, apply_b_dec_to_input=False)),
        topk=(TopKSAE, TopKSAEConfig(**base, k=4)), topk_rescaled=(TopKSAE, TopKSAEConfig(**base, k=4, rescale_acts_by_decoder_norm=True)), abstopk=(AbsTopKSAE, AbsTopKSAEConfig(**base, k=4)),
        layer_norm=(TopKSAE, TopKSAEConfig(**base, k=4, normalize_activations="layer_norm")), constant_norm=(StandardSAE, StandardSAEConfig(**base, normalize_activations="constant_norm_rescale")))
    coders = dict(transcoder=(Transcoder, TranscoderConfig), skip_transcoder=(SkipTranscoder, SkipTranscoderConfig), jumprelu_transcoder=(JumpReLUTranscoder, JumpReLUTranscoderConfig), jumprelu_skip_transcoder=(JumpReLUSkipTranscoder, JumpReLUSkipTranscoderConfig))
    plain |= {n: (c, cfg(**base, d_out=O, apply_b_dec_to_input=False)) for n, (c, cfg) in coders.items()}
    x = inputs()
    for i, (name, (cls, cfg)) in enumerate(plain.items()):
        folder = OUT/f"saelens_{name}"; noise(cls(cfg), i).save_model(folder); s = SAE.load_from_disk(folder); keep(folder, x, s.encode(x), s(x), by)
    z = StandardSAEConfig(**base, reshape_activations="hook_z", metadata=SAEMetadata(hook_name="blocks.2.attn.hook_z")); folder = OUT/"saelens_hook_z"
    noise(StandardSAE(z), 30).save_model(folder); s, heads = SAE.load_from_disk(folder), inputs().reshape(6, 2, 4); keep(folder, heads, s.encode(heads), s(heads), by)
    square = OUT/"saelens_square"; noise(StandardSAE(StandardSAEConfig(d_in=D, d_sae=D)), 31).save_model(square); s = SAE.load_from_disk(square); keep(square, x, s.encode(x), s(x), by + ", as many features as entries")
    saelens_training(SAE, by, x, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig)


def saelens_training(SAE, by, x, Batch, BatchCfg, Nested, NestedCfg, Top, TopCfg):
    "Training checkpoints, each with what the same object saves for inference as the truth."
    from sae_lens.training.activation_scaler import ActivationScaler
    made = dict(batchtopk=Batch(BatchCfg(d_in=D, d_sae=M, k=4)), batchtopk_plain=Batch(BatchCfg(d_in=D, d_sae=M, k=4, rescale_acts_by_decoder_norm=False)),
        matryoshka=Nested(NestedCfg(d_in=D, d_sae=M, k=4, matryoshka_widths=[8, 24])), topk=Top(TopCfg(d_in=D, d_sae=M, k=4)),
        scaled=Batch(BatchCfg(d_in=D, d_sae=M, k=4, normalize_activations="expected_average_only_in")), scaled_topk=Top(TopCfg(d_in=D, d_sae=M, k=4, normalize_activations="expected_average_only_in")))
    for i, (name, t) in enumerate(made.items()):
        noise(t, 40 + i); folder, final = OUT/f"saelens_training_{name}", OUT/"_final"
        if hasattr(t, "topk_threshold"): t.topk_threshold = torch.tensor(.7, dtype=torch.double)
        t.save_model(folder)
        if name.startswith("scaled"):
            scaler = ActivationScaler(); scaler.scaling_factor = 1.7; scaler.save(str(folder/"activation_scaler.json")); t.fold_activation_norm_scaling_factor(1.7)
        t.save_inference_model(final); s = SAE.load_from_disk(final); keep(folder, x, s.encode(x), s(x), by + ", training checkpoint; outputs of what it saves for inference")
        if name == "batchtopk": shutil.copytree(final, OUT/"saelens_batchtopk_final", dirs_exist_ok=True); keep(OUT/"saelens_batchtopk_final", x, s.encode(x), s(x), by)
        shutil.rmtree(final)
    early = Batch(BatchCfg(d_in=D, d_sae=M, k=4)); noise(early, 50).save_model(OUT/"refused_saelens_batchtopk"); early.save_inference_model(OUT/"refused_saelens_final"); MADE["refused_saelens_batchtopk"] = MADE["refused_saelens_final"] = by + ", threshold still at its start"


def saelens_old():
    "Folders from before version 6: flat configs. Laid out by hand, opened by SAELens 6."
    from sae_lens import SAE
    g = torch.Generator().manual_seed(60); r = lambda *s: torch.randn(*s, generator=g) * .5; x = inputs(); by = f"old layout by hand; outputs of sae-lens {version('sae-lens')}"
    flat = dict(model_name="gpt2-small", hook_point="blocks.3.hook_resid_pre", hook_point_layer=3, hook_point_head_index=None, d_in=D, d_sae=M, dtype="torch.float32", device="cpu", l1_coefficient=8e-5)
    old = dict(old_standard=flat, old_topk=flat | dict(activation_fn_str="topk", activation_fn_kwargs={"k": 4}, normalize_activations=False), old_jumprelu=flat | dict(architecture="jumprelu", apply_b_dec_to_input=False, normalize_activations="none"))
    for name, cfg in old.items():
        folder = OUT/f"saelens_{name}"; folder.mkdir(parents=True, exist_ok=True); cfg = dict(cfg, dtype="float32")
        t = dict(W_enc=r(D, M), b_enc=r(M), W_dec=r(M, D), b_dec=r(D)) | (dict(threshold=r(M).abs()) if "jump" in name else {}) | (dict(scaling_factor=torch.ones(M)) if name == "old_standard" else {})
        save_file(t, folder/"sae_weights.safetensors"); (folder/"cfg.json").write_text(json.dumps(cfg)); s = SAE.load_from_disk(folder); keep(folder, x, s.encode(x), s(x), by)


# --- dictionary_learning ------------------------------------------------------------------------------------------------
def dictionary_learning():
    from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE, BatchTopKTrainer
    from dictionary_learning.trainers.gdm import GatedSAETrainer
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE, MatryoshkaBatchTopKTrainer
    from dictionary_learning.trainers.standard import StandardTrainer, StandardTrainerAprilUpdate
    from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer
    from dictionary_learning.training import trainSAE
    steps = 60; base = dict(steps=steps, activation_dim=D, dict_size=M, layer=3, lm_name="gpt2", device="cpu", submodule_name="resid_post_layer_3", warmup_steps=3, lr=1e-2, seed=0)
    slow, cut = dict(sparsity_warmup_steps=3), dict(k=4, threshold_start_step=20)
    runs = dict(standard=(dict(trainer=StandardTrainer, **base, **slow), AutoEncoder), april=(dict(trainer=StandardTrainerAprilUpdate, **base, **slow), AutoEncoder), gated=(dict(trainer=GatedSAETrainer, **base, **slow), GatedAutoEncoder),
        jumprelu=(dict(trainer=JumpReluTrainer, **base, **slow, target_l0=4.), JumpReluAutoEncoder), topk=(dict(trainer=TopKTrainer, **base, **cut), AutoEncoderTopK), batchtopk=(dict(trainer=BatchTopKTrainer, **base, **cut), BatchTopKSAE),
        matryoshka=(dict(trainer=MatryoshkaBatchTopKTrainer, **base, **cut, group_fractions=[.25, .75]), MatryoshkaBatchTopKSAE), refused=(dict(trainer=BatchTopKTrainer, **base, k=4), BatchTopKSAE))
    x, by = inputs(), f"dictionary-learning {version('dictionary-learning')}, {steps} steps of its own trainer"; g = torch.Generator().manual_seed(7)
    data = [torch.randn(32, D, generator=g) * torch.linspace(.5, 2, D) + torch.linspace(-1, 1, D) for _ in range(steps + 1)]
    for name, (config, cls) in runs.items():
        made = OUT/"_dl"; trainSAE(iter([b.clone() for b in data]), [config], steps=steps, save_dir=str(made), device="cpu"); folder = OUT/("refused_dl_batchtopk" if name == "refused" else f"dl_{name}")
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("ae.pt", "config.json"): shutil.copy(made/"trainer_0"/file, folder/file)
        shutil.rmtree(made); more = dict(normalize_decoder=False) if cls is AutoEncoder else {}; s = cls.from_pretrained(str(folder/"ae.pt"), **more)
        if name == "refused": MADE[folder.name] = by + ", threshold not yet set"; continue
        keep(folder, x, s.encode(x), s(x), by)
        if name == "april": u = AutoEncoder.from_pretrained(str(folder/"ae.pt")); save_file({"f": u.encode(x).detach().contiguous()}, folder/"expected_unit_rows.safetensors")
    new = noise(AutoEncoderNew(D, M), 8); folder = OUT/"dl_new"; folder.mkdir(parents=True, exist_ok=True); torch.save(new.state_dict(), folder/"ae.pt")
    (folder/"config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoderNew", "activation_dim": D, "dict_size": M, "lm_name": "gpt2", "layer": 3, "submodule_name": "resid_post_layer_3"}}))
    keep(folder, x, new.encode(x), new(x), f"dictionary-learning {version('dictionary-learning')}, its class and state dict; config by hand (no trainer of this version makes the class)")


# --- sparsify -----------------------------------------------------------------------------------------------------------
def sparsify():
    from sparsify import SparseCoder, SparseCoderConfig
    cases = dict(topk=dict(k=4), groupmax=dict(k=4, activation="groupmax"), transcoder=dict(k=4, transcode=True), skip_transcoder=dict(k=4, transcode=True, skip_connection=True), skip=dict(k=4, skip_connection=True), square=dict(k=4, num_latents=D))
    x = inputs()
    for i, (name, c) in enumerate(cases.items()):
        folder = OUT/f"sparsify_{name}"/"layers.3"; noise(SparseCoder(D, SparseCoderConfig(**({"num_latents": M} | c))), 70 + i).save_to_disk(folder); s = SparseCoder.load_from_disk(folder)
        v, at, _ = s.encode(x); f = torch.zeros(6, s.num_latents).scatter(-1, at, v); keep(folder, x, f, s(x).sae_out, ""); MADE.pop(folder.name); MADE[f"sparsify_{name}"] = f"eai-sparsify {version('eai-sparsify')}"


# --- layouts without a library ------------------------------------------------------------------------------------------
def layouts():
    from unittest.mock import patch
    from sae_lens import SAE
    from sae_lens.loading import pretrained_sae_loaders as loaders
    g = torch.Generator().manual_seed(80); r = lambda *s: torch.randn(*s, generator=g) * .5; x = inputs(); lens = f"sae-lens {version('sae-lens')}"
    def opened(cfg, t): s = SAE.from_dict(loaders.handle_config_defaulting(cfg)); s.load_state_dict(t); return s
    folder = OUT/"gemma_scope"/"layer_3"; folder.mkdir(parents=True, exist_ok=True); t = dict(W_enc=r(D, M), W_dec=r(M, D), b_enc=r(M), b_dec=r(D), threshold=r(M).abs()); np.savez(folder/"params.npz", **{k: v.numpy() for k, v in t.items()})
    cfg = dict(architecture="jumprelu", d_in=D, d_sae=M, dtype="float32", device="cpu", hook_name="blocks.3.hook_resid_post", apply_b_dec_to_input=False, normalize_activations=None, finetuning_scaling_factor=False, model_name="gemma-2-2b")
    with patch.object(loaders, "get_gemma_2_config_from_hf", lambda *a, **k: dict(cfg)), patch.object(loaders, "hf_hub_download", lambda **k: str(folder/"params.npz")): c, got, _ = loaders.gemma_2_sae_huggingface_loader("google/gemma-scope-2b-pt-res", "layer_3")
    s = opened(c, got); keep(folder, x, s.encode(x), s(x), ""); MADE.pop(folder.name); MADE["gemma_scope"] = f"numpy, layout of params.npz; outputs of the Gemma loader of {lens}"
    folder = OUT/"circuit_tracer"; folder.mkdir(exist_ok=True); t = dict(W_enc=r(M, D), W_dec=r(M, D), b_enc=r(M), b_dec=r(D)); save_file(t, folder/"layer_3.safetensors")
    cfg = dict(architecture="transcoder", d_in=D, d_out=D, d_sae=M, dtype="float32", device="cpu", apply_b_dec_to_input=False, normalize_activations="none", model_name="qwen", hook_name="blocks.3.mlp.hook_in", activation_fn="relu")
    with patch.object(loaders, "get_mwhanna_transcoder_config_from_hf", lambda *a, **k: dict(cfg)), patch.object(loaders, "hf_hub_download", lambda **k: str(folder/"layer_3.safetensors")): c, got, _ = loaders.mwhanna_transcoder_huggingface_loader("any", "layer_3.safetensors")
    s = opened(c, got); keep(folder, x, s.encode(x), s(x), f"safetensors, layout by hand; outputs of the loader of {lens}")
    folder = OUT/"openai"; folder.mkdir(exist_ok=True); t = {"pre_bias": r(D), "encoder.weight": r(M, D), "latent_bias": r(M), "decoder.weight": r(D, M), "stats_last_nonzero": torch.zeros(M, dtype=torch.long), "activation": "TopK", "activation_state_dict": {"k": 4}}; torch.save(t, folder/"resid_post_mlp.pt")
    mu = x.mean(-1, keepdim=True); std = (x - mu).std(-1, keepdim=True); pre = ((x - mu) / (std + 1e-5) - t["pre_bias"]) @ t["encoder.weight"].T + t["latent_bias"]; v, at = pre.topk(4); f = torch.zeros_like(pre).scatter_(-1, at, torch.relu(v))
    keep(folder, x, f, (f @ t["decoder.weight"].T + t["pre_bias"]) * std + mu, "torch.save, layout by hand; outputs by the published formula")
    folder = OUT/"crosscoder"; folder.mkdir(exist_ok=True); t = dict(W_enc=r(L, D, M), W_dec=r(M, L, D), b_enc=r(M), b_dec=r(L, D)); torch.save(t, folder/"1.pt"); y = inputs(L * D).reshape(6, L, D)
    f = torch.relu(torch.einsum("nld,ldm->nm", y, t["W_enc"]) + t["b_enc"]); keep(folder, y, f, torch.einsum("nm,mld->nld", f, t["W_dec"]) + t["b_dec"], "torch.save, layout by hand; outputs by the published formula")


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(): saelens(); saelens_old(); sparsify(); layouts()
    dictionary_learning()
    packages = {p: version(p) for p in ("sae-lens", "dictionary-learning", "eai-sparsify", "torch", "safetensors", "numpy")}
    (OUT/"versions.json").write_text(json.dumps(dict(packages=packages, made_by=dict(sorted(MADE.items()))), indent=1) + "\n")
    print(len(MADE), "dictionaries,", sum(p.stat().st_size for p in OUT.rglob("*") if p.is_file() and p.suffix != ".py") // 1024, "KiB;", packages)

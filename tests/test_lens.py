"""The vocabulary lens against plain Hugging Face arithmetic, on random weights of every family and on shipped models."""
import hashlib
import warnings
from itertools import islice

import numpy as np
import pytest
import torch
import transformers as tf

from workbench.lens import (LensError, direct_logit_attribution, folded_unembed, head_grid, load_translators, logit_lens, project, race,
                            train_tuned_lens)
from workbench.lens.project import Projection, read_norm
from workbench.lm.edits import scale, zero
from workbench.lm.errors import WorkbenchError
from workbench.lm.load import load
from workbench.lm.model import AnswerError
from workbench.lm.results import load_result, save
from workbench.lm.sites import Site, SiteError
from workbench.tasks.catalogue import make
from workbench.tasks.corpus import rows

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
V, D = 96, 32
MODERN = dict(vocab_size=V, hidden_size=D, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
              pad_token_id=0, bos_token_id=1, eos_token_id=2)
BERT = dict(vocab_size=V, hidden_size=D, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4)
OPT = dict(vocab_size=V, hidden_size=D, ffn_dim=64, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
FAMILIES = {
    "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(vocab_size=V, n_embd=D, n_layer=3, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)),
    "gpt_neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**BERT, max_position_embeddings=64)),
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**MODERN)),
    "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(**MODERN, sliding_window=4)),
    "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**MODERN)),
    "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**MODERN, head_dim=8)),
    "gemma2": lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**MODERN, head_dim=8, sliding_window=4, attn_logit_softcapping=5., final_logit_softcapping=3.)),
    "gemma3": lambda: tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**MODERN, head_dim=8, sliding_window=4, layer_types=MIXED)),
    "phi3": lambda: tf.Phi3ForCausalLM(tf.Phi3Config(**MODERN)),
    "olmo2": lambda: tf.Olmo2ForCausalLM(tf.Olmo2Config(**MODERN)),
    "olmo": lambda: tf.OlmoForCausalLM(tf.OlmoConfig(**MODERN)),
    "opt": lambda: tf.OPTForCausalLM(tf.OPTConfig(**OPT, word_embed_proj_dim=D)),
    "opt_narrow": lambda: tf.OPTForCausalLM(tf.OPTConfig(**OPT, word_embed_proj_dim=16)),
    "mixtral": lambda: tf.MixtralForCausalLM(tf.MixtralConfig(**MODERN, num_local_experts=4)),
    "gpt_oss": lambda: tf.GptOssForCausalLM(tf.GptOssConfig(**MODERN, head_dim=8, num_local_experts=4, sliding_window=4, layer_types=MIXED)),
}
OTHERS = {
    "opt_post": lambda: tf.OPTForCausalLM(tf.OPTConfig(**OPT, word_embed_proj_dim=16, do_layer_norm_before=False)),
    "bert": lambda: tf.BertForMaskedLM(tf.BertConfig(**BERT, max_position_embeddings=64, pad_token_id=0)),
    "roberta": lambda: tf.RobertaForMaskedLM(tf.RobertaConfig(**BERT, max_position_embeddings=66, pad_token_id=1)),
    "bart": lambda: tf.BartForConditionalGeneration(tf.BartConfig(vocab_size=V, d_model=D, encoder_layers=3, decoder_layers=3, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64,
        decoder_ffn_dim=64, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None)),
    "t5": lambda: tf.T5ForConditionalGeneration(tf.T5Config(vocab_size=V, d_model=D, d_kv=8, d_ff=64, num_layers=3, num_heads=4, pad_token_id=0, eos_token_id=2, decoder_start_token_id=0)),
}
MOE = ("mixtral", "gpt_oss")
LONG, SHORT = [5, 17, 33, 8, 61, 7, 44], [9, 12, 80, 3]
TARGETS = [[11, 12, 13], [14]]


def build(name, seed=0):
    "A random model of a family: biases and gains that are not 0 and 1, weights large enough to be far from linear."
    torch.manual_seed(seed); model = {**FAMILIES, **OTHERS}[name]().eval()
    with torch.no_grad():
        for p in model.parameters(): p.add_(torch.randn_like(p) * .1) if p.dim() == 1 else p.mul_(3.)
    return model


@pytest.fixture(scope="module")
def opened():
    made = {}
    return lambda name: made.setdefault(name, load(build(name)))


def slow_lens(model, row, targets=None):
    "Logits after each layer, from `output_hidden_states` and the model's own modules, one unpadded prompt: (layer, pos, vocab)."
    given = dict(decoder_input_ids=torch.tensor([targets])) if targets else {}
    with torch.no_grad(): out = model(input_ids=torch.tensor([row]), output_hidden_states=True, **given)
    hidden = out.decoder_hidden_states if targets else out.hidden_states
    return hidden, out.logits[0]


def digest(model): return hashlib.sha256(b"".join(v.float().numpy().tobytes() for v in model.state_dict().values())).hexdigest()


# --- the norm and the projection ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FAMILIES)
def test_final_norm_is_read_right(opened, name):
    lm = opened(name); x = torch.randn(5, D) * 3
    with torch.no_grad(): want = lm.final_norm(x).double()
    norm = read_norm(lm.final_norm, D)
    assert (norm(x.double()) - want).abs().max() < 1e-5
    assert norm.centred == ("LayerNorm" in type(lm.final_norm).__name__)


@pytest.mark.parametrize("name", FAMILIES)
def test_projection_of_the_last_state_is_the_models_logits(opened, name):
    lm = opened(name); run = lm.run([LONG, SHORT], keep=["resid_post"])
    final = run["resid_post"].isel(layer=-1)
    for norm in ("exact", "folded"): assert float(abs(project(lm, final, norm, final) - run.logits).max()) < 1e-5
    assert np.isnan(project(lm, final).values[1, len(SHORT):]).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_folded_projection_is_additive_and_folds_into_weights(opened, name):
    lm = opened(name); run = lm.run([LONG], keep=["resid_post"]); p = Projection(lm)
    a, final = run.tensor("resid_post.0"), run.tensor("resid_post.2"); s = read_norm(lm.final_norm, D).scale(final)
    with torch.no_grad(): whole, one, two, none = (p(x, s, cap=False) for x in (final, a, final - a, 0 * a))
    assert (whole - (one + two - none)).abs().max() < 1e-4
    w, b = folded_unembed(lm)
    assert torch.allclose((final / s) @ w.T + b, whole, atol=1e-4)


# --- the logit lens -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [*FAMILIES, *OTHERS])
def test_lens_equals_plain_hidden_states(opened, name):
    lm = opened(name); decoder = lm.kind == "seq2seq"
    lens = logit_lens(lm, [LONG, SHORT], answers={"a": 5, "b": [7, 8]}, top_k=3, targets=TARGETS if decoder else None)
    assert lens.attrs["last_layer_error"] < 1e-5 and list(lens.layer.values) == ["embed", "0", "1", "2"]
    for i, row in enumerate((LONG, SHORT)):
        start = lm.config.decoder_start_token_id if decoder else None
        hidden, own = slow_lens(lm.model, row, [start, *TARGETS[i]] if decoder else None)
        n = own.shape[0]
        for l, h in enumerate(hidden):
            last = l == len(hidden) - 1        # HF's last hidden state has already passed the final norm
            with torch.no_grad():
                y = h[0] if last or lm.final_norm is None else lm.final_norm(h[0])
                if hasattr(lm.model, "cls"): logits = lm.model.cls(y)
                else:
                    if name in ("opt_narrow", "opt_post") and not last: y = lm.model.model.decoder.project_out(y)
                    y = y * (D ** -.5) if name == "t5" else y
                    logits = lm.model.lm_head(y)
                    if name == "gemma2": logits = torch.tanh(logits / 3) * 3
                    if name == "bart": logits = logits + lm.model.final_logits_bias[0]
            if last: assert (logits - own).abs().max() < 1e-5
            here = lens.isel(prompt=i, layer=l, pos=slice(0, n)); p = logits.double().softmax(-1)
            assert np.abs(here.answer_logit.values[:, 0] - logits[:, 5].numpy()).max() < 1e-5
            assert np.abs(here.answer_probability.values[:, 1] - p[:, (7, 8)[i]].numpy()).max() < 1e-5
            assert (here.top_id.values[:, 0] == logits.argmax(-1).numpy()).all()
            assert (here.answer_rank.values[:, 0] == (logits > logits[:, [5]]).sum(-1).numpy()).all()
            q = own.double().softmax(-1); kl = (q * (q.log() - p.log())).sum(-1)
            assert np.abs(here.kl.values - kl.numpy()).max() < 1e-4
    assert np.isnan(lens.kl.values[1, :, int(n):]).all() and (lens.top_token.values[1, :, int(n):] == "").all()


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "opt"])
def test_left_padding_and_batch_size_change_nothing(opened, name):
    lm = opened(name)
    right, left, alone = (logit_lens(lm, p, answers=5) for p in (lm.tokens([LONG, SHORT]), lm.tokens([LONG, SHORT], side="left"), [SHORT]))
    assert np.nanmax(abs(right.answer_logit - left.answer_logit)) < 1e-5
    assert float(abs(alone.answer_logit[0] - right.answer_logit[1, :, :len(SHORT)]).max()) < 1e-5


def test_lens_reads_slices_of_tokens_alike(opened):
    from workbench.lens.logit_lens import _read_layer
    lm = opened("gpt2"); run = lm.run([LONG], keep=["resid_post"]); x, own = run.tensor("resid_post.1")[0], run.logits_tensor[0]; follow = torch.zeros(len(LONG), 1, dtype=torch.long)
    with torch.no_grad(): whole, sliced = (_read_layer(Projection(lm), x, None, own, 2, follow, budget=b) for b in (2 ** 20, 2 * V))
    assert all(torch.allclose(whole[n], sliced[n], atol=1e-6) for n in whole)


def test_folded_lens_differs_before_the_end_and_agrees_at_it(opened):
    lm = opened("llama"); exact, folded = (logit_lens(lm, [LONG], norm=n, answers=5).answer_logit for n in ("exact", "folded"))
    assert float(abs(exact - folded).isel(layer=-1).max()) < 1e-5 and float(abs(exact - folded).isel(layer=0).max()) > 1e-3


def test_results_save_and_reload(opened, tmp_path):
    for i, x in enumerate((logit_lens(opened("gpt2"), [LONG, SHORT], answers=[5, 6]), direct_logit_attribution(opened("gpt2"), [LONG, SHORT], 5, 6, by="head"), race(opened("gpt2"), [LONG, SHORT], 5, 6))):
        again = load_result(save(x, tmp_path / f"{i}"))
        assert again.equals(x) and again.attrs["model"] == x.attrs["model"]


def test_scaled_logits_are_read_right_and_scaled_residuals_are_not_split():
    "Granite divides its logits, and multiplies what its parts add: the lens follows, attribution refuses."
    torch.manual_seed(0); lm = load(tf.GraniteForCausalLM(tf.GraniteConfig(**MODERN, logits_scaling=4., residual_multiplier=.5, embedding_multiplier=3.)).eval())
    lens = logit_lens(lm, [LONG], answers=5); own = lm.run([LONG]).logits.values[0]
    assert np.abs(lens.answer_logit.values[0, -1, :, 0] - own[:, 5]).max() < 1e-5
    with pytest.raises(SiteError, match="do not add up"): direct_logit_attribution(lm, [LONG], 5)


def test_model_with_an_unknown_end_is_refused():
    class Odd(tf.GPT2LMHeadModel):
        def forward(self, *a, **k):
            out = super().forward(*a, **k); out.logits = out.logits * 2
            return out
    torch.manual_seed(0); lm = load(Odd(tf.GPT2Config(vocab_size=V, n_embd=D, n_layer=2, n_head=4, n_positions=64)).eval())
    with pytest.raises(LensError, match="after its last layer"): logit_lens(lm, [LONG])
    with pytest.raises(LensError, match="do not sum"): direct_logit_attribution(lm, [LONG], 5)


# --- direct logit attribution -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("by", ["layer", "head", "neuron"])
def test_parts_sum_to_the_logit(opened, name, by):
    lm = opened(name)
    if by == "neuron" and name in MOE:
        with pytest.raises(SiteError, match="mixture of experts"): direct_logit_attribution(lm, [LONG], 5, by=by)
        return
    for side in ("right", "left"):
        batch = lm.tokens([LONG, SHORT], side=side); logits = lm.run(batch).last_logits.double()
        one, two = direct_logit_attribution(lm, batch, 5, by=by), direct_logit_attribution(lm, batch, [5, 6], [7, 8], by=by)
        if name == "gemma2": logits = torch.atanh(logits / 3) * 3       # the cap undone
        assert one.attrs["residual_error"] < 1e-5
        assert np.abs(one.sum("component").values - logits[:, 5].numpy()).max() < 1e-4
        assert np.abs(two.sum("component").values - (logits[[0, 1], [5, 6]] - logits[[0, 1], [7, 8]]).numpy()).max() < 1e-4
    assert ("cap" in one.attrs["logit"]) == (name == "gemma2")


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "gemma2", "opt", "olmo2"])
def test_finer_parts_sum_to_coarser(opened, name):
    lm = opened(name); layer, head, neuron = (direct_logit_attribution(lm, [LONG], 5, by=b).isel(prompt=0).to_dataframe().reset_index() for b in ("layer", "head", "neuron"))
    coarse = layer.set_index("component").contribution
    for l in range(3):
        heads = head[(head.layer == l) & head.kind.isin(["head", "attn_bias"])].contribution.sum()
        neurons = neuron[(neuron.layer == l) & neuron.kind.isin(["neuron", "mlp_bias"])].contribution.sum()
        assert abs(heads - coarse[f"L{l} attn"]) < 1e-5 and abs(neurons - coarse[f"L{l} mlp"]) < 1e-5
    assert head_grid(direct_logit_attribution(lm, [LONG], 5, by="head")).shape == (1, 3, 4)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_a_heads_share_is_what_removing_it_takes_at_frozen_norms(opened, name):
    "Independent: hand arithmetic from hooks on the head's output matrix, no code of the room."
    lm = opened(name); share = head_grid(direct_logit_attribution(lm, [LONG], 5, by="head")).values[0]
    run = lm.run([LONG], keep=["z", "resid_post", "attn_out"]); l, h = 1, 2
    z = run.tensor(f"z.{l}")[0, -1].double(); part = lm.main.layers[l]
    o = part.o.weight.double() if name == "gpt2" else part.o.weight.T.double()
    write = z[h] @ o.view(4, -1, D)[h]
    rms = lambda x, eps, centre: ((x - x.mean() if centre else x).pow(2).mean() + eps).sqrt()
    if name == "gemma2":
        raw = z.flatten() @ o; write = write / rms(raw, 1e-6, False) * (1 + part.attn_added.weight.double())
    final = run.tensor("resid_post.2")[0, -1].double(); ln = lm.final_norm; centre = name in ("gpt2", "gpt_neox")
    w = (write - write.mean() if centre else write) / rms(final, 1e-6 if not centre else 1e-5, centre) * ((1 + ln.weight) if name == "gemma2" else ln.weight).double()
    assert abs(float(w.detach() @ lm.unembed.weight[5].detach().double()) - share[l, h]) < 1e-5


def test_positions_are_counted_from_the_first_real_token(opened):
    lm = opened("gpt2"); alone = direct_logit_attribution(lm, [SHORT], 5, position=2).values[0]
    for side in ("left", "right"):
        batch = lm.tokens([LONG, SHORT], side=side)
        assert np.abs(direct_logit_attribution(lm, batch, 5, position=2).values[1] - alone).max() < 1e-5
        assert np.abs(direct_logit_attribution(lm, batch, 5, position=torch.tensor([-1, -2])).values[1] - alone).max() < 1e-5


def test_encoder_decoder_attribution_includes_cross_attention(opened):
    lm = opened("t5"); own = lm.run([LONG, SHORT], targets=TARGETS).last_logits
    for by in ("layer", "head", "neuron"):
        dla = direct_logit_attribution(lm, [LONG, SHORT], 5, by=by, targets=TARGETS)
        assert np.abs(dla.sum("component").values - own[:, 5].numpy()).max() < 1e-4
    assert "cross" in set(dla.kind.values)


@pytest.mark.parametrize("name", OTHERS)
def test_post_norm_models_are_refused_with_the_reason(opened, name):
    if name == "t5": return
    lm = opened(name); targets = TARGETS[:1] if name == "bart" else None
    with pytest.raises(LensError, match="post-norm"): direct_logit_attribution(lm, [LONG], 5, targets=targets)
    with pytest.raises(LensError, match="no norm after its last layer"): logit_lens(lm, [LONG], norm="folded", targets=targets)


def test_an_edit_that_breaks_the_sum_is_an_error_and_one_that_does_not_is_recorded(opened):
    lm = opened("gpt2")
    with lm.edited(scale(Site("resid_post", layer=1), 0.5)):
        with pytest.raises(LensError, match="do not sum"): direct_logit_attribution(lm, [LONG], 5)
    with lm.edited(zero(Site("z", layer=1, head=2))): dla = direct_logit_attribution(lm, [LONG], 5, by="head")
    assert head_grid(dla).values[0, 1, 2] == 0 and "zero" in dla.attrs["edits"]


# --- the race -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FAMILIES)
def test_race_parts_and_sources_sum(opened, name):
    lm = opened(name)
    for side in ("right", "left"):
        batch = lm.tokens([LONG, SHORT], side=side); r = race(lm, batch, 5, [6, 7]); own = lm.run(batch).last_logits
        total = r.head_logit.sum(("layer", "head")) + r.mlp_logit.sum("layer") + r.other_logit
        total = np.tanh(total / 3) * 3 if name == "gemma2" else total
        assert float(abs(total - r.logit).max()) < 1e-5 and float(abs(r.source_logit.sum("source") - r.head_logit).max()) < 1e-5
        assert np.abs(r.logit.values[:, 0] - own[:, 5].numpy()).max() < 1e-6
        assert np.isnan(r.source_logit.values[1, ..., len(SHORT):]).all() and np.isfinite(r.source_logit.values[0]).all()
        last = [float(r.lens_logit[i, -1, n - 1, 0]) for i, n in enumerate((len(LONG), len(SHORT)))]
        assert np.abs(np.array(last) - own[:, 5].numpy()).max() < 1e-5
        assert list(r.winner.values) == [("memorised", "in_context")[int(own[i, a] < own[i, b])] for i, (a, b) in enumerate(((5, 6), (5, 7)))]


def test_source_shares_are_attention_weighted_values(opened):
    "By hand on a Llama with grouped K/V heads: pattern * v W_O, one source at a time."
    lm = opened("llama"); r = race(lm, [LONG], 5, 6); run = lm.run([LONG], keep=["pattern", "v", "resid_post"]); l, h, j = 1, 3, 2
    write = run.tensor(f"pattern.{l}")[0, h, -1, j] * (run.tensor(f"v.{l}")[0, j, h // 2] @ lm.main.layers[l].o.weight.T.view(4, 8, D)[h])
    x = run.tensor("resid_post.2")[0, -1]; s = (x.pow(2).mean() + 1e-6).sqrt()
    assert abs(float(((write / s * lm.final_norm.weight) @ lm.unembed.weight[5]).detach()) - float(r.source_logit[0, 0, l, h, j])) < 1e-5


# --- the tuned lens -----------------------------------------------------------------------------------------------------
def some_texts(n=48, length=12, seed=0): return torch.randint(3, V, (n, length), generator=torch.Generator().manual_seed(seed)).tolist()


def test_untrained_translators_are_the_plain_lens(opened):
    lm = opened("gpt2"); tuned = train_tuned_lens(lm, some_texts(8), steps=1)
    tuned.A.zero_(); tuned.b.zero_()
    assert float(abs(logit_lens(lm, [LONG], translators=tuned).kl - logit_lens(lm, [LONG]).kl).max()) < 1e-6


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "bert"])
def test_training_lowers_held_out_kl_and_leaves_the_model_alone(name, tmp_path):
    lm = load(build(name)); before = digest(lm.model)
    tuned = train_tuned_lens(lm, some_texts(), steps=60, lr=3e-3); again = train_tuned_lens(lm, some_texts(), steps=60, lr=3e-3)
    assert digest(lm.model) == before and all(p.grad is None for p in lm.model.parameters())
    assert torch.equal(tuned.A, again.A)                                           # the seed decides
    kl = tuned.report.kl
    assert (kl.sel(lens="tuned").values[:-1] < kl.sel(lens="plain").values[:-1]).all()
    assert abs(float(kl[0, -1])) < 1e-5 and kl.attrs["n"] == 10 * 12
    back = load_translators(tuned.save(tmp_path / "lens"))
    assert torch.equal(back.A, tuned.A) and float(abs(logit_lens(lm, [LONG], translators=back).kl - logit_lens(lm, [LONG], translators=tuned).kl).max()) == 0


def test_report_is_on_texts_never_trained_on(opened):
    from workbench.lens.tuned_lens import _divided
    lm = opened("gpt2"); train, held = _divided(lm, some_texts(10) * 3, 0.3, 0); rows = lambda b: {tuple(r) for r in b.ids.tolist()}
    assert len(train) + len(held) == 10 and not rows(train) & rows(held)


def test_translators_of_another_model_and_broken_files_are_refused(opened, tmp_path):
    tuned = train_tuned_lens(opened("gpt2"), some_texts(8), steps=1); path = tuned.save(tmp_path / "lens")
    with pytest.raises(LensError, match="other weights"): logit_lens(load(build("gpt2", seed=1)), [LONG], translators=tuned)
    with pytest.raises(LensError, match="exact"): logit_lens(opened("gpt2"), [LONG], norm="folded", translators=tuned)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(LensError, match="not a whole file"): load_translators(path)
    with pytest.raises(LensError, match="no translators"): load_translators(tmp_path / "none.safetensors")


# --- bad input ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("call, says", [
    (lambda lm: logit_lens(lm, [LONG], norm="fold"), "'exact'"),
    (lambda lm: project(lm, torch.zeros(2, D), "folded"), "final="),
    (lambda lm: project(lm, torch.zeros(2, D + 1)), "wide"),
    (lambda lm: direct_logit_attribution(lm, [LONG], 5, by="heads"), "layer, head or neuron"),
    (lambda lm: direct_logit_attribution(lm, [LONG, SHORT], 5, position=5), "Position 5 does not exist in prompt 1"),
    (lambda lm: direct_logit_attribution(lm, [LONG], 5, position=[0, 1]), "1 prompts and 2 positions"),
    (lambda lm: direct_logit_attribution(lm, [LONG], 5, position="last"), "whole number"),
    (lambda lm: direct_logit_attribution(lm, [LONG, SHORT], [5, 6, 7]), "2 prompts and 3 answers"),
    (lambda lm: direct_logit_attribution(lm, [LONG], V), "does not exist"),
    (lambda lm: direct_logit_attribution(lm, [LONG], "Paris"), "without a tokenizer"),
    (lambda lm: race(lm, [LONG], 5, 5), "no race"),
    (lambda lm: race(lm, [LONG], 5, 6, position=9), "does not exist"),
    (lambda lm: head_grid(direct_logit_attribution(lm, [LONG], 5)), "by='head'"),
    (lambda lm: train_tuned_lens(lm, some_texts(3)), "at least 4"),
    (lambda lm: train_tuned_lens(lm, some_texts(8), steps=0), "steps"),
    (lambda lm: logit_lens(lm, [[]]), "no tokens"),
])
def test_bad_input_is_one_clear_sentence(opened, call, says):
    with pytest.raises(WorkbenchError, match=says.replace("(", r"\(")): call(opened("gpt2"))


# --- on models that learned something, and on their untrained twins -------------------------------------------------------
TRAINED = ["micro", "micro-llama"]


@pytest.fixture(scope="module")
def trained():
    made = {}
    return lambda name: made.setdefault(name, load(name))


@pytest.fixture(scope="module")
def untrained(trained):
    made = {}
    def twin(name):
        torch.manual_seed(0); lm = trained(name)
        return load(tf.AutoModelForCausalLM.from_config(lm.config), lm.tokenizer)
    return lambda name: made.get(name) or made.setdefault(name, twin(name))


def last_ranks(lm, task):
    "Rank of the answer at the last position after each entry, (prompt, layer)."
    ranks = logit_lens(lm, task.prompts, answers={"answer": task.answer_ids}).answer_rank.isel(answer=0)
    return np.array([ranks.values[i, :, n - 1] for i, n in enumerate(lm.tokens(task.prompts).lengths)])


@pytest.mark.parametrize("name", TRAINED)
def test_lens_finds_a_learned_fact_and_none_in_the_untrained_twin(trained, untrained, name):
    lm = trained(name); task = make("capitals", n=40, seed=1).for_model(lm); chance = lm.d_vocab / 2
    know, blank = last_ranks(lm, task), last_ranks(untrained(name), task)
    assert (know[:, -1] == 0).mean() >= .95
    assert know[:, 0].mean() > chance / 2              # the embedding of the last word knows no capital
    assert (blank.mean(0) > chance / 2).all() and (blank == 0).mean() < .05


@pytest.mark.parametrize("name", TRAINED)
def test_the_intent_word_flips_the_race(trained, untrained, name):
    lm, items = trained(name), make("conflict", n=100, seed=2).items
    def wins(lm, prompts): return np.array([w == "in_context" for w in race(lm, prompts, [i.truth["memory"] for i in items], [i.truth["context"] for i in items]).winner.values])
    asked = np.array([i.truth["kind"] == "context" for i in items])
    assert (wins(lm, [i.prompt for i in items]) == asked).mean() >= .9 and (wins(lm, [i.corrupt for i in items]) == ~asked).mean() >= .9
    blank = np.concatenate([wins(untrained(name), [i.prompt for i in items]) == asked, wins(untrained(name), [i.corrupt for i in items]) == ~asked])
    assert .35 < blank.mean() < .65                    # chance is exactly one half: n = 200, 4 standard errors


@pytest.mark.parametrize("name", TRAINED)
def test_the_push_to_the_context_word_comes_from_where_it_was_said(trained, name):
    lm = trained(name); task = make("conflict", n=60, seed=3, intent="context").for_model(lm)
    r = race(lm, task.prompts, [i.truth["memory"] for i in task.items], [i.truth["context"] for i in task.items])
    push = (r.source_logit.sel(contender="in_context") - r.source_logit.sel(contender="memorised")).sum(("layer", "head"), skipna=False)
    said = task.positions("claim").numpy()
    assert (np.nanargmax(push.values, -1) == said).mean() >= .9
    assert r.attrs["residual_error"] < 1e-4 and r.attrs["source_error"] < 1e-4


@pytest.mark.parametrize("name", TRAINED)
def test_attribution_is_exact_on_trained_models(trained, name):
    lm = trained(name); task = make("ioi", n=20, seed=0).for_model(lm); own = lm.run(task.prompts).last_logits.double(); row = torch.arange(len(task))
    for by in ("layer", "head", "neuron"):
        dla = direct_logit_attribution(lm, task.prompts, task.answer_ids, task.foil_ids, by=by)
        assert np.abs(dla.sum("component").values - (own[row, task.answer_ids] - own[row, task.foil_ids]).numpy()).max() < 1e-4


@pytest.mark.parametrize("name", TRAINED)
def test_tuned_lens_beats_the_plain_lens_at_every_layer_but_the_last(trained, name):
    lm = trained(name); vocab = lm.tokenizer.get_vocab(); before = digest(lm.model)
    tuned = train_tuned_lens(lm, [[vocab[w] for w in words] for words, _ in islice(rows(11), 100)], steps=60)
    kl = tuned.report.kl
    assert (kl.sel(lens="tuned").values[:-1] < kl.sel(lens="plain").values[:-1]).all() and float(kl[1, -1]) < 1e-6
    assert kl.attrs["n"] == 20 * 128 and digest(lm.model) == before


@pytest.mark.parametrize("name", TRAINED)
def test_an_answer_of_several_or_unknown_words_is_refused(trained, name):
    lm = trained(name)
    with pytest.raises(AnswerError, match="3 tokens"): race(lm, "The capital of France is", "Paris and Rome", "Rome")
    with pytest.raises(AnswerError, match="does not know"): direct_logit_attribution(lm, "The capital of France is", "Xyzzy")


def test_masked_twin_is_read_through_its_own_head(trained):
    lm = trained("micro-bert"); task = make("capitals", n=30, seed=1).for_model(lm)
    lens = logit_lens(lm, task.prompts, answers={"answer": task.answer_ids}); at = [int((lm.tokens(p).ids[0] == lm.mask_id).nonzero()[0]) for p in task.prompts]
    ranks = np.array([lens.answer_rank.values[i, :, p, 0] for i, p in enumerate(at)])
    assert lens.attrs["last_layer_error"] < 1e-4 and (ranks[:, -1] == 0).mean() >= .9 and ranks[:, 0].mean() > 20

"""Word order: the symmetry holds exactly where theory says, every switch is put back, and the probe finds position only where there is some."""
import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import workbench as wb
from workbench.attention.patterns import AttentionError
from workbench.attention.permutation import (held_out_r2, permutation_test, position_figure, position_information, shuffles, stripped, without_mask,
                                             without_positions, without_residuals)
from workbench.lm.load import load
from workbench.lm.specimens import CAUSAL, build
from workbench.tasks import make

torch.set_num_threads(1)
IDS = [[7, 12, 30, 44, 51, 9, 23, 60, 18, 5], [11, 70, 8, 33, 42, 19, 6, 27, 54, 80]]


# --- the symmetry -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CAUSAL)
def test_only_without_positions_and_mask_is_the_order_lost(name):
    x = permutation_test(load(build(name), check=False), IDS, n=4)
    assert x.invariant.values.tolist() == [[False, False], [False, True]], x.change.max(["prompt", "shuffle"]).values
    assert float(x.change.sel(positions="off", mask="causal").min()) > 1e-5 and float(x.flips.sel(positions="off", mask="none").max()) == 0


@pytest.mark.parametrize("name", ["micro", "micro-llama"])
def test_trained_models_to_the_last_bits_of_float64(name):
    x = permutation_test(wb.load(name, dtype=torch.float64), make("ioi", n=3, seed=5).prompts, n=4)
    assert float(x.change.sel(positions="off", mask="none").max()) < 1e-12 and float(x.kl.sel(positions="off", mask="none").max()) < 1e-12
    assert float(x.change.sel(positions="off", mask="causal").min()) > 1e-5 and int(x.invariant.sum()) == 1


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_bidirectional_models_need_no_mask_lifted(name):
    x = permutation_test(load(build(name), check=False), IDS, n=4)
    assert x.mask.values.tolist() == ["none"] and x.invariant.values.ravel().tolist() == [False, True]


def test_the_other_tokens_do_change():
    "Only the order is lost: another token in the prefix, or another last token, changes the output."
    lm = load(build("llama"), check=False)
    with stripped(lm, False, False):
        out = [lm.run([row]).last_logits[0] for row in (IDS[0], [8] + IDS[0][1:], IDS[0][1:-1] + IDS[0][:1] + IDS[0][-1:], IDS[0][1:] + IDS[0][:1])]
    assert (out[0] - out[2]).abs().max() < 1e-5 < 1e-2 < min((out[0] - out[1]).abs().max(), (out[0] - out[3]).abs().max())


def test_against_a_model_written_out():
    "One attention layer by hand: no position, no mask, softmax over all keys."
    lm = load(build("gpt2"), check=False); w = lm.model.transformer; ids = torch.tensor(IDS[0]); x = w.wte.weight[ids]
    with torch.no_grad():
        for block in w.h:
            q, k, v = (t.view(len(ids), 4, 8).transpose(0, 1) for t in block.attn.c_attn(block.ln_1(x)).split(32, -1))
            z = (q @ k.transpose(1, 2) / 8 ** .5).softmax(-1) @ v
            x = x + block.attn.c_proj(z.transpose(0, 1).reshape(len(ids), 32)); x = x + block.mlp(block.ln_2(x))
        want = lm.model.lm_head(w.ln_f(x))
    for kept in ((), ("pattern",)):                       # the fast attention of a bare run, and ours
        with stripped(lm, False, False): got = lm.run([IDS[0]], keep=kept).logits_tensor[0]
        assert torch.allclose(got, want, atol=1e-5)


# --- switches -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["gpt2", "gemma2", "gpt_oss", "bert"])
def test_everything_is_put_back(name):
    lm = load(build(name), check=False); before = lm.run(IDS).logits_tensor
    config, hooks = str(lm.config), sum(len(m._forward_pre_hooks) for m in lm.model.modules())
    with pytest.raises(ZeroDivisionError), stripped(lm, False, False): 1 / 0
    assert torch.equal(lm.run(IDS).logits_tensor, before) and str(lm.config) == config
    assert sum(len(m._forward_pre_hooks) for m in lm.model.modules()) == hooks and not lm.standing_edits


def test_padding_stays_hidden_without_a_mask():
    lm = load(build("llama"), check=False)
    with without_mask(lm):
        together, alone = lm.run([IDS[0], IDS[1][:6]]), lm.run([IDS[1][:6]])
    assert torch.allclose(together.last_logits[1], alone.last_logits[0], atol=1e-4)


def test_models_it_cannot_strip():
    with pytest.raises(AttentionError, match="one stack"): permutation_test(load(build("t5"), check=False), IDS)
    with pytest.raises(AttentionError, match="neither learned nor rotary"), without_positions(load(build("t5"), check=False)): pass
    with pytest.raises(AttentionError, match="residual connections"): without_residuals(load(build("bert"), check=False))
    with pytest.raises(AttentionError, match="nothing to shuffle"): shuffles([3, 3, 3, 5], 2)


def test_shuffles_are_seeded_and_real():
    a, b = shuffles(IDS[0], 20, seed=1), shuffles(IDS[0], 20, seed=1)
    assert torch.equal(a, b) and (a[:, -1] == IDS[0][-1]).all() and all(sorted(r) == sorted(IDS[0]) and r != IDS[0] for r in a.tolist())
    assert len(shuffles([1, 2, 9], 3)) == 3               # only one other order: it comes again


# --- position in the stream -----------------------------------------------------------------------------------------------
def test_ridge_against_normal_equations():
    g = torch.Generator().manual_seed(0); x = torch.randn(400, 5, generator=g); y = x @ torch.tensor([1., -2, 0, 0, .5]) + .1 * torch.randn(400, generator=g)
    train = torch.arange(400) < 200
    a, b = np.c_[x.numpy(), np.ones(400)].astype(float), y.double().numpy(); w, *_ = np.linalg.lstsq(a[:200], b[:200], rcond=None)
    want = 1 - ((b[200:] - a[200:] @ w) ** 2).sum() / ((b[200:] - b[200:].mean()) ** 2).sum()
    assert abs(held_out_r2(x, y, train, ridge=1e-9) - want) < 1e-6 and held_out_r2(torch.randn(400, 5, generator=g), y, train) < .05


def test_position_is_where_it_must_be():
    lm = wb.load("micro"); tracks = {k: position_information(lm, n=128, **v) for k, v in {
        "whole": {}, "mask only": dict(positions=False), "positions only": dict(mask=False), "neither": dict(positions=False, mask=False)}.items()}
    assert float(tracks["whole"].sel(state="embed")) > .8 and float(tracks["positions only"].sel(state="embed")) > .8
    assert float(tracks["mask only"].sel(state="embed")) < .05 and float(tracks["mask only"].sel(state="layer 0")) > .3
    assert float(tracks["neither"].max()) < .05 and max(float(t.control.max()) for t in tracks.values()) < .05
    assert {"model", "method", "n", "seed", "chance", "positions", "mask", "residual"} <= set(tracks["whole"].attrs)
    assert len(position_figure(tracks).data) == 4


def test_rotary_positions_are_not_in_the_embedding():
    x = position_information(wb.load("micro-llama"), n=128)
    assert float(x.sel(state="embed")) < .05 < float(x.max())


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox"])
def test_without_residuals_is_only_what_was_written(name):
    lm = load(build(name), check=False); run = lm.run(IDS, keep=["attn_out", "mlp_out", "resid_post", "resid_pre"], edits=without_residuals(lm))
    for l in range(lm.n_layers):
        wrote = run.tensor(f"mlp_out.{l}") + (run.tensor(f"attn_out.{l}") if lm.main.row.parallel else 0)
        assert torch.allclose(run.tensor(f"resid_post.{l}"), wrote, atol=1e-5)
    assert not torch.allclose(run.logits_tensor, lm.run(IDS).logits_tensor, atol=1e-2)


def test_an_untrained_model_gives_position_away_through_the_mask_alone():
    with torch.random.fork_rng(devices=[]):               # as initialised: attention is all but even, so what is gathered is a mean over k tokens
        torch.manual_seed(3); lm = load(GPT2LMHeadModel(GPT2Config(vocab_size=12, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=11, eos_token_id=11)).eval(), check=False)
    with_mask, without = (float(position_information(lm, n=128, length=12, positions=False, mask=m, residual=False).max()) for m in (True, False))
    assert with_mask > .3 and without < .05

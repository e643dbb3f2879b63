"""Norms held at a constant: the map itself, the swap in every family, the folder, folding, removal by training, and the shipped micro-noln."""
import json
from hashlib import sha256

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

import workbench as wb
from workbench import zoo
from workbench.lens import direct_logit_attribution
from workbench.lens.project import folded_unembed, project
from workbench.lm.edits import add, patch, scale
from workbench.lm.errors import WorkbenchError
from workbench.lm.layernorm import FixedNorm, NormError, fix_norms, fixed_scales, fold_norms, mean_scales, norms, read_norm, save_fixed, true_scales
from workbench.lm.load import load
from workbench.lm.sites import Site
from workbench.lm.specimens import CAUSAL, MASKED, SEQ2SEQ, build
from workbench.tasks import corpus, make
from workbench.zoo.removal import Removal, held_out, remove_layernorm, removal_order, row_losses, unevenness, validation_loss
from workbench.zoo.retrain import recipe
from workbench.zoo.train import batches

torch.set_num_threads(1)
IDS = [[5, 9, 23, 4, 41, 7], [3, 11, 2]]


def far(a, b): return float((a - b).detach().abs().max())


# --- one norm ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make_norm", [nn.LayerNorm, nn.RMSNorm, lambda d: nn.LayerNorm(d, elementwise_affine=False), lambda d: nn.LayerNorm(d, bias=False)])
def test_a_held_norm_is_its_formula(make_norm):
    torch.manual_seed(0); norm = make_norm(6)
    for p in norm.parameters(): nn.init.normal_(p)
    held, x, centred = FixedNorm(norm, 6, 1.7), torch.randn(3, 6), isinstance(norm, nn.LayerNorm)
    w, b = (p.tolist() if p is not None else [d] * 6 for p, d in ((norm.weight, 1.), (getattr(norm, "bias", None), 0.)))
    for row, got in zip(x.tolist(), held(x).tolist()):
        m = sum(row) / 6 if centred else 0
        assert np.allclose(got, [w[i] * (row[i] - m) / 1.7 + b[i] for i in range(6)], atol=1e-6)
    reading = read_norm(held, 6)
    assert float((reading(x) - held(x)).detach().abs().max()) < 1e-6 and reading.fixed is not None and bool((reading.scale(x) == torch.tensor(1.7)).all())


def test_it_shares_its_parameters_and_is_linear_where_the_norm_is_not():
    norm = nn.LayerNorm(8); held, a, b = FixedNorm(norm, 8, 2.), torch.randn(5, 8), torch.randn(5, 8)
    assert held.weight is norm.weight and held.bias is norm.bias and set(held.state_dict()) == set(norm.state_dict())
    off = lambda n: float((n(a + b) - n(a) - n(b)).detach().abs().max())
    assert off(held) < 1e-5 and off(norm) > .1


def test_what_is_no_norm_is_refused():
    for module in (nn.Linear(8, 8), nn.Tanh()):
        with pytest.raises(NormError, match="neither a LayerNorm nor an RMSNorm"): read_norm(module, 8)
    for bad in (0., -1., float("nan")):
        with pytest.raises(NormError, match="zero, negative or NaN"): FixedNorm(nn.LayerNorm(8), 8, bad)


# --- the swap, in every family ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", [*CAUSAL, *MASKED])
def test_held_at_the_true_scale_nothing_changes(family):
    lm = load(build(family)); before = lm.run(IDS).logits_tensor; mask = lm.tokens(IDS).mask.bool()
    true = true_scales(lm, IDS)
    assert all(t[mask].isfinite().all() and t[~mask].isnan().all() for t in true.values())
    fix_norms(lm, {p: t.nan_to_num(1.) for p, t in true.items()})
    assert len(fixed_scales(lm)) == len(norms(lm)) and far(lm.run(IDS).logits_tensor[mask], before[mask]) < 1e-4
    fix_norms(lm, {p: 1.5 * t.nanmean() for p, t in true.items()})
    assert far(lm.run(IDS).logits_tensor[mask], before[mask]) > .01 and lm.check().ok           # a wrong constant shows


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_the_same_with_an_encoder(family):
    lm, targets = load(build(family)), [[4, 6, 8], [7]]; before = lm.run(IDS, targets=targets)
    real = before.targets.mask.bool()
    fix_norms(lm, {p: t.nan_to_num(1.) for p, t in true_scales(lm, IDS, targets).items()})
    assert far(lm.run(IDS, targets=targets).logits_tensor[real], before.logits_tensor[real]) < 1e-4


@pytest.mark.parametrize("name", ["micro", "micro-llama"])
def test_the_shipped_models_at_their_true_scales(name):
    lm, prompts = wb.load(name), make("ioi", n=4, seed=2).prompts
    before = lm.run(prompts).logits_tensor; real = lm.tokens(prompts).mask.bool()
    fix_norms(lm, {p: t.nan_to_num(1.) for p, t in true_scales(lm, prompts).items()})
    assert far(lm.run(prompts).logits_tensor[real], before[real]) < 1e-4


def test_scales_are_what_the_sites_say():
    lm = wb.load("micro"); run = lm.run(IDS, keep=["ln1_scale", "ln2_scale", "ln_final_scale"]); true = true_scales(lm, IDS)
    assert list(true) == [p for l in range(4) for p in (f"transformer.h.{l}.ln_1", f"transformer.h.{l}.ln_2")] + ["transformer.ln_f"]
    for l in range(4): assert np.allclose(run["ln2_scale"].sel(layer=l).values.squeeze(), true[f"transformer.h.{l}.ln_2"][..., 0].numpy(), rtol=1e-4, equal_nan=True)
    assert np.allclose(run["ln_final_scale"].values.squeeze(), true["transformer.ln_f"][..., 0].numpy(), rtol=1e-4, equal_nan=True)
    means = mean_scales(lm, IDS)
    assert abs(means["transformer.ln_f"] - float(run["ln_final_scale"].mean())) < 1e-4
    fix_norms(lm, means); again = lm.run(IDS, keep=["ln1_scale", "ln_final_scale"])
    assert np.allclose(again["ln_final_scale"].values[~np.isnan(again["ln_final_scale"].values)], means["transformer.ln_f"])


def test_an_edit_of_a_held_scale_is_a_norm_held_elsewhere():
    lm = fix_norms(wb.load("micro"), {p: 2. for p in norms(wb.load("micro"))})
    edited = lm.run(IDS, edits=[scale("ln2_scale.1", 1.5)]).logits_tensor
    fix_norms(lm, {"transformer.h.1.ln_2": 3.})
    assert far(edited, lm.run(IDS).logits_tensor) < 1e-3


def test_what_cannot_be_held():
    lm = wb.load("micro")
    with pytest.raises(NormError, match="no norm 'transformer.ln_g'.*transformer.ln_f"): fix_norms(lm, {"transformer.ln_g": 1.})
    assert not fixed_scales(lm)
    for l in lm.main.layers: l.ln1 = l.ln2 = None
    lm.main.norm = None
    for f in (norms, removal_order, lambda m: true_scales(m, IDS)):
        with pytest.raises(NormError, match="no norms on its residual stream"): f(lm)


# --- the folder -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2", "mistral"])
def test_a_saved_model_is_the_same_here_and_in_stock_transformers(family, tmp_path):
    lm = load(build(family)); fix_norms(lm, mean_scales(lm, IDS)); want = lm.run(IDS[:1]).logits_tensor
    again, plain = load(str(save_fixed(lm, tmp_path))), AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert far(again.run(IDS[:1]).logits_tensor, want) < 1e-4 and far(plain(torch.tensor(IDS[:1])).logits.detach(), want) < 1e-4
    assert {p: round(float(s), 4) for p, s in fixed_scales(again).items()} == {p: round(float(s), 4) for p, s in fixed_scales(lm).items()}
    assert set(plain.state_dict()) == set(build(family).state_dict())


def test_a_folder_in_the_published_form_is_recognised(tmp_path):
    "Published LayerNorm-free models state no scales: an epsilon of 1e12 is all there is to know them by."
    lm = load(build("gpt2")); fix_norms(lm, mean_scales(lm, IDS)); save_fixed(lm, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()); del config["fixed_norms"]; (tmp_path / "config.json").write_text(json.dumps(config))
    again = load(str(tmp_path))
    assert set(map(float, fixed_scales(again).values())) == {1.} and far(again.run(IDS).logits_tensor[0], lm.run(IDS).logits_tensor[0]) < 1e-4
    assert not fixed_scales(load(build("gpt2")))


def test_what_cannot_be_saved(tmp_path):
    half = wb.load("micro"); fix_norms(half, {"transformer.ln_f": 3.})
    with pytest.raises(NormError, match="all held at one scale each.*ln_1"): save_fixed(half, tmp_path / "a")
    lm = wb.load("micro"); fix_norms(lm, {p: t.nan_to_num(1.) for p, t in true_scales(lm, IDS).items()})
    with pytest.raises(NormError, match="all held at one scale each"): save_fixed(lm, tmp_path / "a")
    bert = load(build("bert")); fix_norms(bert, mean_scales(bert, IDS))
    with pytest.raises(NormError, match="a norm apart from the stream"): save_fixed(bert, tmp_path / "a")
    opt = load(build("opt")); fix_norms(opt, mean_scales(opt, IDS))
    with pytest.raises(NormError, match="states no epsilon"): save_fixed(opt, tmp_path / "a")
    assert not (tmp_path / "a").exists()


# --- folding ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2", "phi3", "opt", "qwen2"])
def test_folding_changes_no_logit(family):
    lm = load(build(family).double(), check=False); fix_norms(lm, mean_scales(lm, IDS)); before = lm.run(IDS).logits_tensor
    gains = [m.gain.detach().clone() for m in norms(lm).values()]
    if family == "gemma2":                                                                      # its sublayers end in a norm that only the stream reads
        with pytest.raises(NormError, match="Nothing linear reads"): fold_norms(lm)
        return
    fold_norms(lm)
    assert any(float((g - 1).abs().max()) > .05 for g in gains) and all(m.weight is None and float(m.scale) == 1 for m in norms(lm).values())
    assert far(lm.run(IDS).logits_tensor[0], before[0]) < 1e-5 and lm.check().ok


def test_folded_weights_read_the_stream_itself():
    lm = wb.load("micro-noln"); run = lm.run(IDS[:1], keep=["q", "resid_pre", "resid_post"]); before = run.logits_tensor
    tied = lm.unembed.weight is lm.main.embed.weight
    fold_norms(lm)
    assert tied and lm.unembed.weight is not lm.main.embed.weight and far(lm.run(IDS[:1]).logits_tensor, before) < 1e-5 * float(before.abs().max())
    for l in (0, 3):
        q = torch.einsum("bpd,hde->bphe", run.tensor(Site("resid_pre", layer=l)), lm.weight("Q", l)) + lm.bias("Q", l)
        assert far(q, run.tensor(Site("q", layer=l))) < 1e-4
    assert far(run.tensor(Site("resid_post", layer=3)) @ lm.unembed.weight.T + lm.unembed.bias, before) < 1e-4


def test_what_cannot_be_folded():
    with pytest.raises(NormError, match="still divides by what it sees"): fold_norms(wb.load("micro"))
    bert = load(build("bert")); fix_norms(bert, mean_scales(bert, IDS))
    with pytest.raises(NormError, match="stand on the stream itself"): fold_norms(bert)


# --- removal by training ------------------------------------------------------------------------------------------------------
def stream(size=4): return batches(corpus.rows(0), zoo_tokenizer().get_vocab(), size=size)
def zoo_tokenizer(): return wb.load("micro", check=False).tokenizer


def test_norms_go_one_by_one_in_order_and_the_optimizer_keeps_their_parameters():
    lm = wb.load("micro"); order = removal_order(lm); params = dict(lm.model.named_parameters())
    assert order == [f"transformer.h.{l}.{n}" for n in ("ln_2", "ln_1") for l in range(4)] + ["transformer.ln_f"]
    removal, text = Removal(lm.model, first=1, gap=2), stream(2); gone = []
    for step in range(20):
        removal(lm.model, *next(text)); gone.append([p for p in order if isinstance(lm.model.get_submodule(p), FixedNorm)])
    assert [len(g) for g in gone] == [min(9, (s + 1) // 2) for s in range(20)] and all(g == order[:len(g)] for g in gone)
    assert all(p is params[n] for n, p in lm.model.named_parameters())


def test_the_auxiliary_loss_evens_the_states():
    x = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0)) * torch.linspace(.3, 4, 12)[:, None]
    s = x.double().sub(x.double().mean(-1, keepdim=True)).pow(2).mean(-1).sqrt().flatten()
    assert abs(float(unevenness(x)) - sum((float(v) / float(s.mean()) - 1) ** 2 for v in s) / 24) < 1e-4
    x.requires_grad_(); opt = torch.optim.SGD([x], 20.); first = float(unevenness(x).detach())
    for _ in range(50): opt.zero_grad(); unevenness(x).backward(); opt.step()
    assert float(unevenness(x).detach()) < .1 * first


def test_a_short_removal_beats_the_blunt_swap_and_leaves_micro_alone():
    before = sha256((zoo.folder("micro") / "model.safetensors").read_bytes()).hexdigest()
    text = held_out(zoo_tokenizer(), 1); blunt = wb.load("micro")
    fix_norms(blunt, mean_scales(blunt, text[0][0].tolist()))
    lm = remove_layernorm(wb.load("micro"), stream(4), steps=24, first=1, gap=2, warm=3)
    assert lm.check().ok and len(fixed_scales(lm)) == 9 and lm.final_norm is lm.model.transformer.ln_f
    assert validation_loss(lm.model, text)["all words"] < validation_loss(blunt.model, text)["all words"] - .15
    assert sha256((zoo.folder("micro") / "model.safetensors").read_bytes()).hexdigest() == before
    with pytest.raises(WorkbenchError, match="take 29 steps and only 20"): remove_layernorm(wb.load("micro"), stream(2), steps=20, first=2, gap=3)


# --- micro-noln -----------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def pair(): return wb.load("micro"), wb.load("micro-noln")


def test_every_norm_is_gone_and_the_loss_rose_by_less_than_a_tenth_of_a_nat(pair):
    micro, noln = pair
    text, measured = held_out(micro.tokenizer, 2, seed=2_000_003), zoo.card("micro-noln")["measured"]       # other rows than the card's
    was, now = row_losses(micro.model, text), row_losses(noln.model, text)
    assert len(fixed_scales(noln)) == 9 == len(norms(noln)) and noln.check().ok
    assert all((now[k] - was[k]).mean() < .1 for k in was) and all(r[2] < .1 for r in measured["rise_with_interval"].values())
    assert measured["loss_of_the_swap_alone"]["all words"] > measured["loss_of_micro"]["all words"] + .3     # the control: training did it
    assert abs(np.mean(now["all words"]) - measured["loss"]["all words"]) < .1


def test_the_card_measures_these_weights(pair):
    card = zoo.card("micro-noln")["measured"]; again = validation_loss(pair[1].model, held_out(pair[1].tokenizer))
    assert all(abs(again[k] - card["loss"][k]) < .005 for k in again)
    assert card["scales"] == {p: round(s, 4) for p, s in json.loads((zoo.folder("micro-noln") / "config.json").read_text())["fixed_norms"].items()}


def test_tasks_are_as_good_as_before():
    before, after = ({r["task"]: r for r in zoo.card(n)["accuracies"]} for n in ("micro", "micro-noln"))
    for task, row in after.items():
        if row["at_least"] is not None: assert row["accuracy"] >= before[task]["accuracy"] - .03, task


@pytest.mark.parametrize("by", ["layer", "head", "neuron"])
def test_attributions_sum_to_the_logits(pair, by):
    task = make("ioi", n=40, seed=9).for_model(pair[1]); out = direct_logit_attribution(pair[1], task.prompts, [int(i) for i in task.answer_ids], by=by)
    logits = pair[1].run(task.prompts).last_logits.gather(1, task.answer_ids[:, None])[:, 0]
    assert float(np.abs(out.sum("component").values - logits.numpy()).max()) < 1e-4 and "nothing is frozen" in out.attrs["norm"]


def direct_effects(lm, task):
    "(attribution, loss of logit when the part is taken off the last state), (prompt, head) over all heads."
    ids = [int(i) for i in task.answer_ids]; dla = direct_logit_attribution(lm, task.prompts, ids, by="head")
    run = lm.run(task.prompts, keep=[Site("result", pos=-1)]); full = run.last_logits.gather(1, task.answer_ids[:, None])
    shares, lost = [], []
    for l in range(4):
        for h in range(8):
            off = add(Site("resid_post", layer=3, pos=-1), -run.tensor(Site("result", layer=l, pos=-1))[:, :, h])
            lost.append((full - lm.run(task.prompts, edits=[off]).last_logits.gather(1, task.answer_ids[:, None]))[:, 0])
            shares.append(torch.tensor(dla.values[:, (dla.kind == "head").values & (dla.layer == l).values & (dla["head"] == h).values][:, 0]))
    return torch.stack(shares, 1), torch.stack(lost, 1)


def test_without_norms_an_attribution_is_what_the_logit_loses(pair):
    task = make("ioi", n=12, seed=4)
    error = {}
    for lm in pair:
        share, lost = direct_effects(lm, task.for_model(lm)); error[lm.id] = float((share - lost).abs().max()), float((share - lost).abs().mean() / lost.abs().mean())
    assert error["micro-noln"][0] < 1e-4 and error["micro"][0] > .1 and error["micro"][1] > .05, error


def test_the_lens_needs_no_frozen_scale(pair):
    noln, prompts = pair[1], ["The capital of Norway is"]
    run = noln.run(prompts, keep=["resid_post"]); x = run.tensor(Site("resid_post", layer=1)); final = run.tensor(Site("resid_post", layer=3))
    assert far(project(noln, x), project(noln, x, norm="folded", final=final)) < 1e-4
    w, b = folded_unembed(noln); s = float(noln.final_norm.scale)
    assert far(final @ w.T / s + b, run.logits_tensor) < 1e-4
    micro = pair[0]; run = micro.run(prompts, keep=["resid_post"])
    assert far(project(micro, run.tensor(Site("resid_post", layer=1))), project(micro, run.tensor(Site("resid_post", layer=1)), norm="folded", final=run.tensor(Site("resid_post", layer=3)))) > .1


def test_it_generates_and_resumes(pair):
    assert recipe("micro-noln").origin == "micro"
    said = pair[1].generate("The capital of Norway is", max_new_tokens=3)
    assert "Oslo" in str(said)
    lm, prompts = pair[1], make("ioi", n=3, seed=1).prompts; run = lm.run(prompts, keep=["z"])
    assert far(lm.run(prompts, edits=[patch("z.1", run)]).logits_tensor, run.logits_tensor) < 1e-5

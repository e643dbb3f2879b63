"""Dictionaries of other libraries: opened with the numbers those libraries computed, refused where a number would be wrong, written back."""
import json, os, pickle, shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench.features.dictionary import AbsTopK, BatchTopK, Components, Gated, GroupMax, JumpReLU, Relu, Sae, TopK, fit_ica, fit_nmf, fit_pca, mean_difference, neurons, nonnegative_codes, random_dictionary
from workbench.features.errors import FeatureError
from workbench.features.formats import open_dictionary, save_dictionary, write_saelens
from workbench.lm.sites import Site

GOLD = Path(__file__).parent/"golden"/"features"; MADE = json.loads((GOLD/"versions.json").read_text())["made_by"]
INSIDE = {"gemma_scope": "layer_3", "openai": "resid_post_mlp.pt", "circuit_tracer": "layer_3.safetensors", "crosscoder": "1.pt"} | {n: "layers.3" for n in MADE if n.startswith("sparsify")}
OPENED = sorted(n for n in MADE if not n.startswith("refused"))
torch.set_num_threads(1)


def golden(name): p = GOLD/name; inside = p/INSIDE[name] if name in INSIDE else p; return inside, load_file((inside if inside.is_dir() else p)/"expected.safetensors")
def why(make):
    with pytest.raises(FeatureError) as e: make()
    text = str(e.value); assert text.count("\n") == 0 and text.endswith((".", "?")), text
    return text
def same(a, b): assert a.shape == b.shape; assert float((a - b).abs().max()) < 1e-6 * max(1., float(b.abs().max())), float((a - b).abs().max())
@pytest.fixture
def copy(tmp_path):
    def make(name): shutil.copytree(GOLD/name, tmp_path/name, dirs_exist_ok=True); return tmp_path/name/INSIDE.get(name, "")
    return make
def edit(path, **changes): c = json.loads(path.read_text()); c.update(changes); path.write_text(json.dumps({k: v for k, v in c.items() if v != "drop"}))
def retensor(path, change): t = load_file(path); change(t); save_file({k: v.contiguous() for k, v in t.items()}, path)


# --- the numbers of the libraries themselves ------------------------------------------------------------------------------
def test_every_format_has_golden_files():
    for prefix, least in dict(saelens=20, dl_=8, sparsify=6, gemma=1, openai=1, circuit=1, crosscoder=1, refused=3).items(): assert sum(n.startswith(prefix) for n in MADE) >= least, prefix
    assert sum(p.stat().st_size for p in GOLD.rglob("*") if p.is_file()) < 400_000

@pytest.mark.parametrize("name", OPENED)
def test_opened_with_the_numbers_of_the_library(name):
    path, want = golden(name); d = open_dictionary(path); x = want["x"]; f = d.encode(x)
    same(f, want["f"]); same(d(x), want["x_hat"])
    assert bool((want["f"] != 0).any()) and float(want["x_hat"].std()) > .1                              # a golden file that tests something
    same(d.encode(x, [5, 2]), want["f"][:, [5, 2]]); v, at = d.sparse_encode(x); same(torch.zeros_like(f).scatter(-1, at, v), want["f"])
    same(d.encode(x.half().double().half()), d.encode(x.half().float()))                                    # half precision in, single precision inside
    if d.stats(x) is None and d.W_skip is None: same((f @ d.directions + d.bias).reshape(want["x_hat"].shape), want["x_hat"])
    text = repr(d); assert "b_dec is" in text and "stored" in text or "joined" in text or "turned" in text

@pytest.mark.parametrize("name", [n for n in OPENED if n not in ("crosscoder",)])
def test_wrong_rules_would_be_seen(name):
    "The golden inputs tell the two bias rules apart: with the other rule, f is another."
    path, want = golden(name); d = open_dictionary(path)
    if d.d_in != d.d_out: return
    d.subtract_bias = not d.subtract_bias; assert float((d.encode(want["x"]) - want["f"]).abs().max()) > 1e-3

def test_square_encoder_is_read_by_class_not_by_shape():
    for name in ("saelens_square", "sparsify_square"):
        path, want = golden(name); d = open_dictionary(path); assert d.d_in == d.n_features
        d.W_enc.data = d.W_enc.data.T.contiguous(); assert float((d.encode(want["x"]) - want["f"]).abs().max()) > 1e-2

def test_rows_of_length_one_as_dictionary_learning_loads_them():
    path, want = golden("dl_april"); d = open_dictionary(path); unit = d.unit_rows()
    assert float((d.lengths - 1).abs().max()) > 1e-2; same(unit.encode(want["x"]), load_file(path/"expected_unit_rows.safetensors")["f"]); same(unit(want["x"]), want["x_hat"])
    why(lambda: open_dictionary(golden("saelens_topk")[0]).unit_rows())

def test_what_the_file_says_is_kept():
    d = open_dictionary(golden("saelens_standard")[0]); assert d.site == Site("resid_post", layer=3) and d.meta["model"] == "gpt2-small"
    assert open_dictionary(golden("dl_topk")[0]).site == Site("resid_post", layer=3) and open_dictionary(golden("sparsify_topk")[0]).site == Site("resid_post", layer=3)
    assert open_dictionary(golden("saelens_training_matryoshka")[0]).meta["widths"] == [8, 24] and open_dictionary(golden("dl_matryoshka")[0]).meta["widths"] == [6, 24]
    assert open_dictionary(golden("saelens_old_topk")[0]).activation.name == "topk"                          # once read as ReLU by its own library


# --- refusals: one sentence each -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [n for n in MADE if n.startswith("refused")])
def test_a_threshold_that_was_never_set_is_refused(name): assert "threshold was never set" in why(lambda: open_dictionary(GOLD/name))

@pytest.mark.parametrize("name,file", [("saelens_standard", "sae_weights.safetensors"), ("saelens_standard", "cfg.json"), ("dl_topk", "ae.pt"), ("dl_topk", "config.json"), ("sparsify_topk", "sae.safetensors"), ("gemma_scope", "params.npz"), ("openai", ""), ("crosscoder", ""), ("circuit_tracer", "")])
@pytest.mark.parametrize("share", [0., .3, .98])
def test_files_that_are_cut_off(copy, name, file, share):
    path = copy(name); whole = path/file if file else path; b = whole.read_bytes(); whole.write_bytes(b[:int(len(b) * share)])
    assert any(w in why(lambda: open_dictionary(path)) for w in ("cut off", "whole JSON"))

def test_config_and_tensors_that_disagree(copy):
    p = copy("saelens_topk"); edit(p/"cfg.json", d_sae=32); assert "d_sae=32" in why(lambda: open_dictionary(p))
    p = copy("saelens_standard"); edit(p/"cfg.json", architecture="gated"); assert "r_mag" in why(lambda: open_dictionary(p))
    p = copy("saelens_gated"); edit(p/"cfg.json", architecture="standard"); why(lambda: open_dictionary(p))
    p = copy("saelens_jumprelu"); edit(p/"cfg.json", architecture="standard"); assert "threshold" in why(lambda: open_dictionary(p))
    p = copy("saelens_jumprelu"); retensor(p/"sae_weights.safetensors", lambda t: t.pop("threshold")); assert "never set" in why(lambda: open_dictionary(p))
    p = copy("saelens_bare"); retensor(p/"sae_weights.safetensors", lambda t: t.update(W_enc=t["W_enc"].T)); why(lambda: open_dictionary(p))
    p = copy("saelens_topk"); edit(p/"cfg.json", k=99); assert "k=99" in why(lambda: open_dictionary(p))
    p = copy("saelens_topk"); edit(p/"cfg.json", k="drop"); assert "no k" in why(lambda: open_dictionary(p))
    p = copy("saelens_standard"); edit(p/"cfg.json", architecture="temporal"); assert "temporal" in why(lambda: open_dictionary(p))
    p = copy("saelens_standard"); edit(p/"cfg.json", normalize_activations="covariance_whitening"); assert "folded" in why(lambda: open_dictionary(p))
    p = copy("saelens_standard"); retensor(p/"sae_weights.safetensors", lambda t: t["W_dec"].fill_(float("nan"))); assert "not finite" in why(lambda: open_dictionary(p))
    p = copy("saelens_old_standard"); retensor(p/"sae_weights.safetensors", lambda t: t["scaling_factor"].fill_(2.)); assert "scaling_factor" in why(lambda: open_dictionary(p))
    p = copy("saelens_old_topk"); edit(p/"cfg.json", activation_fn_kwargs={}); assert "no k" in why(lambda: open_dictionary(p))
    p = copy("sparsify_topk"); edit(p/"cfg.json", num_latents=32); assert "num_latents=32" in why(lambda: open_dictionary(p))
    p = copy("sparsify_skip"); edit(p/"cfg.json", skip_connection=False); assert "W_skip" in why(lambda: open_dictionary(p))
    p = copy("sparsify_topk"); edit(p/"cfg.json", k=None); why(lambda: open_dictionary(p))

def test_dictionary_learning_classes_that_disagree(copy):
    p = copy("dl_topk"); c = json.loads((p/"config.json").read_text())
    for change, word in ((dict(dict_class="AutoEncoder"), "bias"), (dict(dict_class="Unknown"), "Unknown"), (dict(dict_size=99), "dict_size=99"), (dict(k=3), "k=3")):
        (p/"config.json").write_text(json.dumps({"trainer": c["trainer"] | change})); assert word in why(lambda: open_dictionary(p))
    (p/"config.json").unlink(); assert "config" in why(lambda: open_dictionary(p))
    p = copy("dl_batchtopk"); t = torch.load(p/"ae.pt", weights_only=True); del t["threshold"]; torch.save(t, p/"ae.pt"); assert "threshold" in why(lambda: open_dictionary(p))

def test_a_scaled_checkpoint_needs_its_factor(copy):
    p = copy("saelens_training_scaled"); (p/"activation_scaler.json").unlink(); assert "activation_scaler.json" in why(lambda: open_dictionary(p))

@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_is_unpickled(copy, tmp_path):
    class Harm:
        def __reduce__(self): return os.system, (f"touch {tmp_path}/ran",)
    p = copy("dl_topk"); torch.save({"encoder.weight": Harm()}, p/"ae.pt"); assert "could run any code" in why(lambda: open_dictionary(p))
    (p/"ae.pt").write_bytes(pickle.dumps({"encoder.weight": Harm()})); why(lambda: open_dictionary(p))
    z = copy("gemma_scope"); np.savez(z/"params.npz", W_enc=np.array([Harm()], dtype=object)); assert "could run any code" in why(lambda: open_dictionary(z)); assert not (tmp_path/"ran").exists()

def test_places_without_a_dictionary(tmp_path, copy, monkeypatch):
    assert "nothing at" in why(lambda: open_dictionary(tmp_path/"none")); assert "no dictionary is here" in why(lambda: open_dictionary(tmp_path))
    copy("saelens_topk"), copy("dl_topk"); assert "2 dictionaries" in why(lambda: open_dictionary(tmp_path))
    p = copy("dl_topk"); (p/"checkpoints").mkdir(); shutil.move(p/"ae.pt", p/"checkpoints"/"ae_20.pt"); same(open_dictionary(p/"checkpoints"/"ae_20.pt")(golden("dl_topk")[1]["x"]), golden("dl_topk")[1]["x_hat"])
    square = tmp_path/"s.safetensors"; save_file(dict(W_enc=torch.ones(8, 8), W_dec=torch.ones(8, 8), b_enc=torch.ones(8), b_dec=torch.ones(8)), square); assert "which way round" in why(lambda: open_dictionary(square))

def test_the_hub_is_asked_for_one_folder_only(tmp_path, monkeypatch):
    import huggingface_hub
    asked = []
    class Api:
        def list_repo_files(self, repo, revision=None): return ["README.md", "a/cfg.json", "a/sae_weights.safetensors", "b/ae.pt", "b/config.json"]
    def fetch(repo, revision=None, allow_patterns=None, local_files_only=False): asked.append(allow_patterns); shutil.copytree(GOLD/"saelens_topk", tmp_path/"a", dirs_exist_ok=True); return str(tmp_path)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api); monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    same(open_dictionary("owner/name/a")(golden("saelens_topk")[1]["x"]), golden("saelens_topk")[1]["x_hat"]); assert asked == [["a/cfg.json", "a/sae_weights.safetensors"]]
    assert "add one of their folders" in why(lambda: open_dictionary("owner/name"))
    class Off:
        def list_repo_files(self, repo, revision=None): raise ConnectionError
    def gone(*a, **k): raise FileNotFoundError
    monkeypatch.setattr(huggingface_hub, "HfApi", Off); monkeypatch.setattr(huggingface_hub, "snapshot_download", gone); assert "the network" in why(lambda: open_dictionary("owner/name/a"))


# --- written back -----------------------------------------------------------------------------------------------------------
NO_CLASS = ("sparsify_groupmax", "sparsify_transcoder", "sparsify_skip_transcoder", "sparsify_skip", "crosscoder")

@pytest.mark.parametrize("name", OPENED)
def test_saved_and_opened_again(name, tmp_path):
    path, want = golden(name); d = open_dictionary(path); back = open_dictionary(save_dictionary(d, tmp_path/"d"))
    f = d.unit_rows().encode(want["x"]) if d.activation.name == "batchtopk" and d.activation.rescale else want["f"]
    same(back.encode(want["x"]), f); same(back(want["x"]), want["x_hat"]); assert back.site == d.site
    if name in NO_CLASS: assert "SAELens has no class" in why(lambda: write_saelens(d, tmp_path/"e")) and not (tmp_path/"e").exists()
    else: assert (tmp_path/"d"/"sae_weights.safetensors").exists()

def test_keys_that_we_do_not_know_are_written_back(copy, tmp_path):
    p = copy("saelens_topk"); c = json.loads((p/"cfg.json").read_text()); edit(p/"cfg.json", future_key={"a": [1]}, metadata=c["metadata"] | {"neuronpedia_id": "x/1"})
    c = json.loads((write_saelens(open_dictionary(p), tmp_path/"w")/"cfg.json").read_text())
    assert c["future_key"] == {"a": [1]} and c["metadata"]["neuronpedia_id"] == "x/1" and c["metadata"]["sae_lens_version"].startswith("6.")

def test_an_unset_threshold_is_not_saved(tmp_path):
    s = random_dictionary(8, 24, k=4); s.activation = BatchTopK(4); assert "no threshold" in why(lambda: save_dictionary(s, tmp_path/"n")) and not (tmp_path/"n").exists()

@pytest.mark.parametrize("kind", ["pca", "ica", "nmf", "mean difference", "random", "neurons"])
def test_linear_dictionaries_go_to_disk_and_back(kind, tmp_path):
    x = torch.rand(300, 6, generator=torch.Generator().manual_seed(0)) ** 3
    c = {"pca": lambda: fit_pca(x, 3), "ica": lambda: fit_ica(x, 3), "nmf": lambda: fit_nmf(x, 3), "mean difference": lambda: mean_difference(x[:100], x[100:] + 1), "random": lambda: random_dictionary(6, 9), "neurons": lambda: neurons(6)}[kind]()
    back = open_dictionary(save_dictionary(c, tmp_path/"c")); same(back.encode(x), c.encode(x)); same(back(x), c(x)); assert back.kind == kind


# --- the interface: against slow, independent forms -----------------------------------------------------------------------------
def slow(s, x):
    "One row and one feature at a time, in plain numbers."
    out = []
    for row in x.double():
        if s.subtract_bias: row = row - s.b_dec.double()
        p = [float(row @ s.W_enc[:, j].double() + s.b_enc[j].double()) * (float(s.W_dec[j].double().norm()) if s.activation.rescale else 1) for j in range(s.n_features)]; a, n = s.activation, len(p)
        order = sorted(range(n), key=lambda j: -(abs(p[j]) if a.name == "abstopk" else p[j])); size = n // a.k if a.name == "groupmax" else 1
        fires = {"relu": lambda j: p[j] > 0, "topk": lambda j: j in order[:a.k] and p[j] > 0, "abstopk": lambda j: j in order[:a.k], "groupmax": lambda j: p[j] > 0 and p[j] == max(p[j // size * size:(j // size + 1) * size]),
            "jumprelu": lambda j: p[j] > max(0, float(a.threshold[j])), "batchtopk": lambda j: p[j] > float(a.threshold), "gated": lambda j: p[j] + float(a.b_gate[j]) > 0}[a.name]
        size_of = (lambda j: max(0., p[j] * float(a.r_mag[j].exp()) + float(a.b_mag[j]))) if a.name == "gated" else lambda j: p[j]
        out.append([size_of(j) if fires(j) else 0. for j in range(n)])
    return torch.tensor(out)

@pytest.mark.parametrize("kind", ["relu", "topk", "rescaled", "abstopk", "groupmax", "jumprelu", "batchtopk", "gated"])
def test_activations_against_a_slow_form(kind):
    g = torch.Generator().manual_seed(3); r = lambda *s: torch.randn(*s, generator=g); m = 12
    a = dict(relu=Relu, topk=lambda: TopK(3), rescaled=lambda: TopK(3, True), abstopk=lambda: AbsTopK(3), groupmax=lambda: GroupMax(3), jumprelu=lambda: JumpReLU(r(m)), batchtopk=lambda: BatchTopK(2.5, .6, True), gated=lambda: Gated(r(m) / 3, r(m), r(m)))[kind]()
    s = Sae(r(5, m), r(m), r(m, 5), r(5), a); x = r(7, 5); f = s.encode(x); same(f, slow(s, x).float()); same(s.encode(x.reshape(7, 1, 5))[:, 0], f)
    if not a.competes: sub = s.subset([4, 1]); same(sub.encode(x), f[:, [4, 1]]); same(sub.directions, s.directions[[4, 1]])
    v, at = s.sparse_encode(x); assert bool((v.abs().diff(dim=-1) <= 1e-7).all()) and (s.l0_bound is None or v.shape[-1] == s.l0_bound)
    same(s.error(x), x - s(x))

def test_nonnegative_codes_are_the_best_ones():
    from scipy.optimize import nnls
    g = torch.Generator().manual_seed(0); rows, x = torch.randn(5, 9, generator=g).double(), torch.randn(12, 9, generator=g).double(); f = nonnegative_codes(x, rows, tol=1e-10)
    assert np.abs(f.numpy() - np.array([nnls(rows.T.numpy(), v.numpy())[0] for v in x])).max() < 1e-7
    why(lambda: Components(torch.zeros(3), torch.ones(1, 3), "nmf").encode(-torch.ones(1, 3)))

def test_patching_takes_any_dictionary():
    "A feature grid of the whole dictionary with k of all features moves the state by x_hat alone: the error term stays."
    from workbench.lm.edits import patch as put_value
    from workbench.lm.model import LanguageModel
    from workbench.lm.specimens import build
    from workbench.patching import Pairs, patch
    lm = LanguageModel(build("llama"), id="tiny"); d = random_dictionary(lm.d_model, 2 * lm.d_model, k=4)
    pairs = Pairs.of(lm, clean=[[5, 6, 7, 8], [9, 10, 11, 12]], corrupt=[[6, 6, 7, 8], [10, 10, 11, 12]], answers=[3, 4], foils=[1, 2])
    clean, corrupt = (lm.run(b, keep=[Site("resid_post", layer=0)]).tensor(Site("resid_post", layer=0)) for b in (pairs.clean, pairs.corrupt)); f = d.encode(clean) - d.encode(corrupt)
    j = int(f.abs().sum((0, 1)).argmax()); grid = patch(lm, pairs, sites=("resid_post",), by=("layer", "feature"), features=(d, [j]), layers=[0])
    new = corrupt + f[..., j:j + 1] * d.directions[j]
    run = lm.run(pairs.corrupt, edits=[put_value(Site("resid_post", layer=0), new)]).last_logits
    want = run.gather(-1, pairs.answer_ids[:, None]) - run.gather(-1, pairs.foil_ids[:, None])
    same(torch.as_tensor(grid.logit_difference.values).flatten().float(), want.flatten().float())

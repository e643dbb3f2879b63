"""Opening models: every way in, and every refusal in one sentence."""
import json, os, shutil, subprocess, sys

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from workbench.lm.edits import zero
from workbench.lm.errors import WorkbenchError
from workbench.lm.load import builtin_names, load
from workbench.lm.sites import Site
from workbench.lm.specimens import build
from workbench.lm.weights import WeightEdit

torch.set_num_threads(1)
TEXT = ["The capital of France is Paris .", "When Mary and John went to the store , John gave a drink to Mary", "Monday Tuesday Wednesday Thursday"] * 3


@pytest.fixture(scope="module")
def bpe():
    "A byte-level BPE tokenizer like GPT-2's: spaces belong to the token that follows."
    core = Tokenizer(models.BPE()); core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False); core.decoder = decoders.ByteLevel()
    core.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|endoftext|>"], show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>", bos_token="<|endoftext|>")


@pytest.fixture()
def folder(tmp_path, bpe):
    "A saved GPT-2 with its tokenizer, as a user's folder would be."
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(bpe), n_embd=32, n_layer=2, n_head=4, n_positions=48, bos_token_id=0, eos_token_id=0))
    model.save_pretrained(tmp_path / "mine"); bpe.save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


def test_a_folder_opens_with_its_tokenizer(folder):
    lm = load(str(folder)); run = lm.run("The capital of France is", keep="resid_post")
    assert lm.id == "mine" and lm.tokenizer is not None and lm.checked.ok and len(lm.revision) == 12
    assert run.tokens.strs[0][-1] == " is" and run["resid_post"].token.values[0][0] == "The"
    assert len(lm.top("The capital of France is", k=3)) == 3


def test_a_model_in_memory_is_wrapped_and_not_copied():
    model = build("gpt2"); lm = load(model)
    assert lm.model is model and lm.model.lm_head.weight.data_ptr() == model.lm_head.weight.data_ptr()


def test_answers_keep_their_leading_space_and_must_be_one_token(folder):
    lm = load(str(folder)); prompt = "The capital of France is"
    i = lm.answer_id("Paris", after=prompt)
    assert lm.tokenizer.convert_ids_to_tokens(i) == "ĠParis" and lm.answer_id(" Paris", after=prompt) == i
    with pytest.raises(WorkbenchError, match="tokens for mine .*compare its first token"): lm.answer_id("Constantinople", after=prompt)


def test_two_prompts_of_different_length_agree_with_each_alone(folder):
    lm = load(str(folder)); prompts = ["The capital of France is", "Monday"]
    for side in ("left", "right"):
        got = lm.run(lm.tokens(prompts, side=side)).last_logits
        for i, p in enumerate(prompts): assert (got[i] - lm.run(p).last_logits[0]).abs().max() < 1e-5


def test_chat_roles(folder):
    lm = load(str(folder)); chat = [dict(role="user", content="The capital of France is"), dict(role="assistant", content="Paris .")]
    with pytest.raises(WorkbenchError, match="no chat template"): lm.run(chat)
    lm.tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    turns = lm.turns(chat)
    assert "".join(turns.token[turns.role == "assistant"]) == " Paris ." and "".join(turns.token) == "user: The capital of France is\nassistant: Paris .\n"
    assert lm.run(chat).tokens.ids.shape[1] == len(turns)


# -- refusals -----------------------------------------------------------------------------------------------------------
def refusal(*args, **kwargs):
    with pytest.raises(WorkbenchError) as e: load(*args, **kwargs)
    text = str(e.value)
    assert "\n" not in text and e.value.__cause__ is None
    return text


def test_damaged_weights(folder):
    weights = folder / "model.safetensors"; whole = weights.read_bytes()
    weights.write_bytes(whole[:-4000]); assert "cut off or damaged" in refusal(str(folder))
    weights.write_bytes(b"\xff" * 64 + whole[64:]); assert "cut off or damaged" in refusal(str(folder))
    weights.write_bytes(b""); assert "cut off or damaged" in refusal(str(folder))


def test_missing_weights_are_never_random(folder):
    from safetensors.torch import load_file, save_file
    state = load_file(folder / "model.safetensors"); gone = next(k for k in state if "h.1.mlp.c_fc.weight" in k); del state[gone]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert "would be random" in refusal(str(folder))


def test_weights_of_another_size(folder):
    config = json.loads((folder / "config.json").read_text()); config["n_embd"] = 64
    (folder / "config.json").write_text(json.dumps(config))
    assert "do not fit its config.json" in refusal(str(folder))


def test_no_tokenizer(folder):
    for f in folder.glob("token*"): f.unlink()
    lm = load(str(folder))
    with pytest.raises(WorkbenchError, match="without a tokenizer"): lm.run("hello")
    assert lm.run([[1, 2, 3]]).last_logits.shape == (1, lm.d_vocab)


def test_places_that_are_not_models(tmp_path):
    assert "There is no folder" in refusal(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir(); assert "no config.json" in refusal(str(tmp_path / "empty"))
    (tmp_path / "w.safetensors").write_bytes(b""); assert "give the folder" in refusal(str(tmp_path / "w.safetensors"))
    assert "is not a Hugging Face model" in refusal(torch.nn.Linear(2, 2))


def test_hub_name_without_network_says_how_to_work_offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    text = refusal("some-org/some-model")
    assert "not a built-in model" in text and "folder written by save_pretrained" in text


def test_a_hub_model_that_was_fetched_before_opens_without_a_network(folder, tmp_path):
    "And at once: nothing is asked again and again. A process of its own, because libraries read where their cache is when they are imported."
    cache = tmp_path/"hub"/"hub"/"models--someone--small"; shutil.copytree(folder, cache/"snapshots"/"0123abcd"); (cache/"refs").mkdir(); (cache/"refs"/"main").write_text("0123abcd")
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | dict(HF_HOME=str(tmp_path/"hub"), HF_ENDPOINT="https://hub.invalid")
    done = subprocess.run([sys.executable, "-c", "import workbench as wb; print(wb.load('someone/small'))"], env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "someone/small" in done.stdout and "Retrying" not in done.stderr, done.stderr[-800:]


def test_a_device_that_is_not_there():
    if not torch.cuda.is_available(): assert "leave device out" in refusal(build("gpt2"), device="cuda")
    assert "is not a device" in refusal(build("gpt2"), device="gpu")


def test_remote_code_is_off_unless_named(folder):
    assert "does not name the model" in refusal(str(folder), trust_remote_code="someone/else")


@pytest.mark.skipif(not builtin_names(), reason="no built-in model in this tree")
def test_a_tampered_built_in_model_is_refused(tmp_path, monkeypatch):
    from workbench.lm import load as module
    name = builtin_names()[0]; copy = tmp_path / name; shutil.copytree(module.builtin_folder() / name, copy)
    monkeypatch.setattr(module, "builtin_folder", lambda: tmp_path)
    load(name)
    weights = copy / "model.safetensors"; raw = bytearray(weights.read_bytes()); raw[-5] ^= 1; weights.write_bytes(raw)
    assert "checksum differs" in refusal(name)


@pytest.mark.skipif(not builtin_names(), reason="no built-in model in this tree")
def test_a_misspelt_built_in_name_is_answered_with_the_nearest(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "Did you mean 'micro'" in refusal("micor")


# -- other homes for weights --------------------------------------------------------------------------------------------
def test_bfloat16_is_opened_and_exact_claims_are_refused():
    lm = load(build("llama").to(torch.bfloat16))
    assert lm.checked.ok, lm.checked
    assert lm.run([[5, 6, 7]], keep="pattern")["pattern"].attrs["dtype"] == "bfloat16"
    with pytest.raises(WorkbenchError, match="dtype=torch.float32"): lm.snapshot([[5, 6, 7]])


def test_device_map(tmp_path):
    "Weights spread by accelerate, part of them on disk: activations read and change as ever, weights that are not in memory are not edited."
    pytest.importorskip("accelerate")
    build("llama").save_pretrained(tmp_path / "spread")
    whole = load(build("llama"))
    spread = load(str(tmp_path / "spread"), device_map={"model.embed_tokens": "cpu", "lm_head": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu",
                                                         "model.layers.0": "cpu", "model.layers.1": "cpu", "model.layers.2": "cpu"})
    for edits in ([], [zero(Site("z", layer=1, head=2))]):
        a, b = (m.run([[5, 6, 7, 8]], keep=["resid_post", "pattern"], edits=edits) for m in (whole, spread))
        np.testing.assert_allclose(a["pattern"].values, b["pattern"].values, atol=1e-6)
        np.testing.assert_allclose(a.last_logits, b.last_logits, atol=1e-6)
    with spread.edited_weights(WeightEdit("O", lambda w: w * 0, layer=0)): pass
    snap = spread.snapshot([[5, 6, 7, 8]])
    np.testing.assert_allclose(spread.resume(snap.run.tensor("resid_pre.1"), 1)[0], snap.run.logits_tensor[0], atol=1e-5)


def test_an_unknown_family_is_inferred_and_says_so():
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2))
    model.config.model_type = "brand_new"
    lm = load(model)
    assert lm.inferred and lm.checked.ok and "inferred" in repr(lm.checked)

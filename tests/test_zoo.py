"""The shipped models: their cards say what their weights do, their recipes are what made them, and a failed training replaces nothing."""
import json
import math
from dataclasses import replace
from hashlib import sha256

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

import workbench as wb
from workbench import zoo
from workbench.lm.edits import zero
from workbench.lm.errors import WorkbenchError
from workbench.lm.sites import Site
from workbench.tasks import make
from workbench.zoo.cards import checksum, render
from workbench.zoo.induction import heads, repeats
from workbench.zoo.recipe import Bar, measure
from workbench.zoo.retrain import finish, main, recipe, shelve, start, watched
from workbench.zoo.shelf import ORDER, WRITTEN
from workbench.zoo.tokenizer import build_tokenizer
from workbench.zoo.train import MaskedLoss, batches, causal_loss, train

torch.set_num_threads(1)


@pytest.fixture(scope="module", params=ORDER)
def name(request): return request.param


# --- the folders ------------------------------------------------------------------------------------------------------
def test_all_are_on_the_shelf(): assert zoo.names() == ORDER + WRITTEN


def test_folders_are_plain_small_and_unchanged(name):
    place, card = zoo.folder(name), zoo.card(name)
    weights = (place / "model.safetensors").read_bytes()
    assert len(weights) <= 4 * 2**20 and sha256(weights).hexdigest() == card["sha256"]
    auto = AutoModelForMaskedLM if card["kind"] == "masked" else AutoModelForCausalLM
    model, info = auto.from_pretrained(place, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and model.dtype == torch.float32
    assert sum(p.numel() for p in model.parameters()) == card["model"]["parameters"]
    rec = recipe(name)
    assert AutoTokenizer.from_pretrained(place).get_vocab() == build_tokenizer(rec.words and rec.words()).get_vocab()
    assert (place / "README.md").read_text() == render(card)


def test_together_they_are_small():
    assert sum(f.stat().st_size for n in ORDER for f in zoo.folder(n).iterdir()) <= 24e6


# --- the cards --------------------------------------------------------------------------------------------------------
def test_accuracies_of_the_card_come_from_the_weights(name):
    lm, card, rec = wb.load(name), zoo.card(name), recipe(name)
    again = {r["task"]: r for r in measure(rec.bars, lm)}
    for row in card["accuracies"]:
        now = again[row["task"]]
        assert now["n"] == row["n"] and abs(now["accuracy"] - row["accuracy"]) * row["n"] <= 2.01, row["task"]  # another processor may round two close calls
        assert row["holds"] and (now["at_least"], now["below"]) == (row["at_least"], row["below"])


def test_the_same_architecture_untrained_clears_no_bar(name):
    rec, card = recipe(name), zoo.card(name)
    model, tok = start(rec)
    asked = [b for b in rec.bars if b.at_least is not None][:6]
    assert not any(r["holds"] for r in measure(asked, wb.load(model, tokenizer=tok, check=False), n=60))
    assert all(card["untrained"][b.label] < b.at_least for b in rec.bars if b.at_least is not None)


def test_the_card_is_of_this_recipe_and_this_text(name):
    rec, card = recipe(name), zoo.card(name)
    t = card["training"]
    assert (t["seed"], t["steps"], t["peak_learning_rate"]) == (rec.seed, rec.last, rec.peak) and t["cpu_minutes"] < 60
    assert checksum(rec.rows(rec.seed)) == card["text"]["first_rows_crc"]
    model, _ = start(rec)
    assert sum(p.numel() for p in model.parameters()) == card["model"]["parameters"]
    assert json.loads(json.dumps(rec.text)).items() <= card["text"].items() and card["weaknesses"] and card["curve"][-1]["step"] == rec.last


@pytest.mark.parametrize("name", ["micro", "micro-llama"])
def test_what_was_planted_shows(name):
    rows, text = {r["task"]: r for r in zoo.card(name)["accuracies"]}, zoo.card(name)["text"]
    strong = min(rows[f"laundry position={p}"]["low"] for p in ("first", "second", "fourth", "sixth"))
    weak = max(rows[f"laundry position={p}"]["high"] for p in ("third", "fifth"))
    assert strong > weak and text["laundry_places_asked"]["first"] > 50 * text["laundry_places_asked"]["third"] and text["laundry_places_asked"]["third"] > text["laundry_places_asked"]["fifth"]
    mentions = {t: sum(c.values()) for t, c in text["country_mentions"].items()}
    assert mentions["common"] > 3 * mentions["medium"] > 3 * mentions["rare"]


# --- plain Hugging Face agrees ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("task", ["ioi", "conflict"])
def test_accuracy_by_a_plain_loop(task):
    model, tok = AutoModelForCausalLM.from_pretrained(zoo.folder("micro")).eval(), AutoTokenizer.from_pretrained(zoo.folder("micro"))
    items = make(task, n=40, seed=3)
    with torch.no_grad(): said = [tok.convert_ids_to_tokens(int(model(**tok(i.prompt, return_tensors="pt")).logits[0, -1].argmax())) for i in items.items]
    plain = sum(s == i.answer for s, i in zip(said, items.items)) / 40
    assert plain >= .9 and plain == float(items.accuracy(wb.load("micro")).accuracy.sel(kind="all"))


# --- the induction model --------------------------------------------------------------------------------------------------
def test_two_heads_are_there_and_do_the_work():
    lm, card = wb.load("induction"), zoo.card("induction")
    found = heads(lm.model, lm.tokenizer)
    assert found["best"] == card["heads"]["best"] and found["best"]["previous_token"]["layer"] == 0 and found["best"]["induction"]["layer"] == 1
    task = make("induction", n=100, seed=5)
    whole = float(task.accuracy(lm).accuracy[0])
    for role in ("previous_token", "induction"):  # several heads may share a role: all that score above .3 are removed together
        layer = found["best"][role]["layer"]
        sharing = [h for h, score in enumerate(found["scores"][role][layer]) if score > .3]
        without = float(task.accuracy(lm, edits=[zero(Site("z", layer=layer, head=h)) for h in sharing]).accuracy[0])
        assert whole >= .95 and without < whole - .2, role


def test_head_scores_equal_a_loop():
    lm = wb.load("induction")
    ids, n = repeats(lm.tokenizer, n=4, length=16), 16
    scores = heads(lm.model, lm.tokenizer)["scores"]
    model = AutoModelForCausalLM.from_pretrained(zoo.folder("induction"), attn_implementation="eager").eval()
    with torch.no_grad(): patterns = model(repeats(lm.tokenizer), output_attentions=True).attentions
    for layer in range(2):
        for head in range(patterns[0].shape[1]):
            p = patterns[layer][:, head]
            induction = sum(float(p[:, q, q - n + 1].mean()) for q in range(n + 1, 2 * n + 1)) / n
            previous = sum(float(p[:, q, q - 1].mean()) for q in range(1, 2 * n + 1)) / (2 * n)
            assert abs(scores["induction"][layer][head] - induction) < 2e-3 and abs(scores["previous_token"][layer][head] - previous) < 2e-3
    assert (ids[:, 1:n + 1] == ids[:, n + 1:]).all()


# --- chat -----------------------------------------------------------------------------------------------------------------
def test_chat_template_marks_roles():
    lm = wb.load("micro")
    turns = [dict(role="user", content="What is the capital of Italy?"), dict(role="assistant", content="Rome."), dict(role="user", content="What comes after May?")]
    table = lm.turns(turns)
    assert set(table.role) >= {"user", "assistant"} and "<unk>" not in set(table.token)
    assert lm.top([lm.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True).removeprefix("<bos>")], k=1).token[0] == "June"


# --- training ---------------------------------------------------------------------------------------------------------------
def small(name="micro"): return replace(recipe(name), steps=4, stop=None, bars=[Bar("ioi", {}, .95), Bar("grammar", {}, .95)])


def test_training_is_decided_by_the_seed():
    def weights(seed):
        rec = replace(small(), seed=seed); model, tok = start(rec)
        watched(rec, model, tok, say=lambda s: None, n=5)
        return torch.cat([p.detach().flatten() for p in model.parameters()])
    a, b, c = weights(0), weights(0), weights(1)
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_a_model_that_misses_its_bars_replaces_nothing(tmp_path):
    rec = small(); model, tok = start(rec)
    before = sha256((zoo.folder("micro") / "model.safetensors").read_bytes()).hexdigest()
    curve = watched(rec, model, tok, say=lambda s: None, n=5)
    card = finish(rec, model, tok, curve, [dict(task=b.label, accuracy=0.) for b in rec.bars], tmp_path)
    with pytest.raises(WorkbenchError, match="misses its bars .*ioi"): shelve(rec, card, tmp_path)
    assert sha256((zoo.folder("micro") / "model.safetensors").read_bytes()).hexdigest() == before


def test_masked_training_hides_answers_and_learns():
    rec = replace(recipe("micro-bert"), steps=6); model, tok = start(rec)
    seen = []
    class Spy(torch.nn.Module):
        def forward(self, input_ids): seen.append(input_ids); return model(input_ids=input_ids)
    ids, weights = next(batches(rec.rows(0), tok.get_vocab()))
    loss, answers = MaskedLoss(tok.mask_token_id)(Spy(), ids, weights)
    hidden = seen[0] == tok.mask_token_id
    assert abs(hidden[weights == 1].float().mean() - .8) < .05 and abs(hidden[weights < 1].float().mean() - .15) < .02 and not hidden[:, 0].any()
    assert (seen[0] == ids)[~hidden].all() and abs(float(answers) - math.log(len(tok))) < .6 and loss > 0


def test_loss_falls():
    rec = replace(small(), steps=12); model, tok = start(rec)
    curve = []
    train(model, batches(rec.rows(0), tok.get_vocab()), 12, 3e-3, causal_loss, every=6, report=curve.append, warm=4)
    assert curve[1]["loss"] < curve[0]["loss"] < math.log(len(tok)) + .2 and curve[1]["tokens"] == 12 * 32 * 128


def test_unknown_names():
    with pytest.raises(WorkbenchError, match="'micro'"): zoo.folder("mikro")
    with pytest.raises(WorkbenchError, match="'micro-llama'"): recipe("micro-lama")
    assert main(["no-such-model"]) == 1

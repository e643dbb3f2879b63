"""The transformer written by hand: it solves its task, its folder is what the program writes, and its true edges are true, by cuts that do not use the engine."""
import json
import re
import warnings
from hashlib import sha256

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

import workbench as wb
from workbench import zoo
from workbench.lm.edits import patch as write
from workbench.lm.load import load
from workbench.lm.sites import Site
from workbench.patching.edges import EdgeRuns
from workbench.patching.graph import Graph
from workbench.patching.pairs import Pairs
from workbench.zoo.constructed import DIMS, GADGET_EDGES, LENGTH, MODES, NUMBERS, SPELLINGS, TRUE_EDGES, build, card_of, opened, readme, shelve, task

warnings.filterwarnings("ignore")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def lm(): return wb.load("constructed")


@pytest.fixture(scope="module")
def pairs(lm): return Pairs.of(lm, task(6, 3))


def right(pairs, logits): return float((logits.argmax(-1) == pairs.answer_ids).float().mean())


# --- the task -------------------------------------------------------------------------------------------------------------
def test_twins_differ_in_everything_and_answers_follow_from_the_words():
    items = task(300, 2).items; kinds = [i.truth["kind"] for i in items]
    assert len({i.prompt for i in items}) == 300 and 100 < kinds.count("same") < 200
    for i in items:
        a, b = i.prompt.split(), i.corrupt.split()
        for words, said in ((a, i.answer), (b, i.corrupt_answer)):
            n = SPELLINGS.index(words[words.index(words[1], 2) + 1]) % 10; assert said == NUMBERS[(n + MODES.index(words[0])) % 10]
        assert a[0] != b[0] and a[1] != b[1] and all(a[k] != b[k] for k in range(3, 11)) and i.answer != i.foil and sorted(a[3:11:2]) == sorted(b[3:11:2])
        assert i.prompt[slice(*i.spans["asked"])] == a[1] == i.prompt[slice(*i.spans["key"])] and i.prompt[slice(*i.spans["question"])] == "?"
        assert not {SPELLINGS.index(w) % 10 for w in a[4:12:2]} & {SPELLINGS.index(w) % 10 for w in b[4:12:2]}


def test_it_always_answers_right_also_in_plain_transformers(lm):
    judged = task(300, 11).accuracy(lm); assert (judged.accuracy == 1).all() and int(judged.n[0]) == 300
    model, tok = AutoModelForCausalLM.from_pretrained(zoo.folder("constructed")).eval(), AutoTokenizer.from_pretrained(zoo.folder("constructed")); items = task(20, 4).items
    with torch.no_grad(): said = [tok.convert_ids_to_tokens(int(model(**tok(i.prompt, return_tensors="pt")).logits[0, -1].argmax())) for i in items]
    assert said == [i.answer for i in items] and len(tok(items[0].prompt)["input_ids"]) == LENGTH
    torch.manual_seed(0); raw = load(GPT2LMHeadModel(model.config).eval(), tokenizer=lm.tokenizer, check=False)
    assert float(task(100, 5).accuracy(raw).accuracy[0]) < .3


# --- the folder -------------------------------------------------------------------------------------------------------------
def test_the_folder_is_what_the_program_writes(lm, tmp_path):
    place, card = zoo.folder("constructed"), zoo.card("constructed"); weights = (place / "model.safetensors").read_bytes()
    assert len(weights) < 2**20 and sha256(weights).hexdigest() == card["sha256"] and (place / "README.md").read_text() == readme(card)
    again = shelve(tmp_path / "constructed"); assert (again / "model.safetensors").read_bytes() == weights
    assert json.loads((again / "card.json").read_text()) == card == json.loads(json.dumps(card_of(lm))) | {"sha256": card["sha256"]}
    assert lm.checked.ok and all(torch.equal(a, b) for a, b in zip(lm.model.state_dict().values(), opened().model.state_dict().values()))


# --- the truth --------------------------------------------------------------------------------------------------------------
def cut(lm, run, delta, receiver):
    "Logits when one receiver alone reads the twin's value of one sender: plain edits, no masked run."
    prompts, last = run.tokens, Site("resid_post", layer=lm.n_layers - 1)
    if receiver == "logits": return lm.run(prompts, edits=write(last, run.tensor(last) + delta)).last_logits
    l = int(re.match(r"[am](\d+)", receiver)[1])
    if receiver[0] == "m":
        mid, out = Site("resid_mid", layer=l), Site("mlp_out", layer=l)
        return lm.run(prompts, edits=write(out, lm.run(prompts, keep=[out], edits=write(mid, run.tensor(mid) + delta)).tensor(out))).last_logits
    slot, head, pre = receiver[-2], int(re.search(r"\.h(\d+)", receiver)[1]), Site("resid_pre", layer=l)
    seen = lm.run(prompts, keep=[Site(slot, layer=l)], edits=write(pre, run.tensor(pre) + delta)).tensor(Site(slot, layer=l))
    return lm.run(prompts, edits=write(Site(slot, layer=l, head=head), seen[:, :, head:head + 1])).last_logits


def written(run, sender):
    if sender == "embed": return run.tensor("resid_pre.0")
    l = int(sender[1])
    return run.tensor(f"mlp_out.{l}") if sender[0] == "m" else run.tensor(f"result.{l}")[:, :, int(sender[4:])]


def test_each_edge_by_plain_edits(lm, pairs):
    keep = ["resid_pre", "resid_mid", "mlp_out", "result", Site("resid_post", layer=2)]; clean, twin = (lm.run(b, keep=keep) for b in (pairs.clean, pairs.corrupt)); graph = Graph.of(lm)
    true = 0
    for sender, receiver in graph.edges:
        z = cut(lm, clean, written(twin, sender) - written(clean, sender), receiver)
        if f"{sender}->{receiver}" in TRUE_EDGES: assert right(pairs, z) == 0, (sender, receiver); true += 1
        else: assert float((z - clean.last_logits).abs().max()) < 1e-4, (sender, receiver)
    assert true == len(TRUE_EDGES) == 11 and right(pairs, clean.last_logits) == 1


def test_other_edges_are_idle_together_too(lm, pairs):
    runs = EdgeRuns(lm, pairs); graph = runs.graph; true = graph.mask(TRUE_EDGES); g = torch.Generator().manual_seed(0)
    assert float((runs.logits(true) - runs.base).abs().max()) < 1e-4 and bool((graph.prune(true) == true).all())
    some = true | (graph.allowed & (torch.rand(8, *true.shape, generator=g) < .5))
    assert float((runs.logits(some) - runs.base).abs().max()) < 1e-4
    without = torch.stack([graph.allowed & ~graph.mask([e]) for e in TRUE_EDGES]); assert all(right(pairs, z) == 0 for z in runs.logits(without))
    assert float((runs.logits(graph.allowed & ~true) - runs.other).abs().max()) > 1 or right(pairs, runs.other) == 0


def test_the_circuit_has_the_compositions_it_claims_and_decoys_look_busy(lm, pairs):
    head_to_head = {e[-2] for e in TRUE_EDGES if re.fullmatch(r"a\d\.h\d->a\d\.h\d<[qkv]>", e)}; assert head_to_head == {"q", "k", "v"}
    assert {re.match(r".*->[am](\d)", e)[1] for e in TRUE_EDGES if "logits" not in e} == {"0", "1", "2"}
    run = lm.run(pairs.clean, keep=["result", "pattern", "resid_post"]); loud = [run.tensor("result.0")[:, :, 2], run.tensor("result.2")[:, :, 1]]; quiet = [run.tensor("result.1")[:, :, 0], run.tensor("result.2")[:, :, 0]]
    assert min(x.norm(dim=-1).mean() for x in loud) > 5 * max(x.norm(dim=-1).mean() for x in quiet)
    assert torch.equal(run.tensor("pattern.1")[:, 0], run.tensor("pattern.1")[:, 3])                                   # the lookup head has a double
    assert all(float(run.tensor(f"resid_post.{l}").mean(-1).abs().max()) < 1e-5 for l in range(3)) and len(DIMS["balance"]) == 1
    zeroed = EdgeRuns(lm, pairs, "zero"); graph = zeroed.graph
    moved = (zeroed.logits(torch.stack([graph.allowed & ~graph.mask([e]) for e in GADGET_EDGES])) - zeroed.base).abs().amax((1, 2)); assert (moved > .1).all()      # idle under interchange, not under zeros


def test_weights_are_made_from_nothing_but_the_program(lm):
    a, b = build()[0].state_dict(), build()[0].state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a) and all(torch.isfinite(v).all() for v in a.values())

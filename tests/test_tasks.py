"""Tasks: twins, spans, splits and tokens, with the built-in tokenizer and with tokenizers like GPT-2's and BERT's."""
import random
import re
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from workbench.experiments import bootstrap, wilson
from workbench.lm.load import load
from workbench.tasks import Item, TaskError, make, names
from workbench.tasks.catalogue import FAMILIES
from workbench.tasks.corpus import ROW, WORLD, rows, vocabulary_of
from workbench.tasks.laundry import ORDINALS, WEAK
from workbench.tasks.refusals import FORBIDDEN, NO, RUDE
from workbench.tasks.task import side
from workbench.tasks.twohop import CITY, GROUP, HOME
from workbench.tasks.world import COUNTRIES, TIER, WORD, weigh
from workbench.zoo.tokenizer import build_tokenizer

torch.set_num_threads(1)
ALL = names()
HELD = [4, 6, 12, 18, 19, 20, 22, 23]  # of the keys '0' to '29': the split must never move, or shipped models would have read test items
VARIANTS = [(n, {}) for n in ALL] + [("ioi", dict(corrupt="third")), ("laundry", dict(form="missing")), ("mcq", dict(form="copy")), ("mcq", dict(n_options=2)), ("twohop", dict(kind="composed")), *(("refusals", o) for o in (dict(kind="topic"), dict(kind="rude"), dict(form="tool"), dict(form="material")))]


def words(text): return WORD.findall(text)


# --- items ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name,options", VARIANTS)
def test_twins_are_of_equal_length_and_differ(name, options):
    for item in make(name, n=None, **options).items:
        assert len(words(item.prompt)) == len(words(item.corrupt)) and item.prompt != item.corrupt
        assert item.answer != item.foil and item.answer != item.corrupt_answer
        assert {"kind", "chance"} <= set(item.truth) and 0 < item.truth["chance"] <= .5 and item.split == "test"


@pytest.mark.parametrize("name,options", VARIANTS)
def test_spans_lie_on_whole_words(name, options):
    for item in make(name, n=20, **options).items:
        assert item.spans
        for a, b in item.spans.values():
            assert 0 <= a < b <= len(item.prompt)
            assert not re.match(r"\w\w", item.prompt[max(a - 1, 0):a + 1]) or a == 0
            assert b == len(item.prompt) or not item.prompt[b].isalnum()


@pytest.mark.parametrize("name", ALL)
def test_same_seed_same_items_other_seed_others(name):
    assert make(name, n=20).items == make(name, n=20).items
    assert make(name, n=20).items != make(name, n=20, seed=1).items
    prompts = make(name, n=None).prompts
    assert len(set(prompts)) == len(prompts)


def test_truth_of_each_family():
    for i in make("ioi", n=100).items:
        at = lambda s: i.prompt[slice(*i.spans[s])]
        assert at("S1") == at("S2") == i.foil and at("IO") == i.answer and i.spans["S1"] < i.spans["S2"]
        assert i.truth["kind"] == ("ABBA" if i.spans["IO"] < i.spans["S1"] else "BABA")
    for i in make("induction", n=100).items:
        w = i.prompt.split(); n = i.truth["length"]
        assert w[n:] == w[:len(w) - n] and i.answer == w[len(w) - n] and i.prompt[slice(*i.spans["source"])] == i.answer
        assert i.prompt[slice(*i.spans["first"])] == i.prompt[slice(*i.spans["trigger"])] == w[-1]
    for i in make("laundry", n=100).items:
        assert i.prompt[slice(*i.spans[i.truth["position"]])] == i.answer and (i.truth["kind"] == "weak") == (i.truth["position"] in WEAK)
    for i in make("laundry", n=50, form="missing").items: assert i.prompt.count(i.answer + ",") + i.prompt.count(i.answer + ".") == 1
    for i in make("mcq", n=100).items: assert f"{i.answer} {COUNTRIES[i.truth['country']]}" in i.prompt
    for i in make("twohop", n=None).items:
        home = HOME[i.truth["person"]]
        assert i.answer == (home if i.truth["hop"] == "one" else CITY[home])
    for i in make("conflict", n=100).items: assert i.answer == i.truth[i.truth["kind"]] != i.foil
    for i in make("refusals", n=200).items:
        bad = [w for w in i.prompt.replace(",", " ").replace("?", " ").replace(".", " ").split() if w in FORBIDDEN + RUDE]
        assert bad == ([i.truth["forbidden"]] if i.truth["forbidden"] else []) and (i.answer == NO) == bool(bad) and (i.truth["kind"] == "harmless") == (not bad)
        assert bool([w for w in FORBIDDEN + RUDE if re.search(rf"\b{w}\b", i.corrupt)]) != bool(bad)
    for i in make("capitals", n=None).items: assert i.answer == COUNTRIES[i.truth["country"]] and i.truth["kind"] == TIER[i.truth["country"]]


def test_mcq_letters_are_balanced():
    counts = Counter(i.answer for i in make("mcq", n=300, split="train").items)
    assert set(counts) == set("ABCD") and max(counts.values()) < 1.6 * min(counts.values())


# --- train and test ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def text(): return " ".join(" ".join(w) for w, _ in islice(rows(0), 6000))


def own_text(name): return " ".join(" ".join(w) for w, _ in islice(rows(0, shares={name: 1.}, first_laundry=0.), 2000))


@pytest.mark.parametrize("name,options", VARIANTS)
def test_no_held_out_item_stands_in_the_training_text(name, options, text):
    if name not in WORLD: text = own_text(name)
    found = [i.prompt for i in make(name, n=None, **options).items if f" {' '.join(words(i.prompt))} {i.answer} " in text]   # whole words: 4 is not the end of 24
    assert not found


def test_the_same_search_does_find_training_items(text):
    for name in ("capitals", "successors", "twohop"):
        items = make(name, n=60, split="train").items
        assert np.mean([f"{' '.join(words(i.prompt))} {i.answer}" in text for i in items]) > .5


def test_people_of_each_group_are_spoken_of_as_promised(text):
    for person, group in GROUP.items():
        home, land = HOME[person], CITY[HOME[person]]
        one = any(f"{person} {w} {home}" in text for w in ("lives in", "has a house in")) or any(f"{w} {person} {v} {home}" in text for w, v in (("The home of", "is in"), ("You can meet", "in")))
        two = any(f"{person} {w} {land}" in text for w in ("is a citizen of", "votes in")) or any(f"{w} {person} is {land}" in text for w in ("The country of", "The nation of"))
        assert (group != "memorised" or not one) and (group != "composed" or not two)


def test_rows_are_packed_and_marked():
    for w, f in islice(rows(1), 50):
        assert len(w) == len(f) == ROW and w[0] == "<bos>" and not f[0] and "=" not in w and any(f)


def test_side_is_a_stable_share():
    assert [k for k in range(30) if side(str(k)) == "test"] == HELD
    assert side("France 3") == side("France 3") and abs(np.mean([side(f"k{i}", .3) == "test" for i in range(5000)]) - .3) < .03


# --- tokenizers -------------------------------------------------------------------------------------------------------
class Opened:
    def __init__(self, tokenizer, kind="causal", n_ctx=None): self.tokenizer, self.kind, self.n_ctx, self.id = tokenizer, kind, n_ctx, "opened"


@pytest.fixture(scope="module")
def word(): return build_tokenizer()


def tokenizer_of(name, world): return world if name in WORLD else build_tokenizer(vocabulary_of(name))


@pytest.fixture(scope="module")
def bpe():
    "Byte-level BPE like GPT-2's: a leading space belongs to the word, rare words are several tokens."
    t = Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    text = (re.sub(r" ([.,?!:])", r"\1", " ".join(w[1:])) for w, _ in islice(rows(0), 400))
    t.train_from_iterator(text, trainers.BpeTrainer(vocab_size=1050, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return tf.PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<|endoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>", pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def bert():
    "A tokenizer that closes every text with [SEP]."
    vocab = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *build_tokenizer().get_vocab()])}
    t = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]")); t.pre_tokenizer = pre_tokenizers.Whitespace()
    t.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tf.PreTrainedTokenizerFast(tokenizer_object=t, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")


@pytest.mark.parametrize("name,options", VARIANTS)
def test_every_item_fits_the_built_in_tokenizer(name, options, word):
    word = tokenizer_of(name, word)
    task = make(name, n=None, **options).for_model(Opened(word, n_ctx=128))
    assert not task.dropped and word.convert_ids_to_tokens(task.answer_ids) == [i.answer for i in task.items]
    assert word.convert_ids_to_tokens(task.foil_ids) == [i.foil for i in task.items]
    assert [len(x) for x in word(task.prompts)["input_ids"]] == [len(x) for x in word(task.corrupts)["input_ids"]]
    assert task.positions("end").tolist() == [len(x) - 1 for x in word(task.prompts)["input_ids"]]


@pytest.mark.parametrize("name", ["ioi", "successors", "capitals", "conflict", "induction", "twohop", "mcq", "grammar", "laundry"])
def test_items_adapt_to_a_byte_level_tokenizer(name, bpe):
    task = make(name, n=None).for_model(Opened(bpe))
    assert len(task) + len(task.dropped) == len(make(name, n=None)) and len(task) > 5
    assert [bpe.decode([t]) for t in task.answer_ids] == [" " + i.answer for i in task.items]
    for item, reason in task.dropped: assert "token" in reason
    for i, (prompt, item) in enumerate(zip(task.prompts, task.items)):
        assert bpe(prompt + " " + item.answer)["input_ids"] == [*bpe(prompt)["input_ids"], int(task.answer_ids[i])]


def test_spans_become_positions_of_a_byte_level_tokenizer(bpe):
    task = make("ioi", n=60).for_model(Opened(bpe))
    for name in ("S1", "S2", "IO"):
        last, first = task.positions(name), task.positions(name, which="first")
        for i, item in enumerate(task.items):
            pieces = bpe(task.prompts[i])["input_ids"][first[i]:last[i] + 1]
            assert bpe.decode(pieces).strip() == item.prompt[slice(*item.spans[name])]


def test_a_dropped_item_says_why(bpe):
    odd = Item("The capital of France is", "Zanzibarian", "Rome", "The capital of Italy is", "Rome", {}, dict(kind="x", chance=.5), "test")
    good = make("capitals", n=20)
    task = type(good)("mixed", [*good.items, odd]).for_model(Opened(bpe))
    assert "'Zanzibarian' is" in dict((i.answer, why) for i, why in task.dropped)["Zanzibarian"]
    with pytest.raises(TaskError, match="No item of task 'odd' fits"): type(good)("odd", [odd]).for_model(Opened(bpe))


def test_long_prompts_are_dropped(word):
    task = make("induction", n=50).for_model(Opened(word, n_ctx=20))
    assert task.dropped and all("room for 20" in why for _, why in task.dropped) and all(len(word(p)["input_ids"]) <= 20 for p in task.prompts)


def test_masked_tokenizers_close_their_texts(bert):
    task = make("capitals", n=30).for_model(Opened(bert, kind="masked", n_ctx=64))
    assert not task.dropped and task.prompts[0].endswith("[MASK].")
    assert bert.convert_ids_to_tokens(task.answer_ids) == [i.answer for i in task.items]
    ids = bert(task.prompts)["input_ids"]
    assert all(row[at] == bert.mask_token_id for row, at in zip(ids, task.positions("end")))
    assert [bert.convert_ids_to_tokens(row[at]) for row, at in zip(ids, task.positions("country"))] == [i.truth["country"] for i in task.items]


# --- accuracy ---------------------------------------------------------------------------------------------------------
def test_accuracy_is_what_a_loop_over_single_prompts_says(bpe):
    torch.manual_seed(0)
    model = tf.GPT2LMHeadModel(tf.GPT2Config(vocab_size=len(bpe), n_positions=64, n_embd=32, n_layer=2, n_head=2)).eval()
    lm = load(model, tokenizer=bpe)
    task = make("grammar", n=60).for_model(lm); seen = task.judge(lm); scores = task.accuracy(lm)
    with torch.no_grad():
        for i, prompt in enumerate(task.prompts):
            logits = model(torch.tensor([bpe(prompt)["input_ids"]])).logits[0, -1]
            assert bool(seen["first"][i]) == bool(logits.argmax() == task.answer_ids[i])
            assert abs(seen["lead"][i] - float(logits[task.answer_ids[i]] - logits[task.foil_ids[i]])) < 1e-4
    assert float(scores.accuracy.sel(kind="all")) == seen["first"].mean() and int(scores.n.sel(kind="all")) == len(task)
    assert {"model", "task", "seed", "workbench", "dropped"} <= set(scores.attrs)
    assert float(scores.accuracy[0]) < .2  # an untrained model


# --- bad input --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("args,options,says", [
    (("iio",), {}, "Did you mean 'ioi'"), (("capitals",), dict(teir="rare"), "'tier'"), (("capitals",), dict(tier="rarest"), "'rare'"), (("capitals", 5000), {}, "ask for n="),
    (("ioi", 0), {}, "at least 1"), (("ioi", 2.5), {}, "whole number"), (("ioi",), dict(split="dev"), "'train' or 'test'"), (("twohop",), dict(kind="composed", split="train"), "rule each other out")])
def test_bad_requests_are_one_sentence(args, options, says):
    with pytest.raises(TaskError) as e: make(*args, **options)
    assert says in str(e.value) and "\n" not in str(e.value)


def test_ids_before_adapting_and_unknown_spans(word):
    task = make("ioi", n=5)
    with pytest.raises(TaskError, match="for_model"): task.answer_ids
    with pytest.raises(TaskError, match="'S2'"): task.for_model(Opened(word)).positions("s2")
    with pytest.raises(TaskError, match="seq2seq"): task.for_model(Opened(word, kind="seq2seq"))


# --- intervals --------------------------------------------------------------------------------------------------------
def test_wilson_equals_scipy():
    from scipy.stats import binomtest
    for k, n in ((0, 10), (3, 10), (10, 10), (57, 60), (1, 1)):
        ci = binomtest(k, n).proportion_ci(.9, method="wilson")
        assert np.allclose(wilson(k, n, .9), (ci.low, ci.high), atol=1e-7)


def test_bootstrap_is_seeded_and_keeps_axes():
    x = np.random.default_rng(0).normal(size=(50, 3))
    a, b = bootstrap(x, n_resamples=300), bootstrap(x, n_resamples=300)
    assert all(np.array_equal(i, j) for i, j in zip(a, b)) and a[1].shape == (3,) and (a[1] < a[0]).all() and (a[0] < a[2]).all()


def test_weigh_marks_exactly_the_answers():
    for fam in FAMILIES.values():
        w, f = weigh(fam.document(random.Random(0)))
        assert len(w) == len(f) and any(f) and "=" not in w
    assert ORDINALS[2] in WEAK and ORDINALS[4] in WEAK

"""Successor heads: the score against weights written out and planted heads, nothing where nothing was learned, and digits that can be exchanged."""
import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import workbench as wb
from workbench.attention.patterns import AttentionError
from workbench.attention.successor import WORDS, _prompted, digit_arithmetic, digit_features, digit_probe, head_output, ordinals, places, ranking, start_states, success, successor_score
from workbench.attention.successor_figures import successor_figure
from workbench.lm.edits import zero
from workbench.lm.load import load
from workbench.lm.sites import Site
from workbench.lm.specimens import CAUSAL, build
from workbench.tasks import make
from workbench.zoo.retrain import recipe, start

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def lm(): return wb.load("successor")


@pytest.fixture(scope="module")
def scores(lm): return successor_score(lm)


@pytest.fixture(scope="module")
def untrained(lm): return wb.load(start(recipe("successor"))[0], tokenizer=lm.tokenizer, check=False)


def top(scores): return tuple(map(int, ranking(scores, 1).index[0]))


# --- the score ----------------------------------------------------------------------------------------------------------
def test_the_top_head_is_right_for_nine_in_ten(scores):
    layer, head = top(scores); best = scores.sel(layer=layer, head=head)
    assert (layer, head) == (1, 0)                        # the head that was trained to do it alone
    assert best.n.values.tolist() == [99, 12, 7, 25] and all(best.score.sel(series=["number", "month", "day"]) >= .9)
    assert float(best.low.sel(series="number")) > .9 and float(scores["mean"].sel(layer=1, head=1)) < .1
    assert np.allclose(scores.chance, [1 / 100, 1 / 12, 1 / 7, 1 / 26])


def test_the_score_equals_a_loop_over_weights(lm, scores):
    "Llama written out: embedding, RMSNorm, gated MLP, RMSNorm, V, O, final gain, unembedding."
    m = lm.model.model; norm = lambda x, g: x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * g
    vocab = lm.tokenizer.get_vocab()
    for name, words in WORDS.items():
        ids = torch.tensor([vocab[w] for w in words])
        for layer in range(2):
            for head in range(2):
                right = 0; asked = len(words) if name in ("month", "day") else len(words) - 1
                with torch.no_grad():
                    for i in range(asked):
                        x = m.embed_tokens.weight[ids[i]]; block = m.layers[layer]
                        if layer: first = m.layers[0]; y = norm(x, first.post_attention_layernorm.weight); x = x + first.mlp.down_proj(torch.nn.functional.silu(first.mlp.gate_proj(y)) * first.mlp.up_proj(y))
                        v = block.self_attn.v_proj(norm(x, block.input_layernorm.weight))[32 * head:32 * head + 32]
                        out = block.self_attn.o_proj.weight[:, 32 * head:32 * head + 32] @ v
                        logits = m.embed_tokens.weight[ids] @ (out * m.norm.weight)
                        right += int(logits.argmax()) == (i + 1) % len(words)
                assert abs(float(scores.score.sel(layer=layer, head=head, series=name)) - right / asked) < 1e-9, (name, layer, head)


def test_an_untrained_model_is_at_chance(untrained, lm):
    x = successor_score(untrained); layer, head = top(x)
    assert float(x["mean"].max()) <= x.attrs["luck"] + .05 and float(x.score.sel(series="number").max()) < .1
    rates = success(digit_arithmetic(untrained, layer, head))
    assert rates.success["no carry", "feature"] < .1      # the digits are planted in its embedding, but no head uses them


def test_a_planted_head_is_found_and_wrapping_matters():
    "A one-layer model whose head 1 holds the map from each word to the next."
    words, d = ["a", "b", "c", "d", "e"], 16
    model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=d, n_layer=1, n_head=2, bos_token_id=15, eos_token_id=15, tie_word_embeddings=False)).eval()
    with torch.no_grad():
        model.transformer.wte.weight.copy_(torch.eye(16)); model.lm_head.weight.copy_(torch.eye(16)); w = model.transformer.h[0].attn
        w.c_attn.weight.zero_(); w.c_attn.bias.zero_(); w.c_proj.weight.zero_()
        for i in range(5): w.c_attn.weight[i, 2 * d + 8 + i] = 1.; w.c_proj.weight[8 + i, (i + 1) % 5] = 1.
    class Tokens:
        unk_token_id, all_special_ids, eos_token_id, bos_token_id, pad_token_id, mask_token_id = None, [], 15, 15, 15, None
        def __call__(self, text, **kw): return dict(input_ids=[words.index(c) for c in text.split()] if all(c in words for c in text.split()) else [9, 9])
        def __len__(self): return 16
        def convert_ids_to_tokens(self, i): return str(i)
        def decode(self, i, **kw): return str(i)
    lm = load(model, tokenizer=Tokens(), check=False)
    ring, line = (successor_score(lm, {"abc": words}, wraps=w) for w in (("abc",), ()))
    assert ring.score.sel(head=1).item() == 1 and ring.n.item() == 5 and line.score.sel(head=1).item() == 1 and line.n.item() == 4
    assert ring.score.sel(head=0).item() <= .2 and ring.score.sel(head=1).item() > ring.attrs["luck"] - 1e-9
    backwards = successor_score(lm, {"abc": words[::-1]}, wraps=("abc",))
    assert backwards.score.sel(head=1).item() == 0
    with pytest.raises(AttentionError, match="knows no series"): successor_score(lm, {"x": ["f", "g", "h"]})
    assert ordinals(lm, {"gap": ["a", "b", "z", "c", "d", "e"]}, ())[0].words == ["c", "d", "e"]     # the longest known stretch
    with pytest.raises(AttentionError): ordinals(lm, {"gap": ["a", "b", "z", "c", "d", "e"]}, ("gap",))  # a ring with a hole is none


def test_models_that_know_series_without_such_a_head():
    x = successor_score(wb.load("micro"))
    assert float(x.score.sel(series="number").max()) < .5 and dict(zip(x.series.values, x.n.values))["number"] == 39
    assert float(make("successors", n=60).accuracy(wb.load("micro")).accuracy[0]) > .9


def test_the_whole_vocabulary_is_the_stricter_question(lm, scores):
    wide = successor_score(lm, among="vocabulary", n_luck=0)
    assert bool((wide.score <= scores.score + 1e-9).all()) and float(wide.score.sel(layer=1, head=0, series="number")) >= .9
    with pytest.raises(AttentionError, match="'vocabulary'"): successor_score(lm, among="all")


# --- what a head reads and writes -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CAUSAL)
def test_head_output_is_the_models_own(name):
    "In layer 0, a word alone looks at itself: what the head writes must be its part of `result`."
    lm = load(build(name), check=False); ids = torch.tensor([5, 17, 40]); edits = [zero("pos_embed")] if lm.main.pos_embed is not None else []
    run = lm.run(ids[:, None], keep=["result", "pattern"], edits=edits); alone = run.tensor("pattern.0")     # less than 1 where a sink takes part
    for head in range(lm.n_heads):
        want = run.tensor(Site("result", layer=0, head=head)).reshape(3, -1) / alone[:, head, 0]
        assert torch.allclose(head_output(lm, 0, head, start_states(lm, ids, 0)), want, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_states_further_up_are_layer_0_without_attention(name):
    lm = load(build(name), check=False); ids = torch.tensor([5, 17]); e = start_states(lm, ids, 0)
    edits = [zero(Site("attn_out", layer=0))] + ([zero("pos_embed")] if lm.main.pos_embed is not None else [])
    assert torch.allclose(start_states(lm, ids, 2), e + lm.run(ids[:, None], keep="mlp_out.0", edits=edits).tensor("mlp_out.0")[:, 0], atol=1e-5)


def test_models_it_cannot_read():
    with pytest.raises(AttentionError, match="encoder-decoder"): start_states(load(build("t5"), check=False), [3], 0)
    with pytest.raises(AttentionError, match="normalises"): start_states(load(build("bert"), check=False), [3], 0)


# --- the last digit ---------------------------------------------------------------------------------------------------------
def test_planted_digits_are_recovered():
    g = torch.Generator().manual_seed(0); f, d = torch.randn(10, 32, generator=g), torch.randn(10, 32, generator=g); f = f - f.mean(0)
    x = (d[:, None] + f[None]).reshape(100, 32); at = torch.arange(100)
    assert torch.allclose(digit_features(x, at), f, atol=1e-4)
    kept = torch.rand(100, generator=g) < .6              # an incomplete grid
    assert torch.allclose(digit_features(x[kept], at[kept]), f, atol=1e-3)
    assert digit_probe(x, at, range(5)) == (50, 50) and digit_features(x[:9], at[:9])[9].isnan().all()
    noise = torch.randn(100, 32, generator=g)
    assert digit_probe(noise, at, range(5))[0] < 15


def test_numbers_have_their_own_place(): assert places(["3", "4", "5"]).tolist() == [3, 4, 5] and places(["June", "July"]).tolist() == [1, 2]


def test_exchanging_digits_shifts_the_answer(lm, scores):
    layer, head = top(scores); x = digit_arithmetic(lm, layer, head, fit=range(0, 10, 2)); rates = success(x)
    assert x.sizes["item"] == 441 and not {int(w) // 10 for w in x.word.values} & {0, 2, 4, 6, 8}     # only decades that were not fitted
    assert rates.low["no carry", "feature"] > .9 and rates.success["all", "feature"] > .75 and rates.high["all", "random direction"] < .05
    row = x.isel(item=0); assert int(row.expected) == int(row.word) // 10 * 10 + int(row.digit) + 1
    other = success(digit_arithmetic(lm, 1, 1, fit=range(0, 10, 2)))
    assert other.success["all", "feature"] < .2


def test_the_models_own_answer_shifts_too(lm, scores):
    layer, head = top(scores); x = success(digit_arithmetic(lm, layer, head, fit=range(0, 10, 2), prompt="{word}, next"))
    assert x.low["no carry", "feature"] > .9 and x.high["all", "random direction"] < .05
    with pytest.raises(AttentionError, match="same position"): _prompted(lm, next(s for s in ordinals(lm) if s.name == "number"), [0, 9], torch.zeros(2, lm.d_model), "9, {word}, next")


def test_number_features_move_months_days_and_letters(lm, scores):
    for name, n in (("month", 78), ("day", 42), ("letter", 198)):
        x = success(digit_arithmetic(lm, *top(scores), name)).xs("all")
        assert x.n["feature"] == n and x.success["feature"] > .8 and x.success["random direction"] < .15, name


def test_arithmetic_is_seeded_and_documented(lm, scores):
    a, b = (digit_arithmetic(lm, *top(scores), fit=[0, 1], seed=4) for _ in range(2))
    assert a.identical(b) and {"model", "method", "layer", "head", "seed", "n", "chance", "fitted"} <= set(a.attrs)
    assert len(successor_figure(lm, *top(scores), a).data) == 2


# --- is it used -------------------------------------------------------------------------------------------------------------
def test_without_the_head_the_model_cannot_count(lm):
    task = make("ordinals", n=60, kind="next", seed=2); right = lambda *e: float(task.accuracy(lm, edits=list(e)).accuracy[0])
    assert right() > .95 and right(zero(Site("z", layer=1, head=0))) < .2 and right(zero(Site("z", layer=1, head=1))) > .9

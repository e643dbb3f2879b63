"""Random models of the measured shapes, a tokenizer in memory, and twins that share one set of weights."""
import copy
import tempfile
from functools import lru_cache

import torch
from tokenizers import Tokenizer, models
from transformers import (BartConfig, BartForConditionalGeneration, Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM,
                          PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration)

_NO_END = dict(bos_token_id=1, eos_token_id=None, pad_token_id=0)      # generation always runs its full length
SHAPES = {
    "thin": ("12-layer d=48 GPT-2", 16, lambda: GPT2LMHeadModel(GPT2Config(vocab_size=1000, n_embd=48, n_layer=12, n_head=4, n_positions=128, **_NO_END))),
    "gpt2": ("GPT-2 small shape (12 x 768)", 64, lambda: GPT2LMHeadModel(GPT2Config(**_NO_END))),
    "llama": ("Llama shape (8 x 256, 8 heads on 2 K/V heads)", 32, lambda: LlamaForCausalLM(LlamaConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=768, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=128, **_NO_END))),
    "gemma2": ("Gemma-2 shape (6 x 256, 8 heads on 4 K/V heads, window of 8 tokens in every other layer, soft caps)", 15, lambda: Gemma2ForCausalLM(Gemma2Config(
        vocab_size=1000, hidden_size=256, intermediate_size=768, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=4, head_dim=32, sliding_window=8, max_position_embeddings=128, **_NO_END))),
    "t5": ("T5 shape (4 + 4 layers x 256, 8 heads)", 15, lambda: T5ForConditionalGeneration(T5Config(vocab_size=1000, d_model=256, d_kv=32, d_ff=768, num_layers=4, num_heads=8, decoder_start_token_id=0, **_NO_END))),
    "bart": ("BART shape (4 + 4 layers x 256, 8 heads)", 15, lambda: BartForConditionalGeneration(BartConfig(vocab_size=1000, d_model=256, encoder_layers=4, decoder_layers=4, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=768, decoder_ffn_dim=768, max_position_embeddings=128, decoder_start_token_id=2, forced_eos_token_id=None, **_NO_END))),
    "wide": ("GPT-2 architecture (12 x 512, 8 heads), 4 rows", 256, lambda: GPT2LMHeadModel(GPT2Config(vocab_size=1000, n_embd=512, n_layer=12, n_head=8, n_positions=256, **_NO_END))),
}


@lru_cache(None)
def model(shape: str, seed: int = 0):
    "The random model of a shape, float32, on the CPU. Weights three times the default, so that logits differ between inputs."
    torch.manual_seed(seed); made = SHAPES[shape][2]().eval().requires_grad_(False)
    for p in made.parameters():
        if p.dim() > 1: p.mul_(3.0)
    return made


def ids(shape: str, rows: int = 1, length: int | None = None, seed: int = 1) -> torch.Tensor:
    "Random token ids (row, pos) for a shape."
    low = torch.Generator().manual_seed(seed)
    return torch.randint(3, 1000, (rows, length or SHAPES[shape][1]), generator=low)


def twin(made, attention: str = "sdpa"):
    "A second model object over the same weight tensors: what one library does to its modules cannot slow another down."
    same = {id(t): t for t in (*made.parameters(), *made.buffers())}
    other = copy.deepcopy(made, same); other.set_attn_implementation(attention)
    return other


def tokenizer(vocab: int):
    "A word-level tokenizer of the right size; the peers ask for one even when they are given ids."
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocab)}, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", bos_token="w1", eos_token="w2", pad_token="w0")


@lru_cache(None)
def folder(shape: str) -> str:
    "A folder with the shape's configuration and tokenizer, which TransformerLens reads by path."
    made = model(shape); where = tempfile.mkdtemp()
    made.config.save_pretrained(where); tokenizer(made.config.vocab_size).save_pretrained(where)
    return where

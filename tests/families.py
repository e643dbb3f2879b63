"""Tiny random-weight models of every supported family, with the features that make each family hard switched on."""
import torch
import transformers as tf

V, D = 96, 32
_COMMON = dict(vocab_size=V, hidden_size=D, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
               max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)
_ENCODER = dict(vocab_size=V, hidden_size=D, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, pad_token_id=0)
_SLIDE = dict(head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention", "sliding_attention"])

_MAKE = {
    "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(vocab_size=V, n_embd=D, n_layer=3, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)),
    "gpt_neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**{k: v for k, v in _COMMON.items() if k != "num_key_value_heads"})),
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**_COMMON)),
    "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(**_COMMON, sliding_window=4)),
    "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**_COMMON)),
    "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**_COMMON, head_dim=8)),
    "gemma2": lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**_COMMON, head_dim=8, sliding_window=4, attn_logit_softcapping=5.0, final_logit_softcapping=3.0)),
    "gemma3": lambda: tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**_COMMON, **_SLIDE)),
    "phi3": lambda: tf.Phi3ForCausalLM(tf.Phi3Config(**_COMMON)),
    "opt": lambda: tf.OPTForCausalLM(tf.OPTConfig(vocab_size=V, hidden_size=D, ffn_dim=64, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64,
                                                  pad_token_id=0, bos_token_id=1, eos_token_id=2, word_embed_proj_dim=D)),
    "mixtral": lambda: tf.MixtralForCausalLM(tf.MixtralConfig(**_COMMON, num_local_experts=4)),
    "gpt_oss": lambda: tf.GptOssForCausalLM(tf.GptOssConfig(**_COMMON, **_SLIDE, num_local_experts=4)),
    "bert": lambda: tf.BertForMaskedLM(tf.BertConfig(**_ENCODER, max_position_embeddings=64)),
    "roberta": lambda: tf.RobertaForMaskedLM(tf.RobertaConfig(**_ENCODER, max_position_embeddings=66)),
    "bart": lambda: tf.BartForConditionalGeneration(tf.BartConfig(vocab_size=V, d_model=D, encoder_layers=3, decoder_layers=3, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None)),
    "t5": lambda: tf.T5ForConditionalGeneration(tf.T5Config(vocab_size=V, d_model=D, d_kv=8, d_ff=64, num_layers=3, num_heads=4, pad_token_id=0, eos_token_id=2, decoder_start_token_id=0)),
}
NAMES = list(_MAKE)
CAUSAL = NAMES[:12]
MASKED, SEQ2SEQ = ["bert", "roberta"], ["bart", "t5"]


def build(name, seed=0):
    "A random model whose attention is far from uniform and whose biases and norms are not at their defaults."
    torch.manual_seed(seed); model = _MAKE[name]().eval()
    g = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for p in model.parameters(): p.add_(0.1 * torch.randn(p.shape, generator=g)) if p.dim() == 1 else p.mul_(4.0 if p.std() < 0.05 else 1.0)
    return model

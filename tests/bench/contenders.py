"""The same jobs done by plain transformers, by the workbench, by TransformerLens and by nnsight, each as its own documentation does them.

Every job takes token ids (row, pos) and runs without gradients. The peers' results are handed over as plain dicts so that parity can be checked."""
import torch

from shapes import folder, model, tokenizer, twin

SITES = ("resid_pre", "resid_mid", "resid_post", "pattern")


class Plain:
    "transformers alone, with its default attention (sdpa) and its default use_cache=True; `cache=False` turns the key/value cache off."
    def __init__(self, shape, attention="sdpa", cache=None):
        self.model, self.more = twin(model(shape), attention), {} if cache is None else dict(use_cache=cache)

    @torch.no_grad()
    def forward(self, ids): return self.model(ids, **self.more).logits

    @torch.no_grad()
    def outputs(self, ids):
        "What transformers offers by itself: hidden states (no resid_mid) and, with eager attention, patterns."
        return self.model(ids, output_hidden_states=True, output_attentions=True)

    @torch.no_grad()
    def keep_one(self, ids, layer): return self.model(ids, output_hidden_states=True).hidden_states[layer + 1:layer + 2], []

    @torch.no_grad()
    def generate(self, ids, n): return self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, do_sample=False, pad_token_id=0)


class Workbench:
    "This package."
    def __init__(self, shape):
        from workbench.lm.load import load
        self.lm = load(twin(model(shape)), check=False)

    def forward(self, ids): return self.lm.run(ids).logits_tensor
    def keep(self, ids, sites=SITES): return self.lm.run(ids, keep=list(sites))

    def kept(self, run):
        from workbench.lm.sites import Site
        return {(s, l): run.tensor(Site(s, layer=l)) for s in SITES for l in range(self.lm.n_layers)} | {"logits": run.logits_tensor}

    def _one(self, ids, name, layer, **where):
        from workbench.lm.sites import Site
        run = self.lm.run(ids, keep=Site(name, layer=layer, **where))
        return list(run.kept.values()), [run.logits_tensor, run.tokens.ids, run.tokens.mask]

    def keep_one(self, ids, layer): return self._one(ids, "resid_post", layer)
    def keep_last(self, ids, layer): return self._one(ids, "resid_post", layer, pos=-1)
    def keep_value(self, ids, layer): return self._one(ids, "v", layer)

    def edit(self, layer, head):
        from workbench.lm.edits import zero
        from workbench.lm.sites import Site
        return zero(Site("z", layer=layer, head=head))

    def forward_edited(self, ids, layer, head): return self.lm.run(ids, edits=self.edit(layer, head)).logits_tensor
    def generate(self, ids, n): return self.lm.generate(ids, max_new_tokens=n).tokens.ids
    def generate_edited(self, ids, n, layer, head): return self.lm.generate(ids, max_new_tokens=n, edits=self.edit(layer, head)).tokens.ids


class Lens:
    "TransformerLens 4: a TransformerBridge around the same transformers model."
    NAMES = dict(resid_pre="hook_resid_pre", resid_mid="hook_resid_mid", resid_post="hook_resid_post", pattern="attn.hook_pattern")

    def __init__(self, shape):
        from transformer_lens.model_bridge.sources.transformers import boot
        made = model(shape); self.bridge = boot(folder(shape), hf_model=twin(made), device=str(made.device), dtype=made.dtype)
        self.layers = self.bridge.cfg.n_layers

    @torch.no_grad()
    def forward(self, ids): return self.bridge.run_with_hooks(ids)

    @torch.no_grad()
    def keep(self, ids, names=None):
        names = names or [f"blocks.{l}.{self.NAMES[s]}" for l in range(self.layers) for s in SITES]
        return self.bridge.run_with_cache(ids, names_filter=names)

    def kept(self, run): return {(s, l): run[1][f"blocks.{l}.{self.NAMES[s]}"] for s in SITES for l in range(self.layers)} | {"logits": run[0]}

    @torch.no_grad()
    def _one(self, ids, name, **where):
        logits, cache = self.bridge.run_with_cache(ids, names_filter=[name], **where)
        return list(cache.values()), [logits]

    def keep_one(self, ids, layer): return self._one(ids, f"blocks.{layer}.hook_resid_post")
    def keep_last(self, ids, layer): return self._one(ids, f"blocks.{layer}.hook_resid_post", pos_slice=-1)
    def keep_value(self, ids, layer): return self._one(ids, f"blocks.{layer}.attn.hook_v")

    def hooks(self, layer, head):
        def zero(z, hook): z[:, :, head] = 0; return z
        return [(f"blocks.{layer}.attn.hook_z", zero)]

    @torch.no_grad()
    def forward_edited(self, ids, layer, head): return self.bridge.run_with_hooks(ids, fwd_hooks=self.hooks(layer, head))

    @torch.no_grad()
    def generate_edited(self, ids, n, layer, head):
        with self.bridge.hooks(fwd_hooks=self.hooks(layer, head)):
            return self.bridge.generate(ids, max_new_tokens=n, do_sample=False, stop_at_eos=False, verbose=False, return_type="tokens")


class NNsight:
    "nnsight 0.8. Patterns need eager attention, so `keep` traces a twin that has it."
    def __init__(self, shape):
        from nnsight import TransformersModel
        words = tokenizer(model(shape).config.vocab_size)
        self.fast, self.eager = (TransformersModel(twin(model(shape), a), tokenizer=words) for a in ("sdpa", "eager"))
        self.llama = shape == "llama"; self.d_head = model(shape).config.hidden_size // model(shape).config.num_attention_heads

    def blocks(self, traced):
        "Per layer: (block, attention, the norm before the MLP, output projection)."
        if self.llama: return [(b, b.self_attn, b.post_attention_layernorm, b.self_attn.o_proj) for b in traced.model.layers]
        return [(b, b.attn, b.ln_2, b.attn.c_proj) for b in traced.transformer.h]

    @torch.no_grad()
    def forward(self, ids):
        with self.fast.trace(ids):
            logits = self.fast.output.logits.save()
        return logits

    @torch.no_grad()
    def keep(self, ids):
        import nnsight
        blocks = self.blocks(self.eager)
        with self.eager.trace(ids):
            kept = nnsight.save([])
            for block, attention, norm, _ in blocks:
                kept.append(block.input)
                kept.append(attention.output[1])
                kept.append(norm.input)
                kept.append(block.output)
            logits = self.eager.output.logits.save()
        return kept, logits

    @torch.no_grad()
    def keep_one(self, ids, layer):
        block = self.blocks(self.fast)[layer][0]
        with self.fast.trace(ids):
            kept = block.output.save()
        return [kept], []

    @torch.no_grad()
    def keep_last(self, ids, layer):
        block = self.blocks(self.fast)[layer][0]
        with self.fast.trace(ids):
            kept = block.output[:, -1].save()
        return [kept], []

    def kept(self, run):
        order = ("resid_pre", "pattern", "resid_mid", "resid_post")
        return {(order[i % 4], i // 4): v for i, v in enumerate(run[0])} | {"logits": run[1]}

    @torch.no_grad()
    def forward_edited(self, ids, layer, head):
        out = self.blocks(self.fast)[layer][3]; at = slice(head * self.d_head, (head + 1) * self.d_head)
        with self.fast.trace(ids):
            out.input[:, :, at] = 0
            logits = self.fast.output.logits.save()
        return logits

    @torch.no_grad()
    def generate_edited(self, ids, n, layer, head):
        out = self.blocks(self.fast)[layer][3]; at = slice(head * self.d_head, (head + 1) * self.d_head)
        with self.fast.generate(ids, max_new_tokens=n, do_sample=False, pad_token_id=0) as tracer:
            for step in tracer.iter[:n]:
                out.input[:, :, at] = 0
            done = tracer.result.save()
        return done

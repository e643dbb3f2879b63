"The activation store: the model's own vectors, one plan per folder, the same bytes after a kill, a source that a training goes on from."
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from workbench.features.errors import FeatureError
from workbench.features.store import ActivationStore, contexts
from workbench.features.train import Trainer

PROMPTS = [" ".join(f"Mary gave the book to John and then John gave it back to Mary at the store".split()[:n]) for n in range(3, 15)] * 3


@pytest.fixture(scope="module")
def lm():
    import workbench
    return workbench.load("micro")


def test_vectors_are_the_models_at_token_and_position(lm, tmp_path):
    s = ActivationStore(lm, PROMPTS, "mlp_post.0", tmp_path, to="mlp_out.0", per_shard=10, batch=7).collect(); n = 0
    for name in s.groups:
        t = load_file(tmp_path / f"{name}.safetensors"); n += len(t["x"])
        for i in range(0, len(t["x"]), 11):
            row = s.rows[int(t["context"][i])]; run = lm.run([row], keep=["mlp_post.0", "mlp_out.0"]); p = int(t["pos"][i])
            assert row[p] == int(t["token"][i]) and torch.allclose(run.tensor("mlp_post.0")[0, p], t["x"][i], atol=1e-4) and torch.allclose(run.tensor("mlp_out.0")[0, p], t["y"][i], atol=1e-4)
    assert n == s.plan["tokens"] and s.d_in != s.d_out == lm.d_model and not s.verify()
    told = s.statistics().says(); firsts = sum(len(s.groups[g]) for g in s.groups if g != "held")
    assert told["outliers"] == 0 and abs(told["first_position"] * told["vectors"] - firsts) < 1e-6


def test_each_pass_gives_each_vector_once(lm, tmp_path):
    s = ActivationStore(lm, PROMPTS, "resid_post.0", tmp_path, per_shard=9).collect(); n = s.statistics().n; every = torch.cat([load_file(f)["x"] for f in tmp_path.glob("shard*")])
    order = lambda v: v[np.lexsort(v.numpy().T)]
    for epoch in (0, 3): assert torch.equal(order(s.batch(epoch, n, 5)[0]), order(every))
    assert not torch.equal(s.batch(0, n, 5)[0], s.batch(1, n, 5)[0]) and not torch.equal(s.batch(0, n, 5)[0], s.batch(0, n, 6)[0]) and torch.equal(s.batch(2, 17, 5)[0], s.batch(2, 17, 5)[0])


def test_outliers_are_left_out_and_counted(lm, tmp_path):
    from workbench.lm import edits
    with lm.edited(edits.scale(edits.as_site("resid_post.0").at(pos=0), 1000.0)):
        s = ActivationStore(lm, PROMPTS, "resid_post.0", tmp_path / "a", per_shard=10).collect(); kept = ActivationStore(lm, PROMPTS, "resid_post.0", tmp_path / "b", per_shard=10, outliers=True).collect(); late = ActivationStore(lm, PROMPTS, "resid_post.0", tmp_path / "c", per_shard=10, skip_first=1).collect()
    a, b, c = (v.statistics() for v in (s, kept, late)); contexts_used = sum(len(g) for n, g in s.groups.items() if n != "held")
    assert a.outliers == contexts_used and a.first == 0 and b.first == contexts_used and b.n == a.n + contexts_used and c.outliers == 0 and c.n == a.n


def test_another_plan_is_refused_and_gaps_are_named(lm, tmp_path):
    s = ActivationStore(lm, PROMPTS, "resid_post.0", tmp_path, per_shard=10); next(s.steps())
    with pytest.raises(FeatureError, match="site"): ActivationStore(lm, PROMPTS, "resid_post.1", tmp_path, per_shard=10)
    with pytest.raises(FeatureError, match="text"): ActivationStore(lm, PROMPTS[::-1], "resid_post.0", tmp_path, per_shard=10)
    with pytest.raises(FeatureError, match="collect"): s.statistics()
    with pytest.raises(FeatureError, match="too few"): ActivationStore(lm, PROMPTS[:2], "resid_post.0", tmp_path / "x")


def test_damage_is_found_and_mended(lm, tmp_path):
    a, b = (ActivationStore(lm, PROMPTS, "resid_post.0", tmp_path / k, per_shard=8).collect() for k in "ab"); f = tmp_path / "b" / "shard00001.safetensors"; whole = (tmp_path / "a" / f.name).read_bytes()
    at = whole.index(load_file(tmp_path / "a" / f.name)["x"].numpy().tobytes()); raw = bytearray(whole); raw[at + 5] ^= 1; f.write_bytes(raw); assert b.verify() == ["shard00001"]
    f.write_bytes(whole[:200]); ActivationStore(lm, PROMPTS, "resid_post.0", tmp_path / "b", per_shard=8).collect()
    assert all((tmp_path / "a" / g.name).read_bytes() == g.read_bytes() for g in (tmp_path / "b").glob("*.safetensors"))


def test_training_from_the_store_goes_on_exactly(lm, tmp_path):
    source = lambda: ActivationStore(lm, PROMPTS, "resid_post.1", tmp_path / "s", per_shard=10).collect()
    same = dict(architecture="topk", n_features=80, k=4, steps=20, batch=64, report_every=5, save_every=10, window=640)
    whole = Trainer(source(), **same); list(whole.steps()); first = Trainer(source(), folder=tmp_path / "t", **same)
    for p in first.steps():
        if p.step == 10: break
    first.save_state(); again = Trainer(source(), folder=tmp_path / "t", **same).resume(); list(again.steps())
    assert all(torch.equal(v, again.tensors()[k]) for k, v in whole.tensors().items()) and json.loads(json.dumps(whole.source.about())) == json.loads(json.dumps(again.source.about()))


def test_text_is_cut_into_contexts(lm, tmp_path):
    text = "Mary gave the book to John .\n\n" * 40; (tmp_path / "t.txt").write_text(text); rows = contexts(lm, tmp_path / "t.txt", 16)
    line = lm.tokenizer("Mary gave the book to John .", add_special_tokens=False)["input_ids"]
    assert sum(rows, []) == (line * 40)[:len(sum(rows, []))] and {len(r) for r in rows[:-1]} == {16} and rows == contexts(lm, {"text": text}, 16)
    with pytest.raises(FeatureError, match="no file"): contexts(lm, tmp_path / "none.txt")
    with pytest.raises(FeatureError, match="long string"): contexts(lm, "a text")

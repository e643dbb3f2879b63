"Training steps against the dense autograd form, and a trainer that repeats, goes on after a kill, and saves what it measured."
import json, os, signal, subprocess, sys

import pytest
import torch

from workbench.features import steps
from workbench.features.errors import FeatureError
from workbench.features.formats import open_dictionary
from workbench.features.metrics import explained_variance
from workbench.features.penalties import STEPS, MatryoshkaStep
from workbench.features.steps import BatchTopKStep, TopKStep, batch_topk, row_topk
from workbench.features.superposition import Superposition, score_truth
from workbench.features.train import TensorSource, Trainer, train

WORLD = Superposition(d=16, n_features=32, l0=3)
ROOMY = Superposition(d=32, n_features=64, l0=3, most=0.3)
SMALL = dict(n_features=48, steps=30, batch=128, report_every=10, save_every=10, window=512, held_out=512)
ASKED = {"topk": dict(k=3), "batchtopk": dict(k=3), "matryoshka": dict(k=3), "jumprelu": dict(target=3), "standard": {}, "gated": {}}


# --- the dense form of each loss, as one would write it -------------------------------------------------------------
class Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx, p, t, e): ctx.save_for_backward(p, t); ctx.e = e; return p * (p > t), (p > t).to(p)
    @staticmethod
    def backward(ctx, gf, gc):
        p, t = ctx.saved_tensors; band = ((p - t).abs() < ctx.e / 2).to(p)
        return gf * (p > t), (-(t / ctx.e) * band * gf - band / ctx.e * gc).sum(0), None


def dense(step, x, y, dead):
    w = {k: v.detach().clone().requires_grad_() for k, v in step.named_parameters()}
    z = x - w["b_dec"] if step.subtract_bias else x; p = z @ w["W_enc"].T + w["b_enc"]; extra = 0.0
    if step.name == "jumprelu": f, fires = Jump.apply(p, w["theta"], step.bandwidth); extra = step.weight * (fires.sum(1) / step.target - 1).square().mean()
    elif step.name == "topk": f = p.relu() * torch.zeros_like(p).scatter(1, p.topk(step.k, dim=1).indices, 1.0)
    else: f = p.relu() * (p >= p.detach().flatten().topk(round(step.k * len(p))).values[-1])
    widths = getattr(step, "widths", [len(step.W_enc)]); outs = [f[:, :n] @ w["W_dec"][:n] + w["b_dec"] for n in widths]
    loss = sum((o - y).square().sum(1).mean() for o in outs) / len(widths) + extra
    if len(dead):
        q = p[:, dead]; q = q.relu() * torch.zeros_like(q).scatter(1, q.topk(min(step.dead_k, len(dead)), dim=1).indices, 1.0)
        loss = loss + step.dead_weight * (q @ w["W_dec"][dead] - (y - outs[-1]).detach()).square().sum(1).mean()
    loss.backward(); d = w["W_dec"]
    if step.unit_rows: d.grad -= (d.grad * d).sum(1, keepdim=True).detach() * d.detach()
    return float(loss.detach()), {k: v.grad for k, v in w.items()}


def made(name, d=24, m=96, d_out=None, dtype=torch.float64, k=4, **more):
    step = STEPS[name](d, m, d_out=d_out, **({"target": k} if name == "jumprelu" else {"k": k}), **more); g = torch.Generator().manual_seed(9)
    step.b_enc.data.normal_(0, 0.2, generator=g); step.b_dec.data.normal_(0, 0.5, generator=g)
    if name == "jumprelu": step.theta.data.uniform_(0.0, 0.4, generator=g)
    return step.to(dtype)


@pytest.mark.parametrize("other", [None, 20], ids=["same site", "transcoder"])
@pytest.mark.parametrize("n_dead", [0, 5, 40])
@pytest.mark.parametrize("name", ["topk", "batchtopk", "matryoshka", "jumprelu by entry", "jumprelu by matrix"])
def test_gradients_are_the_dense_ones(name, n_dead, other, monkeypatch):
    monkeypatch.setattr(steps, "BLOCK", 1)                                                # 64 rows are encoded at a time: 150 rows in three pieces
    step = made(name.split()[0], d_out=other); g = torch.Generator().manual_seed(1); x = torch.randn(150, 24, generator=g).double(); x[::9] *= 6; y = x if other is None else torch.randn(150, 20, generator=g).double()
    if "by" in name: step.most = 1.1 if "entry" in name else 0.0
    dead = torch.arange(96 - n_dead, 96); loss, want = dense(step, x, y, dead); got = step.gradients(x, None if other is None else y, dead)
    assert abs(got.total - loss) < 1e-9 * max(1, loss)
    for k, v in step.named_parameters(): assert float((v.grad - want[k]).abs().max()) < 1e-10, k
    if n_dead == 40: assert float(want["W_enc"][dead].abs().max()) > 1e-6                 # the encoder of dead latents learns


@pytest.mark.parametrize("cls, k", [(TopKStep, 16), (BatchTopKStep, 16), (MatryoshkaStep, 16)])
def test_single_precision_at_full_size(cls, k):
    step = made(cls.name, 128, 1024, dtype=torch.float32, k=k); x = Superposition(d=128, n_features=256, l0=12).draw(512)[0]
    _, want = dense(step, x, x, []); got = step.gradients(x)
    for n, v in step.named_parameters(): assert float((v.grad - want[n]).abs().max()) < 2e-6 * max(1, float(want[n].abs().max())), n
    assert int(got.fired.sum()) <= k * 512


def test_training_along_both_forms_stays_together():
    a, b = made("topk"), made("topk"); steps = [torch.optim.Adam(s.parameters(), lr=1e-2) for s in (a, b)]
    for t in range(25):
        x = WORLD.draw(64, t)[0].double() @ torch.eye(16, 24).double(); a.gradients(x)
        for n, g in dense(b, x, x, [])[1].items(): getattr(b, n).grad = g
        for o, s in zip(steps, (a, b)): o.step(); s.after()
    assert max(float((v - dict(b.named_parameters())[k]).detach().abs().max()) for k, v in a.named_parameters()) < 1e-8
    assert torch.allclose(a.W_dec.norm(dim=1), torch.ones(96).double())


# --- who fires ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(6))
def test_row_topk_is_topk(seed):
    g = torch.Generator().manual_seed(seed); n, m = 40, int(torch.randint(3, 400, (), generator=g)); k = int(torch.randint(1, min(m, 20) + 1, (), generator=g))
    p = torch.randn(n, m, generator=g) * torch.rand(n, 1, generator=g) * 10
    if seed % 2: p = p.round()                                                            # many equal entries
    if seed % 3 == 0: p[0] = -1; p[1] = 0
    code = row_topk(p, k); got = code.matrix().to_dense()
    assert int(code.start.diff().max()) <= k and bool((code.value > 0).all()) and torch.equal(got.topk(k, dim=1).values, p.topk(k, dim=1).values.relu())
    assert torch.equal(got[got != 0], p[got != 0])


def test_guard_where_a_fixed_prefilter_is_wrong():
    p = 0.1 * torch.rand(20, 500, generator=torch.Generator().manual_seed(0)); p[3] += 10; k = 16           # one row holds more than 4 k of the batch's largest
    want = p.flatten().topk(k * 20).values; kept = p.topk(4 * k, dim=1).values.flatten().topk(k * 20).values
    assert not torch.equal(want, kept)
    for level in (0.0, 0.05, 10.5, 99.0):
        code, threshold, widened = batch_topk(p, k, level)
        assert torch.equal(code.value.sort(descending=True).values, want) and threshold == float(want[-1]) and widened == (int((p > level).sum()) < k * 20)
    few = -torch.ones(4, 50); few[0, 7] = 2.0; code, threshold, _ = batch_topk(few, 3)
    assert code.value.tolist() == [2.0] and code.column.tolist() == [7] and threshold == 2.0


# --- the trainer --------------------------------------------------------------------------------------------------------
def bits(t): return {k: v.clone() for k, v in t.tensors().items()}
def lines(h): return [{k: v for k, v in r.items() if k != "seconds"} for r in h]


@pytest.mark.parametrize("name", list(STEPS))
def test_saved_is_what_was_measured(name, tmp_path):
    x = 7 * WORLD.draw(3000)[0] + 20; before = x.clone()
    t = Trainer(x, name, folder=tmp_path, **SMALL, **ASKED[name]); list(t.steps()); d = t.result(); back = open_dictionary(tmp_path); v = t.held[0]; f = back.encode(v); last = json.loads((tmp_path / "history.jsonl").read_text().splitlines()[-1])
    assert torch.equal(x, before)                                                         # the caller's vectors are not touched
    assert abs(explained_variance(v, back(v)) - last["explained_variance"]) < 1e-5 and abs(float((f != 0).sum(1).double().mean()) - last["l0"]) < 0.05
    assert torch.allclose(back(v), d(v), atol=2e-3) and last["explained_variance"] > t.history[0]["explained_variance"] - 0.02 and d.meta["trained_steps"] == 30
    with torch.no_grad(): z = t.model; form = (d.encode(v) @ d.directions + d.bias)
    assert torch.allclose(form, d(v), atol=1e-3)


def test_seeds_repeat_and_differ():
    a, b, c = (Trainer(WORLD, "topk", k=3, seed=s, **SMALL) for s in (0, 0, 1))
    for t in (a, b, c): list(t.steps())
    assert all(torch.equal(v, bits(b)[k]) for k, v in bits(a).items()) and lines(a.history) == lines(b.history) and not torch.equal(a.model.W_dec, c.model.W_dec)


def test_pause_changes_nothing_and_stop_keeps():
    plain, paused = (Trainer(WORLD, "batchtopk", k=3, **SMALL) for _ in range(2)); list(plain.steps())
    for p in paused.steps():
        paused.pause()
    at = paused.step
    for p in paused.steps(): pass
    assert at == 10 and all(torch.equal(v, bits(plain)[k]) for k, v in bits(paused).items())
    stopped = Trainer(WORLD, "topk", k=3, **SMALL)
    for p in stopped.steps(): stopped.stop()
    assert stopped.step == 10 and list(stopped.steps()) == [] and stopped.result().meta["trained_steps"] == 10


CHILD = """
import os, signal, sys, torch
torch.set_num_threads(1)
sys.path.insert(0, os.path.dirname(sys.argv[2]))
from test_features_steps import SMALL, WORLD, Trainer
t = Trainer(WORLD, "batchtopk", folder=sys.argv[1], k=3, **SMALL)
step = t._one
def one():
    step()
    if t.step == 27: os.kill(os.getpid(), signal.SIGKILL)
t._one = one
list(t.steps())
"""

def test_goes_on_after_a_kill(tmp_path):
    done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path), __file__], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    threads = torch.get_num_threads(); torch.set_num_threads(1)
    try:
        with open(tmp_path / "history.jsonl", "a") as f: f.write('{"step": 2')              # a line cut off in the middle
        with pytest.raises(FeatureError, match="resume"): list(Trainer(WORLD, "batchtopk", folder=tmp_path, k=3, **SMALL).steps())
        with pytest.raises(FeatureError, match="another"): Trainer(WORLD, "batchtopk", folder=tmp_path, k=4, **SMALL).resume()
        whole, again = Trainer(WORLD, "batchtopk", k=3, **SMALL), Trainer(WORLD, "batchtopk", folder=tmp_path, k=3, **SMALL).resume(); assert again.step == 20
        for t in (whole, again): list(t.steps())
        assert all(torch.equal(v, bits(whole)[k]) for k, v in bits(again).items()) and lines(again.history) == lines(whole.history)
        assert lines(map(json.loads, (tmp_path / "history.jsonl").read_text().splitlines())) == lines(whole.history)
    finally: torch.set_num_threads(threads)
    state = tmp_path / "state.safetensors"; state.write_bytes(state.read_bytes()[:500])
    with pytest.raises(FeatureError, match="not a whole training state"): Trainer(WORLD, "batchtopk", folder=tmp_path, k=3, **SMALL).resume()


def test_threshold_is_right_from_the_start():
    t = Trainer(WORLD, "batchtopk", n_features=256, k=4, steps=50, batch=512, decay=0, report_every=10); l0 = [p.record["l0"] for p in t.steps()]
    assert all(2 < v < 8 for v in l0), l0
    with pytest.raises(FeatureError, match="threshold"): Trainer(WORLD, "batchtopk", k=4, n_features=64).dictionary().encode(WORLD.draw(4)[0])


def test_dead_latents_come_back_and_find_features():
    def half(weight):
        t = Trainer(ROOMY, "topk", k=3, n_features=80, steps=150, batch=512, lr=3e-3, report_every=150, window=5120, dead_weight=weight)
        t.model.b_enc.data[30:] = -1.5; list(t.steps()); return t.history[-1]["dead"], float(score_truth(t.result(), ROOMY, 2048).mmcs)
    (dead, found), (still, fewer) = half(1 / 32), half(0.0)
    assert still > 0.4 and dead < 0.25 * still and found > fewer + 0.05


# --- where latents start --------------------------------------------------------------------------------------------------
def test_rows_start_along_the_vectors_given():
    x = 5 * torch.randn(96, 24, generator=torch.Generator().manual_seed(2)) + 3; unit = torch.nn.functional.normalize
    a, b = TopKStep(24, 96, k=4), TopKStep(24, 96, k=4, subtract_bias=False); before = a.W_dec.detach().clone()
    for s in (a, b): s.b_dec.data.copy_(x.mean(0)); s.start_along(x)
    toward, was = ((unit(w, dim=1) * unit(x - x.mean(0), dim=1)).sum(1) for w in (a.W_dec.detach(), before))
    assert float(toward.min()) > 0.9 > float(was.max()) and torch.allclose(a.W_dec.norm(dim=1), torch.ones(96)) and torch.allclose(a.W_enc, a.reach * a.W_dec)
    with torch.no_grad(): assert torch.allclose(*(s.centred(x) @ s.W_enc.T + s.b_enc for s in (a, b)), atol=1e-4)      # the same start, whatever the encoder subtracts
    a.b_dec.data.zero_(); a.start_along(torch.zeros(96, 24)); assert bool(torch.isfinite(a.W_dec).all())
    a.start_along(x[:1].expand(96, -1)); c = a.W_dec @ a.W_dec.T - torch.eye(96); assert 0.8 < float(c.detach().median()) and float(c.detach().max()) < 0.9999
    with pytest.raises(FeatureError, match="one vector for each"): a.start_along(x[:50])


def test_trainer_starts_along_data_of_its_first_batches():
    t, unit = Trainer(WORLD, "jumprelu", target=3, start="data", **SMALL), torch.nn.functional.normalize; x = WORLD.batch(0, 128, 0); mean = t.model.b_dec.detach() / t.scale
    assert float((unit(t.model.W_dec.detach(), dim=1) @ unit(x - mean, dim=1).T).max(1).values.min()) > 0.9 and torch.allclose(mean, x.mean(0), atol=1e-6)
    wide = Trainer(WORLD, "topk", k=3, start="data", **SMALL | dict(n_features=300)); assert torch.linalg.matrix_rank(wide.model.W_dec[:16]) == 16        # more latents than a batch has vectors
    other = lambda start: Trainer((x, x @ torch.randn(16, 8, generator=torch.Generator().manual_seed(0))), "topk", k=3, start=start, **SMALL).model.W_dec
    assert torch.equal(other("data"), other("random"))                                     # a transcoder starts at random
    with pytest.raises(FeatureError, match="'data' vectors or in 'random'"): Trainer(WORLD, k=3, start="kmeans")


@pytest.mark.parametrize("name", ["topk", "batchtopk", "jumprelu"])
def test_a_start_along_data_finds_more(name):
    def found(**more):
        world = Superposition(d=24, n_features=72, l0=3, seed=4)
        t = Trainer(world, name, n_features=144, **({"target": 3} if name == "jumprelu" else {"k": 3}), steps=200, batch=256, lr=3e-3, decay=0.0, report_every=200, **more)
        list(t.steps()); return float(score_truth(t.dictionary(), world, 2048).mmcs)
    along, blind = found(start="data", betas=(0.9, 0.99)), found(); assert along > blind + 0.04, (along, blind)      # .915 and .803, .891 and .770, .861 and .784 where this was written


def test_jumprelu_finds_the_world():
    t = Trainer(ROOMY, "jumprelu", target=3, n_features=96, steps=600, batch=512, lr=3e-3, report_every=600); start = score_truth(t.dictionary(), ROOMY, 2048); list(t.steps()); end = score_truth(t.result(), ROOMY, 2048)
    assert float(end.mmcs) > 0.93 and float(end.found) > 0.8 and float(start.found) < 0.1 and 2 < t.history[-1]["l0"] < 5, (float(end.mmcs), float(end.found), t.history[-1]["l0"])


def test_source_holds_out_and_visits_all():
    x = torch.arange(200.)[:, None] + torch.zeros(1, 3); s = TensorSource(x, held_out=0.2); held = set(s.held_out(1000, 0)[0][:, 0].tolist())
    seen = [set(torch.cat([s.batch(t, 40, 5)[0][:, 0] for t in range(e * 4, e * 4 + 4)]).tolist()) for e in (0, 1)]
    assert len(held) == 40 and seen[0] == seen[1] == set(x[:, 0].tolist()) - held and not torch.equal(s.batch(0, 40, 5)[0], s.batch(4, 40, 5)[0])
    assert not torch.equal(s.batch(0, 40, 5)[0], s.batch(0, 40, 6)[0]) and torch.equal(s.batch(3, 100, 5)[0], s.batch(3, 100, 5)[0])


def test_refusals():
    for bad, says in ((dict(architecture="topkk"), "Did you mean"), (dict(kk=3), "knows k"), (dict(k=500, n_features=40), "from 1 to"), (dict(lr=-1.0), "above 0")):
        with pytest.raises(FeatureError, match=says): Trainer(WORLD, **{"architecture": "topk", **bad})
    with pytest.raises(FeatureError, match="nothing to learn"): Trainer(torch.ones(50, 4))
    with pytest.raises(FeatureError, match="Nothing has been trained"): Trainer(WORLD, k=3).result()
    with pytest.raises(FeatureError, match="not finite"): train(1e30 * WORLD.draw(500)[0], "topk", k=3, scale=1e10, steps=3, batch=64)

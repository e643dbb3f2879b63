"""Memory and context in one and two directions: planted amounts, held-out people of a trained model, an untrained model, random and shuffled planes."""
import random

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.bias.pkck_subspace import CONDITIONS, SOURCES, PkckError, answered, end_states, explanation, pkck_subspace, planted, residuals, separation, source_cases, step_shares
from workbench.zoo.retrain import recipe, start

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def fit(): return {c: planted(c, seed=11)[0].flatten(0, 1) for c in CONDITIONS}


@pytest.fixture(scope="module")
def flat(): return {k: planted(k, n=160, steps=1, seed=12)[0][:, 0] for k in ("neither", "complementary", "supportive")}


def test_amounts_are_least_squares_in_oblique_axes(fit):
    "Without noise the planted amounts come back exactly; otherwise they are numpy's least squares."
    g = np.random.default_rng(0); a, b, o = g.standard_normal((3, 20)); rows = lambda m, c: torch.tensor(np.tile(o + m * a + c * b, (3, 1)))
    plane = pkck_subspace({"neither": rows(0, 0), "memory": rows(1, 0), "context": rows(0, 1)})
    assert torch.allclose(plane.amounts(rows(.3, -1.7)), torch.tensor([.3, -1.7]).double().expand(3, 2)) and torch.allclose(plane.balance(rows(1, 0)), -torch.ones(3).double()) and torch.allclose(plane.balance(rows(0, 1)), torch.ones(3).double())
    x = fit["memory"][:5].numpy(); p = pkck_subspace(fit); axes = torch.stack([p.memory, p.context], 1).numpy()
    assert np.allclose(p.amounts(torch.tensor(x)).numpy(), np.linalg.lstsq(axes, (x - p.origin.numpy()).T, rcond=None)[0].T)
    for r in (1, 2): assert torch.allclose(p.basis(r).T @ p.basis(r), torch.eye(r), atol=1e-6)


def test_planted_steps_come_back(fit):
    "S097: the amounts of every step, while rank 1 reads the same balance in different cases."
    plane = pkck_subspace(fit)
    for kind in ("handing over", "complementary", "supportive"):
        states, truth = planted(kind, seed=13); out = step_shares(plane, states); read = np.stack([out.memory.mean("explanation"), out.context.mean("explanation")], 1)
        assert abs(read - truth).max() < .15 and abs(float(out.balance.mean())) < .12
    assert (out.memory_low < out.memory.mean("explanation")).all() and (out.memory_high > out.memory.mean("explanation")).all()


def test_rank_two_separates_what_rank_one_merges(fit, flat):
    "S097: complementary and supportive, held out; a lower residual than one direction and than planes of shuffled labels."
    s = separation(pkck_subspace(fit), flat["complementary"], flat["supportive"])
    assert abs(float(s.auroc[0]) - .5) < .15 and float(s.auroc[1]) > .9 and float(s.auroc[1]) > float(s.random.quantile(.9))
    r = residuals(fit, flat, draws=60); assert (r.residual[:, 0] > .9).all() and (r.residual[:, 1] < .15).all() and (r.p < .02).all()


def test_noise_has_no_plane():
    "States of no kind: chance, and no better than shuffled labels."
    g = torch.Generator().manual_seed(0); noise = lambda n=150: torch.randn(n, 30, generator=g); fit = {c: noise() for c in CONDITIONS}
    s = separation(pkck_subspace(fit), noise(), noise()); r = residuals(fit, {c: noise() for c in CONDITIONS}, draws=60)
    assert (abs(s.auroc - .5) < .16).all() and float(r.p.min()) > .02


@pytest.fixture(scope="module")
def qa():
    "model -> half -> kind -> states, of the cases that `qa` answered from the source meant; and the cases."
    lm = wb.load("qa"); model, tok = start(recipe("qa")); fresh = wb.load(model, tokenizer=tok, check=False); out, cases = {"qa": {}, "untrained": {}}, {}
    for half in ("fit", "test"):
        cases[half] = {k: v for k, v in source_cases(half, 120, seed=5).items() if k != "conflicting"} | {"conflicting": source_cases(half, 4, seed=5)["conflicting"]}
        got = {n: {k: end_states(m, [c[0] for c in cs], 1) for k, cs in cases[half].items()} for n, m in (("qa", lm), ("untrained", fresh))}
        rows = answered(lm, cases[half], {k: t for k, (_, t) in got["qa"].items()})
        for n in got: out[n][half] = {k: got[n][k][0][rows[k]] for k in SOURCES if k != "conflicting"}
    return out, cases, lm


def test_cases_differ_in_names_only(qa):
    "Of one draw, said or not said about the person: the same words; fit and test share no person."
    from workbench.bias.pkck_subspace import HALVES, source_case
    for i in range(20):
        said, unsaid = (source_case(random.Random(i), False, s, *HALVES["fit"])[0] for s in ("other", None))
        assert sorted(said.replace(".", "").split()) == sorted(unsaid.replace(".", "").split()) and said != unsaid
    names = {h: {p.split("What has ")[-1].split()[0] if "What has" in p else p.split("Where does ")[-1].split()[0] for k in SOURCES for p, *_ in qa[1][h][k]} for h in qa[1]}
    assert not names["fit"] & names["test"]


def test_two_directions_in_a_trained_model(qa):
    "People it was not fitted on (over seven draws the plane had .73 to .95, rank 1 .26 to .63): the plane sees that the passage speaks of the stranger, rank 1 does not; the untrained model has neither."
    states, _, _ = qa; got = {}
    for n in states:
        plane, held = pkck_subspace({c: states[n]["fit"][c] for c in CONDITIONS}), states[n]["test"]
        got[n] = {k: separation(plane, held[k], held["neither"], draws=20).auroc.values for k in ("memory", "context", "supportive")}, residuals({c: states[n]["fit"][c] for c in CONDITIONS}, held, draws=60)
    assert got["qa"][0]["context"][1] > .65 and got["qa"][0]["context"][0] < got["qa"][0]["context"][1] - .08 and got["qa"][0]["memory"][1] > .85 and (got["qa"][1].p < .02).all()
    assert (got["qa"][1].residual[:, 1] < got["qa"][1].residual[:, 0] - .1).all()
    assert all(abs(a - .5) < .22 for v in got["untrained"][0].values() for a in v) and float(got["untrained"][1].p.min()) > .02


def test_answers_in_turn_zigzag(qa):
    "Four answers: where memory and passage answer in turn, both amounts do, in opposite ways."
    states, _, lm = qa; plane = pkck_subspace({c: states["qa"]["fit"][c] for c in CONDITIONS}); texts = [explanation(random.Random(i), "complementary") for i in range(30)]
    assert all(b.startswith(a) for t in texts for a, b in zip(t, t[1:]))
    out = step_shares(plane, end_states(lm, [p for t in texts for p in t], 1)[0].unflatten(0, (30, 4)))
    assert float(out.memory[:, ::2].mean() - out.memory[:, 1::2].mean()) > .25 and float(out.context[:, ::2].mean() - out.context[:, 1::2].mean()) < -.25


@pytest.mark.parametrize("call, says", [
    (lambda f: pkck_subspace({"memory": f["memory"]}), "no states for 'neither'"), (lambda f: pkck_subspace({**f, "context": f["memory"]}), "along one line"),
    (lambda f: pkck_subspace({**f, "memory": f["memory"] * np.nan}), "finite rows"), (lambda f: pkck_subspace(f).basis(0), "rank 1 or 2"),
    (lambda f: step_shares(pkck_subspace(f), f["memory"]), "explanation, step, d"), (lambda f: residuals(f, {"memory": f["memory"]}), "'neither' too"), (lambda f: explanation(random.Random(0), "both"), "'complementary'")])
def test_bad_input_says_what_to_do(fit, call, says):
    with pytest.raises(PkckError, match=says): call(fit)

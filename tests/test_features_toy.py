"""Toy models against arithmetic: exact losses, the known phases, dimensionality of known shapes; sparse probes and absorption against what was planted."""
import numpy as np
import pytest
import torch

from workbench.features.errors import FeatureError
from workbench.features.superposition import generator
from workbench.features.toy import best_losses, dimensionality, exact_loss, known_boundary, known_losses, phase_map, shapes, train_toys

torch.set_num_threads(1)


# --- toy models ---------------------------------------------------------------------------------------------------------
def by_hand(W, b, p, r, n=1500):
    "The expected loss by a plain midpoint sum over the square, another way than the module's."
    t = (np.arange(n) + .5) / n; w, v = W; total = 0.
    for (x, y, weight) in ((np.zeros(1), np.zeros(1), (1 - p) ** 2), (t, np.zeros(1), p * (1 - p)), (np.zeros(1), t, p * (1 - p)), (t, t, p * p)):
        X, Y = np.meshgrid(x, y, indexing="ij"); h = w * X + v * Y
        total += weight * float(((X - np.maximum(w * h + b[0], 0)) ** 2 + r * (Y - np.maximum(v * h + b[1], 0)) ** 2).mean())
    return total


@pytest.mark.parametrize("W, b, p, r", [((.9, -.7), (.03, -.05), .4, .5), ((.6, .5), (-.1, .2), .9, 3.), ((1., 0.), (0., .1), .2, 1.), ((-.8, .3), (.2, -.2), .05, .1)])
def test_the_exact_loss(W, b, p, r): assert float(exact_loss(W, b, p, r)) == pytest.approx(by_hand(W, b, p, r), rel=2e-5, abs=1e-8)


def test_known_losses_are_losses_and_the_boundary_is_where_they_meet():
    for p in (.05, .3, .55):
        r = float(known_boundary(p)); first, _, both = known_losses(p, r); assert first == pytest.approx(both)
        for way, (W, b) in enumerate((((1, 0), (0, p / 2)), ((0, 1), (p / 2, 0)), ((1, -1), (0, 0)))): assert by_hand(W, b, p, r) == pytest.approx(float(known_losses(p, r)[way]), rel=1e-5)
    assert np.isnan(known_boundary(.6)) and known_losses(.6, 1).argmin() != 2 and known_losses(.5, 1).argmin() == 2


def test_the_optimum_is_not_above_any_point():
    p, r = np.array([.9, .4, .1]), np.array([.3, 1., 2.]); best, W = best_losses(p, r); g = np.random.default_rng(0)
    for _ in range(300): assert (np.asarray(exact_loss(g.normal(0, .8, (3, 2)), g.normal(0, .2, (3, 2)), p, r)) >= best.numpy() * (1 - 1e-6)).all()
    assert (best.numpy() <= known_losses(p, r).min(0) * (1 + 1e-6)).all()


def test_trained_phases_are_the_known_ones_and_untrained_are_not():
    p, r = np.array([.8, .3, .08]), np.array([.12, .5, 2., 8.]); ds = phase_map(p, r, steps=800); far = np.abs(np.log(known_losses(*np.meshgrid(p, r, indexing="ij"))[2] / np.sort(known_losses(*np.meshgrid(p, r, indexing="ij"))[:2], 0)[0])) > .25
    assert (ds.trained.values == ds.known.values)[far].all() and far.mean() > .7 and float((ds.loss / ds.best_loss).max()) < 1.1 and float((ds.loss / ds.best_loss).min()) > .999
    blank = phase_map(p, r, steps=0); assert float((blank.loss / blank.best_loss).min()) > 1.2 and float((blank.trained == blank.known).mean()) < .8


def test_dimensionality_of_regular_shapes_and_its_bound():
    turn = lambda n: torch.stack([torch.cos(t := 2 * torch.pi * torch.arange(n) / n), torch.sin(t)])
    for n in (3, 5, 7): assert torch.allclose(dimensionality(3 * turn(n)), torch.full((n,), 2 / n), atol=1e-5)
    eye = torch.eye(4); assert torch.allclose(dimensionality(torch.cat([eye, -eye], 1)), torch.full((8,), .5)) and torch.allclose(dimensionality(eye), torch.ones(4))
    W = torch.randn(200, 5, 13, generator=generator(2)); assert float(dimensionality(W).sum(-1).max()) < 5
    a = torch.pi / 4; square = lambda at, z: torch.stack([torch.cos(t := at + torch.pi / 2 * torch.arange(4)), torch.sin(t), torch.full((4,), z)])
    antiprism = torch.cat([square(0, .707), square(a, -.707)], 1); assert torch.allclose(dimensionality(antiprism), torch.full((8,), 3 / 8), atol=1e-3) and shapes(antiprism, .01)[0]["name"] == "square antiprism"
    assert bool(dimensionality(torch.tensor([[1., 0.]])).isnan()[1])


def test_shapes_are_found_by_training():
    assert [s["name"] for s in shapes(train_toys(5, 2, .05, steps=900, batch=160).W[0])] == ["pentagon"]
    pairs = shapes(train_toys(6, 3, .05, steps=900, batch=160).W[0]); assert [s["name"] for s in pairs] == ["antipodal pair"] * 3 and all(abs(s["D"] - .5) < .02 for s in pairs)


def test_seeds_and_refusals():
    a, b = (train_toys(4, 2, .1, starts=2, steps=30, seed=3) for _ in range(2)); assert torch.equal(a.W, b.W) and torch.equal(a.loss, b.loss) and len(a) == 1 and a[0].W.shape == (1, 2, 4)
    for bad, says in ((dict(density=0.), "above 0 and at most 1"), (dict(density=1.5), "at most 1"), (dict(importance=[[1., 2.]]), "one for each instance"), (dict(lr=0), "above 0")):
        with pytest.raises(FeatureError, match=says): train_toys(4, 2, **bad)

"""The theory room: laws on random cases, closed forms, and what is refused."""
import math
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest

from workbench.theory import (BayesLens, Discrete, Distribution, Gaussian, Memorize, TheoryError, as_lens, broken, commutant, commutator, compose, independent, layer, marginals, mutual_information, opposed, pair, partition_basis,
                              play, restricted_bell, set_partitions, train)
from workbench.theory.bayes_lens import draw_belief, draw_discrete, draw_gaussian
from workbench.theory.learner import under
from workbench.theory.lens import coordinate, part
from workbench.theory.memorize import Constant, Nearest, far, few, fresh, rare
from workbench.theory.novelty_tracer import Corpus, copied_share, invented, trace
from workbench.theory.partition_basis import burnside
from workbench.theory.prob_monad import draw_distribution, flatten, unit
from workbench.theory.token_information import binary_entropy, directed_information, draw_markov, hamming_bits, markov_bits, rate_distortion, stationary


@pytest.mark.parametrize("n, k, l", [(1, 1, 1), (2, 0, 2), (2, 2, 1), (3, 1, 1), (3, 2, 1), (3, 2, 2), (4, 1, 2)])
@pytest.mark.parametrize("kind", ["orbit", "diagram"])
def test_a_basis_of_all_equivariant_maps(n, k, l, kind):
    b = partition_basis(n, k, l, kind); assert b.sizes == {"partition": restricted_bell(k + l, n), "out": n ** l, "in": n ** k}
    assert all(commutator(w, g, k, l) == 0 for w in b.values for g in permutations(range(n))) and np.linalg.matrix_rank(b.values.reshape(len(b), -1)) == len(b) == commutant(n, k, l) == burnside(n, k + l)
    if kind == "orbit": assert (b.sum("partition") == 1).all()                      # every entry belongs to one pattern
    if n > 1 and k and l: assert max(commutator(np.random.default_rng(0).normal(size=b.shape[1:]), g, k, l) for g in permutations(range(n))) > .1


def test_diagrams_multiply_and_bad_sizes_are_told():
    p = dict(zip(map(str, set_partitions(4)), set_partitions(4))); b = partition_basis(3, 2, 2).values
    for i, q in enumerate(p.values()):
        for j, r in enumerate(p.values()):
            joined, loose = compose(q, r, 2, 2, 2); whole = partition_basis(3, 2, 2).sel(partition="|".join(" ".join(str(t + 1) for t, x in enumerate(joined) if x == c) for c in range(max(joined) + 1))).values if i < 3 and max(joined) < 3 else None
            if whole is not None and max(q) < 3 and max(r) < 3: name = [s for s in set_partitions(4, 3)]; assert np.array_equal(b[name.index(q)] @ b[name.index(r)], 3 ** loose * whole)
    for call in (lambda: partition_basis(0, 1, 1), lambda: partition_basis(3, 1, 1, "other"), lambda: partition_basis(12, 4, 4), lambda: compose((0, 0), (0, 0), 2, 1, 1)):
        with pytest.raises(TheoryError): call()


@pytest.mark.parametrize("seed", range(12))
def test_marginals_of_a_product_and_the_converse(seed):
    rng = np.random.default_rng(seed); p, q = draw_distribution(rng, 4), draw_distribution(rng, 3); assert marginals(pair(p, q)) == (p, q) and mutual_information(pair(p, q)) == 0
    r = draw_distribution(rng, 6).map(lambda i: (i // 2, i % 2)); assert (pair(*marginals(r)) == r) == independent(r) == (mutual_information(r) < 1e-12) and mutual_information(r) > -1e-12
    kernel = {i: draw_distribution(rng, 2) for i in range(4)}; assert flatten(p.map(unit)) == p and p.bind(kernel.get) == flatten(p.map(kernel.get)) and sum(p.bind(kernel.get).weights.values()) == 1
    tied = Distribution({(0, 0): Fraction(1, 2), (1, 1): Fraction(1, 2)}); assert not independent(tied) and marginals(tied) == (Distribution({0: Fraction(1, 2), 1: Fraction(1, 2)}),) * 2 and mutual_information(tied) == 1


@pytest.mark.parametrize("kind, draw", [("discrete", draw_discrete), ("gaussian", draw_gaussian)])
def test_composed_inversions_are_the_inversion_of_the_composite(kind, draw):
    rng = np.random.default_rng(1)
    for _ in range(60):
        sizes = rng.integers(1, 6, rng.integers(3, 6)); lens = BayesLens(*(draw(rng, a, b) for a, b in zip(sizes, sizes[1:]))); belief = draw_belief(rng, sizes[0], kind == "gaussian")
        assert lens.backward(belief).gap(lens.forward().invert(belief)) < 1e-12
        again = lens.forward().push(belief); back = lens.backward(belief).push(again)                 # averaged over effects, the belief comes back
        assert np.allclose(back, belief, atol=1e-9) if kind == "discrete" else all(np.allclose(x, y, atol=1e-8) for x, y in zip(back, belief))


def test_the_wrong_belief_shows_and_impossible_effects_stay_missing():
    rng = np.random.default_rng(2); f, g, belief = draw_discrete(rng, 3, 3), draw_discrete(rng, 3, 4), draw_belief(rng, 3); assert g.invert(belief).then(f.invert(belief)).gap(f.then(g).invert(belief)) > .01
    gate = Discrete(np.eye(3)[:2]); assert np.isnan(gate.invert([.5, .5]).matrix[2]).all() and not np.isnan(BayesLens(gate, g).backward([.5, .5]).matrix).any()
    for call in (lambda: Discrete([[.5, .6]]), lambda: f.invert([.5, .5]), lambda: Gaussian([[1.]], [0., 1.], [[1.]])):
        with pytest.raises(TheoryError): call()


def test_learners_compose_as_lenses_and_as_backpropagation():
    import torch
    rng = np.random.default_rng(3); p, q = (rng.normal(size=(4, 3)), rng.normal(size=4)), (rng.normal(size=(2, 4)), rng.normal(size=2)); l, m = layer(.1, "tanh"), layer(.1, "tanh")
    data = [(rng.normal(size=3), rng.uniform(-1, 1, size=2)) for _ in range(30)]; whole = train(l.then(m), (p, q), data); w = [torch.tensor(x, requires_grad=True) for x in (*p, *q)]
    for x, y in data: w = [(a - .1 * g).detach().requires_grad_() for a, g in zip(w, torch.autograd.grad(.5 * ((torch.tanh(w[2] @ torch.tanh(w[0] @ torch.tensor(x) + w[1]) + w[3]) - torch.tensor(y)) ** 2).sum(), w))]
    assert all(np.allclose(a, b.detach().numpy(), atol=1e-12) for a, b in zip((*whole[0], *whole[1]), w))
    x, y = data[0]; (P, Q), asked = as_lens(l.then(m)).put(((p, q), x), y); Q2, (P2, asked2) = under(as_lens(l)).then(as_lens(m)).put((q, (p, x)), y)
    assert all(np.array_equal(a, b) for a, b in zip((*P, *Q, asked), (*P2, *Q2, asked2)))


def test_lens_laws_hold_where_they_must_and_break_where_they_must():
    rng = np.random.default_rng(4); u = rng.normal(size=5); u /= np.linalg.norm(u); wholes, views = list(rng.normal(size=(20, 3, 5))), list(rng.normal(size=21))
    assert set(broken(part(1).then(coordinate(u)), wholes, views).values()) == {0.}
    from workbench.theory import Lens
    assert broken(Lens(lambda s: s[1] @ u, lambda s, v: s + v), wholes, views)["put then get"] == 1
    with pytest.raises(TheoryError, match="length 2"): coordinate(2 * u)


def test_memory_pays_once_for_each_input():
    n = 600; r = play(Memorize(), few(n), far); assert float(r.sum()) == pytest.approx(sum(far(v) ** 2 for v in set(few(n)))) and float(r.average[-1]) < float(r.average[50]) / 5
    at = [2 ** k for k in range(10)]; assert np.allclose(play(Memorize(), rare(n), far).sel(time=at).values, at)
    for rule in (Memorize, Nearest, Constant): assert opposed(rule(), fresh(200)).average.values[-1] >= 100
    assert float(opposed(Memorize(), few(n)).average[-1]) < .5
    with pytest.raises(TheoryError, match="empty"): play(Memorize(), [], far)


def test_directed_information_knows_the_direction_and_its_closed_form():
    rng = np.random.default_rng(5); x = rng.integers(2, size=40_000); y = np.roll(x, 1) ^ (rng.random(40_000) < .11); assert abs(directed_information(x, y) - (1 - binary_entropy(.11))) < .01 and abs(directed_information(y, x)) < .005 and abs(directed_information(rng.integers(2, size=40_000), y)) < .005
    T = rng.dirichlet(np.ones(4) * 3, 4); s = draw_markov(T, 40_000); p = stationary(T); assert np.allclose(p @ T, p) and np.abs(np.bincount(s, minlength=4) / 40_000 - p).max() < .02 and markov_bits(np.full((3, 3), 1 / 3))["predictive"] == pytest.approx(0, abs=1e-12)
    D, R = rate_distortion(T, np.linspace(6, 9, 4), p); assert (D < 3 * T.min()).all() and np.allclose(R, hamming_bits(markov_bits(T)["rate"], 4, D), atol=1e-4)
    for call in (lambda: stationary([[1., 0], [0, 1]]), lambda: stationary([[.5, .4]]), lambda: directed_information([1, 2], [1, 2])):
        with pytest.raises(TheoryError): call()


def test_copied_spans_and_new_names():
    c = Corpus(["the player Ann Lee won the long game".split(), "the player Bob Ray lost".split()], n=3); words = "now the player Ann Ray won the long game".split()
    assert [(s.start, s.end, s.copied) for s in trace(words, c)] == [(0, 1, False), (1, 4, True), (4, 5, False), (5, 9, True)] and copied_share(words, c) == 7 / 9 and copied_share(words[::-1], c) == 0
    kinds = {"player": ({"Ann", "Bob"}, {"Lee", "Ray"})}; seen = {("player", "Ann Lee"): 1, ("player", "Bob Ray"): 1}; assert invented(words, seen, kinds) == [("player", "Ann Ray", 3)] and invented(["player", "Ann", "Lee"], seen, kinds) == []
    assert copied_share("lost the".split(), c) == 0 and copied_share([], c) == 0 and not math.isnan(copied_share(["a"], c))
    with pytest.raises(TheoryError): Corpus([["a"]], n=3)


def test_learners_by_value_and_by_policy_reach_the_best_return():
    from itertools import product
    from workbench.theory.rl_basics import World, corridor, greedy, policy_gradient, q_learning, reinforce, value_iteration
    w = corridor(); best = max(float(w.value(np.eye(2)[list(p)]).mean()) for p in product(range(2), repeat=5)); got = lambda p: float(w.value(p).mean())
    assert got(greedy(value_iteration(w))) == pytest.approx(best) and got(greedy(q_learning(w, 10_000))) == pytest.approx(best) and got(policy_gradient(w, 1500)) > .99 * best and got(reinforce(w, 1500)) > .93 * best
    dull = World(np.full((3, 2, 3), 1 / 3), np.ones((3, 2))); assert np.allclose(policy_gradient(dull, 20), .5) and np.allclose(value_iteration(dull), 10)
    with pytest.raises(TheoryError): World(np.ones((2, 2, 2)), np.ones((2, 2)))

"""Semi-non-negative factors against their own theorem, planted groups, counting, and noise."""
import pytest
import torch

from workbench.features.dictionary import Components, nonnegative_codes, random_dictionary
from workbench.features.errors import FeatureError
from workbench.features.formats import open_dictionary, save_dictionary
from workbench.features.snmf import concept_scores, factor_step, feature_tree, neuron_groups, ranks_above, snmf, use_step

torch.set_num_threads(1)


def planted(seed, n=1000, d=30, k=4, used=.2):
    g = torch.Generator().manual_seed(seed); rows = torch.zeros(k, d)
    for j in range(k): rows[j, j * 7:j * 7 + 3] = torch.randn(3, generator=g).sign() * (.5 + torch.rand(3, generator=g))
    uses = torch.rand(n, k, generator=g) * (torch.rand(n, k, generator=g) < used)
    return uses @ rows + .02 * torch.randn(n, d, generator=g), rows, uses

@pytest.mark.parametrize("seed", range(3))
def test_the_error_never_rises_and_uses_stay_positive(seed):
    g = torch.Generator().manual_seed(seed); A, G = torch.randn(9, 50, generator=g).double(), torch.rand(50, 3, generator=g).double() + .1; last = float("inf")
    for _ in range(40):
        F = factor_step(A, G); now = float((A - F @ G.T).square().sum()); assert now <= last + 1e-6
        best = A @ G @ torch.linalg.inv(G.T @ G); assert float((F - best).abs().max()) < 1e-4                       # the closed form of least squares
        G = use_step(A, F, G); last = float((A - F @ G.T).square().sum()); assert last <= now + 1e-9 and bool((G >= 0).all())

def test_one_update_by_hand():
    "Entry by entry, from the formula."
    A, F, G = torch.tensor([[1., -2.], [3., .5]]), torch.tensor([[1., -1.], [.5, 2.]]), torch.tensor([[.4, 1.], [2., .3]]); B, C = A.T @ F, F.T @ F; out = torch.zeros(2, 2)
    for i in range(2):
        for j in range(2):
            up = max(float(B[i, j]), 0) + sum(float(G[i, m]) * max(-float(C[m, j]), 0) for m in range(2)); down = max(-float(B[i, j]), 0) + sum(float(G[i, m]) * max(float(C[m, j]), 0) for m in range(2)); out[i, j] = G[i, j] * (up / down) ** .5
    assert torch.allclose(use_step(A, F, G), out, atol=1e-6)

@pytest.mark.parametrize("seed", range(6))
def test_planted_groups_come_back_with_neurons_and_signs(seed):
    x, rows, uses = planted(seed); s = snmf(x, 4, share=.1, seed=seed); cosine = s.directions @ torch.nn.functional.normalize(rows, dim=-1).T; at = cosine.argmax(0)
    assert float(cosine.max(0).values.min()) > .98 and {frozenset(r) for r in neuron_groups(s, 3).neuron.values.tolist()} == {frozenset(range(j * 7, j * 7 + 3)) for j in range(4)}
    f = s.encode(x); assert all(float(torch.corrcoef(torch.stack([f[:, at[j]], uses[:, j]]))[0, 1]) > .97 for j in range(4)) and s.meta["error"] < .05

def test_noise_has_no_groups():
    "The share of neurons kept explains what chance gives it: noise leaves most of the length out."
    x = torch.randn(1000, 30, generator=torch.Generator().manual_seed(0)); assert snmf(x, 4, share=.1).meta["error"] > .8

def test_ranks_against_counting_pairs_and_search_against_luck():
    g = torch.Generator().manual_seed(1); f, y = torch.randint(0, 5, (80, 3), generator=g).float(), torch.rand(80, generator=g) < .3
    for j in range(3): p, q = f[y, j], f[~y, j]; assert abs(float(ranks_above(f, y)[j]) - float(((p[:, None] > q).double() + .5 * (p[:, None] == q).double()).mean())) < 1e-9
    assert ranks_above(f, torch.ones(80)).isnan().all()
    f = torch.randn(2000, 50, generator=g); y = torch.rand(2000, generator=g) < .2; f[:, 7] += 3 * y
    s = concept_scores(f, {"planted": y, "noise": torch.rand(2000, generator=g) < .2}); assert s.feature.values[0] == 7 and float(s.auroc[0]) > .95 and abs(float(s.auroc[1]) - .5) < .1 and bool((abs(s.shuffled - .5) < .1).all())

def test_tree_of_planted_families_and_of_noise():
    g = torch.Generator().manual_seed(2); base = torch.nn.functional.normalize(torch.randn(3, 40, generator=g), dim=-1); leaves = base.repeat_interleave(4, 0) + .06 * torch.randn(12, 40, generator=g)
    tree = feature_tree(Components(torch.zeros(40), leaves, "snmf"), (3, 2)); assert sorted(tree.children(1, p) for p in range(3)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]] and len(tree.levels) == 3
    noise = feature_tree(random_dictionary(40, 12), (3,)); assert float(tree.held[0].mean()) > float(noise.held[0].mean()) + .3
    for bad in ((12,), (), (4, 5)):
        with pytest.raises(FeatureError, match="sizes"): feature_tree(random_dictionary(40, 12), bad)

def test_refusals_and_the_way_to_disk(tmp_path):
    x, *_ = planted(0)
    for kw in (dict(k=0), dict(k=3, share=0), dict(k=3, share=2), dict(k=5000)):
        with pytest.raises(FeatureError, match="share"): snmf(x, **kw)
    with pytest.raises(FeatureError, match="not all zero"): snmf(torch.zeros(5, 3), 2)
    s = snmf(x, 4, share=.1); back = open_dictionary(save_dictionary(s, tmp_path/"s")); assert back.kind == "snmf" and torch.equal(back.encode(x), s.encode(x)) and back.meta["error"] == s.meta["error"]

def test_nearly_equal_rows_still_settle():
    g = torch.Generator().manual_seed(4); row = torch.randn(1, 12, generator=g); rows = torch.cat([row, row + 1e-3 * torch.randn(1, 12, generator=g), row, torch.randn(3, 12, generator=g)]); x = torch.randn(200, 12, generator=g)
    from scipy.optimize import nnls
    f = nonnegative_codes(x, rows); best = torch.tensor([nnls(rows.T.double().numpy(), v.double().numpy())[1] for v in x]); assert float(((x - f @ rows).norm(dim=-1) - best).abs().max()) < 1e-4

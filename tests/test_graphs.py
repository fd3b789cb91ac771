"""Affinities, spectra and losses of graphs against slow, obvious versions; what must not break does not."""

import numpy as np
import pytest
import scipy.linalg
import torch

from vemseg.errors import InputError
from vemseg.graphs import (
    Affinity,
    Graph,
    IncrementalMeans,
    Kernel,
    SpectralNetwork,
    affinity,
    clustering_loss,
    cuts,
    deep_cut,
    eigenvectors,
    smoothness_loss,
    spectral_cut,
    spectral_loss,
)
from vemseg.graphs.cuts import correlation_loss, ncut_loss
from vemseg.graphs.network import unit_columns
from vemseg.recipe import DeepCutTable, DsmTable, SccsTable, SpectralTable

SCCS, SPECTRAL = SccsTable(kappa=2.0), SpectralTable(kappa=2.0)
KERNELS = [SCCS, SccsTable(distance="squared", kappa=3.0), SccsTable(distance="cosine"), DsmTable()]


def vectors(n, d=6, seed=0, groups=3):
    """Return vectors in some groups, float64."""
    rng = np.random.default_rng(seed)
    middles = rng.normal(size=(groups, d)) * 2
    return torch.from_numpy(middles[np.arange(n) % groups] + 0.3 * rng.normal(size=(n, d)))


def slow_affinity(values, kernel):
    """Return A entry by entry."""
    n = len(values)
    alike = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            a, b = values[i].numpy(), values[j].numpy()
            apart = np.sqrt(((a - b) ** 2).sum())
            if kernel.distance == "cosine":
                alike[i, j] = max(0.0, a @ b / np.linalg.norm(a) / np.linalg.norm(b))
            else:
                alike[i, j] = np.exp(-(apart**2 if kernel.distance == "squared" else apart) / kernel.kappa)
    cut = alike.max() / kernel.alpha if kernel.alpha else 0.0
    return np.maximum(alike - cut, 0)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: f"{kernel.method}-{kernel.distance}")
def test_the_affinity_and_its_products_are_those_of_loops(kernel, held, monkeypatch):
    monkeypatch.setattr(affinity, "STRIP", 7)
    monkeypatch.setattr(affinity, "HELD", 1000 if held else 1)
    values, other = vectors(23), torch.from_numpy(np.random.default_rng(1).normal(size=(23, 4)))
    found, slow = Affinity.of(values, kernel), slow_affinity(values, kernel)
    np.testing.assert_allclose(found.dense(), slow, atol=1e-7)
    np.testing.assert_allclose(found.degrees, slow.sum(axis=1), atol=1e-6)
    scale = np.diag(1 / np.sqrt(slow.sum(axis=1)))
    normalised = scale @ slow @ scale
    np.testing.assert_allclose(found.normalised_times(other), normalised @ other.numpy(), atol=1e-6)
    expected = (np.eye(23) - normalised) @ other.numpy()
    np.testing.assert_allclose(found.laplacian_times(other), expected, atol=1e-6)
    pairs = ~np.eye(23, dtype=bool)
    assert found.density == pytest.approx((slow[pairs] > 1e-9).mean(), abs=1e-9)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: f"{kernel.method}-{kernel.distance}")
def test_gradients_of_products_are_those_of_the_dense_affinity(kernel, held, monkeypatch):
    monkeypatch.setattr(affinity, "STRIP", 7)
    monkeypatch.setattr(affinity, "HELD", 1000 if held else 1)
    found, soft = Affinity.of(vectors(23).requires_grad_(), kernel), vectors(23, 4, 2)
    dense = found.dense()
    scale = dense.sum(dim=1).rsqrt()
    normalised = scale[:, None] * dense * scale
    for quick, slow in (
        (found.times, lambda x: dense @ x),
        (found.normalised_times, lambda x: normalised @ x),
        (found.laplacian_times, lambda x: x - normalised @ x),
        (found.inner, lambda x: torch.trace(x.T @ dense @ x)),
    ):
        one, other = soft.clone().requires_grad_(), soft.clone().requires_grad_()
        got, expected = quick(one), slow(other)
        torch.testing.assert_close(got, expected)
        got.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-6)


def test_products_keep_no_strip_for_their_gradients(monkeypatch):
    monkeypatch.setattr(affinity, "STRIP", 7)
    monkeypatch.setattr(affinity, "HELD", 1)
    n, kept = 90, []
    network = SpectralNetwork(6, (5, 4, 3), 4).double()
    values = vectors(n)
    found = Affinity.of(values, SCCS)

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        z = network.coordinates(values, found)
        soft = network.logits(z).softmax(dim=1)
        losses = spectral_loss(z, found, 1.0), smoothness_loss(soft, found, 0.1, 0.1), ncut_loss(soft, found)
        sum(losses).backward()
    assert 0 < max(kept) <= n * 6


def test_vectors_alike_keep_degrees_positive_and_strangers_are_cut_off():
    same = Affinity.of(torch.zeros(5, 3, dtype=torch.float64), SCCS)
    np.testing.assert_allclose(same.dense(), 0.75)
    apart = Affinity.of(100 * torch.eye(5, dtype=torch.float64), SCCS)
    np.testing.assert_allclose(apart.dense(), 0.75 * np.eye(5))
    assert apart.density == 0 and same.density == 1
    assert Affinity.of(torch.zeros(1, 3), SCCS).density == 1


@pytest.mark.parametrize("distance", ["plain", "squared"])
def test_the_scale_joins_the_share_of_pairs_that_is_asked_for(distance, monkeypatch):
    values = vectors(40, groups=5)
    for share in (0.02, 0.3, 0.9):
        kernel = Kernel.of(SccsTable(density=share, distance=distance), values)
        joined = slow_affinity(values, kernel)[~np.eye(40, dtype=bool)] > 0
        assert joined.mean() == pytest.approx(share, abs=2 / (40 * 39) + 1e-9)
    given = Kernel.of(SccsTable(distance=distance, kappa=0.7), values)
    assert given.kappa == 0.7 and Kernel.of(DsmTable(), values).distance == "cosine"
    whole = Kernel.of(SccsTable(), values).kappa
    monkeypatch.setattr(affinity, "COMPARED", 20)
    assert Kernel.of(SccsTable(), values) == Kernel.of(SccsTable(), values[::2])
    assert Kernel.of(SccsTable(), values).kappa == pytest.approx(whole, rel=0.5)


def test_a_scale_is_found_for_equal_vectors_too():
    for values in (torch.zeros(1, 3), torch.ones(5, 3)):
        assert Kernel.of(SccsTable(), values).kappa == 1.0
    nearly = torch.zeros(30, 3)
    nearly[0] = 5.0
    assert 0 < Kernel.of(SccsTable(), nearly).kappa < 10


@pytest.mark.parametrize("n", [40, 300])
def test_eigenvectors_are_those_of_a_dense_generalised_solver(n):
    for kernel in (SPECTRAL, DsmTable()):
        found = Affinity.of(vectors(n, groups=4), kernel)
        values, columns = eigenvectors(found, 5)
        dense = found.dense().numpy()
        degree = np.diag(dense.sum(axis=1))
        expected, exact = scipy.linalg.eigh(degree - dense, degree)
        np.testing.assert_allclose(values, expected[:5], atol=1e-9)
        for i in range(5):
            residual = (degree - dense) @ columns[:, i] - values[i] * degree @ columns[:, i]
            assert np.abs(residual).max() < 1e-8
        overlap = exact[:, :4].T @ degree @ columns[:, :4]  # the four groups span the same space
        np.testing.assert_allclose(np.linalg.svd(overlap)[1], 1, atol=1e-6)


def test_cuts_find_the_groups_of_a_graph():
    values = vectors(30)
    for segments in (
        spectral_cut(Affinity.of(values, SPECTRAL), 3, 3, 0),
        spectral_cut(Affinity.of(values, DsmTable()), 3, 3, 0),
        deep_cut(values, DeepCutTable(segments=3, epochs=60)),
        deep_cut(values, DeepCutTable(segments=3, epochs=60, loss="cc", alpha=2.0)),
    ):
        groups = [set(segments[i::3].tolist()) for i in range(3)]
        assert all(len(group) == 1 for group in groups) and len(set.union(*groups)) == 3


def test_cuts_of_tiny_and_constant_graphs():
    for values in (torch.ones(1, 4).double(), torch.zeros(9, 4).double(), vectors(2)):
        for cut in (
            spectral_cut(Affinity.of(values, SPECTRAL), 12, 15, 0),
            spectral_cut(Affinity.of(values, DsmTable()), 5, 15, 0),
            deep_cut(values, DeepCutTable(epochs=2)),
            deep_cut(values, DeepCutTable(epochs=2, loss="cc")),
        ):
            assert cut.shape == (len(values),) and cut.min() >= 0


def test_the_losses_of_deepcut_are_those_of_loops():
    found = Affinity.of(vectors(11), DsmTable())
    dense, soft = found.dense().numpy(), torch.from_numpy(vectors(11, 3, 2).numpy()).softmax(dim=1)
    s = soft.numpy()
    cut = -np.trace(s.T @ dense @ s) / np.trace(s.T @ np.diag(dense.sum(axis=1)) @ s)
    shares = s.T @ s
    unequal = np.linalg.norm(shares / np.linalg.norm(shares) - np.eye(3) / np.sqrt(3))
    assert float(ncut_loss(soft, found)) == pytest.approx(cut + unequal)
    unit = vectors(11) / vectors(11).norm(dim=1, keepdim=True)
    cosines = np.array([[float(a @ b) for a in unit] for b in unit])
    assert cosines.min() < -0.1  # not clipped
    expected = -((cosines - cosines.max() / 3) * (s @ s.T)).sum() / 11**2
    assert float(correlation_loss(soft, unit, 3.0)) == pytest.approx(expected)


def published_cut(values, settings):
    """Cut a graph as the published code does, with dense matrices of cosines.

    Edges are where the adjacency is above 0; a graph convolution divides by the roots of degrees.
    """
    x = values.numpy()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    w = unit @ unit.T
    w = np.maximum(w, 0) / w.max() if settings.loss == "ncut" else w - w.max() / settings.alpha
    edges = np.where(w > 0, w, 0)
    degrees = edges.sum(axis=1)
    mixed = torch.from_numpy(edges / np.sqrt(np.outer(degrees, degrees)) @ x)
    w, degree = torch.from_numpy(w), torch.from_numpy(np.diag(w.sum(axis=1)))
    generator = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)
    network = cuts._CutNetwork(x.shape[1], settings.segments).double()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(settings.epochs):
        kept = torch.rand(len(x), 32, generator=generator).ge(0.25).double() / 0.75
        s = network(mixed, kept)
        if settings.loss == "ncut":
            inner = s.T @ s
            eye = torch.eye(settings.segments, dtype=s.dtype)
            loss = torch.norm(inner / torch.norm(inner) - eye / torch.norm(eye))
            loss = loss - torch.trace(s.T @ w @ s) / torch.trace(s.T @ degree @ s)
        else:
            loss = -torch.sum(w * (s @ s.T)) / len(x) ** 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network(mixed).argmax(dim=1).numpy()


@pytest.mark.parametrize("loss", ["ncut", "cc"])
def test_deepcut_cuts_as_the_published_code_does_with_dense_matrices(loss):
    for seed, alpha in ((0, 3.0), (1, 1.5), (2, 8.0)):
        values = vectors(40, seed=seed, groups=5)
        settings = DeepCutTable(loss=loss, alpha=alpha, seed=seed, segments=6, epochs=40)
        np.testing.assert_array_equal(deep_cut(values, settings), published_cut(values, settings))


def test_the_spectral_loss_is_zero_for_eigenvectors_and_positive_for_all_else():
    found = Affinity.of(vectors(12, seed=3), SCCS)
    dense = np.eye(12) - found.normalised_times(torch.eye(12, dtype=torch.float64)).numpy()
    _, exact = np.linalg.eigh(dense)
    for chosen in ([0, 1, 2, 3], [2, 5, 11]):
        z = torch.from_numpy(exact[:, chosen] * 7.0)  # of any scale
        assert float(spectral_loss(z, found, 1.0)) == pytest.approx(0, abs=1e-12)
    mixed = torch.from_numpy(
        exact[:, [0, 5, 11]] @ scipy.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    )
    assert float(spectral_loss(mixed, found, 1.0)) > 1e-3  # orthogonal, but not diagonal
    assert float(spectral_loss(mixed, found, 0.0)) == pytest.approx(0, abs=1e-12)
    twice = torch.from_numpy(exact[:, [1, 1]])
    assert float(spectral_loss(twice, found, 0.0)) == pytest.approx(0.5)
    assert float(spectral_loss(torch.zeros(12, 3).double(), found, 1.0)) > 0
    z = unit_columns(torch.from_numpy(np.random.default_rng(4).normal(size=(12, 5)))).numpy()
    inner = z.T @ z
    off = [abs(z[:, i] @ dense @ z[:, j]) for i in range(5) for j in range(5) if i != j]
    expected = np.mean((inner - np.eye(5)) ** 2) + 0.7 * np.mean(off)
    assert float(spectral_loss(torch.from_numpy(z), found, 0.7)) == pytest.approx(expected)


def test_the_smoothness_loss_is_that_of_loops():
    found = Affinity.of(vectors(14), SCCS)
    p = torch.rand(14, 4, generator=torch.Generator().manual_seed(0)).double()
    dense, total = found.dense().numpy(), 0.0
    for i in range(14):
        for j in range(14):
            a, b = p[i].numpy(), p[j].numpy()
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            total += (dense[i, j] - 0.1) * (1 - cosine)
    expected = total / 14**2 + 0.3 * abs(p.abs().sum(dim=1).sum().item() / 14 - 1)
    assert float(smoothness_loss(p, found, 0.1, 0.3)) == pytest.approx(expected)


def test_the_clustering_loss_is_that_of_loops():
    logits = torch.randn(9, 3, generator=torch.Generator().manual_seed(1)).double()
    targets = torch.arange(9) % 3
    p, total = logits.sigmoid().numpy(), 0.0
    for i in range(9):
        for j in range(3):
            total -= np.log(p[i, j]) if targets[i] == j else np.log(1 - p[i, j])
    assert float(clustering_loss(logits, targets)) == pytest.approx(total / 27)


def test_the_network_has_the_number_of_parameters_of_the_paper_and_is_linear():
    network = SpectralNetwork(384, (96, 48, 12), 8)
    assert sum(parameter.numel() for parameter in network.parameters()) == 42_308
    small = SpectralNetwork(6, (5, 4, 3), 2).double()
    values = vectors(20)
    found = Affinity.of(values, SCCS)
    dense = found.dense().numpy()
    mix = dense / np.sqrt(np.outer(dense.sum(axis=1), dense.sum(axis=1)))
    slow = values.numpy()
    for weight in small.convolutions:
        slow = mix @ slow @ weight.detach().numpy().T
    slow = slow / np.sqrt((slow**2).mean(axis=0))
    np.testing.assert_allclose(small.coordinates(values, found).detach(), slow, atol=1e-6)
    arrays = {name: value.detach().numpy() for name, value in small.arrays(np.array([1, 0])).items()}
    again = SpectralNetwork.of_arrays(arrays).double()
    z = small.coordinates(values, found)
    torch.testing.assert_close(again.logits(z), small.logits(z)[:, [1, 0]], atol=1e-6, rtol=0)


def test_incremental_means_keep_their_numbers_and_are_the_means_of_all_nodes():
    means = IncrementalMeans(3, 6, every=2, forgetting=1.0)
    graphs = [vectors(30, seed=0).float() + 0.05 * i for i in range(5)]
    grey = torch.arange(30).remainder(3).float()
    means.begin(graphs[0], grey, 0)
    anchored = means.assign(graphs[0])
    assert len(set(anchored[:3].tolist())) == 3
    nodes, labels = [graphs[0]], [anchored]
    for count, graph in enumerate(graphs[1:], start=1):
        before = means.centres.clone()
        assigned = means.assign(graph)
        assert torch.equal(assigned, anchored)  # the same groups, the same numbers
        means.add(graph, grey, assigned)
        nodes.append(graph)
        labels.append(assigned)
        assert torch.equal(before, means.centres) == (count % 2 == 1)  # moved once in two graphs
        if count % 2 == 0:
            every, which = torch.cat(nodes), torch.cat(labels)
            slow = torch.stack([every[which == c].mean(dim=0) for c in range(3)])
            torch.testing.assert_close(means.centres, slow)
    assert grey[[int((anchored == c).nonzero()[0]) for c in means.order]].tolist() == [0, 1, 2]


def test_forgotten_classes_start_again_and_others_stay():
    means = IncrementalMeans(2, 1, every=1, forgetting=0.25)
    left, right = torch.zeros(4, 1), torch.full((4, 1), 10.0)
    means.begin(torch.cat([left, right]), torch.zeros(8), 0)
    high = int(means.centres.argmax())
    means.add(left, torch.zeros(4), means.assign(left))
    assert float(means.centres[high]) == 10.0
    far = torch.tensor([[0.0], [0.0], [3.0]])
    means.add(far, torch.zeros(3), means.assign(far))
    assert float(means.centres[high]) == 3.0 and abs(float(means.centres[1 - high])) < 1.0


def test_a_class_that_starts_again_is_as_bright_as_its_only_node():
    means = IncrementalMeans(2, 1, every=1, forgetting=0.25)
    left, right = torch.zeros(4, 1), torch.full((4, 1), 10.0)
    means.begin(torch.cat([left, right]), torch.tensor([0.5] * 4 + [0.9] * 4), 0)
    high = int(means.centres.argmax())
    assert means.order.tolist() == [1 - high, high]
    for nodes, grey in ((left, [0.5] * 4), (torch.tensor([[0.0], [0.0], [3.0]]), [0.5, 0.5, 0.1])):
        means.add(nodes, torch.tensor(grey), means.assign(nodes))
    assert means.total[high].tolist() == pytest.approx([3.0, 0.1, 1.0])
    assert means.order.tolist() == [high, 1 - high]


def test_begin_refuses_fewer_nodes_than_classes_and_survives_equal_ones():
    means = IncrementalMeans(3, 2, every=1, forgetting=1.0)
    with pytest.raises(InputError, match="2 regions, fewer than the 3 classes"):
        means.begin(torch.zeros(2, 2), torch.zeros(2), 0)
    means.begin(torch.zeros(5, 2), torch.zeros(5), 0)
    assert torch.isfinite(means.centres).all() and means.assign(torch.zeros(5, 2)).max() < 3


@pytest.mark.parametrize("n", [1, 2, 50])
def test_nothing_breaks_on_few_nodes_or_equal_vectors(n):
    for values in (torch.zeros(n, 6), torch.full((n, 6), 3.0), vectors(n).float()):
        network = SpectralNetwork(6, (5, 4, 3), 4)
        found = Affinity.of(values, SCCS)
        z = network.coordinates(values, found)
        logits = network.logits(z)
        total = spectral_loss(z, found, 1.0) + smoothness_loss(logits.sigmoid(), found, 0.1, 0.1)
        total = total + clustering_loss(logits, torch.zeros(n, dtype=torch.int64))
        total.backward()
        assert torch.isfinite(total)
        assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_graphs_are_told_apart_by_identity_and_say_how_varied_they_are():
    values = vectors(8).numpy()
    graph = Graph(values.astype(np.float16), np.zeros(8, np.float32), np.zeros((0, 2), np.int64))
    assert len({graph: 1, Graph(graph.vectors, graph.intensities, graph.edges): 2}) == 2
    assert graph.variety == pytest.approx(values.var(axis=0).sum(), rel=1e-2)
    assert len(graph) == 8 and cuts.DENSE < 300

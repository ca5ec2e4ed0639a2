from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from jaxtyping import TypeCheckError
from sklearn.cluster import MeanShift as ScikitLearns
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from maskbench.errors import ConfigError
from maskbench.ops import cluster
from maskbench.ops.cluster import (
    KERNELS,
    AffinityComponents,
    Clusterer,
    MeanShift,
    Pixels,
    Seeds,
    connected,
    keep_apart,
    mean_shift,
    nearest,
)


def blobs(sizes: list[int], dimensions: int = 8) -> tuple[Tensor, Tensor]:
    """Points around corners that are 10 apart, in random order, and the corner of each."""
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))[torch.randperm(sum(sizes))]
    return 10 * torch.eye(dimensions)[owner] + 0.2 * torch.randn(len(owner), dimensions), owner


def together(member: Tensor) -> Tensor:
    """Which points share a cluster, whatever it is called."""
    return member[:, None] == member


def pixels(
    embedding: Tensor, label: Tensor | None = None, seed: Sequence[float] | None = None, margin: Tensor | None = None
) -> Pixels:
    """Cells in a row, of one class and sure of themselves unless it is said otherwise."""
    count = len(embedding)
    cell = torch.stack([torch.zeros(count, dtype=torch.long), torch.arange(count)], dim=1)
    label = torch.zeros(count, dtype=torch.long) if label is None else label
    return Pixels(embedding, cell, label, torch.ones(count) if seed is None else torch.tensor(seed), margin)


def drawn(map_: str, embedding: dict[str, float], label: dict[str, int] | None = None) -> Pixels:
    """The cells of a map, row by row, whose letters have these embeddings and classes; dots are background."""
    rows = [(letter, row, column) for row, line in enumerate(map_.split()) for column, letter in enumerate(line)]
    letters, *cells = zip(*[found for found in rows if found[0] != "."], strict=True)
    classes = torch.tensor([(label or {}).get(letter, 0) for letter in letters])
    values = torch.tensor([[embedding[letter]] for letter in letters])
    return Pixels(values, torch.tensor(cells).T, classes, torch.ones(len(classes)))


def problem(number: int) -> tuple[Tensor, Tensor, float]:
    """Blobs that touch or don't, in 2 to 16 dimensions; some of the points, to seed at; a bandwidth."""
    random = torch.Generator().manual_seed(number)
    dimensions, objects = 2 + 14 * number // 19, 2 + number
    means = (2 + number % 4) * torch.randn(objects, dimensions, generator=random)
    owner = torch.randint(objects, (600,), generator=random)
    points = means[owner] + 0.5 * torch.randn(600, dimensions, generator=random)
    return points, points[::4], 1.2 * dimensions**0.5


CLUSTERERS = (MeanShift(), MeanShift(kernel="gaussian"), Seeds(), AffinityComponents(threshold=1.5))


@pytest.mark.parametrize("clusterer", CLUSTERERS, ids=str)
class TestEveryClusterer:
    def test_it_keeps_the_promise(self, clusterer: Clusterer) -> None:
        assert isinstance(clusterer, Clusterer)

    def test_an_image_without_foreground(self, clusterer: Clusterer) -> None:
        (found,) = clusterer([pixels(torch.zeros(0, 5))])
        assert (found.member.shape, found.centres.shape, found.distance.shape) == ((0,), (0, 5), (0,))
        assert found.member.dtype == torch.long
        assert clusterer([]) == []

    def test_several_images_are_each_by_itself(self, clusterer: Clusterer) -> None:
        images = [pixels(blobs([30, count])[0]) for count in (1, 20, 45)]
        images.insert(1, pixels(torch.zeros(0, 8)))
        for together_, alone in zip(clusterer(images), [clusterer([image])[0] for image in images], strict=True):
            for field, expected in zip(together_, alone, strict=True):
                assert torch.equal(field, expected)

    def test_classes_in_one_place_stay_apart(self, clusterer: Clusterer) -> None:
        label = torch.arange(60) // 12 * 7
        (found,) = clusterer([pixels(0.01 * torch.randn(60, 4), label)])
        assert torch.equal(together(found.member), together(label))
        assert len(found.centres) == 5

    def test_distances_are_to_the_own_centre_in_bandwidths(self, clusterer: Clusterer) -> None:
        points = blobs([40, 40])[0]
        (found,) = clusterer([pixels(points)])
        expected = (points - found.centres[found.member]).norm(dim=1) / 1.5
        assert found.member.min() == 0
        torch.testing.assert_close(found.distance, expected)

    def test_moving_all_embeddings_changes_no_cluster(self, clusterer: Clusterer) -> None:
        points, owner = blobs([25, 40, 10])
        label = owner % 2
        here, there = clusterer([pixels(points, label), pixels(points + 50, label)])
        assert torch.equal(together(here.member), together(there.member))
        torch.testing.assert_close(there.centres.sum(dim=0), here.centres.sum(dim=0) + 50 * len(here.centres))


class TestPixels:
    def test_fields_of_other_lengths_are_refused(self) -> None:
        one = pixels(torch.zeros(3, 2))
        with pytest.raises((TypeCheckError, ValueError)):
            Pixels(one.embedding, one.cell, one.label, one.seed[:2])
        with pytest.raises((TypeCheckError, ValueError)):
            pixels(one.embedding, margin=torch.ones(2, 2))


class TestMeanShift:
    @pytest.mark.parametrize("kernel", KERNELS)
    def test_every_class_of_noise_has_clusters_of_its_own(self, kernel: str) -> None:
        """Far more points than seeds, none near another, and one cell of a class that no even spread would draw."""
        label = torch.randint(80, (3000,))
        label[1111] = 80
        (found,) = MeanShift(1.0, kernel, iterations=3, seeds=50)([pixels(10 * torch.randn(3000, 4), label)])
        for own in range(len(found.centres)):
            assert len(label[found.member == own].unique()) <= 1
        assert (found.member == found.member[1111]).sum() == 1

    def test_many_classes_do_not_blur_distances(self) -> None:
        """Each of a thousand classes has two clusters, two and a half bandwidths apart."""
        label = torch.arange(4000) // 4
        points = 2.5 * (torch.arange(4000) % 2)[:, None] + 0.1 * torch.randn(4000, 3)
        (found,) = MeanShift(bandwidth=1.0)([pixels(points, label)])
        assert len(found.centres) == 2000
        assert torch.equal(found.member.unique(return_counts=True)[1], torch.full((2000,), 2))

    def test_a_blob_without_a_seed_is_found(self) -> None:
        """Three cells between thousands: only every tenth is a seed at first."""
        points, _ = blobs([1000])
        small = torch.full((3, 8), 7.0) + 0.1 * torch.randn(3, 8)
        (found,) = MeanShift(2.0, seeds=100)([pixels(torch.cat([points[:501], small, points[501:]]))])
        assert len(found.centres) == 2
        assert found.member.nonzero()[:, 0].tolist() == [501, 502, 503]

    def test_an_unknown_kernel_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="kernel='box': expected one of flat, gaussian"):
            MeanShift(kernel="box")


class TestMeanShiftOfPoints:
    @pytest.mark.parametrize("number", range(20))
    def test_labels_are_scikit_learns(self, number: int) -> None:
        points, seeds, bandwidth = problem(number)
        member, modes = mean_shift(points, bandwidth, seeds=seeds)
        theirs = ScikitLearns(bandwidth=bandwidth, seeds=seeds.numpy()).fit(points.numpy())
        assert adjusted_rand_score(theirs.labels_, member) >= 0.99
        assert len(modes) == len(theirs.cluster_centers_)

    def test_of_modes_of_equal_support_scikit_learns_comes_first(self) -> None:
        """Two points each: 3 is within the bandwidth of 5, and the larger stays."""
        points = torch.tensor([[2.9], [3.1], [4.9], [5.1]])
        seeds, bandwidth = torch.tensor([[2.5], [5.5]]), 2.0
        theirs = ScikitLearns(bandwidth=bandwidth, seeds=seeds.numpy()).fit(points.numpy())
        member, modes = mean_shift(points, bandwidth, seeds=seeds)
        torch.testing.assert_close(modes, torch.from_numpy(theirs.cluster_centers_))
        assert member.tolist() == theirs.labels_.tolist()

    @pytest.mark.parametrize("seeds", [2048, 64])
    def test_blobs_apart_are_found_the_largest_first(self, seeds: int) -> None:
        points, owner = blobs([40, 80, 20, 60])
        member, modes = mean_shift(points, bandwidth=2.0, seeds=seeds)
        assert torch.equal(together(member), together(owner))
        assert torch.bincount(member).tolist() == [80, 60, 40, 20]
        means = torch.stack([points[member == mode].mean(dim=0) for mode in range(4)])
        torch.testing.assert_close(modes, means, atol=1e-4, rtol=0)

    def test_a_gaussian_kernel_climbs_to_where_the_density_is_flat(self) -> None:
        points, bandwidth = blobs([70, 30], dimensions=3)[0].double(), 1.5
        _, modes = mean_shift(points, bandwidth, kernel="gaussian")
        towards = points - modes[:, None]
        weight = (-towards.square().sum(dim=2) / (2 * bandwidth**2)).exp()
        slope = (weight[..., None] * towards).sum(dim=1) / weight.sum(dim=1, keepdim=True)
        assert len(modes) == 2
        assert slope.norm(dim=1).max() < 2e-3 * bandwidth

    def test_a_gaussian_kernel_by_hand(self) -> None:
        """One step from 0: a point there weighs 1, one at a distance of two bandwidths exp(−2)."""
        points = torch.tensor([[0.0], [2.0]])
        _, modes = mean_shift(points, 1.0, seeds=points[:1], kernel="gaussian", iterations=1)
        assert modes.item() == pytest.approx(2 * math.exp(-2) / (1 + math.exp(-2)))

    def test_a_point_joins_the_nearest_mode_however_far(self) -> None:
        points = torch.tensor([[0.0], [0.1], [0.2], [2.4], [4.7], [4.8], [4.9]])
        member, modes = mean_shift(points, bandwidth=2.45)
        assert len(modes) == 2
        assert torch.equal(member, torch.cdist(points, modes).argmin(dim=1))

    def test_seeds_far_from_every_point(self) -> None:
        points = torch.zeros(5, 2)
        _, modes = mean_shift(points, 1.0, seeds=torch.tensor([[9.0, 9.0], [0.5, 0.0]]))
        assert modes.tolist() == [[0, 0]]
        with pytest.raises(ValueError, match=r"none of 5 points lies within 1.0 of any of 1 seeds"):
            mean_shift(points, 1.0, seeds=torch.tensor([[9.0, 9.0]]))

    def test_one_point_and_none(self) -> None:
        member, modes = mean_shift(torch.tensor([[3.0, 4.0]]), bandwidth=1.5)
        assert (member.tolist(), modes.tolist()) == ([0], [[3, 4]])
        member, modes = mean_shift(torch.zeros(0, 5), bandwidth=1.5)
        assert (member.shape, modes.shape) == ((0,), (0, 5))

    def test_chunks_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        points = torch.randn(300, 3)
        member, modes = mean_shift(points, bandwidth=0.8)
        monkeypatch.setattr(cluster, "PAIRS", {"cpu": 1000})
        monkeypatch.setattr(cluster, "SEEDS_AT_ONCE", 70)
        member_in_chunks, modes_in_chunks = mean_shift(points, bandwidth=0.8)
        torch.testing.assert_close(modes_in_chunks, modes, atol=1e-4, rtol=0)
        assert torch.equal(member_in_chunks, member)


class TestSeeds:
    def test_by_hand(self) -> None:
        """The surest takes its neighbours, the next that is left takes what is left, the last is not sure enough."""
        points = torch.tensor([[0.0], [1.0], [1.9], [2.5], [9.0]])
        (found,) = Seeds(threshold=0.5, bandwidth=1.0)([pixels(points, seed=[0.7, 0.6, 0.9, 0.8, 0.5])])
        assert found.member.tolist() == [1, 0, 0, 0, -1]
        assert found.centres.tolist() == [pytest.approx([1.9]), [0]]
        assert found.distance.tolist() == pytest.approx([0, 0.9, 0, 0.6, math.inf])

    def test_clusters_too_small_are_left_out_and_keep_what_they_took(self) -> None:
        points = torch.tensor([[0.0], [0.9], [1.8], [5.0], [5.1]])
        image = pixels(points, seed=[0.9, 0.6, 0.7, 0.8, 0.8])
        (found,) = Seeds(bandwidth=1.0, smallest=2)([image])
        assert found.member.tolist() == [0, 0, -1, 1, 1]
        (found,) = Seeds(bandwidth=1.0, smallest=3)([image])
        assert found.member.tolist() == [-1] * 5
        assert found.centres.shape == (0, 1)
        assert found.distance.isinf().all()

    def test_the_margin_of_the_one_that_opens_decides(self) -> None:
        """Along one dimension σ is ten times that along the other: exp(−d²/2σ²) is one half at d = 1.1774 σ."""
        points = torch.tensor([[0.0, 0.0], [11.7, 0.0], [0.0, 1.17], [11.8, 0.0], [0.0, 1.18], [11.0, 1.1]])
        margin = torch.ones(6, 2)
        margin[0, 0] = 10
        (found,) = Seeds(threshold=0.8)([pixels(points, seed=[0.9] + 5 * [0.1], margin=margin)])
        assert found.member.tolist() == [0, 0, 0, -1, -1, -1]
        half = (-(points[1:3] ** 2 / (2 * margin[0] ** 2)).sum(dim=1)).exp()
        torch.testing.assert_close(found.distance[1:3], (-half.log2()).sqrt())

    def test_a_margin_of_nothing_ends(self) -> None:
        (found,) = Seeds()([pixels(torch.zeros(3, 2), margin=torch.zeros(3, 2))])
        assert found.member.tolist() == [0, 1, 2]

    @pytest.mark.parametrize("number", range(5))
    def test_it_is_the_sequential_loop(self, number: int) -> None:
        random = torch.Generator().manual_seed(number)
        points, label = torch.rand(80, 2, generator=random), torch.randint(3, (80,), generator=random)
        seed = torch.rand(80, generator=random)
        expected = torch.full((80,), -1)
        for top in seed.argsort(descending=True).tolist():
            if expected[top] < 0 and seed[top] > 0.3:
                near = (points - points[top]).norm(dim=1) < 0.2
                expected[near & (expected < 0) & (label == label[top])] = expected.max() + 1
        (found,) = Seeds(threshold=0.3, bandwidth=0.2)([pixels(points, label, seed.tolist())])
        assert torch.equal(found.member, expected)


class TestAffinityComponents:
    def found(self, map_: str, connectivity: int = 4, label: dict[str, int] | None = None) -> list[int]:
        image = drawn(map_, {"a": 0.0, "b": 0.4, "c": 2.0}, label)
        return AffinityComponents(0.5, connectivity)([image])[0].member.tolist()

    def test_neighbours_alike_are_joined_and_what_they_connect(self) -> None:
        assert self.found("aab acc a.c") == [0, 0, 0, 0, 1, 1, 0, 1]

    def test_one_place_in_the_embedding_but_no_way_between(self) -> None:
        assert self.found("a.a a.a") == [0, 1, 0, 1]
        assert self.found("aca") == [0, 1, 2]

    def test_the_end_of_a_row_is_no_neighbour_of_the_next(self) -> None:
        assert self.found("..a a..", connectivity=8) == [0, 1]

    @pytest.mark.parametrize(("map_", "eight"), [("a. .a", [0, 0]), (".a a.", [0, 0]), ("a. .c", [0, 1])])
    def test_corners_touch_among_eight_neighbours_alone(self, map_: str, eight: list[int]) -> None:
        assert self.found(map_, connectivity=8) == eight
        assert self.found(map_, connectivity=4) == [0, 1]

    def test_classes(self) -> None:
        assert self.found("ab", label={"a": 3, "b": 5}) == [0, 1]

    def test_centres_are_means(self) -> None:
        (found,) = AffinityComponents(0.5)([drawn("ab.c", {"a": 0.0, "b": 0.4, "c": 2.0})])
        torch.testing.assert_close(found.centres, torch.tensor([[0.2], [2.0]]))
        torch.testing.assert_close(found.distance, torch.tensor([0.4, 0.4, 0.0]))

    def test_a_spiral_is_one(self) -> None:
        """The way from its end to its middle is as long as a way on the map can be."""
        on, cell, step = torch.zeros(43, 43, dtype=torch.bool), [1, 1], (0, 1)
        for side in [40, *[length for length in range(40, 1, -2) for _ in (0, 1)]]:
            for _ in range(side):
                on[cell[0], cell[1]] = True
                cell = [cell[0] + step[0], cell[1] + step[1]]
            step = (step[1], -step[0])
        cells = on.nonzero()[torch.randperm(int(on.sum()))]
        count = len(cells)
        image = Pixels(torch.zeros(count, 1), cells, torch.zeros(count, dtype=torch.long), torch.ones(count))
        assert AffinityComponents()([image])[0].member.tolist() == [0] * count
        assert count > 800

    def test_another_connectivity_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="connectivity=6: expected one of 4, 8"):
            AffinityComponents(connectivity=6)


@pytest.mark.parametrize("pairs", [0, 10, 40, 60, 200])
def test_connected_components_are_those_of_a_search(pairs: int) -> None:
    one, other = torch.randint(80, (2, pairs))
    reached = torch.eye(80, dtype=torch.bool)
    reached[one, other] = reached[other, one] = True
    for _ in range(7):  # paths of up to 2⁷ steps
        reached = (reached.float() @ reached.float()) > 0
    first = reached.float().argmax(dim=1)
    assert torch.equal(connected(80, one, other), first.unique(return_inverse=True)[1])


class TestKeepApart:
    @pytest.mark.parametrize("distance", [0.05, 0.2, 1.0])
    def test_it_is_the_sequential_loop(self, distance: float) -> None:
        points = torch.rand(200, 2)
        kept: list[int] = []
        for row, point in enumerate(points):
            if all((point - points[other]).norm() >= distance for other in kept):
                kept.append(row)
        assert keep_apart(points, distance).nonzero()[:, 0].tolist() == kept

    def test_a_chain_needs_as_many_rounds_as_it_has_links(self) -> None:
        points = torch.arange(40.0)[:, None]
        assert keep_apart(points, 1.5).tolist() == [row % 2 == 0 for row in range(40)]

    def test_one_point_and_none(self) -> None:
        assert keep_apart(torch.zeros(1, 2), 1.0).tolist() == [True]
        assert keep_apart(torch.zeros(0, 2), 1.0).tolist() == []
        assert keep_apart(torch.zeros(5, 2), 1.0).tolist() == [True, False, False, False, False]


class TestNearest:
    def test_by_hand(self) -> None:
        distance, which = nearest(torch.tensor([[0.0, 1.0], [3.0, 4.0]]), torch.tensor([[9.0, 9.0], [0.0, 0.0]]))
        assert distance.tolist() == [1, 5]
        assert which.tolist() == [1, 1]

    def test_no_centre_is_infinitely_far(self) -> None:
        distance, which = nearest(torch.zeros(2, 3), torch.zeros(0, 3))
        assert distance.tolist() == [torch.inf] * 2
        assert which.tolist() == [-1, -1]

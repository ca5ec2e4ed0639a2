from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from maskbench.evaluation.bootstrap import chance, draw, drawn_ap, holm, interval, over_seeds
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.matching import match
from maskbench.evaluation.overlaps import overlaps
from maskbench.evaluation.precision_recall import curves, mean
from maskbench.evaluation.scoring import score


@pytest.fixture
def scene(tmp_path: Path, random_scene):
    """The annotations of a seed, as json and on disk, and results for them."""

    def make(seed: int) -> tuple[dict, Path, list[dict]]:
        content, results = random_scene(seed, images=5, objects=8)
        # equal scores in an image have an order that copies of the image keep, and a weight does not
        results = [{**result, "score": result["score"] + 1e-6 * index} for index, result in enumerate(results)]
        path = tmp_path / f"{seed}.json"
        path.write_text(json.dumps(content))
        return content, path, results

    return make


def times(content: dict, results: list[dict], weights: dict[int, int], path: Path) -> list[dict]:
    """Write the annotations with every image as often as its weight says; returns the results for that."""
    more: dict[str, list] = {"images": [], "annotations": [], "categories": content["categories"]}
    found = []
    for image in sorted(content["images"], key=lambda image: image["id"]):
        for _ in range(weights[image["id"]]):
            own = len(more["images"]) + 1
            more["images"].append({**image, "id": own})
            for annotation in content["annotations"]:
                if annotation["image_id"] == image["id"]:
                    number = len(more["annotations"]) + 1
                    more["annotations"].append({**annotation, "image_id": own, "id": number})
            found += [{**result, "image_id": own} for result in results if result["image_id"] == image["id"]]
    path.write_text(json.dumps(more))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_every_image_once_is_the_ap_itself(scene, seed):
    _, path, results = scene(seed)
    matches = match(overlaps(GroundTruth(path), results))
    expected = curves(matches, [100]).precision[..., 0, -1]
    drawn = drawn_ap(matches, np.ones((2, 5), dtype=int))
    assert drawn == pytest.approx(np.tile([mean(row) for row in expected], (2, 1)), abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_a_weight_counts_as_so_many_copies_of_the_image(scene, seed, tmp_path):
    content, path, results = scene(seed)
    matches = match(overlaps(GroundTruth(path), results))
    for weights in draw(5, draws=4, seed=seed):
        copied = tmp_path / "copied.json"
        found = times(content, results, dict(zip(matches.images, weights.tolist(), strict=True)), copied)
        expected = score(copied, found, iou_type="segm").summary
        (drawn,) = drawn_ap(matches, weights[None])
        assert mean(drawn) == pytest.approx(expected["AP"], abs=1e-12)
        assert (drawn[0], drawn[5]) == pytest.approx((expected["AP50"], expected["AP75"]), abs=1e-12)


def test_every_draw_has_as_many_images_and_the_same_seed_the_same(scene):
    weights = draw(7, draws=50, seed=3)
    assert weights.shape == (50, 7)
    assert set(weights.sum(axis=1)) == {7}
    assert (draw(7, draws=50, seed=3) == weights).all()
    assert (draw(7, draws=50, seed=4) != weights).any()


def test_chunks_change_nothing(scene, monkeypatch):
    _, path, results = scene(1)
    matches, weights = match(overlaps(GroundTruth(path), results)), draw(5, 40)
    whole = drawn_ap(matches, weights)
    monkeypatch.setattr("maskbench.evaluation.bootstrap.CELLS", 30)
    assert (drawn_ap(matches, weights) == whole).all()


def test_nothing_found_is_zero_and_nothing_to_find_undefined(annotation_file, result):
    square = (10, 10, 10, 10)
    nothing = match(overlaps(GroundTruth(annotation_file([(7, 3, square)])), []))
    # the second draw has the image with the object not at all
    assert drawn_ap(nothing, np.array([[1, 1], [0, 2]])).tolist() == [[0.0] * 10, [-1.0] * 10]
    found = match(overlaps(GroundTruth(annotation_file([])), [result(7, 3, square)]))
    assert drawn_ap(found, np.array([[1, 1]])).tolist() == [[-1.0] * 10]


def test_the_interval_mirrors_the_draws():
    draws = 0.5 + np.linspace(-0.1, 0.3, 1001)
    assert interval(0.5, draws, share=1.0) == pytest.approx((0.2, 0.6))
    low, high = interval(0.5, draws)
    assert (low, high) == pytest.approx((0.5 - (0.29), 0.5 + 0.09))


def test_chance_counts_draws_as_far_from_the_difference_as_it_is_from_zero():
    draws = np.array([0.1, 0.2, 0.3, 0.4, -0.05])
    assert chance(0.2, draws) == pytest.approx((2 + 1) / 6)  # 0.4 and −0.05
    assert chance(-0.5, draws) == pytest.approx((4 + 1) / 6)  # all but −0.05
    assert chance(10.0, 10 + 0.01 * draws) == pytest.approx(1 / 6)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_seeds_add_their_own_spread():
    rng = np.random.default_rng(0)
    estimates = np.array([0.40, 0.46, 0.43])
    shared = 0.001 * rng.standard_normal(20000)
    draws = over_seeds(estimates[:, None] + shared, estimates)
    # 95 of 100 lie within 4.30 standard errors of a mean of three (Student's t, two degrees of freedom)
    within = np.abs(draws - 0.43) < 4.303 * estimates.std(ddof=1) / np.sqrt(3)
    assert within.mean() == pytest.approx(0.95, abs=0.01)
    alone = over_seeds(estimates[:1, None] + shared, estimates[:1])
    assert (alone == 0.40 + shared).all()


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_over_few_seeds_hold_what_they_promise(seeds):
    rng = np.random.default_rng(seeds)
    held = 0
    for repeat in range(400):
        estimates = 0.4 + 0.02 * rng.standard_normal(seeds)
        draws = over_seeds(np.tile(estimates[:, None], (1, 1000)), estimates, repeat)
        low, high = interval(float(estimates.mean()), draws)
        held += low <= 0.4 <= high
    assert 0.92 <= held / 400 <= 0.98

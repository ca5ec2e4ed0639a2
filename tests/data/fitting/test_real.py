"""On photographs: what is fitted is near to what people have found by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskbench.data.fitting import anchors, grids, lengths
from maskbench.data.fitting.seen import Seen
from maskbench.data.profile import profile_at

pytestmark = pytest.mark.slow

PAPERS = ([40, 36, 24, 16, 12], [[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]])
STRIDES = (4, 8, 16, 32, 64)
COCO = ("coco_slice", "annotations/instances_train.json", 800, 1333)
NUCLEI = ("dsb2018", "annotations/instances_train.json", 384, 832)


@pytest.fixture(scope="module", params=[COCO, NUCLEI], ids=["coco", "nuclei"])
def seen(request: pytest.FixtureRequest, shared: Path) -> Seen:
    return look(shared, request.param)


def look(shared: Path, place: tuple[str, str, int, int]) -> Seen:
    folder, annotations, short, long = place
    return Seen.of(profile_at(shared / "data" / folder, annotations).objects, short, long, 32)


def test_few_objects_lose_their_cell(seen: Seen) -> None:
    ranges = grids.fit_ranges(seen)
    fitted = grids.fit_grids(seen, ranges)
    assert grids.lost(seen, fitted, ranges) < 0.02
    assert fitted == sorted(fitted, reverse=True)


def test_anchors_fit_better_than_the_papers(seen: Seen) -> None:
    ratios = anchors.fit_ratios(seen.sides, (0.5, 1.0, 2.0))
    scales = anchors.fit_scales(seen.sides, STRIDES, (8.0,), ratios)
    before = anchors.mean_best(seen.sides, STRIDES, (8.0,), (0.5, 1.0, 2.0))
    assert anchors.mean_best(seen.sides, STRIDES, scales, ratios) > before + 0.05


def test_on_coco_the_papers_own_settings_come_out(shared: Path) -> None:
    seen = look(shared, COCO)
    ranges = grids.fit_ranges(seen)
    for fitted, paper in zip(grids.fit_grids(seen, ranges), PAPERS[0], strict=True):
        assert paper / 1.5 <= fitted <= 1.5 * paper
    for fitted, paper in zip(ranges, PAPERS[1], strict=True):
        assert fitted == pytest.approx(paper, rel=0.15)
    assert grids.lost(seen, *PAPERS) < 0.03  # which is where the rule has its limit from
    assert lengths.fit_farthest(86, STRIDES[1:])[0][1] == 64


def test_nuclei_have_finer_grids_and_smaller_anchors_than_coco(shared: Path) -> None:
    seen = look(shared, NUCLEI)
    ranges = grids.fit_ranges(seen)
    assert grids.lost(seen, *PAPERS) > 0.03
    assert grids.fit_grids(seen, ranges)[0] > 48
    assert max(anchors.fit_scales(seen.sides, STRIDES, (8.0,), (0.5, 1.0, 2.0))) < 4
    assert lengths.near(seen.apart) < 12

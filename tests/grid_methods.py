"""What every method on SOLO's grids must do. A test module gives fixtures: `golden`, `raw`, `build` and `answer`.

`golden` and `raw` are the goldens and what the method computes from them; `build(**settings)` makes a thin method for
images of 128 pixels, and `answer(method, target, every_cell)` the output of it that says the truth about one image:
the class of the first cell of an object is certain, or of all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Protocol

import pytest
import torch
from torch import Tensor

from goldens import Golden
from maskbench.errors import ConfigError
from maskbench.ops.grid import cell_scores
from maskbench.ops.masks import pairwise_iou, shrink
from maskbench.structures import Batch, Instances
from squares import FRAME, losses_of, neighbours, squares

Build = Callable[..., Any]


class Answer(Protocol):
    def __call__(self, method: Any, target: Instances, every_cell: bool = False) -> Any: ...


class GoldenTests:
    """Weights and batch of the goldens give what MMDetection computes from them."""

    every_claim: ClassVar[bool] = False
    """Whether a cell learns the masks of all who claim it, at the finest stride, and not its owner's at its level's."""
    gradient_tolerance: ClassVar[float] = 1e-3

    @torch.no_grad()
    def test_features(self, golden: Golden) -> None:
        images = golden.method.prepare(golden.batch)
        golden.holds("input", images)
        features = golden.method.backbone(images)
        for name, maps in (("backbone", features), ("fpn", golden.method.fpn(features))):
            for level, level_map in enumerate(maps):
                golden.holds(f"{name}{level}", level_map)

    def test_losses_and_gradients(self, golden: Golden, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(golden.method, "forward", lambda images: raw)
        losses = golden.method.loss(golden.batch)
        golden.holds_losses("loss_full", losses, {"loss_mask": "mask", "loss_cls": "class"})
        torch.stack(list(losses.values())).sum().backward()
        golden.holds_gradients("loss_full", self.gradient_tolerance)

    def test_cells_and_what_they_learn(self, golden: Golden) -> None:
        """The labels of all cells of an image, and the masks that the positive ones learn."""
        method = golden.method
        for image, target in enumerate(golden.batch.targets):
            claims = method.grids.claims(target)
            owners = method.grids.owners(claims, target)
            labels = method.grids.labels(owners, target, background=80)
            learnt = claims if self.every_claim else owners
            for level, (rows, cell) in enumerate(method.grids.split(learnt.cell)):
                order, theirs = cell.argsort(), self.positives(golden, image, level).sort()
                assert torch.equal(cell[order], theirs.values)
                masks = torch.from_numpy(golden.arrays.mask_targets(image, level))
                stride = method.mask_stride if self.every_claim else method.strides[level] // 2
                drawn = shrink(target.masks.dense(), stride)[learnt.instance[rows][order]]
                assert torch.equal(drawn, masks[theirs.indices])
                here = slice(*method.grids.starts[level : level + 2])
                assert torch.equal(labels[here], golden[f"train/img{image}/lvl{level}/labels"].flatten())

    def positives(self, golden: Golden, image: int, level: int) -> Tensor:
        """A level's positive cells as MMDetection lists them, numbered row by row."""
        return golden[f"train/img{image}/lvl{level}/pos"]


class FirstGoldenTests(GoldenTests):
    """The goldens of SOLO's first version hold the scores of its cells besides."""

    gradient_tolerance = 2e-3
    """Two small norms of the backbone, of which much cancels out, are off by 1.4e-3 in double precision likewise."""

    @torch.no_grad()
    def test_scores_of_cells(self, golden: Golden, raw: Any) -> None:
        scores = cell_scores(raw.logits, points=True).split([side**2 for side in golden.method.grids.sides], dim=1)
        for level, (side, found) in enumerate(zip(golden.method.grids.sides, scores, strict=True)):
            golden.holds(f"act/cls{level}", found.transpose(1, 2).unflatten(2, (side, side)))


class PredictionTests:
    overlap: ClassVar[float]
    """IoU that each mask found has at least with the truth as the levels can draw it."""
    drawable: ClassVar[float] = 0.85
    """IoU of that with the truth."""
    score: ClassVar[float] = 0.85
    """Of what is certain."""

    def test_the_truth_gives_what_can_be_drawn_of_it(
        self, build: Build, answer: Answer, batch: Batch, truth: list[Instances]
    ) -> None:
        method = build()
        for single, ceiling, true in zip(batch, method.ceiling(batch), truth, strict=True):
            (found,) = method.instances(answer(method, single.targets[0]), single.frames)
            overlap, row = pairwise_iou(ceiling.masks.dense(), found.masks.dense()).max(dim=1)
            assert overlap.min() > self.overlap
            assert sorted(row.tolist()) == list(range(len(true)))
            assert torch.equal(found.labels[row], ceiling.labels)
            assert found.scores.min() > self.score
            assert pairwise_iou(ceiling.masks.dense(), true.masks.dense()).diagonal().min() > self.drawable

    def test_nothing_above_the_threshold(self, build: Build, answer: Answer, batch: Batch) -> None:
        method = build()
        for single in batch:
            raw = answer(method, single.targets[0])
            (found,) = method.instances(raw._replace(logits=[-level.abs() for level in raw.logits]), single.frames)
            assert (len(found), found.masks.size) == (0, single.frames[0].photo)

    @pytest.mark.parametrize(("points_nms", "kept"), [(True, 1), (False, 2)])
    def test_objects_on_neighbouring_cells(self, build: Build, answer: Answer, points_nms: bool, kept: int) -> None:
        method = build(points_nms=points_nms)
        raw = answer(method, neighbours())
        raw.logits[0][..., 5] -= 18  # the object further right, on column 5 of 16, is a little less certain
        assert len(method.instances(raw, [FRAME])[0]) == kept

    @pytest.mark.parametrize(("suppression", "kept"), [("matrix", 2), ("mask", 1)])
    def test_a_duplicate_decays_or_goes(self, build: Build, answer: Answer, suppression: str, kept: int) -> None:
        """A certain object of two levels, so of two cells: Matrix NMS leaves the second more than it must have."""
        method = build(suppression=suppression)
        method.point = replace(method.point, max_instances=2)
        raw = answer(method, squares(20), every_cell=True)
        assert len(method.instances(raw, [FRAME])[0]) == kept


class TrainingTests:
    def test_without_objects_the_class_loss_alone_remains(
        self, build: Build, answer: Answer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        method = build()
        losses = losses_of(method, answer(method, squares(16)), Instances.empty((128, 128)), monkeypatch)
        # One wrong logit of 20 costs (1 − α) · 20 and is divided by one more than no positive cell.
        assert losses == pytest.approx({"mask": 0, "class": 0.75 * 20}, rel=1e-4)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"grids": (40, 36)}, r"5 levels, grids \[40, 36\]"),
            ({"shared_cells": "first"}, "shared_cells='first': expected one of reference, smallest"),
            ({"suppression": "soft"}, "suppression='soft': expected one of matrix, mask"),
        ],
    )
    def test_settings_that_make_no_sense(self, build: Build, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            build(**settings)


class FirstTrainingTests(TrainingTests):
    """A cell of SOLO's first version learns the mask of its owner alone."""

    def test_of_two_instances_on_one_cell_the_last_or_the_smallest_is_learnt(
        self, build: Build, answer: Answer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A truthful answer about the one that is learnt costs what it costs without the other."""
        both = squares(24, 20)  # on the same cells of the first two levels, of classes 0 and 1
        order = torch.tensor([1, 0])
        for shared, target, learnt in (
            ("reference", both, both[1:]),
            ("reference", both[order], both[:1]),
            ("smallest", both, both[1:]),
            ("smallest", both[order], both[1:]),
        ):
            beside, alone = (
                losses_of(method, answer(method, learnt, every_cell=True), truth, monkeypatch)
                for method, truth in ((build(shared_cells=shared), target), (build(), learnt))
            )
            assert alone["class"] == pytest.approx(0, abs=1e-5)
            assert beside == pytest.approx(alone)

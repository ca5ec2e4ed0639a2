"""What bottom-up methods share, tried on each."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from answers import answer
from cells import FRAME, assert_each_found, matched, narrow, rectangles
from maskbench.methods.bottom_up import BottomUp
from maskbench.methods.centre_offset import CentreOffset
from maskbench.methods.discriminative import Discriminative
from maskbench.methods.flow_field import FlowField
from maskbench.methods.semantic import Semantic
from maskbench.methods.spatial_embedding import SpatialEmbedding
from maskbench.nn.decoders import semantic_fpn
from maskbench.structures import Batch, Instances

METHODS = (CentreOffset, Discriminative, FlowField, Semantic, SpatialEmbedding)
COARSE, FINE = (4, 8, 16, 32), (2, 4, 8, 16, 32)


def made(kind: type[BottomUp], strides: tuple[int, ...] = COARSE, **settings: Any) -> BottomUp:
    torch.manual_seed(0)
    decoder = partial(semantic_fpn, fpn_width=8, width=8)
    own = {"unit": 128} if kind is SpatialEmbedding else {}
    return kind(backbone=narrow(strides), classes=("red", "blue"), decoder=decoder, **own, **settings)


@pytest.mark.parametrize("kind", METHODS)
class TestTruth:
    def test_it_gives_what_can_be_drawn_of_it(self, kind: type[BottomUp], batch: Batch) -> None:
        method = made(kind)
        found = method.instances(answer(method, batch.targets), batch.frames)
        assert_each_found(found, method.ceiling(batch), overlap=0.98 if kind is FlowField else 1 - 1e-6)
        if kind is not FlowField:  # whose flows are those of a mask but nearly
            for instances in found:
                torch.testing.assert_close(instances.scores, torch.ones(len(instances)))

    def test_photos_without_objects_give_nothing(self, kind: type[BottomUp], without_objects: Batch) -> None:
        method = made(kind)
        found = method.instances(answer(method, without_objects.targets), without_objects.frames)
        assert [len(image) for image in found] == [0] * len(without_objects)
        assert [image.masks.size for image in found] == [frame.photo for frame in without_objects.frames]


@pytest.mark.parametrize("kind", METHODS)
class TestLearnedScore:
    def test_it_is_trained_with_and_without_objects(
        self, kind: type[BottomUp], batch: Batch, without_objects: Batch
    ) -> None:
        method = made(kind, score="learned")
        for images in (batch, without_objects):
            method.zero_grad()
            torch.stack(list(method.loss(images).values())).sum().backward()
            assert [name for name, weight in method.named_parameters() if weight.grad is None] == []

    def test_it_learns_how_good_the_groups_are_that_are_found(
        self, kind: type[BottomUp], batch: Batch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        method = made(kind, score="learned")
        raw = answer(method, batch.targets)
        raw = raw._replace(features=torch.rand(len(batch), 8, *raw[0].shape[2:]))
        monkeypatch.setattr(method, "forward", lambda images: raw)
        assert method.quality is not None
        optimiser = torch.optim.Adam(method.quality.parameters(), lr=0.05)
        losses = []
        for _ in range(40):
            optimiser.zero_grad()
            losses.append(method.loss(batch)["quality"])
            losses[-1].backward()
            optimiser.step()
        assert losses[-1] < 0.2 * losses[0]
        assert all((image.scores > 0.9).all() for image in method.instances(raw, batch.frames))

    def test_it_ranks(self, kind: type[BottomUp], monkeypatch: pytest.MonkeyPatch) -> None:
        method = made(kind, score="learned")
        target = rectangles((64, 64), (0, 0, 64, 24), (0, 40, 64, 64), labels=[0, 1])
        raw = answer(method, [target])
        raw = raw._replace(features=torch.zeros(1, 8, *raw[0].shape[2:]))
        for sign in (1, -1):
            monkeypatch.setattr(method.quality, "forward", lambda *image, sign=sign: sign * (2.0 * image[1].label - 1))
            (found,) = method.instances(raw, [FRAME])
            assert found.labels.tolist() == [1, 0][::sign]
            assert found.scores.tolist() == pytest.approx([0.731, 0.269], abs=0.01)

    def test_all_else_begins_as_without_it(self, kind: type[BottomUp]) -> None:
        learned = made(kind, score="learned").state_dict()
        for name, weight in made(kind, score="semantic").state_dict().items():
            assert torch.equal(learned[name], weight), name


@pytest.mark.parametrize("kind", METHODS)
class TestFinerMaps:
    """A backbone's finest map decides how fine masks are; lengths in pixels stay what they are."""

    def test_the_truth_is_drawn_as_well_as_they_allow(
        self, kind: type[BottomUp], batch: Batch, truth: list[Instances]
    ) -> None:
        least = []
        for strides in (COARSE, FINE):
            method = made(kind, strides)
            found = method.instances(answer(method, batch.targets), batch.frames)
            images = zip(found, truth, strict=True)
            least.append(min(matched(drawn, wanted)[1].min().item() for drawn, wanted in images))
        assert least[1] > least[0]
        assert least[1] > 0.93

    def test_every_weight_is_trained(self, kind: type[BottomUp], batch: Batch) -> None:
        method = made(kind, FINE)
        raw = method(method.prepare(batch))
        assert method.probabilities(raw).shape[2:] == tuple(side // 2 for side in batch.images.shape[2:])
        torch.stack(list(method.loss(batch).values())).sum().backward()
        assert [name for name, weight in method.named_parameters() if weight.grad is None] == []


def test_an_oracle_that_nobody_wrote_is_refused(batch: Batch) -> None:
    method = made(Semantic)
    raw = answer(method, batch.targets)
    assert len(method.given(raw, batch, "semantic map")) == len(batch)
    with pytest.raises(NotImplementedError, match="Semantic names count among its oracles"):
        method.given(raw, batch, "count")

"""What bottom-up methods share, tried on each."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from cells import matched, narrow
from maskbench.methods.bottom_up import BottomUp
from maskbench.methods.centre_offset import CentreOffset
from maskbench.methods.discriminative import Discriminative
from maskbench.methods.flow_field import FlowField
from maskbench.methods.semantic import Semantic
from maskbench.methods.spatial_embedding import SpatialEmbedding
from maskbench.nn.backbone import Backbone
from maskbench.nn.decoders import semantic_fpn, unet
from maskbench.structures import Batch, Instances

METHODS = (CentreOffset, Discriminative, FlowField, Semantic, SpatialEmbedding)


@pytest.mark.parametrize("kind", METHODS)
def test_a_learned_score_is_trained_and_ranks(
    kind: type[BottomUp], classes: tuple[str, ...], batch: Batch, without_objects: Batch
) -> None:
    torch.manual_seed(0)
    decoder = partial(semantic_fpn, fpn_width=8, width=8)
    method = kind(backbone=narrow(), classes=classes, decoder=decoder, score="learned")
    for images in (batch, without_objects):
        method.zero_grad()
        losses = method.loss(images)
        assert losses["quality"].isfinite()
        torch.stack(list(losses.values())).sum().backward()
        assert [name for name, weight in method.named_parameters() if weight.grad is None] == []
    with torch.inference_mode():
        for found in method.predict(batch):
            assert ((found.scores >= 0) & (found.scores <= 1)).all()
            assert torch.equal(found.scores, found.scores.sort(descending=True).values)


@pytest.mark.parametrize("decoder", [semantic_fpn, unet])
@pytest.mark.parametrize("kind", METHODS)
def test_a_backbone_with_finer_maps_gives_finer_masks(
    kind: type[BottomUp], decoder: partial, classes: tuple[str, ...], batch: Batch, truth: list[Instances]
) -> None:
    def made(*strides: int) -> BottomUp:
        options = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_width": 8}
        backbone = Backbone("resnet18", strides=strides, options=options)
        return kind(backbone=backbone, classes=classes, decoder=partial(decoder, width=8))

    def least(method: BottomUp) -> float:
        images = zip(method.ceiling(batch), truth, strict=True)
        return min(matched(drawn, wanted)[1].min().item() for drawn, wanted in images)

    coarse, fine = made(4, 8, 16, 32), made(2, 4, 8, 16, 32)
    assert least(fine) > least(coarse)
    probabilities = fine.probabilities(fine(fine.prepare(batch)))
    assert probabilities.shape[2:] == tuple(side // 2 for side in batch.images.shape[2:])
    assert torch.stack(list(fine.loss(batch).values())).isfinite().all()
    with torch.inference_mode():
        assert len(fine.predict(batch)) == len(batch)

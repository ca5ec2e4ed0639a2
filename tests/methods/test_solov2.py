from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from goldens import Golden
from maskbench.methods.solov2 import Raw, SOLOv2
from maskbench.ops.masks import shrink


def chain(found: re.Match[str]) -> str:
    """Of a level's chain MMDetection counts the convolutions, we the steps, with the up-sampling between them."""
    level, step, layer = int(found[1]), int(found[2]), ("conv", "gn").index(found[3])
    return f"mask_features.chains.{level}.{2 * step if level else 0}.{layer}"


HEADS = {
    r"^mask_head\.cls_convs\.(\d)\.conv": r"class_tower.\1.0",
    r"^mask_head\.cls_convs\.(\d)\.gn": r"class_tower.\1.1",
    r"^mask_head\.kernel_convs\.(\d)\.conv": r"kernel_tower.\1.0",
    r"^mask_head\.kernel_convs\.(\d)\.gn": r"kernel_tower.\1.1",
    r"^mask_head\.conv_cls": "classify",
    r"^mask_head\.conv_kernel": "kernel",
    r"^mask_head\.mask_feature_head\.convs_all_levels\.(\d)\.conv(\d)\.(conv|gn)": chain,
    r"^mask_head\.mask_feature_head\.conv_pred\.conv": "mask_features.output.0",
    r"^mask_head\.mask_feature_head\.conv_pred\.gn": "mask_features.output.1",
}
LOSSES = {"loss_mask": "mask", "loss_cls": "class"}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return Golden(shared / "goldens", "solov2", SOLOv2, HEADS)


@pytest.fixture(scope="module")
def raw(golden: Golden) -> Raw:
    return golden.method(golden.method.prepare(golden.batch))


class TestGolden:
    """Weights and batch of the goldens give what MMDetection computes from them."""

    def test_heads(self, golden: Golden, raw: Raw) -> None:
        golden.holds("raw/mask_feats", raw.features)
        for level, (logits, kernels) in enumerate(zip(raw.logits, raw.kernels, strict=True)):
            golden.holds(f"raw/cls{level}", logits)
            golden.holds(f"raw/kernel{level}", kernels)

    def test_cells_and_what_they_learn(self, golden: Golden) -> None:
        for image, target in enumerate(golden.batch.targets):
            cell, instance = golden.method.positives(target)
            wanted = shrink(target.masks.dense(), 4)
            start = 0
            for level, side in enumerate(golden.method.grids):
                here = (cell >= start) & (cell < start + side**2)
                order = cell[here].argsort()
                theirs = golden[f"train/img{image}/lvl{level}/pos_index_list"].sort()
                assert torch.equal(cell[here][order] - start, theirs.values)
                masks = torch.from_numpy(golden.arrays.mask_targets(image, level))
                assert torch.equal(wanted[instance[here][order]], masks[theirs.indices])
                labels = golden[f"train/img{image}/lvl{level}/labels"].flatten()
                assert torch.equal(target.labels[instance[here]], labels[cell[here] - start])
                start += side**2

    @torch.no_grad()
    def test_detections(self, golden: Golden, raw: Raw) -> None:
        for image, found in enumerate(golden.method.instances(raw, golden.batch.frames)):
            golden.holds_instances(f"pred/{image}", found)

    def test_losses_and_gradients(self, golden: Golden, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(golden.method, "forward", lambda images: raw)
        losses = golden.method.loss(golden.batch)
        golden.holds_losses("loss_full", losses, LOSSES)
        torch.stack(list(losses.values())).sum().backward()
        golden.holds_gradients("loss_full")


@pytest.fixture
def method(classes: tuple[str, ...]) -> SOLOv2:
    backbone = Backbone("resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_width": 8})
    return SOLOv2(
        backbone=backbone,
        classes=classes,
        width=8,
        head_width=8,
        head_depth=1,
        feature_width=8,
        kernel_channels=4,
        grids=(16, 14, 12, 8, 6),
        ranges=((1, 24), (16, 40), (28, 56), (44, 96), (80, 2048)),
    )


def unsaid(method: SOLOv2, images: int = 2) -> Raw:
    """An output that sees nothing anywhere: no class, no kernel, no feature."""
    channels = len(method.classes)
    return Raw(
        [torch.full((images, channels, side, side), -20.0) for side in method.grids],
        [torch.zeros(images, 4, side, side) for side in method.grids],
        torch.zeros(images, 4, 32, 32),
    )


def answer(method: SOLOv2, batch: Batch, every_cell: bool = False) -> Raw:
    """The output that says the truth: feature n is object n, painted by the kernel of its first cell or of each."""
    raw = unsaid(method)
    for row, target in enumerate(batch.targets):
        raw.features[row, : len(target)] = torch.where(shrink(target.masks.dense(), 4), 1.0, -1.0)
        for cell, instance in reversed(list(zip(*(part.tolist() for part in method.positives(target)), strict=True))):
            level, at = locate(method, cell)
            first = method.positives(target)[0][method.positives(target)[1] == instance][0]
            if every_cell or cell == first:
                raw.logits[level][row, target.labels[instance], at[0], at[1]] = 20
                raw.kernels[level][row, instance, at[0], at[1]] = 20
    return raw

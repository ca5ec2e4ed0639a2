"""Mask R-CNN against torchvision's own, live: the same weights, photos and truth."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection import MaskRCNN as Theirs
from torchvision.models.detection import maskrcnn_resnet50_fpn_v2
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

from maskbench.methods.mask_rcnn import MaskRCNN
from maskbench.ops.assign import Sampler
from maskbench.runtime.compose import make
from maskbench.structures import Batch, Frame, Instances, Masks
from maskbench.weights.converting import publish
from maskbench.weights.fitting import fit

SIDES = (256, 320)
SIZES = ((256, 320), (256, 300), (200, 256))
CLASSES = ("red", "green", "blue")
PROPOSALS = 150
"""Of an image, more than are kept as detections: few, since box heads take their time."""
FEW = dict.fromkeys(("rpn_post_nms_top_n_train", "rpn_post_nms_top_n_test"), PROPOSALS)
LOSSES = {
    "loss_objectness": "rpn_objectness",
    "loss_rpn_box_reg": "rpn_box",
    "loss_classifier": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
}


def first() -> Theirs:
    """maskrcnn_resnet50_fpn with frozen norms, which without weights it has not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of arguments that torchvision itself has deprecated
        backbone = resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5
        )
    return Theirs(backbone, len(CLASSES) + 1, **FEW)


def second() -> Theirs:
    """maskrcnn_resnet50_fpn_v2, whose norms are all trained."""
    return maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=len(CLASSES) + 1, **FEW)


@pytest.fixture(scope="module", params=[first, second])
def theirs(request: pytest.FixtureRequest) -> Theirs:
    """With weights at which everything is found somewhere."""
    torch.manual_seed(0)
    model = request.param().eval()
    loud = {"cls_score.weight": 0.1, "cls_logits.weight": 0.05, "bbox_pred.weight": 0.02, "mask_fcn_logits.weight": 0.3}
    for name, weight in model.named_parameters():
        for ending, std in loud.items():
            if name.endswith(ending):
                torch.nn.init.normal_(weight, std=std)
    for name, values in model.state_dict().items():
        if name.endswith("bn3.weight"):
            values.fill_(0.25)  # or the features of a random network grow with its depth
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.uniform_(-0.1, 0.1)
        if name.endswith("running_var"):
            buffer.uniform_(0.8, 1.2)
    model.transform.resize = lambda image, target: (image, target)  # resampling is the transform's, not the method's
    for sampler in (model.rpn.fg_bg_sampler, model.roi_heads.fg_bg_sampler):
        sampler.batch_size_per_image = 10**6  # all of them, so that no draw is involved
    return model


@pytest.fixture(scope="module")
def method(theirs: Theirs) -> MaskRCNN:
    normed = "backbone.fpn.inner_blocks.0.1.weight" in theirs.state_dict()
    style = None if normed else "pytorch"  # a normalised pyramid tells the second version's
    published = publish(theirs.state_dict(), layout="torchvision", method="mask_rcnn", style=style, classes=CLASSES)
    assert published.backbone["frozen_norm"] is not normed
    backbone = make({**published.backbone, "frozen_stages": 0})  # as torchvision builds it without weights
    method = make(published.method, backbone=backbone, classes=CLASSES)
    assert fit(method, published.weights) == ()
    method.sampler, method.rpn.sampler = Sampler(10**6, 0.25), Sampler(10**6, 0.5)
    method.rpn.post_nms = (PROPOSALS, PROPOSALS)
    return method.eval()


@pytest.fixture(scope="module")
def photos() -> Batch:
    """Three photos of different sizes: soft noise, on each some rectangles."""
    images, targets = [], []
    for height, width in SIZES:
        noise = F.interpolate(255 * torch.rand(1, 3, height // 16, width // 16), size=(height, width), mode="bilinear")
        masks = torch.zeros(3, *SIDES, dtype=torch.bool)
        for mask, (left, top, right, bottom) in zip(
            masks, ((20, 30, 90, 70), (60, 50, 110, 180), (150, 100, 240, 190)), strict=True
        ):
            mask[top:bottom, left:right] = True
        images.append(F.pad(noise[0].round().to(torch.uint8), (0, SIDES[1] - width, 0, SIDES[0] - height)))
        targets.append(Instances(Masks(masks), Masks(masks).boxes(), torch.tensor([0, 2, 1]), torch.ones(3)))
    frames = tuple(Frame(image, size, size) for image, size in enumerate(SIZES))
    return Batch(torch.stack(images), tuple(targets), frames)


def as_theirs(photos: Batch) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images in 0…1 without padding, and targets whose label 0 is background."""
    images, targets = [], []
    for image, target, frame in zip(photos.images, photos.targets, photos.frames, strict=True):
        height, width = frame.resized
        images.append(image[:, :height, :width] / 255)
        masks = target.masks.dense()[:, :height, :width].to(torch.uint8)
        targets.append({"boxes": target.boxes, "labels": target.labels + 1, "masks": masks})
    return images, targets


@torch.no_grad()
def test_detections(theirs: Theirs, method: MaskRCNN, photos: Batch) -> None:
    wanted = theirs(as_theirs(photos)[0])
    for found, expected in zip(method.predict(photos), wanted, strict=True):
        assert len(found) == 100
        assert torch.equal(found.labels, expected["labels"] - 1)
        torch.testing.assert_close(found.scores, expected["scores"], atol=1e-5, rtol=0)
        torch.testing.assert_close(found.boxes, expected["boxes"], atol=1e-3, rtol=0)
        different = (found.masks.dense() != (expected["masks"][:, 0] > 0.5)).sum(dim=(1, 2))
        assert different.max() <= 2  # pixels whose probability is one half


@torch.no_grad()
def test_losses(theirs: Theirs, method: MaskRCNN, photos: Batch) -> None:
    wanted = theirs.train()(*as_theirs(photos))
    theirs.eval()
    found = method.train().loss(photos)
    method.eval()
    torch.testing.assert_close(
        {name: found[name].item() for name in LOSSES.values()},
        {ours: wanted[theirs].item() for theirs, ours in LOSSES.items()},
        rtol=1e-4,
        atol=0,
    )

"""torchvision's Mask R-CNN (`maskrcnn_resnet50_fpn` and `_v2`), whose first class is background, and its ResNets."""

from __future__ import annotations

import torch
from torch import Tensor

from maskbench.weights.coco_names import COCO
from maskbench.weights.layouts.layout import Layout
from maskbench.weights.renaming import Rules

BACKBONE: Rules = ((r"(?:backbone\.body\.)?(conv1|bn1|layer[1-4])", r"backbone.body.\1"),)

MASK_RCNN: Rules = (
    *BACKBONE,
    # newer versions have each convolution in a sequence of its own, with its norm if it has one
    (r"backbone\.fpn\.inner_blocks\.(\d)\.1", r"fpn.lateral.\1.norm"),
    (r"backbone\.fpn\.layer_blocks\.(\d)\.1", r"fpn.output.\1.norm"),
    (r"backbone\.fpn\.inner_blocks\.(\d)(?:\.0)?", r"fpn.lateral.\1"),
    (r"backbone\.fpn\.layer_blocks\.(\d)(?:\.0)?", r"fpn.output.\1"),
    (r"rpn\.head\.conv\.(\d)\.0", r"rpn.convs.\1"),
    (r"rpn\.head\.conv", "rpn.convs.0"),
    (r"rpn\.head\.cls_logits", "rpn.objectness"),
    (r"rpn\.head\.bbox_pred", "rpn.deltas"),
    (r"roi_heads\.box_head\.fc6", "box_head.hidden.1"),
    (r"roi_heads\.box_head\.fc7", "box_head.hidden.3"),
    (r"roi_heads\.box_head\.(\d)\.0", r"box_head.convs.\1"),
    (r"roi_heads\.box_head\.(\d)\.1", r"box_head.convs.\1.norm"),
    (r"roi_heads\.box_head\.\d", "box_head.hidden.1"),
    (r"roi_heads\.box_predictor\.cls_score", "box_head.classify"),
    (r"roi_heads\.box_predictor\.bbox_pred", "box_head.regress"),
    (r"roi_heads\.mask_head\.mask_fcn(\d+)", lambda found: f"mask_head.convs.{int(found[1]) - 1}"),
    (r"roi_heads\.mask_head\.(\d+)\.0", r"mask_head.convs.\1"),
    (r"roi_heads\.mask_head\.(\d+)\.1", r"mask_head.convs.\1.norm"),
    (r"roi_heads\.mask_predictor\.conv5_mask", "mask_head.upsample"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits", "mask_head.logits"),
)


def arrange(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Classes without holes and background last; background's boxes and mask, which nothing asks for, are left out.

    Of the 91 that COCO's ids count, those that no class has are dropped: they were never to be found.
    """
    arranged = dict(weights)
    count = len(weights.get("box_head.classify.weight", ()))
    rows = torch.tensor(list(COCO) if count == max(COCO) + 1 else range(1, count), dtype=torch.long)
    for layer in ("classify", "regress"):
        for part in ("weight", "bias"):
            name = f"box_head.{layer}.{part}"
            if name in weights and layer == "classify":
                arranged[name] = torch.cat([weights[name][rows], weights[name][:1]])
            elif name in weights and len(weights[name]) == 4 * count:
                arranged[name] = weights[name].unflatten(0, (count, 4))[rows].flatten(0, 1)
    for part in ("weight", "bias"):
        name = f"mask_head.logits.{part}"
        if name in weights and len(weights[name]) == count:
            arranged[name] = weights[name][rows]
    return arranged


POOL = {"_target_": "maskbench.ops.roi_pool.RoIAlign", "sampling": 2, "reduce": "average", "aligned": False}
"""As in `conf/method/pool/roi_align_torchvision.yaml`."""

TORCHVISION = Layout(
    methods={"backbone": BACKBONE, "mask_rcnn": MASK_RCNN},
    styles=("torchvision", "torchvision_v2", "pytorch"),
    usual={"backbone": "pytorch", "normed": "torchvision_v2"},
    ignored=(r"fc\..*",),
    arrange=arrange,
    settings={"mask_rcnn": {"variant": "torchvision", "post_nms": [2000, 1000], "pool": POOL}},
)

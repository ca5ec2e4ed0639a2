"""MMDetection 2.x and 3.x, whose names are the same and whose background is the last class, as ours is."""

from __future__ import annotations

import re

from maskbench.weights.layouts.layout import Layout
from maskbench.weights.renaming import Rules

BACKBONE: Rules = ((r"(?:backbone\.)?(conv1|bn1|layer[1-4])", r"backbone.body.\1"),)

PYRAMID: Rules = (
    *BACKBONE,
    (r"neck\.lateral_convs\.(\d+)\.conv", r"fpn.lateral.\1"),
    (r"neck\.fpn_convs\.(\d+)\.conv", r"fpn.output.\1"),
)

RPN: Rules = (
    (r"rpn_head\.rpn_conv", "rpn.convs.0"),
    (r"rpn_head\.rpn_cls", "rpn.objectness"),
    (r"rpn_head\.rpn_reg", "rpn.deltas"),
)

BOX_HEAD: Rules = (
    (r"roi_head\.bbox_head\.shared_fcs\.0", "box_head.hidden.1"),
    (r"roi_head\.bbox_head\.shared_fcs\.1", "box_head.hidden.3"),
    (r"roi_head\.bbox_head\.fc_cls", "box_head.classify"),
    (r"roi_head\.bbox_head\.fc_reg", "box_head.regress"),
)

MASK_HEAD: Rules = (
    (r"roi_head\.mask_head\.convs\.(\d+)\.conv", r"mask_head.convs.\1"),
    (r"roi_head\.mask_head\.conv_logits", "mask_head.logits"),
    (r"roi_head\.mask_head\.upsample", "mask_head.upsample"),
)

CASCADE: Rules = (
    (r"roi_head\.bbox_head\.(\d)\.shared_fcs\.0", r"cascade.heads.\1.hidden.1"),
    (r"roi_head\.bbox_head\.(\d)\.shared_fcs\.1", r"cascade.heads.\1.hidden.3"),
    (r"roi_head\.bbox_head\.(\d)\.fc_cls", r"cascade.heads.\1.classify"),
    (r"roi_head\.bbox_head\.(\d)\.fc_reg", r"cascade.heads.\1.regress"),
    (r"roi_head\.mask_head\.(\d)\.convs\.(\d+)\.conv", r"mask_heads.\1.convs.\2"),
    (r"roi_head\.mask_head\.(\d)\.conv_logits", r"mask_heads.\1.logits"),
    (r"roi_head\.mask_head\.(\d)\.upsample", r"mask_heads.\1.upsample"),
)


def _flow(found: re.Match[str]) -> str:
    """A stage's head holds the step from the one before; the first has none."""
    return f"flow.{int(found[1]) - 1}"


HTC: Rules = (
    (r"roi_head\.mask_head\.([1-9])\.conv_res\.conv", _flow),
    *CASCADE,
    (r"roi_head\.semantic_head\.lateral_convs\.(\d+)\.conv", r"semantic.lateral.\1"),
    (r"roi_head\.semantic_head\.convs\.(\d+)\.conv", r"semantic.convs.\1"),
    (r"roi_head\.semantic_head\.conv_embedding\.conv", "semantic.embed"),
    (r"roi_head\.semantic_head\.conv_logits", "semantic.classify"),
)

POINT_REND: Rules = (
    (r"roi_head\.mask_head\.downsample_conv\.conv", "coarse_head.halve"),
    (r"roi_head\.mask_head\.fcs\.0", "coarse_head.hidden.1"),
    (r"roi_head\.mask_head\.fcs\.1", "coarse_head.hidden.3"),
    (r"roi_head\.mask_head\.fc_logits", "coarse_head.logits"),
    (r"roi_head\.point_head\.fcs\.(\d+)\.conv", r"refinement.layers.\1"),
    (r"roi_head\.point_head\.fc_logits", "refinement.logits"),
)


def _chain(found: re.Match[str]) -> str:
    """Of a level's chain MMDetection counts the convolutions, we the steps, with the up-sampling between them."""
    level, step, layer = int(found[1]), int(found[2]), ("conv", "gn").index(found[3])
    return f"mask_features.chains.{level}.{2 * step if level else 0}.{layer}"


CLASS_TOWER: Rules = (
    (r"mask_head\.cls_convs\.(\d+)\.conv", r"class_tower.\1.0"),
    (r"mask_head\.cls_convs\.(\d+)\.gn", r"class_tower.\1.1"),
    (r"mask_head\.conv_cls", "classify"),
)

SOLO: Rules = (
    (r"mask_head\.mask_convs\.(\d+)\.conv", r"mask_tower.\1.0"),
    (r"mask_head\.mask_convs\.(\d+)\.gn", r"mask_tower.\1.1"),
    (r"mask_head\.conv_mask_list", "masks"),
)

# the light variant has one tower for columns and rows
DECOUPLED_SOLO: Rules = (
    (r"mask_head\.mask_convs(?:_x)?\.(\d+)\.conv", r"mask_towers.0.\1.0"),
    (r"mask_head\.mask_convs(?:_x)?\.(\d+)\.gn", r"mask_towers.0.\1.1"),
    (r"mask_head\.mask_convs_y\.(\d+)\.conv", r"mask_towers.1.\1.0"),
    (r"mask_head\.mask_convs_y\.(\d+)\.gn", r"mask_towers.1.\1.1"),
    (r"mask_head\.conv_mask_list_x", "columns"),
    (r"mask_head\.conv_mask_list_y", "rows"),
)

SOLOV2: Rules = (
    (r"mask_head\.kernel_convs\.(\d+)\.conv", r"kernel_tower.\1.0"),
    (r"mask_head\.kernel_convs\.(\d+)\.gn", r"kernel_tower.\1.1"),
    (r"mask_head\.conv_kernel", "kernel"),
    (r"mask_head\.mask_feature_head\.convs_all_levels\.(\d+)\.conv(\d+)\.(conv|gn)", _chain),
    (r"mask_head\.mask_feature_head\.conv_pred\.conv", "mask_features.output.0"),
    (r"mask_head\.mask_feature_head\.conv_pred\.gn", "mask_features.output.1"),
)

MMDETECTION = Layout(
    methods={
        "backbone": BACKBONE,
        "mask_rcnn": (*PYRAMID, *RPN, *BOX_HEAD, *MASK_HEAD),
        "cascade_mask_rcnn": (*PYRAMID, *RPN, *CASCADE),
        "htc": (*PYRAMID, *RPN, *HTC),
        "point_rend": (*PYRAMID, *RPN, *BOX_HEAD, *POINT_REND),
        "solo": (*PYRAMID, *CLASS_TOWER, *SOLO),
        "decoupled_solo": (*PYRAMID, *CLASS_TOWER, *DECOUPLED_SOLO),
        "solov2": (*PYRAMID, *CLASS_TOWER, *SOLOV2),
    },
    styles=("pytorch", "caffe", "caffe2"),
    ignored=(r"data_preprocessor\..*", r"(head\.)?fc\..*"),
)

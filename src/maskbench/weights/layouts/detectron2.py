"""detectron2 and its PointRend project; blue comes first, and background is the last class, as ours is."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from maskbench.weights.layouts.layout import Layout
from maskbench.weights.renaming import Rules


def _stage(found: re.Match[str]) -> str:
    """Stages are counted from the stem, so that the first of blocks is the second."""
    layer = found[3].replace("shortcut.norm", "downsample.1").replace("shortcut", "downsample.0")
    layer = re.sub(r"conv(\d)\.norm", r"bn\1", layer)
    return f"backbone.body.layer{int(found[1]) - 1}.{found[2]}.{layer}"


def _level(found: re.Match[str]) -> str:
    return f"fpn.{found[1]}.{int(found[2]) - 2}"


# A backbone of its own, as those that were trained on ImageNet are published, has names without the prefix.
_BODY = r"(?:backbone\.bottom_up\.|backbone\.)?"

PYRAMID: Rules = (
    (_BODY + r"stem\.conv1\.norm", "backbone.body.bn1"),
    (_BODY + r"stem\.conv1", "backbone.body.conv1"),
    (_BODY + r"res([2-5])\.(\d+)\.((?:conv\d|shortcut)(?:\.norm)?)", _stage),
    (r"backbone\.fpn_(lateral|output)([2-5])", _level),
)

RPN: Rules = (
    (r"proposal_generator\.rpn_head\.conv", "rpn.convs.0"),
    (r"proposal_generator\.rpn_head\.objectness_logits", "rpn.objectness"),
    (r"proposal_generator\.rpn_head\.anchor_deltas", "rpn.deltas"),
)

BOX_HEAD: Rules = (
    (r"roi_heads\.box_head\.fc1", "box_head.hidden.1"),
    (r"roi_heads\.box_head\.fc2", "box_head.hidden.3"),
    (r"roi_heads\.box_predictor\.cls_score", "box_head.classify"),
    (r"roi_heads\.box_predictor\.bbox_pred", "box_head.regress"),
)


def mask_head(ours: str) -> Rules:
    """Their one mask head, under a name of ours."""
    return (
        (r"roi_heads\.mask_head\.mask_fcn(\d+)", lambda found: f"{ours}.convs.{int(found[1]) - 1}"),
        (r"roi_heads\.mask_head\.deconv", f"{ours}.upsample"),
        (r"roi_heads\.mask_head\.predictor", f"{ours}.logits"),
    )


CASCADE: Rules = (
    (r"roi_heads\.box_head\.(\d)\.fc1", r"cascade.heads.\1.hidden.1"),
    (r"roi_heads\.box_head\.(\d)\.fc2", r"cascade.heads.\1.hidden.3"),
    (r"roi_heads\.box_predictor\.(\d)\.cls_score", r"cascade.heads.\1.classify"),
    (r"roi_heads\.box_predictor\.(\d)\.bbox_pred", r"cascade.heads.\1.regress"),
)

# The heads moved into `mask_head` in 2021; older files have them beside it.
_COARSE, _POINT = (rf"roi_heads\.mask_(?:head\.)?{head}_head" for head in ("coarse", "point"))

POINT_REND: Rules = (
    (_COARSE + r"\.reduce_spatial_dim_conv", "coarse_head.halve"),
    (_COARSE + r"\.(?:coarse_mask_)?fc1", "coarse_head.hidden.1"),
    (_COARSE + r"\.(?:coarse_mask_)?fc2", "coarse_head.hidden.3"),
    (_COARSE + r"\.prediction", "coarse_head.logits"),
    (_POINT + r"\.fc(\d+)", lambda found: f"refinement.layers.{int(found[1]) - 1}"),
    (_POINT + r"\.predictor", "refinement.logits"),
)


def arrange(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The statistics that the first files left out, folded into scale and offset as they were."""
    arranged = dict(weights)
    for name, scale in weights.items():
        norm = name.removesuffix(".weight")
        if re.search(r"(\.bn\d|\.downsample\.1)\.weight$", name) and f"{norm}.running_var" not in weights:
            arranged |= {f"{norm}.running_mean": torch.zeros_like(scale), f"{norm}.running_var": torch.ones_like(scale)}
    return arranged


DETECTRON2 = Layout(
    methods={
        "backbone": PYRAMID,
        "mask_rcnn": (*PYRAMID, *RPN, *BOX_HEAD, *mask_head("mask_head")),
        "cascade_mask_rcnn": (*PYRAMID, *RPN, *CASCADE, *mask_head("mask_heads.0")),
        "point_rend": (*PYRAMID, *RPN, *BOX_HEAD, *POINT_REND),
    },
    styles=("caffe", "caffe2", "pytorch"),
    usual={"resnext": "caffe2"},
    ignored=(r"pixel_(mean|std)", r"proposal_generator\.anchor_generator\.cell_anchors\.\d+", r"(stem\.)?fc\..*"),
    arrange=arrange,
    settings={"mask_rcnn": {"variant": "detectron2"}, "cascade_mask_rcnn": {"variant": "detectron2"}},
    pixels=("pixel_mean", "pixel_std"),
)

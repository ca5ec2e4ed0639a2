from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import resnet50, resnext50_32x4d
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor

from checkpoints import R101, THIN, Drawn, detectron2, mmdetection_solov2
from maskbench.errors import ConfigError, WeightsError
from maskbench.methods.cascade_mask_rcnn import CascadeMaskRCNN
from maskbench.methods.mask_rcnn import MaskRCNN
from maskbench.methods.point_rend import PointRend
from maskbench.methods.solov2 import SOLOv2
from maskbench.nn.backbone import Backbone
from maskbench.structures import Batch, Frame, Instances
from maskbench.weights.coco_names import COCO
from maskbench.weights.converting import Published, convert, publish
from maskbench.weights.fitting import fit

SMALL: dict[str, Any] = {**THIN, "box_width": 8, "classes": 2}
CLASSES = ("cat", "dog")
METHODS = {"mask_rcnn": MaskRCNN, "cascade_mask_rcnn": CascadeMaskRCNN, "point_rend": PointRend, "solov2": SOLOv2}


def settings(node: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name != "_target_"}


def built(published: Published, method: str) -> Any:
    network = METHODS[method](
        backbone=Backbone(**settings(published.backbone)), classes=published.classes, **settings(published.method)
    )
    assert fit(network, published.weights) == ()
    return network.eval()


def photo(side: int = 96) -> Batch:
    images = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)
    return Batch(images, (Instances.empty((side, side)),), (Frame(1, photo=(side, side), resized=(side, side)),))


def statistics(x: Tensor, state: Drawn, name: str, eps: float) -> Tensor:
    parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *parts, eps=eps)


def detectron2_body(state: Drawn, bgr: Tensor) -> list[Tensor]:
    """What detectron2 computes: blue first, means off, the stride in the first convolution of a block."""

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        name = f"backbone.bottom_up.{name}"
        return statistics(F.conv2d(x, state[f"{name}.weight"], None, stride, padding), state, f"{name}.norm", 1e-5)

    x = bgr - torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)
    x = F.max_pool2d(F.relu(conv(x, "stem.conv1", 2, 3)), 3, 2, 1)
    maps = []
    for stage in (2, 3, 4, 5):
        stride, block = (1 if stage == 2 else 2), f"res{stage}.0"
        inner = F.relu(conv(x, f"{block}.conv1", stride))
        inner = F.relu(conv(inner, f"{block}.conv2", 1, 1))
        x = F.relu(conv(inner, f"{block}.conv3") + conv(x, f"{block}.shortcut", stride))
        maps.append(x)
    return maps


class TestDetectron2:
    def test_the_backbone_on_rgb_is_theirs_on_bgr(self) -> None:
        state = detectron2(**SMALL)
        method = built(publish({"model": state}, layout="detectron2", method="mask_rcnn", classes=CLASSES), "mask_rcnn")
        images = photo().images
        found = method.backbone(method.backbone.normalise(images))
        wanted = detectron2_body(state, images.flip(1).float())
        assert [level.shape for level in found] == [level.shape for level in wanted]
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())

    @pytest.mark.parametrize("method", ["mask_rcnn", "cascade_mask_rcnn", "point_rend"])
    def test_a_converted_method_predicts(self, method: str) -> None:
        published = publish(detectron2(method, **SMALL), layout="detectron2", method=method, classes=CLASSES)
        network = built(published, method)
        network.point = type(network.point)(0.0, None, 3)
        (found,) = network.predict(photo())
        assert len(found) == 3
        assert set(found.labels.tolist()) <= {0, 1}

    def test_its_cascade_is_of_its_own_variant(self) -> None:
        published = publish(
            detectron2("cascade_mask_rcnn", **SMALL), layout="detectron2", method="cascade_mask_rcnn", classes=CLASSES
        )
        assert published.method is not None
        assert published.method["variant"] == "detectron2"
        assert "mask_heads.0.logits.weight" in published.weights

    def test_an_old_point_rend_has_its_heads_beside_the_mask_head(self) -> None:
        state = detectron2("point_rend", **SMALL)
        old = {
            name.replace("mask_head.coarse_head.fc", "mask_head.coarse_head.coarse_mask_fc")
            .replace("mask_head.coarse_head", "mask_coarse_head")
            .replace("mask_head.point_head", "mask_point_head"): value
            for name, value in state.items()
        }
        assert len(set(old) - set(state)) == 16
        new, found = (convert(each, layout="detectron2", method="point_rend") for each in (state, old))
        assert all(torch.equal(found[name], value) for name, value in new.items())

    def test_buffers_of_old_files_are_no_weights_but_tell_the_style(self) -> None:
        state = detectron2(device="meta")
        cells = {f"proposal_generator.anchor_generator.cell_anchors.{level}": torch.zeros(3, 4) for level in range(5)}
        bgr = torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)
        ones, rgb_std = torch.ones(3, 1, 1), torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)

        def found(mean: Tensor, std: Tensor, **arguments: Any) -> dict[str, Any]:
            old = {**state, **cells, "pixel_mean": mean, "pixel_std": std}
            return publish(old, layout="detectron2", method="mask_rcnn", **arguments).backbone

        assert found(bgr, ones)["stride_in_1x1"]
        assert "stride_in_1x1" not in found(bgr, rgb_std.flip(0))
        assert found(bgr.flip(0), rgb_std)["std"] == [58.395, 57.12, 57.375]
        with pytest.raises(WeightsError, match=r"deviation \[1.0, 1.0, 1.0\], which is style caffe; expected pytorch"):
            found(bgr, ones, style="pytorch")
        with pytest.raises(WeightsError, match=r"which is style unknown; expected caffe or caffe2 or pytorch"):
            found(bgr + 1, ones)

    def test_one_that_was_trained_on_rgb(self) -> None:
        state = detectron2(**SMALL)
        published = publish(state, layout="detectron2", method="mask_rcnn", style="pytorch")
        assert "stride_in_1x1" not in published.backbone
        stem = state["backbone.bottom_up.stem.conv1.weight"]
        assert torch.equal(published.weights["backbone.body.conv1.weight"], stem)

    def test_a_backbone_alone(self) -> None:
        """Without the prefix, and without statistics, which were folded into scale and offset."""
        given = {
            name.removeprefix("backbone.bottom_up."): value
            for name, value in detectron2(**SMALL).items()
            if name.startswith("backbone.bottom_up.") and "running" not in name
        }
        published = publish({**given, "fc.weight": torch.zeros(2, 3)}, layout="detectron2", method="backbone")
        assert published.method is None
        assert torch.equal(published.weights["bn1.running_var"], torch.ones(64))
        Backbone(**settings(published.backbone)).body.load_state_dict(published.weights)


@pytest.fixture(scope="module")
def theirs() -> Any:
    """Theirs in evaluation mode, its normalisation's epsilon as in the published version 1."""
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # without weights it is not frozen
            module.eps = 0.0
            module.running_var.uniform_(1e-5, 1e-4)
            module.weight.data.uniform_(1e-3, 2e-3)
    return model


@pytest.fixture(scope="module")
def method(theirs: Any) -> MaskRCNN:
    published = publish(theirs.state_dict(), layout="torchvision", method="mask_rcnn")
    assert published.classes == tuple(COCO.values())
    assert published.category_ids == tuple(COCO)
    assert published.method["pool"]["aligned"] is False
    backbone = Backbone(**settings(published.backbone))
    network = MaskRCNN(backbone=backbone, classes=published.classes)
    assert fit(network, published.weights) == ()
    return network.eval()


class TestTorchvision:
    @torch.no_grad()
    def test_features_and_heads_are_theirs(self, theirs: Any, method: MaskRCNN) -> None:
        images = torch.randn(1, 3, 64, 96)
        levels = list(theirs.backbone(images).values())
        raw = method(images)
        for ours, other in zip(raw.features, levels, strict=True):
            torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-4)
        logits, deltas = theirs.rpn.head(levels)
        flat = [level.permute(0, 2, 3, 1).flatten(1) for level in logits]
        for ours, other in zip(raw.rpn.logits, flat, strict=True):
            torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-4)
        for ours, other in zip(raw.rpn.deltas, deltas, strict=True):
            torch.testing.assert_close(ours.flatten(1), other.permute(0, 2, 3, 1).flatten(1), rtol=1e-3, atol=1e-4)

        regions = torch.randn(2, 256, 7, 7)
        scores, boxes = theirs.roi_heads.box_predictor(theirs.roi_heads.box_head(regions))
        ids = list(COCO)
        classes, moved = method.box_head(regions)
        torch.testing.assert_close(classes, scores[:, [*ids, 0]])
        torch.testing.assert_close(moved, boxes.view(2, 91, 4)[:, ids])
        regions = torch.randn(2, 256, 14, 14)
        masks = theirs.roi_heads.mask_predictor(theirs.roi_heads.mask_head(regions))
        torch.testing.assert_close(method.mask_head(regions), masks[:, ids])

    def test_names_with_and_without_the_sequences_of_newer_versions(self, theirs: Any) -> None:
        new = theirs.state_dict()
        old = {
            name.replace("_blocks.0.0.", "_blocks.0.")
            .replace("_blocks.1.0.", "_blocks.1.")
            .replace("_blocks.2.0.", "_blocks.2.")
            .replace("_blocks.3.0.", "_blocks.3.")
            .replace("rpn.head.conv.0.0.", "rpn.head.conv."): value
            for name, value in new.items()
        }
        for step in range(4):
            for part in ("weight", "bias"):
                name = f"roi_heads.mask_head.{step}.0.{part}"
                old[f"roi_heads.mask_head.mask_fcn{step + 1}.{part}"] = old.pop(name)
        assert len(set(old) - set(new)) == 26
        first, second = (convert(state, layout="torchvision", method="mask_rcnn") for state in (new, old))
        assert all(torch.equal(second[name], value) for name, value in first.items())

    def test_without_holes_where_there_are_none(self, theirs: Any) -> None:
        state = theirs.state_dict()
        for name in [name for name in state if "predictor.cls_score" in name or "mask_fcn_logits" in name]:
            state[name] = state[name][:3]
        for name in [name for name in state if "predictor.bbox_pred" in name]:
            state[name] = state[name][:12]
        published = publish(state, layout="torchvision", method="mask_rcnn")
        scores = state["roi_heads.box_predictor.cls_score.bias"]
        assert torch.equal(published.weights["box_head.classify.bias"], scores[[1, 2, 0]])
        assert (published.classes, published.category_ids) == (("class 1", "class 2"), (1, 2))

    def test_a_norm_that_adds_to_the_variance(self, theirs: Any) -> None:
        state, name = theirs.state_dict(), "backbone.body.bn1.running_var"
        published = publish(state, layout="torchvision", method="mask_rcnn", style="pytorch")
        assert torch.equal(published.weights[name], state[name])

    def test_norms_of_the_second_version_add_to_the_variance_whatever_the_backbone(self) -> None:
        model = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
        model.backbone = _resnet_fpn_extractor(resnext50_32x4d(weights=None), 5, norm_layer=torch.nn.BatchNorm2d)
        state, name = model.state_dict(), "backbone.body.bn1.running_var"
        published = publish(state, layout="torchvision", method="mask_rcnn")
        assert published.backbone["name"] == "resnext50_32x4d"
        assert published.backbone["frozen_norm"] is False
        assert torch.equal(published.weights[name], state[name])

    def test_a_resnet_alone(self) -> None:
        state = resnet50(weights=None).state_dict()
        published = publish(state, layout="torchvision", method="backbone")
        assert set(state) - set(published.weights) == {
            name for name in state if name.startswith("fc.") or name.endswith("tracked")
        }
        assert torch.equal(published.weights["bn1.running_var"], state["bn1.running_var"])


class TestMMDetection:
    def test_light_widths_are_read_from_the_shapes(self) -> None:
        state = mmdetection_solov2(**THIN, head_width=8, depth=2, feature_width=8, kernels=4, classes=2)
        published = publish({"state_dict": state}, layout="mmdetection", method="solov2", classes=CLASSES)
        assert settings(published.method) == {
            "width": 16,
            "head_width": 8,
            "head_depth": 2,
            "feature_width": 8,
            "kernel_channels": 4,
        }
        assert published.backbone["options"] == {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
        assert built(published, "solov2").predict(photo())[0].masks.size == (96, 96)

    def test_what_no_weight_tells_is_a_setting(self) -> None:
        state = mmdetection_solov2(device="meta")
        ranges = [[1, 56], [28, 112], [56, 224], [112, 448], [224, 896]]
        published = publish(state, layout="mmdetection", method="solov2", settings={"ranges": ranges})
        assert published.method["ranges"] == ranges
        with pytest.raises(ConfigError, match="settings: "):
            publish(state, layout="mmdetection", method="solov2", settings={"wdth": 3})

    @pytest.mark.parametrize("light", [False, True])
    def test_grids_and_towers_of_decoupled_solo(self, light: bool) -> None:
        """Other grids than the paper's, and one tower where columns and rows share it."""
        state = {name: value for name, value in mmdetection_solov2(device="meta").items() if "mask_head" not in name}
        towers = ["cls_convs", "mask_convs"] if light else ["cls_convs", "mask_convs_x", "mask_convs_y"]
        for tower in towers:
            for step in range(2):
                inputs = 256 + (0 if step or tower == "cls_convs" else 2 if light else 1)
                state[f"mask_head.{tower}.{step}.conv.weight"] = torch.zeros(256, inputs, 3, 3)
                state |= {f"mask_head.{tower}.{step}.gn.{part}": torch.zeros(256) for part in ("weight", "bias")}
        for part, shape in (("weight", (256, 3, 3)), ("bias", ())):
            state[f"mask_head.conv_cls.{part}"] = torch.zeros(80, *shape)
            for level, side in enumerate((20, 18, 12, 8, 6)):
                for axis in "xy":
                    state[f"mask_head.conv_mask_list_{axis}.{level}.{part}"] = torch.zeros(side, *shape)
        published = publish(state, layout="mmdetection", method="decoupled_solo")
        assert settings(published.method) == {
            "width": 256,
            "head_width": 256,
            "head_depth": 2,
            "shared_tower": light,
            "grids": [20, 18, 12, 8, 6],
        }

    def test_caffe_style(self) -> None:
        published = publish(mmdetection_solov2(**THIN), layout="mmdetection", method="solov2", style="caffe")
        assert published.backbone["std"] == [1.0, 1.0, 1.0]
        assert built(published, "solov2").backbone.body.layer2[0].conv1.stride == (2, 2)


WIDE: dict[str, Any] = {"device": "meta"}


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ({}, "resnet50"),
        ({"layers": R101}, "resnet101"),
        ({"layers": (3, 8, 36, 3)}, "resnet152"),
        ({"layers": R101, "groups": 32, "group": 8}, "resnext101_32x8d"),
        ({"layers": R101, "groups": 64, "group": 4}, "resnext101_64x4d"),
        ({"layers": R101, "groups": 32, "group": 4}, "resnext101_32x4d"),
    ],
)
def test_a_backbone_is_known_by_its_shapes(shape: dict[str, Any], name: str) -> None:
    theirs = publish(mmdetection_solov2(**WIDE, **shape), layout="mmdetection", method="solov2")
    assert theirs.backbone["name"] == name
    assert "options" not in theirs.backbone
    other = publish(detectron2(**WIDE, **shape), layout="detectron2", method="mask_rcnn")
    assert other.backbone["name"] == name
    assert other.backbone.get("stride_in_1x1", False) is ("resnext" not in name)


def test_groups_of_any_width() -> None:
    thin = {**THIN, "groups": 4, "group": 2}
    published = publish(detectron2(**{**SMALL, **thin}), layout="detectron2", method="mask_rcnn", classes=CLASSES)
    assert published.backbone["options"] == {
        "layers": [1, 1, 1, 1],
        "channels": [8, 8, 8, 8],
        "cardinality": 4,
        "base_width": 16,
    }
    assert published.backbone["std"] == [58.395, 57.12, 57.375]


class TestClasses:
    @pytest.mark.parametrize("count", [1, 20, 1203])
    def test_any_number(self, count: int) -> None:
        published = publish(detectron2(**WIDE, classes=count), layout="detectron2", method="mask_rcnn")
        assert published.classes == tuple(f"class {label}" for label in range(1, count + 1))
        assert published.category_ids == tuple(range(1, count + 1))

    def test_eighty_are_cocos(self) -> None:
        published = publish(detectron2(**WIDE), layout="detectron2", method="mask_rcnn")
        assert published.classes[:2] == ("person", "bicycle")
        assert (len(published.classes), published.classes[-1]) == (80, "toothbrush")
        assert published.category_ids[:13] == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14)

    @pytest.mark.parametrize("method", ["mask_rcnn", "cascade_mask_rcnn", "point_rend"])
    def test_heads_of_other_classes_are_left_out_where_that_is_allowed(self, method: str) -> None:
        state = detectron2(method, **WIDE)
        arguments: dict[str, Any] = {"layout": "detectron2", "method": method, "classes": CLASSES}
        with pytest.raises(WeightsError, match=r"has 80 classes, but 2 were named.*allow=\[classes\] \(.*classify"):
            publish(state, **arguments)
        published = publish(state, **arguments, allow=("classes",))
        heads = {
            "mask_rcnn": {"box_head.classify", "box_head.regress", "mask_head.logits"},
            "cascade_mask_rcnn": {*(f"cascade.heads.{stage}.classify" for stage in range(3)), "mask_heads.0.logits"},
            "point_rend": {
                *("box_head.classify", "box_head.regress", "coarse_head.logits", "refinement.logits"),
                *(f"refinement.layers.{step}" for step in range(3)),
            },
        }
        assert set(published.left_out) == heads[method]
        assert published.classes == CLASSES
        assert not [name for name in published.weights if name.rpartition(".")[0] in heads[method]]


class TestErrors:
    def change(self, changed: Callable[[Drawn], Any], **arguments: Any) -> Published:
        state = detectron2(**WIDE)
        changed(state)
        return publish(state, layout="detectron2", method="mask_rcnn", **arguments)

    def test_what_has_no_place(self) -> None:
        def add(state: Drawn) -> None:
            state["roi_heads.keypoint_head.conv_fcn1.weight"] = torch.zeros(1)
            state["proposal_generator.rpn_head.conv.norm.weight"] = torch.zeros(256)

        with pytest.raises(WeightsError, match=r"no mask_rcnn as detectron2 writes it") as refused:
            self.change(add)
        names = ("roi_heads.keypoint_head.conv_fcn1.weight", "proposal_generator.rpn_head.conv.norm.weight")
        for line in ("2 have no place:", *(f"  {name}" for name in names)):
            assert line in str(refused.value)
        published = self.change(add, allow=("unmatched",))
        assert len(published.left_out) == 2
        assert not [name for name in published.weights if "norm" in name]

    def test_what_is_missing(self) -> None:
        with pytest.raises(WeightsError, match=r"1 are missing:\n  rpn\.convs\.0\.weight$"):
            self.change(lambda state: state.pop("proposal_generator.rpn_head.conv.weight"))
        with pytest.raises(WeightsError, match=r"are missing:\n.*box_head.classify.weight"):
            self.change(lambda state: state.pop("roi_heads.box_predictor.cls_score.weight"))
        with pytest.raises(WeightsError, match=r"are missing:\n.*backbone.body.layer2.1.conv3.weight"):
            self.change(lambda state: state.pop("backbone.bottom_up.res3.1.conv3.weight"))

    def test_what_has_another_shape(self) -> None:
        def nine_anchors(state: Drawn) -> None:
            state["proposal_generator.rpn_head.objectness_logits.weight"] = torch.zeros(9, 256, 1, 1)

        with pytest.raises(WeightsError) as refused:
            self.change(nine_anchors)
        assert str(refused.value).endswith(
            "1 have another shape:\n  proposal_generator.rpn_head.objectness_logits.weight (rpn.objectness.weight): "
            "(9, 256, 1, 1), expected (3, 256, 1, 1)"
        )

    def test_a_long_list_is_cut(self) -> None:
        with pytest.raises(WeightsError, match=r"20 have no place:(\n  odd.\d+){12}\n  … and 8 more$"):
            self.change(lambda state: state.update({f"odd.{index}": torch.zeros(1) for index in range(20)}))

    def test_another_layout_or_another_method(self) -> None:
        with pytest.raises(
            WeightsError, match=r"\(more names fit layout=detectron2 method=mask_rcnn\): .*no ResNet.*\n\d+ have"
        ):
            publish(detectron2(**WIDE), layout="mmdetection", method="mask_rcnn")
        with pytest.raises(
            WeightsError, match=r"fit layout=detectron2 method=mask_rcnn\):\n\d+ have no place:\n  roi_heads\.box_head"
        ):
            publish(detectron2(**WIDE), layout="detectron2", method="cascade_mask_rcnn")
        with pytest.raises(WeightsError, match="no ResNet"):
            publish({"backbone.layer1.0.conv1.weight": torch.zeros(1)}, layout="mmdetection", method="mask_rcnn")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"layout": "caffe"}, "layout=caffe: expected one of mmdetection, detectron2, torchvision"),
            ({"method": "htc"}, "method=htc as detectron2 writes it: expected one of backbone, mask_rcnn,"),
            ({"style": "torchvision"}, "style=torchvision: expected one of caffe, caffe2, pytorch"),
            ({"allow": ["all"]}, "allow=all: expected one of classes, unmatched"),
        ],
    )
    def test_a_choice_that_does_not_exist(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            publish(detectron2(**WIDE), **{"layout": "detectron2", "method": "mask_rcnn", **arguments})


class TestFitting:
    def test_heads_of_other_classes_stay_as_they_are(self) -> None:
        published = publish(detectron2(**SMALL), layout="detectron2", method="mask_rcnn")
        network = built(published, "mask_rcnn")
        three = MaskRCNN(backbone=network.backbone, classes=("a", "b", "c"), **settings(published.method))
        before = three.box_head.classify.weight.clone()
        with pytest.raises(WeightsError, match=r"don't fit MaskRCNN:\n.* have another shape"):
            fit(three, published.weights)
        assert fit(three, published.weights, other_classes=True) == (
            "box_head.classify",
            "box_head.regress",
            "mask_head.logits",
        )
        assert torch.equal(three.box_head.classify.weight, before)
        assert torch.equal(three.mask_head.upsample.weight, published.weights["mask_head.upsample.weight"])

    def test_another_width_is_no_other_class(self) -> None:
        published = publish(detectron2(**SMALL), layout="detectron2", method="mask_rcnn")
        network = built(published, "mask_rcnn")
        wide = MaskRCNN(backbone=network.backbone, classes=CLASSES, **{**settings(published.method), "box_width": 9})
        with pytest.raises(WeightsError, match=r"box_head\.hidden\.1\.weight"):
            fit(wide, published.weights, other_classes=True)

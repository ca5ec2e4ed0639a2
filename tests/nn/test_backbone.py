from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from maskbench.errors import ConfigError, WeightsError
from maskbench.nn.backbone import Backbone

THIN = {"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32]}


def thin(**settings: object) -> Backbone:
    return Backbone("resnet18", options=THIN, **settings)


def saved(folder: Path, suffix: str = ".safetensors") -> Path:
    """Weights of the thin network with its classifier, as timm names them."""
    path = folder / f"weights{suffix}"
    state = timm.create_model("resnet18", **THIN).state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    return path


def test_maps_are_fine_to_coarse_and_as_announced() -> None:
    backbone = thin(strides=(4, 8, 16, 32))
    images = torch.zeros(2, 3, 64, 96)
    shapes = [tuple(level.shape) for level in backbone(images)]
    assert backbone.strides == (4, 8, 16, 32)
    assert backbone.channels == (8, 16, 24, 32)
    assert shapes == [(2, 8, 16, 24), (2, 16, 8, 12), (2, 24, 4, 6), (2, 32, 2, 3)]


def test_only_the_strides_asked_for() -> None:
    backbone = thin(strides=(8, 32))
    assert (backbone.strides, backbone.channels) == ((8, 32), (16, 32))
    assert len(backbone(torch.zeros(1, 3, 64, 64))) == 2


def test_of_several_maps_of_one_stride_it_is_the_last() -> None:
    """As where the last stage is dilated, for DeepLab."""
    backbone = Backbone("resnet18", strides=(4, 8, 16), options={**THIN, "output_stride": 16})
    assert (backbone.strides, backbone.channels) == ((4, 8, 16), (8, 16, 32))
    assert backbone(torch.zeros(1, 3, 64, 64))[-1].shape == (1, 32, 4, 4)


def test_pixels_are_normalised_by_what_the_weights_expect() -> None:
    backbone = thin()
    pixel = torch.tensor([255, 0, 128], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225]
    assert backbone.normalise(pixel).flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_pixel_statistics_can_be_given() -> None:
    backbone = thin(mean=(10, 20, 30), std=(1, 2, 4))
    pixel = torch.tensor([11, 24, 22], dtype=torch.uint8).view(1, 3, 1, 1)
    assert backbone.normalise(pixel).flatten().tolist() == [1, 2, -2]
    assert not {"mean", "std"} & set(backbone.state_dict())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_come_from_a_file(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, suffix)
    first, second = thin(weights=str(path)), thin(weights=str(path))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_a_random_start_is_random() -> None:
    assert not torch.equal(next(thin().parameters()), next(thin().parameters()))


def test_frozen_norm_computes_the_same_under_the_same_names(tmp_path: Path) -> None:
    path = str(saved(tmp_path))
    free, frozen = thin(weights=path).eval(), thin(weights=path, frozen_norm=True).train()
    images = torch.randn(2, 3, 32, 32)
    for expected, found in zip(free(images), frozen(images), strict=True):
        torch.testing.assert_close(found, expected)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    names = {name for name in free.state_dict() if not name.endswith("num_batches_tracked")}
    assert names == set(frozen.state_dict())


def test_frozen_norm_keeps_an_activation_that_timm_fused_into_it() -> None:
    backbone = Backbone("efficientnet_b0", strides=(8,), frozen_norm=True)
    assert (backbone(torch.randn(1, 3, 32, 32))[0]).shape == (1, 40, 4, 4)
    assert sum(isinstance(module, nn.SiLU) for module in backbone.modules()) > 0


def test_frozen_stages_count_the_stem_first() -> None:
    backbone = thin(frozen_stages=2)  # detectron2's FREEZE_AT: the stem and res2
    trainable = {name.split(".")[1] for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert trainable == {"layer2", "layer3", "layer4"}
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.train()(torch.randn(4, 3, 32, 32))
    moved = {
        name.split(".")[1] for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {"layer2", "layer3", "layer4"}


def test_a_stem_that_belongs_to_the_first_stage() -> None:
    backbone = Backbone("convnext_atto", frozen_stages=1)
    frozen = {name.split(".")[1] for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
    assert frozen == {"stem_0", "stem_1", "stages_0"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet81"}, "no model 'resnet81'"),
        ({"name": "resnet18", "strides": (4, 64)}, r"strides \[2, 4, 8, 16, 32\], asked for \[4, 64\]: drop \[64\]"),
        ({"name": "resnet18", "options": {"chanels": [8]}}, "chanels"),
        ({"name": "resnet18", "frozen_stages": 9}, "frozen_stages=9"),
        ({"name": "efficientnet_b0", "frozen_stages": 1}, "frozen_stages=1, but this backbone is made of conv_stem"),
    ],
)
def test_what_timm_can_t_do_is_said(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Backbone(**settings)


def test_weights_that_can_t_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        thin(weights=str(tmp_path / "absent.pth"))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    with pytest.raises(WeightsError, match=r"broken\.safetensors: not readable"):
        thin(weights=str(broken))
    with pytest.raises(WeightsError, match="does not fit"):
        Backbone("resnet18", weights=str(saved(tmp_path)))
    partial = tmp_path / "partial.safetensors"
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, partial)
    with pytest.raises(WeightsError, match="lacks"):
        thin(weights=str(partial))


def test_without_a_network_pretrained_weights_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, pretrained: bool = False, **__: object) -> nn.Module:
        if pretrained:
            raise OSError("no route to host")
        return create("resnet18", features_only=True)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(WeightsError, match=r"no route to host.*weights=scratch.*HF_HOME"):
        Backbone("resnet18", weights="pretrained")


def test_a_stride_moves_into_the_first_convolution_of_a_block() -> None:
    """Then every second row and column of what comes in is never looked at."""
    settings = {"options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}, "strides": (8,)}
    plain, moved = Backbone("resnet50", **settings).eval(), Backbone("resnet50", stride_in_1x1=True, **settings).eval()
    assert moved.stride_in_1x1
    assert {name: value.shape for name, value in plain.state_dict().items()} == {
        name: value.shape for name, value in moved.state_dict().items()
    }
    image = torch.randn(1, 3, 64, 64)
    assert plain(image)[0].shape == moved(image)[0].shape
    seen = torch.randn(1, 32, 8, 8)
    changed = seen.clone()
    changed[:, :, 1::2] += 1
    changed[:, :, :, 1::2] += 1
    for backbone, same in ((plain, False), (moved, True)):
        block = backbone.body.layer2[0]
        nn.init.ones_(block.bn3.weight)  # or only the shortcut would be heard
        assert torch.equal(block(seen), block(changed)) is same
    with pytest.raises(ConfigError, match="resnet18 has no bottleneck block"):
        thin(stride_in_1x1=True)

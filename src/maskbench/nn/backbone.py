"""Feature extractors: any timm model as a pyramid of feature maps, with the pixel statistics its weights expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file
from timm.models.resnet import Bottleneck
from timm.utils.model import freeze_batch_norm_2d
from torch import Tensor, nn

from maskbench.atomic import require_whole
from maskbench.errors import ConfigError, WeightsError
from maskbench.nn.folding import fold_frozen_norms
from maskbench.phases import phase


class Backbone(nn.Module):
    """A timm model that returns its feature maps, fine to coarse.

    Args:
        name: any timm model that supports `features_only`.
        weights: "scratch", "pretrained" (fetched by timm, which needs a network the first time) or the path of a
            `.safetensors` or `.pth` file in timm's key names.
        strides: which maps to return, by their stride in pixels; of several of one stride the last.
        frozen_stages: how many stages keep their weights and statistics; a ResNet's stem is the first, as the papers
            count (a ConvNeXt's stem belongs to its first stage).
        frozen_norm: batch normalisation with fixed statistics and affine parameters, as for batches of few images.
        mean: of the pixels in RGB, 0…255 (default: what timm states for the model).
        std: likewise.
        stride_in_1x1: whether a bottleneck block that halves the map does so in its first convolution, 1×1, as MSRA's
            original ResNets do, and not in its second.
        compile: whether its graph is compiled, at the first call and anew for other sizes (`torch.compile`).
        options: passed on to timm, for instance the number of channels of each stage.

    Raises:
        ConfigError: timm does not know the model, or it has no map of a stride or no such stages to freeze, or no
            block whose stride could move.
        WeightsError: the weights can't be fetched or don't fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        *,
        weights: str = "scratch",
        strides: Sequence[int] = (4, 8, 16, 32),
        frozen_stages: int = 0,
        frozen_norm: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        stride_in_1x1: bool = False,
        compile: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        body: Any = _build(name, weights, strides, dict(options or {}))
        self.strides: tuple[int, ...] = tuple(body.feature_info.reduction())
        self.channels: tuple[int, ...] = tuple(body.feature_info.channels())
        self.register_buffer("mean", _pixel(mean, body.default_cfg["mean"]), persistent=False)
        self.register_buffer("std", _pixel(std, body.default_cfg["std"]), persistent=False)
        if stride_in_1x1:
            _move_strides(body, name)
        self.stride_in_1x1 = stride_in_1x1
        _freeze_stages(body, [info["module"] for info in body.feature_info.info], frozen_stages)
        self.body = fold_frozen_norms(freeze_batch_norm_2d(body) if frozen_norm else body)
        if compile:
            self.body.compile()  # in place, so that names of weights stay

    def normalise(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """RGB bytes → zero mean and unit variance."""
        return (images.float() - self.mean) / self.std

    @phase("backbone")
    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Normalised images → one map `[B channels[l] H/strides[l] W/strides[l]]` a level."""
        return self.body(images)


def _pixel(given: Sequence[float] | None, stated: Sequence[float]) -> Float[Tensor, "3 1 1"]:
    values = [255 * value for value in stated] if given is None else list(given)
    return torch.tensor(values, dtype=torch.float32).view(3, 1, 1)


def _build(name: str, weights: str, strides: Sequence[int], options: dict[str, Any]) -> nn.Module:
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.')[0][:6]}*")[:5]
        raise ConfigError(f"timm {timm.__version__} has no model {name!r}; near it: {', '.join(near) or 'none'}")
    try:
        levels = timm.create_model(name, features_only=True, pretrained=False, **options).feature_info.reduction()
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ConfigError(f"timm's {name} can't return feature maps with options {options}: {error}") from error
    missing = sorted(set(strides) - set(levels))
    if missing:
        raise ConfigError(f"{name} has maps of strides {levels}, asked for {list(strides)}: drop {missing}")
    last = {stride: place for place, stride in enumerate(levels)}  # of several, as where a stage is dilated
    wanted = {"features_only": True, "out_indices": [last[stride] for stride in strides], **options}
    if weights == "scratch":
        return timm.create_model(name, **wanted)
    if weights == "pretrained":
        return _fetch(name, wanted)
    return _load(timm.create_model(name, **wanted), Path(weights))


def _fetch(name: str, wanted: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=True, **wanted)
    except Exception as error:  # the hub's client raises its own, its transport's and the system's errors
        raise WeightsError(
            f"the pretrained weights of {name} could not be fetched ({type(error).__name__}: {error}). Train from "
            "scratch with backbone.weights=scratch, name a file with backbone.weights=FILE, or fetch them once on a "
            "machine with a network and copy its Hugging Face cache (HF_HOME) here."
        ) from error


def _load(body: nn.Module, path: Path) -> nn.Module:
    if not path.is_file():
        raise WeightsError(f"backbone.weights={path}: no such file (expected scratch, pretrained or a file)")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            require_whole(path)
            state = torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle and zip each raise errors of their own on a damaged file
        raise WeightsError(f"{path}: not readable as weights ({type(error).__name__}: {error})") from error
    try:
        missing = body.load_state_dict(state, strict=False).missing_keys  # a classifier is left over, rightly
    except RuntimeError as error:
        raise WeightsError(f"{path}: does not fit the backbone: {error}") from error
    if missing:
        raise WeightsError(f"{path}: lacks {len(missing)} of the backbone's weights, first {missing[:3]}")
    return body


def _move_strides(body: nn.Module, name: str) -> None:
    """The stride of a bottleneck block goes from its second convolution to its first; no weight changes its shape."""
    blocks: list[Any] = [block for block in body.modules() if isinstance(block, Bottleneck)]
    halving = [block for block in blocks if block.conv2.stride != (1, 1)]
    if not halving:
        raise ConfigError(f"backbone.stride_in_1x1, but {name} has no bottleneck block of a ResNet that halves its map")
    for block in halving:
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def _freeze_stages(body: nn.Module, ends: Sequence[str], stages: int) -> None:
    """All up to `ends[stages - 1]` keeps its weights and statistics (`ends`: the last module of each stage)."""
    if stages == 0:
        return
    names = [name for name, _ in body.named_children()]
    last = ends[stages - 1].replace(".", "_") if stages <= len(ends) else None
    if last not in names:
        raise ConfigError(f"backbone.frozen_stages={stages}, but this backbone is made of {', '.join(names)}")
    for name in names[: names.index(last) + 1]:
        setattr(body, name, freeze_batch_norm_2d(getattr(body, name)).requires_grad_(False))

"""Feature extractors: any timm model as a pyramid of feature maps, with the pixel statistics its weights expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from maskbench.errors import ConfigError, WeightsError


class Backbone(nn.Module):
    """A timm model that returns its feature maps, fine to coarse.

    Args:
        name: any timm model that supports `features_only`.
        weights: "scratch", "pretrained" (fetched by timm, which needs a network the first time) or the path of a
            `.safetensors` or `.pth` file in timm's key names.
        strides: which maps to return, by their stride in pixels.
        frozen_stages: how many stages keep their weights and statistics, the stem being the first.
        frozen_norm: batch normalisation with fixed statistics and affine parameters, as for batches of few images.
        mean: of the pixels in RGB, 0…255 (default: what timm states for the model).
        std: likewise.
        options: passed on to timm, for instance the number of channels of each stage.

    Raises:
        ConfigError: timm does not know the model, or it has no map of a stride.
        WeightsError: the weights can't be fetched or don't fit.
    """

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
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.body = _build(name, weights, strides, dict(options or {}))
        self.strides: tuple[int, ...] = tuple(self.body.feature_info.reduction())
        self.channels: tuple[int, ...] = tuple(self.body.feature_info.channels())
        stated = self.body.default_cfg if hasattr(self.body, "default_cfg") else timm.get_pretrained_cfg(name).to_dict()
        self.register_buffer("mean", _pixel(mean, stated["mean"]), persistent=False)
        self.register_buffer("std", _pixel(std, stated["std"]), persistent=False)
        if frozen_norm:
            self.body = _freeze_norm(self.body)
        _freeze_stages(self.body, frozen_stages)

    def normalise(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """RGB bytes → zero mean and unit variance."""
        return (images.float() - self.mean) / self.std

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
    wanted = {"features_only": True, "out_indices": [levels.index(stride) for stride in strides], **options}
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
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle and zip each raise errors of their own on a damaged file
        raise WeightsError(f"{path}: not readable as weights ({type(error).__name__}: {error})") from error
    missing, _ = _fit(body, state, path)
    if missing:
        raise WeightsError(f"{path}: lacks {len(missing)} of the backbone's weights, first {missing[:3]}")
    return body


def _fit(body: nn.Module, state: dict[str, Tensor], path: Path) -> tuple[list[str], list[str]]:
    try:
        fitted = body.load_state_dict(state, strict=False)  # a classifier's last layer is left over, rightly
    except RuntimeError as error:
        raise WeightsError(f"{path}: does not fit the backbone: {error}") from error
    return fitted.missing_keys, fitted.unexpected_keys


def _freeze_norm(module: nn.Module) -> nn.Module:
    """Every batch normalisation below `module` with statistics and affine parameters fixed, under the same keys."""
    if isinstance(module, nn.BatchNorm2d):
        frozen = FrozenBatchNorm2d(module.num_features, eps=module.eps)
        state = {key: value for key, value in module.state_dict().items() if key != "num_batches_tracked"}
        frozen.load_state_dict(state)
        # timm's subclasses fuse an activation (and drop) into the norm; what follows the statistics stays.
        after = [child for child in module.children() if not isinstance(child, nn.Identity)]
        return nn.Sequential(frozen, *after) if after else frozen
    for name, child in module.named_children():
        setattr(module, name, _freeze_norm(child))
    return module


def _freeze_stages(body: nn.Module, stages: int) -> None:
    """The stem and the first `stages` − 1 stages keep weights and statistics (a stage ends where a map is taken)."""
    if stages == 0:
        return
    ends = [info["module"] for info in body.feature_info.info]
    if stages > len(ends):
        raise ConfigError(f"the backbone has {len(ends)} stages, asked to freeze {stages}")
    last = ends[stages - 1].replace(".", "_")
    for name, child in list(body.named_children()):
        setattr(body, name, _freeze_norm(child).requires_grad_(False))
        if name == last:
            break

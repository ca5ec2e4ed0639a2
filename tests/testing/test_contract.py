"""Methods that break the contract, each in one point, and what their authors are told."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from maskbench.errors import ConfigError
from maskbench.methods.base import Segmenter
from maskbench.structures import Batch, Frame, Instances
from maskbench.testing.contract import Contract
from maskbench.testing.discs import batch, truth, without_objects
from maskbench.testing.subject import learnt
from paper.method import Cores, Raw


class Held(Contract):
    """The paper's method, which keeps to it (tests/paper), trained until it finds all objects of the photos."""

    configs = "pkg://paper.conf"
    words = ("backbone=tiny", "optim=adamw", "optim.optimiser.lr=1e-2")
    steps = 80


@pytest.fixture(scope="module")
def cores() -> Segmenter:
    return learnt(Held.known(), "small/tiny_paper", steps=Held.steps)


def broken(cores: Segmenter, kind: type[Cores]) -> Segmenter:
    """The same method, its weights too, but of this class."""
    method = copy.deepcopy(cores).eval()
    method.__class__ = kind
    return method


class WithoutCores(Cores):
    """Leaves a loss out where there is nothing to learn."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        losses = super().loss(batch)
        return losses if any(map(len, batch.targets)) else {"semantic": losses["semantic"]}


class Infinite(Cores):
    """Divides by the number of objects."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        objects = sum(map(len, batch.targets))
        return {name: value / torch.tensor(objects) for name, value in super().loss(batch).items()}


class FirstOnly(Cores):
    """Learns the first object of an image alone."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return super().loss(replace(batch, targets=tuple(target[:1] for target in batch.targets)))


class Training(Cores):
    """Does something else while it is trained."""

    def forward(self, images: Tensor) -> Raw:
        raw = super().forward(images)
        return raw._replace(core=raw.core + 1) if self.training else raw


class Loud(Cores):
    """Ranks by what is no probability."""

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        return [replace(found, scores=found.scores + 1) for found in super().instances(raw, frames)]


class Unranked(Cores):
    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        return [found[torch.arange(len(found)).flip(0)] for found in super().instances(raw, frames)]


class Plenty(Cores):
    """Looks at no operating point."""

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        self.point = self.default_point
        return super().instances(raw, frames)


class InNetworkPixels(Cores):
    """Takes the network's input for the photo."""

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        return super().instances(raw, [replace(frame, photo=frame.resized) for frame in frames])


class Stretched(Cores):
    """Brings the padding to the photo with the rest."""

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        return super().instances(raw, [replace(frame, resized=(128, 128)) for frame in frames])


class StretchedCeiling(Cores):
    def ceiling(self, batch: Batch) -> list[Instances]:
        return super().ceiling(replace(batch, frames=tuple(replace(f, resized=(128, 128)) for f in batch.frames)))


class Alike(Cores):
    """Gives every photo of a batch what is on the first."""

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        first = raw._replace(semantic=raw.semantic[:1].expand_as(raw.semantic), core=raw.core[:1].expand_as(raw.core))
        return super().instances(first, frames)


def hold(promise: str, method: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a method to a test of the contract."""

    def at_point(**changes: Any) -> Segmenter:
        monkeypatch.setattr(method, "point", replace(method.point, **changes))
        return method

    shown = {"fresh": method, "trained": method, "at_point": at_point, "case": "without_objects"}
    shown |= {"batch": batch(), "truth": truth(), "without_objects": without_objects()}
    test = getattr(Held(), promise)
    test(**{name: shown[name] for name in inspect.signature(test).parameters})
    monkeypatch.undo()
    method.eval()


GRADIENT = "test_every_trainable_weight_gets_a_gradient_also_without_objects"
PIXELS = "test_instances_are_in_photo_pixels_and_ranked"


@pytest.mark.parametrize(
    ("kind", "promise", "told"),
    [
        (
            WithoutCores,
            GRADIENT,
            r"2 of \d+ weights get no gradient from photos without objects, .*: core\.weight, core",
        ),
        (Infinite, GRADIENT, r"expected a finite number of each loss, found \{'semantic': tensor\(inf\)"),
        (FirstOnly, "test_the_order_of_the_targets_does_not_matter", "losses depend on the order of the targets"),
        (Training, "test_training_mode_changes_the_statistics_of_the_backbone_alone", r"train\(\) makes losses of"),
        (Loud, PIXELS, r"scores lie in \[0, 1\], found \[1\.\d"),
        (Plenty, "test_finding_nothing_is_a_normal_case", r"score_threshold is next to 1, but scores are \[0\.\d"),
        (Unranked, PIXELS, r"scores descend, found \[0\.\d"),
        (Plenty, "test_at_most_as_many_instances_as_asked_for", r"point\.max_instances=2 leaves 3 of 3"),
        (InNetworkPixels, PIXELS, r"masks of \(128, 128\) pixels for a photo of \(256, 256\)"),
        (
            Stretched,
            "test_the_surest_instance_lies_where_an_object_is",
            r"photo of \(90, 120\) .* is the padding cut off",
        ),
        (
            StretchedCeiling,
            "test_the_ceiling_of_large_objects_is_near_the_truth",
            r"\(90, 120\) pixels has an IoU of \[0\.[45]",
        ),
        (Alike, "test_a_batch_predicts_what_its_images_predict_one_by_one", r"in a batch \(first\) and alone"),
    ],
)
def test_what_is_wrong_is_told(
    cores: Segmenter, kind: type[Cores], promise: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing where nothing is."""
    hold(promise, cores, monkeypatch)
    with pytest.raises(AssertionError, match=told):
        hold(promise, broken(cores, kind), monkeypatch)


# Configs -------------------------------------------------------------------------------------------------------------

METHOD = """
defaults:
  - decoder: semantic_fpn
  - _self_
_target_: paper.method.Cores
deep: 0.5
weights: [1.0, 1.0]
smallest: 4
score: semantic_x_centre
"""
SMALL = """# @package method
defaults:
  - /method/theirs@_here_
  - _self_
smallest: 8
"""


def theirs(folder: Path, name: str = "theirs", **files: str) -> Contract:
    """The contract of the configs of a folder, which are those of a method and others; `__` stands for a slash."""
    for file, text in {name: METHOD, **files}.items():
        path = (folder / "method" / file.replace("__", "/")).with_suffix(".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return type("Theirs", (Contract,), {"configs": folder})()


@pytest.mark.parametrize(
    ("files", "test", "argument", "told"),
    [
        (
            {"theirs": METHOD.replace("smallest: 4", "smallest: 8")},
            "test_the_papers_settings_are_the_constructors_defaults",
            "theirs",
            r"theirs\.yaml: smallest is 8, but 4 in the constructor of paper\.method\.Cores",
        ),
        (
            {"theirs": METHOD + "colour: red\n"},
            "test_the_papers_settings_are_the_constructors_defaults",
            "theirs",
            r"theirs\.yaml sets \['colour'\], which the constructor of paper\.method\.Cores does not name",
        ),
        (
            {"theirs": "# @package _global_\nmethod:\n  _target_: paper.method.Cores\ndata:\n  batch: 3\n"},
            "test_equal_footing_what_differs_between_methods_is_the_method",
            "theirs",
            r"method=theirs sets more than its own: \['data\.batch'\] are other than with method=mask_rcnn",
        ),
        (
            {"small__theirs": SMALL.replace("8", "4")},
            "test_a_variant_states_what_differs_from_the_paper_and_nothing_else",
            "small/theirs",
            r"small/theirs\.yaml repeats \['smallest'\] of theirs\.yaml",
        ),
        (
            {"quick": SMALL},
            "test_a_variant_states_what_differs_from_the_paper_and_nothing_else",
            "quick",
            r"quick\.yaml starts from theirs: expected the name theirs_… or FOLDER/theirs",
        ),
    ],
)
def test_what_is_wrong_in_a_config_is_told(
    tmp_path: Path, files: dict[str, str], test: str, argument: str, told: str
) -> None:
    with pytest.raises(AssertionError, match=told):
        getattr(theirs(tmp_path, **files), test)(argument)


def test_a_variation_of_a_method_of_ours_has_its_settings_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "varied.py").write_text(
        "from maskbench.methods.semantic import Semantic\n\n\n"
        "class Varied(Semantic):\n"
        "    def __init__(self, *, twist: float = 0.5, **settings):\n"
        "        super().__init__(**settings)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    varied = "defaults:\n  - semantic\n  - _self_\n_target_: varied.Varied\ntwist: 0.5\n"
    contract = theirs(tmp_path / "conf", varied=varied, small__varied=SMALL.replace("theirs", "varied"))
    assert contract.known().papers == ["theirs", "varied"]
    assert contract.known().smallest == ["theirs", "small/varied"]
    contract.test_the_papers_settings_are_the_constructors_defaults("varied")
    contract.test_a_variant_states_what_differs_from_the_paper_and_nothing_else("small/varied")
    (tmp_path / "conf/method/varied.yaml").write_text(varied.replace("twist: 0.5", "connectivity: 4"))
    with pytest.raises(AssertionError, match="connectivity is 4, but 8 in the constructor"):
        contract.test_the_papers_settings_are_the_constructors_defaults("varied")


def test_a_name_that_ours_has_is_told(tmp_path: Path) -> None:
    contract = theirs(tmp_path, solov2=METHOD, decoder__unet="_target_: paper.Decoder\n", decoder__own="a: 1\n")
    with pytest.raises(AssertionError, match=r"has method/decoder/unet\.yaml, method/solov2\.yaml too"):
        contract.test_none_of_its_configs_has_the_name_of_one_of_ours()


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("pkg://nobody.conf", r"^pkg://nobody\.conf: .* knows no package nobody\.conf\. Install it there"),
        ("pkg://paper.conf.method", r"/paper/conf/method has no __init__\.py, and without one Hydra finds no configs"),
        ("file:///nowhere", "^file:///nowhere: there is no such folder"),
    ],
)
def test_configs_that_are_not_there_are_told(place: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        type("Theirs", (Contract,), {"configs": place}).known().papers  # noqa: B018


def test_a_folder_without_methods_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"/method: expected a file NAME\.yaml with a _target_ for each method, found"
    ):
        type("Theirs", (Contract,), {"configs": tmp_path}).known().papers  # noqa: B018

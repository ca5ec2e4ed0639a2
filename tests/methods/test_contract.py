"""What every method promises, held to it by its configuration file: a new yaml is found by globbing."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from exports import exported_alike
from maskbench.errors import ConfigError
from maskbench.evaluation.cost import count_flops, peak_memory
from maskbench.methods.base import Oracle, Paradigm, Segmenter
from maskbench.phases import heard
from maskbench.runtime.compose import build_method
from maskbench.runtime.exporting import Format, Input
from maskbench.structures import Batch, Instances

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "conf" / "method"


def origin(path: Path) -> str | None:
    """The paper's config that a variant changes; None for a paper's own, and for a part of one."""
    first = (OmegaConf.to_container(OmegaConf.load(path)).get("defaults") or [None])[0]
    return first.removeprefix("/method/").removesuffix("@_here_") if isinstance(first, str) else None


def named(paths: Iterable[Path]) -> list[str]:
    return sorted(path.relative_to(CONFIGS).with_suffix("").as_posix() for path in paths)


PAPERS = named(path for path in CONFIGS.glob("*.yaml") if origin(path) is None)
ORIGINS = {name: origin(CONFIGS / f"{name}.yaml") for name in named(CONFIGS.glob("**/*.yaml"))}
VARIANTS = [name for name, paper in ORIGINS.items() if paper]
# The narrow variant where a method has one: the promises are the same and the tests quick.
SMALL = [f"small/{name}" if f"small/{name}" in VARIANTS else name for name in PAPERS]

STEPS = 50  # of training, so that predictions are of something


def config(method: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", overrides=[f"method={method}", "backbone=tiny", "optim=adamw", *overrides])


def build(method: str, classes: tuple[str, ...]) -> Segmenter:
    return build_method(config(method), classes)


def total(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def seeded_losses(method: Segmenter, batch: Batch) -> dict[str, float]:
    torch.manual_seed(1)
    with torch.no_grad():
        return {name: value.item() for name, value in method.loss(batch).items()}


def predict(method: Segmenter, batch: Batch) -> list[Instances]:
    with torch.inference_mode():
        return method.predict(batch)


def iou(a: Instances, b: Instances) -> Tensor:
    """Of every mask with every other; two masks without a pixel are the same."""
    rows, columns = (instances.masks.dense().flatten(1).float() for instances in (a, b))
    shared = rows @ columns.T
    union = rows.sum(1)[:, None] + columns.sum(1)[None] - shared
    return torch.where(union > 0, shared / union, 1.0)


@pytest.fixture(scope="module", params=SMALL)
def fresh(request: pytest.FixtureRequest, classes: tuple[str, ...]) -> Segmenter:
    """A method as it starts, in training mode but for the statistics of its backbone."""
    return build(request.param, classes)


@pytest.fixture(scope="module", params=SMALL)
def trained(request: pytest.FixtureRequest, classes: tuple[str, ...], batch: Batch) -> Segmenter:
    """A method that has seen the two photos some times, for predictions that are not noise."""
    method = build(request.param, classes).train()
    scheduled = method.optim(method, STEPS)
    for _ in range(STEPS):
        scheduled["optimizer"].zero_grad()
        total(method.loss(batch)).backward()
        scheduled["optimizer"].step()
        scheduled["lr_scheduler"]["scheduler"].step()
    return method.eval()


@pytest.fixture
def at_point(trained: Segmenter) -> Iterator[Any]:
    """Moves the operating point of a trained method for one test."""
    before = trained.point

    def move(**changes: Any) -> Segmenter:
        trained.point = replace(before, **changes)
        return trained

    yield move
    trained.point = before


# The files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAPERS)
def test_a_method_has_the_same_stem_in_every_room(name: str) -> None:
    target = OmegaConf.load(CONFIGS / f"{name}.yaml")["_target_"]
    assert target.rsplit(".", 1)[0] == f"maskbench.methods.{name}"
    assert (ROOT / "src" / "maskbench" / "methods" / f"{name}.py").is_file()
    assert (ROOT / "tests" / "methods" / f"test_{name}.py").is_file()


def test_no_method_is_without_a_config() -> None:
    modules = {path.stem for path in (ROOT / "src" / "maskbench" / "methods").glob("*.py")}
    assert modules - {"__init__", "base", "bottom_up", "optim"} == set(PAPERS)


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_settings_are_the_constructors_defaults(name: str) -> None:
    stated = OmegaConf.to_container(config(name).method)
    defaults = inspect.signature(get_class(stated.pop("_target_"))).parameters
    unknown = sorted(set(stated) - set(defaults))
    assert not unknown
    for key, value in stated.items():
        if not isinstance(value, dict):  # a nested part is made, not compared
            assert plain(defaults[key].default) == value, f"{name}.yaml: {key}"


@pytest.mark.parametrize("name", ["solo", "decoupled_solo", "solov2"])
def test_grids_refuse_maps_that_they_do_not_lie_on(name: str, classes: tuple[str, ...]) -> None:
    cfg = config(f"small/{name}", "backbone.strides=[2,4,8,16,32]")
    with pytest.raises(ConfigError, match=r"the backbone's have \[2, 4, 8, 16, 32\]: leave backbone.strides"):
        build_method(cfg, classes)


def plain(value: Any) -> Any:
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_states_what_differs_from_the_paper_and_nothing_else(name: str) -> None:
    variant = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml"))
    paper = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{ORIGINS[name]}.yaml"))
    origin, *parts, own = variant.pop("defaults")
    assert (origin, own) == (f"/method/{ORIGINS[name]}@_here_", "_self_")
    assert all(re.fullmatch(r"override /method/(\w+)@\1", key) for part in parts for key in part)
    assert Path(name).name == ORIGINS[name] if "/" in name else name.startswith(f"{ORIGINS[name]}_")
    repeated = [key for key, value in variant.items() if key in paper and paper[key] == value]
    assert not repeated


@pytest.mark.parametrize("name", [*PAPERS, *VARIANTS])
def test_a_method_can_be_built(name: str, classes: tuple[str, ...]) -> None:
    method = build(name, classes)
    assert method.classes == classes
    assert method.paradigm in get_args(Paradigm)
    assert method.default_point.max_instances >= 1


def leaves(node: Any, path: str = "") -> dict[str, Any]:
    if isinstance(node, dict):
        return {key: value for name in node for key, value in leaves(node[name], f"{path}{name}.").items()}
    return {path.removesuffix("."): node}


@pytest.mark.parametrize("name", [*PAPERS, *VARIANTS])
def test_equal_footing_what_differs_between_methods_is_the_method(name: str) -> None:
    reference, other = (leaves(OmegaConf.to_container(config(method))) for method in (PAPERS[0], name))
    differing = {key for key in {*reference, *other} if reference.get(key) != other.get(key)}
    assert {key.split(".")[0] for key in differing} <= {"method"}
    assert "data.batch" in reference


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["batch", "without_objects"])
def test_every_trainable_weight_gets_a_gradient_also_without_objects(
    fresh: Segmenter, case: str, request: pytest.FixtureRequest
) -> None:
    fresh.train().zero_grad(set_to_none=True)
    losses = fresh.loss(request.getfixturevalue(case))
    assert all(value.shape == () and torch.isfinite(value) for value in losses.values()), losses
    total(losses).backward()
    trainable = {name: weight.grad for name, weight in fresh.named_parameters() if weight.requires_grad}
    assert trainable
    without = [name for name, gradient in trainable.items() if gradient is None]
    assert not without
    assert all(torch.isfinite(gradient).all() for gradient in trainable.values() if gradient is not None)


def test_an_image_without_objects_beside_one_with_them(fresh: Segmenter, batch: Batch, without_objects: Batch) -> None:
    mixed = replace(batch, targets=(batch.targets[0], without_objects.targets[1]))
    assert torch.isfinite(total(fresh.eval().loss(mixed)))


def test_the_order_of_the_targets_does_not_matter(fresh: Segmenter, batch: Batch) -> None:
    order = [torch.arange(len(target)).flip(0) for target in batch.targets]
    shuffled = replace(batch, targets=tuple(target[rows] for target, rows in zip(batch.targets, order, strict=True)))
    fresh.eval()
    assert seeded_losses(fresh, shuffled) == pytest.approx(seeded_losses(fresh, batch), rel=0.02, abs=1e-3)


def test_half_precision_keeps_every_loss_finite(fresh: Segmenter, batch: Batch) -> None:
    fresh.train().zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16):
        losses = fresh.loss(batch)
    total(losses).backward()
    assert all(torch.isfinite(value) for value in losses.values()), losses


def test_half_precision_predicts(trained: Segmenter, batch: Batch) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        predictions = predict(trained, batch)
    for found, expected, frame in zip(predictions, predict(trained, batch), batch.frames, strict=True):
        assert found.masks.size == frame.photo
        assert iou(expected[:3], found).amax(dim=1).min() > 0.5


def test_memory_and_flops_are_measured_in_half_precision_too(fresh: Segmenter, batch: Batch) -> None:
    # counters stand between an operator and the autocast of those that it is made of
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        memory, _ = peak_memory(lambda: fresh.eval().predict(batch), torch.device("cpu"))
        assert count_flops(lambda: fresh.predict(batch)) > 0
    assert memory


@pytest.mark.gpu
def test_a_gpu_computes_what_the_cpu_does(trained: Segmenter, batch: Batch) -> None:
    losses, found = seeded_losses(trained.eval(), batch), predict(trained, batch)
    trained.cuda()
    try:
        there, moved = predict(trained, batch.to("cuda")), seeded_losses(trained, batch.to("cuda"))
    finally:
        trained.cpu()
    assert set(moved) == set(losses)
    assert all(torch.isfinite(torch.tensor(value)) for value in moved.values())
    for ours, theirs in zip(there, found, strict=True):
        assert iou(theirs[:3], ours.to("cpu")).amax(dim=1).min() > 0.9


def test_training_mode_changes_the_statistics_of_the_backbone_alone(trained: Segmenter, batch: Batch) -> None:
    expected = seeded_losses(trained, batch), [found.scores for found in predict(trained, batch)]
    trained.train()
    trained.backbone.eval()
    losses, scores = seeded_losses(trained, batch), [found.scores for found in predict(trained, batch)]
    trained.eval()
    assert losses == pytest.approx(expected[0])
    torch.testing.assert_close(scores, expected[1])


# Prediction -----------------------------------------------------------------------------------------------------------


def test_the_padding_is_zero_after_normalisation(fresh: Segmenter, batch: Batch) -> None:
    bytes_before = batch.images.clone()
    images = fresh.prepare(batch)
    height, _ = batch.frames[1].resized
    assert not images[1, :, height:].any()
    assert images[1, :, :height].any()
    assert torch.equal(batch.images, bytes_before)


def test_instances_are_in_photo_pixels_and_ranked(trained: Segmenter, batch: Batch) -> None:
    predictions = predict(trained, batch)
    assert len(predictions) == len(batch)
    assert all(len(found) for found in predictions), "nothing was found on the photos that it was trained on"
    for found, frame in zip(predictions, batch.frames, strict=True):
        assert found.masks.size == frame.photo
        assert len(found) <= trained.point.max_instances
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        assert torch.equal(found.scores, found.scores.sort(descending=True).values)
        assert ((found.labels >= 0) & (found.labels < len(trained.classes))).all()
        assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes[:, [3, 2]] <= torch.tensor(frame.photo)).all()


def test_at_most_as_many_instances_as_asked_for(at_point: Any, batch: Batch) -> None:
    everything = predict(at_point(), batch)
    for found, whole in zip(predict(at_point(max_instances=2), batch), everything, strict=True):
        assert len(found) == min(2, len(whole))
        torch.testing.assert_close(found.scores, whole.scores[:2])


def test_finding_nothing_is_a_normal_case(at_point: Any, batch: Batch) -> None:
    for found, frame in zip(predict(at_point(score_threshold=1 - 1e-7), batch), batch.frames, strict=True):
        assert len(found) == 0
        assert found.masks.size == frame.photo


def test_a_batch_predicts_what_its_images_predict_one_by_one(trained: Segmenter, batch: Batch) -> None:
    singles = [found for single in batch for found in predict(trained, single)]
    for found, expected in zip(predict(trained, batch), singles, strict=True):
        assert len(found) == len(expected)
        torch.testing.assert_close(found.scores, expected.scores, atol=1e-3, rtol=1e-2)
        # by their best partner, because equal scores have no order
        assert iou(found, expected).amax(dim=1).mean() > 0.98


def test_the_ceiling_of_large_objects_is_near_the_truth(fresh: Segmenter, batch: Batch, truth: list[Instances]) -> None:
    for drawn, expected in zip(fresh.ceiling(batch), truth, strict=True):
        assert drawn.masks.size == expected.masks.size
        overlap, partner = iou(expected, drawn).max(dim=1)
        assert (overlap > 0.6).all(), overlap
        assert torch.equal(drawn.labels[partner], expected.labels)


def test_what_comes_through_the_stages_is_counted(trained: Segmenter, batch: Batch, without_objects: Batch) -> None:
    with torch.inference_mode():
        found = trained.reach(trained(trained.prepare(batch)), batch)
        nothing = trained.reach(trained(trained.prepare(without_objects)), without_objects)
    assert len(found) == len(batch)
    assert found[0] or type(trained).reach is Segmenter.reach
    assert all(list(image) == list(found[0]) for image in (*found, *nothing)), "all images have the same stages"
    assert all(0 <= reached <= of for image in found for reached, of in image.values())
    assert all(count == (0, 0) for image in nothing for count in image.values())


def test_oracles_help_with_what_they_say(trained: Segmenter, batch: Batch, without_objects: Batch) -> None:
    assert set(trained.oracles) <= set(get_args(Oracle))
    for oracle in trained.oracles:
        with torch.inference_mode():
            found = trained.given(trained(trained.prepare(batch)), batch, oracle)
            nothing = trained.given(trained(trained.prepare(without_objects)), without_objects, oracle)
        assert all(len(image) == 0 for image in nothing)
        for image, target, frame in zip(found, batch.targets, batch.frames, strict=True):
            assert image.masks.size == frame.photo
            if oracle in ("boxes", "cells", "semantic map"):
                assert set(image.labels.tolist()) <= set(target.labels.tolist()), "the true classes and no others"
            if oracle not in ("semantic map", "centres", "flows"):
                assert len(image) <= len(target)
            assert ((image.scores >= 0) & (image.scores <= 1)).all()
        if oracle == "boxes":
            for image, drawn in zip(found, trained.ceiling(batch), strict=True):
                assert torch.equal(image.labels, drawn.labels)
                torch.testing.assert_close(image.boxes, drawn.boxes)


def test_no_head_of_a_region_is_taken_for_selection(trained: Segmenter, batch: Batch) -> None:
    running, seen = ["selection"], []

    @contextmanager
    def listener(name: str) -> Iterator[None]:
        running.append(name)
        yield
        running.pop()

    layers = (torch.nn.Conv2d, torch.nn.Linear, torch.nn.ConvTranspose2d)
    hooks = [
        module.register_forward_hook(lambda *_: seen.append(running[-1]))
        for module in trained.modules()
        if isinstance(module, layers)
    ]
    with torch.inference_mode():
        raw = trained(trained.prepare(batch))
        seen.clear()
        with heard(listener):
            trained.instances(raw, batch.frames)
    for hook in hooks:
        hook.remove()
    # where heads run on whole maps, `instances` may still work out the rows of a map that it needs
    assert not hasattr(trained, "rpn") or set(seen) == {"heads"}


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_an_exported_network_is_read_as_the_method_itself(
    trained: Segmenter, batch: Batch, format: Format, tmp_path: Path
) -> None:
    exported_alike(trained, batch, format, tmp_path, Input())


def test_the_ceiling_of_nothing_is_nothing(fresh: Segmenter, without_objects: Batch) -> None:
    for drawn, frame in zip(fresh.ceiling(without_objects), without_objects.frames, strict=True):
        assert len(drawn) == 0
        assert drawn.masks.size == frame.photo

"""What the predictions of a method promise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import get_args

import torch
from torch import nn

from maskbench.methods.base import Oracle, Segmenter
from maskbench.phases import heard
from maskbench.structures import Batch, Frame, Instances
from maskbench.testing.subject import Move, Subject, overlaps, predict


class Prediction(Subject):
    """Instances lie in photo pixels and are ranked, each photo's are its own, and finding nothing is a normal case."""

    def test_the_padding_is_zero_after_normalisation(self, fresh: Segmenter, batch: Batch) -> None:
        bytes_before = batch.images.clone()
        images = fresh.prepare(batch)
        height, _ = batch.frames[1].resized
        assert not images[1, :, height:].any(), "there is something in the padding of the network's input"
        assert images[1, :, :height].any()
        assert torch.equal(batch.images, bytes_before), "the batch was changed"

    def test_instances_are_in_photo_pixels_and_ranked(self, trained: Segmenter, batch: Batch) -> None:
        predictions = predict(trained, batch)
        assert len(predictions) == len(batch), f"{len(batch)} photos, but instances of {len(predictions)}"
        assert all(len(found) for found in predictions), "nothing was found on the photos that it was trained on"
        for found, frame in zip(predictions, batch.frames, strict=True):
            _require_photo_frame(found, frame)
            most = trained.point.max_instances
            assert len(found) <= most, f"{len(found)} instances, but point.max_instances={most}"
            _require_scores(found)
            ranked = found.scores.sort(descending=True).values
            assert torch.equal(found.scores, ranked), f"scores descend, found {found.scores.tolist()}"
            known = (found.labels >= 0) & (found.labels < len(trained.classes))
            assert known.all(), f"{len(trained.classes)} classes, but labels {found.labels[~known].tolist()}"

    def test_the_surest_instance_lies_where_an_object_is(
        self, trained: Segmenter, batch: Batch, truth: list[Instances]
    ) -> None:
        """What is on the photos is learnt by heart in a few steps, so a low overlap comes of another frame.

        Where the padding is stretched into the photo with the rest, it is some 0.45.
        """
        for found, expected, frame in zip(predict(trained, batch), truth, batch.frames, strict=True):
            _require_photo_frame(found, frame)
            overlap = overlaps(found[:1], expected).amax(dim=1)
            assert (overlap > 0.6).all(), (
                f"the surest instance on the photo of {frame.photo} pixels (network input {frame.resized}, padded to "
                f"{tuple(batch.images.shape[-2:])}) has an IoU of {_rounded(overlap)} with any object: is the padding "
                "cut off before masks are brought to the photo?"
            )

    def test_at_most_as_many_instances_as_asked_for(self, at_point: Move, batch: Batch) -> None:
        everything = predict(at_point(), batch)
        for found, whole in zip(predict(at_point(max_instances=2), batch), everything, strict=True):
            assert len(found) == min(2, len(whole)), f"point.max_instances=2 leaves {len(found)} of {len(whole)}"
            torch.testing.assert_close(found.scores, whole.scores[:2])

    def test_finding_nothing_is_a_normal_case(self, at_point: Move, batch: Batch) -> None:
        for found, frame in zip(predict(at_point(score_threshold=1 - 1e-7), batch), batch.frames, strict=True):
            assert len(found) == 0, f"point.score_threshold is next to 1, but scores are {found.scores.tolist()}"
            _require_photo_frame(found, frame)

    def test_a_batch_predicts_what_its_images_predict_one_by_one(self, trained: Segmenter, batch: Batch) -> None:
        singles = [found for single in batch for found in predict(trained, single)]
        for found, expected in zip(predict(trained, batch), singles, strict=True):
            assert len(found) == len(expected), (
                f"instances in a batch (first) and alone: {len(found)} and {len(expected)}"
            )
            told = "scores in a batch (first) and alone: {}".format
            torch.testing.assert_close(found.scores, expected.scores, atol=1e-3, rtol=1e-2, msg=told)
            # by their best partner, because equal scores have no order
            partner = overlaps(found, expected).amax(dim=1).mean()
            assert partner > 0.98, f"masks in a batch and alone have a mean IoU of {partner:.3f}"

    def test_the_ceiling_of_large_objects_is_near_the_truth(
        self, fresh: Segmenter, batch: Batch, truth: list[Instances]
    ) -> None:
        for drawn, expected, frame in zip(fresh.ceiling(batch), truth, batch.frames, strict=True):
            _require_photo_frame(drawn, frame)
            overlap, partner = overlaps(expected, drawn).max(dim=1)
            assert (overlap > 0.6).all(), (
                f"the truth as its masks can draw it on the photo of {frame.photo} pixels has an IoU of "
                f"{_rounded(overlap)} with the truth"
            )
            assert torch.equal(drawn.labels[partner], expected.labels), "the ceiling has other classes than the truth"

    def test_what_comes_through_the_stages_is_counted(
        self, trained: Segmenter, batch: Batch, without_objects: Batch
    ) -> None:
        with torch.inference_mode():
            found = trained.reach(trained(trained.prepare(batch)), batch)
            nothing = trained.reach(trained(trained.prepare(without_objects)), without_objects)
        assert len(found) == len(batch)
        assert found[0] or type(trained).reach is Segmenter.reach, "it has a reach of its own that names no stage"
        assert all(list(image) == list(found[0]) for image in (*found, *nothing)), "all images have the same stages"
        assert all(0 <= reached <= of for image in found for reached, of in image.values()), found
        assert all(count == (0, 0) for image in nothing for count in image.values()), nothing

    def test_oracles_help_with_what_they_say(self, trained: Segmenter, batch: Batch, without_objects: Batch) -> None:
        assert set(trained.oracles) <= set(get_args(Oracle)), f"unknown oracles among {trained.oracles}"
        for oracle in trained.oracles:
            with torch.inference_mode():
                found = trained.given(trained(trained.prepare(batch)), batch, oracle)
                nothing = trained.given(trained(trained.prepare(without_objects)), without_objects, oracle)
            assert all(len(image) == 0 for image in nothing), f"{oracle} of no objects: something was found"
            for image, target, frame in zip(found, batch.targets, batch.frames, strict=True):
                _require_photo_frame(image, frame)
                if oracle in ("boxes", "cells", "semantic map"):
                    known = set(image.labels.tolist()) <= set(target.labels.tolist())
                    assert known, f"{oracle}: the true classes and no others"
                if oracle not in ("semantic map", "centres", "flows"):
                    assert len(image) <= len(target), f"{oracle}: {len(image)} instances of {len(target)} objects"
                _require_scores(image)
            if oracle == "boxes":
                for image, drawn in zip(found, trained.ceiling(batch), strict=True):
                    assert torch.equal(image.labels, drawn.labels), "boxes: the true ones and their classes"
                    torch.testing.assert_close(image.boxes, drawn.boxes)

    def test_no_head_of_a_region_is_taken_for_selection(self, trained: Segmenter, batch: Batch) -> None:
        running, seen = ["selection"], []

        @contextmanager
        def listener(name: str) -> Iterator[None]:
            running.append(name)
            yield
            running.pop()

        layers = (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)
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
        assert trained.paradigm != "two-stage" or set(seen) == {"heads"}, (
            f"the layers of a two-stage method's `instances` run in the phases {sorted(set(seen))}: a head of regions "
            'wears @phase("heads") (maskbench.phases)'
        )

    def test_the_ceiling_of_nothing_is_nothing(self, fresh: Segmenter, without_objects: Batch) -> None:
        for drawn, frame in zip(fresh.ceiling(without_objects), without_objects.frames, strict=True):
            assert len(drawn) == 0, f"a ceiling of {len(drawn)} instances where there is no object"
            _require_photo_frame(drawn, frame)


def _require_photo_frame(found: Instances, frame: Frame) -> None:
    assert found.masks.size == frame.photo, (
        f"masks of {found.masks.size} pixels for a photo of {frame.photo} (its network input has {frame.resized})"
    )
    height, width = frame.photo
    assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all(), "boxes are left, top, right and bottom"
    inside = (found.boxes >= 0) & (found.boxes <= torch.tensor([width, height, width, height]))
    outside = found.boxes[~inside.all(dim=1)]
    assert not len(outside), f"boxes of {_rounded(outside)} on a photo of {frame.photo} pixels"


def _require_scores(found: Instances) -> None:
    outside = found.scores[~((found.scores >= 0) & (found.scores <= 1))]
    assert not len(outside), f"scores lie in [0, 1], found {_rounded(outside)}"


def _rounded(values: torch.Tensor) -> Sequence[float]:
    return (values * 1000).round().div(1000).tolist()

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pycocotools.mask as rle_codec
import pytest
import torch
from jaxtyping import TypeCheckError

from maskbench.structures import Batch, Frame, Instances, Masks, OperatingPoint


def squares() -> torch.Tensor:
    """Three masks of 5 × 7 pixels: 2 × 3 at row 1, column 2; one pixel in the last corner; nothing."""
    stack = torch.zeros(3, 5, 7, dtype=torch.bool)
    stack[0, 1:3, 2:5] = True
    stack[1, 4, 6] = True
    return stack


def instances(form: str = "dense") -> Instances:
    masks = Masks(squares())
    return Instances(
        masks=masks if form == "dense" else Masks(masks.rle(), masks.size),
        boxes=masks.boxes(),
        labels=torch.tensor([0, 1, 0]),
        scores=torch.tensor([0.9, 0.5, 0.1]),
    )


def batch(semantic: torch.Tensor | None = None) -> Batch:
    frames = (Frame(7, (10, 14), (5, 7)), Frame(9, (5, 7), (5, 7)))
    return Batch(torch.zeros(2, 3, 5, 7, dtype=torch.uint8), (instances(), Instances.empty((5, 7))), frames, semantic)


class TestMasks:
    def test_encoding_is_that_of_pycocotools(self) -> None:
        for mask, encoded in zip(squares(), Masks(squares()).rle(), strict=True):
            assert encoded == rle_codec.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))

    def test_dense_to_rle_and_back_changes_nothing(self) -> None:
        encoded = Masks(Masks(squares()).rle())
        assert not encoded.is_dense
        assert torch.equal(encoded.dense(), squares())

    @pytest.mark.parametrize("form", ["dense", "rle"])
    def test_both_forms_answer_alike(self, form: str) -> None:
        masks = instances(form).masks
        assert len(masks) == 3
        assert masks.size == (5, 7)
        assert masks.areas().tolist() == [6, 1, 0]
        assert masks.boxes().tolist() == [[2, 1, 5, 3], [6, 4, 7, 5], [0, 0, 0, 0]]
        assert repr(masks) == f"Masks(3 {form}, 5x7)"

    def test_more_masks_than_a_byte_counts(self) -> None:
        many = Masks(squares().repeat(100, 1, 1))
        assert Masks(many.rle()).areas().tolist() == many.areas().tolist() == [6, 1, 0] * 100
        assert torch.equal(Masks(many.rle()).boxes(), many.boxes())

    @pytest.mark.parametrize("form", ["dense", "rle"])
    @pytest.mark.parametrize(
        ("keep", "rows"),
        [
            (torch.tensor([True, False, True]), [0, 2]),
            (torch.tensor([2, 0]), [2, 0]),
            (torch.tensor([], dtype=torch.long), []),
            (slice(1, None), [1, 2]),
        ],
    )
    def test_rows(self, form: str, keep: torch.Tensor | slice, rows: list[int]) -> None:
        kept = instances(form).masks[keep]
        assert kept.is_dense == (form == "dense")
        assert kept.size == (5, 7)
        assert torch.equal(kept.dense(), squares()[rows])

    @pytest.mark.parametrize("empty", [Masks(torch.zeros(0, 5, 7, dtype=torch.bool)), Masks([], (5, 7))])
    def test_nothing_is_a_normal_case(self, empty: Masks) -> None:
        assert len(empty) == 0
        assert empty.dense().shape == (0, 5, 7)
        assert empty.rle() == []
        assert empty.areas().shape == (0,)
        assert empty.boxes().shape == (0, 4)
        assert empty.to("cpu").size == (5, 7)

    def test_dense_masks_move_and_encoded_ones_stay(self) -> None:
        assert Masks(squares()).to("meta").dense().device.type == "meta"
        assert instances("rle").masks.to("meta").dense().device.type == "cpu"
        assert instances("rle").masks.pin_memory().size == (5, 7)

    @pytest.mark.parametrize("wrong", [squares().float(), squares()[0]])
    def test_only_a_stack_of_booleans_is_taken(self, wrong: torch.Tensor) -> None:
        with pytest.raises((TypeCheckError, ValueError)):
            Masks(wrong)

    def test_sizes_must_agree(self) -> None:
        encoded = Masks(squares()).rle()
        other = Masks(torch.ones(1, 7, 5, dtype=torch.bool)).rle()
        with pytest.raises(ValueError, match=r"one size, found \[\(5, 7\), \(7, 5\)\]"):
            Masks([*encoded, *other])
        with pytest.raises(ValueError, match="one size"):
            Masks([])
        with pytest.raises(ValueError, match=r"\(5, 7\) pixels, but the frame is \(7, 5\)"):
            Masks(encoded, (7, 5))


class TestInstances:
    @pytest.mark.parametrize("field", ["masks", "boxes", "labels", "scores"])
    def test_a_missing_row_is_refused(self, field: str) -> None:
        whole = instances()
        with pytest.raises((TypeCheckError, ValueError)):
            replace(whole, **{field: getattr(whole, field)[torch.tensor([0])]})

    def test_rows(self) -> None:
        kept = instances()[torch.tensor([False, True, False])]
        assert len(kept) == 1
        assert kept.labels.tolist() == [1]
        assert kept.boxes.tolist() == [[6, 4, 7, 5]]
        assert torch.equal(kept.masks.dense(), squares()[1:2])
        assert instances()[:2].scores.tolist() == pytest.approx([0.9, 0.5])

    def test_empty(self) -> None:
        empty = Instances.empty((5, 7))
        assert len(empty) == 0
        assert empty.masks.size == (5, 7)
        assert len(empty[torch.zeros(0, dtype=torch.bool)]) == 0

    def test_every_field_moves(self) -> None:
        moved = instances().to("meta")
        devices = {moved.masks.dense().device.type, moved.boxes.device.type, moved.labels.device.type}
        assert devices == {"meta"} == {moved.scores.device.type}

    def test_shapes_are_executed(self) -> None:
        with pytest.raises(TypeCheckError):
            replace(instances(), boxes=torch.zeros(3, 5))


class TestBatch:
    def test_length_and_images_one_by_one(self) -> None:
        semantic = torch.arange(2, dtype=torch.uint8)[:, None, None].expand(2, 5, 7)
        singles = list(batch(semantic))
        assert len(batch()) == 2
        assert [single.frames[0].image_id for single in singles] == [7, 9]
        assert [len(single.targets[0]) for single in singles] == [3, 0]
        assert all(single.images.shape == (1, 3, 5, 7) for single in singles)
        assert [int(single.semantic[0, 0, 0]) for single in singles if single.semantic is not None] == [0, 1]

    def test_one_target_and_one_frame_an_image(self) -> None:
        with pytest.raises(ValueError, match="'frames': 1"):
            replace(batch(), frames=batch().frames[:1])

    def test_everything_moves(self) -> None:
        moved = batch(torch.zeros(2, 5, 7, dtype=torch.uint8)).to("meta")
        assert moved.semantic is not None
        assert {moved.images.device.type, moved.semantic.device.type} == {"meta"}
        assert moved.targets[0].boxes.device.type == "meta"
        assert batch().to("meta").semantic is None

    @pytest.mark.gpu
    def test_pinned_memory(self) -> None:
        pinned = batch(torch.zeros(2, 5, 7, dtype=torch.uint8)).pin_memory()
        assert pinned.images.is_pinned()
        assert pinned.targets[0].masks.dense().is_pinned()


def test_scale_is_network_pixels_a_photo_pixel() -> None:
    assert Frame(1, photo=(200, 100), resized=(100, 150)).scale == (0.5, 1.5)


@pytest.mark.parametrize(
    "wrong", [{"score_threshold": 1.0}, {"score_threshold": -0.1}, {"candidates": 0}, {"max_instances": 0}]
)
def test_an_operating_point_that_returns_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="found"):
        OperatingPoint(**wrong)
    assert OperatingPoint(candidates=None).max_instances == 100

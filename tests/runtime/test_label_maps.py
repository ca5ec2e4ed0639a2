from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskbench.errors import DataError
from maskbench.runtime.label_maps import MOST, label_map, write
from maskbench.structures import Instances, Masks
from painted import squares


def test_where_masks_overlap_the_best_has_the_pixels() -> None:
    drawn = label_map(squares((0, 0), (0, 10), (50, 50)))
    assert drawn.dtype == np.uint16
    assert [int((drawn == number).sum()) for number in range(5)] == [80 * 100 - 1000, 400, 200, 400, 0]
    assert drawn[5, 15] == 1
    assert drawn[5, 25] == 2


def test_the_table_says_what_each_integer_is(tmp_path: Path) -> None:
    found = replace(squares((0, 0), (0, 10), (5, 5)), labels=torch.tensor([1, 0, 1]))
    covered = replace(squares((0, 0), (0, 0)), labels=torch.tensor([0, 0]))
    path = write(tmp_path / "a b" / "ü.png", found, ("Zelle, groß", "cat"), (7, 90))
    with Image.open(path) as image:
        assert image.mode.startswith("I;16")
        stored = np.asarray(image)
    assert (stored == label_map(found)).all()
    with path.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["instance"] for row in rows] == ["1", "2", "3"]
    assert [row["class"] for row in rows] == ["cat", "Zelle, groß", "cat"]
    assert [row["category_id"] for row in rows] == ["90", "7", "90"]
    assert [float(row["score"]) for row in rows] == pytest.approx([0.9, 0.7, 0.5])
    assert [int(row["area"]) for row in rows] == [400, 400, 400]
    assert [int(row["visible"]) for row in rows] == [int((stored == number).sum()) for number in (1, 2, 3)]
    assert [rows[1][name] for name in ("left", "top", "width", "height")] == ["10", "0", "20", "20"]
    write(path, covered, ("a",), (1,))
    with path.with_suffix(".csv").open(newline="") as file:
        assert [row["visible"] for row in csv.DictReader(file)] == ["400", "0"]


def test_nothing_found_is_background_and_a_table_without_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "empty.png", squares(), ("a",), (1,))
    with Image.open(path) as image:
        assert np.asarray(image).shape == (80, 100)
        assert not np.asarray(image).any()
    assert len(path.with_suffix(".csv").read_text().splitlines()) == 1


def test_more_instances_than_integers_are_refused() -> None:
    (mask,) = squares((0, 0)).masks.rle()
    count = MOST + 1
    nothing = torch.zeros(count)
    crowd = Instances(Masks([mask] * count), torch.zeros(count, 4), nothing.long(), nothing)
    with pytest.raises(DataError, match=r"tells 65,535 instances apart, found 65,536; say a higher score"):
        label_map(crowd)

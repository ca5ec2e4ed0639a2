"""Photos of the test split as each row of the table sees them: where rows disagree most, the worst, the best."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskbench.study.runs import Run

EACH = 4
"""Photos of each kind."""

TINTS = tuple(f"hsl({(7 + 137.5 * place) % 360:.0f} 90% 60%)" for place in range(12))
"""Colours of outlines: by the golden angle, so that neighbours in the list differ."""


@dataclass(frozen=True)
class Shot:
    """A photo with outlines: (SVG path, what it is in words), and what is said below it."""

    outlines: list[tuple[str, str]]
    caption: str


@dataclass(frozen=True)
class Photo:
    """One photo, and how everybody sees it.

    Args:
        image_id: of the data set.
        size: height and width of the grid of the outlines.
        jpeg: the photo as a data URI.
        truth: what is there.
        shots: by row, as the gallery names them; None of a run that has not kept the photo.
    """

    image_id: int
    size: tuple[int, int]
    jpeg: str
    truth: Shot
    shots: list[Shot | None]

    @property
    def plain(self) -> Shot:
        return Shot([], f"photo {self.image_id}")


@dataclass(frozen=True)
class Gallery:
    """Photos by why they are shown; `rows` are whose shots they have, in their order."""

    rows: list[str]
    photos: dict[str, list[Photo]]


def gallery(runs: Mapping[str, Run]) -> Gallery:
    """Choose and draw photos.

    Args:
        runs: the run that stands for each row.
    """
    shown = {label: run for label, run in runs.items() if run.photos}
    kept = sorted({image_id for run in shown.values() for image_id in run.photos if run.photo(image_id)})
    chosen = choose({label: _worth(run) for label, run in shown.items()}, kept)
    photos = {why: [_photo(image_id, list(shown.values())) for image_id in ids] for why, ids in chosen.items() if ids}
    return Gallery(list(shown), photos)


def choose(
    worth: Mapping[str, Mapping[int, float]], image_ids: Sequence[int], each: int = EACH
) -> dict[str, list[int]]:
    """Which photos are shown and why, none of them twice.

    Args:
        worth: by row, F1 by image id as far as it is known.
        image_ids: of the photos that can be shown.
        each: how many of a kind.
    """
    known = {i: [own[i] for own in worth.values() if i in own] for i in image_ids}
    complete = [i for i in image_ids if known[i] and len(known[i]) == len(worth)]
    left, chosen = list(complete), {}
    kinds: dict[str, Callable[[int], float]] = {
        "Rows disagree most": lambda i: max(known[i]) - min(known[i]),
        "The worst": lambda i: -float(np.mean(known[i])),
        "The best": lambda i: float(np.mean(known[i])),
    }
    if len(worth) < 2:
        del kinds["Rows disagree most"]
    for why, value in kinds.items():
        chosen[why] = sorted(left, key=lambda i: -value(i))[:each]
        left = [i for i in left if i not in chosen[why]]
    return chosen if complete else {"The first": list(image_ids[:each])}


def _worth(run: Run) -> dict[int, float]:
    return {image_id: photo["f1"] for image_id, photo in run.photos.items() if photo.get("f1") is not None}


def _photo(image_id: int, runs: Sequence[Run]) -> Photo:
    keeper = next(run for run in runs if image_id in run.photos and run.photo(image_id))
    path, seen = keeper.photo(image_id), keeper.photos[image_id]
    assert path is not None
    truth = [(object_["path"], object_["name"]) for object_ in seen["truth"]]
    return Photo(
        image_id=image_id,
        size=(seen["size"][0], seen["size"][1]),
        jpeg=f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}",
        truth=Shot(truth, _objects(len(truth))),
        shots=[_shot(run.photos[image_id]) if image_id in run.photos else None for run in runs],
    )


def _shot(photo: Mapping[str, Any]) -> Shot:
    outlines = [
        (found["path"], f"{found['name']}, score {found['score']:.2f}, IoU {found['iou']:.2f}")
        for found in photo["found"]
    ]
    worth = "" if photo.get("f1") is None else f", F1 {100 * photo['f1']:.0f}"
    return Shot(outlines, f"{len(outlines)} found{worth}")


def _objects(count: int) -> str:
    return f"{count} object{'' if count == 1 else 's'}"

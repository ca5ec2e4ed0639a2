"""Which images of the training file are for training, tuning and testing: by hash, so that no run can choose."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from maskbench.data.coco import Record


def by_hash(records: Iterable[Record]) -> list[Record]:
    """The images in an order that looks random and is the same everywhere, whatever else the file lists."""
    return sorted(records, key=_digest)


def _digest(record: Record) -> bytes:
    return hashlib.sha256(f"{record.image_id}/{record.file_name}".encode()).digest()


@dataclass(frozen=True)
class Shares:
    """Image ids of the parts of a training file, each ascending; `test` is empty where it is a file of its own."""

    train: list[int]
    tune: list[int]
    test: list[int]


def take_apart(
    records: Iterable[Record], *, tune_share: float, test_share: float | None = None, limit: int | None = None
) -> Shares:
    """The parts of a training file, of which none has a photo of another's group.

    Args:
        records: its images.
        tune_share: of what is not for testing, the share that is for tuning (0: none).
        test_share: share of all images that is for testing (None: none, test is another file).
        limit: training images kept.
    """
    known = {record.image_id: record for record in records}
    rest, test = split_off(known.values(), test_share or 0.0)
    train, tune = split_off([known[image_id] for image_id in rest], tune_share, limit)
    return Shares(train, tune, test)


def split_off(records: Iterable[Record], share: float, limit: int | None = None) -> tuple[list[int], list[int]]:
    """Image ids for training and those set apart, each ascending.

    Args:
        records: the images of the training file.
        share: of the images that are set apart, those with the lowest hashes; at least one unless it is 0 (or there is
            one image only). Images of one group go together: whole groups by the hash of their name, as many as come
            nearest to the share.
        limit: training images kept. Neither the other images nor the smaller of two limited sets depend on it.
    """
    order = by_hash(records)
    count = min(len(order) - 1, max(1, round(share * len(order)))) if share > 0 else 0
    apart = _whole_groups(order, count)
    train = [record.image_id for record in order if record.image_id not in apart]
    return sorted(train if limit is None else train[:limit]), sorted(apart)


def first(records: Iterable[Record], limit: int | None) -> list[int]:
    """Image ids of so many images, by hash, or of all, ascending; a smaller limit leaves some of a larger one's."""
    chosen = records if limit is None else by_hash(records)[:limit]
    return sorted(record.image_id for record in chosen)


def _whole_groups(order: Sequence[Record], count: int) -> Collection[int]:
    """The images of groups that together come near to `count`; never of all groups."""
    groups: dict[bytes, list[int]] = {}
    for record in order:
        key = _digest(record) if record.group is None else hashlib.sha256(record.group.encode()).digest()
        groups.setdefault(key, []).append(record.image_id)
    if count == 0 or len(groups) < 2:
        return ()
    taken: set[int] = set()
    chosen = 0
    names = sorted(groups)
    for name in names:
        nearer = abs(len(taken) + len(groups[name]) - count) < abs(len(taken) - count)
        if nearer and chosen < len(groups) - 1:
            taken.update(groups[name])
            chosen += 1
    return taken or set(groups[min(names, key=lambda name: len(groups[name]))])

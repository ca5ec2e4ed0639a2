"""Where the annotation file and the images of each split lie in a COCO folder: as settings say, else as they are found.

Tools lay their exports out in ways of their own, and these are found by their names alone:

    COCO           annotations/instances_train2017.json      train2017/, images/train2017/ or images/
    CVAT           annotations/instances_default.json        images/default/ or images/
    Roboflow       train/_annotations.coco.json              train/ (valid/ and test/ likewise)
    Label Studio   result.json                               images/
    labelme2coco   annotations.json                          JPEGImages/

A split is the word train, val (or valid, validation) or test in a file's name or, failing that, its folder's. Of train,
val and test, test is judged and val is for tuning; of train and val, val is judged. A file that names no split is all
there is to train on, if it is the only one.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from maskbench.data.coco import missing_annotations, with_file_name, wrong_name
from maskbench.errors import ConfigError, DataError, few

Role = Literal["train", "val", "test"]
WORDS: Mapping[str, Role] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What a split is called, in lower case; a year or number may follow."""

JUDGED: tuple[Role, ...] = ("test", "val")
"""What is judged, the first that is there."""

OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
"""What COCO's and CVAT's files begin with that hold no instances."""

FOLDERS = ("images", "JPEGImages", "data", ".")
"""Where images lie when no folder is called as their split is."""

FIRST_NAME = {
    name: re.compile(rb'"%b"\s*:\s*("(?:[^"\\]|\\.)*")' % name.encode()) for name in ("file_name", "coco_url")
}
CONTENT = (b'"images"', b'"annotations"', b'"categories"')


@dataclass(frozen=True)
class Place:
    """Annotation file of a split, and the folder that its `file_name` is relative to; both relative to the root."""

    annotations: str
    images: str


@dataclass(frozen=True)
class Places:
    """Where the splits of a data set lie.

    Args:
        train: what is trained on.
        test: what is judged; where `test_share` is set, the file of train.
        tune: what is chosen on; None where it is a share of train.
        test_share: share of the photos of train that are test; None where test is a file of its own.
    """

    train: Place
    test: Place
    tune: Place | None
    test_share: float | None

    def files(self) -> list[tuple[str, str]]:
        """Annotation file and image folder of each split that has its own, the trained one first."""
        places = (self.train, self.test, self.tune)
        return list(dict.fromkeys((place.annotations, place.images) for place in places if place))

    def settings(self) -> dict[str, Any]:
        """The settings of `data` that say all of this, so that nothing is left to be found: they name a trial."""
        apart = self.tune is not None and self.tune.images != self.train.images
        return {
            "train_annotations": self.train.annotations,
            "train_images": self.train.images,
            "test_annotations": self.test.annotations,
            "test_images": self.test.images,
            "tune_annotations": self.tune.annotations if self.tune else None,
            "tune_images": self.tune.images if self.tune and apart else None,
            "test_share": self.test_share,
        }


def find(root: Path, given: Mapping[str, Any]) -> Places:
    """The places of the splits; settings that are there win, and where they name everything nothing is looked for.

    Args:
        root: the data set's folder.
        given: `train_annotations`, `train_images` and so on of the settings `data`; None or missing: to be found.

    Raises:
        ConfigError: `test_share` is no share.
        DataError: something is not there, or there are two of it; the message names what there is.
    """
    share = given.get("test_share")
    if share is not None and not 0 < share < 1:
        raise ConfigError(f"data.test_share is a share of the photos between 0 and 1, or null, found {share}")
    names = _Names(*(given.get(f"{split}_annotations") for split in ("train", "tune", "test")))
    if names.train is None or names.test is None:
        names = names.completed(_Found.below(root))
    if names.train is None:
        raise DataError(_nothing(root))
    if names.test is None and share is None:
        raise DataError(_no_test(root, names.train))
    place = partial(_place, root, given)
    train = place("train", names.train)
    tune = None if names.tune is None else place("tune", names.tune, train.images)
    if names.test is None or names.test == names.train:
        images = given.get("test_images") or train.images
        return Places(train, Place(train.annotations, images), tune, share)
    return Places(train, place("test", names.test), tune, None)


def find_test(root: Path, given: Mapping[str, Any]) -> Places:
    """As `find`, where nothing is trained: what is judged stands in the place of train too, which need not be there.

    Raises:
        DataError: as in `find`.
    """
    name, train, share = given.get("test_annotations"), given.get("train_annotations"), given.get("test_share")
    if name is None:
        found = _Found.below(root)
        train = train or found.only("train")
        name = next((path for role in JUDGED if (path := found.only(role))), train)
    if name is None:
        raise DataError(_nothing(root))
    same = name == train
    place = _place(root, given, "train" if same and given.get("test_images") is None else "test", name)
    return Places(place, place, None, share if same else None)


class _Names(NamedTuple):
    """The annotation file of each split, as far as it is known."""

    train: str | None
    tune: str | None
    test: str | None

    def completed(self, found: _Found) -> _Names:
        """What is not there, as it was found: test is test or val, and val is for tuning if there are both."""
        train = self.train or found.only("train")
        if self.test:
            return self._replace(train=train)
        left = [path for role in JUDGED if (path := found.only(role)) and path not in (train, self.tune)]
        return _Names(train, self.tune or (left[1] if len(left) > 1 else None), left[0] if left else None)


# Annotation files -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """The files in a folder that may be the annotations of a split, relative to it, by how surely they are."""

    root: Path
    ranked: Mapping[Role, Mapping[int, list[str]]]

    @classmethod
    def below(cls, root: Path) -> _Found:
        """By their names; a file that names no split is train, where none is.

        Raises:
            DataError: `root` is no folder.
        """
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; data.root names the one that holds images and annotations")
        ranked: dict[Role, dict[int, list[str]]] = {}
        unnamed: list[str] = []
        for path in _json_files(root):
            found = _role(path)
            if found is None:
                unnamed.append(path)
            else:
                role, rank = found
                ranked.setdefault(role, {}).setdefault(rank, []).append(path)
        if "train" not in ranked:
            for path in (path for path in unnamed if _is_coco(root / path)):
                usual = Path(path).name.startswith("instances_")
                ranked.setdefault("train", {}).setdefault(0 if usual else 1, []).append(path)
        return cls(root, ranked)

    def only(self, role: Role) -> str | None:
        """The file of a split; None where there is none.

        Raises:
            DataError: two may be meant.
        """
        if role not in self.ranked:
            return None
        paths = self.ranked[role][min(self.ranked[role])]
        if len(paths) > 1:
            paths = [path for path in paths if _is_coco(self.root / path)] or paths
        if len(paths) > 1:
            raise DataError(
                f"{self.root}: {few(paths)} may each be the annotations of {role}; set data.train_annotations and "
                "data.test_annotations to those that are meant"
            )
        return paths[0]


def _json_files(root: Path) -> Iterator[str]:
    """The json files in `root`, in its folder `annotations` and in folders that are called as a split is."""
    folders = [root, *(path for path in sorted(root.iterdir()) if path.is_dir() and _holds_annotations(path.name))]
    for folder in folders:
        for path in sorted(folder.glob("*.json")):
            if not path.name.startswith((".", *OTHER_TASKS)):
                yield path.relative_to(root).as_posix()


def _holds_annotations(folder: str) -> bool:
    return folder.lower() == "annotations" or _word(folder) in WORDS


def _role(path: str) -> tuple[Role, int] | None:
    """The split that a file is named after, and how surely: the lower number wins."""
    folder, _, name = path.rpartition("/")
    stem = name.removesuffix(".json").lower()
    word = re.split(r"[\W_]+", _word(stem))[-1]
    if word in WORDS:
        usual = f"instances_{word}"
        return WORDS[word], 0 if stem == usual else 1 if _word(stem) == usual else 2
    return (WORDS[_word(folder)], 2) if _word(folder) in WORDS else None


def _word(name: str) -> str:
    """Without the year or number that it ends in, in lower case."""
    return re.sub(r"[\W\d_]+$", "", name.lower())


def _is_coco(path: Path) -> bool:
    """Whether a json has the three lists of an annotation file, as far as a look at its bytes can tell."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return all(content.find(key) >= 0 for key in CONTENT)
    except (OSError, ValueError):  # an empty file can't be mapped
        return False


def _nothing(root: Path) -> str:
    return (
        f"{root}: no annotations to train on; expected annotations/instances_train.json and instances_val.json, or "
        f"what CVAT, Label Studio or Roboflow export as COCO, {_seen(root)}; name the files (data.train_annotations, "
        "data.test_annotations), or convert what is there: python -m maskbench.data.labelmaps SOURCE OUT (images of "
        "integers), python -m maskbench.data.labelme SOURCE OUT (labelme's files)"
    )


def _no_test(root: Path, train: str) -> str:
    return (
        f"{root}: {train} is all there is to train on, and no annotations are for testing, {_seen(root)}; "
        "data.test_share=0.2 sets a fifth of the photos apart by hash (and data.group_by=FIELD keeps those together "
        "that belong together), or set data.test_annotations"
    )


def _seen(root: Path) -> str:
    """What is in the folder, and in its folder of annotations."""
    here = [f"{path.name}/" if path.is_dir() else path.name for path in sorted(root.iterdir())]
    below = [path.relative_to(root).as_posix() for path in sorted(root.glob("annotations/*.json"))]
    names = [name for name in [*below, *here] if not name.startswith(".")]
    return f"found {few(names)}" if names else "but it is empty"


# Image folders --------------------------------------------------------------------------------------------------------


def _place(root: Path, given: Mapping[str, Any], split: str, name: str, like: str | None = None) -> Place:
    """An annotation file with its image folder: as it is set, else where its first image lies."""
    images = given.get(f"{split}_images")
    return Place(name, images if images is not None else _images(root, name, split, like))


def _images(root: Path, name: str, split: str, like: str | None) -> str:
    candidates = [folder for folder in _candidates(name, like) if (root / folder).is_dir()]
    first = _first_image(root / name)
    holding = [folder for folder in candidates if first is not None and _lies(root / folder, first)]
    if len(holding) == 1 or like in holding:
        return like if like in holding else holding[0]
    if holding:
        raise DataError(
            f"{root / name}: its first image, {first}, lies in each of {few(holding)}; set data.{split}_images to the "
            "folder that is meant"
        )
    named = [folder for folder in candidates if folder != "."]
    if len(named) == 1:
        return named[0]  # whose images turn out to be missing, or the file to be broken: who reads it knows more
    raise DataError(
        f"{root / name}: its first image, {first}, lies in none of the folders {few(candidates)}; set "
        f"data.{split}_images to the folder that `file_name` is relative to"
    )


def _lies(folder: Path, name: str) -> bool:
    """Whether the folder has a file of that name; a name that can be none is left to who reads the records."""
    try:
        return wrong_name(name) is None and (folder / name).is_file()
    except OSError:
        return False


def _candidates(name: str, like: str | None) -> list[str]:
    """Folders that the images of an annotation file may lie in, each once."""
    path = Path(name)
    stem = path.stem.removeprefix("instances_")
    words = (stem, re.split(r"[\W_]+", stem)[-1])
    own = [] if path.parent.name.lower() == "annotations" else [path.parent, path.parent / "images"]
    below = [folder for word in words for folder in (f"images/{word}", word)]
    return list(dict.fromkeys([*(each.as_posix() for each in own), *below, *([like] if like else []), *FOLDERS]))


def _first_image(path: Path) -> str | None:
    """The first `file_name` of an annotation file, which is not read for it: it may have hundreds of megabytes.

    Raises:
        DataError: there is no such file.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for name, pattern in FIRST_NAME.items():
                if match := pattern.search(content):
                    return with_file_name({name: json.loads(match[1])})["file_name"]
            return None
    except FileNotFoundError:
        raise DataError(missing_annotations(path)) from None
    except (OSError, ValueError):  # who reads it says what is wrong
        return None

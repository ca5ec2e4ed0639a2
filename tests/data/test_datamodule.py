from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import albumentations
import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer

from maskbench.data.datamodule import CocoDataModule, photo_batch
from maskbench.data.shapes import draw
from maskbench.data.transforms import Eval, Train, Transforms
from maskbench.errors import ConfigError, DataError
from maskbench.structures import Batch

AUGMENT = (albumentations.HorizontalFlip(), albumentations.RandomBrightnessContrast(p=1.0))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(cache=tmp_path_factory.mktemp("cache"), images=30, val_images=6, size=48)


def module(root, **settings) -> CocoDataModule:
    return CocoDataModule(root, **{"batch": 4, "transforms": Transforms(train=Train(augment=AUGMENT)), **settings})


def images(batches) -> torch.Tensor:
    return torch.cat([batch.images for batch in batches])


@pytest.mark.filterwarnings("ignore:Module maskbench was previously imported")  # coverage, in the forked workers
@pytest.mark.parametrize("workers", [0, 1])
def test_a_photo_that_cannot_be_read_is_told_without_a_workers_traceback(tmp_path: Path, workers: int) -> None:
    root = draw(cache=tmp_path, images=4, val_images=1, size=48)
    for path in (root / "images").iterdir():
        path.write_bytes(path.read_bytes()[:2000])
    data = module(root, workers=workers, tune_share=0.0)
    for loader in (data.train_dataloader(), data.test_dataloader()):
        with pytest.raises(DataError, match=r"^\S+\.png: is broken \(.*\); replace it or leave it out$"):
            next(iter(loader))
    skipped = module(root, workers=workers, tune_share=0.0, unreadable="skip")
    (batch,) = skipped.train_dataloader()
    assert sorted(batch.unreadable) == list(skipped.image_ids("train"))
    with pytest.raises(ConfigError, match=r"data\.unreadable=never: expected one of stop, skip"):
        module(root, unreadable="never")


def test_splits(shapes: Path) -> None:
    data = module(shapes)
    assert [len(data.image_ids(split)) for split in ("train", "tune", "test")] == [27, 3, 6]
    assert not set(data.image_ids("train")) & set(data.image_ids("tune"))
    assert data.annotations("tune") == data.annotations("train") == shapes / "annotations" / "instances_train.json"
    assert data.classes == ("disc", "rectangle", "triangle")
    assert data.category_ids == (3, 7, 11)
    for split in ("train", "tune", "test"):
        assert data.image_path(split, data.image_ids(split)[0]).is_file()


def test_a_tune_file_of_its_own(shapes: Path) -> None:
    val = "annotations/instances_val.json"
    data = module(shapes, tune_annotations=val, test_annotations=val, limit=10)
    assert [len(data.image_ids(split)) for split in ("train", "tune", "test")] == [10, 6, 6]
    assert data.annotations("tune").name == "instances_val.json"


def test_a_share_of_the_photos_is_for_testing(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to(shapes / "images")
    (tmp_path / "all.json").write_bytes((shapes / "annotations/instances_train.json").read_bytes())
    data = module(tmp_path, test_share=0.2)
    ids = {split: set(data.image_ids(split)) for split in ("train", "tune", "test")}
    assert {split: len(own) for split, own in ids.items()} == {"train": 22, "tune": 2, "test": 6}
    assert len(ids["train"] | ids["tune"] | ids["test"]) == 30
    assert data.annotations("test") == tmp_path / "all.json", "the untouched file, of which image_ids are judged"
    assert {frame.image_id for batch in data.test_dataloader() for frame in batch.frames} == ids["test"]
    assert data.profile.images == 24
    assert data.profile.instances == data.objects("train") + data.objects("tune")
    assert module(tmp_path, test_share=0.2, limit=3).image_ids("test") == data.image_ids("test")
    whole = module(tmp_path, test_annotations="all.json")
    assert (whole.profile.images, len(whole.image_ids("test"))) == (30, 30)


def test_what_is_judged_may_be_a_part(shapes: Path) -> None:
    whole, part = module(shapes), module(shapes, eval_limit=2)
    assert part.image_ids("train") == whole.image_ids("train")
    for split in ("tune", "test"):
        assert len(part.image_ids(split)) == 2
        assert set(part.image_ids(split)) < set(whole.image_ids(split))
    assert part.fingerprint == whole.fingerprint


def test_no_group_is_in_two_splits(write, content: dict) -> None:
    size = {"height": 20, "width": 30}
    content["images"] = [
        {"id": number, "file_name": f"{number}.png", "patient": number % 10, **size} for number in range(7, 47)
    ]
    content["annotations"] = content["annotations"][:3]
    root = write()
    (root / "annotations/instances_val.json").unlink()
    for by in ("patient", r"(\d)\.png"):
        data = module(root, test_share=0.2, tune_share=0.2, group_by=by)
        found = [{number % 10 for number in data.image_ids(split)} for split in ("train", "tune", "test")]
        assert [len(groups) for groups in found] == [7, 1, 2]
        assert len(set.union(*found)) == 10
    with pytest.raises(DataError, match=r"instances_train.json: of image 7, no `slide` .*; give every image its group"):
        module(root, test_share=0.2, group_by="slide").setup()
    with pytest.raises(DataError, match=r"none of its 40 photos can be set apart .* all are of one group"):
        module(root, test_share=0.2, group_by="height").setup()


def test_files_that_share_a_group_are_refused(write, content: dict) -> None:
    root = write()  # the same photos for training and testing
    assert module(root, tune_share=0.0).image_ids("test") == (7, 11, 30)
    told = r"instances_val.json: the group `a` \(data.group_by\) has photos in train, such as a.png, and in test"
    with pytest.raises(DataError, match=told):
        module(root, tune_share=0.0, group_by=r"^(\w+)").setup()
    train = "annotations/instances_train.json"
    same = module(root, tune_share=0.0, group_by=r"^(\w+)", train_annotations=train, test_annotations=train)
    assert same.image_ids("train") == same.image_ids("test"), "where that is meant"


def test_crowds_alone_are_nothing_to_learn(write, content: dict) -> None:
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1
    with pytest.raises(
        DataError, match=r"instances_train.json: each of its annotations has `iscrowd`: 1, .* CVAT marks"
    ):
        module(write(content)).setup()
    content["annotations"] = []
    assert module(write(content, name="empty")).objects("train") == 0


def test_without_tuning_there_is_no_validation(shapes: Path) -> None:
    data = module(shapes, tune_share=0.0)
    assert len(data.image_ids("train")) == 30
    assert data.val_dataloader() == []


def test_an_epoch_of_batches(shapes: Path) -> None:
    data = module(shapes)
    batches = list(data.train_dataloader())
    assert [len(batch) for batch in batches] == [4] * 6 + [3]
    assert sorted(frame.image_id for batch in batches for frame in batch.frames) == list(data.image_ids("train"))
    assert all(batch.images.shape[2:] == (64, 64) for batch in batches)
    assert all(target.masks.is_dense for batch in batches for target in batch.targets)


def test_evaluation_sees_every_photo_as_it_is(shapes: Path) -> None:
    data = module(shapes, eval_batch=4)
    for split, loader in (("tune", data.val_dataloader()), ("test", data.test_dataloader())):
        assert tuple(frame.image_id for batch in loader for frame in batch.frames) == data.image_ids(split)
    again = data.test_dataloader()
    assert torch.equal(images(data.test_dataloader()), images(again))


@pytest.mark.filterwarnings("ignore:Module maskbench was previously imported")  # coverage, in the forked workers
def test_workers_and_resuming_change_nothing(shapes: Path) -> None:
    def epochs(first: int, last: int, **settings) -> list[torch.Tensor]:
        loader = module(shapes, **settings).train_dataloader()
        found = []
        for epoch in range(first, last):
            loader.sampler.set_epoch(epoch)
            found.append(images(loader))
        return found

    alone = epochs(0, 3)
    assert not torch.equal(alone[0], alone[1])
    for first, second in zip(alone, epochs(0, 3, workers=2), strict=True):
        assert torch.equal(first, second)
    assert torch.equal(alone[2], epochs(2, 3)[0])
    assert not torch.equal(alone[0], epochs(0, 1, seed=1)[0])


def test_the_global_batch_is_shared_by_the_devices(shapes: Path) -> None:
    def share(rank: int) -> list[Batch]:
        data = module(shapes)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        return list(data.train_dataloader())

    alone = list(module(shapes).train_dataloader())
    for whole, *parts in zip(alone[:6], share(0), share(1), strict=False):
        assert [len(part) for part in parts] == [2, 2]
        together = {frame.image_id for part in parts for frame in part.frames}
        assert together == {frame.image_id for frame in whole.frames}


def test_a_batch_that_cannot_be_shared(shapes: Path) -> None:
    data = module(shapes, batch=4)
    data.trainer = SimpleNamespace(global_rank=0, world_size=3)
    with pytest.raises(ConfigError, match="4 does not divide by 3"):
        data.train_dataloader()


def test_a_loop_of_ones_own_asks_torch_for_its_place(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("is_initialized", True), ("get_rank", 1), ("get_world_size", 4)):
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    assert len(next(iter(module(shapes, batch=8).train_dataloader()))) == 2
    assert [len(batch) for batch in module(shapes).test_dataloader()] == [1, 1]


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*many workers")
def test_lightning_sets_the_epoch_and_moves_the_batch(shapes: Path) -> None:
    class Watch(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.orders: dict[int, list[int]] = {}

        def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
            ids = self.orders.setdefault(self.current_epoch, [])
            ids += [frame.image_id for frame in batch.frames]
            return self.weight * batch.images.float().mean()

        def validation_step(self, batch: Batch, batch_idx: int) -> None:
            assert len(batch) == 1

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    data, method = module(partial(draw, cache=shapes.parent, images=30, val_images=6, size=48)), Watch()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "barebones": False}
    trainer = Trainer(max_epochs=2, accelerator="cpu", enable_model_summary=False, num_sanity_val_steps=0, **quiet)
    trainer.fit(method, datamodule=data)
    assert set(method.orders) == {0, 1}
    assert method.orders[0] != method.orders[1]
    assert sorted(method.orders[0]) == sorted(method.orders[1]) == list(data.image_ids("train"))


def test_the_root_may_be_a_function_that_is_called_once(shapes: Path) -> None:
    calls = []

    def root() -> Path:
        calls.append(1)
        return shapes

    data = module(root)
    assert calls == []
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert data.classes == ("disc", "rectangle", "triangle")
    assert calls == [1]


def test_the_profile_is_of_the_training_file(shapes: Path) -> None:
    found = module(shapes, limit=3).profile
    assert (found.images, found.crowds) == (30, 1)
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()


def test_the_objects_of_a_split_are_those_of_its_images(shapes: Path) -> None:
    data = module(shapes, tune_share=0.3)
    assert data.objects("train") + data.objects("tune") == data.profile.instances
    assert 0 < data.objects("tune") < data.objects("train")
    assert module(shapes, tune_share=0).objects("tune") == 0


def test_categories_must_agree(write, content: dict) -> None:
    root = write()
    content["categories"][0]["name"] = "moon"
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"category 9 is `moon`, but in .*instances_train.json it is `star`"):
        module(root).setup()
    content["categories"][0] = {"id": 2, "name": "moon"}
    content["annotations"] = []
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"category 2 is `moon`, but in .* it is missing"):
        module(root).setup()


def test_a_folder_with_other_names_says_which_settings_to_change(write) -> None:
    root = write()
    (root / "annotations" / "instances_val.json").rename(root / "annotations" / "mine.json")
    with pytest.raises(DataError, match=r"found annotations/instances_train.json, annotations/mine.json, .*test_annot"):
        module(root).setup()
    with pytest.raises(DataError, match=r"val.json: no such file; .* holds instances_train.json, mine.json; .*data.te"):
        module(root, test_annotations="annotations/val.json").setup()
    assert module(root, test_annotations="annotations/mine.json").image_ids("test") == (7, 11, 30)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "data.batch is at least 1, found 0"),
        ({"workers": -1}, "data.workers is at least 0"),
        ({"limit": 0}, "data.limit"),
        ({"tune_share": 1.0}, "data.tune_share"),
        ({"eval_limit": 0}, "data.eval_limit"),
        ({"group_by": "("}, r"data\.group_by=\(: is no regular expression"),
        ({"group_by": "(?:x)"}, "has no group; what tells photos apart stands in parentheses"),
    ],
)
def test_settings_out_of_range(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        module("anywhere", **settings)


def test_one_photo_as_a_batch() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (50, 100, 3)).astype(np.uint8)
    batch = photo_batch({8: photo}, Transforms(eval=Eval(short=25)), divisor=16)
    assert batch.images.shape == (1, 3, 32, 64)
    assert (batch.frames[0].image_id, batch.frames[0].photo, batch.frames[0].resized) == (8, (50, 100), (25, 50))
    assert len(batch.targets[0]) == 0

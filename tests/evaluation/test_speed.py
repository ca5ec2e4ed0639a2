"""The stopwatch against contenders who advance its clock themselves, so that every number is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskbench.errors import ConfigError
from maskbench.evaluation import speed, stopwatch
from maskbench.evaluation.machine import Company
from maskbench.evaluation.speed import Speed, measure
from maskbench.phases import phase
from maskbench.structures import Batch, Frame, Instances, Masks


class Clock:
    """A clock that stands still unless somebody takes time, and a diary of who did."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.diary: list[tuple[str, str, int]] = []

    def __call__(self) -> float:
        return self.seconds

    def spend(self, milliseconds: float, *entry: Any) -> None:
        self.seconds += milliseconds / 1000
        self.diary.append(entry)


class Contender(nn.Module):
    """Takes 1 ms to prepare, 2 to compute, and 3 and one an instance to read; finds as many as the image id says.

    Of the two 0.5 are the backbone's; of the reading, a tenth is a head's and the instances' own are their masks'.
    """

    def __init__(self, name: str, clock: Clock, factor: float = 1.0, encoded: bool = False) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.name, self.clock, self.factor, self.encoded = name, clock, factor, encoded

    def prepare(self, batch: Batch) -> Tensor:
        self.clock.spend(1 * self.factor, self.name, "prepare", batch.frames[0].image_id)
        return batch.images.float()

    def forward(self, images: Tensor) -> Tensor:
        assert torch.is_inference_mode_enabled()
        assert not self.norm.training
        self.look()
        self.clock.spend(1.5 * self.factor, self.name, "network", -1)
        return self.norm(self.head(images))

    @phase("backbone")
    def look(self) -> None:
        self.clock.spend(0.5 * self.factor, self.name, "backbone", -1)

    @phase("heads")
    def ask(self) -> None:
        self.clock.spend(0.3 * self.factor, self.name, "region", -1)

    @phase("masks")
    def draw(self, count: int) -> None:
        self.clock.spend(count * self.factor, self.name, "masks", count)

    def instances(self, raw: Tensor, frames: Sequence[Frame]) -> list[Instances]:
        return [self.read(frame) for frame in frames]

    def read(self, frame: Frame) -> Instances:
        count = frame.image_id
        self.clock.spend(2.7 * self.factor, self.name, "instances", count)
        self.ask()
        self.draw(count)
        masks = Masks(torch.ones((count, *frame.photo), dtype=torch.bool))
        if self.encoded:
            masks = Masks(masks.rle(), frame.photo)
        labels = torch.zeros(count, dtype=torch.long)
        return Instances(masks, torch.zeros((count, 4)), labels, torch.ones(count))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch, "perf_counter", clock)
    return clock


def photo(image_id: int, side: int = 8) -> Batch:
    images = torch.zeros((1, 3, side, side), dtype=torch.uint8)
    return Batch(images, (Instances.empty((side, side)),), (Frame(image_id, (side, side), (side, side)),))


def timed(clock: Clock, found: Speed, contenders: int) -> list[tuple[str, int]]:
    """(who, image) of the timed turns: what lies between warm-up and the measurement of costs."""
    turns = [(name, image) for name, step, image in clock.diary if step == "prepare"]
    start = found.warm_up * contenders
    return turns[start : start + found.images * contenders]


def test_every_phase_is_what_was_spent_in_it(clock: Clock):
    found = measure({"a": Contender("a", clock)}, [photo(0), photo(1), photo(4)], device="cpu", images=9)["a"]
    # of 0, 1 and 4 instances, in the mean
    expected = {"prepare": 1, "backbone": 0.5, "heads": 1.5 + 0.3, "selection": 2.7, "masks": 5 / 3}
    assert found.phases == pytest.approx(expected)
    assert found.mean_ms == pytest.approx(sum(expected.values()))
    assert found.latency_ms == pytest.approx(7)
    assert found.fps == pytest.approx(1000 / 7)
    assert found.p95_ms == pytest.approx(10)
    assert found.rle_ms == 0
    assert [count for count, _ in found.samples] == [0, 1, 4] * 3
    assert [latency for _, latency in found.samples] == pytest.approx([6, 7, 10] * 3)


def test_contenders_take_turns_image_by_image(clock: Clock):
    contenders = {name: Contender(name, clock, factor) for name, factor in (("a", 1), ("b", 5))}
    found = measure(contenders, [photo(1), photo(2)], device="cpu", images=3)
    assert timed(clock, found["a"], 2) == [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 1), ("b", 1)]
    assert found["b"].latency_ms == pytest.approx(5 * found["a"].latency_ms)


def test_at_least_fifty_images_unless_told_otherwise(clock: Clock):
    found = measure({"a": Contender("a", clock)}, [photo(1), photo(2), photo(3)], device="cpu")["a"]
    assert (found.images, found.photos, len(found.samples)) == (50, 3, 50)
    found = measure({"a": Contender("a", clock)}, [photo(1), photo(2), photo(3)], device="cpu", images=2)["a"]
    assert (found.images, found.photos) == (2, 2)


def test_warm_up_ends_when_it_is_steady(clock: Clock):
    found = measure({"a": Contender("a", clock)}, [photo(1)], device="cpu", images=1)["a"]
    assert (found.warm_up, found.steady) == (2 * stopwatch.WINDOW, True)


def test_warm_up_ends_though_it_is_never_steady(clock: Clock):
    class Tiring(Contender):
        def forward(self, images: Tensor) -> Tensor:
            self.factor *= 1.5
            return super().forward(images)

    found = measure({"a": Tiring("a", clock)}, [photo(1)], device="cpu", images=1)["a"]
    assert (found.warm_up, found.steady) == (stopwatch.LONGEST_WARM_UP, False)


def test_warm_up_and_memory_take_the_largest_image_and_flops_the_median_one(clock: Clock):
    batches = [photo(2, side=16), photo(3, side=32), photo(1, side=8)]
    found = measure({"a": Contender("a", clock)}, batches, device="cpu", images=3)["a"]
    assert {image for _, step, image in clock.diary[: 3 * found.warm_up] if step == "prepare"} == {3}
    assert (found.flops_image, found.flops_instances) == (2, 2)
    # a 1 x 1 convolution: 2 x 3 in x 4 out at 16 x 16 positions
    assert found.flops == 2 * 3 * 4 * 16 * 16
    assert found.parameters == 3 * 4 + 4 + 4 + 4
    weights = 4 * (found.parameters + 4 + 4) + 8
    image, maps = 4 * 3 * 32 * 32, 4 * 4 * 32 * 32
    assert found.memory_mb is not None
    assert found.memory_mb * 1e6 >= weights + image + maps
    assert found.memory_mb * 1e6 < weights + image + 3 * maps + 10_000
    assert found.input_sizes == ((8, 8), (16, 16), (32, 32))


def test_masks_that_came_encoded_are_counted(clock: Clock):
    contenders = {"a": Contender("a", clock), "b": Contender("b", clock, encoded=True)}
    found = measure(contenders, [photo(2)], device="cpu", images=4)
    assert (found["a"].encoded, found["b"].encoded) == (0, 4)


def test_modes_and_threads_are_afterwards_what_they_were(clock: Clock):
    contender = Contender("a", clock)
    contender.train()
    contender.norm.eval()
    before = torch.get_num_threads()
    found = measure({"a": contender}, [photo(1)], device="cpu", images=1, threads=before + 1)["a"]
    assert found.threads == before + 1
    assert torch.get_num_threads() == before
    assert (contender.training, contender.head.training, contender.norm.training) == (True, True, False)


def test_they_are_restored_after_an_error_too(clock: Clock):
    class Broken(Contender):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("broken")

    contender = Broken("a", clock)
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="broken"):
        measure({"a": contender}, [photo(1)], device="cpu", threads=before + 1)
    assert contender.training
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_precision_is_that_of_every_step(clock: Clock, precision, dtype):
    seen = []

    class Curious(Contender):
        def instances(self, raw: Tensor, frames: Sequence[Frame]) -> list[Instances]:
            seen.append((self.head(torch.zeros(1, 3, 2, 2)).dtype, raw.dtype))
            return super().instances(raw, frames)

    found = measure({"a": Curious("a", clock)}, [photo(1)], device="cpu", precision=precision, images=1)["a"]
    assert found.precision == precision
    assert set(seen) == {(dtype, dtype)}


def test_autocast_does_not_keep_weights_from_image_to_image(clock: Clock):
    casts = []

    class Casting(Contender):
        def forward(self, images: Tensor) -> Tensor:
            casts.append(torch.is_autocast_cache_enabled() and torch.is_autocast_enabled("cpu"))
            return super().forward(images)

    measure({"a": Casting("a", clock)}, [photo(1)], device="cpu", precision="bf16-mixed", images=1)
    assert all(casts)
    assert not torch.is_autocast_enabled("cpu")


def test_speed_is_json(clock: Clock):
    found = measure({"a": Contender("a", clock)}, [photo(1)], device="cpu", images=2)["a"]
    content = json.loads(json.dumps(found.as_dict()))
    assert content["samples"] == [[1, pytest.approx(7)]] * 2
    assert content["device"] == "cpu"
    assert content["device_name"]
    assert content["memory_source"] == "live tensors, operator by operator"
    assert set(content["versions"]) >= {"python", "torch", "torchvision"}


@pytest.mark.parametrize(
    ("others", "average", "loaded"),
    [(0.1, 9.0, False), (0.9, 0.0, True), (None, 1.4, False), (None, 1.6, True)],
)
def test_a_machine_that_others_use_is_loaded(clock: Clock, monkeypatch, others, average, loaded):
    class Known(Company):
        def __init__(self) -> None:
            self.load_average = average

        def other_cores(self) -> float | None:
            return others

    monkeypatch.setattr(speed, "Company", Known)
    found = measure({"a": Contender("a", clock)}, [photo(1)], device="cpu", images=1)["a"]
    assert (found.loaded, found.other_cores, found.load_average) == (loaded, others, average)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contenders": {}}, "0 contenders"),
        ({"batches": []}, "0 batches"),
        ({"images": 0}, "images=0"),
        ({"precision": "64-true"}, "precision is one of .* found '64-true'"),
        ({"execution": "graph"}, "execution=graph records a CUDA graph, but the device is cpu"),
        ({"execution": "lazy"}, "execution=lazy: expected one of eager, graph, compiled"),
    ],
)
def test_what_can_not_be_measured_is_said_at_the_door(clock: Clock, changes, message):
    asked: dict[str, Any] = {"contenders": {"a": Contender("a", clock)}, "batches": [photo(1)], "device": "cpu"}
    with pytest.raises(ConfigError, match=message):
        measure(**{**asked, **changes})


def two(image_id: int) -> Batch:
    one = photo(image_id)
    return Batch(one.images.repeat(2, 1, 1, 1), one.targets * 2, one.frames * 2)


def test_a_batch_is_timed_as_one_and_counts_as_its_images(clock: Clock):
    found = measure({"a": Contender("a", clock)}, [two(4)], device="cpu", images=5)["a"]
    assert (found.batch, found.images, found.photos) == (2, 6, 2)
    assert found.latency_ms == pytest.approx(1 + 2 + 2 * (3 + 4))
    assert found.fps == pytest.approx(1000 * 2 / 17)
    assert [count for count, _ in found.samples] == [8] * 3
    assert found.flops_instances == 8


def test_batches_of_different_numbers_of_images_are_refused(clock: Clock):
    with pytest.raises(ConfigError, match=r"found batches of \[1, 2\]"):
        measure({"a": Contender("a", clock)}, [photo(1), two(1)], device="cpu")


def test_a_network_that_runs_as_one_is_one_phase(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stopwatch, "executed", lambda network, execution, device: network)
    found = measure({"a": Contender("a", clock)}, [photo(1)], device="cpu", execution="compiled", images=2)["a"]
    assert found.execution == "compiled"
    assert found.phases == pytest.approx({"prepare": 1, "network": 2, "selection": 2.7, "heads": 0.3, "masks": 1})


@pytest.mark.gpu
def test_a_gpu_is_waited_for_and_its_memory_asked_for(clock: Clock):
    found = measure({"a": Contender("a", clock)}, [photo(1, side=64)], device="cuda", images=2)["a"]
    assert found.memory_source == "torch.cuda.max_memory_allocated"
    assert found.memory_mb is not None
    assert found.memory_mb * 1e6 > 4 * 4 * 64 * 64
    assert found.versions["cuda"] == torch.version.cuda

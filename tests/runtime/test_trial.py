from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf.errors import MissingMandatoryValue

import exports
from maskbench.data import coco
from maskbench.data.coco import CocoFile
from maskbench.errors import ConfigError, DataError, OutOfMemoryError, RunError, TakenError
from maskbench.runtime.preflight import layout
from maskbench.runtime.trial import attempt, identify, located, profiled
from maskbench.sweep.identity import parse_trial_name
from maskbench.sweep.status import OWNER, Status
from trained import TINY, composed

CHOICES = {"method": "small/solov2", "data": "shapes"}
PLACES = [f"{split}_{kind}" for split in ("train", "tune", "test") for kind in ("annotations", "images")]


def test_a_trial_is_named_by_method_seed_and_settings() -> None:
    trial = identify(composed("train", [*TINY, "seed=3", "study=here", "runs=there"]), CHOICES)
    assert trial.folder.parent == Path("there/here")
    name = parse_trial_name(trial.folder.name)
    assert (name.method, name.seed) == ("solov2-small", 3)
    assert (trial.cfg.method_name, trial.data_name) == ("solov2-small", "shapes")


@pytest.mark.parametrize("same", ["runs=elsewhere", "study=other", "threads=2", "speed.enabled=false", "logger=none"])
def test_what_changes_no_result_changes_no_name(same: str) -> None:
    assert _hash(same) == _hash()


@pytest.mark.parametrize("other", ["data.batch=4", "method.width=32", "data.root.seed=1", "checkpoint=best"])
def test_what_changes_results_changes_the_name(other: str) -> None:
    assert _hash(other) != _hash()


@pytest.mark.parametrize(("one", "other"), [("32", "32-true"), ("bf16", "bf16-mixed"), ("16", "16-mixed")])
def test_a_precision_is_one_trial_by_whichever_name(one: str, other: str) -> None:
    assert _hash(f"trainer.precision={one}") == _hash(f"trainer.precision={other}")


def test_several_machines_are_refused() -> None:
    assert _hash("+trainer.num_nodes=1")
    with pytest.raises(ConfigError, match=r"on one machine, found trainer\.num_nodes=2"):
        _hash("+trainer.num_nodes=2")


def _hash(*overrides: str) -> str:
    return identify(composed("train", [*TINY, *overrides]), CHOICES).folder.name


def test_the_fingerprint_is_the_one_of_the_loaded_data() -> None:
    from maskbench.runtime.compose import build_data

    cfg = composed("train", TINY)
    assert identify(cfg, CHOICES).fingerprint == build_data(cfg).fingerprint


@pytest.mark.parametrize("export", [exports.cvat, exports.roboflow, exports.label_studio])
def test_what_was_found_is_what_a_trial_is_named_by(export: Callable[[Path], Path], tmp_path: Path) -> None:
    """Not by how it came to be known: the same files by explicit settings are the same trial, now and later."""
    from maskbench.runtime.compose import build_data

    root = export(tmp_path / "data")
    words = ["data=coco", f"data.root={root}", "data.test_share=0.2"]
    trial = identify(composed("train", words), CHOICES)
    assert trial.fingerprint == build_data(trial.cfg).fingerprint == build_data(composed("train", words)).fingerprint
    said = [f"data.{name}={trial.cfg.data[name]}" for name in PLACES if trial.cfg.data[name] is not None]
    (root / "annotations").mkdir(exist_ok=True)
    for split in ("train", "val"):
        (root / "annotations" / f"instances_{split}.json").touch()
    assert identify(composed("train", [*words, *said]), CHOICES).folder == trial.folder
    assert build_data(trial.cfg).fingerprint == trial.fingerprint


def test_a_tilde_is_the_home_of_whoever_starts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = exports.roboflow(tmp_path / "set")
    monkeypatch.setenv("HOME", str(tmp_path))
    one, other = (composed("train", ["data=coco", f"data.root='{name}'"]) for name in ("~/set", root))
    assert layout(one) == layout(other)
    assert identify(one, CHOICES).cfg == identify(other, CHOICES).cfg


def test_a_folder_that_nobody_has_named_is_told_by_its_setting() -> None:
    with pytest.raises(MissingMandatoryValue) as raised:
        located(composed("preflight", ["data=coco"]).data)
    assert raised.value.full_key == "data.root"


@pytest.mark.parametrize(("by", "told"), [("'^(.+'", "is no regular expression"), ("patient", "no `patient`")])
def test_photos_that_cannot_be_grouped_are_told_at_the_door(by: str, told: str, tmp_path: Path) -> None:
    words = ["data=coco", f"data.root={exports.roboflow(tmp_path / 'set')}", f"data.group_by={by}"]
    with pytest.raises((ConfigError, DataError), match=told):
        identify(composed("train", [*words, f"runs={tmp_path / 'runs'}"]), CHOICES)


@pytest.mark.parametrize("more", [[], ["data.group_by=file_name"]])
def test_an_annotation_file_is_read_once(more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For fitted settings, the fingerprint, the loaders and the profile; and not at all where that is known."""
    from maskbench.runtime.compose import build_data

    read, whole = [], CocoFile._read

    def counted(file: CocoFile) -> dict[str, list]:
        read.append(file.path.name)
        return whole(file)

    monkeypatch.setattr(CocoFile, "_read", counted)
    words = ["data=coco", f"data.root={exports.cvat(tmp_path / 'set')}", "data.test_share=0.25", "fit=true", *more]
    trial = identify(composed("train", words), CHOICES)
    profile = build_data(trial.cfg).profile
    assert read == ["instances_default.json"]
    coco._read.cache_clear()  # another process
    assert profiled(trial.cfg.data) == profile
    assert len(read) == 1


def test_a_share_that_nothing_is_taken_by_names_nothing(tmp_path: Path) -> None:
    root = exports.roboflow(tmp_path, splits=("train", "valid"))
    names = {
        identify(composed("train", ["data=coco", f"data.root={root}", *share]), CHOICES).folder.name
        for share in ([], ["data.test_share=0.2"])
    }
    assert len(names) == 1


def test_the_first_of_several_processes_writes_the_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with attempt(tmp_path):
        monkeypatch.setenv("LOCAL_RANK", "1")
        with attempt(tmp_path):
            assert Status.read(tmp_path).attempts == 1
        assert Status.read(tmp_path).state == "running"
        monkeypatch.setenv("LOCAL_RANK", "0")
    assert Status.read(tmp_path).state == "done"


def test_an_interruption_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match="the same command again goes on from there"), attempt(tmp_path):
        raise KeyboardInterrupt
    assert Status.read(tmp_path).reason == "interrupted"


@pytest.mark.parametrize("late", [KeyboardInterrupt, OSError])
def test_what_goes_wrong_when_it_is_done_makes_no_failure(tmp_path: Path, late: type[BaseException]) -> None:
    def train() -> None:
        with attempt(tmp_path) as done:
            done()
            raise late

    with pytest.raises(late):
        train()
    assert (Status.read(tmp_path).state, Status.read(tmp_path).reason) == ("done", None)


def test_attempts_are_counted_and_end_in_a_status(tmp_path: Path) -> None:
    with attempt(tmp_path):
        assert Status.read(tmp_path).state == "running"
    assert (Status.read(tmp_path).state, Status.read(tmp_path).attempts) == ("done", 1)
    with pytest.raises(ZeroDivisionError), attempt(tmp_path):
        _ = 1 / 0
    status = Status.read(tmp_path)
    assert (status.state, status.attempts, status.reason) == ("failed", 2, "ZeroDivisionError: division by zero")


HELD = """
import sys
from pathlib import Path
from maskbench.runtime.trial import attempt
with attempt(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_who_is_at_a_trial_has_it_alone_until_its_process_ends(tmp_path: Path) -> None:
    """Whatever the status says: of two that start at once neither finds the other's."""
    command = [sys.executable, "-c", HELD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        (tmp_path / "status.json").unlink()
        with pytest.raises(RunError, match="another process is at it"), attempt(tmp_path):
            pass
        other.kill()
    with attempt(tmp_path):
        assert Status.read(tmp_path).attempts == 1


def test_a_process_elsewhere_has_a_trial_while_it_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Status(host="elsewhere").write(tmp_path)
    with pytest.raises(TakenError, match="on elsewhere is training it since"), attempt(tmp_path):
        pass
    monkeypatch.setenv(OWNER, "pool")  # in a sweep it has time to end

    def ends(seconds: float) -> None:
        Status(host="elsewhere").failed("its machine was lost").write(tmp_path)

    monkeypatch.setattr("maskbench.runtime.trial.time.sleep", ends)
    with attempt(tmp_path):
        assert Status.read(tmp_path).earlier == ["its machine was lost"]


def test_a_process_that_had_the_number_of_a_living_one_is_gone_all_the_same(tmp_path: Path) -> None:
    """As in a container that was started anew: who is at a trial on this machine holds its lock."""
    Status(pid=1).write(tmp_path)
    with attempt(tmp_path):
        assert Status.read(tmp_path).attempts == 2


def test_the_engine_knows_that_the_attempt_before_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OWNER, "slurm 7_1")
    Status(host="elsewhere").write(tmp_path)
    with attempt(tmp_path):
        assert Status.read(tmp_path).attempts == 2


@pytest.mark.parametrize(("error", "again"), [(ConfigError, "no"), (OutOfMemoryError, "maybe"), (ValueError, "maybe")])
def test_a_failure_says_whether_another_attempt_may_go_well(tmp_path: Path, error: type[Exception], again: str) -> None:
    with pytest.raises(error), attempt(tmp_path):
        raise error("x")
    assert Status.read(tmp_path).again == again

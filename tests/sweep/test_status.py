from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maskbench.errors import RunError
from maskbench.sweep.status import FILE, HEARTBEAT, LOST, OWNER, Status


def test_what_is_written_is_read(tmp_path: Path) -> None:
    status = Status(attempts=2).failed("out of memory")
    status.write(tmp_path / "new")
    assert Status.read(tmp_path / "new") == status
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["status.json"]


def test_no_file_is_no_status(tmp_path: Path) -> None:
    assert Status.read(tmp_path) is None


def test_each_beginning_is_one_more_attempt(tmp_path: Path) -> None:
    assert Status.begin(tmp_path).attempts == 1
    Status.begin(tmp_path).failed("killed").write(tmp_path)
    again = Status.begin(tmp_path)
    assert (again.attempts, again.state, again.reason, again.earlier) == (3, "running", None, ["killed"])
    assert (again.pid, again.host) == (os.getpid(), socket.gethostname())
    assert again.done().ended is not None


@pytest.mark.parametrize("text", ["{", "[]", '{"state": "lost"}'])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(RunError, match=r"status\.json: not a trial's status .* delete the file"):
        Status.read(tmp_path)


def test_fields_of_a_later_version_are_no_obstacle(tmp_path: Path) -> None:
    Status().write(tmp_path)
    found = json.loads((tmp_path / "status.json").read_text())
    (tmp_path / "status.json").write_text(json.dumps(found | {"heartbeat": 1}))
    assert Status.read(tmp_path) is not None


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Status(attempts=7)
    before.write(tmp_path)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        Status().write(tmp_path)
    assert Status.read(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_trial_is_cut_when_its_process_is_gone(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone.wait()
    assert Status(pid=gone.pid).cut(tmp_path)
    assert not Status().cut(tmp_path)
    assert not Status(pid=gone.pid).done().cut(tmp_path)


def test_on_another_machine_a_process_is_gone_when_nothing_is_heard_of_it_for_long(tmp_path: Path) -> None:
    elsewhere = Status(host="elsewhere")
    elsewhere.write(tmp_path)
    assert not elsewhere.cut(tmp_path)
    long_ago = time.time() - LOST - 60
    os.utime(tmp_path / FILE, (long_ago, long_ago))
    assert elsewhere.cut(tmp_path)
    (tmp_path / HEARTBEAT).touch()
    assert not elsewhere.cut(tmp_path)


def test_who_runs_a_trial_once_at_a_time_knows_that_the_attempt_before_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not Status().ours
    monkeypatch.setenv(OWNER, "slurm 7_1")
    before = Status(pid=1, host="elsewhere")
    assert before.owner == "slurm 7_1"
    assert before.ours
    monkeypatch.setenv(OWNER, "slurm 7_2")
    assert not before.ours

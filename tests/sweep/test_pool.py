from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import chaos
from maskbench.errors import ConfigError
from maskbench.sweep import engine
from maskbench.sweep.pool import Pool
from maskbench.sweep.status import HEARTBEAT, Status
from maskbench.sweep.trial import Outcome, Trial


def trial(study: Path, name: str, code: str) -> Trial:
    """A trial that runs the code, writes its results and then says that it is done."""
    (study / name).mkdir(exist_ok=True)
    words = [f"open({str(study / name / 'metrics.json')!r}, 'w').write('{{}}')"]
    words += [f"open({str(study / name / 'status.json')!r}, 'w').write('{{\"state\": \"done\"}}')"]
    return Trial(name, [sys.executable, "-S", "-c", "\n".join([code, *words])], study / name)


def run(trials: list[Trial], slots: int = 1, retries: int = 0, **settings: Any) -> tuple[list[Outcome], str]:
    text = io.StringIO()
    pool = Pool(slots, **settings)
    outcomes = engine.run(trials, pool, retries=retries, console=Console(file=text, width=200))
    return outcomes, text.getvalue()


def noting(study: Path, name: str) -> str:
    """Code that notes its beginning and its end."""
    note = f"open({str(study / 'notes')!r}, 'a').write"
    return f"import time; {note}('+{name} '); time.sleep(0.15); {note}('-{name} ')"


def test_trials_run_in_their_order(tmp_path: Path) -> None:
    outcomes, _ = run([trial(tmp_path, name, noting(tmp_path, name)) for name in "abc"])
    assert (tmp_path / "notes").read_text() == "+a -a +b -b +c -c "
    assert [(outcome.trial.name, outcome.state) for outcome in outcomes] == [
        ("a", "done"),
        ("b", "done"),
        ("c", "done"),
    ]


def test_no_more_at_once_than_there_are_slots(tmp_path: Path) -> None:
    run([trial(tmp_path, name, noting(tmp_path, name)) for name in "abcde"], slots=2)
    active, most = 0, 0
    for note in (tmp_path / "notes").read_text().split():
        active += 1 if note[0] == "+" else -1
        most = max(most, active)
    assert (active, most) == (0, 2)


def test_what_fails_is_told_and_stops_nobody(tmp_path: Path) -> None:
    trials = [
        trial(tmp_path, "a", "print('fine')"),
        trial(tmp_path, "b", "print('on the way'); raise ValueError('no such class: cat')"),
        trial(tmp_path, "c", "import os; print('half', flush=True); os.kill(os.getpid(), 9)"),
        trial(tmp_path, "d", "print('fine')"),
    ]
    outcomes, text = run(trials, slots=2)
    assert [outcome.state for outcome in outcomes] == ["done", "failed", "failed", "done"]
    assert outcomes[1].reason == "ValueError: no such class: cat"
    assert outcomes[2].reason == "killed by SIGKILL; last line: half"
    assert "2 of 4 trials failed" in text
    assert str(tmp_path / "logs" / "b.log") in text
    status = Status.read(tmp_path / "b")
    assert status is not None
    assert (status.state, status.reason, status.attempts) == ("failed", "ValueError: no such class: cat", 1)


def test_a_trials_own_reason_is_kept_and_attempts_are_counted(tmp_path: Path) -> None:
    own = "import json, os, sys; json.dump(dict(state='failed', attempts={}, reason='out of memory', pid=os.getpid()), "
    own += f"open({str(tmp_path / 'a' / 'status.json')!r}, 'w')); sys.exit(1)"
    assert run([trial(tmp_path, "a", own.format(1))])[0][0].reason == "out of memory"
    outcomes, _ = run([trial(tmp_path, "a", "raise SystemExit('dead before its first word')")])
    assert outcomes[0].reason == "dead before its first word"
    status = Status.read(tmp_path / "a")
    assert status is not None
    assert status.attempts == 2


def test_an_end_without_the_word_done_is_a_failure(tmp_path: Path) -> None:
    Status(pid=1).write(tmp_path / "a")
    outcomes, _ = run([trial(tmp_path, "a", "print('bye', flush=True); import os; os._exit(0)")])
    assert outcomes[0].reason == "ended without saying that it is done; last line: bye"


def test_the_status_of_somebody_elses_live_process_is_left_alone(tmp_path: Path) -> None:
    theirs = Status(pid=os.getppid(), attempts=3)
    theirs.write(tmp_path / "a")
    outcomes, _ = run([trial(tmp_path, "a", "raise SystemExit('another process is training it')")])
    assert (outcomes[0].state, outcomes[0].reason) == ("failed", "another process is training it")
    assert Status.read(tmp_path / "a") == theirs


def test_what_failed_is_tried_again_after_the_others_and_keeps_its_reasons(tmp_path: Path) -> None:
    """It is killed once, raises once, and is done the third time."""
    note = f"open({str(tmp_path / 'notes')!r}, 'a').write('a ')"
    code = f"""
import os, sys
{note}
times = len(open({str(tmp_path / "notes")!r}).read().split("a")) - 1
if times == 1: os.kill(os.getpid(), 9)
if times == 2: raise ValueError("out of luck")
"""
    trials = [trial(tmp_path, "a", code), trial(tmp_path, "b", noting(tmp_path, "b"))]
    outcomes, text = run(trials, retries=2)
    assert [outcome.state for outcome in outcomes] == ["done", "done"]
    assert (tmp_path / "notes").read_text() == "a +b -b a a "
    assert text.count("a  is tried again after the others") == 2
    (tmp_path / "a" / "metrics.json").unlink()
    Status(attempts=2, earlier=["killed by SIGKILL; last line: no output"]).failed("x").write(tmp_path / "a")
    outcomes, _ = run([trial(tmp_path, "a", "raise ValueError('out of luck')")], retries=1)
    status = Status.read(tmp_path / "a")
    assert status is not None
    assert (outcomes[0].state, status.attempts, status.reason) == ("failed", 4, "ValueError: out of luck")
    assert status.earlier == ["killed by SIGKILL; last line: no output", "x", "ValueError: out of luck"]


def test_what_its_settings_are_at_fault_for_is_not_tried_again(tmp_path: Path) -> None:
    own = {"state": "failed", "reason": "ConfigError: no such setting", "again": "no"}
    code = f"import json, os, sys; {noting(tmp_path, 'a')}; "
    code += f"json.dump({own} | dict(pid=os.getpid()), open({str(tmp_path / 'a' / 'status.json')!r}, 'w')); sys.exit(1)"
    outcomes, _ = run([trial(tmp_path, "a", code)], retries=3)
    assert outcomes[0].reason == "ConfigError: no such setting"
    assert (tmp_path / "notes").read_text() == "+a -a "


def test_what_has_seen_to_it_that_the_next_attempt_is_another_needs_no_retries(tmp_path: Path) -> None:
    """It halves its batch three times."""
    code = f"""
import json, os, sys
open({str(tmp_path / "notes")!r}, "a").write("a ")
if len(open({str(tmp_path / "notes")!r}).read()) < 8:
    own = dict(state="failed", reason="OutOfMemoryError: x", again="yes", pid=os.getpid())
    json.dump(own, open({str(tmp_path / "a" / "status.json")!r}, "w"))
    sys.exit(1)
"""
    outcomes, _ = run([trial(tmp_path, "a", code)], retries=0)
    assert outcomes[0].state == "done"
    assert (tmp_path / "notes").read_text() == "a a a a "


def test_a_status_that_cannot_be_read_ends_no_sweep(tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'a' / 'status.json')!r}, 'w'); raise SystemExit(1)"
    outcomes, _ = run([trial(tmp_path, "a", code), trial(tmp_path, "b", noting(tmp_path, "b"))])
    assert [outcome.state for outcome in outcomes] == ["failed", "done"]
    assert "not a trial's status" in (outcomes[0].reason or "")


def test_a_trial_without_a_sign_of_life_is_killed(tmp_path: Path) -> None:
    beat = f"import pathlib, time; [(time.sleep(0.1), pathlib.Path({str(tmp_path / 'b' / HEARTBEAT)!r}).touch())"
    trials = [
        trial(tmp_path, "a", "import time; print('so far', flush=True); time.sleep(60)"),
        trial(tmp_path, "b", f"{beat} for _ in range(15)]"),
        trial(tmp_path, "c", "import time; [(time.sleep(0.1), print('.', flush=True)) for _ in range(15)]"),
    ]
    outcomes, _ = run(trials, slots=3, silence=1.0)
    assert [outcome.state for outcome in outcomes] == ["failed", "done", "done"]
    assert re.fullmatch(r"no sign of life for \d+ s, so it was killed; last line: so far", outcomes[0].reason or "")


def test_only_this_attempts_output_is_searched_for_the_reason(tmp_path: Path) -> None:
    run([trial(tmp_path, "a", "raise ValueError('old')")])
    outcomes, _ = run([trial(tmp_path, "a", "raise SystemExit(3)")])
    assert outcomes[0].reason == "no output"


def test_what_is_done_is_kept(tmp_path: Path) -> None:
    for name in "ab":
        Status().done().write(tmp_path / name)
    (tmp_path / "a" / "metrics.json").touch()  # b has lost its own
    outcomes, text = run([trial(tmp_path, name, noting(tmp_path, name)) for name in "abc"])
    assert [outcome.state for outcome in outcomes] == ["kept", "done", "done"]
    assert (tmp_path / "notes").read_text() == "+b -b +c -c "
    assert "a  kept" in text


def test_a_trial_is_no_rank_of_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("FRANK", "stays")
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    outcomes, _ = run([trial(tmp_path, "a", code)], threads=3)
    env = json.loads(outcomes[0].trial.log.read_text())
    assert not {
        "LOCAL_RANK",
        "RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "NODE_RANK",
    } & set(env)
    assert (env["OMP_NUM_THREADS"], env["MKL_NUM_THREADS"], env["FRANK"]) == ("3", "3", "stays")


def test_no_gpu_belongs_to_two(tmp_path: Path) -> None:
    code = "import os, time; time.sleep(0.3); print(os.environ['CUDA_VISIBLE_DEVICES'])"
    outcomes, _ = run([trial(tmp_path, name, code) for name in "ab"], slots=2, gpus=("0", "1", "2", "3"))
    assert [outcome.trial.log.read_text().strip() for outcome in outcomes] == ["0,1", "2,3"]
    with pytest.raises(ConfigError, match="2 slots but 1 GPUs"):
        run([], slots=2, gpus=("0",))


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one slot"):
        run([], slots=0)
    with pytest.raises(ConfigError, match="found twice: a"):
        run([trial(tmp_path, "a", ""), trial(tmp_path, "a", "")])


SWEEP = """
import sys
from pathlib import Path
from rich.console import Console
from maskbench.sweep.engine import run
from maskbench.sweep.pool import Pool
from maskbench.sweep.trial import Trial
study = Path(sys.argv[1])
codes = {"quick": "", "polite": sys.argv[2], "stubborn": sys.argv[3], "later": ""}
trials = [Trial(name, [sys.executable, "-S", "-c", code], study / name) for name, code in codes.items()]
try:
    pool = Pool(2)
    pool.patience = 1.2
    run(trials, pool, console=Console(width=200))
except KeyboardInterrupt as interruption:
    print(interruption)
    sys.exit(130)
"""


def wait_for(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.05)


def test_ctrl_c_lets_trials_write_down_what_they_have_and_leaves_no_process(tmp_path: Path) -> None:
    polite = f"""
import time
from pathlib import Path
try:
    Path({str(tmp_path / "polite-ready")!r}).touch()
    time.sleep(60)
except KeyboardInterrupt:
    Path({str(tmp_path / "written")!r}).touch()
"""
    stubborn = f"""
import os, signal, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    Path({str(tmp_path / "stubborn-ready")!r}).write_text(f"{{os.getpid()}} {{child}}")
time.sleep(60)
"""
    sweep = subprocess.Popen(
        [sys.executable, "-c", SWEEP, str(tmp_path), polite, stubborn],
        stdout=subprocess.PIPE,
        text=True,
        # a shell's background jobs ignore it, and what they start with them
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(tmp_path / "polite-ready")
    wait_for(tmp_path / "stubborn-ready")
    time.sleep(0.2)
    sweep.send_signal(signal.SIGINT)
    text, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert (tmp_path / "written").exists()
    assert "0 of 4 trials are done and stay; the same command again does the others" in text
    for pid in (tmp_path / "stubborn-ready").read_text().split():
        # The grandchild may be an unreaped zombie where no init collects it; it must not run.
        state = Path(f"/proc/{pid}/stat")
        assert not state.exists() or state.read_text().split(")")[1].split()[0] == "Z"
    for name in ("polite", "stubborn"):
        status = Status.read(tmp_path / name)
        assert status is not None
        assert (status.state, status.reason) == ("failed", "interrupted")
    assert not (tmp_path / "later").exists()


def test_in_the_watching_process_signals_are_as_before(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    run([trial(tmp_path, "a", f"import os; os.kill({os.getpid()}, 0)")])
    assert signal.getsignal(signal.SIGINT) is before


def test_a_sweep_survives_all_that_can_go_wrong(tmp_path: Path) -> None:
    pool = "from maskbench.sweep.pool import Pool\nengine = Pool(2, silence=5.0)"
    text = chaos.survives(tmp_path, pool)
    assert "killed by SIGKILL; last line: half way" in text
    assert "no sign of life for" in text
    assert text.count("is tried again after the others") == 4  # two of these in vain
    assert text.count("as it was done before") >= 2

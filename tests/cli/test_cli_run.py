"""`pipeline` and `run` on the memory backend and with phases on the host:
exit statuses, streams, forms of output, signals.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cleanroom.cli.app import execute

MAKE = """
[project]
name = "x"
[lifecycle.ok]
command = "echo fine; echo quiet >&2"
cleanroom.enabled = false
[lifecycle.bad]
command = "echo before-the-end; exit 7"
cleanroom.enabled = false
[lifecycle.slow]
command = "sleep 60"
cleanroom.timeout = "300ms"
cleanroom.enabled = false
[lifecycle.never]
command = "touch reached"
cleanroom.enabled = false
[lifecycle.long]
command = "echo now-sleeping; sleep 60"
cleanroom.enabled = false
[lifecycle.inside]
command = "true"
[lifecycle.idle]
command = "bash"
cleanroom.enabled = false
[lifecycle.empty]
description = "nothing to run"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "make.toml").write_text(MAKE)
    monkeypatch.chdir(root)
    monkeypatch.setenv("CLEANROOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_COLOR", "1")
    return root


def executed(arguments: list[str]) -> int:
    """Run the command in this process.

    It makes a loop of its own; the one that the looptime plugin keeps for tests is put back.
    """
    try:
        kept = asyncio.get_event_loop_policy().get_event_loop()
    except RuntimeError:
        return execute(arguments)
    try:
        return execute(arguments)
    finally:
        asyncio.set_event_loop(kept)


class Said:
    def __init__(self, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
        self._capture = capsysbinary

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        status = executed([*arguments, "--backend", "memory"])
        return status, *self.captured()

    def captured(self) -> tuple[str, str]:
        captured = self._capture.readouterr()
        return captured.out.decode(), captured.err.decode()


@pytest.fixture
def said(project: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Said:
    return Said(capsysbinary)


def test_cli_run_passing_phase_exits_zero_and_says_so(said: Said) -> None:
    """A phase that passed exits 0; its output is on standard output, fenced,
    and its progress on standard error.
    """
    status, out, err = said("pipeline", "ok")
    assert status == 0, err
    assert "ok | fine" in out
    assert "ok | quiet" in out
    assert "PASSED (exit 0)" in out
    assert "phase ok passed" in err


def test_cli_run_host_phases_are_said_to_be_on_the_host(said: Said) -> None:
    """A phase that ran on the host is called so while it runs and in the summary."""
    _, out, err = said("pipeline", "ok")
    assert "on the host, not hermetic" in err
    assert "on the host, not hermetic: ok" in out


def test_cli_run_failure_comes_last_and_stops_the_rest(said: Said, project: Path) -> None:
    """A failing phase exits 1, later ones do not run, and its name and exit status end the output
    with the line to run it again.
    """
    status, out, _ = said("pipeline", "ok", "bad", "never")
    assert status == 1
    assert not (project / "reached").exists()
    assert re.search(r"^phase bad failed: exit status 7\b", out, re.MULTILINE)
    assert out.rstrip().endswith("run again: cleanroom-engine run bad --backend memory")


def test_cli_run_timeout_is_124(said: Said) -> None:
    """A phase that runs longer than its timeout ends the command with 124."""
    status, out, _ = said("run", "slow")
    assert status == 124
    assert "phase slow timed out" in out


@pytest.mark.parametrize("phase", ["empty", "inside"])
def test_cli_run_nothing_verified_is_4(said: Said, phase: str) -> None:
    """A pipeline in which no command ran, for want of one or because the memory backend runs none,
    exits 4 and never 0.
    """
    status, out, _ = said("pipeline", phase)
    assert status == 4
    assert "UNVERIFIED (exit 4)" in out


def test_cli_run_an_idle_interpreter_is_no_pass(said: Said, project: Path) -> None:
    """After phases that passed, one that is `bash` alone ends the run with 4;
    what follows does not run.
    """
    status, out, err = said("pipeline", "ok", "idle", "never")
    assert status == 4
    assert "UNVERIFIED (exit 4)" in out
    assert "error[CR-PHASE-020]: make.toml:" in err
    assert not (project / "reached").exists()


def test_cli_run_json_is_one_object_on_stdout(said: Said) -> None:
    """With --output json standard output holds exactly one object,
    with the exit status that the command ends with and the phase's own.
    """
    status, out, err = said("pipeline", "bad", "--output", "json")
    result: dict[str, Any] = json.loads(out)
    assert status == result["exit_code"] == 1
    assert result["outcome"] == "failed"
    assert [phase["exit_code"] for phase in result["phases"]] == [7]
    assert "before-the-end" not in err


def test_cli_run_jsonl_streams_every_event(said: Said) -> None:
    """With --output jsonl every line is an envelope of the same run,
    numbered from 1 without gaps, and standard error is empty.
    """
    _, out, err = said("pipeline", "ok", "--output", "jsonl")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert len({event["run_id"] for event in events}) == 1
    assert events[-1]["event"]["subject"]["kind"] == "run"
    assert err == ""


def test_cli_run_quiet_says_the_verdict_alone(said: Said) -> None:
    """With -q only the verdict is said, with -qq nothing at all."""
    _, out, err = said("pipeline", "ok", "-q")
    assert (len(out.splitlines()), err) == (1, "")
    assert said("pipeline", "ok", "-qq")[1:] == ("", "")


def test_cli_run_quiet_says_which_phase_failed_why_and_where_the_report_is(
    said: Said, project: Path
) -> None:
    """One line each: the verdict, the phase with its reason and code, a file that is there."""
    status, out, err = said("pipeline", "ok", "bad", "never", "-q")
    verdict, failed, report = out.splitlines()
    assert (status, err) == (1, "")
    assert "FAILED (exit 1)" in verdict
    assert re.fullmatch(r"phase bad failed: exit status 7, after .* \[CR-PHASE-001\]", failed)
    assert (project / report.removeprefix("report: ")).read_bytes().startswith(b"<!doctype html>")


def test_cli_run_unknown_phase_names_what_exists(said: Said, project: Path) -> None:
    """A phase that does not exist is a coded usage error that names it and those that do,
    and nothing is written.
    """
    status, out, err = said("pipeline", "nosuch")
    assert status == 2
    assert err.startswith("error[CR-")
    assert "nosuch" in err
    assert "never" in err
    assert out == ""
    assert not (project / ".ggen").exists()


def test_cli_run_file_error_names_line_and_column(said: Said, project: Path) -> None:
    """What is wrong in make.toml is said with line and column, and with what helps."""
    (project / "make.toml").write_text(
        '[project]\nname="x"\n[lifecycle.test]\ncommand="true"\ncleanroom.policy = "Meduim"\n'
    )
    status, out, err = said("pipeline", "test")
    assert status == 2
    assert re.match(
        r"error\[CR-[A-Z]+-\d{3}\]: make\.toml:5:\d+: lifecycle\.test\.cleanroom\.policy: ", err
    )
    assert "Medium" in err
    assert out == ""


def test_cli_run_containers_need_an_image(said: Said, project: Path) -> None:
    """A container backend without one is exit 2 with the phase's place and the line to add,
    whether or not an engine is there.
    """
    assert executed(["pipeline", "inside", "--backend", "docker"]) == 2
    err = said._capture.readouterr().err.decode()
    assert "CR-CONTAINER-009" in err
    assert "make.toml:" in err
    assert 'image = "cleanroom/base"' in err


def test_cli_run_a_backend_of_later_is_refused(said: Said, project: Path) -> None:
    """A backend that this version does not have is refused with 3 and named."""
    assert executed(["pipeline", "inside", "--backend", "kubernetes"]) == 3


def test_cli_recorded_run_can_be_read_back(said: Said) -> None:
    """After a run: its audit log verifies, its events show and replay to the same verdict,
    and its reports can be made again.
    """
    said("pipeline", "ok")
    assert executed(["audit", "verify", "--output", "json"]) == 0
    verified = json.loads(said._capture.readouterr().out)
    assert verified["valid"] is True
    assert verified["records"] > 10
    for arguments, expected in (
        (["audit", "show"], b"genesis"),
        (["events", "show"], b"phase ok"),
        (["events", "replay"], b"PASSED (exit 0)"),
        (["report"], b"html"),
    ):
        assert executed(arguments) == 0
        assert expected in said._capture.readouterr().out


@pytest.mark.parametrize(
    ("number", "status", "group"),
    [(signal.SIGINT, 130, False), (signal.SIGINT, 130, True), (signal.SIGTERM, 143, False)],
)
def test_cli_run_signals_unwind(
    project: Path, number: signal.Signals, status: int, group: bool
) -> None:
    """A signal, to the command alone or to its whole group,
    ends the run with the signal's status, without a traceback and with a whole audit log.
    """
    command = [
        sys.executable,
        "-m",
        "cleanroom",
        "pipeline",
        "long",
        "--backend",
        "memory",
        "--output",
        "jsonl",
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if b"now-sleeping" in line and b'"output"' in line:
                break
        os.killpg(child.pid, number) if group else child.send_signal(number)
        _, err = child.communicate(timeout=20)
    assert child.returncode == status, err
    assert b"Traceback" not in err
    assert executed(["audit", "verify"]) == 0


@pytest.mark.parametrize("sink", [">/dev/full", ">&-"])
def test_cli_run_lost_result_is_5(project: Path, sink: str) -> None:
    """A run whose result could not be said ends with 5 and without a traceback."""
    line = f"{sys.executable} -m cleanroom pipeline ok --backend memory --output json {sink}"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60)
    assert done.returncode == 5
    assert "error[CR-CLI-002]: standard output" in done.stderr
    assert "Traceback" not in done.stderr


def test_cli_github_output_annotates_a_failing_phase(
    said: Said, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--output github` annotates on standard output, writes the step's summary,
    and keeps the exit status.
    """
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project / "summary.md"))
    status, out, err = said("run", "bad", "--output", "github")
    assert (status, err) == (1, "")
    assert re.search(r"\n::error file=make.toml,line=\d+,col=1,title=phase bad::", out)
    assert "bad | before-the-end" in out
    assert "FAILED" in (project / "summary.md").read_text()


def test_cli_github_output_of_a_wrong_file_points_into_it(said: Said, project: Path) -> None:
    """A make.toml that does not read is an annotation at its line;
    the usual error stands before it, where the runner takes no commands.
    """
    (project / "make.toml").write_text("[project]\nname = \n")
    status, out, err = said("run", "bad", "--output", "github")
    assert status == 2
    fenced, annotated = out.split("\n::error file=make.toml,line=2,")
    assert "\nerror[CR-PROJECT-003]: make.toml:2:" in fenced
    assert (err, annotated.count("\n")) == ("", 1)


def test_cli_report_opens_the_page_or_says_that_it_cannot(
    said: Said, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`report --open` hands the page to $BROWSER; where no browser starts it says where the page
    is, and the status stays 0.
    """
    import webbrowser

    assert said("run", "ok")[0] == 0
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "get", lambda: webbrowser.BackgroundBrowser("some-browser"))
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or len(opened) == 1)
    page = (project / ".ggen/cleanroom/reports/test_results.html").resolve()
    for expected in ("", f"no browser could be started here; the page is {page}\n"):
        assert executed(["report", "--open"]) == 0
        assert said.captured()[1] == expected
    assert opened == [page.as_uri()] * 2


def test_cli_report_opens_no_text_browser_without_a_terminal(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that would draw its page into a pipe is as good as none."""
    import webbrowser

    assert said("run", "ok")[0] == 0
    monkeypatch.delenv("BROWSER", raising=False)
    monkeypatch.setattr(webbrowser, "get", lambda: webbrowser.GenericBrowser("lynx"))
    monkeypatch.setattr(webbrowser, "open", lambda url: pytest.fail("it was started"))
    assert executed(["report", "--open"]) == 0
    assert "no browser could be started here" in said.captured()[1]


def test_cli_run_gives_arguments_to_the_command(project: Path, said: Said) -> None:
    """Words after `--` reach the command, also those that look like options of ours,
    and the line that runs it again repeats them.
    """
    (project / "make.toml").write_text(
        "[lifecycle.bad]\ncommand = \"printf '<%s>' && exit 7 #\"\ncleanroom.enabled = false\n"
        '[lifecycle.say]\ncommand = "printf \'<%s>\' \\"$@\\"; exit 7"\ncleanroom.enabled = false\n'
    )
    code, out, _ = said("run", "say", "--seed", "7", "--", "--output", "json", "a b")
    assert code == 1
    assert "<--output><json><a b>" in out
    assert "run again: cleanroom-engine run say --seed 7 -- --output json 'a b'" in out

    code, _, err = said("run", "bad", "--", "x")
    assert code == 2
    assert "error[CR-USAGE-004]" in err

    code, _, err = said("run", "say", "x")
    assert code == 2
    assert "unexpected extra argument" in err

"""Engines that one ggen starts share their services and the data in them,
for as long as that ggen lives; see `session_bench` for the ggen here.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.command_harness import Project, write_memory_hog
from support.ggen_harness import (
    Ggen,
    children,
    kill,
    leftovers,
    shared_server_pid,
    shared_servers,
    wait_for_command,
    wait_gone,
)
from support.host_inventory import descendants

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

# A client in a few lines: a phase has no redis-cli.
CLIENT = """\
import os, socket, sys, urllib.parse
url = urllib.parse.urlsplit(os.environ["REDIS_URL"])
end = socket.create_connection((url.hostname, url.port), timeout=10)
for words in (["AUTH", url.password], sys.argv[1:]):
    sent = b"".join(b"$%d\\r\\n%s\\r\\n" % (len(w), w.encode()) for w in words)
    end.sendall(b"*%d\\r\\n" % len(words) + sent)
    answer = end.recv(4096).decode()
sys.stdout.write(answer)
sys.exit(answer.startswith("-"))
"""
SLEEP_COMMAND = "sleep 30"
SLEEP = f"exec {SLEEP_COMMAND}"


def ask(*words: str) -> str:
    return f"python3 client.py {' '.join(words)}"


def write(project: Project, phases: dict[str, str], extra: str = "") -> None:
    (project.root / "client.py").write_text(CLIENT)
    lines = ["[project]", 'name = "shared"', ""]
    for name, command in phases.items():
        lines += [
            f"[lifecycle.{name}]",
            f"command = {json.dumps(command)}",
            'cleanroom.containers = ["redis"]',
            "",
        ]
    (project.root / "make.toml").write_text("\n".join(lines) + extra)


def test_phases_of_one_ggen_find_what_earlier_ones_stored(project: Project):
    """What `init` stored is there in `test`, whose run started no service;
    after ggen's end nothing is left.
    """
    write(project, {"init": ask("SET", "schema", "1"), "test": f"{ask('GET', 'schema')} | grep 1"})
    with Ggen(project) as ggen:
        first = ggen.run("init")
        second = ggen.run("test")
        assert (first["outcome"], second["outcome"]) == ("passed", "passed"), second["err"]
        (session,) = shared_servers(project)
        assert [service["held_by"] for service in first["services"] + second["services"]] == [
            session,
            session,
        ]
        assert second["ledger"]["left"] == []
        held = second["ledger"]["held"]
        assert f"process {shared_server_pid(project)} ({session})" in held
        assert "environment service-redis-1" in held
        events = [
            json.loads(line)["event"]
            for line in (project.root / second["reports"]["events"]).read_text().splitlines()
        ]
        assert [
            event
            for event in events
            if event["kind"] == "started" and event["subject"]["kind"] == "service"
        ] == []
        (attached,) = (event for event in events if event["kind"] == "attached")
        record = (project.root / ".ggen/cleanroom/sessions" / session / "events.jsonl").read_text()
        assert f'"trace_id":"{attached["trace_id"]}","span_id":"{attached["span_id"]}"' in record
        links = [
            span.get("links")
            for span in spans(project.root / second["reports"]["trace"])
            if span.get("links")
        ]
        assert [[link["spanId"] for link in found] for found in links] == [[attached["span_id"]]]
    assert leftovers(project) == {}


def spans(trace: Path) -> list[dict[str, object]]:
    return json.loads(trace.read_text())["resourceSpans"][0]["scopeSpans"][0]["spans"]


def test_a_service_that_is_ready_by_its_log_is_held_too(project: Project):
    """One that nothing can be asked of later; both phases have the same process."""
    project.write({"init": "true", "test": "true"}, containers='["told"]')
    project.add(
        '[cleanroom.services.told]\ncommand = ["sh", "-c", "echo up; exec sleep 1000"]\n'
        'ready = { log = "up" }\n'
    )
    with Ggen(project) as ggen:
        first, second = ggen.run("init"), ggen.run("test")
        (session,) = shared_servers(project)
        assert [result["services"][0]["held_by"] for result in (first, second)] == [
            session,
            session,
        ], second["err"]
    assert leftovers(project) == {}


def test_another_ggen_has_a_session_of_its_own(project: Project):
    """Two ggen at once on one project do not see each other's data,
    and one's end is not the other's.
    """
    write(
        project,
        {
            "init": ask("SET", "schema", "1"),
            "look": f"{ask('EXISTS', 'schema')} | grep ':0'",
            "again": f"{ask('EXISTS', 'schema')} | grep ':1'",
        },
    )
    with Ggen(project) as one:
        assert one.run("init")["outcome"] == "passed"
        with Ggen(project) as other:
            assert other.run("look")["outcome"] == "passed"
            assert len(shared_servers(project)) == 2
        assert one.run("again")["outcome"] == "passed"
    assert leftovers(project) == {}


def test_without_ggen_a_run_has_its_own_services(project: Project):
    """An engine that no ggen started holds nothing beyond its end."""
    write(project, {"init": ask("SET", "schema", "1")})
    result = project.call("run", "init").result
    assert result["outcome"] == "passed"
    assert result["ledger"]["held"] == []
    assert leftovers(project) == {}


def test_fresh_has_nothing_to_do_with_the_session(project: Project):
    """With --fresh a run neither sees the session's data nor is part of it."""
    write(
        project,
        {"init": ask("SET", "schema", "1"), "look": f"{ask('EXISTS', 'schema')} | grep ':0'"},
    )
    with Ggen(project) as ggen:
        assert ggen.run("init")["outcome"] == "passed"
        result = ggen.run("look", "--fresh")
        assert result["outcome"] == "passed", result["err"]
        assert result["ledger"]["held"] == []
    assert leftovers(project) == {}


def test_two_engines_that_start_at_once_make_one_session(project: Project):
    """Eight at once count to eight on one server."""
    phases = {f"p{number}": f"{ask('INCR', 'count')}; {ask('PING')}" for number in range(8)}
    write(project, {**phases, "sum": f"{ask('GET', 'count')} | grep 8"})
    with Ggen(project) as ggen:
        ggen.begin(" & ".join(f"{{ {ggen.engine(name)}; }}" for name in phases) + " & wait")
        ggen.ended()
        assert {name: ggen.answer(name)["outcome"] for name in phases} == dict.fromkeys(
            phases, "passed"
        )
        assert len(shared_servers(project)) == 1
        assert ggen.run("sum")["outcome"] == "passed"
    assert leftovers(project) == {}


def test_another_configuration_has_a_server_of_its_own_and_says_so(project: Project):
    """Once a setting differs, a run is not given the session's server, and a warning tells so."""
    write(
        project,
        {"init": ask("SET", "schema", "1"), "look": f"{ask('EXISTS', 'schema')} | grep ':0'"},
    )
    with Ggen(project) as ggen:
        assert ggen.run("init")["outcome"] == "passed"
        write(
            project,
            {"look": f"{ask('EXISTS', 'schema')} | grep ':0'"},
            '[cleanroom.services.redis]\noptions = { maxmemory = "64mb" }\n',
        )
        result = ggen.run("look")
        assert result["outcome"] == "passed", result["err"]
        assert [note for note in result["notes"] if "CR-SESSION-005" in note]
        assert result["services"][0]["held_by"] == ""
        assert result["ledger"]["held"] == []
    assert leftovers(project) == {}


def test_ggen_killed_within_a_phase_leaves_nothing(project: Project):
    """kill -9 of ggen while its engine runs a phase: engine, shell's child, services, folders,
    groups and mounts are gone in a moment.
    """
    write(project, {"init": ask("SET", "schema", "1"), "long": f"touch begun; {SLEEP}"})
    with Ggen(project) as ggen:
        assert ggen.run("init")["outcome"] == "passed"
        ggen.begin(ggen.engine("long"))
        wait_for_command(SLEEP_COMMAND)
        kill(ggen.pid)
    assert leftovers(project) == {}


def test_an_engine_whose_shell_is_killed_ends_and_the_session_lives_on(project: Project):
    """What ggen's time limit does, it kills the shell: the engine ends itself as terminated,
    and the next phase finds the session's data.
    """
    write(
        project,
        {
            "init": ask("SET", "schema", "1"),
            "long": SLEEP,
            "test": f"{ask('GET', 'schema')} | grep 1",
        },
    )
    with Ggen(project) as ggen:
        assert ggen.run("init")["outcome"] == "passed"
        # so that no shell becomes the engine itself
        ggen.begin(f"true; {ggen.engine('long')}; true")
        wait_for_command(SLEEP_COMMAND)
        (shell,) = children(ggen.pid)
        (engine,) = children(shell)
        kill(shell)
        assert ggen.ended() == 128 + signal.SIGKILL
        wait_gone(engine)
        result = ggen.answer("long")
        assert (result["outcome"], result["exit_code"]) == ("interrupted", 143)
        assert f"process {shell}, which started this run, has ended" in str(result)
        assert "CR-ENGINE-004" in str(result)
        assert ggen.run("test")["outcome"] == "passed"
    assert leftovers(project) == {}


def test_a_holder_that_was_killed_is_replaced(project: Project):
    """After kill -9 of the process that holds the services, the next run has new ones,
    and nothing of the old is left.
    """
    write(
        project,
        {"init": ask("SET", "schema", "1"), "look": f"{ask('EXISTS', 'schema')} | grep ':0'"},
    )
    with Ggen(project) as ggen:
        assert ggen.run("init")["outcome"] == "passed"
        (old,) = shared_servers(project)
        kill(shared_server_pid(project))
        result = ggen.run("look")
        assert result["outcome"] == "passed", result["err"]
        assert result["services"][0]["held_by"] not in ("", old)
        assert shared_servers(project) == [result["services"][0]["held_by"]]
    assert leftovers(project) == {}


def test_a_run_whose_holder_is_killed_fails_and_says_why(project: Project):
    """A session's end is an error of the run that waits for its services,
    not a hang and not a pass.
    """
    write(project, {"init": ask("PING"), "long": f"sleep 2; {ask('PING')}"})
    with Ggen(project) as ggen:
        assert ggen.run("init")["outcome"] == "passed"
        ggen.begin(ggen.engine("long"))
        wait_for_command("sleep 2")
        kill(shared_server_pid(project))
        ggen.ended()
        assert ggen.answer("long")["outcome"] != "passed"
    assert leftovers(project) == {}


def sweep(project: Project) -> str:
    argv = project.argv("sweep", "--output", "json")
    return subprocess.run(
        argv, cwd=project.root, env=project.variables(), capture_output=True, text=True, timeout=30
    ).stdout


def test_sweep_leaves_a_living_session_alone_and_removes_a_dead_one(project: Project):
    """Its data is there after a sweep; once it and its keeper were killed together,
    a sweep removes all that is left.
    """
    write(project, {"init": ask("SET", "schema", "1"), "test": f"{ask('GET', 'schema')} | grep 1"})
    with Ggen(project) as ggen:
        assert ggen.run("init")["outcome"] == "passed"
        assert json.loads(sweep(project))["living"] >= 1  # the folder of the run may just be going
        assert ggen.run("test")["outcome"] == "passed"
        holder = shared_server_pid(project)
        (dead,) = shared_servers(project)
        for pid in (*children(holder), holder):
            kill(pid)
        wait_gone(holder)
        assert json.loads(sweep(project))["runs"] == [dead]
    assert leftovers(project) == {}


def test_a_server_that_dies_between_runs_is_there_again(project: Project):
    """The session restarts its services without any run; the next one reaches the new life."""
    write(
        project,
        {"init": ask("SET", "schema", "1"), "test": f"{ask('EXISTS', 'schema')} | grep ':0'"},
    )
    with Ggen(project) as ggen:
        assert ggen.run("init")["outcome"] == "passed"
        before = servers(project)
        kill(before[0])
        until = time.monotonic() + 20
        while not (after := servers(project)) or after == before:
            assert time.monotonic() < until, "the server was not started again"
            time.sleep(0.02)  # polling for what other processes do
        assert ggen.run("test")["outcome"] == "passed"
    assert leftovers(project) == {}


def test_a_held_service_is_held_against_the_run_that_uses_it(project: Project):
    """Killed for its memory while a run uses it, it fails that run as the run's own would;
    a run that uses another service is not told.
    """
    write_memory_hog(project, "feed")
    project.add(
        '[cleanroom.services.told]\ncommand = ["sh", "-c", "echo up; exec sleep 1000"]\n'
        'ready = { log = "up" }\n'
    )
    project.add('[lifecycle.other]\ncommand = "sleep 2"\ncleanroom.containers = ["told"]\n')
    with Ggen(project) as ggen:
        ggen.begin(f"{ggen.engine('other')} & {ggen.engine('feed')}; wait")
        ggen.ended()
        feed, other = ggen.answer("feed"), ggen.answer("other")
        (session,) = shared_servers(project)
        assert [result["services"][0]["held_by"] for result in (feed, other)] == [
            session,
            session,
        ], feed["err"]
    assert (feed["exit_code"], feed["reason"]) == (1, "3 violations by services")
    assert (other["exit_code"], other["violations"]) == (0, [])
    assert leftovers(project) == {}


def servers(project: Project) -> list[int]:
    """The processes of this session that are a server."""
    return [pid for pid in descendants(shared_server_pid(project)) if "-server" in program(pid)]


def program(pid: int) -> str:
    """Its name; none where it has just ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def test_a_phase_with_services_is_not_skipped_in_a_session(project: Project):
    """What an earlier ggen's `init` did is not in the new session,
    so that phase's cache does not count.
    """
    write(
        project,
        {"init": ask("SET", "schema", "1")},
        '[lifecycle.init.cleanroom]\ncache = { inputs = ["client.py"] }\ncontainers = ["redis"]\n',
    )
    text = (
        (project.root / "make.toml").read_text().replace('cleanroom.containers = ["redis"]\n', "")
    )
    (project.root / "make.toml").write_text(text)
    for _ in range(2):
        with Ggen(project) as ggen:
            assert ggen.run("init")["phases"][0]["result"] == "passed"
    assert leftovers(project) == {}

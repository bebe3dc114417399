"""The life of embedded environments, with real processes:
commands, their ends, and that nothing stays.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from cleanroom.backends.base import Mount
from cleanroom.model.errors import EnvironmentFailed
from cleanroom.model.policy import MIB
from support.embedded_harness import BARE, RUN_ID, Entered, Phase, limited, run
from support.host_inventory import command, descendants, inventory, warden_and_init

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -SEGV $$", 139),
        ("nosuch", 127),
        ("/etc/passwd", 126),
    ],
)
async def test_a_command_s_end_is_told_as_a_shell_tells_it(
    entered: Entered, phase: Phase, text: str, code: int
):
    """Statuses as they are, 128+n for a signal, 127 for not found, 126 for not executable."""
    async with entered() as backend, backend.environment(phase(**BARE)) as environment:
        assert (await run(environment, text))[0].exit_code == code


async def test_what_was_written_above_prepared_data_is_there_after_a_restart(
    entered: Entered, phase: Phase
):
    """A service that was killed begins again with its data: overlayfs refuses the layer of a
    volatile overlay until the mark of it is gone.
    """
    async with entered() as backend:
        data, prepared = backend.scratch / "data", backend.scratch / "prepared"
        await backend.folder(data)
        prepared.mkdir()
        (prepared / "first").write_text("prepared\n")
        mount = Mount(source=str(data), target="/data", writable=True, above=str(prepared))
        spec = phase(**BARE, mounts=(mount,))
        async with backend.environment(spec) as environment:
            await run(environment, "echo written > /data/second")
            await environment.kill()
        async with backend.environment(spec) as environment:
            result, output = await run(environment, "cat /data/first /data/second")

    assert result.exit_code == 0
    assert "prepared\nwritten\n" in output


async def test_the_folder_of_a_live_environment_is_not_removed(entered: Entered, phase: Phase):
    """CLN-23: it is left, and the ledger names who uses it; when that has ended it goes."""
    async with entered() as backend:
        data = backend.scratch / "data"
        thing = await backend.folder(data)
        spec = phase(**BARE, mounts=(Mount(source=str(data), target="/data", writable=True),))
        async with backend.environment(spec) as environment:
            await backend.drop_folder(thing)
            assert data.is_dir()
            assert [
                (left.name, environment.id in left.detail) for left in (await backend.ledger())[2]
            ] == [(str(data), True)]
        await backend.drop_folder(thing)
        assert not data.exists()
        assert (await backend.ledger())[2] == ()


async def test_output_comes_in_order_and_whole(entered: Entered, phase: Phase):
    """RES-17: a long line, NUL bytes and invalid text are kept byte by byte;
    the streams stay apart.
    """
    heard: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
    program = (
        r"i=0; while [ $i -lt 2000 ]; do echo line-$i; i=$((i+1)); done; printf '\000\377\376' "
        r">&2; head -c 3000000 /dev/zero >&2"
    )
    async with entered() as backend, backend.environment(phase(**BARE)) as environment:
        await environment.exec(
            ("sh", "-c", program), on_output=lambda stream, piece: heard[stream].extend(piece)
        )
    assert heard["stdout"].decode().split() == [f"line-{number}" for number in range(2000)]
    assert bytes(heard["stderr"]) == b"\0\xff\xfe" + bytes(3_000_000)


async def test_a_flood_of_output_does_not_grow_the_engine(entered: Entered, phase: Phase):
    """RES-16: fifty megabytes without a newline on both streams pass through in bounded pieces."""
    sizes: list[int] = []
    async with entered() as backend, backend.environment(phase(**BARE)) as environment:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await environment.exec(
            ("sh", "-c", "head -c 25000000 /dev/zero & head -c 25000000 /dev/zero >&2; wait"),
            on_output=lambda stream, piece: sizes.append(len(piece)),
        )
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= MIB
    assert grown < 20_000  # kilobytes


async def test_what_ignores_the_polite_signal_is_killed(entered: Entered, phase: Phase):
    """RES-15: at its timeout a command gets SIGTERM, after the grace SIGKILL,
    and so do its children.
    """
    async with (
        entered() as backend,
        backend.environment(phase(**limited(grace_seconds=0.1))) as environment,
    ):
        result, _ = await run(
            environment, "trap '' TERM; sleep 1000 & sleep 1000; sleep 1000", timeout_seconds=0.2
        )
        assert (result.timed_out, result.exit_code) == (True, 137)
        assert await environment.left_over() == ()


async def test_a_background_process_does_not_hold_the_command(entered: Entered, phase: Phase):
    """RES-18, CLN-01: a command has ended when its main process has,
    though another one keeps its output open; that one is named.
    """
    async with entered() as backend, backend.environment(phase(**BARE)) as environment:
        result, _ = await run(environment, "sleep 1000 & echo done")
        left = await environment.left_over()
        assert result.exit_code == 0
        assert [(thing.kind, thing.name) for thing in left] == [("process", "sleep")]
    assert (await backend.ledger())[2] == ()


async def test_an_orphan_that_hides_dies_with_its_environment(entered: Entered, phase: Phase):
    """CLN-02: a session of its own, two forks and no death signal do not help it."""
    async with entered() as backend, backend.environment(phase(**BARE)) as environment:
        await run(environment, "setsid sh -c '(sleep 1000 > /dev/null 2>&1 &)'")
        assert len(await environment.left_over()) == 1
        assert len(sleepers()) == 1
    assert sleepers() == []


def sleepers() -> list[int]:
    """Processes of environments of this test, by what the tests start in them."""
    return [pid for pid in descendants(os.getpid()) if command(pid) == "sleep 1000"]


async def test_nothing_of_many_environments_is_left_on_the_host(entered: Entered, phase: Phase):
    """CLN-21: processes, mounts, control groups, namespaces, shared memory,
    folders and settings are as before.
    """
    before = inventory(RUN_ID)
    async with entered() as backend:
        for number in range(3):
            async with backend.environment(phase(f"phase-{number}", **BARE)) as environment:
                await run(environment, "ipcmk -M 4096 > /dev/null 2>&1; sleep 1000 & exit 0")
        scratch = backend.scratch
    after = inventory(RUN_ID)
    assert after == before
    assert not scratch.exists()
    created, removed, left = await backend.ledger()
    assert (created, left) == (removed, ())


@pytest.mark.skipif(os.geteuid() != 0, reason="without a control group memory is sampled")
async def test_memory_that_no_process_holds_is_its_phase_s_doing(entered: Entered, phase: Phase):
    """Files in memory fill the group, and the kernel ends init too: a limit has acted."""
    fill = "for d in /tmp /var/tmp /dev/shm; do dd if=/dev/zero of=$d/f bs=64k; done 2> /dev/null"
    spec = phase(**limited(memory_bytes=96 * MIB, tmpfs_bytes=64 * MIB))
    async with entered() as backend, backend.environment(spec) as environment:
        done, _ = await run(environment, f"echo 0 > /proc/self/oom_score_adj; {fill}; echo done")
    assert (done.exit_code, done.killed_for) == (137, "memory")


@pytest.mark.parametrize("victim", ["warden", "init"])
async def test_an_environment_whose_warden_or_init_is_killed_ends_whole(
    entered: Entered, phase: Phase, victim: str
):
    """CLN-03, PROC-27: kill -9 ends the tree; who waits learns it, and later orders fail."""
    async with entered() as backend, backend.environment(phase(**BARE)) as environment:
        started = anyio.Event()

        async def wait() -> None:
            with pytest.raises(EnvironmentFailed) as failed:
                await environment.exec(
                    ("sh", "-c", "echo; exec sleep 1000"),
                    on_output=lambda stream, piece: started.set(),
                )
            assert failed.value.code == "CR-SANDBOX-006"

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await started.wait()
            warden, init = warden_and_init("phase")
            os.kill(warden if victim == "warden" else init, signal.SIGKILL)
        with pytest.raises(EnvironmentFailed) as later:
            await run(environment, "true")
        assert later.value.code == "CR-SANDBOX-006"
    assert sleepers() == []


async def test_whoever_asks_a_keeper_that_is_gone_learns_it(entered: Entered, phase: Phase):
    """kill -9 of the keeper: the next environment is refused as one that nobody can make."""
    before = descendants(os.getpid())
    async with entered() as backend:
        (keeper,) = descendants(os.getpid()) - before
        os.kill(keeper, signal.SIGKILL)
        with anyio.fail_after(10), pytest.raises(EnvironmentFailed) as failed:  # noqa: PT012 -- it may answer once more
            while True:
                async with backend.environment(phase(**BARE)):
                    pass
    assert failed.value.code == "CR-SANDBOX-002"


async def test_an_environment_whose_warden_had_to_be_killed_does_not_end_as_if_all_had_been_told(
    entered: Entered, phase: Phase, monkeypatch: pytest.MonkeyPatch
):
    """What its warden had not passed on yet is lost, so a phase that passed until then does not
    pass; nothing of it is left.
    """
    monkeypatch.setattr("cleanroom.backends.embedded.keeper_client.LEAVE_SECONDS", 0.5)
    async with entered() as backend:
        with pytest.raises(EnvironmentFailed, match="did not end by itself"):  # noqa: PT012 -- leaving it raises
            async with backend.environment(phase(**BARE)) as environment:
                assert (await run(environment, "true"))[0].exit_code == 0
                os.kill(warden_and_init("phase")[0], signal.SIGSTOP)
        assert (await backend.ledger())[2] == ()


async def test_canaries_whose_process_is_killed_prove_nothing(entered: Entered, phase: Phase):
    """Whoever waits for the proof learns that there is none,
    instead of waiting for ever or taking an empty one.
    """
    async with entered() as backend, backend.environment(phase(**BARE)) as environment:
        _, init = warden_and_init("phase")

        def kill() -> None:
            while not (children := Path(f"/proc/{init}/task/{init}/children").read_text().split()):
                pass  # it lives for some ten milliseconds
            with suppress(ProcessLookupError):
                os.kill(int(children[0]), signal.SIGKILL)

        async def failure_of_proof() -> EnvironmentFailed | None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, kill)
                try:
                    await environment.prove()
                except EnvironmentFailed as error:
                    return error
            return None  # it was killed when it had said everything

        with anyio.fail_after(30):
            while (failure := await failure_of_proof()) is None:
                pass
        assert failure.code == "CR-SANDBOX-008"
        assert "ended with -9" in str(failure)


async def test_a_fork_bomb_does_not_starve_its_neighbour(entered: Entered, phase: Phase):
    """RES-22: two environments of one run have separate limits."""
    bomb = "i=0; while [ $i -lt 200 ]; do sleep 1000 2> /dev/null & i=$((i+1)); done; true"
    async with (
        entered() as backend,
        backend.environment(phase("bomb", **limited(pids=40))) as one,
        backend.environment(phase("calm", **limited(pids=40))) as other,
    ):
        await run(one, bomb)
        result, said = await run(other, "for i in 1 2 3 4 5 6 7 8; do (echo forked); done")
        assert (result.exit_code, said.split()) == (0, ["forked"] * 8)


async def test_processors_are_bounded_where_there_is_a_group(entered: Entered, phase: Phase):
    """RES-13: the quota of the environment's control group is its share."""
    async with (
        entered() as backend,
        backend.environment(phase("half", **limited(cpus=0.5))) as environment,
    ):
        result, _ = await run(environment, "true")
        quotas = [
            Path(where, name)
            for where, _, names in os.walk("/sys/fs/cgroup")
            if where.endswith(f"cleanroom-{RUN_ID}-half")
            for name in names
            if name in ("cpu.max", "cpu.cfs_quota_us")
        ]
        if not quotas:
            pytest.skip("no control group with a processor quota can be made here")
        assert {path.read_text().split()[0] for path in quotas} == {"50000"}
        assert result.exit_code == 0


async def test_an_environment_can_be_told_to_end_while_it_is_asked_to_prove(
    entered: Entered, phase: Phase
):
    """Killing while canaries run ends both; nobody waits for ever."""
    async with entered() as backend, backend.environment(phase(**BARE)) as environment:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:

                async def prove() -> None:
                    try:
                        await environment.prove()
                    except EnvironmentFailed:
                        pass

                tasks.start_soon(prove)
                await anyio.lowlevel.checkpoint()
                await environment.kill()


async def test_a_start_that_is_cancelled_leaves_nothing(entered: Entered, phase: Phase):
    """Cancelled at any of its first waits, an environment is not there afterwards."""
    before = inventory(RUN_ID)
    async with entered() as backend:
        for steps in range(8):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:

                    async def cancel(after: int = steps, scope: anyio.CancelScope = scope) -> None:
                        for _ in range(after):
                            await anyio.lowlevel.checkpoint()
                        scope.cancel()

                    tasks.start_soon(cancel)
                    async with backend.environment(phase(f"c{steps}", **BARE)):
                        await anyio.sleep_forever()
    created, removed, left = await backend.ledger()
    assert (created, left) == (removed, ())
    assert inventory(RUN_ID) == before

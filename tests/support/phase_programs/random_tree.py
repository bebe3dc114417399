"""Random changes of a tree below the working directory: `random_tree.py SEED STEPS LOG`.

What each call answered goes to LOG, so that the same seed can be compared elsewhere.
"""

import ctypes
import errno
import os
import random
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE = 1, 2
NAMES = ("a", "b", "c", "pkg")


def renameat2(old, new, flags):
    if LIBC.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def append(path):
    with open(path, "a") as file:
        file.write("x")


def make(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))


def link(old, new):
    # a link of a symbolic link comes back as a link of its own
    if not os.path.islink(old):
        os.link(old, new)


CHANGES = {
    "rename": (6, lambda one, other: os.rename(one, other)),
    "exchange": (3, lambda one, other: renameat2(one, other, EXCHANGE)),
    "noreplace": (3, lambda one, other: renameat2(one, other, NOREPLACE)),
    "mkdir": (4, lambda one, other: os.mkdir(one)),
    "make": (4, lambda one, other: make(one)),
    "append": (4, lambda one, other: append(one)),
    "unlink": (2, lambda one, other: os.unlink(one)),
    "rmdir": (2, lambda one, other: os.rmdir(one)),
    "link": (2, lambda one, other: link(one, other)),
    "symlink": (1, lambda one, other: os.symlink("a", one)),
    "chmod": (1, lambda one, other: os.chmod(one, 0o755 if os.path.isdir(one) else 0o600)),
    "utime": (1, lambda one, other: os.utime(one, ns=(1, 1_234_567_891))),
}


def change(pick, log):
    def path():
        return "/".join(["tree", *(pick.choice(NAMES) for _ in range(pick.randint(1, 3)))])

    names = list(CHANGES)
    name = pick.choices(names, [CHANGES[known][0] for known in names])[0]
    one, other = path(), path()
    try:
        CHANGES[name][1](one, other)
        answer = "ok"
    except OSError as error:
        answer = errno.errorcode.get(error.errno, str(error.errno))
    log.write(f"{name} {one} {other}: {answer}\n")


def main(seed, steps, log):
    pick = random.Random(seed)
    os.makedirs("tree", exist_ok=True)
    with open(log, "w") as file:
        for _ in range(steps):
            change(pick, file)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])

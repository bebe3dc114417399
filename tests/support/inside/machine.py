"""Rows of what programs ask of the machine, and of tools that look at their own children."""

from __future__ import annotations

from support.inside.row import Row, python_program

_LIMITED = {"limits": '{ cpus = 1, memory = "256MiB" }'}
# In a phase the limits hold; a shell outside has what the machine has.
_LIMIT_HOLDS = "limit = os.environ.get('CLEANROOM_RUN_ID')"

_JAVA = (
    "public class Heap { public static void main(String[] a) { "
    "System.out.println(Runtime.getRuntime().maxMemory()); } }"
)
_OF_THE_HOST = "the host's is told; the control group tells the limit"

MACHINE = (
    Row(
        "machine-processors",
        "nproc and the affinity mask tell how many processors there are",
        "true",
        (
            python_program(
                "import os, subprocess",
                _LIMIT_HOLDS,
                "told = int(subprocess.check_output(['nproc']))",
                "assert told == len(os.sched_getaffinity(0)), told",
                "assert told == 1 or not limit, told",
            ),
        ),
        "true",
        settings=_LIMITED,
    ),
    Row(
        "machine-sysconf",
        "the C library counts as many processors (os.cpu_count)",
        "true",
        (
            python_program(
                "import os",
                "assert os.cpu_count() == len(os.sched_getaffinity(0)), os.cpu_count()",
            ),
        ),
        "true",
        {"docker": "the host's are counted"},
        settings=_LIMITED,
    ),
    Row(
        "machine-make",
        "make -j with nproc as its number",
        "printf 'all: a b c d\\na b c d:\\n\\ttouch $@\\n' > Makefile",
        ("make -s -j$(nproc) all",),
        "test -e a && test -e d",
        needs="make",
        settings=_LIMITED,
    ),
    Row(
        "machine-memory",
        "the C library and /proc/meminfo tell the memory that there is",
        "true",
        (
            python_program(
                "import os",
                _LIMIT_HOLDS,
                "pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')",
                "line = next(l for l in open('/proc/meminfo') if l.startswith('MemTotal'))",
                "assert pages == int(line.split()[1]) * 1024, (pages, line)",
                "assert pages == 256 << 20 or not limit, pages",
            ),
        ),
        "true",
        {"docker": _OF_THE_HOST},
        settings=_LIMITED,
    ),
    Row(
        "machine-java",
        "a JVM takes at most half of the memory that there is as its heap",
        f"mkdir classes && printf '%s' '{_JAVA}' > Heap.java && javac -d classes Heap.java",
        (
            python_program(
                "import os, subprocess",
                "heap = int(subprocess.check_output(['java', '-cp', 'classes', 'Heap']))",
                "pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')",
                "assert heap <= pages / 2, (heap, pages)",
            ),
        ),
        "true",
        needs="javac",
        only=("root Medium", "user Medium", "E3"),
        settings=_LIMITED,
    ),
    Row(
        "machine-reserve",
        "sixteen terabytes of addresses are reserved and not touched",
        "true",
        (
            python_program(
                "import mmap",
                "mmap.mmap(-1, 1 << 44, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)",
            ),
        ),
        "true",
    ),
    Row(
        "machine-netlink",
        "a netlink socket has a number that select takes",
        "true",
        (
            python_program(
                "import select, socket",
                "it = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
                "select.select([it], [], [], 0)",
            ),
        ),
        "true",
    ),
)

_CHILD = (
    "#include <stdlib.h>\\nint main(void) { char *p = malloc(9); p[0] = 1; free(p); return 0; }"
)
_LEAKS = (
    "#include <stdlib.h>\\nvolatile char *p; int main(void) { p = malloc(9); p = 0; return 0; }"
)
_NO_TRACE = {"root High": "refused by name: `process.syscalls`"}
_NOT_STARTED = {"root High": "a program of the project is not started"}
_TRACING = (
    "import ctypes, os, signal",
    "libc = ctypes.CDLL(None, use_errno=True)",
    "libc.ptrace.argtypes = [ctypes.c_long] * 4",
    "child = os.fork()",
    "child or signal.pause()",
)


def _sanitizer(kind: str, says: str, source: str = _CHILD, status: str = "= 0") -> Row:
    return Row(
        f"children-{kind}",
        f"a program that is compiled with -fsanitize={kind} runs, {says}",
        f"printf '{source}' > a.c && cc -g -fsanitize={kind} -o a a.c",
        (f"./a 2> log; test $? {status} || {{ cat log; exit 1; }}",),
        "true",
        _NOT_STARTED,
        needs="cc",
        only=("root Medium", "user Medium", "root High", "E3"),
    )


CHILDREN = (
    Row(
        "children-traced",
        "a child is attached to, stopped and let go (ptrace)",
        "true",
        (
            python_program(
                *_TRACING,
                "assert libc.ptrace(16, child, 0, 0) == 0, ctypes.get_errno()",
                "assert os.WIFSTOPPED(os.waitpid(child, 0)[1])",
                "assert libc.ptrace(17, child, 0, 0) == 0, ctypes.get_errno()",
                "os.kill(child, 9)",
            ),
        ),
        "true",
        _NO_TRACE,
    ),
    Row(
        "children-memory",
        "a child's memory is read (process_vm_readv, /proc/PID/mem)",
        "true",
        (
            python_program(
                *_TRACING[:1],
                "libc = ctypes.CDLL(None, use_errno=True)",
                "word = ctypes.create_string_buffer(b'in the child', 13)",
                "child = os.fork()",
                "child or signal.pause()",
                "class Part(ctypes.Structure):",
                "    _fields_ = [('base', ctypes.c_void_p), ('size', ctypes.c_size_t)]",
                "read = ctypes.create_string_buffer(13)",
                "here, there = Part(ctypes.addressof(read), 13), Part(ctypes.addressof(word), 13)",
                "got = libc.process_vm_readv(",
                "    child, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)",
                "assert got == 13 and read.value == b'in the child', ctypes.get_errno()",
                "with open(f'/proc/{child}/mem', 'rb', 0) as memory:",
                "    memory.seek(ctypes.addressof(word))",
                "    assert memory.read(13) == b'in the child' + bytes(1)",
                "os.kill(child, 9)",
            ),
        ),
        "true",
        _NO_TRACE,
    ),
    Row(
        "children-strace",
        "strace -f of a shell and what it starts",
        "true",
        ("strace -f -o log sh -c 'sh -c true; : > made' && grep -q exited.with.0 log",),
        "test -e made && test -s log",
        _NO_TRACE,
        needs="strace",
        only=("root Medium", "user Medium", "root High", "E3"),
    ),
    Row(
        "children-gdb",
        "gdb stops a program at a function and shows where it is",
        "printf 'int f(int x) { return x + 1; } int main(void) { return f(1) - 2; }' > a.c "
        "&& cc -g -o a a.c",
        (
            "gdb -nx -q -batch -ex 'break f' -ex run -ex bt -ex c ./a > log 2>&1; "
            "grep -q 'in main' log || { cat log; exit 1; }",
        ),
        "grep -q exited.normally log",
        _NOT_STARTED,
        needs="gdb",
        only=("root Medium", "user Medium", "root High", "E3"),
    ),
    _sanitizer("address", "and finds no error where there is none"),
    _sanitizer("thread", "and finds no race where there is none"),
    _sanitizer("leak", "and finds the leak that there is", _LEAKS, "= 23"),
)

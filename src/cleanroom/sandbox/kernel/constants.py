"""Constants of the Linux interface, under the kernel's names and written once.

Only those that Python does not have on every Unix, so that importing this works everywhere.
A name that is not the kernel's says so beside it.
Pure values: the module imports nothing but `os`.
"""

from __future__ import annotations

import os

# --- open(2), openat2(2), the *at() calls

# 0 on a Unix without it, where nothing that needs it is called
O_PATH = getattr(os, "O_PATH", 0)
# the bit that O_TMPFILE adds to O_DIRECTORY; the kernel calls it __O_TMPFILE
O_TMPFILE_BIT = 0o20000000
# open(2) flags that may change a file; a name of ours
O_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# renameat2(2)
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2

AT_FDCWD = -100
# AT_FDCWD as the low word of a system call's argument holds it; a name of ours
AT_FDCWD_U32 = AT_FDCWD & 0xFFFFFFFF
AT_SYMLINK_NOFOLLOW = 0x100
AT_SYMLINK_FOLLOW = 0x400
# the call acts on the descriptor itself, with an empty path
AT_EMPTY_PATH = 0x1000
# open_tree(2), mount_setattr(2): the mounts below too, not the folders
AT_RECURSIVE = 0x8000

# openat2(2), since Linux 5.6. RESOLVE_NO_XDEV is EXDEV at every mount point, bind mounts too.
RESOLVE_NO_XDEV = 0x01
# links of /proc that lead to an object and not to a path, such as /proc/PID/fd/N
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
# EXDEV for every path that leaves the folder, an absolute one too
RESOLVE_BENEATH = 0x08
# as after chroot(2): the folder is "/" for absolute paths and links, and ".." stays in it
RESOLVE_IN_ROOT = 0x10
# since Linux 5.12: EAGAIN instead of a look-up that has to sleep
RESOLVE_CACHED = 0x20

# --- limits

PATH_MAX = 4096
# sun_path of sockaddr_un, the ending NUL included
UNIX_PATH_MAX = 108
# sizeof(struct sockaddr_storage), which the kernel calls _K_SS_MAXSIZE
SOCKADDR_STORAGE_BYTES = 128
# sendmsg(2): EMSGSIZE for more
UIO_MAXIOV = 1024
XATTR_NAME_MAX = 255
XATTR_SIZE_MAX = 65536
# links that the kernel follows for one path
# path_resolution(7): ELOOP beyond
MAXSYMLINKS = 40
UINT_MAX = 0xFFFFFFFF
INT_MAX = 0x7FFFFFFF
# select(2): descriptors from here on do not fit its sets
FD_SETSIZE = 1024

# --- clone(2), unshare(2), setns(2)

# since Linux 5.6; the bit lies in CSIGNAL, the signal number of clone(2)
CLONE_NEWTIME = 0x00000080
# clone(2): without it a thread has a descriptor table of its own
CLONE_FILES = 0x00000400
CLONE_THREAD = 0x00010000
CLONE_NEWNS = 0x00020000
# since Linux 4.6
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
# every namespace flag of clone(2): CLONE_NEWTIME is unshare's only; a name of ours
CLONE_NEW_ANY = (
    CLONE_NEWNS
    | CLONE_NEWCGROUP
    | CLONE_NEWUTS
    | CLONE_NEWIPC
    | CLONE_NEWUSER
    | CLONE_NEWPID
    | CLONE_NEWNET
)

# --- mounts

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
# with MS_REMOUNT: changes the flags of this one mount, not those of the file system
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
# Propagation (mount_namespaces(7)): a call of its own for each, with MS_REC only.
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_FORCE = 1
# umount2(2): out of the tree at once, unmounted with its last user
MNT_DETACH = 2
# a symbolic link at the end of the path is not followed
UMOUNT_NOFOLLOW = 8

# open_tree(2), move_mount(2), fsopen(2), fsconfig(2), fsmount(2): since Linux 5.2.
# OPEN_TREE_CLONE makes a detached bind mount, which move_mount(2) attaches.
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
# mount_setattr(2), since Linux 5.12
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_IDMAP = 0x00100000
# since Linux 5.14
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

# --- descriptors and processes

# close_range(2), since Linux 5.9
CLOSE_RANGE_UNSHARE = 2
# since Linux 5.11
CLOSE_RANGE_CLOEXEC = 4
# since Linux 6.9: a pidfd of a thread, not of its process
PIDFD_THREAD = os.O_EXCL
MFD_CLOEXEC = 1
MFD_ALLOW_SEALING = 2
# since Linux 6.3: the file can never be executed, whatever its mode becomes
MFD_NOEXEC_SEAL = 8
# fcntl(2): the process that gets the SIGIO and SIGURG of a descriptor
F_SETOWN = 8
F_SETOWN_EX = 15
# mmap(2): the kernel fills the pages within the call
MAP_POPULATE = 0x8000
RLIMIT_FSIZE = 1
RLIMIT_CORE = 4

# linux/ptrace.h
PTRACE_ATTACH = 16
PTRACE_SEIZE = 0x4206
IPC_RMID = 0
# the kernel's own: becomes EINTR or a second call, as the signal's handler was installed
ERESTARTSYS = 512
# how an id without a number in a user namespace is shown
OVERFLOW_UID = 65534

# prctl(2): not inherited by fork(2); a change of credentials clears it
PR_SET_PDEATHSIG = 1
# 0: /proc/PID belongs to root, and no ordinary user may trace the process
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
# capabilities(7): EINVAL for a capability that this kernel does not know
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
# since Linux 3.4; not inherited by fork(2)
PR_SET_CHILD_SUBREAPER = 36
# since Linux 3.5; inherited and irrevocable: execve(2) grants nothing by mode bits any more
PR_SET_NO_NEW_PRIVS = 38
# since Linux 4.3
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
LINUX_CAPABILITY_VERSION_3 = 0x20080522
# capabilities that version 3's two 32-bit words can hold; a name of ours
CAPABILITIES_MAX = 64

# --- ioctl(2)

# the copy shares its blocks with the original until one of the two is written
FICLONE = 0x40049409
# as F_SETOWN
FIOSETOWN = 0x8901
SIOCSPGRP = 0x8902
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
# FS_IOC_SETFLAGS(2const): immutable, append-only and others
FS_IOC_SETFLAGS = 0x40086602
# of a 32-bit program
FS_IOC32_SETFLAGS = 0x40046602
FS_IOC_FSSETXATTR = 0x401C5820
# since Linux 5.4: makes the file read-only for good
FS_IOC_ENABLE_VERITY = 0x40806685

# --- sockets

AF_UNSPEC = 0
AF_UNIX = 1
AF_INET = 2
AF_INET6 = 10
AF_NETLINK = 16
# packet(7): needs CAP_NET_RAW
AF_PACKET = 17
AF_VSOCK = 40

# the type in socket(2)'s second argument; the rest is SOCK_CLOEXEC and SOCK_NONBLOCK
SOCK_TYPE_MASK = 0xF
IPPROTO_ICMP = 1
IPPROTO_ICMPV6 = 58
# since Linux 5.6
IPPROTO_MPTCP = 262

# since Linux 5.7 without a privilege while the socket is bound to no device
SO_BINDTODEVICE = 25
# since Linux 6.5
SO_PEERPIDFD = 77

MSG_DONTWAIT = 0x40
MSG_NOSIGNAL = 0x4000
# since Linux 4.14: completions arrive on the error queue of the socket
MSG_ZEROCOPY = 0x4000000
# sendto(2) and sendmsg(2) connect: their address is that of a connect(2)
MSG_FASTOPEN = 0x20000000

IP_TOS = 1
IP_TTL = 2
IP_PKTINFO = 8
IPV6_PKTINFO = 50
IPV6_HOPLIMIT = 52
IPV6_TCLASS = 67
# since Linux 4.18: one send is cut into many datagrams
UDP_SEGMENT = 103

# prefix of IPv4-mapped IPv6 addresses, ::ffff:0:0/96; a name of ours
V4MAPPED_PREFIX = bytes(10) + b"\xff\xff"
# <arpa/nameser.h>: where names are asked
NAMESERVER_PORT = 53
# <linux/in.h>: ports below need CAP_NET_BIND_SERVICE
PROT_SOCK = 1024

# <netinet/tcp.h>
TCP_LISTEN = 10

NETLINK_ROUTE = 0
NETLINK_SOCK_DIAG = 4
NLM_F_REQUEST = 1
NLM_F_DUMP = 0x300
NLMSG_ERROR = 2
NLMSG_DONE = 3
SOCK_DIAG_BY_FAMILY = 20
RTM_NEWROUTE = 24
RTM_GETROUTE = 26
RTA_DST = 1
RTN_UNICAST = 1

# --- seccomp(2), seccomp_unotify(2)

SECCOMP_SET_MODE_FILTER = 1
# since Linux 4.14
SECCOMP_GET_ACTION_AVAIL = 2
# since Linux 5.0, with SECCOMP_RET_USER_NOTIF. EBUSY where a filter of the thread has a listener.
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
# since Linux 5.19: once received, only a fatal signal interrupts the held call
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5

# Where several filters are installed, the first of their answers in this order counts.
SECCOMP_RET_KILL_PROCESS = 0x80000000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_ALLOW = 0x7FFF0000

SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100
SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101
# ENOENT once the caller has ended or its call was interrupted
SECCOMP_IOCTL_NOTIF_ID_VALID = 0x40082102
# since Linux 5.9
SECCOMP_IOCTL_NOTIF_ADDFD = 0x40182103
SECCOMP_IOCTL_NOTIF_SET_FLAGS = 0x40082104

# since Linux 5.5. No decision on what memory holds may use it: another thread can change that.
SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1
# since Linux 6.6: runs the caller on the listener's processor at once, 24 us a call instead of 91
SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP = 1
# put the descriptor at the number that is given, as dup2(2) does
SECCOMP_ADDFD_FLAG_SETFD = 1
# since Linux 5.14
SECCOMP_ADDFD_FLAG_SEND = 2

# calls of the x32 interface have this bit in their number
X32_SYSCALL_BIT = 0x40000000

# --- classic BPF, as struct sock_filter's code

# BPF_LD | BPF_W | BPF_ABS
BPF_LD_W_ABS = 0x20
# BPF_ALU | BPF_AND | BPF_K
BPF_AND_K = 0x54
# BPF_JMP | ... | BPF_K
BPF_JA_K = 0x05
BPF_JEQ_K = 0x15
BPF_JGE_K = 0x35
BPF_JSET_K = 0x45
# BPF_RET | BPF_K
BPF_RET_K = 0x06

# --- landlock(7)

# ABI 1 came with Linux 5.13, 2 with 5.19, 3 with 6.2, 4 with 6.7, 5 with 6.10, 6 with 6.12.
LANDLOCK_ACCESS_FS_EXECUTE = 1 << 0
LANDLOCK_ACCESS_FS_WRITE_FILE = 1 << 1
LANDLOCK_ACCESS_FS_READ_FILE = 1 << 2
LANDLOCK_ACCESS_FS_READ_DIR = 1 << 3
# since ABI 3
LANDLOCK_ACCESS_FS_TRUNCATE = 1 << 14
# since ABI 5
LANDLOCK_ACCESS_FS_IOCTL_DEV = 1 << 15
# since ABI 6
LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0
LANDLOCK_SCOPE_SIGNAL = 1 << 1
LANDLOCK_CREATE_RULESET_VERSION = 1 << 0
LANDLOCK_RULE_PATH_BENEATH = 1

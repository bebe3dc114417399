/* What does a held call take at least? The six calls that the recorder makes for one, in C, with nothing around them.
 *
 *     cc -O2 -static -o held_floor bench/held_floor.c
 *     ./held_floor             its own filter and recorder
 *     ./held_floor caller      the caller alone: in an environment, as a phase's command, where the real recorder answers; outside, bare
 *
 * The caller makes mkdir of a folder that exists, at once after the last one, and after 200 and 1,000 microseconds of work in 2 MiB of memory, as programs do between their files:
 * what the recorder had in the processor's cache is gone then. Printed are microseconds a call, the 5th, 10th, 25th and 50th of a hundred.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif

static char work[1 << 21];

static double now(clockid_t clock) {
    struct timespec at;
    clock_gettime(clock, &at);
    return at.tv_sec * 1e6 + at.tv_nsec / 1e3;
}

static int by_size(const void *a, const void *b) {
    double difference = *(const double *)a - *(const double *)b;
    return difference < 0 ? -1 : difference > 0;
}

static void measure(int count, double gap) {
    double *took = malloc(count * sizeof *took);
    unsigned at = 0;
    for (int call = 0; call < count; call++) {
        double until = now(CLOCK_MONOTONIC) + gap;
        while (now(CLOCK_MONOTONIC) < until)
            for (int step = 0; step < 64; step++)
                work[(at = at * 1103515245 + 12345) & (sizeof work - 1)]++;
        double began = now(CLOCK_MONOTONIC);
        mkdir("held-floor", 0755);
        took[call] = now(CLOCK_MONOTONIC) - began;
    }
    qsort(took, count, sizeof *took, by_size);
    printf("after %4.0f us: %.1f %.1f %.1f %.1f\n", gap, took[count / 20], took[count / 10], took[count / 4], took[count / 2]);
    fflush(stdout);
}

static void caller(void) {
    mkdir("held-floor", 0755);
    measure(1000, 0);
    measure(600, 200);
    measure(400, 1000);
    rmdir("held-floor");
}

static int listen_and_send(int channel) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mkdirat, 1, 0),
#ifdef SYS_mkdir
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mkdir, 0, 1),
#else
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
#endif
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    char beside[CMSG_SPACE(sizeof listener)] = {0};
    struct iovec said = {"L", 1};
    struct msghdr message = {.msg_iov = &said, .msg_iovlen = 1, .msg_control = beside, .msg_controllen = sizeof beside};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof listener)};
    memcpy(CMSG_DATA(head), &listener, sizeof listener);
    int sent = sendmsg(channel, &message, 0) == 1;
    close(listener);
    return sent;
}

static int received(int channel) {
    int listener = -1;
    char said, beside[CMSG_SPACE(sizeof listener)];
    struct iovec room = {&said, 1};
    struct msghdr message = {.msg_iov = &room, .msg_iovlen = 1, .msg_control = beside, .msg_controllen = sizeof beside};
    if (recvmsg(channel, &message, 0) == 1 && CMSG_FIRSTHDR(&message))
        memcpy(&listener, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof listener);
    return listener;
}

static void record(int listener) {
    int root = open("/", O_PATH | O_DIRECTORY), calls = 0;
    struct pollfd watched = {listener, POLLIN, 0};
    double began = now(CLOCK_PROCESS_CPUTIME_ID);
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, 1); /* wake in step, Linux 6.6 */
    while (poll(&watched, 1, -1) == 1 && watched.revents & POLLIN) {
        struct seccomp_notif call = {0};
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call))
            continue;
        char path[257] = {0}, whole[800], link[64];
        unsigned long long address = call.data.args[0] == (__u64)AT_FDCWD || call.data.args[0] == 0xFFFFFF9C ? call.data.args[1] : call.data.args[0];
        struct iovec here = {path, 256 - address % 256}, there = {(void *)address, 256 - address % 256};
        process_vm_readv(call.pid, &here, 1, &there, 1, 0);
        snprintf(link, sizeof link, "/proc/%d/cwd", call.pid);
        ssize_t length = readlink(link, whole, 500);
        snprintf(whole + (length > 0 ? length : 0), 300, "/%s", path);
        struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS};
        int found = syscall(SYS_openat2, root, whole, &how, sizeof how);
        if (found >= 0)
            close(found);
        struct seccomp_notif_resp answer = {.id = call.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
        calls++;
    }
    printf("recorder: %.1f us of processor time a call, %d calls\n", (now(CLOCK_PROCESS_CPUTIME_ID) - began) / (calls ? calls : 1), calls);
}

int main(int count, char **words) {
    if (count > 1 && !strcmp(words[1], "caller"))
        return caller(), 0;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
        return 1;
    pid_t pid = fork();
    if (pid == 0) {
        if (listen_and_send(ends[0]))
            caller();
        _exit(0);
    }
    close(ends[0]);
    int listener = received(ends[1]);
    if (listener < 0)
        return 1;
    record(listener);
    waitpid(pid, NULL, 0);
    return 0;
}

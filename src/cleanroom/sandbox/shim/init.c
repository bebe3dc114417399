/* Pid 1 of a container: gives up what the engine's flags leave, starts commands on request, reaps.
 *
 * It knows no policy. Over one socket it is told the Landlock rules and the filter to install, then which commands to start with which descriptors, and
 * which system calls to try as canaries. What it may do is what the container may do: it has no privilege, and dies when the other side is gone.
 *
 * A message is one datagram: a letter, then fields of a u32 length and bytes, as `sandbox/shim/wire.py` writes them. Strings end with a zero byte.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MESSAGE_MAX = 1 << 20, FIELDS_MAX = 1 << 16, RUNNING_MAX = 4096, STEPS_MAX = 16, REPLY_MAX = 1 << 16, CONNECT_TRIES = 4000 };
enum { LANDLOCK_CREATE = 444, LANDLOCK_ADD = 445, LANDLOCK_RESTRICT = 446, FILE_RIGHTS = 1 | 2 | 4 | 1 << 14 | 1 << 15 };
enum { NEW_LISTENER = 1 << 3, WAIT_KILLABLE = 1 << 5, START = -1 };

struct field { uint32_t size; char *bytes; };
struct reply { char kind; uint32_t number; char bytes[REPLY_MAX]; uint32_t size; };
struct filter { unsigned short length; void *program; };
struct path_rule { uint64_t access; int32_t descriptor; } __attribute__((packed));

static int door;
static char message[MESSAGE_MAX + 1];
static struct field fields[FIELDS_MAX];
static int fields_count, next_field;
static struct { pid_t pid; uint32_t number; } running[RUNNING_MAX], trying;
extern char **environ;

/* --- messages */

static void reply_bytes(struct reply *out, const void *bytes, uint32_t size) {
    if (out->size + size > REPLY_MAX) size = REPLY_MAX - out->size;
    memcpy(out->bytes + out->size, bytes, size);
    out->size += size;
}

/* send() and not sendmsg(): the filter holds the latter. */
static void say(struct reply *out) {
    static char datagram[REPLY_MAX + 5];
    datagram[0] = out->kind;
    memcpy(datagram + 1, &out->number, 4);
    memcpy(datagram + 5, out->bytes, out->size);
    send(door, datagram, out->size + 5, MSG_NOSIGNAL);
}

static void say_text(char kind, uint32_t number, const char *text) {
    static struct reply out;
    out.kind = kind, out.number = number, out.size = 0;
    reply_bytes(&out, text, strlen(text));
    say(&out);
}

static void fail(const char *what) {
    char text[256];
    snprintf(text, sizeof text, "%s: %s", what, strerror(errno));
    say_text('f', 0, text);
    _exit(125);
}

static int parse(ssize_t size) {
    fields_count = next_field = 0;
    for (ssize_t at = 1; at + 4 <= size && fields_count < FIELDS_MAX; fields_count++) {
        memcpy(&fields[fields_count].size, message + at, 4);
        fields[fields_count].bytes = message + at + 4;
        at += 4 + (ssize_t)fields[fields_count].size;
        if (at > size) return -1;
    }
    return 0;
}

static struct field take(void) {
    static struct field none = {0, ""};
    return next_field < fields_count ? fields[next_field++] : none;
}

static uint64_t take_number(void) {
    struct field field = take();
    uint64_t value = 0;
    memcpy(&value, field.bytes, field.size < 8 ? field.size : 8);
    return value;
}

/* --- giving up what is left */

static void add_path(int ruleset, uint64_t access, const char *path) {
    int descriptor = open(path, O_PATH | O_CLOEXEC);
    if (descriptor < 0) return; /* a rule for what is not there would allow nothing */
    struct stat info;
    if (fstat(descriptor, &info) || !S_ISDIR(info.st_mode)) access &= FILE_RIGHTS;
    struct path_rule rule = {access, descriptor};
    if (access && syscall(LANDLOCK_ADD, ruleset, 1, &rule, 0)) fail(path);
    close(descriptor);
}

static void lay_landlock(void) {
    struct field attributes = take();
    uint64_t count = take_number();
    int ruleset = syscall(LANDLOCK_CREATE, attributes.bytes, (size_t)attributes.size, 0);
    if (ruleset < 0) fail("landlock_create_ruleset");
    while (count--) {
        uint64_t access = take_number();
        add_path(ruleset, access, take().bytes);
    }
    if (syscall(LANDLOCK_RESTRICT, ruleset, 0)) fail("landlock_restrict_self");
    close(ruleset);
}

/* The filter holds sendmsg, so somebody who does not have it hands the listener out: a child that shares our descriptors. */
static void hand_over(int read_end) {
    int listener;
    if (read(read_end, &listener, sizeof listener) != sizeof listener) _exit(1);
    char byte = 'l', room[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec vector = {&byte, 1};
    struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    struct cmsghdr *beside = CMSG_FIRSTHDR(&header);
    beside->cmsg_level = SOL_SOCKET, beside->cmsg_type = SCM_RIGHTS, beside->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(beside), &listener, sizeof listener);
    _exit(sendmsg(door, &header, MSG_NOSIGNAL) < 0);
}

static void install_filter(void) {
    struct field program = take();
    int hold = (int)take_number(), ends[2], status = 0;
    struct filter filter = {(unsigned short)(program.size / 8), program.bytes};
    if (!hold) {
        if (syscall(SYS_seccomp, 1, 0, &filter)) fail("seccomp");
        return;
    }
    if (pipe2(ends, O_CLOEXEC)) fail("pipe");
    pid_t helper = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
    if (helper < 0) fail("clone");
    if (!helper) hand_over(ends[0]);
    int listener = syscall(SYS_seccomp, 1, NEW_LISTENER | WAIT_KILLABLE, &filter);
    if (listener < 0 && errno == EINVAL) listener = syscall(SYS_seccomp, 1, NEW_LISTENER, &filter); /* before Linux 5.19 */
    if (listener < 0) fail("seccomp");
    if (write(ends[1], &listener, sizeof listener) != sizeof listener || waitpid(helper, &status, 0) != helper || status) fail("handing the listener over");
    close(listener), close(ends[0]), close(ends[1]);
}

static void restrict_self(void) {
    umask(022);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) fail("no new privileges");
    lay_landlock();
    install_filter();
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* /proc/1 tells nothing to its children, who have the same uid */
    say_text('r', 0, "");
}

/* --- commands */

static void settle(void) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, 0);
    setsid();
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

/* Where memory runs out a command dies and not pid 1, with which the whole container would end. */
static void offer_to_the_killer(void) {
    int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (file < 0) return;
    if (write(file, "500", 3) < 0) { /* it is an offer */ }
    close(file);
}

static char **take_strings(void) {
    uint64_t count = take_number();
    char **strings = calloc(count + 1, sizeof *strings);
    for (uint64_t index = 0; index < count; index++) strings[index] = take().bytes;
    return strings;
}

static void become(const char *directory, char **words, char **variables, const int *streams, int count) {
    settle();
    for (int target = 0; target < count; target++) dup2(streams[target], target);
    syscall(SYS_close_range, 3, ~0U, 0);
    ioctl(0, TIOCSCTTY, 0); /* where standard input is a terminal, job control needs it; else ENOTTY */
    offer_to_the_killer();
    environ = variables;
    const char *named = directory;
    if (!chdir(directory)) {
        named = words[0];
        execvp(words[0], words);
    }
    int status = errno == ENOENT ? 127 : 126;
    dprintf(2, "%s: %s\n", named, strerror(errno));
    _exit(status);
}

static void start(const int *streams, int count) {
    uint32_t number = (uint32_t)take_number();
    const char *directory = take().bytes;
    char **words = take_strings(), **variables = take_strings(), text[32];
    int slot = 0;
    while (slot < RUNNING_MAX && running[slot].pid) slot++;
    pid_t pid = slot < RUNNING_MAX && words[0] ? fork() : -1;
    if (pid == 0) become(directory, words, variables, streams, count);
    free(words), free(variables);
    if (pid < 0) return say_text('x', number, "126");
    running[slot].pid = pid, running[slot].number = number;
    snprintf(text, sizeof text, "%d", pid);
    say_text('s', number, text);
}

static void signal_command(void) {
    uint32_t number = (uint32_t)take_number();
    int which = (int)take_number();
    for (int slot = 0; slot < RUNNING_MAX; slot++)
        if (running[slot].pid && running[slot].number == number) kill(-running[slot].pid, which);
}

static void reap(void) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == trying.pid && status) say_text('t', trying.number, ""); /* its own word did not come */
        for (int slot = 0; slot < RUNNING_MAX; slot++)
            if (running[slot].pid == pid) {
                char text[32];
                snprintf(text, sizeof text, "%d", WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
                running[slot].pid = 0;
                say_text('x', running[slot].number, text);
            }
    }
}

/* --- what is left */

static ssize_t read_file(const char *pid, const char *name, char *into, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/%s", pid, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? -1 : read(file, into, size - 1);
    if (file >= 0) close(file);
    into[got > 0 ? got : 0] = 0;
    return got;
}

/* One process: its number, its stat line and its arguments, each ended by a zero byte; the arguments' own zeros become spaces. */
static void tell_process(struct reply *out, const char *pid) {
    char stat_line[512], words[512];
    if (read_file(pid, "stat", stat_line, sizeof stat_line) <= 0) return;
    ssize_t size = read_file(pid, "cmdline", words, sizeof words);
    for (ssize_t at = 0; at + 1 < size; at++)
        if (!words[at]) words[at] = ' ';
    reply_bytes(out, pid, strlen(pid) + 1);
    reply_bytes(out, stat_line, strlen(stat_line) + 1);
    reply_bytes(out, words, strlen(words) + 1);
}

static void tell_left(void) {
    static struct reply out;
    out.kind = 'L', out.number = (uint32_t)take_number(), out.size = 0;
    DIR *folder = opendir("/proc");
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (entry->d_name[0] > '0' && entry->d_name[0] <= '9' && strcmp(entry->d_name, "1")) tell_process(&out, entry->d_name);
    if (folder) closedir(folder);
    say(&out);
}

/* --- canaries: system calls, as told */

static long start_program(char *path) {
    char *words[] = {path, "-c", "exit 0", 0}, *nothing[] = {0};
    int status;
    pid_t pid = fork();
    if (pid < 0) return -errno;
    if (!pid) {
        execve(path, words, nothing);
        _exit(errno);
    }
    if (waitpid(pid, &status, 0) != pid) return -errno;
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
}

/* What sendmsg() takes: an address and one piece of data. */
static long message_header(void) {
    static struct iovec vector;
    static struct msghdr header;
    struct field address = take(), data = take();
    vector.iov_base = data.bytes, vector.iov_len = data.size;
    header.msg_name = address.bytes, header.msg_namelen = address.size, header.msg_iov = &vector, header.msg_iovlen = 1;
    return (long)&header;
}

/* An argument is a letter and a value: 'n' a number, 'r' the result of an earlier step, 'b' bytes to read, 'm' a message to send, 'o' room whose content is told. */
static long argument(const long *results, struct field *room) {
    char kind = take().bytes[0];
    if (kind == 'b') return (long)take().bytes;
    if (kind == 'm') return message_header();
    uint64_t value = take_number();
    if (kind == 'r') return results[value % STEPS_MAX];
    if (kind == 'n') return (long)value;
    room->bytes = calloc(1, value + 1), room->size = (uint32_t)value;
    return (long)room->bytes;
}

static void try_calls(void) {
    static struct reply out;
    long results[STEPS_MAX] = {0};
    out.kind = 't', out.number = (uint32_t)take_number(), out.size = 0;
    trying.number = out.number;
    trying.pid = fork();
    if (trying.pid < 0) say(&out);
    if (trying.pid) return;
    settle();
    uint64_t steps = take_number();
    for (uint64_t step = 0; step < steps && step < STEPS_MAX; step++) {
        struct field room = {0, 0};
        long words[6];
        int32_t call = (int32_t)take_number();
        for (int index = 0; index < 6; index++) words[index] = argument(results, &room);
        if (call == START) results[step] = start_program((char *)words[0]);
        else if ((results[step] = syscall(call, words[0], words[1], words[2], words[3], words[4], words[5])) < 0) results[step] = -errno;
        int64_t told = results[step];
        reply_bytes(&out, &told, 8);
        reply_bytes(&out, &room.size, 4);
        reply_bytes(&out, room.bytes ? room.bytes : "", room.size);
        if (told < 0) break;
    }
    say(&out);
    _exit(0);
}

/* --- the loop */

static int receive(void) {
    char room[CMSG_SPACE(8 * sizeof(int))];
    struct iovec vector = {message, MESSAGE_MAX};
    struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    ssize_t size = recvmsg(door, &header, MSG_CMSG_CLOEXEC);
    int streams[8], count = 0;
    if (size <= 0 || parse(size)) return 0;
    for (struct cmsghdr *beside = CMSG_FIRSTHDR(&header); beside; beside = CMSG_NXTHDR(&header, beside))
        if (beside->cmsg_level == SOL_SOCKET && beside->cmsg_type == SCM_RIGHTS) {
            count = (int)((beside->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(streams, CMSG_DATA(beside), (size_t)count * sizeof(int));
        }
    switch (message[0]) {
        case 'R': restrict_self(); break;
        case 'X': start(streams, count); break;
        case 'S': signal_command(); break;
        case 'L': tell_left(); break;
        case 'T': try_calls(); break;
        default: return 0;
    }
    while (count) close(streams[--count]);
    return 1;
}

/* The other side listens as soon as it can, which may be after us. */
static void connect_to(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int size = MESSAGE_MAX, tries = CONNECT_TRIES;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    door = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    setsockopt(door, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    while (connect(door, (struct sockaddr *)&address, sizeof address)) {
        if (!tries--) {
            dprintf(2, "%s: %s\n", path, strerror(errno));
            _exit(125);
        }
        usleep(5000);
    }
}

int main(int count, char **words) {
    if (count != 2) {
        dprintf(2, "usage: init SOCKET\n");
        return 125;
    }
    connect_to(words[1]);
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, 0);
    struct pollfd watched[] = {{door, POLLIN, 0}, {signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK), POLLIN, 0}};
    for (;;) {
        if (poll(watched, 2, -1) < 0 && errno != EINTR) return 125;
        if (watched[1].revents) {
            struct signalfd_siginfo seen;
            while (read(watched[1].fd, &seen, sizeof seen) > 0) { /* several children may be one signal */ }
            reap();
        }
        if (watched[0].revents && !receive()) return 0;
    }
}

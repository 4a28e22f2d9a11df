// TCP, by every form of address and every way to begin a connection.
#include "attack.h"
#include <pthread.h>

static void dial4(const char *host)
{
    struct sockaddr_in to = v4(host, "PORT");
    int fd = tcp4();
    connect_to(fd, &to, sizeof to);
    send_token(fd);
    sent();
}

static void dial6(struct sockaddr_in6 to)
{
    int fd = tcp6();
    connect_to(fd, &to, sizeof to);
    send_token(fd);
    sent();
}

ATTACK(tcp) { dial4("WIRE4"); }
ATTACK(tcp_v6) { dial6(v6("WIRE6", "PORT")); }
ATTACK(tcp_mapped) { dial6(mapped("WIRE4", "PORT")); }
ATTACK(tcp_loopback) { dial4("LO4"); }
ATTACK(tcp_loopback_other) { dial4("LO4_OTHER"); }
ATTACK(tcp_loopback_v6) { dial6(v6("LO6", "PORT")); }
ATTACK(tcp_loopback_mapped) { dial6(mapped("LO4", "PORT")); }

ATTACK(tcp_zero)
{
    struct sockaddr_in to = v4("LO4", "PORT");
    to.sin_addr.s_addr = INADDR_ANY;
    int fd = tcp4();
    connect_to(fd, &to, sizeof to);
    send_token(fd);
    sent();
}

ATTACK(tcp_zero_v6)
{
    struct sockaddr_in6 to = v6("LO6", "PORT");
    to.sin6_addr = in6addr_any;
    dial6(to);
}

ATTACK(tcp_zero_mapped)
{
    struct sockaddr_in6 to = mapped("LO4", "PORT");
    memset(to.sin6_addr.s6_addr + 12, 0, 4);
    dial6(to);
}

ATTACK(tcp_scoped)
{
    struct sockaddr_in6 to = v6("LINK6", "PORT");
    to.sin6_scope_id = (uint32_t)interface();
    dial6(to);
}

// The SYN carries the data: no connect() at all.
ATTACK(tcp_fast_open)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    int fd = tcp4();
    must((int)sendto(fd, token(), strlen(token()), MSG_FASTOPEN | MSG_NOSIGNAL, (void *)&to, sizeof to), "sendto");
    sent();
}

// connect() says yes, and the first write connects.
ATTACK(tcp_fast_open_connect)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    int fd = tcp4(), one = 1;
    must(setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &one, sizeof one), "setsockopt");
    connect_to(fd, &to, sizeof to);
    send_token(fd);
    sent();
}

ATTACK(tcp_nonblocking)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    int fd = must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket");
    if (connect(fd, (void *)&to, sizeof to) < 0 && errno != EINPROGRESS)
        stopped("connect");
    struct pollfd writable = {fd, POLLOUT, 0};
    must(poll(&writable, 1, 500), "poll");
    send_token(fd);
    sent();
}

// A label that hangs on the main thread alone would miss this.
static void *dial_in_thread(void *unused)
{
    (void)unused;
    dial4("WIRE4");
    return NULL;
}

ATTACK(tcp_thread)
{
    pthread_t thread;
    must(-pthread_create(&thread, NULL, dial_in_thread, NULL), "pthread_create");
    pthread_join(thread, NULL);
    missing("a thread that ends");
}

// A connection that was allowed is dissolved, and its socket used again.
ATTACK(tcp_dissolved)
{
    struct sockaddr_in to = v4("PASSED4", "PORT");
    struct sockaddr_in next = v4("WIRE4", "PORT");
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    int fd = tcp4();
    connect_to(fd, &to, sizeof to);
    must(connect(fd, &none, sizeof none), "dissolve");
    connect_to(fd, &next, sizeof next);
    send_token(fd);
    sent();
}

ATTACK(mptcp)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    int fd = open_socket(AF_INET, SOCK_STREAM, 262);
    connect_to(fd, &to, sizeof to);
    send_token(fd);
    sent();
}

ATTACK(mptcp_v6)
{
    struct sockaddr_in6 to = v6("WIRE6", "PORT");
    int fd = open_socket(AF_INET6, SOCK_STREAM, 262);
    connect_to(fd, &to, sizeof to);
    send_token(fd);
    sent();
}


// What a tool would ask of a forward proxy that some other account runs on this host.
ATTACK(forward_proxy)
{
    struct sockaddr_in to = v4("LO4", "PORT");
    int fd = tcp4();
    connect_to(fd, &to, sizeof to);
    must((int)dprintf(fd, "CONNECT %s.example:443 HTTP/1.1\r\n\r\n", token()), "send");
    sent();
}

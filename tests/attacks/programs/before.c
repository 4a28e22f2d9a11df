// Sockets that were there before the enforcement: the runner starts the agent between `ready` and its word.
#include "attack.h"
#include <pthread.h>
#include <sched.h>

ATTACK(before_tcp)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    int fd = tcp4();
    connect_to(fd, &to, sizeof to);
    say("ready");
    wait_for_go();
    send_token(fd);
    sent();
}

ATTACK(before_tcp_loopback)
{
    struct sockaddr_in to = v4("LO4", "PORT");
    int fd = tcp4();
    connect_to(fd, &to, sizeof to);
    say("ready");
    wait_for_go();
    send_token(fd);
    sent();
}

ATTACK(before_tcp_unconnected)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    int fd = tcp4();
    say("ready");
    wait_for_go();
    connect_to(fd, &to, sizeof to);
    send_token(fd);
    sent();
}

ATTACK(before_udp)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    int fd = udp4();
    say("ready");
    wait_for_go();
    send_token_to(fd, &to, sizeof to);
    sent();
}

ATTACK(before_udp_connected)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    int fd = udp4();
    connect_to(fd, &to, sizeof to);
    say("ready");
    wait_for_go();
    send_token(fd);
    sent();
}

// It waits to be called, and then talks back.
ATTACK(before_listener)
{
    struct sockaddr_in here = {.sin_family = AF_INET};
    socklen_t length = sizeof here;
    char line[32];
    int fd = tcp4();
    must(bind(fd, (void *)&here, sizeof here), "bind");
    must(listen(fd, 1), "listen");
    must(getsockname(fd, (void *)&here, &length), "getsockname");
    say("ready");
    wait_for_go();
    snprintf(line, sizeof line, "call %d", ntohs(here.sin_port));
    say(line);
    send_token(must(accept(fd, NULL, NULL), "accept"));
    sent();
}

static pthread_t first;

// Of a thread that has its descriptors for itself: the process's own list shows none of them.
static void *alone(void *unused)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    (void)unused;
    must(unshare(CLONE_FILES), "unshare");
    int fd = tcp4();
    connect_to(fd, &to, sizeof to);
    say("ready");
    wait_for_go();
    send_token(fd);
    sent();
}

ATTACK(before_thread)
{
    pthread_t thread;
    errno = pthread_create(&thread, NULL, alone, NULL);
    if (errno)
        stopped("pthread_create");
    pthread_join(thread, NULL);
}

static int left;

static void *heir(void *unused)
{
    (void)unused;
    pthread_join(first, NULL);
    say("ready");
    wait_for_go();
    send_token(left);
    sent();
}

// Of a process whose first thread has ended: what is asked of the process is asked of that one.
ATTACK(before_first_thread_ended)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    pthread_t thread;
    left = tcp4();
    connect_to(left, &to, sizeof to);
    first = pthread_self();
    errno = pthread_create(&thread, NULL, heir, NULL);
    if (errno)
        stopped("pthread_create");
    pthread_exit(NULL);
}

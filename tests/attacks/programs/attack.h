// What the attack programs share. Each attack is a small program of its own, chosen by name; where it aims, and as
// whom it runs, the runner says in the environment (see src/run.rs).
#pragma once
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

struct attack {
    const char *name;
    // Runs as root before the process becomes the attacker: what an ungoverned process did earlier.
    void (*prepare)(void);
    // Runs as the attacker.
    void (*run)(void);
};

// Defines an attack: ATTACK(name) { ... }, or ATTACK_AFTER(name, prepare) { ... }.
#define ATTACK(id) ATTACK_AFTER(id, NULL)
#define ATTACK_AFTER(id, before)                                                                                       \
    static void run_##id(void);                                                                                        \
    static const struct attack attack_##id = {#id, before, run_##id};                                                  \
    static const struct attack *const entry_##id __attribute__((section("attacks"), used)) = &attack_##id;             \
    static void run_##id(void)

// How an attack ends: each prints one line and exits. `sent` is believed only if the canary agrees; `took` (something
// that it must not have, seen without the canary) and `stopped` by whom it concerns.
_Noreturn void sent(void);
_Noreturn void took(const char *what);
_Noreturn void stopped(const char *step);
_Noreturn void missing(const char *what);

// The value or, if it is negative, `stopped`.
int must(int result, const char *step);

// Settings of this run. An attack that needs one that isn't there is `missing`.
const char *setting(const char *name);
int number(const char *name);
const char *token(void);

// An address and port by the names of their settings.
struct sockaddr_in v4(const char *host, const char *port);
struct sockaddr_in6 v6(const char *host, const char *port);
// The IPv4 address in its IPv6-mapped form.
struct sockaddr_in6 mapped(const char *host, const char *port);
// The interface that leads to the canary.
int interface(void);

// A socket whose calls give up after half a second.
int open_socket(int family, int type, int protocol);
int tcp4(void);
int tcp6(void);
int udp4(void);
int udp6(void);

void connect_to(int fd, const void *address, socklen_t length);
void send_token(int fd);
void send_token_to(int fd, const void *address, socklen_t length);

// Says a line to the runner, and waits for its answer.
void say(const char *line);
void wait_for_go(void);

// Starts an ungoverned process with the attacker's user id; returns when `ready` was written by it.
pid_t helper(void (*body)(int ready));
// What helpers do in the end: pass on to the canary what somebody made them pass on.
void forward(const char *data, size_t length);

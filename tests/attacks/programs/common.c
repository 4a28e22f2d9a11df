#include "attack.h"

_Noreturn static void end(int code)
{
    fflush(stdout);
    _exit(code);
}

_Noreturn void sent(void)
{
    puts("sent");
    end(0);
}

_Noreturn void took(const char *what)
{
    printf("took %s\n", what);
    end(0);
}

_Noreturn void stopped(const char *step)
{
    printf("stopped %s %s\n", step, strerrorname_np(errno));
    end(0);
}

_Noreturn void missing(const char *what)
{
    printf("missing %s\n", what);
    end(0);
}

int must(int result, const char *step)
{
    if (result < 0)
        stopped(step);
    return result;
}

const char *setting(const char *name)
{
    const char *value = getenv(name);
    if (!value)
        missing(name);
    return value;
}

int number(const char *name)
{
    return atoi(setting(name));
}

const char *token(void)
{
    return setting("TOKEN");
}

struct sockaddr_in v4(const char *host, const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)number(port))};
    if (inet_pton(AF_INET, setting(host), &address.sin_addr) != 1)
        missing(host);
    return address;
}

struct sockaddr_in6 v6(const char *host, const char *port)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)number(port))};
    if (inet_pton(AF_INET6, setting(host), &address.sin6_addr) != 1)
        missing(host);
    return address;
}

struct sockaddr_in6 mapped(const char *host, const char *port)
{
    struct sockaddr_in plain = v4(host, port);
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = plain.sin_port};
    memset(address.sin6_addr.s6_addr + 10, 0xff, 2);
    memcpy(address.sin6_addr.s6_addr + 12, &plain.sin_addr, 4);
    return address;
}

int interface(void)
{
    int index = (int)if_nametoindex(setting("INTERFACE"));
    if (!index)
        missing("the interface");
    return index;
}

int open_socket(int family, int type, int protocol)
{
    int fd = must(socket(family, type, protocol), "socket");
    struct timeval half = {0, 500000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &half, sizeof half);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &half, sizeof half);
    return fd;
}

int tcp4(void)
{
    return open_socket(AF_INET, SOCK_STREAM, 0);
}

int tcp6(void)
{
    return open_socket(AF_INET6, SOCK_STREAM, 0);
}

int udp4(void)
{
    return open_socket(AF_INET, SOCK_DGRAM, 0);
}

int udp6(void)
{
    return open_socket(AF_INET6, SOCK_DGRAM, 0);
}

void connect_to(int fd, const void *address, socklen_t length)
{
    must(connect(fd, address, length), "connect");
}

void send_token(int fd)
{
    must((int)send(fd, token(), strlen(token()), MSG_NOSIGNAL), "send");
}

void send_token_to(int fd, const void *address, socklen_t length)
{
    must((int)sendto(fd, token(), strlen(token()), MSG_NOSIGNAL, address, length), "sendto");
}

void say(const char *line)
{
    puts(line);
    fflush(stdout);
}

void wait_for_go(void)
{
    char byte;
    if (read(STDIN_FILENO, &byte, 1) != 1)
        missing("a word from the runner");
}

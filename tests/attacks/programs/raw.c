// Sockets below the transport layer. Most need CAP_NET_RAW, which containers have by default.
#include "attack.h"
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/udp.h>

static uint16_t checksum(const void *data, size_t length)
{
    uint32_t sum = 0;
    const uint8_t *bytes = data;
    for (size_t i = 0; i + 1 < length; i += 2)
        sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
    if (length & 1)
        sum += (uint32_t)bytes[length - 1] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~sum);
}

// An echo request with the token as its data.
static size_t echo(uint8_t *out)
{
    struct icmphdr *header = (void *)out;
    size_t length = sizeof *header + strlen(token());
    memset(out, 0, length);
    header->type = ICMP_ECHO;
    memcpy(out + sizeof *header, token(), strlen(token()));
    header->checksum = checksum(out, length);
    return length;
}

// A whole IPv4 packet with a datagram in it.
static size_t packet(uint8_t *out)
{
    struct sockaddr_in from = v4("NEAR4", "PORT"), to = v4("WIRE4", "PORT");
    struct iphdr *ip = (void *)out;
    struct udphdr *udp = (void *)(out + sizeof *ip);
    size_t length = sizeof *ip + sizeof *udp + strlen(token());
    memset(out, 0, sizeof *ip + sizeof *udp);
    *ip = (struct iphdr){.version = 4, .ihl = 5, .tot_len = htons((uint16_t)length), .ttl = 64, .protocol = IPPROTO_UDP};
    ip->saddr = from.sin_addr.s_addr;
    ip->daddr = to.sin_addr.s_addr;
    ip->check = checksum(ip, sizeof *ip);
    udp->source = udp->dest = to.sin_port;
    udp->len = htons((uint16_t)(sizeof *udp + strlen(token())));
    memcpy(udp + 1, token(), strlen(token()));
    return length;
}

ATTACK(raw_icmp)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    uint8_t message[128];
    size_t length = echo(message);
    to.sin_port = 0;
    int fd = open_socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    must((int)sendto(fd, message, length, 0, (void *)&to, sizeof to), "sendto");
    sent();
}

ATTACK(raw_icmp_v6)
{
    struct sockaddr_in6 to = v6("WIRE6", "PORT");
    uint8_t message[128];
    size_t length = echo(message);
    message[0] = ICMP6_ECHO_REQUEST;
    to.sin6_port = 0;
    int fd = open_socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
    must((int)sendto(fd, message, length, 0, (void *)&to, sizeof to), "sendto");
    sent();
}

ATTACK(raw_header)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    uint8_t message[128];
    size_t length = packet(message);
    to.sin_port = 0;
    int fd = open_socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    must((int)sendto(fd, message, length, 0, (void *)&to, sizeof to), "sendto");
    sent();
}

// The packet socket skips the IP layer and every hook of it.
static void send_frame(int type)
{
    uint8_t frame[192] = {0};
    struct sockaddr_ll to = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_IP),
                             .sll_ifindex = interface(),
                             .sll_halen = 6};
    memset(to.sll_addr, 0xff, 6);
    memset(frame, 0xff, 6);
    frame[12] = 8;
    size_t header = type == SOCK_RAW ? 14 : 0, length = header + packet(frame + header);
    int fd = open_socket(AF_PACKET, type, htons(ETH_P_IP));
    must((int)sendto(fd, frame, length, 0, (void *)&to, sizeof to), "sendto");
    sent();
}

ATTACK(packet_raw) { send_frame(SOCK_RAW); }
ATTACK(packet_cooked) { send_frame(SOCK_DGRAM); }

ATTACK(xdp)
{
    open_socket(44 /* AF_XDP */, SOCK_RAW, 0);
    took("an XDP socket");
}

// An ICMP datagram socket, which ping_group_range may allow to everybody.
ATTACK(ping)
{
    struct sockaddr_in to = v4("WIRE4", "PORT");
    uint8_t message[128];
    size_t length = echo(message);
    to.sin_port = 0;
    int fd = open_socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    must((int)sendto(fd, message, length, 0, (void *)&to, sizeof to), "sendto");
    sent();
}

ATTACK(ping_v6)
{
    struct sockaddr_in6 to = v6("WIRE6", "PORT");
    uint8_t message[128];
    size_t length = echo(message);
    message[0] = ICMP6_ECHO_REQUEST;
    to.sin6_port = 0;
    int fd = open_socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6);
    must((int)sendto(fd, message, length, 0, (void *)&to, sizeof to), "sendto");
    sent();
}

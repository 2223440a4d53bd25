/* Datagrams and nothing else: what SRT's payload costs a bare loop.
 *
 *   udp_raw receive --listen host:port [--tick-us 2000]
 *   udp_raw send --connect host:port --flows 50 --bits 2e6 [--gso 1] [--tick-us 1000]
 *
 * The receiver reads 64 datagrams a call, with GRO, when it is woken or on a tick. A datagram is 1,332
 * bytes: an SRT header and seven TS packets. `bytes` counts the TS packets only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/udp.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "common.h"

enum { K_DATAGRAM = 1332, K_PAYLOAD = 1316, K_BATCH = 44, K_MAX_FLOWS = 1024 };

static atomic_int_fast64_t datagrams, system_calls;

static void tell_figures(void)
{
    tell("{\"t_us\": %lld, \"cpu_us\": %lld, \"bytes\": %lld, \"pkts\": %lld, \"system_calls\": %lld}",
         (long long)now_us(), (long long)cpu_us(), (long long)datagrams * K_PAYLOAD, (long long)datagrams,
         (long long)system_calls);
}

static struct sockaddr_in address_of(const char *text)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    char host[64] = "";
    const char *colon = text ? strrchr(text, ':') : NULL;
    if (!colon || (size_t)(colon - text) >= sizeof host)
        die("host:port is needed");
    memcpy(host, text, (size_t)(colon - text));
    a.sin_port = htons((uint16_t)atoi(colon + 1));
    inet_pton(AF_INET, host, &a.sin_addr);
    return a;
}

static int make_socket(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0), size = 8 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    return fd;
}

static void receive(int argc, char **argv)
{
    enum { K_MESSAGES = 64, K_ROOM = 65536 };
    static uint8_t room[K_MESSAGES][K_ROOM];
    static struct mmsghdr messages[K_MESSAGES];
    static struct iovec places[K_MESSAGES];
    struct sockaddr_in a = address_of(option(argc, argv, "--listen", NULL));
    int64_t tick_us = (int64_t)number(argc, argv, "--tick-us", 0), next_us = now_us();
    int fd = make_socket(), on = 1;
    socklen_t length = sizeof a;
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0)
        die("bind: %s", strerror(errno));
    setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof on);
    getsockname(fd, (struct sockaddr *)&a, &length);
    for (int n = 0; n < K_MESSAGES; n++) {
        places[n] = (struct iovec){room[n], K_ROOM};
        messages[n].msg_hdr = (struct msghdr){.msg_iov = &places[n], .msg_iovlen = 1};
    }
    tell("{\"port\": %d}", ntohs(a.sin_port));
    for (;;) {
        int got = recvmmsg(fd, messages, K_MESSAGES, tick_us ? MSG_DONTWAIT : MSG_WAITFORONE, NULL);
        system_calls++;
        for (int n = 0; n < got; n++)
            datagrams += (messages[n].msg_len + K_DATAGRAM - 1) / K_DATAGRAM;
        if (got < K_MESSAGES && tick_us) {
            next_us += tick_us;
            sleep_until_us(next_us = next_us < now_us() ? now_us() : next_us);
        }
    }
}

static void send_paced(int argc, char **argv)
{
    static uint8_t data[K_BATCH * K_DATAGRAM];
    int sockets[K_MAX_FLOWS];
    int flows = (int)number(argc, argv, "--flows", 1), gso = (int)number(argc, argv, "--gso", 1);
    int64_t tick_us = (int64_t)number(argc, argv, "--tick-us", 1000), start_us = now_us(), next_us = start_us;
    double pkts_a_us = number(argc, argv, "--bits", 2e6) / 8e6 / K_PAYLOAD;
    struct sockaddr_in a = address_of(option(argc, argv, "--connect", NULL));
    int64_t sent = 0;
    for (int n = 0; n < flows; n++) {
        int size = K_DATAGRAM;
        sockets[n] = make_socket();
        if (connect(sockets[n], (struct sockaddr *)&a, sizeof a) < 0)
            die("connect: %s", strerror(errno));
        if (gso)
            setsockopt(sockets[n], SOL_UDP, UDP_SEGMENT, &size, sizeof size);
    }
    tell("{\"flows\": %d}", flows);
    for (;;) {
        sleep_until_us(next_us += tick_us);
        int64_t due = (int64_t)((double)(now_us() - start_us) * pkts_a_us);
        while (sent < due) {
            int64_t batch = gso ? (due - sent < K_BATCH ? due - sent : K_BATCH) : 1;
            for (int n = 0; n < flows; n++) {
                if (send(sockets[n], data, (size_t)batch * K_DATAGRAM, 0) > 0)
                    datagrams += batch;
                system_calls++;
            }
            sent += batch;
        }
    }
}

int main(int argc, char **argv)
{
    begin_obeying(tell_figures, NULL);
    if (argc > 1 && strcmp(argv[1], "receive") == 0)
        receive(argc, argv);
    if (argc > 1 && strcmp(argv[1], "send") == 0)
        send_paced(argc, argv);
    die("udp_raw send or udp_raw receive");
}

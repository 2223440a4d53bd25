/* libsrt, as both SRT load programs use it: sockets of live mode with the same options on either side.
 */
#ifndef FLUX_PERF_SRT_H
#define FLUX_PERF_SRT_H

#include <arpa/inet.h>
#include <srt/srt.h>
#include <stdatomic.h>

#include "common.h"

enum { K_MAX_FLOWS = 1024 };

static SRTSOCKET flows[K_MAX_FLOWS];
static int flow_count;
static atomic_int_fast64_t payload_bytes, payload_pkts, refused_pkts, lost_flows;

static inline void set_int(SRTSOCKET s, SRT_SOCKOPT name, int value)
{
    if (srt_setsockopt(s, 0, name, &value, sizeof value) < 0)
        die("SRT option %d: %s", (int)name, srt_getlasterror_str());
}

static inline SRTSOCKET make_socket(int latency_ms, int wide, const char *passphrase)
{
    SRTSOCKET s = srt_create_socket();
    int64_t unlimited = -1;
    set_int(s, SRTO_LATENCY, latency_ms);
    srt_setsockopt(s, 0, SRTO_MAXBW, &unlimited, sizeof unlimited);
    if (*passphrase) {
        set_int(s, SRTO_PBKEYLEN, 16);
        if (srt_setsockopt(s, 0, SRTO_PASSPHRASE, passphrase, (int)strlen(passphrase)) < 0)
            die("SRT passphrase: %s", srt_getlasterror_str());
    }
    if (wide) { /* one fast flow: room for its latency's worth of packets and more */
        set_int(s, SRTO_FC, 65536);
        set_int(s, SRTO_SNDBUF, 65536 * 1456);
        set_int(s, SRTO_RCVBUF, 65536 * 1456);
        set_int(s, SRTO_UDP_RCVBUF, 8 << 20);
        set_int(s, SRTO_UDP_SNDBUF, 8 << 20);
    }
    return s;
}

static inline struct sockaddr_in address_of(const char *text)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    char host[64] = "";
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof host)
        die("%s is no host:port", text);
    memcpy(host, text, (size_t)(colon - text));
    a.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
        die("%s is no IPv4 address", host);
    return a;
}

/* Connects or accepts `count` flows; `%d` in a stream id becomes the flow's number. */
static inline void open_flows(int argc, char **argv, int count)
{
    const char *target = option(argc, argv, "--connect", NULL), *local = option(argc, argv, "--listen", NULL);
    const char *stream_id = option(argc, argv, "--streamid", "");
    const char *passphrase = option(argc, argv, "--passphrase", "");
    int latency_ms = (int)number(argc, argv, "--latency-ms", 120);
    int wide = (int)number(argc, argv, "--wide", 0);
    if (count > K_MAX_FLOWS)
        die("at most %d flows", K_MAX_FLOWS);
    if (!target == !local)
        die("one of --connect and --listen host:port is needed");
    struct sockaddr_in a = address_of(target ? target : local);
    if (target) {
        for (int n = 0; n < count; n++) {
            SRTSOCKET s = make_socket(latency_ms, wide, passphrase);
            const char *mark = strstr(stream_id, "%d");
            char id[600];
            if (mark)
                snprintf(id, sizeof id, "%.*s%d%s", (int)(mark - stream_id), stream_id, n, mark + 2);
            else
                snprintf(id, sizeof id, "%s", stream_id);
            srt_setsockopt(s, 0, SRTO_STREAMID, id, (int)strlen(id));
            if (srt_connect(s, (struct sockaddr *)&a, sizeof a) < 0)
                die("SRT flow %d to %s: %s", n, target, srt_rejectreason_str(srt_getrejectreason(s)));
            flows[flow_count++] = s;
        }
        return;
    }
    SRTSOCKET listener = make_socket(latency_ms, wide, passphrase);
    int length = sizeof a;
    if (srt_bind(listener, (struct sockaddr *)&a, sizeof a) < 0 || srt_listen(listener, count) < 0)
        die("SRT on %s: %s", local, srt_getlasterror_str());
    srt_getsockname(listener, (struct sockaddr *)&a, &length);
    tell("{\"port\": %d}", ntohs(a.sin_port));
    while (flow_count < count) {
        SRTSOCKET s = srt_accept(listener, NULL, NULL);
        if (s == SRT_INVALID_SOCK)
            die("SRT accept: %s", srt_getlasterror_str());
        flows[flow_count++] = s;
    }
}

/* Tells the peers, which would else wait for their idle timeout. */
static inline void hang_up(void)
{
    for (int n = 0; n < flow_count; n++)
        srt_close(flows[n]);
}

static inline void tell_figures(void)
{
    int64_t lost = 0, dropped = 0, again = 0;
    for (int n = 0; n < flow_count; n++) {
        SRT_TRACEBSTATS stats;
        if (srt_bstats(flows[n], &stats, 0) < 0)
            continue;
        lost += stats.pktRcvLossTotal + stats.pktSndLossTotal;
        dropped += stats.pktSndDropTotal + stats.pktRcvDropTotal;
        again += stats.pktRetransTotal;
    }
    tell("{\"t_us\": %lld, \"cpu_us\": %lld, \"bytes\": %lld, \"pkts\": %lld, \"refused_pkts\": %lld, "
         "\"lost_pkts\": %lld, \"dropped_pkts\": %lld, \"retransmitted_pkts\": %lld, \"lost_flows\": %lld}",
         (long long)now_us(), (long long)cpu_us(), (long long)payload_bytes, (long long)payload_pkts,
         (long long)refused_pkts, (long long)lost, (long long)dropped, (long long)again,
         (long long)lost_flows);
}

#endif

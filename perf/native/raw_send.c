/* The raw limit of fan-out: bare send()s of the same bytes, at the same times, to the same number of sockets.
 *
 *   raw_send --trace FILE                   what `players --trace` wrote down, looped
 *   raw_send --frame-bytes 10000 --fps 25   FLV tags of its own, each with the time at which it was made
 *
 * A player that can't take all is given the rest with the next bytes. No HTTP is read: the answer comes
 * at once.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "common.h"
#include "trace.h"

enum { K_MAX_PLAYERS = 8192, K_RING = 1 << 20 };

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Type: video/x-flv\r\nConnection: close\r\n\r\n";

struct player {
    int fd;
    int64_t pos;
};

static struct player players[K_MAX_PLAYERS];
static int player_count, lost_count;
static int64_t sends;
static struct trace trace;

static void tell_figures(void)
{
    tell("{\"t_us\": %lld, \"cpu_us\": %lld, \"players\": %d, \"lost\": %d, \"sends\": %lld}",
         (long long)now_us(), (long long)cpu_us(), player_count, lost_count, (long long)sends);
}

static void accept_players(int listener, int64_t pos)
{
    int fd, on = 1;
    while (player_count < K_MAX_PLAYERS && (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0
            || (trace.header_bytes && send(fd, trace.data, trace.header_bytes, MSG_NOSIGNAL) < 0)) {
            close(fd);
            continue;
        }
        players[player_count++] = (struct player){fd, pos};
    }
}

static void wait_until(int listener, int64_t due_us, int64_t pos)
{
    struct pollfd watched = {listener, POLLIN, 0};
    int64_t left_us;
    while ((left_us = due_us - now_us()) > 0) {
        struct timespec t = {left_us / 1000000, left_us % 1000000 * 1000};
        if (ppoll(&watched, 1, &t, NULL) > 0)
            accept_players(listener, pos);
    }
}

/* `base` holds `size` bytes twice in a row; positions run on. */
static void sweep(const uint8_t *base, int64_t size, int64_t end)
{
    for (int n = 0; n < player_count; n++) {
        struct player *p = &players[n];
        ssize_t sent = send(p->fd, base + p->pos % size, (size_t)(end - p->pos), MSG_NOSIGNAL);
        sends++;
        if (sent > 0)
            p->pos += sent;
        if ((sent < 0 && errno != EAGAIN) || end - p->pos > size / 2) {
            close(p->fd);
            lost_count++;
            players[n--] = players[--player_count];
        }
    }
}

static void replay(int listener)
{
    int64_t size = (int64_t)trace.media_bytes, pos = 0, round_us = now_us();
    uint8_t *base = malloc(2 * trace.media_bytes);
    memcpy(base, trace.data + trace.header_bytes, trace.media_bytes);
    memcpy(base + size, base, trace.media_bytes);
    for (;;) {
        for (size_t n = 0; n < trace.chunks; n++) {
            wait_until(listener, round_us + trace.due_us[n], pos);
            pos += trace.length[n];
            sweep(base, size, pos);
        }
        round_us += trace.round_us;
    }
}

static void put_24(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 16);
    at[1] = (uint8_t)(value >> 8);
    at[2] = (uint8_t)value;
}

static void make_frames(int listener, uint32_t bytes, double fps)
{
    static uint8_t base[2 * K_RING], header[13] = {'F', 'L', 'V', 1, 1, 0, 0, 0, 9};
    trace.data = header;
    trace.header_bytes = sizeof header;
    uint32_t tag_bytes = 11 + bytes + 4;
    uint8_t *tag = calloc(1, tag_bytes);
    int64_t pos = 0, start_us = now_us();
    for (int64_t n = 1;; n++) {
        wait_until(listener, start_us + (int64_t)((double)n * 1e6 / fps), pos);
        uint32_t ms = (uint32_t)((double)n * 1e3 / fps);
        tag[0] = 9;
        put_24(tag + 1, bytes);
        put_24(tag + 4, ms);
        tag[7] = (uint8_t)(ms >> 24);
        tag[11] = n % 25 ? 0x27 : 0x17;
        tag[12] = 1;
        char stamp[K_STAMP_BYTES + 1];
        snprintf(stamp, sizeof stamp, K_STAMP_FORMAT, (unsigned long long)now_us());
        memcpy(tag + 16, stamp, K_STAMP_BYTES);
        put_24(tag + 12 + bytes, bytes + 11);
        for (uint32_t at = 0; at < tag_bytes; at++)
            base[(pos + at) % K_RING] = base[(pos + at) % K_RING + K_RING] = tag[at];
        pos += tag_bytes;
        sweep(base, K_RING, pos);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof a;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    const char *path = option(argc, argv, "--trace", NULL);
    if (bind(listener, (struct sockaddr *)&a, sizeof a) < 0 || listen(listener, 4096) < 0)
        die("listen: %s", strerror(errno));
    getsockname(listener, (struct sockaddr *)&a, &length);
    if (path)
        trace_load(&trace, path);
    tell("{\"port\": %d}", ntohs(a.sin_port));
    begin_obeying(tell_figures, NULL);
    if (path)
        replay(listener);
    uint32_t frame_bytes = (uint32_t)number(argc, argv, "--frame-bytes", 10000);
    make_frames(listener, frame_bytes, number(argc, argv, "--fps", 25));
}

/* Plays one HTTP-FLV stream many times over, and compares what every player gets, byte by byte.
 *
 *   players --port 8080 --path /live/bench.flv --players 1000 [--rate 1000] [--stamps 1]
 *           [--trace FILE --trace-s 8]
 *
 * The first player joins alone, and its bytes begin a log of the stream from its first media tag on.
 * Every other player's first media tag is looked up in that log; from there on each byte it gets must
 * be the log's, and who is ahead of the log lengthens it. So a lost, doubled or torn byte of anybody
 * shows. Commands: `discard` leaves the bytes of all players but the first in the kernel (MSG_TRUNC)
 * and only counts them, `verify` compares again: a player that lost or gained a byte meanwhile is out
 * of step then. `mark` tells the figures; `ready` is told once when nobody is behind any more.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "common.h"
#include "trace.h"

enum {
    K_MAX_PLAYERS = 16384,
    K_LOG = 64 << 20,         /* bytes of the stream that are kept */
    K_TAGS = 1 << 16,
    K_EARLY = 8 << 20,        /* bytes before a player's first media tag is found */
    K_SAMPLES = 8 << 20,
    K_JOIN_US = 8000000,      /* a player joins at a tag that is no older */
    K_SETTLED_US = 800000,    /* a player that has what the log had so long ago is not behind */
    K_HISTORY = 64,           /* of the log's end, one each 50 ms */
};

enum state { UNUSED, CONNECTING, HEAD, ALIGNING, FOLLOWING, GONE };

struct player {
    int fd;
    enum state state;
    int64_t begin_us, first_byte_us;
    int64_t pos;              /* in the log */
    uint64_t next_tag;
    uint8_t *early;
    uint32_t early_bytes, early_room;
    int mismatched;
};

struct tag {
    int64_t pos, end, arrival_us, stamp_us;
};

static struct player *players;
static struct tag *tags;
static uint64_t tag_count;
static uint8_t *log_bytes, *room;
static int64_t log_end, log_next_tag, history[K_HISTORY], history_us;
static int begun, wanted, discard, stamps, ready;
static int64_t received, verified, unverified, gone, mismatched;
static uint32_t *samples;
static size_t sample_count;
static const char *path;
static char request[512];
static struct sockaddr_in server;
static int epoll;

static struct trace trace;
static const char *trace_path;
static int64_t trace_start_pos = -1, trace_start_us, trace_last_pos, trace_limit_us;

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint32_t percentile(const uint32_t *sorted, size_t count, double part)
{
    return count ? sorted[(size_t)(part * (double)(count - 1))] : 0;
}

/* Copies out of the log, which is a ring. */
static void log_copy(int64_t pos, uint8_t *out, size_t n)
{
    size_t at = (size_t)(pos % K_LOG), first = n < K_LOG - at ? n : K_LOG - at;
    memcpy(out, log_bytes + at, first);
    memcpy(out + first, log_bytes, n - first);
}

static int log_equals(int64_t pos, const uint8_t *data, size_t n)
{
    size_t at = (size_t)(pos % K_LOG), first = n < K_LOG - at ? n : K_LOG - at;
    return memcmp(log_bytes + at, data, first) == 0 && memcmp(log_bytes, data + first, n - first) == 0;
}

static int64_t find_stamp(const struct tag *tag)
{
    uint8_t head[192];
    size_t n = (size_t)(tag->end - tag->pos) < sizeof head ? (size_t)(tag->end - tag->pos) : sizeof head;
    log_copy(tag->pos, head, n);
    uint8_t *at = memmem(head, n, K_STAMP_MAGIC, sizeof K_STAMP_MAGIC - 1);
    if (!at || at + K_STAMP_BYTES > head + n)
        return 0;
    char digits[17] = "";
    memcpy(digits, at + sizeof K_STAMP_MAGIC - 1, 16);
    return strtoll(digits, NULL, 16);
}

static void log_append(const uint8_t *data, size_t n, int64_t now)
{
    size_t at = (size_t)(log_end % K_LOG), first = n < K_LOG - at ? n : K_LOG - at;
    memcpy(log_bytes + at, data, first);
    memcpy(log_bytes, data + first, n - first);
    log_end += (int64_t)n;
    while (log_next_tag + 11 <= log_end) {
        uint8_t head[11];
        log_copy(log_next_tag, head, 11);
        struct tag tag = {log_next_tag, log_next_tag + 15 + (head[1] << 16 | head[2] << 8 | head[3]), now, 0};
        if (tag.end > log_end)
            return;
        if (stamps && head[0] == 9)
            tag.stamp_us = find_stamp(&tag);
        tags[tag_count++ % K_TAGS] = tag;
        log_next_tag = tag.end;
    }
}

static void drop(struct player *p)
{
    close(p->fd);
    free(p->early);
    p->early = NULL;
    p->state = GONE;
    gone++;
}

static void follow(struct player *p, const uint8_t *data, size_t n, int64_t now)
{
    int64_t old = log_end - p->pos;
    size_t common = old > 0 ? ((size_t)old < n ? (size_t)old : n) : 0;
    if (old > K_LOG / 2)
        unverified += (int64_t)common;
    else if (common && !log_equals(p->pos, data, common)) {
        if (!p->mismatched)
            mismatched++;
        p->mismatched = 1;
    } else
        verified += (int64_t)common;
    if (n > common) {
        if (old >= 0) {
            log_append(data + common, n - common, now);
            verified += (int64_t)(n - common);
        } else
            unverified += (int64_t)n;
    }
}

static void moved(struct player *p, size_t n, int64_t now)
{
    p->pos += (int64_t)n;
    if (!stamps)
        return;
    for (; p->next_tag < tag_count && tags[p->next_tag % K_TAGS].end <= p->pos; p->next_tag++) {
        int64_t stamp = tags[p->next_tag % K_TAGS].stamp_us;
        if (stamp && sample_count < K_SAMPLES)
            samples[sample_count++] = (uint32_t)(now - stamp);
    }
}

/* Offset of the first media tag after FLV header, metadata and sequence headers; -1 when it has not come. */
static int64_t first_media(const uint8_t *data, size_t n)
{
    size_t at = 13;
    if (n >= 3 && memcmp(data, "FLV", 3) != 0)
        die("%s is no FLV", path);
    while (at + 13 <= n) {
        const uint8_t *tag = data + at, *body = tag + 11;
        int config = tag[0] == 18;
        if (tag[0] == 9) /* AVC's packet type 0, or Enhanced FLV's PacketTypeSequenceStart */
            config = body[0] & 0x80 ? (body[0] & 15) == 0 : body[1] == 0;
        if (tag[0] == 8)
            config = body[0] >> 4 == 10 && body[1] == 0;
        if (!config)
            return (int64_t)at;
        at += 15 + (size_t)(tag[1] << 16 | tag[2] << 8 | tag[3]);
    }
    return -1;
}

static void align(struct player *p, int64_t now)
{
    int64_t at = first_media(p->early, p->early_bytes);
    if (at < 0)
        return;
    uint8_t *data = p->early + at;
    size_t n = p->early_bytes - (size_t)at;
    if (p == players) {
        trace.header_bytes = (uint64_t)at;
        trace.data = malloc((size_t)at);
        memcpy(trace.data, p->early, (size_t)at);
    } else {
        size_t whole = 15 + (size_t)(data[1] << 16 | data[2] << 8 | data[3]);
        uint64_t k = tag_count, found = UINT64_MAX;
        while (k-- > 0 && tag_count - k < K_TAGS && now - tags[k % K_TAGS].arrival_us < K_JOIN_US)
            if (log_equals(tags[k % K_TAGS].pos, data, n < whole ? n : whole)) {
                found = k;
                break;
            }
        if (found == UINT64_MAX)
            return;
        p->pos = tags[found % K_TAGS].pos;
        p->next_tag = found;
    }
    p->state = FOLLOWING;
    follow(p, data, n, now);
    moved(p, n, now);
    free(p->early);
    p->early = NULL;
}

/* HTTP's answer, then all until the first media tag is found in the log, is kept in p->early. */
static void take_early(struct player *p, const uint8_t *data, size_t n, int64_t now)
{
    if (p->early_bytes + n > p->early_room) {
        p->early_room = (uint32_t)(2 * (p->early_bytes + n));
        p->early = realloc(p->early, p->early_room);
    }
    memcpy(p->early + p->early_bytes, data, n);
    p->early_bytes += (uint32_t)n;
    if (p->state == HEAD) {
        uint8_t *end = memmem(p->early, p->early_bytes, "\r\n\r\n", 4);
        if (!end)
            return;
        if (memcmp(p->early, "HTTP/1.1 200", 12) != 0)
            die("%s: %.*s", path, (int)(end - p->early), p->early);
        size_t head = (size_t)(end + 4 - p->early);
        p->early_bytes -= (uint32_t)head;
        memmove(p->early, p->early + head, p->early_bytes);
        received -= (int64_t)head;
        p->state = ALIGNING;
    }
    if (p->early_bytes && !p->first_byte_us)
        p->first_byte_us = now;
    align(p, now);
    if (p->state == ALIGNING && p->early_bytes > K_EARLY) {
        mismatched++;
        drop(p);
    }
}

static void note_trace(int64_t now)
{
    if (trace_start_pos < 0 || log_next_tag == trace_last_pos)
        return;
    if (now - trace_start_us >= trace_limit_us) {
        trace.media_bytes = (uint64_t)(trace_last_pos - trace_start_pos);
        trace.round_us = (uint64_t)(now - trace_start_us);
        trace.data = realloc(trace.data, trace.header_bytes + trace.media_bytes);
        log_copy(trace_start_pos, trace.data + trace.header_bytes, trace.media_bytes);
        trace_save(&trace, trace_path);
        tell("{\"trace\": \"%s\", \"chunks\": %llu, \"bits_a_second\": %.0f}", trace_path,
             (unsigned long long)trace.chunks, (double)trace.media_bytes * 8e6 / (double)trace.round_us);
        trace_start_pos = -1;
        return;
    }
    if (trace.chunks % 1024 == 0) {
        trace.due_us = realloc(trace.due_us, (trace.chunks + 1024) * 8);
        trace.length = realloc(trace.length, (trace.chunks + 1024) * 8);
    }
    trace.due_us[trace.chunks] = now - trace_start_us;
    trace.length[trace.chunks++] = (uint64_t)(log_next_tag - trace_last_pos);
    trace_last_pos = log_next_tag;
}

static void take(struct player *p)
{
    int skip = discard && p->state == FOLLOWING && p != players;
    ssize_t n = recv(p->fd, skip ? NULL : room, 1 << 18, skip ? MSG_TRUNC : 0);
    int64_t now = now_us();
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            drop(p);
        return;
    }
    received += n;
    if (p->state == FOLLOWING) {
        if (!skip)
            follow(p, room, (size_t)n, now);
        moved(p, (size_t)n, now);
    } else
        take_early(p, room, (size_t)n, now);
    if (p == players && trace_path)
        note_trace(now);
}

static void begin(struct player *p)
{
    struct epoll_event event = {EPOLLOUT, {.ptr = p}};
    int on = 1;
    p->begin_us = now_us();
    p->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (p->fd < 0 || (connect(p->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS))
        die("connect: %s", strerror(errno));
    setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    p->state = CONNECTING;
    epoll_ctl(epoll, EPOLL_CTL_ADD, p->fd, &event);
}

static void ask(struct player *p)
{
    struct epoll_event event = {EPOLLIN, {.ptr = p}};
    if (send(p->fd, request, strlen(request), MSG_NOSIGNAL) < 0) {
        drop(p);
        return;
    }
    p->state = HEAD;
    epoll_ctl(epoll, EPOLL_CTL_MOD, p->fd, &event);
}

/* The log's end K_SETTLED_US ago; call it often. */
static int64_t settled_pos(int64_t now)
{
    while (history_us + 50000 <= now) {
        history_us += 50000;
        history[history_us / 50000 % K_HISTORY] = log_end;
    }
    return history[(history_us - K_SETTLED_US) / 50000 % K_HISTORY];
}

static int behind_count(int64_t now)
{
    int64_t settled = settled_pos(now);
    int behind = 0;
    for (int n = 0; n < begun; n++)
        behind += players[n].state != GONE && (players[n].state != FOLLOWING || players[n].pos < settled);
    return behind;
}

static void tell_ready(void)
{
    uint32_t *waits = malloc(4 * (size_t)wanted);
    size_t count = 0;
    for (int n = 1; n < wanted; n++)
        if (players[n].first_byte_us)
            waits[count++] = (uint32_t)(players[n].first_byte_us - players[n].begin_us);
    qsort(waits, count, 4, ascending);
    tell("{\"ready\": %d, \"gone\": %lld, \"first_byte_p50_us\": %u, \"first_byte_p95_us\": %u, "
         "\"first_byte_max_us\": %u}",
         wanted, (long long)gone, percentile(waits, count, 0.5), percentile(waits, count, 0.95),
         percentile(waits, count, 1));
    free(waits);
}

static void tell_figures(void)
{
    int64_t now = now_us();
    qsort(samples, sample_count, 4, ascending);
    tell("{\"t_us\": %lld, \"cpu_us\": %lld, \"bytes\": %lld, \"verified\": %lld, \"unverified\": %lld, "
         "\"players\": %lld, \"gone\": %lld, \"mismatched\": %lld, \"behind\": %d, \"log\": %lld, "
         "\"tags\": %llu, \"samples\": %zu, \"p50_us\": %u, \"p99_us\": %u, "
         "\"max_us\": %u, \"min_us\": %u}",
         (long long)now, (long long)cpu_us(), (long long)received, (long long)verified, (long long)unverified,
         (long long)(begun - gone), (long long)gone, (long long)mismatched, behind_count(now),
         (long long)log_end,
         (unsigned long long)tag_count, sample_count, percentile(samples, sample_count, 0.5),
         percentile(samples, sample_count, 0.99), percentile(samples, sample_count, 1),
         percentile(samples, sample_count, 0));
    sample_count = 0;
}

static void obey(void)
{
    char line[256];
    ssize_t n = read(0, line, sizeof line - 1);
    if (n <= 0)
        exit(0);
    line[n] = 0;
    for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n")) {
        if (strcmp(word, "stop") == 0)
            exit(0);
        else if (strcmp(word, "mark") == 0)
            tell_figures();
        else if (strcmp(word, "discard") == 0)
            discard = 1;
        else if (strcmp(word, "verify") == 0)
            discard = 0;
        else
            die("players: no command %s", word);
    }
}

int main(int argc, char **argv)
{
    struct epoll_event events[256], input = {EPOLLIN, {.ptr = NULL}};
    double rate = number(argc, argv, "--rate", 1000);
    int64_t ramp_us = 0, checked_us = 0;
    path = option(argc, argv, "--path", "/");
    wanted = (int)number(argc, argv, "--players", 1);
    stamps = (int)number(argc, argv, "--stamps", 0);
    trace_path = option(argc, argv, "--trace", NULL);
    trace_limit_us = (int64_t)(number(argc, argv, "--trace-s", 8) * 1e6);
    if (wanted < 1 || wanted > K_MAX_PLAYERS)
        die("1 to %d players", K_MAX_PLAYERS);
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)number(argc, argv, "--port", 8080));
    inet_pton(AF_INET, option(argc, argv, "--host", "127.0.0.1"), &server.sin_addr);
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: bench\r\n\r\n", path);
    players = calloc((size_t)wanted, sizeof *players);
    tags = calloc(K_TAGS, sizeof *tags);
    log_bytes = malloc(K_LOG);
    room = malloc(1 << 18);
    samples = stamps ? malloc(4 * (size_t)K_SAMPLES) : NULL;
    epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &input);
    begin(&players[begun++]);
    for (;;) {
        int joining = begun < wanted;
        int count = epoll_wait(epoll, events, 256, joining ? 1 : 50);
        for (int n = 0; n < count; n++) {
            struct player *p = events[n].data.ptr;
            if (!p)
                obey();
            else if (p->state == CONNECTING)
                ask(p);
            else if (p->state != GONE)
                take(p);
        }
        int64_t now = now_us();
        if (joining && tag_count > 0) {
            ramp_us = ramp_us ? ramp_us : now - (int64_t)(begun * 1e6 / rate);
            while (begun < wanted && (double)(now - ramp_us) * rate / 1e6 >= begun)
                begin(&players[begun++]);
        }
        settled_pos(now);
        if (!ready && begun == wanted && now - checked_us > 50000) {
            checked_us = now;
            ready = now - players[begun - 1].begin_us > K_SETTLED_US + 200000 && behind_count(now) == 0;
            if (ready) {
                tell_ready();
                if (trace_path) {
                    trace_start_pos = trace_last_pos = log_next_tag;
                    trace_start_us = now;
                }
            }
        }
    }
}

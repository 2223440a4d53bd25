/* Publishes over SRT an H.264 stream whose every frame says when it was made.
 *
 *   stamp_send --connect host:port --streamid publish:live/bench
 *              [--fps 25] [--frame-bytes 10000] [--latency-ms 120]
 *
 * Parameter sets are those of a 720p stream; slices hold a stamp (trace.h) and no picture. As encoders
 * do, a frame's PES says no length and its last packet is stuffed; the frame goes out whole, at once.
 * ISO/IEC 13818-1: 2.4.3.2 packets, 2.4.3.6 PES, 2.4.4 PAT and PMT.
 */
#include "srt.h"
#include "trace.h"

enum { K_TS = 188, K_PID_PMT = 0x1000, K_PID_VIDEO = 0x100, K_HEADER_ROOM = 128 };

static const uint8_t sps[] = {0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xec, 0x04, 0x40, 0x00,
                              0x00, 0x03, 0x00, 0x40, 0x00, 0x00, 0x0c, 0x83, 0xc6, 0x0c, 0xa8};
static const uint8_t pps[] = {0x68, 0xce, 0x0f, 0xc8};
static const uint8_t aud[] = {0x09, 0xf0};
static const uint8_t key_slice[] = {0x65, 0x88, 0x84, 0x3a}, slice[] = {0x41, 0x9a, 0x24, 0x6c};

static uint8_t continuity[8192];
static uint8_t *out;              /* packets of the frame being made */
static size_t out_bytes;

static uint32_t crc32(const uint8_t *data, size_t n)
{
    uint32_t crc = 0xFFFFFFFF;
    while (n--) {
        crc ^= (uint32_t)*data++ << 24;
        for (int bit = 0; bit < 8; bit++)
            crc = crc << 1 ^ (crc >> 31 ? 0x04C11DB7 : 0);
    }
    return crc;
}

/* One packet with as much of `data` as fits; gives how much. pcr: 90 kHz, or negative: none. */
static size_t put_packet(int pid, int start, const uint8_t *data, size_t n, int64_t pcr)
{
    uint8_t *p = out + out_bytes;
    size_t field = pcr >= 0 ? 8 : 0, room = K_TS - 4 - field, used = n < room ? n : room;
    if (used < room)
        field += room - used;
    p[0] = 0x47;
    p[1] = (uint8_t)((start ? 0x40 : 0) | pid >> 8);
    p[2] = (uint8_t)pid;
    p[3] = (uint8_t)((field ? 0x30 : 0x10) | (continuity[pid]++ & 15));
    if (field) {
        memset(p + 4, 0xFF, field);
        p[4] = (uint8_t)(field - 1);
        if (field > 1)
            p[5] = pcr >= 0 ? 0x10 : 0;
        if (pcr >= 0)
            memcpy(p + 6, (uint8_t[]){(uint8_t)(pcr >> 25), (uint8_t)(pcr >> 17), (uint8_t)(pcr >> 9),
                   (uint8_t)(pcr >> 1), (uint8_t)(pcr << 7 | 0x7E), 0}, 6);
    }
    memcpy(p + 4 + field, data, used);
    out_bytes += K_TS;
    return used;
}

static void put_section(int pid, const uint8_t *body, size_t n)
{
    uint8_t payload[K_TS - 4];
    uint32_t crc = crc32(body, n);
    memset(payload, 0xFF, sizeof payload);
    payload[0] = 0;
    memcpy(payload + 1, body, n);
    crc = htonl(crc);
    memcpy(payload + 1 + n, &crc, 4);
    put_packet(pid, 1, payload, sizeof payload, -1);
}

static void put_tables(void)
{
    enum { K_PMT_HIGH = 0xE0 | K_PID_PMT >> 8, K_HIGH = 0xE0 | K_PID_VIDEO >> 8, K_LOW = K_PID_VIDEO & 0xFF };
    static const uint8_t pat[] = {0, 0xB0, 13, 0, 1, 0xC1, 0, 0, 0, 1, K_PMT_HIGH, K_PID_PMT & 0xFF};
    static const uint8_t pmt[] = {2, 0xB0, 18, 0, 1, 0xC1, 0, 0, K_HIGH, K_LOW, 0xF0, 0,
                                  0x1B, K_HIGH, K_LOW, 0xF0, 0};
    put_section(0, pat, sizeof pat);
    put_section(K_PID_PMT, pmt, sizeof pmt);
}

static size_t put_nal(uint8_t *at, const uint8_t *nal, size_t n)
{
    memcpy(at, (uint8_t[]){0, 0, 0, 1}, 4);
    memcpy(at + 4, nal, n);
    return 4 + n;
}

static void make_frame(uint8_t *pes, size_t frame_bytes, int key, int64_t ticks, int64_t stamp_us)
{
    uint8_t head[] = {0, 0, 1, 0xE0, 0, 0, 0x80, 0x80, 5, (uint8_t)(0x21 | (ticks >> 29 & 14)),
                      (uint8_t)(ticks >> 22), (uint8_t)(ticks >> 14) | 1, (uint8_t)(ticks >> 7),
                      (uint8_t)(ticks << 1) | 1};
    char stamp[K_STAMP_BYTES + 1];
    size_t n = sizeof head, sent = 0;
    memcpy(pes, head, n);
    n += put_nal(pes + n, aud, sizeof aud);
    if (key) {
        n += put_nal(pes + n, sps, sizeof sps);
        n += put_nal(pes + n, pps, sizeof pps);
    }
    n += put_nal(pes + n, key ? key_slice : slice, sizeof slice);
    snprintf(stamp, sizeof stamp, K_STAMP_FORMAT, (unsigned long long)stamp_us);
    memcpy(pes + n, stamp, K_STAMP_BYTES);
    n += K_STAMP_BYTES;
    memset(pes + n, 0xA5, frame_bytes);
    n += frame_bytes;
    out_bytes = 0;
    if (key)
        put_tables();
    while (sent < n)
        sent += put_packet(K_PID_VIDEO, sent == 0, pes + sent, n - sent, sent ? -1 : ticks - 9000);
}

int main(int argc, char **argv)
{
    double fps = number(argc, argv, "--fps", 25);
    size_t frame_bytes = (size_t)number(argc, argv, "--frame-bytes", 10000);
    uint8_t *pes = malloc(K_HEADER_ROOM + frame_bytes);
    out = malloc(frame_bytes * 2 + 4096);
    srt_startup();
    open_flows(argc, argv, 1);
    tell("{\"flows\": 1}");
    begin_obeying(tell_figures, hang_up);
    int64_t start_us = now_us();
    for (int64_t frame = 1;; frame++) {
        sleep_until_us(start_us + (int64_t)((double)frame * 1e6 / fps));
        int64_t ticks = (int64_t)((double)frame * 90000 / fps) + 90000;
        make_frame(pes, frame_bytes, frame % (int64_t)fps == 1, ticks, now_us());
        for (size_t at = 0; at < out_bytes; at += 7 * K_TS) {
            int length = (int)(out_bytes - at < 7 * K_TS ? out_bytes - at : 7 * K_TS);
            if (srt_sendmsg2(flows[0], (char *)out + at, length, NULL) != length)
                die("SRT: %s", srt_getlasterror_str());
            payload_bytes += length;
            payload_pkts++;
        }
    }
}

/* A transport stream sent over and over as if it were one: PCR, PTS, DTS and continuity counters go on.
 *
 * ISO/IEC 13818-1, 2.4.3.2 (packets), 2.4.3.4 (PCR), 2.4.3.6 (PES).
 */
#ifndef FLUX_PERF_TS_LOOP_H
#define FLUX_PERF_TS_LOOP_H

#include "common.h"

enum { K_TS = 188, K_PAYLOAD = 7 * K_TS };

struct ts_clip {
    uint8_t *data;
    size_t packets;
    double speed;             /* 5: five times as fast as the clip was made */
    int64_t first_ticks;      /* 90 kHz, of the oldest DTS */
    int64_t length_ticks;     /* of one round */
    double bytes_a_us;        /* at `speed` */
};

struct ts_cursor {            /* one flow's place in it */
    const struct ts_clip *clip;
    size_t packet;
    int64_t round;
    uint8_t continuity[8192];
};

static inline int64_t ts_get_stamp(const uint8_t *p)
{
    return (int64_t)(p[0] >> 1 & 7) << 30 | p[1] << 22 | (p[2] >> 1) << 15 | p[3] << 7 | p[4] >> 1;
}

static inline void ts_put_stamp(uint8_t *p, int64_t t)
{
    p[0] = (uint8_t)((p[0] & 0xF1) | (t >> 30 & 7) << 1);
    p[1] = (uint8_t)(t >> 22);
    p[2] = (uint8_t)(t >> 14 & 0xFE) | 1;
    p[3] = (uint8_t)(t >> 7);
    p[4] = (uint8_t)(t << 1) | 1;
}

/* The PES header in a packet that begins one, with its flags; NULL where there is none. */
static inline uint8_t *ts_pes(uint8_t *p, int *stamps)
{
    uint8_t *pes = p + 4 + (p[3] & 0x20 ? 1 + p[4] : 0);
    if (!(p[1] & 0x40) || !(p[3] & 0x10) || pes + 19 > p + K_TS || pes[0] || pes[1] || pes[2] != 1)
        return NULL;
    *stamps = pes[7] >> 6;
    return *stamps & 2 ? pes : NULL;
}

static inline void ts_clip_load(struct ts_clip *clip, const char *path, double speed)
{
    size_t length;
    int64_t first = INT64_MAX, last = 0, frames = 0;
    int video = -1;
    clip->data = read_file(path, &length);
    clip->packets = length / K_TS;
    clip->speed = speed;
    for (size_t n = 0; n < clip->packets; n++) {
        uint8_t *p = clip->data + n * K_TS;
        int stamps;
        uint8_t *pes = ts_pes(p, &stamps);
        if (!pes)
            continue;
        int64_t dts = ts_get_stamp(stamps == 3 ? pes + 14 : pes + 9);
        if (video < 0 && (pes[3] & 0xF0) == 0xE0)
            video = (p[1] & 0x1F) << 8 | p[2];
        if (((p[1] & 0x1F) << 8 | p[2]) != video)
            continue;
        first = dts < first ? dts : first;
        last = dts > last ? dts : last;
        frames++;
    }
    if (frames < 2)
        die("%s: no video with timestamps", path);
    clip->first_ticks = first;
    clip->length_ticks = (last - first) * frames / (frames - 1);
    clip->bytes_a_us = (double)(clip->packets * K_TS) / ((double)clip->length_ticks / 0.09) * speed;
}

/* 33-bit time of `t`, which is of the clip's first round, in this round at this speed. */
static inline int64_t ts_shift(const struct ts_cursor *c, int64_t t)
{
    int64_t since = t - c->clip->first_ticks + c->round * c->clip->length_ticks;
    return (int64_t)((double)since / c->clip->speed) + 90000;
}

/* The next payload of seven packets. */
static inline void ts_next(struct ts_cursor *c, uint8_t *out)
{
    for (int n = 0; n < 7; n++, out += K_TS) {
        int stamps;
        memcpy(out, c->clip->data + c->packet * K_TS, K_TS);
        int pid = (out[1] & 0x1F) << 8 | out[2];
        if (pid != 0x1FFF) {
            if (out[3] & 0x10)
                c->continuity[pid]++;
            out[3] = (uint8_t)((out[3] & 0xF0) | ((c->continuity[pid] - 1) & 15));
            if (out[3] & 0x20 && out[4] > 6 && out[5] & 0x10) {
                int64_t base = (int64_t)out[6] << 25;
                base |= out[7] << 17 | out[8] << 9 | out[9] << 1 | out[10] >> 7;
                base = ts_shift(c, base);
                out[6] = (uint8_t)(base >> 25);
                out[7] = (uint8_t)(base >> 17);
                out[8] = (uint8_t)(base >> 9);
                out[9] = (uint8_t)(base >> 1);
                out[10] = (uint8_t)((out[10] & 0x7F) | (base & 1) << 7);
            }
            uint8_t *pes = ts_pes(out, &stamps);
            if (pes) {
                ts_put_stamp(pes + 9, ts_shift(c, ts_get_stamp(pes + 9)));
                if (stamps == 3)
                    ts_put_stamp(pes + 14, ts_shift(c, ts_get_stamp(pes + 14)));
            }
        }
        if (++c->packet == c->clip->packets) {
            c->packet = 0;
            c->round++;
        }
    }
}

#endif

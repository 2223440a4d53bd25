/* A stream as one player got it: what came when. `players --trace` writes it, raw_send sends it.
 *
 * File, in the machine's byte order: header_bytes, media_bytes, chunks, round_us (uint64 each); chunks
 * times due_us (int64) and length (uint64); the header's and the media's bytes.
 *
 * Also the stamp by which latency is measured: it lies in the first bytes of a video frame, as text, so
 * that no muxer has to escape anything in it.
 */
#ifndef FLUX_PERF_TRACE_H
#define FLUX_PERF_TRACE_H

#include "common.h"

#define K_STAMP_MAGIC "FluxStamp:"
#define K_STAMP_FORMAT K_STAMP_MAGIC "%016llx"
enum { K_STAMP_BYTES = 26 };

struct trace {
    uint64_t header_bytes, media_bytes, chunks, round_us;
    int64_t *due_us;
    uint64_t *length;
    uint8_t *data;
};

static inline void trace_save(const struct trace *t, const char *path)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        die("%s: %s", path, strerror(errno));
    fwrite(&t->header_bytes, 8, 4, file);
    for (uint64_t n = 0; n < t->chunks; n++) {
        fwrite(&t->due_us[n], 8, 1, file);
        fwrite(&t->length[n], 8, 1, file);
    }
    fwrite(t->data, 1, t->header_bytes + t->media_bytes, file);
    if (fclose(file) != 0)
        die("%s: %s", path, strerror(errno));
}

static inline void trace_load(struct trace *t, const char *path)
{
    size_t length;
    uint8_t *file = read_file(path, &length);
    if (length < 32)
        die("%s is no trace", path);
    memcpy(&t->header_bytes, file, 32);
    if (length != 32 + 16 * t->chunks + t->header_bytes + t->media_bytes || !t->chunks)
        die("%s is no trace", path);
    t->due_us = malloc(8 * t->chunks);
    t->length = malloc(8 * t->chunks);
    for (uint64_t n = 0; n < t->chunks; n++) {
        memcpy(&t->due_us[n], file + 32 + 16 * n, 8);
        memcpy(&t->length[n], file + 40 + 16 * n, 8);
    }
    t->data = file + 32 + 16 * t->chunks;
}

#endif

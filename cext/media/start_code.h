/* The search for Annex B start codes (ITU-T H.264, annex B.1; H.265, annex B.2). */
#ifndef FLUX_START_CODE_H
#define FLUX_START_CODE_H

#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* The first 00 00 01 in [p, end), or end. Reads nothing at or after end. */
static inline const uint8_t *find_start_code(const uint8_t *p, const uint8_t *end)
{
#ifdef __SSE2__
    const __m128i zero = _mm_setzero_si128();
    while (end - p >= 34) {
        __m128i a = _mm_or_si128(_mm_loadu_si128((const __m128i *)p), _mm_loadu_si128((const __m128i *)(p + 1)));
        __m128i b = _mm_or_si128(_mm_loadu_si128((const __m128i *)(p + 16)),
                                 _mm_loadu_si128((const __m128i *)(p + 17)));
        uint32_t pairs = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(a, zero)) |
                         (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(b, zero)) << 16;
        for (; pairs; pairs &= pairs - 1) {
            const uint8_t *at = p + __builtin_ctz(pairs);
            if (at[2] == 1)
                return at;
        }
        p += 32;
    }
    for (; end - p >= 3; p++)
        if (!p[0] && !p[1] && p[2] == 1)
            return p;
    return end;
#else
    /* without vectors memchr is the fastest thing at hand; a 1 is as rare as any byte */
    const uint8_t *at = p + 2;
    while (at < end && (at = (const uint8_t *)memchr(at, 1, (size_t)(end - at)))) {
        if (!at[-1] && !at[-2])
            return at - 2;
        at++;
    }
    return end;
#endif
}

#endif

"""AAC frames out of PES packets."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from flux.cext.counters cimport C_MEDIA_ACCESS_UNITS_WITHOUT_TIME, C_MEDIA_ADTS_REFUSED, C_MEDIA_ADTS_SKIPPED_BYTES
from flux.cext.media.aac cimport K_AAC_FRAME_SAMPLES, K_ADTS_HEADER_BYTES, adts_header, adts_parse
from flux.cext.media.ts cimport K_TICKS_A_SECOND


cdef void adts_init(adts_stream* a, uint64_t* counters) noexcept nogil:
    """Ready for the first PES; the caller sets `emit` and `ctx`."""
    memset(a, 0, sizeof(adts_stream))
    a.counters = counters


cdef void adts_begin(adts_stream* a, bint has_pts, int64_t pts_ticks) noexcept nogil:
    """A PES begins: its time is that of the first frame that begins in it (13818-1, 2.4.3.7)."""
    if has_pts:
        if a.marked and a.mark_at == 0 and a.length:
            # The frame that began the PES before goes on in this one: it is the next to be handed on.
            a.has_times = True
            a.base_ticks = a.mark_ticks
            a.samples = 0
        a.marked = True
        a.mark_at = a.length
        a.mark_ticks = pts_ticks


cdef void adts_lost(adts_stream* a) noexcept nogil:
    a.counters[C_MEDIA_ADTS_SKIPPED_BYTES] += a.length
    a.length = 0
    a.mark_at = 0
    a.synced = False


cdef void emit_frame(adts_stream* a, const adts_header* h, uint32_t at) noexcept nogil:
    if a.marked and at >= a.mark_at:
        a.marked = False
        a.has_times = True
        a.base_ticks = a.mark_ticks
        a.samples = 0
    if not a.has_times:
        a.counters[C_MEDIA_ACCESS_UNITS_WITHOUT_TIME] += 1
        return
    cdef int64_t pts = a.base_ticks + <int64_t>((a.samples * K_TICKS_A_SECOND + h.rate_hz / 2) / h.rate_hz)
    a.samples += K_AAC_FRAME_SAMPLES * h.blocks
    if h.blocks != 1:
        # frames of several raw data blocks can't be told apart without decoding them
        a.counters[C_MEDIA_ADTS_REFUSED] += 1
        return
    a.emit(a.ctx, h, a.data + at + h.header_bytes, h.frame_bytes - h.header_bytes, pts)


cdef uint32_t read_frames(adts_stream* a) noexcept nogil:
    """Hand on the whole frames in the buffer; return the bytes used."""
    cdef adts_header h, second
    cdef uint32_t at = 0
    while a.length - at >= K_ADTS_HEADER_BYTES:
        if adts_parse(a.data + at, &h):
            a.synced = False
            a.counters[C_MEDIA_ADTS_SKIPPED_BYTES] += 1
            at += 1
            continue
        if not a.synced and not (a.marked and at == a.mark_at):
            # anywhere else a header is believed only if another follows its frame
            if a.length - at < h.frame_bytes + K_ADTS_HEADER_BYTES:
                break
            if adts_parse(a.data + at + h.frame_bytes, &second) or second.rate_index != h.rate_index:
                a.counters[C_MEDIA_ADTS_SKIPPED_BYTES] += 1
                at += 1
                continue
        if a.length - at < h.frame_bytes:
            break
        a.synced = True
        emit_frame(a, &h, at)
        at += h.frame_bytes
    return at


cdef void adts_append(adts_stream* a, const uint8_t* data, uint32_t length) noexcept nogil:
    """Payload of the PES that began last."""
    cdef uint32_t n, used
    while length:
        n = min(length, K_ADTS_BUFFER_BYTES - a.length)
        memcpy(a.data + a.length, data, n)
        a.length += n
        data += n
        length -= n
        used = read_frames(a)
        if used:
            a.length -= used
            a.mark_at = a.mark_at - used if a.mark_at > used else 0
            memmove(a.data, a.data + used, a.length)

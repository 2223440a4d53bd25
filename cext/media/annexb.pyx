"""Access units out of PES packets of H.264 and H.265."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, memset

from flux.cext.counters cimport (
    C_MEDIA_ACCESS_UNITS_TOO_LARGE, C_MEDIA_NALS_BROKEN, C_MEDIA_NO_MEMORY, C_MEDIA_PARAMETER_SETS_REFUSED
)
from flux.cext.media.codec cimport CODEC_H264
from flux.cext.media.decoder_config cimport parameter_sets_init, parameter_sets_put
from flux.cext.media.nal cimport (
    NAL_BROKEN, NAL_DELIMITER, NAL_FILLER, NAL_KEY, NAL_OTHER, NAL_PARAMETERS, NAL_SEI, NAL_VCL, find_start_code,
    h264_recovery_point, nal_first_slice, nal_role, nal_role_of, nal_span
)

cdef enum:
    K_FIRST_BUFFER_BYTES = 65536
    K_FIRST_NALS = 64
    K_NAL_PEEK_BYTES = 2          # of a NAL header at most


cdef void annexb_init(annexb* a, uint32_t codec, uint64_t* counters) noexcept nogil:
    """Ready for the first PES; the caller sets `emit` and `ctx`."""
    memset(a, 0, sizeof(annexb))
    a.codec = codec
    a.counters = counters
    a.frame_ticks = K_DEFAULT_FRAME_TICKS
    parameter_sets_init(&a.sets, codec)


cdef void annexb_free(annexb* a) noexcept nogil:
    free(a.data)
    free(a.nals)
    a.data = NULL
    a.nals = NULL
    a.capacity = a.nal_capacity = a.length = 0


cdef bint grow_data(annexb* a, uint32_t length) noexcept nogil:
    cdef uint32_t capacity = a.capacity if a.capacity else K_FIRST_BUFFER_BYTES
    cdef void* data
    while capacity < length:
        capacity *= 2
    data = realloc(a.data, capacity)
    if data == NULL:
        a.counters[C_MEDIA_NO_MEMORY] += 1
        return False
    a.data = <uint8_t*>data
    a.capacity = capacity
    return True


cdef bint grow_nals(annexb* a) noexcept nogil:
    cdef uint32_t capacity = a.nal_capacity * 2 if a.nal_capacity else K_FIRST_NALS
    cdef void* nals = realloc(a.nals, capacity * sizeof(nal_span)) if capacity <= K_MAX_NALS else NULL
    if nals == NULL:
        return False
    a.nals = <nal_span*>nals
    a.nal_capacity = capacity
    return True


cdef bint begins_unit(annexb* a, nal_role role, const uint8_t* nal, uint32_t length) noexcept nogil:
    """Whether this NAL unit, after a slice, is the first of the next access unit (H.264 7.4.1.2.3, H.265 7.4.2.4.4).

    Not so for interlaced H.264: both fields of a frame are kept together.
    """
    if a.codec == CODEC_H264 and a.sets.sps.interlaced:
        return role == NAL_DELIMITER and a.loose
    if role == NAL_DELIMITER:
        return True
    if role == NAL_VCL or role == NAL_KEY:
        if a.codec != CODEC_H264 and (nal[0] & 1 or nal[1] >> 3):
            return False          # nuh_layer_id is not 0
        return nal_first_slice(a.codec, nal, length)
    return a.loose and (role == NAL_PARAMETERS or role == NAL_SEI)


cdef void set_times(annexb* a, access_unit* u, uint32_t start) noexcept nogil:
    """The times of the PES in which the unit begins, if it is the first that does, else one frame after the last."""
    cdef uint32_t i, used = 0
    cdef pes_mark* mark = NULL
    for i in range(a.mark_count):
        if a.marks[i].at > start:
            break
        u.tag = a.marks[i].tag
        if a.marks[i].has_pts:
            mark = &a.marks[i]
        used = i + 1
    if mark != NULL:
        if a.has_times and 0 < mark.dts_ticks - a.dts_ticks < 10 * K_DEFAULT_FRAME_TICKS:
            a.frame_ticks = mark.dts_ticks - a.dts_ticks
        a.dts_ticks = mark.dts_ticks
        a.pts_ticks = mark.pts_ticks
        a.has_times = True
    elif a.has_times:
        a.dts_ticks += a.frame_ticks
        a.pts_ticks = a.dts_ticks
    # the tag stays for units that follow in the same PES, its time does not
    for i in range(used):
        a.marks[i].has_pts = False
    u.has_times = a.has_times
    u.dts_ticks = a.dts_ticks
    u.pts_ticks = a.pts_ticks


cdef void emit_unit(annexb* a, access_unit* u, uint32_t start, bint slices) noexcept nogil:
    if not slices:
        return
    set_times(a, u, start)
    u.data = a.data
    u.nals = a.nals
    u.damaged = a.damaged
    u.config_changed = a.sets.changes != a.changes_told
    a.changes_told = a.sets.changes
    a.emit(a.ctx, u)


cdef uint32_t process(annexb* a, bint all_of_it) noexcept nogil:
    """Hand on the access units in the buffer; without `all_of_it` the last one stays. Returns where it begins."""
    cdef const uint8_t* end = a.data + a.length
    cdef const uint8_t* at = find_start_code(a.data, end)
    cdef const uint8_t* following
    cdef const uint8_t* last
    cdef access_unit u
    cdef uint32_t start = 0, length
    cdef nal_role role
    cdef bint slices = False, too_many = False
    memset(&u, 0, sizeof(u))
    while at < end:
        following = find_start_code(at + 3, end)
        last = following
        while last > at + 3 and (last - 1)[0] == 0:
            last -= 1
        length = <uint32_t>(last - at - 3)
        if length:
            role = nal_role_of(a.codec, at + 3, length)
            if slices and begins_unit(a, role, at + 3, length):
                emit_unit(a, &u, start, not too_many)
                memset(&u, 0, sizeof(u))
                start = <uint32_t>(at - a.data)
                slices = too_many = False
            if role == NAL_BROKEN:
                a.counters[C_MEDIA_NALS_BROKEN] += 1
            elif role == NAL_PARAMETERS:
                if parameter_sets_put(&a.sets, at + 3, length) < 0:
                    a.counters[C_MEDIA_PARAMETER_SETS_REFUSED] += 1
            elif role != NAL_DELIMITER and role != NAL_FILLER:
                slices |= role == NAL_VCL or role == NAL_KEY
                u.key |= role == NAL_KEY
                if role == NAL_SEI and a.codec == CODEC_H264 and h264_recovery_point(at + 3, length):
                    u.recovery_point = True
                if u.nal_count < a.nal_capacity or grow_nals(a):
                    a.nals[u.nal_count].at = <uint32_t>(at - a.data) + 3
                    a.nals[u.nal_count].length = length
                    a.nals[u.nal_count].role = role
                    u.nal_count += 1
                    u.bytes += 4 + length
                elif not too_many:
                    too_many = True
                    a.counters[C_MEDIA_ACCESS_UNITS_TOO_LARGE] += 1
        at = following
    if all_of_it:
        emit_unit(a, &u, start, slices and not too_many)
        return a.length
    return start


cdef void clear(annexb* a) noexcept nogil:
    a.length = 0
    a.mark_count = 0
    a.damaged = False
    a.overflow = False


cdef void keep_from(annexb* a, uint32_t start) noexcept nogil:
    """Keep the access unit that is not complete yet, and the marks that may still be its own."""
    cdef uint32_t i, n = 0
    if start == 0:
        return
    memmove(a.data, a.data + start, a.length - start)
    a.length -= start
    for i in range(a.mark_count):
        if i + 1 < a.mark_count and a.marks[i + 1].at <= start:
            continue
        a.marks[n] = a.marks[i]
        a.marks[n].at = a.marks[i].at - start if a.marks[i].at > start else 0
        n += 1
    a.mark_count = n
    a.damaged = False


cdef void annexb_begin(annexb* a, bint has_pts, int64_t pts_ticks, int64_t dts_ticks, uint64_t tag) noexcept nogil:
    """A PES begins; `tag` comes back with the access units that begin in it."""
    cdef pes_mark* mark
    if a.mark_count == K_MAX_MARKS:
        a.mark_count -= 1
    mark = &a.marks[a.mark_count]
    mark.at = a.length
    mark.has_pts = has_pts
    mark.pts_ticks = pts_ticks
    mark.dts_ticks = dts_ticks
    mark.tag = tag
    a.mark_count += 1
    a.begun = True


cdef bint begins_with_unit(annexb* a, const uint8_t* data, uint32_t length, bint has_pts) noexcept nogil:
    """Whether the first bytes of a PES begin an access unit rather than go on with one."""
    cdef const uint8_t* end = data + length
    cdef const uint8_t* at
    cdef nal_role role
    if length >= 3 and (data[0] or data[1] or data[2] > 1):
        return False
    if has_pts:
        return True
    at = find_start_code(data, end)
    if end - at < 3 + K_NAL_PEEK_BYTES + 1:
        return False
    role = nal_role_of(a.codec, at + 3, <uint32_t>(end - at) - 3)
    if role == NAL_VCL or role == NAL_KEY:
        return nal_first_slice(a.codec, at + 3, <uint32_t>(end - at) - 3)
    return role == NAL_DELIMITER or role == NAL_PARAMETERS or role == NAL_SEI


cdef void settle(annexb* a, const uint8_t* data, uint32_t length) noexcept nogil:
    """The first data of a PES is here: what of the buffer is complete?"""
    cdef bint whole = begins_with_unit(a, data, length, a.marks[a.mark_count - 1].has_pts)
    cdef pes_mark mark
    a.begun = False
    a.slice_seen = False
    if not whole and not a.damaged:
        a.loose = True
    if a.overflow:
        mark = a.marks[a.mark_count - 1]
        clear(a)
        mark.at = 0
        a.marks[0] = mark
        a.mark_count = 1
    elif a.length:
        keep_from(a, process(a, whole))
    a.searched = a.length


cdef nal_role search_slice(annexb* a) noexcept nogil:
    """Look on for the first slice of the PES."""
    cdef const uint8_t* end = a.data + a.length
    cdef const uint8_t* at = find_start_code(a.data + a.searched, end)
    cdef nal_role role
    while at + 3 + K_NAL_PEEK_BYTES <= end:
        role = nal_role_of(a.codec, at + 3, <uint32_t>(end - at) - 3)
        if role == NAL_VCL or role == NAL_KEY:
            a.slice_seen = True
            return role
        at = find_start_code(at + 3, end)
    if at < end:
        a.searched = <uint32_t>(at - a.data)
    elif a.length >= a.searched + 2:
        a.searched = a.length - 2
    return NAL_OTHER


cdef nal_role annexb_append(annexb* a, const uint8_t* data, uint32_t length) noexcept nogil:
    """Payload of the PES that began last."""
    if length == 0:
        return NAL_OTHER
    if a.begun:
        settle(a, data, length)
    if a.overflow:
        return NAL_OTHER
    if a.length + length > K_ACCESS_UNIT_BYTES or (a.length + length > a.capacity and not grow_data(a, a.length + length)):
        a.counters[C_MEDIA_ACCESS_UNITS_TOO_LARGE] += 1
        a.overflow = True
        return NAL_OTHER
    memcpy(a.data + a.length, data, length)
    a.length += length
    return NAL_OTHER if a.slice_seen else search_slice(a)


cdef void annexb_end(annexb* a) noexcept nogil:
    """The PES is complete, and with it, but for a loose stream, its access units."""
    if not a.loose:
        annexb_finish(a)


cdef void annexb_finish(annexb* a) noexcept nogil:
    """Hand on all that is left."""
    if a.length and not a.overflow:
        process(a, True)
    clear(a)
    a.begun = False
    a.slice_seen = False
    a.searched = 0

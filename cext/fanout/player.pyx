"""A player: a socket with a cursor into a ring (player.pxd tells what its bytes are and where they may be cut)."""

from libc.errno cimport EAGAIN, ECONNRESET, EINTR, ENOBUFS, ENOMEM, EPIPE, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from flux.cext.arena cimport K_HEADER_BYTES, K_HEADER_VERSIONS, RING_FLV, header_blob
from flux.cext.atomics cimport fence_acquire, load_acquire_u64, load_relaxed_u64
from flux.cext.fanout.websocket cimport (
    K_WS_CONTROL_BYTES, K_WS_HEAD_BYTES, WS_BINARY, WS_BROKEN, WS_GOT_CLOSE, WS_GOT_PING, WS_PONG, ws_close,
    ws_control, ws_event, ws_head, ws_read,
)
from flux.cext.ring cimport ring_commit_pos, ring_find, ring_header, ring_key_record, ring_record, ring_valid

cdef extern from "<sys/socket.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    ssize_t sendmsg(int fd, const msghdr* message, int flags)
    ssize_t send(int fd, const void* data, size_t length, int flags)
    ssize_t recv(int fd, void* data, size_t length, int flags)
    int MSG_DONTWAIT, MSG_NOSIGNAL

cdef enum:
    K_FLV_HEAD_BYTES = 13         # "FLV", version, flags, DataOffset, PreviousTagSize0: only at a file's start
    K_TS_PKT_BYTES = 188
    K_WS_GOING_AWAY = 1001
    K_WS_POLICY = 1008

cdef uint64_t K_NEVER = 0xFFFFFFFFFFFFFFFFULL  # a boundary that no cursor reaches


cdef int player_queue(player* p, const uint8_t* data, uint32_t length) noexcept nogil:
    """Put bytes behind what waits in front of the ring's; -1 when memory is short or K_FRONT_BYTES wait already."""
    cdef uint32_t left = p.front_bytes - p.front_at
    cdef uint8_t* grown
    if length == 0:
        return 0
    if left + length > K_FRONT_BYTES:
        return -1
    grown = <uint8_t*>realloc(p.front, p.front_bytes + length)
    if grown == NULL:
        return -1
    memcpy(grown + p.front_bytes, data, length)
    p.front = grown
    p.front_bytes += length
    p.flags |= PLAYER_FRONT
    return 0


cdef void _front_done(player* p) noexcept nogil:
    free(p.front)
    p.front = NULL
    p.front_at = p.front_bytes = 0
    p.flags &= ~<uint32_t>PLAYER_FRONT


cdef int _queue_media(player* p, const uint8_t* data, uint32_t length) noexcept nogil:
    """The same; on a WebSocket as a message of its own."""
    cdef uint8_t head[K_WS_HEAD_BYTES]
    if p.flags & PLAYER_WEBSOCKET and length and player_queue(p, head, ws_head(head, WS_BINARY, length)) < 0:
        return -1
    return player_queue(p, data, length)


cdef close_reason player_send_error() noexcept nogil:
    """What a failed send or recv, other than for want of room, says about the player."""
    if errno == EPIPE or errno == ECONNRESET:
        return CLOSE_LEFT
    if errno == ENOBUFS or errno == ENOMEM:
        return CLOSE_NO_MEMORY
    return CLOSE_LOST


cdef void player_block(player* p, feed* f, bint progress, int64_t now_us) noexcept nogil:
    """Its socket took less than it was given: find out where it stands."""
    cdef ring_record record
    if not p.flags & PLAYER_BLOCKED:
        p.flags |= PLAYER_BLOCKED
        f.blocked += 1
        f.times_blocked += 1
    if progress or p.progress_us == 0:
        p.progress_us = now_us
    if p.flags & PLAYER_WAITING:
        return
    if p.cursor == ring_commit_pos(&f.view):
        p.boundary = p.cursor
        p.arrival_us = 0
        return
    if ring_find(&f.view, p.cursor, &record) < 0:
        if not p.flags & PLAYER_WEBSOCKET and p.boundary < p.cursor:
            p.boundary = K_NEVER
        return
    p.arrival_us = record.arrival_us
    if p.flags & PLAYER_WEBSOCKET:
        return
    if record.pos == p.cursor:
        p.boundary = p.cursor
    elif f.kind == RING_FLV:
        p.boundary = record.pos + record.length
    else:
        p.boundary = record.pos + (p.cursor - record.pos + K_TS_PKT_BYTES - 1) // K_TS_PKT_BYTES * K_TS_PKT_BYTES


cdef void player_unblock(player* p, feed* f) noexcept nogil:
    if p.flags & PLAYER_BLOCKED:
        p.flags &= ~<uint32_t>PLAYER_BLOCKED
        f.blocked -= 1


cdef uint64_t _header_version(ring* r, uint64_t pos) noexcept nogil:
    """The version of the header blob in force at `pos`; 0 when it is not kept any more, or there is none."""
    cdef uint64_t version = load_acquire_u64(&r.ctl.header_version)
    cdef uint64_t from_pos
    cdef header_blob* blob
    cdef int _n
    for _n in range(K_HEADER_VERSIONS):
        blob = &r.headers[version % K_HEADER_VERSIONS]
        if version == 0 or load_acquire_u64(&blob.version) != version:
            break
        from_pos = blob.from_pos
        fence_acquire()
        if load_relaxed_u64(&blob.version) != version:
            break
        if from_pos <= pos:
            return version
        version -= 1
    return 0


cdef int _queue_header(player* p, feed* f, uint64_t pos) noexcept nogil:
    """The header blob that is valid at `pos`, unless it is the one that is in force for the player anyhow."""
    cdef uint8_t header[K_HEADER_BYTES]
    cdef uint64_t had
    cdef int length
    cdef int skip = 0
    if not p.flags & PLAYER_FRESH:
        # A change lies in the ring as a record too: what was in force just before the cursor is what the player has.
        had = _header_version(&f.view, p.cursor - 1 if p.cursor else 0)
        if had and had == _header_version(&f.view, pos):
            return 0
        if f.kind == RING_FLV:
            skip = K_FLV_HEAD_BYTES
    length = ring_header(&f.view, pos, header, K_HEADER_BYTES)
    return _queue_media(p, header + skip, <uint32_t>(length - skip)) if length > skip else 0


cdef int _start(player* p, feed* f) noexcept nogil:
    """Give a waiting player its position, if there is a keyframe that it has not been past: 1; 0: not yet; -1: no memory.

    What a ring holds while nobody fills it may be old: it is not for a player that comes now.
    """
    cdef ring_record key
    if not load_acquire_u64(&f.view.ctl.active) or ring_key_record(&f.view, &key) < 0 or key.pos < p.cursor:
        return 0
    if _queue_header(p, f, key.pos) < 0:
        return -1
    if not p.flags & PLAYER_FRESH:
        f.skipped_bytes += key.pos - p.cursor
    p.cursor = p.boundary = key.pos
    p.arrival_us = 0
    p.flags &= ~<uint32_t>(PLAYER_WAITING | PLAYER_FRESH)
    return 1


cdef int _move_on(player* p, feed* f) noexcept nogil:
    """From a boundary to the newest keyframe: 1; 0 when there is no newer one; -1: no memory."""
    cdef ring_record key
    if ring_key_record(&f.view, &key) < 0 or key.pos <= p.cursor:
        return 0
    if _queue_header(p, f, key.pos) < 0:
        return -1
    f.moved_on += 1
    f.skipped_bytes += key.pos - p.cursor
    p.cursor = p.boundary = key.pos
    p.arrival_us = 0
    return 1


cdef close_reason _aim(player* p, feed* f, int64_t now_us, uint64_t* end) noexcept nogil:
    """Up to where the player may be sent bytes now; one that is too far behind goes to the next boundary, and from there
    to the newest keyframe."""
    cdef bint valid
    cdef int moved
    end[0] = ring_commit_pos(&f.view)
    valid = ring_valid(&f.view, p.cursor)
    if valid and end[0] - p.cursor <= f.lag_limit_bytes \
            and (f.max_lag_us == 0 or p.arrival_us == 0 or now_us - p.arrival_us <= f.max_lag_us):
        return CLOSE_NOT
    if p.cursor != p.boundary:
        if not valid:
            return CLOSE_LAPPED
        if p.boundary < end[0]:
            end[0] = p.boundary
        return CLOSE_NOT
    moved = _move_on(p, f)
    if moved < 0:
        return CLOSE_TOO_SLOW
    if moved:
        end[0] = ring_commit_pos(&f.view)
    elif not valid:
        f.moved_on += 1
        p.flags |= PLAYER_WAITING
    return CLOSE_NOT


cdef uint64_t _message_end(player* p, feed* f, uint64_t end) noexcept nogil:
    """Where a message that begins at the cursor ends: at a record's end, after about K_MESSAGE_BYTES at most."""
    cdef ring_record record
    if end - p.cursor <= K_MESSAGE_BYTES or ring_find(&f.view, p.cursor + K_MESSAGE_BYTES, &record) < 0:
        return end
    return record.pos if record.pos > p.cursor else record.pos + record.length


cdef close_reason _queue_pong(player* p, feed* f) noexcept nogil:
    cdef uint8_t frame[2 + K_WS_CONTROL_BYTES]
    cdef uint32_t length = ws_control(frame, WS_PONG, p.websocket.pong, p.websocket.pong_bytes)
    p.websocket.pong_due = False
    f.pings += 1
    return CLOSE_TOO_SLOW if player_queue(p, frame, length) < 0 else CLOSE_NOT


cdef close_reason player_push(player* p, feed* f, int64_t now_us) noexcept nogil:
    """Send the player all that there is for it and that its socket takes; CLOSE_NOT while it goes on."""
    cdef uint8_t head[K_WS_HEAD_BYTES]
    cdef iovec parts[3]
    cdef msghdr message
    cdef uint64_t end, was
    cdef uint32_t head_bytes, front_left, count
    cdef size_t total
    cdef ssize_t n
    cdef bint full
    cdef close_reason reason
    memset(&message, 0, sizeof(message))
    message.msg_iov = parts
    while not p.flags & PLAYER_BLOCKED:
        if p.flags & PLAYER_WAITING and _start(p, f) < 0:
            return CLOSE_NO_MEMORY
        end = p.cursor
        if not p.flags & PLAYER_WAITING:
            reason = _aim(p, f, now_us, &end)
            if reason != CLOSE_NOT:
                return reason
            if p.flags & PLAYER_WAITING:
                continue
        if p.websocket != NULL and p.websocket.pong_due and p.cursor == p.boundary:
            reason = _queue_pong(p, f)
            if reason != CLOSE_NOT:
                return reason
        count = 0
        front_left = p.front_bytes - p.front_at
        head_bytes = 0
        total = front_left
        if front_left:
            parts[count].iov_base = p.front + p.front_at
            parts[count].iov_len = front_left
            count += 1
        if end > p.cursor:
            if p.flags & PLAYER_WEBSOCKET:
                if p.cursor == p.boundary:
                    p.boundary = _message_end(p, f, end)
                    head_bytes = ws_head(head, WS_BINARY, p.boundary - p.cursor)
                    parts[count].iov_base = head
                    parts[count].iov_len = head_bytes
                    count += 1
                end = p.boundary
            parts[count].iov_base = f.view.base + (p.cursor & f.view.mask)
            parts[count].iov_len = end - p.cursor
            count += 1
            total += head_bytes + (end - p.cursor)
        if count == 0:
            return CLOSE_NOT
        message.msg_iovlen = count
        n = sendmsg(p.handler.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
        f.sends += 1
        full = n < 0 and errno == EAGAIN
        if n < 0:
            if errno != EAGAIN and errno != EINTR:
                return player_send_error()
            n = 0
        was = p.cursor
        reason = _account(p, f, <uint64_t>n, front_left, head, head_bytes)
        if reason != CLOSE_NOT:
            return reason
        if p.cursor != was and not ring_valid(&f.view, was):
            return CLOSE_LAPPED
        if full or 0 < <size_t>n < total:
            player_block(p, f, n > 0, now_us)
        elif n:
            p.progress_us = 0
            p.boundary = p.cursor
            if p.cursor == ring_commit_pos(&f.view):
                p.arrival_us = 0
    return CLOSE_NOT


cdef close_reason _account(
    player* p, feed* f, uint64_t n, uint32_t front_left, const uint8_t* head, uint32_t head_bytes,
) noexcept nogil:
    """Takes note of `n` bytes sent: of the front, of a message's head, of the ring."""
    f.sent_bytes += n
    if n < front_left:
        p.front_at += <uint32_t>n
        n = 0
    else:
        if front_left:
            _front_done(p)
        n -= front_left
    if n < head_bytes:
        if n == 0:
            p.boundary = p.cursor
        elif player_queue(p, head + n, head_bytes - <uint32_t>n) < 0:
            return CLOSE_NO_MEMORY
        n = 0
    else:
        n -= head_bytes
    p.cursor += n
    p.sent_bytes += n
    return CLOSE_NOT


cdef close_reason _listen_to_frames(player* p, const uint8_t* data, uint32_t length) noexcept nogil:
    cdef uint32_t at = 0
    cdef uint32_t used = 0
    cdef ws_event event
    while at < length:
        event = ws_read(&p.websocket.reader, data + at, length - at, &used)
        at += used
        if event == WS_GOT_PING:
            # Of several pings that wait, the newest is answered (RFC 6455, 5.5.3).
            p.websocket.pong_due = True
            p.websocket.pong_bytes = p.websocket.reader.control_bytes
            memcpy(p.websocket.pong, p.websocket.reader.control, p.websocket.pong_bytes)
        elif event == WS_GOT_CLOSE:
            return CLOSE_LEFT
        elif event == WS_BROKEN:
            return CLOSE_PROTOCOL
    return CLOSE_NOT


cdef close_reason player_hear(player* p, feed* f, int64_t now_us) noexcept nogil:
    """Read what the client says until there is no more."""
    cdef uint8_t data[K_HEAR_BYTES]
    cdef ssize_t n
    cdef int _turn
    cdef close_reason reason
    for _turn in range(K_HEAR_TURNS):
        n = recv(p.handler.fd, data, K_HEAR_BYTES, MSG_DONTWAIT)
        if n == 0:
            return CLOSE_LEFT
        if n < 0:
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                return player_send_error()
            if p.websocket != NULL and p.websocket.pong_due:
                return player_push(p, f, now_us)
            return CLOSE_NOT
        if p.websocket != NULL:
            reason = _listen_to_frames(p, data, <uint32_t>n)
            if reason != CLOSE_NOT:
                return reason
    return CLOSE_FLOOD


cdef void player_say_goodbye(player* p, close_reason reason) noexcept nogil:
    """A WebSocket's close frame, where one fits in."""
    cdef uint8_t frame[4]
    cdef uint16_t code
    if p.websocket == NULL or p.flags & (PLAYER_FRONT | PLAYER_BLOCKED) or p.cursor != p.boundary:
        return
    if reason == CLOSE_LEFT or reason == CLOSE_PROTOCOL:
        code = p.websocket.reader.code
    elif reason == CLOSE_ENDED or reason == CLOSE_STOPPED:
        code = K_WS_GOING_AWAY
    else:
        code = K_WS_POLICY
    if code:
        send(p.handler.fd, frame, ws_close(frame, code), MSG_DONTWAIT | MSG_NOSIGNAL)

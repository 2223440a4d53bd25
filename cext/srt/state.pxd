"""What the modules of the SRT core share: a connection, and the endpoint that holds it.

A connection's states:

    caller      INDUCTION → CONCLUSION → OPEN
    listener    REQUESTED → OPEN             (an induction leaves no state; a rejection frees at once)
    both        OPEN → CLOSING → gone        (CLOSING: its SHUTDOWN is yet to be sent, its "closed" to be read)

A connection is freed when it is CLOSING, has nothing left to send and no event left to be read.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from flux.cext.ring cimport ring
from flux.cext.sink cimport media_sink
from flux.cext.srt.congestion cimport overhead_budget, rate_meter
from flux.cext.srt.cookie cimport cookie_key
from flux.cext.srt.crypto cimport crypto, crypto_settings
from flux.cext.srt.loss_list cimport loss_list
from flux.cext.srt.recv_buffer cimport recv_buffer
from flux.cext.srt.rtt cimport rtt_estimate, sent_ack
from flux.cext.srt.send_buffer cimport send_buffer
from flux.cext.srt.slab cimport slab
from flux.cext.srt.timers cimport timer, timer_heap
from flux.cext.srt.tsbpd cimport tsbpd

cdef enum:
    K_ANSWERS = 256               # answers to strangers that may wait to be sent
    K_ANSWER_BYTES = 64           # a header and a handshake without extensions
    K_ADDRESS_KEY = 20            # a normalised address: family, port, 4 or 16 bytes

cdef enum connection_state:
    CONN_INDUCTION = 1            # caller: waits for the cookie
    CONN_CONCLUSION = 2           # caller: waits for the listener's decision
    CONN_REQUESTED = 3            # listener: waits for our decision
    CONN_OPEN = 4
    CONN_CLOSING = 5

cdef enum pending:                # bits: packets that a connection has to send
    SEND_HANDSHAKE = 0x01
    SEND_SHUTDOWN = 0x02
    SEND_ACKACK = 0x04
    SEND_NAK = 0x08
    SEND_ACK = 0x10
    SEND_LIGHT_ACK = 0x20
    SEND_DROPREQ = 0x40
    SEND_KEEPALIVE = 0x80
    SEND_KMREQ = 0x100
    SEND_KMRSP = 0x200

cdef enum connection_event:       # bits: what Python has yet to read
    EVENT_REQUEST = 1
    EVENT_CONNECTED = 2
    EVENT_CLOSED = 4

cdef enum close_reason:
    CLOSE_NONE = 0
    CLOSE_LOCAL = 1
    CLOSE_PEER = 2
    CLOSE_IDLE = 3
    CLOSE_HANDSHAKE_TIMEOUT = 4
    CLOSE_SOURCE_ENDED = 5
    CLOSE_PROTOCOL = 6
    CLOSE_NO_MEMORY = 7
    CLOSE_REJECTED = 1000         # and more: 1,000 + the peer's code as on the wire

cdef struct settings:
    uint32_t latency_ms
    uint32_t flow_window_pkts
    uint32_t receive_buffer_pkts
    uint32_t send_buffer_pkts
    uint32_t max_connections
    uint32_t max_handshakes
    uint32_t max_overhead_percent
    int64_t peer_idle_us
    int64_t handshake_us
    int64_t source_interval_us
    int64_t delivery_interval_us
    int64_t ack_interval_us
    int64_t key_exchange_us       # between two encrypted handshakes, on average
    crypto_settings encryption    # unless a connection has its own

cdef struct answer:               # to somebody who is no connection
    uint8_t address[28]
    uint32_t address_bytes
    uint8_t data[64]

cdef struct request:              # what a handshake needs beyond an open connection; freed once open
    uint32_t cookie
    uint32_t stream_id_bytes
    uint8_t stream_id[512]
    bint encrypts                 # the caller sent a KMREQ
    uint32_t key_material_bytes   # of it; more than there are here: it is none
    uint8_t key_material[104]

cdef struct connection_stats:
    uint64_t received_pkts        # kept; the ones refused are not in it
    uint64_t received_bytes
    uint64_t received_lost_pkts
    uint64_t received_again_pkts  # with the retransmitted flag
    uint64_t duplicate_pkts
    uint64_t skipped_pkts
    uint64_t undecrypted_pkts
    uint64_t delivered_bytes
    uint64_t sent_pkts
    uint64_t sent_bytes
    uint64_t sent_again_pkts
    uint64_t sent_again_bytes
    uint64_t too_late_pkts
    uint64_t lapped
    uint64_t acks_received
    uint64_t naks_received
    uint64_t naks_sent

cdef struct connection:
    endpoint* owner
    uint32_t id
    uint32_t peer_id
    uint32_t state                # connection_state
    uint32_t pending              # bits of `pending`
    uint32_t events               # bits of connection_event
    uint32_t reason               # close_reason
    uint8_t address[28]           # as the kernel gave it
    uint32_t address_bytes
    uint8_t key[20]               # normalised
    uint32_t key_bytes
    uint32_t isn                  # both directions begin with the caller's number
    int64_t start_us              # our timestamps count from here
    int64_t opened_us             # when the handshake began
    int64_t heard_us
    int64_t sent_us
    timer timer
    # lists
    connection* ready_before
    connection* ready_after
    connection* hash_after
    connection* source_before
    connection* source_after
    connection* flush_after
    connection* event_after
    bint ready
    bint in_flush
    bint in_events
    bint in_hash
    # negotiated
    request* request
    int64_t resend_us             # caller: the handshake goes again then
    uint32_t peer_version
    uint32_t peer_flags           # hs_flag
    uint32_t peer_window_pkts     # how many packets may be under way to it
    uint32_t payload_bytes        # of a packet read from a ring, at most
    uint32_t most_payload_bytes   # of any packet to the peer
    uint32_t receive_latency_ms
    uint32_t send_latency_ms
    # encryption
    crypto* crypto                # NULL: we have no secret
    bint secured                  # listener: with what to encrypt is settled
    bint one_sided                # there is no common secret, and the connection is for all that
    bint answers_key_material     # the handshake's answer has a KMRSP
    uint32_t key_answer           # km_state; what a KMRSP says
    # receiving
    media_sink sink
    bint has_sink
    bint ack_wanted               # data came since the last full ACK
    recv_buffer rx
    loss_list lost                # all that is missing in rx
    tsbpd clock
    sent_ack* acks                # K_ACK_WINDOW; NULL until the first ACK
    uint32_t ack_number
    uint32_t pkts_since_ack       # since an ACK of any kind
    int64_t acked                 # index, in the newest full ACK
    int64_t confirmed             # index, in the newest ACK that was answered
    int64_t ack_us                # time of the newest full ACK
    int64_t nak_us                # when the earliest range is to be reported; INT64_MAX
    rate_meter rx_rate
    # sending
    ring* source
    uint64_t source_pos           # next byte of the ring to be sent
    int64_t source_since_us       # waits for a keyframe since then
    bint joined                   # has one, or has waited long enough
    uint32_t credit_pkts          # new packets that may go before the next tick or portion
    bint waited                   # the last tick left a small batch to this one
    bint partial                  # the rest of the bytes may go though it fills no packet
    bint held                     # the flow window or the send buffer kept packets back
    bint limited                  # the overhead budget kept retransmissions back
    int64_t portion_us            # a backlog's next portion is due; 0: no backlog
    int64_t budget_us             # when held-back retransmissions may go; 0: none
    send_buffer tx
    loss_list owed                # to be sent again
    int64_t window_end            # index, packets from here on have to wait
    uint32_t ackack_number
    int64_t ackack_us             # when an ACK was answered last
    uint32_t timeouts             # in a row, without an ACK
    int64_t probe_us              # when to doubt that what is under way arrived
    int64_t drop_first            # indices: the peer asks for what we gave up
    int64_t drop_last
    rtt_estimate rtt
    rate_meter tx_rate
    overhead_budget budget
    connection_stats stats

cdef struct endpoint:
    uint32_t worker
    uint32_t next_slot            # where the search for a free slot goes on
    settings settings
    uint64_t* counters
    int64_t now_us                # of the last datagram or timer
    int64_t hurry_us              # when something was last seen that answers must not wait for: a loss, a handshake
    cookie_key key
    uint64_t serial               # ids and initial numbers are drawn from it, under the key
    connection** slots            # by the slot number in the socket id
    uint32_t slot_count
    uint32_t used
    uint32_t open
    uint32_t waiting              # in a handshake
    connection** buckets          # listener's connections, by the caller's address and id
    uint32_t bucket_mask
    timer_heap timers
    slab bytes
    # chunks that a transmit may still point at; given back at the next handle_timeout
    uint8_t** limbo
    uint32_t limbo_used
    uint32_t limbo_room
    uint32_t owned                # chunks in send buffers: so many may have to go to limbo
    connection* ready_first
    connection* ready_last
    connection* sources
    connection* flush
    connection* events_first
    connection* events_last
    int64_t source_us             # next look at the sources
    int64_t key_exchange_us       # when the key exchanges that were let in would be done at their average rate
    answer* answers               # K_ANSWERS
    uint32_t answers_first
    uint32_t answers_used


cdef inline void count(endpoint* e, uint32_t counter) noexcept nogil:
    e.counters[counter] += 1


cdef inline void count_many(endpoint* e, uint32_t counter, uint64_t n) noexcept nogil:
    e.counters[counter] += n


cdef inline void hurry(connection* c, int64_t now_us) noexcept nogil:
    """What is sent and heard in the next while decides over packets: it should not wait for a tick."""
    c.owner.hurry_us = now_us


cdef inline uint32_t timestamp_now(connection* c, int64_t now_us) noexcept nogil:
    return <uint32_t>(now_us - c.start_us)

"""Handshake packets (draft-sharabayko-srt-01, sections 3.2.1 and 4.3).

Extensions that Flux does not speak yet (groups, packet filters) are recognised and told apart, so
that a peer that needs them is refused with the code that says why.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t

cdef enum:
    K_HANDSHAKE_BYTES = 48        # the control information field without extensions
    K_STREAM_ID_BYTES = 512
    K_HS_MAGIC = 0x4A17
    K_HS_VERSION = 5
    K_SRT_VERSION = 0x010504      # what we announce, major << 16 | minor << 8 | patch: AES-GCM is as since this one
    K_LEAST_SRT_VERSION = 0x010300

cdef extern from *:               # handshake types; rendezvous has WAVEAHAND (0), DONE (-3) and AGREEMENT (-2) besides
    """
    #define SRT_HS_INDUCTION 1u
    #define SRT_HS_CONCLUSION 0xFFFFFFFFu
    """
    const uint32_t HS_INDUCTION "SRT_HS_INDUCTION"
    const uint32_t HS_CONCLUSION "SRT_HS_CONCLUSION"

cdef enum extension_type:
    EXT_HSREQ = 1
    EXT_HSRSP = 2
    EXT_KMREQ = 3
    EXT_KMRSP = 4
    EXT_SID = 5
    EXT_CONGESTION = 6
    EXT_FILTER = 7
    EXT_GROUP = 8

cdef enum extension_flag:         # of the extension field in a conclusion
    EXT_FLAG_HSREQ = 1
    EXT_FLAG_KMREQ = 2
    EXT_FLAG_CONFIG = 4

cdef enum hs_flag:                # of HSREQ and HSRSP
    HS_TSBPDSND = 0x01
    HS_TSBPDRCV = 0x02
    HS_CRYPT = 0x04
    HS_TLPKTDROP = 0x08
    HS_PERIODICNAK = 0x10
    HS_REXMITFLG = 0x20
    HS_STREAM = 0x40
    HS_PACKET_FILTER = 0x80
    HS_OUR_FLAGS = 0x3F

cdef enum reject_reason:          # on the wire: 1,000 + this (section 4.3.3)
    REJ_UNKNOWN = 0
    REJ_SYSTEM = 1
    REJ_PEER = 2
    REJ_RESOURCE = 3
    REJ_ROGUE = 4
    REJ_BACKLOG = 5
    REJ_IPE = 6
    REJ_CLOSE = 7
    REJ_VERSION = 8
    REJ_RDVCOOKIE = 9
    REJ_BADSECRET = 10
    REJ_UNSECURE = 11
    REJ_MESSAGEAPI = 12
    REJ_CONGESTION = 13
    REJ_FILTER = 14
    REJ_GROUP = 15
    REJ_TIMEOUT = 16
    REJ_CRYPTO = 17

cdef struct handshake:
    uint32_t version
    uint16_t encryption           # advertised cipher and key length
    uint16_t extension            # K_HS_MAGIC in an induction response, extension_flag bits in a conclusion
    uint32_t isn
    uint32_t mss                  # bytes, IP and UDP headers included
    uint32_t flow_window_pkts
    uint32_t kind                 # handshake type, or 1,000 and more: a rejection
    uint32_t socket_id
    uint32_t cookie
    uint8_t peer_ip[16]           # as it lies on the wire
    # from extensions
    uint32_t seen                 # 1 << extension_type
    uint32_t srt_version
    uint32_t flags                # hs_flag
    uint16_t receiver_delay_ms
    uint16_t sender_delay_ms
    uint32_t stream_id_bytes
    uint8_t stream_id[512]
    uint8_t congestion[16]        # the controller's name, zero-ended; cut when longer
    const uint8_t* key_material   # KMREQ or KMRSP, where it lies
    uint32_t key_material_bytes

# both take and give a control information field (without the SRT header)
cdef int handshake_parse(handshake* h, const uint8_t* data, uint32_t length) noexcept nogil
cdef uint32_t handshake_write(const handshake* h, uint32_t hs_extension, uint8_t* out) noexcept nogil

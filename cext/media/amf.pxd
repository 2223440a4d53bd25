"""AMF0, the values of FLV script tags and RTMP commands (Action Message Format, AMF 0 specification of 2006)."""

from libc.stdint cimport uint8_t, uint32_t

cdef struct amf_writer:           # past its end it writes nothing and sets overrun
    uint8_t* at
    uint8_t* end
    bint overrun

cdef void amf_string(amf_writer* w, const char* text) noexcept nogil
cdef void amf_number(amf_writer* w, double value) noexcept nogil
cdef void amf_boolean(amf_writer* w, bint value) noexcept nogil
cdef void amf_ecma_array(amf_writer* w, uint32_t count) noexcept nogil   # properties follow, then amf_object_end
cdef void amf_object_end(amf_writer* w) noexcept nogil
cdef void amf_name(amf_writer* w, const char* name) noexcept nogil       # of a property; its value follows

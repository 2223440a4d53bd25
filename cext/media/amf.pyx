"""AMF0 values: a writer for the core, a reader for Python."""

import struct

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

cdef enum amf_marker:             # 2.1
    AMF_NUMBER = 0
    AMF_BOOLEAN = 1
    AMF_STRING = 2
    AMF_OBJECT = 3
    AMF_NULL = 5
    AMF_UNDEFINED = 6
    AMF_ECMA_ARRAY = 8
    AMF_OBJECT_END = 9
    AMF_STRICT_ARRAY = 10
    AMF_DATE = 11
    AMF_LONG_STRING = 12

cdef enum:
    K_MAX_DEPTH = 16              # of objects in objects


cdef void put(amf_writer* w, const void* data, size_t length) noexcept nogil:
    if <size_t>(w.end - w.at) < length:
        w.overrun = True
        w.end = w.at
        return
    memcpy(w.at, data, length)
    w.at += length


cdef void put_big_endian(amf_writer* w, uint64_t value, uint32_t length) noexcept nogil:
    cdef uint8_t data[8]
    cdef uint32_t i
    for i in range(length):
        data[i] = value >> (8 * (length - 1 - i)) & 0xFF
    put(w, data, length)


cdef void amf_name(amf_writer* w, const char* name) noexcept nogil:
    """2.4: a string without its marker."""
    cdef size_t length = strlen(name)
    put_big_endian(w, length, 2)
    put(w, name, length)


cdef void amf_string(amf_writer* w, const char* text) noexcept nogil:
    """2.4: `text` is shorter than 65,536 bytes."""
    put_big_endian(w, AMF_STRING, 1)
    amf_name(w, text)


cdef void amf_number(amf_writer* w, double value) noexcept nogil:
    """2.2."""
    cdef uint64_t raw
    memcpy(&raw, &value, sizeof(raw))
    put_big_endian(w, AMF_NUMBER, 1)
    put_big_endian(w, raw, 8)


cdef void amf_boolean(amf_writer* w, bint value) noexcept nogil:
    """2.3."""
    put_big_endian(w, AMF_BOOLEAN, 1)
    put_big_endian(w, value != 0, 1)


cdef void amf_ecma_array(amf_writer* w, uint32_t count) noexcept nogil:
    """2.10."""
    put_big_endian(w, AMF_ECMA_ARRAY, 1)
    put_big_endian(w, count, 4)


cdef void amf_object_end(amf_writer* w) noexcept nogil:
    """2.5, at the end of the properties."""
    put_big_endian(w, AMF_OBJECT_END, 3)


class Reader:
    """Values of an AMF0 byte string, one after the other."""

    def __init__(self, data):
        self._data = bytes(data)
        self._at = 0

    @property
    def left(self):
        """Bytes that are not read yet."""
        return len(self._data) - self._at

    def _take(self, count):
        if self.left < count:
            raise ValueError("AMF0 value is cut off")
        self._at += count
        return self._data[self._at - count:self._at]

    def _number(self, form):
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _text(self, form):
        return self._take(self._number(form)).decode("utf-8", "replace")

    def _properties(self, depth):
        found = {}
        while True:
            name = self._text(">H")
            if not name and self._data[self._at:self._at + 1] == b"\x09":
                self._at += 1
                return found
            found[name] = self.value(depth + 1)

    def value(self, depth=0):
        """The next value: float, bool, str, dict, list or None; a date is its milliseconds since 1970.

        Raises ValueError when it is cut off, nested too deeply, or of a type that AMF0 files don't hold.
        """
        if depth > K_MAX_DEPTH:
            raise ValueError(f"AMF0 objects are nested more than {K_MAX_DEPTH} deep")
        marker = self._take(1)[0]
        if marker == AMF_NUMBER:
            return self._number(">d")
        if marker == AMF_BOOLEAN:
            return self._take(1) != b"\0"
        if marker == AMF_STRING:
            return self._text(">H")
        if marker == AMF_LONG_STRING:
            return self._text(">I")
        if marker == AMF_OBJECT:
            return self._properties(depth)
        if marker == AMF_ECMA_ARRAY:
            self._take(4)
            return self._properties(depth)
        if marker == AMF_STRICT_ARRAY:
            count = self._number(">I")
            if count > self.left:
                raise ValueError("AMF0 value is cut off")
            return [self.value(depth + 1) for _ in range(count)]
        if marker == AMF_DATE:
            milliseconds = self._number(">d")
            self._take(2)
            return milliseconds
        if marker in (AMF_NULL, AMF_UNDEFINED):
            return None
        raise ValueError(f"AMF0 type {marker} is not read")


def read(data):
    """All values in `data`, as a list (Reader.value tells their types and errors)."""
    reader = Reader(data)
    values = []
    while reader.left:
        values.append(reader.value())
    return values

"""Time base and drift of a receiver (tsbpd.pxd)."""

from libc.stdint cimport int64_t, uint32_t

cdef enum:
    K_DRIFT_SAMPLES = 1000
    K_MOST_DRIFT_US = 5000
    K_SETTLING_US = 1000000
    K_MOST_WAIT_US = 3000         # of a handshake, in the peer's program and in ours; more is the path's


cdef void tsbpd_init(tsbpd* t, int64_t now_us, uint32_t timestamp, int64_t delay_us) noexcept nogil:
    """Set the base by the handshake's timestamp, at its arrival."""
    t.base_us = now_us - <int64_t>timestamp
    t.newest_us = timestamp
    t.delay_us = delay_us
    t.drift_us = 0
    t.drift_sum_us = 0
    t.drift_samples = 0
    t.moves = 0
    t.first_rtt_us = -1
    t.least_base_us = t.base_us - K_MOST_WAIT_US
    t.settled_us = now_us + K_SETTLING_US


cdef void tsbpd_drift(tsbpd* t, uint32_t timestamp, int64_t now_us, int64_t rtt_us) noexcept nogil:
    """Take an ACKACK's timestamp as a sample; half the change of the RTT is taken to be the path's, not the clock's."""
    if t.first_rtt_us < 0:
        t.first_rtt_us = rtt_us
    t.drift_sum_us += now_us - (t.base_us + tsbpd_unwrap(t, timestamp)) - (rtt_us - t.first_rtt_us) // 2
    t.drift_samples += 1
    if t.drift_samples < K_DRIFT_SAMPLES:
        return
    t.drift_us = t.drift_sum_us // K_DRIFT_SAMPLES
    t.drift_sum_us = 0
    t.drift_samples = 0
    if t.drift_us > K_MOST_DRIFT_US:
        t.base_us += K_MOST_DRIFT_US
        t.drift_us -= K_MOST_DRIFT_US
        t.moves += 1
    elif t.drift_us < -K_MOST_DRIFT_US:
        t.base_us -= K_MOST_DRIFT_US
        t.drift_us += K_MOST_DRIFT_US
        t.moves += 1


cdef class Tsbpd:
    """A time base for tests and inspection."""

    cdef tsbpd view

    def __cinit__(self, int64_t now_us, uint32_t timestamp, int64_t delay_us):
        tsbpd_init(&self.view, now_us, timestamp, delay_us)

    def arrived(self, uint32_t timestamp, int64_t now_us):
        """Take in the arrival of a packet: base_us after it."""
        tsbpd_arrived(&self.view, tsbpd_unwrap(&self.view, timestamp), now_us)
        return self.view.base_us

    def due_us(self, uint32_t timestamp):
        """Delivery time of a packet; the timestamp becomes the newest when it is."""
        cdef int64_t unwrapped = tsbpd_unwrap(&self.view, timestamp)
        if unwrapped > self.view.newest_us:
            self.view.newest_us = unwrapped
        return tsbpd_due_us(&self.view, unwrapped)

    def drift(self, uint32_t timestamp, int64_t now_us, int64_t rtt_us):
        """Take in a sample: (drift_us, base_us) after it."""
        tsbpd_drift(&self.view, timestamp, now_us, rtt_us)
        return self.view.drift_us, self.view.base_us

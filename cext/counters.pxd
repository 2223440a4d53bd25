"""Numbers of the counters in a process's slab; counters.pyx names and explains each.

A block of numbers belongs to one part of the core. A counter is added at its block's end and never
changes its number while the arena's version stands.
"""

cdef enum counter:
    # 0..127 SRT
    C_SRT_FIRST = 0
    # 128..191 media: demuxers, muxers, HLS
    C_MEDIA_FIRST = 128
    # 192..255 fan-out
    C_FANOUT_FIRST = 192
    # 256..319 HTTP
    C_HTTP_FIRST = 256
    # 320..383 UDP sockets
    C_UDP_FIRST = 320
    # 384..447 arena, rings, worker
    C_WORKER_FIRST = 384

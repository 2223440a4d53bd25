"""What each counter in a process's slab is called, and what it counts.

`NAMES[number] = (metric name, help)`; all grow only, but for gauges, whose names don't end in `_total`.
"""

NAMES = {
    # 0..127 SRT

    # 128..191 media

    # 192..255 fan-out

    # 256..319 HTTP

    # 320..383 UDP sockets

    # 384..447 arena, rings, worker

}

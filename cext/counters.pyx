"""What each counter in a process's slab is called, and what it counts.

`NAMES[number] = (metric name, help)`; all grow only, but for gauges, whose names don't end in `_total`.
"""

NAMES = {
    # 0..127 SRT

    # 128..191 media
    C_MEDIA_TS_PKTS: ("flux_media_ts_pkts_total", "whole MPEG-TS packets taken in"),
    C_MEDIA_TS_LOST_SYNC: ("flux_media_ts_lost_sync_total", "times the sync byte was missing where a packet should begin"),
    C_MEDIA_TS_SKIPPED_BYTES: ("flux_media_ts_skipped_bytes_total", "bytes skipped while searching for the sync byte"),
    C_MEDIA_MALFORMED_PKTS: ("flux_media_malformed_pkts_total", "MPEG-TS packets with an adaptation field longer than themselves"),
    C_MEDIA_TRANSPORT_ERRORS: ("flux_media_transport_errors_total", "MPEG-TS packets that their sender marked broken"),
    C_MEDIA_CONTINUITY_ERRORS: ("flux_media_continuity_errors_total", "gaps in continuity counters"),
    C_MEDIA_DUPLICATE_PKTS: ("flux_media_duplicate_pkts_total", "MPEG-TS packets sent twice, left out of frames"),
    C_MEDIA_SCRAMBLED_PKTS: ("flux_media_scrambled_pkts_total", "scrambled MPEG-TS packets, left out of frames"),
    C_MEDIA_CRC_ERRORS: ("flux_media_crc_errors_total", "PAT and PMT sections with a wrong CRC"),
    C_MEDIA_TABLE_ERRORS: ("flux_media_table_errors_total", "malformed PAT and PMT sections"),
    C_MEDIA_TABLE_CHANGES: ("flux_media_table_changes_total", "new PAT or PMT contents"),
    C_MEDIA_STREAMS_IGNORED: ("flux_media_streams_ignored_total", "elementary streams beyond those a program may have"),
    C_MEDIA_PES_ERRORS: ("flux_media_pes_errors_total", "PES packets without a valid header"),
    C_MEDIA_PES_STRAY_PKTS: ("flux_media_pes_stray_pkts_total", "MPEG-TS packets between the end of a PES and the start of the next"),
    C_MEDIA_STUFFING_DISTRUSTED: ("flux_media_stuffing_distrusted_total", "streams whose stuffing does not tell the end of a PES"),
    C_MEDIA_RANDOM_ACCESS_DISTRUSTED: ("flux_media_random_access_distrusted_total", "streams whose random_access_indicator does not tell keyframes"),
    C_MEDIA_ACCESS_UNITS: ("flux_media_access_units_total", "access units and audio frames written to frame rings"),
    C_MEDIA_ACCESS_UNITS_DAMAGED: ("flux_media_access_units_damaged_total", "access units with missing packets"),
    C_MEDIA_ACCESS_UNITS_TOO_LARGE: ("flux_media_access_units_too_large_total", "access units longer than the largest allowed"),
    C_MEDIA_ACCESS_UNITS_WITHOUT_CONFIG: ("flux_media_access_units_without_config_total", "access units before their first parameter sets"),
    C_MEDIA_ACCESS_UNITS_WITHOUT_TIME: ("flux_media_access_units_without_time_total", "access units before their first time stamp"),
    C_MEDIA_NALS_BROKEN: ("flux_media_nals_broken_total", "NAL units with an invalid header"),
    C_MEDIA_PARAMETER_SETS_REFUSED: ("flux_media_parameter_sets_refused_total", "parameter sets broken or too long"),
    C_MEDIA_CONFIG_CHANGES: ("flux_media_config_changes_total", "new decoder configurations"),
    C_MEDIA_ADTS_SKIPPED_BYTES: ("flux_media_adts_skipped_bytes_total", "bytes skipped between audio frames"),
    C_MEDIA_ADTS_REFUSED: ("flux_media_adts_refused_total", "audio frames of a kind that is not supported"),
    C_MEDIA_DISCONTINUITIES: ("flux_media_discontinuities_total", "jumps of time stamps"),
    C_MEDIA_RING_REFUSED: ("flux_media_ring_refused_total", "records that a ring had no room for"),
    C_MEDIA_FLV_TAGS: ("flux_media_flv_tags_total", "FLV tags written"),
    C_MEDIA_FLV_LAPPED: ("flux_media_flv_lapped_total", "times an FLV muxer was overtaken by its frame ring"),
    C_MEDIA_FLV_BACKWARD: ("flux_media_flv_backward_total", "audio and video frames left out of FLV since they lie before what was sent"),
    C_MEDIA_FLV_STARTS: ("flux_media_flv_starts_total", "times an FLV muxer began to run"),
    C_MEDIA_HEADERS_TOO_LONG: ("flux_media_headers_too_long_total", "header blobs too long for their ring"),
    C_MEDIA_NO_MEMORY: ("flux_media_no_memory_total", "allocations that failed"),

    # 192..255 fan-out

    # 256..319 HTTP
    C_HTTP_CONNECTIONS: ("flux_http_connections_total", "connections accepted by the media HTTP server"),
    C_HTTP_REFUSED: ("flux_http_refused_total", "connections refused because http.max_connections was reached"),
    C_HTTP_OPEN: ("flux_http_open", "connections open now, players included"),
    C_HTTP_REQUESTS: ("flux_http_requests_total", "requests taken in whole"),
    C_HTTP_ANSWERS_1XX: ("flux_http_answers_1xx_total", "responses 101: a connection became a WebSocket"),
    C_HTTP_ANSWERS_2XX: ("flux_http_answers_2xx_total", "responses that went well"),
    C_HTTP_ANSWERS_4XX: ("flux_http_answers_4xx_total", "requests refused as the client's mistake"),
    C_HTTP_ANSWERS_5XX: ("flux_http_answers_5xx_total", "requests that the server could not serve"),
    C_HTTP_BAD_REQUESTS: ("flux_http_bad_requests_total", "requests that could not be parsed"),
    C_HTTP_TIMEOUTS: ("flux_http_timeouts_total", "connections closed as their request did not arrive in time"),
    C_HTTP_LOST: ("flux_http_lost_total", "connections that the client closed before its answer"),
    C_HTTP_LIVE_FLV: ("flux_http_live_flv_total", "FLV players that were joined to a stream"),
    C_HTTP_LIVE_TS: ("flux_http_live_ts_total", "MPEG-TS players that were joined to a stream"),
    C_HTTP_PLAYLISTS: ("flux_http_playlists_total", "HLS playlists sent"),
    C_HTTP_SEGMENTS: ("flux_http_segments_total", "HLS segments sent, whole or in part"),
    C_HTTP_SEGMENTS_LAPPED: ("flux_http_segments_lapped_total", "HLS segments that were overwritten while a slow client took them"),
    C_HTTP_HLS_VIEWERS: ("flux_http_hls_viewers", "HLS viewers now, told apart by address, user agent and stream"),
    C_HTTP_HLS_UNTRACKED: ("flux_http_hls_untracked_total", "HLS requests of viewers for whom hls.max_viewers left no room"),

    # 320..351 UDP sockets
    C_UDP_DATAGRAMS_IN: ("flux_udp_datagrams_in_total", "datagrams received"),
    C_UDP_BYTES_IN: ("flux_udp_bytes_in_total", "bytes received in UDP payloads"),
    C_UDP_RECEIVES: ("flux_udp_receives_total", "system calls that received something"),
    C_UDP_KERNEL_DROPS: ("flux_udp_kernel_drops_total", "datagrams that the kernel dropped as the socket's receive buffer was full"),
    C_UDP_TRUNCATED: ("flux_udp_truncated_total", "datagrams dropped as they were longer than any that is expected"),
    C_UDP_SOCKET_ERRORS: ("flux_udp_socket_errors_total", "errors that the socket reported of earlier datagrams, such as ICMP unreachable; ignored"),
    C_UDP_DATAGRAMS_OUT: ("flux_udp_datagrams_out_total", "datagrams sent"),
    C_UDP_BYTES_OUT: ("flux_udp_bytes_out_total", "bytes sent in UDP payloads"),
    C_UDP_SENDS: ("flux_udp_sends_total", "system calls that sent something"),
    C_UDP_SEND_BLOCKED: ("flux_udp_send_blocked_total", "times the socket's send buffer was full"),
    C_UDP_SEND_NO_BUFFERS: ("flux_udp_send_no_buffers_total", "datagrams dropped as the device's queue was full"),
    C_UDP_SEND_ABANDONED: ("flux_udp_send_abandoned_total", "datagrams dropped as the send buffer stayed full for too long"),
    C_UDP_SEND_REFUSED: ("flux_udp_send_refused_total", "datagrams that the kernel refused: no route, a filter, too long"),
    C_UDP_GSO_REFUSED: ("flux_udp_gso_refused_total", "batches that the kernel or a device would not segment; sent one by one"),
    C_UDP_WAKES: ("flux_udp_wakes_total", "wake-ups by a datagram"),
    C_UDP_TICKS: ("flux_udp_ticks_total", "reads of a socket on the polling tick"),
    C_UDP_TICKING: ("flux_udp_ticking", "sockets that are read on the polling tick at present"),
    # 352..383 what the SRT service decides
    C_SRT_SERVICE_REQUESTS: ("flux_srt_requests_total", "SRT callers that asked for a stream"),
    C_SRT_SERVICE_REFUSED_STREAM_ID: ("flux_srt_refused_stream_id_total", "SRT callers refused: stream id or stream name malformed"),
    C_SRT_SERVICE_REFUSED_NOT_FOUND: ("flux_srt_refused_not_found_total", "SRT players refused: nobody published the stream in time"),
    C_SRT_SERVICE_REFUSED_TAKEN: ("flux_srt_refused_taken_total", "SRT publishers refused: the name has a publisher"),
    C_SRT_SERVICE_REFUSED_LIMIT: ("flux_srt_refused_limit_total", "SRT callers refused: a configured bound was reached"),
    C_SRT_SERVICE_REFUSED_DRAINING: ("flux_srt_refused_draining_total", "SRT callers refused: this server is draining"),
    C_SRT_SERVICE_REFUSED_MODE: ("flux_srt_refused_mode_total", "SRT callers refused: a mode or type that is not offered"),
    C_SRT_SERVICE_REFUSED_FAILED: ("flux_srt_refused_failed_total", "SRT callers refused: an error of ours"),

    # 384..447 arena, rings, worker
    C_WORKER_SESSIONS: ("flux_worker_sessions", "sessions open now"),
    C_WORKER_SESSIONS_TOTAL: ("flux_worker_sessions_total", "sessions begun"),
    C_WORKER_PUBLISHERS_TOTAL: ("flux_worker_publishers_total", "publishers taken in"),
    C_WORKER_PUBLISHERS_REFUSED: ("flux_worker_publishers_refused_total", "publishers refused: name taken, or no slot free"),
    C_WORKER_KICKED: ("flux_worker_kicked_total", "sessions ended by request"),
    C_WORKER_WAITS: ("flux_worker_waits_total", "players that came before their publisher and waited"),
    C_WORKER_WAITS_IN_VAIN: ("flux_worker_waits_in_vain_total", "of these, players whose publisher did not come in time"),

}

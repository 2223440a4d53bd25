/* Sends a clip, looped and paced, on SRT flows: to a server that it calls, or to players that call it.
 *
 *   srt_send --connect host:port --streamid publish:live/bench%d --clip FILE [--flows 50] [--speed 1]
 *   srt_send --listen host:port --clip FILE --flows 50
 *
 * Every flow is given what is due once a tick (--tick-us). `refused_pkts` are those that libsrt's
 * buffer had no room for.
 */
#include "srt.h"
#include "ts_loop.h"

int main(int argc, char **argv)
{
    static struct ts_cursor cursors[K_MAX_FLOWS];
    struct ts_clip clip;
    int count = (int)number(argc, argv, "--flows", 1);
    int64_t tick_us = (int64_t)number(argc, argv, "--tick-us", 1000);
    uint8_t payload[K_PAYLOAD];
    ts_clip_load(&clip, option(argc, argv, "--clip", "clip.ts"), number(argc, argv, "--speed", 1));
    srt_startup();
    open_flows(argc, argv, count);
    for (int n = 0; n < count; n++) {
        set_int(flows[n], SRTO_SNDSYN, 0);
        cursors[n].clip = &clip;
    }
    tell("{\"flows\": %d, \"bits_a_second\": %.0f}", count, clip.bytes_a_us * 8e6);
    begin_obeying(tell_figures, hang_up);
    int64_t start_us = now_us(), next_us = start_us, sent = 0;
    for (;;) {
        sleep_until_us(next_us += tick_us);
        int64_t due = (int64_t)((double)(now_us() - start_us) * clip.bytes_a_us);
        for (; sent + K_PAYLOAD <= due; sent += K_PAYLOAD) {
            for (int n = 0; n < count; n++) {
                if (flows[n] == SRT_INVALID_SOCK)
                    continue;
                ts_next(&cursors[n], payload);
                if (srt_sendmsg2(flows[n], (char *)payload, K_PAYLOAD, NULL) == K_PAYLOAD) {
                    payload_bytes += K_PAYLOAD;
                    payload_pkts++;
                } else if (srt_getlasterror(NULL) == SRT_EASYNCSND) {
                    refused_pkts++;
                } else {
                    fprintf(stderr, "SRT flow %d ended: %s\n", n, srt_getlasterror_str());
                    srt_close(flows[n]);
                    flows[n] = SRT_INVALID_SOCK;
                    lost_flows++;
                }
            }
        }
    }
}

/* Receives on SRT flows and throws away: as a server that publishers call, or as players that call one.
 *
 *   srt_receive --listen host:port [--flows 50]
 *   srt_receive --connect host:port --streamid read:live/bench --flows 50
 *
 * One flow is read by blocking calls, several are waited for together.
 */
#include "srt.h"

static void take(int n, int length)
{
    if (length > 0) {
        payload_bytes += length;
        payload_pkts++;
    } else if (srt_getlasterror(NULL) != SRT_EASYNCRCV) {
        fprintf(stderr, "SRT flow %d ended: %s\n", n, srt_getlasterror_str());
        lost_flows++;
    }
}

int main(int argc, char **argv)
{
    int count = (int)number(argc, argv, "--flows", 1);
    char payload[1500];
    srt_startup();
    if (option(argc, argv, "--listen", NULL))
        begin_obeying(tell_figures, hang_up);
    open_flows(argc, argv, count);
    tell("{\"flows\": %d}", count);
    if (!option(argc, argv, "--listen", NULL))
        begin_obeying(tell_figures, hang_up);
    if (count == 1)
        while (!lost_flows)
            take(0, srt_recvmsg2(flows[0], payload, sizeof payload, NULL));
    int epoll = srt_epoll_create(), events = SRT_EPOLL_IN | SRT_EPOLL_ERR;
    for (int n = 0; n < count; n++) {
        set_int(flows[n], SRTO_RCVSYN, 0);
        srt_epoll_add_usock(epoll, flows[n], &events);
    }
    while (lost_flows < count) {
        SRT_EPOLL_EVENT ready[64];
        int woken = srt_epoll_uwait(epoll, ready, 64, -1);
        for (int n = 0; n < woken; n++) {
            int length;
            while ((length = srt_recvmsg2(ready[n].fd, payload, sizeof payload, NULL)) > 0)
                take(n, length);
            take(n, length);
            if (srt_getlasterror(NULL) != SRT_EASYNCRCV)
                srt_epoll_remove_usock(epoll, ready[n].fd);
        }
    }
    for (;;)
        pause();
}

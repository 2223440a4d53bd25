/* What all load programs share: clock, CPU time, options, and the way in which the harness talks to them.
 *
 * A program prints one JSON object a line. It reads commands, a word a line, from its standard input;
 * the end of the input means stop, so that no program outlives its harness.
 */
#ifndef FLUX_PERF_COMMON_H
#define FLUX_PERF_COMMON_H

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static inline int64_t clock_us(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static inline int64_t now_us(void) { return clock_us(CLOCK_MONOTONIC); }

/* User and system time of this process, all threads. */
static inline int64_t cpu_us(void) { return clock_us(CLOCK_PROCESS_CPUTIME_ID); }

static inline void sleep_until_us(int64_t when_us)
{
    struct timespec t = {when_us / 1000000, when_us % 1000000 * 1000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) { }
}

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

/* The value after `--name`, or `otherwise`. */
static inline const char *option(int argc, char **argv, const char *name, const char *otherwise)
{
    for (int n = 1; n + 1 < argc; n++)
        if (strcmp(argv[n], name) == 0)
            return argv[n + 1];
    return otherwise;
}

static inline double number(int argc, char **argv, const char *name, double otherwise)
{
    const char *text = option(argc, argv, name, NULL);
    return text ? atof(text) : otherwise;
}

__attribute__((format(printf, 1, 2))) static inline void tell(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

static void (*harness_mark)(void), (*harness_end)(void);

static inline void *obey_harness(void *nothing)
{
    char line[64];
    (void)nothing;
    while (fgets(line, sizeof line, stdin) && strncmp(line, "stop", 4) != 0)
        harness_mark();
    if (harness_end)
        harness_end();
    _exit(0);
}

/* `mark` makes a thread call tell_figures(); `stop`, or the end of the input, calls hang_up() and exits. */
static inline void begin_obeying(void (*tell_figures)(void), void (*hang_up)(void))
{
    pthread_t thread;
    harness_mark = tell_figures;
    harness_end = hang_up;
    pthread_create(&thread, NULL, obey_harness, NULL);
}

/* A whole file; its length in *length. */
static inline uint8_t *read_file(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        die("%s: %s", path, strerror(errno));
    fseek(file, 0, SEEK_END);
    *length = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(*length + 1);
    if (!data || fread(data, 1, *length, file) != *length)
        die("%s: can't be read", path);
    fclose(file);
    return data;
}

#endif

/* See bench_measure.h. */
#define _GNU_SOURCE
#include "bench_measure.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NUMBER_MAX (1u << 24)
#define SAMPLES_MAX 2000000u

uint64_t bench_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void bench_pin(unsigned core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (core >= CPU_SETSIZE) bench_fail("core %u is above %d", core, CPU_SETSIZE);
    CPU_SET(core, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) bench_fail("core %u is not here", core);
}

unsigned bench_publisher_core(unsigned index) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores > 2 ? 1 + index % (unsigned)(cores - 1) : 1;
}

void bench_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    /* Other threads may be inside the library: no destructors. */
    _exit(1);
}

uint64_t bench_number(const char *text, const char **end) {
    char *rest = NULL;
    unsigned long long value = strtoull(text, &rest, 10);
    bool is_whole = rest != text && (end != NULL || *rest == '\0');
    if (!is_whole || value < 1 || value > NUMBER_MAX)
        bench_fail("%s is not a number from 1 to %u", text, NUMBER_MAX);
    if (end != NULL) *end = rest;
    return value;
}

int bench_plan_read(int argc, char **argv, struct bench_plan *plan) {
    plan->warm_up_ns = 60000000;
    plan->measure_ns = 300000000;
    int index = 1;
    while (index + 1 < argc) {
        uint64_t *target = NULL;
        if (strcmp(argv[index], "--ms") == 0) target = &plan->measure_ns;
        if (strcmp(argv[index], "--warm-up-ms") == 0) target = &plan->warm_up_ns;
        if (target == NULL) break;
        *target = bench_number(argv[index + 1], NULL) * 1000000;
        index += 2;
    }
    return index;
}

double bench_rate(const struct bench_plan *plan, uint64_t (*step)(void *), void (*settle)(void *),
                  void *context) {
    uint64_t started = bench_now_ns();
    while (bench_now_ns() - started < plan->warm_up_ns) step(context);
    if (settle != NULL) settle(context);
    uint64_t count = 0;
    started = bench_now_ns();
    while (bench_now_ns() - started < plan->measure_ns) count += step(context);
    if (settle != NULL) settle(context);
    return (double)count * 1e3 / (double)(bench_now_ns() - started);
}

static int compare_samples(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

struct bench_percentiles bench_latency(const struct bench_plan *plan, void (*step)(void *),
                                       void *context) {
    uint32_t *samples = malloc(SAMPLES_MAX * sizeof *samples);
    if (samples == NULL) bench_fail("no memory for %u samples", SAMPLES_MAX);
    memset(samples, 1, SAMPLES_MAX * sizeof *samples); /* Its pages are here before the clock. */
    uint64_t started = bench_now_ns();
    while (bench_now_ns() - started < plan->warm_up_ns) step(context);
    size_t count = 0;
    started = bench_now_ns();
    uint64_t before = started;
    while (count < SAMPLES_MAX && before - started < plan->measure_ns) {
        step(context);
        uint64_t after = bench_now_ns();
        uint64_t elapsed = after - before;
        samples[count++] = elapsed > UINT32_MAX ? UINT32_MAX : (uint32_t)elapsed;
        before = after;
    }
    qsort(samples, count, sizeof *samples, compare_samples);
    double last = (double)(count - 1);
    struct bench_percentiles result = {
        .p50 = samples[(size_t)(last * 0.50)],
        .p99 = samples[(size_t)(last * 0.99)],
        .p999 = samples[(size_t)(last * 0.999)],
    };
    free(samples);
    return result;
}

void bench_subject(uint8_t out[BENCH_SUBJECT_BYTES], uint32_t index) {
    memcpy(out, "player.", 7);
    for (int at = BENCH_SUBJECT_BYTES - 1; at >= 7; at--) {
        out[at] = (uint8_t)('0' + index % 10);
        index /= 10;
    }
}

void bench_stamp(uint8_t *payload, size_t size, uint64_t number) {
    uint64_t inverse = ~number;
    memcpy(payload, &number, 8);
    memcpy(payload + size - 8, &inverse, 8);
}

bool bench_is_stamped(const uint8_t *payload, size_t size, size_t expected_size, uint64_t number) {
    uint64_t first, last;
    if (size != expected_size) return false;
    memcpy(&first, payload, 8);
    memcpy(&last, payload + size - 8, 8);
    return first == number && last == ~number;
}

void bench_print(const char *program, const char *name, const char *param, const char *unit,
                 double value) {
    printf("%s,%s,%s,%s,%.3f\n", program, name, param, unit, value);
}

void bench_print_latency(const char *program, const char *name, const char *param,
                         struct bench_percentiles latency) {
    printf("%s,%s,%s,ns,%u.000,%u,%u,%u\n", program, name, param, latency.p50, latency.p50,
           latency.p99, latency.p999);
}

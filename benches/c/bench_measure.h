/* How every C program of the benches times, pins and prints: the same way as benches/floor.
 *
 * Warm up, let the other side finish, measure, let it finish again, stop the clock. So everything
 * counted was also received and checked. Not here: anything of FAST MQ (bench.h).
 */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_SUBJECTS 1024    /* names used in turn by the rows "by string" */
#define BENCH_SUBJECT_BYTES 16 /* size of each, without an end mark */

struct bench_plan {
    uint64_t warm_up_ns, measure_ns;
};

struct bench_percentiles {
    uint32_t p50, p99, p999;
};

uint64_t bench_now_ns(void);

/* Keeps the calling thread on one core; ends the program when there is no such core. */
void bench_pin(unsigned core);

/* The core of publisher `index`: 1, or with more than two cores each its own but never 0. */
unsigned bench_publisher_core(unsigned index);

/* Ends the program with a sentence on the standard error output. */
_Noreturn void bench_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Reads "--ms N" and "--warm-up-ms N"; returns the index of the first other argument. */
int bench_plan_read(int argc, char **argv, struct bench_plan *plan);

/* A number from 1 to 16,777,216, or the program ends. `end` gets what follows it; with NULL nothing
 * may follow. */
uint64_t bench_number(const char *text, const char **end);

/* Millions of operations a second. `step` says how many it did; `settle` waits for the other side
 * and may be NULL. */
double bench_rate(const struct bench_plan *plan, uint64_t (*step)(void *), void (*settle)(void *),
                  void *context);

/* The time of one `step`, in nanoseconds; the one clock call per step is inside the figure. */
struct bench_percentiles bench_latency(const struct bench_plan *plan, void (*step)(void *),
                                       void *context);

/* Writes the subject number `index` (below 10^9): 16 bytes, no end mark. */
void bench_subject(uint8_t out[BENCH_SUBJECT_BYTES], uint32_t index);

/* Marks a payload with its number in the first and the last word, and checks such a payload. */
void bench_stamp(uint8_t *payload, size_t size, uint64_t number);
bool bench_is_stamped(const uint8_t *payload, size_t size, size_t expected_size, uint64_t number);

void bench_print(const char *program, const char *name, const char *param, const char *unit,
                 double value);
void bench_print_latency(const char *program, const char *name, const char *param,
                         struct bench_percentiles latency);

#endif

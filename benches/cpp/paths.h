/* What is compared: the same work through the C header and through the C++ header.
 *
 * Both lists have the same names in the same order. Everything runs on one thread, so that a figure
 * is the cost of the calls and not of a second core.
 */
#ifndef BENCH_PATHS_H
#define BENCH_PATHS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Messages between two looks at the queue, where there is one. */
#define PATH_BATCH 64
#define PATH_SUBJECT "bench.subject.16"
#define PATH_PAYLOAD "sixteen bytes..."

struct path {
    const char *name; /* NULL ends the list */
    void *(*open)(void);
    void (*run)(void *state, uint64_t count); /* `count` is a multiple of PATH_BATCH */
    void (*close)(void *state);
};

extern const struct path paths_c[];
extern const struct path paths_cpp[];

/* Ends the program: a call has failed. */
#if defined(__GNUC__)
__attribute__((noreturn))
#endif
void path_fail(const char *call);

#ifdef __cplusplus
}
#endif

#endif

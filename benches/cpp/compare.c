/* C++ against C, path by path: the bar is 1.05 times.
 *
 * Slices of the two alternate within milliseconds, so that what the machine does meanwhile hits
 * both; the ratio of a round is that of two neighbours, and what is printed is the median over all
 * rounds. Each round opens both anew, as memory that lies luckily would favour one of them. A path
 * above the bar is marked, and the last line counts them.
 *
 *     compare [ROUNDS] [PART-OF-A-NAME]
 */
#define _POSIX_C_SOURCE 200809L
#include "paths.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BAR 1.05

enum { ROUNDS_DEFAULT = 15, ROUNDS_MAX = 1000, SLICES = 24, SLICE_NS = 500000 };

void path_fail(const char *call)
{
    fprintf(stderr, "compare: %s has failed\n", call);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int compare_numbers(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare_numbers);
    return values[count / 2];
}

static double run(const struct path *path, void *state, uint64_t count)
{
    const uint64_t start_ns = now_ns();
    path->run(state, count);
    return (double)(now_ns() - start_ns) / (double)count;
}

/* How many messages fill a slice; warms up on the way. */
static uint64_t slice(const struct path *path, void *state)
{
    uint64_t count = PATH_BATCH;
    for (int i = 0; i < 30 && run(path, state, count) * (double)count < SLICE_NS; i++) {
        count *= 2;
    }
    return count;
}

/* What one path costs in both, in nanoseconds a message, and the ratio. */
struct figures {
    double c, cpp, ratio;
};

static struct figures measure(const struct path *c, const struct path *cpp, unsigned rounds)
{
    static double of_c[ROUNDS_MAX * SLICES], of_cpp[ROUNDS_MAX * SLICES];
    static double ratios[ROUNDS_MAX * SLICES];
    size_t taken = 0;
    for (unsigned round = 0; round < rounds; round++) {
        /* Who is opened first alternates, too. */
        const struct path *first = round % 2 == 0 ? c : cpp, *second = round % 2 == 0 ? cpp : c;
        void *of_first = first->open(), *of_second = second->open();
        const uint64_t count = slice(first, of_first);
        slice(second, of_second);
        for (int i = 0; i < SLICES; i++) {
            const int is_first_before = i % 2 == 0;
            double a = 0;
            if (is_first_before) {
                a = run(first, of_first, count);
            }
            const double b = run(second, of_second, count);
            if (!is_first_before) {
                a = run(first, of_first, count);
            }
            of_c[taken] = round % 2 == 0 ? a : b;
            of_cpp[taken] = round % 2 == 0 ? b : a;
            ratios[taken] = of_cpp[taken] / of_c[taken];
            taken++;
        }
        first->close(of_first);
        second->close(of_second);
    }
    return (struct figures){median(of_c, taken), median(of_cpp, taken), median(ratios, taken)};
}

int main(int argc, char **argv)
{
    const unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : ROUNDS_DEFAULT;
    const char *part = argc > 2 ? argv[2] : "";
    if (rounds < 1 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "compare: ROUNDS is from 1 to %d\n", ROUNDS_MAX);
        return 2;
    }
    size_t count = 0, missed = 0;
    printf("%-46s %9s %9s %7s\n", "path", "C ns", "C++ ns", "ratio");
    for (size_t i = 0; paths_c[i].name != NULL; i++) {
        if (paths_cpp[i].name == NULL || strcmp(paths_c[i].name, paths_cpp[i].name) != 0) {
            path_fail("comparing the two lists");
        }
        if (strstr(paths_c[i].name, part) == NULL) {
            continue;
        }
        const struct figures figures = measure(&paths_c[i], &paths_cpp[i], rounds);
        const int is_missed = figures.ratio > BAR;
        printf("%-46s %9.1f %9.1f %7.3f%s\n", paths_c[i].name, figures.c, figures.cpp,
               figures.ratio, is_missed ? "  MISSED" : "");
        fflush(stdout);
        count++;
        missed += (size_t)is_missed;
    }
    printf("bar: at most %.2f on each path; missed on %zu of %zu\n", BAR, missed, count);
    return 0;
}

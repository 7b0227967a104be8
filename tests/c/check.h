/* Checks for the border tests: each promise is one line `ok N - name` or `not ok N - name`.
 *
 * Owns the counting, the printing and a watchdog; knows nothing about messages (see steps.h).
 * Call CHECK from the main thread only: the counters are not shared.
 */
#ifndef FASTMQ_TESTS_CHECK_H
#define FASTMQ_TESTS_CHECK_H

#include <fastmq.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A test that hangs is a failed test: the watchdog ends the process. Generous, because the same
 * files run under valgrind and the sanitizers. */
enum { CHECK_WATCHDOG_SECONDS = 180 };

static int check_passed;
static int check_failed;

static inline void check_begin(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    alarm(CHECK_WATCHDOG_SECONDS);
}

static inline int check_end(void)
{
    printf("%d passed, %d failed\n", check_passed, check_failed);
    return check_failed == 0 ? 0 : 1;
}

static inline void check_report(int ok, const char *name, const char *file, int line)
{
    if (ok) {
        check_passed++;
    } else {
        check_failed++;
        printf("# %s:%d\n", file, line);
    }
    printf("%s %d - %s\n", ok ? "ok" : "not ok", check_passed + check_failed, name);
}

static inline void check_status(uint32_t got, uint32_t expected, const char *name,
                                const char *file, int line)
{
    if (got != expected) {
        printf("# got %u %s (\"%s\"), expected %s\n", (unsigned)got, fastmq_status_name(got),
               fastmq_last_error(), fastmq_status_name(expected));
    }
    check_report(got == expected, name, file, line);
}

static inline void check_number(uint64_t got, uint64_t expected, const char *name,
                                const char *file, int line)
{
    if (got != expected) {
        printf("# got %llu, expected %llu\n", (unsigned long long)got,
               (unsigned long long)expected);
    }
    check_report(got == expected, name, file, line);
}

static inline void check_need(int ok, const char *what, const char *file, int line)
{
    if (!ok) {
        printf("# %s:%d: cannot go on without: %s (\"%s\")\n", file, line, what,
               fastmq_last_error());
        check_failed++;
        exit(check_end());
    }
}

/* One promise, as a sentence. */
#define CHECK(condition, name) check_report((condition) ? 1 : 0, (name), __FILE__, __LINE__)

/* One promise about the status that a call returns. */
#define CHECK_STATUS(call, expected, name) \
    check_status((call), (expected), (name), __FILE__, __LINE__)

/* One promise about a number; both are printed when it is broken. */
#define CHECK_NUMBER(got, expected, name) \
    check_number((uint64_t)(got), (uint64_t)(expected), (name), __FILE__, __LINE__)

/* A step without which the rest of the file has no meaning; not counted when it succeeds. */
#define NEED(condition) check_need((condition) ? 1 : 0, #condition, __FILE__, __LINE__)

#endif

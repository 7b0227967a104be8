/* One line of a scenario, for the runners in C and C++: its words, its fields, what is expected.
 *
 * What fails is noted by `fail` in `failure`, and the rest of the step is without meaning then.
 * A step is valid until the next one is read; decoded bytes lie in its `bytes`.
 */
#ifndef FASTMQ_SCENARIOS_STEP_H
#define FASTMQ_SCENARIOS_STEP_H

#include <fastmq.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 40
#define LINE_MAX_BYTES 2048
#define PATIENCE_MS 20000
#define MILLISECOND UINT64_C(1000000)

/* Why the step that runs has failed; empty: it has not. */
static char failure[512];

struct field {
    const char *name, *value;
    int is_taken;
};

struct step {
    char line[LINE_MAX_BYTES];
    const char *verb, *words[WORDS_MAX], *status, *part;
    struct field fields[WORDS_MAX];
    size_t words_count, fields_count;
    uint64_t repeat, index;
    void *bytes[4 * WORDS_MAX];
    size_t bytes_count;
};

__attribute__((format(printf, 1, 2)))
static inline void fail(const char *format, ...)
{
    va_list arguments;
    if (failure[0] != '\0') {
        return;
    }
    va_start(arguments, format);
    vsnprintf(failure, sizeof failure, format, arguments);
    va_end(arguments);
}

static inline fastmq_bytes text_of(const char *string)
{
    fastmq_bytes view = {(const uint8_t *)string, strlen(string)};
    return view;
}

static inline uint64_t number_of(const char *digits)
{
    char *end = NULL;
    uint64_t number = strtoull(digits, &end, 10);
    if (end == digits || *end != '\0') {
        fail("%s is no number", digits);
    }
    return number;
}

/* `-` is nothing, `*N` is N times x, `%XX` a byte. There is a 0 behind the bytes. */
static inline fastmq_bytes decode(struct step *step, const char *word)
{
    size_t capacity = word[0] == '*' ? strtoull(word + 1, NULL, 10) : strlen(word), size = 0;
    uint8_t *data = (uint8_t *)calloc(1, capacity + 1);
    if (data == NULL || step->bytes_count == sizeof step->bytes / sizeof step->bytes[0]) {
        abort();
    }
    step->bytes[step->bytes_count++] = data;
    if (word[0] == '*') {
        memset(data, 'x', capacity);
        size = capacity;
    } else if (strcmp(word, "-") != 0) {
        for (; *word != '\0'; word++) {
            char digits[3] = {0};
            if (*word != '%') {
                data[size++] = (uint8_t)*word;
                continue;
            }
            strncpy(digits, word + 1, 2);
            data[size++] = (uint8_t)strtoul(digits, NULL, 16);
            word += strlen(digits);
        }
    }
    fastmq_bytes decoded = {data, size};
    return decoded;
}

static inline void forget_bytes(struct step *step)
{
    while (step->bytes_count > 0) {
        free(step->bytes[--step->bytes_count]);
    }
}

static inline const char *word(struct step *step, size_t index)
{
    if (index >= step->words_count) {
        fail("%s has too few words", step->verb);
        return "?";
    }
    return step->words[index];
}

static inline fastmq_bytes bytes_at(struct step *step, size_t index)
{
    return decode(step, word(step, index));
}

/* The value of a field as it is written, or what it is by default. */
static inline const char *take(struct step *step, const char *name, const char *otherwise)
{
    for (size_t i = 0; i < step->fields_count; i++) {
        if (!step->fields[i].is_taken && strcmp(step->fields[i].name, name) == 0) {
            step->fields[i].is_taken = 1;
            return step->fields[i].value;
        }
    }
    return otherwise;
}

static inline fastmq_bytes take_bytes(struct step *step, const char *name)
{
    return decode(step, take(step, name, "-"));
}

static inline uint64_t take_number(struct step *step, const char *name, uint64_t otherwise)
{
    const char *digits = take(step, name, NULL);
    return digits == NULL ? otherwise : number_of(digits);
}

static inline uint64_t take_timeout_ns(struct step *step)
{
    return take_number(step, "timeout", PATIENCE_MS) * MILLISECOND;
}

/* The next field whose name begins so, without that beginning; NULL: there is no more. */
static inline const char *take_prefixed(struct step *step, const char *prefix,
                                        const char **out_value)
{
    for (size_t i = 0; i < step->fields_count; i++) {
        struct field *field = &step->fields[i];
        if (!field->is_taken && strncmp(field->name, prefix, strlen(prefix)) == 0) {
            field->is_taken = 1;
            *out_value = field->value;
            return field->name + strlen(prefix);
        }
    }
    return NULL;
}

/* Takes a line apart. */
static inline void read_step(struct step *step, const char *line)
{
    char *rest = NULL;
    int is_expected = 0;
    memset(step, 0, sizeof *step);
    snprintf(step->line, sizeof step->line, "%s", line);
    step->status = "OK";
    step->part = "";
    for (char *at = strtok_r(step->line, " \n", &rest); at != NULL;
         at = strtok_r(NULL, " \n", &rest)) {
        char *equals = strchr(at, '=');
        if (strlen(line) >= sizeof step->line || step->words_count == WORDS_MAX
            || step->fields_count == WORDS_MAX) {
            fail("the line is too long");
            return;
        }
        if (strcmp(at, "->") == 0) {
            is_expected = 1;
        } else if (is_expected) {
            const char **to = is_expected++ == 1 ? &step->status : &step->part;
            *to = at;
        } else if (equals != NULL) {
            *equals = '\0';
            struct field field = {at, equals + 1, 0};
            step->fields[step->fields_count++] = field;
        } else if (step->verb == NULL) {
            step->verb = at;
        } else {
            step->words[step->words_count++] = at;
        }
    }
    if (step->verb == NULL) {
        step->verb = "";
    }
    step->repeat = take_number(step, "repeat", 1);
}

/* The number of a status by its name in C without the prefix. */
static inline uint32_t status_of(const char *name)
{
    for (uint32_t number = 0; number <= FASTMQ_INTERNAL; number++) {
        const char *known = fastmq_status_name(number);
        if (strncmp(known, "FASTMQ_", 7) == 0 && strcmp(known + 7, name) == 0) {
            return number;
        }
    }
    fail("unknown status %s", name);
    return FASTMQ_INTERNAL;
}

static inline void same_bytes(const char *what, fastmq_bytes got, fastmq_bytes expected)
{
    if (got.size != expected.size
        || (got.size > 0 && memcmp(got.data, expected.data, got.size) != 0)) {
        fail("%s: got %.*s (%zu bytes), expected %.*s (%zu bytes)", what,
             (int)(got.size < 80 ? got.size : 80), (const char *)got.data, got.size,
             (int)(expected.size < 80 ? expected.size : 80), (const char *)expected.data,
             expected.size);
    }
}

static inline void same_number(const char *what, uint64_t got, uint64_t expected)
{
    if (got != expected) {
        fail("%s: got %llu, expected %llu", what, (unsigned long long)got,
             (unsigned long long)expected);
    }
}

/* What the statistics name: each field of the step is a figure. */
struct figure {
    const char *name;
    uint64_t value;
};

static inline void same_figures(struct step *step, const struct figure *figures, size_t count)
{
    for (size_t i = 0; i < step->fields_count; i++) {
        struct field *field = &step->fields[i];
        for (size_t j = 0; j < count && !field->is_taken; j++) {
            if (strcmp(field->name, figures[j].name) == 0) {
                field->is_taken = 1;
                same_number(field->name, figures[j].value, number_of(field->value));
            }
        }
    }
}

/* Runs one step after the other: `does` does what it says, once for each repetition. `told` is what
 * is to be told of it, if it returns OK. True if the step has done what its line says. */
static inline int run_step(struct step *step, fastmq_status (*does)(struct step *step, void *all),
                           void *all)
{
    struct field fields[WORDS_MAX];
    fastmq_status status = FASTMQ_OK;
    memcpy(fields, step->fields, sizeof fields);
    for (step->index = 0; step->index < step->repeat && failure[0] == '\0'; step->index++) {
        memcpy(step->fields, fields, sizeof fields);
        status = does(step, all);
        if (step->index + 1 < step->repeat) {
            forget_bytes(step);
            if (status != FASTMQ_OK) {
                break;
            }
        }
    }
    if (failure[0] == '\0') {
        const char *name = fastmq_status_name(status) + 7;
        const char *text = status == FASTMQ_OK ? "" : fastmq_last_error();
        fastmq_bytes part = decode(step, step->part[0] == '\0' ? "-" : step->part);
        if (strcmp(name, step->status) != 0 || strstr(text, (const char *)part.data) == NULL) {
            fail("got %s (%s), expected %s %s", name, text, step->status, step->part);
        }
    }
    for (size_t i = 0; i < step->fields_count && status == FASTMQ_OK; i++) {
        if (!step->fields[i].is_taken) {
            fail("unknown field %s", step->fields[i].name);
        }
    }
    forget_bytes(step);
    return failure[0] == '\0';
}

/* The scenarios of the command line; `-` is the standard input. */
static inline int run_all(int count, char **arguments,
                          fastmq_status (*does)(struct step *step, void *all),
                          void *(*begin)(void), void (*end)(void *all), const char *told)
{
    static struct step step;
    int failed = 0;
    for (int i = 1; i < count; i++) {
        int is_input = strcmp(arguments[i], "-") == 0, number = 0, is_good = 1;
        const char *slash = strrchr(arguments[i], '/');
        const char *name = slash == NULL ? arguments[i] : slash + 1;
        FILE *file = is_input ? stdin : fopen(arguments[i], "r");
        char line[LINE_MAX_BYTES];
        void *all = begin();
        if (file == NULL) {
            perror(arguments[i]);
            return 1;
        }
        while (is_good && fgets(line, sizeof line, file) != NULL) {
            number++;
            if (line[0] == '\n' || line[0] == '#') {
                continue;
            }
            line[strcspn(line, "\n")] = '\0';
            failure[0] = '\0';
            read_step(&step, line);
            const char *not_in = take(&step, "not", ""), *only = take(&step, "in", LANGUAGE);
            if (strcmp(not_in, LANGUAGE) != 0 && strcmp(only, LANGUAGE) == 0) {
                is_good = run_step(&step, does, all);
            }
            if (is_input) {
                if (is_good) {
                    printf("ok%s%s\n", strcmp(step.verb, "listen") == 0 ? " " : "",
                           strcmp(step.verb, "listen") == 0 ? told : "");
                } else {
                    printf("not ok %s: %s\n", line, failure);
                }
                fflush(stdout);
                is_good = 1;
            }
        }
        end(all);
        if (is_input) {
            continue;
        }
        fclose(file);
        if (is_good) {
            printf("ok - %.*s\n", (int)strcspn(name, "."), name);
        } else {
            printf("not ok - %.*s: line %d: %s\n", (int)strcspn(name, "."), name, number, failure);
            failed = 1;
        }
        fflush(stdout);
    }
    return failed;
}

#endif

/* The statuses: every number, its name and its sentence, and the per-thread last error. */
/* valgrind */
#define _POSIX_C_SOURCE 200809L
#include "steps.h"

struct expected {
    uint32_t number;
    const char *name;
};

/* docs/formats.md §4, written out: never renumbered, never reused. */
static const struct expected all[] = {
    {0, "FASTMQ_OK"},           {1, "FASTMQ_AGAIN"},          {2, "FASTMQ_TIMEOUT"},
    {3, "FASTMQ_END"},          {4, "FASTMQ_CANCELLED"},      {10, "FASTMQ_INVALID"},
    {11, "FASTMQ_MISUSE"},      {12, "FASTMQ_TOO_LARGE"},     {13, "FASTMQ_UNSUPPORTED"},
    {14, "FASTMQ_CLOSED"},      {20, "FASTMQ_NOT_FOUND"},     {21, "FASTMQ_EXISTS"},
    {22, "FASTMQ_NO_RESPONDER"},{23, "FASTMQ_BUSY"},          {24, "FASTMQ_CONFLICT"},
    {30, "FASTMQ_UNAVAILABLE"}, {31, "FASTMQ_DISCONNECTED"},  {32, "FASTMQ_SLOW_CONSUMER"},
    {40, "FASTMQ_DENIED"},      {41, "FASTMQ_NO_SPACE"},      {42, "FASTMQ_CORRUPT"},
    {43, "FASTMQ_IO"},          {44, "FASTMQ_NO_MEMORY"},     {50, "FASTMQ_INTERNAL"},
};
enum { STATUS_COUNT = sizeof all / sizeof all[0] };

_Static_assert(FASTMQ_OK == 0 && FASTMQ_AGAIN == 1 && FASTMQ_TIMEOUT == 2 && FASTMQ_END == 3
                   && FASTMQ_CANCELLED == 4, "go on");
_Static_assert(FASTMQ_INVALID == 10 && FASTMQ_MISUSE == 11 && FASTMQ_TOO_LARGE == 12
                   && FASTMQ_UNSUPPORTED == 13 && FASTMQ_CLOSED == 14, "the caller's mistake");
_Static_assert(FASTMQ_NOT_FOUND == 20 && FASTMQ_EXISTS == 21 && FASTMQ_NO_RESPONDER == 22
                   && FASTMQ_BUSY == 23 && FASTMQ_CONFLICT == 24, "the state of the world");
_Static_assert(FASTMQ_UNAVAILABLE == 30 && FASTMQ_DISCONNECTED == 31
                   && FASTMQ_SLOW_CONSUMER == 32, "retry");
_Static_assert(FASTMQ_DENIED == 40 && FASTMQ_NO_SPACE == 41 && FASTMQ_CORRUPT == 42
                   && FASTMQ_IO == 43 && FASTMQ_NO_MEMORY == 44, "needs a person");
_Static_assert(FASTMQ_INTERNAL == 50, "our bug");

static int is_known(uint32_t number)
{
    for (size_t i = 0; i < STATUS_COUNT; i++) {
        if (all[i].number == number) {
            return 1;
        }
    }
    return 0;
}

static void names_and_texts(void)
{
    size_t names = 0, texts = 0, distinct = 0;
    for (size_t i = 0; i < STATUS_COUNT; i++) {
        const char *name = fastmq_status_name(all[i].number);
        const char *sentence = fastmq_status_text(all[i].number);
        if (name != NULL && strcmp(name, all[i].name) == 0) {
            names++;
        } else {
            printf("# %u is named %s\n", (unsigned)all[i].number, name ? name : "NULL");
        }
        /* STYLE §4: lower case, no full stop, one line. */
        size_t size = sentence ? strlen(sentence) : 0;
        texts += size > 0 && strchr(sentence, '\n') == NULL && sentence[size - 1] != '.';
        for (size_t j = 0; j < i; j++) {
            distinct += strcmp(sentence, fastmq_status_text(all[j].number)) != 0;
        }
    }
    CHECK_NUMBER(names, STATUS_COUNT, "every number has the name that the table gives");
    CHECK_NUMBER(texts, STATUS_COUNT, "every number has one line for people, no full stop");
    CHECK_NUMBER(distinct, STATUS_COUNT * (STATUS_COUNT - 1) / 2, "no two lines are the same");
}

static void unknown_numbers(void)
{
    const char *unknown = fastmq_status_name(9999);
    size_t same_name = 0, wanted = 0;
    NEED(unknown != NULL && fastmq_status_text(9999) != NULL);
    for (uint32_t number = 0; number < 200; number++) {
        if (!is_known(number)) {
            wanted++;
            same_name += strcmp(fastmq_status_name(number), unknown) == 0
                && fastmq_status_text(number) != NULL;
        }
    }
    CHECK_NUMBER(same_name, wanted, "numbers between the names are answered as unknown ones");
    CHECK(strcmp(fastmq_status_name(UINT32_MAX), unknown) == 0, "so is the largest number");
}

static void *read_last_error(void *out)
{
    *(int *)out = fastmq_last_error()[0] == '\0';
    return NULL;
}

static void last_error(void)
{
    int fresh_thread_has_none = 0;
    CHECK(fastmq_last_error()[0] == '\0', "a thread that never failed has an empty last error");
    fastmq_client *client = open_client();
    fastmq_status status = publish_number(client, "a..b", 1);
    CHECK_STATUS(status, FASTMQ_INVALID, "a failed call returns its status");
    CHECK(strstr(fastmq_last_error(), "a..b") != NULL, "the sentence has the value in it");
    size_t size = strlen(fastmq_last_error());
    CHECK(size > 0 && fastmq_last_error()[size - 1] != '.', "the sentence has no full stop");
    pthread_join(start_thread(read_last_error, &fresh_thread_has_none), NULL);
    CHECK(fresh_thread_has_none, "the last error belongs to its thread");
    fastmq_close(client);
}

static void on_log(uint32_t level, const char *target, const char *line, void *context)
{
    (void)level;
    (void)target;
    (void)line;
    atomic_fetch_add((atomic_int *)context, 1);
}

static void log_hook(void)
{
    atomic_int lines = 0;
    fastmq_set_log(FASTMQ_LOG_DEBUG, on_log, &lines);
    fastmq_close(open_client());
    fastmq_set_log(FASTMQ_LOG_OFF, NULL, NULL);
    int before = atomic_load(&lines);
    fastmq_close(open_client());
    CHECK_NUMBER(atomic_load(&lines), before, "no line is logged after the hook was taken away");
    fastmq_set_log(FASTMQ_LOG_DEBUG, NULL, NULL);
    fastmq_set_log(99, on_log, &lines);
    fastmq_set_log(FASTMQ_LOG_OFF, NULL, NULL);
    CHECK(1, "a level without a hook and an unknown level are survived");
}

int main(void)
{
    check_begin();
    names_and_texts();
    unknown_numbers();
    last_error();
    log_hook();
    return check_end();
}

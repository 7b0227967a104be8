/* The vectors of headers in C: encoded, read and found as everywhere. */
#include "tables.h"

#include "../c/steps.h"

static fastmq_bytes of(struct constant constant)
{
    return bytes(constant.data, constant.size);
}

static int is_same(fastmq_bytes got, struct constant expected)
{
    return got.size == expected.size
        && (got.size == 0 || memcmp(got.data, expected.data, got.size) == 0);
}

/* What is published with these entries has the encoded bytes, which are read as the entries. */
static int check_good(fastmq_client *client, fastmq_queue *queue, const struct good *vector)
{
    fastmq_outgoing message = outgoing("a", text(""));
    fastmq_headers *headers = NULL;
    const fastmq_message *received = NULL;
    size_t count = 0, cursor = 0;
    fastmq_bytes name, value;
    NEED(fastmq_headers_open(&headers) == FASTMQ_OK);
    for (size_t i = 0; i < vector->entries_count; i++) {
        const struct pair *entry = &vector->entries[i];
        NEED(fastmq_headers_add(headers, of(entry->name), of(entry->value)) == FASTMQ_OK);
    }
    message.headers = headers;
    NEED(fastmq_publish_message(client, &message) == FASTMQ_OK);
    fastmq_headers_close(headers);
    fastmq_batch *batch = take(queue, 1, &received, &count);
    fastmq_bytes encoded = received->headers;
    int is_good = is_same(encoded, vector->encoded);
    for (size_t i = 0; i < vector->entries_count && is_good; i++) {
        is_good = fastmq_headers_next(encoded, &cursor, &name, &value) == FASTMQ_OK
            && is_same(name, vector->entries[i].name) && is_same(value, vector->entries[i].value);
    }
    is_good = is_good && fastmq_headers_next(encoded, &cursor, &name, &value) == FASTMQ_END;
    for (size_t i = 0; i < vector->lookups_count && is_good; i++) {
        const struct pair *lookup = &vector->lookups[i];
        fastmq_status found = fastmq_headers_get(encoded, of(lookup->name), &value);
        is_good = lookup->is_there ? found == FASTMQ_OK && is_same(value, lookup->value)
                                   : found == FASTMQ_NOT_FOUND;
    }
    fastmq_batch_free(batch);
    return is_good;
}

/* Reading them ends with INVALID, or they have a name that nobody may write. */
static int check_bad(const struct bad *vector)
{
    size_t cursor = 0;
    fastmq_bytes name, value;
    fastmq_status status, added = FASTMQ_OK;
    fastmq_headers *headers = NULL;
    NEED(fastmq_headers_open(&headers) == FASTMQ_OK);
    while ((status = fastmq_headers_next(of(vector->encoded), &cursor, &name, &value))
               == FASTMQ_OK && added == FASTMQ_OK) {
        added = fastmq_headers_add(headers, name, value);
    }
    fastmq_headers_close(headers);
    return status == FASTMQ_INVALID || added == FASTMQ_INVALID || added == FASTMQ_TOO_LARGE;
}

int main(void)
{
    check_begin();
    fastmq_client *client = open_client();
    fastmq_queue *queue = fastmq_subscription_queue(subscribe(client, "a"));
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CHECK(check_good(client, queue, &good[i]), good[i].name);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(check_bad(&bad[i]), bad[i].name);
    }
    fastmq_close(client);
    return check_end();
}

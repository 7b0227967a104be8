/* What the runner in C keeps between steps: handles by name; and what steps send and compare. */
#ifndef FASTMQ_SCENARIOS_THINGS_H
#define FASTMQ_SCENARIOS_THINGS_H

#include "step.h"

enum kind { CLIENT, SERVER, PUBLISHER, QUEUE, SUBSCRIPTION, REQUESTER, STREAM };

/* Answers requests: the context of its subscription. */
struct responder {
    fastmq_client *client;
    fastmq_bytes prefix;
    fastmq_headers *headers;
    uint32_t status;
};

/* A handle by its name, and the last message that its queue has given. */
struct thing {
    char name[32];
    enum kind kind;
    void *handle;
    uint64_t token;
    struct responder *responder;
};

#define THINGS_MAX 1024

struct scenario {
    struct thing things[THINGS_MAX];
    size_t count;
};

static struct scenario current;
static struct thing *find(const char *name)
{
    for (size_t i = current.count; i > 0; i--) {
        if (strcmp(current.things[i - 1].name, name) == 0) {
            return &current.things[i - 1];
        }
    }
    fail("nothing is called %s", name);
    return NULL;
}

/* The handle that a word names, NULL if there is none. */
static void *handle(struct step *step, size_t index)
{
    struct thing *thing = find(word(step, index));
    return thing == NULL ? NULL : thing->handle;
}

static void keep(struct step *step, enum kind kind, void *made)
{
    if (made == NULL) {
        return;
    }
    if (current.count == THINGS_MAX) {
        abort();
    }
    struct thing *thing = &current.things[current.count++];
    memset(thing, 0, sizeof *thing);
    snprintf(thing->name, sizeof thing->name, "%s", word(step, 0));
    thing->kind = kind;
    thing->handle = made;
}

static void end_thing(struct thing *thing)
{
    switch (thing->kind) {
    case CLIENT: fastmq_close(thing->handle); break;
    case SERVER: fastmq_server_close(thing->handle, 0); break;
    case PUBLISHER: fastmq_publisher_close(thing->handle); break;
    case QUEUE: fastmq_queue_close(thing->handle); break;
    case SUBSCRIPTION: fastmq_unsubscribe(thing->handle); break;
    case REQUESTER: fastmq_requester_close(thing->handle); break;
    case STREAM: fastmq_reply_stream_close(thing->handle); break;
    }
    thing->handle = NULL;
    if (thing->responder != NULL) {
        fastmq_headers_close(thing->responder->headers);
        free((void *)thing->responder->prefix.data);
        free(thing->responder);
        thing->responder = NULL;
    }
}

static fastmq_queue *queue_of(struct step *step, size_t index)
{
    struct thing *thing = find(word(step, index));
    if (thing == NULL || thing->kind != SUBSCRIPTION) {
        return thing == NULL ? NULL : thing->handle;
    }
    return fastmq_subscription_queue(thing->handle);
}

/* messages */

/* Fills headers from the fields with this prefix; NULL if there are none. */
static fastmq_status headers_of(struct step *step, fastmq_headers **out)
{
    const char *name, *value;
    fastmq_status status = FASTMQ_OK;
    *out = NULL;
    while ((name = take_prefixed(step, "header.", &value)) != NULL) {
        if (*out == NULL) {
            status = fastmq_headers_open(out);
        }
        if (status == FASTMQ_OK) {
            status = fastmq_headers_add(*out, decode(step, name), decode(step, value));
        }
    }
    return status;
}

/* What a step sends; its headers are to be closed. */
static fastmq_status outgoing_of(struct step *step, fastmq_bytes subject, fastmq_bytes payload,
                                 fastmq_outgoing *out, fastmq_headers **out_headers)
{
    fastmq_status status = headers_of(step, out_headers);
    memset(out, 0, sizeof *out);
    out->struct_size = sizeof *out;
    out->subject = subject;
    out->payload = payload;
    out->headers = *out_headers;
    out->key = take_bytes(step, "key");
    out->reply_to = take_bytes(step, "reply_to");
    out->ttl_ns = take_number(step, "ttl", 0) * MILLISECOND;
    out->flags = take_number(step, "keep_last", 0) != 0 ? FASTMQ_OUTGOING_KEEP_LAST : 0;
    return status;
}

/* An id is known by the name of its subscription. */
static fastmq_bytes shown(struct step *step, const char *value)
{
    static char digits[16];
    if (value[0] != '@') {
        return decode(step, value);
    }
    struct thing *thing = find(value + 1);
    snprintf(digits, sizeof digits, "%u",
             thing == NULL ? 0 : fastmq_subscription_id(thing->handle));
    return text_of(digits);
}

static void same_headers(struct step *step, fastmq_bytes headers, const char *prefix)
{
    size_t cursor = 0, count = 0;
    const char *name, *value;
    fastmq_bytes got_name, got_value;
    while ((name = take_prefixed(step, prefix, &value)) != NULL) {
        count++;
        if (fastmq_headers_next(headers, &cursor, &got_name, &got_value) != FASTMQ_OK) {
            fail("header %s is not there", name);
            return;
        }
        same_bytes("header", got_name, decode(step, name));
        same_bytes(name, got_value, shown(step, value));
    }
    if (count > 0 && fastmq_headers_next(headers, &cursor, &got_name, &got_value) == FASTMQ_OK) {
        fail("header %.*s is there, too", (int)got_name.size, (const char *)got_name.data);
    }
}

/* The message has what the words and fields of a step say. */
static void check_message(struct step *step, const fastmq_message *message)
{
    const struct figure figures[] = {
        {"sequence", message->sequence},
        {"delivery_count", message->delivery_count},
        {"lost_before", message->lost_before},
        {"status", message->status},
        {"tag", message->tag},
        {"is_request", (message->flags & FASTMQ_MESSAGE_REQUEST) != 0},
    };
    same_bytes("subject", message->subject, bytes_at(step, 1));
    same_bytes("payload", message->payload, bytes_at(step, 2));
    same_headers(step, message->headers, "header.");
    const char *value = take(step, "key", NULL);
    if (value != NULL) {
        same_bytes("key", message->key, decode(step, value));
    }
    value = take(step, "reply_to", NULL);
    if (value != NULL) {
        same_bytes("reply_to", message->reply_to, decode(step, value));
    }
    value = take(step, "subscription_id", NULL);
    if (value != NULL) {
        char digits[16];
        snprintf(digits, sizeof digits, "%u", message->subscription_id);
        same_bytes("subscription_id", text_of(digits), shown(step, value));
    }
    same_figures(step, figures, sizeof figures / sizeof figures[0]);
}

#endif

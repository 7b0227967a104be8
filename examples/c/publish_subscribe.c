/* Publish and subscribe: patterns, a shared queue, a publisher handle, headers and a callback.
 *
 * Everything happens on one thread: the messages wait in a queue between publish and receive, and
 * the callback runs inside publish.
 */
#include <fastmq.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static fastmq_bytes text(const char *string)
{
    return (fastmq_bytes){(const uint8_t *)string, strlen(string)};
}

/* Ends the program with the library's own sentence if a call has failed. */
static void must(fastmq_status status, const char *doing)
{
    if (status != FASTMQ_OK) {
        fprintf(stderr, "publish_subscribe: %s: %s (%s)\n", doing, fastmq_last_error(),
                fastmq_status_name(status));
        exit(1);
    }
}

/* Called on the thread that publishes, before publish returns. */
static void count(const fastmq_message *message, void *context)
{
    (void)message;
    ++*(int *)context;
}

int main(void)
{
    fastmq_client *mq = NULL;
    must(fastmq_open(NULL, &mq), "open");

    /* One queue for two subscriptions, so that one loop reads both. The tag comes back with each
     * message and says which of the two it is for: no subject needs to be looked at again. */
    enum { TAG_KITCHEN = 1, TAG_ALARM = 2 };
    fastmq_queue *queue = NULL;
    must(fastmq_queue_open(mq, NULL, &queue), "open a queue");
    fastmq_subscribe_options options = {.struct_size = sizeof options, .queue = queue};
    fastmq_subscription *kitchen = NULL, *alarms = NULL;
    options.tag = TAG_KITCHEN;
    must(fastmq_subscribe(mq, text("house.kitchen.*"), &options, &kitchen), "subscribe");
    options.tag = TAG_ALARM;
    must(fastmq_subscribe(mq, text("house.*.smoke"), &options, &alarms), "subscribe");

    /* A callback instead of a queue, here on the publishing thread. */
    int in_house = 0;
    fastmq_subscribe_options called = {.struct_size = sizeof called};
    called.delivery = FASTMQ_DELIVERY_INLINE;
    called.on_message = count;
    called.context = &in_house;
    fastmq_subscription *counter = NULL;
    must(fastmq_subscribe(mq, text("house.>"), &called, &counter), "subscribe");

    /* By subject: right for subjects that change from message to message. */
    must(fastmq_publish(mq, text("house.kitchen.light"), text("on")), "publish");
    must(fastmq_publish(mq, text("house.cellar.light"), text("nobody listens")), "publish");

    /* By handle: the subject is checked and routed once, each publish is cheaper. */
    fastmq_publisher *smoke = NULL;
    must(fastmq_publisher_open(mq, text("house.kitchen.smoke"), &smoke), "open a publisher");
    must(fastmq_publisher_publish(smoke, text("none")), "publish by handle");

    /* A message with more to it than a payload. */
    fastmq_headers *headers = NULL;
    must(fastmq_headers_open(&headers), "open headers");
    must(fastmq_headers_add(headers, text("unit"), text("celsius")), "add a header");
    fastmq_outgoing warm = {.struct_size = sizeof warm, .headers = headers};
    warm.subject = text("house.kitchen.temperature");
    warm.payload = text("21.5");
    must(fastmq_publish_message(mq, &warm), "publish a message");
    fastmq_headers_close(headers);

    /* Receive in batches, in place: nothing is copied; the views live until the batch is freed.
     * A time-out of 0 means "what is there now"; AGAIN says that there is nothing (more). */
    int for_kitchen = 0, for_alarms = 0, with_unit = 0;
    fastmq_batch *batch = NULL;
    while (fastmq_receive(queue, 64, 0, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *messages = fastmq_batch_messages(batch, &count);
        for (size_t i = 0; i < count; i++) {
            const fastmq_message *m = &messages[i];
            fastmq_bytes unit = {NULL, 0};
            with_unit += fastmq_headers_get(m->headers, text("unit"), &unit) == FASTMQ_OK;
            printf("%-8s %.*s: %.*s%s%.*s\n", m->tag == TAG_ALARM ? "alarm" : "kitchen",
                   (int)m->subject.size, (const char *)m->subject.data, (int)m->payload.size,
                   (const char *)m->payload.data, unit.size ? " " : "", (int)unit.size,
                   unit.size ? (const char *)unit.data : "");
            for_kitchen += m->tag == TAG_KITCHEN;
            for_alarms += m->tag == TAG_ALARM;
        }
        fastmq_batch_free(batch);
    }

    printf("%d messages in the house\n", in_house);

    fastmq_publisher_close(smoke);
    fastmq_unsubscribe(kitchen);
    fastmq_unsubscribe(alarms);
    fastmq_unsubscribe(counter);
    fastmq_queue_close(queue);
    fastmq_close(mq);

    /* kitchen.smoke matches both patterns, so each of the two subscriptions has it. */
    return for_kitchen == 3 && for_alarms == 1 && with_unit == 1 && in_house == 4 ? 0 : 1;
}

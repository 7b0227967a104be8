/* The first program: a broker in this process, one subscription, one message. */
#include <fastmq.h>

#include <stdio.h>
#include <string.h>

static fastmq_bytes text(const char *string)
{
    fastmq_bytes bytes = {(const uint8_t *)string, strlen(string)};
    return bytes;
}

static int failed(const char *doing)
{
    fprintf(stderr, "%s: %s\n", doing, fastmq_last_error());
    return 1;
}

int main(void)
{
    fastmq_client *mq;
    fastmq_subscription *arrivals;
    fastmq_batch *batch;
    size_t count;

    if (fastmq_open(NULL, &mq) != FASTMQ_OK)
        return failed("open");
    if (fastmq_subscribe(mq, text("flight.*.JFK"), NULL, &arrivals) != FASTMQ_OK)
        return failed("subscribe");
    if (fastmq_publish(mq, text("flight.LAX.JFK"), text("on time")) != FASTMQ_OK)
        return failed("publish");

    /* Up to 16 messages, read in place: they are yours until the batch is freed. */
    fastmq_queue *queue = fastmq_subscription_queue(arrivals);
    if (fastmq_receive(queue, 16, FASTMQ_FOREVER, &batch) != FASTMQ_OK)
        return failed("receive");
    const fastmq_message *messages = fastmq_batch_messages(batch, &count);
    for (size_t index = 0; index < count; index++) {
        const fastmq_message *message = &messages[index];
        printf("%.*s: %.*s\n", (int)message->subject.size, (const char *)message->subject.data,
               (int)message->payload.size, (const char *)message->payload.data);
    }

    fastmq_batch_free(batch);
    fastmq_unsubscribe(arrivals);
    fastmq_close(mq);
    return 0;
}

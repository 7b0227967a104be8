/* The first program: publish one message and receive it, in one process, without a server.
 *
 *   cc -std=c11 hello.c -lfastmq -o hello && ./hello
 */
#include <fastmq.h>

#include <stdio.h>
#include <string.h>

static fastmq_bytes text(const char *string)
{
    return (fastmq_bytes){(const uint8_t *)string, strlen(string)};
}

int main(void)
{
    fastmq_client *mq = NULL;
    fastmq_subscription *greetings = NULL;
    fastmq_batch *batch = NULL;

    /* `||` stops at the first call that fails: FASTMQ_OK is 0. */
    if (fastmq_open(NULL, &mq)
        || fastmq_subscribe(mq, text("greet.*"), NULL, &greetings)
        || fastmq_publish(mq, text("greet.world"), text("hello"))
        || fastmq_receive(fastmq_subscription_queue(greetings), 1, FASTMQ_FOREVER, &batch)) {
        fprintf(stderr, "hello: %s\n", fastmq_last_error());
        return 1;
    }
    const fastmq_message *message = fastmq_batch_messages(batch, &(size_t){0});
    printf("%.*s: %.*s\n", (int)message->subject.size, (const char *)message->subject.data,
           (int)message->payload.size, (const char *)message->payload.data);

    fastmq_batch_free(batch);
    fastmq_unsubscribe(greetings);
    fastmq_close(mq);
    return 0;
}

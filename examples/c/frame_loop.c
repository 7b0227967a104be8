/* A game's frame loop: handlers run inside fastmq_dispatch, on this thread, within a budget.
 *
 * What does not fit into one frame waits for the next: a burst of messages never stalls a frame.
 * No thread is started and no lock is needed: the handlers touch the world freely.
 */
#define _POSIX_C_SOURCE 200809L
#include <fastmq.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FRAMES = 60, FRAME_NS = 2000000, BUDGET_NS = 500000, MESSAGES_PER_FRAME_MAX = 200 };
/* 500 frames a second keep the example short; a game has 60. */

struct world {
    uint32_t moves, in_frame, most_in_frame;
};

static fastmq_bytes text(const char *string)
{
    return (fastmq_bytes){(const uint8_t *)string, strlen(string)};
}

static void must(fastmq_status status, const char *doing)
{
    if (status != FASTMQ_OK) {
        fprintf(stderr, "frame_loop: %s: %s (%s)\n", doing, fastmq_last_error(),
                fastmq_status_name(status));
        exit(1);
    }
}

static void on_move(const fastmq_message *message, void *context)
{
    struct world *world = context;
    (void)message; /* a game would move the player named in the subject */
    world->moves++;
    world->in_frame++;
}

/* The other players: a burst of 1,000 moves in every tenth frame, a few in the others. */
static uint32_t others_move(fastmq_client *mq, int frame)
{
    uint32_t count = frame % 10 == 0 ? 1000 : 20;
    char subject[32];
    for (uint32_t i = 0; i < count; i++) {
        snprintf(subject, sizeof subject, "player.%u.move", (unsigned)(i % 50));
        must(fastmq_publish(mq, text(subject), text("north")), "publish");
    }
    return count;
}

static void add_ns(struct timespec *time, long ns)
{
    time->tv_nsec += ns;
    if (time->tv_nsec >= 1000000000L) {
        time->tv_nsec -= 1000000000L;
        time->tv_sec++;
    }
}

int main(void)
{
    struct world world = {0, 0, 0};
    fastmq_client *mq = NULL;
    fastmq_subscription *moves = NULL;
    must(fastmq_open(NULL, &mq), "open");
    fastmq_subscribe_options options = {.struct_size = sizeof options};
    options.delivery = FASTMQ_DELIVERY_DISPATCH;
    options.on_message = on_move;
    options.context = &world;
    must(fastmq_subscribe(mq, text("player.*.move"), &options, &moves), "subscribe");

    uint32_t sent = 0, late = 0, ready = 0;
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (int frame = 0; frame < FRAMES; frame++) {
        sent += others_move(mq, frame);

        /* At most 200 messages and half a millisecond; MORE says that some are left. */
        world.in_frame = 0;
        must(fastmq_dispatch(mq, MESSAGES_PER_FRAME_MAX, BUDGET_NS, &ready), "dispatch");
        late += (ready & FASTMQ_READY_MORE) != 0;
        if (world.in_frame > world.most_in_frame) {
            world.most_in_frame = world.in_frame;
        }

        /* Here a game would draw. Then it sleeps until the next frame, not longer. */
        add_ns(&next, FRAME_NS);
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }

    /* After the last frame: whatever is left, without a budget. */
    do {
        must(fastmq_dispatch(mq, MESSAGES_PER_FRAME_MAX, FASTMQ_FOREVER, &ready), "dispatch");
    } while ((ready & FASTMQ_READY_MORE) != 0);

    printf("%u moves in %d frames, at most %u in one frame; %u frames left some for the next\n",
           (unsigned)world.moves, FRAMES, (unsigned)world.most_in_frame, (unsigned)late);
    fastmq_unsubscribe(moves);
    fastmq_close(mq);
    return world.moves == sent && world.most_in_frame <= MESSAGES_PER_FRAME_MAX ? 0 : 1;
}

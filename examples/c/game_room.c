/* A game server in one process: 10 rooms of 100 players, 60 ticks a second.
 *
 *   players --input.PLAYER--> game     what they press; when the game is behind, the oldest go
 *   game --room.ROOM--> players        what each room looks like, 512 bytes to each player in it
 *   game --at.PLAYER--> board          where everybody is: only the newest place of each matters
 *
 * The game's queue drops the oldest and counts them, the board's keeps the latest of each subject:
 * it looks ten times a second and gets each player who has moved once. The players run on a thread
 * of their own. At the end every message is accounted for: handled, or counted as dropped.
 *
 *     game_room [SECONDS]        --check: 20 ticks without waiting, for the tests
 */
#define _POSIX_C_SOURCE 200809L
#include <fastmq.h>

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROOMS = 10, PLAYERS = 1000, TICKS_PER_S = 60, TICK_NS = 1000000000 / TICKS_PER_S };
enum { ROOM_BYTES = 512, BOARD_EVERY = 6, CHECK_TICKS = 20 };

struct input {
    uint32_t player, tick;
    int8_t x, y;
    uint8_t buttons[22];
};

struct place {
    int32_t x, y;
};

static atomic_uint tick_now;    /* the tick that the game has begun; UINT32_MAX: it is over */
static atomic_uint tick_played; /* the tick in which all players have pressed something */

static void must(fastmq_status status, const char *doing)
{
    if (status != FASTMQ_OK) {
        fprintf(stderr, "game_room: %s: %s (%s)\n", doing, fastmq_last_error(),
                fastmq_status_name(status));
        exit(1);
    }
}

static fastmq_bytes text(const char *string)
{
    return (fastmq_bytes){(const uint8_t *)string, strlen(string)};
}

static fastmq_bytes bytes(const void *data, size_t size)
{
    return (fastmq_bytes){data, size};
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static fastmq_publisher *speak(fastmq_client *mq, const char *what, int number)
{
    char subject[32];
    snprintf(subject, sizeof subject, "%s.%04d", what, number);
    fastmq_publisher *publisher = NULL;
    must(fastmq_publisher_open(mq, text(subject), &publisher), "open a publisher");
    return publisher;
}

static fastmq_subscription *listen_to(fastmq_client *mq, const char *pattern, fastmq_queue *queue,
                                      uint64_t tag)
{
    fastmq_subscribe_options options = {.struct_size = sizeof options, .queue = queue, .tag = tag};
    fastmq_subscription *subscription = NULL;
    must(fastmq_subscribe(mq, text(pattern), &options, &subscription), "subscribe");
    return subscription;
}

static fastmq_queue *open_queue(fastmq_client *mq, fastmq_policy policy, uint64_t capacity)
{
    fastmq_queue_options options = {
        .struct_size = sizeof options, .policy = policy, .capacity = capacity};
    fastmq_queue *queue = NULL;
    must(fastmq_queue_open(mq, &options, &queue), "open a queue");
    return queue;
}

/* The players: each presses something in each tick, and sees its room. One thread for all. */

struct players {
    fastmq_client *mq;
    fastmq_queue *sight;
    fastmq_subscription *eyes[PLAYERS];
    fastmq_publisher *hands[PLAYERS];
    uint64_t pressed, seen, missed, wrong;
};

static void players_open(struct players *players)
{
    players->sight = open_queue(players->mq, FASTMQ_POLICY_DROP_OLDEST, 4 << 20);
    for (int player = 0; player < PLAYERS; player++) {
        char room[32];
        snprintf(room, sizeof room, "room.%04d", player % ROOMS);
        /* All share one queue; the tag says whose eyes it were. */
        players->eyes[player] = listen_to(players->mq, room, players->sight, (uint64_t)player);
        players->hands[player] = speak(players->mq, "input", player);
    }
}

static void players_press(struct players *players, uint32_t tick)
{
    for (uint32_t player = 0; player < PLAYERS; player++) {
        struct input input = {.player = player, .tick = tick};
        input.x = (int8_t)((int)((player + tick) % 3) - 1);
        input.y = (int8_t)((int)((player * 7 + tick) % 3) - 1);
        must(fastmq_publisher_publish(players->hands[player], bytes(&input, sizeof input)),
             "press");
        players->pressed++;
    }
}

static void players_look(struct players *players)
{
    fastmq_batch *batch = NULL;
    while (fastmq_receive(players->sight, 0, 0, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *rooms = fastmq_batch_messages(batch, &count);
        for (size_t at = 0; at < count; at++) {
            uint32_t room;
            memcpy(&room, rooms[at].payload.data, sizeof room);
            players->wrong += room != rooms[at].tag % ROOMS;
            players->missed += rooms[at].lost_before;
            players->seen++;
        }
        fastmq_batch_free(batch);
    }
}

static void *players_run(void *argument)
{
    struct players *players = argument;
    uint32_t done = 0, tick;
    while ((tick = atomic_load(&tick_now)) != UINT32_MAX) {
        if (tick == done) {
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
            continue;
        }
        done = tick;
        players_press(players, tick);
        players_look(players);
        atomic_store(&tick_played, tick);
    }
    return NULL;
}

/* The game: moves whoever pressed something, shows each room, tells where everybody is. */

struct game {
    fastmq_queue *inputs;
    fastmq_publisher *rooms[ROOMS], *places[PLAYERS];
    struct place place[PLAYERS];
    uint64_t moved, missed, shown;
};

static void game_move(struct game *game)
{
    fastmq_batch *batch = NULL;
    while (fastmq_receive(game->inputs, 0, 0, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *inputs = fastmq_batch_messages(batch, &count);
        for (size_t at = 0; at < count; at++) {
            struct input input;
            memcpy(&input, inputs[at].payload.data, sizeof input);
            struct place *place = &game->place[input.player % PLAYERS];
            place->x += input.x;
            place->y += input.y;
            game->missed += inputs[at].lost_before;
            game->moved++;
            must(fastmq_publisher_publish(game->places[input.player % PLAYERS],
                                          bytes(place, sizeof *place)),
                 "tell a place");
        }
        fastmq_batch_free(batch);
    }
}

static void game_show(struct game *game, uint32_t tick)
{
    for (uint32_t room = 0; room < ROOMS; room++) {
        /* Made where it will lie, once for all players of the room: nothing is copied. */
        uint8_t *view = NULL;
        must(fastmq_publisher_claim(game->rooms[room], ROOM_BYTES, &view), "claim a view");
        memset(view, 0, ROOM_BYTES);
        memcpy(view, &room, sizeof room);
        memcpy(view + 4, &tick, sizeof tick);
        must(fastmq_publisher_commit(game->rooms[room], ROOM_BYTES), "show a room");
        game->shown += PLAYERS / ROOMS;
    }
}

/* The board: who has moved since it last looked, once each. */

struct board {
    fastmq_queue *queue;
    struct place place[PLAYERS];
    uint64_t looks, updates, replaced;
};

static void board_look(struct board *board)
{
    fastmq_batch *batch = NULL;
    board->looks++;
    while (fastmq_receive(board->queue, 0, 0, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *places = fastmq_batch_messages(batch, &count);
        for (size_t at = 0; at < count; at++) {
            /* at.PLAYER */
            char number[5] = {0};
            memcpy(number, places[at].subject.data + 3, 4);
            memcpy(&board->place[atoi(number) % PLAYERS], places[at].payload.data,
                   sizeof *board->place);
            board->replaced += places[at].lost_before;
            board->updates++;
        }
        fastmq_batch_free(batch);
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

int main(int argc, char **argv)
{
    int is_check = argc > 1 && strcmp(argv[1], "--check") == 0;
    uint32_t seconds = argc > 1 && !is_check ? (uint32_t)strtoul(argv[1], NULL, 10) : 3;
    uint32_t ticks = is_check ? CHECK_TICKS : seconds * TICKS_PER_S;
    uint64_t *took_ns = calloc(ticks + 1, sizeof *took_ns);
    if (ticks == 0 || took_ns == NULL) {
        fprintf(stderr, "game_room: SECONDS is a number above 0\n");
        return 2;
    }

    static struct game game;
    static struct players players;
    static struct board board;
    must(fastmq_open(NULL, &players.mq), "open");
    fastmq_client *mq = players.mq;
    game.inputs = open_queue(mq, FASTMQ_POLICY_DROP_OLDEST, 1 << 20);
    board.queue = open_queue(mq, FASTMQ_POLICY_LATEST, 0);
    fastmq_subscription *inputs = listen_to(mq, "input.*", game.inputs, 0);
    fastmq_subscription *places = listen_to(mq, "at.*", board.queue, 0);
    players_open(&players);
    for (int room = 0; room < ROOMS; room++) {
        game.rooms[room] = speak(mq, "room", room);
    }
    for (int player = 0; player < PLAYERS; player++) {
        game.places[player] = speak(mq, "at", player);
    }

    pthread_t thread;
    if (pthread_create(&thread, NULL, players_run, &players) != 0) {
        fprintf(stderr, "game_room: no thread for the players\n");
        return 1;
    }
    uint64_t start_ns = now_ns(), late = 0;
    for (uint32_t tick = 1; tick <= ticks; tick++) {
        atomic_store(&tick_now, tick);
        while (is_check && atomic_load(&tick_played) != tick) {
            sched_yield(); /* nobody waits for a clock, so the game waits for the players */
        }
        uint64_t begun_ns = now_ns();
        game_move(&game);
        game_show(&game, tick);
        if (tick % BOARD_EVERY == 0) {
            board_look(&board);
        }
        took_ns[tick] = now_ns() - begun_ns;
        uint64_t next_ns = start_ns + (uint64_t)tick * TICK_NS, done_ns = now_ns();
        late += done_ns > next_ns;
        if (!is_check && done_ns < next_ns) {
            struct timespec wait = {.tv_nsec = (long)(next_ns - done_ns)};
            nanosleep(&wait, NULL);
        }
    }
    double ran_s = (double)(now_ns() - start_ns) / 1e9;
    atomic_store(&tick_now, UINT32_MAX);
    pthread_join(thread, NULL);
    game_move(&game); /* what was pressed at last */
    players_look(&players);
    board_look(&board);

    /* A loss is told by the next message; the statistics know those that none has followed. */
    fastmq_queue_statistics heard = {.struct_size = sizeof heard}, saw = heard;
    must(fastmq_queue_statistics_read(game.inputs, &heard), "read the statistics");
    must(fastmq_queue_statistics_read(players.sight, &saw), "read the statistics");
    int is_right = game.missed <= heard.dropped && players.missed <= saw.dropped
                   && game.moved + heard.dropped == players.pressed
                   && players.seen + saw.dropped == game.shown && players.wrong == 0
                   && board.updates + board.replaced == game.moved
                   && memcmp(board.place, game.place, sizeof game.place) == 0;
    qsort(took_ns + 1, ticks, sizeof *took_ns, compare);
    printf("%" PRIu32 " ticks of %d rooms with %d players\n", ticks, ROOMS, PLAYERS / ROOMS);
    if (!is_check) {
        printf("a tick took %.0f us (p50), %.0f us (p99), %.0f us (worst); %" PRIu64
               " began late; all took %.2f s\n",
               (double)took_ns[1 + ticks / 2] / 1e3, (double)took_ns[1 + ticks * 99 / 100] / 1e3,
               (double)took_ns[ticks] / 1e3, late, ran_s);
    }
    printf("inputs: %" PRIu64 " handled, %" PRIu64 " dropped as too old\n", game.moved,
           heard.dropped);
    printf("views of rooms: %" PRIu64 " seen, %" PRIu64 " dropped as too old\n", players.seen,
           saw.dropped);
    printf("board: %" PRIu64 " looks, %" PRIu64 " places seen, %" PRIu64
           " replaced by newer ones\n",
           board.looks, board.updates, board.replaced);
    printf("%s\n", is_right ? "every message is accounted for" : "MESSAGES ARE MISSING");

    for (int player = 0; player < PLAYERS; player++) {
        fastmq_publisher_close(players.hands[player]);
        fastmq_publisher_close(game.places[player]);
        fastmq_unsubscribe(players.eyes[player]);
    }
    for (int room = 0; room < ROOMS; room++) {
        fastmq_publisher_close(game.rooms[room]);
    }
    fastmq_unsubscribe(inputs);
    fastmq_unsubscribe(places);
    fastmq_queue_close(game.inputs);
    fastmq_queue_close(board.queue);
    fastmq_queue_close(players.sight);
    fastmq_close(mq);
    free(took_ns);
    return is_right ? 0 : 1;
}

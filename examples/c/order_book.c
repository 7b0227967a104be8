/* A small exchange in one process: traders, a matching engine that busy-polls, an audit trail.
 *
 *     traders --order.SYMBOL--> matching engine --trade.SYMBOL--> audit (which also hears order.*)
 *
 * The market is drawn from a seed: limit orders and cancels, a few million a second if you let it.
 * Each order carries the time at which it was sent, so the table at the end tells how long it took
 * from the call of publish to the engine that has it. The audit checks that no sequence is missing,
 * then replays the orders it has heard through a second book and compares: same trades, same book.
 *
 *     order_book [ORDERS] [SEED]        --check: few, for the tests
 *
 * The engine's thread never sleeps (FASTMQ_WAIT_BUSY_POLL): give it a core of its own.
 */
#define _GNU_SOURCE
#include <fastmq.h>

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SYMBOLS = 8, LEVELS = 1024, GAP_NS = 1000 };

static const char *const symbols[SYMBOLS] = {"AAPL", "AMZN", "GOOG", "INTC",
                                             "META", "MSFT", "NVDA", "TSLA"};

enum kind { LIMIT, CANCEL, STOP };
enum side { BUY, SELL };

struct order {
    uint64_t sent_ns; /* when publish was called */
    uint32_t id;      /* counts up over all symbols; a cancel names the order it ends */
    uint32_t price;   /* in ticks, below LEVELS */
    uint32_t quantity;
    uint8_t kind, side;
    uint8_t symbol;
};

struct trade {
    uint32_t buyer, seller; /* ids of their orders */
    uint32_t price, quantity;
};

static void must(fastmq_status status, const char *doing)
{
    if (status != FASTMQ_OK) {
        fprintf(stderr, "order_book: %s: %s (%s)\n", doing, fastmq_last_error(),
                fastmq_status_name(status));
        exit(1);
    }
}

static fastmq_bytes text(const char *string)
{
    return (fastmq_bytes){(const uint8_t *)string, strlen(string)};
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The book of one symbol: for each price the orders that wait, oldest first. */

struct resting {
    uint32_t quantity; /* 0: gone */
    uint32_t next;     /* id of the next at this price; 0: none */
    uint16_t price;
    uint8_t side;
};

struct book {
    uint32_t first[2][LEVELS], last[2][LEVELS]; /* ids; 0: none */
    uint32_t best_buy;                          /* no buyer above this */
    uint32_t best_sell;                         /* no seller below this */
    uint64_t hash;                              /* of all that happened here, in order */
};

struct market {
    struct book books[SYMBOLS];
    struct resting *orders; /* by id */
    uint64_t trades;
};

typedef void on_trade(void *context, uint8_t symbol, const struct trade *trade);

static void market_open(struct market *market, uint32_t orders)
{
    memset(market, 0, sizeof *market);
    market->orders = calloc(orders + 1, sizeof *market->orders);
    if (market->orders == NULL) {
        fprintf(stderr, "order_book: no memory for %" PRIu32 " orders\n", orders);
        exit(1);
    }
    for (int at = 0; at < SYMBOLS; at++) {
        market->books[at].best_sell = LEVELS - 1;
    }
}

static void mix(struct book *book, uint64_t value)
{
    book->hash = (book->hash ^ value) * UINT64_C(0x100000001b3); /* FNV-1a, a word at a time */
}

static int is_same_market(const struct market *a, const struct market *b)
{
    int is_same = a->trades == b->trades;
    for (int at = 0; at < SYMBOLS; at++) {
        is_same = is_same && a->books[at].hash == b->books[at].hash;
    }
    return is_same;
}

/* The oldest order that still waits at a price, or 0. */
static uint32_t oldest(struct market *market, struct book *book, enum side side, uint32_t price)
{
    uint32_t id = book->first[side][price];
    while (id != 0 && market->orders[id].quantity == 0) {
        id = market->orders[id].next;
    }
    book->first[side][price] = id;
    return id;
}

/* Whom the order meets next, or 0. */
static uint32_t counterpart(struct market *market, struct book *book, const struct order *order)
{
    if (order->side == BUY) {
        for (; book->best_sell <= order->price; book->best_sell++) {
            uint32_t id = oldest(market, book, SELL, book->best_sell);
            if (id != 0 || book->best_sell == LEVELS - 1) {
                return id;
            }
        }
        return 0;
    }
    for (;; book->best_buy--) {
        if (book->best_buy < order->price) {
            return 0;
        }
        uint32_t id = oldest(market, book, BUY, book->best_buy);
        if (id != 0 || book->best_buy == 0) {
            return id;
        }
    }
}

static void rest(struct market *market, struct book *book, const struct order *order,
                 uint32_t quantity)
{
    struct resting *resting = &market->orders[order->id];
    *resting = (struct resting){quantity, 0, (uint16_t)order->price, order->side};
    if (oldest(market, book, (enum side)order->side, order->price) == 0) {
        book->first[order->side][order->price] = order->id;
    } else {
        market->orders[book->last[order->side][order->price]].next = order->id;
    }
    book->last[order->side][order->price] = order->id;
    if (order->side == BUY && order->price > book->best_buy) {
        book->best_buy = order->price;
    }
    if (order->side == SELL && order->price < book->best_sell) {
        book->best_sell = order->price;
    }
}

static void market_take(struct market *market, const struct order *order, on_trade *tell,
                        void *context)
{
    struct book *book = &market->books[order->symbol];
    mix(book, (uint64_t)order->id << 32 | order->kind);
    if (order->kind == CANCEL) {
        market->orders[order->id].quantity = 0;
        return;
    }
    uint32_t left = order->quantity, other;
    while (left > 0 && (other = counterpart(market, book, order)) != 0) {
        struct resting *resting = &market->orders[other];
        struct trade trade = {order->id, other, resting->price, left};
        if (resting->quantity < left) {
            trade.quantity = resting->quantity;
        }
        if (order->side == SELL) {
            trade.buyer = other;
            trade.seller = order->id;
        }
        resting->quantity -= trade.quantity;
        left -= trade.quantity;
        market->trades++;
        mix(book, (uint64_t)trade.buyer << 32 | trade.seller);
        mix(book, (uint64_t)trade.price << 32 | trade.quantity);
        if (tell != NULL) {
            tell(context, order->symbol, &trade);
        }
    }
    if (left > 0) {
        rest(market, book, order, left);
    }
}

/* How long orders took, in buckets of 10 ns up to 100 us. */

enum { BUCKET_NS = 10, BUCKETS = 10000 };

struct latency {
    uint32_t buckets[BUCKETS + 1];
    uint64_t count, worst_ns;
};

static void latency_add(struct latency *latency, uint64_t ns)
{
    uint64_t bucket = ns / BUCKET_NS;
    latency->buckets[bucket < BUCKETS ? bucket : BUCKETS]++;
    latency->count++;
    if (ns > latency->worst_ns) {
        latency->worst_ns = ns;
    }
}

static uint64_t latency_at(const struct latency *latency, double part)
{
    uint64_t seen = 0, wanted = (uint64_t)((double)latency->count * part);
    for (uint64_t bucket = 0; bucket < BUCKETS; bucket++) {
        seen += latency->buckets[bucket];
        if (seen > wanted) {
            return bucket * BUCKET_NS;
        }
    }
    return latency->worst_ns;
}

/* The matching engine: one thread, one queue, one publisher handle for each symbol's trades. */

struct engine {
    fastmq_queue *queue;
    fastmq_publisher *trades[SYMBOLS];
    struct market market;
    struct latency latency;
};

static void pin(int core)
{
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    (void)pthread_setaffinity_np(pthread_self(), sizeof cores, &cores); /* not needed to work */
}

static void publish_trade(void *context, uint8_t symbol, const struct trade *trade)
{
    struct engine *engine = context;
    /* The audit's queue is never full for long: waiting is right, losing is not. */
    must(fastmq_publisher_publish_wait(engine->trades[symbol],
                                       (fastmq_bytes){(const uint8_t *)trade, sizeof *trade},
                                       FASTMQ_FOREVER),
         "publish a trade");
}

static void *engine_run(void *argument)
{
    struct engine *engine = argument;
    int open_symbols = SYMBOLS;
    pin(1);
    while (open_symbols > 0) {
        fastmq_batch *batch = NULL;
        must(fastmq_receive(engine->queue, 0, FASTMQ_FOREVER, &batch), "receive orders");
        uint64_t got_ns = now_ns(); /* all of the batch is here now */
        size_t count = 0;
        const fastmq_message *orders = fastmq_batch_messages(batch, &count);
        for (size_t at = 0; at < count; at++) {
            struct order order;
            memcpy(&order, orders[at].payload.data, sizeof order);
            if (order.kind == STOP) {
                open_symbols--;
                continue;
            }
            latency_add(&engine->latency, got_ns - order.sent_ns);
            market_take(&engine->market, &order, publish_trade, engine);
        }
        fastmq_batch_free(batch);
    }
    return NULL;
}

/* The audit: hears everything, checks the sequences, keeps the orders for the replay. */

struct audit {
    fastmq_queue *queue;
    struct order *orders;
    uint64_t order_count, trade_count, gaps;
    uint64_t sequences[2 * SYMBOLS]; /* of the last order and the last trade of each symbol */
};

static void audit_hear(struct audit *audit)
{
    fastmq_batch *batch = NULL;
    fastmq_status status;
    while ((status = fastmq_receive(audit->queue, 0, 0, &batch)) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *heard = fastmq_batch_messages(batch, &count);
        for (size_t at = 0; at < count; at++) {
            const fastmq_message *message = &heard[at];
            /* The tag was given at subscribe: which symbol, and orders or trades. */
            uint64_t *last = &audit->sequences[message->tag];
            audit->gaps += message->sequence != *last + 1 || message->lost_before != 0;
            *last = message->sequence;
            if (message->tag < SYMBOLS) {
                struct order *order = &audit->orders[audit->order_count];
                memcpy(order, message->payload.data, sizeof *order);
                audit->order_count += order->kind != STOP;
            } else {
                audit->trade_count++;
            }
        }
        fastmq_batch_free(batch);
    }
    if (status != FASTMQ_AGAIN) {
        must(status, "hear the market");
    }
}

/* The traders: xorshift draws who wants what. */

static uint64_t draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static struct order next_order(uint64_t *state, uint32_t id, const struct order *recent)
{
    uint64_t drawn = draw(state);
    if (drawn % 10 < 3 && recent->id != 0) {
        struct order cancel = *recent; /* three of ten change their mind */
        cancel.kind = CANCEL;
        return cancel;
    }
    struct order order = {.id = id, .kind = LIMIT, .symbol = (uint8_t)(drawn >> 8 & 7)};
    order.side = (uint8_t)(drawn >> 16 & 1);
    /* Buyers a little below the middle, sellers above; the noise makes them meet. */
    uint32_t middle = LEVELS / 2, noise = (uint32_t)(drawn >> 24) % 16;
    order.price = order.side == BUY ? middle - 6 + noise - 4 : middle + 6 - noise + 4;
    order.quantity = 1 + (uint32_t)(drawn >> 40) % 100;
    return order;
}

static fastmq_subscription *listen_to(fastmq_client *mq, const char *what, int symbol,
                                      fastmq_queue *queue, uint64_t tag)
{
    char pattern[32];
    snprintf(pattern, sizeof pattern, "%s.%s", what, symbols[symbol]);
    fastmq_subscribe_options options = {.struct_size = sizeof options, .queue = queue, .tag = tag};
    fastmq_subscription *subscription = NULL;
    must(fastmq_subscribe(mq, text(pattern), &options, &subscription), "subscribe");
    return subscription;
}

static fastmq_publisher *speak_of(fastmq_client *mq, const char *what, int symbol)
{
    char subject[32];
    snprintf(subject, sizeof subject, "%s.%s", what, symbols[symbol]);
    fastmq_publisher *publisher = NULL;
    must(fastmq_publisher_open(mq, text(subject), &publisher), "open a publisher");
    return publisher;
}

int main(int argc, char **argv)
{
    int is_check = argc > 1 && strcmp(argv[1], "--check") == 0;
    uint32_t count = argc > 1 && !is_check ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000000;
    uint64_t state = argc > 2 ? strtoull(argv[2], NULL, 10) * 2 + 1 : 20261;
    if (is_check) {
        count = 50000;
    }
    if (count == 0) {
        fprintf(stderr, "order_book: ORDERS is a number above 0\n");
        return 2;
    }
    fastmq_client *mq = NULL;
    fastmq_options options = {.struct_size = sizeof options, .wait = FASTMQ_WAIT_BUSY_POLL};
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
        options.wait = FASTMQ_WAIT_BALANCED; /* Nobody to poll for on a single core. */
    }
    must(fastmq_open(&options, &mq), "open");

    static struct engine engine;
    static struct audit audit;
    market_open(&engine.market, count);
    audit.orders = calloc(count + 1, sizeof *audit.orders);
    if (audit.orders == NULL) {
        fprintf(stderr, "order_book: no memory for %" PRIu32 " orders\n", count);
        return 1;
    }
    must(fastmq_queue_open(mq, NULL, &engine.queue), "open the engine's queue");
    must(fastmq_queue_open(mq, NULL, &audit.queue), "open the audit's queue");
    fastmq_publisher *orders[SYMBOLS];
    fastmq_subscription *heard[SYMBOLS][3];
    for (int at = 0; at < SYMBOLS; at++) {
        heard[at][0] = listen_to(mq, "order", at, engine.queue, 0);
        heard[at][1] = listen_to(mq, "order", at, audit.queue, (uint64_t)at);
        heard[at][2] = listen_to(mq, "trade", at, audit.queue, (uint64_t)(SYMBOLS + at));
        orders[at] = speak_of(mq, "order", at);
        engine.trades[at] = speak_of(mq, "trade", at);
    }
    pthread_t thread;
    if (pthread_create(&thread, NULL, engine_run, &engine) != 0) {
        fprintf(stderr, "order_book: no thread for the matching engine\n");
        return 1;
    }
    pin(0);

    /* One order each GAP_NS at most: an engine that is never behind shows what the way costs. */
    struct order recent[64] = {{0}};
    uint64_t started_ns = now_ns(), next_ns = started_ns;
    for (uint32_t sent = 0; sent < count + SYMBOLS; sent++) {
        struct order order = next_order(&state, sent + 1, &recent[sent & 63]);
        if (sent >= count) {
            /* One for each symbol: order is kept along a publisher handle, not across them. */
            order = (struct order){.kind = STOP, .symbol = (uint8_t)(sent - count)};
        } else if (order.kind == LIMIT) {
            recent[draw(&state) & 63] = order;
        }
        fastmq_bytes payload = {(const uint8_t *)&order, sizeof order};
        do {
            audit_hear(&audit); /* between two orders, so that its queue stays short */
            order.sent_ns = now_ns();
        } while (order.sent_ns < next_ns);
        next_ns += GAP_NS;
        fastmq_status status = fastmq_publisher_publish(orders[order.symbol], payload);
        while (status == FASTMQ_AGAIN) { /* all or nothing: neither has it; make room */
            audit_hear(&audit);
            status = fastmq_publisher_publish(orders[order.symbol], payload);
        }
        must(status, "send an order");
    }
    pthread_join(thread, NULL);
    audit_hear(&audit);
    double seconds = (double)(now_ns() - started_ns) / 1e9;

    static struct market replay;
    market_open(&replay, count);
    for (uint64_t at = 0; at < audit.order_count; at++) {
        market_take(&replay, &audit.orders[at], NULL, NULL);
    }
    int is_right = audit.order_count == count && audit.trade_count == engine.market.trades
                   && audit.gaps == 0 && is_same_market(&replay, &engine.market);

    printf("%" PRIu32 " orders in %.2f s, %" PRIu64 " trades, %.2f M messages/s in all\n\n", count,
           seconds, engine.market.trades,
           (2.0 * count + (double)engine.market.trades) / seconds / 1e6);
    printf("  publish -> matching engine   ns\n");
    const struct { const char *name; double part; } rows[] = {
        {"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}};
    for (size_t at = 0; at < sizeof rows / sizeof *rows; at++) {
        printf("  %-27s %6" PRIu64 "\n", rows[at].name,
               latency_at(&engine.latency, rows[at].part));
    }
    printf("  %-27s %6" PRIu64 "\n", "worst", engine.latency.worst_ns);
    printf("  (two clock readings are in each; from p99.9 on it is the system: timer interrupts,\n"
           "  and on a virtual machine the host. isolcpus and nohz_full take them off the core.)\n");
    printf("\n  gaps in the sequences: %" PRIu64 "; replay of the audit: %s\n", audit.gaps,
           is_right ? "same trades, same book" : "DIFFERS");

    for (int at = 0; at < SYMBOLS; at++) {
        fastmq_publisher_close(orders[at]);
        fastmq_publisher_close(engine.trades[at]);
        for (int which = 0; which < 3; which++) {
            fastmq_unsubscribe(heard[at][which]);
        }
    }
    fastmq_queue_close(engine.queue);
    fastmq_queue_close(audit.queue);
    fastmq_close(mq);
    free(engine.market.orders);
    free(replay.orders);
    free(audit.orders);
    return is_right ? 0 : 1;
}

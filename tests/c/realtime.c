/* What real-time programs ask for: threads with a name, cores, scheduling and priority; memory that
 * is there from the start, and locked; one wait over many queues; time stamps for clients that ask.
 *
 * Decided here: options of library threads are tried when the client opens, so that a missing right
 * is an error of fastmq_open. No thread spins under a real-time priority here: the lowest one is
 * taken, looked at and given back. Where this process has no right to it, that is what is tested.
 */
#define _GNU_SOURCE
#include "steps.h"

#include <dirent.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* capget(2), version 3: musl comes without the kernel's header. */
enum { CAPABILITY_VERSION = 0x20080522, CAPABILITY_IPC_LOCK = 14, CAPABILITY_SYS_NICE = 23 };

/* threads */

static int policy_here(void)
{
    return (int)syscall(SYS_sched_getscheduler, 0) & ~SCHED_RESET_ON_FORK;
}

static int priority_here(void)
{
    struct sched_param parameter = {0};
    NEED(syscall(SYS_sched_getparam, 0, &parameter) == 0);
    return parameter.sched_priority;
}

/* The cores of the calling thread: bit n for core n. */
static uint64_t cores_here(void)
{
    cpu_set_t set;
    uint64_t cores = 0;
    NEED(sched_getaffinity(0, sizeof set, &set) == 0);
    for (int core = 0; core < 64; core++) {
        cores |= (uint64_t)(CPU_ISSET(core, &set) != 0) << core;
    }
    return cores;
}

/* The highest core of a mask that is not 0. */
static uint64_t last_of(uint64_t cores)
{
    return UINT64_C(1) << (63 - __builtin_clzll(cores));
}

/* A child without the rights to real-time scheduling and to lock more than `memlock` bytes, for
 * any user. */
static void drop_rights(rlim_t memlock)
{
    const uint32_t rights
        = UINT32_C(1) << CAPABILITY_SYS_NICE | UINT32_C(1) << CAPABILITY_IPC_LOCK;
    struct rlimit none = {0, 0}, locked = {memlock, memlock};
    struct { uint32_t version; int32_t pid; } header = {CAPABILITY_VERSION, 0};
    struct { uint32_t effective, permitted, inheritable; } data[2];
    NEED(setrlimit(RLIMIT_RTPRIO, &none) == 0);
    NEED(setrlimit(RLIMIT_MEMLOCK, &locked) == 0);
    NEED(syscall(SYS_capget, &header, data) == 0);
    data[0].effective &= ~rights;
    data[0].permitted &= ~rights;
    NEED(syscall(SYS_capset, &header, data) == 0);
}

/* Runs `body` in a child; its result, or 255 when it did not end by itself. */
static int in_child(int (*body)(void))
{
    int status = 0;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        _exit(body());
    }
    NEED(child > 0 && waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static fastmq_thread_options thread_options(const char *name)
{
    fastmq_thread_options options = {.struct_size = sizeof options};
    options.name = text(name);
    return options;
}

/* What a thread found out about itself. */
struct self {
    char name[16];
    uint64_t cores;
    int policy, priority;
    struct gate *seen;
};

static void look_at_self(struct self *self)
{
    NEED(prctl(PR_GET_NAME, self->name, 0, 0, 0) == 0);
    self->cores = cores_here();
    self->policy = policy_here();
    self->priority = priority_here();
}

static void *own_thread(void *context)
{
    struct self *self = context;
    uint64_t all = cores_here();
    fastmq_thread_options options = thread_options("own");
    options.cores = last_of(all);
    NEED(fastmq_thread_setup(&options) == FASTMQ_OK);
    look_at_self(self);
    options = thread_options("");
    options.cores = all;
    NEED(fastmq_thread_setup(&options) == FASTMQ_OK);
    CHECK(cores_here() == all, "and gives them back");
    NEED(fastmq_thread_setup(NULL) == FASTMQ_OK);
    char name[16];
    NEED(prctl(PR_GET_NAME, name, 0, 0, 0) == 0);
    CHECK(strcmp(name, "own") == 0 && cores_here() == all, "no options change nothing");

    options = thread_options("never");
    options.cores = all | (all == UINT64_MAX ? 0 : last_of(~all));
    if (all != UINT64_MAX) {
        CHECK_STATUS(fastmq_thread_setup(&options), FASTMQ_INVALID,
                     "a core that is not there is INVALID");
        CHECK(strstr(fastmq_last_error(), "Cpus_allowed_list") != NULL, "and where to look is said");
        NEED(prctl(PR_GET_NAME, name, 0, 0, 0) == 0);
        CHECK(strcmp(name, "own") == 0 && cores_here() == all, "nothing has changed");
    }
    options = thread_options("1234567890123456");
    CHECK_STATUS(fastmq_thread_setup(&options), FASTMQ_INVALID, "16 bytes are no name");
    options = thread_options("");
    options.priority = 1;
    CHECK_STATUS(fastmq_thread_setup(&options), FASTMQ_INVALID,
                 "a priority without FIFO or RR is INVALID");
    options.scheduling = FASTMQ_SCHEDULING_FIFO;
    options.priority = 100;
    CHECK_STATUS(fastmq_thread_setup(&options), FASTMQ_INVALID, "so is one above 99");
    options.priority = 0;
    CHECK_STATUS(fastmq_thread_setup(&options), FASTMQ_INVALID, "and 0");
    return NULL;
}

static void own_threads(void)
{
    struct self self = {.name = ""};
    NEED(pthread_join(start_thread(own_thread, &self), NULL) == 0);
    CHECK(strcmp(self.name, "own") == 0, "a thread gets its name");
    CHECK(self.cores == last_of(cores_here()), "and its cores");
}

static void *real_time_thread(void *context)
{
    struct self *self = context;
    fastmq_thread_options options = thread_options("");
    options.scheduling = FASTMQ_SCHEDULING_RR;
    options.priority = 1;
    fastmq_status status = fastmq_thread_setup(&options);
    look_at_self(self);
    options.scheduling = FASTMQ_SCHEDULING_OTHER;
    options.priority = 0;
    NEED(fastmq_thread_setup(&options) == FASTMQ_OK);
    CHECK(policy_here() == SCHED_OTHER, "and gives it back");
    if (status == FASTMQ_DENIED) {
        CHECK(self->policy == SCHED_OTHER, "a right that is missing is DENIED");
    } else {
        CHECK(status == FASTMQ_OK && self->policy == SCHED_RR && self->priority == 1,
              "a thread gets its scheduling");
    }
    return NULL;
}

static void on_message(const fastmq_message *message, void *context)
{
    struct self *self = context;
    (void)message;
    look_at_self(self);
    gate_add(self->seen, 1);
}

static void library_threads(void)
{
    struct gate seen = GATE_INIT;
    struct self self = {.seen = &seen};
    fastmq_thread_options threads = thread_options("desk");
    fastmq_options options = {.struct_size = sizeof options};
    fastmq_client *client = NULL;
    threads.cores = last_of(cores_here());
    threads.scheduling = FASTMQ_SCHEDULING_FIFO;
    threads.priority = 1;
    options.threads = &threads;
    options.wait = FASTMQ_WAIT_LOW_POWER; /* it sleeps at once */
    fastmq_status status = fastmq_open(&options, &client);
    int has_right = status == FASTMQ_OK;
    if (!has_right) {
        CHECK(status == FASTMQ_DENIED && client == NULL, "no right to FIFO: fastmq_open says so");
        threads.scheduling = FASTMQ_SCHEDULING_OTHER;
        threads.priority = 0;
        NEED(fastmq_open(&options, &client) == FASTMQ_OK);
    }
    subscribe_call(client, "on.thread", FASTMQ_DELIVERY_THREAD, on_message, &self);
    NEED(publish_number(client, "on.thread", 1) == FASTMQ_OK);
    NEED(gate_wait(&seen, 1));
    CHECK(strcmp(self.name, "desk-0") == 0, "a library thread has the client's name and a number");
    CHECK(self.cores == threads.cores, "it runs on the client's cores only");
    CHECK(self.policy == (has_right ? SCHED_FIFO : SCHED_OTHER), "it has the client's scheduling");
    CHECK_NUMBER(self.priority, threads.priority, "and priority");
    fastmq_close(client);

    threads = thread_options("twelve bytes");
    CHECK_STATUS(fastmq_open(&options, &client), FASTMQ_INVALID, "a name too long for a number");
    threads = thread_options("");
    uint64_t all = cores_here();
    if (all != UINT64_MAX) {
        threads.cores = last_of(~all);
        CHECK_STATUS(fastmq_open(&options, &client), FASTMQ_INVALID,
                     "a core that is not there is an error of fastmq_open");
    }
}

static int denied_in_child(void)
{
    fastmq_thread_options threads = thread_options("");
    fastmq_options options = {.struct_size = sizeof options};
    fastmq_client *client = NULL;
    drop_rights(0);
    threads.scheduling = FASTMQ_SCHEDULING_FIFO;
    threads.priority = 7;
    options.threads = &threads;
    if (fastmq_thread_setup(&threads) != FASTMQ_DENIED
        || strstr(fastmq_last_error(), "RLIMIT_RTPRIO") == NULL
        || strstr(fastmq_last_error(), "ulimit -r 7") == NULL || policy_here() != SCHED_OTHER) {
        return 1;
    }
    if (fastmq_open(&options, &client) != FASTMQ_DENIED || client != NULL
        || strstr(fastmq_last_error(), "RLIMIT_RTPRIO") == NULL) {
        return 2;
    }
    threads.scheduling = FASTMQ_SCHEDULING_KEEP;
    threads.priority = 0;
    if (fastmq_open(&options, &client) != FASTMQ_OK) {
        return 3;
    }
    fastmq_close(client);
    return 0;
}

static void kept_cores(void)
{
    fastmq_thread_options threads = thread_options("kept");
    fastmq_options options = {.struct_size = sizeof options, .threads_max = 3};
    fastmq_client *client = NULL;
    int count = 0, elsewhere = 0;
    threads.cores = last_of(cores_here());
    options.threads = &threads;
    NEED(fastmq_open(&options, &client) == FASTMQ_OK);
    for (int i = 0; i < 5; i++) {
        subscribe_call(client, "kept", FASTMQ_DELIVERY_THREAD, on_message, NULL);
    }
    DIR *tasks = opendir("/proc/self/task");
    NEED(tasks != NULL);
    for (struct dirent *task = readdir(tasks); task != NULL; task = readdir(tasks)) {
        int id = atoi(task->d_name);
        cpu_set_t set;
        uint64_t cores = 0;
        if (id == 0 || id == getpid()) {
            continue;
        }
        NEED(sched_getaffinity(id, sizeof set, &set) == 0);
        for (int core = 0; core < 64; core++) {
            cores |= (uint64_t)(CPU_ISSET(core, &set) != 0) << core;
        }
        count++;
        elsewhere += cores != threads.cores;
    }
    closedir(tasks);
    CHECK_NUMBER(count, 3, "the library has as many threads as it may");
    CHECK_NUMBER(elsewhere, 0, "and none of them may use a core that was kept");
    fastmq_close(client);
}

/* memory */

enum { MIB = 1 << 20 };

static fastmq_options memory_options(uint64_t memory_max, uint32_t memory)
{
    fastmq_options options = {.struct_size = sizeof options};
    options.memory_max = memory_max;
    options.memory = memory;
    return options;
}

/* A figure of /proc/self/status in bytes. */
static uint64_t status_bytes(const char *name)
{
    char line[256];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    NEED(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0) {
            kib = strtoull(line + strlen(name), NULL, 10);
        }
    }
    fclose(file);
    return kib * 1024;
}

static uint64_t faults(void)
{
    struct rusage usage;
    NEED(getrusage(RUSAGE_SELF, &usage) == 0);
    return (uint64_t)usage.ru_minflt;
}

/* Fills a queue to the last byte, reads it, and closes all. */
static uint64_t use_memory(fastmq_client *client)
{
    fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 2 * MIB);
    fastmq_batch *batch = NULL;
    fastmq_subscription *subscription = subscribe_on(client, "memory", queue, 0);
    uint64_t count = 0, before = faults();
    NEED(publish_number(client, "memory", count++) == FASTMQ_OK);
    while (publish_number(client, "memory", count) == FASTMQ_OK) {
        count++;
    }
    uint64_t waited = faults() - before;
    NEED(fastmq_receive(queue, 1, 0, &batch) == FASTMQ_OK);
    fastmq_batch_free(batch);
    CHECK_NUMBER(take_all(queue), count - 1, "what fits comes out again");
#ifdef __SANITIZE_ADDRESS__
    /* Its shadow of the memory has faults of its own. */
    (void)waited;
#else
    /* The code of the library has pages, too. */
    CHECK(waited < 384, "a queue of 512 pages grows without a fault for each");
#endif
    fastmq_close(client);
    fastmq_unsubscribe(subscription);
    fastmq_queue_close(queue);
    return count;
}

static void memory_from_the_start(void)
{
    fastmq_options options = memory_options(4 * MIB, FASTMQ_MEMORY_PREFAULT);
    fastmq_client *client = NULL;
    uint64_t before = status_bytes("VmRSS:");
    NEED(fastmq_open(&options, &client) == FASTMQ_OK);
    CHECK(status_bytes("VmRSS:") >= before + 4 * MIB, "memory is there when the client opens");
    use_memory(client);

    options = memory_options(0, FASTMQ_MEMORY_PREFAULT);
    CHECK_STATUS(fastmq_open(&options, &client), FASTMQ_INVALID, "how much must be said");
    CHECK(strstr(fastmq_last_error(), "memory_max") != NULL, "and where is said");
    options = memory_options(4 * MIB, 8);
    CHECK_STATUS(fastmq_open(&options, &client), FASTMQ_INVALID, "there are three bits");
    options = memory_options(UINT64_C(1) << 62, FASTMQ_MEMORY_PREFAULT);
    CHECK_STATUS(fastmq_open(&options, &client), FASTMQ_NO_MEMORY, "more than there can be");

    options = memory_options(4 * MIB, FASTMQ_MEMORY_HUGE_PAGES);
    fastmq_status status = fastmq_open(&options, &client);
    if (status == FASTMQ_OK) {
        use_memory(client);
    } else {
        CHECK_STATUS(status, FASTMQ_UNSUPPORTED, "no huge pages: fastmq_open says so");
        CHECK(strstr(fastmq_last_error(), "vm.nr_hugepages=2") != NULL, "and what gives them");
    }
}

/* In a child, so that its limit is known: 8 MiB may be locked, by whomever. */
static int locked_in_child(void)
{
    fastmq_options options = memory_options(4 * MIB, FASTMQ_MEMORY_LOCK);
    fastmq_client *client = NULL, *second = NULL;
    drop_rights(6 * MIB);
    if (fastmq_open(&options, &client) != FASTMQ_OK || status_bytes("VmLck:") != 4 * MIB) {
        return 1;
    }
    if (fastmq_open(&options, &second) != FASTMQ_DENIED || second != NULL
        || strstr(fastmq_last_error(), "RLIMIT_MEMLOCK") == NULL
        || strstr(fastmq_last_error(), "ulimit -l 4096") == NULL
        || status_bytes("VmLck:") != 4 * MIB) {
        return 2;
    }
    if (use_memory(client) == 0 || status_bytes("VmLck:") != 0) {
        return 3;
    }
    if (fastmq_open(&options, &second) != FASTMQ_OK || status_bytes("VmLck:") != 4 * MIB) {
        return 4;
    }
    fastmq_close(second);
    return status_bytes("VmLck:") == 0 ? 0 : 5;
}

static int lock_denied_in_child(void)
{
    fastmq_options options = memory_options(MIB, FASTMQ_MEMORY_LOCK);
    fastmq_client *client = NULL;
    drop_rights(0);
    if (fastmq_open(&options, &client) != FASTMQ_DENIED || client != NULL
        || strstr(fastmq_last_error(), "RLIMIT_MEMLOCK") == NULL) {
        return 1;
    }
    options.memory = FASTMQ_MEMORY_PREFAULT;
    if (fastmq_open(&options, &client) != FASTMQ_OK || status_bytes("VmLck:") != 0) {
        return 2;
    }
    fastmq_close(client);
    return 0;
}

/* one wait over many queues */

enum { MANY = 100, TURNS = 500 };

struct feeder {
    fastmq_client *client;
    struct gate asked;
    uint32_t turn_of[TURNS];
};

static void subject_of(char *subject, size_t size, uint32_t number)
{
    snprintf(subject, size, "any.%u", (unsigned)number);
}

static void *feed(void *context)
{
    struct feeder *own = context;
    char subject[32];
    for (uint32_t turn = 0; turn < TURNS; turn++) {
        NEED(gate_wait(&own->asked, turn + 1));
        subject_of(subject, sizeof subject, own->turn_of[turn]);
        NEED(publish_number(own->client, subject, turn) == FASTMQ_OK);
    }
    return NULL;
}

static void wait_over_many(uint32_t profile)
{
    struct feeder feeder = {.asked = GATE_INIT};
    fastmq_options options = {.struct_size = sizeof options, .wait = profile};
    fastmq_queue *queues[MANY];
    char subject[32];
    size_t index = 77;
    NEED(fastmq_open(&options, &feeder.client) == FASTMQ_OK);
    for (uint32_t i = 0; i < MANY; i++) {
        subject_of(subject, sizeof subject, i);
        queues[i] = open_queue(feeder.client, FASTMQ_POLICY_BACKPRESSURE, 0);
        subscribe_on(feeder.client, subject, queues[i], i);
    }
    CHECK_STATUS(fastmq_wait_any(queues, MANY, 0, &index), FASTMQ_AGAIN, "nothing is there");
    CHECK_NUMBER(index, 0, "and no index is said");
    CHECK_STATUS(fastmq_wait_any(queues, MANY, MILLISECOND, &index), FASTMQ_TIMEOUT,
                 "nothing comes");
    pthread_t thread = start_thread(feed, &feeder);
    uint32_t wrong = 0;
    for (uint32_t turn = 0; turn < TURNS; turn++) {
        feeder.turn_of[turn] = turn * 37 % MANY;
        gate_add(&feeder.asked, 1);
        fastmq_status status = fastmq_wait_any(queues, MANY, PATIENCE, &index);
        wrong += status != FASTMQ_OK || index != feeder.turn_of[turn];
        wrong += status == FASTMQ_OK && take_all(queues[index]) != 1;
    }
    CHECK_NUMBER(wrong, 0, "each message is found in its queue");
    NEED(pthread_join(thread, NULL) == 0);

    for (uint32_t i = 10; i < 13; i++) {
        subject_of(subject, sizeof subject, i);
        NEED(publish_number(feeder.client, subject, i) == FASTMQ_OK);
    }
    uint32_t seen = 0;
    for (int i = 0; i < 3; i++) {
        NEED(fastmq_wait_any(queues, MANY, 0, &index) == FASTMQ_OK);
        seen |= UINT32_C(1) << (index - 10);
    }
    CHECK_NUMBER(seen, 7, "queues that hold something take turns");

    fastmq_batch *batch = NULL;
    NEED(fastmq_receive(queues[10], 1, 0, &batch) == FASTMQ_OK);
    CHECK_STATUS(fastmq_wait_any(&queues[10], 1, 0, &index), FASTMQ_MISUSE,
                 "an open batch is MISUSE");
    fastmq_batch_free(batch);
    CHECK_STATUS(fastmq_wait_any(NULL, 1, 0, &index), FASTMQ_INVALID, "no array is INVALID");
    CHECK_STATUS(fastmq_wait_any(queues, 0, 0, &index), FASTMQ_INVALID, "so is no queue");
    CHECK_STATUS(fastmq_wait_any(queues, 1025, 0, &index), FASTMQ_INVALID, "and 1,025");
    CHECK_STATUS(fastmq_wait_any(queues, 1, 0, NULL), FASTMQ_INVALID, "and nowhere to say it");

    for (uint32_t i = 10; i < 13; i++) {
        take_all(queues[i]);
    }
    NEED(fastmq_drain(feeder.client, PATIENCE) == FASTMQ_OK);
    CHECK_STATUS(fastmq_wait_any(queues, MANY, PATIENCE, &index), FASTMQ_END,
                 "drained and empty is END");
    fastmq_queue_close(queues[5]);
    CHECK_STATUS(fastmq_wait_any(&queues[5], 1, 0, &index), FASTMQ_MISUSE,
                 "a closed handle is MISUSE");
    fastmq_close(feeder.client);
    CHECK_STATUS(fastmq_wait_any(queues, 1, 0, &index), FASTMQ_CLOSED,
                 "a queue of a closed client is CLOSED");
}

/* time stamps */

static uint64_t unix_ns(void)
{
    struct timespec now;
    NEED(clock_gettime(CLOCK_REALTIME, &now) == 0);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static void answer(const fastmq_message *message, void *context)
{
    NEED(fastmq_reply(context, message->token, message->payload) == FASTMQ_OK);
}

/* Sends by subject, by handle and as a request; says how many of the messages and batches have a
 * time that is right, give or take a millisecond. */
static void time_stamps(uint32_t timestamps, int is_asked)
{
    fastmq_options options = {.struct_size = sizeof options, .timestamps = timestamps};
    fastmq_client *client = NULL;
    NEED(fastmq_open(&options, &client) == FASTMQ_OK);
    fastmq_queue *queue = open_queue(client, FASTMQ_POLICY_BACKPRESSURE, 0);
    subscribe_on(client, "time", queue, 0);
    subscribe_call(client, "ask", FASTMQ_DELIVERY_INLINE, answer, client);
    fastmq_publisher *publisher = open_publisher(client, "time");
    fastmq_requester *requester = open_requester(client, "time", 0);
    fastmq_outgoing several[2] = {outgoing("time", text("a")), outgoing("time", text("b"))};
    fastmq_bytes payloads[2] = {text("c"), text("d")};
    fastmq_batch *batch = NULL, *copy = NULL;
    size_t count = 0;
    uint64_t before = unix_ns() - MILLISECOND;
    NEED(publish_number(client, "time", 1) == FASTMQ_OK);
    NEED(fastmq_publish_batch(client, several, 2, &count) == FASTMQ_OK);
    NEED(fastmq_publisher_publish(publisher, text("by handle")) == FASTMQ_OK);
    NEED(fastmq_publisher_publish_batch(publisher, payloads, 2, &count) == FASTMQ_OK);
    NEED(fastmq_requester_submit(requester, text("?"), 1, SECOND) == FASTMQ_OK);
    NEED(fastmq_receive(queue, 0, 0, &batch) == FASTMQ_OK);
    uint64_t received = fastmq_batch_time(batch), after = unix_ns() + MILLISECOND;
    const fastmq_message *messages = fastmq_batch_messages(batch, &count);
    size_t right = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t time = messages[i].timestamp_ns;
        right += is_asked ? before <= time && time <= after : time == 0;
    }
    CHECK_NUMBER(count, 7, "all came");
    CHECK_NUMBER(right, 7, is_asked ? "each message has its time" : "no message has a time");
    CHECK(is_asked ? before <= received && received <= after : received == 0,
          is_asked ? "and the batch its own" : "nor has the batch");
    NEED(fastmq_batch_detach(batch, &copy) == FASTMQ_OK);
    CHECK_NUMBER(fastmq_batch_time(copy), received, "a copy has the same");
    CHECK_NUMBER(fastmq_batch_time(batch), 0, "a batch that is gone has none");
    CHECK(strstr(fastmq_last_error(), "batch") != NULL, "and that is said");
    fastmq_batch_free(copy);
    fastmq_outgoing request = outgoing("ask", text("?"));
    NEED(fastmq_request(client, &request, SECOND, &batch) == FASTMQ_OK);
    CHECK((fastmq_batch_time(batch) != 0) == is_asked, "so has an answer");
    fastmq_batch_free(batch);
    fastmq_close(client);
}

int main(void)
{
    check_begin();
    /* First: a child of a process that has opened a client may not use the library. */
    CHECK_NUMBER(in_child(denied_in_child), 0,
                 "without the right real-time scheduling is DENIED, and the cure is named");
    CHECK_NUMBER(in_child(lock_denied_in_child), 0,
                 "without the right to lock memory fastmq_open is DENIED, and the cure is named");
    CHECK_NUMBER(in_child(locked_in_child), 0,
                 "just the memory of the client is locked, within the limit, until it closes");
    own_threads();
    struct self self = {.name = ""};
    NEED(pthread_join(start_thread(real_time_thread, &self), NULL) == 0);
    library_threads();
    kept_cores();
    memory_from_the_start();
    wait_over_many(FASTMQ_WAIT_LOW_POWER);
    wait_over_many(FASTMQ_WAIT_BALANCED);
    time_stamps(FASTMQ_TIMESTAMPS_NONE, 0);
    time_stamps(FASTMQ_TIMESTAMPS_CLOCK, 1);
    time_stamps(FASTMQ_TIMESTAMPS_TSC, 1);
    return check_end();
}

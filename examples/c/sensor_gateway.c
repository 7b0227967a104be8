/* A gateway on a small device: thousands of stations report, alarms go out, memory stays bounded.
 *
 * A week of real earthquakes (examples/data/earthquakes.csv) is replayed through 4,000 made-up
 * seismic stations, spread evenly over the earth. Whoever feels an event publishes what it felt to
 * a subject of its own, quake.REGION.STATION. Three parties listen in this process:
 *
 *   alarms      quake.>          every reading, nothing may be lost; strong ones become alarm.REGION
 *   dashboard   quake.*.*        the newest readings; the oldest are dropped, and counted
 *   siren       alarm.pacific    called on the spot (inline), for one region
 *
 * The gateway runs in the low-power profile (a thread that waits sleeps at once, and nobody wakes
 * it for nothing) under a memory cap of 1 MiB.
 *
 *     sensor_gateway [earthquakes.csv]        --check: a day of it, for the tests
 */
#define _GNU_SOURCE
#include <fastmq.h>

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHECK_EVENTS = 200, STATIONS = 4000, REGIONS = 4, MEMORY_MAX = 1 << 20, DASHBOARD_BYTES = 16 << 10 };

static const char *const regions[REGIONS] = {"pacific", "americas", "africa", "asia"};
static const double PI = 3.14159265358979;
static const double ALARM = 3.0;     /* felt magnitude from which a reading is an alarm */
static const double FELT_MIN = 0.0; /* below that a station says nothing */

struct reading {
    uint64_t time_ms; /* of the event, Unix */
    float magnitude;  /* of the event */
    float felt;       /* at the station */
};

struct station {
    double up[3]; /* the direction from the centre of the earth, of length 1 */
    int region;
    fastmq_publisher *publisher;
};

static void must(fastmq_status status, const char *doing)
{
    if (status != FASTMQ_OK) {
        fprintf(stderr, "sensor_gateway: %s: %s (%s)\n", doing, fastmq_last_error(),
                fastmq_status_name(status));
        exit(1);
    }
}

static fastmq_bytes text(const char *string)
{
    return (fastmq_bytes){(const uint8_t *)string, strlen(string)};
}

static void direction(double longitude, double latitude, double up[3])
{
    double east = longitude * PI / 180, north = latitude * PI / 180;
    up[0] = cos(north) * cos(east);
    up[1] = cos(north) * sin(east);
    up[2] = sin(north);
}

/* How strong an event is at a distance in km: it loses with the logarithm. A toy of a formula. */
static double felt_at(double magnitude, double km)
{
    return magnitude + 1.8 - 1.6 * log10(km < 10 ? 10 : km);
}

/* One thread: takes every reading, tells of the strong ones. */

struct alarms {
    fastmq_client *mq;
    fastmq_queue *queue;
    uint64_t readings, by_region[REGIONS];
};

static int region_of(fastmq_bytes subject)
{
    for (int region = 0; region < REGIONS; region++) {
        size_t size = strlen(regions[region]);
        /* quake.REGION.STATION */
        if (subject.size > 6 + size && memcmp(subject.data + 6, regions[region], size) == 0) {
            return region;
        }
    }
    return 0;
}

static void *alarms_run(void *argument)
{
    struct alarms *alarms = argument;
    fastmq_batch *batch = NULL;
    fastmq_status status;
    /* END: the client was drained, and everything was received. */
    while ((status = fastmq_receive(alarms->queue, 0, FASTMQ_FOREVER, &batch)) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *messages = fastmq_batch_messages(batch, &count);
        for (size_t at = 0; at < count; at++) {
            struct reading reading;
            memcpy(&reading, messages[at].payload.data, sizeof reading);
            alarms->readings++;
            if (reading.felt < (float)ALARM) {
                continue;
            }
            int region = region_of(messages[at].subject);
            char subject[32];
            snprintf(subject, sizeof subject, "alarm.%s", regions[region]);
            fastmq_status told = fastmq_publish(alarms->mq, text(subject), messages[at].payload);
            /* While the client drains nothing new is accepted: count it all the same. */
            if (told != FASTMQ_CLOSED) {
                must(told, "tell of an alarm");
            }
            alarms->by_region[region]++;
        }
        fastmq_batch_free(batch);
    }
    if (status != FASTMQ_END) {
        must(status, "receive readings");
    }
    return NULL;
}

static void on_alarm(const fastmq_message *message, void *context)
{
    (void)message; /* here the siren would sound; the reading is in the payload */
    (*(uint64_t *)context)++;
}

static fastmq_subscription *listen_to(fastmq_client *mq, const char *pattern, fastmq_queue *queue)
{
    fastmq_subscribe_options options = {.struct_size = sizeof options, .queue = queue};
    fastmq_subscription *subscription = NULL;
    must(fastmq_subscribe(mq, text(pattern), &options, &subscription), "subscribe");
    return subscription;
}

/* Stations along a spiral from pole to pole: as far from each other as they can be. */
static void open_stations(fastmq_client *mq, struct station *stations)
{
    for (int at = 0; at < STATIONS; at++) {
        double latitude = asin(1 - 2 * (at + 0.5) / STATIONS) * 180 / PI;
        double longitude = fmod(at * 222.492, 360) - 180;
        struct station *station = &stations[at];
        direction(longitude, latitude, station->up);
        station->region = longitude < -120 || longitude > 150 ? 0
                          : longitude < -30                   ? 1
                          : longitude < 50                    ? 2
                                                              : 3;
        char subject[48];
        snprintf(subject, sizeof subject, "quake.%s.s%04d", regions[station->region], at);
        must(fastmq_publisher_open(mq, text(subject), &station->publisher), "open a station");
    }
}

int main(int argc, char **argv)
{
    int is_check = argc > 1 && strcmp(argv[1], "--check") == 0;
    const char *path = argc > 1 && !is_check ? argv[1] : "examples/data/earthquakes.csv";
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        fprintf(stderr, "sensor_gateway: %s: no such file; give its path\n", path);
        return 2;
    }
    fastmq_client *mq = NULL;
    fastmq_options options = {.struct_size = sizeof options,
                              .memory_max = MEMORY_MAX,
                              .queue_capacity = 256 << 10,
                              .wait = FASTMQ_WAIT_LOW_POWER};
    must(fastmq_open(&options, &mq), "open");

    struct alarms alarms = {.mq = mq};
    fastmq_queue *dashboard = NULL;
    fastmq_queue_options newest = {.struct_size = sizeof newest,
                                   .policy = FASTMQ_POLICY_DROP_OLDEST,
                                   .capacity = DASHBOARD_BYTES};
    must(fastmq_queue_open(mq, NULL, &alarms.queue), "open the alarms' queue");
    must(fastmq_queue_open(mq, &newest, &dashboard), "open the dashboard's queue");
    fastmq_subscription *all = listen_to(mq, "quake.>", alarms.queue);
    fastmq_subscription *board = listen_to(mq, "quake.*.*", dashboard);
    uint64_t sirens = 0;
    fastmq_subscribe_options siren = {.struct_size = sizeof siren,
                                      .delivery = FASTMQ_DELIVERY_INLINE,
                                      .on_message = on_alarm,
                                      .context = &sirens};
    fastmq_subscription *subscription = NULL;
    must(fastmq_subscribe(mq, text("alarm.pacific"), &siren, &subscription), "subscribe");

    static struct station stations[STATIONS];
    open_stations(mq, stations);
    pthread_t thread;
    if (pthread_create(&thread, NULL, alarms_run, &alarms) != 0) {
        fprintf(stderr, "sensor_gateway: no thread for the alarms\n");
        return 1;
    }

    /* The week: each event is felt by the stations near enough, and each of them says so. */
    uint64_t events = 0, readings = 0, wanted[REGIONS] = {0};
    char line[512];
    while (fgets(line, sizeof line, file) != NULL && !(is_check && events == CHECK_EVENTS)) {
        struct reading reading = {0};
        double longitude, latitude;
        if (sscanf(line, "%" SCNu64 ",%f,%*[^,],%*[^,],%lf,%lf", &reading.time_ms,
                   &reading.magnitude, &longitude, &latitude) != 4) {
            continue; /* the head of the table */
        }
        events++;
        double up[3];
        direction(longitude, latitude, up);
        for (int at = 0; at < STATIONS; at++) {
            const double *other = stations[at].up;
            double cosine = up[0] * other[0] + up[1] * other[1] + up[2] * other[2];
            double km = 6371 * acos(cosine > 1 ? 1 : cosine);
            reading.felt = (float)felt_at(reading.magnitude, km);
            if (reading.felt < (float)FELT_MIN) {
                continue;
            }
            fastmq_bytes payload = {(const uint8_t *)&reading, sizeof reading};
            must(fastmq_publisher_publish_wait(stations[at].publisher, payload, FASTMQ_FOREVER),
                 "report a reading");
            readings++;
            wanted[stations[at].region] += reading.felt >= (float)ALARM;
        }
    }
    fclose(file);

    fastmq_client_statistics statistics = {.struct_size = sizeof statistics};
    must(fastmq_client_statistics_read(mq, &statistics), "read the statistics");
    
    /* The dashboard looks once: what is left is the newest, and it knows how much it missed. */
    fastmq_batch *batch = NULL;
    uint64_t shown = 0, missed = 0;
    while (fastmq_receive(dashboard, 0, 0, &batch) == FASTMQ_OK) {
        size_t count = 0;
        const fastmq_message *messages = fastmq_batch_messages(batch, &count);
        for (size_t at = 0; at < count; at++) {
            missed += messages[at].lost_before;
        }
        shown += count;
        fastmq_batch_free(batch);
    }

    must(fastmq_drain(mq, FASTMQ_FOREVER), "drain");
    pthread_join(thread, NULL);

    int is_right = alarms.readings == readings && shown + missed == readings
                   && statistics.memory_high <= MEMORY_MAX;
    printf("%" PRIu64 " events, %" PRIu64 " readings of %d stations\n\n", events, readings,
           STATIONS);
    printf("  region      alarms\n");
    for (int region = 0; region < REGIONS; region++) {
        printf("  %-10s %7" PRIu64 "\n", regions[region], alarms.by_region[region]);
        is_right = is_right && alarms.by_region[region] == wanted[region];
    }
    printf("\n  siren of the pacific sounded %" PRIu64 " times\n", sirens);
    printf("  dashboard: %" PRIu64 " newest shown, %" PRIu64 " older ones dropped and counted\n",
           shown, missed);
    printf("  memory of lanes and blocks: %" PRIu64 " KiB at most, of %d; slept %" PRIu64
           " times, %" PRIu64 " wake-ups\n",
           statistics.memory_high / 1024, MEMORY_MAX / 1024, statistics.parks, statistics.wakes);
    printf("  %s\n", is_right ? "as a direct computation says" : "DIFFERS from a direct computation");
    for (int at = 0; at < STATIONS; at++) {
        fastmq_publisher_close(stations[at].publisher);
    }
    fastmq_unsubscribe(all);
    fastmq_unsubscribe(board);
    fastmq_unsubscribe(subscription);
    fastmq_queue_close(alarms.queue);
    fastmq_queue_close(dashboard);
    fastmq_close(mq);
    return is_right ? 0 : 1;
}

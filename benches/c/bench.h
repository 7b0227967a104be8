/* What the FAST MQ programs of the benches share: checked calls, subjects, the cases. */
#ifndef BENCH_H
#define BENCH_H

#include <fastmq.h>

#include "bench_measure.h"

#define BENCH_TIMEOUT_NS UINT64_C(10000000000) /* of a request; none is ever reached */
#define BENCH_POLL_NS UINT64_C(20000000)       /* how often a waiting thread looks at `stop` */

/* Ends the program with the library's sentence when `status` is not OK. */
void bench_check(fastmq_status status, const char *call);

fastmq_bytes bench_bytes(const void *data, size_t size);

/* Subject `index` of the 1,024, in memory that lives as long as the program. */
fastmq_bytes bench_name(uint32_t index);

fastmq_client *bench_open(fastmq_wait wait);
fastmq_queue *bench_queue(fastmq_client *client, fastmq_wait wait);

/* A subscription on `queue` whose messages carry `tag`. */
fastmq_subscription *bench_subscribe(fastmq_client *client, fastmq_bytes pattern,
                                     fastmq_queue *queue, uint64_t tag);

/* Bytes of this process that are in memory. */
uint64_t bench_resident_bytes(void);

/* The cases: each measures and prints one line, or ends the program. */
void bench_request_reply(const struct bench_plan *plan, const char *param);
void bench_round_trip(const struct bench_plan *plan, const char *param);
void bench_one_way(const struct bench_plan *plan, const char *param);
void bench_claim(const struct bench_plan *plan, const char *param);
void bench_group(const struct bench_plan *plan, const char *param);
void bench_publishers(const struct bench_plan *plan, const char *param);
void bench_fan_out(const struct bench_plan *plan, const char *param);
void bench_routing(const struct bench_plan *plan, const char *param);
void bench_inline(const struct bench_plan *plan, const char *param);
void bench_latest(const struct bench_plan *plan, const char *param);
void bench_memory(const struct bench_plan *plan, const char *param);
void bench_idle(const struct bench_plan *plan, const char *param);
void bench_start(const struct bench_plan *plan, const char *param);

#endif

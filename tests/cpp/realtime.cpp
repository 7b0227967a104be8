// What real-time programs ask for: threads with a name, cores and scheduling; one wait over many
// queues.
/* valgrind */
#include "check.hpp"

#include <condition_variable>
#include <string>
#include <thread>

#include <sched.h>
#include <sys/prctl.h>

using fastmq::delivery;
using fastmq::message;

static std::string name_here()
{
    char name[16] = {};
    prctl(PR_GET_NAME, name, 0, 0, 0);
    return name;
}

static void threads()
{
    std::string name;
    fastmq::status too_long{}, denied{};
    std::thread([&] {
        fastmq::thread_options own;
        own.name = "own";
        own.scheduling = fastmq::scheduling::other;
        fastmq::thread_setup(own);
        name = name_here();
        own.name = "1234567890123456";
        too_long = fastmq::try_thread_setup(own);
        own = {};
        own.priority = 1;
        denied = fastmq::try_thread_setup(own);
    }).join();
    CHECK(name == "own", "a thread of one's own gets its name");
    CHECK_SAYS(too_long, invalid, "a name has at most 15 bytes");
    CHECK_SAYS(denied, invalid, "a priority needs fifo or rr");
    CHECK_THROWS(fastmq::thread_setup({{}, 0, fastmq::scheduling::fifo, 100}), invalid,
                 "a priority ends at 99");

    fastmq::options options;
    options.threads.name = "desk";
    auto mq = fastmq::open(options);
    std::mutex mutex;
    std::condition_variable changed;
    auto named = mq.subscribe("a", delivery::thread, [&](message) {
        const std::lock_guard<std::mutex> guard(mutex);
        name = name_here();
        changed.notify_one();
    });
    mq.publish("a", "x");
    std::unique_lock<std::mutex> lock(mutex);
    CHECK(changed.wait_for(lock, patience, [&] { return name == "desk-0"; }),
          "a library thread has the client's name and a number");
    options.threads.name = "twelve bytes";
    CHECK_THROWS(fastmq::open(options), invalid, "which has 11 bytes at most");
}

static void wait_over_many()
{
    auto mq = fastmq::open();
    auto orders = mq.subscribe("order.>");
    auto prices = mq.subscribe("price.>");
    const fastmq::queue_ref queues[] = {orders.queue(), prices.queue()};
    CHECK_SAYS(fastmq::try_wait_any(queues, 0s).status(), again, "nothing is there");
    CHECK_THROWS(fastmq::wait_any(queues, 1ms), timeout, "nothing comes");
    mq.publish("price.ACME", "12.5");
    CHECK_NUMBER(fastmq::wait_any(queues), 1, "the queue with the message is named");
    CHECK(queues[1].receive().front().text() == "12.5", "and has it");
    CHECK_SAYS(fastmq::try_wait_any({}, 0s).status(), invalid, "no queue is invalid");
}

int main()
{
    check_begin();
    threads();
    wait_over_many();
    return check_end();
}

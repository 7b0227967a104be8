// Loops of your own: descriptors, dispatch within a budget, deadlines, drain, and the log.
/* valgrind */
#include "check.hpp"

#include <string>

#include <poll.h>

using fastmq::delivery;
using fastmq::message;

static bool is_readable(int fd, int timeout_ms = 0)
{
    pollfd one{fd, POLLIN, 0};
    return poll(&one, 1, timeout_ms) == 1;
}

static void descriptors()
{
    auto mq = fastmq::open();
    auto sink = mq.subscribe("a");
    auto queue = sink.queue();
    const int of_queue = queue.fd(), of_client = mq.fd();
    CHECK(of_queue >= 0 && of_client >= 0 && queue.fd() == of_queue, "queue and client have an fd");
    CHECK(!is_readable(of_queue) && !is_readable(of_client), "quiet while there is nothing to do");
    mq.publish("a", "x");
    CHECK(is_readable(of_queue) && is_readable(of_client), "readable when a message waits");
    CHECK(mq.dispatch().messages(), "dispatch says what it is");
    queue.receive(0s).free();
    CHECK_SAYS(queue.try_receive(0s).status(), again, "a receive that finds nothing");
    CHECK(!is_readable(of_queue), "makes it quiet again");

    auto requester = mq.open_requester();
    const int of_requester = requester.fd();
    CHECK(of_requester >= 0 && !is_readable(of_requester), "a requester has one, too");
    requester.submit_to("nobody", "x", 1, 1s);
    CHECK(is_readable(of_requester, 10000), "readable when an answer waits");
    requester.close();
    CHECK_NUMBER(requester.fd(), -1, "a closed one has none");
}

static void budgets()
{
    auto mq = fastmq::open();
    unsigned calls = 0;
    auto handled = mq.subscribe("a", delivery::dispatch, [&](message) { calls++; });
    for (int i = 0; i < 10; i++) {
        mq.publish("a", "x");
    }
    CHECK(mq.dispatch(4).more() && calls == 4, "dispatch stops after so many messages");
    const auto rest = mq.dispatch(0, 1h);
    CHECK(calls == 10 && rest.messages() && !rest.more() && rest.bits() != 0, "or does them all");
    const auto nothing = mq.dispatch();
    CHECK(!nothing && !nothing.answers() && !nothing.room() && !nothing.deadline(),
          "and says when there is nothing");
}

static void deadlines()
{
    auto mq = fastmq::open();
    CHECK(mq.next_deadline() == fastmq::forever, "without a request nothing times out");
    auto silent = mq.subscribe("silent");
    auto requester = mq.open_requester();
    (void)requester.fd(); // From now on its deadlines are known at once.
    requester.submit_to("silent", "x", 1, 1h);
    CHECK(mq.next_deadline() < 2h && fastmq::duration(1s) < mq.next_deadline(),
          "the next deadline is that of the request");
}

static void draining()
{
    auto mq = fastmq::open();
    auto sink = mq.subscribe("a");
    mq.publish("a", "last");
    CHECK_THROWS(mq.drain(1ms), timeout, "a drain waits for what waits");
    std::string got;
    for (const auto m : sink.queue().receive(0s)) {
        got += m.text();
    }
    CHECK_SAYS(mq.try_drain(patience), ok, "when all is read it is done");
    CHECK(got == "last", "nothing is lost");
    CHECK_THROWS(sink.queue().receive(), end, "readers are told the end");
    CHECK(mq.try_publish("a", "more") != fastmq::status::ok, "nothing more is taken");
}

static void logging()
{
    count_log_lines();
    fastmq_publisher_close(reinterpret_cast<fastmq_publisher *>(std::uintptr_t{0x700000001}));
    CHECK_NUMBER(log_lines, 1, "a warning reaches the log's handler");
    fastmq::set_log(fastmq::log_level::error, [](auto...) { ++log_lines; });
    fastmq_publisher_close(reinterpret_cast<fastmq_publisher *>(std::uintptr_t{0x700000001}));
    CHECK_NUMBER(log_lines, 1, "not above its level");
    count_log_lines();
    fastmq::set_log(fastmq::log_level::debug, nullptr);
    fastmq_publisher_close(reinterpret_cast<fastmq_publisher *>(std::uintptr_t{0x700000001}));
    CHECK_NUMBER(log_lines, 1, "nor without a handler");
}

int main()
{
    check_begin();
    descriptors();
    budgets();
    deadlines();
    draining();
    logging();
    return check_end();
}

// Without exceptions: the calls that return a status are all there is, and they are enough.
/* flags: -fno-exceptions -fno-rtti */
/* valgrind */
#include "check.hpp"

#include <type_traits>

#if FASTMQ_HAS_EXCEPTIONS
#error "this test is compiled without exceptions"
#endif

// Whether the calls that throw exist.
template <class T, class = void> inline constexpr bool can_publish_v = false;
template <class T>
inline constexpr bool can_publish_v<T, std::void_t<decltype(std::declval<T &>().publish("a", "b"))>>
    = true;
static_assert(!can_publish_v<fastmq::client>);

int main()
{
    check_begin();
    auto mq = fastmq::try_open();
    NEED(mq);
    auto sink = mq->try_subscribe("a");
    auto publisher = mq->try_open_publisher("a");
    auto queue = mq->try_open_queue();
    auto requester = mq->try_open_requester();
    NEED(sink && publisher && queue && requester);
    unsigned calls = 0;
    auto handled = mq->try_subscribe("a", fastmq::delivery::inline_, [&](fastmq::message m) {
        calls++;
        if (m.is_request()) {
            (void)mq->try_reply(m.token(), "answer");
        }
    });
    NEED(handled);
    CHECK_SAYS(mq->try_publish("a", "one"), ok, "publish");
    {
        auto claim = publisher->try_claim(3);
        NEED(claim && claim->size() == 3);
        (*claim)[0] = (*claim)[1] = (*claim)[2] = 2;
        CHECK_SAYS(claim->try_commit(), ok, "a claim by handle");
    }
    unsigned received = 0;
    while (auto batch = sink->queue().try_receive(0s)) {
        received += static_cast<unsigned>(batch->size());
    }
    CHECK(received == 2 && calls == 2, "receive and callbacks");
    sink->close();
    auto answer = mq->try_request("a", "question", 1s);
    CHECK(answer && answer->front().text() == "answer", "request and reply");
    CHECK(mq->try_request_many(fastmq::outgoing("a", "all"), fastmq::answers_all, 1s),
          "many answers");
    CHECK_SAYS(requester->try_submit_many(fastmq::outgoing("a", "all"), 1s), ok, "submit many");
    CHECK(requester->try_receive(1s), "its answer");
    CHECK_SAYS(requester->try_grant(7, 1), not_found, "grant");
    CHECK_SAYS(mq->try_open_reply_stream(7).status(), not_found, "reply stream");
    fastmq::reply_stream none;
    CHECK_SAYS(none.try_send("x"), invalid, "an empty handle");
    CHECK_SAYS(none.try_send_wait("x", 1s), invalid, "waiting");
    CHECK_SAYS(none.try_end(), invalid, "end");
    CHECK_SAYS(none.try_credit().status(), invalid, "credit");
    fastmq::headers headers;
    CHECK_SAYS(headers.try_add("a", "b"), ok, "headers");
    CHECK(mq->try_statistics() && handled->try_statistics() && queue->try_statistics(),
          "statistics");
    CHECK_SAYS(mq->try_dispatch().status(), ok, "dispatch");
    CHECK_SAYS(mq->try_open_publisher("a.>").status(), invalid, "a failure is a status");
    CHECK_SAYS(mq->try_drain(patience), ok, "drain");
    return check_end();
}

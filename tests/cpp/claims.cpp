// Claims: a payload written in place, committed or abandoned by its object.
/* valgrind */
#include "check.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

static_assert(std::is_nothrow_move_constructible_v<fastmq::claim>
              && std::is_nothrow_move_assignable_v<fastmq::claim>
              && !std::is_copy_constructible_v<fastmq::claim>);

static std::string taken(fastmq::queue_ref queue)
{
    auto batch = queue.try_receive(0s);
    return batch ? std::string(batch->front().text()) : std::string("nothing");
}

static void written_in_place()
{
    auto mq = fastmq::open();
    auto sink = mq.subscribe("c");
    auto publisher = mq.open_publisher("c");
    for (const std::size_t size : {5U, 9000U}) {
        fastmq::claim claim = publisher.claim(size);
        CHECK(claim && claim.size() == size && claim.end() == claim.data() + size,
              "a claim has room");
        std::fill(claim.begin(), claim.end(), std::uint8_t{'x'});
        claim[0] = 'y';
        claim.commit();
        CHECK(!claim && claim.size() == 0 && claim.data() == nullptr, "and none once committed");
        CHECK(taken(sink.queue()) == "y" + std::string(size - 1, 'x'), "what was written arrives");
        CHECK_SAYS(claim.try_commit(), invalid, "a committed claim commits nothing");
    }
    auto claim = publisher.claim(100);
    std::memcpy(claim.data(), "short", 5);
    claim.commit(5);
    CHECK(taken(sink.queue()) == "short", "less may be committed");
    publisher.claim(0).commit();
    CHECK(taken(sink.queue()).empty(), "or nothing");
}

static void abandoned()
{
    auto mq = fastmq::open();
    auto sink = mq.subscribe("c");
    auto publisher = mq.open_publisher("c");
    {
        auto claim = publisher.claim(10);
        CHECK_THROWS(publisher.publish("x"), misuse, "who has an open claim publishes not");
        CHECK_THROWS(publisher.claim(1), misuse, "nor claims");
        CHECK_THROWS(claim.commit(11), invalid, "more is not committed than was claimed");
        CHECK(claim && claim.size() == 0, "one that was refused is open, and not to be written");
    }
    publisher.publish("free");
    CHECK(taken(sink.queue()) == "free", "the end of a claim abandons it");
    auto claim = publisher.claim(10);
    auto moved = std::move(claim);
    CHECK(!claim && moved && moved.size() == 10, "a claim moves"); // NOLINT
    moved = fastmq::claim();
    publisher.publish("again");
    CHECK(taken(sink.queue()) == "again", "and one that is replaced is abandoned");
    claim = publisher.claim(3);
    fastmq::publisher owner = std::move(publisher);
    std::memcpy(claim.data(), "own", 3);
    CHECK_SAYS(claim.try_commit(), ok, "a publisher may be moved meanwhile");
    CHECK(taken(sink.queue()) == "own", "and its claim is committed");
    claim = owner.claim(3);
    claim.abandon();
    claim.abandon();
    claim = owner.claim(4);
    owner.close();
    CHECK_SAYS(claim.try_commit(4), misuse, "one whose publisher is closed is refused");
    claim.abandon();
    CHECK(taken(sink.queue()) == "nothing", "and leaves nothing behind");
}

static void refused()
{
    auto mq = fastmq::open();
    fastmq::queue_options small;
    small.capacity = small_capacity;
    auto queue = mq.open_queue(small);
    fastmq::subscribe_options options;
    options.queue = queue;
    auto sink = mq.subscribe("c", options);
    auto publisher = mq.open_publisher("c");
    unsigned sent = 0;
    auto claim = publisher.try_claim(200);
    for (; claim; claim = publisher.try_claim(200)) {
        std::fill(claim->begin(), claim->end(), std::uint8_t{'f'});
        if (claim->try_commit() != fastmq::status::ok) {
            break;
        }
        ++sent;
    }
    CHECK(sent > 5, "a queue takes what it has room for");
    CHECK_SAYS(claim.status(), again, "then a claim is refused");
    CHECK(!*claim, "and is empty");
    unsigned seen = 0;
    while (auto batch = queue.try_receive(0s)) {
        seen += static_cast<unsigned>(batch->size());
    }
    CHECK_NUMBER(seen, sent, "what was committed is there");
    CHECK_SAYS(publisher.try_claim(2U << 20U).status(), too_large, "a payload has its limit");
}

int main()
{
    check_begin();
    count_log_lines();
    written_in_place();
    abandoned();
    refused();
    CHECK_NUMBER(log_lines, 0, "the library had nothing to complain about");
    return check_end();
}

// Publishing and receiving: every form of publish, every field of a message, batches, queues,
// headers, groups, and what each refusal says.
/* valgrind */
#include "check.hpp"

#include <array>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using fastmq::outgoing;

static void all_fields()
{
    auto mq = fastmq::open();
    fastmq::subscribe_options options;
    options.tag = 77;
    auto sink = mq.subscribe("a.*", options);
    fastmq::headers headers;
    headers.add("unit", "celsius").add("Unit", "kelvin").add("empty", "");
    mq.publish(outgoing("a.b", "payload").reply_to("back.here").key("k").headers(headers).ttl(1h));
    fastmq::batch batch = sink.queue().receive(0s);
    CHECK_NUMBER(batch.size(), 1, "a batch has the messages that were there");
    const fastmq::message m = batch.front();
    CHECK(m.subject() == "a.b", "a message has its subject");
    CHECK(m.payload() == "payload" && m.text() == "payload", "its payload, as bytes and as text");
    CHECK(m.reply_to() == "back.here", "its reply address");
    CHECK(m.key() == "k", "its key");
    CHECK_NUMBER(m.tag(), 77, "the tag of its subscription");
    CHECK_NUMBER(m.subscription_id(), sink.id(), "the id of its subscription");
    CHECK(sink.id() != 0, "which is a number");
    CHECK_NUMBER(m.delivery_count(), 1, "how often it was delivered");
    CHECK(m.lost_before() == 0 && m.token() == 0 && m.status() == fastmq::status::ok,
          "and nothing of what it is not");
    CHECK(!m.is_request() && !m.is_redelivered() && !m.has_more() && !m.is_end(), "no flag is set");
    const auto stamp = static_cast<std::int64_t>(m.raw().timestamp_ns);
    CHECK(m.timestamp().time_since_epoch().count() == stamp && m.sequence() == m.raw().sequence
              && m.publisher() == m.raw().publisher,
          "time, sequence and publisher are C's");
    CHECK(m.headers().get("UNIT") == fastmq::bytes_view("celsius"),
          "a header is found without case, the first of its name");
    CHECK(!m.headers().get("other") && m.headers().get("empty")->empty(),
          "one that is not there is none, an empty one is empty");
    std::string all;
    for (const fastmq::header &header : m.headers()) {
        all += std::string(header.name) + "=" + std::string(header.value.text()) + ";";
    }
    CHECK(all == "unit=celsius;Unit=kelvin;empty=;", "all headers come in their order");
    headers.clear();
    CHECK(m.headers().get("unit").has_value(), "a message keeps its headers");
    mq.publish(outgoing("a.c", "x").headers(headers));
    batch.free();
    CHECK(sink.queue().receive(0s).front().headers().empty(), "a cleared set is none");
}

static void forms()
{
    auto mq = fastmq::open();
    auto sink = mq.subscribe("p");
    auto publisher = mq.open_publisher("p");
    const std::vector<fastmq::bytes_view> payloads{"4", "5"};
    const std::array<outgoing, 2> messages{outgoing("p", "8"), outgoing("p", "9")};
    mq.publish("p", "0");
    mq.publish(outgoing("p", "1"));
    mq.publish_wait(outgoing("p", "2"), 1s);
    publisher.publish("3");
    CHECK_NUMBER(publisher.publish_batch(payloads), 2, "a batch of payloads is accepted");
    publisher.publish(outgoing("6"));
    publisher.publish_wait("7", 1s);
    CHECK_NUMBER(mq.publish_batch(messages), 2, "a batch of messages is accepted");
    CHECK_NUMBER(publisher.publish_batch({"A", "B"}), 2, "a list in braces, too");
    std::size_t accepted = 9;
    CHECK_SAYS(publisher.try_publish_batch(payloads, accepted), ok, "with a status, too");
    CHECK_NUMBER(accepted, 2, "which says how many");
    CHECK_SAYS(mq.try_publish_batch(messages, accepted), ok, "for messages, too");
    std::string got;
    unsigned by_index = 0;
    while (auto batch = sink.queue().try_receive(0s)) {
        for (const fastmq::message m : *batch) {
            got += m.text();
        }
        for (std::size_t i = 0; i < batch->size(); i++) {
            by_index += (*batch)[i].payload().size() == 1;
        }
    }
    // Order holds for one publisher: by handle, and by subject for each thread.
    std::string by_thread, by_handle;
    for (const char one : got) {
        (std::string("01289").find(one) != std::string::npos ? by_thread : by_handle) += one;
    }
    CHECK(by_thread == "0128989" && by_handle == "34567AB45", "every form has published, in order");
    CHECK_NUMBER(by_index, got.size(), "messages are found by index, too");
    CHECK_NUMBER(mq.statistics().published, got.size(), "the client counts them");
    CHECK_NUMBER(sink.statistics().delivered, got.size(), "so does the subscription");
    CHECK_NUMBER(sink.queue().statistics().delivered, got.size(), "so does the queue");
}

static void refusals()
{
    auto mq = fastmq::open();
    fastmq::queue_options small;
    small.capacity = small_capacity;
    auto queue = mq.open_queue(small);
    fastmq::subscribe_options into;
    into.queue = queue;
    auto sink = mq.subscribe("full", into);
    CHECK(sink.queue().get() == queue.get(), "a subscription feeds the queue it was given");
    const std::string wide(200, 'x');
    std::size_t filled = 0;
    while (filled < 1000 && mq.try_publish("full", wide) == fastmq::status::ok) {
        filled++;
    }
    CHECK(filled > 0 && filled < 1000, "a queue with a capacity fills up");
    CHECK_SAYS(mq.try_publish("full", wide), again, "a full queue says AGAIN");
    CHECK_THROWS(mq.publish("full", wide), again, "or throws it");
    CHECK_THROWS(mq.publish_wait(outgoing("full", wide), 1ms), timeout, "a wait for room ends");
    auto publisher = mq.open_publisher("full");
    const std::vector<fastmq::bytes_view> many(1000, wide);
    const std::size_t some = publisher.publish_batch(many);
    CHECK(some < many.size(), "a batch is accepted as far as there is room, without an exception");
    CHECK_SAYS(publisher.try_publish(wide), again, "a publisher says AGAIN");
    CHECK_SAYS(publisher.try_publish_wait(wide, 1ms), timeout, "and waits");
    std::size_t accepted = 1;
    CHECK_SAYS(mq.try_publish_batch({outgoing("full", wide)}, accepted), again,
               "a list says AGAIN");
    CHECK_NUMBER(accepted, 0, "with the number of those before it");
    CHECK_NUMBER(mq.publish_batch({outgoing("other", "x"), outgoing("full", wide)}), 1,
                 "or throws nothing and gives the number");
    const std::string huge((1 << 20) + 1, 'x');
    CHECK_THROWS(publisher.publish_batch({"", huge}), too_large, "but throws what is wrong");
    CHECK_SAYS(mq.try_publish("", "x"), invalid, "an empty subject is INVALID");
    CHECK_THROWS(mq.publish_batch({outgoing("a..b", "x")}), invalid, "for messages, too");
    CHECK_SAYS(mq.try_publish("a", huge), too_large,
               "a payload above the limit is TOO_LARGE");
    CHECK_THROWS(mq.subscribe("a.>.b"), invalid, "a wrong pattern is INVALID");
    CHECK_THROWS(mq.open_publisher("a.*"), invalid, "so is a publisher of a pattern");
    CHECK_THROWS(publisher.publish(outgoing("other", "x")), invalid,
                 "a publisher has its own subject");
    fastmq::headers headers;
    CHECK_THROWS(headers.add("", "x"), invalid, "a header needs a name");
    CHECK_SAYS(headers.try_add("large", std::string(70000, 'x')), too_large, "a value has a limit");

    fastmq::queue_options wrong;
    wrong.policy = static_cast<fastmq::policy>(99);
    try {
        auto refused = mq.open_queue(wrong);
        CHECK(false, "an unknown policy is refused");
    } catch (const std::runtime_error &failure) {
        const auto *error = dynamic_cast<const fastmq::error *>(&failure);
        CHECK(error != nullptr && error->status() == fastmq::status::invalid,
              "an error is a runtime_error with a status");
        CHECK(std::string(failure.what()) == fastmq::last_error()
                  && std::string(failure.what()).find("policy") != std::string::npos,
              "what it says is the library's sentence");
        CHECK(error != nullptr && std::string(error->code()) == "FASTMQ_INVALID",
              "its code is the name of the status");
    }
    CHECK_NUMBER(mq.statistics().refused > 0, 1, "refusals are counted");
}

static void policies()
{
    auto mq = fastmq::open();
    fastmq::queue_options options;
    options.capacity = small_capacity;
    options.policy = fastmq::policy::drop_oldest;
    auto queue = mq.open_queue(options);
    fastmq::subscribe_options into;
    into.queue = queue;
    auto sink = mq.subscribe("drop", into);
    const std::uint32_t sent = 1000;
    for (std::uint32_t i = 0; i < sent; i++) {
        mq.publish("drop", fastmq::bytes_of(i));
    }
    std::uint64_t received = 0, lost = 0, wrong = 0, next = 0;
    while (auto batch = queue.try_receive(0s, 7)) {
        wrong += batch->size() > 7;
        for (const auto m : *batch) {
            const auto number = m.payload().as<std::uint32_t>().value_or(sent);
            wrong += number != next + m.lost_before();
            next = number + 1;
            received++;
            lost += m.lost_before();
        }
    }
    CHECK(received > 0 && lost > 0 && received + lost == sent && wrong == 0,
          "what is dropped is told by the next message, and no batch is larger than asked");
    CHECK_NUMBER(queue.statistics().dropped, lost, "and counted");
}

static void latest()
{
    auto mq = fastmq::open();
    fastmq::subscribe_options board;
    board.policy = fastmq::policy::latest;
    auto sink = mq.subscribe("board.*", board);
    for (const char *text : {"on time", "late", "cancelled"}) {
        mq.publish("board.JFK", text);
        mq.publish("board.LAX", text);
    }
    auto changed = sink.queue().receive(0s);
    CHECK(changed.size() == 2 && changed[0].subject() == "board.JFK"
              && changed[1].text() == "cancelled" && changed[1].lost_before() == 2,
          "a latest queue has the newest of each subject");
    changed = fastmq::batch();
    CHECK_NUMBER(sink.queue().statistics().replaced, 4, "and counts what it replaced");

    std::string heard;
    auto dispatched = mq.subscribe(
        "tick", fastmq::delivery::dispatch,
        [&heard](fastmq::message message) { heard += message.text(); }, board);
    mq.publish("tick", "old");
    mq.publish("tick", "new");
    mq.dispatch();
    CHECK(heard == "new", "so has that of a callback");
    board.group = "g";
    CHECK_THROWS(mq.subscribe("a", board), invalid, "a group has none");
}

static void batches()
{
    auto mq = fastmq::open();
    fastmq::batch kept;
    {
        auto sink = mq.subscribe("b");
        mq.publish("b", "one");
        mq.publish("b", "two");
        auto queue = sink.queue();
        fastmq::batch batch = queue.receive();
        CHECK_SAYS(queue.try_receive(0s).status(), misuse, "a queue has one open batch");
        kept = batch.detach();
        CHECK(!batch && batch.empty(), "a batch that was copied out is empty");
        CHECK_SAYS(queue.try_receive(0s).status(), again, "its queue is free");
        mq.publish("b", "three");
        // The batch of a temporary lives as long as the loop.
        std::string all;
        for (const auto m : *queue.try_receive(0s)) {
            all += m.text();
        }
        for (const auto m : kept) {
            all += m.text();
        }
        CHECK(all == "threeonetwo", "messages are read in a loop");
        CHECK_THROWS(queue.receive(1ms), timeout, "a receive ends with its time");
    }
    mq.close();
    CHECK(kept.size() == 2 && kept[1].text() == "two", "a copy outlives queue and client");
}

static void groups_by_key()
{
    auto mq = fastmq::open();
    fastmq::subscribe_options member;
    member.group = "workers";
    member.group_mode = fastmq::group_mode::key_shared;
    auto first = mq.subscribe("job.*", member);
    member.weight = 3;
    auto second = mq.subscribe("job.*", member);
    for (int i = 0; i < 400; i++) {
        mq.publish("job." + std::to_string(i % 100), "x");
    }
    std::set<std::string> subjects[2];
    std::size_t at = 0, count = 0;
    for (auto *one : {&first, &second}) {
        while (auto batch = one->queue().try_receive(0s)) {
            for (const auto m : *batch) {
                subjects[at].insert(std::string(m.subject()));
                count++;
            }
        }
        at++;
    }
    CHECK(count == 400 && subjects[0].size() + subjects[1].size() == 100,
          "a subject, which is the key, goes to one member");
    CHECK(subjects[0].size() < subjects[1].size(), "and more to the one with more weight");
    member.group_mode = fastmq::group_mode::balanced;
    CHECK_THROWS(mq.subscribe("job.*", member), conflict, "members choose the same mode");
}

static void groups()
{
    auto mq = fastmq::open();
    fastmq::subscribe_options member;
    member.group = "workers";
    auto first = mq.subscribe("work.>", member);
    auto second = mq.subscribe("work.>", member);
    auto observer = mq.subscribe("work.*");
    const unsigned sent = 1000;
    std::vector<unsigned> seen(sent, 0);
    for (unsigned i = 0; i < sent; i++) {
        mq.publish("work.item", fastmq::bytes_of(i));
    }
    for (auto *subscription : {&first, &second}) {
        while (auto batch = subscription->queue().try_receive(0s)) {
            for (const auto m : *batch) {
                seen.at(m.payload().as<unsigned>().value())++;
            }
        }
    }
    unsigned wrong = 0;
    for (const auto times : seen) {
        wrong += times != 1;
    }
    CHECK_NUMBER(wrong, 0, "each message goes to one member of a group");
    CHECK_NUMBER(observer.queue().statistics().pending, sent, "and to everybody outside of it");
}

static void expiring()
{
    auto mq = fastmq::open();
    auto sink = mq.subscribe("t");
    auto empty = mq.open_queue();
    mq.publish(outgoing("t", "short").ttl(1ms));
    mq.publish(outgoing("t", "long").ttl(fastmq::forever));
    mq.publish(outgoing("t", "none").ttl(0s));
    CHECK_THROWS(empty.receive(20ms), timeout, "time passes");
    std::string got;
    while (auto batch = sink.queue().try_receive(0s)) {
        for (const auto m : *batch) {
            got += m.text();
        }
    }
    CHECK(got == "longnone", "what is worth nothing any more is not delivered");
}

static fastmq::options with(std::uint64_t fastmq::options::*field, std::uint64_t value)
{
    fastmq::options options;
    options.*field = value;
    return options;
}

// Publishes until it is refused or `count` messages are in; says how the last one went.
static fastmq::status fill(const fastmq::client &mq, std::size_t size, unsigned count)
{
    const std::string payload(size, 'x');
    auto said = fastmq::status::ok;
    for (unsigned i = 0; i < count && said == fastmq::status::ok; i++) {
        said = mq.try_publish("f", payload);
    }
    return said;
}

static void limits()
{
    {
        auto mq = fastmq::open(with(&fastmq::options::payload_max, 1000));
        CHECK_SAYS(mq.try_publish("a", std::string(1001, 'x')), too_large, "payload_max counts");
    }
    {
        auto mq = fastmq::open(with(&fastmq::options::memory_max, 1 << 20));
        auto sink = mq.subscribe("f");
        CHECK_SAYS(fill(mq, 100000, 100), no_space, "memory_max counts");
    }
    {
        auto mq = fastmq::open(with(&fastmq::options::queue_capacity, small_capacity));
        auto sink = mq.subscribe("f");
        CHECK_SAYS(fill(mq, 200, 100), again, "queue_capacity counts");
    }
    {
        fastmq::options options;
        options.threads_max = 2;
        auto mq = fastmq::open(options);
        gate entered, release;
        const auto block = [&](fastmq::message) {
            entered.add();
            release.wait(1);
        };
        auto first = mq.subscribe("f", fastmq::delivery::thread, block);
        auto second = mq.subscribe("f", fastmq::delivery::thread, block);
        mq.publish("f", "x");
        CHECK(entered.wait(2), "threads_max counts: two callbacks run at once");
        release.add();
    }
    CHECK_THROWS(fastmq::open(with(&fastmq::options::payload_max, std::uint64_t{1} << 40)), invalid,
                 "options are checked");
}

static fastmq::client open_waiting(fastmq::wait how)
{
    fastmq::options options;
    options.wait = how;
    return fastmq::open(options);
}

// Lets some time pass, and where a sleep is expected as much as that needs.
template <class Count> static void let_time_pass(bool is_expected, Count count)
{
    auto mq = fastmq::open();
    auto empty = mq.open_queue();
    for (int i = 0; i < 1000 && (i == 0 || (is_expected && count() == 0)); i++) {
        NEED(empty.try_receive(20ms).status() == fastmq::status::timeout);
    }
}

// Whether the reader of a queue sleeps until its message comes.
static bool sleeps(fastmq::wait of_client, fastmq::wait of_queue, bool is_expected)
{
    auto mq = open_waiting(of_client);
    fastmq::queue_options how;
    how.wait = of_queue;
    auto queue = mq.open_queue(how);
    fastmq::subscribe_options into;
    into.queue = queue;
    auto sink = mq.subscribe("w", into);
    std::thread reader([&] { (void)queue.try_receive(fastmq::forever); });
    let_time_pass(is_expected, [&] { return queue.statistics().waits; });
    mq.publish("w", "x");
    reader.join();
    return queue.statistics().waits > 0;
}

// Whether an asker sleeps until its answer comes, where nobody else does.
static bool sleeps_for_an_answer(fastmq::wait of_requester, bool is_expected)
{
    auto mq = open_waiting(fastmq::wait::busy_poll);
    auto silent = mq.subscribe("w");
    fastmq::requester_options how;
    how.wait = of_requester;
    auto requester = mq.open_requester(how);
    std::thread asker([&] {
        (void)requester.try_submit_to("w", "x", 1, patience);
        (void)requester.try_receive(patience);
    });
    const auto question = silent.queue().receive(patience);
    let_time_pass(is_expected, [&] { return mq.statistics().parks; });
    mq.reply(question.front().token(), "y");
    asker.join();
    return mq.statistics().parks > 0;
}

static void waiting()
{
    using fastmq::wait;
    CHECK(sleeps(wait::low_power, wait::balanced, true), "a reader sleeps as its client says");
    CHECK(!sleeps(wait::low_power, wait::busy_poll, false), "or as its queue says");
    CHECK(!sleeps(wait::busy_poll, wait::balanced, false), "a client that polls never sleeps");
    CHECK(sleeps(wait::busy_poll, wait::low_power, true), "a queue of it may");
    CHECK(!sleeps_for_an_answer(wait::balanced, false), "its requester does not");
    CHECK(sleeps_for_an_answer(wait::low_power, true), "unless it is to");
}

static void who_this_is()
{
    CHECK(std::string(fastmq::version()) == fastmq_version() && fastmq::abi() == fastmq_abi(),
          "the library says which it is");
    CHECK(std::string(fastmq::status_name(fastmq::status::busy)) == "FASTMQ_BUSY"
              && std::string(fastmq::status_text(fastmq::status::busy)).size() > 4,
          "statuses have names and texts");
}

static void last_values()
{
    auto mq = fastmq::open();
    auto publisher = mq.open_publisher("state.b");
    mq.publish(outgoing("state.a", "1").keep_last());
    publisher.publish(outgoing("2").keep_last());
    publisher.publish("3");
    fastmq::subscribe_options late;
    late.replay_last = true;
    auto sink = mq.subscribe("state.*", late);
    mq.publish(outgoing("state.a", "4").keep_last());
    std::string got;
    for (const fastmq::message m : sink.queue().receive(0s)) {
        got += m.text();
    }
    CHECK(got == "124", "who asks for last values gets them first");
    CHECK_NUMBER(mq.statistics().last_values, 2, "each subject has one");
    mq.forget_last("state.a");
    CHECK_SAYS(mq.try_forget_last("state.a"), not_found, "until it is forgotten");
    CHECK_THROWS(mq.forget_last("state.*"), invalid, "a pattern has none");
    CHECK_SAYS(mq.try_publish(outgoing("state.a", "5")), ok, "a message that does not ask");
    CHECK_NUMBER(mq.statistics().last_values, 1, "is not kept");
    late.group = "g";
    CHECK_SAYS(mq.try_subscribe("state.*", late).status(), invalid, "groups get none");
}

static void presence()
{
    auto mq = fastmq::open();
    auto before = mq.subscribe("room.1");
    const auto before_id = before.id();
    fastmq::subscribe_options late;
    late.replay_last = true;
    auto listener = mq.subscribe(std::string(fastmq::subject_joined) + ".room.>", late);
    auto leaving = mq.subscribe("$SYS.LEFT.>");
    late.replay_last = false;
    late.group = "g";
    auto after = mq.subscribe("room.*", late);
    before.close();
    std::string got;
    for (const fastmq::message m : listener.queue().receive(0s)) {
        got += std::string(m.subject()) + "=" + std::string(m.text());
        got += std::string(m.key().text()) + " ";
    }
    CHECK(got == "$SYS.JOINED.room.1=room.1 $SYS.JOINED.room.(*)=room.*g ",
          "who is there is told first, then who comes");
    auto batch = leaving.queue().receive(0s);
    const fastmq::message left = batch.front();
    CHECK(left.subject() == std::string(fastmq::subject_left) + ".room.1", "and who leaves");
    const auto id = left.headers().get(fastmq::header_subscription);
    CHECK(id && id->text() == std::to_string(before_id), "by the subscription's id");
    CHECK_SAYS(mq.try_publish(outgoing("$SYS.JOINED.me", "")), denied, "by the library alone");
    CHECK_SAYS(mq.try_subscribe("$SYS.>", late).status(), invalid, "a group is told nothing");
}

int main()
{
    check_begin();
    all_fields();
    forms();
    refusals();
    policies();
    latest();
    last_values();
    presence();
    batches();
    groups();
    groups_by_key();
    expiring();
    limits();
    waiting();
    who_this_is();
    return check_end();
}

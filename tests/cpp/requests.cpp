// Requests: every way to ask and to answer, and every way in which a request ends.
/* valgrind */
#include "check.hpp"

#include <cstring>
#include <string>
#include <thread>

using fastmq::outgoing;

// A responder that runs on the asker's thread; `answer` gets each question.
template <class Answer>
static fastmq::subscription answer_inline(fastmq::client &mq, const char *subject, Answer answer)
{
    return mq.subscribe(subject, fastmq::delivery::inline_, answer);
}

static void one_at_a_time()
{
    auto mq = fastmq::open();
    auto echo = answer_inline(mq, "echo", [&](fastmq::message m) {
        mq.reply(m.token(), std::string(m.text()) + (m.is_request() ? "!" : "?"));
    });
    auto refuse = answer_inline(mq, "refuse", [&](fastmq::message m) {
        fastmq::headers why;
        why.add("why", "closed on sundays");
        mq.reply(m.token(), outgoing("no").headers(why), fastmq::status::denied);
    });
    const auto reply = mq.request("echo", "hello", 1s);
    CHECK(reply.size() == 1 && reply.front().text() == "hello!", "a request is answered");
    CHECK_SAYS(reply.front().status(), ok, "with status ok");
    CHECK(mq.request(outgoing("echo", "b"), 1s).front().text() == "b!", "a message may be asked");

    const auto refused = mq.try_request("refuse", "please", 1s);
    CHECK_SAYS(refused.status(), ok, "an answer with a status of its own has come");
    CHECK_SAYS(refused->front().status(), denied, "the status is in it");
    CHECK(refused->front().headers().get("why") == fastmq::bytes_view("closed on sundays"),
          "so are its headers");

    char into[8] = {0};
    CHECK_NUMBER(mq.request_into("echo", "hey", 1s, into, sizeof into), 4,
                 "an answer is copied into a buffer");
    CHECK(std::memcmp(into, "hey!", 4) == 0, "as it is");
    CHECK_THROWS(mq.request_into("refuse", "x", 1s, into, sizeof into), denied,
                 "then its status is that of the call");
    std::size_t size = 0;
    CHECK_SAYS(mq.try_request_into("echo", "123456789", 1s, into, sizeof into, size), too_large,
               "a buffer may be too small");
    CHECK_NUMBER(size, 10, "then the size says how large it would have to be");

    CHECK_THROWS(mq.request("nobody", "x", fastmq::forever), no_responder,
                 "without a responder a request ends at once");
    CHECK_SAYS(mq.try_request("nobody", "x", fastmq::forever).status(), no_responder,
               "or says so");
    auto silent = mq.subscribe("silent");
    CHECK_THROWS(mq.request("silent", "x", 1ms), timeout, "a responder may be silent");
    const auto question = silent.queue().receive(0s);
    mq.reply(question.front().token(), "late");
    CHECK(mq.request("echo", "now", 1s).front().text() == "now!", "a late answer reaches nobody");
}

static void many_at_once()
{
    const std::uint64_t count = 1000;
    auto mq = fastmq::open();
    auto responder = mq.subscribe("square");
    std::thread answering([&] {
        auto questions = responder.queue();
        while (auto batch = questions.try_receive(fastmq::forever)) {
            for (const auto m : *batch) {
                const auto number = m.payload().as<std::uint64_t>().value_or(0);
                (void)mq.try_reply(m.token(), fastmq::bytes_of(number * number));
            }
        }
    });
    fastmq::requester_options options;
    options.subject = "square";
    options.in_flight_max = count;
    auto requester = mq.open_requester(options);
    for (std::uint64_t number = 0; number < count; number++) {
        switch (number % 3) {
        case 0:
            requester.submit(fastmq::bytes_of(number), number, patience);
            break;
        case 1:
            requester.submit_to("square", fastmq::bytes_of(number), number, patience);
            break;
        default:
            requester.submit(outgoing("square", fastmq::bytes_of(number)).token(number), patience);
        }
    }
    std::uint64_t right = 0, answers = 0;
    while (answers < count) {
        for (const auto m : requester.receive(patience, 100)) {
            const auto square = m.payload().as<std::uint64_t>();
            right += m.status() == fastmq::status::ok && square == m.token() * m.token();
            answers++;
        }
    }
    CHECK_NUMBER(right, count, "many requests in flight are answered, each with its token");
    CHECK_NUMBER(requester.in_flight(), 0, "then none is in flight");
    std::uint64_t square = 0;
    const std::uint64_t twelve = 12;
    CHECK_NUMBER(requester.request_into(fastmq::bytes_of(twelve), patience, &square, sizeof square),
                 sizeof square, "a requester asks one question, too");
    CHECK_NUMBER(square, 144, "and has the answer");
    mq.drain(patience);
    answering.join();
    CHECK(true, "a drained client ends its readers");
}

static void fates()
{
    auto mq = fastmq::open();
    auto silent = mq.subscribe("silent");
    fastmq::requester_options options;
    options.in_flight_max = 2;
    auto requester = mq.open_requester(options);
    CHECK_THROWS(requester.receive(0s), again, "without a request there is no answer");
    requester.submit_to("silent", "x", 1, fastmq::forever);
    requester.submit_to("silent", "x", 2, fastmq::forever);
    CHECK_NUMBER(requester.in_flight(), 2, "requests are in flight");
    CHECK_SAYS(requester.try_submit_to("silent", "x", 3, 1s), again, "their number is bounded");
    CHECK_THROWS(requester.submit_to("silent", "x", 3, 1s), again, "which can be thrown");
    CHECK_THROWS(requester.receive(1ms), timeout, "no answer comes");
    requester.cancel(1);
    CHECK_THROWS(requester.cancel(7), not_found, "only what is in flight can be cancelled");
    auto cancelled = requester.receive(patience);
    CHECK(cancelled.size() == 1 && cancelled.front().token() == 1
              && cancelled.front().status() == fastmq::status::cancelled,
          "a cancelled request ends with CANCELLED");
    cancelled.free();
    CHECK_SAYS(requester.try_submit_to("nobody", "x", 4, 1s), ok, "a slot is free again");
    requester.cancel(2);
    CHECK_NUMBER(requester.receive(patience, 1).size(), 1, "as many answers as were asked for");
    CHECK_NUMBER(requester.receive(patience, 1).size(), 1, "the rest come after them");
    requester.submit_to("silent", "x", 6, fastmq::forever);
    CHECK_THROWS(requester.submit("x", 5, 1s), invalid,
                 "without a subject of its own it needs one");
    std::uint64_t token = 0; // That of the last question.
    for (const auto m : silent.queue().receive(0s)) {
        token = m.token();
    }
    requester.close();
    CHECK_SAYS(mq.try_reply(token, "x"), not_found, "an asker that is gone is NOT_FOUND");
    CHECK_THROWS(mq.reply(token, "x"), not_found, "which can be thrown");
}

static void many_answers()
{
    auto mq = fastmq::open();
    auto answer = [&](fastmq::message m) { mq.reply(m.token(), m.payload()); };
    auto first = mq.subscribe("all", fastmq::delivery::inline_, answer);
    auto second = mq.subscribe("all", fastmq::delivery::inline_, answer);
    auto all = mq.request_many(outgoing("all", "x"), fastmq::answers_all, patience);
    CHECK(all.size() == 2 && all.front().has_more() && !all.front().is_end(),
          "one call has the answers of all");
    CHECK(all.front().subscription_id() == first.id(), "and says whose they are");
    CHECK_THROWS(mq.request_many(outgoing("nobody", "x"), 2, patience), no_responder,
                 "nobody is thrown");
    auto requester = mq.open_requester();
    fastmq::many_options options;
    options.answers_max = 2;
    requester.submit_many(outgoing("all", "x").token(4), fastmq::forever, options);
    auto two = requester.receive(patience);
    CHECK(two.size() == 2 && two.front().token() == 4, "so it is with a requester");
    CHECK_THROWS(requester.submit_many(outgoing("a..b", "x"), 1s), invalid, "a wrong subject");
}

static void reply_streams()
{
    auto mq = fastmq::open();
    auto responder = mq.subscribe("stream");
    auto requester = mq.open_requester();
    auto token = [&] { return responder.queue().receive(patience).front().token(); };
    fastmq::many_options options;
    options.credit = 2;
    options.credit_mode = fastmq::credit_mode::manual;
    options.gap = 1h;
    requester.submit_many(outgoing("stream", "x").token(1), fastmq::forever, options);
    auto stream = mq.open_reply_stream(token());
    CHECK_NUMBER(stream.credit(), 2, "a stream has credit");
    fastmq::headers headers;
    headers.add("n", "v");
    stream.send("one");
    stream.send(outgoing("two").headers(headers));
    CHECK_SAYS(stream.try_send("three"), again, "and no more than that");
    CHECK_THROWS(stream.send_wait("three", 1ms), timeout, "for a while");
    requester.grant(1, 1);
    stream.send_wait("three", patience);
    stream.end();
    CHECK_THROWS(stream.end(), misuse, "it ends once");
    std::string texts;
    unsigned ends = 0;
    while (auto batch = requester.try_receive(0s)) {
        for (const auto m : *batch) {
            texts += m.text();
            ends += m.is_end() && m.status() == fastmq::status::end;
        }
    }
    CHECK(texts == "onetwothree" && ends == 1, "all comes in order, then the end");
    CHECK_THROWS(requester.grant(1, 1), not_found, "nothing is granted to what has ended");

    requester.submit_many(outgoing("stream", "x").token(2), fastmq::forever, options);
    stream = mq.open_reply_stream(token());
    requester.cancel(2);
    CHECK_THROWS(stream.send("x"), cancelled, "a cancel reaches the responder");
    CHECK_THROWS(stream.credit(), cancelled, "also when it asks");
    requester.receive(patience).free();
    requester.submit_many(outgoing("stream", "x").token(3), fastmq::forever, options);
    {
        auto forgotten = mq.open_reply_stream(token());
    }
    CHECK(requester.receive(patience).front().status() == fastmq::status::cancelled,
          "a stream that is destroyed before its end is cancelled");
    CHECK_THROWS(mq.open_reply_stream(77), not_found, "a token of nobody");
}

static void reading_statuses()
{
    fastmq::result<fastmq::batch> none(fastmq::status::timeout);
    CHECK(!none && none.status() == fastmq::status::timeout, "a result may have no value");
    CHECK_THROWS(none.value(), timeout, "asking for it throws");
    CHECK_THROWS(std::move(none).value(), timeout, "from a temporary, too");
    fastmq::result<std::size_t> five(std::size_t{5});
    CHECK(five && *five == 5 && five.value() == 5 && five.status() == fastmq::status::ok,
          "or one, and the status ok");
}

int main()
{
    check_begin();
    one_at_a_time();
    many_at_once();
    fates();
    many_answers();
    reply_streams();
    reading_statuses();
    return check_end();
}

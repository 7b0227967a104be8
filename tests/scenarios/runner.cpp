// Runs scenarios in C++: README.md says what they are.
//
// runner FILE...: each file is a scenario; runner -: steps from the standard input, each answered
// by a line.
#define LANGUAGE "cpp"
#include "step.h"

#include <fastmq.hpp>

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using fastmq::bytes_view;
using fastmq::status;
using std::chrono::milliseconds;

namespace {

// The step that runs, and what listen has to tell.
step *now;
char told[512];

// Handles by name, and the token of the last message of each queue. Clients end last.
struct scenario {
    std::map<std::string, fastmq::client> clients;
    std::map<std::string, fastmq::server> servers;
    std::map<std::string, fastmq::queue> queues;
    std::map<std::string, fastmq::subscription> subscriptions;
    std::map<std::string, fastmq::publisher> publishers;
    std::map<std::string, fastmq::requester> requesters;
    std::map<std::string, fastmq::reply_stream> streams;
    std::map<std::string, std::uint64_t> tokens;
};

scenario all;

// What the step's `fail` has noted ends the step.
struct failed {};

void check()
{
    if (failure[0] != '\0') {
        throw failed{};
    }
}

const char *name(std::size_t index)
{
    const char *found = word(now, index);
    check();
    return found;
}

bytes_view bytes(std::size_t index)
{
    const auto raw = bytes_at(now, index);
    check();
    return bytes_view(raw);
}

std::string_view text(std::size_t index) { return bytes(index).text(); }

std::string_view taken(const char *field) { return bytes_view(take_bytes(now, field)).text(); }

std::uint64_t number(const char *field, std::uint64_t otherwise = 0)
{
    return take_number(now, field, otherwise);
}

milliseconds timeout() { return milliseconds(number("timeout", PATIENCE_MS)); }

status says() { return static_cast<status>(status_of(take(now, "status", "OK"))); }

template <class Handle> Handle &find(std::map<std::string, Handle> &handles, const char *called)
{
    const auto found = handles.find(called);
    if (found == handles.end()) {
        fail("nothing is called %s", called);
        throw failed{};
    }
    return found->second;
}

fastmq::client &client_at(std::size_t index) { return find(all.clients, name(index)); }

template <class Handle> void keep(std::map<std::string, Handle> &handles, Handle made)
{
    handles.insert_or_assign(name(0), std::move(made));
}

fastmq::queue_ref queue()
{
    const auto found = all.queues.find(name(0));
    return found != all.queues.end() ? found->second : find(all.subscriptions, name(0)).queue();
}

fastmq::headers headers()
{
    fastmq::headers set;
    const char *value = nullptr;
    while (const char *called = take_prefixed(now, "header.", &value)) {
        set.add(bytes_view(decode(now, called)).text(), bytes_view(decode(now, value)));
    }
    return set;
}

// What a step sends; `set` are its headers.
fastmq::outgoing outgoing(std::string_view subject, bytes_view payload, const fastmq::headers &set)
{
    fastmq::outgoing message(subject, payload);
    message.key(bytes_view(take_bytes(now, "key"))).reply_to(taken("reply_to"));
    message.ttl(milliseconds(number("ttl")));
    if (set) {
        message.headers(set);
    }
    if (number("keep_last") != 0) {
        message.keep_last();
    }
    return message;
}

// An id is known by the name of its subscription.
std::string shown(const char *value)
{
    if (value[0] == '@') {
        return std::to_string(find(all.subscriptions, value + 1).id());
    }
    return std::string(bytes_view(decode(now, value)).text());
}

void same_headers(fastmq::headers_view got, const char *prefix)
{
    std::string expected, listed;
    const char *value = nullptr;
    while (const char *called = take_prefixed(now, prefix, &value)) {
        expected += std::string(bytes_view(decode(now, called)).text()) + '=' + shown(value) + ' ';
    }
    for (const auto &header : got) {
        listed += std::string(header.name) + '=' + std::string(header.value.text()) + ' ';
    }
    if (!expected.empty()) {
        same_bytes("headers", bytes_view(listed).raw(), bytes_view(expected).raw());
    }
}

void same_text(const char *what, bytes_view got)
{
    if (const char *value = take(now, what, nullptr)) {
        const std::string expected = shown(value);
        same_bytes(what, got.raw(), bytes_view(expected).raw());
    }
}

void same_all(std::initializer_list<figure> figures)
{
    same_figures(now, figures.begin(), figures.size());
}

// The message has what the words and fields of the step say.
void check_message(fastmq::message message)
{
    same_bytes("subject", bytes_view(message.subject()).raw(), bytes(1).raw());
    same_bytes("payload", message.payload().raw(), bytes(2).raw());
    same_headers(message.headers(), "header.");
    same_text("key", message.key());
    same_text("reply_to", message.reply_to());
    same_text("subscription_id", std::to_string(message.subscription_id()));
    same_all({{"sequence", message.sequence()},
              {"delivery_count", message.delivery_count()},
              {"lost_before", message.lost_before()},
              {"status", static_cast<std::uint64_t>(message.status())},
              {"tag", message.tag()},
              {"is_request", message.is_request() ? 1U : 0U}});
}

// Clients and servers.

status does_open()
{
    fastmq::options options;
    options.memory_max = number("memory_max");
    options.queue_capacity = number("queue_capacity");
    options.payload_max = number("payload_max");
    keep(all.clients, fastmq::open(options));
    return status::ok;
}

status does_connect()
{
    std::string url = name(1);
    const std::string schemes[] = {".unix", ".shm", ".tcp"};
    for (std::size_t i = 0; i < 3; i++) {
        const auto dot = url.find('.');
        if (url.find(':') == std::string::npos && dot != std::string::npos
            && url.substr(dot) == schemes[i]) {
            url = find(all.servers, url.substr(0, dot).c_str()).url(i);
            break;
        }
    }
    fastmq::connect_options options;
    options.name = taken("name");
    options.token = taken("token");
    keep(all.clients, fastmq::connect(url.c_str(), options));
    return status::ok;
}

status does_listen()
{
    static unsigned places;
    const char *directory = std::getenv("TMPDIR");
    const std::string at = std::string(directory == nullptr ? "/tmp" : directory)
        + "/fastmq-scenario-" + std::to_string(getpid()) + '-' + std::to_string(places++);
    const std::string urls = "unix:" + at + ".sock,shm:" + at + ".shm,tcp://127.0.0.1:0";
    fastmq::listen_options options;
    options.name = taken("name");
    options.token = taken("token");
    auto server = client_at(1).listen(urls.c_str(), options);
    std::snprintf(told, sizeof told, "%s %s %s", server.url(0), server.url(1), server.url(2));
    keep(all.servers, std::move(server));
    return status::ok;
}

status does_drain() { return client_at(0).try_drain(timeout()); }

// Closes whatever is called so; it stays, closed.
template <class Handle> bool close_in(std::map<std::string, Handle> &handles)
{
    const auto found = handles.find(name(0));
    if (found == handles.end()) {
        return false;
    }
    found->second.close();
    return true;
}

status does_close()
{
    const bool is_there = close_in(all.clients) || close_in(all.servers) || close_in(all.queues)
        || close_in(all.subscriptions) || close_in(all.publishers) || close_in(all.requesters)
        || close_in(all.streams);
    if (!is_there) {
        fail("nothing is called %s", name(0));
    }
    return status::ok;
}

status does_client_statistics()
{
    const auto figures = client_at(0).statistics();
    same_all({{"published", figures.published}, {"delivered", figures.delivered},
              {"dropped", figures.dropped}, {"expired", figures.expired},
              {"refused", figures.refused}, {"requests", figures.requests},
              {"answers", figures.answers}, {"late_answers", figures.late_answers},
              {"queues", figures.queues}, {"subscriptions", figures.subscriptions},
              {"last_values", figures.last_values}});
    return status::ok;
}

// Publishing.

status does_publish()
{
    const auto set = headers();
    client_at(0).publish(outgoing(text(1), bytes(2), set));
    return status::ok;
}

status does_publish_wait()
{
    const auto set = headers();
    const auto time = timeout();
    client_at(0).publish_wait(outgoing(text(1), bytes(2), set), time);
    return status::ok;
}

status does_forget_last() { return client_at(0).try_forget_last(text(1)); }

status does_publisher_open()
{
    keep(all.publishers, client_at(1).open_publisher(text(2)));
    return status::ok;
}

status does_publisher_publish()
{
    const auto set = headers();
    find(all.publishers, name(0)).publish(outgoing({}, bytes(1), set));
    return status::ok;
}

status does_publisher_claim()
{
    auto claim = find(all.publishers, name(0)).claim(number_of(name(1)));
    if (now->words_count > 2) {
        const auto payload = bytes(2);
        std::copy(payload.begin(), payload.end(), claim.begin());
        claim.commit(payload.size());
    }
    return status::ok;
}

// Receiving.

fastmq::policy policy()
{
    using fastmq::policy;
    const std::string_view called = take(now, "policy", "backpressure");
    for (const auto &[known, value] : {std::pair{"backpressure", policy::backpressure},
                                       {"drop_oldest", policy::drop_oldest},
                                       {"drop_newest", policy::drop_newest},
                                       {"latest", policy::latest}}) {
        if (called == known) {
            return value;
        }
    }
    fail("unknown policy %s", called.data());
    throw failed{};
}

status does_queue_open()
{
    fastmq::queue_options options;
    options.policy = policy();
    options.capacity = number("capacity");
    keep(all.queues, client_at(1).open_queue(options));
    return status::ok;
}

fastmq::subscribe_options subscribe_options()
{
    fastmq::subscribe_options options;
    options.group = taken("group");
    if (const char *feeds = take(now, "queue", nullptr)) {
        options.queue = find(all.queues, feeds);
    }
    options.tag = number("tag");
    options.policy = policy();
    options.replay_last = number("replay_last") != 0;
    if (std::string_view(take(now, "group_mode", "balanced")) == "key_shared") {
        options.group_mode = fastmq::group_mode::key_shared;
    }
    options.weight = static_cast<std::uint32_t>(number("weight"));
    return options;
}

status does_subscribe()
{
    keep(all.subscriptions, client_at(1).subscribe(text(2), subscribe_options()));
    return status::ok;
}

status does_receive()
{
    const auto time = timeout();
    const auto batch = queue().receive(time, 1);
    all.tokens[name(0)] = batch.front().token();
    check_message(batch.front());
    return status::ok;
}

status does_queue_statistics()
{
    const auto figures = queue().statistics();
    same_all({{"published", figures.published}, {"delivered", figures.delivered},
              {"dropped", figures.dropped}, {"expired", figures.expired},
              {"pending", figures.pending}, {"replaced", figures.replaced}});
    return status::ok;
}

status does_subscription_statistics()
{
    const auto figures = find(all.subscriptions, name(0)).statistics();
    same_all({{"delivered", figures.delivered}, {"dropped", figures.dropped}});
    return status::ok;
}

// Asking and answering.

status does_respond()
{
    auto &client = client_at(1);
    const auto answer = [&client, prefix = std::string(text(3)), code = says(),
                         set = std::make_shared<fastmq::headers>(headers())](auto asked) {
        const std::string payload = prefix + std::string(asked.text());
        fastmq::outgoing reply{bytes_view(payload)};
        if (*set) {
            reply.headers(*set);
        }
        // An asker that is gone is no fault.
        (void)client.try_reply(asked.token(), reply, code);
    };
    const auto options = subscribe_options();
    keep(all.subscriptions, client.subscribe(text(2), fastmq::delivery::thread, answer, options));
    return status::ok;
}

status does_reply()
{
    const auto set = headers();
    const auto code = says();
    client_at(0).reply(find(all.tokens, name(1)), outgoing({}, bytes(2), set), code);
    return status::ok;
}

status does_request()
{
    const auto set = headers();
    const auto time = timeout();
    const auto reply = client_at(0).request(outgoing(text(1), bytes(2), set), time);
    const auto answer = reply.front();
    if (now->words_count > 3) {
        same_bytes("answer", answer.payload().raw(), bytes(3).raw());
    }
    same_headers(answer.headers(), "answer.");
    return answer.status();
}

status does_request_many()
{
    const auto set = headers();
    const auto time = timeout();
    const auto most = static_cast<std::uint32_t>(number("answers_max", fastmq::answers_all));
    const auto replies = client_at(0).request_many(outgoing(text(1), bytes(2), set), most, time);
    std::vector<std::string> got, expected;
    for (const auto answer : replies) {
        if (answer.subscription_id() != 0) {
            got.emplace_back(answer.text());
        }
    }
    for (std::size_t i = 3; i < now->words_count; i++) {
        expected.emplace_back(text(i));
    }
    std::sort(got.begin(), got.end());
    std::sort(expected.begin(), expected.end());
    if (got != expected) {
        fail("answers: got %zu, expected %zu others", got.size(), expected.size());
    }
    const auto last = replies[replies.size() - 1];
    return last.subscription_id() == 0 ? last.status() : status::ok;
}

status does_requester_open()
{
    fastmq::requester_options options;
    options.subject = taken("subject");
    options.in_flight_max = static_cast<std::uint32_t>(number("in_flight_max"));
    keep(all.requesters, client_at(1).open_requester(options));
    return status::ok;
}

status does_submit()
{
    const auto set = headers();
    const auto time = timeout();
    const auto subject = taken("subject");
    auto message = outgoing(subject, bytes(2), set);
    message.token(number_of(name(1)) + now->index);
    auto &requester = find(all.requesters, name(0));
    if (std::string_view(now->verb) == "requester_submit") {
        return requester.try_submit(message, time);
    }
    fastmq::many_options options;
    options.answers_max = static_cast<std::uint32_t>(number("answers_max"));
    options.credit = static_cast<std::uint32_t>(number("credit"));
    return requester.try_submit_many(message, time, options);
}

status does_requester_receive()
{
    const auto batch = find(all.requesters, name(0)).receive(milliseconds(PATIENCE_MS), 1);
    const auto answer = batch.front();
    same_number("token", answer.token(), number_of(name(1)));
    const auto expected = now->words_count > 2 ? bytes(2) : bytes_view();
    same_bytes("payload", answer.payload().raw(), expected.raw());
    same_headers(answer.headers(), "header.");
    return answer.status();
}

status does_requester_cancel()
{
    return find(all.requesters, name(0)).try_cancel(number_of(name(1)));
}

status does_reply_stream_open()
{
    keep(all.streams, client_at(1).open_reply_stream(find(all.tokens, name(2))));
    return status::ok;
}

status does_reply_stream_send()
{
    const auto set = headers();
    return find(all.streams, name(0)).try_send(outgoing({}, bytes(1), set));
}

status does_reply_stream_end() { return find(all.streams, name(0)).try_end(says()); }

const std::map<std::string_view, status (*)()> verbs = {
    {"open", does_open},
    {"connect", does_connect},
    {"listen", does_listen},
    {"drain", does_drain},
    {"close", does_close},
    {"client_statistics", does_client_statistics},
    {"publish", does_publish},
    {"publish_wait", does_publish_wait},
    {"forget_last", does_forget_last},
    {"publisher_open", does_publisher_open},
    {"publisher_publish", does_publisher_publish},
    {"publisher_claim", does_publisher_claim},
    {"queue_open", does_queue_open},
    {"subscribe", does_subscribe},
    {"unsubscribe", does_close},
    {"receive", does_receive},
    {"queue_statistics", does_queue_statistics},
    {"subscription_statistics", does_subscription_statistics},
    {"respond", does_respond},
    {"reply", does_reply},
    {"request", does_request},
    {"request_many", does_request_many},
    {"requester_open", does_requester_open},
    {"requester_submit", does_submit},
    {"requester_submit_many", does_submit},
    {"requester_receive", does_requester_receive},
    {"requester_cancel", does_requester_cancel},
    {"reply_stream_open", does_reply_stream_open},
    {"reply_stream_send", does_reply_stream_send},
    {"reply_stream_end", does_reply_stream_end},
};

fastmq_status does(step *step, void *)
{
    const auto found = verbs.find(step->verb);
    now = step;
    if (found == verbs.end()) {
        fail("unknown step %s", step->verb);
        return FASTMQ_INTERNAL;
    }
    try {
        return static_cast<fastmq_status>(found->second());
    } catch (const failed &) {
        return FASTMQ_INTERNAL;
    } catch (const fastmq::error &error) {
        return static_cast<fastmq_status>(error.status());
    }
}

void *begin() { return &all; }

void end(void *) { all = scenario(); }

} // namespace

int main(int count, char **arguments)
{
    return run_all(count, arguments, does, begin, end, told);
}

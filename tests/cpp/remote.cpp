// Processes: listen and connect, what a client is told of its connection, and how long that is kept.
/* valgrind */
#include "check.hpp"

#include <memory>
#include <poll.h>
#include <stdexcept>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

// A directory for a socket file.
class directory {
public:
    directory() { NEED(::mkdir(path_.c_str(), 0700) == 0); }
    ~directory() { ::rmdir(path_.c_str()); }
    directory(const directory &) = delete;
    directory &operator=(const directory &) = delete;
    std::string url() const { return "unix:" + path_ + "/mq"; }

private:
    std::string path_ = "/tmp/fastmq-remote-cpp-" + std::to_string(::getpid());
};

static void messages_and_requests()
{
    const directory place;
    auto broker = fastmq::open();
    auto server = broker.listen((place.url() + ",tcp://localhost:0").c_str());
    CHECK(server.url() == place.url(), "the first URL is the one that was asked for");
    CHECK(std::string(server.url(1)).rfind("tcp://127.0.0.1:", 0) == 0, "the second has a port");
    CHECK(server.url(2) == nullptr, "there is no third one");

    auto by_file = fastmq::connect(server.url(0));
    auto by_tcp = fastmq::connect(server.url(1));
    auto heard = by_tcp.subscribe("greet.*");
    by_file.publish("greet.world", "hello");
    CHECK(heard.queue().receive(patience, 1).front().text() == "hello",
          "a message crosses two connections");
    auto doubling = by_tcp.subscribe("double", fastmq::delivery::thread, [&](fastmq::message m) {
        const std::string twice = std::string(m.text()) + std::string(m.text());
        by_tcp.reply(m.token(), twice);
    });
    CHECK(broker.request("double", "la", patience).front().text() == "lala",
          "the local client asks a remote one");
    CHECK(by_file.request("double", "na", patience).front().text() == "nana",
          "and so does another remote one");
    CHECK(by_file.request(fastmq::subject_stats, "", patience).front().text().front() == '{',
          "and a server what it does");
    CHECK_SAYS(by_file.try_listen("tcp://127.0.0.1:0").status(), unsupported,
               "which does not listen itself");

    server.close(patience);
    CHECK(!server && server.url() == nullptr, "a closed server has no URL");
    server.close();
    CHECK_SAYS(fastmq::try_connect(place.url().c_str()).status(), unavailable, "nobody is there");
}

static void options_arrive()
{
    const directory place;
    auto broker = fastmq::open();
    fastmq::listen_options listen;
    listen.token = "open sesame";
    listen.name = "cave";
    listen.connections_max = 1;
    listen.shards = 2;
    const auto server = broker.listen(place.url().c_str(), listen);
    CHECK_THROWS(fastmq::connect(server.url()), denied, "no token is denied");
    fastmq::connect_options with;
    with.name = "ali";
    with.token = listen.token;
    std::string name;
    auto first = fastmq::connect(server.url(), with, [&](fastmq::event told) {
        if (told.kind() == fastmq::event_kind::connected) {
            name = told.server();
        }
    });
    CHECK_SAYS(fastmq::try_connect(server.url(), with).status(), unavailable,
               "one connection is all that it takes");
    first.close();
    CHECK(name == "cave", "the event has the server's name");

    with.client.payload_max = 1;
    with.later = with.unconfirmed = true;
    with.store_max = 1;
    auto later = fastmq::connect("unix:/nowhere/at/all", with);
    CHECK_SAYS(later.try_publish("a", "12"), too_large, "options of the broker arrive");
    CHECK_SAYS(later.try_publish("a", "1"), again, "no publish waits where store_max is 1");
    with.backoff_min = 2s;
    with.backoff_max = 1s;
    CHECK_THROWS(fastmq::connect("unix:/a", with), invalid, "pauses that shrink are invalid");
    listen.shards = 65;
    CHECK_SAYS(broker.try_listen("tcp://127.0.0.1:0", listen).status(), invalid,
               "there are at most 64 threads");
    listen.shards = 0;
    listen.servers = "nonsense";
    CHECK_SAYS(broker.try_listen("tcp://127.0.0.1:0", listen).status(), invalid,
               "servers that it names are URLs");
    listen.servers = "unix:/nowhere/at/all,tcp://127.0.0.1:1";
    listen.insecure = false;
    CHECK_SAYS(broker.try_listen("tcp://0.0.0.0:0", listen).status(), denied,
               "an open address is denied");
    listen.insecure = true;
    CHECK(broker.try_listen("tcp://0.0.0.0:0", listen), "unless it is allowed");
    listen.subscriptions_max = 1;
    const auto small = broker.listen("tcp://127.0.0.1:0", listen);
    fastmq::connect_options known;
    known.token = listen.token;
    auto modest = fastmq::connect(small.url(), known);
    auto one = modest.subscribe("a");
    CHECK_SAYS(modest.try_subscribe("b").status(), no_space, "one subscription is all it may have");
    listen.subscriptions_max = 2;
    small.change(listen);
    CHECK(modest.try_subscribe("b"), "until the server is changed");
    listen.sockets_count = 1;
    CHECK_SAYS(broker.try_listen(nullptr, listen).status(), invalid, "sockets at nullptr");
}

static void a_server_comes_back()
{
    const directory place;
    gate connected, lost;
    auto broker = fastmq::open();
    auto server = broker.listen(place.url().c_str());
    fastmq::connect_options with;
    with.backoff_min = 1ms;
    with.backoff_max = 50ms;
    std::atomic<bool> was_again{false};
    auto remote = fastmq::connect(place.url().c_str(), with, [&](fastmq::event told) {
        if (told.kind() == fastmq::event_kind::connected) {
            was_again = told.is_again() && told.count() == 1;
            connected.add();
        } else if (told.kind() == fastmq::event_kind::disconnected) {
            lost.add();
        }
    });
    CHECK(connected.wait(1) && !was_again, "the first connection is told");
    auto heard = remote.subscribe("a");
    server.close(patience);
    CHECK(lost.wait(1), "its end is told");
    server = broker.listen(place.url().c_str());
    CHECK(connected.wait(2) && was_again, "the client has come back");
    CHECK_SAYS(remote.try_request("nobody", "", patience).status(), no_responder,
               "and the server knows it");
    broker.publish("a", "again");
    CHECK(heard.queue().receive(patience, 1).front().text() == "again",
          "with what it had subscribed");
    const auto moved = std::move(remote);
    CHECK(moved && !remote, "a client with a callback is moved");
}

// A loop of one's own, which waits for the descriptor and dispatches until it has what it wants.
template <class Done> static bool loop_until(const fastmq::client &mq, Done done)
{
    pollfd waited{mq.fd(), POLLIN, 0};
    while (!done()) {
        if (::poll(&waited, 1, 30000) != 1) {
            return false;
        }
        mq.dispatch();
    }
    return true;
}

static void a_loop_drives_the_connection()
{
    const directory place;
    auto broker = fastmq::open();
    const auto server = broker.listen(place.url().c_str());
    fastmq::connect_options with;
    with.polled = with.later = with.unconfirmed = true;
    bool is_connected = false;
    unsigned heard = 0;
    auto remote = fastmq::connect(server.url(), with, [&](fastmq::event told) {
        is_connected = told.kind() == fastmq::event_kind::connected;
    });
    auto sink = remote.subscribe("a", fastmq::delivery::dispatch,
                                 [&](fastmq::message) { heard++; });
    CHECK(!is_connected, "a polled client does nothing by itself");
    CHECK(loop_until(remote, [&] { return is_connected; }), "its loop connects it");
    remote.publish("a", "x");
    CHECK(loop_until(remote, [&] { return heard == 1; }), "sends and receives");
    CHECK_SAYS(remote.try_request("nobody", "", patience).status(), no_responder,
               "and so does a call that waits");
    remote.close();
    CHECK(!is_connected, "closing is told");
}

static std::atomic<unsigned> caught{0};

static void callbacks_are_kept_and_freed()
{
    std::atomic<int> living{0};
    gate told;
    fastmq::connect_options with;
    with.later = true;
    with.backoff_min = 1ms;
    {
        auto remote = fastmq::connect("unix:/nowhere/at/all", with,
                                      [&told, alive = counted(living)](fastmq::event) {
                                          told.add();
                                      });
        CHECK(told.wait(2) && living == 1, "one callable is kept");
        remote.close();
        CHECK(living == 0, "and freed when close has returned");
    }
    CHECK_SAYS(fastmq::try_connect("nonsense", with,
                                   [alive = counted(living)](fastmq::event) {}).status(),
               invalid, "a call that fails");
    CHECK(living == 0, "keeps none");

    // Closed and destroyed inside a call of it.
    gate gone;
    auto held = std::make_shared<std::unique_ptr<fastmq::client>>();
    std::mutex mutex;
    auto remote = fastmq::connect(
        "unix:/nowhere/at/all", with,
        [&gone, &mutex, held, alive = std::make_shared<counted>(living)](fastmq::event what) {
            const std::lock_guard<std::mutex> lock(mutex);
            if (what.status() == fastmq::status::closed) {
                gone.add();
            } else {
                held->reset();
            }
        });
    {
        const std::lock_guard<std::mutex> lock(mutex);
        *held = std::make_unique<fastmq::client>(std::move(remote));
    }
    CHECK(gone.wait(1), "one that destroys its client is told once more");

    fastmq::set_exception_handler([](std::exception_ptr failure, fastmq::message empty) {
        try {
            std::rethrow_exception(failure);
        } catch (const std::runtime_error &) {
            caught += empty.subject().empty() ? 1U : 100U;
        }
    });
    gate thrown;
    auto throwing = fastmq::connect("unix:/nowhere/at/all", with, [&](fastmq::event) {
        thrown.add();
        throw std::runtime_error("an event");
    });
    CHECK(thrown.wait(3), "an exception ends its call and no more");
    throwing.close();
    CHECK(caught == thrown.count(), "and goes to the handler, with an empty message");
    fastmq::set_exception_handler(nullptr);
}

int main()
{
    check_begin();
    messages_and_requests();
    options_arrive();
    a_server_comes_back();
    a_loop_drives_the_connection();
    callbacks_are_kept_and_freed();
    return check_end();
}

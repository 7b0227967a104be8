// Clients of a server in another process.
#ifndef FASTMQ_CONNECT_HPP
#define FASTMQ_CONNECT_HPP

#include "bytes.hpp"
#include "callback.hpp"
#include "client.hpp"
#include "duration.hpp"
#include "library.hpp"
#include "message.hpp"
#include "status.hpp"

#include <cstddef>
#include <cstdint>
#include <new>
#include <string_view>
#include <type_traits>
#include <utility>

namespace fastmq {

/// What an event is about.
enum class event_kind : std::uint32_t {
    /// There is a connection, to server(); count() subscriptions were asked for again.
    connected = FASTMQ_EVENT_CONNECTED,
    /// The connection broke or could not be made: status(), detail(). count() accepted publishes
    /// had not left, and are lost. The client tries again by itself, until it is closed: then the
    /// last event is this one, with status::closed.
    disconnected = FASTMQ_EVENT_DISCONNECTED,
    /// The server has refused a publish to subject(): status(), detail().
    refused = FASTMQ_EVENT_REFUSED,
    /// The server refuses subscription_id(), which it had taken on an earlier connection: status(),
    /// detail().
    unsubscribed = FASTMQ_EVENT_UNSUBSCRIBED,
    /// count() messages of subscription_id() were lost at the server.
    gap = FASTMQ_EVENT_GAP,
    /// The server has to keep count() bytes for this client, which reads too slowly.
    slow = FASTMQ_EVENT_SLOW,
    /// The server will close; the client goes to another one, or comes back.
    draining = FASTMQ_EVENT_DRAINING,
    /// The server will refuse something soon: detail().
    limit = FASTMQ_EVENT_LIMIT,
};

/// A look at what has happened to a connection; it and its views live until the callback returns.
class event {
public:
    /// An event of C.
    explicit event(const fastmq_event &raw) noexcept : raw_(&raw) {}

    /// What it is about. Ignore one that you do not know.
    [[nodiscard]] event_kind kind() const noexcept { return static_cast<event_kind>(raw_->kind); }
    /// connected, and not for the first time: what was published elsewhere since the last
    /// connection broke has not come.
    [[nodiscard]] bool is_again() const noexcept
    {
        return (raw_->flags & FASTMQ_EVENT_AGAIN) != 0;
    }
    /// connected to a server that is not the one of the last connection, or was restarted.
    [[nodiscard]] bool is_other_instance() const noexcept
    {
        return (raw_->flags & FASTMQ_EVENT_OTHER_INSTANCE) != 0;
    }
    /// Why.
    fastmq::status status() const noexcept { return detail::to_status(raw_->status); }
    /// Which subscription.
    [[nodiscard]] std::uint32_t subscription_id() const noexcept { return raw_->subscription_id; }
    /// How many: see the kind.
    [[nodiscard]] std::uint64_t count() const noexcept { return raw_->count; }
    /// What the server is called.
    [[nodiscard]] std::string_view server() const noexcept
    {
        return fastmq::detail::to_text(raw_->server);
    }
    /// The subject of a message.
    [[nodiscard]] std::string_view subject() const noexcept
    {
        return fastmq::detail::to_text(raw_->subject);
    }
    /// Why, as a sentence.
    [[nodiscard]] std::string_view detail() const noexcept
    {
        return fastmq::detail::to_text(raw_->detail);
    }
    /// The event of C.
    [[nodiscard]] const fastmq_event &raw() const noexcept { return *raw_; }

private:
    const fastmq_event *raw_;
};

/// How a client connects; 0 is the default.
struct connect_options {
    /// What the client is called, at most 255 bytes; copied.
    std::string_view name = {};
    /// The secret that the server asks for, at most 4,096 bytes; copied.
    std::string_view token = {};
    /// Does not wait for a connection, and does not fail for want of one.
    bool later = false;
    /// Subscribing does not wait for the server's answer; a refusal is event_kind::unsubscribed.
    bool unconfirmed = false;
    /// The client has no thread for its connection: it sends and receives inside its calls that
    /// wait, ask, receive or dispatch, events included, and not between them. For a loop of your
    /// own, which waits for client::fd and then calls client::dispatch. A publish makes that
    /// readable and goes with the next such call, or by itself where 64 KiB wait.
    bool polled = false;
    /// How long connecting waits for a connection; zero: 5 s.
    duration connect_timeout = {};
    /// How long subscribing waits for the server's answer; zero: 5 s.
    duration operation_timeout = {};
    /// Bytes of publishes that wait while there is no connection, beyond which they get again; 0:
    /// 1 MiB; 1: none wait.
    std::uint64_t store_max = 0;
    /// The shortest pause before the servers are tried again; zero: 20 ms.
    duration backoff_min = {};
    /// The longest; zero: 5 s, or the shortest if that is longer.
    duration backoff_max = {};
    /// As of a client of a broker in this process; its threads are also what the client's own
    /// thread is.
    options client = {};
};

namespace detail {

/// A function that is told of events. Its client may be closed inside a call of it: then it is freed
/// after the last event, which comes later.
template <class Function> class events_of final : public callback {
public:
    template <class From>
    explicit events_of(From &&function)
        : callback(end_this), function_(std::forward<From>(function))
    {
    }

    /// The function for C; `context` is an events_of.
    static void on_event(const fastmq_event *raw, void *context) noexcept
    {
        static constexpr fastmq_message none{};
        auto *self = static_cast<events_of *>(context);
        call here{self, innermost, false};
        innermost = &here;
        run(self->function_, event(*raw), message(none));
        innermost = here.outer;
        self->is_ended_ |= here.is_last;
        if (self->is_ended_ && raw->kind == FASTMQ_EVENT_DISCONNECTED
            && raw->status == FASTMQ_CLOSED) {
            delete self;
        }
    }

private:
    static void end_this(callback *self) noexcept
    {
        if (!leave_to_outermost(self)) {
            delete static_cast<events_of *>(self);
        }
    }

    Function function_;
    // Closed inside a call; there is one call at a time.
    bool is_ended_ = false;
};

/// Connects; `on_event` is NULL, or gets `context`, which is `called`.
inline result<client> connect_by(const char *urls, const connect_options &with,
                                 fastmq_on_event on_event, void *context, callback *called)
{
    if (library_fault() != nullptr) {
        if (called != nullptr) {
            called->end();
        }
        return status::unsupported;
    }
    fastmq_connect_options wanted{};
    wanted.struct_size = sizeof wanted;
    wanted.flags = (with.later ? FASTMQ_CONNECT_LATER : 0U)
        | (with.unconfirmed ? FASTMQ_CONNECT_UNCONFIRMED : 0U)
        | (with.polled ? FASTMQ_CONNECT_POLLED : 0U);
    wanted.name = to_bytes(with.name);
    wanted.token = to_bytes(with.token);
    wanted.connect_timeout_ns = with.connect_timeout.count_ns();
    wanted.operation_timeout_ns = with.operation_timeout.count_ns();
    wanted.store_max = with.store_max;
    wanted.backoff_min_ns = with.backoff_min.count_ns();
    wanted.backoff_max_ns = with.backoff_max.count_ns();
    wanted.on_event = on_event;
    wanted.context = context;
    const auto threads = to_raw(with.client.threads);
    const auto broker = to_raw(with.client, threads);
    wanted.client = &broker;
    fastmq_client *raw = nullptr;
    const auto said = to_status(fastmq_connect(urls, &wanted, &raw));
    if (said != status::ok) {
        if (called != nullptr) {
            called->end();
        }
        return said;
    }
    return client(raw, with.client.close_timeout, called);
}

} // namespace detail

/// Connects to the first of the servers that answers: "unix:/path", "shm:NAME" (shared memory) or
/// "tcp://host:port", with commas between several. The client does what that of fastmq::open does,
/// over a thread of its own (or none: connect_options::polled), which connects again whenever the
/// connection breaks.
///
/// What differs: a publish that was accepted may be refused by the server, or lost with the
/// connection, and the callback for events is told. Subscribing waits for the server's answer, and
/// may also say what that is, unavailable or timeout. A request or its answer may be disconnected
/// (it was open when the connection broke: it may or may not have been handled) or unavailable
/// (there is none). An inline callback runs where that for events does, and must not ask or
/// subscribe there (misuse). Not there yet: latest queues, last values, listening (unsupported).
///
/// Statuses: ok, invalid (a URL or an option), unavailable, denied, or what else the last server
/// said once all were tried; timeout, unsupported (no thread can be started, or library_fault has a
/// sentence), io, no_memory, misuse.
inline result<client> try_connect(const char *urls, const connect_options &with = {})
{
    return detail::connect_by(urls, with, nullptr, nullptr, nullptr);
}

/// As above; `on_event` is called with each fastmq::event, one at a time, on the client's own thread
/// or on one of yours inside a call that waits: it must not block. It may publish, reply, and close
/// or destroy the client, which is told once more then; a request or a subscription made there is
/// misuse. It is kept until the client is closed; one that runs for longer than close waits keeps
/// its captures for ever. An exception that leaves it goes to set_exception_handler's. What copying
/// `on_event` throws is thrown.
template <class Function>
result<client> try_connect(const char *urls, const connect_options &with, Function &&on_event)
{
    using kept = detail::events_of<std::decay_t<Function>>;
    static_assert(std::is_invocable_v<std::decay_t<Function> &, event>,
                  "a callback is called with one fastmq::event");
    auto *called = new (std::nothrow) kept(std::forward<Function>(on_event));
    if (called == nullptr) {
        return status::no_memory;
    }
    return detail::connect_by(urls, with, &kept::on_event, called, called);
}

#if FASTMQ_HAS_EXCEPTIONS
/// As try_connect; throws error.
[[nodiscard]] inline client connect(const char *urls, const connect_options &with = {})
{
    detail::check_library();
    return try_connect(urls, with).value();
}

/// As try_connect with a callback; throws error.
template <class Function>
[[nodiscard]] client connect(const char *urls, const connect_options &with, Function &&on_event)
{
    detail::check_library();
    return try_connect(urls, with, std::forward<Function>(on_event)).value();
}
#endif

} // namespace fastmq

#endif

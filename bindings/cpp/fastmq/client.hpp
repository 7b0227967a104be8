// The broker in this process, or a server's in another, and all that it opens.
#ifndef FASTMQ_CLIENT_HPP
#define FASTMQ_CLIENT_HPP

#include "batch.hpp"
#include "bytes.hpp"
#include "callback.hpp"
#include "duration.hpp"
#include "handle.hpp"
#include "library.hpp"
#include "message.hpp"
#include "options.hpp"
#include "publisher.hpp"
#include "queue.hpp"
#include "reply_stream.hpp"
#include "requester.hpp"
#include "server.hpp"
#include "status.hpp"
#include "subscription.hpp"
#include "threads.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string_view>
#include <type_traits>
#include <utility>

namespace fastmq {

class client;
struct connect_options;

/// Figures of a client since it was opened.
using client_statistics = fastmq_client_statistics;

namespace detail {
inline result<client> connect_by(const char *urls, const connect_options &with,
                                 fastmq_on_event on_event, void *context, callback *called);

} // namespace detail

/// What client::dispatch found ready.
class ready {
public:
    /// The fastmq_ready bits of C.
    explicit constexpr ready(std::uint32_t bits = 0) noexcept : bits_(bits) {}

    /// True if anything was ready.
    explicit constexpr operator bool() const noexcept { return bits_ != 0; }
    /// Messages wait in a queue that is pulled, or were handled.
    [[nodiscard]] constexpr bool messages() const noexcept { return has(FASTMQ_READY_MESSAGES); }
    /// A requester has answers.
    [[nodiscard]] constexpr bool answers() const noexcept { return has(FASTMQ_READY_ANSWERS); }
    /// A queue that refused a publish has room.
    [[nodiscard]] constexpr bool room() const noexcept { return has(FASTMQ_READY_ROOM); }
    /// A deadline has passed.
    [[nodiscard]] constexpr bool deadline() const noexcept { return has(FASTMQ_READY_DEADLINE); }
    /// The budget ended before the work.
    [[nodiscard]] constexpr bool more() const noexcept { return has(FASTMQ_READY_MORE); }
    /// All bits.
    [[nodiscard]] constexpr std::uint32_t bits() const noexcept { return bits_; }

private:
    constexpr bool has(fastmq_ready bit) const noexcept { return (bits_ & bit) != 0; }

    std::uint32_t bits_;
};

/// A broker in this process, fastmq::open, or one of a server in another, fastmq::connect. Const
/// members are safe from any thread at the same time.
///
/// Closing it makes its other handles answer closed, ends library threads, and wakes receives that
/// wait; it waits for running callbacks for at most close_timeout. Publishers, queues and the rest
/// may be destroyed before or after it.
///
/// Statuses of a publish: ok, again (a queue is full, and nobody got the message), invalid, denied
/// (the subject begins with $SYS), too_large, no_space, no_memory, closed, misuse.
class client : public detail::handle<fastmq_client, fastmq_close> {
public:
    using handle::handle;

    client(client &&other) noexcept
        : handle(std::move(other)),
          close_timeout_(other.close_timeout_),
          events_(other.events_.exchange(nullptr))
    {
    }

    /// Closes what it had and takes over the other's.
    client &operator=(client &&other) noexcept
    {
        if (this != &other) {
            close();
            handle::operator=(std::move(other));
            close_timeout_ = other.close_timeout_;
            events_ = other.events_.exchange(nullptr);
        }
        return *this;
    }

    /// Closes it.
    ~client() { close(); }

    /// Closes it, once however often it is called. Safe from any thread, callbacks included.
    void close() noexcept
    {
        auto *const told = events_.exchange(nullptr);
        if (told == nullptr) {
            handle::close();
        } else {
            detail::close_with(*told, close_timeout_, [this] { handle::close(); });
        }
    }

    /// Gives the handle away: closing it is the caller's now. NULL if it was closed. A callback for
    /// events keeps its captures for ever.
    [[nodiscard]] fastmq_client *release() noexcept
    {
        if (auto *const told = events_.exchange(nullptr)) {
            told->abandon();
        }
        return handle::release();
    }

    /// Publishes a payload by subject to every subscription whose pattern matches, and to one
    /// member of each group. Each thread's messages keep their order. Does not block.
    status try_publish(std::string_view subject, bytes_view payload) const noexcept
    {
        return detail::to_status(fastmq_publish(get(), detail::to_bytes(subject), payload.raw()));
    }

    /// Publishes a message with all its fields. Does not block.
    status try_publish(const outgoing &message) const noexcept
    {
        return detail::to_status(fastmq_publish_message(get(), &message.raw()));
    }

    /// Forgets the last value of a subject. Statuses: ok, not_found, invalid, closed, misuse.
    status try_forget_last(std::string_view subject) const noexcept
    {
        return detail::to_status(fastmq_forget_last(get(), detail::to_bytes(subject)));
    }

    /// Publishes messages in order, up to the first that is refused; `accepted` says how many were
    /// published. Does not block.
    status try_publish_batch(list_view<outgoing> messages, std::size_t &accepted) const noexcept
    {
        const auto *first = reinterpret_cast<const fastmq_outgoing *>(messages.data());
        return detail::to_status(fastmq_publish_batch(get(), first, messages.size(), &accepted));
    }

    /// Publishes a message, waiting for room for at most `timeout`. A callback of the full queue
    /// must not call it: misuse. More statuses: timeout.
    status try_publish_wait(const outgoing &message, duration timeout) const noexcept
    {
        return detail::to_status(fastmq_publish_wait(get(), &message.raw(), timeout.count_ns()));
    }

    /// Opens a publisher for one subject, which is copied.
    /// Statuses: ok, invalid, denied (the subject begins with $SYS), closed, no_memory, misuse.
    result<publisher> try_open_publisher(std::string_view subject) const
    {
        fastmq_publisher *raw = nullptr;
        const auto said = detail::to_status(
            fastmq_publisher_open(get(), detail::to_bytes(subject), &raw));
        return made<publisher>(said, raw);
    }

    /// Opens a queue that several subscriptions may feed.
    /// Statuses: ok, invalid, closed, no_memory, misuse.
    result<queue> try_open_queue(const queue_options &options = {}) const
    {
        fastmq_queue_options wanted{};
        wanted.struct_size = sizeof wanted;
        wanted.policy = static_cast<std::uint32_t>(options.policy);
        wanted.capacity = options.capacity;
        wanted.wait = static_cast<std::uint32_t>(options.wait);
        fastmq_queue *raw = nullptr;
        const auto said = detail::to_status(fastmq_queue_open(get(), &wanted, &raw));
        return made<queue>(said, raw);
    }

    /// Opens a requester.
    /// Statuses: ok, invalid, denied (its subject begins with $SYS), closed, no_space, no_memory,
    /// misuse.
    result<requester> try_open_requester(const requester_options &options = {}) const
    {
        fastmq_requester_options wanted{};
        wanted.struct_size = sizeof wanted;
        wanted.in_flight_max = options.in_flight_max;
        wanted.subject = detail::to_bytes(options.subject);
        wanted.wait = static_cast<std::uint32_t>(options.wait);
        fastmq_requester *raw = nullptr;
        const auto said = detail::to_status(fastmq_requester_open(get(), &wanted, &raw));
        return made<requester>(said, raw);
    }

    /// Subscribes to every subject that matches `pattern`; its messages wait in a queue. One that
    /// begins with the token $SYS is told who subscribes and leaves: see subject_joined. Callbacks
    /// may call it. Statuses: ok, invalid, closed, no_memory, unsupported, misuse.
    result<subscription> try_subscribe(std::string_view pattern,
                                       const subscribe_options &options = {}) const
    {
        auto wanted = to_raw(options);
        fastmq_subscription *raw = nullptr;
        const auto said = detail::to_status(
            fastmq_subscribe(get(), detail::to_bytes(pattern), &wanted, &raw));
        return made<subscription>(said, raw);
    }

    /// Subscribes to every subject that matches `pattern`; `on_message` is called with each
    /// message, as a fastmq::message that is readable until it returns.
    ///
    /// It is kept until the subscription has ended. `how` says on which thread it runs:
    /// delivery::thread and delivery::dispatch call it one message at a time, delivery::inline_ on
    /// several threads at once if several publish. It may publish, subscribe, unsubscribe and
    /// close. An exception that leaves it goes to set_exception_handler's. If it is trivially
    /// copyable and its operator() is const, as with most lambdas, each call is one of a copy.
    /// Statuses as above. What copying `on_message` throws is thrown.
    template <class Function>
    result<subscription> try_subscribe(std::string_view pattern, delivery how,
                                       Function &&on_message,
                                       const subscribe_options &options = {}) const
    {
        using kept = detail::callback_of<std::decay_t<Function>>;
        static_assert(std::is_invocable_v<std::decay_t<Function> &, message>,
                      "a callback is called with one fastmq::message");
        auto *called = new (std::nothrow) kept(std::forward<Function>(on_message));
        if (called == nullptr) {
            return status::no_memory;
        }
        auto wanted = to_raw(options);
        wanted.delivery = static_cast<std::uint32_t>(how);
        wanted.on_message = &kept::on_message;
        wanted.context = called;
        fastmq_subscription *raw = nullptr;
        const auto said = detail::to_status(
            fastmq_subscribe(get(), detail::to_bytes(pattern), &wanted, &raw));
        if (said != status::ok) {
            called->end();
            return said;
        }
        constexpr bool is_plain = detail::is_plain_v<std::decay_t<Function>>;
        return subscription(raw, called, is_plain ? forever : close_timeout_);
    }

    /// Asks and waits for the answer for at most `timeout`. The batch holds one message, the
    /// answer: `front()`; how the responder sees it is in its status().
    /// Statuses: ok, no_responder, busy, timeout, cancelled, invalid, denied (the subject begins
    /// with $SYS), too_large, no_space, no_memory, closed, misuse; of a server's client also
    /// disconnected and unavailable: see try_connect.
    result<batch> try_request(const outgoing &request, duration timeout) const
    {
        fastmq_batch *reply = nullptr;
        const auto said = detail::to_status(
            fastmq_request(get(), &request.raw(), timeout.count_ns(), &reply));
        if (said != status::ok) {
            return said;
        }
        return batch(reply);
    }

    /// As above, for a subject and a payload.
    result<batch> try_request(std::string_view subject, bytes_view payload, duration timeout) const
    {
        return try_request(outgoing(subject, payload), timeout);
    }

    /// Asks, waits for the answer and copies its payload into `reply`. `size` is the payload's
    /// size, also when it is larger than `reply_capacity` (too_large). The status is the
    /// responder's, else as try_request.
    status try_request_into(std::string_view subject, bytes_view payload, duration timeout,
                            void *reply, std::size_t reply_capacity,
                            std::size_t &size) const noexcept
    {
        return detail::to_status(fastmq_request_into(get(), detail::to_bytes(subject),
                                                     payload.raw(), timeout.count_ns(), reply,
                                                     reply_capacity, &size));
    }

    /// Asks and waits until `answers_max` responders have answered (answers_all: all that have the
    /// request), or for at most `timeout`. The batch holds one answer or more; its last message is
    /// the end, and if its subscription_id is 0 it is no answer, and its status says why fewer came.
    /// Statuses: ok; where nobody has answered no_responder, busy, timeout, cancelled; invalid,
    /// denied (the subject begins with $SYS), too_large, no_space, no_memory, closed, misuse.
    result<batch> try_request_many(const outgoing &request, std::uint32_t answers_max,
                                   duration timeout) const
    {
        fastmq_batch *answers = nullptr;
        const auto said = detail::to_status(fastmq_request_many(
            get(), &request.raw(), answers_max, timeout.count_ns(), &answers));
        if (said != status::ok) {
            return said;
        }
        return batch(answers);
    }

    /// Opens the reply stream of a request, named by message::token.
    /// Statuses: ok, not_found (nobody waits for an answer), unsupported (the asker takes no
    /// stream), exists (it was opened before), cancelled (the subscription has ended), invalid,
    /// no_memory, closed, misuse.
    result<reply_stream> try_open_reply_stream(std::uint64_t token) const
    {
        fastmq_reply_stream *raw = nullptr;
        const auto said = detail::to_status(fastmq_reply_stream_open(get(), token, &raw));
        return made<reply_stream>(said, raw);
    }

    /// Answers a request, named by message::token, with a payload and status ok. Does not block.
    /// Statuses: ok, again (the asker has no room), not_found (the asker is gone), too_large,
    /// invalid, no_space, no_memory, closed, misuse.
    status try_reply(std::uint64_t token, bytes_view payload) const noexcept
    {
        return detail::to_status(fastmq_reply(get(), token, payload.raw()));
    }

    /// Answers a request with a payload, headers and a status. The answer has no subject.
    status try_reply(std::uint64_t token, const outgoing &answer,
                     status said = status::ok) const noexcept
    {
        return detail::to_status(fastmq_reply_message(get(), token, &answer.raw(),
                                                      static_cast<std::uint32_t>(said)));
    }

    /// Serves other processes at `urls`: "unix:/path", "shm:NAME" (shared memory) or
    /// "tcp://host:port", with commas between several; the host is an IP address or localhost, and port 0 takes a free one, which
    /// server::url tells. A Unix socket is for this user alone. It listens when the call returns,
    /// on threads of its own. With sockets in the options `urls` may be nullptr.
    /// Statuses: ok, invalid (a URL or an option), denied (other machines would reach it, and
    /// insecure is not set), unsupported (the client is one of another server), io (an address is
    /// in use, or the system refuses), closed, no_memory, misuse.
    result<server> try_listen(const char *urls, const listen_options &options = {}) const
    {
        const auto thread = detail::to_raw(options.thread);
        const auto wanted = detail::to_raw(options, thread);
        fastmq_server *raw = nullptr;
        const auto said = detail::to_status(fastmq_listen(get(), urls, &wanted, &raw));
        return made<server>(said, raw);
    }

    /// Stops taking messages and waits until every queue is empty and no callback runs, for at most
    /// `timeout`; then readers get end. A callback's own message does not count.
    /// Statuses: ok, timeout (the sentence says what still waits), closed, invalid, misuse.
    status try_drain(duration timeout) const noexcept
    {
        return detail::to_status(fastmq_drain(get(), timeout.count_ns()));
    }

    /// Calls the callbacks of delivery::dispatch and says what else is ready. Stops after
    /// `message_max` messages (0: no limit) and after `budget` (zero: no limit). Does not wait.
    /// Statuses: ok, closed, invalid, misuse.
    result<ready> try_dispatch(std::uint32_t message_max = 0, duration budget = {}) const
    {
        std::uint32_t bits = 0;
        const auto said = detail::to_status(
            fastmq_dispatch(get(), message_max, budget.count_ns(), &bits));
        if (said != status::ok) {
            return said;
        }
        return ready(bits);
    }

    /// The descriptor for epoll or poll: readable exactly while dispatch has something to do. It is
    /// the library's: only wait on it. -1 on failure, and last_error says why.
    [[nodiscard]] int fd() const noexcept { return fastmq_fd(get()); }

    /// In how long something times out, for loops with their own timers; forever if nothing will,
    /// and on failure.
    [[nodiscard]] duration next_deadline() const noexcept
    {
        return duration::nanoseconds(fastmq_next_deadline(get()));
    }

    /// The client's figures; consistent only when nothing is under way.
    /// Statuses: ok, invalid, misuse.
    result<client_statistics> try_statistics() const
    {
        client_statistics figures{};
        figures.struct_size = sizeof figures;
        const auto said = detail::to_status(fastmq_client_statistics_read(get(), &figures));
        if (said != status::ok) {
            return said;
        }
        return figures;
    }

#if FASTMQ_HAS_EXCEPTIONS
    // As the calls with try_; each throws error for every status but ok.

    /// As try_publish.
    void publish(std::string_view subject, bytes_view payload) const
    {
        detail::check(try_publish(subject, payload));
    }

    /// As try_publish.
    void publish(const outgoing &message) const { detail::check(try_publish(message)); }

    /// As try_forget_last.
    void forget_last(std::string_view subject) const { detail::check(try_forget_last(subject)); }

    /// As try_publish_batch; says how many were published. Fewer than there are: again. For other
    /// statuses it throws, though the messages before the refused one are published.
    std::size_t publish_batch(list_view<outgoing> messages) const
    {
        std::size_t accepted = 0;
        const auto said = try_publish_batch(messages, accepted);
        detail::check(said == status::again ? status::ok : said);
        return accepted;
    }

    /// As try_publish_wait.
    void publish_wait(const outgoing &message, duration timeout) const
    {
        detail::check(try_publish_wait(message, timeout));
    }

    /// As try_open_publisher.
    [[nodiscard]] publisher open_publisher(std::string_view subject) const
    {
        return try_open_publisher(subject).value();
    }

    /// As try_request_many.
    [[nodiscard]] batch request_many(const outgoing &request, std::uint32_t answers_max,
                                     duration timeout) const
    {
        return try_request_many(request, answers_max, timeout).value();
    }

    /// As try_open_reply_stream.
    [[nodiscard]] reply_stream open_reply_stream(std::uint64_t token) const
    {
        return try_open_reply_stream(token).value();
    }

    /// As try_open_queue.
    [[nodiscard]] queue open_queue(const queue_options &options = {}) const
    {
        return try_open_queue(options).value();
    }

    /// As try_open_requester.
    [[nodiscard]] requester open_requester(const requester_options &options = {}) const
    {
        return try_open_requester(options).value();
    }

    /// As try_subscribe.
    [[nodiscard]] subscription subscribe(std::string_view pattern,
                                         const subscribe_options &options = {}) const
    {
        return try_subscribe(pattern, options).value();
    }

    /// As try_subscribe with a callback.
    template <class Function>
    [[nodiscard]] subscription subscribe(std::string_view pattern, delivery how,
                                         Function &&on_message,
                                         const subscribe_options &options = {}) const
    {
        return try_subscribe(pattern, how, std::forward<Function>(on_message), options).value();
    }

    /// As try_request: throws no_responder, timeout and the like, but not the responder's status.
    [[nodiscard]] batch request(const outgoing &question, duration timeout) const
    {
        return try_request(question, timeout).value();
    }

    /// As try_request.
    [[nodiscard]] batch request(std::string_view subject, bytes_view payload,
                                duration timeout) const
    {
        return try_request(subject, payload, timeout).value();
    }

    /// As try_request_into; gives the payload's size.
    std::size_t request_into(std::string_view subject, bytes_view payload, duration timeout,
                             void *reply, std::size_t reply_capacity) const
    {
        std::size_t size = 0;
        detail::check(try_request_into(subject, payload, timeout, reply, reply_capacity, size));
        return size;
    }

    /// As try_reply.
    void reply(std::uint64_t token, bytes_view payload) const
    {
        detail::check(try_reply(token, payload));
    }

    /// As try_reply.
    void reply(std::uint64_t token, const outgoing &answer, status said = status::ok) const
    {
        detail::check(try_reply(token, answer, said));
    }

    /// As try_listen.
    [[nodiscard]] server listen(const char *urls, const listen_options &options = {}) const
    {
        return try_listen(urls, options).value();
    }

    /// As try_drain.
    void drain(duration timeout) const { detail::check(try_drain(timeout)); }

    /// As try_dispatch.
    ready dispatch(std::uint32_t message_max = 0, duration budget = {}) const
    {
        return try_dispatch(message_max, budget).value();
    }

    /// As try_statistics.
    [[nodiscard]] client_statistics statistics() const { return try_statistics().value(); }
#endif

private:
    friend result<client> try_open(const options &);
    friend result<client> detail::connect_by(const char *, const connect_options &,
                                             fastmq_on_event, void *, detail::callback *);

    /// What the library takes for close_timeout 0.
    static constexpr duration close_timeout_default = std::chrono::seconds(5);

    client(fastmq_client *raw, duration close_timeout,
           detail::callback *told = nullptr) noexcept
        : handle(raw), events_(told)
    {
        close_timeout_ = close_timeout == duration() ? close_timeout_default : close_timeout;
    }

    template <class Made, class Raw> static result<Made> made(status said, Raw *raw)
    {
        if (said != status::ok) {
            return said;
        }
        return Made(raw);
    }

    static fastmq_subscribe_options to_raw(const subscribe_options &options) noexcept
    {
        fastmq_subscribe_options wanted{};
        wanted.struct_size = sizeof wanted;
        wanted.group = detail::to_bytes(options.group);
        wanted.queue = options.queue.get();
        wanted.tag = options.tag;
        wanted.policy = static_cast<std::uint32_t>(options.policy);
        if (options.replay_last) {
            wanted.flags |= FASTMQ_SUBSCRIBE_REPLAY_LAST;
        }
        wanted.group_mode = static_cast<std::uint32_t>(options.group_mode);
        wanted.weight = options.weight;
        return wanted;
    }

    // Subscriptions with a callback know how long their end may take.
    duration close_timeout_ = close_timeout_default;
    // What is told of the connection.
    std::atomic<detail::callback *> events_{nullptr};
};

/// Opens a broker in this process; starts no thread and opens no descriptor. Options of library
/// threads are tried on a thread that has ended when this returns.
/// Statuses: ok, invalid, denied (the right to the options of library threads, or to lock so much
/// memory, is missing; the sentence names the cure), unsupported (no thread can be started, there
/// are no huge pages, or library_fault has a sentence), io, no_memory.
inline result<client> try_open(const options &with = {})
{
    if (library_fault() != nullptr) {
        return status::unsupported;
    }
    const auto threads = detail::to_raw(with.threads);
    const auto wanted = detail::to_raw(with, threads);
    fastmq_client *raw = nullptr;
    const auto said = detail::to_status(fastmq_open(&wanted, &raw));
    if (said != status::ok) {
        return said;
    }
    return client(raw, with.close_timeout);
}

#if FASTMQ_HAS_EXCEPTIONS
/// As try_open; throws error.
[[nodiscard]] inline client open(const options &with = {})
{
    detail::check_library();
    return try_open(with).value();
}
#endif

} // namespace fastmq

#endif

// Subscriptions: a pattern and where its messages go.
#ifndef FASTMQ_SUBSCRIPTION_HPP
#define FASTMQ_SUBSCRIPTION_HPP

#include "callback.hpp"
#include "duration.hpp"
#include "handle.hpp"
#include "queue.hpp"
#include "status.hpp"

#include <cstdint>
#include <string_view>
#include <utility>

namespace fastmq {

/// Who subscribes to `room.*` is told on "$SYS.JOINED.room.(*)", and on "$SYS.LEFT.room.(*)" when
/// the subscription ends, to all who subscribe to such subjects. The payload is the pattern, the
/// key the group, and the header has the subscription's id, in decimal. A queue without room for it
/// loses it, whatever its policy, and is told so: nobody waits.
inline constexpr std::string_view subject_joined = FASTMQ_SUBJECT_JOINED;
/// Who leaves.
inline constexpr std::string_view subject_left = FASTMQ_SUBJECT_LEFT;
/// The header that has the id.
inline constexpr std::string_view header_subscription = FASTMQ_HEADER_SUBSCRIPTION;
/// Which client has connected to a broker that listens: on this subject and its name behind it. The
/// payload is the name.
inline constexpr std::string_view subject_connected = FASTMQ_SUBJECT_CONNECTED;
/// Which one has gone.
inline constexpr std::string_view subject_disconnected = FASTMQ_SUBJECT_DISCONNECTED;
/// The header that has the client's number, in decimal.
inline constexpr std::string_view header_client = FASTMQ_HEADER_CLIENT;
/// The header that says how a connection broke, if it did.
inline constexpr std::string_view header_broken = FASTMQ_HEADER_BROKEN;

/// Figures of a subscription since it was made.
using subscription_statistics = fastmq_subscription_statistics;

/// Options of a subscription; the default is a queue of its own and no group.
struct subscribe_options {
    /// Members of a group share its messages, copied; empty: no group.
    std::string_view group = {};
    /// Where messages wait, if there is no callback; none: a queue of its own.
    queue_ref queue = {};
    /// Comes back as message::tag.
    std::uint64_t tag = 0;
    /// What happens when a queue of its own, or that of its callback, is full.
    fastmq::policy policy = fastmq::policy::backpressure;
    /// The last value of each subject that matches comes first, if one is kept
    /// (outgoing::keep_last). Not for groups and not for delivery::inline_. With subject_joined:
    /// who is there comes first.
    bool replay_last = false;
    /// How the members of the group share its messages, the same for all.
    fastmq::group_mode group_mode = fastmq::group_mode::balanced;
    /// This member's part of the group's messages beside that of the others, at most 1,000; 0: 1.
    std::uint32_t weight = 0;
};

/// A pattern and where its messages go: client::subscribe. It ends with the object, and so does
/// the queue if it is the subscription's own.
///
/// When close() or the destructor has returned, the callback does not run and will not, and its
/// captures are destroyed, unless that callback is what calls: then they are when it has returned.
/// Both wait for a callback that runs, at most the client's close_timeout. A callback that takes
/// longer keeps its captures for ever.
class subscription {
public:
    /// An empty one.
    subscription() noexcept = default;

    /// Takes over a subscription that the C functions made.
    explicit subscription(fastmq_subscription *raw) noexcept : handle_(raw) {}

    subscription(subscription &&other) noexcept
        : handle_(std::move(other.handle_)),
          callback_(other.callback_.exchange(nullptr)),
          close_timeout_(other.close_timeout_)
    {
    }

    /// Closes what it had and takes over the other's.
    subscription &operator=(subscription &&other) noexcept
    {
        if (this != &other) {
            close();
            handle_ = std::move(other.handle_);
            callback_ = other.callback_.exchange(nullptr);
            close_timeout_ = other.close_timeout_;
        }
        return *this;
    }

    subscription(const subscription &) = delete;
    subscription &operator=(const subscription &) = delete;

    /// Closes it.
    ~subscription() { close(); }

    /// Ends it, once however often it is called. Safe from any thread, the callback included.
    void close() noexcept
    {
        auto *const ended = callback_.exchange(nullptr);
        if (ended == nullptr) {
            handle_.close();
            return;
        }
        if (close_timeout_.is_forever()) {
            handle_.close();
            ended->end();
            return;
        }
        detail::close_with(*ended, close_timeout_, [this] { handle_.close(); });
    }

    /// True if it is neither empty nor closed.
    explicit operator bool() const noexcept { return static_cast<bool>(handle_); }

    /// The queue that it feeds. It is lent: the subscription must outlive its use. None if the
    /// messages go to a callback, or on failure (last_error says why). Safe from any thread.
    [[nodiscard]] queue_ref queue() const noexcept
    {
        return queue_ref(fastmq_subscription_queue(get()));
    }

    /// The number that its messages carry as message::subscription_id; 0 on failure. Safe from any
    /// thread.
    [[nodiscard]] std::uint32_t id() const noexcept { return fastmq_subscription_id(get()); }

    /// The subscription's figures. Safe from any thread. Statuses: ok, closed, invalid, misuse.
    result<subscription_statistics> try_statistics() const
    {
        subscription_statistics figures{};
        figures.struct_size = sizeof figures;
        const auto said = detail::to_status(fastmq_subscription_statistics_read(get(), &figures));
        if (said != status::ok) {
            return said;
        }
        return figures;
    }

#if FASTMQ_HAS_EXCEPTIONS
    /// As try_statistics; throws error.
    [[nodiscard]] subscription_statistics statistics() const { return try_statistics().value(); }
#endif

    /// The handle for the C functions; it stays this object's to close.
    [[nodiscard]] fastmq_subscription *get() const noexcept { return handle_.get(); }

private:
    friend class client;

    subscription(fastmq_subscription *raw, detail::callback *called,
                 duration close_timeout) noexcept
        : handle_(raw), callback_(called), close_timeout_(close_timeout)
    {
    }

    detail::handle<fastmq_subscription, fastmq_unsubscribe> handle_;
    std::atomic<detail::callback *> callback_{nullptr};
    // What close may wait for the callback; forever: its end needs no care.
    duration close_timeout_;
};

} // namespace fastmq

#endif

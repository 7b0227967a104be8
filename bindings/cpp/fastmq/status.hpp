// What a call says, and how it says it: statuses, results, errors; and the other enums of the API.
#ifndef FASTMQ_STATUS_HPP
#define FASTMQ_STATUS_HPP

#include <fastmq.h>

#include <cstdint>
#include <stdexcept>
#include <type_traits>
#include <utility>

/// Set where the compiler has exceptions. Without them (-fno-exceptions) the members that throw do
/// not exist, and each call has its `try_` form alone.
#if defined(__cpp_exceptions) || defined(__EXCEPTIONS) || defined(_CPPUNWIND)
#define FASTMQ_HAS_EXCEPTIONS 1
#else
#define FASTMQ_HAS_EXCEPTIONS 0
#endif

namespace fastmq {

/// What a call says; the tens say what to do next. The same numbers as in C.
enum class [[nodiscard]] status : std::uint32_t {
    ok = FASTMQ_OK,                       ///< Done.
    again = FASTMQ_AGAIN,                 ///< Nothing ready, or no room: wait, then call again.
    timeout = FASTMQ_TIMEOUT,             ///< The time is up.
    end = FASTMQ_END,                     ///< Closed and drained.
    cancelled = FASTMQ_CANCELLED,         ///< Cancelled before it was answered.
    invalid = FASTMQ_INVALID,             ///< An argument is wrong, and the sentence names it.
    misuse = FASTMQ_MISUSE,               ///< Wrong here: overlap, closed handle, after fork.
    too_large = FASTMQ_TOO_LARGE,         ///< Larger than a limit.
    unsupported = FASTMQ_UNSUPPORTED,     ///< Not supported.
    closed = FASTMQ_CLOSED,               ///< The parent of the handle is closed.
    not_found = FASTMQ_NOT_FOUND,         ///< There is no such thing.
    exists = FASTMQ_EXISTS,               ///< It exists already.
    no_responder = FASTMQ_NO_RESPONDER,   ///< Nobody answers this subject.
    busy = FASTMQ_BUSY,                   ///< The responder has no room.
    conflict = FASTMQ_CONFLICT,           ///< Another change came first.
    unavailable = FASTMQ_UNAVAILABLE,     ///< Not now; try again.
    disconnected = FASTMQ_DISCONNECTED,   ///< The connection is gone; the fate is unknown.
    slow_consumer = FASTMQ_SLOW_CONSUMER, ///< Disconnected for being slow.
    denied = FASTMQ_DENIED,               ///< Not permitted.
    no_space = FASTMQ_NO_SPACE,           ///< A memory cap or the disk is full.
    corrupt = FASTMQ_CORRUPT,             ///< Data are damaged.
    io = FASTMQ_IO,                       ///< The operating system refused.
    no_memory = FASTMQ_NO_MEMORY,         ///< The allocator has no memory.
    internal = FASTMQ_INTERNAL,           ///< A bug of the library.
};

/// What a queue does with messages for which there is no room, or which newer ones replace.
enum class policy : std::uint32_t {
    backpressure = FASTMQ_POLICY_BACKPRESSURE, ///< Refuses with AGAIN, and nobody gets the message.
    drop_oldest = FASTMQ_POLICY_DROP_OLDEST,   ///< Drops the oldest messages and counts them.
    drop_newest = FASTMQ_POLICY_DROP_NEWEST,   ///< Drops the new message and counts it.
    latest = FASTMQ_POLICY_LATEST,             ///< Keeps the newest message of each subject.
};

/// How the members of a group share its messages.
enum class group_mode : std::uint32_t {
    balanced = FASTMQ_GROUP_BALANCED,     ///< To a member that is less loaded than others.
    key_shared = FASTMQ_GROUP_KEY_SHARED, ///< Messages of one key to one member, in order.
};

/// How a reader waits.
enum class wait : std::uint32_t {
    balanced = FASTMQ_WAIT_BALANCED,   ///< Spins a while, then sleeps. For a queue: as the client.
    latency = FASTMQ_WAIT_LATENCY,     ///< Spins longer before it sleeps.
    low_power = FASTMQ_WAIT_LOW_POWER, ///< Sleeps at once.
    busy_poll = FASTMQ_WAIT_BUSY_POLL, ///< Never sleeps.
};

/// How the streams of a request get more credit.
enum class credit_mode : std::uint32_t {
    automatic = FASTMQ_CREDIT_AUTOMATIC, ///< Each reply that is received grants another one.
    manual = FASTMQ_CREDIT_MANUAL,       ///< Only requester::grant does.
};

/// How a subscription's messages reach the application.
enum class delivery : std::uint32_t {
    queue = FASTMQ_DELIVERY_QUEUE,       ///< Pulled with receive.
    thread = FASTMQ_DELIVERY_THREAD,     ///< The callback, on a thread of the library.
    dispatch = FASTMQ_DELIVERY_DISPATCH, ///< The callback, inside client::dispatch.
    inline_ = FASTMQ_DELIVERY_INLINE,    ///< The callback, on the publishing thread; no queue.
};

/// The name of a status, such as "FASTMQ_AGAIN". Lives as long as the library is loaded.
[[nodiscard]] inline const char *status_name(status value) noexcept
{
    return fastmq_status_name(static_cast<std::uint32_t>(value));
}

/// One line about a status for people. Lives as long as the library is loaded.
[[nodiscard]] inline const char *status_text(status value) noexcept
{
    return fastmq_status_text(static_cast<std::uint32_t>(value));
}

/// The sentence about this thread's last failed call, or "". Readable until the next call that
/// fails on this thread.
[[nodiscard]] inline const char *last_error() noexcept { return fastmq_last_error(); }

/// Which ABI the loaded library has: `major << 16 | minor`.
[[nodiscard]] inline std::uint32_t abi() noexcept { return fastmq_abi(); }

/// The version of the loaded library, such as "0.1.0".
[[nodiscard]] inline const char *version() noexcept { return fastmq_version(); }

/// What members without `try_` throw for every status but ok. `what()` is the library's sentence.
class error : public std::runtime_error {
public:
    /// An error about the call that has just failed on this thread: keeps its sentence.
    explicit error(fastmq::status value) : std::runtime_error(sentence(value)), status_(value) {}

    /// An error with a sentence of its own.
    error(fastmq::status value, const char *text) : std::runtime_error(text), status_(value) {}

    /// Which status the call had.
    fastmq::status status() const noexcept { return status_; }

    /// The status's name, the same in every language: "FASTMQ_TIMEOUT".
    [[nodiscard]] const char *code() const noexcept { return status_name(status_); }

private:
    static const char *sentence(fastmq::status value)
    {
        const char *text = last_error();
        return *text != '\0' ? text : status_text(value);
    }

    fastmq::status status_;
};

namespace detail {

inline status to_status(std::uint32_t number) noexcept { return static_cast<status>(number); }

#if FASTMQ_HAS_EXCEPTIONS
// Out of line and cold, so that the calls that throw cost what those with a status cost.
#if defined(__GNUC__)
[[gnu::cold, gnu::noinline]]
#endif
[[noreturn]] inline void
raise(status value)
{
    throw error(value);
}

inline void check(status value)
{
    if (value != status::ok) {
        raise(value);
    }
}
#endif

} // namespace detail

/// A value, or the status that says why there is none. What `try_` calls return that make
/// something.
template <class T> class [[nodiscard]] result {
public:
    /// A value; the status is ok.
    result(T value) noexcept(std::is_nothrow_move_constructible_v<T>) : value_(std::move(value)) {}

    /// No value. `value` is not ok.
    result(fastmq::status value) noexcept : value_(), status_(value) {}

    /// True if there is a value.
    explicit operator bool() const noexcept { return status_ == fastmq::status::ok; }

    /// Why there is no value; ok if there is one.
    fastmq::status status() const noexcept { return status_; }

    /// The value; an empty one (T{}) if there is none.
    T &operator*() & noexcept { return value_; }
    const T &operator*() const & noexcept { return value_; }
    // By value, so that `for (auto m : *queue.try_receive(t))` keeps its batch.
    T operator*() && noexcept { return std::move(value_); }
    T *operator->() noexcept { return &value_; }
    const T *operator->() const noexcept { return &value_; }

#if FASTMQ_HAS_EXCEPTIONS
    /// The value; throws error if there is none. Its sentence is right until another call on this
    /// thread fails.
    T &value() &
    {
        detail::check(status_);
        return value_;
    }
    T value() &&
    {
        detail::check(status_);
        return std::move(value_);
    }
#endif

private:
    T value_;
    fastmq::status status_ = fastmq::status::ok;
};

} // namespace fastmq

#endif

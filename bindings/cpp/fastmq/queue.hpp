// Queues: where messages wait until they are received.
#ifndef FASTMQ_QUEUE_HPP
#define FASTMQ_QUEUE_HPP

#include "batch.hpp"
#include "bytes.hpp"
#include "duration.hpp"
#include "handle.hpp"
#include "status.hpp"

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace fastmq {

/// Figures of a queue since it was opened.
using queue_statistics = fastmq_queue_statistics;

/// Options of a queue; 0 is the default.
struct queue_options {
    /// What happens when a lane is full.
    fastmq::policy policy = fastmq::policy::backpressure;
    /// Bytes per lane at most; 0: the client's default. Not used by policy::latest.
    std::uint64_t capacity = 0;
    /// How the reader waits; balanced: as the client.
    fastmq::wait wait = fastmq::wait::balanced;
};

namespace detail {

/// What can be done with a queue, owned or not. Receiving is for one thread at a time.
template <class Self> class queue_calls {
public:
    /// Receives up to `message_max` messages (0: as many as a batch holds), waiting for the first
    /// for at most `timeout`. The batch is never empty, and a queue has one open batch at most.
    /// Statuses: ok, again (nothing is there and the time-out is zero), timeout, end (the client
    /// was drained), closed, corrupt, invalid, misuse (a batch is open, another thread receives).
    result<batch> try_receive(duration timeout, std::uint32_t message_max = 0) const
    {
        fastmq_batch *received = nullptr;
        const auto said = to_status(
            fastmq_receive(self(), message_max, timeout.count_ns(), &received));
        if (said != status::ok) {
            return said;
        }
        return batch(received);
    }

    /// The descriptor for epoll or poll: readable exactly while there is something to receive. It
    /// is the library's: only wait on it. -1 on failure, and last_error says why. Safe from any
    /// thread.
    [[nodiscard]] int fd() const noexcept { return fastmq_queue_fd(self()); }

    /// The queue's figures. Safe from any thread. Statuses: ok, closed, invalid, misuse.
    result<queue_statistics> try_statistics() const
    {
        queue_statistics figures{};
        figures.struct_size = sizeof figures;
        const auto said = to_status(fastmq_queue_statistics_read(self(), &figures));
        if (said != status::ok) {
            return said;
        }
        return figures;
    }

#if FASTMQ_HAS_EXCEPTIONS
    /// As try_receive; throws error for every status but ok.
    [[nodiscard]] batch receive(duration timeout = forever, std::uint32_t message_max = 0) const
    {
        return try_receive(timeout, message_max).value();
    }

    /// As try_statistics; throws error.
    [[nodiscard]] queue_statistics statistics() const { return try_statistics().value(); }
#endif

private:
    fastmq_queue *self() const noexcept { return static_cast<const Self *>(this)->get(); }
};

} // namespace detail

/// A queue that somebody else owns: a subscription, or a fastmq::queue. Copied freely; calls after
/// its owner has closed it fail with misuse or closed.
class queue_ref : public detail::queue_calls<queue_ref> {
public:
    /// No queue: calls fail with invalid.
    constexpr queue_ref() noexcept = default;

    /// A queue of C.
    explicit constexpr queue_ref(fastmq_queue *raw) noexcept : raw_(raw) {}

    /// True if it names a queue.
    explicit operator bool() const noexcept { return raw_ != nullptr; }

    /// The handle for the C functions.
    [[nodiscard]] fastmq_queue *get() const noexcept { return raw_; }

private:
    fastmq_queue *raw_ = nullptr;
};

/// A queue that several subscriptions may feed: client::open_queue. Closing it ends them, and a
/// receive that waits says closed; an open batch stays readable.
class queue : public detail::handle<fastmq_queue, fastmq_queue_close>,
              public detail::queue_calls<queue> {
public:
    using handle::handle;

    /// The queue without its ownership; this object must outlive its use.
    operator queue_ref() const noexcept { return queue_ref(get()); }
};

/// Waits until one of 1 to 1,024 queues has something to receive, and gives its index. Queues take
/// turns: the look begins behind the one that this thread's last wait found.
/// Statuses: ok, again (nothing is there, and the time-out is zero), timeout, end (a queue is empty,
/// and its client was drained), closed (so is a queue or its client), no_memory, invalid,
/// misuse (a queue is closed; a batch is open, or another thread receives).
inline result<std::size_t> try_wait_any(list_view<queue_ref> queues, duration timeout)
{
    static_assert(sizeof(queue_ref) == sizeof(fastmq_queue *)
                      && std::is_standard_layout<queue_ref>::value,
                  "a queue_ref is its handle");
    const auto *first = reinterpret_cast<fastmq_queue *const *>(queues.data());
    std::size_t index = 0;
    const auto said = detail::to_status(
        fastmq_wait_any(first, queues.size(), timeout.count_ns(), &index));
    if (said != status::ok) {
        return said;
    }
    return index;
}

#if FASTMQ_HAS_EXCEPTIONS
/// As try_wait_any; throws error for every status but ok.
inline std::size_t wait_any(list_view<queue_ref> queues, duration timeout = forever)
{
    return try_wait_any(queues, timeout).value();
}
#endif

} // namespace fastmq

#endif

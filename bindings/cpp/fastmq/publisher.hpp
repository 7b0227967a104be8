// Publishing to one subject.
#ifndef FASTMQ_PUBLISHER_HPP
#define FASTMQ_PUBLISHER_HPP

#include "bytes.hpp"
#include "claim.hpp"
#include "duration.hpp"
#include "handle.hpp"
#include "message.hpp"
#include "status.hpp"

#include <cstddef>

namespace fastmq {

/// A subject to publish to, checked and routed once: the fastest way. client::open_publisher makes
/// it; what it published stays when it is closed. Used by one thread at a time.
///
/// Statuses of all its calls: ok, again (a queue is full, and nobody got the message), invalid,
/// too_large, no_space, no_memory, closed, misuse.
class publisher : public detail::handle<fastmq_publisher, fastmq_publisher_close> {
public:
    using handle::handle;

    /// Publishes a payload. Does not block.
    status try_publish(bytes_view payload) noexcept
    {
        return detail::to_status(fastmq_publisher_publish(get(), payload.raw()));
    }

    /// Publishes a message whose subject is empty. Does not block.
    status try_publish(const outgoing &message) noexcept
    {
        return detail::to_status(fastmq_publisher_publish_message(get(), &message.raw()));
    }

    /// Publishes payloads in order, up to the first that is refused; `accepted` says how many were
    /// published. Readers may see them all at once. Does not block.
    status try_publish_batch(list_view<bytes_view> payloads, std::size_t &accepted) noexcept
    {
        const auto *first = reinterpret_cast<const fastmq_bytes *>(payloads.data());
        return detail::to_status(
            fastmq_publisher_publish_batch(get(), first, payloads.size(), &accepted));
    }

    /// Publishes a payload, waiting for room for at most `timeout`. A callback of the full queue
    /// must not call it: misuse. More statuses: timeout.
    status try_publish_wait(bytes_view payload, duration timeout) noexcept
    {
        return detail::to_status(
            fastmq_publisher_publish_wait(get(), payload.raw(), timeout.count_ns()));
    }

    /// Claims room for a payload of at most `size` bytes, to be written in place and committed: no
    /// copy is made then. Does not block. again: a queue is full.
    result<fastmq::claim> try_claim(std::size_t size) noexcept
    {
        std::uint8_t *data = nullptr;
        const auto claimed = detail::to_status(fastmq_publisher_claim(get(), size, &data));
        if (claimed != status::ok) {
            return claimed;
        }
        return fastmq::claim(get(), data, size);
    }

#if FASTMQ_HAS_EXCEPTIONS
    /// As try_claim; throws error.
    [[nodiscard]] fastmq::claim claim(std::size_t size) { return try_claim(size).value(); }

    /// As try_publish; throws error for every status but ok.
    void publish(bytes_view payload) { detail::check(try_publish(payload)); }

    /// As try_publish; throws error for every status but ok.
    void publish(const outgoing &message) { detail::check(try_publish(message)); }

    /// As try_publish_batch; says how many were published. Fewer than there are: again. Throws
    /// error for other statuses, though the messages before the refused one are published.
    std::size_t publish_batch(list_view<bytes_view> payloads)
    {
        std::size_t accepted = 0;
        const auto said = try_publish_batch(payloads, accepted);
        detail::check(said == status::again ? status::ok : said);
        return accepted;
    }

    /// As try_publish_wait; throws error for every status but ok.
    void publish_wait(bytes_view payload, duration timeout)
    {
        detail::check(try_publish_wait(payload, timeout));
    }
#endif
};

} // namespace fastmq

#endif

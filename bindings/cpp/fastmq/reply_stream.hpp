// A responder's stream of replies.
#ifndef FASTMQ_REPLY_STREAM_HPP
#define FASTMQ_REPLY_STREAM_HPP

#include "bytes.hpp"
#include "duration.hpp"
#include "handle.hpp"
#include "message.hpp"
#include "status.hpp"

#include <cstdint>

namespace fastmq {

/// Many replies to one request: client::open_reply_stream. Closing it before its end cancels it:
/// the asker gets cancelled. It ends with the subscription by which the request came. Used by one
/// thread at a time.
///
/// Statuses of a send: ok, again (the asker has granted no more replies, or has no room; ready::room
/// of client::dispatch says when to try again), cancelled (nobody waits for more), misuse (it was
/// ended), too_large, no_space, no_memory, closed, invalid.
class reply_stream : public detail::handle<fastmq_reply_stream, fastmq_reply_stream_close> {
public:
    using handle::handle;

    /// Says how many replies may be sent now; the way to learn that nobody waits for more.
    /// Statuses: ok, cancelled, misuse (it was ended), closed, invalid.
    result<std::uint64_t> try_credit() const
    {
        std::uint64_t replies = 0;
        const auto said = detail::to_status(fastmq_reply_stream_credit(get(), &replies));
        if (said != status::ok) {
            return said;
        }
        return replies;
    }

    /// Sends a reply. Does not block. Replies keep their order.
    status try_send(bytes_view payload) noexcept
    {
        return detail::to_status(fastmq_reply_stream_send(get(), payload.raw()));
    }

    /// Sends a reply with a payload and headers.
    status try_send(const outgoing &reply) noexcept
    {
        return detail::to_status(fastmq_reply_stream_send_message(get(), &reply.raw()));
    }

    /// Sends a reply, waiting for credit and room for at most `timeout`. A callback inside the
    /// asker's own submit must not call it: misuse. More statuses: timeout.
    status try_send_wait(bytes_view payload, duration timeout) noexcept
    {
        return detail::to_status(
            fastmq_reply_stream_send_wait(get(), payload.raw(), timeout.count_ns()));
    }

    /// Ends it: behind the last reply the asker receives `said`, or end for ok. Needs no credit.
    /// Statuses: ok, cancelled (the other side has ended it), misuse (it was ended), closed,
    /// invalid.
    status try_end(status said = status::ok) noexcept
    {
        return detail::to_status(
            fastmq_reply_stream_end(get(), static_cast<std::uint32_t>(said)));
    }

#if FASTMQ_HAS_EXCEPTIONS
    // As the calls with try_; each throws error for every status but ok.

    /// As try_credit.
    [[nodiscard]] std::uint64_t credit() const { return try_credit().value(); }

    /// As try_send.
    void send(bytes_view payload) { detail::check(try_send(payload)); }

    /// As try_send.
    void send(const outgoing &reply) { detail::check(try_send(reply)); }

    /// As try_send_wait.
    void send_wait(bytes_view payload, duration timeout)
    {
        detail::check(try_send_wait(payload, timeout));
    }

    /// As try_end.
    void end(status said = status::ok) { detail::check(try_end(said)); }
#endif
};

} // namespace fastmq

#endif

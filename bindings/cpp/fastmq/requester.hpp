// Many requests in flight.
#ifndef FASTMQ_REQUESTER_HPP
#define FASTMQ_REQUESTER_HPP

#include "batch.hpp"
#include "bytes.hpp"
#include "duration.hpp"
#include "handle.hpp"
#include "message.hpp"
#include "status.hpp"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace fastmq {

/// Options of a requester; 0 is the default.
struct requester_options {
    /// The subject of every request, copied; empty: each submit names its own.
    std::string_view subject = {};
    /// Requests in flight at most; 0: 1,024; at most 65,535.
    std::uint32_t in_flight_max = 0;
    /// How receive waits; balanced: as the client.
    fastmq::wait wait = fastmq::wait::balanced;
};

/// Many requests in flight: client::open_requester. Closing it gives them up. Used by one thread
/// at a time.
///
/// After a submit with ok exactly one final answer comes by receive, with the submit's token: the
/// responder's, or no_responder, busy, timeout or cancelled as message::status. Statuses of a
/// submit: ok, again (in_flight_max are in flight), invalid, too_large, no_space, no_memory,
/// closed, misuse. It does not block.
class requester : public detail::handle<fastmq_requester, fastmq_requester_close> {
public:
    using handle::handle;

    /// Sends a request to the requester's own subject.
    status try_submit(bytes_view payload, std::uint64_t token, duration timeout) noexcept
    {
        return detail::to_status(
            fastmq_requester_submit(get(), payload.raw(), token, timeout.count_ns()));
    }

    /// Sends a request to a subject.
    status try_submit_to(std::string_view subject, bytes_view payload, std::uint64_t token,
                         duration timeout) noexcept
    {
        return detail::to_status(fastmq_requester_submit_to(
            get(), detail::to_bytes(subject), payload.raw(), token, timeout.count_ns()));
    }

    /// Sends a request with all its fields; its token is outgoing::token.
    status try_submit(const outgoing &request, duration timeout) noexcept
    {
        return detail::to_status(
            fastmq_requester_submit_message(get(), &request.raw(), timeout.count_ns()));
    }

    /// Receives up to `reply_max` answers (0: as many as a batch holds), waiting for the first for
    /// at most `timeout`. A requester has one open batch at most.
    /// Statuses: ok, again (nothing is there and the time-out is zero), timeout, closed, invalid,
    /// misuse.
    result<batch> try_receive(duration timeout, std::uint32_t reply_max = 0)
    {
        fastmq_batch *received = nullptr;
        const auto said = detail::to_status(
            fastmq_requester_receive(get(), reply_max, timeout.count_ns(), &received));
        if (said != status::ok) {
            return said;
        }
        return batch(received);
    }

    /// Asks the requester's own subject, waits for the answer for at most `timeout` and copies its
    /// payload into `reply`. `size` is the payload's size, also when it is larger than
    /// `reply_capacity` (too_large). The status is the responder's, else as client::try_request.
    status try_request_into(bytes_view payload, duration timeout, void *reply,
                            std::size_t reply_capacity, std::size_t &size) noexcept
    {
        return detail::to_status(fastmq_requester_request_into(
            get(), payload.raw(), timeout.count_ns(), reply, reply_capacity, &size));
    }

    /// Ends a request: its answer arrives with cancelled.
    /// Statuses: ok, not_found (no request in flight has this token), closed, invalid, misuse.
    status try_cancel(std::uint64_t token) noexcept
    {
        return detail::to_status(fastmq_requester_cancel(get(), token));
    }

    /// How many requests have no final answer yet, those with one that was not received included.
    /// 0 on failure, and last_error says why.
    [[nodiscard]] std::uint32_t in_flight() noexcept { return fastmq_requester_in_flight(get()); }

    /// The descriptor for epoll or poll: readable exactly while there is an answer to receive or a
    /// request has timed out. It is the library's: only wait on it. -1 on failure, and last_error
    /// says why.
    [[nodiscard]] int fd() noexcept { return fastmq_requester_fd(get()); }

#if FASTMQ_HAS_EXCEPTIONS
    /// As try_submit; throws error for every status but ok.
    void submit(bytes_view payload, std::uint64_t token, duration timeout)
    {
        detail::check(try_submit(payload, token, timeout));
    }

    /// As try_submit_to; throws error for every status but ok.
    void submit_to(std::string_view subject, bytes_view payload, std::uint64_t token,
                   duration timeout)
    {
        detail::check(try_submit_to(subject, payload, token, timeout));
    }

    /// As try_submit; throws error for every status but ok.
    void submit(const outgoing &request, duration timeout)
    {
        detail::check(try_submit(request, timeout));
    }

    /// As try_receive; throws error for every status but ok.
    [[nodiscard]] batch receive(duration timeout = forever, std::uint32_t reply_max = 0)
    {
        return try_receive(timeout, reply_max).value();
    }

    /// As try_request_into; gives the payload's size and throws error for every status but ok.
    std::size_t request_into(bytes_view payload, duration timeout, void *reply,
                             std::size_t reply_capacity)
    {
        std::size_t size = 0;
        detail::check(try_request_into(payload, timeout, reply, reply_capacity, size));
        return size;
    }

    /// As try_cancel; throws error for every status but ok.
    void cancel(std::uint64_t token) { detail::check(try_cancel(token)); }
#endif
};

} // namespace fastmq

#endif

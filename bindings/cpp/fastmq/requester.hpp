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

/// As many answers as there are responders.
inline constexpr std::uint32_t answers_all = FASTMQ_ANSWERS_ALL;

/// What a request wants to which several answers may come; 0 is the default.
struct many_options {
    /// How many responders' answers; answers_all: of all that get the request; 0: 1.
    std::uint32_t answers_max = 0;
    /// Replies that a responder may stream before the first is received; 0: no reply streams.
    std::uint32_t credit = 0;
    /// How streams get more credit.
    fastmq::credit_mode credit_mode = fastmq::credit_mode::automatic;
    /// The longest time without a message for this request, which then ends with timeout; zero:
    /// any.
    duration gap = {};
};

/// Many requests in flight: client::open_requester. Closing it gives them up. Used by one thread
/// at a time.
///
/// After a submit with ok exactly one final answer comes by receive, with the submit's token: the
/// responder's, or no_responder, busy, timeout, cancelled, or disconnected (of a server's client:
/// see try_connect) as message::status. Statuses of a submit: ok, again (in_flight_max are in
/// flight), invalid, denied (the subject begins with $SYS), too_large, unavailable (a server's
/// client has no connection), no_space, no_memory, closed, misuse. It does not block.
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

    /// Sends a request to which several answers may come, each with message::has_more but the
    /// last, which has message::is_end. message::subscription_id says whose answer it is; 0: the
    /// library's own word, and the last. `timeout` is for the request as a whole.
    status try_submit_many(const outgoing &request, duration timeout,
                           const many_options &options = {}) noexcept
    {
        fastmq_many_options wanted{};
        wanted.struct_size = sizeof wanted;
        wanted.answers_max = options.answers_max;
        wanted.credit = options.credit;
        wanted.credit_mode = static_cast<std::uint32_t>(options.credit_mode);
        wanted.gap_ns = options.gap.count_ns();
        return detail::to_status(
            fastmq_requester_submit_many(get(), &request.raw(), timeout.count_ns(), &wanted));
    }

    /// Grants more replies to each reply stream of a request.
    /// Statuses: ok, not_found (no request for many answers in flight has this token), invalid (0
    /// or above 1,048,576, or the request takes no streams), closed, misuse.
    status try_grant(std::uint64_t token, std::uint32_t replies) noexcept
    {
        return detail::to_status(fastmq_requester_grant(get(), token, replies));
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

    /// As try_submit_many; throws error for every status but ok.
    void submit_many(const outgoing &request, duration timeout, const many_options &options = {})
    {
        detail::check(try_submit_many(request, timeout, options));
    }

    /// As try_grant; throws error for every status but ok.
    void grant(std::uint64_t token, std::uint32_t replies)
    {
        detail::check(try_grant(token, replies));
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

// Messages: what is received, and what is sent when there is more to it than a payload.
#ifndef FASTMQ_MESSAGE_HPP
#define FASTMQ_MESSAGE_HPP

#include "bytes.hpp"
#include "duration.hpp"
#include "headers.hpp"
#include "status.hpp"

#include <chrono>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace fastmq {

/// A look at a received message: one pointer, copied freely.
///
/// It and all views it gives live as long as what it came from: the batch that holds it, or the
/// call of the callback that got it. Safe from any thread while that lives.
class message {
public:
    /// A message of C.
    explicit message(const fastmq_message &raw) noexcept : raw_(&raw) {}

    /// The subject; empty for an answer.
    [[nodiscard]] std::string_view subject() const noexcept
    {
        return detail::to_text(raw_->subject);
    }
    /// The payload.
    [[nodiscard]] bytes_view payload() const noexcept { return bytes_view(raw_->payload); }
    /// The payload as text.
    [[nodiscard]] std::string_view text() const noexcept { return detail::to_text(raw_->payload); }
    /// Where an answer may be published; empty: nowhere.
    [[nodiscard]] std::string_view reply_to() const noexcept
    {
        return detail::to_text(raw_->reply_to);
    }
    /// The headers.
    [[nodiscard]] headers_view headers() const noexcept { return headers_view(raw_->headers); }
    /// The key; empty: none.
    [[nodiscard]] bytes_view key() const noexcept { return bytes_view(raw_->key); }
    /// The publisher's sequence, from 1 on; 0: published without a handle.
    [[nodiscard]] std::uint64_t sequence() const noexcept { return raw_->sequence; }
    /// Names the publisher that counts sequence(); 0: published without a handle. A sequence that
    /// is not one above that of the same publisher's previous message tells of a gap.
    [[nodiscard]] std::uint64_t publisher() const noexcept { return raw_->publisher; }
    /// When it was published; the epoch (count 0): not stamped.
    [[nodiscard]] std::chrono::time_point<std::chrono::system_clock, std::chrono::nanoseconds>
    timestamp() const noexcept
    {
        using time = std::chrono::time_point<std::chrono::system_clock, std::chrono::nanoseconds>;
        return time(std::chrono::nanoseconds(static_cast<std::int64_t>(raw_->timestamp_ns)));
    }
    /// Names the request to answer, or the request that this answers; 0: none.
    [[nodiscard]] std::uint64_t token() const noexcept { return raw_->token; }
    /// 1 on the first delivery.
    [[nodiscard]] std::uint32_t delivery_count() const noexcept { return raw_->delivery_count; }
    /// Messages dropped by this queue since the previous one.
    [[nodiscard]] std::uint32_t lost_before() const noexcept { return raw_->lost_before; }
    /// How a request ended, in its answer; ok otherwise.
    fastmq::status status() const noexcept { return detail::to_status(raw_->status); }
    /// The subscription that this came by; of an answer among several, the responder's.
    [[nodiscard]] std::uint32_t subscription_id() const noexcept { return raw_->subscription_id; }
    /// The number given at subscribe.
    [[nodiscard]] std::uint64_t tag() const noexcept { return raw_->tag; }

    /// True if it was delivered before.
    [[nodiscard]] bool is_redelivered() const noexcept { return has(FASTMQ_MESSAGE_REDELIVERED); }
    /// True if more replies follow.
    [[nodiscard]] bool has_more() const noexcept { return has(FASTMQ_MESSAGE_MORE); }
    /// True for the last of several replies.
    [[nodiscard]] bool is_end() const noexcept { return has(FASTMQ_MESSAGE_END); }
    /// True if an answer is expected: client::reply.
    [[nodiscard]] bool is_request() const noexcept { return has(FASTMQ_MESSAGE_REQUEST); }

    /// The C struct.
    [[nodiscard]] const fastmq_message &raw() const noexcept { return *raw_; }

private:
    bool has(fastmq_message_flag flag) const noexcept { return (raw_->flags & flag) != 0; }

    const fastmq_message *raw_;
};

/// A message to send. What is not set is absent.
///
/// Texts, bytes and headers are borrowed until the call that sends it returns, so it is usually
/// made where it is sent: `mq.publish(outgoing("a.b", "payload").ttl(5s))`. One may be sent several
/// times.
class outgoing {
public:
    /// An empty message.
    outgoing() noexcept : raw_() { raw_.struct_size = sizeof raw_; }

    /// A message without a subject of its own: for a publisher, for an answer.
    explicit outgoing(bytes_view payload) noexcept : outgoing() { raw_.payload = payload.raw(); }

    /// A message to a subject.
    outgoing(std::string_view subject, bytes_view payload) noexcept : outgoing(payload)
    {
        raw_.subject = detail::to_bytes(subject);
    }

    /// Where to; empty where a handle has a subject of its own.
    outgoing &subject(std::string_view text) noexcept
    {
        raw_.subject = detail::to_bytes(text);
        return *this;
    }
    /// What.
    outgoing &payload(bytes_view bytes) noexcept
    {
        raw_.payload = bytes.raw();
        return *this;
    }
    /// Where an answer may be published.
    outgoing &reply_to(std::string_view text) noexcept
    {
        raw_.reply_to = detail::to_bytes(text);
        return *this;
    }
    /// What keeps messages of one kind in order in key-shared groups.
    outgoing &key(bytes_view bytes) noexcept
    {
        raw_.key = bytes.raw();
        return *this;
    }
    /// Headers; an empty set is none.
    outgoing &headers(const fastmq::headers &set) noexcept
    {
        raw_.headers = set.get();
        return *this;
    }
    /// Requests: comes back with the answer.
    outgoing &token(std::uint64_t number) noexcept
    {
        raw_.token = number;
        return *this;
    }
    /// How long it is worth delivering; zero: for ever.
    outgoing &ttl(duration time) noexcept
    {
        raw_.ttl_ns = time.count_ns();
        return *this;
    }

    /// It becomes the last value of its subject, for whoever subscribes later with
    /// subscribe_options::replay_last. Not for requests and answers.
    outgoing &keep_last() noexcept
    {
        raw_.flags |= FASTMQ_OUTGOING_KEEP_LAST;
        return *this;
    }

    /// The C struct.
    [[nodiscard]] const fastmq_outgoing &raw() const noexcept { return raw_; }

private:
    fastmq_outgoing raw_;
};

// C reads lists of them as lists of fastmq_outgoing.
static_assert(sizeof(outgoing) == sizeof(fastmq_outgoing) && std::is_standard_layout_v<outgoing>);

} // namespace fastmq

#endif

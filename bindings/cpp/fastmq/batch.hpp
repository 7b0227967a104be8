// Received messages, open until they are freed.
#ifndef FASTMQ_BATCH_HPP
#define FASTMQ_BATCH_HPP

#include "message.hpp"
#include "status.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>

namespace fastmq {

/// Received messages, in the order in which they are to be handled; freed with the object.
///
/// Messages and all their views live until then. A queue has at most one open batch, and gets its
/// room back when that is freed: a batch that is kept for long is better detached. Used by one
/// thread at a time.
class batch {
public:
    /// Goes over the messages. Each is given by value: it is one pointer.
    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = message;
        using difference_type = std::ptrdiff_t;
        using pointer = void;
        using reference = message;

        iterator() noexcept = default;
        message operator*() const noexcept { return message(*at_); }
        iterator &operator++() noexcept
        {
            ++at_;
            return *this;
        }
        iterator operator++(int) noexcept { return iterator(at_++); }
        friend bool operator==(iterator a, iterator b) noexcept { return a.at_ == b.at_; }
        friend bool operator!=(iterator a, iterator b) noexcept { return a.at_ != b.at_; }

    private:
        friend class batch;
        explicit iterator(const fastmq_message *at) noexcept : at_(at) {}

        const fastmq_message *at_ = nullptr;
    };
    using const_iterator = iterator;

    /// An empty one.
    batch() noexcept = default;

    /// Takes over a batch that the C functions made.
    explicit batch(fastmq_batch *raw) noexcept : raw_(raw)
    {
        // A variable of its own: with the member's address outside, the compiler could keep no part
        // of this object in registers.
        std::size_t count = 0;
        messages_ = fastmq_batch_messages(raw_, &count);
        count_ = count;
    }

    batch(batch &&other) noexcept
        : raw_(std::exchange(other.raw_, nullptr)),
          messages_(std::exchange(other.messages_, nullptr)),
          count_(std::exchange(other.count_, 0))
    {
    }

    /// Frees what it had and takes over the other's.
    batch &operator=(batch &&other) noexcept
    {
        if (this != &other) {
            free();
            raw_ = std::exchange(other.raw_, nullptr);
            messages_ = std::exchange(other.messages_, nullptr);
            count_ = std::exchange(other.count_, 0);
        }
        return *this;
    }

    batch(const batch &) = delete;
    batch &operator=(const batch &) = delete;

    /// Frees it.
#if defined(__GNUC__)
    // In cold code, too: were its address needed there, it would be kept in memory everywhere.
    [[gnu::always_inline]]
#endif
    ~batch()
    {
        if (raw_ != nullptr) {
            fastmq_batch_free(raw_);
        }
    }

    /// True if it holds messages; what receive gives always does.
    explicit operator bool() const noexcept { return raw_ != nullptr; }
    /// How many messages.
    [[nodiscard]] std::size_t size() const noexcept { return count_; }
    /// True if there are none.
    [[nodiscard]] bool empty() const noexcept { return count_ == 0; }
    /// The message at `index`, which is below size().
    message operator[](std::size_t index) const noexcept { return message(messages_[index]); }
    /// The first message; the answer, in what client::request gives. It must not be empty.
    [[nodiscard]] message front() const noexcept { return message(*messages_); }
    /// When it was received; the epoch (count 0): the client was opened without time stamps.
    [[nodiscard]] std::chrono::time_point<std::chrono::system_clock, std::chrono::nanoseconds>
    received() const noexcept
    {
        using time = std::chrono::time_point<std::chrono::system_clock, std::chrono::nanoseconds>;
        const auto count = static_cast<std::int64_t>(fastmq_batch_time(raw_));
        return time(std::chrono::nanoseconds(count));
    }
    [[nodiscard]] iterator begin() const noexcept { return iterator(messages_); }
    [[nodiscard]] iterator end() const noexcept { return iterator(messages_ + count_); }

    /// Frees it now: its queue gets the room back.
    void free() noexcept
    {
        if (raw_ != nullptr) {
            fastmq_batch_free(std::exchange(raw_, nullptr));
            messages_ = nullptr;
            count_ = 0;
        }
    }

    /// Copies it out, so that its queue gets the room back; this object is empty then. The copy
    /// lives as long as it is kept, also after queue and client are closed.
    /// Statuses: ok, no_memory, invalid, misuse; after a failure this object is as it was.
    result<batch> try_detach()
    {
        fastmq_batch *copy = nullptr;
        const auto detached = detail::to_status(fastmq_batch_detach(raw_, &copy));
        if (detached != status::ok) {
            return detached;
        }
        raw_ = nullptr;
        messages_ = nullptr;
        count_ = 0;
        return batch(copy);
    }

#if FASTMQ_HAS_EXCEPTIONS
    /// As try_detach; throws error.
    [[nodiscard]] batch detach() { return try_detach().value(); }
#endif

    /// The handle for the C functions; it stays this object's to free.
    [[nodiscard]] fastmq_batch *get() const noexcept { return raw_; }

    /// Gives the handle away: freeing it is the caller's now.
    [[nodiscard]] fastmq_batch *release() noexcept
    {
        messages_ = nullptr;
        count_ = 0;
        return std::exchange(raw_, nullptr);
    }

private:
    fastmq_batch *raw_ = nullptr;
    const fastmq_message *messages_ = nullptr;
    std::size_t count_ = 0;
};

} // namespace fastmq

#endif

// Headers: a set to send with messages, and a look at those of a message.
#ifndef FASTMQ_HEADERS_HPP
#define FASTMQ_HEADERS_HPP

#include "bytes.hpp"
#include "handle.hpp"
#include "status.hpp"

#include <cstddef>
#include <iterator>
#include <optional>
#include <string_view>

namespace fastmq {

/// One header; both views live as long as the message.
struct header {
    std::string_view name;
    bytes_view value;
};

/// Headers to send with messages. Used by one thread at a time, also while a message with them is
/// being published. It belongs to no client, and messages sent with it keep theirs.
class headers : public detail::handle<fastmq_headers, fastmq_headers_close> {
public:
    using handle::handle;

    /// Adds a header at the end; a name may stand several times. Copies both. An empty set is
    /// opened by its first header.
    /// Statuses: ok, invalid, too_large (64 KiB in all), no_memory, misuse.
    status try_add(std::string_view name, bytes_view value)
    {
        if (get() == nullptr) {
            fastmq_headers *raw = nullptr;
            const auto opened = detail::to_status(fastmq_headers_open(&raw));
            if (opened != status::ok) {
                return opened;
            }
            *this = headers(raw);
        }
        return detail::to_status(fastmq_headers_add(get(), detail::to_bytes(name), value.raw()));
    }

    /// Removes all headers.
    void clear() noexcept { fastmq_headers_clear(get()); }

#if FASTMQ_HAS_EXCEPTIONS
    /// As try_add; throws error. Returns the set, so that calls can be chained.
    headers &add(std::string_view name, bytes_view value)
    {
        detail::check(try_add(name, value));
        return *this;
    }
#endif
};

/// The headers of a received message, one after the other. Lives as long as the message; safe from
/// any thread.
class headers_view {
public:
    /// Goes over the headers in their order.
    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = header;
        using difference_type = std::ptrdiff_t;
        using pointer = const header *;
        using reference = const header &;

        /// The end.
        iterator() noexcept = default;

        reference operator*() const noexcept { return current_; }
        pointer operator->() const noexcept { return &current_; }
        iterator &operator++() noexcept
        {
            step();
            return *this;
        }
        iterator operator++(int) noexcept
        {
            iterator before = *this;
            step();
            return before;
        }
        friend bool operator==(const iterator &a, const iterator &b) noexcept
        {
            return a.cursor_ == b.cursor_;
        }
        friend bool operator!=(const iterator &a, const iterator &b) noexcept { return !(a == b); }

    private:
        friend class headers_view;
        static constexpr std::size_t at_end = static_cast<std::size_t>(-1);

        explicit iterator(fastmq_bytes all) noexcept : all_(all), cursor_(0) { step(); }

        void step() noexcept
        {
            fastmq_bytes name, value;
            if (fastmq_headers_next(all_, &cursor_, &name, &value) != FASTMQ_OK) {
                cursor_ = at_end;
                return;
            }
            current_ = {detail::to_text(name), bytes_view(value)};
        }

        fastmq_bytes all_{nullptr, 0};
        std::size_t cursor_ = at_end;
        header current_;
    };
    using const_iterator = iterator;

    /// No headers.
    headers_view() noexcept = default;

    /// The encoded headers of a message of C.
    explicit headers_view(fastmq_bytes raw) noexcept : raw_(raw) {}

    /// The value of the first header with this name, compared without ASCII case.
    [[nodiscard]] std::optional<bytes_view> get(std::string_view name) const noexcept
    {
        fastmq_bytes value;
        if (fastmq_headers_get(raw_, detail::to_bytes(name), &value) != FASTMQ_OK) {
            return std::nullopt;
        }
        return bytes_view(value);
    }

    /// True if there are none.
    [[nodiscard]] bool empty() const noexcept { return raw_.size == 0; }
    [[nodiscard]] iterator begin() const noexcept { return iterator(raw_); }
    [[nodiscard]] iterator end() const noexcept { return {}; }

    /// The encoded headers for the C functions.
    [[nodiscard]] fastmq_bytes raw() const noexcept { return raw_; }

private:
    fastmq_bytes raw_{nullptr, 0};
};

} // namespace fastmq

#endif

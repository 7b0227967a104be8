// A payload that is written where its readers will read it.
#ifndef FASTMQ_CLAIM_HPP
#define FASTMQ_CLAIM_HPP

#include "status.hpp"

#include <fastmq.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace fastmq {

/// Room for one payload of a publisher, to be written in place and committed; abandoned with the
/// object if it is not. publisher::claim makes it.
///
/// A publisher has one claim at a time and publishes nothing else meanwhile: misuse. It is to
/// outlive its claim, moved or not; if it is closed first, the bytes are gone. Used by one thread
/// at a time.
class claim {
public:
    using value_type = std::uint8_t;
    using iterator = std::uint8_t *;

    /// An empty one.
    claim() noexcept = default;

    claim(claim &&other) noexcept
        : publisher_(std::exchange(other.publisher_, nullptr)),
          data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0))
    {
    }

    /// Abandons what it had and takes over the other's.
    claim &operator=(claim &&other) noexcept
    {
        if (this != &other) {
            abandon();
            publisher_ = std::exchange(other.publisher_, nullptr);
            data_ = std::exchange(other.data_, nullptr);
            size_ = std::exchange(other.size_, 0);
        }
        return *this;
    }

    claim(const claim &) = delete;
    claim &operator=(const claim &) = delete;

    /// Abandons it.
    ~claim() { abandon(); }

    /// True until it is committed or abandoned.
    explicit operator bool() const noexcept { return publisher_ != nullptr; }

    /// The first byte to write, at an address that is a multiple of 8; NULL once a commit was
    /// tried, whatever it said. What is there at first is unspecified.
    [[nodiscard]] std::uint8_t *data() const noexcept { return data_; }
    /// How many bytes there are to write.
    [[nodiscard]] std::size_t size() const noexcept { return data_ == nullptr ? 0 : size_; }
    [[nodiscard]] iterator begin() const noexcept { return data_; }
    [[nodiscard]] iterator end() const noexcept { return data_ + size(); }
    /// The byte at `index`, which is below size().
    std::uint8_t &operator[](std::size_t index) const noexcept { return data_[index]; }

    /// Publishes the first `size` bytes to whoever subscribes now. Does not block.
    ///
    /// Whatever is not ok leaves the claim open with the bytes as they are: commit it again or
    /// abandon it. Statuses: as publisher::try_publish, and invalid for more bytes than were
    /// claimed. `again` is rare, as there was room for the claim: a queue came since, or shares the
    /// room that it had with other publishers.
    status try_commit(std::size_t size) noexcept
    {
        data_ = nullptr;
        const auto said = detail::to_status(fastmq_publisher_commit(publisher_, size));
        if (said == status::ok) {
            publisher_ = nullptr;
        }
        return said;
    }

    /// Publishes all that was claimed; as try_commit with a size.
    status try_commit() noexcept { return try_commit(size_); }

#if FASTMQ_HAS_EXCEPTIONS
    /// As try_commit; throws error for every status but ok.
    void commit(std::size_t size) { detail::check(try_commit(size)); }

    /// As try_commit; throws error for every status but ok.
    void commit() { detail::check(try_commit()); }
#endif

    /// Gives it back unpublished.
    void abandon() noexcept
    {
        if (publisher_ != nullptr) {
            fastmq_publisher_abandon(std::exchange(publisher_, nullptr));
            data_ = nullptr;
        }
    }

private:
    friend class publisher;
    claim(fastmq_publisher *publisher, std::uint8_t *data, std::size_t size) noexcept
        : publisher_(publisher), data_(data), size_(size)
    {
    }

    fastmq_publisher *publisher_ = nullptr;
    std::uint8_t *data_ = nullptr;
    std::size_t size_ = 0;
};

} // namespace fastmq

#endif

// Bytes and lists that are looked at and not owned.
#ifndef FASTMQ_BYTES_HPP
#define FASTMQ_BYTES_HPP

#include <fastmq.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>

namespace fastmq {

namespace detail {

// Elements that are bytes; bool is not, as its other 254 values are no values.
template <class T>
inline constexpr bool is_byte_v = sizeof(T) == 1 && std::is_trivially_copyable_v<T>
    && !std::is_same_v<std::remove_cv_t<T>, bool> && (std::is_integral_v<T> || std::is_enum_v<T>);

// The array of a string literal has a zero at its end that nobody means to send.
template <class T>
inline constexpr bool is_text_array_v = std::is_array_v<T>
    && !std::is_same_v<std::remove_cv_t<std::remove_extent_t<T>>, unsigned char>
    && !std::is_same_v<std::remove_cv_t<std::remove_extent_t<T>>, signed char>
    && !std::is_enum_v<std::remove_extent_t<T>>;

template <class Container>
using element_t = std::remove_pointer_t<decltype(std::data(std::declval<const Container &>()))>;

template <class Container, class = void> inline constexpr bool has_bytes_v = false;
template <class Container>
inline constexpr bool has_bytes_v<Container, std::void_t<element_t<Container>,
    decltype(std::size(std::declval<const Container &>()))>>
    = is_byte_v<element_t<Container>> && !is_text_array_v<Container>;

template <class Container, class T, class = void> inline constexpr bool has_list_v = false;
template <class Container, class T>
inline constexpr bool has_list_v<Container, T, std::void_t<element_t<Container>,
    decltype(std::size(std::declval<const Container &>()))>>
    = std::is_same_v<std::remove_cv_t<element_t<Container>>, T>;

} // namespace detail

/// A look at bytes that somebody else owns: what std::string_view is for text.
///
/// Made from text (a literal, std::string, std::string_view) without its terminating zero, and
/// from anything contiguous whose elements are bytes (std::vector, std::array, std::span, arrays
/// of unsigned char and std::byte). As an argument it is borrowed until the call returns.
class bytes_view {
public:
    using value_type = std::uint8_t;
    using const_iterator = const std::uint8_t *;
    using iterator = const_iterator;

    /// No bytes.
    constexpr bytes_view() noexcept : raw_{nullptr, 0} {}

    /// `size` bytes from `data` on.
    bytes_view(const void *data, std::size_t size) noexcept
        : raw_{static_cast<const std::uint8_t *>(data), size}
    {
    }

    /// Text that ends with a zero, without the zero.
    bytes_view(const char *text) noexcept : bytes_view(text, std::strlen(text)) {}
    bytes_view(std::nullptr_t) = delete;

    /// All bytes of a container or array.
    template <class Container, class = std::enable_if_t<detail::has_bytes_v<Container>>>
    bytes_view(const Container &container) noexcept
        : bytes_view(std::data(container), std::size(container))
    {
    }

    /// What C gave.
    explicit constexpr bytes_view(fastmq_bytes raw) noexcept : raw_(raw) {}

    /// The first byte.
    [[nodiscard]] constexpr const std::uint8_t *data() const noexcept { return raw_.data; }
    /// How many bytes.
    [[nodiscard]] constexpr std::size_t size() const noexcept { return raw_.size; }
    /// True if there are none.
    [[nodiscard]] constexpr bool empty() const noexcept { return raw_.size == 0; }
    [[nodiscard]] constexpr const std::uint8_t *begin() const noexcept { return raw_.data; }
    [[nodiscard]] constexpr const std::uint8_t *end() const noexcept
    {
        return raw_.data + raw_.size;
    }
    /// The byte at `index`, which is below size().
    constexpr std::uint8_t operator[](std::size_t index) const noexcept { return raw_.data[index]; }

    /// The same bytes as text.
    [[nodiscard]] std::string_view text() const noexcept
    {
        return {reinterpret_cast<const char *>(raw_.data), raw_.size};
    }

    /// A copy of the object whose bytes these are; nothing if the size is another one. For objects
    /// sent with bytes_of by a program with the same layout.
    template <class T> [[nodiscard]] std::optional<T> as() const noexcept
    {
        static_assert(std::is_trivially_copyable_v<T>, "the bytes of T are not the whole of T");
        static_assert(std::is_trivially_default_constructible_v<T>, "T cannot be filled in place");
        if (raw_.size != sizeof(T)) {
            return std::nullopt;
        }
        T value;
        std::memcpy(&value, raw_.data, sizeof value);
        return value;
    }

    /// The C struct.
    [[nodiscard]] constexpr fastmq_bytes raw() const noexcept { return raw_; }

    /// True if the bytes are the same.
    friend bool operator==(bytes_view a, bytes_view b) noexcept
    {
        return a.size() == b.size()
            && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
    }
    friend bool operator!=(bytes_view a, bytes_view b) noexcept { return !(a == b); }

private:
    fastmq_bytes raw_;
};

// C reads lists of them as lists of fastmq_bytes.
static_assert(sizeof(bytes_view) == sizeof(fastmq_bytes)
              && std::is_standard_layout_v<bytes_view>
              && std::is_trivially_copyable_v<bytes_view>);

/// The bytes of an object as they are in memory; the object must outlive the view.
template <class T> [[nodiscard]] bytes_view bytes_of(const T &object) noexcept
{
    static_assert(std::is_trivially_copyable_v<T>, "the bytes of T are not the whole of T");
    static_assert(!std::is_pointer_v<T>, "an address means nothing to the receiver");
    return {&object, sizeof object};
}

/// A look at a list that somebody else owns: made from std::vector, std::array, std::span, an
/// array or a braced list of T. As an argument it is borrowed until the call returns.
template <class T> class list_view {
public:
    /// `size` elements from `data` on.
    constexpr list_view(const T *data, std::size_t size) noexcept : data_(data), size_(size) {}

    /// A braced list, which lives until the call that it is an argument of returns.
    constexpr list_view(std::initializer_list<T> list) noexcept
    {
        data_ = list.begin();
        size_ = list.size();
    }

    /// All elements of a container or array.
    template <class Container, class = std::enable_if_t<detail::has_list_v<Container, T>>>
    constexpr list_view(const Container &container) noexcept
        : data_(std::data(container)), size_(std::size(container))
    {
    }

    /// The first element.
    [[nodiscard]] constexpr const T *data() const noexcept { return data_; }
    /// How many elements.
    [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }

private:
    const T *data_ = nullptr;
    std::size_t size_ = 0;
};

namespace detail {

inline fastmq_bytes to_bytes(std::string_view text) noexcept
{
    return bytes_view(text.data(), text.size()).raw();
}

inline std::string_view to_text(fastmq_bytes raw) noexcept { return bytes_view(raw).text(); }

} // namespace detail

} // namespace fastmq

#endif

// A library that does not fit the header: one of another major number or a lower minor one is
// refused with a sentence, a newer one is used. This program's fastmq_abi stands before the
// library's, as that of another version would.
#include "check.hpp"

#include <string>

static std::uint32_t pretended = FASTMQ_ABI;

extern "C" std::uint32_t fastmq_abi(void) { return pretended; }

constexpr std::uint32_t major_one = 1U << 16;
static_assert(FASTMQ_ABI > 0 && FASTMQ_ABI < major_one, "the numbers below are its neighbours");

// What open says, by its exception; "" if it opens.
template <class Open> static std::string sentence_of(Open open)
{
    try {
        open();
        return "";
    } catch (const fastmq::error &failure) {
        return failure.status() == fastmq::status::unsupported ? failure.what() : "another status";
    }
}

static void refused(std::uint32_t abi, const std::string &part, const std::string &cure)
{
    pretended = abi;
    const auto opened = sentence_of([] { (void)fastmq::open(); });
    const auto connected = sentence_of([] { (void)fastmq::connect("unix:/nowhere"); });
    const auto told = sentence_of([] {
        (void)fastmq::connect("unix:/nowhere", {}, [](fastmq::event) {});
    });
    printf("# %s\n", opened.c_str());
    CHECK(opened.find("the libfastmq.so that was loaded, " + std::string(fastmq::version()) + ", "
                      + part)
              != std::string::npos,
          "the sentence names the library's version and ABI");
    CHECK(opened.find(cure) != std::string::npos, "and the cure");
    CHECK(connected == opened && told == opened, "connect says the same");
    CHECK_SAYS(fastmq::try_open().status(), unsupported, "try_open says unsupported");
    CHECK_SAYS(fastmq::try_connect("unix:/nowhere", {}, [](fastmq::event) {}).status(),
               unsupported, "so does try_connect");
}

int main()
{
    check_begin();
    CHECK(fastmq::library_fault() == nullptr && fastmq::try_open(), "its own library fits");
    refused(FASTMQ_ABI - 1, "has ABI 0." + std::to_string(FASTMQ_ABI - 1) + ": ",
            "install a library that is as new as the headers");
    refused(FASTMQ_ABI + major_one, "has ABI 1." + std::to_string(FASTMQ_ABI) + ": ",
            "compile the program with the headers of that library");
    refused(UINT32_MAX, "has ABI 65535.65535: ", "compile the program");
    pretended = FASTMQ_ABI + 1;
    CHECK(fastmq::library_fault() == nullptr && fastmq::try_open(), "one with more fits");
    return check_end();
}

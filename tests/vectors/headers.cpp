// The vectors of headers in C++: encoded, read and found as everywhere.
#include "tables.h"

#include "../cpp/check.hpp"

#include <string_view>

namespace {

std::string_view of(constant constant) { return {constant.data, constant.size}; }

// What is published with these entries has the encoded bytes, which are read as the entries.
bool check_good(fastmq::client &client, fastmq::subscription &all, const struct good &vector)
{
    fastmq::headers headers;
    for (std::size_t i = 0; i < vector.entries_count; i++) {
        headers.add(of(vector.entries[i].name), of(vector.entries[i].value));
    }
    fastmq::outgoing message("a", "");
    client.publish(headers ? message.headers(headers) : message);
    const auto batch = all.queue().receive(fastmq::duration());
    const auto encoded = batch.front().headers();
    const auto raw = fastmq::bytes_view(encoded.raw());
    bool is_good = raw.text() == of(vector.encoded);
    std::size_t count = 0;
    for (const auto &header : encoded) {
        is_good = is_good && count < vector.entries_count
            && header.name == of(vector.entries[count].name)
            && header.value.text() == of(vector.entries[count].value);
        count++;
    }
    is_good = is_good && count == vector.entries_count;
    for (std::size_t i = 0; i < vector.lookups_count; i++) {
        const auto &lookup = vector.lookups[i];
        const auto found = encoded.get(of(lookup.name));
        is_good = is_good && found.has_value() == (lookup.is_there != 0)
            && (!found || found->text() == of(lookup.value));
    }
    return is_good;
}

} // namespace

int main()
{
    check_begin();
    auto client = fastmq::open();
    auto all = client.subscribe("a");
    for (const auto &vector : good) {
        CHECK(check_good(client, all, vector), vector.name);
    }
    return check_end();
}

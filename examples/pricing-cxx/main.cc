// pricing: prices a basket on the command line. Knows its stock; the secret functions of pricing.h know
// prices.
#include "pricing.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <string>
#include <vector>

namespace {

enum ExitCode { RIGHT = 0, UNKNOWN = 1, USAGE = 2, FAILED = 3 };

std::map<std::string, std::int32_t, std::less<>> stock;

int usage() {
    std::cerr << "usage: pricing quote STOCK-FILE CUSTOMER PRODUCT=QUANTITY...\n"
                 "       pricing list PRODUCT=QUANTITY\n";
    return USAGE;
}

int failed() {
    std::cerr << "pricing: " << cafe_error_message() << '\n';
    return FAILED;
}

bool parse_line(const char *text, pricing_line &line) {
    const char *equals = std::strchr(text, '=');
    const auto length = equals ? static_cast<std::size_t>(equals - text) : 0;
    if (length == 0 || length >= sizeof line.product)
        return false;
    line = {};
    std::memcpy(line.product, text, length);
    char *end = nullptr;
    const auto quantity = std::strtoul(equals + 1, &end, 10);
    line.quantity = static_cast<std::uint32_t>(quantity);
    return *end == '\0' && quantity > 0 && quantity <= 1'000'000;
}

bool read_stock(const char *path) {
    std::ifstream file{path};
    std::string product;
    for (std::int32_t count = 0; file >> product >> count;)
        stock[product] = count;
    return file.eof();
}

int quote(const char *customer, const std::vector<pricing_line> &lines) {
    std::vector<pricing_price> prices(lines.size());
    const auto count = static_cast<std::uint32_t>(lines.size());
    switch (pricing_quote(customer, lines.data(), count, prices.data())) {
    case PRICING_OK:
        break;
    case PRICING_UNKNOWN:
        std::cerr << "pricing: no such product\n";
        return UNKNOWN;
    case PRICING_FAILED:
        return failed();
    default:
        return usage();
    }
    for (std::size_t i = 0; i < lines.size(); i++)
        std::printf("%s %u %lld\n", lines[i].product, lines[i].quantity,
                    static_cast<long long>(prices[i].cents));
    return RIGHT;
}

int list(const pricing_line &line) {
    const auto cents = pricing_list(line.product, line.quantity);
    if (cents < 0)
        return failed();
    std::printf("%lld\n", static_cast<long long>(cents));
    return RIGHT;
}

} // namespace

// The secret code calls this, in the thread that called the secret code.
extern "C" std::int32_t pricing_stock(const char *product) {
    const auto found = stock.find(product);
    return found == stock.end() ? -1 : found->second;
}

int main(int count, char **words) {
    const std::string command = count > 1 ? words[1] : "";
    const int first = command == "quote" ? 4 : 2;
    std::vector<pricing_line> lines(count > first ? static_cast<std::size_t>(count - first) : 0);
    for (std::size_t i = 0; i < lines.size(); i++)
        if (!parse_line(words[static_cast<std::size_t>(first) + i], lines[i]))
            return usage();
    if (command == "list" && lines.size() == 1)
        return list(lines[0]);
    if (command == "quote" && !lines.empty() && read_stock(words[2]))
        return quote(words[3], lines);
    return usage();
}

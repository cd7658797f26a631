// The secret functions of pricing.h.
#include "pricing.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "catalogue.hh"
#include "rules.hh"

namespace pricing {

namespace {

const Catalogue catalogue;
const Rules rules = make_rules();

class BadLine : public std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

std::string name_of(const pricing_line &line) {
    const auto end = std::find(std::begin(line.product), std::end(line.product), '\0');
    if (end == std::end(line.product) || line.quantity == 0)
        throw BadLine{"line"};
    return {std::begin(line.product), end};
}

pricing_price price_line(int customer_permille, const pricing_line &line) {
    const std::string name = name_of(line);
    const Product &product = catalogue.product(name);
    const std::int32_t stock = std::max(pricing_stock(name.c_str()), -1);
    return {price(rules, {product, line.quantity, stock, customer_permille}), stock};
}

} // namespace

} // namespace pricing

extern "C" int pricing_quote(const char *customer, const pricing_line *lines, std::uint32_t count,
                             pricing_price *prices) try {
    if (!customer || !lines || !prices || count == 0 || count > PRICING_MOST_LINES)
        return PRICING_ARGUMENT;
    const int permille = pricing::catalogue.discount_permille(customer);
    std::transform(lines, lines + count, prices,
                   [=](const pricing_line &line) { return pricing::price_line(permille, line); });
    return PRICING_OK;
} catch (const pricing::UnknownProduct &) {
    return PRICING_UNKNOWN;
} catch (const pricing::BadLine &) {
    return PRICING_ARGUMENT;
}

extern "C" std::int64_t pricing_list(const char *product, std::uint32_t quantity) {
    return pricing::catalogue.product(product ? product : "").list_cents * quantity;
}

// The rules that make a price. Each says by how many permille the list price changes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "catalogue.hh"

namespace pricing {

struct Offer {
    const Product &product;
    std::uint32_t quantity;
    std::int32_t stock;    // -1: not known
    int customer_permille; // discount
};

class Rule {
  public:
    virtual ~Rule() = default;
    virtual int permille(const Offer &offer) const = 0;
};

using Rules = std::vector<std::unique_ptr<Rule>>;

Rules make_rules();
std::int64_t price(const Rules &rules, const Offer &offer); // of the whole line; never below what it costs

} // namespace pricing

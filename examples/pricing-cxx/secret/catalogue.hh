// What there is to sell, and to whom on which terms.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>

namespace pricing {

struct Product {
    std::int64_t list_cents;
    std::int64_t cost_cents;
};

class UnknownProduct : public std::out_of_range {
    using std::out_of_range::out_of_range;
};

class Catalogue {
  public:
    Catalogue();
    const Product &product(std::string_view name) const; // throws UnknownProduct
    int discount_permille(std::string_view customer) const;

  private:
    std::map<std::string, Product, std::less<>> products;
    std::map<std::string, int, std::less<>> customers;
};

} // namespace pricing

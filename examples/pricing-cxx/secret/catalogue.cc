#include "catalogue.hh"

namespace pricing {

Catalogue::Catalogue()
    : products{{"anvil", {12'990, 8'450}},
               {"rocket-skates", {49'900, 21'300}},
               {"bird-seed", {450, 90}},
               {"magnet", {7'995, 3'120}}},
      customers{{"coyote", 80}, {"roadrunner", 0}, {"acme-resale", 220}} {
}

const Product &Catalogue::product(std::string_view name) const {
    const auto found = products.find(name);
    if (found == products.end())
        throw UnknownProduct{std::string{name}};
    return found->second;
}

int Catalogue::discount_permille(std::string_view customer) const {
    const auto found = customers.find(customer);
    return found == customers.end() ? 0 : found->second;
}

} // namespace pricing

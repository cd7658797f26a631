#include "rules.hh"

#include <algorithm>
#include <numeric>

namespace pricing {

namespace {

constexpr int WHOLE = 1000;
constexpr int LEAST_MARGIN = 50; // permille over cost

class Customer final : public Rule {
    int permille(const Offer &offer) const override {
        return -offer.customer_permille;
    }
};

class Quantity final : public Rule {
    int permille(const Offer &offer) const override {
        static constexpr struct {
            std::uint32_t from;
            int permille;
        } steps[] = {{250, -145}, {100, -110}, {25, -60}, {10, -25}};
        const auto step = std::find_if(std::begin(steps), std::end(steps),
                                       [&](const auto &one) { return offer.quantity >= one.from; });
        return step == std::end(steps) ? 0 : step->permille;
    }
};

class Scarcity final : public Rule {
    int permille(const Offer &offer) const override {
        if (offer.stock < 0)
            return 0;
        const auto left = offer.stock - static_cast<std::int64_t>(offer.quantity);
        if (left < 0)
            return 180; // has to be ordered
        return left < 20 ? 95 : left > 1000 ? -40 : 0;
    }
};

} // namespace

Rules make_rules() {
    Rules rules;
    rules.push_back(std::make_unique<Customer>());
    rules.push_back(std::make_unique<Quantity>());
    rules.push_back(std::make_unique<Scarcity>());
    return rules;
}

std::int64_t price(const Rules &rules, const Offer &offer) {
    const int change = std::accumulate(rules.begin(), rules.end(), 0, [&](int sum, const auto &rule) {
        return sum + rule->permille(offer);
    });
    const auto wanted = offer.product.list_cents * (WHOLE + change) / WHOLE;
    const auto least = offer.product.cost_cents * (WHOLE + LEAST_MARGIN) / WHOLE;
    return std::max(wanted, least) * offer.quantity;
}

} // namespace pricing

// What an ordinary C++ program does.
#include "kit.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <iomanip>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace {
struct Shape {
    virtual double area() const = 0;
    virtual ~Shape() = default;
};
struct Square : Shape {
    double side;
    explicit Square(double x) : side(x) {
    }
    double area() const override {
        return side * side;
    }
};
struct Circle : Shape {
    double radius;
    explicit Circle(double r) : radius(r) {
    }
    double area() const override {
        return 3 * radius * radius;
    }
};

const std::map<std::string, int> numbers = {{"alpha", 1}, {"beta", 2}, {"gamma", 3}};
thread_local std::string per_thread = "t";
std::mutex mutex;

struct Failure : std::runtime_error {
    int code;
    explicit Failure(int c) : std::runtime_error("failure " + std::to_string(c)), code(c) {
    }
};

int deep(int n) {
    std::string padding(static_cast<std::size_t>(n) + 20, 'x');
    if (n == 0)
        throw Failure(77);
    return deep(n - 1) + static_cast<int>(padding.size());
}

void copy(char *to, std::uint32_t size, const std::string &text) {
    std::strncpy(to, text.c_str(), size);
}

struct Counted {
    int value;
    Counted() : value(7) {
    }
};

Counted &counted() {
    static Counted object;
    return object;
}
} // namespace

namespace kit {
Sum sort_numbers(std::int32_t *values, std::uint32_t n) {
    std::vector<std::int32_t> all(values, values + n);
    std::sort(all.begin(), all.end(), std::greater<>());
    std::copy(all.begin(), all.end(), values);
    return {std::accumulate(all.begin(), all.end(), std::int64_t{0}), static_cast<std::int32_t>(n)};
}

double shapes(double x) {
    std::vector<std::unique_ptr<Shape>> all;
    all.emplace_back(std::make_unique<Square>(x));
    all.emplace_back(std::make_unique<Circle>(x));
    double total = 0;
    for (const auto &shape : all)
        total += dynamic_cast<Circle *>(shape.get()) ? 100 * shape->area() : shape->area();
    return total;
}

std::int32_t words(const char *key, char *text, std::uint32_t size) {
    std::unordered_map<std::string, double> table;
    for (int i = 0; i < 100; i++)
        table["k" + std::to_string(i)] = i * 1.5;
    auto found = numbers.find(key);
    std::string value = found == numbers.end() ? "none" : std::to_string(found->second);
    copy(text, size, std::string(key) + ":" + value + ":" + std::to_string(table["k42"]));
    return static_cast<std::int32_t>(numbers.size());
}

std::int32_t thrown(std::int32_t depth, char *text, std::uint32_t size) {
    try {
        return deep(depth);
    } catch (const std::exception &error) {
        copy(text, size, error.what());
        auto failure = dynamic_cast<const Failure *>(&error);
        return failure ? failure->code : -1;
    }
}

std::int32_t bounds(std::int32_t index) {
    try {
        return std::vector<int>(10, 3).at(static_cast<std::size_t>(index));
    } catch (const std::out_of_range &) {
        return -100;
    }
}

std::int32_t too_much() {
    try {
        return std::vector<char>(1ull << 35).size() > 0;
    } catch (const std::bad_alloc &) {
        return -7;
    }
}

std::int32_t streams(double d, char *text, std::uint32_t size) {
    std::ostringstream out;
    out << "x=" << std::setprecision(10) << d << ' ' << std::hex << 255;
    copy(text, size, out.str());
    std::istringstream in("12 34");
    int a = 0, b = 0;
    in >> a >> b;
    return a + b;
}

std::int32_t uncaught(std::int32_t x) {
    if (x)
        throw x;
    return 5;
}

std::int32_t forbidden(std::int32_t x) {
    [x]() noexcept {
        if (x)
            throw Failure(x);
    }();
    return 6;
}

std::int32_t statics() {
    std::lock_guard<std::mutex> lock(mutex);
    per_thread += "u";
    return counted().value++ * 100 + static_cast<std::int32_t>(per_thread.size());
}
} // namespace kit

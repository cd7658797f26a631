// C++ inside an enclave: containers, exceptions, virtual functions, static and thread-local objects.
#pragma once

#include <cafe.h>
#include <cstdint>

namespace kit {
struct Sum {
    std::int64_t total;
    std::int32_t count;
};

CAFE_SECRET Sum sort_numbers(std::int32_t *values CAFE_INOUT(n), std::uint32_t n);
CAFE_SECRET double shapes(double x);
CAFE_SECRET std::int32_t words(const char *key CAFE_STR(100), char *text CAFE_OUT(size), std::uint32_t size);
CAFE_SECRET std::int32_t thrown(std::int32_t depth, char *text CAFE_OUT(size), std::uint32_t size);
CAFE_SECRET std::int32_t bounds(std::int32_t index);
CAFE_SECRET std::int32_t too_much();
CAFE_SECRET std::int32_t streams(double d, char *text CAFE_OUT(size), std::uint32_t size);
CAFE_SECRET std::int32_t uncaught(std::int32_t x);
CAFE_SECRET std::int32_t forbidden(std::int32_t x);
CAFE_SECRET std::int32_t statics();
} // namespace kit

#include <stdint.h>

int64_t plain_c(int64_t value);

int64_t plain_c(int64_t value) {
    return value * 2;
}

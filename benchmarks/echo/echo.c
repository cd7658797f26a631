#include "echo.h"

#include <string.h>

void nothing(void) {
}

int echo64(const uint8_t *in, uint8_t *out) {
    memcpy(out, in, 64);
    return in[0];
}

int fault(void) {
    __builtin_trap();
}

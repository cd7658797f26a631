/* What libc, libgcc and libstdc++ expect of a system, as far as an enclave can give it. */
#include "rt.h"

#include <errno.h>
#include <string.h>
#include <sys/types.h>

#define RANDOM_TRIES 64

void rt_abort(enum cafe_status status) {
    for (;;) {
        rt_exit(CAFE_EXIT_ABORT, status);
        __builtin_trap();
    }
}

bool rt_random(uint64_t *value) {
    for (int i = 0; i < RANDOM_TRIES; i++) {
        unsigned long long word;
        unsigned char good;
        __asm__ volatile("rdrand %0; setc %1" : "=r"(word), "=qm"(good) : : "cc");
        if (good) {
            *value = word;
            return true;
        }
    }
    return false;
}

/* ---- ending: all of these mean that the secret code cannot go on */

_Noreturn void abort(void);
_Noreturn void __stack_chk_fail(void);
_Noreturn void __assert_fail(const char *expression, const char *file, int line, const char *function);

void abort(void) {
    rt_abort(CAFE_E_ABORT);
}

void __stack_chk_fail(void) {
    rt_abort(CAFE_E_ABORT);
}

void __assert_fail(const char *expression, const char *file, int line, const char *function) {
    (void)expression, (void)file, (void)line, (void)function;
    rt_abort(CAFE_E_ABORT);
}

/* ---- random bytes, straight from the CPU */

ssize_t getrandom(void *buffer, size_t bytes, unsigned flags);
int getentropy(void *buffer, size_t bytes);

ssize_t getrandom(void *buffer, size_t bytes, unsigned flags) {
    (void)flags;
    uint8_t *to = buffer;
    for (size_t left = bytes; left;) {
        uint64_t word;
        if (!rt_random(&word)) {
            errno = EIO;
            return -1;
        }
        size_t part = left < sizeof word ? left : sizeof word;
        memcpy(to, &word, part);
        to += part;
        left -= part;
    }
    return (ssize_t)bytes;
}

int getentropy(void *buffer, size_t bytes) {
    if (bytes > 256) {
        errno = EIO;
        return -1;
    }
    return getrandom(buffer, bytes, 0) < 0 ? -1 : 0;
}

/* ---- exceptions: where the unwind tables are, as libgcc asks from GCC 12 on */

struct dl_find_object {
    unsigned long long flags;
    void *map_start, *map_end, *link_map, *eh_frame;
    unsigned long long reserved[7];
};
int _dl_find_object(void *address, struct dl_find_object *result);

int _dl_find_object(void *address, struct dl_find_object *result) {
    if ((char *)address < __image_base || (char *)address >= __image_end)
        return -1;
    memset(result, 0, sizeof *result);
    result->map_start = __image_base;
    result->map_end = __image_end;
    result->eh_frame = __eh_frame_hdr_start;
    return 0;
}

/*
 * cafe_native.h - the public API of a native build, where the secret code is linked into the program itself.
 * A generated file describes one library to it. Nothing is protected here.
 */
#ifndef CAFE_NATIVE_H
#define CAFE_NATIVE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(hidden)

struct cafe_native_function {
    const char *name;
    void (*address)(void);
};

/* A function of the program that secret code calls. Its calls jump through `target`; `initial` is the
 * program's function of that name, or one that ends the process. */
struct cafe_native_callback {
    const char *name;
    void (*initial)(void);
    void (**target)(void);
};

struct cafe_native_library {
    const char *name;
    const struct cafe_native_function *functions;
    uint32_t function_count;
    const struct cafe_native_callback *callbacks;
    uint32_t callback_count;
    struct cafe_native_library *next; /* of all native libraries of the program */
};

/* Called once, before main; says on stderr that nothing is protected. */
void cafe_native_register(struct cafe_native_library *library);

__attribute__((noreturn)) void cafe_native_missing(const char *callback);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif

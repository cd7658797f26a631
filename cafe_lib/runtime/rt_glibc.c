/* For C++ only: what a libstdc++ and headers made for glibc expect, and musl does not have or has otherwise.
 */
#include "rt.h"

#include <ctype.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char __libc_single_threaded = 0;

/* std::terminate() calls this variable of libstdc++; its own value would print, and there is no stderr. */
extern void (*rt_terminate_handler)(void) __asm__("_ZN10__cxxabiv119__terminate_handlerE");
void (*rt_terminate_handler)(void) = abort;

/* Local statics: libstdc++ would wait in the kernel. Byte 0 says that one is made, bytes 4 to 7 who makes it.
 */
int __cxa_guard_acquire(uint32_t *guard);
void __cxa_guard_release(uint32_t *guard);
void __cxa_guard_abort(uint32_t *guard);

int __cxa_guard_acquire(uint32_t *guard) {
    return !__atomic_load_n((uint8_t *)guard, __ATOMIC_ACQUIRE) && rt_once(guard + 1);
}

void __cxa_guard_release(uint32_t *guard) {
    __atomic_store_n((uint8_t *)guard, 1, __ATOMIC_RELEASE);
    __atomic_store_n(guard + 1, 2, __ATOMIC_RELEASE);
}

void __cxa_guard_abort(uint32_t *guard) {
    __atomic_store_n(guard + 1, 0, __ATOMIC_RELEASE);
}

/* The enclave's threads never end, so destructors of its thread-local objects never run. */
int __cxa_thread_atexit_impl(void (*destructor)(void *), void *object, void *library);

int __cxa_thread_atexit_impl(void (*destructor)(void *), void *object, void *library) {
    (void)destructor, (void)object, (void)library;
    return 0;
}

uint32_t arc4random(void);

uint32_t arc4random(void) {
    uint64_t word;
    if (!rt_random(&word))
        rt_abort(CAFE_E_ABORT);
    return (uint32_t)word;
}

/* glibc 2.38 and later redirect these to C23 variants. */
#define C23(type, name)                                                                                      \
    type __isoc23_##name(const char *text, char **end, int base);                                            \
    type __isoc23_##name(const char *text, char **end, int base) {                                           \
        return name(text, end, base);                                                                        \
    }
C23(long, strtol)
C23(unsigned long, strtoul)
C23(long long, strtoll)
C23(unsigned long long, strtoull)

int __isoc23_sscanf(const char *text, const char *format, ...);
int __isoc23_sscanf(const char *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int count = vsscanf(text, format, arguments);
    va_end(arguments);
    return count;
}

/* ---- the C locale in glibc's form, into which libstdc++ looks; musl, which sees only the first six
 * pointers, takes it for its own C locale */

struct glibc_locale {
    void *data[13];
    const unsigned short *ctype_b;
    const int *ctype_tolower, *ctype_toupper;
    const char *names[13];
};

const unsigned short **__ctype_b_loc(void);
const int **__ctype_tolower_loc(void);
const int **__ctype_toupper_loc(void);
locale_t __newlocale(int mask, const char *name, locale_t base);
locale_t __duplocale(locale_t locale);
void __freelocale(locale_t locale);

locale_t __newlocale(int mask, const char *name, locale_t base) {
    static struct glibc_locale c_locale;
    (void)mask, (void)base;
    if (*name && strcmp(name, "C") != 0 && strcmp(name, "POSIX") != 0)
        return NULL;
    c_locale.ctype_b = *__ctype_b_loc();
    c_locale.ctype_tolower = *__ctype_tolower_loc();
    c_locale.ctype_toupper = *__ctype_toupper_loc();
    for (size_t i = 0; i < sizeof c_locale.names / sizeof c_locale.names[0]; i++)
        c_locale.names[i] = "C";
    return (locale_t)&c_locale;
}

locale_t __duplocale(locale_t locale) {
    return locale;
}

void __freelocale(locale_t locale) {
    (void)locale;
}

__attribute__((alias("__newlocale"))) locale_t newlocale(int mask, const char *name, locale_t base);
__attribute__((alias("__duplocale"))) locale_t duplocale(locale_t locale);
__attribute__((alias("__freelocale"))) void freelocale(locale_t locale);

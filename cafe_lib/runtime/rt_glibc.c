/* Names that a libstdc++ or headers made for glibc refer to, and musl does not have. */
#include "rt.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

char __libc_single_threaded = 1;

/* std::terminate() calls this variable of libstdc++; its own value would print, and there is no stderr. */
extern void (*rt_terminate_handler)(void) __asm__("_ZN10__cxxabiv119__terminate_handlerE");
void (*rt_terminate_handler)(void) = abort;

/* The enclave's one thread never ends, so destructors of its thread-local objects never run. */
int __cxa_thread_atexit_impl(void (*destructor)(void *), void *object, void *library);

int __cxa_thread_atexit_impl(void (*destructor)(void *), void *object, void *library)
{
    (void)destructor, (void)object, (void)library;
    return 0;
}

uint32_t arc4random(void);

uint32_t arc4random(void)
{
    uint64_t word;
    if (!rt_random(&word))
        rt_abort(CAFE_E_ABORT);
    return (uint32_t)word;
}

/* glibc 2.38 and later redirect these to C23 variants. */
#define C23(type, name)                                                                                        \
    type __isoc23_##name(const char *text, char **end, int base);                                              \
    type __isoc23_##name(const char *text, char **end, int base)                                               \
    {                                                                                                          \
        return name(text, end, base);                                                                          \
    }
C23(long, strtol)
C23(unsigned long, strtoul)
C23(long long, strtoll)
C23(unsigned long long, strtoull)

int __isoc23_sscanf(const char *text, const char *format, ...);
int __isoc23_sscanf(const char *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int count = vsscanf(text, format, arguments);
    va_end(arguments);
    return count;
}

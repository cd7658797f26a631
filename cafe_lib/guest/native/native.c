/* native.c - cafe.h for a native build: no enclave, no agent, no failure but the program's own. */
#include "cafe_native.h"

#include "cafe.h"
#include "cafe_abi.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CAFE_PUBLIC __attribute__((visibility("default")))
#define CAFE_BULK_ALIGNMENT 64u /* what cafe_alloc of a protected library gives */

static struct cafe_native_library *libraries;

/* What `cafe inspect` looks for, and `strings`: no protected library has it. */
CAFE_PUBLIC extern const char cafe_native_build[];
const char cafe_native_build[] = "cafe: NATIVE build, the secret code is NOT protected";

static void say(const char *text) {
    const ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written;
}

void cafe_native_register(struct cafe_native_library *library) {
    char text[256];
    library->next = libraries;
    libraries = library;
    for (uint32_t i = 0; i < library->callback_count; i++) {
        *library->callbacks[i].target = library->callbacks[i].initial;
    }
    const int length = snprintf(text, sizeof text,
                                "cafe: %.64s is a native build: its secret code is part "
                                "of this program, nothing is protected\n",
                                library->name);
    if (length > 0) {
        say(text);
    }
}

void cafe_native_missing(const char *callback) {
    char text[256];
    const int length = snprintf(text, sizeof text,
                                "cafe: the secret code calls %.128s, which this program neither defines nor "
                                "gave to cafe_set_callback\n",
                                callback);
    if (length > 0) {
        say(text);
    }
    abort();
}

CAFE_PUBLIC int cafe_last_error(void) {
    return CAFE_OK;
}

CAFE_PUBLIC const char *cafe_error_message(void) {
    return "";
}

CAFE_PUBLIC void *cafe_secret_base(const char *library) {
    (void)library;
    return NULL;
}

CAFE_PUBLIC size_t cafe_secret_size(const char *library) {
    (void)library;
    return 0;
}

CAFE_PUBLIC void *cafe_secret_address(const char *function) {
    for (const struct cafe_native_library *library = libraries; library != NULL; library = library->next) {
        for (uint32_t i = 0; i < library->function_count; i++) {
            if (strcmp(library->functions[i].name, function) == 0) {
                void *address = NULL;
                memcpy(&address, &library->functions[i].address, sizeof address);
                return address;
            }
        }
    }
    return NULL;
}

CAFE_PUBLIC void *cafe_alloc(const char *library, size_t bytes) {
    (void)library;
    void *memory = NULL; /* of the very size, so that a sanitizer sees one byte too many */
    return posix_memalign(&memory, CAFE_BULK_ALIGNMENT, bytes) == 0 ? memory : NULL;
}

CAFE_PUBLIC void cafe_free(void *memory) {
    free(memory);
}

CAFE_PUBLIC int cafe_set_callback(const char *name, void (*function)(void)) {
    int found = -1;
    for (const struct cafe_native_library *library = libraries; library != NULL; library = library->next) {
        for (uint32_t i = 0; i < library->callback_count; i++) {
            if (strcmp(library->callbacks[i].name, name) == 0) {
                const struct cafe_native_callback *callback = &library->callbacks[i];
                __atomic_store_n(callback->target, function != NULL ? function : callback->initial,
                                 __ATOMIC_RELEASE);
                found = 0;
            }
        }
    }
    return found;
}

/* stand_in.c - rt.h for an ordinary process: the same promises, and an end where somebody breaks one. */
#define _GNU_SOURCE
#include "stand_in.h"

#include <errno.h>
#include <sanitizer/asan_interface.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct stand_in stand_in;
__thread struct rt_cpu rt_cpu;

static struct cafe_boot boot;
static struct rt_slot slot;
static uint32_t *fetched; /* per byte of the region: the message in which it was fetched */
static uint32_t message;  /* what the guest sends between two turns of the enclave */
static jmp_buf end_of_call;
static bool in_call;

void stand_in_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)fputs("cafe fuzz: ", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    (void)fflush(stderr);
    _exit(STAND_IN_EXIT);
}

/* ------------------------------------------------------------------ shared memory */

static uint8_t *map(int fd) {
    void *view = mmap(NULL, stand_in.region_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (view == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return view;
}

void stand_in_start(uint64_t slot_bytes, uint64_t bulk_bytes) {
    const uint64_t slots_end = CAFE_CHANNEL_HEADER_BYTES + STAND_IN_SLOTS * slot_bytes;
    stand_in.slot_bytes = slot_bytes;
    stand_in.bulk_bytes = bulk_bytes;
    stand_in.bulk_start = (slots_end + CAFE_BULK_ALIGN - 1) / CAFE_BULK_ALIGN * CAFE_BULK_ALIGN;
    stand_in.region_bytes = bulk_bytes == 0 ? slots_end : stand_in.bulk_start + bulk_bytes;
    const int fd = memfd_create("region", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)stand_in.region_bytes) != 0) {
        perror("memfd");
        exit(2);
    }
    stand_in.guest = map(fd);
    stand_in.enclave = map(fd);
    fetched = mmap(NULL, 4 * stand_in.region_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fetched == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    stand_in.slot = STAND_IN_SLOTS - 1; /* with memory on either side */
    slot.start = stand_in.enclave;
    slot.shared = (struct cafe_slot *)(void *)stand_in_slot();
    slot.shared = (struct cafe_slot *)(void *)((uint8_t *)slot.shared - stand_in.guest + stand_in.enclave);
    slot.index = stand_in.slot;
    ASAN_POISON_MEMORY_REGION(stand_in.enclave, stand_in.region_bytes);
    ASAN_UNPOISON_MEMORY_REGION(slot.shared, CAFE_SLOT_FRAME);
    boot.slot_count = STAND_IN_SLOTS;
    boot.slot_bytes = slot_bytes;
    boot.bulk_bytes = bulk_bytes;
    rt_cpu.boot = &boot;
}

struct cafe_slot *stand_in_slot(void) {
    return (struct cafe_slot *)(void *)(stand_in.guest + CAFE_CHANNEL_HEADER_BYTES +
                                        stand_in.slot * stand_in.slot_bytes);
}

static bool within(uint64_t at, uint64_t n, uint64_t start, uint64_t bytes) {
    return at >= start && at - start <= bytes && n <= bytes - (at - start);
}

/* Where in the region; ends the run if it is neither in the slot that is played in nor in the bulk area. */
static uint64_t place(const volatile void *shared, uint64_t n, const char *what) {
    const uint64_t at = (uint64_t)((const volatile uint8_t *)shared - stand_in.enclave);
    const uint64_t start = CAFE_CHANNEL_HEADER_BYTES + stand_in.slot * stand_in.slot_bytes;
    if (!within(at, n, start, stand_in.slot_bytes) &&
        !within(at, n, stand_in.bulk_start, stand_in.bulk_bytes)) {
        stand_in_fail("%s outside the slot: %lu bytes at offset %ld", what, n, (int64_t)(at - start));
    }
    return at;
}

uint8_t *stand_in_alias(const volatile void *shared) {
    return stand_in.guest + place(shared, 0, "access");
}

void stand_in_read(void *private_dst, const volatile void *shared_src, uint64_t n) {
    if (n == 0) {
        return;
    }
    const uint64_t at = place(shared_src, n, "read");
    const volatile uint8_t *source = stand_in.guest + at;
    for (uint64_t i = 0; i < n; i++) {
        if (fetched[at + i] == message) {
            stand_in_fail("double fetch: the byte at offset %lu of the region is read again", at + i);
        }
        fetched[at + i] = message;
        ((uint8_t *)private_dst)[i] = source[i];
    }
    stand_in.fetched += n;
}

void stand_in_write(volatile void *shared_dst, const void *src, uint64_t n) {
    if (n == 0) {
        return;
    }
    volatile uint8_t *target = stand_in.guest + place(shared_dst, n, "write");
    for (uint64_t i = 0; i < n; i++) {
        target[i] = ((const uint8_t *)src)[i];
    }
}

/* ------------------------------------------------------------------ ending */

static __attribute__((noreturn)) void give_up(enum cafe_status status, const char *why) {
    if (status == CAFE_E_ABORT && !stand_in.may_abort) {
        stand_in_fail("abort: %s", why);
    }
    if (!in_call) {
        stand_in_fail("abort: outside of a call: %s", why);
    }
    stand_in.aborted = (uint32_t)status;
    longjmp(end_of_call, 1);
}

void rt_abort(enum cafe_status status) {
    give_up(status, status == CAFE_E_ABORT ? "an exception left the secret code" : "the runtime gave up");
}

/* What secret code calls; in the enclave these end it as well. */
void abort(void) {
    give_up(CAFE_E_ABORT, "the secret code called abort()");
}

void __assert_fail(const char *text, const char *file, unsigned int line, const char *function) {
    char why[512];
    (void)snprintf(why, sizeof why, "%s:%u: %s: assertion failed: %s", file, line, function, text);
    give_up(CAFE_E_ABORT, why);
}

/* ------------------------------------------------------------------ one vCPU that never waits */

void rt_lock(struct rt_lock *lock) {
    if (lock->owner != 0 && lock->owner != 1) {
        stand_in_fail("a lock's owner is %u", lock->owner);
    }
    lock->owner = 1;
    lock->depth++;
}

void rt_unlock(struct rt_lock *lock) {
    if (lock->owner != 1 || lock->depth == 0) {
        stand_in_fail("a lock is given back that nobody has");
    }
    if (--lock->depth == 0) {
        lock->owner = 0;
    }
}

bool rt_attached(const struct rt_slot *of) {
    (void)of;
    return stand_in.there();
}

bool rt_idle(uint32_t turns) {
    (void)turns;
    stand_in.turn();
    return false;
}

void rt_nap(void) {
}

void rt_wake(struct rt_slot *of) {
    of->woken = of->served;
}

void rt_fresh(uint64_t wide) {
    (void)wide;
}

void rt_begin(const struct rt_slot *of) {
    (void)of;
    message++; /* what the guest has written since may be read, once */
}

void rt_end(void) {
}

void rt_answer(struct rt_slot *of, uint32_t status) {
    stand_in.callbacks += status == CAFE_STATUS_CALLBACK;
    of->shared->status = status;
    __atomic_store_n(&of->shared->reply, of->served, __ATOMIC_RELEASE);
}

void rt_forget(struct rt_call *call) {
    if (call->offset > call->slot_bytes) {
        stand_in_fail("%lu bytes of a slot of %lu were used", call->offset, call->slot_bytes);
    }
    memset(call->arena, 0xa5, call->slot_bytes);
    rt_large_free(call);
}

enum cafe_status rt_run(struct rt_call *call) {
    const uint32_t entry = *(volatile uint32_t *)&call->shared->entry;
    message++;
    stand_in.nested += call->depth > 0;
    if (entry >= stand_in_entry_count) {
        return CAFE_E_ENTRY;
    }
    call->outer = rt_cpu.call;
    rt_cpu.call = call;
    errno = 0;
    const uint64_t running = *stand_in.entry;
    *stand_in.entry = entry;
    const enum cafe_status status = stand_in_entries[entry](call);
    *stand_in.entry = running;
    rt_cpu.call = call->outer;
    return status;
}

enum cafe_status stand_in_call(void) {
    static uint8_t *arena; /* of exactly a slot's size, so that a sanitizer sees every byte outside */
    struct rt_call call = {.shared = slot.shared, .slot_bytes = stand_in.slot_bytes, .own = &slot};
    if (arena == NULL) {
        arena = malloc(stand_in.slot_bytes);
        if (arena == NULL) {
            exit(2);
        }
        memset(arena, 0xa5, stand_in.slot_bytes);
    }
    call.arena = arena;
    call.slot = (const volatile uint8_t *)call.shared;
    slot.served = __atomic_load_n(&slot.shared->request, __ATOMIC_ACQUIRE);
    stand_in.aborted = 0;
    enum cafe_status status = CAFE_E_ABORT;
    in_call = true;
    if (setjmp(end_of_call) == 0) {
        rt_begin(&slot);
        status = rt_run(&call);
        rt_answer(&slot, (uint32_t)status);
        rt_forget(&call);
        rt_end();
    } else {
        status = (enum cafe_status)stand_in.aborted;
    }
    in_call = false;
    rt_cpu.call = NULL;
    return status;
}

/* rt_large.c's allocation, of exactly the size it needs: an access behind it is seen. */
void *stand_in_aligned_alloc(size_t align, size_t bytes) {
    void *memory = NULL;
    return posix_memalign(&memory, align, bytes) == 0 ? memory : NULL;
}

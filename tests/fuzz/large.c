/* large.c - words that stand for buffers of the bulk area: never a byte outside it, never memory kept. */
#include "fuzz.h"

/* Of exactly the size that is asked for, so that a sanitizer sees the first byte behind it. */
static void *exact_alloc(size_t align, size_t bytes) {
    void *memory = NULL;
    return posix_memalign(&memory, align, bytes) == 0 ? memory : NULL;
}

#define aligned_alloc exact_alloc
#include "../../cafe_lib/runtime/rt_large.c"

#define SLOT_BYTES 4096u
#define SLOTS 4u

__thread struct rt_cpu rt_cpu;

static void try_word(struct rt_call *call, const struct cafe_boot *boot, uint64_t word, uint64_t bytes) {
    const uint64_t start = CAFE_BULK_ALIGN; /* the first multiple behind the slots */
    struct rt_buffer buffer = {0};
    const enum cafe_status status = rt_large(call, &buffer, word, bytes);
    const bool inside = word % CAFE_CACHE_LINE == 0 && word >= start && word - start <= boot->bulk_bytes &&
                        bytes <= boot->bulk_bytes - (word - start);
    FUZZ_NEED(status == CAFE_OK || status == CAFE_E_MALFORMED || status == CAFE_E_LIMIT);
    FUZZ_NEED(inside == (status != CAFE_E_MALFORMED));
    if (status != CAFE_OK) {
        FUZZ_NEED(buffer.at == NULL && buffer.shared == NULL);
        return;
    }
    FUZZ_NEED(buffer.bytes == bytes && buffer.shared == call->own->start + word);
    memset(buffer.at, 1, bytes); /* its private memory is all there, for a sanitizer to see */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t region[1]; /* only its address is used */
    struct fuzz_input input = {data, size};
    struct cafe_boot boot = {.slot_count = SLOTS, .slot_bytes = SLOT_BYTES};
    struct rt_slot slot = {.start = region};
    struct rt_call call = {.own = &slot};
    boot.bulk_bytes = (uint64_t)(fuzz_byte(&input) % 3) * CAFE_BULK_ALIGN;
    rt_cpu.boot = &boot;
    for (uint32_t i = 0; i < 8 && input.left > 0; i++) {
        const uint8_t kind = fuzz_byte(&input);
        uint64_t word = fuzz_word(&input), bytes = fuzz_word(&input);
        if (kind % 2 == 0) { /* about the edges of the area */
            word = CAFE_BULK_ALIGN + word % (boot.bulk_bytes + 4096) - 2048;
        }
        if (kind % 4 < 2) {
            bytes %= boot.bulk_bytes + 4096;
        }
        try_word(&call, &boot, word, bytes);
    }
    rt_large_free(&call);
    FUZZ_NEED(call.large == NULL);
    return 0;
}

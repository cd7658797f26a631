/* frame.c - a frame laid out as a generated stub does it, buffer by buffer, with the words a guest sends. */
#include "fuzz.h"
#include "rt.h"

#define SLOT_BYTES 4096u
#define MOST_BUFFERS 16u

static const uint64_t elements[] = {1, 2, 3, 4, 8, 12, 16, 24, 32, 56, 64, 100, 4096, 1u << 20};

/* The bulk area is another target's; here a word other than 0 and 1 must come to it, and nowhere else. */
enum cafe_status rt_large(struct rt_call *call, struct rt_buffer *buffer, uint64_t word, uint64_t bytes) {
    FUZZ_NEED(call != NULL && buffer->at == NULL && buffer->shared == NULL && buffer->bytes == 0);
    FUZZ_NEED(word > 1);
    return bytes % 2 == 0 ? CAFE_E_MALFORMED : CAFE_E_LIMIT;
}

static void need_apart(const struct rt_buffer *buffers, uint32_t count, const struct rt_call *call) {
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t start = (uint64_t)(buffers[i].at - call->arena);
        FUZZ_NEED(start >= CAFE_SLOT_FRAME && start % 16 == 0 && start <= SLOT_BYTES);
        FUZZ_NEED(buffers[i].bytes <= SLOT_BYTES - start);
        FUZZ_NEED(buffers[i].shared == (volatile uint8_t *)call->shared + start);
        FUZZ_NEED(i == 0 || buffers[i - 1].at + buffers[i - 1].bytes <= buffers[i].at);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t arena[SLOT_BYTES], slot[SLOT_BYTES];
    struct fuzz_input input = {data, size};
    struct rt_buffer buffers[MOST_BUFFERS];
    uint32_t placed = 0;
    struct rt_call call = {.slot = slot, .shared = (struct cafe_slot *)(void *)slot, .arena = arena};
    call.slot_bytes = SLOT_BYTES;
    call.offset = CAFE_SLOT_FRAME + fuzz_word(&input) % 2049;
    for (uint32_t i = 0; i < MOST_BUFFERS && input.left > 0; i++) {
        struct rt_buffer buffer;
        const uint64_t before = call.offset, element = elements[fuzz_byte(&input) % 14];
        const uint64_t word = fuzz_byte(&input) % 4 == 3 ? fuzz_word(&input) : 1, count = fuzz_word(&input);
        const enum cafe_status status = rt_buffer(&call, &buffer, word, count, element);
        FUZZ_NEED(status == CAFE_OK || status == CAFE_E_LIMIT || status == CAFE_E_MALFORMED);
        FUZZ_NEED(word != 0 || (status == CAFE_OK && buffer.at == NULL && buffer.bytes == 0));
        if (status != CAFE_OK || word != 1) {
            FUZZ_NEED(buffer.at == NULL && call.offset == before);
            continue;
        }
        FUZZ_NEED(buffer.bytes == count * element && call.offset >= before);
        buffers[placed++] = buffer;
        need_apart(buffers, placed, &call);
        rt_take_in(&buffer);
        rt_give_out(&buffer);
    }
    return 0;
}

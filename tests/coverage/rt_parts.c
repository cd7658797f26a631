/* rt_parts.c - what stubs are made of: areas, copies, buffers, the frame of a callback; and large buffers. */
#include "play.h"
#include "rt_stub.h"

#include <string.h>

#define TOP (~0ull)
#define COPY_MOST 700u
#define BULK_START ((uint64_t)CAFE_BULK_ALIGN)

enum cafe_status play_entry_0(struct rt_call *call) {
    CAFE_NEED(call->offset ? CAFE_E_LIMIT : CAFE_OK);
    CAFE_REFUSE(call->depth);
    return CAFE_OK;
}

enum cafe_status play_entry_1(struct rt_call *call) {
    return play_entry_0(call);
}

enum cafe_status play_entry_2(struct rt_call *call) {
    return play_entry_0(call);
}

enum cafe_status play_entry_3(struct rt_call *call) {
    return play_entry_0(call);
}

static uint8_t arena[PLAY_SLOT_BYTES];
static struct rt_slot own;

static struct rt_call fresh(void) {
    struct rt_call call = {
        .shared = play_slot(0, 0), .arena = arena, .slot_bytes = PLAY_SLOT_BYTES, .own = &own};
    own = (struct rt_slot){.start = play_regions, .shared = call.shared};
    call.slot = (const volatile uint8_t *)call.shared;
    call.offset = CAFE_SLOT_FRAME;
    return call;
}

static void steps(void) {
    struct rt_call call = {.offset = 0};
    NEED(play_entry_0(&call) == CAFE_OK);
    call.depth = 1;
    NEED(play_entry_1(&call) == CAFE_E_MALFORMED);
    call.offset = 1;
    NEED(play_entry_2(&call) == CAFE_E_LIMIT && play_entry_3(&call) == CAFE_E_LIMIT);
}

static bool area(uint64_t offset, uint64_t count, uint64_t size, uint64_t align) {
    uint64_t start = 77, end = offset;
    const bool fits = rt_area(&end, count, size, align, 4096, &start);
    NEED(fits ? start % align == 0 && start >= offset && end == start + count * size && end <= 4096
              : start == 77 && end == offset);
    return fits;
}

static void areas(void) {
    NEED(area(80, 0, 8, 16) && area(80, 251, 16, 16) && area(4096, 0, 1, 64));
    NEED(!area(80, 252, 16, 16));                                         /* one too many */
    NEED(!area(80, 1ull << 32, 1ull << 32, 16) && !area(80, TOP, 2, 16)); /* wraps in the product */
    NEED(!area(TOP, 0, 1, 16) && !area(TOP - 15, 16, 1, 16));             /* wraps in the sum */
    NEED(!area(4090, 1, 1, 64));
}

/* Each length that the copies treat differently, in both directions, exactly. */
static void copies(void) {
    for (uint64_t n = 0; n <= COPY_MOST; n += n < 40 ? 1 : 13) {
        uint8_t *from = malloc(n + 1), *to = malloc(n + 1), *back = malloc(n + 1);
        NEED(from && to && back);
        for (uint64_t i = 0; i < n; i++)
            from[i] = (uint8_t)(i * 7 + 1);
        to[n] = back[n] = 0xee;
        rt_read(to, from, n);
        rt_write(back, to, n);
        NEED(memcmp(to, from, n) == 0 && memcmp(back, from, n) == 0 && to[n] == 0xee && back[n] == 0xee);
        free(from);
        free(to);
        free(back);
    }
}

static void buffers(void) {
    struct rt_call call = fresh();
    struct rt_buffer buffer = {.bytes = 9};
    uint64_t start;
    NEED(rt_buffer(&call, &buffer, 0, TOP, TOP) == CAFE_OK && !buffer.at && buffer.bytes == 0);
    NEED(rt_buffer(&call, &buffer, 1, TOP, 2) == CAFE_E_LIMIT && !buffer.at);
    NEED(rt_buffer(&call, &buffer, 1, PLAY_SLOT_BYTES, 1) == CAFE_E_LIMIT && call.offset == CAFE_SLOT_FRAME);
    NEED(rt_buffer(&call, &buffer, 1, 3, 8) == CAFE_OK && buffer.at == arena + 80 && buffer.bytes == 24);
    memset((uint8_t *)call.shared + 80, 5, 24);
    rt_take_in(&buffer);
    NEED(arena[80] == 5 && arena[103] == 5);
    arena[80] = 6;
    rt_give_out(&buffer);
    NEED(((uint8_t *)call.shared)[80] == 6);
    NEED(rt_room(&call, 1, 64, &start) == CAFE_OK && start == 128);
    NEED(rt_room(&call, 4096, 64, &start) == CAFE_E_LIMIT && call.offset == 129);
    NEED(rt_buffer(&call, &buffer, 2, 1, 1) == CAFE_E_MALFORMED && !buffer.at);
}

static enum cafe_status large(struct rt_call *call, uint64_t word, uint64_t bytes) {
    struct rt_buffer buffer;
    const enum cafe_status status = rt_buffer(call, &buffer, word, bytes, 1);
    if (status == CAFE_OK) {
        NEED(buffer.shared == play_regions + word && buffer.bytes == bytes);
        memset(buffer.at, 7, bytes);
    } else {
        NEED(!buffer.at && !buffer.shared);
    }
    return status;
}

static void large_buffers(void) {
    struct rt_call call = fresh();
    const uint64_t end = BULK_START + PLAY_BULK;
    const uint64_t words[] = {2,        63,       64,  4096,       BULK_START - 64, BULK_START + 1,
                              end + 64, TOP - 63, TOP, 1ull << 32, 1ull << 63,      end + 1};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        NEED(large(&call, words[i], 1) == CAFE_E_MALFORMED);
    NEED(large(&call, end - 64, 65) == CAFE_E_MALFORMED && large(&call, end, 1) == CAFE_E_MALFORMED);
    NEED(large(&call, BULK_START, TOP) == CAFE_E_MALFORMED);
    NEED(large(&call, BULK_START + 64, PLAY_BULK) == CAFE_E_MALFORMED);
    NEED(large(&call, end - 64, 64) == CAFE_OK && large(&call, end, 0) == CAFE_OK);
    NEED(large(&call, BULK_START, PLAY_BULK) == CAFE_OK && large(&call, BULK_START, 100) == CAFE_OK);
    play_fail_memory = 1;
    NEED(large(&call, BULK_START, 1) == CAFE_E_LIMIT);
    rt_large_free(&call);
    NEED(!call.large);
    play_boot.bulk_bytes = 0;
    NEED(large(&call, BULK_START, 1) == CAFE_E_MALFORMED);
    play_boot.bulk_bytes = PLAY_BULK;
}

/* ---- a callback's frame; the VMM's part plays the guest, which sleeps at first */

static void guest(enum cafe_exit reason, uint64_t argument) {
    struct cafe_slot *slot = play_slot(0, 0);
    (void)argument;
    if (reason == CAFE_EXIT_IDLE && slot->status == CAFE_STATUS_CALLBACK) {
        slot->returned = slot->frame[0];
        slot->entry = CAFE_ENTRY_RETURN;
        slot->request = slot->reply + 1;
    }
}

static struct rt_frame frame_for(struct rt_call *call, uint64_t fixed_bytes) {
    struct rt_frame frame;
    rt_cpu.call = call;
    rt_frame_open(&frame, fixed_bytes);
    return frame;
}

static void frames(void) {
    struct rt_call call = fresh();
    struct rt_frame frame = frame_for(NULL, 8);
    NEED(frame.status == CAFE_E_CALLBACK && rt_frame_area(&frame, 1, 1, 16) == 0);
    rt_frame_check(&frame, false);
    NEED(rt_frame_string(&frame, "text", 3) == 0 && frame.status == CAFE_E_CALLBACK);
    rt_frame_run(&frame, 1);
    NEED(frame.status == CAFE_E_CALLBACK);
    frame = frame_for(&call, 8);
    rt_frame_check(&frame, true);
    NEED(rt_frame_string(&frame, "text", 5) == 5 && frame.status == CAFE_OK);
    NEED(rt_frame_string(&frame, "text", 4) == 0 && frame.status == CAFE_E_LIMIT);
    frame = frame_for(&call, 8);
    rt_frame_check(&frame, false);
    NEED(frame.status == CAFE_E_MALFORMED);
    frame = frame_for(&call, 8);
    NEED(rt_frame_area(&frame, 100, 8, 16) == 96 && frame.status == CAFE_OK);
    NEED(rt_frame_area(&frame, TOP, TOP, 16) == 0 && frame.status == CAFE_E_LIMIT);
}

static void callbacks(void) {
    struct rt_call call = fresh();
    for (uint32_t status = 0; status <= CAFE_E_CALLBACK + 1; status++) {
        struct rt_frame frame = frame_for(&call, 8);
        uint8_t back = 0;
        const uint8_t word = (uint8_t)status;
        rt_frame_put(&frame, CAFE_SLOT_FRAME, &word, 1);
        rt_frame_run(&frame, 1);
        NEED(frame.status == (status ? CAFE_E_CALLBACK : CAFE_OK));
        rt_frame_get(&frame, CAFE_SLOT_FRAME, &back, 1);
        NEED(back == word);
    }
}

static void holes(void) {
    struct rt_call call = fresh();
    struct rt_frame frame = frame_for(&call, 8);
    static const struct cafe_hole hole[] = {{.offset = 1, .count = 3, .mask = 0},
                                            {.offset = 9, .count = 1, .mask = 1}};
    static const uint8_t kept[12] = {0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0xff, 0xff};
    uint8_t source[24], cleared[24];
    memset(source, 0xff, sizeof source);
    rt_frame_put_clear(&frame, 96, source, 2, 12, hole, 2);
    NEED(memcmp((uint8_t *)call.shared + 96, kept, 12) == 0 &&
         memcmp((uint8_t *)call.shared + 108, kept, 12) == 0);
    memset(cleared, 0xff, sizeof cleared);
    cafe_clear_padding(cleared, 2, 12, hole, 2);
    NEED(memcmp(cleared, kept, 12) == 0 && memcmp(cleared + 12, kept, 12) == 0);
}

static void words(void) {
    uint8_t bytes[9] = {0};
    rt_set_word(bytes + 1, 0x1122334455667788);
    NEED(rt_word(bytes + 1) == 0x1122334455667788);
    rt_set_pointer(bytes + 1, bytes);
    NEED(rt_word(bytes + 1) == (uintptr_t)bytes && rt_zeros[CAFE_RESULT_BYTES - 1] == 0);
}

static bool bad_size(uint64_t (*work)(bool *, uint64_t, uint64_t), uint64_t a, uint64_t b) {
    bool bad = false;
    (void)work(&bad, a, b);
    return bad;
}

static void sizes(void) {
    bool bad = false;
    NEED(cafe_size_signed(&bad, 5) == 5 && !bad && cafe_size_signed(&bad, -1) == TOP && bad);
    NEED(bad_size(cafe_size_add, TOP, 1) && !bad_size(cafe_size_add, TOP - 1, 1));
    NEED(bad_size(cafe_size_sub, 0, 1) && !bad_size(cafe_size_sub, 1, 1));
    NEED(bad_size(cafe_size_mul, 1ull << 32, 1ull << 32) && !bad_size(cafe_size_mul, TOP, 1));
    NEED(bad_size(cafe_size_div, 1, 0) && !bad_size(cafe_size_div, 1, 1));
    NEED(bad_size(cafe_size_mod, 1, 0) && !bad_size(cafe_size_mod, 1, 1));
    NEED(bad_size(cafe_size_shl, 1, 64) && bad_size(cafe_size_shl, 2, 63) && !bad_size(cafe_size_shl, 1, 63));
    NEED(bad_size(cafe_size_shr, 1, 64) && !bad_size(cafe_size_shr, 1, 63));
}

int main(void) {
    play_start(1);
    play_monitor.attached[0] = 0; /* as the runtime, whose loop does not run, has it */
    play_vmm = guest;
    steps();
    areas();
    copies();
    buffers();
    large_buffers();
    frames();
    callbacks();
    holes();
    words();
    sizes();
    (void)puts("all good");
    return 0;
}

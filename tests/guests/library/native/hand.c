/* hand.c - public stubs of hand.h as `cafe build` would write them. */
#include "hand.h"
#include "cafe_guest.h"

struct two {
    uint64_t a, b;
};

static void serve(struct cafe_call *call, void (*function)(void)) {
    uint64_t value = 0, result = 0;
    cafe_call_get(call, CAFE_SLOT_FRAME, &value, sizeof value);
    call->offset += sizeof value;
    (void)cafe_call_area(call, 0, 1, 64);
    const uint64_t at = cafe_call_area(call, 1, sizeof result, 16);
    if (call->status == CAFE_OK) {
        result = ((hand_other *)function)(value);
    }
    cafe_call_put(call, at, &result, sizeof result);
}

static struct cafe_callback callbacks[HAND_CALLBACKS] = {
    {"hand_asked", (void (*)(void))hand_asked, serve},
    {"hand_other", NULL, serve},
};
static const struct cafe_function functions[] = {
    {"hand_empty", 4096, (void (*)(void))hand_empty},
};
static const struct cafe_binding binding = {
    "hand", {7}, {8}, 8192, functions, 1, callbacks, HAND_CALLBACKS,
};
static struct cafe_library library = CAFE_LIBRARY(&binding);

__attribute__((constructor)) static void reserve_range(void) {
    cafe_register(&library);
}

static uint64_t finish(struct cafe_call *call) {
    uint64_t result = HAND_FAILED;
    cafe_call_get(call, CAFE_SLOT_RESULT, &result, sizeof result);
    cafe_call_finish(call, false);
    return result;
}

static uint64_t plain(enum hand_entry entry, uint64_t a, uint64_t b) {
    struct cafe_call call;
    const struct two fixed = {a, b};
    cafe_call_start(&call, &library, (uint32_t)entry);
    cafe_call_enter(&call, sizeof fixed);
    cafe_call_put(&call, CAFE_SLOT_FRAME, &fixed, sizeof fixed);
    cafe_call_run(&call);
    return finish(&call);
}

uint64_t hand_empty(void) {
    struct cafe_call call;
    cafe_call_start(&call, &library, HAND_EMPTY);
    cafe_call_enter(&call, 0);
    cafe_call_run(&call);
    cafe_call_finish(&call, false);
    return call.status == CAFE_OK ? 0 : HAND_FAILED;
}

uint64_t hand_add(uint64_t a, uint64_t b) {
    return plain(HAND_ADD, a, b);
}

uint64_t hand_ask(uint64_t value) {
    return plain(HAND_ASK, value, 0);
}

uint64_t hand_sleep(uint64_t milliseconds) {
    return plain(HAND_SLEEP, milliseconds, 0);
}

uint64_t hand_errno(uint64_t value) {
    return plain(HAND_ERRNO, value, 0);
}

uint64_t hand_forge(uint64_t answer) {
    return plain(HAND_FORGE, answer, 0);
}

uint64_t hand_sum(const uint8_t *data, uint64_t count) {
    struct cafe_call call;
    struct cafe_place place;
    cafe_call_start(&call, &library, HAND_SUM);
    cafe_call_enter(&call, sizeof(struct two));
    cafe_call_place(&call, &place, data, count, 1);
    cafe_call_word(&call, CAFE_SLOT_FRAME, place.word);
    cafe_call_word(&call, CAFE_SLOT_FRAME + 8, count);
    if (call.status == CAFE_OK && place.at != NULL) {
        memcpy(place.at, data, place.bytes);
    }
    cafe_call_run(&call);
    return finish(&call);
}

uint64_t hand_fill(uint8_t *out, uint64_t count) {
    struct cafe_call call;
    struct cafe_place place;
    cafe_call_start(&call, &library, HAND_FILL);
    cafe_call_enter(&call, sizeof(struct two));
    (void)cafe_call_area(&call, 0, 1, 64);
    cafe_call_place(&call, &place, out, count, 1);
    cafe_call_word(&call, CAFE_SLOT_FRAME, place.word);
    cafe_call_word(&call, CAFE_SLOT_FRAME + 8, count);
    cafe_call_run(&call);
    if (call.status == CAFE_OK && place.at != NULL) {
        memcpy(out, place.at, place.bytes);
    }
    return finish(&call);
}

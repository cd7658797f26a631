/* frames.c - frames that lie: every field at the values where arithmetic goes wrong, and random ones. */
#include "hostile.h"

#include <string.h>

#define TOP 0xffffffffffffffffull
#define FILLS 5u    /* patterns of the data */
#define VARIANTS 6u /* and once more with the strings ended as they should be */
#define BASES 3u

static const uint64_t sizes[] = {0,          1,
                                 2,          3,
                                 7,          8,
                                 0x7f,       0x80,
                                 0xff,       0x100,
                                 0x7fff,     0x8000,
                                 0xffff,     0x10000,
                                 0x7fffffff, 0x80000000,
                                 0x80000001, 0xffffffff,
                                 1ull << 32, (1ull << 32) + 1,
                                 1ull << 61, (1ull << 61) + 1,
                                 1ull << 62, (1ull << 63) - 1,
                                 1ull << 63, (1ull << 63) + 1,
                                 TOP - 79,   TOP - 15,
                                 TOP - 1,    TOP};
#define SIZES (sizeof sizes / sizeof sizes[0])
static const uint64_t values[] = {0, 1, 2, 0x80, 1ull << 63, 0x8182838485868788ull, TOP};
#define VALUES (sizeof values / sizeof values[0])
/* Words of a pointer: flags, positions in slots, and places about the bulk area, which follow. */
static const uint64_t words[] = {0,   1,    2,    3,          63,         64,         65,       80,
                                 144, 4096, 4176, 1ull << 31, 1ull << 32, 1ull << 63, TOP - 63, TOP};
#define WORDS (sizeof words / sizeof words[0])
#define BULK_WORDS 14u

static uint64_t bulk_word(uint64_t which) {
    const uint64_t slots_end = CAFE_CHANNEL_HEADER_BYTES + 2 * hostile_slot_bytes;
    const uint64_t start = (slots_end + CAFE_BULK_ALIGN - 1) / CAFE_BULK_ALIGN * CAFE_BULK_ALIGN;
    const uint64_t end = start + hostile_bulk_bytes;
    const uint64_t places[BULK_WORDS] = {
        start,    start - 64, start + 1, start + 8,  start + 63,   start + 64, end - 64,
        end - 63, end,        end + 64,  end - 4096, start + 4096, slots_end,  start + (1ull << 32)};
    return places[which % BULK_WORDS];
}

static uint64_t choices(const struct hostile_function *function, uint32_t role) {
    switch (role) {
    case HOSTILE_BUFFER:
        return WORDS + BULK_WORDS;
    case HOSTILE_SIZE:
    case HOSTILE_STRING:
        return SIZES + function->edge_count;
    default:
        return VALUES;
    }
}

static uint64_t choice(const struct hostile_function *function, uint32_t role, uint64_t which) {
    switch (role) {
    case HOSTILE_BUFFER:
        return which < WORDS ? words[which] : bulk_word(which - WORDS);
    case HOSTILE_SIZE:
    case HOSTILE_STRING:
        return which < SIZES ? sizes[which] : function->edges[which - SIZES];
    default:
        return values[which];
    }
}

/* A field may be narrower than a word, or a record. */
static void set(const struct hostile_field *field, uint8_t *frame, uint64_t word) {
    uint8_t *at = frame + field->offset;
    for (uint32_t i = 0; i < field->bytes; i += 8) {
        memcpy(at + i, &word, field->bytes - i < 8 ? field->bytes - i : 8);
    }
}

/* Something that a careless program would send: all buffers there and small, or none, or empty. */
static void plausible(const struct hostile_function *function, uint64_t base, uint8_t *frame) {
    for (uint32_t i = 0; i < function->field_count; i++) {
        const struct hostile_field *field = &function->fields[i];
        const uint64_t small = field->role == HOSTILE_BUFFER ? 1 : 3;
        set(field, frame, base == 0 ? small : base == 1 ? 0 : field->role == HOSTILE_BUFFER);
    }
}

static void fill(uint64_t which, uint8_t *data, uint64_t bytes) {
    static const uint8_t patterns[FILLS] = {0, 'x', 0xff, 1, 0x80};
    memset(data, patterns[which % FILLS], bytes);
    if (which % FILLS == 3) { /* words of 1: pointers inside of structs that are there */
        memset(data, 0, bytes);
        for (uint64_t i = 0; i < bytes; i += 8) {
            data[i] = 1;
        }
    }
}

/* Put a NUL wherever one of the frame's strings may end: they start at multiples of 16. */
static void end_strings(const struct hostile_function *function, uint8_t *frame, uint64_t room) {
    for (uint32_t i = 0; i < function->field_count; i++) {
        uint64_t length;
        memcpy(&length, frame + function->fields[i].offset, sizeof length);
        if (function->fields[i].role != HOSTILE_STRING || length == 0 || length > room) {
            continue;
        }
        for (uint64_t at = (length - 1) % 16; at < room; at += 16) {
            if (at >= function->fixed_bytes) { /* the frame itself starts at one, too */
                frame[at] = 0;
            }
        }
    }
}

/* One field after the other on every base, then every pair of fields on the first. */
static uint64_t singles(const struct hostile_function *function) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < function->field_count; i++) {
        total += choices(function, function->fields[i].role);
    }
    return total;
}

static uint64_t pairs(const struct hostile_function *function) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < function->field_count; i++) {
        for (uint32_t k = 0; k < i; k++) {
            if (function->fields[i].role != HOSTILE_VALUE && function->fields[k].role != HOSTILE_VALUE) {
                total +=
                    choices(function, function->fields[i].role) * choices(function, function->fields[k].role);
            }
        }
    }
    return total;
}

uint64_t hostile_structured_count(const struct hostile_function *function) {
    return VARIANTS * (BASES * (singles(function) + 1) + pairs(function));
}

static void set_single(const struct hostile_function *function, uint64_t which, uint8_t *frame) {
    for (uint32_t i = 0; i < function->field_count; i++) {
        const struct hostile_field *field = &function->fields[i];
        const uint64_t count = choices(function, field->role);
        if (which < count) {
            set(field, frame, choice(function, field->role, which));
            return;
        }
        which -= count;
    }
}

static void set_pair(const struct hostile_function *function, uint64_t which, uint8_t *frame) {
    for (uint32_t i = 0; i < function->field_count; i++) {
        for (uint32_t k = 0; k < i; k++) {
            const struct hostile_field *one = &function->fields[i], *other = &function->fields[k];
            if (one->role == HOSTILE_VALUE || other->role == HOSTILE_VALUE) {
                continue;
            }
            const uint64_t first = choices(function, one->role), second = choices(function, other->role);
            if (which < first * second) {
                set(one, frame, choice(function, one->role, which / second));
                set(other, frame, choice(function, other->role, which % second));
                return;
            }
            which -= first * second;
        }
    }
}

void hostile_structured_frame(const struct hostile_function *function, uint64_t index, uint8_t *frame,
                              uint64_t room) {
    const uint64_t alone = BASES * (singles(function) + 1);
    uint64_t which = index / VARIANTS;
    const bool ended = index % VARIANTS == FILLS;
    fill(ended ? 1 : index % VARIANTS, frame, room);
    memset(frame, 0, function->fixed_bytes);
    if (which < alone) {
        plausible(function, which % BASES, frame);
        set_single(function, which / BASES, frame); /* the last one changes nothing */
    } else {
        plausible(function, 0, frame);
        set_pair(function, which - alone, frame);
    }
    if (ended) {
        end_strings(function, frame, room);
    }
}

uint64_t hostile_word(const struct hostile_function *function, uint32_t role, struct hostile_random *random) {
    const uint64_t dice = hostile_next(random), more = dice >> 8;
    switch (dice % 8) {
    case 0:
        return choice(function, role, more % choices(function, role));
    case 1:
        return hostile_next(random) >> more % 64;
    case 2:
        return role == HOSTILE_BUFFER ? bulk_word(0) + more % (hostile_bulk_bytes / 64 + 1) * 64 : more % 300;
    default:
        return role == HOSTILE_BUFFER ? more % 8 != 0 : more % 40;
    }
}

void hostile_random_data(struct hostile_random *random, uint8_t *data, uint64_t bytes) {
    const uint64_t kind = hostile_below(random, FILLS + 3);
    if (kind < FILLS) {
        fill(kind, data, bytes);
        return;
    }
    for (uint64_t i = 0; i < bytes; i += 8) {
        uint64_t word = hostile_next(random);
        word = kind == FILLS       ? word
               : kind == FILLS + 1 ? word & ~0xff000000ull /* a NUL here and there */
               : word % 4 != 0     ? word >> 8 & 3
                                   : words[(word >> 8) % WORDS];
        memcpy(data + i, &word, bytes - i < 8 ? bytes - i : 8);
    }
}

void hostile_random_frame(const struct hostile_function *function, struct hostile_random *random,
                          uint8_t *frame, uint64_t room) {
    hostile_random_data(random, frame, room);
    memset(frame, 0, function->fixed_bytes);
    for (uint32_t i = 0; i < function->field_count; i++) {
        set(&function->fields[i], frame, hostile_word(function, function->fields[i].role, random));
    }
    if (hostile_below(random, 2) == 0) {
        end_strings(function, frame, room);
    }
}

void hostile_describe(const struct hostile_function *function, const uint8_t *frame,
                      struct hostile_report *report) {
    const uint32_t most = sizeof report->fields / sizeof report->fields[0];
    report->field_count = function->field_count < most ? function->field_count : most;
    for (uint32_t i = 0; i < report->field_count; i++) {
        const struct hostile_field *field = &function->fields[i];
        report->fields[i] = 0;
        memcpy(&report->fields[i], frame + field->offset, field->bytes < 8 ? field->bytes : 8);
    }
}

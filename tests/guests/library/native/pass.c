/* pass.c - an unchanged program for pass.h; also compiled as C++, where a callback throws. */
#include "pass.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "line %d: %s (%d %s)\n", __LINE__, #condition, cafe_last_error(),                \
                    cafe_error_message());                                                                   \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

static const char *const records[] = {"one", "two", "", "three"};
static uint32_t record;

int pass_next(char *text, uint32_t room, bool *last) {
    CHECK(room == 64 && text[0] == 0 && text[63] == 0 && !*last);
    strcpy(text, records[record]);
    *last = ++record == sizeof records / sizeof *records;
    return (int)strlen(text);
}

/* A nested call, with buffers of its own over those of the call outside. */
int pass_again(int depth) {
    uint8_t in[700], out[700];
    memset(in, depth + 1, sizeof in);
    CHECK(pass_large(in, 7, 100, out, 693) != 0 && cafe_last_error() == 0 && out[250] == 250);
    return depth == 0 ? 0 : pass_down(depth);
}

int pass_throw(int value) {
#ifdef __cplusplus
    throw value;
#else
    return value - 5;
#endif
}

static int other(void) {
    return 12;
}

static const pass_shape plain = {3, {{{1, 2, 3}, 10.5}, {{4, 5, 6}, 20}}, {{1, 2, 3}, {4, 5, 6}}};

static void values(void) {
    const int64_t weight = 3 + 3 + 10 + 6 + 20 + 21;
    const pass_shape more[2] = {plain, plain};
    CHECK(pass_shapes(plain, NULL, 9) == weight);
    CHECK(pass_shapes(plain, more, 2) == weight + 2000 * weight);
}

static void jobs(void) {
    const uint32_t in[5] = {1, 2, 3, 4, 50000};
    uint32_t squares[6] = {9, 9, 9, 9, 9, 9};
    pass_shape shapes[2] = {plain, plain};
    struct pass_job job = {"a job", in, 5, squares, &job, shapes, 2};
    CHECK(pass_job(&job) == 5 + 50010 + 2 * 63);
    CHECK(squares[0] == 1 && squares[4] == 2500000000u && squares[5] == 9);
    CHECK(job.values == in && job.squares == squares && job.tag == &job && job.shapes == shapes);
    CHECK(job.count == 77 && job.shape_count == 2 && strcmp(job.name, "a job") == 0);
    struct pass_job empty = {NULL, NULL, 4000000000u, NULL, NULL, shapes, 1};
    CHECK(pass_job(&empty) == 64 && empty.values == NULL && shapes[0].grid[1][2] == 7);
    CHECK(pass_job(NULL) == -7 && cafe_last_error() == 0);
    struct pass_job wide = {"a name of more than 24 bytes", in, 5, NULL, NULL, NULL, 0};
    CHECK(pass_job(&wide) == -1 && cafe_last_error() == 2 && wide.count == 5);
}

/* From the slot's last byte to what only the bulk area has room for. */
static void large(void) {
    for (uint32_t rows = 1; rows < 3000; rows = rows * 3 + 1) {
        const uint32_t extra = rows == 1 ? 0 : rows * 500;
        uint8_t *in = (uint8_t *)malloc(rows * 1000ul), *out = (uint8_t *)calloc(1, rows + extra + 1ul);
        CHECK(in != NULL && out != NULL);
        uint64_t expected = 0;
        for (uint64_t i = 0; i < rows * 1000ul; i++) {
            in[i] = (uint8_t)(i * 7);
            expected = expected * 3 + in[i];
        }
        out[rows + extra] = 99;
        CHECK(pass_large(in, rows, 1000, out, extra) == expected && cafe_last_error() == 0);
        for (uint64_t i = 0; i < (uint64_t)rows + extra; i++) {
            CHECK(out[i] == i % 251);
        }
        CHECK(out[rows + extra] == 99);
        free(in);
        free(out);
    }
    const uint8_t byte = 1;
    CHECK(pass_large(&byte, 1u << 31, 1ull << 40, NULL, 0) == 0 && cafe_last_error() == 1);
    CHECK(pass_large(&byte, 1, 1ull << 40, NULL, 0) == 0 && cafe_last_error() == 2);
    uint8_t *shared = (uint8_t *)cafe_alloc(NULL, 4000);
    CHECK(shared != NULL);
    memset(shared, 0, 4000);
    shared[1999] = 5;
    CHECK(pass_large(shared, 2, 1000, shared + 2048, 1500) == 5 && shared[2048 + 1501] == 1501 % 251);
}

static void callbacks(void) {
    CHECK(pass_records(100) == 11 && record == 4);
    CHECK(pass_down(4) == 4);
#ifdef __cplusplus
    CHECK(pass_fail(0) == -4 && cafe_last_error() == 0);
#else
    CHECK(pass_fail(0) == -4);
#endif
    CHECK(pass_fail(1) == -5);
    CHECK(cafe_set_callback("pass_absent", (void (*)(void))other) == 0 && pass_fail(1) == 12);
    CHECK(cafe_set_callback("pass_absent", NULL) == 0 && pass_fail(1) == -5);
    CHECK(cafe_set_callback("pass_unknown", (void (*)(void))other) == -1);
}

int main(void) {
    values();
    jobs();
    large();
    callbacks();
    puts("all good");
    return 0;
}

/* caller.c - an unchanged program that calls every function of sample.h; also compiled as C++. */
#include "sample.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #condition, cafe_error_message());               \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

static void buffers(void) {
    const uint32_t values[] = {1, 2, 3, 4000000000u};
    CHECK(sample_sum(values, 4) == 4000000006ll);
    CHECK(sample_sum(values, 0) == 0);
    CHECK(sample_sum(NULL, 4) == -7 && cafe_last_error() == 0);
    uint8_t in[100], out[116];
    memset(in, 7, sizeof in);
    memset(out, 9, sizeof out);
    sample_record state = {1, 1000, {1, 2, 3}};
    CHECK(sample_transform(in, sizeof in, out, &state) == 100);
    CHECK(out[0] == (7 ^ 0x5a) && out[99] == (7 ^ 0x5a) && out[100] == 100 && out[115] == 115);
    CHECK(state.value == 1100 && state.list[2] == 77 && state.tag == 1);
    CHECK(sample_transform(in, 3, NULL, NULL) == 3);
    int32_t rows[3][4] = {{1, 2, 3, 4}, {5, 6, 7, 8}, {9, 10, 11, 12}};
    CHECK(sample_matrix(rows, 3, 2.0f) == 3 && rows[2][3] == 24 && rows[0][0] == 2);
}

static void values(void) {
    sample_record record = {5, 10, {100, 200, 300}};
    struct sample_big big = sample_widen(record, true, 2.5);
    CHECK(big.words[0] == 126 && big.words[15] == 25 + 100 + 1 + 15);
    CHECK(sample_exact(1.25L, 0.5f) == 4.25L);
    CHECK(sample_flip(false) && !sample_flip(true));
    sample_nothing();
    CHECK(cafe_last_error() == 0 && strcmp(cafe_error_message(), "") == 0);
    CHECK(sample_handle(&record) == (uint64_t)(uintptr_t)&record);
    CHECK(sample_fatal(41) == 42);
    CHECK(sample_text("hello") == 0x4f9f2cabu && sample_text("") == 2166136261u && sample_text(NULL) == 1);
}

static void padding(void) {
    sample_record records[5];
    CHECK(sample_padded(records, 5) == 0);
    for (uint32_t i = 0; i < 5; i++) {
        uint8_t raw[sizeof(sample_record)];
        memcpy(raw, &records[i], sizeof raw);
        CHECK(records[i].value == i && raw[1] == 0 && raw[2] == 0 && raw[3] == 0 && raw[14] == 0 &&
              raw[15] == 0);
    }
}

static void refused(void) {
    int32_t rows[1][4] = {{1, 2, 3, 4}};
    CHECK(sample_matrix(rows, -1, 2.0f) == -1 && cafe_last_error() == 1 && rows[0][0] == 1);
    char text[SAMPLE_TEXT + 1];
    memset(text, 'x', sizeof text);
    CHECK(sample_text(text) == 0 && cafe_last_error() == 2); /* no NUL within the limit */
    text[SAMPLE_TEXT - 1] = 0;
    CHECK(sample_text(text) != 0 && cafe_last_error() == 0);
    const uint8_t byte = 0;
    CHECK(sample_product(&byte, 1ull << 32, 1ull << 32) == -1 && cafe_last_error() == 1); /* wraps */
    CHECK(sample_product(&byte, ~0ull, 1) == -1 && cafe_last_error() == 2);
    CHECK(sample_product(&byte, 1ull << 31, 1) == -1 && cafe_last_error() == 2);
    CHECK(sample_sum(NULL, ~0ull) == -7 && cafe_last_error() == 0);
    const uint32_t value = 1;
    CHECK(sample_sum(&value, 1ull << 62) == -1 && cafe_last_error() == 2); /* count * 4 wraps */
    CHECK(strstr(cafe_error_message(), "slot") != NULL);
    CHECK(sample_transform(&byte, ~0ull - 3, NULL, NULL) == -2); /* n + 16 is not asked for: no out */
    CHECK(sample_flip(false));
}

static void range(void) {
    typedef int (*function)(int);
    CHECK(cafe_secret_base(NULL) != NULL && cafe_secret_size("sample") >= 8192);
    CHECK(cafe_secret_base("other") == NULL && cafe_secret_size("other") == 0);
    char *at = (char *)cafe_secret_address("sample_fatal");
    CHECK(at != NULL && at >= (char *)cafe_secret_base("sample"));
    function through = (function)(void *)at;
    for (int i = 0; i < 1000; i++) {
        CHECK(through(i) == i + 1);
    }
    CHECK(cafe_secret_address("main") == NULL);
}

int main(void) {
    CHECK(cafe_last_error() == 0);
    buffers();
    values();
    padding();
    refused();
    range();
    puts("all good");
    return 0;
}

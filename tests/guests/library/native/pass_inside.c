/* The secret side of pass.h. */
#include "pass.h"

#include <string.h>

static int64_t weigh(const pass_shape *shape) {
    int64_t total = shape->id;
    for (int i = 0; i < 2; i++) {
        total += shape->spots[i].rgb[2] + (int64_t)shape->spots[i].weight;
        for (int j = 0; j < 3; j++) {
            total += shape->grid[i][j];
        }
    }
    return total;
}

int64_t pass_shapes(pass_shape one, const pass_shape *more, uint8_t n) {
    int64_t total = weigh(&one);
    for (uint8_t i = 0; more != NULL && i < n; i++) {
        total += 1000 * weigh(&more[i]);
    }
    return total;
}

int64_t pass_job(struct pass_job *job) {
    if (job == NULL) {
        return -7;
    }
    int64_t total = job->name == NULL ? 0 : (int64_t)strlen(job->name);
    for (uint32_t i = 0; job->values != NULL && i < job->count; i++) {
        total += job->values[i];
        if (job->squares != NULL) {
            job->squares[i] += job->values[i] * job->values[i]; /* it was zero */
        }
    }
    for (uint8_t i = 0; job->shapes != NULL && i < job->shape_count; i++) {
        job->shapes[i].grid[1][2] += job->tag == NULL;
        total += weigh(&job->shapes[i]);
    }
    job->values = NULL; /* the caller's pointers stay what they are */
    job->squares = (uint32_t *)(void *)job;
    job->tag = job;
    job->count = 77;
    return total;
}

uint64_t pass_large(const uint8_t *in, uint32_t rows, uint64_t row_bytes, uint8_t *out, uint32_t extra) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < rows; i++) {
        for (uint64_t j = 0; in != NULL && j < row_bytes; j++) {
            total = total * 3 + in[i * row_bytes + j];
        }
    }
    for (uint64_t i = 0; out != NULL && i < (uint64_t)rows + extra; i++) {
        out[i] = (uint8_t)(out[i] + i % 251);
    }
    return total;
}

int pass_records(uint32_t most) {
    char text[64];
    bool last = false;
    int total = 0;
    for (uint32_t i = 0; i < most && !last; i++) {
        const int length = pass_next(text, sizeof text, &last);
        if (length < 0 || (size_t)length != strnlen(text, sizeof text)) {
            return -100;
        }
        total += length;
    }
    return total;
}

int pass_down(int depth) {
    char kept[128];
    memset(kept, depth, sizeof kept);
    const int below = pass_again(depth - 1);
    for (size_t i = 0; i < sizeof kept; i++) {
        if (kept[i] != depth) {
            return -200;
        }
    }
    return below < 0 ? below : below + 1;
}

int pass_fail(int how) {
    return how == 0 ? pass_throw(1) : pass_absent();
}

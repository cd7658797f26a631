/* machine.c - a program for the debugger's tests: calls `scale` for ever, and keeps the last result. */
struct pair {
    long low, high;
};

volatile long turns;
volatile long last;
long limit = 1L << 60;

__attribute__((noinline)) long scale(long value, struct pair *bounds) {
    const long scaled = value * 3 + bounds->low;
    return scaled > bounds->high ? bounds->high : scaled;
}

__attribute__((noinline)) static long outer(long value) {
    struct pair bounds = {7, limit};
    return scale(value, &bounds) + 1;
}

__attribute__((noreturn)) void _start(void) {
    for (;;) {
        last = outer(turns);
        turns = turns + 1;
        if (limit == 0) {
            turns = *(volatile long *)16;
        }
    }
}

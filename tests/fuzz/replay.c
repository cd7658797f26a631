/* replay.c - runs recorded inputs through a target where there is no libFuzzer. */
#include "fuzz.h"

#define MOST_BYTES (1u << 20)

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (file == NULL) {
            perror(argv[i]);
            return 2;
        }
        uint8_t *data = malloc(MOST_BYTES);
        FUZZ_NEED(data != NULL);
        const size_t size = fread(data, 1, MOST_BYTES, file);
        (void)fclose(file);
        uint8_t *exact = realloc(data, size == 0 ? 1 : size); /* so that a sanitizer sees its end */
        FUZZ_NEED(exact != NULL);
        (void)LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
    return 0;
}

/* totp: one-time codes on the command line. Knows no key; the secret functions of totp.h do. */
#include "totp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define USAGE                                                                                                \
    "usage: totp code ACCOUNT [-t SECONDS] [-a sha1|sha256|sha512] [-d DIGITS]\n"                            \
    "       totp verify ACCOUNT CODE [-t SECONDS] [-a sha1|sha256|sha512] [-w STEPS]\n"                      \
    "       totp batch: one such command a line on standard input\n"

#define LINE_BYTES 256
#define LINE_WORDS 16

enum exit_code { EXIT_RIGHT = 0, EXIT_WRONG = 1, EXIT_USAGE = 2, EXIT_FAILED = 3 };

struct options {
    uint64_t time;
    uint32_t hash, digits, window;
};

static int usage(void) {
    fputs(USAGE, stderr);
    return EXIT_USAGE;
}

static int parse_number(const char *text, uint64_t most, uint64_t *value) {
    char *end;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && !errno && *value <= most;
}

static int parse_hash(const char *text, uint32_t *hash) {
    static const char *const names[] = {"sha1", "sha256", "sha512"};
    for (uint32_t i = 0; i < 3; i++) {
        if (strcmp(text, names[i]) == 0) {
            *hash = TOTP_SHA1 + i;
            return 1;
        }
    }
    return 0;
}

static int parse_options(char **words, struct options *options) {
    for (; words[0]; words += 2) {
        uint64_t value = 0;
        if (words[0][0] != '-' || !words[0][1] || words[0][2] || !words[1])
            return 0;
        if (words[0][1] == 'a') {
            if (!parse_hash(words[1], &options->hash))
                return 0;
            continue;
        }
        if (!parse_number(words[1], words[0][1] == 't' ? UINT64_MAX : UINT32_MAX, &value))
            return 0;
        switch (words[0][1]) {
        case 't':
            options->time = value;
            break;
        case 'd':
            options->digits = (uint32_t)value;
            break;
        case 'w':
            options->window = (uint32_t)value;
            break;
        default:
            return 0;
        }
    }
    return 1;
}

static int failed(int result) {
    if (result == TOTP_FAILED)
        fprintf(stderr, "totp: the secret function could not be called: %s (%d)\n", cafe_error_message(),
                cafe_last_error());
    else
        fputs("totp: 6 to 8 digits, a window of at most 10 steps\n", stderr);
    return result == TOTP_FAILED ? EXIT_FAILED : EXIT_USAGE;
}

static int print_code(const char *account, const struct options *options) {
    char code[TOTP_CODE_BYTES];
    int result = totp_code(account, options->time, options->hash, options->digits, code);
    if (result != TOTP_OK)
        return failed(result);
    puts(code);
    return EXIT_RIGHT;
}

static int check_code(const char *account, const char *code, const struct options *options) {
    int32_t drift;
    int result = totp_verify(account, options->time, options->hash, code, options->window, &drift);
    if (result < 0)
        return failed(result);
    if (result == TOTP_WRONG)
        puts("wrong");
    else
        printf("right, %+d steps\n", drift);
    return result == TOTP_WRONG ? EXIT_WRONG : EXIT_RIGHT;
}

static int run(int count, char **words) {
    struct options options = {.time = (uint64_t)time(NULL), .hash = TOTP_SHA1, .digits = 6, .window = 1};
    int verify = count > 0 && strcmp(words[0], "verify") == 0;
    if (count < 2 + verify || (!verify && strcmp(words[0], "code") != 0))
        return usage();
    if (strlen(words[1]) >= TOTP_ACCOUNT_BYTES || (verify && strlen(words[2]) >= TOTP_CODE_BYTES))
        return usage();
    if (!parse_options(words + 2 + verify, &options))
        return usage();
    return verify ? check_code(words[1], words[2], &options) : print_code(words[1], &options);
}

/* Ends with the first line whose call could not be carried out; the exit code is the last line's. */
static int batch(void) {
    char line[LINE_BYTES], *words[LINE_WORDS + 1], *rest;
    int code = EXIT_RIGHT;
    while (code != EXIT_FAILED && fgets(line, sizeof line, stdin)) {
        int count = 0;
        char *word = strtok_r(line, " \n", &rest);
        for (; word && count < LINE_WORDS; word = strtok_r(NULL, " \n", &rest))
            words[count++] = word;
        words[count] = NULL;
        code = run(count, words);
        fflush(stdout);
    }
    return code;
}

int main(int count, char **words) {
    if (count == 2 && strcmp(words[1], "batch") == 0)
        return batch();
    return run(count - 1, words + 1);
}

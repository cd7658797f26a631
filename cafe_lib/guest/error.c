/* error.c - what a thread's last call ended with, in numbers and words, and how a process is ended. */
#include "state.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static __thread char message[CAFE_MESSAGE_BYTES]; /* apart from cafe_me, which every call touches */

static const char *const sentences[] = {
    [CAFE_OK] = "",
    [CAFE_E_MALFORMED] = "an argument or a reply is not what the interface says; check counts and sizes",
    [CAFE_E_LIMIT] =
        "the arguments do not fit into the channel; pass less, or raise slot or bulk in cafe.toml",
    [CAFE_E_ENTRY] = "there is no such secret function; rebuild the program and the package together",
    [CAFE_E_FAULT] = "the secret code faulted and its enclave was ended; the next call starts a fresh one",
    [CAFE_E_DEADLINE] =
        "the call missed its deadline and its enclave was ended; the next call starts a fresh one",
    [CAFE_E_EXITED] = "the enclave has ended; the next call starts a fresh one",
    [CAFE_E_ABORT] =
        "the secret code gave up, or an exception left it; if its enclave ended, the next call starts afresh",
    [CAFE_E_AGENT] = "the agent cannot be reached; start it, or set CAFE_SOCKET to its socket",
    [CAFE_E_REFUSED] = "the server refused this host: attestation or policy; ask the provider",
    [CAFE_E_LICENCE] = "no licence, no free seat, or it has expired; ask the marketplace",
    [CAFE_E_VERSION] =
        "this program and the released package do not belong together; install matching versions",
    [CAFE_E_NOT_FOUND] = "this release is unknown to the server; ask the publisher",
    [CAFE_E_HOST] = "this host cannot run enclaves; ask the provider",
    [CAFE_E_REVOKED] = "licence, release or host was revoked while running; ask the marketplace",
    [CAFE_E_TRANSPORT] = "the server cannot be reached from this host; try again later",
    [CAFE_E_CALLBACK] =
        "the secret code called a function that this program does not have, or where none can "
        "be called; see cafe_set_callback",
};

bool cafe_status_known(uint32_t status) {
    return status < sizeof sentences / sizeof *sentences;
}

const char *cafe_error_sentence(enum cafe_status status) {
    return cafe_status_known((uint32_t)status) ? sentences[status] : sentences[CAFE_E_MALFORMED];
}

void cafe_error_set(enum cafe_status status, const char *detail) {
    cafe_self()->status = (uint32_t)status;
    const char *text = detail != NULL && detail[0] != 0 ? detail : cafe_error_sentence(status);
    (void)snprintf(message, sizeof message, "%s", text);
}

void cafe_end_process(const char *function) {
    char text[CAFE_MESSAGE_BYTES + 512];
    int length = snprintf(text, sizeof text,
                          "cafe: the call of the secret function %.200s failed: %s (status %d)\n"
                          "cafe: the process is ended, since its interface names no value to return then "
                          "(CAFE_ON_ERROR)\n",
                          function, message, (int)cafe_self()->status);
    if (length > 0) {
        size_t bytes = (size_t)length < sizeof text ? (size_t)length : sizeof text - 1;
        ssize_t written = write(STDERR_FILENO, text, bytes);
        (void)written;
    }
    _exit(CAFE_EXIT_CODE);
}

CAFE_PUBLIC int cafe_last_error(void) {
    return (int)cafe_self()->status;
}

CAFE_PUBLIC const char *cafe_error_message(void) {
    return cafe_self()->status == CAFE_OK ? "" : message;
}

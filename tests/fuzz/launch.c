/* launch.c - what an agent answers to a launch request: any bytes, in any pieces, with and without
 * descriptors. */
#include "../../cafe_lib/guest/launch.c"
#include "fuzz.h"

#include <fcntl.h>
#include <sys/mman.h>

static uint32_t mapped; /* channels that got as far as being mapped */

enum cafe_status cafe_channel_map(struct cafe_state *state, int fd, uint64_t region_bytes) {
    FUZZ_NEED(state != NULL && fcntl(fd, F_GETFD) >= 0);
    mapped++;
    return region_bytes % 2 == 0 ? CAFE_OK : CAFE_E_MALFORMED;
}

bool cafe_status_known(uint32_t status) {
    return status <= CAFE_E_CALLBACK;
}

static void send_piece(int to, const uint8_t *data, size_t bytes, uint32_t descriptors) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(3 * sizeof(int))];
    } control;
    const int fds[3] = {to, to, to};
    uint8_t copy[sizeof(struct cafe_launch_reply)];
    memcpy(copy, data, bytes);
    struct iovec body = {copy, bytes};
    struct msghdr message = {.msg_iov = &body, .msg_iovlen = 1};
    memset(&control, 0, sizeof control);
    if (descriptors > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(descriptors * sizeof(int));
        struct cmsghdr *part = CMSG_FIRSTHDR(&message);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(descriptors * sizeof(int));
        memcpy(CMSG_DATA(part), fds, descriptors * sizeof(int));
    }
    (void)sendmsg(to, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* One or two pieces, then the end: whoever waits for more must see it. */
static void answer(int agent, struct fuzz_input *input) {
    uint8_t reply[sizeof(struct cafe_launch_reply)];
    const uint8_t shape = fuzz_byte(input), cut = fuzz_byte(input);
    fuzz_take(input, reply, sizeof reply);
    if (shape % 4 == 0) { /* one that gets past the first checks */
        struct cafe_launch_reply good = {.magic = CAFE_CONTROL_MAGIC, .number = 1};
        memcpy(good.message, reply + sizeof reply - sizeof good.message, sizeof good.message);
        good.status = shape >> 4;
        good.region_bytes = cut;
        memcpy(reply, &good, sizeof reply);
    }
    const size_t first = cut % (sizeof reply) + 1;
    send_piece(agent, reply, first, shape >> 2 & 3);
    if (first < sizeof reply) {
        send_piece(agent, reply + first, sizeof reply - first, shape >> 6 & 1);
    }
    (void)shutdown(agent, SHUT_WR);
}

static int next_descriptor(void) {
    const int fd = dup(0);
    (void)close(fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct cafe_binding binding;
    static struct cafe_state state;
    struct fuzz_input input = {data, size};
    int pair[2];
    const int before = next_descriptor();
    memset(&state, 0, sizeof state);
    state.binding = &binding;
    FUZZ_NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    state.connection = pair[0];
    answer(pair[1], &input);
    const enum cafe_status status = ask(&state);
    FUZZ_NEED((uint32_t)status <= CAFE_E_CALLBACK);
    FUZZ_NEED(memchr(state.message, 0, sizeof state.message) != NULL);
    for (const char *letter = state.message; *letter != 0; letter++) {
        FUZZ_NEED(*letter >= ' ' && *letter <= '~');
    }
    drop_connection(&state);
    (void)close(pair[1]);
    FUZZ_NEED(next_descriptor() == before); /* nothing that came is kept */
    return 0;
}

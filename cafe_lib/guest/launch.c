/* launch.c - asking the agent for an enclave, over its control socket. */
#define _GNU_SOURCE
#include "state.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/cafe/guest.sock"
#define LAUNCH_MILLISECONDS 120000 /* a TPM quotes in half a second, a large package streams for a while */

static int64_t now_milliseconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void drop_connection(struct cafe_state *state) {
    if (state->connection >= 0) {
        (void)close(state->connection);
    }
    state->connection = -1;
}

static bool open_connection(struct cafe_state *state) {
    const char *path = secure_getenv("CAFE_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    path = path == NULL || path[0] == 0 ? DEFAULT_SOCKET : path;
    if (strlen(path) >= sizeof address.sun_path) {
        return false;
    }
    memcpy(address.sun_path, path, strlen(path));
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    const struct timeval patience = {10, 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, (const struct sockaddr *)(const void *)&address, sizeof address) != 0) {
        (void)close(fd);
        return false;
    }
    state->connection = fd;
    return true;
}

static bool send_request(struct cafe_state *state) {
    struct cafe_launch_request request = {.magic = CAFE_CONTROL_MAGIC, .abi_version = CAFE_ABI_VERSION};
    request.number = ++state->number;
    memcpy(request.secret_binary_id, state->binding->secret_binary_id, sizeof request.secret_binary_id);
    memcpy(request.interface_digest, state->binding->interface_digest, sizeof request.interface_digest);
    const uint8_t *next = (const uint8_t *)&request;
    size_t left = sizeof request;
    while (left > 0) {
        const ssize_t sent = send(state->connection, next, left, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent <= 0) {
            return false;
        }
        next += sent;
        left -= (size_t)sent;
    }
    return true;
}

/* One descriptor at most; the kernel closes what finds no room. */
static int descriptor_in(struct msghdr *message) {
    int fd = -1;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS &&
            part->cmsg_len == CMSG_LEN(sizeof fd)) {
            memcpy(&fd, CMSG_DATA(part), sizeof fd);
        }
    }
    return fd;
}

static ssize_t receive_some(int connection, void *target, size_t bytes, int *fd) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec into = {target, bytes};
    struct msghdr message = {.msg_iov = &into, .msg_iovlen = 1};
    message.msg_control = &control;
    message.msg_controllen = CMSG_LEN(sizeof *fd); /* CMSG_SPACE would have room for a second one */
    const ssize_t got = recvmsg(connection, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got > 0) {
        const int received = descriptor_in(&message);
        if (received >= 0 && *fd >= 0) {
            (void)close(received);
            return -1;
        }
        *fd = received >= 0 ? received : *fd;
        return message.msg_flags & MSG_CTRUNC ? -1 : got;
    }
    return got < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static bool receive_reply(int connection, struct cafe_launch_reply *reply, int *fd) {
    const int64_t end = now_milliseconds() + LAUNCH_MILLISECONDS;
    size_t have = 0;
    while (have < sizeof *reply) {
        struct pollfd wait = {connection, POLLIN, 0};
        const int64_t left = end - now_milliseconds();
        if (left <= 0 || (poll(&wait, 1, (int)left) < 0 && errno != EINTR)) {
            return false;
        }
        if (wait.revents == 0) {
            continue;
        }
        const ssize_t got = receive_some(connection, (uint8_t *)reply + have, sizeof *reply - have, fd);
        if (got < 0) {
            return false;
        }
        have += (size_t)got;
    }
    return true;
}

static bool reply_good(const struct cafe_state *state, const struct cafe_launch_reply *reply, int fd) {
    return reply->magic == CAFE_CONTROL_MAGIC && reply->number == state->number &&
           cafe_status_known(reply->status) && (reply->status == CAFE_OK) == (fd >= 0);
}

/* The agent's words, as one line of printable ASCII. */
static void keep_message(struct cafe_state *state, const char *text, size_t bytes) {
    size_t length = 0;
    for (; length < bytes && length + 1 < sizeof state->message && text[length] != 0; length++) {
        const char byte = text[length];
        state->message[length] = byte >= ' ' && byte <= '~' ? byte : '?';
    }
    state->message[length] = 0;
}

static enum cafe_status ask(struct cafe_state *state) {
    struct cafe_launch_reply reply;
    int fd = -1;
    memset(&reply, 0, sizeof reply);
    if (!send_request(state) || !receive_reply(state->connection, &reply, &fd)) {
        if (fd >= 0) {
            (void)close(fd);
        }
        drop_connection(state);
        return CAFE_E_AGENT;
    }
    enum cafe_status status = CAFE_E_MALFORMED;
    if (reply_good(state, &reply, fd)) {
        status = (enum cafe_status)reply.status;
        keep_message(state, reply.message, sizeof reply.message);
    }
    if (status == CAFE_OK) {
        status = cafe_channel_map(state, fd, reply.region_bytes);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    if (status == CAFE_E_MALFORMED) {
        drop_connection(state);
    }
    return status;
}

enum cafe_status cafe_launch(struct cafe_state *state) {
    const bool reused = state->connection >= 0;
    state->message[0] = 0;
    enum cafe_status status = CAFE_E_AGENT;
    if (reused) {
        status = ask(state);
    }
    if (status == CAFE_E_AGENT && state->connection < 0 && open_connection(state)) {
        status = ask(state); /* the agent had gone; this may be its successor */
    }
    return status;
}

bool cafe_agent_gone(const struct cafe_state *state) {
    struct pollfd look = {state->connection, POLLRDHUP, 0};
    int cancel = 0;
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel); /* the caller holds a seat */
    const int ready = poll(&look, 1, 0);
    (void)pthread_setcancelstate(cancel, NULL);
    return ready > 0 && (look.revents & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL)) != 0;
}

/* liar.c - agent and enclave in one thread. They do what libcafe expects, mostly, so that it goes on; and in
 * between everything it must not expect. Every call gets some end, or there would be nothing to go on with.
 */
#define _GNU_SOURCE
#include "caller.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 2u
#define MOST_CALLBACKS 12u /* in a row, for one call */
#define IDLE_NANOSECONDS 20000

static const struct hostile_task *task;
static struct hostile_random dice;
static uint64_t dice_for = ~0ull; /* the input they were thrown for */
static int listener, connection = -1;
static uint8_t *region;
static uint64_t region_bytes;
static uint32_t seen[SLOTS], callbacks[SLOTS];

static uint64_t throw(uint64_t end) {
    return hostile_below(&dice, end);
}

static void pause_for(long nanoseconds) {
    const struct timespec time = {0, nanoseconds};
    (void)nanosleep(&time, NULL);
}

static struct cafe_slot *slot_of(uint32_t i) {
    return (struct cafe_slot *)(void *)(region + CAFE_CHANNEL_HEADER_BYTES + i * hostile_slot_bytes);
}

static void wake(uint32_t *word) {
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* ------------------------------------------------------------------ the agent */

static void hang_up(void) {
    if (connection >= 0) {
        (void)close(connection);
    }
    connection = -1;
}

static void lie_in_header(struct cafe_channel_header *header) {
    uint64_t *const words[] = {&header->magic, &header->slot_bytes, &header->bulk_bytes,
                               &header->region_bytes};
    switch (throw(4)) {
    case 0:
        header->slot_count = (uint32_t)hostile_next(&dice) >> throw(32);
        break;
    case 1:
        header->abi_version = (uint32_t)throw(5);
        break;
    default:
        *words[throw(4)] = hostile_next(&dice) >> throw(64);
    }
}

/* A fresh region; -1 if the machine has none. */
static int make_region(bool lie) {
    const uint64_t slots_end = CAFE_CHANNEL_HEADER_BYTES + SLOTS * hostile_slot_bytes;
    const uint64_t bulk_start = (slots_end + CAFE_BULK_ALIGN - 1) / CAFE_BULK_ALIGN * CAFE_BULK_ALIGN;
    if (region != NULL) {
        (void)munmap(region, region_bytes);
    }
    region_bytes = hostile_bulk_bytes == 0 ? slots_end : bulk_start + hostile_bulk_bytes;
    const int fd = memfd_create("channel", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)region_bytes) != 0) {
        return -1;
    }
    region = mmap(NULL, region_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (region == MAP_FAILED) {
        return -1;
    }
    struct cafe_channel_header *header = (struct cafe_channel_header *)(void *)region;
    *header = (struct cafe_channel_header){.magic = CAFE_CHANNEL_MAGIC,
                                           .abi_version = CAFE_ABI_VERSION,
                                           .slot_count = SLOTS,
                                           .slot_bytes = hostile_slot_bytes,
                                           .bulk_bytes = hostile_bulk_bytes,
                                           .region_bytes = region_bytes,
                                           .state = CAFE_CHANNEL_READY};
    if (lie) {
        lie_in_header(header);
    }
    if (!lie || throw(4) != 0) {
        (void)fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
    }
    memset(seen, 0, sizeof seen);
    return fd;
}

static void lie_in_reply(struct cafe_launch_reply *reply) {
    switch (throw(5)) {
    case 0:
        reply->magic ^= 1u << throw(32);
        break;
    case 1:
        reply->number += hostile_next(&dice) >> throw(64);
        break;
    case 2:
        reply->status = (uint32_t)(hostile_next(&dice) >> throw(64));
        break;
    case 3:
        reply->region_bytes = hostile_next(&dice) >> throw(64);
        break;
    default:
        memset(reply->message, (int)throw(256), sizeof reply->message);
    }
}

static void send_reply(const struct cafe_launch_reply *reply, int fd, size_t descriptors) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(3 * sizeof(int))];
    } control;
    const int fds[3] = {fd, fd, fd};
    struct cafe_launch_reply copy = *reply;
    struct iovec body = {&copy, throw(32) == 0 ? throw(sizeof copy) + 1 : sizeof copy};
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
    (void)sendmsg(connection, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (body.iov_len < sizeof copy) {
        hang_up(); /* else it waits for the rest, as it should */
    }
}

static void answer_launch(void) {
    struct cafe_launch_request request;
    if (recv(connection, &request, sizeof request, MSG_WAITALL) != (ssize_t)sizeof request ||
        throw(40) == 0) {
        hang_up();
        return;
    }
    struct cafe_launch_reply reply = {
        .magic = CAFE_CONTROL_MAGIC, .status = CAFE_OK, .number = request.number, .message = "so be it"};
    const uint64_t lie = throw(12);
    const int fd = make_region(lie == 0);
    reply.region_bytes = region_bytes;
    if (lie == 1) {
        lie_in_reply(&reply);
    }
    send_reply(&reply, fd, lie == 2 ? throw(4) : 1);
    if (fd >= 0) {
        (void)close(fd);
    }
}

/* ------------------------------------------------------------------ the enclave */

static void die(uint32_t status) {
    struct cafe_channel_header *header = (struct cafe_channel_header *)(void *)region;
    __atomic_store_n(&header->status, status, __ATOMIC_RELEASE);
    __atomic_store_n(&header->state, CAFE_CHANNEL_DEAD, __ATOMIC_SEQ_CST);
    wake(&header->state);
    for (uint32_t i = 0; i < SLOTS; i++) {
        wake(&slot_of(i)->reply);
    }
}

static void reply_with(struct cafe_slot *slot, uint32_t status, uint32_t number) {
    slot->status = status;
    __atomic_store_n(&slot->reply, number, __ATOMIC_SEQ_CST);
    wake(&slot->reply);
}

static void garbage(struct cafe_slot *slot) {
    hostile_random_data(&dice, slot->frame, hostile_slot_bytes - CAFE_SLOT_FRAME);
    hostile_random_data(&dice, slot->result, sizeof slot->result);
}

/* A callback with a number that there is or not, and a frame that may make sense. */
static void ask(struct cafe_slot *slot, uint32_t request) {
    uint32_t number = throw(16) == 0 ? caller_callback_count : (uint32_t)throw(caller_callback_count);
    const uint64_t room = hostile_slot_bytes - CAFE_SLOT_FRAME;
    if (number < caller_callback_count) {
        hostile_random_frame(&caller_callbacks[number], &dice, slot->frame, room);
    }
    number = throw(32) == 0 ? (uint32_t)hostile_next(&dice) : number;
    memcpy(slot->result, &number, sizeof number);
    reply_with(slot, CAFE_STATUS_CALLBACK | (throw(8) == 0 ? (uint32_t)hostile_next(&dice) << 16 : 0),
               request);
}

/* While libcafe reads the answer. */
static void change_the_answer(struct cafe_slot *slot, uint32_t request) {
    reply_with(slot, CAFE_OK, request);
    for (uint32_t i = 0; i < 200; i++) {
        const uint64_t word = hostile_next(&dice);
        memcpy(slot->frame + throw(hostile_slot_bytes - CAFE_SLOT_FRAME - 8), &word, sizeof word);
        slot->status = (uint32_t)(word >> 48) % 20;
        slot->result[word % CAFE_RESULT_BYTES] = (uint8_t)(word >> 8);
    }
}

static void lie_about(struct cafe_slot *slot, uint32_t request) {
    struct cafe_channel_header *header = (struct cafe_channel_header *)(void *)region;
    switch (throw(8)) {
    case 0:
        reply_with(slot, (uint32_t)hostile_next(&dice) >> throw(32), request);
        break;
    case 1: /* and of another call than this */
        reply_with(slot, CAFE_OK, request + (uint32_t)(hostile_next(&dice) >> throw(32)));
        break;
    case 2:
        pause_for(1000000);
        reply_with(slot, CAFE_OK, request);
        break;
    case 3:
        change_the_answer(slot, request);
        break;
    case 4:
        die((uint32_t)hostile_next(&dice) >> throw(32));
        break;
    case 5:
        lie_in_header(header);
        header->sleeping = (uint32_t)hostile_next(&dice);
        reply_with(slot, (uint32_t)hostile_next(&dice) << 16, request);
        break;
    case 6:
        header->state = (uint32_t)hostile_next(&dice) >> throw(32);
        reply_with(slot, CAFE_OK, request);
        break;
    default:
        hang_up();
        die(CAFE_OK);
    }
}

static void answer(uint32_t i, uint32_t request) {
    struct cafe_slot *slot = slot_of(i);
    const uint64_t what = throw(10);
    if (what < 4 && caller_callback_count > 0 && callbacks[i]++ < MOST_CALLBACKS) {
        ask(slot, request);
        return;
    }
    callbacks[i] = 0;
    garbage(slot);
    if (what == 9) {
        lie_about(slot, request);
    } else {
        reply_with(slot, what == 8 ? (uint32_t)throw(17) : CAFE_OK, request);
    }
}

static bool serve(void) {
    bool any = false;
    for (uint32_t i = 0; region != NULL && i < SLOTS; i++) {
        const uint32_t request = __atomic_load_n(&slot_of(i)->request, __ATOMIC_ACQUIRE);
        if (request == seen[i]) {
            continue;
        }
        const uint64_t index = __atomic_load_n(&task->report->index, __ATOMIC_ACQUIRE);
        if (index != dice_for) { /* so that what happens depends on the input alone, as far as can be */
            dice = hostile_seed(task, ~index);
            dice_for = index;
        }
        seen[i] = request;
        any = true;
        answer(i, request);
    }
    return any;
}

/* A channel that nobody may use is ended at once, or its program would wait for an answer in vain. */
static void *run(void *nothing) {
    for (;;) {
        struct pollfd ready[2] = {{listener, POLLIN, 0}, {connection, POLLIN, 0}};
        (void)poll(ready, connection < 0 ? 1 : 2, 0);
        if ((ready[0].revents & POLLIN) != 0) {
            hang_up();
            connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        } else if (connection >= 0 && ready[1].revents != 0) {
            answer_launch();
        }
        if (!serve()) {
            pause_for(IDLE_NANOSECONDS);
        }
    }
    return nothing;
}

void liar_start(const char *socket_path, const struct hostile_task *what) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    pthread_t thread;
    task = what;
    dice = hostile_seed(task, ~0ull);
    if (strlen(socket_path) >= sizeof address.sun_path) {
        exit(2);
    }
    memcpy(address.sun_path, socket_path, strlen(socket_path));
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 ||
        bind(listener, (const struct sockaddr *)(const void *)&address, sizeof address) != 0 ||
        listen(listener, 8) != 0 || pthread_create(&thread, NULL, run, NULL) != 0) {
        perror(socket_path);
        exit(2);
    }
}

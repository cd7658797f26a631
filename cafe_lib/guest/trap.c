/*
 * trap.c - the range where the secret code would be. A call of a secret function's place is sent on to its
 * stub; any other call there, and every read or write, ends the process. Faults elsewhere are not ours.
 */
#define _GNU_SOURCE
#include "state.h"

#include <signal.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#define HEX_DIGITS 16u

static struct sigaction previous;

static const struct cafe_state *owner_of(uint64_t address, uint64_t *offset) {
    for (const struct cafe_state *state = cafe_first_state(); state != NULL; state = state->next) {
        *offset = address - (uint64_t)(uintptr_t)state->range;
        if (state->range != NULL && *offset < state->binding->image_bytes) {
            return state;
        }
    }
    return NULL;
}

static void (*stub_at(const struct cafe_state *state, uint64_t offset))(void) {
    for (uint32_t i = 0; i < state->binding->function_count; i++) {
        if (state->binding->functions[i].offset == offset) {
            return state->binding->functions[i].stub;
        }
    }
    return NULL;
}

static void say(const char *text) {
    const ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written;
}

/* Only what a signal handler may do. */
__attribute__((noreturn)) static void refuse(const char *what, const struct cafe_state *state,
                                             uint64_t offset) {
    char digits[HEX_DIGITS + 1];
    char *next = digits + HEX_DIGITS;
    *next = 0;
    do {
        *--next = "0123456789abcdef"[offset & 15];
        offset >>= 4;
    } while (offset != 0);
    say("cafe: ");
    say(what);
    say(" at offset 0x");
    say(next);
    say(" of the secret code of ");
    say(state->binding->name);
    say(" was refused: its code is not here, and only the start of a secret function can be called; "
        "the process is ended\n");
    _exit(CAFE_EXIT_CODE);
}

/* What the program, or its language's runtime, had installed before. */
static void pass_on(int signal, siginfo_t *info, void *context) {
    const struct sigaction before = previous;
    if ((before.sa_flags & SA_SIGINFO) == 0 && before.sa_handler == SIG_DFL) {
        (void)sigaction(signal, &before, NULL); /* it happens again on return, and ends the process */
        if (info->si_code <= 0) {
            (void)raise(signal); /* sent by a process: it would not happen again */
        }
        return;
    }
    if ((before.sa_flags & SA_SIGINFO) == 0 && before.sa_handler == SIG_IGN) {
        if (info->si_code > 0) {
            struct sigaction standard = {.sa_handler = SIG_DFL};
            (void)sigaction(signal, &standard, NULL); /* a real fault cannot be ignored */
        }
        return;
    }
    sigset_t mask = before.sa_mask;
    (void)pthread_sigmask(SIG_BLOCK, &mask, NULL);
    if (before.sa_flags & SA_NODEFER) {
        (void)sigemptyset(&mask);
        (void)sigaddset(&mask, signal);
        (void)pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
    }
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(signal, info, context);
    } else {
        before.sa_handler(signal);
    }
}

static void on_fault(int signal, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    uint64_t offset = 0;
    const struct cafe_state *state = owner_of((uint64_t)registers[REG_RIP], &offset);
    if (state != NULL) {
        void (*stub)(void) = stub_at(state, offset);
        if (stub == NULL) {
            refuse("a call", state, offset);
        }
        registers[REG_RIP] = (greg_t)(uintptr_t)stub;
        return;
    }
    if (info->si_code > 0 && (state = owner_of((uint64_t)(uintptr_t)info->si_addr, &offset)) != NULL) {
        refuse("an access", state, offset);
    }
    pass_on(signal, info, context);
}

void cafe_trap_install(void) {
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK};
    action.sa_sigaction = on_fault;
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGSEGV, &action, &previous);
}

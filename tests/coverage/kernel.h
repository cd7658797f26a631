/* kernel.h - what the VMM's parts are told in these programs: a kernel whose answers the test chooses (linked
 * with --wrap), an enclave that exits as the test says, and the agent's end of the socket. */
#ifndef KERNEL_H
#define KERNEL_H

#include <setjmp.h>
#include <sys/socket.h>

#include "need.h"
#include "vmm.h"

#define REGIONS 3u
#define SLOTS 2u
#define SLOT_BYTES 4096u
#define REGION_BYTES (CAFE_CHANNEL_HEADER_BYTES + SLOTS * SLOT_BYTES)
#define FAULT_STACK 8192u
#define HANDLERS 0x200000u

struct kernel {
    int fail_mmap, fail_lseek, fail_thread; /* so many of the next fail */
    int (*enclave)(struct vmm_cpu *cpu);    /* KVM_RUN */
    bool no_regs, no_sregs;
    uint64_t rip, cr2;
    ssize_t (*receive)(struct msghdr *message); /* recvmsg, if there is one */
    uint32_t ends;                              /* atomic: calls of _exit in a vCPU's thread, which ends it */
};
extern struct kernel kernel;
extern struct vmm_vm *kernel_vm;      /* the last one made */
extern __thread jmp_buf *kernel_exit; /* where _exit goes to in this thread, if anywhere */
extern __thread int kernel_status;    /* with what */

/* A VM whose memory and windows are in this process; a new socket on descriptor VMM_FD. */
struct vmm_vm *kernel_new(uint32_t vcpus);
void kernel_delete(struct vmm_vm *vm);

/* The agent's side. `kernel_event` waits for the next one; false if there is none for a moment. */
extern int kernel_agent;
bool kernel_event(struct vmm_event *event);
struct vmm_event kernel_need(enum vmm_event_kind kind);
void kernel_command(uint32_t kind, uint32_t region, const int *fds, int count);

/* A sealed memfd as the agent makes them, and what else may come in its place. */
int kernel_region(void);
int kernel_file(uint64_t bytes, int seals);

/* Does `step` end in _exit(status)? */
#define EXITS(step, status)                                                                                  \
    (kernel_begin() && setjmp(*kernel_exit) == 0 ? ((step), kernel_stayed()) : kernel_left(status))
bool kernel_begin(void);
bool kernel_stayed(void);
bool kernel_left(int status);

#endif

/* run.c - the run loop: what the enclave may ask for, and how it ends. */
#include "vmm.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define GATE_BYTES 16u
#define GATES 32u
/* Vectors with an error code (SDM vol. 3, table 6-1): 8, 10-14, 17, 21, 29, 30. */
#define ERROR_CODE_VECTORS 0x60227d00u

struct vcpu_loop {
    const struct vmm_vm *vm;
    struct vmm_watchdog dog;
    struct vmm_event end;
    bool ready;
};

static bool finish(struct vcpu_loop *loop, enum vmm_event_kind kind, enum cafe_status status) {
    loop->end.kind = kind;
    loop->end.status = status;
    return true;
}

static uint64_t user_rip(const struct vmm_vm *vm) {
    struct kvm_regs regs;
    return ioctl(vm->vcpu, KVM_GET_REGS, &regs) == 0 ? regs.rip : 0;
}

static bool end_deadline(struct vcpu_loop *loop) {
    loop->end.rip = user_rip(loop->vm);
    return finish(loop, VMM_EVENT_DEADLINE, CAFE_E_DEADLINE);
}

static bool end_host(struct vcpu_loop *loop, int error) {
    loop->end.rip = VMM_STEP_RUN;
    loop->end.kind = VMM_EVENT_HOST;
    loop->end.status = (uint32_t)error;
    return true;
}

static bool end_unknown_fault(struct vcpu_loop *loop) {
    loop->end.vector = VMM_VECTOR_UNKNOWN;
    return finish(loop, VMM_EVENT_FAULT, CAFE_E_FAULT);
}

/* The word `words` below the fault stack's top. The CPU pushed SS, RSP, RFLAGS, CS, RIP and maybe an error
 * code. */
static uint64_t frame_word(const struct vmm_vm *vm, unsigned words) {
    uint64_t value;
    memcpy(&value, vm->memory + vm->config.fault_stack_gpa - 8u * words, sizeof value);
    return value;
}

/* A fault gate's `hlt`: which one says the vector, the frame says where. */
static bool end_fault(struct vcpu_loop *loop) {
    const struct vmm_vm *vm = loop->vm;
    struct kvm_sregs sregs;
    uint64_t offset = user_rip(vm) - vm->config.fault_handler;
    if (offset >= GATES * GATE_BYTES || offset % GATE_BYTES > 1 ||
        ioctl(vm->vcpu, KVM_GET_SREGS, &sregs) != 0)
        return end_unknown_fault(loop);
    loop->end.vector = (uint32_t)(offset / GATE_BYTES);
    loop->end.rip = frame_word(vm, 5);
    loop->end.error_code = (ERROR_CODE_VECTORS >> loop->end.vector) & 1u ? (uint32_t)frame_word(vm, 6) : 0;
    loop->end.address = loop->end.vector == 14 ? sregs.cr2 : 0;
    return finish(loop, VMM_EVENT_FAULT, CAFE_E_FAULT);
}

static bool on_ready(struct vcpu_loop *loop) {
    struct vmm_event event = {.kind = VMM_EVENT_READY};
    if (loop->ready)
        return finish(loop, VMM_EVENT_ABORT, CAFE_E_ABORT);
    loop->ready = true;
    loop->dog.monitor =
        (const volatile struct cafe_monitor *)(const void *)(loop->vm->memory + loop->vm->config.monitor_gpa);
    vmm_mark(loop->vm, CAFE_CHANNEL_READY, CAFE_OK);
    vmm_send(&event);
    return false;
}

/* The timer goes on ticking through a short sleep, which saves two system calls a wake-up; the first tick
 * that finds nothing running stops it, and from then on an idle enclave costs nothing. */
static bool on_idle(struct vcpu_loop *loop) {
    while (!vmm_sleep(loop->vm)) {
        if (vmm_watchdog_expired(&loop->dog))
            return end_deadline(loop);
        if (!vmm_watchdog_busy(&loop->dog))
            vmm_watchdog_disarm(&loop->dog);
    }
    vmm_watchdog_arm(&loop->dog);
    return false;
}

static bool on_abort(struct vcpu_loop *loop, uint64_t argument) {
    bool known = argument > CAFE_OK && argument <= CAFE_E_TRANSPORT;
    return finish(loop, VMM_EVENT_ABORT, known ? (enum cafe_status)argument : CAFE_E_ABORT);
}

/* RDI as SYNC_REGS delivered it with the exit. */
static bool on_port(struct vcpu_loop *loop) {
    const struct kvm_run *run = loop->vm->run;
    uint64_t argument = run->s.regs.regs.rdi;
    if (run->io.direction != KVM_EXIT_IO_OUT || run->io.port != CAFE_PORT || run->io.size != 1 ||
        run->io.count != 1)
        return finish(loop, VMM_EVENT_ABORT, CAFE_E_ABORT);
    switch (((const uint8_t *)run)[run->io.data_offset]) {
    case CAFE_EXIT_READY:
        return on_ready(loop);
    case CAFE_EXIT_IDLE:
        return on_idle(loop);
    case CAFE_EXIT_WAKE:
        vmm_wake_slot(loop->vm, argument);
        return false;
    case CAFE_EXIT_ABORT:
        return on_abort(loop, argument);
    default:
        return finish(loop, VMM_EVENT_ABORT, CAFE_E_ABORT);
    }
}

static bool on_interrupt(struct vcpu_loop *loop) {
    if (errno != EINTR && errno != EAGAIN)
        return end_host(loop, errno);
    __atomic_store_n(&loop->vm->run->immediate_exit, 0, __ATOMIC_RELAXED);
    return vmm_watchdog_expired(&loop->dog) && end_deadline(loop);
}

/* One entry; true when the enclave has ended. After a shutdown no register is meaningful. */
static bool run_once(struct vcpu_loop *loop) {
    if (ioctl(loop->vm->vcpu, KVM_RUN, 0) != 0)
        return on_interrupt(loop);
    switch (loop->vm->run->exit_reason) {
    case KVM_EXIT_IO:
        return on_port(loop);
    case KVM_EXIT_HLT:
        return end_fault(loop);
    case KVM_EXIT_SHUTDOWN:
        return end_unknown_fault(loop);
    case KVM_EXIT_INTR:
        return false;
    case KVM_EXIT_FAIL_ENTRY:
    case KVM_EXIT_INTERNAL_ERROR:
        return end_host(loop, EIO);
    default: /* no MMIO, MSR or hypercall is served */
        return finish(loop, VMM_EVENT_ABORT, CAFE_E_ABORT);
    }
}

struct vmm_event vmm_run(const struct vmm_vm *vm) {
    struct vcpu_loop loop = {.vm = vm};
    vm->run->kvm_valid_regs = KVM_SYNC_X86_REGS;
    vmm_watchdog_start(&loop.dog, vm->config.deadline_ns);
    vmm_watchdog_arm(&loop.dog);
    while (!run_once(&loop))
        continue;
    vmm_watchdog_disarm(&loop.dog);
    return loop.end;
}

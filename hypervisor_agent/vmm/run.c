/* run.c - the loop of one vCPU: what the enclave may ask for, and how it ends. */
#include "vmm.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define GATE_BYTES 16u
#define GATES 32u
/* Vectors with an error code (SDM vol. 3, table 6-1): 8, 10-14, 17, 21, 29, 30. */
#define ERROR_CODE_VECTORS 0x60227d00u
#define THREAD_STACK_BYTES 65536u

static bool finish(struct vmm_cpu *cpu, enum vmm_event_kind kind, enum cafe_status status) {
    cpu->end.kind = kind;
    cpu->end.status = status;
    return true;
}

static uint64_t user_rip(const struct vmm_cpu *cpu) {
    struct kvm_regs regs;
    return ioctl(cpu->fd, KVM_GET_REGS, &regs) == 0 ? regs.rip : 0;
}

static bool end_deadline(struct vmm_cpu *cpu) {
    cpu->end.rip = user_rip(cpu);
    return finish(cpu, VMM_EVENT_DEADLINE, CAFE_E_DEADLINE);
}

static bool end_host(struct vmm_cpu *cpu, int error) {
    cpu->end.rip = VMM_STEP_RUN;
    cpu->end.kind = VMM_EVENT_HOST;
    cpu->end.status = (uint32_t)error;
    return true;
}

static bool end_unknown_fault(struct vmm_cpu *cpu) {
    cpu->end.vector = VMM_VECTOR_UNKNOWN;
    return finish(cpu, VMM_EVENT_FAULT, CAFE_E_FAULT);
}

/* The word `words` below the fault stack's top. The CPU pushed SS, RSP, RFLAGS, CS, RIP and maybe an error
 * code. */
static uint64_t frame_word(const struct vmm_cpu *cpu, unsigned words) {
    uint64_t value;
    const uint64_t top = cpu->vm->config.vcpus[cpu->number].fault_stack_gpa;
    memcpy(&value, cpu->vm->memory + top - 8u * words, sizeof value);
    return value;
}

/* A fault gate's `hlt`: which one says the vector, the frame says where. */
static bool end_fault(struct vmm_cpu *cpu) {
    struct kvm_sregs sregs;
    const uint64_t offset = user_rip(cpu) - cpu->vm->config.fault_handler;
    if (offset >= GATES * GATE_BYTES || offset % GATE_BYTES > 1 || ioctl(cpu->fd, KVM_GET_SREGS, &sregs) != 0)
        return end_unknown_fault(cpu);
    struct vmm_event *end = &cpu->end;
    end->vector = (uint32_t)(offset / GATE_BYTES);
    end->rip = frame_word(cpu, 5);
    end->error_code = (ERROR_CODE_VECTORS >> end->vector) & 1u ? (uint32_t)frame_word(cpu, 6) : 0;
    end->address = end->vector == 14 ? sregs.cr2 : 0;
    return finish(cpu, VMM_EVENT_FAULT, CAFE_E_FAULT);
}

static bool on_ready(struct vmm_cpu *cpu) {
    const struct vmm_event event = {.kind = VMM_EVENT_READY};
    if (cpu->number != 0 || cpu->vm->phase == VMM_READY)
        return finish(cpu, VMM_EVENT_ABORT, CAFE_E_ABORT);
    vmm_send(&event); /* before another vCPU could have an end to tell */
    vmm_enter_phase(cpu->vm, VMM_READY);
    return false;
}

static bool on_abort(struct vmm_cpu *cpu, uint64_t argument) {
    const bool known = argument > CAFE_OK && argument <= CAFE_E_CALLBACK;
    return finish(cpu, VMM_EVENT_ABORT, known ? (enum cafe_status)argument : CAFE_E_ABORT);
}

static bool on_request(struct vmm_cpu *cpu, uint8_t reason, uint64_t argument) {
    switch (reason) {
    case CAFE_EXIT_READY:
        return on_ready(cpu);
    case CAFE_EXIT_REST:
        vmm_wake_slot(cpu->vm, argument);
        vmm_sleep(cpu);
        return false;
    case CAFE_EXIT_IDLE:
        vmm_sleep(cpu);
        return false;
    case CAFE_EXIT_WAKE:
        vmm_wake_slot(cpu->vm, argument);
        return false;
    case CAFE_EXIT_YIELD:
        (void)sched_yield();
        return false;
    case CAFE_EXIT_ABORT:
        return on_abort(cpu, argument);
    default:
        return finish(cpu, VMM_EVENT_ABORT, CAFE_E_ABORT);
    }
}

/* RDI as SYNC_REGS delivered it with the exit. */
static bool on_port(struct vmm_cpu *cpu) {
    const struct kvm_run *run = cpu->run;
    if (run->io.direction != KVM_EXIT_IO_OUT || run->io.port != CAFE_PORT || run->io.size != 1 ||
        run->io.count != 1)
        return finish(cpu, VMM_EVENT_ABORT, CAFE_E_ABORT);
    return on_request(cpu, ((const uint8_t *)run)[run->io.data_offset], run->s.regs.regs.rdi);
}

static bool on_interrupt(struct vmm_cpu *cpu) {
    if (errno != EINTR && errno != EAGAIN)
        return end_host(cpu, errno);
    __atomic_store_n(&cpu->run->immediate_exit, 0, __ATOMIC_RELAXED);
    if (!__atomic_load_n(&cpu->expired, __ATOMIC_ACQUIRE))
        return false;
    return end_deadline(cpu);
}

/* One entry; true when the enclave has ended. After a shutdown no register is meaningful. */
static bool run_once(struct vmm_cpu *cpu) {
    if (ioctl(cpu->fd, KVM_RUN, 0) != 0)
        return on_interrupt(cpu);
    switch (cpu->run->exit_reason) {
    case KVM_EXIT_IO:
        return on_port(cpu);
    case KVM_EXIT_HLT:
        return end_fault(cpu);
    case KVM_EXIT_SHUTDOWN:
        return end_unknown_fault(cpu);
    case KVM_EXIT_INTR:
        return false;
    case KVM_EXIT_FAIL_ENTRY:
    case KVM_EXIT_INTERNAL_ERROR:
        return end_host(cpu, EIO);
    default: /* no MMIO, MSR or hypercall is served */
        return finish(cpu, VMM_EVENT_ABORT, CAFE_E_ABORT);
    }
}

/* The first vCPU with an end to tell takes the process with it. */
_Noreturn static void tell_end(const struct vmm_cpu *cpu) {
    struct vmm_vm *vm = cpu->vm;
    const struct vmm_event *end = &cpu->end;
    while (__atomic_exchange_n(&vm->ended, 1, __ATOMIC_SEQ_CST) != 0)
        vmm_wait(&vm->ended, 1);
    const uint32_t status = end->kind == VMM_EVENT_HOST ? (uint32_t)CAFE_E_HOST : end->status;
    vmm_lock(&vm->lock); /* for good: nothing is attached any more */
    for (uint32_t i = 0; i < vm->config.region_count; i++)
        if (vm->regions[i].taken)
            vmm_mark(vm, i, CAFE_CHANNEL_DEAD, (enum cafe_status)status);
    vmm_send(end);
    _exit(0);
}

static void wait_for_phase(struct vmm_vm *vm, enum vmm_phase wanted) {
    uint32_t phase;
    while ((phase = __atomic_load_n(&vm->phase, __ATOMIC_ACQUIRE)) < wanted)
        vmm_wait(&vm->phase, phase);
}

void vmm_enter_phase(struct vmm_vm *vm, enum vmm_phase phase) {
    __atomic_store_n(&vm->phase, (uint32_t)phase, __ATOMIC_SEQ_CST);
    vmm_wake_all(&vm->phase);
}

/* No vCPU runs before the process is confined; the others start when vCPU 0 has run the constructors. */
static void *run_cpu(void *argument) {
    struct vmm_cpu *cpu = argument;
    vmm_watchdog_thread(cpu);
    wait_for_phase(cpu->vm, cpu->number == 0 ? VMM_CONFINED : VMM_READY);
    cpu->run->kvm_valid_regs = KVM_SYNC_X86_REGS;
    while (!run_once(cpu))
        continue;
    tell_end(cpu);
}

/* With ticks blocked in all of them; the control thread takes them. */
enum vmm_step vmm_start_threads(struct vmm_vm *vm) {
    sigset_t ticks;
    pthread_attr_t small;
    (void)sigemptyset(&ticks); /* none of these can fail with such arguments */
    (void)sigaddset(&ticks, SIGALRM);
    (void)pthread_attr_init(&small);
    (void)pthread_attr_setstacksize(&small, THREAD_STACK_BYTES);
    (void)pthread_sigmask(SIG_BLOCK, &ticks, NULL);
    for (uint32_t i = 0; i < vm->config.vcpu_count; i++) {
        pthread_t thread;
        errno = pthread_create(&thread, &small, run_cpu, &vm->cpus[i]);
        if (errno)
            return VMM_STEP_THREADS;
        while (!__atomic_load_n(&vm->cpus[i].thread, __ATOMIC_ACQUIRE))
            vmm_wait(&vm->cpus[i].thread, 0); /* a thread's start needs calls that the filter forbids */
    }
    (void)pthread_sigmask(SIG_UNBLOCK, &ticks, NULL);
    return VMM_STEP_NONE;
}

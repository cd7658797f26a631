/* vm.c - the KVM VM: created before the configuration is known, given its memory after. */
#define _GNU_SOURCE
#include "vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static enum vmm_step open_kvm(struct vmm_vm *vm) {
    vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (vm->kvm < 0)
        return VMM_STEP_OPEN_KVM;
    errno = ENOSYS;
    if (ioctl(vm->kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        return VMM_STEP_OPEN_KVM;
    if (ioctl(vm->kvm, KVM_CHECK_EXTENSION, KVM_CAP_IMMEDIATE_EXIT) <= 0 ||
        !(ioctl(vm->kvm, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS) & KVM_SYNC_X86_REGS))
        return VMM_STEP_OPEN_KVM;
    return VMM_STEP_NONE;
}

static enum vmm_step create_vm(struct vmm_vm *vm) {
    vm->vm = ioctl(vm->kvm, KVM_CREATE_VM, 0);
    if (vm->vm < 0)
        return VMM_STEP_CREATE_VM;
    /* A polling runtime executes `pause`; exits on it would only cost time. Optional. */
    struct kvm_enable_cap pause = {.cap = KVM_CAP_X86_DISABLE_EXITS, .args = {KVM_X86_DISABLE_EXITS_PAUSE}};
    (void)ioctl(vm->vm, KVM_ENABLE_CAP, &pause);
    return VMM_STEP_NONE;
}

static enum vmm_step create_cpu(struct vmm_vm *vm, uint32_t number) {
    struct vmm_cpu *cpu = &vm->cpus[number];
    const int bytes = ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    const int fd = ioctl(vm->vm, KVM_CREATE_VCPU, number);
    if (fd < 0 || bytes < (int)sizeof *cpu->run)
        return VMM_STEP_CREATE_VCPU;
    cpu->vm = vm;
    cpu->number = number;
    cpu->fd = VMM_FIRST_VCPU_FD + (int)number;
    if (dup3(fd, cpu->fd, O_CLOEXEC) != cpu->fd)
        return VMM_STEP_CREATE_VCPU;
    (void)close(fd);
    void *run = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, 0);
    if (run == MAP_FAILED)
        return VMM_STEP_CREATE_VCPU;
    cpu->run = run;
    return VMM_STEP_NONE;
}

static enum vmm_step create_first_cpu(struct vmm_vm *vm) {
    return create_cpu(vm, 0);
}

/* The rest of them, once their number is known. */
enum vmm_step vmm_create_cpus(struct vmm_vm *vm) {
    for (uint32_t i = 1; i < vm->config.vcpu_count; i++) {
        enum vmm_step failed = create_cpu(vm, i);
        if (!failed)
            failed = vmm_set_usual_cpuid(&vm->cpus[i]);
        if (failed)
            return failed;
    }
    return VMM_STEP_NONE;
}

static enum vmm_step read_cpuid(struct vmm_vm *vm) {
    static struct vmm_cpuid supported = {.table = {.nent = VMM_MAX_CPUID_ENTRIES}};
    vm->cpuid = &supported;
    if (ioctl(vm->kvm, KVM_GET_SUPPORTED_CPUID, vm->cpuid) != 0)
        return VMM_STEP_CPUID;
    return vmm_set_usual_cpuid(&vm->cpus[0]);
}

enum vmm_step vmm_create(struct vmm_vm *vm) {
    static enum vmm_step (*const steps[])(struct vmm_vm *) = {open_kvm, create_vm, create_first_cpu,
                                                              read_cpuid};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        enum vmm_step failed = steps[i](vm);
        if (failed)
            return failed;
    }
    return VMM_STEP_NONE;
}

/* Without the shrink seal somebody else could truncate the file under our feet. errno says why not. */
bool vmm_sealed(int fd, uint64_t bytes) {
    const int seals = fcntl(fd, F_GET_SEALS);
    const off_t size = lseek(fd, 0, SEEK_END);
    if (seals < 0 || size < 0)
        return false;
    errno = EINVAL;
    return (seals & F_SEAL_SHRINK) && (uint64_t)size == bytes;
}

/* Maps what the agent wrote in one go per extent, which spares a fault per page; holes stay holes. */
static void populate(uint8_t *memory, int fd, uint64_t bytes) {
    off_t start = lseek(fd, 0, SEEK_DATA);
    while (start >= 0 && (uint64_t)start < bytes) {
        off_t end = lseek(fd, start, SEEK_HOLE);
        if (end <= start)
            return;
        (void)madvise(memory + start, (size_t)(end - start), MADV_POPULATE_WRITE);
        start = lseek(fd, end, SEEK_DATA);
    }
}

static bool add_slot(const struct vmm_vm *vm, uint32_t slot, uint64_t gpa, uint64_t bytes, const void *at) {
    struct kvm_userspace_memory_region region = {
        .slot = slot, .guest_phys_addr = gpa, .memory_size = bytes, .userspace_addr = (uintptr_t)at};
    return ioctl(vm->vm, KVM_SET_USER_MEMORY_REGION, &region) == 0;
}

/* Windows for the regions of guest processes: nothing is in them yet. */
static uint8_t *reserve_windows(const struct vmm_config *config) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    const uint64_t bytes = config->region_count * config->channel_stride;
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

enum vmm_step vmm_map(struct vmm_vm *vm, int memory_fd) {
    const struct vmm_config *config = &vm->config;
    if (!vmm_sealed(memory_fd, config->memory_bytes))
        return VMM_STEP_DESCRIPTORS;
    void *memory = mmap(NULL, config->memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    vm->channels = reserve_windows(config);
    if (memory == MAP_FAILED || !vm->channels)
        return VMM_STEP_MAP;
    vm->memory = memory;
    vm->monitor = (struct cafe_monitor *)(void *)(vm->memory + config->monitor_gpa);
    /* Plaintext: no core dump, and no swap where the limits allow it. */
    if (madvise(vm->memory, config->memory_bytes, MADV_DONTDUMP) != 0)
        return VMM_STEP_MAP;
    (void)mlock2(vm->memory, config->memory_bytes, MLOCK_ONFAULT);
    populate(vm->memory, memory_fd, config->memory_bytes);
    if (!add_slot(vm, 0, 0, config->memory_bytes, vm->memory) ||
        !add_slot(vm, 1, config->channel_gpa, config->region_count * config->channel_stride, vm->channels))
        return VMM_STEP_SLOTS;
    (void)close(memory_fd);
    return VMM_STEP_NONE;
}

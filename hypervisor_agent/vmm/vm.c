/* vm.c - the KVM VM: created before the configuration is known, given its memory after. */
#define _GNU_SOURCE
#include "vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

static enum vmm_step create_vcpu(struct vmm_vm *vm) {
    int bytes = ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    vm->vcpu = ioctl(vm->vm, KVM_CREATE_VCPU, 0);
    if (vm->vcpu < 0 || bytes < (int)sizeof *vm->run)
        return VMM_STEP_CREATE_VCPU;
    void *run = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu, 0);
    if (run == MAP_FAILED)
        return VMM_STEP_CREATE_VCPU;
    vm->run = run;
    return VMM_STEP_NONE;
}

static enum vmm_step read_cpuid(struct vmm_vm *vm) {
    static struct vmm_cpuid supported = {.table = {.nent = VMM_MAX_CPUID_ENTRIES}};
    vm->cpuid = &supported;
    if (ioctl(vm->kvm, KVM_GET_SUPPORTED_CPUID, vm->cpuid) != 0)
        return VMM_STEP_CPUID;
    return vmm_set_usual_cpuid(vm);
}

enum vmm_step vmm_create(struct vmm_vm *vm) {
    static enum vmm_step (*const steps[])(struct vmm_vm *) = {open_kvm, create_vm, create_vcpu, read_cpuid};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        enum vmm_step failed = steps[i](vm);
        if (failed)
            return failed;
    }
    return VMM_STEP_NONE;
}

/* Without the shrink seal somebody else could truncate the file under our feet. */
static bool sealed(int fd, uint64_t bytes) {
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || fstat(fd, &status) != 0)
        return false;
    errno = EINVAL;
    return (seals & F_SEAL_SHRINK) && status.st_size >= 0 && (uint64_t)status.st_size == bytes;
}

static uint8_t *map_file(int fd, uint64_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? NULL : at;
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

enum vmm_step vmm_map(struct vmm_vm *vm, int memory_fd, int channel_fd) {
    const struct vmm_config *config = &vm->config;
    if (!sealed(memory_fd, config->memory_bytes) || !sealed(channel_fd, config->channel_bytes))
        return VMM_STEP_DESCRIPTORS;
    vm->memory = map_file(memory_fd, config->memory_bytes);
    vm->channel = map_file(channel_fd, config->channel_bytes);
    if (!vm->memory || !vm->channel)
        return VMM_STEP_MAP;
    /* Plaintext: no core dump, and no swap where the limits allow it. */
    if (madvise(vm->memory, config->memory_bytes, MADV_DONTDUMP) != 0)
        return VMM_STEP_MAP;
    (void)mlock2(vm->memory, config->memory_bytes, MLOCK_ONFAULT);
    populate(vm->memory, memory_fd, config->memory_bytes);
    if (!add_slot(vm, 0, 0, config->memory_bytes, vm->memory) ||
        !add_slot(vm, 1, config->channel_gpa, config->channel_bytes, vm->channel))
        return VMM_STEP_SLOTS;
    (void)close(memory_fd);
    (void)close(channel_fd);
    return VMM_STEP_NONE;
}

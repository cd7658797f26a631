/* barevm.c - the baseline of starting an enclave: create a KVM VM with one vCPU, run one instruction in ring
 * 3, destroy it. Prints the median in microseconds. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "latency.h"

#define MEMORY_BYTES (2u << 20)
#define CODE 0x8000u

static void write_page_tables(uint8_t *memory) {
    uint64_t *pml4 = (uint64_t *)(memory + 0x1000), *pdpt = (uint64_t *)(memory + 0x2000),
             *pd = (uint64_t *)(memory + 0x3000);
    pml4[0] = 0x2000 | 7;
    pdpt[0] = 0x3000 | 7;
    pd[0] = 0x87; /* one 2 MiB page, user, writable */
}

static int enter_ring3(int vcpu) {
    struct kvm_sregs s;
    if (ioctl(vcpu, KVM_GET_SREGS, &s) < 0) {
        return -1;
    }
    struct kvm_segment code = {
        .limit = 0xffffffff, .selector = 0x33, .present = 1, .type = 11, .dpl = 3, .s = 1, .l = 1, .g = 1};
    struct kvm_segment data = {
        .limit = 0xffffffff, .selector = 0x2b, .present = 1, .type = 3, .dpl = 3, .s = 1, .db = 1, .g = 1};
    s.cs = code;
    s.ds = s.es = s.fs = s.gs = s.ss = data;
    s.cr0 = 0x80050033;
    s.cr3 = 0x1000;
    s.cr4 = 0x620;
    s.efer = 0xd00;
    s.idt.limit = s.gdt.limit = 0;
    struct kvm_regs r = {.rip = CODE, .rflags = 2};
    return ioctl(vcpu, KVM_SET_SREGS, &s) < 0 ? -1 : ioctl(vcpu, KVM_SET_REGS, &r);
}

static int life(void) {
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    uint8_t *memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY_BYTES,
                                                 .userspace_addr = (uint64_t)memory};
    if (kvm < 0 || vm < 0 || memory == MAP_FAILED || ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0) {
        return -1;
    }
    write_page_tables(memory);
    memory[CODE] = 0x0f; /* ud2: with an empty IDT it ends in KVM_EXIT_SHUTDOWN */
    memory[CODE + 1] = 0x0b;
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    size_t run_bytes = (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    void *run = mmap(NULL, run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    int failed = vcpu < 0 || run == MAP_FAILED || enter_ring3(vcpu) < 0 || ioctl(vcpu, KVM_RUN, 0) < 0;
    munmap(run, run_bytes);
    close(vcpu);
    close(vm);
    close(kvm);
    munmap(memory, MEMORY_BYTES);
    return failed ? -1 : 0;
}

int main(int argc, char **argv) {
    size_t count = argc > 1 ? (size_t)atoi(argv[1]) : 200;
    uint64_t *spent = calloc(count, sizeof *spent);
    for (size_t i = 0; spent != NULL && i < count; i++) {
        uint64_t before = latency_now_ns();
        if (life() < 0) {
            perror("KVM");
            return 1;
        }
        spent[i] = latency_now_ns() - before;
    }
    if (spent == NULL) {
        return 1;
    }
    latency_report(spent, count, 1, 1);
    return 0;
}

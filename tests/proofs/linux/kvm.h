/* kvm.h - the little of the kernel's header that vmm.h needs, for a prover that reads no system headers. */
#ifndef PROOFS_KVM_H
#define PROOFS_KVM_H

#include <stdint.h>

struct kvm_cpuid2 {
    uint32_t nent, padding;
};
struct kvm_cpuid_entry2 {
    uint32_t function, index, flags, eax, ebx, ecx, edx, padding[3];
};

#endif

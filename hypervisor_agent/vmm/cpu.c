/* cpu.c - the vCPU's state at entry: long mode, ring 3, one port, and the instruction set the image asked
 * for. */
#include "vmm.h"

#include <errno.h>
#include <sys/ioctl.h>

/* Intel SDM vol. 3: 2.5 (control registers), 3.4.5 (segment types), 7.2.3 (TSS). */
#define CR0_PE_MP_ET_NE_WP_AM_PG 0x80050033ull
#define CR4_PAE 0x20ull
#define CR4_OSFXSR 0x200ull
#define CR4_OSXMMEXCPT 0x400ull
#define CR4_UMIP 0x800ull
#define CR4_OSXSAVE 0x40000ull
#define EFER_LME_LMA_NXE 0xd00ull /* no SCE: `syscall` is undefined */
#define XCR0_X87_SSE_AVX 7ull
#define RFLAGS_RESERVED 2ull
#define SELECTOR_KERNEL_TSS 0x40u
#define SELECTOR_USER_DATA 0x2bu
#define SELECTOR_USER_CODE 0x33u
#define TYPE_DATA 3u
#define TYPE_CODE 11u
#define TYPE_BUSY_TSS 11u

/* CPUID bits by leaf and register (SDM vol. 2, CPUID). */
#define L1_ECX_FMA (1u << 12)
#define L1_ECX_XSAVE (1u << 26)
#define L1_ECX_OSXSAVE (1u << 27)
#define L1_ECX_AVX (1u << 28)
#define L1_ECX_F16C (1u << 29)
#define L1_ECX_MONITOR_VMX_X2APIC ((1u << 3) | (1u << 5) | (1u << 21))
#define L7_EBX_AVX2 (1u << 5)
#define L7_EBX_AVX512 ((1u << 16) | (1u << 17) | (1u << 21) | (7u << 26) | (3u << 30))
#define L7_ECX_UMIP (1u << 2)
#define L7_ECX_VAES_VPCLMUL ((1u << 9) | (1u << 10))
#define L7_ECX_AVX512 ((1u << 1) | (1u << 6) | (1u << 11) | (1u << 12) | (1u << 14))
#define L7_EDX_AVX512_AMX ((1u << 2) | (1u << 3) | (1u << 8) | (7u << 22))
#define AVX_BITS (L1_ECX_FMA | L1_ECX_XSAVE | L1_ECX_AVX | L1_ECX_F16C)
#define EXT_ECX_SVM (1u << 2)

static bool has_avx(const struct vmm_vm *vm) {
    return vm->config.isa >= CAFE_ISA_X86_64_V3;
}

static void restrict_leaf(struct kvm_cpuid_entry2 *leaf, bool avx) {
    switch (leaf->function) {
    case 1:
        leaf->ecx |= AVX_BITS; /* some nested KVMs report less than they run; the host itself was asked */
        leaf->ecx &= ~(L1_ECX_MONITOR_VMX_X2APIC | L1_ECX_OSXSAVE | (avx ? 0 : AVX_BITS));
        break;
    case 7:
        leaf->ebx |= L7_EBX_AVX2;
        leaf->ebx &= ~(L7_EBX_AVX512 | (avx ? 0 : L7_EBX_AVX2));
        leaf->ecx &= ~(L7_ECX_AVX512 | (avx ? 0 : L7_ECX_VAES_VPCLMUL));
        leaf->edx &= ~L7_EDX_AVX512_AMX;
        if (leaf->index > 0) /* all of AVX-VNNI, AVX-IFMA, AMX and what follows them */
            leaf->eax = leaf->ebx = leaf->ecx = leaf->edx = 0;
        break;
    case 0xd:
        if (!avx || leaf->index > 2)
            leaf->eax = leaf->ebx = leaf->ecx = leaf->edx = 0;
        else if (leaf->index == 0)
            leaf->eax &= (uint32_t)XCR0_X87_SSE_AVX;
        break;
    case 0x80000001:
        leaf->ecx &= ~EXT_ECX_SVM;
        break;
    default:
        break;
    }
}

static uint32_t leaf_ecx(const struct vmm_cpuid *cpuid, uint32_t function, uint32_t index) {
    for (uint32_t i = 0; i < cpuid->table.nent; i++)
        if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
            return cpuid->entries[i].ecx;
    return 0;
}

static enum vmm_step set_cpuid(const struct vmm_cpu *cpu, bool avx) {
    static struct vmm_cpuid
        given; /* what the host supports is needed again if the image turns out to want AVX */
    given = *cpu->vm->cpuid;
    for (uint32_t i = 0; i < given.table.nent; i++)
        restrict_leaf(&given.entries[i], avx);
    return ioctl(cpu->fd, KVM_SET_CPUID2, &given) == 0 ? VMM_STEP_NONE : VMM_STEP_CPUID;
}

/* Costly, so a spare VMM does it before it knows its image, as most images want it. */
enum vmm_step vmm_set_usual_cpuid(const struct vmm_cpu *cpu) {
    return set_cpuid(cpu, false);
}

static enum vmm_step set_avx_cpuid(const struct vmm_cpu *cpu) {
    __builtin_cpu_init();
    errno = EOPNOTSUPP; /* an image built for AVX on a host without */
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi2"))
        return VMM_STEP_CPUID;
    return set_cpuid(cpu, true);
}

static struct kvm_segment user_segment(uint16_t selector, uint8_t type, uint64_t base) {
    bool code = type == TYPE_CODE;
    return (struct kvm_segment){.base = base,
                                .limit = 0xffffffff,
                                .selector = selector,
                                .type = type,
                                .present = 1,
                                .dpl = 3,
                                .db = !code,
                                .s = 1,
                                .l = code,
                                .g = 1};
}

static void fill_segments(struct kvm_sregs *sregs, const struct vmm_config *config,
                          const struct vmm_vcpu *own) {
    struct kvm_segment data = user_segment(SELECTOR_USER_DATA, TYPE_DATA, 0);
    sregs->cs = user_segment(SELECTOR_USER_CODE, TYPE_CODE, 0);
    sregs->ds = sregs->es = sregs->gs = sregs->ss = data;
    sregs->fs = user_segment(SELECTOR_USER_DATA, TYPE_DATA, own->fs_base);
    sregs->ldt = (struct kvm_segment){.unusable = 1};
    /* Ring 3 may use just the port in this TSS's bitmap; IOPL stays 0 (some nested KVMs drop it). */
    sregs->tr = (struct kvm_segment){.base = own->tss_base,
                                     .limit = config->tss_limit,
                                     .selector = SELECTOR_KERNEL_TSS,
                                     .type = TYPE_BUSY_TSS,
                                     .present = 1};
    sregs->gdt = (struct kvm_dtable){.base = own->gdt_base, .limit = (uint16_t)config->gdt_limit};
    sregs->idt = (struct kvm_dtable){.base = own->idt_base, .limit = (uint16_t)config->idt_limit};
}

static enum vmm_step set_system(const struct vmm_cpu *cpu) {
    const struct vmm_vm *vm = cpu->vm;
    struct kvm_sregs sregs;
    if (ioctl(cpu->fd, KVM_GET_SREGS, &sregs) != 0)
        return VMM_STEP_STATE;
    fill_segments(&sregs, &vm->config, &vm->config.vcpus[cpu->number]);
    sregs.cr0 = CR0_PE_MP_ET_NE_WP_AM_PG;
    sregs.cr3 = vm->config.cr3;
    sregs.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | (has_avx(vm) ? CR4_OSXSAVE : 0);
    if (leaf_ecx(vm->cpuid, 7, 0) & L7_ECX_UMIP)
        sregs.cr4 |= CR4_UMIP; /* sgdt and its like would tell where the supervisor pages are */
    sregs.efer = EFER_LME_LMA_NXE;
    return ioctl(cpu->fd, KVM_SET_SREGS, &sregs) == 0 ? VMM_STEP_NONE : VMM_STEP_STATE;
}

static enum vmm_step set_user(const struct vmm_cpu *cpu) {
    const struct vmm_config *config = &cpu->vm->config;
    struct kvm_regs regs = {.rip = config->rip,
                            .rsp = config->vcpus[cpu->number].rsp,
                            .rdi = config->rdi,
                            .rsi = cpu->number,
                            .rflags = RFLAGS_RESERVED};
    struct kvm_fpu fpu = {.fcw = 0x37f, .mxcsr = 0x1f80}; /* KVM starts with 0 in both */
    if (ioctl(cpu->fd, KVM_SET_REGS, &regs) != 0 || ioctl(cpu->fd, KVM_SET_FPU, &fpu) != 0)
        return VMM_STEP_STATE;
    if (!has_avx(cpu->vm))
        return VMM_STEP_NONE;
    struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = XCR0_X87_SSE_AVX}}};
    return ioctl(cpu->fd, KVM_SET_XCRS, &xcrs) == 0 ? VMM_STEP_NONE : VMM_STEP_STATE;
}

/* A vCPU other than the first waits for INIT unless it is told that it runs. */
static enum vmm_step set_running(const struct vmm_cpu *cpu) {
    struct kvm_mp_state state = {.mp_state = KVM_MP_STATE_RUNNABLE};
    return ioctl(cpu->fd, KVM_SET_MP_STATE, &state) == 0 || cpu->number == 0 ? VMM_STEP_NONE : VMM_STEP_STATE;
}

enum vmm_step vmm_set_cpu(const struct vmm_cpu *cpu) {
    enum vmm_step failed = has_avx(cpu->vm) ? set_avx_cpuid(cpu) : VMM_STEP_NONE;
    if (!failed)
        failed = set_system(cpu);
    if (!failed)
        failed = set_user(cpu);
    return failed ? failed : set_running(cpu);
}

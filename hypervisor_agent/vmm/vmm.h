/* vmm.h - what the parts of the VMM share. One process runs one enclave: a KVM VM with one vCPU in ring 3. */
#ifndef VMM_H
#define VMM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cafe_abi.h"

#define VMM_MUST_CHECK __attribute__((warn_unused_result))

/* Where setting up failed: `rip` of a VMM_EVENT_HOST; `status` is the errno. 0 is success. */
enum vmm_step {
    VMM_STEP_NONE = 0,
    VMM_STEP_ISOLATE = 1,
    VMM_STEP_OPEN_KVM = 2,
    VMM_STEP_CREATE_VM = 3,
    VMM_STEP_CREATE_VCPU = 4,
    VMM_STEP_RECEIVE = 5,
    VMM_STEP_CONFIG = 6,
    VMM_STEP_DESCRIPTORS = 7,
    VMM_STEP_MAP = 8,
    VMM_STEP_SLOTS = 9,
    VMM_STEP_CPUID = 10,
    VMM_STEP_STATE = 11,
    VMM_STEP_SECCOMP = 12,
    VMM_STEP_RUN = 13,
};

#define VMM_MAX_CPUID_ENTRIES 256u

struct vmm_cpuid {
    struct kvm_cpuid2 table;
    struct kvm_cpuid_entry2 entries[VMM_MAX_CPUID_ENTRIES];
};

struct vmm_vm {
    int kvm, vm, vcpu;
    struct kvm_run *run;
    struct vmm_cpuid *cpuid; /* what the host supports */
    uint8_t *memory;         /* the enclave's, guest-physical 0 */
    uint8_t *channel;        /* shared with the guest: each word is read once and distrusted */
    struct vmm_config config;
};

struct vmm_watchdog {
    const volatile struct cafe_monitor *monitor; /* null until the enclave is ready */
    uint64_t deadline_ns, tick_ns;
    uint64_t seen;     /* `started` at the last look */
    uint64_t since_ns; /* when it was first seen */
    bool armed;
};

/* config.c: pure. Null if the configuration is sound, else the name of the first bad field. */
const char *vmm_config_problem(const struct vmm_config *config) VMM_MUST_CHECK;

/* isolate.c */
enum vmm_step vmm_isolate(void) VMM_MUST_CHECK;

/* vm.c */
enum vmm_step vmm_create(struct vmm_vm *vm) VMM_MUST_CHECK;
enum vmm_step vmm_map(struct vmm_vm *vm, int memory_fd, int channel_fd) VMM_MUST_CHECK;

/* cpu.c */
enum vmm_step vmm_set_usual_cpuid(const struct vmm_vm *vm) VMM_MUST_CHECK;
enum vmm_step vmm_set_cpu(const struct vmm_vm *vm) VMM_MUST_CHECK;

/* seccomp.c */
enum vmm_step vmm_confine(int vcpu) VMM_MUST_CHECK;

/* watchdog.c */
void vmm_watchdog_install(struct kvm_run *run);
void vmm_watchdog_start(struct vmm_watchdog *dog, uint64_t deadline_ns);
void vmm_watchdog_arm(struct vmm_watchdog *dog);
void vmm_watchdog_disarm(struct vmm_watchdog *dog);
bool vmm_watchdog_busy(const struct vmm_watchdog *dog) VMM_MUST_CHECK;
bool vmm_watchdog_expired(struct vmm_watchdog *dog) VMM_MUST_CHECK;

/* wake.c */
bool vmm_sleep(const struct vmm_vm *vm) VMM_MUST_CHECK;
void vmm_wake_slot(const struct vmm_vm *vm, uint64_t slot);
void vmm_mark(const struct vmm_vm *vm, enum cafe_channel_state state, enum cafe_status status);

/* run.c: runs the enclave to its end */
struct vmm_event vmm_run(const struct vmm_vm *vm);

/* main.c */
void vmm_send(const struct vmm_event *event);

#endif

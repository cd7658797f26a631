/* vmm.h - what the parts of the VMM share. One process runs one enclave: a KVM VM whose vCPUs are in ring 3.
 */
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
    VMM_STEP_THREADS = 14,
};

#define VMM_MAX_CPUID_ENTRIES 256u
#define VMM_KICK SIGUSR1
#define VMM_FIRST_VCPU_FD 16 /* vCPU i is descriptor 16 + i: the system call filter knows them by that */

struct vmm_cpuid {
    struct kvm_cpuid2 table;
    struct kvm_cpuid_entry2 entries[VMM_MAX_CPUID_ENTRIES];
};

/* One vCPU and the thread that runs it. */
struct vmm_cpu {
    struct vmm_vm *vm;
    struct kvm_run *run;
    uint32_t number;
    int fd;
    uint32_t thread;   /* its id; 0 until it has started; a futex word */
    uint32_t changes;  /* of regions, when it last woke */
    uint32_t passed;   /* times in a row that it left what is asked to others */
    uint64_t begun;    /* its calls then */
    uint32_t expired;  /* atomic: the watchdog wants it to end the enclave */
    uint64_t seen;     /* by the watchdog: `started` at the last look */
    uint64_t since_ns; /* by the watchdog: when it was first seen */
    struct vmm_event end;
};

enum vmm_phase {
    VMM_SETTING_UP = 0,
    VMM_CONFINED = 1, /* the system call filter is installed: vCPU 0 may run */
    VMM_READY = 2,    /* the constructors have run: the others may */
};

/* A window into which the memory of one guest process is mapped. */
struct vmm_region {
    bool taken;
    uint32_t changes; /* attaches and detaches so far: what the monitor's `attached` shall be */
};

struct vmm_vm {
    int kvm, vm;
    struct vmm_cpuid *cpuid; /* what the host supports */
    uint8_t *memory;         /* the enclave's, guest-physical 0 */
    uint8_t *channels;       /* shared with guests, a stride each: every word is read once and distrusted */
    struct cafe_monitor *monitor; /* in the enclave's memory, and as little trusted */
    struct vmm_config config;
    struct vmm_cpu cpus[CAFE_MAX_VCPUS];
    struct vmm_region regions[CAFE_MAX_REGIONS];
    uint32_t lock;     /* guards the next three and `taken` */
    uint32_t sleepers; /* vCPUs that sleep */
    bool ticking;      /* the watchdog's timer runs */
    uint32_t changed;  /* futex word: counts changes of regions, for sleepers */
    uint32_t phase;    /* enum vmm_phase; a futex word */
    uint32_t ended;    /* atomic: 1 once a vCPU has an end to tell */
};

/* config.c: pure. Null if the configuration is sound, else the name of the first bad field. */
const char *vmm_config_problem(const struct vmm_config *config) VMM_MUST_CHECK;

/* isolate.c */
enum vmm_step vmm_isolate(void) VMM_MUST_CHECK;

/* vm.c */
enum vmm_step vmm_create(struct vmm_vm *vm) VMM_MUST_CHECK;
enum vmm_step vmm_create_cpus(struct vmm_vm *vm) VMM_MUST_CHECK;
enum vmm_step vmm_map(struct vmm_vm *vm, int memory_fd) VMM_MUST_CHECK;
bool vmm_sealed(int fd, uint64_t bytes) VMM_MUST_CHECK;

/* cpu.c */
enum vmm_step vmm_set_usual_cpuid(const struct vmm_cpu *cpu) VMM_MUST_CHECK;
enum vmm_step vmm_set_cpu(const struct vmm_cpu *cpu) VMM_MUST_CHECK;

/* seccomp.c: for every thread of the process */
enum vmm_step vmm_confine(uint32_t vcpu_count) VMM_MUST_CHECK;

/* region.c */
struct vmm_event vmm_attach(struct vmm_vm *vm, int fd);
void vmm_detach(struct vmm_vm *vm, uint32_t region);
struct cafe_channel_header *vmm_header(const struct vmm_vm *vm, uint32_t region);
struct cafe_slot *vmm_slot(const struct vmm_vm *vm, uint32_t region, uint32_t slot);
void vmm_mark(const struct vmm_vm *vm, uint32_t region, enum cafe_channel_state state,
              enum cafe_status status);

/* control.c: serves the agent's commands; returns when the agent has gone */
void vmm_control(struct vmm_vm *vm);
void vmm_send(const struct vmm_event *event);

/* watchdog.c */
void vmm_watchdog_install(struct vmm_vm *vm);
void vmm_watchdog_thread(struct vmm_cpu *cpu);
void vmm_watchdog_wake(struct vmm_vm *vm);
void vmm_watchdog_look(struct vmm_vm *vm);
uint64_t vmm_now_ns(void);
bool vmm_busy(const struct vmm_cpu *cpu) VMM_MUST_CHECK;

/* wake.c */
void vmm_lock(uint32_t *word);
void vmm_unlock(uint32_t *word);
void vmm_tell_sleeping(const struct vmm_vm *vm);
void vmm_sleep(struct vmm_cpu *cpu);
void vmm_wake_slot(const struct vmm_vm *vm, uint64_t place);
void vmm_wake_all(uint32_t *word);
void vmm_wait(uint32_t *word, uint32_t value);

/* run.c */
enum vmm_step vmm_start_threads(struct vmm_vm *vm) VMM_MUST_CHECK;
void vmm_enter_phase(struct vmm_vm *vm, enum vmm_phase phase);

#endif

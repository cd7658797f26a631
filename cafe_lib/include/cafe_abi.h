/*
 * cafe_abi.h - the only C ABI between the public program (libcafe), the agent, the VMM and the runtime
 * inside the enclave. Self-contained, versioned; docs/reference/abi.md explains it.
 *
 * All integers are little-endian. Every word of shared memory has ONE writer, named beside it; whoever else
 * reads it reads it once, into private memory, and distrusts it.
 */
#ifndef CAFE_ABI_H
#define CAFE_ABI_H

#include <stdint.h>

#define CAFE_ABI_VERSION 2u
#define CAFE_PAGE 4096u
#define CAFE_CACHE_LINE 64u

/* What a call, a launch or an enclave ended with. 0 is success; the values never change meaning. */
enum cafe_status {
    CAFE_OK = 0,
    CAFE_E_MALFORMED = 1,  /* a frame, a message or a count that does not parse */
    CAFE_E_LIMIT = 2,      /* arguments do not fit into a slot, or out of memory inside */
    CAFE_E_ENTRY = 3,      /* no such secret function */
    CAFE_E_FAULT = 4,      /* the secret code faulted; the enclave was ended */
    CAFE_E_DEADLINE = 5,   /* the call missed its deadline; the enclave was ended */
    CAFE_E_EXITED = 6,     /* the enclave or its VMM has gone */
    CAFE_E_ABORT = 7,      /* the secret code called abort(), or an exception left it */
    CAFE_E_AGENT = 8,      /* the agent cannot be reached */
    CAFE_E_REFUSED = 9,    /* the SBS refused: attestation or policy */
    CAFE_E_LICENCE = 10,   /* no licence, no free seat, expired or revoked */
    CAFE_E_VERSION = 11,   /* ABI or interface digest differs from the released package */
    CAFE_E_NOT_FOUND = 12, /* no such release */
    CAFE_E_HOST = 13,      /* the host cannot run enclaves */
    CAFE_E_REVOKED = 14,   /* revoked or expired while running */
    CAFE_E_TRANSPORT = 15, /* the SBS cannot be reached; may be tried again */
    CAFE_E_CALLBACK = 16,  /* a callback has no implementation, or was made where none can be */
};

/* ------------------------------------------------------------------ channel (guest <-> enclave)
 * One region per guest process, a memfd sealed against shrinking and growing: one header page, slot_count
 * slots of slot_bytes each, then, from the next multiple of CAFE_BULK_ALIGN, bulk_bytes for buffers that no
 * slot has room for. Several regions may belong to one enclave; a process never sees another's. A region
 * outlives its enclave: the fresh one is attached to it. */

#define CAFE_CHANNEL_MAGIC 0x314e484345464143ull /* "CAFECHN1" */
#define CAFE_CHANNEL_HEADER_BYTES 4096u
#define CAFE_MAX_SLOTS 64u
#define CAFE_MIN_SLOT_BYTES 4096u
#define CAFE_MAX_SLOT_BYTES (64u << 20)
#define CAFE_BULK_ALIGN (2u << 20)
#define CAFE_MAX_BULK_BYTES (1ull << 30)
#define CAFE_MAX_REGIONS 16u
#define CAFE_MAX_VCPUS 16u

enum cafe_channel_state {
    CAFE_CHANNEL_STARTING = 0,
    CAFE_CHANNEL_READY = 1,
    CAFE_CHANNEL_DEAD = 2, /* `status` says why; the guest may ask the agent for a fresh enclave */
};

/* How many vCPUs sleep, as far as a guest thread cares. */
enum cafe_sleeping { CAFE_AWAKE = 0, CAFE_SOME_SLEEP = 1, CAFE_ALL_SLEEP = 2 };

struct cafe_channel_header {
    /* line 0, written by the agent before the guest sees the region, never again */
    uint64_t magic;
    uint32_t abi_version;
    uint32_t slot_count;
    uint64_t slot_bytes;
    uint64_t bulk_bytes; /* a multiple of CAFE_BULK_ALIGN; 0: none */
    uint64_t region_bytes;
    uint8_t pad0[24];
    /* line 1, written by the VMM (by the agent once the VMM is gone) */
    uint32_t state;    /* enum cafe_channel_state; a futex word: woken when it changes */
    uint32_t status;   /* enum cafe_status, meaningful when state is DEAD */
    uint32_t sleeping; /* enum cafe_sleeping: ring `bell` at once if all sleep, before blocking if some do */
    uint8_t pad1[52];
    /* line 2, written by the guest */
    uint32_t bell; /* futex word: incremented when `sleeping` was seen set after publishing a request */
    uint8_t pad2[60];
};

/* A slot serves one guest thread at a time. A call: write entry and frame, then request = reply + 1
 * (release; sequence numbers wrap at 2^32). The enclave answers reply = request (release). Never two calls in
 * one slot. Both words start at 0.
 *
 * An answer whose status is CAFE_STATUS_CALLBACK asks the thread to call a function of the public program:
 * `result` begins with its number (u32), the frame is the callback's. The thread answers with the next
 * request: entry = CAFE_ENTRY_RETURN, `returned`, and the out area. Before that it may make further calls,
 * nested, in the same slot and with the next numbers, at most CAFE_MAX_NESTING deep. */
struct cafe_slot {
    /* line 0, written by the enclave */
    uint32_t reply;     /* futex word */
    uint32_t status;    /* low 16 bits: enum cafe_status of this call, or CAFE_STATUS_CALLBACK; high: errno */
    uint8_t result[56]; /* the return value, if it is 56 bytes or less; else zero */
    /* line 1, written by the guest */
    uint32_t request;
    uint32_t entry;    /* index into the export table, or CAFE_ENTRY_RETURN */
    uint32_t waiting;  /* 1: the guest thread sleeps on `reply`; the enclave has the VMM wake it */
    uint32_t returned; /* of a callback: low 16 bits enum cafe_status, high: errno; else 0 */
    uint8_t frame[]; /* at +80, up to slot_bytes: fixed part, in and inout buffers, (align 64) out buffers */
};
#define CAFE_SLOT_FRAME 80u
#define CAFE_RESULT_BYTES 56u
#define CAFE_STATUS_CALLBACK 0x100u
#define CAFE_ENTRY_RETURN 0xffffffffu
#define CAFE_MAX_NESTING 8u
#define CAFE_MAX_ERRNO 4095u

/* The frame (generated per function, the same on both sides).
 *
 * Fixed part: a C struct of the parameters in order. A scalar or by-value struct is itself. A pointer is a
 * uint64_t: 0 = null, 1 = in this frame, else the offset of the buffer in the region: a multiple of 64 within
 * the bulk area. An opaque handle is its value. CAFE_STR: length with NUL, 0 = null; always in this frame.
 *
 * In area: for each in and inout buffer of word 1 and each string, in order, aligned to 16.
 *
 * Out area, if there can be anything in it: starts aligned to 64. Each out buffer of word 1, in order,
 * aligned to 16. A result larger than CAFE_RESULT_BYTES, and every result of a callback, is the last.
 *
 * A struct with annotated pointers lies in the in area with such words in place of its pointers; the buffers
 * they stand for come right after it in the order of both areas. A callback's frame has no word but 0 and 1.
 *
 * Offsets count from the start of the slot, so that alignment is that of memory. Both sides compute every
 * offset in the frame from the scalars; none is ever stored. */

/* ------------------------------------------------------------------ secret image (flat)
 * Image offset = offset in the plaintext = offset in the enclave's virtual image. Page 0 is this header and
 * is never mapped into the enclave. Areas are page-aligned and in this order. */

#define CAFE_IMAGE_MAGIC 0x31474d4945464143ull /* "CAFEIMG1" */
#define CAFE_IMAGE_HEADER_BYTES 4096u

struct cafe_image_header {
    uint64_t magic;
    uint32_t abi_version;
    uint32_t zero;
    uint64_t code_offset, code_bytes;     /* R-X */
    uint64_t rodata_offset, rodata_bytes; /* R--, relocated before it is sealed */
    uint64_t data_offset, data_bytes;     /* RW-, the part with contents */
    uint64_t bss_bytes; /* RW-, zeros, follows data in virtual memory, from data_offset + data_bytes */
    uint64_t reloc_offset, reloc_count; /* u32 image offsets, ascending: add the base to the u64 there */
    uint64_t export_offset,
        export_count;         /* u32 image offsets of the generated entry functions, all in code */
    uint64_t function_offset; /* u32 image offsets of the secret functions themselves, export_count of them */
    uint64_t entry_offset;    /* rt_entry */
    uint64_t tls_offset, tls_file_bytes; /* initial TLS contents, in rodata */
    uint64_t tls_bytes, tls_align;       /* whole TLS block, variant II */
};

/* ------------------------------------------------------------------ what the runtime is told at entry
 * Every vCPU: RIP = base + entry_offset, RDI = &boot (a page mapped R--), RSI = the vCPU's number, RSP = its
 * stack's top (16-byte aligned, a zero return address pushed), FS base = its thread pointer; all other
 * registers 0, DF = AC = 0, FCW = 0x37f, MXCSR = 0x1f80. vCPU 0 runs the constructors and leaves with READY;
 * the others are entered after that. The thread blocks are zeroed; the runtime fills them: [tls | *tp = tp,
 * canary at tp + 0x28, >= 1024 zero bytes]. */

#define CAFE_BOOT_MAGIC 0x31544f4f42454643ull

struct cafe_boot_vcpu {
    uint64_t arena;  /* private staging area, slot_bytes long */
    uint64_t thread; /* thread pointer (FS base) */
};

struct cafe_boot {
    uint64_t magic;
    uint32_t abi_version;
    uint32_t slot_count; /* of each region, as the next two */
    uint64_t slot_bytes;
    uint64_t bulk_bytes;
    uint64_t base; /* image base */
    uint64_t heap, heap_bytes;
    uint64_t channel;        /* address of the first region */
    uint64_t channel_stride; /* from one region to the next */
    uint32_t region_count, vcpu_count;
    uint64_t monitor;     /* struct cafe_monitor, RW */
    uint64_t spin_cycles; /* TSC cycles to poll before sleeping, at most */
    uint64_t isa;         /* enum cafe_isa */
    uint8_t seed[32];     /* fresh random bytes: stack canaries and heap tags; getrandom() is RDRAND */
    struct cafe_boot_vcpu vcpus[CAFE_MAX_VCPUS];
};

enum cafe_isa { CAFE_ISA_X86_64 = 1, CAFE_ISA_X86_64_V2 = 2, CAFE_ISA_X86_64_V3 = 3 };

/* Private to enclave and VMM (enclave memory). */
struct cafe_monitor_vcpu { /* by its vCPU: what the watchdog reads */
    uint64_t started;      /* calls begun; equal to `finished` when none runs, or a callback is out */
    uint64_t finished;
    uint32_t region, slot; /* of the running call */
    uint8_t pad[40];
};

struct cafe_monitor {
    struct cafe_monitor_vcpu vcpus[CAFE_MAX_VCPUS];
    uint32_t attached[CAFE_MAX_REGIONS]; /* by the VMM: odd while a process has the region; counts changes */
    uint32_t settled[CAFE_MAX_REGIONS]; /* by the enclave: the last even `attached` with no call left there */
};

/* Exits: `out %al, $CAFE_PORT`, AL = reason, RDI = argument. Any other port ends the enclave. */
#define CAFE_PORT 0x10u
enum cafe_exit {
    CAFE_EXIT_READY = 1, /* constructors have run; vCPU 0, once */
    CAFE_EXIT_IDLE = 2,  /* nothing to do: sleep until a bell rings */
    CAFE_EXIT_WAKE = 3,  /* RDI = region << 32 | slot: its guest thread sleeps, wake it */
    CAFE_EXIT_ABORT = 4, /* RDI = enum cafe_status: the enclave gives up */
    CAFE_EXIT_YIELD = 5, /* waits for another vCPU: let it run */
    CAFE_EXIT_REST = 6,  /* WAKE, then IDLE */
};

/* ------------------------------------------------------------------ agent <-> VMM
 * A SOCK_SEQPACKET socket on descriptor 3. The agent sends one vmm_config with one descriptor (SCM_RIGHTS:
 * the enclave memory), then, after READY, vmm_commands; the VMM answers with vmm_events until it ends. The
 * enclave memory is the guest-physical range from 0; region i lies at channel_gpa + i * channel_stride. Page
 * tables, GDT, IDT, TSS, `hlt` page and boot page are in the enclave memory, written by the agent. */

#define VMM_CONFIG_MAGIC 0x31474643454d4d56ull
#define VMM_FD 3

struct vmm_vcpu {
    uint64_t rsp, fs_base;
    uint64_t gdt_base, idt_base, tss_base; /* linear, supervisor-only */
    uint64_t fault_stack;                  /* linear: top of the ring-0 stack */
    uint64_t fault_stack_gpa;              /* guest-physical address of the byte at fault_stack */
};

struct vmm_config {
    uint64_t magic;
    uint32_t abi_version;
    uint32_t isa;
    uint64_t memory_bytes;
    uint64_t channel_gpa, channel_stride;
    uint64_t region_bytes, slot_bytes;
    uint32_t region_count, slot_count, vcpu_count;
    uint32_t gdt_limit, idt_limit, tss_limit;
    uint64_t monitor_gpa; /* struct cafe_monitor */
    uint64_t cr3;         /* guest-physical */
    uint64_t rip, rdi;
    uint64_t fault_handler; /* linear: first `hlt` byte (vector v at + 16 v) */
    uint64_t deadline_ns;   /* longest a call (or the constructors) may run */
    struct vmm_vcpu vcpus[CAFE_MAX_VCPUS];
};

enum vmm_command_kind {
    VMM_ATTACH = 1, /* with one descriptor: a channel region; answered by ATTACHED */
    VMM_DETACH = 2, /* `region`; not answered */
};

struct vmm_command {
    uint32_t kind, region;
};

enum vmm_event_kind {
    VMM_EVENT_READY = 1,
    VMM_EVENT_FAULT = 2,    /* vector, error_code, rip, address (CR2) */
    VMM_EVENT_DEADLINE = 3, /* rip */
    VMM_EVENT_ABORT = 4,    /* status */
    VMM_EVENT_HOST = 5,     /* status = errno, rip = a VMM step number: this host cannot run it */
    VMM_EVENT_ATTACHED =
        6, /* status = 0 and vector = the region, or status = errno: EBUSY when all are taken */
};
#define VMM_VECTOR_UNKNOWN 0xffffffffu /* KVM_EXIT_SHUTDOWN: place unknown, registers not read */

struct vmm_event {
    uint32_t kind, vector;
    uint64_t error_code, rip, address;
    uint32_t status, zero;
};

/* ------------------------------------------------------------------ guest <-> agent (control)
 * A stream (UNIX socket, or virtio-serial in a VM) of fixed messages. The guest never names its VM. On a UNIX
 * socket a successful reply carries the channel's descriptor (SCM_RIGHTS). Sent again on the same connection,
 * a request asks for a fresh enclave under the same lease when the old one has ended; the reply brings the
 * same region again. The processes of one VM share an enclave of one release; closing the last connection
 * ends it. */

#define CAFE_CONTROL_MAGIC 0x314c4743u

struct cafe_launch_request {
    uint32_t magic, abi_version;
    uint64_t number; /* chosen by the guest, echoed */
    uint8_t secret_binary_id[32];
    uint8_t interface_digest[32];
};

struct cafe_launch_reply {
    uint32_t magic;
    uint32_t status; /* enum cafe_status */
    uint64_t number;
    uint64_t region_bytes; /* of the channel */
    char message[104];     /* for people, NUL-terminated: what happened and what to do */
};

#endif

/* A secret image in assembly: serves slot 0 of every region by hand, whichever vCPU comes first, and offers one
 * entry per thing that secret code might try. An entry gets the first eight bytes of its frame in RDI (and the
 * next in RSI) and returns RAX as result. It believes its guest, other than the runtime. */

    .section .header, "a"
    .quad 0x31474d4945464143
    .long 2, 0
    .quad code_start, header_code_bytes
    .quad code_end, header_rodata_bytes
    .quad rodata_end, header_data_bytes
    .quad header_bss_bytes
    .quad relocs, header_reloc_count
    .quad exports, header_export_count, exports
    .quad start
    .quad 0, 0, 0, 1

    .macro ENTRY name
    .globl \name
    .section .exports, "a"
    .long \name
    .text
\name:
    .endm

    .text
    .globl start
start:
    /* First of all keep the state at entry, vCPU 0's for `state`, another's in bss. */
    pushf
    push %rax
    mov saved_at(%rip), %rax
    test %rsi, %rsi
    jz 1f
    mov bss_word_at(%rip), %rax
    push %rsi
    shl $10, %rsi
    add %rsi, %rax
    pop %rsi
1:  pop (%rax)
    pop 128(%rax)
    mov %rbx, 8(%rax)
    mov %rcx, 16(%rax)
    mov %rdx, 24(%rax)
    mov %rsi, 32(%rax)
    mov %rdi, 40(%rax)
    mov %rbp, 48(%rax)
    mov %rsp, 56(%rax)
    mov %r8, 64(%rax)
    mov %r9, 72(%rax)
    mov %r10, 80(%rax)
    mov %r11, 88(%rax)
    mov %r12, 96(%rax)
    mov %r13, 104(%rax)
    mov %r14, 112(%rax)
    mov %r15, 120(%rax)
    stmxcsr 136(%rax)
    fnstcw 144(%rax)
    fxsave 256(%rax)
    mov (%rsp), %rcx /* the return address */
    mov %rcx, 152(%rax)
    mov %fs:0, %rcx
    mov %rcx, 160(%rax)
    mov %cs, 168(%rax)
    mov %ss, 176(%rax)

    mov %rdi, %r15        /* boot */
    mov %rsi, %r11        /* the vCPU's number */
    mov 56(%r15), %r14    /* channel */
    mov 80(%r15), %r12    /* monitor */
    mov %r11, %r9
    shl $6, %r9
    add %r12, %r9         /* this vCPU's line of it */
    mov bss_word_at(%rip), %r8
    add $64, %r8          /* a byte for each region: taken by a vCPU */
    test %r11, %r11
    jnz again
    .globl before_ready
before_ready:
    nop
    nop
    nop
    mov $1, %al
    out %al, $0x10
again:
    mov $100, %r10d
round:
    xor %ebx, %ebx        /* region */
    lea 4096(%r14), %r13  /* its slot 0 */
region:
    mov $1, %al
    xchg %al, (%r8,%rbx)
    test %al, %al
    jnz next
    mov 1024(%r12,%rbx,4), %eax /* attached */
    test $1, %al
    jnz 1f
    mov %eax, 1088(%r12,%rbx,4) /* settled */
    jmp release
1:  mov 64(%r13), %ebp
    cmp (%r13), %ebp
    jne call
release:
    movb $0, (%r8,%rbx)
next:
    add 64(%r15), %r13
    inc %ebx
    cmp 72(%r15), %ebx
    jb region
    pause
    dec %r10d
    jnz round
    mov $2, %al
    out %al, $0x10
    jmp again
call:
    mov %ebx, 16(%r9)
    incq (%r9)
    mov 68(%r13), %eax
    mov 80(%r13), %rdi
    mov 88(%r13), %rsi
    lea exports(%rip), %rcx
    mov (%rcx,%rax,4), %eax
    add 32(%r15), %rax
    call *%rax
    mov %rax, 8(%r13)
    movl $0, 4(%r13)
    incq 8(%r9)
    mov %ebp, (%r13)
    mfence
    movb $0, (%r8,%rbx)
    cmpl $0, 72(%r13)
    je again
    mov $3, %al
    mov %rbx, %rdi
    shl $32, %rdi
    out %al, $0x10
    jmp again

ENTRY echo
    lea 1(%rdi), %rax
    ret
ENTRY seed
    mov 104(%r15,%rdi,8), %rax
    ret
ENTRY state             /* eight bytes of what was saved at entry */
    mov saved_at(%rip), %rax
    mov (%rax,%rdi), %rax
    ret
ENTRY bss_word
    mov bss_word_at(%rip), %rax
    mov (%rax), %rax
    ret
ENTRY load
    mov (%rdi), %rax
    ret
ENTRY store
    mov %rsi, (%rdi)
    ret
ENTRY jump
    jmp *%rdi
ENTRY undefined
    ud2
ENTRY divide
    xor %ecx, %ecx
    xor %edx, %edx
    div %ecx
    ret
ENTRY overflow_stack
    push %rdi
    jmp overflow_stack
ENTRY spin
    jmp spin
ENTRY give_up
    mov $4, %al
    out %al, $0x10
    ret
ENTRY ready_twice
    mov $1, %al
    out %al, $0x10
    ret
ENTRY unknown_exit
    mov $99, %al
    out %al, $0x10
    ret
ENTRY wake_far          /* WAKE of a slot that does not exist */
    mov $3, %al
    out %al, $0x10
    mov $77, %eax
    ret
ENTRY yield
    mov $5, %al
    out %al, $0x10
    mov $77, %eax
    ret
ENTRY rest
    mov $6, %al
    out %al, $0x10
    mov $77, %eax
    ret
ENTRY vcpu
    mov %r11, %rax
    ret
ENTRY fs_word
    mov %fs:(%rdi), %rax
    ret
ENTRY outlive           /* answers once its own region was detached and another one, RDI, attached */
    mov 1024(%r12,%rbx,4), %eax
    mov 1024(%r12,%rdi,4), %ecx
    pause
    not %eax
    and %ecx, %eax
    test $1, %al
    jz outlive
    mov %rsi, %rax
    ret
ENTRY other_port
    out %al, $0x11
    ret
ENTRY dx_port
    mov %edi, %edx
    out %al, %dx
    ret
ENTRY wide_port
    out %eax, $0x10
    ret
ENTRY in_port
    in $0x10, %al
    ret
ENTRY string_port
    mov $0x10, %edx
    lea saved(%rip), %rsi
    mov $3, %ecx
    rep outsb
    ret
ENTRY int3_trap
    int3
    ret
ENTRY int_80
    int $0x80
    ret
ENTRY int_fault         /* pretends a page fault */
    int $14
    ret
ENTRY system_call
    mov $39, %eax
    syscall
    ret
ENTRY system_enter
    sysenter
    ret
ENTRY vm_call
    vmcall
    mov $77, %eax
    ret
ENTRY vmm_call
    vmmcall
    mov $77, %eax
    ret
ENTRY cpu_id
    mov %edi, %eax
    xor %ecx, %ecx
    push %rbx
    cpuid
    pop %rbx
    mov $77, %eax
    ret
ENTRY halt
    hlt
    ret
ENTRY clear_interrupts
    cli
    mov $77, %eax
    ret
ENTRY read_msr
    mov %edi, %ecx
    rdmsr
    ret
ENTRY write_msr
    mov %edi, %ecx
    xor %eax, %eax
    xor %edx, %edx
    wrmsr
    ret
ENTRY write_cr3
    mov %rdi, %cr3
    ret
ENTRY write_cr0
    mov %rdi, %cr0
    ret
ENTRY load_gdt
    lgdt saved(%rip)
    ret
ENTRY invalidate
    invlpg (%rdi)
    ret
ENTRY swap_gs
    swapgs
    ret
ENTRY ring0_return      /* iretq to the ring-0 code segment */
    mov %rsp, %rcx
    push $0x10
    push %rcx
    push $2
    push $0x08
    lea echo(%rip), %rax
    push %rax
    iretq
ENTRY ring0_stack
    mov $0x10, %eax
    mov %eax, %ss
    ret
ENTRY set_iopl          /* popf cannot raise IOPL; the port must stay closed */
    pushf
    orq $0x3000, (%rsp)
    popf
    out %al, $0x80
    ret
ENTRY random
    rdrand %rax
    jnc random
    ret
ENTRY cycles
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    ret
ENTRY avx
    vxorps %ymm0, %ymm0, %ymm0
    mov $77, %eax
    ret

    .section .rodata
    .balign 8
saved_at:
    .quad saved
odd_byte:
    .byte 0
odd_at:                 /* an unaligned word to relocate */
    .quad echo

    .data
    .balign 16
    .globl saved
bss_word_at:
    .quad in_bss
    .balign 16
saved:
    .fill 1024, 1, 0x5a

    .bss
    .balign 4096
    .skip 8192
in_bss:
    .quad 0
    .skip 16 * 1024

    .section .relocs, "a"
    .long saved_at, odd_at, bss_word_at

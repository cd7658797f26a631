/* rt_enter: the only way into secret code, and rt_fresh: what comes after it. Flags, x87, MXCSR and vector
 * registers of a call are gone before the next begins, and so are the general registers. */

    .section .rodata.rt_fresh, "a", @progbits
    .balign 16
fresh_state: /* FXSAVE image: FCW 0x37f, MXCSR 0x1f80, all registers zero */
    .short 0x37f
    .zero 22
    .long 0x1f80
    .zero 484

    .section .text.rt_fresh, "ax", @progbits
    .globl rt_fresh
    .hidden rt_fresh
    .type rt_fresh, @function
rt_fresh:
    .cfi_startproc
    testl %edi, %edi
    jz 1f
    vzeroupper /* fxrstor leaves the upper halves */
1:  fxrstor64 fresh_state(%rip)
    ret
    .cfi_endproc
    .size rt_fresh, . - rt_fresh

    .section .text.rt_enter, "ax", @progbits
    .globl rt_enter
    .hidden rt_enter
    .type rt_enter, @function
rt_enter:
    .cfi_startproc
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    pushq %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r12, 0
    pushq %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r13, 0
    pushq %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r14, 0
    pushq %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r15, 0
    subq $8, %rsp
    .cfi_adjust_cfa_offset 8
    movq %rdi, %rax
    movq %rsi, %rdi
    xorl %ebx, %ebx
    xorl %ecx, %ecx
    xorl %edx, %edx
    xorl %esi, %esi
    xorl %ebp, %ebp
    xorl %r8d, %r8d
    xorl %r9d, %r9d
    xorl %r10d, %r10d
    xorl %r11d, %r11d
    xorl %r12d, %r12d
    xorl %r13d, %r13d
    xorl %r14d, %r14d
    xorl %r15d, %r15d
    call *%rax
    pushfq /* writing flags is slow, so look first: DF and AC must not stay as secret code left them */
    testl $0x40400, (%rsp)
    jnz 2f
    addq $8, %rsp
1:
    addq $8, %rsp
    .cfi_adjust_cfa_offset -8
    popq %r15
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r15
    popq %r14
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r14
    popq %r13
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r13
    popq %r12
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r12
    popq %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbp
    popq %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    ret
2:  movq $0x202, (%rsp)
    popfq
    jmp 1b
    .cfi_endproc
    .size rt_enter, . - rt_enter
    .section .note.GNU-stack, "", @progbits

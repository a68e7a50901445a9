# Bochs starts this instead of a BIOS. It goes from the reset vector to 64-bit mode with AVX-512, and calls run() in linux.c.

        .section .rom, "ax"
        .globl rom
rom:
        .code16
start16:
        cli
        lgdtl %cs:(gdt_register - rom)
        mov %cr0, %eax
        or $1, %eax
        mov %eax, %cr0
        ljmpl $8, $start32

        .code32
start32:
        mov $16, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        # Enable the A20 line. Without it, every odd MiB aliases the even one before it.
        in $0x92, %al
        or $2, %al
        out %al, $0x92
        # Bochs loads the program into its own memory and assigns that to the guest in the order of first use: touch it in order.
        mov $0x8000000, %edi
1:      mov (%edi), %eax
        add $0x10000, %edi
        cmp $0xa000000, %edi
        jne 1b
        # Clear the page tables: memory is not zero at the start.
        xor %eax, %eax
        mov $0x1000, %edi
        mov $0x1c00, %ecx
        rep stosl
        # Identity mapping in pages of 2 MiB: the first GiB for memory, and the last page below 4 GiB for this ROM.
        movl $0x2003, 0x1000
        movl $0x3003, 0x2000
        movl $0x4003, 0x2018
        movl $0xffe00083, 0x4ff8
        mov $0x83, %eax
        mov $0x3000, %edi
1:      mov %eax, (%edi)
        add $0x200000, %eax
        add $8, %edi
        cmp $0x4000, %edi
        jne 1b
        mov $0x1000, %eax
        mov %eax, %cr3
        # CR4: PAE, SSE and XSAVE. EFER: long mode and SYSCALL. XCR0: all vector registers that the processor has.
        mov $0x40620, %eax
        mov %eax, %cr4
        mov $0xc0000080, %ecx
        rdmsr
        or $0x101, %eax
        wrmsr
        mov $0x80000033, %eax
        mov %eax, %cr0
        ljmp $24, $start64

        .code64
start64:
        mov $0xd, %eax
        xor %ecx, %ecx
        cpuid
        and $0xe7, %eax
        xor %ecx, %ecx
        xor %edx, %edx
        xsetbv
        mov $0xc0000081, %ecx
        mov $24, %edx
        xor %eax, %eax
        wrmsr
        mov $0xc0000082, %ecx
        xor %edx, %edx
        lea system_call(%rip), %rax
        wrmsr
        mov $0x30000, %rsp
        call run

# The program runs at the same privilege level, so a jump returns to it. It may use the red zone below its stack pointer, so the
# handler has a stack of its own.
system_call:
        mov %rsp, 0x5000
        mov $0x20000, %rsp
        push %r11
        push %rcx
        push %r9
        push %r8
        push %r10
        push %rdx
        push %rsi
        push %rdi
        push %rax
        mov %rsp, %rdi
        call serve
        pop %rax
        pop %rdi
        pop %rsi
        pop %rdx
        pop %r10
        pop %r8
        pop %r9
        pop %rcx
        popfq
        mov 0x5000, %rsp
        jmp *%rcx

        .balign 8
gdt:
        .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff, 0x00af9a000000ffff, 0x00cf92000000ffff
gdt_register:
        .word . - gdt - 1
        .long gdt

        .section .reset, "ax"
        .code16
        jmp start16

        .section .note.GNU-stack, ""

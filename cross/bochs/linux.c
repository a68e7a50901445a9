// The part of Linux that a static, single-threaded test program needs: memory, output, and an exit.

typedef unsigned char u8;
typedef unsigned long u64;
typedef long i64;

enum { RANDOM = 3, NOT_FOUND = -2, AGAIN = -11, NO_MEMORY = -12, NO_SUCH_CALL = -38 };

// Bochs loads the program's file here. mmap hands out the memory behind it.
static u8 *const FILE_AT = (u8 *)0x8000000;
static u64 const ARENA = 0xa000000, ARENA_END = 0x20000000;
static u64 const STACK_TOP = 0x7ff0000, STACK_BYTES = 0x800000;

// This code is in a ROM, so its variables are at a fixed address.
struct state {
    u64 program_end, next, random, nanoseconds;
};
static struct state *const STATE = (struct state *)0x6000;

struct elf {
    u8 identity[16];
    unsigned short type, machine;
    unsigned version;
    u64 entry, headers, sections;
    unsigned flags;
    unsigned short size, header_size, header_count;
};
struct segment {
    unsigned type, flags;
    u64 offset, address, physical, in_file, in_memory, alignment;
};

static void port(unsigned short number, u8 value) {
    __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(number));
}

static void print(const char *text, u64 length) {
    while (length--) port(0xe9, *text++);
}

__attribute__((noreturn)) static void end(u64 status) {
    print("\nexit status ", 13);
    if (status > 99) port(0xe9, '0' + status / 100 % 10);
    if (status > 9) port(0xe9, '0' + status / 10 % 10);
    port(0xe9, '0' + status % 10);
    port(0xe9, '\n');
    for (const char *c = "Shutdown"; *c; c++) port(0x8900, *c);
    for (;;) __asm__ volatile("hlt");
}

// Memory is not zero at the start.
static void clear(u64 from, u64 to) {
    __asm__ volatile("rep stosb" : "+D"(from) : "c"(to - from), "a"(0) : "memory");
}

static u64 page(u64 bytes) { return (bytes + 4095) & ~4095ul; }

// Pseudo-random bytes, the same in every run.
static void fill(struct state *state, u8 *to, u64 count) {
    while (count--) {
        state->random ^= state->random << 13;
        state->random ^= state->random >> 7;
        state->random ^= state->random << 17;
        *to++ = state->random;
    }
}

// `call` holds rax and the six arguments. The result replaces rax.
void serve(u64 *call) {
    u64 *result = call, a = call[1], b = call[2], c = call[3];
    struct state *state = STATE;
    switch (call[0]) {
    case 1: // write
        print((const char *)b, c);
        *result = c;
        return;
    case 20: { // writev
        *result = 0;
        for (u64 *v = (u64 *)b; c--; v += 2) print((const char *)v[0], v[1]), *result += v[1];
        return;
    }
    case 9: // mmap; munmap does not free
        *result = NO_MEMORY;
        if (state->next + page(b) <= ARENA_END) {
            *result = state->next;
            state->next += page(b);
            clear(*result, state->next);
        }
        return;
    case 12: // brk
        if (a >= state->program_end && a < STACK_TOP - STACK_BYTES) {
            clear(state->program_end, a);
            state->program_end = a;
        }
        *result = state->program_end;
        return;
    case 25: // mremap
        *result = NO_MEMORY;
        return;
    case 158: // arch_prctl
        *result = NO_SUCH_CALL;
        if (a == 0x1002) {
            __asm__ volatile("wrmsr" ::"c"(0xc0000100), "a"((unsigned)b), "d"((unsigned)(b >> 32)));
            *result = 0;
        }
        return;
    case 0: // read, which returns random bytes, and getrandom
        fill(state, (u8 *)b, c);
        *result = c;
        return;
    case 318:
        fill(state, (u8 *)a, b);
        *result = b;
        return;
    case 228: // clock_gettime
        state->nanoseconds += 1000;
        ((u64 *)b)[0] = 1, ((u64 *)b)[1] = state->nanoseconds;
        *result = 0;
        return;
    case 56: // clone and clone3 fail, so the test harness uses no threads
    case 435:
        *result = AGAIN;
        return;
    case 2: // open and openat know only /dev/random and /dev/urandom
    case 257: {
        const char *path = (const char *)(call[0] == 2 ? a : b);
        *result = path[0] == '/' && path[1] == 'd' && path[2] == 'e' && path[3] == 'v' ? RANDOM : NOT_FOUND;
        return;
    }
    case 3: // close, poll, mprotect, munmap, rt_sigaction, rt_sigprocmask, madvise, sigaltstack, futex, set_tid_address,
    case 7: // set_robust_list
    case 10:
    case 11:
    case 13:
    case 14:
    case 28:
    case 131:
    case 202:
    case 218:
    case 273:
        *result = 0;
        return;
    case 60: // exit, exit_group, and tgkill, which abort calls
    case 231:
        end(a & 255);
    case 234:
        end(134);
    }
    *result = NO_SUCH_CALL;
}

void run(void) {
    struct elf *elf = (struct elf *)FILE_AT;
    struct segment *segment = (struct segment *)(FILE_AT + elf->headers);
    struct state *state = STATE;
    *state = (struct state){0, ARENA, 0x9e3779b97f4a7c15, 0};
    u64 headers = 0;
    for (int i = 0; i < elf->header_count; i++) {
        if (segment[i].type != 1) continue;
        u8 *to = (u8 *)segment[i].address, *from = FILE_AT + segment[i].offset;
        for (u64 k = 0; k < segment[i].in_file; k++) to[k] = from[k];
        u64 last = page(segment[i].address + segment[i].in_memory);
        clear(segment[i].address + segment[i].in_file, last);
        if (last > state->program_end) state->program_end = last;
        if (segment[i].offset == 0) headers = segment[i].address + elf->headers;
    }
    // Arguments, environment and auxiliary vector, in the layout of the System V ABI.
    u64 *stack = (u64 *)STACK_TOP, random = (u64)(stack - 2);
    u64 top[] = {
        2, (u64) "test", (u64) "--nocapture", 0,
        (u64) "PROPTEST_CASES=" CASES, 0,
        3, headers, 4, elf->header_size, 5, elf->header_count, 6, 4096, 9, elf->entry, 23, 0, 25, random, 0, 0,
    };
    stack -= 64;
    for (u64 i = 0; i < sizeof top / sizeof *top; i++) stack[i] = top[i];
    __asm__ volatile("mov %0, %%rsp\n xor %%edx, %%edx\n jmp *%1" ::"b"(stack), "a"(elf->entry));
}

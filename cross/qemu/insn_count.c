/*
 * A QEMU plugin that counts the guest instructions that a program executes, over all its threads:
 *
 *     qemu-aarch64 -plugin ./insn_count.so,out=FILE[,functions=FILE] PROGRAM
 *
 * When the program ends, it writes the count to `out`, and a line with count and symbol for each function of the program to
 * `functions`. Code without a symbol, as in shared libraries, is `other`. QEMU has an example plugin that does the same, but distributions ship neither
 * the plugin nor its header. So this file declares the part of the interface that it uses, which is unchanged since QEMU 6.
 * Compile with -DPLUGIN_API=1 for QEMU up to version 8, and with -DPLUGIN_API=2 from version 9 on.
 */

#include <inttypes.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info;
enum cb_flags { CB_NO_REGS };

extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
extern const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *instruction);
extern void qemu_plugin_register_vcpu_tb_trans_cb(
    uint64_t id, void (*translated)(uint64_t id, struct qemu_plugin_tb *block));
extern void qemu_plugin_register_vcpu_tb_exec_cb(
    struct qemu_plugin_tb *block, void (*executed)(unsigned int cpu, void *data), enum cb_flags flags, void *data);
extern void qemu_plugin_register_atexit_cb(uint64_t id, void (*at_exit)(uint64_t id, void *data), void *data);

#define EXPORT __attribute__((visibility("default")))

/* QEMU reads this symbol and rejects plugins for an interface version that it does not support. */
EXPORT int qemu_plugin_version = PLUGIN_API;

struct function {
    const char *symbol;
    _Atomic uint64_t executed;
    struct function *next;
};

/* A block of instructions, and the function that it begins in. */
struct block {
    size_t instructions;
    struct function *function;
};

enum { BUCKETS = 4096 };

static struct function other = {.symbol = "other"};
static struct function *functions[BUCKETS];
static FILE *total_file;
static FILE *functions_file;

/* QEMU serializes translation, so the table needs no lock. It keeps each symbol string for as long as the program runs. */
static struct function *function_of(const char *symbol)
{
    if (!functions_file || !symbol || !*symbol) {
        return &other;
    }
    uint32_t hash = 2166136261U;
    for (const char *c = symbol; *c; c++) {
        hash = (hash ^ (unsigned char)*c) * 16777619U;
    }
    struct function **place = &functions[hash % BUCKETS];
    while (*place) {
        if (strcmp((*place)->symbol, symbol) == 0) {
            return *place;
        }
        place = &(*place)->next;
    }
    struct function *function = calloc(1, sizeof *function);
    char *copy = function ? strdup(symbol) : NULL;
    if (!copy) {
        free(function);
        return &other;
    }
    function->symbol = copy;
    *place = function;
    return function;
}

static void block_executed(unsigned int cpu, void *data)
{
    (void)cpu;
    struct block *block = data;
    atomic_fetch_add_explicit(&block->function->executed, block->instructions, memory_order_relaxed);
}

/* A block always runs from its first instruction to its last, so one call per block is enough. */
static void block_translated(uint64_t id, struct qemu_plugin_tb *translated)
{
    (void)id;
    struct block *block = malloc(sizeof *block);
    if (!block) {
        fprintf(stderr, "insn_count: out of memory\n");
        abort();
    }
    block->instructions = qemu_plugin_tb_n_insns(translated);
    block->function = function_of(qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(translated, 0)));
    qemu_plugin_register_vcpu_tb_exec_cb(translated, block_executed, CB_NO_REGS, block);
}

static uint64_t write_count(const struct function *function)
{
    uint64_t executed = atomic_load(&function->executed);
    if (functions_file && executed > 0) {
        fprintf(functions_file, "%" PRIu64 " %s\n", executed, function->symbol);
    }
    return executed;
}

static void program_ended(uint64_t id, void *data)
{
    (void)id;
    (void)data;
    uint64_t total = write_count(&other);
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        for (const struct function *function = functions[bucket]; function; function = function->next) {
            total += write_count(function);
        }
    }
    fprintf(total_file, "%" PRIu64 "\n", total);
    fclose(total_file);
    if (functions_file) {
        fclose(functions_file);
    }
}

static FILE *opened(const char *path)
{
    FILE *file = fopen(path, "w");
    if (!file) {
        perror(path);
    }
    return file;
}

EXPORT int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        FILE **file = NULL;
        if (strncmp(argv[i], "out=", 4) == 0) {
            file = &total_file;
        } else if (strncmp(argv[i], "functions=", 10) == 0) {
            file = &functions_file;
        }
        if (!file) {
            fprintf(stderr, "insn_count: unknown argument %s\n", argv[i]);
            return -1;
        }
        *file = opened(strchr(argv[i], '=') + 1);
        if (!*file) {
            return -1;
        }
    }
    if (!total_file) {
        fprintf(stderr, "insn_count: argument out=FILE is missing\n");
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, block_translated);
    qemu_plugin_register_atexit_cb(id, program_ended, NULL);
    return 0;
}

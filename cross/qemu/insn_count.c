/*
 * A QEMU plugin that counts the guest instructions that a program executes, over all its threads:
 *
 *     qemu-aarch64 -plugin ./insn_count.so,out=FILE PROGRAM
 *
 * It writes the count to FILE when the program ends. QEMU has an example plugin that does the same, but distributions ship neither
 * the plugin nor its header. So this file declares the part of the interface that it uses, which is unchanged since QEMU 6.
 * Compile with -DPLUGIN_API=1 for QEMU up to version 8, and with -DPLUGIN_API=2 from version 9 on.
 */

#include <inttypes.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_info;
enum cb_flags { CB_NO_REGS };

extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
extern void qemu_plugin_register_vcpu_tb_trans_cb(
    uint64_t id, void (*translated)(uint64_t id, struct qemu_plugin_tb *block));
extern void qemu_plugin_register_vcpu_tb_exec_cb(
    struct qemu_plugin_tb *block, void (*executed)(unsigned int cpu, void *data), enum cb_flags flags, void *data);
extern void qemu_plugin_register_atexit_cb(uint64_t id, void (*at_exit)(uint64_t id, void *data), void *data);

#define EXPORT __attribute__((visibility("default")))

/* QEMU reads this symbol and rejects plugins for an interface version that it does not support. */
EXPORT int qemu_plugin_version = PLUGIN_API;

static _Atomic uint64_t executed_instructions;

static void block_executed(unsigned int cpu, void *instructions)
{
    (void)cpu;
    atomic_fetch_add_explicit(&executed_instructions, (uintptr_t)instructions, memory_order_relaxed);
}

/* A block always runs from its first instruction to its last, so one call per block is enough. */
static void block_translated(uint64_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    void *instructions = (void *)(uintptr_t)qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_cb(block, block_executed, CB_NO_REGS, instructions);
}

static void program_ended(uint64_t id, void *out)
{
    (void)id;
    fprintf(out, "%" PRIu64 "\n", atomic_load(&executed_instructions));
    fclose(out);
}

EXPORT int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int argc, char **argv)
{
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0) {
        fprintf(stderr, "insn_count: argument out=FILE is missing\n");
        return -1;
    }
    FILE *out = fopen(argv[0] + 4, "w");
    if (!out) {
        perror(argv[0] + 4);
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, block_translated);
    qemu_plugin_register_atexit_cb(id, program_ended, out);
    return 0;
}

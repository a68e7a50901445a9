#!/usr/bin/env python3
"""Estimates the cycles of the int8 kernels' inner loops on ARM processors, from the machine code of an aarch64 program:

    cross/kernel-cycles.py target/aarch64-unknown-linux-gnu/release/affectd

For each loop it prints the instructions, the products of two bytes, and for each processor the products a cycle, as llvm-mca
models it. Where a processor lacks the instruction, there is a dash. The model knows neither caches nor the branch predictor, and
its model of the in-order Cortex-A53 is coarse. Needs llvm-mca 16 or newer (LLVM_MCA=PROGRAM names another than llvm-mca-19),
binutils-aarch64-linux-gnu, and a program with symbols.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

LLVM_MCA = os.environ.get("LLVM_MCA", "llvm-mca-19")
# The multiplications that not every processor has.
PROCESSORS = {
    "cortex-a53": set(),
    "cortex-a72": set(),
    "cortex-a76": {"sdot"},
    "cortex-a710": {"sdot", "smmla"},
}
KERNELS = {
    "neon_4x8": "matrix product, NEON",
    "neon_dot_8x8": "matrix product, SDOT",
    "neon_i8mm_8x8": "matrix product, SMMLA",
    "depthwise_s84neon": "depthwise, NEON",
}
PRODUCTS = {"smull": 8, "smlal": 8, "sdot": 16, "smmla": 32}
REPEATS = 200
# A loop with fewer multiplications is not the main loop of a kernel.
LEAST_MULTIPLICATIONS = 16


def output_of(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        sys.exit(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout


def innermost_loops(program, symbol):
    """The instructions of every loop of a function that contains no other loop and no call."""
    listing = output_of("aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", f"--disassemble={symbol}", program)
    lines = re.findall(r"^\s*([0-9a-f]+):\t(.*)$", listing, re.MULTILINE)
    code = [(int(address, 16), text.split("//")[0].strip()) for address, text in lines]
    index = {address: i for i, (address, _) in enumerate(code)}
    starts = {}
    for end, (address, text) in enumerate(code):
        target = re.match(r"(?:b\.\w+|cbn?z\s+\w+,|b)\s+([0-9a-f]+)\b", text)
        start = index.get(int(target[1], 16)) if target else None
        if start is not None and start < end:
            starts.setdefault(start, (end, address))
    for start, (end, _) in starts.items():
        if not any(start <= other and other_end < end for other, (other_end, _) in starts.items()):
            yield [text for _, text in code[start : end + 1]]


def multiplications(loop):
    """The multiplications of one turn of a loop, without the letters that name a half of a register."""
    return [text.split()[0].removesuffix("2") for text in loop if text.split()[0].removesuffix("2") in PRODUCTS]


def cycles(loop, processor):
    # Jumps out of the loop need no target; the jump back is part of the cost.
    straight = [re.sub(r"^(b\.\w+|b)\s.*", r"\1 .", text) for text in loop if not re.match(r"tbn?z|cbn?z", text)]
    report = output_of(
        LLVM_MCA, "-mtriple=aarch64", f"-mcpu={processor}", f"-iterations={REPEATS}", input="\n".join(straight)
    )
    return int(re.search(r"Total Cycles:\s+(\d+)", report)[1]) / REPEATS


def main():
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__.strip())
        return
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__.strip(), file=sys.stderr)
        sys.exit(2)
    for tool in (LLVM_MCA, "aarch64-linux-gnu-objdump", "nm"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is missing: install llvm-19 and binutils-aarch64-linux-gnu")
    program = sys.argv[1]
    if not Path(program).is_file():
        sys.exit(f"{program}: no such file: build it with cross/build.sh")
    symbols = [line.split()[-1] for line in output_of("nm", "--defined-only", program).splitlines()]
    seen = set()
    for part, name in KERNELS.items():
        for symbol in symbols:
            if part not in symbol or not re.search(r"quantized_panel|\d+depthwise17h", symbol):
                continue
            for loop in innermost_loops(program, symbol):
                found = multiplications(loop)
                row = (name, len(loop), sum(PRODUCTS[one] for one in found))
                if len(found) < LEAST_MULTIPLICATIONS or row in seen:
                    continue
                if not seen:
                    names = " ".join(f"{processor:>11}" for processor in PROCESSORS)
                    print(f"{'loop':24} {'instructions':>12} {'products':>9} {names}")
                seen.add(row)
                needs = {"sdot", "smmla"}.intersection(found)
                rates = [
                    f"{row[2] / cycles(loop, processor):11.1f}" if needs <= has else f"{'-':>11}"
                    for processor, has in PROCESSORS.items()
                ]
                print(f"{name:24} {row[1]:12} {row[2]:9} " + " ".join(rates))
    if not seen:
        sys.exit(
            f"{program}: no kernels for ARM: name a program for aarch64 with its symbols, as cross/build.sh makes it"
        )


if __name__ == "__main__":
    main()

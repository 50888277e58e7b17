"""Check the kernels' main loops for processors that are not at hand.

    python scripts/check_loops.py [TARGET ...]

The kernels are compiled to assembly with setup.py's flags by gcc and clang, for AVX2, AVX-512 and arm64. In each main
loop this counts multiply-adds, loads, and spills of vector registers (a pointer that is kept on the stack counts as
one more instruction), and asks llvm-mca, and OSACA where it is installed, how many cycles a turn takes. The bound is
what llvm-mca says of the multiply-adds and the loads alone, if none waits for another; the loads are those of the
algorithm: each operand of a tile once, and of sparse products one vector for each multiply-add. The exit code is 1 if
a main loop spills, is predicted below 90 % of its bound or is not found, or if a comparison of single numbers decides
a branch where the gradient goes back through ReLU; 2 if a tool is missing. What is printed is the table in
PERFORMANCE.md beside the kernels.
"""

import argparse
import functools
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from os import chdir, cpu_count
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LEAST = 0.9  # of the bound
TURNS = 200  # of a loop, that llvm-mca simulates
CLANG = [f"clang-{version}" for version in range(30, 13, -1)] + ["clang"]
MCA = [f"llvm-mca-{version}" for version in range(30, 13, -1)] + ["llvm-mca"]
# Each target: the names that its compiler may have, the compiler's own flags, setup.py's instruction set.
TARGETS = {
    "gcc-avx2": (["gcc"], [], "avx2"),
    "gcc-avx512": (["gcc"], [], "avx512"),
    "gcc-arm64": (["aarch64-linux-gnu-gcc"], [], "arm64"),
    "clang-avx2": (CLANG, ["--target=x86_64-linux-gnu"], "avx2"),
    "clang-avx512": (CLANG, ["--target=x86_64-linux-gnu"], "avx512"),
    "clang-arm64": (CLANG, ["--target=aarch64-linux-gnu", "-mcpu=apple-m1"], "arm64"),
}
# llvm-mca's processors, and OSACA's. Not asked are llvm's Zen 4, where a load to all lanes of 512 bits takes a
# multiply-add unit, and its Alder Lake, where the computation of an address always does.
PROCESSORS = {
    "avx2": (["znver3", "skylake"], ["ZEN3"]),
    "avx512": (["icelake-server", "sapphirerapids"], ["ICX", "SPR"]),
    "arm64": (["apple-m1", "neoverse-n1", "neoverse-v2"], ["N1", "V2"]),
}
INSTALL = (
    "apt-get install gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross clang llvm, and pip install cython setuptools"
)


class MissingTool(Exception):
    pass


class Instruction(NamedTuple):
    name: str
    operands: str
    multiplies: bool = False
    loads: int = 0  # vectors, or single numbers that become one
    spills: bool = False


def x86_instruction(name, operands, frame):
    memory = re.search(r"\([^)]*\)", operands)
    vector = "%xmm" in operands or "%ymm" in operands or "%zmm" in operands
    multiplies = bool(re.fullmatch(r"vfn?m(add|sub)\d+p[sd]", name))
    stored = operands.rstrip().endswith(")") and not name.startswith(("cmp", "test", "prefetch"))
    loads = int(vector and memory is not None and not stored)
    stack = r"\(%r[sb]p[,)]" if frame else r"\(%rsp[,)]"
    spills = vector and re.search(stack, operands) is not None
    return Instruction(name, operands, multiplies, loads, spills)


def arm_instruction(name, operands, frame):
    name = name.partition(".")[0]
    vector = re.match(r"\{? ?[vqsd]\d", operands) is not None
    loads = 0
    if vector and name.startswith("ld") and name != "ldrb":
        loads = 2 if name in ("ldp", "ldnp") else len(re.findall(r"v\d+", operands.partition("}")[0])) or 1
    stack = r"\[(sp|x29)[,\]]" if frame else r"\[sp[,\]]"
    spills = vector and re.search(stack, operands) is not None
    return Instruction(name, operands, name in ("fmla", "fmls"), loads, spills)


class Function(NamedTuple):
    instructions: list
    lines: list
    labels: dict  # the number of the instruction behind it

    def loops(self):
        """the innermost loops, as (first, last) instruction"""
        found = set()
        for number, instruction in enumerate(self.instructions):
            if target := re.search(r"\.L\w+$", instruction.operands):
                start = self.labels.get(target[0])
                if is_branch(instruction.name) and start is not None and start <= number:
                    found.add((start, number))
        return sorted(loop for loop in found if not any(within(other, loop) for other in found - {loop}))

    def branching_comparisons(self):
        """how many comparisons of single floating-point numbers inside the innermost loops decide a branch"""
        count = 0
        for first, last in self.loops():
            for number in range(first, last):
                compared = re.fullmatch(r"v?u?comis[sd]|fcmpe?", self.instructions[number].name)
                count += bool(compared) and self.branches_after(number)
        return count

    def branches_after(self, number):
        """whether the flags that this instruction sets decide a branch"""
        for instruction in self.instructions[number + 1 :]:
            if is_branch(instruction.name):
                return True
            if re.fullmatch(r"cmp\w*|test\w*|(add|sub)[bwlqs]|.*comis[sd]|fcmpe?", instruction.name):
                return False
        return False


def within(inner, outer):
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def is_branch(name):
    return re.fullmatch(r"j\w+|b(\.?(eq|ne|gt|lt|ge|le|hi|ls|hs|lo|cs|cc|mi|pl|vs|vc))?|cbn?z|tbn?z", name) is not None


def functions(assembly, arm):
    """The functions of an assembly file by name, as gcc and clang write them for Linux."""
    found, body = {}, []
    for line in assembly.splitlines():
        if name := re.match(r"([A-Za-z_][\w.$]*):", line):
            body = found[name[1]] = []
        else:
            body.append(line)
    return {name: function(lines, arm) for name, lines in found.items()}


def function(lines, arm):
    comment = "//" if arm else "#"
    frame = any(re.search(r"mov\s+x29, sp|add\s+x29, sp" if arm else r"movq\s+%rsp, %rbp", line) for line in lines)
    instructions, texts, labels = [], [], {}
    for line in lines:
        text = line.partition(comment)[0].strip()
        if label := re.match(r"(\.L\w+):", text):
            labels[label[1]] = len(instructions)
        elif text and not text.startswith("."):
            name, _, operands = text.replace("\t", " ", 1).partition(" ")
            instructions.append((arm_instruction if arm else x86_instruction)(name, operands.strip(), frame))
            texts.append(text)
    return Function(instructions, texts, labels)


class Loop(NamedTuple):
    """What is looked for: in functions of these names, loops of so many multiply-adds"""

    name: str
    functions: str
    multiplies: int
    loads: int


def main_loops(macros):
    """The main loops for the sizes that tiles.h defines."""
    for real, size, number in (("float", 4, 0), ("double", 8, 1)):
        lanes = macros["CY_LANES_FLOAT"] if real == "float" else 8
        parts = lanes * size // macros["CY_BYTES"]
        rows, vectors = macros["CY_ROWS"], macros[f"CY_VECTORS_{real.upper()}"]
        dot_rows, sparse = macros[f"CY_DOT_ROWS_{real.upper()}"], macros[f"CY_SPARSE_{real.upper()}"]
        kernel = rf"__pyx_fuse_{number}__pyx_f_\w*_kernels_7kernels_({{}})\b"

        across = vectors if real == "float" else min(2, vectors)
        outer = {f"outer {rows} × {across}": (rows, across)}
        if real == "float" and macros["CY_VECTORS_FEW"] > vectors:
            outer[f"outer 3 × {macros['CY_VECTORS_FEW']}"] = (3, macros["CY_VECTORS_FEW"])
        for name, (i, v) in outer.items():
            yield Loop(f"{real}, {name}", kernel.format("conv_forward"), i * v * parts, i + v * parts)
        tile = (dot_rows * rows * parts, (dot_rows + rows) * parts)
        yield Loop(f"{real}, dot {dot_rows} × {rows}", kernel.format("dense_forward"), *tile)
        tile = (rows * vectors * parts, (rows + vectors) * parts)
        places = kernel.format("filter_gradient|gradient_tiles|conv_backward")
        yield Loop(f"{real}, filters {rows} × {vectors}", places, *tile)
        place = rf"cy_sparse_{sparse}_{real}\b"
        yield Loop(f"{real}, sparse {sparse}", place, sparse * parts, sparse * parts + 1)


def tool(names):
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise MissingTool(f"{names[-1]} is missing: install the tools with {INSTALL}")
    return path


def run(command, text=None):
    return subprocess.run(command, input=text, capture_output=True, text=True)


@functools.cache
def cycles(code, processor, triple):
    """A turn of this loop on one of llvm-mca's processors, or None if it does not know the processor.

    Where multiply-adds read memory, the models of Intel's processors let the sum wait for the load, as no processor
    does: there the reciprocal throughput is taken.
    """
    command = [tool(MCA), f"-mtriple={triple}", f"-mcpu={processor}", f"-iterations={TURNS}"]
    ran = run(command, code + "\n")
    if ran.returncode or "not a recognized" in ran.stderr:
        return None
    if re.search(r"vfmadd\d+p[sd]\s+\S*\(", code):
        return float(re.search(r"Block RThroughput:\s+([\d.]+)", ran.stdout)[1])
    return int(re.search(r"Total Cycles:\s+(\d+)", ran.stdout)[1]) / TURNS


def bound(loop, macros, processor, triple):
    """The cycles of a turn of nothing but the loop's multiply-adds and loads, none of which waits for another."""
    width = macros["CY_BYTES"]
    arm = triple.startswith("aarch64")
    last = 31 if arm or width == 64 else 15
    if arm:
        code = [f"fmla v{2 + i}.4s, v0.4s, v1.4s" for i in range(loop.multiplies)]
        code += [f"ldr q{last - i % 4}, [x0, {16 * i}]" for i in range(loop.loads)]
    else:
        register = {32: "%ymm", 64: "%zmm"}[width]
        code = [f"vfmadd231ps {register}0, {register}1, {register}{2 + i}" for i in range(loop.multiplies)]
        code += [f"vmovups {width * i}(%rax), {register}{last - i % 4}" for i in range(loop.loads)]
    return cycles("\n".join(code), processor, triple)


def osaca(code, architecture, arm):
    """A turn of this loop on one of OSACA's processors, or None where it is not installed or fails."""
    path = shutil.which("osaca")
    if path is None:
        return None
    mark = "//" if arm else "#"
    label = re.search(r"\.L\w+$", code)[0]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "loop.s")
        source.write_text(f"{mark} OSACA-BEGIN\n{label}:\n{code}\n{mark} OSACA-END\n", encoding="utf-8")
        text = run([path, "--arch", architecture, "--ignore-unknown", "--lcd-timeout", "10", str(source)]).stdout
    rows = [line for line in text.splitlines() if re.fullmatch(r"[\s\d.|]+", line) and line.count(".") > 4]
    if not rows:
        return None
    *ports, _, dependency = map(float, re.findall(r"[\d.]+", rows[-1]))
    return max(*ports, dependency)


def accepted(compiler, flags):
    """Those of setup.py's flags that this compiler takes."""
    probe = [*compiler, "-Werror", "-x", "c", "-c", "-", "-o", "/dev/null"]
    return [flag for group in flags if run([*probe, *group], "int x;\n").returncode == 0 for flag in group]


def compile_target(settings, source, target):
    """The macros of tiles.h and the assembly of the kernels."""
    names, flags, instruction_set = TARGETS[target]
    compiler = [tool(names), *flags]
    flags = accepted(compiler, settings["FAST"]) + settings["MARCH"].get(instruction_set, [])
    include = [f"-I{settings['KERNELS']}", f"-I{sysconfig.get_path('include')}"]
    defines = [f"-D{name}={value}" for name, value in settings["MACROS"]]
    macros = run([*compiler, *flags, *include, "-dM", "-E", str(settings["KERNELS"] / "tiles.h")])
    made = run([*compiler, *flags, *include, *defines, "-w", "-S", str(source), "-o", "-"])
    for ran in (macros, made):
        if ran.returncode:
            raise MissingTool(f"{compiler[0]} cannot compile for {target}, so install {INSTALL}:\n{ran.stderr[-600:]}")
    sizes = {name: int(value) for name, value in re.findall(r"#define (CY_\w+) (\d+)\n", macros.stdout)}
    return sizes, made.stdout


def check(target, macros, assembly):
    """Rows of the table, and sentences that say what is wrong."""
    instruction_set = TARGETS[target][2]
    arm = instruction_set == "arm64"
    triple = "aarch64-linux-gnu" if arm else "x86_64-linux-gnu"
    made = functions(assembly, arm)
    rows, faults = [], []
    for loop in main_loops(macros):
        where = f"{target}: {loop.name}"
        found = matching(made, loop)
        if not found:
            faults.append(f"{where}: no such loop")
            continue
        faults += [f"{where}: {spills} spills" for *_, spills in found if spills]
        code, instructions, loads, spills = max(found, key=lambda each: (each[3], each[1]))
        told, seconds = [], []
        for processor in PROCESSORS[instruction_set][0]:
            turn = cycles(code, processor, triple)
            if turn is None:
                continue
            share = min(1, bound(loop, macros, processor, triple) / turn)
            told.append(f"{processor} {turn:.1f} ({100 * share:.0f} %)")
            if share < LEAST:
                faults.append(f"{where}: {100 * share:.0f} % of the bound on {processor}")
        for architecture in PROCESSORS[instruction_set][1]:
            turn = osaca(code, architecture, arm)
            if turn:
                seconds.append(f"{architecture} {turn:.1f}")
        rows.append(
            [target, loop.name, loop.multiplies, loads, spills, instructions, ", ".join(told), ", ".join(seconds)]
        )
    masks = r"__pyx_fuse_\d__pyx_f_\w*_kernels_7kernels_(dense_backward_input|backward_images)\b"
    masking = [name for name in made if re.match(masks, name)]
    if not masking:
        faults.append(f"{target}: no masking loops")
    for name in masking:
        if count := made[name].branching_comparisons():
            faults.append(f"{target}: {name} has {count} branches that depend on a single activation")
    return rows, faults


def matching(made, loop):
    """The code, instructions, loads and spills of the innermost loops of so many multiply-adds."""
    found = []
    for name, body in made.items():
        if not re.match(loop.functions, name):
            continue
        for first, last in body.loops():
            part = body.instructions[first : last + 1]
            if sum(each.multiplies for each in part) == loop.multiplies:
                loads, spills = sum(each.loads for each in part), sum(each.spills for each in part)
                found.append(("\n".join(body.lines[first : last + 1]), len(part), loads, spills))
    return found


def table(rows):
    header = ["target", "loop", "multiply-adds", "loads", "spills", "instructions", "cycles by llvm-mca", "by OSACA"]
    lines = [header, ["-" * len(name) for name in header], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; all by default")
    targets = parser.parse_args().targets or list(TARGETS)
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"TARGET must be one of {', '.join(TARGETS)}, but got {', '.join(sorted(unknown))}")
    chdir(ROOT)
    try:
        settings = runpy.run_path("setup.py")
        source = settings["translate"]("kernels")
        tool(MCA)
        with ThreadPoolExecutor(cpu_count()) as pool:
            compiled = list(pool.map(lambda target: compile_target(settings, source, target), targets))
            checked = list(pool.map(lambda target, made: check(target, *made), targets, compiled))
    except ImportError as error:
        print(f"{error.name} is missing: install the tools with {INSTALL}", file=sys.stderr)
        return 2
    except MissingTool as error:
        print(error, file=sys.stderr)
        return 2
    print(table([row for rows, _ in checked for row in rows]))
    faults = [fault for _, faults in checked for fault in faults]
    print("\n".join(faults) or "No loop spills, and all are predicted within 90 % of their bound.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

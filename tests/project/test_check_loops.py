"""scripts/check_loops.py counts what is in small loops, and finds fault with a spill, a slow loop and a branch."""

import runpy

import pytest
from pages import ROOT

SCRIPT = runpy.run_path(str(ROOT / "scripts" / "check_loops.py"))

X86 = """
cy_sparse_2_float:
	pushq	%rbp
	movq	%rsp, %rbp
	vmovups	%ymm1, -64(%rbp)	# outside the loop
.L2:
	prefetcht1	(%r8)
	vmovups	(%rdx), %ymm0
	vmovups	32(%rdx), %ymm1
	vbroadcastss	(%rsi), %ymm2
	movq	24(%rsp), %rax
	vfmadd231ps	%ymm2, %ymm0, %ymm3
	vfmadd231ps	-32(%rax), %ymm2, %ymm4
	SPILL
	addq	$4, %rsi
	cmpq	%rsi, %rcx
	jne	.L2
	ret
"""
ARM = """
cy_sparse_2_float:
	stp	x29, x30, [sp, -16]!
	mov	x29, sp
.L2:
	ldp	q0, q1, [x1]
	ld1r	{v2.4s}, [x0], 4
	ldr	s5, [x2]
	fmla	v3.4s, v0.4s, v2.s[0]	// a lane
	fmla	v4.4s, v1.4s, v2.4s
	SPILL
	prfm	PLDL2KEEP, [x20]
	ldr	x5, [sp, 40]
	cmp	x0, x3
	b.ne	.L2
	ret
"""


def only_loop(text, arm, multiplies=2):
    loop = SCRIPT["Loop"]("sparse", "cy_sparse_2_float", multiplies, 3)
    return SCRIPT["matching"](SCRIPT["functions"](text, arm), loop)


@pytest.mark.parametrize(
    ("text", "arm", "spill", "loads", "spills", "instructions"),
    [
        (X86, False, "", 4, 0, 10),
        (X86, False, "vmovaps %ymm3, 96(%rsp)", 4, 1, 11),
        (X86, False, "vmovaps -96(%rbp), %ymm3", 5, 1, 11),
        (X86, False, "vfmadd231ps 32(%rsp), %ymm2, %ymm4", 5, 1, 11),
        (ARM, True, "", 4, 0, 9),
        (ARM, True, "str q3, [sp, 64]", 4, 1, 10),
        (ARM, True, "ldr q3, [x29, 64]", 5, 1, 10),
    ],
)
def test_counts(text, arm, spill, loads, spills, instructions):
    multiplies = 3 if "fmadd" in spill else 2
    [(_, *counted)] = only_loop(text.replace("\tSPILL\n", spill and f"\t{spill}\n"), arm, multiplies)
    assert counted == [instructions, loads, spills]


def test_a_loop_around_another_is_not_an_innermost_loop():
    text = X86.replace("SPILL", "nop").replace("\tret\n", "\tjmp\t.L1\n").replace("\tpushq", ".L1:\n\tpushq")
    [(code, *_)] = only_loop(text, arm=False)
    assert code.startswith("prefetcht1") and code.endswith(".L2")


@pytest.mark.parametrize(
    ("spill", "turn", "fault"),
    [
        ("nop", 1.0, None),
        ("vmovaps %ymm3, 96(%rsp)", 1.0, "1 spills"),
        ("nop", 1.2, "83 % of the bound on znver3"),
        ("vfmadd231ps %ymm5, %ymm6, %ymm7", 1.0, "no such loop"),
    ],
)
def test_faults(monkeypatch, spill, turn, fault):
    names = SCRIPT["check"].__globals__
    monkeypatch.setitem(names, "main_loops", lambda macros: [names["Loop"]("sparse", "cy_sparse_2_float", 2, 3)])
    monkeypatch.setitem(names, "PROCESSORS", {"avx2": (["znver3"], [])})
    monkeypatch.setitem(names, "cycles", lambda code, *where: turn if ".L2" in code else 1.0)
    rows, faults = names["check"]("gcc-avx2", {"CY_BYTES": 32}, X86.replace("SPILL", spill) + MASK)
    assert len(rows) == (fault != "no such loop")
    assert [sentence for sentence in faults if fault is None or fault not in sentence] == []
    assert len(faults) == (fault is not None)


MASK = """
__pyx_fuse_0__pyx_f_6cyconv_8_kernels_7kernels_dense_backward_input:
.L7:
	vcmpps	$30, %ymm1, %ymm0, %ymm2
	jne	.L7
"""
BRANCHES = {
    "vcomiss	%xmm2, %xmm1\n\tjbe	.L9": False,
    "fcmpe	s1, #0.0\n\tfmul	s0, s8, s0\n\tbgt	.L9": True,
}


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_branch_for_each_activation_is_found(branch):
    made = SCRIPT["functions"](MASK.replace(".L7:", ".L7:\n\t" + branch), BRANCHES[branch])
    assert sum(function.branching_comparisons() for function in made.values()) == 1
    assert sum(function.branching_comparisons() for function in SCRIPT["functions"](MASK, False).values()) == 0


def test_a_selection_is_no_branch():
    text = MASK.replace(".L7:", ".L7:\n\tfcmpe	s1, #0.0\n\tfcsel	s0, s0, s3, gt\n\tcmp	x1, x2")
    assert [function.branching_comparisons() for function in SCRIPT["functions"](text, True).values()] == [0]


def test_a_missing_tool_is_one_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SCRIPT["MissingTool"], match="llvm-mca is missing: install the tools with apt-get install"):
        SCRIPT["tool"](["llvm-mca-99", "llvm-mca"])

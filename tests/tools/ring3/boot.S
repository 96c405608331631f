/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * boot.S - a guest without an operating system: from the 64-bit entry of the
 * Linux boot protocol, or from the 32-bit one of PVH, to ring 3
 *
 * All that runs in ring 0 are these sixty instructions.  main() runs in ring 3
 * with every I/O port open (IOPL 3), so that it works, at full speed, even on
 * a software KVM that cannot run kernels.
 */
	.section .text.boot, "ax"
	.code64
	.globl _start
	.org 0x200
_start:
	cli
	mov	0x228(%rsi), %eax		/* boot_params: cmd_line_ptr */
	mov	%eax, cmdline_at
	lgdt	gdtr
	mov	$pml4, %eax
	mov	%rax, %cr3
	lea	stack_top, %rsp
	push	$0x10			/* 64-bit code */
	mov	$flat, %eax
	push	%rax
	lretq
	.code32
	.globl pvh_start
pvh_start:
	cli
	mov	24(%ebx), %eax			/* hvm_start_info: cmdline_paddr */
	mov	%eax, cmdline_at
	lgdt	gdtr
	mov	%cr4, %eax
	or	$0x620, %eax			/* PAE, and SSE for who wants it */
	mov	%eax, %cr4
	mov	$pml4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x100, %eax			/* long mode */
	wrmsr
	mov	%cr0, %eax
	or	$0x80000001, %eax
	mov	%eax, %cr0
	ljmp	$0x10, $flat
	.code64
flat:
	mov	$stack_top, %esp
	mov	$0x18, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	mov	$0x4b564d01, %ecx		/* KVM's clock, for the TSC's frequency */
	mov	$pvclock, %eax
	or	$1, %eax
	xor	%edx, %edx
	wrmsr
	mov	$tss, %eax		/* its address goes into the descriptor */
	mov	%ax, gdt + 0x3a
	shr	$16, %eax
	mov	%al, gdt + 0x3c
	mov	%ah, gdt + 0x3f
	mov	$0x38, %eax
	ltr	%ax
	push	$0x2b			/* ss, rsp, rflags, cs, rip of ring 3 */
	lea	stack_top, %rax
	push	%rax
	push	$0x3002
	push	$0x33
	mov	$main, %eax
	push	%rax
	iretq

	.data
	.balign	16
gdt:
	.quad	0
	.quad	0
	.quad	0x00af9b000000ffff	/* 10 code, ring 0 */
	.quad	0x00cf93000000ffff	/* 18 data, ring 0 */
	.quad	0
	.quad	0x00cff3000000ffff	/* 28 data, ring 3 */
	.quad	0x00affb000000ffff	/* 30 code, ring 3 */
	.quad	0x0000890000002068	/* 38 task state, with a map of open ports */
	.quad	0
gdtr:
	.word	. - gdt - 1
	.quad	gdt
	.balign	16
tss:
	.fill	25, 4, 0
	.word	0, 0x68
	.fill	8192, 1, 0
	.byte	0xff
	.globl	cmdline_at
	.balign	8
cmdline_at:
	.quad	0
	.globl	pvclock
	.balign	64
pvclock:
	.fill	64, 1, 0
	.balign	4096
pml4:
	.quad	pdpt + 7
	.fill	511, 8, 0
pdpt:
	.set	i, 0
	.rept	4
	.quad	directories + i * 4096 + 7
	.set	i, i + 1
	.endr
	.fill	508, 8, 0
directories:				/* 4 GiB one to one, for ring 3 too */
	.set	i, 0
	.rept	2048
	.quad	(i << 21) + 0x87
	.set	i, i + 1
	.endr

	.bss
	.balign	4096
	.skip	16384
stack_top:
	.section .note.Xen, "a", @note
	.long	4, 4, 18			/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.long	pvh_start
	.section .note.GNU-stack, "", @progbits

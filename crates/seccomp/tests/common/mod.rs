//! A machine for classic BPF as seccomp uses it, strict about what the kernel would refuse.

// Each test uses a part of it.
#![allow(dead_code)]

use seccomp::Instruction;

/// What the kernel shows a filter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) arch: u32,
    pub(crate) number: u32,
    pub(crate) args: [u64; 6],
}

pub(crate) const X86_64: u32 = 0xc000_003e;
pub(crate) const X86: u32 = 0x4000_0003;
pub(crate) const AARCH64: u32 = 0xc000_00b7;
pub(crate) const ARM: u32 = 0x4000_0028;
pub(crate) const X32_BIT: u32 = 0x4000_0000;

pub(crate) const KILL: u32 = 0;
pub(crate) const ALLOW: u32 = 0x7fff_0000;
pub(crate) const ERRNO: u32 = 0x0005_0000;

/// Checks a program as seccomp_check_filter and bpf_check_classic do.
pub(crate) fn check(program: &[Instruction]) {
    assert!(!program.is_empty() && program.len() <= 4096, "{} instructions", program.len());
    for (at, i) in program.iter().enumerate() {
        let left = program.len() - at - 1;
        match i.code {
            0x20 => assert!(i.k.is_multiple_of(4) && i.k < 64, "load of {}", i.k),
            0x05 => assert!((i.k as usize) < left, "jump out of the program at {at}"),
            0x15 | 0x25 | 0x35 | 0x45 => {
                assert!(usize::from(i.jt.max(i.jf)) < left, "jump out of the program at {at}");
            }
            0x06 | 0x54 => {}
            code => panic!("operation {code:#x} at {at}"),
        }
    }
    assert_eq!(program.last().unwrap().code, 0x06, "the last instruction returns");
}

/// Runs a program; returns the answer and how many instructions it took.
pub(crate) fn run(program: &[Instruction], call: &Call) -> (u32, usize) {
    let mut words = vec![call.number, call.arch, 0, 0];
    words.extend(call.args.iter().flat_map(|a| [*a as u32, (*a >> 32) as u32]));
    let (mut accumulator, mut at, mut steps) = (0u32, 0usize, 0usize);
    loop {
        let i = program[at];
        at += 1;
        steps += 1;
        let branch = |holds: bool| usize::from(if holds { i.jt } else { i.jf });
        match i.code {
            0x20 => accumulator = words[i.k as usize / 4],
            0x54 => accumulator &= i.k,
            0x05 => at += i.k as usize,
            0x15 => at += branch(accumulator == i.k),
            0x25 => at += branch(accumulator > i.k),
            0x35 => at += branch(accumulator >= i.k),
            0x45 => at += branch(accumulator & i.k != 0),
            0x06 => return (i.k, steps),
            code => panic!("operation {code:#x}"),
        }
    }
}

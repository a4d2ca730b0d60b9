//! A small assembler for classic BPF that writes programs from their end, so that every jump knows how far it goes.

use crate::error::CompileError;

/// The kernel's `BPF_MAXINSNS`.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// One classic BPF instruction, in the kernel's terms (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// How many instructions to skip when the comparison holds.
    pub jt: u8,
    /// How many instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// A comparison of the accumulator with a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Equal,
    Greater,
    GreaterOrEqual,
}

impl Compare {
    fn code(self) -> u16 {
        match self {
            Compare::Equal => 0x15,
            Compare::Greater => 0x25,
            Compare::GreaterOrEqual => 0x35,
        }
    }
}

/// A word of `struct seccomp_data`, on little-endian machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Number,
    Arch,
    Low(u8),
    High(u8),
}

impl Word {
    fn offset(self) -> u32 {
        match self {
            Word::Number => 0,
            Word::Arch => 4,
            Word::Low(argument) => 16 + 8 * u32::from(argument),
            Word::High(argument) => 20 + 8 * u32::from(argument),
        }
    }
}

/// Where a jump goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Leave the program with this value.
    Return(u32),
    /// An instruction already written, which therefore comes later in the program.
    At(Label),
}

/// Counted from the end of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// The program so far, last instruction first.
#[derive(Debug, Default)]
pub(crate) struct Program {
    reversed: Vec<Instruction>,
    /// The nearest return of each value.
    returns: Vec<(u32, Label)>,
}

impl Program {
    /// Turns the program the right way round.
    pub(crate) fn finish(mut self) -> Result<Vec<Instruction>, CompileError> {
        if self.reversed.len() > MAX_INSTRUCTIONS {
            return Err(CompileError::TooLong { instructions: self.reversed.len() });
        }
        self.reversed.reverse();
        Ok(self.reversed)
    }

    /// Loads a word, then goes on to `next`.
    pub(crate) fn load(&mut self, word: Word, next: Target) -> Target {
        self.fall_through(next);
        self.push(LOAD_WORD, 0, 0, word.offset())
    }

    /// Masks the accumulator, then goes on to `next`.
    pub(crate) fn and(&mut self, mask: u32, next: Target) -> Target {
        self.fall_through(next);
        self.push(AND, 0, 0, mask)
    }

    /// Compares the accumulator with `operand` and goes to one of two targets.
    pub(crate) fn branch(&mut self, compare: Compare, operand: u32, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        // Each target that is out of a jump's reach gets a stepping stone right after the comparison. The second stone moves the
        // first by one only, so it is enough to settle both once and count afterwards.
        let yes = self.within(yes, 254);
        let no = self.within(no, 255);
        let jt = self.distance(yes);
        let jf = self.distance(no);
        self.push(compare.code(), jt as u8, jf as u8, operand)
    }

    /// Makes `target` the next instruction.
    fn fall_through(&mut self, target: Target) {
        match target {
            Target::At(label) if self.distance(label) == 0 => {}
            Target::At(label) => {
                let distance = self.distance(label);
                self.push(JUMP, 0, 0, distance as u32);
            }
            Target::Return(value) => {
                self.write_return(value);
            }
        }
    }

    /// A label for `target` at most `reach` instructions after the next one written.
    fn within(&mut self, target: Target, reach: usize) -> Label {
        match target {
            Target::At(label) if self.distance(label) <= reach => label,
            Target::At(label) => {
                let distance = self.distance(label);
                self.push(JUMP, 0, 0, distance as u32);
                Label(self.reversed.len() - 1)
            }
            Target::Return(value) => match self.returns.iter().find(|(v, _)| *v == value) {
                Some((_, label)) if self.distance(*label) <= reach => *label,
                _ => self.write_return(value),
            },
        }
    }

    fn write_return(&mut self, value: u32) -> Label {
        self.push(RETURN, 0, 0, value);
        let label = Label(self.reversed.len() - 1);
        match self.returns.iter_mut().find(|(v, _)| *v == value) {
            Some(entry) => entry.1 = label,
            None => self.returns.push((value, label)),
        }
        label
    }

    /// How many instructions the next one written would skip to reach `label`.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - 1 - label.0
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Target {
        self.reversed.push(Instruction { code, jt, jf, k });
        Target::At(Label(self.reversed.len() - 1))
    }
}

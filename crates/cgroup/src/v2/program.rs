//! Device rules in version 2: a small eBPF program that the kernel asks before each access (bpf(2), `BPF_PROG_TYPE_CGROUP_DEVICE`).

use sys::bpf::Instruction;

use crate::devices::{Access, Kind, Rule};

// Registers. The program starts with its context in the first.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// Operations on the low 32 bits of registers.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_EQUAL: u8 = 0x16;
const JUMP_NOT_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

/// The program for `rules`: the last rule that matches decides, for each kind of access on its own; what none matches is denied.
///
/// It goes through the rules from the last to the first, with the accesses still undecided in a register.
pub(crate) fn assemble(rules: &[Rule]) -> Vec<Instruction> {
    // struct bpf_cgroup_dev_ctx { __u32 access_type; __u32 major; __u32 minor; } with access_type = access << 16 | kind.
    let mut program = vec![
        load(KIND, 0),
        register(MOVE_REGISTER, WANTED, KIND),
        immediate(AND, KIND, 0xffff),
        immediate(SHIFT_RIGHT, WANTED, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    program.extend(unless_zero(WANTED, true));
    for rule in rules.iter().rev() {
        program.extend(assemble_rule(rule));
        if rule.is_everything() {
            // Whatever followed could not be reached, and the verifier rejects such code.
            return program;
        }
    }
    program.extend(answer(false));
    program
}

fn assemble_rule(rule: &Rule) -> Vec<Instruction> {
    let decide = if rule.access == Access::ALL {
        answer(rule.allow).to_vec()
    } else if rule.allow {
        let mut decide = vec![immediate(AND, WANTED, i32::from(!rule.access.0 & Access::ALL.0))];
        decide.extend(unless_zero(WANTED, true));
        decide
    } else {
        let mut decide = vec![
            register(MOVE_REGISTER, RESULT, WANTED),
            immediate(AND, RESULT, i32::from(rule.access.0)),
            jump(JUMP_EQUAL, RESULT, 0, 2),
        ];
        decide.extend(answer(false));
        decide
    };
    let kind = match rule.kind {
        Kind::All => None,
        Kind::Block => Some(1),
        Kind::Char => Some(2),
    };
    let tests: Vec<(u8, i32)> =
        [(KIND, kind), (MAJOR, rule.major.map(u32::cast_signed)), (MINOR, rule.minor.map(u32::cast_signed))]
            .into_iter()
            .filter_map(|(register, value)| Some((register, value?)))
            .collect();
    let mut program = Vec::with_capacity(tests.len() + decide.len());
    for (at, (register, value)) in tests.iter().enumerate() {
        let rest = tests.len() - at - 1 + decide.len();
        program.push(jump(JUMP_NOT_EQUAL, *register, *value, rest as i16));
    }
    program.extend(decide);
    program
}

/// Ends the program with `allow` if `register` is zero.
fn unless_zero(register: u8, allow: bool) -> [Instruction; 3] {
    let [result, exit] = answer(allow);
    [jump(JUMP_NOT_EQUAL, register, 0, 2), result, exit]
}

fn answer(allow: bool) -> [Instruction; 2] {
    [
        immediate(MOVE, RESULT, i32::from(allow)),
        Instruction { code: EXIT, registers: 0, offset: 0, immediate: 0 },
    ]
}

fn load(to: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: to | CONTEXT << 4, offset, immediate: 0 }
}

fn register(code: u8, to: u8, from: u8) -> Instruction {
    Instruction { code, registers: to | from << 4, offset: 0, immediate: 0 }
}

fn immediate(code: u8, to: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: to, offset: 0, immediate }
}

fn jump(code: u8, register: u8, immediate: i32, offset: i16) -> Instruction {
    Instruction { code, registers: register, offset, immediate }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::allows;
    use proptest::prelude::*;

    /// Runs a program on an access; strict about everything that the verifier would reject on the way.
    fn run(program: &[Instruction], kind: u32, wanted: u32, major: u32, minor: u32) -> bool {
        let context = [wanted << 16 | kind, major, minor];
        let mut registers: [Option<u32>; 11] = [None; 11];
        let mut at = 0usize;
        loop {
            let i = program[at];
            at += 1;
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let read = |r: usize| registers[r].expect("a register is written before it is read");
            match i.code {
                LOAD_WORD => {
                    assert_eq!((from, i.offset % 4), (1, 0));
                    registers[to] = Some(context[i.offset as usize / 4]);
                }
                MOVE => registers[to] = Some(i.immediate as u32),
                MOVE_REGISTER => registers[to] = Some(read(from)),
                AND => registers[to] = Some(read(to) & i.immediate as u32),
                SHIFT_RIGHT => registers[to] = Some(read(to) >> i.immediate),
                JUMP_EQUAL if read(to) == i.immediate as u32 => at += i.offset as usize,
                JUMP_NOT_EQUAL if read(to) != i.immediate as u32 => at += i.offset as usize,
                JUMP_EQUAL | JUMP_NOT_EQUAL => {}
                EXIT => return read(0) != 0,
                code => panic!("unknown operation {code:#x}"),
            }
        }
    }

    fn number() -> impl Strategy<Value = Option<u32>> {
        prop_oneof![Just(None), (0u32..3).prop_map(Some), Just(Some(u32::MAX))]
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let kind = prop_oneof![Just(Kind::All), Just(Kind::Block), Just(Kind::Char)];
        (any::<bool>(), kind, number(), number(), 1u8..8).prop_map(|(allow, kind, major, minor, access)| {
            Rule { allow, kind, major, minor, access: Access(access) }
        })
    }

    proptest! {
        #[test]
        fn a_program_means_what_the_rules_mean(rules in prop::collection::vec(rule(), 0..10)) {
            // As `devices::rules` does: what is before a rule about everything is left out.
            let start = rules.iter().rposition(Rule::is_everything).unwrap_or(0);
            let rules = &rules[start..];
            let program = assemble(rules);
            for (number, kind) in [(1, Kind::Block), (2, Kind::Char)] {
                for major in [0, 1, 2, 3, u32::MAX] {
                    for minor in [0, 1, 2, u32::MAX] {
                        for wanted in 0..8 {
                            prop_assert_eq!(
                                run(&program, number, u32::from(wanted), major, minor),
                                allows(rules, kind, major, minor, wanted),
                                "{:?} {}:{} {}", kind, major, minor, wanted
                            );
                        }
                    }
                }
            }
        }
    }
}

//! Reads a compiled AppArmor policy and decides by it as the kernel does (its security/apparmor/policy_unpack.c and match.c).

/// The automata of a profile: one for files, one for everything else.
pub(super) struct Compiled {
    rules: Automaton,
    files: Automaton,
}

struct Automaton {
    accept: Vec<u32>,
    base: Vec<u32>,
    default: Vec<u32>,
    next: Vec<u32>,
    check: Vec<u32>,
    classes: Option<Vec<u32>>,
}

pub(super) const EXECUTE: u32 = 1;
pub(super) const WRITE: u32 = 2;
pub(super) const READ: u32 = 4;

const SIGNAL: u8 = 10;
const PTRACE: u8 = 9;

impl Compiled {
    pub(super) fn read(policy: &[u8]) -> Compiled {
        let name = b"\x04\x06\x00aadfa\0\x06";
        let mut automata = (0..policy.len() - name.len())
            .filter(|at| policy[*at..].starts_with(name))
            .map(|at| at + name.len() + 4)
            // Tables stand at multiples of eight.
            .map(|at| Automaton::read(&policy[at.next_multiple_of(8)..]));
        let mut next = || automata.next().expect("a policy has two automata");
        Compiled { rules: next(), files: next() }
    }

    /// What may be done with the file, by its owner and by others: what both may.
    pub(super) fn file(&self, path: &str) -> u32 {
        let accept = self.files.accept[self.files.walk(1, path.as_bytes())];
        accept & (accept >> 14) & 0x7f
    }

    /// What a process may do with this signal to one with that profile (`WRITE`), and take from it (`READ`).
    pub(super) fn signal(&self, number: u8, peer: &str) -> u32 {
        self.rule(&[SIGNAL, number], peer)
    }

    pub(super) fn ptrace(&self, peer: &str) -> u32 {
        self.rule(&[PTRACE], peer)
    }

    fn rule(&self, start: &[u8], peer: &str) -> u32 {
        let state = self.rules.walk(1, start);
        assert_ne!(self.rules.walk(1, &start[..1]), 0, "the policy says nothing of class {}", start[0]);
        self.rules.accept[self.rules.walk(state, peer.as_bytes())] & 0x7f
    }
}

impl Automaton {
    fn read(bytes: &[u8]) -> Automaton {
        let number = |at: usize, width: usize| {
            bytes[at..at + width].iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
        };
        assert_eq!(number(0, 4), 0x1b5e_783d, "no automaton");
        let size = number(8, 4) as usize;
        let mut tables = vec![None; 9];
        let mut at = number(4, 4) as usize;
        while at + 12 <= size {
            let (kind, width, count) =
                (number(at, 2) as usize, number(at + 2, 2) as usize, number(at + 8, 4) as usize);
            let entries = (0..count).map(|index| number(at + 12 + index * width, width)).collect::<Vec<_>>();
            tables[kind] = Some(entries);
            at = (at + 12 + count * width).next_multiple_of(8);
        }
        let mut table = |kind: usize| tables[kind].take();
        let classes = table(5);
        let mut table = |kind| table(kind).expect("a table is missing");
        Automaton {
            accept: table(1),
            base: table(2),
            check: table(3),
            default: table(4),
            next: table(8),
            classes,
        }
    }

    fn walk(&self, start: usize, text: &[u8]) -> usize {
        text.iter().fold(start, |state, byte| self.step(state, *byte))
    }

    fn step(&self, mut state: usize, byte: u8) -> usize {
        const DIFFERENCE: u32 = 1 << 31;
        let class = self.classes.as_ref().map_or(u32::from(byte), |classes| classes[usize::from(byte)]);
        loop {
            let base = self.base[state];
            let at = ((base & 0xff_ffff) + class) as usize;
            if self.check[at] as usize == state {
                return self.next[at] as usize;
            }
            state = self.default[state] as usize;
            if base & DIFFERENCE == 0 {
                return state;
            }
        }
    }
}

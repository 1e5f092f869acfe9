//! An endless source of small word problems, to measure reasoning without downloads.
//!
//! > Mia has 3 red shells. Mia finds 4 more and then loses 2. How many shells does Mia have now?
//!
//! Two steps of arithmetic on numbers from 1 to 9, in one of three kinds of story. Training and test differ in the
//! arithmetic, not only in the text: each kind with its numbers belongs to only one [`Split`], six of seven to
//! training. So a model cannot memorise the answer to a test problem.

use super::Problem;
use engine::rng::Stream;
use ltm::data::Split;

/// Separates the problems' random numbers from all others of the same seed ("ARIT").
const SITE: u32 = 0x4152_4954;

const NAMES: [&str; 8] = ["Mia", "Finn", "Rosa", "Ivan", "Lena", "Omar", "Tara", "Hugo"];
const THINGS: [&str; 8] = ["shells", "beads", "coins", "nuts", "stamps", "cards", "pears", "keys"];

/// The kind of story and its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    kind: usize,
    a: usize,
    b: usize,
    c: usize,
}

impl Sum {
    /// All sums of a split, in a fixed order.
    fn all(split: Split) -> Vec<Self> {
        let numbers = |kind| {
            let last = if kind == 2 { 1 } else { 9 };
            (1..=9).flat_map(move |a| (1..=9).flat_map(move |b| (1..=last).map(move |c| Self { kind, a, b, c })))
        };
        // Nobody loses more than they have.
        (0..3).flat_map(numbers).filter(|s| s.split() == split && (s.kind != 0 || s.c <= s.a + s.b)).collect()
    }

    fn split(self) -> Split {
        if (5 * self.a + 3 * self.b + self.c + self.kind).is_multiple_of(7) { Split::Validation } else { Split::Train }
    }

    fn tell(self, [name, other, thing]: [&str; 3]) -> Problem {
        let Self { a, b, c, .. } = self;
        let first = a + b;
        let (story, question, second, result) = match self.kind {
            0 => (
                format!("{name} has {a} {thing}. {name} finds {b} more and then loses {c}."),
                format!("How many {thing} does {name} have now?"),
                format!("{first} - {c}"),
                first - c,
            ),
            1 => (
                format!("{name} has {a} {thing} and {other} has {b}. Then {other} buys {c} more."),
                format!("How many {thing} do they have together?"),
                format!("{first} + {c}"),
                first + c,
            ),
            _ => (
                format!("{name} has {a} {thing}. {other} has {b} more than {name}."),
                format!("How many {thing} do they have together?"),
                format!("{a} + {first}"),
                a + first,
            ),
        };
        Problem {
            question: format!("{story} {question}"),
            answer: format!("{a} + {b} = {first}\n{second} = {result}\n#### {result}"),
        }
    }
}

/// The source of problems under a seed.
#[derive(Clone, Debug)]
pub struct Arithmetic {
    stream: Stream,
    sums: Vec<Sum>,
}

impl Arithmetic {
    /// The problems of one split.
    pub fn new(seed: u64, split: Split) -> Self {
        // The splits use separate random numbers.
        Self { stream: Stream::new(seed, SITE + split as u32), sums: Sum::all(split) }
    }

    /// Problem number `index`, always the same.
    pub fn problem(&self, index: u32) -> Problem {
        let stream = self.stream.sample(index);
        let name = stream.below(0, NAMES.len());
        let other = (name + 1 + stream.below(1, NAMES.len() - 1)) % NAMES.len();
        let thing = THINGS[stream.below(2, THINGS.len())];
        self.sums[stream.below(3, self.sums.len())].tell([NAMES[name], NAMES[other], thing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reasoning::number;
    use std::collections::HashSet;

    #[test]
    fn solutions_are_right() {
        for split in [Split::Train, Split::Validation] {
            let source = Arithmetic::new(1, split);
            for index in 0..2000 {
                let problem = source.problem(index);
                let lines: Vec<&str> = problem.answer.lines().collect();
                for line in &lines[..2] {
                    let (sum, result) = line.split_once(" = ").unwrap();
                    let terms: Vec<i64> = sum.split(['+', '-']).map(|x| x.trim().parse().unwrap()).collect();
                    let value = if sum.contains('-') { terms[0] - terms[1] } else { terms[0] + terms[1] };
                    assert_eq!(value, result.parse::<i64>().unwrap(), "{problem:?}");
                }
                assert_eq!(number(&problem.answer).as_deref(), lines[1].split(" = ").nth(1));
                let longest = problem.solved().len();
                assert!(longest < 170, "{longest}");
            }
        }
    }

    #[test]
    fn no_sum_is_in_both_splits() {
        let (training, test) = (Sum::all(Split::Train), Sum::all(Split::Validation));
        assert!(test.len() > 150 && training.len() > 5 * test.len(), "{} {}", training.len(), test.len());
        let solutions =
            |split| (0..3000).map(|i| Arithmetic::new(0, split).problem(i).question).collect::<HashSet<_>>();
        assert!(solutions(Split::Train).is_disjoint(&solutions(Split::Validation)));
        assert_eq!(Arithmetic::new(3, Split::Train).problem(5), Arithmetic::new(3, Split::Train).problem(5));
        assert_ne!(Arithmetic::new(3, Split::Train).problem(5), Arithmetic::new(4, Split::Train).problem(5));
    }
}

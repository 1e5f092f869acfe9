//! The result of a check.

use engine::Error;
use std::fmt;

/// Which number of an input's gradient was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// This entry, in row-major order.
    Entry(usize),
    /// All entries at once, projected onto a random direction.
    Projection,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(i) => write!(f, "[{i}]"),
            Self::Projection => write!(f, " along a random direction"),
        }
    }
}

/// Why a comparison could not certify anything. None of these is a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The function bends sharply here: the slopes on both sides differ.
    Kink,
    /// Derivatives from different step sizes disagree, down to the smallest.
    Rough,
    /// Both numbers are below the rounding error of a numeric derivative.
    TooSmall,
    /// The function is not finite at the point or near it.
    NotFinite,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kink => "at a kink",
            Self::Rough => "too rough to differentiate numerically",
            Self::TooSmall => "too small to certify",
            Self::NotFinite => "not finite here or nearby",
        })
    }
}

/// A comparison that certified nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotChecked {
    /// Name of the input.
    pub input: String,
    /// The entry or direction.
    pub place: Place,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for NotChecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gradient of {}{}: not checked, {}", self.input, self.place, self.reason)
    }
}

/// The result of a check that found no error.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Number of successful comparisons with a numeric derivative.
    pub checked: usize,
    /// Comparisons that could not certify anything, each once.
    pub not_checked: Vec<NotChecked>,
    /// The worst relative difference among those checked.
    pub worst: f64,
    /// Inputs with at least one certified number.
    pub certified: Vec<String>,
}

impl Report {
    pub(super) fn pass(&mut self, input: &str, relative: f64) {
        self.checked += 1;
        self.worst = self.worst.max(relative);
        if !self.certified.iter().any(|name| name == input) {
            self.certified.push(input.to_string());
        }
    }

    pub(super) fn skip(&mut self, input: &str, place: Place, reason: Reason) {
        let known = |n: &NotChecked| n.input == input && n.place == place && n.reason == reason;
        if !self.not_checked.iter().any(known) {
            self.not_checked.push(NotChecked { input: input.to_string(), place, reason });
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} checked, worst relative difference {:.1e}", self.checked, self.worst)?;
        for n in &self.not_checked {
            write!(f, "\n{n}")?;
        }
        Ok(())
    }
}

/// What a gradient was compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Central differences.
    Numeric,
    /// The previous content of the buffer plus the gradient, for an added gradient.
    Added,
    /// The gradient with other wants for the other inputs, or with another plan: the bits must be the same.
    SameBits,
    /// The result's gradient, which the op claims to pass through.
    PassedThrough,
    /// Separate forward and VJP: the fused pass must give the same numbers.
    Fused,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Numeric => "central differences",
            Self::Added => "the previous content plus the gradient",
            Self::SameBits => "the same gradient computed with other wants or another plan",
            Self::PassedThrough => "the result's gradient, which the op claims to pass through",
            Self::Fused => "separate forward and backward passes",
        })
    }
}

/// A gradient that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// Name of the op or function.
    pub op: String,
    /// Name of the input.
    pub input: String,
    /// The place of its worst number.
    pub place: Place,
    /// The gradient's value there.
    pub claimed: f64,
    /// The expected value.
    pub expected: f64,
    /// The source of the expected value.
    pub check: Check,
    /// The inputs whose gradients were wanted together.
    pub wanted: Vec<String>,
    /// The seed that reproduces it ([`Options::seed`](super::Options)).
    pub seed: u64,
}

/// A gradient's worst number: its place, the claimed value, and the expected value.
pub(super) type Worst = (Place, f64, f64);

impl Wrong {
    /// Fails if there is a worst number.
    pub(super) fn refuse(
        op: &str,
        input: &str,
        wanted: &[&str],
        check: Check,
        worst: Option<Worst>,
        seed: u64,
    ) -> Result<(), Failure> {
        let Some((place, claimed, expected)) = worst else { return Ok(()) };
        let wanted = wanted.iter().map(ToString::to_string).collect();
        let (op, input) = (op.to_string(), input.to_string());
        Err(Failure::Wrong(Box::new(Self { op, input, place, claimed, expected, check, wanted, seed })))
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, input, place, claimed, expected, check, wanted, seed } = self;
        let wanted = wanted.join(", ");
        write!(f, "{op}: gradient of {input}{place} is {claimed:.9e}, should be {expected:.9e} by {check}")?;
        write!(f, " (wanted: {wanted}; seed {seed})")
    }
}

/// Why a check did not succeed.
#[derive(Clone, Debug)]
pub enum Failure {
    /// A gradient is wrong.
    Wrong(Box<Wrong>),
    /// There is nothing to check: the op refuses the inputs, or they are not f64.
    Refused(Error),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Refused(e)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(wrong) => wrong.fmt(f),
            Self::Refused(e) => write!(f, "the check was refused: {e}"),
        }
    }
}

impl std::error::Error for Failure {}

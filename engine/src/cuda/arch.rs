use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// What a GPU's code is compiled for: its compute capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arch {
    major: u32,
    minor: u32,
}

impl Arch {
    /// The oldest that the kernels run on: bf16 on the tensor cores, copies in the background.
    pub const OLDEST: Self = Self { major: 8, minor: 0 };

    /// What a file of compiled kernels holds unless told otherwise: A100 and the later ones of its kind, H100 and H200, and
    /// both kinds of Blackwell.
    pub const USUAL: [Self; 4] =
        [Self::OLDEST, Self { major: 9, minor: 0 }, Self { major: 10, minor: 0 }, Self { major: 12, minor: 0 }];

    /// From a compute capability.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// The compilers' number for it. 9.0 has instructions of its own that no later GPU has: `90a`.
    pub(crate) fn number(self) -> String {
        let suffix = if self == Self::new(9, 0) { "a" } else { "" };
        format!("{}{}{suffix}", self.major, self.minor)
    }

    /// Major and minor.
    pub(crate) fn capability(self) -> [u32; 2] {
        [self.major, self.minor]
    }

    /// Whether code that was compiled for `code` runs on it.
    pub fn runs(self, code: Self) -> bool {
        self.major == code.major && self.minor >= code.minor
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}", self.number())
    }
}

impl FromStr for Arch {
    type Err = Error;

    /// `sm_90a`, `90a` or `90`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::usage(format!("'{text}' is no GPU architecture, as sm_80, sm_90a and sm_120 are"));
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.strip_prefix("sm_").unwrap_or(&lower);
        let number: u32 = digits.strip_suffix('a').unwrap_or(digits).parse().map_err(|_| wrong())?;
        let arch = Self::new(number / 10, number % 10);
        let spelt = [arch.number(), number.to_string()];
        if !spelt.contains(&digits.to_string()) {
            return Err(wrong());
        }
        if arch < Self::OLDEST {
            let oldest = Self::OLDEST;
            return Err(Error::usage(format!("'{text}' is too old: bf16 needs {oldest} (A100, RTX 30) or later")));
        }
        Ok(arch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (text, name) in
            [("80", "sm_80"), ("sm_90", "sm_90a"), ("90a", "sm_90a"), ("sm_100", "sm_100"), (" SM_120", "sm_120")]
        {
            assert_eq!(text.parse::<Arch>().expect(text).to_string(), name);
        }
        for text in ["", "sm_", "75", "80a", "9.0", "+90", "090", "hopper"] {
            assert!(text.parse::<Arch>().is_err(), "{text}");
        }
    }

    #[test]
    fn code_runs_on_its_kind() {
        let runs = |gpu: (u32, u32), code: (u32, u32)| Arch::new(gpu.0, gpu.1).runs(Arch::new(code.0, code.1));
        assert!(runs((8, 0), (8, 0)) && runs((8, 9), (8, 0)) && runs((9, 0), (9, 0)));
        assert!(!runs((8, 0), (8, 6)) && !runs((9, 0), (8, 0)) && !runs((10, 0), (9, 0)));
    }
}
